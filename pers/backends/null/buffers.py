"""Buffers as NumPy arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pers.backends.null.events import MapRequest
from pers.backends.null.live import NullObject
from pers.backends.null.timeline import Moment
from pers.buffers.core import Buffer, NativeBuffer
from pers.buffers.types import BufferDesc, MapMode
from pers.errors import BufferStateError, OutOfMemoryError
from pers.graphics.native import Done

if TYPE_CHECKING:
    from pers.backends.null.native import NullNative


class NullBuffer(NullObject, NativeBuffer):
    """A buffer whose memory is a NumPy array; mapping it hands out that array's own memory.

    `unmap` and `destroy` take no lock, since garbage collection may call them anywhere.
    """

    def __init__(self, device: NullNative, desc: BufferDesc) -> None:
        super().__init__(device.live, desc.size)
        self.label = f"buffer {desc.debug_name!r}"
        self.in_use_until: Moment = (0, False)
        """When the GPU is done with what was submitted so far."""
        self._device = device
        self._memory: npt.NDArray[np.uint8] | None = zeros(desc.size, self.label)
        self._pending: MapRequest | None = None

    @property
    def handle(self) -> Any:
        return self

    @property
    def memory(self) -> npt.NDArray[np.uint8]:
        """All bytes. Commands hold on to this array, so they work on after `destroy`.

        Raises:
            BufferStateError: The buffer was destroyed.
        """
        memory = self._memory
        if memory is None:
            raise BufferStateError(f"{self.label} is destroyed; create a new one")
        return memory

    def map_async(self, mode: MapMode, offset: int, size: int, done: Done) -> None:
        self._pending = self._device.request_map(self, done)

    def address(self, offset: int, size: int) -> int:
        return int(self.memory.ctypes.data) + offset

    def unmap(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.cancel()

    def destroy(self) -> None:
        self.unmap()
        self._memory = None
        self.release()


def zeros(nbytes: int, what: str) -> npt.NDArray[np.uint8]:
    """Return so many zero bytes.

    Raises:
        OutOfMemoryError: The host does not have them.
    """
    try:
        return np.zeros(nbytes, np.uint8)
    except MemoryError:
        raise OutOfMemoryError(
            f"{what}: the host has no memory for {nbytes} bytes; destroy something, or ask for less"
        ) from None


def native_buffer(buffer: Buffer) -> NullBuffer:
    """Return the null buffer behind a buffer of a null device."""
    native = buffer.native_handle
    assert isinstance(native, NullBuffer)
    return native
