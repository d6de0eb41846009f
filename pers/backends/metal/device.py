"""The port of sharing, over Metal."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from pers.backends.metal._objc import Metal
from pers.backends.metal.event import MetalEvent, import_event
from pers.backends.metal.surfaces import (
    SURFACE_FORMATS,
    check_surface,
    check_texture,
    create_surface,
)
from pers.backends.metal.texture import MetalTexture
from pers.backends.metal.work import Work
from pers.errors import (
    InvalidTextureHandleError,
    MetalApiError,
    MetalInitializationError,
    OperationNotSupportedError,
    PersError,
)
from pers.graphics.types import TextureDescriptor
from pers.sharing.capabilities import ShareCapabilities
from pers.sharing.handles import (
    BufferHandle,
    EventHandle,
    FenceHandle,
    MetalEventHandle,
    MetalTextureHandle,
    SemaphoreHandle,
    SemaphoreKind,
    TextureHandle,
)
from pers.sharing.native import NativeShareDevice
from pers.textures import TextureFormat, TextureUsage

__all__ = ["MetalShareDevice"]

REASONS = (
    "no Metal hardware has run this backend: it is tested against a stand-in only",
    "no semaphores or fences: a MTLSharedEvent crosses processes through XPC only; "
    "within a process, use create_event",
    "no buffers: an IOSurface is shared as a texture; use pers.HostTextureShareManager",
    "no exclusion and no signal_texture_ready between processes: a handle is a number, "
    "without a control page",
)


class MetalShareDevice(NativeShareDevice):
    """The Mac's default GPU.

    Args:
        metal: Apple's calls.
        system_wide: Whether other processes find the surfaces by their numbers.
        timeout_ns: How long the CPU waits for the GPU at most, in nanoseconds.

    Raises:
        MetalInitializationError: There is no GPU, or a texture does not come back as it went in.
    """

    def __init__(self, metal: Metal, *, system_wide: bool, timeout_ns: int) -> None:
        self._metal = metal
        self._system_wide = system_wide
        self._device: Any = metal.system_device()
        if self._device is None:
            raise MetalInitializationError(
                "this Mac has no GPU with Metal (MTLCreateSystemDefaultDevice returned nothing); "
                "use pers.HostTextureShareManager"
            )
        self.work = Work(metal, self._device, timeout_ns)
        self._capabilities = ShareCapabilities(
            backend="metal",
            device=metal.device_name(self._device),
            zero_copy=True,
            handle_type="io_surface",
            formats=frozenset(SURFACE_FORMATS),
            hand_over="cpu",
            reasons=REASONS,
        )
        self._probe()

    @property
    def capabilities(self) -> ShareCapabilities:
        return self._capabilities

    def _probe(self) -> None:
        """Share a few pixels with oneself: what is advertised need not work."""
        usage = TextureUsage.TEXTURE_BINDING
        descriptor = TextureDescriptor(3, 2, TextureFormat.RGBA8_UNORM, usage, "probe")
        sent = np.arange(1, 25, dtype=np.uint8)
        found = np.zeros_like(sent)
        try:
            made = self.create_texture(descriptor)
            made.upload(sent, 0, 0)
            handle = MetalTextureHandle(made.surface_id)
            self.import_texture(handle, descriptor).download(found, 0, 0)
        except PersError as error:
            raise MetalInitializationError(
                f"{self._capabilities.device} does not share textures: {error}; "
                "use pers.HostTextureShareManager"
            ) from error
        if not np.array_equal(found, sent):
            raise MetalInitializationError(
                f"{self._capabilities.device} shares textures, but other pixels come back; "
                "use pers.HostTextureShareManager"
            )

    def create_texture(self, descriptor: TextureDescriptor) -> MetalTexture:
        check_texture(descriptor)
        surface = create_surface(
            self._metal, self._device, descriptor, system_wide=self._system_wide
        )
        texture = MetalTexture(self._metal, self._device, self.work, surface, descriptor)
        texture.clear()
        return texture

    def import_texture(self, handle: TextureHandle, descriptor: TextureDescriptor) -> MetalTexture:
        check_texture(descriptor)
        if not isinstance(handle, MetalTextureHandle):
            raise InvalidTextureHandleError(
                f"the Metal backend takes a MetalTextureHandle, not {handle!r}; "
                "import it with a manager of the backend that exported it"
            )
        number = handle.io_surface_id
        surface = self._metal.find_surface(number) if 0 < number < 2**32 else None
        if surface is None:
            raise InvalidTextureHandleError(
                f"texture {descriptor.label!r}: there is no IOSurface {number}; the side that "
                "exported it has to keep it open until it is imported, and to have made it with "
                "system_wide=True when that is another process"
            )
        check_surface(self._metal, surface, descriptor)
        return MetalTexture(self._metal, self._device, self.work, surface, descriptor)

    def create_event(self) -> MetalEvent:
        event = self._metal.new_event(self._device)
        if event is None:
            raise MetalApiError("newSharedEvent returned nothing; close events that are not needed")
        return MetalEvent(self._metal, event)

    def import_event(self, handle: EventHandle | MetalEventHandle) -> MetalEvent:
        if not isinstance(handle, MetalEventHandle):
            raise InvalidTextureHandleError(
                f"the Metal backend takes a MetalEventHandle, not {handle!r}; "
                "import it with a manager of the backend that exported it"
            )
        return import_event(self._metal, self._device, handle)

    # --- What Metal cannot share ------------------------------------------------------------------

    def create_buffer(self, size: int, label: str) -> NoReturn:
        raise _not_shared("buffers", "use a HostTextureShareManager for them")

    def import_buffer(self, handle: BufferHandle, label: str) -> NoReturn:
        raise _not_shared("buffers", "use a HostTextureShareManager for them")

    def create_semaphore(self, kind: SemaphoreKind) -> NoReturn:
        raise _not_shared("semaphores", "use create_event within this process")

    def import_semaphore(self, handle: SemaphoreHandle) -> NoReturn:
        raise _not_shared("semaphores", "use create_event within this process")

    def create_fence(self) -> NoReturn:
        raise _not_shared("fences", "end the access without a signal, which waits for the GPU")

    def import_fence(self, handle: FenceHandle) -> NoReturn:
        raise _not_shared("fences", "end the access without a signal, which waits for the GPU")

    def close(self) -> None:
        self._device = None  # command buffers under way keep what they need


def _not_shared(what: str, remedy: str) -> OperationNotSupportedError:
    return OperationNotSupportedError(f"the metal backend cannot share {what}; {remedy}")
