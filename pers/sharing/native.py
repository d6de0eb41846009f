"""The port: what a backend implements so that `ShareManager` can do the rest.

A backend does the work; it checks nothing about states, since no call arrives that is out of
order. Calls for one texture come one at a time; calls for different ones may come from several
threads at once. Byte arrays are flat, C-ordered and without padding between rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from pers.errors import OperationNotSupportedError
from pers.graphics.types import TextureDescriptor
from pers.sharing.capabilities import ShareCapabilities
from pers.sharing.handles import (
    BufferHandle,
    EventHandle,
    FenceHandle,
    MetalEventHandle,
    OwnedFd,
    SemaphoreHandle,
    SemaphoreKind,
    TextureHandle,
)

__all__ = [
    "NativeBuffer",
    "NativeCounter",
    "NativeFence",
    "NativePoint",
    "NativeResource",
    "NativeSemaphore",
    "NativeShareDevice",
    "NativeTexture",
]

Handle = TypeVar("Handle")


class NativeObject(ABC):
    """Anything a backend makes."""

    @property
    @abstractmethod
    def native_handle(self) -> Any:
        """The object of the API below."""

    @abstractmethod
    def destroy(self) -> None:
        """Free it when the GPU lets go of it; the second time does nothing; from any thread."""


class NativeSemaphore(NativeObject):
    """A binary semaphore."""

    @abstractmethod
    def export(self) -> SemaphoreHandle:
        """Return a new handle."""


class NativeCounter(NativeObject, Generic[Handle]):
    """A timeline semaphore or an event."""

    @abstractmethod
    def export(self) -> Handle:
        """Return a new handle."""

    @property
    @abstractmethod
    def value(self) -> int:
        """What it has reached."""

    @abstractmethod
    def signal(self, value: int) -> None:
        """Set it from the CPU."""

    @abstractmethod
    def wait(self, value: int, timeout_ns: int) -> bool:
        """Block until it is reached and return True, or False when that takes too long."""


class NativeFence(NativeObject):
    """A fence."""

    @abstractmethod
    def export(self) -> FenceHandle:
        """Return a new handle."""

    @property
    @abstractmethod
    def is_signaled(self) -> bool:
        """Whether it is."""

    @abstractmethod
    def wait(self, timeout_ns: int) -> bool:
        """Block until it is signalled and return True, or False when that takes too long."""

    @abstractmethod
    def reset(self) -> None:
        """Take the signal back."""


NativePoint = (
    tuple[NativeSemaphore, None] | tuple[NativeCounter[Any], int] | tuple[NativeFence, None]
)
"""What is waited for or signalled; a fence is only ever signalled."""


class NativeResource(NativeObject):
    """Memory that is handed over: between `acquire` and `release` it is this process's."""

    @abstractmethod
    def wait_first(self, waits: Sequence[NativePoint]) -> None:
        """Block until `waits` are signalled, where the CPU waits and not the GPU.

        Called before the turn is taken, and without a lock: those who signal may need both. When
        it raises, no signal was taken.
        """

    @abstractmethod
    def give_back(self, waits: Sequence[NativePoint]) -> None:
        """Undo `wait_first`, since the turn could not be taken."""

    @abstractmethod
    def acquire(self, waits: Sequence[NativePoint], *, write: bool) -> None:
        """Take it from the other side; the GPU does so once `waits` are signalled."""

    @abstractmethod
    def release(self, signals: Sequence[NativePoint]) -> None:
        """Give it to the other side and signal that; without signals, `finish` comes next."""

    @abstractmethod
    def wait(self, waits: Sequence[NativePoint]) -> None:
        """Have what the GPU does next wait for more (another reader joins)."""

    @abstractmethod
    def signal(self, signals: Sequence[NativePoint]) -> None:
        """Signal that what came before is done (one of several readers leaves).

        Without signals, `finish` comes next.
        """

    @abstractmethod
    def finish(self) -> None:
        """Return when the GPU has done all that was asked of it for this resource."""


