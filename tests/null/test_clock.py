"""Virtual time: what ends when, and who is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import anyio
import anyio.to_thread
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pers import (
    BufferDesc,
    BufferState,
    BufferUsage,
    IMappableBuffer,
    MapAbortedError,
    MapMode,
    ValidationError,
    WaitTimeoutError,
)
from pers.backends.null import NullClock, NullDevice
from pers.backends.null.timeline import Event, Moment, Timeline
from tests.support import told

STAGING = BufferUsage.MAP_WRITE | BufferUsage.COPY_SRC
READBACK = BufferUsage.MAP_READ | BufferUsage.COPY_DST


def staging(device: NullDevice, size: int = 16) -> IMappableBuffer:
    return device.buffer_factory.create_mappable_buffer(BufferDesc(size, STAGING))


def in_thread(function: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=function)
    thread.start()
    return thread


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


# --- Automatic ------------------------------------------------------------------------------------


def test_without_latency_everything_is_done_at_once() -> None:
    with NullDevice() as device:
        assert device.queue.submit([]).is_done
        with staging(device) as buffer:
            buffer.map()
            assert buffer.is_mapped
        assert device.clock.now == 0


def test_waiting_moves_the_clock_to_the_end_of_what_is_waited_for() -> None:
    clock = NullClock(submission_latency=100)
    with NullDevice(clock=clock) as device:
        first = device.queue.submit([])
        clock.advance(30)
        second = device.queue.submit([])
        assert not first.is_done
        first.wait()
        assert (clock.now, second.is_done) == (100, False)
        second.wait(timeout=5)
        assert clock.now == 130


def test_map_waits_for_the_work_that_uses_the_buffer() -> None:
    clock = NullClock(submission_latency=100, map_latency=7)
    with NullDevice(clock=clock) as device:
        used, unused = staging(device), staging(device)
        target = device.buffer_factory.create_buffer(BufferDesc(16, BufferUsage.COPY_DST))
        encoder = device.create_command_encoder()
        encoder.copy_buffer_to_buffer(used, 0, target, 0)
        submission = device.queue.submit([encoder.finish()])

        unused.map()
        assert (clock.now, submission.is_done) == (7, False)
        used.map()
        assert (clock.now, submission.is_done) == (107, True)


def test_drive_waits_for_what_another_thread_submits() -> None:
    """A completion that nothing is scheduled for yet is found when it is."""
    from pers._completion import Completion

    with NullDevice() as device:
        completion = Completion[None]("later", device.progress)
        thread = in_thread(completion.wait)
        time.sleep(0.02)
        device.native.submit([], told(lambda error: completion.settle(error)))
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.anyio
async def test_tasks_wait_on_an_automatic_clock() -> None:
    clock = NullClock(submission_latency=50, map_latency=5)
    with NullDevice(clock=clock) as device, staging(device) as buffer:
        await device.queue.submit([]).done()
        assert clock.now == 50
        mapped = await buffer.map_async()
        assert (mapped.nbytes, clock.now) == (16, 55)


@pytest.mark.anyio
async def test_tasks_take_turns_in_the_order_of_the_clock() -> None:
    """Several tasks wait at once and each is told, whoever moves the clock."""
    clock = NullClock(submission_latency=10)
    with NullDevice(clock=clock) as device:
        done: list[int] = []

        async def submit(number: int) -> None:
            await device.queue.submit([]).done()
            done.append(number)

        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(submit, number)
        assert sorted(done) == list(range(20))


# --- Manual ---------------------------------------------------------------------------------------


def test_nothing_happens_before_the_clock_advances(manual: NullDevice) -> None:
    submission = manual.queue.submit([])
    manual.poll()
    assert not submission.is_done
    manual.clock.advance(99)
    assert not submission.is_done
    manual.clock.advance(1)
    assert submission.is_done
    assert manual.clock.now == 100


def test_without_latencies_a_manual_clock_waits_for_any_advance() -> None:
    clock = NullClock(auto=False)
    with NullDevice(clock=clock) as device:
        submission = device.queue.submit([])
        device.poll()
        assert not submission.is_done
        clock.advance(0)
        assert submission.is_done
        assert not device.queue.submit([]).is_done, "the next one waits for the next advance"


def test_latency_zero_lets_idle_buffers_be_mapped_on_a_manual_clock() -> None:
    clock = NullClock(auto=False, map_latency=0)
    with NullDevice(clock=clock) as device:
        source = staging(device)
        source.map()
        source.unmap()
        target = device.buffer_factory.create_buffer(BufferDesc(16, BufferUsage.COPY_DST))
        encoder = device.create_command_encoder()
        encoder.copy_buffer_to_buffer(source, 0, target, 0)
        device.queue.submit([encoder.finish()])
        pending = source._begin_map(MapMode.WRITE, 0, None)  # type: ignore[attr-defined]
        with pytest.raises(WaitTimeoutError, match="map of buffer ''"):
            pending.wait(timeout=0.01)
        clock.advance(0)
        assert source.is_mapped


def test_belt_works_on_a_manual_clock_with_map_latency_zero() -> None:
    with NullDevice(clock=NullClock(auto=False, map_latency=0)) as device:
        desc = BufferDesc(4 << 20, BufferUsage.COPY_DST | BufferUsage.COPY_SRC)
        target = device.buffer_factory.create_buffer(desc)
        device.upload(bytes(range(256)) * (1 << 14), target)
        flushed = device.belt.flush()
        assert not flushed.is_done
        device.clock.advance(0)
        assert flushed.is_done


def test_blocking_wait_has_a_timeout(manual: NullDevice) -> None:
    submission = manual.queue.submit([])
    with pytest.raises(WaitTimeoutError, match=r"submission 1 was not done after 0\.01 s"):
        submission.wait(timeout=0.01)
    manual.clock.advance(100)
    submission.wait()


def test_blocking_wait_waits_for_another_thread_to_advance(manual: NullDevice) -> None:
    submission = manual.queue.submit([])
    waiting = threading.Event()

    def advance() -> None:
        waiting.wait(10)
        manual.clock.advance(100)

    thread = in_thread(advance)
    waiting.set()
    submission.wait()
    thread.join(10)
    assert submission.is_done


@pytest.mark.anyio
async def test_task_waits_for_another_task_to_advance(manual: NullDevice) -> None:
    buffer = staging(manual)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(buffer.map_async)
        await anyio.wait_all_tasks_blocked()
        assert buffer.state is BufferState.MAP_PENDING
        manual.clock.advance(9)
        assert buffer.state is BufferState.MAP_PENDING
        manual.clock.advance(1)
        assert buffer.state is BufferState.MAPPED


@pytest.mark.anyio
async def test_task_waits_for_a_thread_to_advance(manual: NullDevice) -> None:
    submission = manual.queue.submit([])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(submission.done)
        await anyio.to_thread.run_sync(manual.clock.advance, 100)
    assert submission.is_done


@pytest.mark.anyio
async def test_timeout_of_a_task_leaves_the_buffer_ready(manual: NullDevice) -> None:
    buffer = staging(manual)
    with anyio.move_on_after(0.01) as scope:
        await buffer.map_async()
    assert scope.cancelled_caught
    assert buffer.state is BufferState.READY
    manual.clock.advance(1000)
    assert buffer.state is BufferState.READY, "the late end of the map changes nothing"


@pytest.mark.anyio
async def test_unmap_aborts_a_pending_map(manual: NullDevice) -> None:
    buffer = staging(manual)

    async def fails() -> None:
        with pytest.raises(MapAbortedError):
            await buffer.map_async()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fails)
        await anyio.wait_all_tasks_blocked()
        buffer.unmap()
    manual.clock.advance(1000)
    assert buffer.state is BufferState.READY


def test_what_is_due_together_ends_in_the_order_of_the_calls() -> None:
    """A map asked for before "work done" settles before it (WebGPU §3.6.1)."""
    clock = NullClock(auto=False, submission_latency=100, map_latency=0)
    with NullDevice(clock=clock) as device:
        ends: list[str] = []
        native = device.native
        buffer = staging(device)
        target = device.buffer_factory.create_buffer(BufferDesc(16, BufferUsage.COPY_DST))
        encoder = device.create_command_encoder()
        encoder.copy_buffer_to_buffer(buffer, 0, target, 0)
        commands = encoder.finish().handle  # type: ignore[attr-defined]
        native.submit([commands], told(lambda error: ends.append("first")))
        buffer.native_handle.map_async(MapMode.WRITE, 0, 16, lambda error: ends.append("map"))
        native.submit([], told(lambda error: ends.append("second")))
        native.submit([], told(lambda error: ends.append("third")))
        clock.advance(1000)
        assert ends == ["first", "map", "second", "third"]


def test_callbacks_may_submit_and_poll(manual: NullDevice) -> None:
    """Work submitted by a callback runs in the same advance when it is due in it."""
    times: list[int] = []

    def again(error: object) -> None:
        times.append(manual.clock.now)
        manual.poll()
        if len(times) < 5:
            manual.native.submit([], told(again))

    manual.native.submit([], told(again))
    manual.clock.advance(350)
    assert times == [100, 200, 300]
    manual.clock.advance(1000)
    assert times == [100, 200, 300, 400, 500]


def test_polling_in_many_callbacks_does_not_recurse(device: NullDevice) -> None:
    ends: list[int] = []

    def end(number: int) -> Callable[[object], None]:
        def done(error: object) -> None:
            ends.append(number)
            device.poll()

        return done

    for number in range(3000):
        device.native.submit([], told(end(number)))
    device.poll()
    assert ends == list(range(3000))


def test_one_clock_for_two_devices() -> None:
    clock = NullClock(auto=False, submission_latency=10)
    with NullDevice(clock=clock) as one, NullDevice(clock=clock) as other:
        first, second = one.queue.submit([]), other.queue.submit([])
        one.close()
        clock.advance(10)
        assert second.is_done
        assert first.is_done


def test_many_threads_see_submissions_end_in_order() -> None:
    with NullDevice(clock=NullClock(submission_latency=3)) as device:
        ends: list[int] = []
        lock = threading.Lock()
        submitted: list[int] = []

        def work() -> None:
            for _ in range(50):
                with lock:
                    number = len(submitted)
                    submitted.append(number)
                    device.native.submit([], told(lambda error, n=number: ends.append(n)))
                device.queue.submit([]).wait()

        threads = [in_thread(work) for _ in range(4)]
        for thread in threads:
            thread.join(30)
        device.queue.submit([]).wait()
        assert ends == list(range(200))


def test_two_threads_may_advance_at_once(manual: NullDevice) -> None:
    threads = [in_thread(lambda: manual.clock.advance(10)) for _ in range(8)]
    for thread in threads:
        thread.join(10)
    assert manual.clock.now == 80


def test_advance_returns_when_another_thread_has_told_of_what_is_due(manual: NullDevice) -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(error: object) -> None:
        entered.set()
        leave.wait(10)

    ends: list[int] = []
    manual.native.submit([], told(slow))
    manual.native.submit([], told(lambda error: ends.append(1)))
    thread = in_thread(lambda: manual.clock.advance(100))
    assert entered.wait(10)
    in_thread(lambda: (time.sleep(0.02), leave.set()))
    manual.clock.advance(1)
    assert (ends, manual.clock.now) == ([1], 101)
    thread.join(10)


@pytest.mark.parametrize("value", [-1, 1.5, float("nan"), "1", 2**63, True])
def test_times_are_whole_numbers(value: int) -> None:
    with pytest.raises(ValidationError, match=r"a time \(nanoseconds\) must be"):
        NullClock(submission_latency=value)
    with pytest.raises(ValidationError, match=r"a time \(nanoseconds\) must be"):
        NullClock(auto=False).advance(value)


# --- The timeline alone ---------------------------------------------------------------------------


class Note(Event):
    def __init__(self, notes: list[tuple[int, int]], moment: Moment, number: int) -> None:
        self.owner = None
        self.notes, self.moment, self.number = notes, moment, number

    def happen(self) -> None:
        pass

    def tell(self) -> None:
        self.notes.append((self.moment[0], self.number))


@given(st.lists(st.integers(0, 20)), st.lists(st.integers(0, 10)))
def test_events_come_in_order_and_never_early(moments: list[int], steps: list[int]) -> None:
    timeline = Timeline()
    notes: list[tuple[int, int]] = []
    for number, nanoseconds in enumerate(moments):
        moment = (nanoseconds, True)
        timeline.schedule(moment, Note(notes, moment, number))
    for step in steps:
        timeline.advance(step)
        assert len(notes) == sum(moment <= timeline.now for moment in moments)
    assert notes == sorted(notes)
    assert timeline.now == sum(steps)
