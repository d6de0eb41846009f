"""One-shot completions that threads and tasks can wait for.

The GPU finishes work on its own time, and tells us on whatever thread happens to poll it. A
`Completion` is where that news is left, and where blocking callers (`wait`) and tasks on any
anyio event loop (`wait_async`) pick it up.
"""

from __future__ import annotations

import atexit
import contextlib
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar

import anyio
import anyio.lowlevel
from anyio.lowlevel import RunVar

from pers.errors import WaitTimeoutError

T = TypeVar("T")


class ProgressSource(ABC):
    """What makes completions happen: a device whose GPU has to be polled."""

    @abstractmethod
    def poll(self) -> None:
        """Deliver everything that has finished by now. Never blocks."""

    @abstractmethod
    def watch(self, completion: Completion[Any]) -> None:
        """Take care that `completion` is delivered without anybody calling `poll`.

        May return before that has happened. Never blocks.
        """

    @abstractmethod
    def drive(self, completion: Completion[Any]) -> None:
        """Block the calling thread until `completion` is done, in the fastest way there is.

        It may be done already, as far as nobody has polled.
        """


class Completion(Generic[T]):
    """A result that arrives once, from any thread.

    Thread-safe. The first `resolve` or `reject` wins; later ones do nothing and return False.
    """

    __slots__ = (
        "__weakref__", "_callbacks", "_error", "_lock", "_result", "_source", "after", "done",
        "what",
    )  # fmt: skip

    def __init__(self, what: str, source: ProgressSource | None = None) -> None:
        self.what = what
        self.done = False
        self.after = 0
        """The backend's number of the submission whose end brings this about; 0 for none."""
        self._source = source
        self._result: T | None = None
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def resolve(self, result: T) -> bool:
        """Deliver the result; return whether it was the first delivery."""
        return self._deliver(result, None)

    def reject(self, error: BaseException) -> bool:
        """Deliver a failure; return whether it was the first delivery."""
        return self._deliver(None, error)

    def settle(self, error: BaseException | None) -> None:
        """Deliver a failure, or that there was none; for completions without a result."""
        self._deliver(None, error)

    def add_callback(self, callback: Callable[[], None]) -> None:
        """Call `callback` on delivery, on the delivering thread; at once when already done."""
        with self._lock:
            if not self.done:
                self._callbacks.append(callback)
                return
        callback()

    def result(self) -> T:
        """Return the result or raise the failure. Only once done."""
        if self._error is not None:
            raise self._error.with_traceback(None)  # or each waiter's frames would be kept with it
        return self._result  # type: ignore[return-value]  # pyright: ignore[reportReturnType]

    def peek(self) -> T | None:
        """Return the result, or None when there is none (yet)."""
        return self._result

    def poll(self) -> bool:
        """Let the source deliver what is ready; return whether this completion is done."""
        if not self.done and self._source is not None:
            self._source.poll()
        return self.done

    def wait(self, timeout: float | None = None) -> T:
        """Block until done.

        Args:
            timeout: Seconds to wait at most, or None to wait for as long as it takes.

        Raises:
            WaitTimeoutError: When the time is up; the work itself goes on.
        """
        if not self.done:
            if timeout is None and self._source is not None:
                self._source.drive(self)
            elif not self.poll():
                self._wait_for_delivery(timeout)
        return self.result()

    async def wait_async(self) -> T:
        """Wait without blocking the event loop. Cancelling only ends the waiting."""
        # Others get their turn before the first look: what was started is pending until then, on
        # a device that is done at once as on any other.
        await anyio.lowlevel.checkpoint()
        if self.poll():
            return self.result()
        sleepers = _sleepers_here()
        with sleepers.add() as sleeper:
            self.add_callback(sleeper.ring)
            try:
                if self._source is not None:
                    self._source.watch(self)
                if self.done:
                    await anyio.lowlevel.checkpoint()
                while not self.done:
                    await sleepers.sleep(sleeper)
            finally:
                self.remove_callback(sleeper.ring)
        return self.result()

    def __await__(self) -> Generator[Any, Any, T]:
        return self.wait_async().__await__()

    def _deliver(self, result: T | None, error: BaseException | None) -> bool:
        with self._lock:
            if self.done:
                return False
            self._result, self._error = result, error
            self.done = True
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()
        return True

    def remove_callback(self, callback: Callable[[], None]) -> None:
        """Take back one `add_callback`, if it was not called yet."""
        with self._lock, contextlib.suppress(ValueError):
            self._callbacks.remove(callback)

    def _wait_for_delivery(self, timeout: float | None) -> None:
        arrived = threading.Event()
        self.add_callback(arrived.set)
        try:
            if self._source is not None:
                self._source.watch(self)
            # Fractions and NumPy's numbers are numbers, too, but not for locks.
            longest = (
                None if timeout is None else float(min(max(timeout, 0), threading.TIMEOUT_MAX))
            )
            if not arrived.wait(longest):
                raise WaitTimeoutError(
                    f"{self.what} was not done after {timeout} s; it goes on, so wait again or "
                    "give it more time"
                )
        finally:
            self.remove_callback(arrived.set)