class NativeTexture(NativeResource):
    """A texture."""

    @abstractmethod
    def export(self, control: OwnedFd) -> TextureHandle:
        """Return a new handle, which owns `control`."""

    @abstractmethod
    def upload(self, pixels: npt.NDArray[np.uint8], layer: int, mip_level: int) -> None:
        """Write one layer; the memory may be reused at once."""

    @abstractmethod
    def download(self, out: npt.NDArray[np.uint8], layer: int, mip_level: int) -> None:
        """Read one layer into `out`."""

    def memory(self, layer: int, mip_level: int) -> npt.NDArray[np.uint8]:
        """Return the bytes of one layer themselves, writable.

        Raises:
            OperationNotSupportedError: The CPU does not see them.
        """
        raise OperationNotSupportedError(
            "the CPU does not see the memory of this texture; call download() for a copy"
        )


class NativeBuffer(NativeResource):
    """A buffer."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Length in bytes."""

    @abstractmethod
    def export(self, control: OwnedFd) -> BufferHandle:
        """Return a new handle, which owns `control`."""

    @abstractmethod
    def upload(self, data: npt.NDArray[np.uint8], offset: int) -> None:
        """Write bytes; the memory may be reused at once."""

    @abstractmethod
    def download(self, out: npt.NDArray[np.uint8], offset: int) -> None:
        """Read bytes into `out`."""

    def memory(self) -> npt.NDArray[np.uint8]:
        """Return the bytes themselves, writable.

        Raises:
            OperationNotSupportedError: The CPU does not see them.
        """
        raise OperationNotSupportedError(
            "the CPU does not see the memory of this buffer; call download() for a copy"
        )


class NativeShareDevice(ABC):
    """A GPU, or what stands in for one. The methods may be called from several threads."""

    @property
    @abstractmethod
    def capabilities(self) -> ShareCapabilities:
        """What it can share."""

    @abstractmethod
    def create_texture(self, descriptor: TextureDescriptor) -> NativeTexture:
        """Make a texture, all zeros, owned by the other side."""

    @abstractmethod
    def import_texture(self, handle: TextureHandle, descriptor: TextureDescriptor) -> NativeTexture:
        """Open a texture that a handle of this backend stands for."""

    @abstractmethod
    def create_buffer(self, size: int, label: str) -> NativeBuffer:
        """Make a buffer, all zeros, owned by the other side."""

    @abstractmethod
    def import_buffer(self, handle: BufferHandle, label: str) -> NativeBuffer:
        """Open a buffer that a handle of this backend stands for."""

    @abstractmethod
    def create_semaphore(
        self, kind: SemaphoreKind
    ) -> NativeSemaphore | NativeCounter[SemaphoreHandle]:
        """Make a semaphore of a kind that `capabilities` lists."""

    @abstractmethod
    def import_semaphore(
        self, handle: SemaphoreHandle
    ) -> NativeSemaphore | NativeCounter[SemaphoreHandle]:
        """Open a semaphore."""

    @abstractmethod
    def create_fence(self) -> NativeFence:
        """Make a fence."""

    @abstractmethod
    def import_fence(self, handle: FenceHandle) -> NativeFence:
        """Open a fence."""

    def create_event(self) -> NativeCounter[Any]:
        """Make an event.

        Raises:
            OperationNotSupportedError: There are none here.
        """
        raise OperationNotSupportedError(
            f"the {self.capabilities.backend} backend has no events; use a timeline semaphore"
        )

    def import_event(self, handle: EventHandle | MetalEventHandle) -> NativeCounter[Any]:
        """Open an event.

        Raises:
            OperationNotSupportedError: There are none here.
        """
        raise OperationNotSupportedError(
            f"the {self.capabilities.backend} backend has no events; use a timeline semaphore"
        )

    @abstractmethod
    def close(self) -> None:
        """Free all that is left, when the GPU is done with it or has stopped answering."""
