"""The calls of Metal and IOSurface that sharing uses, and nothing else of pyobjc.

Objects of Apple's frameworks are Any: they go in and out here, and nobody else looks into them.
pyobjc spells a selector ``a:b:`` as ``a_b_``, and returns what C returns through a pointer as one
more result.
"""

from __future__ import annotations

import importlib
import platform
import sys
from typing import Any, Protocol

from pers.errors import MetalInitializationError

__all__ = ["Metal", "load_metal"]

STORAGE_MODE_MANAGED = 1  # MTLStorageModeManaged
COMMAND_BUFFER_ERROR = 5  # MTLCommandBufferStatusError


class Metal(Protocol):
    """Apple's calls, by what they do; each method names the call."""

    def system_device(self) -> Any:
        """``MTLCreateSystemDefaultDevice``: a ``MTLDevice``, or None."""
        ...

    def device_name(self, device: Any) -> str:
        """``MTLDevice.name``."""
        ...

    def linear_alignment(self, device: Any, pixel_format: int) -> int:
        """``minimumLinearTextureAlignmentForPixelFormat:``, in bytes."""
        ...

    def new_queue(self, device: Any) -> Any:
        """``newCommandQueue``: a ``MTLCommandQueue``, or None."""
        ...

    def align_bytes_per_row(self, size: int) -> int:
        """``IOSurfaceAlignProperty(kIOSurfaceBytesPerRow, size)``."""
        ...

    def create_surface(self, properties: dict[str, int | bool]) -> Any:
        """``IOSurfaceCreate``: an ``IOSurfaceRef``, or None.

        Args:
            properties: By the names of the constants, such as ``"kIOSurfaceWidth"``.
        """
        ...

    def find_surface(self, number: int) -> Any:
        """``IOSurfaceLookup``: an ``IOSurfaceRef``, or None."""
        ...

    def surface_id(self, surface: Any) -> int:
        """``IOSurfaceGetID``."""
        ...

    def surface_size(self, surface: Any) -> tuple[int, int]:
        """``IOSurfaceGetWidth`` and ``IOSurfaceGetHeight``."""
        ...

    def surface_format(self, surface: Any) -> int:
        """``IOSurfaceGetPixelFormat``: four characters, the first of them highest."""
        ...

    def surface_bytes_per_element(self, surface: Any) -> int:
        """``IOSurfaceGetBytesPerElement``."""
        ...

    def surface_bytes_per_row(self, surface: Any) -> int:
        """``IOSurfaceGetBytesPerRow``."""
        ...

    def surface_nbytes(self, surface: Any) -> int:
        """``IOSurfaceGetAllocSize``."""
        ...

    def lock(self, surface: Any, options: int) -> int:
        """``IOSurfaceLock``: 0 when it succeeds. Waits for pixels to come from the GPU's memory."""
        ...

    def unlock(self, surface: Any, options: int) -> int:
        """``IOSurfaceUnlock``, with the options of the lock: 0 when it succeeds."""
        ...

    def surface_memory(self, surface: Any, size: int) -> Any:
        """``IOSurfaceGetBaseAddress``, as a writable buffer; valid until `unlock`."""
        ...

    def new_texture(
        self, device: Any, surface: Any, size: tuple[int, int], pixel_format: int, usage: int
    ) -> Any:
        """``newTextureWithDescriptor:iosurface:plane:``: a ``MTLTexture``, or None."""
        ...

    def new_event(self, device: Any) -> Any:
        """``newSharedEvent``: a ``MTLSharedEvent``, or None."""
        ...

    def event_handle(self, event: Any) -> Any:
        """``newSharedEventHandle``."""
        ...

    def event_of_handle(self, device: Any, handle: Any) -> Any:
        """``newSharedEventWithHandle:``: a ``MTLSharedEvent``, or None."""
        ...

    def event_value(self, event: Any) -> int:
        """``signaledValue``."""
        ...

    def set_event_value(self, event: Any, value: int) -> None:
        """``setSignaledValue:``."""
        ...

    def wait_event(self, event: Any, value: int, timeout_ms: int) -> bool:
        """``waitUntilSignaledValue:timeoutMS:``."""
        ...

    def new_commands(self, queue: Any) -> Any:
        """``commandBuffer``: a ``MTLCommandBuffer``, or None."""
        ...

    def encode_wait(self, commands: Any, event: Any, value: int) -> None:
        """``encodeWaitForEvent:value:``."""
        ...

    def encode_signal(self, commands: Any, event: Any, value: int) -> None:
        """``encodeSignalEvent:value:``."""
        ...

    def commit(self, commands: Any) -> None:
        """``commit``."""
        ...

    def error_of(self, commands: Any) -> str:
        """``status`` and ``error``: what went wrong, or an empty string."""
        ...


def load_metal() -> Metal:
    """Return Apple's calls.

    Raises:
        MetalInitializationError: This is not macOS 12 or later, or pyobjc is not installed.
    """
    if sys.platform != "darwin":
        raise MetalInitializationError(
            f"Metal needs macOS, and this is {sys.platform}; on a Mac, install what it needs with "
            "pip install 'pers[metal]'. pers.open_share_manager() takes what works here"
        )
    return _load()


