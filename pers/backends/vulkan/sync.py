"""Semaphores and fences that other processes can open."""

from __future__ import annotations

import functools
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

from pers.backends.vulkan._exit import is_leaving
from pers.backends.vulkan._ffi import NULL, check, ffi, struct, vk
from pers.backends.vulkan.device import Gpu
from pers.backends.vulkan.external import FdHandles
from pers.backends.vulkan.submission import WaitPoint, wait_in_slices
from pers.errors import (
    InvalidTextureHandleError,
    OperationNotSupportedError,
    TextureAccessError,
    VulkanApiError,
)
from pers.sharing.handles import FenceHandle, OwnedFd, SemaphoreHandle, SemaphoreKind
from pers.sharing.native import NativeCounter, NativeFence, NativePoint, NativeSemaphore

__all__ = [
    "Payload",
    "VulkanFence",
    "VulkanSemaphore",
    "VulkanTimeline",
    "fences_can_be_shared",
    "hold",
    "point_of",
    "semaphores_can_be_shared",
]

SEMAPHORE_FD = vk.VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_OPAQUE_FD_BIT
FENCE_FD = vk.VK_EXTERNAL_FENCE_HANDLE_TYPE_OPAQUE_FD_BIT


def semaphores_can_be_shared(gpu: Gpu, kind: SemaphoreKind) -> bool:
    """Ask the driver. To make an exportable one where it says no can crash the driver."""
    if FdHandles.semaphore_extension not in gpu.extensions:
        return False
    info = struct(
        "VkPhysicalDeviceExternalSemaphoreInfo",
        pNext=_semaphore_type(kind),
        handleType=SEMAPHORE_FD,
    )
    out = struct("VkExternalSemaphoreProperties")
    gpu.instance_fn.vkGetPhysicalDeviceExternalSemaphoreProperties(gpu.physical.handle, info, out)
    needed = (
        vk.VK_EXTERNAL_SEMAPHORE_FEATURE_EXPORTABLE_BIT
        | vk.VK_EXTERNAL_SEMAPHORE_FEATURE_IMPORTABLE_BIT
    )
    return bool(out.externalSemaphoreFeatures & needed == needed)


def fences_can_be_shared(gpu: Gpu) -> bool:
    """Ask the driver.

    Only opaque descriptors will do: a sync file can be made of a fence that is on its way to be
    signalled, and of no other, while these are exported before they are used.
    """
    if FdHandles.fence_extension not in gpu.extensions:
        return False
    info = struct("VkPhysicalDeviceExternalFenceInfo", handleType=FENCE_FD)
    out = struct("VkExternalFenceProperties")
    gpu.instance_fn.vkGetPhysicalDeviceExternalFenceProperties(gpu.physical.handle, info, out)
    needed = (
        vk.VK_EXTERNAL_FENCE_FEATURE_EXPORTABLE_BIT | vk.VK_EXTERNAL_FENCE_FEATURE_IMPORTABLE_BIT
    )
    return bool(out.externalFenceFeatures & needed == needed)


def _semaphore_type(kind: SemaphoreKind, chain: Any = NULL) -> Any:
    return struct(
        "VkSemaphoreTypeCreateInfo",
        pNext=chain,
        semaphoreType=vk.VK_SEMAPHORE_TYPE_TIMELINE
        if kind == "timeline"
        else vk.VK_SEMAPHORE_TYPE_BINARY,
    )


def _descriptors(gpu: Gpu) -> FdHandles:
    external = gpu.external
    if not isinstance(external, FdHandles):
        raise OperationNotSupportedError("semaphores and fences are shared as file descriptors")
    return external


class Payload:
    """A Vulkan object that is destroyed when the GPU is done with it."""

    _destroyer = "vkDestroySemaphore"

    def __init__(self, gpu: Gpu, handle: Any) -> None:
        self._gpu = gpu
        self.handle = handle
        self._lock = threading.RLock()
        self._users = 0
        self._destroyed = False
        gpu.register(self)

    @property
    def native_handle(self) -> Any:
        return self.handle

    def hold(self) -> None:
        """Keep the object until `let_go`, although somebody may destroy it."""
        with self._lock:
            if self._destroyed:
                raise TextureAccessError("the semaphore or fence was closed; make another one")
            self._users += 1

    def let_go(self) -> None:
        """Take one `hold` back; what is submitted by now may still use it."""
        with self._lock:
            self._users -= 1
            if self._destroyed and not self._users:
                self._free()

    @contextmanager
    def _in_use(self) -> Generator[None]:
        """Keep the object and its device for the length of a call."""
        with self._gpu.in_use():
            self.hold()
            try:
                yield
            finally:
                self.let_go()

    def destroy(self) -> None:
        with self._lock:
            if self._destroyed or is_leaving():
                return
            self._destroyed = True
            if not self._users:
                self._free()

    def _free(self) -> None:
        destroy = functools.partial(getattr(self._gpu.fn, self._destroyer), self._gpu.handle)
        self._gpu.work.retire(functools.partial(destroy, self.handle, NULL))
        self._gpu.work.collect()

    def __del__(self) -> None:
        if hasattr(self, "_destroyed"):
            self.destroy()


def _make_semaphore(gpu: Gpu, kind: SemaphoreKind, handle: SemaphoreHandle | None) -> Any:
    """Return a new exportable semaphore, or one that opens a handle."""
    chain = NULL
    if handle is None:
        chain = struct("VkExportSemaphoreCreateInfo", handleTypes=SEMAPHORE_FD)
    info = struct("VkSemaphoreCreateInfo", pNext=_semaphore_type(kind, chain))
    out = ffi.new("VkSemaphore *")
    gpu.fn.call("vkCreateSemaphore", gpu.handle, info, NULL, out)
    if handle is not None:
        try:
            _import(_descriptors(gpu).import_semaphore, out[0], handle.fd, "semaphore")
        except BaseException:
            gpu.fn.vkDestroySemaphore(gpu.handle, out[0], NULL)
            raise
    return out[0]


