"""``pers``: what pers promises beyond WebGPU (cancellation, views, rings, recycling)."""

from __future__ import annotations

import contextlib
from typing import Any

import anyio
import numpy as np
import numpy.typing as npt

from pers.buffers import (
    BufferState,
    BufferUsage,
    DeferredStagingBuffer,
    DynamicBuffer,
    MapMode,
    ReadbackBuffer,
)
from pers.errors import BufferStateError, MappedViewsError, RingFullError
from pers.graphics import ICommandBuffer, ICommandEncoder, Submission
from pers.testing.bench import MAP_READ, MAP_WRITE, Bench
from pers.testing.case import case


@case("pers/buffers/map:cancelled_by_timeout")
async def cancelled_by_timeout(bench: Bench) -> None:
    for usage, mode in ((MAP_READ, MapMode.READ), (MAP_WRITE, MapMode.WRITE)):
        buffer = bench.mappable(64, usage, name="given up")
        with anyio.CancelScope() as scope:
            scope.cancel()
            await buffer.map_async(mode)
        assert scope.cancelled_caught
        assert buffer.state is BufferState.READY
        for _ in range(3):  # late news of the map, if there is any, changes nothing
            bench.device.poll()
            await anyio.lowlevel.checkpoint()
        assert buffer.state is BufferState.READY
        assert (await buffer.map_async(mode)).nbytes == 64


@case("pers/buffers/map:arrays_mapped_for_reading_are_read_only")
async def read_only(bench: Bench) -> None:
    buffer = bench.mappable(64, MAP_READ)
    array = (await buffer.map_async(MapMode.READ)).as_array(np.uint32)
    assert not array.flags.writeable
    with contextlib.suppress(ValueError):
        array.flags.writeable = True
    assert not array.flags.writeable


@case("pers/buffers/map:arrays_keep_the_buffer_mapped")
async def arrays_keep_mapped(bench: Bench) -> None:
    buffer = bench.mappable(64, mapped=True, name="looked at")
    array = buffer.mapped_data.as_array(np.uint32)
    part = array[4:8].reshape(2, 2)
    del array
    with bench.refuses(MappedViewsError, words=("'looked at'", "1 array")):
        buffer.unmap()
    part[:] = 7
    assert buffer.is_mapped
    del part
    buffer.unmap()
    assert buffer.state is BufferState.READY


@case("pers/buffers/map:arrays_outlive_the_buffer")
async def arrays_outlive(bench: Bench) -> None:
    buffer = bench.mappable(64, mapped=True)
    array = buffer.mapped_data.as_array(np.uint32)
    array[:] = np.arange(16)
    buffer.destroy()
    del buffer
    bench.device.poll()
    assert np.array_equal(array, np.arange(16))


@case("pers/buffers/DynamicBuffer:a_frame_in_flight_is_not_used_again")
async def frame_in_flight(bench: Bench) -> None:
    usage = BufferUsage.COPY_SRC | BufferUsage.VERTEX
    frames, nbytes = 12, 256
    ring = DynamicBuffer(nbytes, bench.device.buffer_factory, usage=usage, debug_name="ring")
    sink = bench.buffer(frames * nbytes)
    users: dict[int, Submission] = {}
    for frame in range(frames):
        async with ring.begin_update() as update:
            offset = update.push(np.full(nbytes // 4, frame, np.uint32))
            if offset in users:
                assert users[offset].is_done, f"frame {frame} took a place that is in flight"
        encoder = bench.device.create_command_encoder()
        encoder.copy_buffer_to_buffer(update.buffer, offset, sink, frame * nbytes, nbytes)
        users[offset] = bench.device.queue.submit([encoder.finish()])
    assert len(users) == 3
    seen = bench.read(sink, np.uint32).reshape(frames, -1)
    assert np.array_equal(seen, np.repeat(np.arange(frames), nbytes // 4).reshape(frames, -1))


@case("pers/buffers/DynamicBuffer:commands_that_wait_for_their_submit_keep_their_frame")
async def recorded_frames(bench: Bench) -> None:
    usage = BufferUsage.COPY_SRC | BufferUsage.VERTEX
    ring = DynamicBuffer(64, bench.device.buffer_factory, usage=usage, frames=2, debug_name="ring")
    sink = bench.buffer(64)
    recorded: list[ICommandBuffer] = []
    for frame in range(2):
        with ring.begin_update() as update:
            offset = update.push(np.full(16, frame + 1, np.uint32))
        encoder = bench.device.create_command_encoder()
        encoder.copy_buffer_to_buffer(update.buffer, offset, sink, 0, 64)
        recorded.append(encoder.finish())
    with bench.refuses(RingFullError, words=("'ring'", "submit")):
        ring.begin_update().__enter__()
    for frame, commands in enumerate(recorded):
        bench.device.queue.submit([commands])
        assert np.all(bench.read(sink, np.uint32) == frame + 1)
    with ring.begin_update() as update:
        update.push(np.zeros(16, np.uint32))


@case("pers/buffers/ReadbackBuffer:living_arrays_are_not_overwritten")
async def readback_arrays(bench: Bench) -> None:
    readback = ReadbackBuffer(64, bench.device.buffer_factory)
    arrays: list[npt.NDArray[Any]] = []
    for value in range(4):
        copy_result(bench, readback, value)
        arrays.append(await readback.read_array(np.uint32))
    assert [int(array[0]) for array in arrays] == [0, 1, 2, 3]
    assert readback.slots == 4
    arrays.clear()
    for value in range(4):
        copy_result(bench, readback, value)
        assert np.all(await readback.read_array(np.uint32) == value)
    assert readback.slots == 4


def copy_result(bench: Bench, readback: ReadbackBuffer, value: int) -> None:
    source = bench.filled(np.full(16, value, np.uint32))

    def record(encoder: ICommandEncoder) -> None:
        readback.copy_from(encoder, source)

    bench.submit(record)


@case("pers/buffers/DeferredStagingBuffer:arrays_that_outlive_the_block_are_harmless")
async def staging_arrays(bench: Bench) -> None:
    staging = DeferredStagingBuffer(64, bench.device.buffer_factory)
    target = bench.buffer(64)
    async with staging.map_async() as mapped:
        array = mapped.as_array(np.uint32)
        array[:] = 5
    bench.submit(lambda encoder: staging.upload_to(encoder, target))
    array[:] = 9
    assert np.all(bench.read(target, np.uint32) == 5)
    with bench.refuses(BufferStateError):
        mapped.as_array(np.uint8)