def _load() -> Metal:
    version = platform.mac_ver()[0]
    if int(version.partition(".")[0] or 0) < 12:  # waitUntilSignaledValue:timeoutMS:
        raise MetalInitializationError(
            f"sharing on Metal needs macOS 12 or later, and this is macOS {version}; update it, "
            "or use pers.HostTextureShareManager"
        )
    try:
        return _PyObjC()
    except ImportError as error:
        raise MetalInitializationError(
            f"Metal is reached through pyobjc, which is not complete ({error}); "
            "install it with pip install 'pers[metal]'"
        ) from error


class _PyObjC:
    """`Metal` over pyobjc.

    What a method returns autoreleased would stay until the thread ends; hence the pools.
    """

    def __init__(self) -> None:
        self._objc: Any = importlib.import_module("objc")
        self._metal: Any = importlib.import_module("Metal")
        self._surface: Any = importlib.import_module("IOSurface")

    def system_device(self) -> Any:
        return self._metal.MTLCreateSystemDefaultDevice()

    def device_name(self, device: Any) -> str:
        return str(device.name())

    def linear_alignment(self, device: Any, pixel_format: int) -> int:
        return int(device.minimumLinearTextureAlignmentForPixelFormat_(pixel_format))

    def new_queue(self, device: Any) -> Any:
        return device.newCommandQueue()

    def align_bytes_per_row(self, size: int) -> int:
        key = self._surface.kIOSurfaceBytesPerRow
        return int(self._surface.IOSurfaceAlignProperty(key, size))

    def create_surface(self, properties: dict[str, int | bool]) -> Any:
        named = {getattr(self._surface, name): value for name, value in properties.items()}
        return self._surface.IOSurfaceCreate(named)

    def find_surface(self, number: int) -> Any:
        return self._surface.IOSurfaceLookup(number)

    def surface_id(self, surface: Any) -> int:
        return int(self._surface.IOSurfaceGetID(surface))

    def surface_size(self, surface: Any) -> tuple[int, int]:
        width = self._surface.IOSurfaceGetWidth(surface)
        return int(width), int(self._surface.IOSurfaceGetHeight(surface))

    def surface_format(self, surface: Any) -> int:
        return int(self._surface.IOSurfaceGetPixelFormat(surface))

    def surface_bytes_per_element(self, surface: Any) -> int:
        return int(self._surface.IOSurfaceGetBytesPerElement(surface))

    def surface_bytes_per_row(self, surface: Any) -> int:
        return int(self._surface.IOSurfaceGetBytesPerRow(surface))

    def surface_nbytes(self, surface: Any) -> int:
        return int(self._surface.IOSurfaceGetAllocSize(surface))

    def lock(self, surface: Any, options: int) -> int:
        result, _seed = self._surface.IOSurfaceLock(surface, options, None)
        return int(result)

    def unlock(self, surface: Any, options: int) -> int:
        result, _seed = self._surface.IOSurfaceUnlock(surface, options, None)
        return int(result)

    def surface_memory(self, surface: Any, size: int) -> Any:
        return self._surface.IOSurfaceGetBaseAddress(surface).as_buffer(size)

    def new_texture(
        self, device: Any, surface: Any, size: tuple[int, int], pixel_format: int, usage: int
    ) -> Any:
        kind = self._metal.MTLTextureDescriptor
        with self._objc.autorelease_pool():
            descriptor = kind.texture2DDescriptorWithPixelFormat_width_height_mipmapped_(
                pixel_format, *size, False
            )
            descriptor.setUsage_(usage)
            descriptor.setStorageMode_(STORAGE_MODE_MANAGED)
            return device.newTextureWithDescriptor_iosurface_plane_(descriptor, surface, 0)

    def new_event(self, device: Any) -> Any:
        return device.newSharedEvent()

    def event_handle(self, event: Any) -> Any:
        return event.newSharedEventHandle()

    def event_of_handle(self, device: Any, handle: Any) -> Any:
        return device.newSharedEventWithHandle_(handle)

    def event_value(self, event: Any) -> int:
        return int(event.signaledValue())

    def set_event_value(self, event: Any, value: int) -> None:
        event.setSignaledValue_(value)

    def wait_event(self, event: Any, value: int, timeout_ms: int) -> bool:
        return bool(event.waitUntilSignaledValue_timeoutMS_(value, timeout_ms))

    def new_commands(self, queue: Any) -> Any:
        with self._objc.autorelease_pool():
            return queue.commandBuffer()

    def encode_wait(self, commands: Any, event: Any, value: int) -> None:
        commands.encodeWaitForEvent_value_(event, value)

    def encode_signal(self, commands: Any, event: Any, value: int) -> None:
        commands.encodeSignalEvent_value_(event, value)

    def commit(self, commands: Any) -> None:
        commands.commit()

    def error_of(self, commands: Any) -> str:
        if commands.status() != COMMAND_BUFFER_ERROR:
            return ""
        with self._objc.autorelease_pool():
            return str(commands.error().localizedDescription())
