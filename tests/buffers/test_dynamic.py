"""`DynamicBuffer`: a ring that never overwrites a frame in flight."""

from __future__ import annotations

import gc
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import anyio
import anyio.lowlevel
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pers import (
    BindGroupLayout,
    BindingLayout,
    BufferBinding,
    BufferDesc,
    BufferRangeError,
    BufferState,
    BufferStateError,
    BufferUsage,
    BufferUsageError,
    DeviceLostError,
    DynamicBuffer,
    IBuffer,
    ICommandBuffer,
    IRenderDevice,
    OutOfMemoryError,
    PerformanceWarning,
    RingFullError,
    ShaderStage,
    Submission,
)
from pers.backends.null import NullClock, NullDevice
from pers.buffers import dynamic as dynamic_module
from pers.buffers.dynamic import QUEUE_WRITE_LIMIT
from tests.support import COPY, JUNK_NUMBERS, Maker, contents, numbers, settle

STORAGE = BufferUsage.STORAGE | BufferUsage.COPY_SRC
UNALIGNED = BufferUsage.VERTEX | BufferUsage.COPY_SRC
LARGE = QUEUE_WRITE_LIMIT + 64

FEW_FRAMES = pytest.mark.filterwarnings("ignore::pers.PerformanceWarning")


@pytest.fixture
def manual() -> Iterator[NullDevice]:
    """A null device where work stays in flight until the test moves the clock."""
    clock = NullClock(auto=False, submission_latency=100, map_latency=0)
    with NullDevice(clock=clock) as device:
        yield device


def ring(device: IRenderDevice, size: int = 64, **more: Any) -> DynamicBuffer:
    more = {"usage": UNALIGNED, "debug_name": "ring"} | more
    return DynamicBuffer(size, device.buffer_factory, **more)


def fill(dynamic: DynamicBuffer, data: npt.NDArray[Any]) -> int:
    """Write one frame; return where it is in the buffer."""
    with dynamic.begin_update() as update:
        return update.push(data)


def use(device: IRenderDevice, dynamic: DynamicBuffer, offset: int, target: IBuffer) -> Submission:
    """Submit a copy of what is at `offset`."""
    return device.queue.submit([record(device, dynamic, offset, target)])


def record(
    device: IRenderDevice, dynamic: DynamicBuffer, offset: int, target: IBuffer
) -> ICommandBuffer:
    encoder = device.create_command_encoder("use")
    encoder.copy_buffer_to_buffer(dynamic, offset, target, 0, target.size)
    return encoder.finish()


# --- Writing --------------------------------------------------------------------------------------


def test_push(device: IRenderDevice, make: Maker) -> None:
    dynamic = ring(device, 128)
    target = make.plain(64)
    for start in range(1, 500, 50):
        offset = fill(dynamic, numbers(16, start))
        use(device, dynamic, offset, target)
        assert contents(device, target).view(np.uint32).tolist() == [*numbers(16, start)]
    assert dynamic.stats.updates == 10
    assert dynamic.stats.bytes_written == 640


def test_frames_go_round(device: IRenderDevice) -> None:
    dynamic = ring(device, 64, frames=4)
    offsets = []
    for _ in range(9):
        offsets.append(fill(dynamic, numbers(1)))
        settle(device)
    assert offsets == [0, 64, 128, 192, 0, 64, 128, 192, 0]
    assert dynamic.size == 256
    assert dynamic.stats.grows == dynamic.stats.stalls == 0


def test_several_records_in_a_frame(device: IRenderDevice) -> None:
    dynamic = ring(device, 256, usage=BufferUsage.UNIFORM | BufferUsage.COPY_SRC)
    alignment = device.limits.min_uniform_buffer_offset_alignment
    assert dynamic.alignment == alignment
    with dynamic.begin_update() as update:
        offsets = [update.push(np.full(3, value, np.uint32)) for value in (7, 8, 9)]
        assert offsets == [update.offset - 2 * alignment, update.offset - alignment, update.offset]
    data = contents(device, dynamic)
    for offset, value in zip(offsets, (7, 8, 9), strict=True):
        assert offset % alignment == 0
        assert data[offset : offset + 12].view(np.uint32).tolist() == [value] * 3


@pytest.mark.parametrize(
    ("usage", "limit"),
    [
        (BufferUsage.UNIFORM, "min_uniform_buffer_offset_alignment"),
        (BufferUsage.STORAGE, "min_storage_buffer_offset_alignment"),
        (BufferUsage.UNIFORM | BufferUsage.STORAGE, None),
        (BufferUsage.VERTEX, None),
    ],
)
def test_alignment_is_the_device_s(
    usage: BufferUsage, limit: str | None, device: IRenderDevice
) -> None:
    alignment = ring(device, usage=usage).alignment
    if limit is not None:
        assert alignment == getattr(device.limits, limit)
    elif usage & BufferUsage.UNIFORM:
        assert alignment == max(
            device.limits.min_uniform_buffer_offset_alignment,
            device.limits.min_storage_buffer_offset_alignment,
        )
    else:
        assert alignment == 4


