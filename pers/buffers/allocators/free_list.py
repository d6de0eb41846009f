"""Blocks of memory that nobody uses, to be used again."""

from __future__ import annotations

from typing import Generic, TypeVar

import attrs

T = TypeVar("T")


@attrs.frozen
class _Free(Generic[T]):
    block: T
    size: int
    since: int


class FreeList(Generic[T]):
    """Free blocks of any sizes. The smallest that fits is given out first.

    Time is whatever the caller counts: submissions, say.
    """

    def __init__(self) -> None:
        self._free: list[_Free[T]] = []

    @property
    def nbytes(self) -> int:
        """Bytes of all free blocks."""
        return sum(free.size for free in self._free)

    def __len__(self) -> int:
        return len(self._free)

    def put(self, block: T, size: int, now: int = 0) -> None:
        """Add a block that became free."""
        self._free.append(_Free(block, size, now))

    def find(self, nbytes: int, at_most: int | None = None) -> T | None:
        """Return the smallest block of at least `nbytes`, of those the one free most recently.

        What was used last is likely to be in the processor's caches, and the others grow old.

        Args:
            nbytes: How large the block has to be.
            at_most: Leave blocks that are larger than this.

        Returns:
            The block, which stays free, or None when none fits.
        """
        fitting = [
            free
            for free in self._free
            if nbytes <= free.size and (at_most is None or free.size <= at_most)
        ]
        if not fitting:
            return None
        return min(fitting, key=lambda free: (free.size, -free.since)).block

    def take(self, block: T) -> int:
        """Take out a block that `find` returned; return its size."""
        return self._take([free for free in self._free if free.block is block])[0][1]

    def take_idle(self, since: int) -> list[tuple[T, int]]:
        """Take out all blocks that became free at `since` or before."""
        return self._take([free for free in self._free if free.since <= since])

    def take_largest(self, nbytes: int) -> list[tuple[T, int]]:
        """Take out the largest blocks until they have `nbytes` together, or none is left."""
        chosen: list[_Free[T]] = []
        for free in sorted(self._free, key=lambda free: -free.size):
            if nbytes <= 0:
                break
            chosen.append(free)
            nbytes -= free.size
        return self._take(chosen)

    def _take(self, chosen: list[_Free[T]]) -> list[tuple[T, int]]:
        gone = set(map(id, chosen))
        self._free = [free for free in self._free if id(free) not in gone]
        return [(free.block, free.size) for free in chosen]
