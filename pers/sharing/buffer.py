"""A shared buffer and the access to it, over a backend's buffer."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt

from pers._checks import whole_number
from pers.buffers.mapped_range import as_bytes_array
from pers.errors import BufferRangeError, TextureAccessError
from pers.sharing.control import ControlPage
from pers.sharing.handles import BufferHandle
from pers.sharing.interfaces import BufferAccess, SharedBuffer, SyncPoint, TextureShareManager
from pers.sharing.native import NativeBuffer
from pers.sharing.resource import ManagedAccess, ManagedResource, ToPoints

__all__ = ["ManagedBuffer"]


class ManagedBuffer(ManagedResource, SharedBuffer):
    """A buffer of a `ShareManager`, which it keeps alive.

    Args:
        manager: Who made it.
        label: Its name in messages.
        native: The backend's buffer.
        control: Its control page.
        to_points: Turns what an access waits for or signals into the backend's objects.
    """

    def __init__(
        self,
        manager: TextureShareManager,
        label: str,
        native: NativeBuffer,
        control: ControlPage,
        to_points: ToPoints,
    ) -> None:
        super().__init__(manager, f"shared buffer {label!r}", native, control, to_points)
        self.native = native
        self._label = label
        self._size = native.size

    @property
    def size(self) -> int:
        return self._size

    @property
    def label(self) -> str:
        return self._label

    def access(
        self,
        *,
        write: bool = False,
        wait: Sequence[SyncPoint] = (),
        signal: Sequence[SyncPoint] = (),
        timeout_ns: int = 0,
    ) -> AbstractContextManager[BufferAccess]:
        return self.take_turn(_Access(self, writable=write), wait, signal, timeout_ns)

    def export(self) -> BufferHandle:
        """Return a new handle."""
        with self.turns.lock:
            return self.native.export(self.control.export())

    def __repr__(self) -> str:
        return f"<SharedBuffer {self.label!r} {self.size} B{'' if self.is_valid else ' closed'}>"


class _Access(ManagedAccess, BufferAccess):
    """The buffer within one ``with`` block."""

    def __init__(self, buffer: ManagedBuffer, *, writable: bool) -> None:
        super().__init__(buffer, writable=writable)
        self._buffer = buffer

    def upload(self, data: Any, *, offset: int = 0) -> None:
        self.check()
        self.check_writable()
        flat = as_bytes_array(data, f"{self.turns.what}: upload")
        self._check_range(offset, flat.nbytes)
        with self.calling():
            self._buffer.native.upload(flat, offset)

    def download(self, *, offset: int = 0, size: int | None = None) -> npt.NDArray[np.uint8]:
        self.check()
        if size is None:
            size = max(self._buffer.size - whole_number(offset, "offset"), 0)
        self._check_range(offset, whole_number(size, "size"))
        out = np.empty(size, np.uint8)
        with self.calling():
            self._buffer.native.download(out, offset)
        return out

    def as_array(self) -> npt.NDArray[np.uint8]:
        with self.calling():
            memory = self._buffer.native.memory()
        if not self._writable:
            memory = np.frombuffer(memory.data.toreadonly(), np.uint8)
        return memory

    def __dlpack__(self, **options: Any) -> Any:
        return self._for_tensors().__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        kind, number = self._for_tensors().__dlpack_device__()
        return int(kind), int(number)

    def _for_tensors(self) -> npt.NDArray[np.uint8]:
        self.check()
        if not self._writable:
            raise TextureAccessError(
                f"{self.turns.what} is open for reading, and DLPack knows no read-only "
                "memory; use access(write=True)"
            )
        return self.as_array()

    def _check_range(self, offset: int, size: int) -> None:
        if whole_number(offset, "offset") + size > self._buffer.size:
            raise BufferRangeError(
                f"{self.turns.what}: {size} bytes from {offset} on reach beyond its "
                f"{self._buffer.size} bytes; pass less, or make it larger"
            )