def test_as_array(device: IRenderDevice) -> None:
    dynamic = ring(device, 64)
    with dynamic.begin_update() as update:
        first = update.as_array(np.uint32, 4)
        assert (update.offset, first.shape) == (0, (4,))
        rest = update.as_array(np.float32)
        assert (update.offset, rest.shape) == (16, (12,))
        first[:] = 5
        rest[:] = 2.5
    data = contents(device, dynamic)
    assert data[:16].view(np.uint32).tolist() == [5] * 4
    assert data[16:64].view(np.float32).tolist() == [2.5] * 12


def test_as_array_shapes(device: IRenderDevice) -> None:
    dynamic = ring(device, 256)
    with dynamic.begin_update() as update:
        assert update.as_array(np.float32, (2, 4, 4)).shape == (2, 4, 4)
        assert update.as_array([("p", "f4", 3), ("id", "u4")], 2).dtype.itemsize == 16
        assert update.as_array(np.dtype(("f4", (4, 4))), 1).shape == (1, 4, 4)
        assert update.as_array(np.uint8, 0).shape == (0,)
        assert update.as_array(np.dtype(("f4", (2,)))).shape == (4, 2)
        assert update.as_array(np.uint8).shape == (0,)
    assert dynamic.stats.grows == 0


def test_offset_after_the_block(device: IRenderDevice) -> None:
    dynamic = ring(device, 64)
    fill(dynamic, numbers(1))
    with dynamic.begin_update() as update:
        update.push(numbers(1))
        inside = update.push(numbers(2))
        assert update.buffer is dynamic.inner
    assert update.offset == inside == 68


def test_empty_update(device: IRenderDevice) -> None:
    dynamic = ring(device, 64)
    with dynamic.begin_update():
        pass
    assert dynamic.stats.updates == 1
    assert fill(dynamic, numbers(1)) == 64


@pytest.mark.anyio
@FEW_FRAMES
async def test_async_with(device: IRenderDevice, make: Maker) -> None:
    dynamic = ring(device, 64, frames=2)
    target = make.plain(64)
    for start in range(1, 200, 20):
        async with dynamic.begin_update() as update:
            offset = update.push(numbers(16, start))
        use(device, dynamic, offset, target)
    assert contents(device, target).view(np.uint32).tolist() == [*numbers(16, 181)]
    assert dynamic.stats.updates == 10


# --- Mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [1, 0, 65, *JUNK_NUMBERS])
def test_frames_that_are_none(frames: Any, device: IRenderDevice) -> None:
    with pytest.raises(BufferRangeError, match="frames"):
        ring(device, frames=frames)


@pytest.mark.parametrize("frames", [2, 3, 8])
def test_any_number_of_frames(frames: int, device: IRenderDevice) -> None:
    dynamic = ring(device, 64, frames=frames)
    assert dynamic.stats.frames == frames
    assert dynamic.size == 64 * frames


@pytest.mark.parametrize("usage", ["VERTEX", None, 1.5, BufferUsage.MAP_READ, 1 << 20])
def test_usages_that_are_none(usage: Any, device: IRenderDevice) -> None:
    with pytest.raises(BufferUsageError):
        ring(device, usage=usage)


def test_update_in_an_update(device: IRenderDevice) -> None:
    dynamic = ring(device)
    with dynamic.begin_update() as update:
        with pytest.raises(BufferStateError, match="'ring': an update is open already"):
            with dynamic.begin_update():
                pytest.fail("there is one already")
        update.push(numbers(1))
    fill(dynamic, numbers(1))


@pytest.mark.parametrize("call", [lambda u: u.push(b"1234"), lambda u: u.as_array()])
def test_use_outside_of_the_block(call: Any, device: IRenderDevice) -> None:
    dynamic = ring(device)
    update = dynamic.begin_update()
    with pytest.raises(BufferStateError, match="outside of its block"):
        call(update)
    with update:
        pass
    with pytest.raises(BufferStateError, match="outside of its block"):
        call(update)


@pytest.mark.parametrize("record_", [None, "text", 5, [1], np.array([None]), np.array(["x"])])
def test_records_that_are_none(record_: Any, device: IRenderDevice) -> None:
    dynamic = ring(device)
    with dynamic.begin_update() as update:
        with pytest.raises(BufferUsageError):
            update.push(record_)
        assert update.push(numbers(1)) == 0


