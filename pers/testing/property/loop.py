"""An event loop beside a synchronous test: tasks that live across its steps.

The loop runs in a thread of its own, but never at the same time as the test: the test hands it
something to do, and waits until every task is asleep again. So the same steps give the same run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Generator
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar

import anyio
import anyio.abc
import anyio.from_thread
import anyio.lowlevel
import attrs

from pers.errors import PersError

__all__ = ["EventLoop", "Outcome", "Task", "attempt"]

T = TypeVar("T")

PATIENCE = 20.0
"""Seconds after which what should have ended is called a hang."""

TURNS = 4
"""Rounds of the loop in which a wake-up reaches its task, on asyncio and on trio."""


@attrs.define
class Outcome:
    """How a call ended. Holds no traceback, which would keep alive what the call looked at."""

    value: Any = None
    error: type[PersError] | None = None
    message: str = ""
    cancelled: bool = False
    crash: BaseException | None = None
    """An exception that pers should not raise."""
    count: int = 0
    """How many views a `MappedViewsError` named."""

    def __str__(self) -> str:
        if self.cancelled:
            return "it was cancelled"
        if self.crash is not None:
            return f"it raised {self.crash!r}"
        if self.error is None:
            return f"it returned {self.value!r}"
        return f"it raised {self.error.__name__}: {self.message}"


def attempt(call: Callable[[], Any]) -> Outcome:
    """Call something; errors of pers are outcomes, others are raised."""
    try:
        return Outcome(call())
    except PersError as error:
        return _failure(error)


def _failure(error: PersError) -> Outcome:
    return Outcome(error=type(error), message=str(error), count=getattr(error, "count", 0))


class _Observed(Generic[T]):
    """Awaits a coroutine and counts how often it was resumed."""

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._coroutine = coroutine
        self.resumed = 0

    def __await__(self) -> Generator[Any, Any, T]:
        send: Callable[[], Any] = lambda: self._coroutine.send(None)  # noqa: E731
        while True:
            self.resumed += 1
            try:
                asleep_on = send()
            except StopIteration as stop:
                result: T = stop.value
                return result
            try:
                value = yield asleep_on
            except BaseException as error:
                send = _thrower(self._coroutine, error)
            else:
                send = _sender(self._coroutine, value)


def _sender(coroutine: Coroutine[Any, Any, Any], value: Any) -> Callable[[], Any]:
    return lambda: coroutine.send(value)


def _thrower(coroutine: Coroutine[Any, Any, Any], error: BaseException) -> Callable[[], Any]:
    return lambda: coroutine.throw(error)


class Task:
    """An async call that goes on while the test takes its steps."""

    def __init__(
        self, name: str, call: Callable[[], Coroutine[Any, Any, Any]], *, cancelled: bool = False
    ) -> None:
        """Describe a task; `EventLoop.start` starts it.

        Args:
            name: For messages.
            call: What to await.
            cancelled: Whether to cancel it before it starts, which then happens where it first
                awaits something.
        """
        self.name = name
        self.outcome: Outcome | None = None
        """How it ended, or None."""
        self._call: Callable[[], Coroutine[Any, Any, Any]] | None = call
        self._cancelled = cancelled
        self._scope: anyio.CancelScope | None = None
        self._observed: _Observed[Any] | None = None

    @property
    def resumed(self) -> int:
        """How often it was resumed."""
        if self.outcome is not None:
            return -1
        return 0 if self._observed is None else self._observed.resumed

    def cancel(self) -> None:
        """Cancel it; in the loop's thread."""
        if self._scope is not None:
            self._scope.cancel()

    async def run(self, ended: Callable[[Task], None]) -> None:
        """Run it; `ended` is told at the end."""
        assert self._call is not None
        with anyio.CancelScope() as self._scope:
            if self._cancelled:
                self._scope.cancel()
            try:
                self._observed = _Observed(self._call())
                self._call = None
                self.outcome = Outcome(await self._observed)
            except PersError as error:
                self.outcome = _failure(error)
            except Exception as error:
                self.outcome = Outcome(crash=error)
            finally:
                self._observed = None
        if self.outcome is None:
            self.outcome = Outcome(cancelled=True)
        ended(self)


class EventLoop:
    """Runs tasks between the steps of a test. A context manager."""

    def __init__(self, backend: str) -> None:
        """Prepare a loop.

        Args:
            backend: ``asyncio`` or ``trio``.
        """
        self._backend = backend
        self._manager: AbstractContextManager[anyio.from_thread.BlockingPortal] | None = None
        self._portal: anyio.from_thread.BlockingPortal | None = None
        self._group: anyio.abc.TaskGroup | None = None
        self.tasks: list[Task] = []
        """Those that have not ended."""
        self._ended: list[Task] = []

    def start(self, task: Task) -> None:
        """Start a task and let it run until it sleeps or ends."""
        if self._portal is None:
            self._manager = anyio.from_thread.start_blocking_portal(self._backend)
            self._portal = self._manager.__enter__()
            self._holder, self._group = self._portal.start_task(self._hold)
        self.tasks.append(task)
        group = self._group
        assert group is not None
        self.run(lambda: group.start_soon(task.run, self._ended.append))

    def run(self, call: Callable[[], T], *, poll: Callable[[], None] | None = None) -> T:
        """Call something in the loop's thread, then wait until all tasks sleep.

        Args:
            call: What to call. No task runs meanwhile.
            poll: Called again and again until no task wakes up from it any more.
        """
        if self._portal is None:
            result = call()
            if poll is not None:
                poll()
            return result
        return self._portal.call(self._run, call, poll)

    def take_ended(self) -> list[Task]:
        """Take out the tasks that have ended, in that order."""
        ended = list(self._ended)
        self._ended.clear()
        for task in ended:
            self.tasks.remove(task)
        return ended

    def wait_for(self, task: Task, poll: Callable[[], None]) -> bool:
        """Let real time pass until `task` has ended; return whether it has."""
        deadline = time.monotonic() + PATIENCE
        while task.outcome is None and time.monotonic() < deadline:
            time.sleep(1e-4)
            self.run(lambda: None, poll=poll)
        return task.outcome is not None

    def close(self) -> None:
        """Cancel what is left and end the thread."""
        portal, self._portal = self._portal, None
        if portal is not None and self._manager is not None:
            portal.call(self._closing.set)
            self._holder.result(PATIENCE)
            self._manager.__exit__(None, None, None)

    def __enter__(self) -> EventLoop:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def _run(self, call: Callable[[], T], poll: Callable[[], None] | None) -> T:
        result = call()
        await self._settle()
        while poll is not None:
            poll()
            if not await self._settle():
                break
        return result

    async def _settle(self) -> bool:
        """Wait until all tasks sleep; return whether one was awake."""
        start = seen = self._progress()
        while True:
            for _ in range(TURNS):
                await anyio.lowlevel.checkpoint()
            now = self._progress()
            if now == seen:
                return seen != start
            seen = now

    def _progress(self) -> list[int]:
        return [task.resumed for task in self.tasks]

    async def _hold(self, *, task_status: anyio.abc.TaskStatus[anyio.abc.TaskGroup]) -> None:
        """Keep a task group open until `close`."""
        self._closing = anyio.Event()
        async with anyio.create_task_group() as group:
            task_status.started(group)
            await self._closing.wait()
            group.cancel_scope.cancel()
