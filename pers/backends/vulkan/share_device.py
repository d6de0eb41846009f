"""The port of `pers.sharing` on Vulkan."""

from __future__ import annotations

import weakref

from pers._checks import of_type, whole_number
from pers.backends.vulkan._exit import watch
from pers.backends.vulkan.buffer import VulkanBuffer, create_buffer, import_buffer
from pers.backends.vulkan.device import Gpu
from pers.backends.vulkan.image import VulkanImage, create_image, import_image
from pers.backends.vulkan.probing import probe
from pers.backends.vulkan.resource import Sharing
from pers.backends.vulkan.sync import VulkanFence, VulkanSemaphore, VulkanTimeline
from pers.errors import InvalidTextureHandleError, OperationNotSupportedError
from pers.graphics.types import TextureDescriptor
from pers.sharing.capabilities import ShareCapabilities
from pers.sharing.handles import (
    BufferHandle,
    FenceHandle,
    SemaphoreHandle,
    SemaphoreKind,
    TextureHandle,
)
from pers.sharing.native import NativeShareDevice

__all__ = ["VulkanShareDevice"]


class VulkanShareDevice(NativeShareDevice):
    """A GPU of its own, through the package `vulkan`. It is thread-safe.

    Args:
        device: Part of the GPU's name, or its device UUID in hexadecimal; None takes the best.
        timeout_ns: How long the CPU waits for the GPU, in nanoseconds.

    Raises:
        VulkanInitializationError: There is no Vulkan, no such GPU, or it cannot share memory.
    """

    def __init__(self, device: str | None = None, timeout_ns: int = 10_000_000_000) -> None:
        timeout_ns = whole_number(timeout_ns, "timeout_ns")
        if device is not None:
            of_type(device, str, "VulkanTextureShareManager's device")
        gpu = Gpu(device, timeout_ns)
        self.gpu = gpu
        """The device itself, for commands of one's own; take `gpu.work.lock` to submit."""
        self._sharing = Sharing(gpu, timeout_ns)
        gpu.register(self._sharing.staging)
        self._capabilities: ShareCapabilities | None = None
        self._finalizer = weakref.finalize(self, gpu.close)
        watch()

    @property
    def capabilities(self) -> ShareCapabilities:
        if self._capabilities is None:
            with self.gpu.in_use():
                self._capabilities = probe(self._sharing)
        return self._capabilities

    def create_texture(self, descriptor: TextureDescriptor) -> VulkanImage:
        with self.gpu.in_use():
            return create_image(self._sharing, descriptor)

    def import_texture(self, handle: TextureHandle, descriptor: TextureDescriptor) -> VulkanImage:
        with self.gpu.in_use():
            return import_image(self._sharing, handle, descriptor)

    def create_buffer(self, size: int, label: str) -> VulkanBuffer:
        with self.gpu.in_use():
            return create_buffer(self._sharing, size, label)

    def import_buffer(self, handle: BufferHandle, label: str) -> VulkanBuffer:
        with self.gpu.in_use():
            return import_buffer(self._sharing, handle, label)

    def create_semaphore(self, kind: SemaphoreKind) -> VulkanSemaphore | VulkanTimeline:
        self._check_kind(kind)
        with self.gpu.in_use():
            return VulkanTimeline(self.gpu) if kind == "timeline" else VulkanSemaphore(self.gpu)

    def import_semaphore(self, handle: SemaphoreHandle) -> VulkanSemaphore | VulkanTimeline:
        self._check_origin(handle)
        self._check_kind(handle.kind)
        kind = VulkanTimeline if handle.kind == "timeline" else VulkanSemaphore
        with self.gpu.in_use():
            return kind(self.gpu, handle)

    def create_fence(self) -> VulkanFence:
        self._check_fences()
        with self.gpu.in_use():
            return VulkanFence(self.gpu)

    def import_fence(self, handle: FenceHandle) -> VulkanFence:
        self._check_origin(handle)
        self._check_fences()
        with self.gpu.in_use():
            return VulkanFence(self.gpu, handle)

    def close(self) -> None:
        self._finalizer()

    def _check_origin(self, handle: SemaphoreHandle | FenceHandle) -> None:
        self.gpu.check_open()
        if handle.backend != "vulkan":
            raise InvalidTextureHandleError(
                f"the handle comes from the {handle.backend} backend; import it with a manager of "
                "that backend"
            )
        self.gpu.check_origin(handle.device_uuid, handle.driver_uuid)

    # Asking a driver all the same for what it cannot export may crash it.
    def _check_kind(self, kind: SemaphoreKind) -> None:
        if kind not in self.capabilities.semaphores:
            raise OperationNotSupportedError(
                f"{self.gpu.physical.name!r} cannot share {kind} semaphores; `capabilities` "
                "lists what it can, and says why"
            )

    def _check_fences(self) -> None:
        if not self.capabilities.fences:
            raise OperationNotSupportedError(
                f"{self.gpu.physical.name!r} cannot share fences; `capabilities` says why"
            )
