"""Plain copies of memory: what no upload or readback can beat by much."""

from __future__ import annotations

import itertools
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.core import LIMIT, Contender
from benchmarks.payload import Payload

__all__ = ["copy_contenders"]

SMALLEST_SHARE = 1024 * 1024
"""Below this many bytes a thread costs more than it brings."""


@contextmanager
def copy_contenders(payload: Payload, threads: int, pieces: int = 1) -> Generator[list[Contender]]:
    """Yield copies into memory that is there already: by one thread and, if large, by several."""
    source = payload.words.view(np.uint8)
    target = np.zeros(payload.nbytes, np.uint8)

    def copy() -> None:
        for start, piece in payload.pieces:
            target[start : start + len(piece)] = piece

    found = [Contender(LIMIT, "memory copy, 1 thread", copy, lambda: payload.check(target),
                       prepare=payload.change_pages, per=pieces)]  # fmt: skip
    share = min(threads, 16, payload.nbytes // SMALLEST_SHARE)
    if pieces > 1 or share < 2:
        yield found
        return
    parts = _split(source, target, share)
    with ThreadPoolExecutor(share) as pool:

        def copy_parts() -> None:
            list(pool.map(_copy_part, parts))

        road = f"memory copy, {share} threads"
        found.append(
            Contender(LIMIT, road, copy_parts, lambda: payload.check(target), payload.change_pages)
        )
        yield found


Part = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]


def _split(source: npt.NDArray[np.uint8], target: npt.NDArray[np.uint8], count: int) -> list[Part]:
    edges = [source.nbytes * number // count for number in range(count + 1)]
    return [(source[a:b], target[a:b]) for a, b in itertools.pairwise(edges)]


def _copy_part(part: Any) -> None:
    np.copyto(part[1], part[0])
