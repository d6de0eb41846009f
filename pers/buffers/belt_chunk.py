"""One chunk of a belt's staging memory."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from pers._completion import Completion
from pers.buffers.core import MappableBuffer
from pers.buffers.interfaces import IBufferFactory
from pers.buffers.mapped_range import MappedRange
from pers.buffers.staging import STAGING_USAGE
from pers.buffers.types import BufferDesc, BufferState, MapMode
from pers.errors import BufferStateError


class StagingChunk:
    """A mappable buffer that goes round: mapped, written, unmapped, copied from, mapped again.

    All methods are called under the belt's lock, and none of them waits or polls; `close` takes
    the lock itself, since submits call it.
    """

    def __init__(
        self, size: int, name: str, factory: IBufferFactory, lock: threading.RLock
    ) -> None:
        buffer = factory.create_mappable_buffer(
            BufferDesc(size, STAGING_USAGE, mapped_at_creation=True, debug_name=name)
        )
        assert isinstance(buffer, MappableBuffer)
        self.buffer = buffer
        self.size = size
        self.writers = 0
        """How many threads are writing to it without the lock."""
        self._lock = lock
        self._memory: npt.NDArray[np.uint8] | None = buffer.mapped_data.as_array()
        self._mapped: Completion[MappedRange] | None = None

    @property
    def is_open(self) -> bool:
        """Whether it can be written."""
        return self._memory is not None

    @property
    def is_unused(self) -> bool:
        """Whether nobody writes to it, and no commands use it."""
        return not self.writers and self.buffer.usage_tag.is_known_free

    @property
    def memory(self) -> npt.NDArray[np.uint8]:
        """Its memory; only while open."""
        memory = self._memory
        if memory is None:
            raise BufferStateError(
                f"upload: {self.buffer.label} is not mapped; the device was closed; open a new one"
            )
        return memory

    def open(self) -> Completion[Any] | None:
        """Have it mapped, when nobody uses it; return what to wait for, or None when it is open.

        Raises:
            PersError: The map failed.
        """
        if self._memory is not None:
            return None
        if self._mapped is None:
            self.ask_for_map()
        mapped = self._mapped
        if mapped is not None and mapped.done:
            self._mapped = None
            self._memory = mapped.result().as_array()
            return None
        return mapped

    def ask_for_map(self) -> None:
        """Ask for the map as soon as the GPU has the commands, so that it is there when needed."""
        is_closed = self._memory is None and self._mapped is None
        if is_closed and self.buffer.state is BufferState.READY:
            try:
                self._mapped = self.buffer.start_map(MapMode.WRITE)
            except BufferStateError:  # a submit in another thread is not quite through with it
                self._mapped = None

    def close(self) -> None:
        """Unmap it, so that the GPU can read it."""
        with self._lock:
            if self._memory is not None:
                self._memory = None
                self.buffer.unmap()

    def destroy(self) -> None:
        """Give the memory back, when the GPU and other threads are through with it."""
        self._memory = self._mapped = None
        self.buffer.destroy()
