"""``operation/buffers``: map, map_detach and map_oom: what mapped memory holds (WebGPU §5.2)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import anyio
import attrs
import numpy as np
import numpy.typing as npt

from pers.buffers import (
    BufferDesc,
    BufferState,
    BufferUsage,
    IMappableBuffer,
    MapMode,
    MappedRange,
)
from pers.errors import (
    BufferRangeError,
    BufferStateError,
    BufferUsageError,
    MapAbortedError,
    MappedViewsError,
)
from pers.graphics import ICommandEncoder
from pers.testing.bench import MAP_READ, MAP_WRITE, Attempt, Bench
from pers.testing.case import case, not_applicable

LARGE = 512 * 1024


@attrs.frozen
class Part:
    """A part of a buffer of `size` bytes, with the arguments left out where they are None."""

    size: int
    offset: int | None = None
    length: int | None = None

    @property
    def start(self) -> int:
        return self.offset or 0

    @property
    def nbytes(self) -> int:
        return self.size - self.start if self.length is None else self.length

    @property
    def end(self) -> int:
        return self.start + self.nbytes

    @property
    def arguments(self) -> tuple[int, int | None]:
        return (self.start, self.length)

    def regions(self) -> Iterator[tuple[int, int | None]]:
        """Mapped regions with the part in them: to the buffer's bounds or just as large."""
        for left, right in itertools.product(("default", "explicit", "minimal"), repeat=2):
            start = self.start if left == "minimal" else 0
            end = self.end if right == "minimal" else self.size
            yield start, None if right == "default" else end - start


PARTS = (
    Part(0),
    Part(0, 0),
    Part(0, 0, 0),
    Part(12),
    Part(12, 0),
    Part(12, 0, 12),
    Part(12, 0, 0),
    Part(12, 8),
    Part(12, 8, 4),
    Part(28, 8, 8),
    Part(28, 8, 12),
    Part(LARGE),
)


