"""Faults on demand: out of memory, failing maps, lost devices."""

from __future__ import annotations

import anyio
import pytest

from pers import (
    BufferDesc,
    BufferState,
    BufferUsage,
    DeviceLostError,
    DeviceLostInfo,
    MapAbortedError,
    OutOfMemoryError,
    TextureDescriptor,
    TextureFormat,
    TextureUsage,
    ValidationError,
)
from pers.backends.null import NullClock, NullDevice, NullFaults
from tests.support import told

STAGING = BufferUsage.MAP_WRITE | BufferUsage.COPY_SRC
STORAGE = BufferDesc(1000, BufferUsage.STORAGE, debug_name="big")


def test_next_allocations_fail(device: NullDevice) -> None:
    device.faults.fail_next_allocations(2)
    with pytest.raises(OutOfMemoryError, match=r"buffer 'big': no memory for 1000 bytes .*inject"):
        device.buffer_factory.create_buffer(STORAGE)
    with pytest.raises(OutOfMemoryError, match="texture 'sky': no memory for 64 bytes"):
        device.create_texture(
            TextureDescriptor(4, 4, TextureFormat.RGBA8_UNORM, TextureUsage.COPY_DST, "sky")
        )
    assert device.buffer_factory.create_buffer(STORAGE).is_valid


def test_memory_limit_counts_what_is_alive() -> None:
    with NullDevice(faults=NullFaults(memory_limit=2500)) as device:
        first = device.buffer_factory.create_buffer(STORAGE)
        second = device.buffer_factory.create_buffer(STORAGE)
        with pytest.raises(OutOfMemoryError, match="2000 are in use, and memory_limit is 2500"):
            device.buffer_factory.create_buffer(STORAGE)
        first.destroy()
        third = device.buffer_factory.create_buffer(STORAGE)
        del second
        fourth = device.buffer_factory.create_buffer(STORAGE)
        device.faults.memory_limit = None
        assert device.buffer_factory.create_buffer(STORAGE).is_valid
        assert third.is_valid
        assert fourth.is_valid


def test_memory_limit_counts_all_samples_and_mips() -> None:
    with NullDevice(faults=NullFaults(memory_limit=4 * 4 * 4 * 4 - 1)) as device:
        desc = TextureDescriptor(
            4, 4, TextureFormat.RGBA8_UNORM, TextureUsage.RENDER_ATTACHMENT, sample_count=4
        )
        with pytest.raises(OutOfMemoryError, match="no memory for 256 bytes"):
            device.create_texture(desc)
        desc = TextureDescriptor(
            8, 4, TextureFormat.R8_UNORM, TextureUsage.COPY_DST, mip_levels=4, layers=7
        )
        with pytest.raises(OutOfMemoryError, match=f"no memory for {7 * (32 + 8 + 2 + 1)} bytes"):
            device.create_texture(desc)


@pytest.mark.anyio
async def test_next_maps_fail_and_leave_the_buffer_ready(device: NullDevice) -> None:
    buffer = device.buffer_factory.create_mappable_buffer(
        BufferDesc(16, STAGING, debug_name="stage")
    )
    device.faults.fail_next_maps()
    with pytest.raises(OutOfMemoryError, match="buffer 'stage': no memory to map it"):
        await buffer.map_async()
    assert buffer.state is BufferState.READY

    device.faults.fail_next_maps(2, error=MapAbortedError("the driver was busy"))
    for _ in range(2):
        with pytest.raises(MapAbortedError, match="the driver was busy"):
            await buffer.map_async()
        assert buffer.state is BufferState.READY

    await buffer.map_async()
    assert buffer.is_mapped


def test_map_fails_when_it_would_have_ended(manual: NullDevice) -> None:
    buffer = manual.buffer_factory.create_mappable_buffer(BufferDesc(16, STAGING))
    manual.faults.fail_next_maps()
    buffer._begin_map(2, 0, None)  # type: ignore[attr-defined]
    manual.clock.advance(9)
    assert buffer.is_map_pending
    manual.clock.advance(1)
    assert buffer.state is BufferState.READY


