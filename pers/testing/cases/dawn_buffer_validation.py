"""Dawn's ``BufferValidationTests``: maps that meet other calls (WebGPU §5.2, §5.1.4, §22.1).

Dawn's callback is what follows the ``await``. "Dropped before result" is a task that is cancelled
while it waits, with the last reference to the buffer in it.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import anyio
import numpy as np

from pers.buffers import BufferState, BufferUsage, IMappableBuffer, MapMode, MappedRange
from pers.errors import (
    BufferStateError,
    BufferUsageError,
    DeviceLostError,
    MapAbortedError,
)
from pers.graphics import ICommandEncoder
from pers.testing.bench import MAP_READ, MAP_WRITE, Attempt, Bench
from pers.testing.case import case

WAYS = ((MAP_READ, MapMode.READ), (MAP_WRITE, MapMode.WRITE))


def using(bench: Bench, *buffers: IMappableBuffer) -> Callable[[ICommandEncoder], None]:
    """Commands that use mappable buffers: they fill the readable ones with ones."""
    ones = bench.filled(np.ones(64, np.uint8))
    rest = bench.buffer(64)

    def record(encoder: ICommandEncoder) -> None:
        for buffer in buffers:
            if buffer.usage & BufferUsage.COPY_DST:
                encoder.copy_buffer_to_buffer(ones, 0, buffer, 0, buffer.size)
            else:
                encoder.copy_buffer_to_buffer(buffer, 0, rest, 0, buffer.size)

    return record


@case("dawn/BufferValidationTests:MapAsync_UnmapCalledInCallback")
async def unmap_in_callback(bench: Bench) -> None:
    for usage, mode in WAYS:
        buffer = bench.mappable(4, usage)
        mapped = await buffer.map_async(mode)
        buffer.unmap()
        await bench.device.queue.on_work_done().done()  # nothing comes after it
        assert buffer.state is BufferState.READY
        with bench.refuses(BufferStateError):
            mapped.read()


@case("dawn/BufferValidationTests:MapAsync_DestroyCalledInCallback")
async def destroy_in_callback(bench: Bench) -> None:
    for usage, mode in WAYS:
        buffer = bench.mappable(4, usage)
        mapped = await buffer.map_async(mode)
        buffer.destroy()
        await bench.device.queue.on_work_done().done()
        assert buffer.state is BufferState.DESTROYED
        with bench.refuses(BufferStateError):
            mapped.read()


@case("dawn/BufferValidationTests:MapAsync_RetryInSuccessCallback")
async def retry_after_success(bench: Bench) -> None:
    for usage, mode in WAYS:
        buffer = bench.mappable(4, usage)
        mapped = await buffer.map_async(mode)
        with bench.refuses(BufferStateError, words=("mapped",)):
            await buffer.map_async(mode)
        assert buffer.is_mapped
        assert mapped.read() == bytes(4)
        buffer.unmap()
        assert (await buffer.map_async(mode)).read() == bytes(4)


@case("dawn/BufferValidationTests:MapAsync_RetryInErrorCallback")
async def retry_after_error(bench: Bench) -> None:
    buffer = bench.mappable(4, MAP_READ)
    with bench.refuses(BufferUsageError):
        await buffer.map_async(MapMode.WRITE)
    assert (await buffer.map_async(MapMode.READ)).read() == bytes(4)

    for usage, mode in WAYS:
        unmapped, destroyed = bench.mappable(4, usage), bench.mappable(4, usage)
        first, second = Attempt[MapAbortedError | None](), Attempt[MapAbortedError | None]()
        async with anyio.create_task_group() as tasks:
            with bench.occupied(using(bench, unmapped, destroyed)):
                await first.start(tasks, map_until_done, unmapped, mode)
                await second.start(tasks, map_until_done, destroyed, mode)
                unmapped.unmap()
                destroyed.destroy()
        assert isinstance(first.result, MapAbortedError)
        assert unmapped.is_mapped
        content = b"\1" * 4 if mode is MapMode.READ else bytes(4)
        assert unmapped.mapped_data.read() == content
        assert isinstance(second.error, BufferStateError)
        assert destroyed.state is BufferState.DESTROYED


async def map_until_done(buffer: IMappableBuffer, mode: MapMode) -> MapAbortedError | None:
    """Map; when that is aborted, map again and return the error."""
    try:
        await buffer.map_async(mode)
    except MapAbortedError as error:
        await buffer.map_async(mode)
        return error
    return None


@case("dawn/BufferValidationTests:MapAsync_DroppedBeforeResult")
async def dropped_before_result(bench: Bench) -> None:
    for usage, mode in WAYS:
        buffers = [bench.mappable(4, usage)]
        gone = weakref.ref(buffers[0])
        attempt = Attempt[MappedRange]()
        async with anyio.create_task_group() as tasks:
            with bench.occupied(using(bench, *buffers)):
                await attempt.start(tasks, buffers.pop().map_async, mode)
                attempt.cancel()
        assert attempt.done
        del attempt
        gc.collect()
        assert gone() is None
        await bench.device.queue.on_work_done().done()

        control = bench.mappable(4, usage)
        assert (await control.map_async(mode)).read() == bytes(4)


@case("dawn/BufferValidationTests:DestroyDeviceWhilePending")
async def close_while_pending(bench: Bench) -> None:
    for usage, mode in WAYS:
        bench.device = bench.open_another()
        buffer = bench.mappable(4, usage)
        attempt = Attempt[MappedRange]()
        async with anyio.create_task_group() as tasks:
            with bench.occupied(using(bench, buffer)):
                await attempt.start(tasks, buffer.map_async, mode)
                assert buffer.is_map_pending
                bench.device.close()
                assert buffer.state is BufferState.DESTROYED
        assert isinstance(attempt.error, MapAbortedError)
        assert buffer.state is BufferState.DESTROYED
        with bench.refuses(DeviceLostError, BufferStateError):
            await buffer.map_async(mode)


@case("dawn/BufferValidationTests:DestroyDeviceAfterMapping")
async def close_after_mapping(bench: Bench) -> None:
    """The ranges die with the device; an array keeps what it looks at."""
    for usage, mode in WAYS:
        bench.device = bench.open_another()
        buffer = bench.mappable(4, usage)
        bench.submit(using(bench, buffer))
        mapped = await buffer.map_async(mode)
        if mode is MapMode.WRITE:
            mapped.write(b"\1\1\1\1")
        view = mapped.as_array()
        bench.device.close()
        assert buffer.state is BufferState.DESTROYED
        for call in (mapped.read, mapped.as_array, buffer.mapped_range):
            with bench.refuses(BufferStateError, DeviceLostError):
                call()
        assert view.tolist() == [1, 1, 1, 1]
        buffer.unmap()
        buffer.destroy()
        assert view.tolist() == [1, 1, 1, 1]
