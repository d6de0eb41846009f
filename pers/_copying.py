"""Large copies in memory, by several threads.

One thread does not saturate the memory of a server. NumPy releases the interpreter's lock while it
copies, so threads of one pool, which the whole process shares, copy pieces of one array side by
side. The caller takes pieces too, and never waits for a thread that has not started.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
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


class _Copy:
    """One copy that several threads work at."""

    def __init__(self, target: Array, source: Array, piece: int) -> None:
        self._arrays: tuple[Array, Array] | None = (target, source)
        self._pieces = pieces(target.shape, target.nbytes, piece)
        self._lock = threading.Lock()
        self._at_work = 0
        self._is_over = False
        self._nobody_left = threading.Lock()
        self._nobody_left.acquire()
        self._error: BaseException | None = None

    def help(self) -> None:
        """Copy pieces until none are left; for a thread of the pool, so nothing is raised."""
        with self._lock:
            if self._is_over:
                return
            self._at_work += 1
        try:
            self.work()
        except BaseException as error:
            self._error = error
        with self._lock:
            self._at_work -= 1
            if self._is_over and not self._at_work:
                self._nobody_left.release()

    def work(self) -> None:
        """Copy pieces until none are left."""
        assert self._arrays is not None
        target, source = self._arrays
        while (piece := self._next()) is not None:
            np.copyto(target[piece], source[piece], casting="no")

    def end(self) -> None:
        """Wait for the threads that work at it, and raise what stopped them.

        Nobody begins another piece: all are done, or the caller was interrupted. Whatever
        interrupts the wait has to wait, too: the memory may be unmapped when this returns.
        """
        with self._lock:
            self._pieces = iter(())
            self._is_over = True
            somebody = self._at_work > 0
        interrupted: BaseException | None = None
        while somebody:
            try:
                self._nobody_left.acquire()
                somebody = False
            except BaseException as error:
                interrupted = error
        self._arrays = None  # they may not live on in the pool: mapped memory is unmapped
        if interrupted is not None:
            raise interrupted
        if self._error is not None:
            raise self._error

    def _next(self) -> Index | None:
        with self._lock:
            return next(self._pieces, None)


class _Helper(threading.Thread):
    """A thread that helps with copies. It is woken by a plain lock.

    An executor of the standard library takes the interpreter's lock for some 30 microseconds to
    start a task, one thread after the other: with 15 threads that was a fifth of a copy of 64 MiB.
    """

    def __init__(self, idle: list[_Helper], number: int) -> None:
        super().__init__(name=f"pers-copy-{number}", daemon=True)
        self._idle = idle
        self._copy: _Copy | None = None
        self._wake = threading.Lock()
        self._wake.acquire()

    def begin(self, copy: _Copy) -> None:
        """Help with a copy; only for one that is idle."""
        self._copy = copy
        self._wake.release()

    def run(self) -> None:
        """Wait for copies and help."""
        while True:
            self._wake.acquire()
            copy, self._copy = self._copy, None
            assert copy is not None
            copy.help()
            del copy
            self._idle.append(self)


class _Pool:
    """The threads, started when they are first needed."""

    def __init__(self) -> None:
        self.helpers = min(usable_processors(), MAX_THREADS) - 1
        """How many threads there are beside the caller."""
        self.forget()

    def start(self, copy: _Copy, helpers: int) -> None:
        """Have up to that many threads help, as far as they are idle."""
        for _ in range(helpers):
            helper = self._take() or self._another()
            if helper is None:
                return
            helper.begin(copy)

    def _take(self) -> _Helper | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _another(self) -> _Helper | None:
        """Start one more thread, or return None when there are enough or there can be none."""
        with self._lock:
            if self._count >= self.helpers:
                return None
            helper = _Helper(self._idle, self._count)
            try:
                helper.start()
            except RuntimeError:  # the interpreter is about to end
                return None
            self._count += 1
            return helper

    def forget(self) -> None:
        """Start anew: a forked process has none of the threads."""
        self._lock = threading.Lock()
        self._idle: list[_Helper] = []
        self._count = 0


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
    try:
        _pool.start(copy, helpers)
        copy.work()
    finally:
        copy.end()


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
