"""Large copies in memory, by several threads.

One thread does not saturate the memory of a server. NumPy releases the interpreter's lock while it
copies, so threads of one pool, which the whole process shares, copy pieces of one array side by
side. The caller takes pieces too, and never waits for a thread that has not started.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Index = tuple[int | slice, ...]

PARALLEL_FROM = 2 * 1024 * 1024
"""Copies of fewer bytes are done before another thread has woken up."""

PIECE = 1024 * 1024
"""The least that a thread takes at a time (bytes)."""

LARGEST_PIECE = 8 * 1024 * 1024
"""The most: small enough that nobody waits long for the slowest. Fewer pieces are faster, since
every change from one to the next takes the interpreter's lock."""

MAX_THREADS = 16
"""More did not copy faster on any machine measured."""


def usable_processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Pool:
    """The threads, started when they are first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None
        self.helpers = min(usable_processors(), MAX_THREADS) - 1
        """How many threads there are beside the caller."""

    def start(self, copy: _Copy) -> Future[None] | None:
        """Have a thread help; None when the interpreter is about to end."""
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(self.helpers, "pers-copy")
            executor = self._executor
        try:
            return executor.submit(copy.help)
        except RuntimeError:
            return None

    def forget(self) -> None:
        """Start anew: a forked process has none of the threads."""
        self._lock = threading.Lock()
        self._executor = None


class _Copy:
    """One copy that several threads work at."""

    def __init__(self, target: Array, source: Array, piece: int) -> None:
        self._arrays: tuple[Array, Array] | None = (target, source)
        self._pieces = pieces(target.shape, target.nbytes, piece)
        self._lock = threading.Lock()

    def help(self) -> None:
        """Copy pieces until none are left."""
        arrays = self._arrays
        if arrays is None:
            return
        target, source = arrays
        while (piece := self._next()) is not None:
            np.copyto(target[piece], source[piece], casting="no")

    def stop(self) -> None:
        """Have nobody begin another piece: all are done, or the caller was interrupted."""
        with self._lock:
            self._pieces = iter(())

    def release(self) -> None:
        """Let go of the arrays, which may not live on in the pool: mapped memory is unmapped."""
        self._arrays = None

    def _next(self) -> Index | None:
        with self._lock:
            return next(self._pieces, None)


_pool = _Pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.forget)


def copy_array(target: Array, source: Array, *, threads: int | None = None) -> None:
    """Copy `source` to `target`: arrays of the same shape and dtype, strided or not.

    Args:
        target: Where to.
        source: Where from; does not overlap `target`.
        threads: At most how many work at it, the caller's included; None for as many as help.
    """
    nbytes = target.nbytes
    if nbytes < PARALLEL_FROM:
        np.copyto(target, source, casting="no")
        return
    most = _pool.helpers + 1 if threads is None else threads
    helpers = min(most - 1, _pool.helpers, nbytes // PIECE - 1)
    if helpers < 1:
        np.copyto(target, source, casting="no")
        return
    copy = _Copy(target, source, max(PIECE, min(LARGEST_PIECE, -(-nbytes // (helpers + 1)))))
    started: list[Future[None]] = []
    try:
        for _ in range(helpers):
            future = _pool.start(copy)
            if future is not None:
                started.append(future)
        copy.help()
    finally:
        _finish(copy, started)


def _finish(copy: _Copy, started: list[Future[None]]) -> None:
    """Wait for the threads that work at a copy, and raise what stopped them.

    Whatever interrupts the wait has to wait, too: the memory may be unmapped when this returns.
    """
    copy.stop()
    running = [future for future in started if not future.cancel()]
    interrupted: BaseException | None = None
    while not all(future.done() for future in running):
        try:
            wait(running)
        except BaseException as error:
            interrupted = error
    copy.release()
    if interrupted is not None:
        raise interrupted
    for future in running:
        future.result()


def pieces(shape: tuple[int, ...], nbytes: int, piece: int = PIECE) -> Iterator[Index]:
    """Cut an array into parts of about `piece` bytes, as indices of its first axes."""
    if not nbytes:
        return
    length, *inner = shape
    each = nbytes // length
    if each >= 2 * piece and inner:
        for index in range(length):
            yield from ((index, *rest) for rest in pieces(tuple(inner), each, piece))
        return
    step = max(-(-piece // max(each, 1)), 1)
    for start in range(0, length, step):
        yield (slice(start, start + step),)
