"""Small pieces of memory out of large ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import attrs

from pers._checks import align_up
from pers.buffers.allocators.free_list import FreeList

T = TypeVar("T")


@attrs.define(eq=False)
class _Chunk(Generic[T]):
    block: T
    size: int
    used: int = 0


class ChunkList(Generic[T]):
    """Gives out parts of chunks, one after the other, and whole chunks.

    One chunk is open: parts are taken from it until the next one does not fit or it is closed. A
    chunk comes back as a whole, when all users of its parts are through.
    """

    def __init__(self, is_unused: Callable[[T], bool]) -> None:
        """Start without chunks.

        Args:
            is_unused: Says of a block whether all users of its parts are through.
        """
        self._is_unused = is_unused
        self._open: _Chunk[T] | None = None
        self._busy: list[_Chunk[T]] = []
        self._free: FreeList[T] = FreeList()

    @property
    def capacity(self) -> int:
        """Bytes of all chunks."""
        return self._free.nbytes + sum(chunk.size for chunk in self._given_out)

    @property
    def used(self) -> int:
        """Bytes given out, with what alignment cost."""
        return sum(chunk.used for chunk in self._given_out)

    @property
    def free(self) -> int:
        """Bytes of the chunks of which nothing is given out."""
        return self._free.nbytes

    @property
    def open_used(self) -> int:
        """Bytes taken from the open chunk."""
        return 0 if self._open is None else self._open.used

    @property
    def open_block(self) -> T | None:
        """The block that parts are taken from."""
        return None if self._open is None else self._open.block

    @property
    def busy_blocks(self) -> list[T]:
        """The blocks that parts were taken from, the oldest first, without the open one."""
        return [chunk.block for chunk in self._busy]

    def take_part(self, nbytes: int, alignment: int) -> tuple[T, int] | None:
        """Take a part of the open chunk.

        Returns:
            The block and where in it the part starts, or None when it does not fit.
        """
        chunk = self._open
        if chunk is None:
            return None
        start = align_up(chunk.used, alignment)
        if start + nbytes > chunk.size:
            return None
        chunk.used = start + nbytes
        return chunk.block, start

    def find_free(self, nbytes: int, at_most: int | None = None) -> T | None:
        """Return the free block that fits `nbytes` best, but none larger than `at_most`."""
        return self._free.find(nbytes, at_most)

    def open(self, block: T) -> None:
        """Take parts from a free block from now on, and none from the open one any more."""
        size = self._free.take(block)
        self.close()
        self._open = _Chunk(block, size)

    def take_whole(self, block: T, nbytes: int) -> None:
        """Take a free block for one user, who needs `nbytes` of it."""
        self._busy.append(_Chunk(block, self._free.take(block), nbytes))

    def add(self, block: T, size: int, now: int = 0) -> None:
        """Add a chunk, free."""
        self._free.put(block, size, now)

    def close(self) -> None:
        """Take no more parts from the open chunk."""
        chunk, self._open = self._open, None
        if chunk is not None:
            self._busy.append(chunk)

    def recycle(self, now: int = 0) -> list[T]:
        """Take back chunks whose users are through; return the blocks that became free."""
        back = [chunk for chunk in self._busy if self._is_unused(chunk.block)]
        if back:
            self._busy = [chunk for chunk in self._busy if chunk not in back]
        for chunk in back:
            self._free.put(chunk.block, chunk.size, now)
        if self._open is not None and self._open.used and self._is_unused(self._open.block):
            self._open.used = 0
        return [chunk.block for chunk in back]

    def drop_free(self, nbytes: int) -> list[T]:
        """Give up free chunks, the largest first, until they had `nbytes`; return their blocks."""
        return [block for block, _ in self._free.take_largest(nbytes)]

    def drop_idle(self, since: int) -> list[T]:
        """Give up the chunks that have been free since then; return their blocks."""
        return [block for block, _ in self._free.take_idle(since)]

    def drop_all(self) -> list[T]:
        """Give up every chunk, whoever uses it; return their blocks."""
        self.close()
        blocks = [block for block, _ in self._free.take_largest(self._free.nbytes)]
        blocks += self.busy_blocks
        self._busy.clear()
        return blocks

    @property
    def _given_out(self) -> list[_Chunk[T]]:
        return self._busy if self._open is None else [*self._busy, self._open]
