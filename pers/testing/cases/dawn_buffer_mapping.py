"""Dawn's ``BufferMappingTests``: what mapped memory holds, end to end (WebGPU §5.2).

Dawn hands out overlapping ranges; the specification does not (`mapped_range` refuses them), so
looks at the whole mapping go through `mapped_data` here. Dawn's callback is what follows the
``await``.
"""

from __future__ import annotations

import anyio
import numpy as np
import numpy.typing as npt

from pers.buffers import IMappableBuffer, MapMode, MappedRange
from pers.errors import BufferRangeError, BufferStateError
from pers.testing.bench import MAP_READ, MAP_WRITE, Attempt, Bench
from pers.testing.case import case

WORDS = np.array([0x01020304, 0x05060708, 0x090A0B0C], np.uint32)
LARGE = np.arange(1_000_000, dtype=np.uint32)


def readable(bench: Bench, data: npt.NDArray[np.uint32]) -> IMappableBuffer:
    """A buffer to be mapped for reading, with data that the queue wrote."""
    buffer = bench.mappable(data.nbytes, MAP_READ)
    bench.device.queue.write_buffer(buffer, 0, data)
    return buffer


def words(bench: Bench, buffer: IMappableBuffer) -> list[int]:
    """The content of a buffer that the CPU wrote, by way of the GPU."""
    return [int(word) for word in bench.read(buffer, np.uint32)]


@case("dawn/BufferMappingTests:MapRead_Basic")
async def read_basic(bench: Bench) -> None:
    buffer = readable(bench, WORDS[:1])
    mapped = await buffer.map_async(MapMode.READ, 0, 4)
    assert mapped.read() == WORDS[:1].tobytes()
    assert buffer.mapped_range(0, 4).read() == WORDS[:1].tobytes()
    buffer.unmap()


@case("dawn/BufferMappingTests:MapRead_ZeroSized")
async def read_zero_sized(bench: Bench) -> None:
    buffer = bench.mappable(0, MAP_READ)
    mapped = await buffer.map_async(MapMode.READ)
    assert (mapped.nbytes, mapped.read(), mapped.as_array().size) == (0, b"", 0)
    assert buffer.mapped_range().read() == b""
    buffer.unmap()


@case("dawn/BufferMappingTests:MapRead_NonZeroOffset")
async def read_at_offset(bench: Bench) -> None:
    buffer = readable(bench, WORDS)
    mapped = await buffer.map_async(MapMode.READ, 8, 4)
    assert mapped.read() == WORDS[2:].tobytes()
    assert buffer.mapped_range(8).read() == WORDS[2:].tobytes()
    buffer.unmap()


@case("dawn/BufferMappingTests:MapRead_Twice")
async def read_twice(bench: Bench) -> None:
    buffer = bench.mappable(4, MAP_READ)
    for word in WORDS:
        bench.device.queue.write_buffer(buffer, 0, word)
        mapped = await buffer.map_async(MapMode.READ, 0, 4)
        assert mapped.read() == word.tobytes()
        buffer.unmap()


@case("dawn/BufferMappingTests:MapRead_MultipleMappedRange")
async def read_ranges(bench: Bench) -> None:
    buffer = readable(bench, WORDS)
    await buffer.map_async(MapMode.READ, 0, 12)
    first, second = buffer.mapped_range(0, 8), buffer.mapped_range(8)
    assert first.as_array(np.uint32).tolist() == WORDS[:2].tolist()
    assert second.as_array(np.uint32).tolist() == WORDS[2:].tolist()
    assert buffer.mapped_data.as_array(np.uint32).tolist() == WORDS.tolist()
    buffer.unmap()


@case("dawn/BufferMappingTests:MapRead_Large")
async def read_large(bench: Bench) -> None:
    buffer, size = readable(bench, LARGE), LARGE.nbytes
    mapped = await buffer.map_async(MapMode.READ, 0, size)
    with bench.refuses(BufferRangeError):
        buffer.mapped_range(0, size + 4)
    assert mapped.read() == LARGE.tobytes()
    assert buffer.mapped_range(8).read() == LARGE[2:].tobytes()
    buffer.unmap()

    mapped = await buffer.map_async(MapMode.READ, 16, size - 16)
    for offset, length in ((16, size - 12), (0, None), (8, None)):
        with bench.refuses(BufferRangeError):
            buffer.mapped_range(offset, length)
    assert mapped.read() == LARGE[4:].tobytes()
    assert buffer.mapped_range(24).read() == LARGE[6:].tobytes()
    buffer.unmap()


@case("dawn/BufferMappingTests:MapRead_InCallback")
async def read_in_callback(bench: Bench) -> None:
    """Who learns of the map first can read ranges and unmap on the spot."""
    buffer = readable(bench, WORDS)

    async def callback() -> None:
        mapped = await buffer.map_async(MapMode.READ, 0, 12)
        assert mapped.read() == WORDS.tobytes()
        assert buffer.mapped_range(8, 4).read() == WORDS[2:].tobytes()
        buffer.unmap()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(callback)
    assert not buffer.is_mapped


@case("dawn/BufferMappingTests:MapWrite_Basic")
async def write_basic(bench: Bench) -> None:
    buffer = bench.mappable(4, MAP_WRITE)
    mapped = await buffer.map_async(MapMode.WRITE, 0, 4)
    mapped.write(WORDS[:1])
    assert mapped.read() == WORDS[:1].tobytes()
    buffer.unmap()
    assert words(bench, buffer) == WORDS[:1].tolist()


@case("dawn/BufferMappingTests:MapWrite_BasicRange")
async def write_basic_range(bench: Bench) -> None:
    buffer = bench.mappable(4, MAP_WRITE)
    await buffer.map_async(MapMode.WRITE, 0, 4)
    buffer.mapped_range(0, 4).write(WORDS[:1])
    buffer.unmap()
    assert words(bench, buffer) == WORDS[:1].tolist()