@pytest.mark.parametrize(
    ("dtype", "shape", "error"),
    [
        (object, 4, BufferUsageError),
        (str, None, BufferUsageError),
        ("nothing", None, BufferUsageError),
        (np.uint8, -1, BufferRangeError),
        (np.uint8, 1.5, BufferRangeError),
        (np.uint8, "4", BufferRangeError),
        (np.uint8, (1, None), BufferRangeError),
        (np.uint8, 2**40, BufferRangeError),
        (np.uint8, 2**62, BufferRangeError),
        (np.uint8, 2**63, BufferRangeError),
        (np.float64, (2**31, 2**31), BufferRangeError),
    ],
    ids=str,
)
def test_arrays_that_there_are_not(
    dtype: Any, shape: Any, error: type[Exception], device: IRenderDevice
) -> None:
    """Refused, and the update goes on as if nothing had been asked."""
    dynamic = ring(device)
    size = dynamic.size
    with dynamic.begin_update() as update:
        update.push(numbers(2))
        with pytest.raises(error):
            update.as_array(dtype, shape)
        assert update.push(numbers(2, 50)) == 8
    assert dynamic.size == size
    assert contents(device, dynamic)[:16].view(np.uint32).tolist() == [1, 2, 50, 51]


def test_update_that_raises_is_taken_back(device: IRenderDevice) -> None:
    dynamic = ring(device)
    fill(dynamic, numbers(16))
    with pytest.raises(ZeroDivisionError), dynamic.begin_update() as update:
        assert update.push(numbers(16, 50)) == 64
        raise ZeroDivisionError
    assert dynamic.stats.updates == 1
    assert fill(dynamic, numbers(16, 70)) == 64
    data = contents(device, dynamic).view(np.uint32)
    assert data[:32].tolist() == [*numbers(16), *numbers(16, 70)]


def test_destroyed(device: IRenderDevice) -> None:
    dynamic = ring(device)
    dynamic.destroy()
    assert dynamic.state is BufferState.DESTROYED
    with pytest.raises(BufferStateError, match="'ring'.*destroyed"), dynamic.begin_update():
        pytest.fail("it is destroyed")


def test_destroyed_in_an_update(device: IRenderDevice) -> None:
    dynamic = ring(device)
    with pytest.raises(BufferStateError, match="destroyed"), dynamic.begin_update() as update:
        update.push(numbers(1))
        dynamic.destroy()


def test_device_closed(fresh_device: IRenderDevice) -> None:
    dynamic = ring(fresh_device)
    with pytest.raises(DeviceLostError), dynamic.begin_update() as update:
        update.push(numbers(1))
        fresh_device.close()
    with pytest.raises(DeviceLostError), dynamic.begin_update():
        pytest.fail("its device is closed")


# --- A frame in flight is never overwritten -------------------------------------------------------


def test_frames_in_flight(manual: NullDevice) -> None:
    """Three frames are in flight; the fourth waits for the first, and for no other."""
    dynamic = ring(manual, 64)
    targets = [Maker(manual).plain(64) for _ in range(4)]
    for index in range(3):
        use(manual, dynamic, fill(dynamic, numbers(16, 100 * index)), targets[index])
        manual.clock.advance(10)
    assert dynamic.stats.stalls == 0

    entered = threading.Event()

    def fourth() -> None:
        use(manual, dynamic, fill(dynamic, numbers(16, 300)), targets[3])
        entered.set()

    thread = threading.Thread(target=fourth)
    thread.start()
    while dynamic.stats.stalls == 0:
        pass
    assert not entered.is_set()
    manual.clock.advance(60)  # at 90; the first frame is done at 100
    assert not entered.is_set()
    manual.clock.advance(10)
    thread.join()
    assert dynamic.stats.stalls == 1
    manual.clock.advance(1000)
    memory = [target.native_handle.memory.view(np.uint32) for target in targets]
    assert [data[0] for data in memory] == [0, 100, 200, 300]
    assert all((data == numbers(16, data[0])).all() for data in memory)


@pytest.mark.anyio
@FEW_FRAMES
async def test_async_update_waits_without_blocking(manual: NullDevice) -> None:
    dynamic = ring(manual, 64, frames=2)
    target = Maker(manual).plain(64)
    for start in (1, 2):
        use(manual, dynamic, fill(dynamic, numbers(16, start)), target)
    log: list[str] = []

    async def third() -> None:
        async with dynamic.begin_update() as update:
            log.append("entered")
            update.push(numbers(16, 3))

    async with anyio.create_task_group() as group:
        group.start_soon(third)
        while dynamic.stats.stalls == 0:
            await anyio.lowlevel.checkpoint()
        log.append("others run")
        manual.clock.advance(100)
    assert log == ["others run", "entered"]
    assert (dynamic.stats.stalls, dynamic.stats.updates) == (1, 3)


@pytest.mark.anyio
@FEW_FRAMES
async def test_cancelled_while_waiting(manual: NullDevice) -> None:
    dynamic = ring(manual, 64, frames=2)
    target = Maker(manual).plain(64)
    for start in (1, 2):
        use(manual, dynamic, fill(dynamic, numbers(16, start)), target)
    with anyio.move_on_after(0.01) as scope:
        async with dynamic.begin_update():
            pytest.fail("the frame is in flight")
    assert scope.cancelled_caught
    manual.clock.advance(1000)
    assert fill(dynamic, numbers(16, 3)) == 0
    assert dynamic.stats.updates == 3


