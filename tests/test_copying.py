"""Copies by several threads: every byte arrives, whatever the layout."""

from __future__ import annotations

import math
import os
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pers import _copying
from pers._copying import PARALLEL_FROM, PIECE, copy_array, pieces

MORE_THAN_ONE = pytest.mark.skipif(
    _copying.usable_processors() < 2, reason="copies are shared by threads on two processors"
)


def numbers(*shape: int, dtype: Any = np.uint8) -> Any:
    count = math.prod(shape)
    return (np.arange(count, dtype=np.uint32) % 251).astype(dtype).reshape(shape)


@pytest.mark.parametrize("threads", [None, 1, 2, 50])
@pytest.mark.parametrize("extra", [-1, 0, 1, PIECE, 7 * PIECE + 3])
def test_flat(threads: int | None, extra: int) -> None:
    source = numbers(PARALLEL_FROM + extra)
    target = np.zeros_like(source)
    copy_array(target, source, threads=threads)
    assert (target == source).all()


@pytest.mark.parametrize(
    "shape", [(3000, 1000), (1, 3_000_000), (2, 3, 600, 1000), (3_000_000, 1), (5, 1_000_003)]
)
@pytest.mark.parametrize("order", ["C", "F", "strided"])
def test_any_layout(shape: tuple[int, ...], order: str) -> None:
    source = numbers(*shape)
    if order == "F":
        source = np.asfortranarray(source)
    elif order == "strided":
        source = np.repeat(source, 2, axis=-1)[..., ::2]
    target = np.zeros((*shape[:-1], shape[-1] + 3), np.uint8)[..., :-3]
    copy_array(target, source)
    assert (target == source).all()


@given(st.lists(st.integers(0, 40), min_size=1, max_size=4), st.integers(1, 2_000_000))
def test_pieces_cover_everything_once(shape: list[int], itemsize: int) -> None:
    count = np.zeros(shape, np.uint8)
    for piece in pieces(tuple(shape), count.size * itemsize):
        count[piece] += 1
        assert count[piece].size * itemsize < 2 * max(PIECE, itemsize)
    assert (count == 1).all()


def test_nothing() -> None:
    copy_array(np.empty(0), np.empty(0))
    copy_array(np.empty((4, 0)), np.empty((4, 0)))


@MORE_THAN_ONE
def test_threads_are_of_one_bounded_pool() -> None:
    source = numbers(8 * PIECE)
    target = np.zeros_like(source)
    for _ in range(5):
        copy_array(target, source)
    workers = [each for each in threading.enumerate() if each.name.startswith("pers-copy")]
    assert 1 <= len(workers) <= _copying.MAX_THREADS


@MORE_THAN_ONE
def test_arrays_do_not_live_on_in_the_pool() -> None:
    """Mapped memory is unmapped right after the copy, which no array may keep from happening."""

    class Memory(np.ndarray):  # type: ignore[type-arg]
        alive = 0

        def __array_finalize__(self, obj: object) -> None:
            Memory.alive += 1

        def __del__(self) -> None:
            Memory.alive -= 1

    source = numbers(8 * PIECE)
    for _ in range(20):
        target = np.zeros_like(source).view(Memory)
        copy_array(target, source)
        del target
        assert Memory.alive == 0


@MORE_THAN_ONE
def test_errors_are_raised() -> None:
    with pytest.raises(ValueError, match="broadcast"):
        copy_array(np.zeros((8, PIECE), np.uint8), numbers(8, PIECE - 1))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_after_a_fork() -> None:
    """The child has none of the threads, and starts its own."""
    source = numbers(8 * PIECE)
    target = np.zeros_like(source)
    copy_array(target, source)
    child = os.fork()
    if child == 0:
        target[:] = 0
        copy_array(target, source)
        os._exit(0 if (target == source).all() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_when_the_interpreter_ends() -> None:
    from tests.support import run_python

    program = (
        "import atexit, numpy as np\n"
        "from pers._copying import copy_array\n"
        "source = np.ones(1 << 24, np.uint8); target = np.zeros_like(source)\n"
        "def last(): copy_array(target, source); print(int(target.min()))\n"
        "atexit.register(last)\n"
        "import concurrent.futures.thread\n"
    )
    result = run_python("-c", program)
    assert result.stdout.strip() == "1", result.stderr