def _import(importer: Any, target: Any, fd: OwnedFd, what: str) -> None:
    try:
        importer(target, fd.fileno())
    except (VulkanApiError, OSError) as error:
        raise InvalidTextureHandleError(
            f"the handle's file descriptor is no {what} of this driver ({error}); "
            "the other side must send the handle that it exported"
        ) from error


class VulkanSemaphore(Payload, NativeSemaphore):
    """A binary semaphore.

    Args:
        gpu: Where to make it.
        handle: What to open; None makes a new one.
    """

    def __init__(self, gpu: Gpu, handle: SemaphoreHandle | None = None) -> None:
        super().__init__(gpu, _make_semaphore(gpu, "binary", handle))

    def export(self) -> SemaphoreHandle:
        with self._in_use():
            return _export_semaphore(self._gpu, self.handle, "binary")


class VulkanTimeline(Payload, NativeCounter[SemaphoreHandle]):
    """A timeline semaphore.

    Args:
        gpu: Where to make it.
        handle: What to open; None makes a new one.
    """

    def __init__(self, gpu: Gpu, handle: SemaphoreHandle | None = None) -> None:
        super().__init__(gpu, _make_semaphore(gpu, "timeline", handle))

    def export(self) -> SemaphoreHandle:
        with self._in_use():
            return _export_semaphore(self._gpu, self.handle, "timeline")

    @property
    def value(self) -> int:
        out = ffi.new("uint64_t *")
        gpu = self._gpu
        with self._in_use():
            gpu.fn.call("vkGetSemaphoreCounterValue", gpu.handle, self.handle, out)
        return int(out[0])

    def signal(self, value: int) -> None:
        info = struct("VkSemaphoreSignalInfo", semaphore=self.handle, value=value)
        with self._in_use():
            self._gpu.fn.call("vkSignalSemaphore", self._gpu.handle, info)

    def wait(self, value: int, timeout_ns: int) -> bool:
        gpu = self._gpu
        info = struct(
            "VkSemaphoreWaitInfo", semaphoreCount=1, pSemaphores=[self.handle], pValues=[value]
        )
        with self._in_use():
            return wait_in_slices(
                lambda slice_ns: gpu.fn.call("vkWaitSemaphores", gpu.handle, info, slice_ns),
                timeout_ns,
            )


def _export_semaphore(gpu: Gpu, semaphore: Any, kind: SemaphoreKind) -> SemaphoreHandle:
    fd = OwnedFd(_descriptors(gpu).export_semaphore(semaphore))
    own = gpu.physical
    return SemaphoreHandle("vulkan", kind, fd, own.device_uuid, own.driver_uuid)


class VulkanFence(Payload, NativeFence):
    """A fence.

    Args:
        gpu: Where to make it.
        handle: What to open; None makes a new one.
    """

    _destroyer = "vkDestroyFence"

    def __init__(self, gpu: Gpu, handle: FenceHandle | None = None) -> None:
        chain = NULL
        if handle is None:
            chain = struct("VkExportFenceCreateInfo", handleTypes=FENCE_FD)
        out = ffi.new("VkFence *")
        info = struct("VkFenceCreateInfo", pNext=chain)
        gpu.fn.call("vkCreateFence", gpu.handle, info, NULL, out)
        if handle is not None:
            try:
                _import(_descriptors(gpu).import_fence, out[0], handle.fd, "fence")
            except BaseException:
                gpu.fn.vkDestroyFence(gpu.handle, out[0], NULL)
                raise
        self._array = ffi.new("VkFence[]", [out[0]])
        super().__init__(gpu, out[0])

    def export(self) -> FenceHandle:
        with self._in_use():
            fd = OwnedFd(_descriptors(self._gpu).export_fence(self.handle))
        own = self._gpu.physical
        return FenceHandle("vulkan", fd, own.device_uuid, own.driver_uuid)

    @property
    def is_signaled(self) -> bool:
        with self._in_use():
            result = self._gpu.fn.vkGetFenceStatus(self._gpu.handle, self.handle)
        return bool(check(result, "vkGetFenceStatus") == vk.VK_SUCCESS)

    def wait(self, timeout_ns: int) -> bool:
        gpu = self._gpu
        with self._in_use():
            return wait_in_slices(
                lambda slice_ns: gpu.fn.call(
                    "vkWaitForFences", gpu.handle, 1, self._array, 1, slice_ns
                ),
                timeout_ns,
            )

    def reset(self) -> None:
        with self._in_use():
            self._gpu.fn.call("vkResetFences", self._gpu.handle, 1, self._array)


def hold(points: Sequence[NativePoint]) -> list[Payload]:
    """Keep semaphores and fences until they are submitted; `let_go` of each then."""
    held: list[Payload] = []
    try:
        for payload, _ in points:
            assert isinstance(payload, Payload), payload
            payload.hold()
            held.append(payload)
    except BaseException:
        for one in held:
            one.let_go()
        raise
    return held


def point_of(point: NativePoint) -> WaitPoint:
    """Return a semaphore and its value as a submission takes them."""
    signalled, value = point
    assert isinstance(signalled, (VulkanSemaphore, VulkanTimeline)), signalled
    return signalled.handle, value or 0