def test_frames_are_freed_by_submissions_not_by_counting(manual: NullDevice) -> None:
    """A frame that nobody submits work with is free at once, however often the ring turns."""
    dynamic = ring(manual, 64)
    for start in range(20):
        fill(dynamic, numbers(16, start))
    assert dynamic.stats.stalls == 0


@FEW_FRAMES
def test_recorded_but_not_submitted(device: IRenderDevice, make: Maker) -> None:
    """Waiting could not help, so it is an error; after the submit it goes on."""
    dynamic = ring(device, 64)
    target = make.plain(64)
    recorded = [
        record(device, dynamic, fill(dynamic, numbers(16, start)), target) for start in range(3)
    ]
    with pytest.raises(RingFullError, match="'ring': all 3 frames.*submit") as caught:
        with dynamic.begin_update():
            pytest.fail("all frames are in use")
    assert isinstance(caught.value, RuntimeError)
    assert dynamic.stats.updates == 3

    device.queue.submit(recorded)
    assert fill(dynamic, numbers(16, 9)) == 0


def test_dropped_commands_free_their_frame(device: IRenderDevice, make: Maker) -> None:
    dynamic = ring(device, 64, frames=2)
    target = make.plain(64)
    recorded = [record(device, dynamic, fill(dynamic, numbers(16)), target) for _ in range(2)]
    with pytest.raises(RingFullError), dynamic.begin_update():
        pytest.fail("all frames are in use")
    del recorded[0]
    assert fill(dynamic, numbers(16)) == 0


@pytest.mark.anyio
async def test_ring_full_async(device: IRenderDevice, make: Maker) -> None:
    dynamic = ring(device, 64, frames=2)
    target = make.plain(64)
    recorded = [record(device, dynamic, fill(dynamic, numbers(16)), target) for _ in range(2)]
    with pytest.raises(RingFullError):
        async with dynamic.begin_update():
            pytest.fail("all frames are in use")
    assert len(recorded) == 2


def test_use_in_a_bind_group_counts(manual: NullDevice) -> None:
    """A frame is in use by draws through a bind group, too."""
    dynamic = ring(manual, 256, frames=2, usage=BufferUsage.UNIFORM)
    layout = BindGroupLayout([BindingLayout(0, "uniform", ShaderStage.VERTEX, dynamic_offset=True)])
    group = manual.create_bind_group(layout, {0: BufferBinding(dynamic, size=64)})
    frame = manual.create_frame_buffer(4, 4)
    recorded = []
    for start in range(2):
        offset = fill(dynamic, numbers(16, start))
        encoder = manual.create_command_encoder()
        with encoder.begin_render_pass(frame) as render_pass:
            render_pass.set_bind_group(0, group, [offset])
        recorded.append(encoder.finish())
    with pytest.raises(RingFullError), dynamic.begin_update():
        pytest.fail("all frames are in use")
    manual.queue.submit(recorded)
    assert dynamic.stats.stalls == 0


@FEW_FRAMES
@pytest.mark.parametrize("frames", [2, 3, 5])
def test_contents_under_load(frames: int, device: IRenderDevice, make: Maker) -> None:
    """Many frames, none waited for: every one of them arrives as it was written."""
    dynamic = ring(device, 4096, frames=frames)
    target = make.plain(40 * 4096)
    for index in range(40):
        offset = fill(dynamic, np.full(1024, index + 1, np.uint32))
        encoder = device.create_command_encoder()
        encoder.copy_buffer_to_buffer(dynamic, offset, target, 4096 * index, 4096)
        device.queue.submit([encoder.finish()])
    data = contents(device, target).view(np.uint32).reshape(40, 1024)
    assert (data == np.arange(1, 41)[:, None]).all()


# --- Growth ---------------------------------------------------------------------------------------


def test_grows(device: IRenderDevice) -> None:
    dynamic = ring(device, 64)
    old = dynamic.inner
    with dynamic.begin_update() as update:
        first = update.push(numbers(16))
        second = update.push(numbers(64, 100))
        assert update.buffer is dynamic.inner
    assert dynamic.inner is not old
    assert dynamic.stats.grows == 1
    assert dynamic.stats.frame_size >= 320
    assert dynamic.stats.peak == 320
    data = contents(device, dynamic)
    assert data[first : first + 64].view(np.uint32).tolist() == [*numbers(16)]
    assert data[second : second + 256].view(np.uint32).tolist() == [*numbers(64, 100)]


