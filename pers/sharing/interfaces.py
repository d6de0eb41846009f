"""What a texture share manager and the things it makes can do, on any backend."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from pers.graphics.types import TextureDescriptor
from pers.sharing.capabilities import ShareCapabilities
from pers.sharing.handles import (
    BufferHandle,
    EventHandle,
    FenceHandle,
    MetalEventHandle,
    SemaphoreHandle,
    SemaphoreKind,
    TextureHandle,
)
from pers.textures import TextureFormat, TextureUsage

__all__ = [
    "BufferAccess",
    "SharedBuffer",
    "SharedEvent",
    "SharedFence",
    "SharedSemaphore",
    "SharedTexture",
    "SyncPoint",
    "TextureAccess",
    "TextureShareManager",
]


class Closable(ABC):
    """Something with an end: `close()`, or the end of a ``with`` block."""

    @abstractmethod
    def close(self) -> None:
        """Give back what it holds; the second time does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class SharedSemaphore(Closable):
    """A semaphore of the GPU (or one that stands in for it) which two processes can use.

    A *binary* one is signalled once and waited for once. A *timeline* one counts: a wait for 7 ends
    when it is signalled with 7 or more. Prefer timelines: a wait for a process that has died can be
    ended from the outside, while one for a binary semaphore blocks the GPU's queue.
    """

    @property
    @abstractmethod
    def kind(self) -> SemaphoreKind:
        """``"binary"`` or ``"timeline"``."""

    @property
    @abstractmethod
    def native_handle(self) -> Any:
        """The backend's own object."""

    @property
    @abstractmethod
    def value(self) -> int:
        """What a timeline has reached.

        Raises:
            OperationNotSupportedError: It is binary.
        """

    @abstractmethod
    def signal(self, value: int) -> None:
        """Set a timeline from the CPU, to more than it has reached.

        Raises:
            OperationNotSupportedError: It is binary.
            ValidationError: The timeline is there already.
        """

    @abstractmethod
    def wait(self, value: int, timeout_ns: int) -> None:
        """Block until a timeline has reached `value`, for `timeout_ns` nanoseconds at most.

        Raises:
            OperationNotSupportedError: It is binary.
            WaitTimeoutError: It did not in time.
        """


class SharedFence(Closable):
    """Tells the CPU of any process that work of the GPU is done."""

    @property
    @abstractmethod
    def native_handle(self) -> Any:
        """The backend's own object."""

    @property
    @abstractmethod
    def is_signaled(self) -> bool:
        """Whether the work is done."""

    @abstractmethod
    def wait(self, timeout_ns: int) -> None:
        """Block until the work is done, for `timeout_ns` nanoseconds at most.

        Raises:
            WaitTimeoutError: It was not in time.
        """

    @abstractmethod
    def reset(self) -> None:
        """Make it ready to be signalled again."""


class SharedEvent(Closable):
    """A counter that processes signal and wait for: Metal's shared event, or the host's."""

    @property
    @abstractmethod
    def native_handle(self) -> Any:
        """The backend's own object."""

    @property
    @abstractmethod
    def value(self) -> int:
        """What it has reached."""

    @abstractmethod
    def signal(self, value: int) -> None:
        """Set it from the CPU, to more than it has reached.

        Raises:
            ValidationError: It is there already.
        """

    @abstractmethod
    def wait(self, value: int, timeout_ns: int) -> None:
        """Block until it has reached `value`, for `timeout_ns` nanoseconds at most.

        Raises:
            WaitTimeoutError: It did not in time.
        """


SyncPoint: TypeAlias = (
    SharedSemaphore | SharedFence | tuple[SharedSemaphore, int] | tuple[SharedEvent, int]
)
"""What an access waits for or signals: a binary semaphore as such, a timeline or an event with its
value, and, only to be signalled, a fence."""


class TextureAccess(ABC):
    """A shared texture while it is this process's turn; from ``with texture.access() as view``.

    Every method raises `TextureAccessError` after the block.
    """

    @property
    @abstractmethod
    def writable(self) -> bool:
        """Whether it was opened for writing."""

    @property
    @abstractmethod
    def native_handle(self) -> Any:
        """The backend's own image, in the layout that `access` promises; valid in the block."""

    @abstractmethod
    def upload(self, pixels: npt.ArrayLike, *, layer: int = 0, mip_level: int = 0) -> None:
        """Write the pixels of one layer.

        Args:
            pixels: Shape ``(height, width[, channels])``, items as large as the format's.
            layer: Which array layer.
            mip_level: Which mip level.

        Raises:
            TextureAccessError: The access is for reading only.
            BufferRangeError: Shape or item size do not fit, or there is no such layer or level.
        """

    @abstractmethod
    def download(self, *, layer: int = 0, mip_level: int = 0) -> npt.NDArray[Any]:
        """Return a copy of the pixels of one layer, shape ``(height, width[, channels])``.

        Raises:
            BufferRangeError: There is no such layer or level.
            WaitTimeoutError: What the access waits for was not signalled in time.
        """

    @abstractmethod
    def as_array(self, *, layer: int = 0, mip_level: int = 0) -> npt.NDArray[Any]:
        """Return the pixels of one layer themselves, without a copy; read-only unless `writable`.

        The memory stays valid for as long as the array lives, but the other process may write to
        it once the block has ended.

        Raises:
            OperationNotSupportedError: The CPU cannot see this memory; use `download`.
            BufferRangeError: There is no such layer or level.
        """