@case("dawn/BufferMappingTests:MapWrite_ZeroSized")
async def write_zero_sized(bench: Bench) -> None:
    buffer = bench.mappable(0, MAP_WRITE)
    for _ in range(2):  # Dawn's MapWrite_ZeroSizedTwice
        mapped = await buffer.map_async(MapMode.WRITE)
        mapped.write(b"")
        mapped.as_array()[:] = 0
        buffer.mapped_range().write(b"")
        buffer.unmap()
    assert words(bench, buffer) == []


@case("dawn/BufferMappingTests:MapWrite_NonZeroOffset")
async def write_at_offset(bench: Bench) -> None:
    buffer = bench.mappable(12, MAP_WRITE)
    await buffer.map_async(MapMode.WRITE, 8, 4)
    buffer.mapped_range(8).write(WORDS[:1])
    buffer.unmap()
    assert words(bench, buffer) == [0, 0, WORDS[0]]


@case("dawn/BufferMappingTests:MapWrite_Twice")
async def write_twice(bench: Bench) -> None:
    buffer = bench.mappable(4, MAP_WRITE)
    for word in (2934875, 9999999):
        mapped = await buffer.map_async(MapMode.WRITE, 0, 4)
        mapped.write(np.uint32(word))
        buffer.unmap()
        assert words(bench, buffer) == [word]


@case("dawn/BufferMappingTests:MapWrite_TwicePreserve")
async def write_twice_preserves(bench: Bench) -> None:
    buffer = bench.mappable(12, MAP_WRITE)
    for offset, word in ((8, 0x08090A0B), (0, 0x00010203)):
        await buffer.map_async(MapMode.WRITE, offset)
        buffer.mapped_range(offset).write(np.uint32(word))
        buffer.unmap()
    assert words(bench, buffer) == [0x00010203, 0, 0x08090A0B]


@case("dawn/BufferMappingTests:MapWrite_TwiceRangeOverlap")
async def write_twice_overlapping(bench: Bench) -> None:
    buffer = bench.mappable(16, MAP_WRITE)
    await buffer.map_async(MapMode.WRITE, 8, 8)
    buffer.mapped_range(8, 8).write(np.array([0x01234567, 0x89ABCDEF], np.uint32))
    buffer.unmap()
    assert words(bench, buffer) == [0, 0, 0x01234567, 0x89ABCDEF]

    await buffer.map_async(MapMode.WRITE, 0, 12)
    buffer.mapped_range(0, 12).write(np.array([0x01234567, 0x89ABCDEF, 0x55555555], np.uint32))
    buffer.unmap()
    assert words(bench, buffer) == [0x01234567, 0x89ABCDEF, 0x55555555, 0x89ABCDEF]


@case("dawn/BufferMappingTests:MapWrite_MultipleMappedRange")
async def write_ranges(bench: Bench) -> None:
    buffer = bench.mappable(12, MAP_WRITE)
    await buffer.map_async(MapMode.WRITE, 0, 12)
    buffer.mapped_range(8).write(np.uint32(0x08090A0B))
    buffer.mapped_range(0, 4).write(np.uint32(0x00010203))
    buffer.unmap()
    assert words(bench, buffer) == [0x00010203, 0, 0x08090A0B]


@case("dawn/BufferMappingTests:MapWrite_Large")
async def write_large(bench: Bench) -> None:
    size = LARGE.nbytes
    buffer = bench.mappable(size, MAP_WRITE)
    await buffer.map_async(MapMode.WRITE, 16, size - 20)
    for offset, length in ((0, None), (8, None), (16, size - 8)):
        with bench.refuses(BufferRangeError):
            buffer.mapped_range(offset, length)
    buffer.mapped_range(16, size - 20).write(LARGE[:-5])
    buffer.unmap()
    expected = np.concatenate([np.zeros(4, np.uint32), LARGE[:-5], np.zeros(1, np.uint32)])
    assert bench.read(buffer).tobytes() == expected.tobytes()


@case("dawn/BufferMappingTests:MapWrite_ManySimultaneous")
async def write_many(bench: Bench) -> None:
    data = np.arange(1000, dtype=np.uint32)
    buffers = [bench.mappable(data.nbytes, MAP_WRITE) for _ in range(100)]
    maps = [Attempt[MappedRange]() for _ in buffers]
    async with anyio.create_task_group() as tasks:
        for buffer, attempt in zip(buffers, maps, strict=True):
            await attempt.start(tasks, buffer.map_async, MapMode.WRITE)
    assert all(buffer.is_mapped for buffer in buffers)
    for index, (buffer, attempt) in enumerate(zip(buffers, maps, strict=True)):
        attempt.result.write(data + index)
        buffer.unmap()
    for index, buffer in enumerate(buffers):
        assert bench.read(buffer).tobytes() == (data + index).astype(np.uint32).tobytes(), index


@case("dawn/BufferMappingTests:OffsetNotUpdatedOnError")
async def offset_survives_error(bench: Bench) -> None:
    """A map refused while another one is pending changes nothing about that one."""
    buffer = readable(bench, WORDS)
    first = Attempt[MappedRange]()
    async with anyio.create_task_group() as tasks:
        await first.start(tasks, buffer.map_async, MapMode.READ, 8, 4)
        with bench.refuses(BufferStateError):
            await buffer.map_async(MapMode.READ, 0, 4)
    assert (first.result.offset, first.result.nbytes) == (8, 4)
    with bench.refuses(BufferRangeError):
        buffer.mapped_range(0, 4)
    assert buffer.mapped_range(8).read() == WORDS[2:].tobytes()
