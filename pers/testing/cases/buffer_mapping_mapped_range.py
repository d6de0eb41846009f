"""``validation/buffer/mapping``: which ranges are handed out (WebGPU §5.2, getMappedRange)."""

from __future__ import annotations

from pers.buffers import BufferUsage, IMappableBuffer, MapMode, MappedRange
from pers.errors import BufferRangeError, BufferStateError, BufferUsageError, MapAbortedError
from pers.testing.bench import MAP_READ, MAP_USAGES, Bench
from pers.testing.case import case


@case("validation/buffer/mapping:getMappedRange,state,mapped")
async def mapped(bench: Bench) -> None:
    for mode, usage in MAP_USAGES.items():
        buffer = bench.mappable(16, usage, name="source")
        await buffer.map_async(mode)
        data = buffer.mapped_range()
        assert len(data.read()) == 16
        bench.refuses_map(buffer, BufferStateError, mode=mode)
        assert len(data.read()) == 16
        buffer.unmap()
        _is_dead(bench, data)


@case("validation/buffer/mapping:getMappedRange,state,mappedAtCreation")
async def mapped_at_creation(bench: Bench) -> None:
    for usage in BufferUsage:
        for mode in MAP_USAGES:
            buffer = bench.mappable(16, usage, mapped=True, name="source")
            data = buffer.mapped_range()
            assert len(data.read()) == 16
            bench.refuses_map(buffer, BufferStateError, mode=mode)
            assert len(data.read()) == 16
            buffer.unmap()
            _is_dead(bench, data)


@case("validation/buffer/mapping:getMappedRange,state,invalid_mappedAtCreation")
async def invalid_mapped_at_creation(bench: Bench) -> None:
    """There are no invalid buffers to map; what is left is that the next one is not affected."""
    with bench.refuses(BufferUsageError):
        bench.mappable(16, BufferUsage(0xFFFF_FFFF), mapped=True)
    assert bench.mappable(16, mapped=True).mapped_range().nbytes == 16


@case("validation/buffer/mapping:getMappedRange,state,mappedAgain")
async def mapped_again(bench: Bench) -> None:
    for mode, usage in MAP_USAGES.items():
        buffer = bench.mappable(16, usage, name="source")
        await buffer.map_async(mode)
        bench.refuses_map(buffer, BufferStateError, mode=mode)
        assert buffer.mapped_range().nbytes == 16


@case("validation/buffer/mapping:getMappedRange,state,unmapped")
async def unmapped(bench: Bench) -> None:
    for mode, usage in MAP_USAGES.items():
        never_mapped = bench.mappable(16, usage, name="source")
        bench.refuses_range(never_mapped, BufferStateError)

        was_mapped = bench.mappable(16, usage, name="source")
        await was_mapped.map_async(mode)
        was_mapped.unmap()
        bench.refuses_range(was_mapped, BufferStateError)

        was_mapped_at_creation = bench.mappable(16, usage, mapped=True, name="source")
        was_mapped_at_creation.unmap()
        bench.refuses_range(was_mapped_at_creation, BufferStateError)


@case("validation/buffer/mapping:getMappedRange,subrange,mapped")
async def subrange_mapped(bench: Bench) -> None:
    for mode, usage in MAP_USAGES.items():
        buffer = bench.mappable(16, usage, name="source")
        await buffer.map_async(mode)
        await _remap_the_second_half(bench, buffer, mode)


@case("validation/buffer/mapping:getMappedRange,subrange,mappedAtCreation")
async def subrange_mapped_at_creation(bench: Bench) -> None:
    buffer = bench.mappable(16, MAP_READ, mapped=True, name="source")
    await _remap_the_second_half(bench, buffer, MapMode.READ)


async def _remap_the_second_half(bench: Bench, buffer: IMappableBuffer, mode: MapMode) -> None:
    whole = buffer.mapped_range()
    assert whole.nbytes == 16
    buffer.unmap()
    _is_dead(bench, whole)
    await buffer.map_async(mode, 8)
    half = buffer.mapped_range(8)
    assert (half.offset, half.nbytes, len(half.read())) == (8, 8, 8)
    _is_dead(bench, whole)


