"""The bytes that are moved, new ones for each run, and how they are compared."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.core import WrongContentError

__all__ = ["Payload", "expect_equal"]

PAGE = 1024
"""Words in 4 KiB."""


class Payload:
    """Random words that change a little before each run, so that old bytes are seen as wrong."""

    def __init__(self, nbytes: int, pieces: int = 1, seed: int = 1) -> None:
        """Make `pieces` pieces of `nbytes` bytes each."""
        if nbytes % 4:
            raise ValueError(f"{nbytes} is no multiple of 4")
        self.nbytes = nbytes * pieces
        """Bytes in all pieces."""
        words = np.random.default_rng(seed).integers(0, 2**32, self.nbytes // 4, np.uint32)
        self.words: npt.NDArray[np.uint32] = words
        """All pieces, one after the other."""
        self.pieces = [(start, words.view(np.uint8)[start : start + nbytes])
                       for start in range(0, self.nbytes, nbytes)]  # fmt: skip
        """Where each piece lies (bytes), and its bytes."""
        self._numbers = itertools.count(1)

    def change_pages(self) -> None:
        """Write a number of its own into every page and every piece."""
        number = next(self._numbers)
        self.words[::PAGE] = number
        step = self.nbytes // len(self.pieces) // 4
        self.words[:: min(step, PAGE)] = number
        self.words[-1] = number

    def check(self, found: Any) -> None:
        """Raise `WrongContentError` unless `found` holds the words as they are now."""
        expect_equal(np.frombuffer(found, np.uint32), self.words)


def expect_equal(found: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> None:
    """Raise `WrongContentError` unless two arrays are the same."""
    if found.shape != wanted.shape:
        raise WrongContentError(f"shape {found.shape} instead of {wanted.shape}")
    if not np.array_equal(found, wanted):
        different = found != wanted
        first = tuple(int(i) for i in np.argwhere(different)[0])
        raise WrongContentError(
            f"{int(np.count_nonzero(different))} of {wanted.size} values are wrong; the first, "
            f"at {first}, is {found[first]} instead of {wanted[first]}"
        )
