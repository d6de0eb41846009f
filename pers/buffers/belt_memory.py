"""The staging memory of a belt: who gets it, and when it comes back."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import attrs

from pers._checks import align_up
from pers._completion import Backoff, Completion
from pers.buffers.allocators.chunk_list import ChunkList
from pers.buffers.belt_chunk import StagingChunk
from pers.buffers.types import COPY_ALIGNMENT

if TYPE_CHECKING:
    from pers.buffers.interfaces import IBufferFactory

SMALLEST_CHUNK = 64 * 1024
SHARED_CHUNK = 1024 * 1024
"""The size of chunks that several uploads share (bytes), where the budget allows it."""

SHARES = 4
"""At least so many uploads have to fit into a chunk that they share."""

IDLE_SUBMITS = 256
"""Chunks that nobody used for so many submits are given back."""

LOOK_EVERY = 16
"""Submits between two looks for such chunks."""


@attrs.frozen
class Place:
    """Staging memory for one upload."""

    chunk: StagingChunk
    at: int
    is_shared: bool
    """Whether others use the chunk too, so that it is only written under the lock."""


class Waits(Protocol):
    """Something that threads and tasks can wait for."""

    def wait(self) -> Any:
        """Block."""
        ...

    async def done(self) -> Any:
        """Wait without blocking the event loop."""
        ...


@attrs.frozen
class MapWait:
    """The wait for the map of a chunk that the GPU is through with."""

    completion: Completion[Any]

    def wait(self) -> None:
        self.completion.wait()

    async def done(self) -> None:
        await self.completion.wait_async()


class Others:
    """The wait for other threads, which have memory that they have not submitted."""

    PATIENCE = 10.0
    """Seconds after which it is taken for granted that they wait, in turn, for this one."""

    def __init__(self, waiting: list[threading.Thread]) -> None:
        self._backoff = Backoff()
        self._waiting = waiting

    def wait(self) -> None:
        """Block for a moment."""
        self._waiting.append(threading.current_thread())
        try:
            self._backoff.nap()
        finally:
            self._waiting.remove(threading.current_thread())

    async def done(self) -> None:
        """Let other tasks run for a moment."""
        await anyio.sleep(self._backoff.next())

    @property
    def is_over(self) -> bool:
        """Whether the patience is used up."""
        return self._backoff.waited > self.PATIENCE


class StagingMemory:
    """Chunks within a budget. Not thread-safe: the belt calls it under `lock`."""

    def __init__(self, factory: IBufferFactory, budget: int, lock: threading.RLock) -> None:
        self.budget = budget - budget % COPY_ALIGNMENT
        self.waiting: list[threading.Thread] = []
        """Threads that wait for other threads to submit."""
        self.peak = self.grows = self.shrinks = 0
        self._factory = factory
        self._lock = lock
        self._chunks: ChunkList[StagingChunk] = ChunkList(lambda chunk: chunk.is_unused)
        self._submits = 0
        share = min(SHARED_CHUNK, max(budget // 4, SMALLEST_CHUNK))
        self._share = share - share % COPY_ALIGNMENT

    @property
    def capacity(self) -> int:
        """Bytes of all chunks."""
        return self._chunks.capacity

    @property
    def used(self) -> int:
        """Bytes given out."""
        return self._chunks.used

    @property
    def in_use(self) -> int:
        """Bytes of the chunks that are given out in part or as a whole."""
        open_chunk = self._chunks.open_block
        empty = open_chunk is not None and not self._chunks.open_used
        return self.capacity - self._chunks.free - (open_chunk.size if empty and open_chunk else 0)

    def quick(self, nbytes: int, alignment: int) -> tuple[StagingChunk, int] | None:
        """Return a place in the open chunk, if it fits there."""
        if nbytes * SHARES > self._share:
            return None
        chunk = self._chunks.open_block
        if chunk is None:
            return None
        if not chunk.is_open:  # a submit closed it
            self._chunks.close()
            return None
        return self._chunks.take_part(nbytes, alignment)

    def place(self, nbytes: int, alignment: int) -> Place | Waits | None:
        """Return a place, or what to wait for before the next try, or None when all is in use.

        Raises:
            OutOfMemoryError: There is no memory for a new chunk.
        """
        self.recycle()
        part = self.quick(nbytes, alignment)
        if part is not None:
            return Place(*part, True)
        is_shared = nbytes * SHARES <= self._share
        size = self._share if is_shared else _chunk_size(nbytes)
        size = max(min(size, self.budget), align_up(nbytes, COPY_ALIGNMENT))
        chunk = self._find(nbytes, size)
        if chunk is None and self._free_open():
            chunk = self._find(nbytes, size)
        if chunk is None:
            return None
        waits = chunk.open()
        if waits is not None:
            return MapWait(waits)
        if not chunk.is_open:  # a submit in another thread holds it for a moment
            return Others(self.waiting)
        if is_shared:
            self._chunks.open(chunk)
            part = self._chunks.take_part(nbytes, alignment)
            assert part is not None
            return Place(*part, True)
        self._chunks.take_whole(chunk, nbytes)
        return Place(chunk, 0, False)

    def in_the_way(self) -> Waits | None:
        """Return what to wait for when all is in use, or None when only this thread can help."""
        chunks = self._chunks.busy_blocks
        if self._chunks.open_block is not None:
            chunks.append(self._chunks.open_block)
        for chunk in chunks:
            tag = chunk.buffer.usage_tag
            last = tag.last_submission
            if last is not None and not last.has_ended and not tag.is_recorded:
                return last
        stuck = {threading.current_thread(), *self.waiting}
        if any(_others_can_free(chunk, stuck) for chunk in chunks):
            return Others(self.waiting)
        return None

    def recycle(self) -> None:
        """Take back what nobody uses any more."""
        self._close_if_closed()
        self._chunks.recycle(self._submits)

    def submitted(self) -> None:
        """Ask for the maps of chunks that were submitted, and give back idle ones."""
        if not self.grows:
            return  # there never was a chunk, as where all uploads are small
        self._close_if_closed()
        for chunk in self._chunks.busy_blocks:
            if not chunk.writers and not chunk.buffer.usage_tag.is_recorded:
                chunk.ask_for_map()
        self._submits += 1
        if self._submits % LOOK_EVERY == 0:
            self.recycle()
            self._drop(self._chunks.drop_idle(self._submits - IDLE_SUBMITS))

    def trim(self) -> None:
        """Give back all chunks that nobody uses."""
        self.recycle()
        self._free_open()
        self._drop(self._chunks.drop_free(self.capacity))

    def lose(self) -> None:
        """Let go of everything: the device is gone."""
        for chunk in self._chunks.drop_all():
            chunk.destroy()

    def _close_if_closed(self) -> None:
        """Take no more parts from the open chunk when a submit has closed it."""
        chunk = self._chunks.open_block
        if chunk is not None and not chunk.is_open:
            self._chunks.close()

    def _find(self, nbytes: int, size: int) -> StagingChunk | None:
        """Return a free chunk for `nbytes`, a new one of `size` if need be; None if none can be."""
        chunk = self._chunks.find_free(nbytes, 4 * size)
        if chunk is None and self._make_room(size):
            chunk = self._grow(size)
        # Far too large ones only when there can be no better one.
        return self._chunks.find_free(nbytes) if chunk is None else chunk

    def _free_open(self) -> bool:
        """Take back the open chunk; False when there is none, or somebody has a part of it."""
        if self._chunks.open_block is None or self._chunks.open_used:
            return False
        self._chunks.close()
        self._chunks.recycle(self._submits)
        return True

    def _make_room(self, size: int) -> bool:
        """Give back free chunks until one of `size` fits into the budget; False if it cannot."""
        excess = self.capacity + size - self.budget
        if excess > self._chunks.free:
            return False
        self._drop(self._chunks.drop_free(excess))
        return True

    def _grow(self, size: int) -> StagingChunk:
        chunk = StagingChunk(size, f"staging chunk {self.grows}", self._factory, self._lock)
        self.grows += 1
        self._chunks.add(chunk, size, self._submits)
        self.peak = max(self.peak, self.capacity)
        return chunk

    def _drop(self, chunks: list[StagingChunk]) -> None:
        for chunk in chunks:
            chunk.destroy()
            self.shrinks += 1


def _others_can_free(chunk: StagingChunk, stuck: set[threading.Thread]) -> bool:
    """Whether the chunk is free, or will be by the doing of threads that are not `stuck`."""
    threads = list(chunk.buffer.usage_tag.recordings.values())
    return all(each is None or (each.is_alive() and each not in stuck) for each in threads)


def _chunk_size(nbytes: int) -> int:
    """Round up, so that uploads of about the same size use the same chunks."""
    step = max((1 << max(nbytes - 1, 1).bit_length()) // 8, SMALLEST_CHUNK)
    return align_up(nbytes, step)