@case("validation/buffer/mapping:getMappedRange,state,destroyed")
async def destroyed(bench: Bench) -> None:
    for mode, usage in MAP_USAGES.items():
        never_mapped = bench.mappable(16, usage, name="source")
        never_mapped.destroy()
        bench.refuses_range(never_mapped, BufferStateError)

        mapped = bench.mappable(16, usage, name="source")
        await mapped.map_async(mode)
        mapped.destroy()
        bench.refuses_range(mapped, BufferStateError)

        mapped_at_creation = bench.mappable(16, usage, mapped=True, name="source")
        mapped_at_creation.destroy()
        bench.refuses_range(mapped_at_creation, BufferStateError)


@case("validation/buffer/mapping:getMappedRange,state,mappingPending")
async def mapping_pending(bench: Bench) -> None:
    for mode, usage in MAP_USAGES.items():
        buffer = bench.mappable(16, usage, name="source")
        pending = bench.start_map(buffer, mode)
        bench.refuses_map(buffer, BufferStateError, mode=mode)
        bench.refuses_range(buffer, BufferStateError)
        await pending
        assert buffer.mapped_range().nbytes == 16

        aborted = bench.mappable(16, usage, name="source")
        pending = bench.start_map(aborted, mode)
        aborted.unmap()
        bench.refuses_range(aborted, BufferStateError)
        with bench.refuses(MapAbortedError, words=("'source'",)):
            await pending


@case("validation/buffer/mapping:getMappedRange,offsetAndSizeAlignment,mapped")
async def alignment_mapped(bench: Bench) -> None:
    for mode, usage in MAP_USAGES.items():
        for map_offset in (0, 8):
            for offset in (0, 8, 4):
                for size in (0, 4, 2):
                    buffer = bench.mappable(32, usage, name="source")
                    await buffer.map_async(mode, map_offset)
                    _check_alignment(bench, buffer, map_offset + offset, size)


@case("validation/buffer/mapping:getMappedRange,offsetAndSizeAlignment,mappedAtCreation")
async def alignment_mapped_at_creation(bench: Bench) -> None:
    for offset in (0, 8, 4):
        for size in (0, 4, 2):
            buffer = bench.mappable(16, BufferUsage.COPY_DST, mapped=True, name="source")
            _check_alignment(bench, buffer, offset, size)


def _check_alignment(bench: Bench, buffer: IMappableBuffer, offset: int, size: int) -> None:
    _check_range(bench, buffer, offset, size, legal=offset % 8 == 0 and size % 4 == 0)


@case("validation/buffer/mapping:getMappedRange,sizeAndOffsetOOB,mappedAtCreation")
async def out_of_bounds_mapped_at_creation(bench: Bench) -> None:
    for buffer_size, offset, size in (
        (0, 0, None), (0, 0, 0), (0, 0, 4), (0, 8, None), (0, 8, 0),
        (80, 0, None), (80, 8, None), (80, 80, None), (80, 88, None),
        (80, 0, 80), (80, 0, 84), (80, 8, 80), (80, 40, 40), (80, 48, 40), (80, 40, 44),
    ):  # fmt: skip
        buffer = bench.mappable(buffer_size, BufferUsage.COPY_DST, mapped=True, name="source")
        end = offset + (buffer_size - offset if size is None else size)
        legal = offset <= buffer_size and end <= buffer_size
        _check_range(bench, buffer, offset, size, legal=legal)