class SharedTexture(Closable):
    """A texture that other processes and APIs can use.

    It belongs to one side at a time: whoever uses it does so between the begin and the end of an
    `access`, which hands over ownership, layout and content. Several may read at the same time.
    The rule is held between threads, and on Linux between processes too; a process that dies in
    an access gives it up.
    """

    @property
    @abstractmethod
    def descriptor(self) -> TextureDescriptor:
        """What it was made as."""

    @property
    def width(self) -> int:
        """Pixels in a row."""
        return self.descriptor.width

    @property
    def height(self) -> int:
        """Rows."""
        return self.descriptor.height

    @property
    def format(self) -> TextureFormat:
        """How a pixel is stored."""
        return self.descriptor.format

    @property
    def usage(self) -> TextureUsage:
        """What it may be used for."""
        return self.descriptor.usage

    @property
    def label(self) -> str:
        """Its name in messages."""
        return self.descriptor.label

    @property
    @abstractmethod
    def native_handle(self) -> Any:
        """The backend's own image; use it within an `access` only."""

    @property
    @abstractmethod
    def is_valid(self) -> bool:
        """Whether neither it nor its manager has been closed."""

    @abstractmethod
    def access(
        self,
        *,
        write: bool = False,
        wait: Sequence[SyncPoint] = (),
        signal: Sequence[SyncPoint] = (),
        timeout_ns: int = 0,
    ) -> AbstractContextManager[TextureAccess]:
        """Take the texture for the length of a ``with`` block.

        Args:
            write: Whether it will be written; only one can, and nobody reads meanwhile.
            wait: What the GPU waits for before it touches the texture.
            signal: What the GPU signals when it is done. Without a signal, the end of the block
                waits for the GPU, so that a message to the other side means what it says.
            timeout_ns: How long to wait for another access to end, in nanoseconds.

        Raises:
            TextureAccessError: Another access excludes this one, or the texture is closed.
            OperationNotSupportedError: A semaphore is of another manager, or cannot be used so.
            ValidationError: `wait` or `signal` holds something else, or the same thing twice.
        """


class BufferAccess(ABC):
    """A shared buffer while it is this process's turn; from ``with buffer.access() as view``."""

    @property
    @abstractmethod
    def writable(self) -> bool:
        """Whether it was opened for writing."""

    @property
    @abstractmethod
    def native_handle(self) -> Any:
        """The backend's own buffer; valid in the block."""

    @abstractmethod
    def upload(self, data: Any, *, offset: int = 0) -> None:
        """Write bytes from `offset` on: a NumPy array, or anything with the buffer protocol.

        Raises:
            BufferUsageError: `data` holds no plain bytes.
            TextureAccessError: The access is for reading only.
            BufferRangeError: The data reaches beyond the buffer.
        """

    @abstractmethod
    def download(self, *, offset: int = 0, size: int | None = None) -> npt.NDArray[np.uint8]:
        """Return a copy of `size` bytes from `offset` on; all that is left without a size.

        Raises:
            BufferRangeError: The range reaches beyond the buffer.
        """

    @abstractmethod
    def as_array(self) -> npt.NDArray[np.uint8]:
        """Return the bytes themselves, without a copy; read-only unless `writable`.

        Raises:
            OperationNotSupportedError: The CPU cannot see this memory; use `download`.
        """

    @abstractmethod
    def __dlpack__(self, **options: Any) -> Any:
        """Hand the bytes, a 1D array of uint8, to a tensor library without a copy.

        Raises:
            OperationNotSupportedError: No tensor library can see this memory.
        """

    @abstractmethod
    def __dlpack_device__(self) -> tuple[int, int]:
        """Return DLPack's type and number of the device that holds the memory."""


class SharedBuffer(Closable):
    """Bytes that other processes and APIs can use, by the same rules as a `SharedTexture`."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Length in bytes."""

    @property
    @abstractmethod
    def label(self) -> str:
        """Its name in messages."""

    @property
    @abstractmethod
    def native_handle(self) -> Any:
        """The backend's own buffer; use it within an `access` only."""

    @property
    @abstractmethod
    def is_valid(self) -> bool:
        """Whether neither it nor its manager has been closed."""

    @abstractmethod
    def access(
        self,
        *,
        write: bool = False,
        wait: Sequence[SyncPoint] = (),
        signal: Sequence[SyncPoint] = (),
        timeout_ns: int = 0,
    ) -> AbstractContextManager[BufferAccess]:
        """Take the buffer for the length of a ``with`` block; see `SharedTexture.access`."""


