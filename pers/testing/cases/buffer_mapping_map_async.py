"""``validation/buffer/mapping``: which maps are granted (WebGPU §5.2, mapAsync)."""

from __future__ import annotations

from pers.buffers import BufferState, BufferUsage, MapMode
from pers.errors import (
    BufferRangeError,
    BufferStateError,
    BufferUsageError,
    DeviceLostError,
    MapAbortedError,
)
from pers.testing.bench import MAP_READ, MAP_USAGES, Bench
from pers.testing.case import case


@case("validation/buffer/mapping:mapAsync,usage")
async def usage(bench: Bench) -> None:
    needed = {MapMode.READ: BufferUsage.MAP_READ, MapMode.WRITE: BufferUsage.MAP_WRITE}
    for created_with in BufferUsage:
        buffer = bench.mappable(16, created_with, mapped=True, name="target")
        buffer.unmap()
        for mode in (MapMode.READ, MapMode.WRITE, MapMode.NONE, MapMode(3), MapMode(4)):
            if needed.get(mode) == created_with:
                assert (await buffer.map_async(mode)).mode is mode
                buffer.unmap()
            else:
                bench.refuses_map(buffer, BufferUsageError, mode=mode)


@case("validation/buffer/mapping:mapAsync,invalidBuffer")
async def invalid_buffer(bench: Bench) -> None:
    """A buffer is invalid here when its device has gone."""
    buffers = [(mode, bench.mappable(16, use, name="target")) for mode, use in MAP_USAGES.items()]
    bench.device.close()
    for mode, buffer in buffers:
        bench.refuses_map(buffer, DeviceLostError, mode=mode)


@case("validation/buffer/mapping:mapAsync,state,destroyed")
async def destroyed(bench: Bench) -> None:
    for mode, usage in MAP_USAGES.items():
        buffer = bench.mappable(16, usage, name="target")
        pending = bench.start_map(buffer, mode)
        buffer.destroy()
        bench.refuses_map(buffer, BufferStateError, mode=mode)
        with bench.refuses(MapAbortedError, words=("'target'", "destroyed")):
            await pending
        assert buffer.state is BufferState.DESTROYED


@case("validation/buffer/mapping:mapAsync,state,mappedAtCreation")
async def mapped_at_creation(bench: Bench) -> None:
    for mode, usage in MAP_USAGES.items():
        buffer = bench.mappable(16, usage, mapped=True, name="target")
        bench.refuses_map(buffer, BufferStateError, mode=mode)
        buffer.unmap()
        await buffer.map_async(mode)
        assert buffer.is_mapped


@case("validation/buffer/mapping:mapAsync,state,mapped")
async def mapped(bench: Bench) -> None:
    for mode, usage in MAP_USAGES.items():
        buffer = bench.mappable(16, usage, name="target")
        first = await buffer.map_async(mode)
        bench.refuses_map(buffer, BufferStateError, mode=mode)
        assert len(first.read()) == 16
        buffer.unmap()
        await buffer.map_async(mode)
        assert buffer.is_mapped


@case("validation/buffer/mapping:mapAsync,state,mappingPending")
async def mapping_pending(bench: Bench) -> None:
    for mode, usage in MAP_USAGES.items():
        buffer = bench.mappable(16, usage, name="target")
        first = bench.start_map(buffer, mode)
        bench.refuses_map(buffer, BufferStateError, mode=mode)
        buffer.unmap()
        assert buffer.state is BufferState.READY
        await buffer.map_async(mode)
        with bench.refuses(MapAbortedError, words=("'target'", "unmapped")):
            await first
        assert buffer.is_mapped


@case("validation/buffer/mapping:mapAsync,sizeUnspecifiedOOB")
async def size_unspecified_out_of_bounds(bench: Bench) -> None:
    for size, offset in ((0, 0), (0, 1), (0, 8), (16, 0), (16, 8), (16, 16), (16, 17), (16, 24)):
        await _check_range(bench, size, offset, None)


@case("validation/buffer/mapping:mapAsync,offsetAndSizeAlignment")
async def offset_and_size_alignment(bench: Bench) -> None:
    for offset in (0, 8, 4):
        for size in (0, 4, 2):
            await _check_range(bench, 16, offset, size)


@case("validation/buffer/mapping:mapAsync,offsetAndSizeOOB")
async def offset_and_size_out_of_bounds(bench: Bench) -> None:
    for offset, size in ((0, 0), (0, 4), (8, 0)):
        await _check_range(bench, 0, offset, size)
    for offset, size in ((0, 16), (8, 16), (16, 0), (16, 4), (8, 0), (8, 8), (8, 12)):
        await _check_range(bench, 16, offset, size)
    for offset, size in (
        (0, 1024), (8, 1024), (1024, 0), (1024, 4), (512, 0), (512, 512), (512, 516),
    ):  # fmt: skip
        await _check_range(bench, 1024, offset, size)


@case("validation/buffer/mapping:mapAsync,earlyRejection")
async def early_rejection(bench: Bench) -> None:
    for mode, usage in MAP_USAGES.items():
        for offset in (0, 8):
            buffer = bench.mappable(16, usage, name="target")
            first = bench.start_map(buffer, mode, 0, 8)
            bench.refuses_map(buffer, BufferStateError, mode=mode, offset=offset, size=8)
            mapped = await first
            assert (mapped.offset, mapped.nbytes) == (0, 8)
            assert buffer.is_mapped


@case("validation/buffer/mapping:mapAsync,abort_over_invalid_error")
async def abort_over_invalid_error(bench: Bench) -> None:
    """What is wrong with a call is raised at once here, so no `unmap` can come in between.

    What is left of the rule: a pending map that is aborted ends with that, whatever went wrong
    before and after.
    """
    for mode, usage in MAP_USAGES.items():
        mapped = bench.mappable(8, usage, name="target")
        await mapped.map_async(mode)
        bench.refuses_map(mapped, BufferStateError, mode=mode)
        mapped.unmap()
        for destroy in (False, True):
            buffer = bench.mappable(8, usage, name="target")
            pending = bench.start_map(buffer, mode)
            bench.refuses_map(buffer, BufferStateError, mode=mode, offset=4)
            bench.refuses_range(buffer, BufferStateError)
            if destroy:
                buffer.destroy()
            else:
                buffer.unmap()
            bench.refuses_range(buffer, BufferStateError)
            with bench.refuses(MapAbortedError, words=("'target'",)):
                await pending


@case("pers/buffer/mapping:abort_over_device_loss")
async def abort_over_device_loss(bench: Bench) -> None:
    buffer = bench.mappable(8, MAP_READ, name="target")
    pending = bench.start_map(buffer, MapMode.READ)
    buffer.unmap()
    bench.device.close()
    with bench.refuses(MapAbortedError, words=("'target'", "unmapped")):
        await pending


async def _check_range(bench: Bench, buffer_size: int, offset: int, size: int | None) -> None:
    length = max(buffer_size - offset, 0) if size is None else size
    legal = offset % 8 == 0 and length % 4 == 0 and offset + length <= buffer_size
    for mode, usage in MAP_USAGES.items():
        buffer = bench.mappable(buffer_size, usage, name="target")
        if legal:
            mapped = await buffer.map_async(mode, offset, size)
            assert (mapped.offset, mapped.nbytes, mapped.mode) == (offset, length, mode)
            assert buffer.is_mapped
        else:
            bench.refuses_map(buffer, BufferRangeError, mode=mode, offset=offset, size=size)
