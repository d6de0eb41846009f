"""`ReadbackStream`: results of every frame, in order, and never in the way of the frame loop."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import anyio
import anyio.lowlevel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pers import (
    BufferDesc,
    BufferRangeError,
    BufferState,
    BufferStateError,
    BufferUsage,
    BufferUsageError,
    DeviceBuffer,
    DeviceLostError,
    ICommandBuffer,
    IRenderDevice,
    MapAbortedError,
    ReadbackStream,
    RingFullError,
    TextureRows,
    ValidationError,
)
from pers.backends.null import NullClock, NullDevice
from tests.support import JUNK_NUMBERS, Maker, live, make_texture, numbers, random_pixels, settle


@pytest.fixture
def manual() -> Iterator[NullDevice]:
    """A null device where work takes 100 ns of a clock that the test moves."""
    clock = NullClock(auto=False, submission_latency=100, map_latency=0)
    with NullDevice(clock=clock) as device:
        yield device


class Frames:
    """A frame loop whose results are the number of the frame."""

    def __init__(self, device: IRenderDevice, **more: Any) -> None:
        self.device = device
        more = {"dtype": np.uint32, "debug_name": "results"} | more
        self.stream = ReadbackStream(64, device.buffer_factory, **more)
        self.source = DeviceBuffer(64, device.buffer_factory, usage=BufferUsage.COPY_SRC)
        self.number = 0

    def record(self) -> ICommandBuffer:
        """Record the next frame."""
        self.device.queue.write_buffer(self.source, 0, numbers(16, self.number))
        encoder = self.device.create_command_encoder()
        self.stream.push(encoder, self.source, tag=self.number)
        self.number += 1
        return encoder.finish()

    def draw(self) -> None:
        """Record and submit the next frame."""
        self.device.queue.submit([self.record()])

    def poll(self) -> list[int]:
        """Take what has arrived; check it, and return the frames' numbers."""
        return [self.checked(pair) for pair in self.stream.poll()]

    def checked(self, pair: tuple[Any, Any]) -> int:
        """Return the frame's number when its result is right."""
        tag, array = pair
        assert array.tolist() == [*numbers(16, tag)]
        assert not array.flags.writeable
        return int(tag)


# --- In a plain loop ------------------------------------------------------------------------------


def test_results_arrive_frames_later(manual: NullDevice) -> None:
    """Frame N is read while frame N+2 is drawn, in order, and nothing ever waits."""
    frames = Frames(manual)
    seen = []
    for _ in range(20):
        seen.append(frames.poll())
        frames.draw()
        manual.clock.advance(45)  # a frame is done in the third step after its own
    assert seen[:6] == [[], [], [], [0], [1], [2]]
    assert [number for step in seen for number in step] == list(range(17))
    assert frames.stream.outstanding == 3
    assert frames.stream.stats.slots <= 4


def test_poll_and_take(device: IRenderDevice) -> None:
    frames = Frames(device)
    taken = []
    for _ in range(10):
        if frames.stream.is_full:
            taken.append(frames.checked(frames.stream.take_blocking()))
        frames.draw()
    settle(device)
    while frames.stream.outstanding:
        taken += frames.poll()
        device.poll()
    assert taken == list(range(10))
    stats = frames.stream.stats
    assert (stats.pushed, stats.delivered, stats.dropped, stats.bytes_read) == (10, 10, 0, 640)
    assert stats.slots == 3


def test_arrays_may_be_kept(device: IRenderDevice) -> None:
    frames = Frames(device)
    kept = []
    for _ in range(8):
        frames.draw()
        kept.append(frames.stream.take_blocking())
    assert [frames.checked(pair) for pair in kept] == list(range(8))
    kept.clear()
    assert frames.stream.stats.slots == 3  # as many as frames in flight


def test_pixels(device: IRenderDevice) -> None:
    pixels = random_pixels(make_texture(device).format, 4, 4)
    texture = make_texture(device)
    device.upload(pixels, texture)
    stream = ReadbackStream(TextureRows(texture.format, 4, 4).nbytes, device.buffer_factory)
    encoder = device.create_command_encoder()
    assert stream.push(encoder, texture)
    device.queue.submit([encoder.finish()])
    tag, array = stream.take_blocking()
    assert tag is None
    assert (array == pixels).all()