def numbers(nbytes: int) -> npt.NDArray[np.uint32]:
    """1, 2, 3, ... in so many bytes."""
    return np.arange(1, nbytes // 4 + 1, dtype=np.uint32)


def with_part(part: Part, data: npt.NDArray[np.uint32]) -> bytes:
    """The bytes of a buffer that is zero but for `data` in `part`."""
    return bytes(part.start) + data.tobytes() + bytes(part.size - part.end)


def write_part(buffer: IMappableBuffer, part: Part) -> npt.NDArray[np.uint32]:
    """Write numbers to a part of a mapped buffer, unmap it, and return them."""
    mapped = buffer.mapped_range(*part.arguments)
    assert mapped.nbytes == part.nbytes
    data = numbers(part.nbytes)
    mapped.as_array(np.uint32)[:] = data
    buffer.unmap()
    return data


def check_state(buffer: IMappableBuffer, state: BufferState) -> None:
    assert buffer.state is state


async def mapped_for_writing(bench: Bench, size: int, *, at_creation: bool) -> IMappableBuffer:
    """A buffer mapped as a whole, in one of the two ways."""
    buffer = bench.mappable(size, MAP_WRITE, mapped=at_creation)
    if not at_creation:
        await buffer.map_async(MapMode.WRITE)
    return buffer


@case("operation/buffers/map:mapAsync,write")
async def map_write(bench: Bench) -> None:
    for part in PARTS:
        for region in part.regions():
            buffer = bench.mappable(part.size, MAP_WRITE)
            await buffer.map_async(MapMode.WRITE, *region)
            data = write_part(buffer, part)
            assert bench.read(buffer).tobytes() == with_part(part, data), (part, region)


@case("operation/buffers/map:mapAsync,write,unchanged_ranges_preserved")
async def map_write_preserves(bench: Bench) -> None:
    pairs = (
        (Part(12), Part(12, 8)),
        (Part(12), Part(12, 0, 8)),
        (Part(12, 0, 8), Part(12, 8)),
        (Part(12, 8), Part(12, 0, 8)),
        (Part(28), Part(28, 8, 8)),
        (Part(28, 8, 16), Part(28, 16, 8)),
        (Part(32, 16, 12), Part(32, 8, 16)),
        (Part(32, 8, 8), Part(32, 24, 4)),
    )
    for (first, second), at_creation in itertools.product(pairs, (False, True)):
        buffer = await mapped_for_writing(bench, first.size, at_creation=at_creation)
        expected = bytearray(with_part(first, write_part(buffer, first)))

        await buffer.map_async(MapMode.WRITE, *second.arguments)
        buffer.mapped_range(*second.arguments).as_array()[:] = 0
        buffer.unmap()
        expected[second.start : second.end] = bytes(second.nbytes)

        assert bench.read(buffer).tobytes() == expected, (first, second, at_creation)


@case("operation/buffers/map:mapAsync,read")
async def map_read(bench: Bench) -> None:
    for part in PARTS:
        for region in part.regions():
            buffer = bench.mappable(part.size, MAP_READ, mapped=True)
            data = write_part(buffer, part)
            await buffer.map_async(MapMode.READ, *region)
            actual = buffer.mapped_range(*part.arguments)
            assert actual.read() == data.tobytes(), (part, region)


@case("operation/buffers/map:mapAsync,read,typedArrayAccess")
async def map_read_typed(bench: Bench) -> None:
    fields = np.dtype(
        [
            ("u1", "u1", 2),
            ("i1", "i1", 2),
            ("u2", "u2", 2),
            ("i2", "i2", 2),
            ("u4", "u4", 2),
            ("i4", "i4", 2),
            ("f4", "f4", 3),
            ("f8", "f8", 5),
        ]
    )
    assert fields.itemsize == 80
    expected = np.zeros(1, fields)
    expected["u1"], expected["i1"] = (1, 255), (-1, 127)
    expected["u2"], expected["i2"] = (1, 65535), (-1, 32767)
    expected["u4"], expected["i4"] = (1, 2**32 - 1), (-1, 2**31 - 1)
    expected["f4"] = (1, -1, 12345.6789)
    expected["f8"] = (1, -1, 12345.6789, np.finfo("f8").max, 5e-324)
    parts = (
        Part(80),
        Part(160),
        Part(160, 0, 80),
        Part(160, 80),
        Part(160, 40, 120),
        Part(160, 40),
    )
    for part in parts:
        for region in part.regions():
            buffer = bench.mappable(part.size, MAP_READ, mapped=True)
            buffer.mapped_range(*part.arguments).write(expected)
            buffer.unmap()

            await buffer.map_async(MapMode.READ, *region)
            mapped = buffer.mapped_range(*part.arguments)
            actual = mapped.as_array(fields, 1)
            for name in fields.names or ():
                assert actual[name].tobytes() == expected[name].tobytes(), (part, region, name)
            assert actual.tobytes() == expected.tobytes(), (part, region)


@attrs.frozen
class Course:
    """What is done to a buffer while its map is pending, and after the map has ended."""

    reads: bool
    unmap_before: bool
    destroy_before: bool
    unmap_after: bool
    destroy_after: bool

    @property
    def mode(self) -> MapMode:
        return MapMode.READ if self.reads else MapMode.WRITE

    @property
    def is_aborted(self) -> bool:
        return self.unmap_before or self.destroy_before

    def interrupt(self, buffer: IMappableBuffer) -> None:
        check_state(buffer, BufferState.MAP_PENDING)
        if self.unmap_before:
            buffer.unmap()
            check_state(buffer, BufferState.READY)
        if self.destroy_before:
            buffer.destroy()
            check_state(buffer, BufferState.DESTROYED)

    def finish(self, buffer: IMappableBuffer) -> None:
        if self.unmap_after:
            buffer.unmap()
            check_state(buffer, BufferState.DESTROYED if self.destroy_before else BufferState.READY)
        if self.destroy_after:
            buffer.destroy()
            check_state(buffer, BufferState.DESTROYED)


@case("operation/buffers/map:mapAsync,mapState")
async def map_state(bench: Bench) -> None:
    with bench.refuses(BufferUsageError):
        BufferDesc(8, BufferUsage.NONE)
    courses = [Course(*flags) for flags in itertools.product((False, True), repeat=5)]
    buffers = [bench.mappable(8, MAP_READ if course.reads else MAP_WRITE) for course in courses]
    for course, buffer in zip(courses, buffers, strict=True):
        check_state(buffer, BufferState.READY)
        with bench.refuses(BufferUsageError):  # the buffer has not got the usage
            await buffer.map_async(MapMode(course.mode ^ 3))
        check_state(buffer, BufferState.READY)

    source, target = bench.buffer(8), bench.buffer(8)

    def use_all(encoder: ICommandEncoder) -> None:
        for course, buffer in zip(courses, buffers, strict=True):
            if course.reads:
                encoder.copy_buffer_to_buffer(source, 0, buffer, 0)
            else:
                encoder.copy_buffer_to_buffer(buffer, 0, target, 0)

    maps = [Attempt[MappedRange]() for _ in courses]
    async with anyio.create_task_group() as tasks:
        with bench.occupied(use_all):
            for course, buffer, attempt in zip(courses, buffers, maps, strict=True):
                await attempt.start(tasks, buffer.map_async, course.mode)
                course.interrupt(buffer)

    for course, buffer, attempt in zip(courses, buffers, maps, strict=True):
        assert isinstance(attempt.error, MapAbortedError) == course.is_aborted, attempt.error
        if not course.is_aborted:
            await stays_mapped(bench, buffer)
        course.finish(buffer)


async def stays_mapped(bench: Bench, buffer: IMappableBuffer) -> None:
    """Check that neither a range nor another map changes the state of a mapped buffer."""
    check_state(buffer, BufferState.MAPPED)
    buffer.mapped_range(0, 8)
    check_state(buffer, BufferState.MAPPED)
    with bench.refuses(BufferStateError):
        await buffer.map_async(MapMode.WRITE)
    check_state(buffer, BufferState.MAPPED)


@case("operation/buffers/map:mappedAtCreation")
async def mapped_at_creation(bench: Bench) -> None:
    for part, mappable in itertools.product(PARTS, (False, True)):
        usage = MAP_WRITE if mappable else BufferUsage.COPY_SRC
        buffer = bench.mappable(part.size, usage, mapped=True)
        data = write_part(buffer, part)
        assert bench.read(buffer).tobytes() == with_part(part, data), (part, mappable)


@case("operation/buffers/map:remapped_for_write")
async def remapped_for_write(bench: Bench) -> None:
    for part, at_creation in itertools.product(PARTS, (False, True)):
        for region in part.regions():
            buffer = await mapped_for_writing(bench, part.size, at_creation=at_creation)
            data = write_part(buffer, part)
            await buffer.map_async(MapMode.WRITE, *region)
            again = buffer.mapped_range(*part.arguments)
            assert again.read() == data.tobytes(), (part, at_creation, region)


@case("operation/buffers/map:mappedAtCreation,mapState")
async def mapped_at_creation_state(bench: Bench) -> None:
    with bench.refuses(BufferUsageError):
        BufferDesc(8, BufferUsage.NONE, mapped_at_creation=True)
    for usage, unmap, destroy in itertools.product(
        (MAP_READ, MAP_WRITE), (False, True), (False, True)
    ):
        buffer = bench.mappable(8, usage, mapped=True)
        check_state(buffer, BufferState.MAPPED)
        buffer.mapped_range(0, 8)
        check_state(buffer, BufferState.MAPPED)
        if unmap:
            buffer.unmap()
            check_state(buffer, BufferState.READY)
        if destroy:
            buffer.destroy()
            check_state(buffer, BufferState.DESTROYED)


@case("operation/buffers/map_detach:while_mapped")
async def detach_while_mapped(bench: Bench) -> None:
    """Ranges die. Arrays cannot be detached, so they keep the memory and refuse the unmap."""
    ways = ("mapped at creation", "mapped for writing", "mapped for reading")
    ends = ((True, False), (False, True), (True, True))
    for way, (unmap, destroy) in itertools.product(ways, ends):
        reads = way == "mapped for reading"
        buffer = bench.mappable(4, MAP_READ if reads else MAP_WRITE, mapped="creation" in way)
        if not buffer.is_mapped:
            await buffer.map_async(MapMode.READ if reads else MapMode.WRITE)
        whole, part = buffer.mapped_data, buffer.mapped_range(0, 4)
        view = part.as_array()
        content = view.tobytes()
        assert len(content) == 4

        if unmap:
            with bench.refuses(MappedViewsError, words=("1 array",)):
                buffer.unmap()
            assert buffer.is_mapped
            assert part.read() == content
            del view
            buffer.unmap()
        else:
            buffer.destroy()
            assert view.tobytes() == content
        if destroy:
            buffer.destroy()

        for mapped in (whole, part):
            with bench.refuses(BufferStateError):
                mapped.read()
            with bench.refuses(BufferStateError):
                mapped.as_array()
            with bench.refuses(BufferStateError if not reads else BufferUsageError):
                mapped.write(b"abcd")


@case("operation/buffers/map_oom:mappedAtCreation")
async def map_oom(bench: Bench) -> None:
    """A size that nothing can have is a typed error, mapped or not; a control works."""
    largest_number = 2**53 - 1
    for usage in (MAP_WRITE, MAP_READ, BufferUsage.COPY_SRC):
        for size in (largest_number - largest_number % 4, 2**62, 2**63 - 4):
            with bench.refuses(BufferRangeError, words=("limit",)):
                bench.mappable(size, usage, mapped=True)
        control = bench.mappable(16, usage, mapped=True)
        assert control.mapped_data.read() == bytes(16)


not_applicable(
    "operation/buffers/map_ArrayBuffer:postMessage",
    "Python has no structured clone: memory is handed to another thread by reference, never moved",
)
