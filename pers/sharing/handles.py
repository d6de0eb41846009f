"""Handles: what one process gives another so that it can open the same memory or signal.

A handle owns its file descriptors and closes them once, with `close()`, as a context manager or
when it dies. An import works on a copy of them, so that a handle can be imported several times
and nothing is closed twice.
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import Literal, NoReturn, Self, TypeAlias

import attrs

from pers.errors import InvalidTextureHandleError, OperationNotSupportedError
from pers.sharing.shortage import report_shortage

__all__ = [
    "BufferHandle",
    "EventHandle",
    "FenceHandle",
    "HostBufferHandle",
    "HostTextureHandle",
    "MetalEventHandle",
    "MetalTextureHandle",
    "OwnedFd",
    "SemaphoreHandle",
    "SemaphoreKind",
    "TextureHandle",
    "VulkanBufferHandle",
    "VulkanTextureHandle",
    "Win32TextureHandle",
]

SemaphoreKind: TypeAlias = Literal["binary", "timeline"]


class OwnedFd:
    """A file descriptor with one owner. It is close-on-exec, and closed when the owner dies.

    Args:
        number: The descriptor; this object closes it.
    """

    __slots__ = ("_number",)

    def __init__(self, number: int) -> None:
        self._number = -1
        try:
            os.set_inheritable(number, False)
        except (OSError, OverflowError, TypeError) as error:
            raise InvalidTextureHandleError(
                f"{number!r} is no open file descriptor ({error}); pass one that was received"
            ) from None
        self._number = number

    @property
    def is_open(self) -> bool:
        """Whether it has not been closed or taken."""
        return self._number >= 0

    def fileno(self) -> int:
        """Return the number; it stays owned by this object.

        Raises:
            InvalidTextureHandleError: It was closed.
        """
        if self._number < 0:
            raise InvalidTextureHandleError(
                "the handle's file descriptor is closed; export the object again"
            )
        return self._number

    def __index__(self) -> int:
        return self.fileno()

    def duplicate(self) -> OwnedFd:
        """Return another descriptor of the same thing.

        Raises:
            InvalidTextureHandleError: It was closed.
            OutOfMemoryError: The process has too many.
        """
        with report_shortage("a file descriptor cannot be copied"):
            return OwnedFd(os.dup(self.fileno()))

    def take(self) -> int:
        """Return the number and stop owning it."""
        number = self.fileno()
        self._number = -1
        return number

    def close(self) -> None:
        """Close it; the second time does nothing."""
        number, self._number = self._number, -1
        if number >= 0:
            os.close(number)

    def __del__(self) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        # A copy of the number would close what has got the same number since, here or elsewhere.
        raise OperationNotSupportedError(
            "a file descriptor is neither copied nor pickled: duplicate() makes another one, and "
            "socket.send_fds sends it to another process"
        )

    def __repr__(self) -> str:
        return f"OwnedFd({self._number})" if self.is_open else "OwnedFd(closed)"


def _to_fd(value: int | OwnedFd) -> OwnedFd:
    return value if isinstance(value, OwnedFd) else OwnedFd(value)


class _Handle:
    """What all handles have in common: descriptors to close."""

    __slots__: tuple[str, ...] = ()

    @property
    def fds(self) -> tuple[OwnedFd, ...]:
        """The descriptors, in the order in which they travel."""
        values = (getattr(self, name) for name in type(self).__slots__)
        return tuple(value for value in values if isinstance(value, OwnedFd))

    def close(self) -> None:
        """Close the descriptors, once; what was imported from them stays."""
        for fd in self.fds:
            fd.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@attrs.frozen(eq=False)
class HostTextureHandle(_Handle):
    """A texture in POSIX shared memory.

    Attributes:
        fd: The memory.
        size: Its length in bytes.
        control: The control page of the texture.
    """

    fd: OwnedFd = attrs.field(converter=_to_fd)
    size: int
    control: OwnedFd = attrs.field(converter=_to_fd)


@attrs.frozen(eq=False)
class VulkanTextureHandle(_Handle):
    """A texture in Vulkan memory, exported as a file descriptor (``VK_KHR_external_memory_fd``).

    Attributes:
        fd: The memory.
        size: Bytes allocated for it.
        memory_type: Index of the memory type it was allocated from.
        handle_type: ``VkExternalMemoryHandleTypeFlagBits`` of `fd`.
        dedicated: Whether the memory is dedicated to this one image.
        device_uuid: Of the GPU that made it, 16 bytes.
        driver_uuid: Of its driver, 16 bytes.
        layout: ``VkImageLayout`` that the image is in between accesses.
        create_flags: ``VkImageCreateFlags`` it was made with.
        image_usage: ``VkImageUsageFlags`` it was made with.
        tiling: ``VkImageTiling`` it was made with.
        control: The control page of the texture.
    """

    fd: OwnedFd = attrs.field(converter=_to_fd)
    size: int
    memory_type: int
    handle_type: int
    dedicated: bool
    device_uuid: bytes
    driver_uuid: bytes
    layout: int
    create_flags: int
    image_usage: int
    tiling: int
    control: OwnedFd = attrs.field(converter=_to_fd)


@attrs.frozen(eq=False)
class Win32TextureHandle(_Handle):
    """A texture in Vulkan memory, exported as a Windows ``HANDLE``.

    The numbers mean what they mean in `VulkanTextureHandle`.

    Attributes:
        handle: The ``HANDLE``, valid in this process.
    """

    handle: int
    size: int
    memory_type: int
    handle_type: int
    dedicated: bool
    device_uuid: bytes
    driver_uuid: bytes
    layout: int
    create_flags: int
    image_usage: int
    tiling: int


@attrs.frozen(eq=False)
class MetalTextureHandle(_Handle):
    """A texture in an ``IOSurface``.

    Attributes:
        io_surface_id: The number under which the system knows the surface.
    """

    io_surface_id: int


TextureHandle: TypeAlias = (
    HostTextureHandle | VulkanTextureHandle | Win32TextureHandle | MetalTextureHandle
)
"""A handle of any backend; a manager imports those of its own backend."""


@attrs.frozen(eq=False)
class HostBufferHandle(_Handle):
    """A buffer in POSIX shared memory.

    Attributes:
        fd: The memory.
        size: Its length in bytes.
        control: The control page of the buffer.
    """

    fd: OwnedFd = attrs.field(converter=_to_fd)
    size: int
    control: OwnedFd = attrs.field(converter=_to_fd)


@attrs.frozen(eq=False)
class VulkanBufferHandle(_Handle):
    """A buffer in Vulkan memory; the numbers mean what they mean in `VulkanTextureHandle`.

    Attributes:
        buffer_size: Bytes of the buffer itself.
        buffer_usage: ``VkBufferUsageFlags`` it was made with.
    """

    fd: OwnedFd = attrs.field(converter=_to_fd)
    size: int
    buffer_size: int
    buffer_usage: int
    memory_type: int
    handle_type: int
    dedicated: bool
    device_uuid: bytes
    driver_uuid: bytes
    control: OwnedFd = attrs.field(converter=_to_fd)


BufferHandle: TypeAlias = HostBufferHandle | VulkanBufferHandle


@attrs.frozen(eq=False)
class SemaphoreHandle(_Handle):
    """A semaphore.

    Attributes:
        backend: Whose it is: ``"host"`` or ``"vulkan"``.
        kind: ``"binary"`` or ``"timeline"``.
        fd: What stands for it.
        device_uuid: Of the GPU that made it; empty on the host.
        driver_uuid: Of its driver; empty on the host.
    """

    backend: str
    kind: SemaphoreKind
    fd: OwnedFd = attrs.field(converter=_to_fd)
    device_uuid: bytes = b""
    driver_uuid: bytes = b""


@attrs.frozen(eq=False)
class FenceHandle(_Handle):
    """A fence.

    Attributes:
        backend: Whose it is: ``"host"`` or ``"vulkan"``.
        fd: What stands for it.
        device_uuid: Of the GPU that made it; empty on the host.
        driver_uuid: Of its driver; empty on the host.
    """

    backend: str
    fd: OwnedFd = attrs.field(converter=_to_fd)
    device_uuid: bytes = b""
    driver_uuid: bytes = b""


@attrs.frozen(eq=False)
class EventHandle(_Handle):
    """A shared event of the host backend.

    Attributes:
        fd: What stands for it.
    """

    fd: OwnedFd = attrs.field(converter=_to_fd)


@attrs.frozen(eq=False)
class MetalEventHandle(_Handle):
    """A Metal shared event.

    Attributes:
        shared_event_handle: The ``MTLSharedEventHandle``, as the bytes of its secure coding.
    """

    shared_event_handle: bytes