def test_parts_and_shapes(device: IRenderDevice) -> None:
    frames = Frames(device, dtype=np.uint32, shape=(2, 2))
    frames.device.queue.write_buffer(frames.source, 0, numbers(16))
    encoder = device.create_command_encoder()
    frames.stream.push(encoder, frames.source, 8, size=16)
    device.queue.submit([encoder.finish()])
    assert frames.stream.take_blocking()[1].tolist() == [[3, 4], [5, 6]]


# --- In tasks -------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_async_for(device: IRenderDevice) -> None:
    """A consumer of its own; the loop waits for it only where it falls behind."""
    frames = Frames(device)
    seen: list[int] = []

    async def consume() -> None:
        async for pair in frames.stream:
            seen.append(frames.checked(pair))

    async with anyio.create_task_group() as group:
        group.start_soon(consume)
        for _ in range(30):
            await frames.stream.room()
            frames.draw()
        frames.stream.close()
    assert seen == list(range(30))
    assert frames.stream.stats.slots == 3


@pytest.mark.anyio
async def test_consumer_wakes_at_the_submit(device: IRenderDevice) -> None:
    """It sleeps while nothing is pushed or submitted, and needs no later push to wake up."""
    frames = Frames(device)
    arrived = anyio.Event()

    async def consume() -> None:
        assert frames.checked(await anext(frames.stream)) == 0
        arrived.set()

    async with anyio.create_task_group() as group:
        group.start_soon(consume)
        await anyio.wait_all_tasks_blocked()
        commands = frames.record()
        await anyio.wait_all_tasks_blocked()
        assert not arrived.is_set()
        thread = threading.Thread(target=device.queue.submit, args=([commands],))
        thread.start()
        thread.join()
        await arrived.wait()


@pytest.mark.anyio
async def test_room_waits_for_the_consumer(manual: NullDevice) -> None:
    frames = Frames(manual)
    for _ in range(3):
        frames.draw()
    manual.clock.advance(1000)
    log = []

    async def produce() -> None:
        await frames.stream.room()
        log.append("room")

    async with anyio.create_task_group() as group:
        group.start_soon(produce)
        await anyio.wait_all_tasks_blocked()
        log.append("take")
        frames.stream.take_blocking()
    assert log == ["take", "room"]


@pytest.mark.anyio
async def test_room_when_commands_are_dropped(manual: NullDevice) -> None:
    """Room that another task finds is room for who waits for it, too."""
    frames = Frames(manual)
    commands = [frames.record() for _ in range(3)]
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(frames.stream.room)
            await anyio.wait_all_tasks_blocked()
            commands.clear()
            gc.collect()
            assert frames.poll() == []
    assert frames.stream.stats.dropped == 3


@pytest.mark.anyio
async def test_cancelled_consumer_loses_nothing(manual: NullDevice) -> None:
    frames = Frames(manual)
    frames.draw()
    with anyio.move_on_after(0.01) as scope:
        await anext(frames.stream)
    assert scope.cancelled_caught
    manual.clock.advance(100)
    assert frames.checked(await anext(frames.stream)) == 0


@pytest.mark.anyio
async def test_close_ends_the_iteration(device: IRenderDevice) -> None:
    frames = Frames(device)
    frames.draw()
    frames.stream.close()
    frames.stream.close()
    assert [frames.checked(pair) async for pair in frames.stream] == [0]
    with pytest.raises(BufferStateError, match="'results'.*closed; make a new one"):
        frames.draw()
    await frames.stream.room()
    asleep = Frames(device)
    async with anyio.create_task_group() as group:
        group.start_soon(collect, asleep)
        await anyio.wait_all_tasks_blocked()
        asleep.stream.close()


async def collect(frames: Frames) -> list[int]:
    return [frames.checked(pair) async for pair in frames.stream]


# --- Too slow -------------------------------------------------------------------------------------


def test_full(manual: NullDevice) -> None:
    """Without `drop_oldest` nothing is lost: the push is refused."""
    frames = Frames(manual)
    for _ in range(3):
        frames.draw()
    for advance in (0, 1000):  # whether the GPU or the consumer is too slow
        manual.clock.advance(advance)
        with pytest.raises(RingFullError, match="'results'.*all 3 results.*drop_oldest"):
            frames.draw()
    assert frames.poll() == [0, 1, 2]
    frames.draw()
    assert frames.stream.stats.dropped == 0


