"""The port of sharing, over shared memory: textures and buffers are bytes, the GPU is the CPU."""

from __future__ import annotations

import mmap
import time
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from pers._checks import whole_number
from pers.backends.host.sync import HAS_BINARY, HostBinary, HostEvent, HostFence, HostTimeline
from pers.errors import (
    InvalidTextureHandleError,
    OutOfMemoryError,
    TextureAccessError,
    WaitTimeoutError,
)
from pers.graphics.types import TextureDescriptor
from pers.sharing.capabilities import ShareCapabilities
from pers.sharing.control import create_memory, map_memory
from pers.sharing.handles import (
    BufferHandle,
    EventHandle,
    FenceHandle,
    HostBufferHandle,
    HostTextureHandle,
    MetalEventHandle,
    OwnedFd,
    SemaphoreHandle,
    SemaphoreKind,
    TextureHandle,
)
from pers.sharing.native import (
    NativeBuffer,
    NativeCounter,
    NativeFence,
    NativePoint,
    NativeResource,
    NativeSemaphore,
    NativeShareDevice,
    NativeTexture,
)
from pers.textures import TextureFormat

__all__ = ["HostBuffer", "HostShareDevice", "HostTexture"]

T = TypeVar("T")

ALIGNMENT = 64
"""Layers start at multiples of this many bytes: a cache line."""


class _HostMemory(NativeResource):
    """Shared memory; what waits and signals is the CPU."""

    def __init__(self, fd: OwnedFd, size: int, timeout_ns: int, what: str) -> None:
        self._fd = fd
        self._size = size
        self._timeout_ns = timeout_ns
        self._what = what
        self._map: mmap.mmap | None = map_memory(fd, size)

    @property
    def native_handle(self) -> mmap.mmap:
        assert self._map is not None
        return self._map

    def bytes(self, offset: int, size: int) -> npt.NDArray[np.uint8]:
        """Return a part of the memory itself."""
        return np.frombuffer(self.native_handle, np.uint8, size, offset)

    def wait_first(self, waits: Sequence[NativePoint]) -> None:
        _check_open(waits)
        end = time.monotonic_ns() + self._timeout_ns
        done: list[NativePoint] = []
        try:
            for point in waits:
                self._wait_for(point, max(0, end - time.monotonic_ns()))
                done.append(point)
        except BaseException:
            self.give_back(done)
            raise

    def give_back(self, waits: Sequence[NativePoint]) -> None:
        for semaphore, _ in waits:
            if isinstance(semaphore, HostBinary):  # counters stay where they are
                semaphore.give_back()

    def acquire(self, waits: Sequence[NativePoint], *, write: bool) -> None:
        pass  # the CPU has waited

    def release(self, signals: Sequence[NativePoint]) -> None:
        self.signal(signals)

    def wait(self, waits: Sequence[NativePoint]) -> None:
        pass  # the CPU has waited

    def signal(self, signals: Sequence[NativePoint]) -> None:
        _check_open(signals)
        for point in signals:
            match point:
                case (HostBinary() | HostFence() as once, _):
                    once.signal()
                case (NativeCounter() as counter, int() as value):
                    counter.signal(value)
                case _:
                    raise AssertionError(point)

    def _wait_for(self, point: NativePoint, timeout_ns: int) -> None:
        match point:
            case (HostBinary() as semaphore, _):
                done = semaphore.wait(timeout_ns)
            case (NativeCounter() as counter, int() as value):
                done = counter.wait(value, timeout_ns)
            case _:
                raise AssertionError(point)
        if not done:
            raise WaitTimeoutError(
                f"{self._what}: what its access waits for was not signalled within "
                f"{self._timeout_ns / 1e9:g} s; see that the other side signals it"
            )

    def finish(self) -> None:
        pass  # the CPU is done when its calls return

    def destroy(self) -> None:
        self._fd.close()
        self._map = None  # views of it keep the memory until they die


def _check_open(points: Sequence[NativePoint]) -> None:
    """Refuse what somebody has closed since the access began, before anything is signalled."""
    for native, _ in points:
        if not native.native_handle.is_open:
            raise TextureAccessError("the semaphore or fence was closed; make another one")


class HostTexture(_HostMemory, NativeTexture):
    """A texture: its mip levels one after the other, each with its layers, rows without padding.

    Args:
        descriptor: What it is.
        fd: The memory, which it owns.
        timeout_ns: How long it waits for a semaphore.
    """

    def __init__(self, descriptor: TextureDescriptor, fd: OwnedFd, timeout_ns: int) -> None:
        self._places, size = layout(descriptor)
        super().__init__(fd, size, timeout_ns, f"shared texture {descriptor.label!r}")

    def export(self, control: OwnedFd) -> HostTextureHandle:
        return HostTextureHandle(self._fd.duplicate(), self._size, control)

    def upload(self, pixels: npt.NDArray[np.uint8], layer: int, mip_level: int) -> None:
        self.memory(layer, mip_level)[:] = pixels

    def download(self, out: npt.NDArray[np.uint8], layer: int, mip_level: int) -> None:
        out[:] = self.memory(layer, mip_level)

    def memory(self, layer: int, mip_level: int) -> npt.NDArray[np.uint8]:
        return self.bytes(*self._places[mip_level, layer])