@case("validation/buffer/mapping:getMappedRange,sizeAndOffsetOOB,mapped")
async def out_of_bounds_mapped(bench: Bench) -> None:
    for buffer_size, map_offset, map_size, offset, size in (
        # An empty buffer.
        (0, 0, None, 0, None), (0, 0, None, 0, 0), (0, 0, None, 0, 4),
        (0, 0, None, 8, None), (0, 0, None, 8, 0),
        (0, 0, 0, 0, None), (0, 0, 0, 0, 0), (0, 0, 0, 8, None), (0, 0, 0, 8, 0),
        # Mapped to the end.
        (80, 0, None, 0, 80), (80, 0, None, 0, 84), (80, 0, None, 8, 80),
        (80, 24, None, 24, 56), (80, 24, None, 0, 60), (80, 24, None, 8, 56),
        # Mapped as a whole.
        (80, 0, 80, 0, 80), (80, 0, 80, 8, 80), (80, 0, 80, 0, 84),
        (80, 0, 80, 40, 40), (80, 0, 80, 48, 40), (80, 0, 80, 40, 44),
        # Mapped in part.
        (80, 24, 40, 24, 40), (80, 24, 40, 16, 40), (80, 24, 40, 32, 40), (80, 24, 40, 24, 44),
        # To the end of the buffer, whatever part is mapped.
        (80, 24, 40, 0, None), (80, 24, 40, 24, None),
        (80, 24, None, 24, None), (80, 24, None, 80, None),
        (80, 0, 64, 0, None), (80, 0, 64, 0, 64),
    ):  # fmt: skip
        for mode, usage in MAP_USAGES.items():
            buffer = bench.mappable(buffer_size, usage, name="source")
            await buffer.map_async(mode, map_offset, map_size)
            map_end = map_offset + (buffer_size - map_offset if map_size is None else map_size)
            end = offset + (buffer_size - offset if size is None else size)
            legal = map_offset <= offset <= buffer_size and end <= map_end
            _check_range(bench, buffer, offset, size, legal=legal)


@case("validation/buffer/mapping:getMappedRange,disjointRanges")
async def disjoint_ranges(bench: Bench) -> None:
    for first, second in (
        # One is empty.
        ((8, 0), (8, 8)), ((16, 0), (8, 8)), ((8, 8), (8, 0)), ((8, 8), (16, 0)),
        # Side by side.
        ((0, 8), (8, 8)), ((16, 8), (8, 8)), ((8, 8), (0, 8)), ((8, 8), (16, 8)),
        # An empty one inside another.
        ((16, 20), (24, 0)), ((24, 0), (16, 20)),
        # One over the end of the other.
        ((16, 20), (8, 20)), ((16, 20), (32, 20)),
        # One around the other.
        ((0, 80), (16, 20)), ((16, 20), (0, 80)),
        # Twice the same.
        ((16, 20), (16, 20)),
    ):  # fmt: skip
        for map_again in (False, True):
            buffer = bench.mappable(80, MAP_READ, name="source")
            await buffer.map_async(MapMode.READ)
            _check_range(bench, buffer, *first, legal=True)
            if map_again:
                buffer.unmap()
                await buffer.map_async(MapMode.READ)
            disjoint = first[0] >= sum(second) or second[0] >= sum(first)
            _check_range(bench, buffer, *second, legal=disjoint or map_again)


@case("validation/buffer/mapping:getMappedRange,disjointRanges_many")
async def disjoint_ranges_many(bench: Bench) -> None:
    count = stride = 256
    buffer = bench.mappable(count * stride, MAP_READ, name="source")
    await buffer.map_async(MapMode.READ)
    for start in range(0, count * stride, stride):
        _check_range(bench, buffer, start, 8, legal=True)
    for start in range(0, count * stride, stride):
        _check_range(bench, buffer, start, stride, legal=False)
        _check_range(bench, buffer, start + 8, stride - 8, legal=True)


def _check_range(
    bench: Bench, buffer: IMappableBuffer, offset: int, size: int | None, *, legal: bool
) -> None:
    if legal:
        data = buffer.mapped_range(offset, size)
        assert (data.offset, data.nbytes) == (
            offset,
            buffer.size - offset if size is None else size,
        )
        assert len(data.read()) == data.nbytes
    else:
        bench.refuses_range(buffer, BufferRangeError, offset=offset, size=size)


def _is_dead(bench: Bench, data: MappedRange) -> None:
    with bench.refuses(BufferStateError, words=("'source'",)):
        data.read()
    with bench.refuses(BufferStateError, words=("'source'",)):
        data.as_array()