def test_drop_oldest_of_a_slow_consumer(manual: NullDevice) -> None:
    frames = Frames(manual, drop_oldest=True)
    for _ in range(10):
        frames.draw()
        manual.clock.advance(1000)
    assert frames.poll() == [7, 8, 9]
    stats = frames.stream.stats
    assert (stats.pushed, stats.delivered, stats.dropped, stats.slots) == (10, 3, 7, 3)


def test_drop_with_a_slow_gpu(manual: NullDevice) -> None:
    """The GPU is far behind: what it works at is not given up, or nothing would ever arrive."""
    frames = Frames(manual, drop_oldest=True)
    seen = []
    for _ in range(40):
        frames.draw()
        manual.clock.advance(10)
        seen += frames.poll()
    assert len(seen) >= 9
    assert seen == sorted(seen)
    assert frames.stream.stats.slots <= 4
    encoder = manual.create_command_encoder()
    while frames.stream.push(encoder, frames.source):
        pass
    assert frames.stream.outstanding == 3


@pytest.mark.anyio
async def test_there_is_always_room_with_drop_oldest(manual: NullDevice) -> None:
    frames = Frames(manual, drop_oldest=True)
    for _ in range(3):
        frames.draw()
    await frames.stream.room()


@given(
    drop_oldest=st.booleans(),
    in_flight=st.integers(2, 5),
    steps=st.lists(
        st.one_of(
            st.just("draw"), st.just("poll"), st.just("keep"), st.just("drop"), st.integers(0, 250)
        ),
        max_size=40,
    ),
)
def test_any_order(drop_oldest: bool, in_flight: int, steps: list[Any]) -> None:
    """Whoever is slow: results are right and in order, and none is lost without being counted."""
    clock = NullClock(auto=False, submission_latency=100, map_latency=0)
    with NullDevice(clock=clock) as device:
        frames = Frames(device, drop_oldest=drop_oldest, frames_in_flight=in_flight)
        kept: list[tuple[Any, Any]] = []
        seen: list[int] = []
        pushed = refused = 0
        for step in [*steps, 10_000, "poll"]:
            if step == "draw":
                pushed += 1
                try:
                    frames.draw()
                except RingFullError:
                    refused += 1
            elif step in ("poll", "keep"):
                pairs = frames.stream.poll()
                seen += [frames.checked(pair) for pair in pairs]
                kept += pairs if step == "keep" else []
            elif step == "drop":
                kept.clear()
            else:
                clock.advance(step)
            assert frames.stream.outstanding <= in_flight
            assert all(frames.checked(pair) == pair[0] for pair in kept)
            assert frames.stream.stats.slots <= 2 * in_flight + len(kept)
        assert seen == sorted(set(seen))
        stats = frames.stream.stats
        assert pushed - refused == len(seen) + stats.dropped
        assert drop_oldest or stats.dropped == 0
        assert not drop_oldest or refused == 0


# --- Commands that are not submitted --------------------------------------------------------------


def test_dropped_commands(manual: NullDevice) -> None:
    frames = Frames(manual)
    frames.draw()
    commands = frames.record()
    frames.draw()
    manual.clock.advance(1000)
    assert frames.poll() == [0]
    del commands
    gc.collect()
    assert frames.poll() == [2]
    assert frames.stream.stats.dropped == 1
    for _ in range(5):
        frames.record()
        gc.collect()
    assert frames.stream.stats.slots <= 4


def test_submitted_out_of_order(manual: NullDevice) -> None:
    frames = Frames(manual)
    commands = [frames.record() for _ in range(2)]
    manual.queue.submit([commands[1]])
    manual.clock.advance(1000)
    assert frames.poll() == []
    manual.queue.submit([commands[0]])
    manual.clock.advance(1000)
    assert [tag for tag, _ in frames.stream.poll()] == [0, 1]


def test_take_blocking_of_nothing(device: IRenderDevice) -> None:
    frames = Frames(device)
    with pytest.raises(BufferStateError, match="'results'.*nothing was pushed"):
        frames.stream.take_blocking()
    commands = frames.record()
    with pytest.raises(BufferStateError, match="'results'.*not submitted; submit"):
        frames.stream.take_blocking()
    device.queue.submit([commands])
    assert frames.checked(frames.stream.take_blocking()) == 0