def layout(descriptor: TextureDescriptor) -> tuple[dict[tuple[int, int], tuple[int, int]], int]:
    """Return offset and length of each ``(mip level, layer)`` of a texture, and all bytes."""
    places: dict[tuple[int, int], tuple[int, int]] = {}
    end = 0
    for level in range(descriptor.mip_levels):
        width, height = max(descriptor.width >> level, 1), max(descriptor.height >> level, 1)
        size = width * height * descriptor.format.bytes_per_pixel
        for layer in range(descriptor.layers):
            places[level, layer] = end, size
            end += -(-size // ALIGNMENT) * ALIGNMENT
    return places, end


class HostBuffer(_HostMemory, NativeBuffer):
    """A buffer.

    Args:
        fd: The memory, which it owns.
        size: Its length in bytes.
        timeout_ns: How long it waits for a semaphore.
        label: Its name in messages.
    """

    def __init__(self, fd: OwnedFd, size: int, timeout_ns: int, label: str) -> None:
        super().__init__(fd, size, timeout_ns, f"shared buffer {label!r}")

    @property
    def size(self) -> int:
        return self._size

    def export(self, control: OwnedFd) -> HostBufferHandle:
        return HostBufferHandle(self._fd.duplicate(), self._size, control)

    def upload(self, data: npt.NDArray[np.uint8], offset: int) -> None:
        self.bytes(offset, data.size)[:] = data

    def download(self, out: npt.NDArray[np.uint8], offset: int) -> None:
        out[:] = self.bytes(offset, out.size)

    def memory(self) -> npt.NDArray[np.uint8]:
        return self.bytes(0, self._size)


class HostShareDevice(NativeShareDevice):
    """Shared memory in the place of a GPU.

    Args:
        timeout_ns: How long an access waits for a semaphore at most, in nanoseconds.
    """

    def __init__(self, timeout_ns: int) -> None:
        self._timeout_ns = whole_number(timeout_ns, "timeout_ns")
        kinds: tuple[SemaphoreKind, ...] = ("binary", "timeline")
        self._capabilities = ShareCapabilities(
            backend="host",
            device="shared memory",
            zero_copy=False,
            handle_type="shared_memory",
            formats=frozenset(one for one in TextureFormat if one.is_copyable),
            semaphores=frozenset(kinds if HAS_BINARY else kinds[1:]),
            fences=True,
            hand_over="cpu",
            reasons=("the GPU does not see this memory: pixels are copied in and out",),
        )

    @property
    def capabilities(self) -> ShareCapabilities:
        return self._capabilities

    def create_texture(self, descriptor: TextureDescriptor) -> NativeTexture:
        _, size = layout(descriptor)
        memory = _allocate(size, f"shared texture {descriptor.label!r}")
        return HostTexture(descriptor, memory, self._timeout_ns)

    def import_texture(self, handle: TextureHandle, descriptor: TextureDescriptor) -> NativeTexture:
        own = _of_the_host(handle, HostTextureHandle)
        _, size = layout(descriptor)
        if own.size != size:
            raise InvalidTextureHandleError(
                f"texture {descriptor.label!r}: {descriptor.width}x{descriptor.height} "
                f"{descriptor.format.value} takes {size} bytes, the handle's memory {own.size}; "
                "import it with the descriptor that it was made with"
            )
        return HostTexture(descriptor, own.fd.duplicate(), self._timeout_ns)

    def create_buffer(self, size: int, label: str) -> HostBuffer:
        memory = _allocate(size, f"shared buffer {label!r}")
        return HostBuffer(memory, size, self._timeout_ns, label)

    def import_buffer(self, handle: BufferHandle, label: str) -> HostBuffer:
        own = _of_the_host(handle, HostBufferHandle)
        if own.size < 1:
            raise InvalidTextureHandleError(
                f"shared buffer {label!r}: the handle's memory has {own.size} bytes; "
                "the other side must send the handle that it exported"
            )
        return HostBuffer(own.fd.duplicate(), own.size, self._timeout_ns, label)

    def create_semaphore(
        self, kind: SemaphoreKind
    ) -> NativeSemaphore | NativeCounter[SemaphoreHandle]:
        return HostBinary() if kind == "binary" else HostTimeline()

    def import_semaphore(
        self, handle: SemaphoreHandle
    ) -> NativeSemaphore | NativeCounter[SemaphoreHandle]:
        _check_backend(handle.backend)
        return HostBinary(handle.fd) if handle.kind == "binary" else HostTimeline(handle.fd)

    def create_fence(self) -> NativeFence:
        return HostFence()

    def import_fence(self, handle: FenceHandle) -> NativeFence:
        _check_backend(handle.backend)
        return HostFence(handle.fd)

    def create_event(self) -> NativeCounter[Any]:
        return HostEvent()

    def import_event(self, handle: EventHandle | MetalEventHandle) -> NativeCounter[Any]:
        return HostEvent(_of_the_host(handle, EventHandle).fd)

    def close(self) -> None:
        pass  # nothing of its own


def _allocate(size: int, what: str) -> OwnedFd:
    try:
        return create_memory(size, "pers-shared")
    except OutOfMemoryError as error:
        raise OutOfMemoryError(f"{what}: {error}") from None


def _of_the_host(handle: object, kind: type[T]) -> T:
    if not isinstance(handle, kind):
        raise InvalidTextureHandleError(
            f"the host backend takes a {kind.__name__}, not a {type(handle).__name__}; "
            "import it with a manager of the backend that exported it"
        )
    return handle


def _check_backend(backend: str) -> None:
    if backend != "host":
        raise InvalidTextureHandleError(
            f"the host backend cannot open a handle of the {backend} backend; "
            "import it with a manager of that one"
        )