def test_offsets_given_out_before_growth_stay_right(device: IRenderDevice) -> None:
    """In any frame of the ring, and through several growths in one frame."""
    dynamic = ring(device, 64)
    for frame in range(3):
        pushed: dict[int, list[int]] = {}
        with dynamic.begin_update() as update:
            for size in (4, 8, 40, 100, 1000 << frame):
                record_ = numbers(size, size)
                pushed[update.push(record_)] = record_.tolist()
        data = contents(device, dynamic).view(np.uint32)
        for offset, expected in pushed.items():
            assert data[offset // 4 :][: len(expected)].tolist() == expected
    assert dynamic.stats.grows >= 3


def test_arrays_given_out_before_growth_are_written(device: IRenderDevice) -> None:
    """An array may be written until the block ends, also when the ring has grown since."""
    dynamic = ring(device, 64)
    with dynamic.begin_update() as update:
        first = update.as_array(np.uint32, 8)
        first_offset = update.offset
        second = update.as_array(np.uint32, 100)
        second_offset = update.offset
        third = update.as_array(np.uint32, 1000)
        third_offset = update.offset
        third[:], second[:], first[:] = 3, 2, 1
    assert dynamic.stats.grows == 2
    data = contents(device, dynamic).view(np.uint32)
    assert (data[first_offset // 4 :][:8] == 1).all()
    assert (data[second_offset // 4 :][:100] == 2).all()
    assert (data[third_offset // 4 :][:1000] == 3).all()


def test_what_was_recorded_before_growth_reads_its_data(device: IRenderDevice, make: Maker) -> None:
    dynamic = ring(device, 64)
    target = make.plain(64)
    with dynamic.begin_update() as update:
        commands = record(device, dynamic, update.push(numbers(16)), target)
        update.push(numbers(100))
    device.queue.submit([commands])
    assert contents(device, target).view(np.uint32).tolist() == [*numbers(16)]


def test_frames_in_flight_survive_growth(manual: NullDevice) -> None:
    dynamic = ring(manual, 64)
    targets = [Maker(manual).plain(64) for _ in range(3)]
    use(manual, dynamic, fill(dynamic, numbers(16)), targets[0])
    use(manual, dynamic, fill(dynamic, numbers(16, 100)), targets[1])
    with dynamic.begin_update() as update:
        update.push(numbers(200))
        offset = update.push(numbers(16, 200))
    use(manual, dynamic, offset, targets[2])
    manual.clock.advance(1000)
    memory = [target.native_handle.memory.view(np.uint32) for target in targets]
    assert [data.tolist() for data in memory] == [
        [*numbers(16)], [*numbers(16, 100)], [*numbers(16, 200)],
    ]  # fmt: skip


def test_growth_that_fails_leaves_the_ring_as_it_was(manual: NullDevice) -> None:
    dynamic = ring(manual, 64)
    inner, stats = dynamic.inner, dynamic.stats
    manual.faults.fail_next_allocations()
    with dynamic.begin_update() as update:
        with pytest.raises(OutOfMemoryError):
            update.push(numbers(100))
        update.push(numbers(16))
    assert dynamic.inner is inner
    assert dynamic.stats.frame_size == stats.frame_size
    assert dynamic.stats.grows == 0
    manual.clock.advance(1)
    assert inner.native_handle.memory[:64].view(np.uint32).tolist() == [*numbers(16)]


def test_failed_update_after_growth(device: IRenderDevice) -> None:
    dynamic = ring(device, 64)
    with pytest.raises(ZeroDivisionError), dynamic.begin_update() as update:
        update.push(numbers(100))
        raise ZeroDivisionError
    offset = fill(dynamic, numbers(4, 50))
    data = contents(device, dynamic)
    assert data[offset : offset + 16].view(np.uint32).tolist() == [*numbers(4, 50)]


# --- As a whole -----------------------------------------------------------------------------------


def test_description(device: IRenderDevice) -> None:
    desc = BufferDesc(100, BufferUsage.INDEX, debug_name="described")
    dynamic = DynamicBuffer(desc, device.buffer_factory, frames=2)
    assert dynamic.usage == BufferUsage.INDEX | BufferUsage.COPY_DST
    assert dynamic.debug_name == "described"
    assert dynamic.stats.frame_size == 100


def test_two_rings_in_one_submit(device: IRenderDevice, make: Maker) -> None:
    one, other = ring(device, 64), ring(device, 64)
    target = make.plain(128)
    with one.begin_update() as first, other.begin_update() as second:
        offsets = first.push(numbers(16)), second.push(numbers(16, 50))
    encoder = device.create_command_encoder()
    encoder.copy_buffer_to_buffer(one, offsets[0], target, 0, 64)
    encoder.copy_buffer_to_buffer(other, offsets[1], target, 64, 64)
    device.queue.submit([encoder.finish()])
    expected = [*numbers(16), *numbers(16, 50)]
    assert contents(device, target).view(np.uint32).tolist() == expected


@FEW_FRAMES
@given(
    frames=st.integers(2, 4),
    limit=st.sampled_from([0, 100, QUEUE_WRITE_LIMIT]),
    updates=st.lists(
        st.tuples(
            st.lists(st.integers(1, 40), max_size=5),  # words of each record
            st.integers(0, 4),  # how many records of one word are pushed at once
            st.booleans(),  # whether the GPU uses the frame
            st.booleans(),  # whether it is submitted
            st.integers(0, 300),  # how far the clock moves afterwards
        ),
        max_size=12,
    ),
)
def test_every_frame_in_flight_reads_what_was_written(
    frames: int, limit: int, updates: list[tuple[list[int], int, bool, bool, int]]
) -> None:
    """Whatever sizes, roads and times: what the GPU copied is what was pushed."""
    clock = NullClock(auto=True, submission_latency=100)
    with NullDevice(clock=clock) as device, pytest.MonkeyPatch.context() as patch:
        patch.setattr(dynamic_module, "QUEUE_WRITE_LIMIT", limit)
        dynamic = ring(device, 64, frames=frames)
        expected: list[tuple[IBuffer, list[int]]] = []
        value = 0

        def use(encoder: Any, offset: int, data: list[int]) -> None:
            target = device.buffer_factory.create_buffer(BufferDesc(4 * len(data), COPY))
            encoder.copy_buffer_to_buffer(dynamic, offset, target, 0, 4 * len(data))
            expected.append((target, data))

        for sizes, many, is_used, is_submitted, time in updates:
            encoder = device.create_command_encoder()
            with dynamic.begin_update() as update:
                for size in sizes:
                    value += 1
                    offset = update.push(np.full(size, value, np.uint32))
                    if is_used:
                        use(encoder, offset, [value] * size)
                offsets = update.push_many(numbers(many, value + 1))
                for offset in offsets if is_used else ():
                    value += 1
                    use(encoder, offset, [value])
            if is_submitted or is_used:
                device.queue.submit([encoder.finish()])
            clock.advance(time)
        for target, data in expected:
            assert contents(device, target).view(np.uint32).tolist() == data


# --- Many records at once -------------------------------------------------------------------------

TYPES = st.sampled_from(
    ["u1", "<u2", "<f4", "<f8", "<c16", "V5", [("p", "<f4", (3,)), ("id", "<u1")], ("<f4", (2, 2))]
)


@given(
    usage=st.sampled_from([UNALIGNED, STORAGE, BufferUsage.UNIFORM | BufferUsage.COPY_SRC]),
    size=st.integers(1, 2000),
    pushes=st.lists(
        st.tuples(
            TYPES,
            st.lists(st.integers(1, 5), max_size=2).map(tuple),  # shape of a record
            st.integers(0, 9),  # how many
            st.sampled_from(["C", "F", "step", "back"]),  # how they lie in memory
            st.booleans(),  # one by one
        ),
        min_size=1,
        max_size=4,
    ),
    data=st.binary(min_size=1, max_size=64),
)
def test_packing(usage: Any, size: int, pushes: list[Any], data: bytes) -> None:
    """Every record is where its offset says, aligned, and nothing else is written over it."""
    with NullDevice() as device:
        dynamic = ring(device, size, usage=usage)
        expected: list[tuple[int, bytes]] = []
        with dynamic.begin_update() as update:
            for kind, shape, count, order, singly in pushes:
                records = laid_out(np.dtype(kind), (count, *shape), order, data)
                if singly:
                    offsets = [update.push(records[index, ...]) for index in range(count)]
                else:
                    offsets = update.push_many(records).tolist()
                assert len(offsets) == count
                assert count == 0 or update.offset == offsets[-1 if singly else 0]
                expected += [
                    (offset, records[i, ...].tobytes()) for i, offset in enumerate(offsets)
                ]
        assert all(offset % dynamic.alignment == 0 for offset, _ in expected)
        memory = contents(device, dynamic).tobytes()
        for offset, record_ in expected:
            assert memory[offset : offset + len(record_)] == record_
        ends = [0, *(offset + len(record_) for offset, record_ in expected)]
        assert all(
            0 <= start - end < dynamic.alignment
            for (start, _), end in zip(expected, ends, strict=False)
        )


def laid_out(
    dtype: np.dtype[Any], shape: tuple[int, ...], order: str, data: bytes
) -> npt.NDArray[Any]:
    """Return an array with `data`, over and over, that lies in memory in some order."""
    base, inner = dtype.subdtype or (dtype, ())
    shape = (*shape, *inner)
    length = int(np.prod(shape)) * base.itemsize
    plain = np.frombuffer((data * (length // len(data) + 1))[:length], base).reshape(shape)
    if order == "F":
        return np.asfortranarray(plain)
    if order == "step":
        return np.repeat(plain, 2, axis=0)[::2]
    return plain[::-1] if order == "back" else plain


def test_push_many(device: IRenderDevice) -> None:
    dynamic = ring(device, 4096, usage=BufferUsage.UNIFORM | BufferUsage.COPY_SRC)
    alignment = dynamic.alignment
    records = numbers(48).reshape(16, 3)
    for turn in range(4):
        with dynamic.begin_update() as update:
            update.push(b"x")
            offsets = update.push_many(records + np.uint32(turn))
        assert offsets.dtype == np.uint32
        assert not offsets.flags.writeable
        assert (np.diff(offsets) == alignment).all()
        assert offsets[0] == update.offset == (turn % 3) * dynamic.stats.frame_size + alignment
        data = contents(device, dynamic)
        found = [data[offset : offset + 12].view(np.uint32).tolist() for offset in offsets]
        assert found == (records + turn).tolist()


def test_push_many_of_the_alignment_s_size(device: IRenderDevice) -> None:
    """Records that need no gaps are one piece of memory; so large that several threads copy it."""
    dynamic = ring(device, 64, usage=BufferUsage.UNIFORM | BufferUsage.COPY_SRC)
    records = np.arange(3_000_000 // dynamic.alignment * dynamic.alignment, dtype=np.uint32)
    records = records.reshape(-1, dynamic.alignment // 4)
    with dynamic.begin_update() as update:
        offsets = update.push_many(records)
    data = contents(device, dynamic)
    assert (data[offsets[0] :][: records.nbytes].view(np.uint32) == records.reshape(-1)).all()


def test_push_many_converts(device: IRenderDevice) -> None:
    dynamic = ring(device, 256)
    with dynamic.begin_update() as update:
        offsets = update.push_many([[1, 2], [3, 4]], dtype=np.float32)
        from_bytes = update.push_many(b"abcd", dtype=None)
        none = update.push_many(np.empty((0, 4), np.float32))
    assert offsets.tolist() == [0, 8]
    assert from_bytes.tolist() == [16, 20, 24, 28]
    assert none.tolist() == []
    data = contents(device, dynamic)
    assert data[:16].view(np.float32).tolist() == [1, 2, 3, 4]
    assert data[16:32:4].tobytes() == b"abcd"


@pytest.mark.parametrize(
    ("records", "dtype", "error"),
    [
        (None, None, BufferUsageError),
        ([1, 2], None, BufferUsageError),
        ("text", None, BufferUsageError),
        (np.array(["x"]), None, BufferUsageError),
        (np.array([None]), None, BufferUsageError),
        ([[1], [2, 3]], np.float32, BufferUsageError),
        ([1], "nothing", BufferUsageError),
        ([1], object, BufferUsageError),
        (np.float32(3), None, BufferRangeError),
        (np.empty((3, 0), np.float32), None, BufferRangeError),
        (np.lib.stride_tricks.as_strided(np.zeros(1), (2**30,), (0,)), None, BufferRangeError),
    ],
    ids=repr,
)
def test_records_that_cannot_be_packed(
    records: Any, dtype: Any, error: type[Exception], device: IRenderDevice
) -> None:
    dynamic = ring(device)
    with dynamic.begin_update() as update:
        update.push(numbers(1))
        with pytest.raises(error, match="push_many"):
            update.push_many(records, dtype=dtype)
        assert update.push(numbers(1)) == 4
    assert dynamic.stats.grows == 0


def test_push_many_outside_of_the_block(device: IRenderDevice) -> None:
    with pytest.raises(BufferStateError, match="outside of its block"):
        ring(device).begin_update().push_many(numbers(4))


# --- How a frame is written -----------------------------------------------------------------------


def test_roads(device: IRenderDevice, make: Maker) -> None:
    """Small frames are queue writes, large ones are staged; both arrive in order."""
    dynamic = ring(device, LARGE, frames=2)
    target = make.plain(LARGE)
    for turn in range(4):
        size = LARGE if turn % 2 else QUEUE_WRITE_LIMIT
        offset = fill(dynamic, np.full(size // 4, turn, np.uint32))
        use(device, dynamic, offset, target).wait()
        assert (contents(device, target)[:size].view(np.uint32) == turn).all()
    assert (dynamic.stats.queue_writes, dynamic.stats.staged) == (2, 2)


def test_large_frames_without_a_submit(device: IRenderDevice) -> None:
    """A frame that only its own upload uses is overwritten without a wait, and in order."""
    dynamic = ring(device, LARGE)
    for turn in range(8):
        size = 64 if turn in (4, 6) else LARGE  # which must not overtake what is staged
        offset = fill(dynamic, np.full(size // 4, turn, np.uint32))
        if turn == 5:
            dynamic_offset = offset
    data = contents(device, dynamic)
    frame = dynamic.stats.frame_size
    for index, (start, rest) in enumerate([(6, 3), (7, 7), (5, 5)]):
        words = data[index * frame :][:LARGE].view(np.uint32)
        assert (words[:16] == start).all()
        assert (words[16:] == rest).all()
    assert dynamic_offset == 2 * frame
    assert dynamic.stats.stalls == 0


def test_destroyed_with_an_upload_under_way(device: IRenderDevice) -> None:
    dynamic = ring(device, LARGE)
    fill(dynamic, np.ones(LARGE, np.uint8))
    dynamic.destroy()
    device.queue.submit([])


def test_growth_with_an_upload_under_way(device: IRenderDevice, make: Maker) -> None:
    """What was recorded with the smaller buffer sees the write that came later."""
    dynamic = ring(device, LARGE, frames=2)
    target = make.plain(64)
    for turn in range(2):
        fill(dynamic, np.full(LARGE // 4, turn, np.uint32))
    with dynamic.begin_update() as update:
        commands = record(device, dynamic, update.push(numbers(16)), target)
        update.push(np.zeros(LARGE, np.uint8))
    device.queue.submit([commands])
    assert contents(device, target).view(np.uint32).tolist() == [*numbers(16)]


def test_belt_without_room(device: IRenderDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the queue writes the frame."""
    dynamic = ring(device, LARGE)

    def full(*_: object) -> None:
        raise RingFullError("no room")

    monkeypatch.setattr(device, "upload", full)
    offset = fill(dynamic, np.full(LARGE, 7, np.uint8))
    assert (contents(device, dynamic)[offset : offset + LARGE] == 7).all()
    assert (dynamic.stats.queue_writes, dynamic.stats.staged) == (1, 0)


# --- Waits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [64, LARGE])
def test_a_paced_loop_never_waits(manual: NullDevice, size: int) -> None:
    """Three frames, three submissions in flight: no update has to wait."""
    dynamic = ring(manual, size)
    target = Maker(manual).plain(size)
    submissions: list[Submission] = []
    for turn in range(30):
        if turn >= 3:
            while not submissions[turn - 3].is_done:
                manual.clock.advance(10)
        submissions.append(use(manual, dynamic, fill(dynamic, np.ones(size, np.uint8)), target))
        assert sum(not submission.is_done for submission in submissions) <= 3
    assert dynamic.stats.stalls == 0
    assert dynamic.stats.grows == 0


def loop(device: NullDevice, frames: int, updates: int, turns: int = 8) -> DynamicBuffer:
    """Run a loop that waits for nothing, with some updates before each submit."""
    dynamic = ring(device, 64, frames=frames)
    target = Maker(device).plain(64)
    for _ in range(turns):
        encoder = device.create_command_encoder()
        for _ in range(updates):
            offset = fill(dynamic, numbers(16))
            encoder.copy_buffer_to_buffer(dynamic, offset, target, 0, 64)
        device.queue.submit([encoder.finish()])
    assert dynamic.stats.stalls > 0
    return dynamic


@pytest.mark.parametrize(
    ("frames", "updates", "needed"), [(2, 1, 3), (3, 2, 6), (5, 2, 6), (8, 4, 12), (40, 30, 64)]
)
def test_warns_once_of_too_few_frames(frames: int, updates: int, needed: int) -> None:
    with NullDevice(clock=NullClock(submission_latency=100)) as device:
        with pytest.warns(
            PerformanceWarning, match=f"'ring'.*make it with frames={needed}"
        ) as all_:
            loop(device, frames, updates)
        assert len(all_) == 1
        assert all_[0].filename == __file__
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loop(device, needed, updates, turns=30) if needed < 64 else None


@pytest.mark.anyio
async def test_warns_async(manual: NullDevice) -> None:
    dynamic = ring(manual, 64, frames=2)
    target = Maker(manual).plain(64)
    for _ in range(2):
        use(manual, dynamic, fill(dynamic, numbers(16)), target)
    manual.clock.auto = True
    with pytest.warns(PerformanceWarning, match="frames=3") as all_:
        async with dynamic.begin_update() as update:
            update.push(numbers(1))
    assert all_[0].filename == __file__


def test_warning_as_an_error_leaves_the_ring_usable(manual: NullDevice) -> None:
    dynamic = ring(manual, 64, frames=2)
    target = Maker(manual).plain(64)
    for _ in range(2):
        use(manual, dynamic, fill(dynamic, numbers(16)), target)
    with pytest.raises(PerformanceWarning), dynamic.begin_update():
        pytest.fail("warnings are errors here")
    manual.clock.advance(1000)
    assert fill(dynamic, numbers(16)) == 0


def test_steady_frames_leave_nothing_behind(device: IRenderDevice) -> None:
    """Frame after frame, no Python object more."""
    dynamic = ring(device, 4096, usage=BufferUsage.UNIFORM)
    records = numbers(64).reshape(16, 4)

    def frames(count: int) -> None:
        for _ in range(count):
            with dynamic.begin_update() as update:
                update.push(records)
                update.push_many(records)
                update.as_array(np.float32, 4)[:] = 1
            settle(device)

    frames(50)
    gc.collect()
    before = sys.getallocatedblocks()
    frames(200)
    gc.collect()
    assert sys.getallocatedblocks() - before < 100


def test_an_update_is_left_only_once(device: IRenderDevice) -> None:
    ring = DynamicBuffer(64, device.buffer_factory)
    with ring.begin_update() as first:
        first.push(b"1234")
    with ring.begin_update() as second:
        first.__exit__(None, None, None)
        second.push(b"5678")
    assert ring.stats.updates == 2