class TextureShareManager(Closable):
    """Makes things that can be shared, exports them and imports those of others.

    It may be used from several threads; so may what it makes. `close()` ends all that it made.
    """

    @property
    @abstractmethod
    def capabilities(self) -> ShareCapabilities:
        """What this manager can share here."""

    @property
    @abstractmethod
    def choice(self) -> str:
        """Why `open_share_manager` took this one, in a sentence; empty when it did not."""

    @abstractmethod
    def create_shareable_texture(self, descriptor: TextureDescriptor) -> SharedTexture:
        """Make a texture, all zeros, that can be exported.

        Raises:
            OperationNotSupportedError: Textures of this format or usage cannot be shared here.
            OutOfMemoryError: There is no memory for it, or no file descriptor is left.
        """

    @abstractmethod
    def export_texture(self, texture: SharedTexture) -> TextureHandle:
        """Return a handle to give to another process or API.

        Raises:
            TextureAccessError: The texture is closed.
            OperationNotSupportedError: It was made by another manager.
        """

    @abstractmethod
    def import_texture(self, handle: TextureHandle, descriptor: TextureDescriptor) -> SharedTexture:
        """Open the texture that a handle stands for; the handle stays the caller's.

        Raises:
            InvalidTextureHandleError: The handle is closed, of another backend, or does not fit
                the descriptor.
            DeviceMismatchError: It comes from another GPU or driver.
            OutOfMemoryError: There is no memory for it, or no file descriptor is left.
        """

    @abstractmethod
    def release_texture_handle(self, handle: TextureHandle) -> None:
        """Close a handle; textures imported from it stay."""

    @abstractmethod
    def create_shareable_buffer(self, size: int, label: str = "") -> SharedBuffer:
        """Make a buffer of `size` bytes, all zeros, that can be exported.

        Raises:
            OutOfMemoryError: There is no memory for it, or no file descriptor is left.
        """

    @abstractmethod
    def export_buffer(self, buffer: SharedBuffer) -> BufferHandle:
        """Return a handle to give to another process or API."""

    @abstractmethod
    def import_buffer(self, handle: BufferHandle, label: str = "") -> SharedBuffer:
        """Open the buffer that a handle stands for; the handle stays the caller's."""

    @abstractmethod
    def create_semaphore(self, kind: SemaphoreKind = "timeline") -> SharedSemaphore:
        """Make a semaphore that can be exported, not signalled or at 0.

        Raises:
            OperationNotSupportedError: The driver cannot share this kind.
        """

    @abstractmethod
    def export_semaphore(self, semaphore: SharedSemaphore) -> SemaphoreHandle:
        """Return a handle to give to another process."""

    @abstractmethod
    def import_semaphore(self, handle: SemaphoreHandle) -> SharedSemaphore:
        """Open the semaphore that a handle stands for; the handle stays the caller's."""

    @abstractmethod
    def create_fence(self) -> SharedFence:
        """Make a fence that can be exported, not signalled.

        Raises:
            OperationNotSupportedError: The driver cannot share fences.
        """

    @abstractmethod
    def export_fence(self, fence: SharedFence) -> FenceHandle:
        """Return a handle to give to another process."""

    @abstractmethod
    def import_fence(self, handle: FenceHandle) -> SharedFence:
        """Open the fence that a handle stands for; the handle stays the caller's."""

    @abstractmethod
    def create_event(self) -> SharedEvent:
        """Make an event that can be exported, at 0.

        Raises:
            OperationNotSupportedError: The backend has no events; use a timeline semaphore.
        """

    @abstractmethod
    def export_event(self, event: SharedEvent) -> EventHandle | MetalEventHandle:
        """Return a handle to give to another process."""

    @abstractmethod
    def import_event(self, handle: EventHandle | MetalEventHandle) -> SharedEvent:
        """Open the event that a handle stands for; the handle stays the caller's."""

    @abstractmethod
    def signal_texture_ready(self, texture: SharedTexture) -> None:
        """Tell every process that waits for this texture that it is ready; waits for the GPU.

        Raises:
            TextureAccessError: The texture is closed, or open for writing.
        """

    @abstractmethod
    def wait_for_texture(self, texture: SharedTexture, timeout_ns: int) -> None:
        """Block until the texture is signalled ready once more than this object has waited for.

        Args:
            texture: The texture.
            timeout_ns: How long to wait at most, in nanoseconds.

        Raises:
            WaitTimeoutError: It was not signalled in time.
            TextureAccessError: The texture is closed.
        """