# --- Mistakes and ends ----------------------------------------------------------------------------


@pytest.mark.parametrize("junk", [0, 1, 65, *JUNK_NUMBERS])
def test_frames_in_flight_that_are_none(junk: Any, device: IRenderDevice) -> None:
    with pytest.raises(BufferRangeError, match="frames_in_flight"):
        Frames(device, frames_in_flight=junk)


def test_mistakes(device: IRenderDevice, make: Maker) -> None:
    frames = Frames(device)
    stream, encoder = frames.stream, device.create_command_encoder()
    with pytest.raises(BufferUsageError, match="takes a command encoder"):
        stream.push(frames.source, encoder)  # type: ignore[arg-type]
    with pytest.raises(ValidationError):
        stream.push(encoder, None)  # type: ignore[arg-type]
    with pytest.raises(BufferUsageError, match="COPY_SRC"):
        stream.push(encoder, make.plain(64, BufferUsage.VERTEX))
    with pytest.raises(BufferRangeError):
        stream.push(encoder, make.plain(128), size=128)
    with pytest.raises(BufferRangeError, match="'results'.*pass a shape"):
        stream.push(encoder, Frames(device, dtype=np.uint8).source, size=2)
    with pytest.raises(BufferRangeError, match=r"'results'.*TextureRows"):
        stream.push(encoder, make_texture(device))
    with pytest.raises(BufferUsageError, match="MAP_WRITE"):
        ReadbackStream(BufferDesc(64, BufferUsage.MAP_WRITE), device.buffer_factory)
    assert stream.outstanding == 0
    assert stream.stats.slots <= 2


def test_destroy(fresh_device: IRenderDevice) -> None:
    before = live(fresh_device)
    with Frames(fresh_device).stream as stream:
        source = DeviceBuffer(64, fresh_device.buffer_factory, usage=BufferUsage.COPY_SRC)
        for _ in range(3):
            encoder = fresh_device.create_command_encoder()
            stream.push(encoder, source)
            fresh_device.queue.submit([encoder.finish()])
        array = stream.take_blocking()[1]
    assert stream.outstanding == 0
    assert array.tolist() == [0] * 16
    with pytest.raises(BufferStateError, match="closed"):
        stream.push(fresh_device.create_command_encoder(), source)
    assert source.state is BufferState.READY
    reference = weakref.ref(stream)
    del array, source, encoder, stream
    fresh_device.queue.on_work_done().wait()
    gc.collect()
    assert reference() is None
    assert live(fresh_device) == before


@pytest.mark.anyio
async def test_device_lost(fresh_device: IRenderDevice) -> None:
    frames = Frames(fresh_device)
    frames.draw()
    fresh_device.close()
    with pytest.raises((DeviceLostError, MapAbortedError)):
        await anext(frames.stream)


@pytest.mark.anyio
@pytest.mark.parametrize("moment", ["before", "while it waits"])
async def test_device_lost_with_nothing_on_its_way(
    fresh_device: IRenderDevice, moment: str
) -> None:
    """A consumer and a producer that wait for each other's doings hear of it."""
    empty, full = Frames(fresh_device), Frames(fresh_device, frames_in_flight=2)
    recorded = [full.record(), full.record()]
    if moment == "before":
        fresh_device.close()
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:

            async def consume() -> None:
                with pytest.raises(DeviceLostError, match="async for: the device was lost"):
                    await anext(empty.stream)

            async def produce() -> None:
                with pytest.raises(DeviceLostError, match="room: the device was lost"):
                    await full.stream.room()

            tasks.start_soon(consume)
            tasks.start_soon(produce)
            await anyio.wait_all_tasks_blocked()
            fresh_device.close()
    assert len(recorded) == 2


def test_layouts_are_checked_at_once(device: IRenderDevice) -> None:
    for more in ({"dtype": "O"}, {"dtype": "no dtype"}, {"shape": -1}, {"shape": (2, 1.5)}):
        with pytest.raises((BufferUsageError, BufferRangeError), match="ReadbackStream"):
            ReadbackStream(64, device.buffer_factory, **more)  # type: ignore[arg-type]