class Waker:
    """Wakes one sleeping task from any thread, on any event loop.

    A byte through a socket pair: the one signal that both asyncio and trio take from a foreign
    thread without making that thread wait for the loop.
    """

    def __init__(self) -> None:
        self._here, self._there = socket.socketpair()
        self._here.setblocking(False)
        self._there.setblocking(False)

    def wake(self) -> None:
        """Wake the sleeper. Any thread; never blocks."""
        with contextlib.suppress(OSError):  # full (a wake-up is waiting already) or closed
            self._there.send(b"\0")

    async def sleep(self) -> None:
        """Sleep until somebody calls `wake`."""
        await anyio.wait_readable(self._here)
        self.drain()

    def drain(self) -> None:
        """Forget wake-ups that came too late to matter."""
        with contextlib.suppress(BlockingIOError):
            self._here.recv(64)

    def close(self) -> None:
        """Close both sockets."""
        self._here.close()
        self._there.close()


class _WakerPool:
    """Keeps a few wakers open, so that waiting does not open sockets each time."""

    _MAX_IDLE = 16

    def __init__(self) -> None:
        self._idle: list[Waker] = []

    @contextlib.contextmanager
    def borrow(self) -> Generator[Waker]:
        try:
            waker = self._idle.pop()
        except IndexError:
            waker = Waker()
        try:
            yield waker
        finally:
            waker.drain()
            if len(self._idle) < self._MAX_IDLE:
                self._idle.append(waker)
            else:
                waker.close()

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()


_wakers = _WakerPool()
atexit.register(_wakers.close)


class _Sleeper:
    """A task that waits for a completion."""

    def __init__(self, ring: Callable[[_Sleeper], None]) -> None:
        self._ring = ring
        self._event = anyio.Event()

    def ring(self) -> None:
        """Have the task woken. Any thread; never blocks."""
        self._ring(self)

    def wake(self) -> None:
        """Wake the task. Only in its event loop."""
        self._event.set()

    async def sleep(self) -> None:
        """Sleep until woken."""
        await self._event.wait()
        self._event = anyio.Event()


class _Sleepers:
    """The tasks of one event loop that wait for completions, all through one waker.

    One of them, the leader, sleeps on the waker and wakes the others. So thousands of tasks can
    wait with no more than two open files. When the leader leaves, another one takes its place.
    """

    def __init__(self) -> None:
        self._all: dict[_Sleeper, None] = {}
        self._rung: deque[_Sleeper] = deque()
        self._waker: Waker | None = None

    @contextlib.contextmanager
    def add(self) -> Generator[_Sleeper]:
        """Have a task among them for the length of a block."""
        sleeper = _Sleeper(self._ring)
        self._all[sleeper] = None
        try:
            yield sleeper
        finally:
            del self._all[sleeper]
            if self._waker is None and self._all:
                next(iter(self._all)).wake()  # to lead

    async def sleep(self, sleeper: _Sleeper) -> None:
        """Sleep until woken, which may be for nothing."""
        if self._waker is not None:
            await sleeper.sleep()
            return
        with _wakers.borrow() as waker:
            self._waker = waker
            try:
                # Whoever rang before there was a waker is in the queue.
                if not self._wake_rung():
                    await waker.sleep()
                    self._wake_rung()
            finally:
                self._waker = None

    def _ring(self, sleeper: _Sleeper) -> None:
        self._rung.append(sleeper)
        waker = self._waker
        if waker is not None:
            waker.wake()

    def _wake_rung(self) -> bool:
        anybody = bool(self._rung)
        while self._rung:
            self._rung.popleft().wake()
        return anybody


_sleepers_var: RunVar[_Sleepers] = RunVar("pers sleepers")


def _sleepers_here() -> _Sleepers:
    """Return the sleepers of the running event loop."""
    try:
        return _sleepers_var.get()
    except LookupError:
        sleepers = _Sleepers()
        _sleepers_var.set(sleepers)
        return sleepers


class Backoff:
    """Naps that grow with the time already waited.

    For waits where nothing but polling can notice the end: the wait is at most an eighth longer
    than it had to be, and a long one costs next to no processor time.
    """

    _SHORTEST = 20e-6
    _LONGEST = 2e-3

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def waited(self) -> float:
        """Seconds since it was made."""
        return time.perf_counter() - self._start

    def next(self) -> float:
        """Return how long the next nap is: an eighth of the time waited so far, within bounds."""
        return min(max(self.waited / 8, self._SHORTEST), self._LONGEST)

    def nap(self) -> None:
        """Sleep for that long."""
        time.sleep(self.next())
