"""Completions: one delivery, from any thread, to every thread and task that waits for it."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import numpy as np
import pytest

from pers import DeviceLostError, ValidationError, WaitTimeoutError
from pers._completion import Completion, ProgressSource, Waker


class Source(ProgressSource):
    """Delivers completions when it is polled or driven, and counts that."""

    def __init__(self) -> None:
        self.ready: list[Callable[[], object]] = []
        self.polls = self.drives = 0
        self.watched: list[Completion[Any]] = []

    def poll(self) -> None:
        self.polls += 1
        while self.ready:
            self.ready.pop(0)()

    def watch(self, completion: Completion[Any]) -> None:
        self.watched.append(completion)

    def drive(self, completion: Completion[Any]) -> None:
        self.drives += 1
        while not completion.done:
            self.poll()


def from_a_thread(call: Callable[[], object]) -> None:
    """Make a call on another thread, and wait for it."""
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


# --- One delivery ---------------------------------------------------------------------------------


def test_result() -> None:
    completion: Completion[int] = Completion("it")
    assert not completion.done
    assert completion.peek() is None
    assert completion.resolve(5)
    assert completion.done
    assert completion.peek() == completion.result() == completion.wait() == 5


def test_failure() -> None:
    completion: Completion[int] = Completion("it")
    error = DeviceLostError("gone")
    assert completion.reject(error)
    assert completion.peek() is None
    for call in (completion.result, completion.wait, lambda: completion.wait(0)):
        with pytest.raises(DeviceLostError) as caught:
            call()
        assert caught.value is error


@pytest.mark.parametrize("first", ["resolve", "reject"])
@pytest.mark.parametrize("second", ["resolve", "reject"])
def test_the_first_delivery_wins(first: str, second: str) -> None:
    completion: Completion[Any] = Completion("it")
    calls: list[int] = []
    completion.add_callback(lambda: calls.append(1))
    assert getattr(completion, first)(ValueError("first"))
    assert not getattr(completion, second)(KeyError("second"))
    if first == "resolve":
        assert str(completion.result()) == "first"
    else:
        with pytest.raises(ValueError, match="first"):
            completion.result()
    assert calls == [1]


def test_one_of_many_threads_delivers() -> None:
    for _ in range(20):
        completion: Completion[int] = Completion("it")
        won: list[int] = []
        start = threading.Barrier(4)

        def deliver(number: int, c: Any = completion, w: Any = won, s: Any = start) -> None:
            s.wait()
            if c.resolve(number):
                w.append(number)

        threads = [threading.Thread(target=deliver, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert won == [completion.result()]


def test_callbacks() -> None:
    completion: Completion[int] = Completion("it")
    calls: list[tuple[int, int]] = []
    for number in range(3):
        completion.add_callback(lambda n=number: calls.append((n, threading.get_ident())))
    from_a_thread(lambda: completion.resolve(1))
    assert [number for number, _ in calls] == [0, 1, 2]
    assert all(thread != threading.get_ident() for _, thread in calls)
    completion.add_callback(lambda: calls.append((3, threading.get_ident())))  # at once
    assert calls[-1] == (3, threading.get_ident())


def test_callback_that_waits() -> None:
    """A callback may use the completion that calls it."""
    completion: Completion[int] = Completion("it")
    results: list[int] = []
    completion.add_callback(lambda: results.append(completion.wait()))
    completion.resolve(4)
    assert results == [4]


# --- Blocking waits -------------------------------------------------------------------------------


def test_wait_polls_first() -> None:
    source = Source()
    completion: Completion[int] = Completion("it", source)
    source.ready.append(lambda: completion.resolve(3))
    assert completion.wait(0) == 3
    assert (source.polls, source.drives) == (1, 0)


def test_wait_without_a_limit_drives() -> None:
    source = Source()
    completion: Completion[int] = Completion("it", source)
    source.ready.append(lambda: source.ready.append(lambda: completion.resolve(3)))
    source.poll()
    source.ready.insert(0, lambda: None)
    assert completion.wait() == 3


def test_wait_with_a_limit() -> None:
    source = Source()
    completion: Completion[int] = Completion("the map of buffer 'b'", source)
    for timeout in (0, 0.001, -5, Fraction(1, 1000), np.float32(0.001), np.int64(0), -(10**400)):
        with pytest.raises(WaitTimeoutError, match="the map of buffer 'b' was not done"):
            completion.wait(timeout)
    assert source.watched == [completion] * 7
    thread = threading.Thread(target=lambda: completion.resolve(7))
    thread.start()
    assert completion.wait(2**80) == 7
    thread.join()


def test_limits_that_no_float_can_hold() -> None:
    from pers import Submission

    submission = Submission(1, Completion("submission 1"))
    with pytest.raises(WaitTimeoutError):
        submission.wait(-(10**400))
    thread = threading.Timer(0.01, submission._completion.resolve, [None])
    thread.start()
    submission.wait(10**400)
    thread.join()


@pytest.mark.parametrize("timeout", ["1", float("nan"), object(), [1]])
def test_limits_that_are_none(timeout: Any) -> None:
    from pers import Submission

    submission = Submission(1, Completion("submission 1"))
    with pytest.raises(ValidationError, match="takes seconds or None"):
        submission.wait(timeout)


def test_threads_that_wait() -> None:
    completion: Completion[int] = Completion("it")
    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(completion.wait())) for _ in range(8)]
    for thread in threads:
        thread.start()
    completion.resolve(9)
    for thread in threads:
        thread.join()
    assert results == [9] * 8


# --- Waiting tasks --------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("when", ["before", "same loop", "other thread", "by polling"])
async def test_await(when: str) -> None:
    source = Source()
    completion: Completion[int] = Completion("it", source)
    results: list[int] = []

    async def wait() -> None:
        results.append(await completion)

    if when == "before":
        completion.resolve(1)
    elif when == "by polling":
        source.ready.append(lambda: completion.resolve(1))
    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        if when == "same loop":
            completion.resolve(1)
        elif when == "other thread":
            await anyio.to_thread.run_sync(completion.resolve, 1)
    assert results == [1]
    assert bool(source.watched) == (when in ("same loop", "other thread"))


@pytest.mark.anyio
async def test_await_a_failure() -> None:
    completion: Completion[int] = Completion("it")
    from_a_thread(lambda: completion.reject(DeviceLostError("gone")))
    for _ in range(2):
        with pytest.raises(DeviceLostError, match="gone"):
            await completion


@pytest.mark.anyio
async def test_await_lets_others_run() -> None:
    """Also when there is nothing to wait for: a loop of awaits starves nobody."""
    completion: Completion[int] = Completion("it")
    completion.resolve(1)
    turns: list[int] = []

    async def other() -> None:
        turns.append(len(turns))

    async with anyio.create_task_group() as group:
        group.start_soon(other)
        for _ in range(100):
            await completion
            if turns:
                break
    assert turns


@pytest.mark.anyio
async def test_await_can_always_be_cancelled() -> None:
    for done in (False, True):
        completion: Completion[int] = Completion("it")
        if done:
            completion.resolve(1)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await completion
            pytest.fail("it was cancelled")
        assert scope.cancelled_caught


@pytest.mark.anyio
async def test_watched_at_once_when_the_source_delivers_in_watch() -> None:
    class Eager(Source):
        def watch(self, completion: Completion[Any]) -> None:
            completion.resolve(6)

    assert await Completion[int]("it", Eager()) == 6


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.anyio
async def test_thousands_of_tasks_wait(anyio_backend_name: str) -> None:
    """Each is woken by its own completion, in any order, with a handful of open files."""
    count = 2000
    completions: list[Completion[int]] = [Completion(f"number {i}") for i in range(count)]
    results: dict[int, int] = {}

    async def wait(index: int) -> None:
        results[index] = await completions[index]

    def deliver() -> None:
        order = list(range(count))
        random.Random(7).shuffle(order)
        for index in order:
            completions[index].resolve(index)

    before = open_files() if os.path.exists("/proc/self/fd") else 0  # noqa: PTH110
    async with anyio.create_task_group() as group:
        for index in range(count):
            group.start_soon(wait, index)
        await anyio.wait_all_tasks_blocked()
        if before:
            assert open_files() <= before + 4
        await anyio.to_thread.run_sync(deliver)
    assert results == {index: index for index in range(count)}


@pytest.mark.anyio
async def test_many_tasks_wait_for_the_same() -> None:
    completion: Completion[int] = Completion("it")
    results: list[int] = []

    async def wait() -> None:
        results.append(await completion)

    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        await anyio.to_thread.run_sync(completion.resolve, 8)
    assert results == [8] * 50


@pytest.mark.anyio
@pytest.mark.parametrize("seed", range(6))
async def test_cancelled_waiters_take_nobody_with_them(seed: int) -> None:
    """Whoever is cancelled, at whatever time, the others hear of their completions."""
    chance = random.Random(seed)
    count = 40
    completions: list[Completion[int]] = [Completion(f"number {i}") for i in range(count)]
    scopes = [anyio.CancelScope() for _ in range(count)]
    ended: dict[int, str] = {}

    async def wait(index: int) -> None:
        with scopes[index]:
            await completions[index]
            ended[index] = "done"
            return
        ended[index] = "cancelled"

    async with anyio.create_task_group() as group:
        for index in range(count):
            group.start_soon(wait, index)
        await anyio.wait_all_tasks_blocked()
        order = list(range(count))
        chance.shuffle(order)
        for index in order:
            match chance.choice(["cancel", "here", "thread", "both"]):
                case "cancel":
                    scopes[index].cancel()
                case "here":
                    completions[index].resolve(index)
                case "thread":
                    await anyio.to_thread.run_sync(completions[index].resolve, index)
                case "both":
                    completions[index].resolve(index)
                    scopes[index].cancel()
            for _ in range(chance.randrange(3)):
                await anyio.lowlevel.checkpoint()
        for completion in completions:
            completion.resolve(-1)
    assert sorted(ended) == list(range(count))
    for index, how in ended.items():
        assert how == "cancelled" or completions[index].done


@pytest.mark.anyio
async def test_shielded_waiter_goes_on() -> None:
    """A leader that is cancelled hands its work over to a waiter outside of the scope."""
    first: Completion[int] = Completion("first")
    second: Completion[int] = Completion("second")
    results: list[int] = []
    scope = anyio.CancelScope()

    async def leader() -> None:
        with scope:
            await first

    async def follower() -> None:
        results.append(await second)

    async with anyio.create_task_group() as group:
        group.start_soon(leader)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(follower)
        await anyio.wait_all_tasks_blocked()
        scope.cancel()
        await anyio.wait_all_tasks_blocked()
        await anyio.to_thread.run_sync(second.resolve, 2)
    assert results == [2]


def test_two_event_loops_wait_for_the_same(anyio_backend: str) -> None:
    completion: Completion[int] = Completion("it")
    ready = threading.Barrier(3)
    results: list[int] = []

    async def wait() -> None:
        async with anyio.create_task_group() as group:

            async def one() -> None:
                results.append(await completion)

            group.start_soon(one)
            group.start_soon(one)
            await anyio.wait_all_tasks_blocked()
            await anyio.to_thread.run_sync(ready.wait)

    threads = [
        threading.Thread(target=lambda: anyio.run(wait, backend=anyio_backend)) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    ready.wait()
    completion.resolve(3)
    for thread in threads:
        thread.join()
    assert results == [3] * 4


def test_one_loop_after_the_other(anyio_backend: str) -> None:
    """Nothing of a loop is left for the next one."""

    async def wait() -> int:
        completion: Completion[int] = Completion("it")
        timer = threading.Thread(target=lambda: completion.resolve(5))
        async with anyio.create_task_group() as group:
            group.start_soon(completion.wait_async)
            await anyio.wait_all_tasks_blocked()
            timer.start()
        return await completion

    for _ in range(5):
        assert anyio.run(wait, backend=anyio_backend) == 5


# --- Wakers ---------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_waker() -> None:
    waker = Waker()
    waker.wake()
    waker.wake()
    await waker.sleep()  # for both
    from_a_thread(waker.wake)
    await waker.sleep()
    with anyio.move_on_after(0.01) as scope:
        await waker.sleep()
    assert scope.cancelled_caught
    for _ in range(100_000):  # more than fits: a wake-up is waiting, so nothing is lost
        waker.wake()
    while True:
        with anyio.move_on_after(0) as scope:
            await waker.sleep()
        if scope.cancelled_caught:
            break
    waker.close()
    waker.wake()  # too late, and harmless