@pytest.mark.anyio
async def test_lost_device_tells_everybody(manual: NullDevice) -> None:
    infos: list[DeviceLostInfo] = []
    manual.on_lost(infos.append)
    buffer = manual.buffer_factory.create_mappable_buffer(BufferDesc(16, STAGING))
    submission = manual.queue.submit([])

    async def map_is_aborted() -> None:
        with pytest.raises(MapAbortedError):
            await buffer.map_async()

    async def work_is_lost() -> None:
        with pytest.raises(DeviceLostError, match="the cable came loose"):
            await submission.done()
        assert manual.is_lost

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(map_is_aborted)
        tasks.start_soon(work_is_lost)
        await anyio.wait_all_tasks_blocked()
        manual.faults.lose_device("the cable came loose")

    assert infos == [DeviceLostInfo("unknown", "the cable came loose")]
    assert await manual.lost == infos[0]
    assert buffer.state is BufferState.DESTROYED
    with pytest.raises(DeviceLostError, match="the cable came loose"):
        manual.queue.submit([])
    with pytest.raises(DeviceLostError, match="the cable came loose"):
        manual.buffer_factory.create_buffer(STORAGE)
    manual.faults.lose_device("again")
    assert len(infos) == 1


def test_device_is_lost_with_a_submission(manual: NullDevice) -> None:
    manual.faults.lose_after_submits(2, "hung")
    first, second = manual.queue.submit([]), manual.queue.submit([])
    manual.clock.advance(50)
    third = manual.queue.submit([])
    assert not manual.is_lost
    manual.clock.advance(50)
    first.wait()
    for lost in (second, third):
        with pytest.raises(DeviceLostError, match="hung"):
            lost.wait()
    assert manual.is_lost


def test_work_after_the_loss_is_not_done(manual: NullDevice) -> None:
    target = manual.buffer_factory.create_buffer(BufferDesc(4, BufferUsage.COPY_DST))
    memory = target.native_handle.memory
    manual.faults.lose_after_submits()
    manual.queue.submit([])
    manual.queue.write_buffer(target, 0, b"abcd")
    manual.clock.advance(1000)
    assert not memory.any()


def test_loss_on_an_automatic_clock_is_noticed_by_who_waits(device: NullDevice) -> None:
    device.faults.lose_after_submits(1)
    submission = device.queue.submit([])
    with pytest.raises(DeviceLostError):
        submission.wait()
    assert device.is_lost


def test_native_calls_of_a_lost_device_raise(device: NullDevice) -> None:
    """What the front end may call when the loss comes in the middle of a call of its own."""
    buffer = device.buffer_factory.create_mappable_buffer(BufferDesc(16, STAGING))
    native, native_buffer = device.native, buffer.native_handle
    device.close()
    ends: list[object] = []
    native_buffer.map_async(2, 0, 16, ends.append)
    assert [type(end) for end in ends] == [MapAbortedError]
    with pytest.raises(DeviceLostError, match="the device was closed"):
        native.submit([], told(ends.append))
    with pytest.raises(DeviceLostError, match="the device was closed"):
        native.create_buffer(STORAGE)


@pytest.mark.anyio
async def test_close_ends_what_is_pending() -> None:
    device = NullDevice(clock=NullClock(auto=False))
    infos: list[DeviceLostInfo] = []
    device.on_lost(infos.append)
    submission = device.queue.submit([])
    buffer = device.buffer_factory.create_mappable_buffer(BufferDesc(16, STAGING))

    async def map_is_aborted() -> None:
        with pytest.raises(MapAbortedError):
            await buffer.map_async()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(map_is_aborted)
        await anyio.wait_all_tasks_blocked()
        device.close()
    with pytest.raises(DeviceLostError, match="the device was closed"):
        await submission.done()
    assert [info.reason for info in infos] == ["destroyed"]


def test_faults_are_shared_by_devices() -> None:
    faults = NullFaults()
    with NullDevice(faults=faults) as one, NullDevice(faults=faults) as other:
        faults.lose_device()
        assert one.is_lost
        assert other.is_lost


@pytest.mark.parametrize("value", [-1, 1.5, "2"])
def test_counts_are_whole_numbers(value: int) -> None:
    faults = NullFaults()
    for call in (faults.fail_next_allocations, faults.fail_next_maps, faults.lose_after_submits):
        with pytest.raises(ValidationError, match=f"{call.__name__} must be"):
            call(value)
    with pytest.raises(ValidationError, match="memory_limit"):
        NullFaults(memory_limit=value)
