"""Mapped memory: which parts can be had, what they hold, and when they are dead.

The names in brackets are those of WebGPU's conformance suite (validation/buffer/mapping) and of
Dawn's tests.
"""

from __future__ import annotations

import array
import mmap
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pers import (
    BufferRangeError,
    BufferStateError,
    BufferUsageError,
    IBuffer,
    IMappableBuffer,
    IRenderDevice,
    MapMode,
    MappedRange,
)
from tests.support import READBACK, UPLOAD, Maker, contents, copied, numbers, open_device


@pytest.fixture(params=["mapped", "mapped at creation"])
def mapped(request: pytest.FixtureRequest, make: Maker) -> IMappableBuffer:
    """A buffer of 80 bytes that is mapped for writing, in either way."""
    if request.param == "mapped":
        buffer = make.mappable(80, name="both")
        buffer.map()
        return buffer
    return make.mappable(80, name="both", mapped=True)


def readable(device: IRenderDevice, make: Maker, data: npt.NDArray[Any]) -> IMappableBuffer:
    """Return a buffer with `data`, mapped for reading."""
    buffer = make.mappable(data.nbytes, READBACK, "readable")
    device.queue.submit([copied(device, make.filled(data), buffer)])
    buffer.map(MapMode.READ)
    return buffer


def seen_by_the_gpu(device: IRenderDevice, make: Maker, buffer: IBuffer) -> bytes:
    target = make.plain(buffer.size)
    device.queue.submit([copied(device, buffer, target)])
    return contents(device, target).tobytes()


# --- Which parts can be had -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "size"),
    [
        (0, 80),
        (0, None),
        (8, 4),
        (8, None),
        (16, 64),
        (72, 8),
        (80, 0),
        (80, None),
        (0, 0),
        (40, 0),
    ],
)
def test_ranges(offset: int, size: int | None, mapped: IMappableBuffer) -> None:
    """[getMappedRange,offsetAndSizeAlignment · sizeAndOffsetOOB · subrange]"""
    part = mapped.mapped_range(offset, size)
    assert part.offset == offset
    assert part.nbytes == (80 - offset if size is None else size)
    assert part.mode is MapMode.WRITE
    assert len(part.as_array()) == part.nbytes == len(part.read())


@pytest.mark.parametrize(
    ("offset", "size"),
    [
        (4, 8), (1, 8), (12, 4),
        (0, 2), (0, 79), (8, 1),
        (0, 84), (8, 76), (80, 4), (88, 0), (88, None), (2**62, 0), (0, 2**62),
        (-8, 8), (0, -4), (2**63, 0), (0, 2**63),
        (1.5, 4), (0, 1.5), ("4", 4), (0, "4"), (True, 4), (0, True), (None, 4), (float("nan"), 4),
    ],
    ids=repr,
)  # fmt: skip
def test_ranges_that_there_are_not(offset: Any, size: Any, mapped: IMappableBuffer) -> None:
    """[getMappedRange,offsetAndSizeAlignment · sizeAndOffsetOOB]"""
    with pytest.raises(BufferRangeError, match="'both'"):
        mapped.mapped_range(offset, size)
    mapped.mapped_range(0, 80)  # and nothing was taken


@pytest.mark.parametrize(
    ("offset", "size"), [(0, 8), (8, 8), (16, 0), (24, 16), (40, 8), (48, 0), (0, None), (16, None)]
)
def test_only_what_is_mapped(offset: int, size: int | None, make: Maker) -> None:
    """[getMappedRange,subrange,mapped] Of 80 bytes, 16 to 48 are mapped."""
    buffer = make.mappable(80)
    buffer.map(MapMode.WRITE, 16, 32)
    inside = size is not None and offset >= 16 and offset + size <= 48
    if inside:
        assert buffer.mapped_range(offset, size).offset == offset
    else:
        with pytest.raises(BufferRangeError, match="mapped are 16 to 48"):
            buffer.mapped_range(offset, size)


def test_size_none_on_a_partial_mapping(make: Maker) -> None:
    """None means to the end of the buffer, and that must be mapped."""
    buffer = make.mappable(80)
    buffer.map(MapMode.WRITE, 16, 32)
    with pytest.raises(BufferRangeError):
        buffer.mapped_range(16)
    buffer.unmap()
    buffer.map(MapMode.WRITE, 16)
    assert buffer.mapped_range(16).nbytes == 64


RANGES = [(0, 8), (0, 16), (8, 0), (8, 8), (8, 16), (16, 0), (16, 8), (16, 64), (0, 80), (80, 0)]


@pytest.mark.parametrize("first", RANGES, ids=str)
@pytest.mark.parametrize("remap", [False, True], ids=["", "mapped again"])
def test_disjoint_ranges(first: tuple[int, int], remap: bool, make: Maker) -> None:
    """[getMappedRange,disjointRanges] An empty range inside another one overlaps it, too."""
    buffer = make.mappable(80)
    for second in RANGES:
        buffer.map()
        buffer.mapped_range(*first)
        if remap:
            buffer.unmap()
            buffer.map()
        (start, size), (other_start, other_size) = first, second
        disjoint = other_start >= start + size or start >= other_start + other_size
        if disjoint or remap:
            buffer.mapped_range(*second)
        else:
            with pytest.raises(BufferRangeError, match="overlap"):
                buffer.mapped_range(*second)
        buffer.unmap()


def test_disjoint_ranges_many(make: Maker) -> None:
    """[getMappedRange,disjointRanges_many]"""
    stride, count = 64, 32
    buffer = make.mappable(stride * count)
    buffer.map()
    for index in range(count):
        buffer.mapped_range(index * stride, 8)
    for index in range(count):
        with pytest.raises(BufferRangeError, match="overlap"):
            buffer.mapped_range(index * stride, stride)
        buffer.mapped_range(index * stride + 8, stride - 8)


def test_mapped_data_overlaps_nothing(mapped: IMappableBuffer) -> None:
    """It is the whole mapping, for those who do not divide it."""
    whole = mapped.mapped_data
    part = mapped.mapped_range(8, 8)
    part.write(b"12345678")
    assert whole.read(8, 8) == b"12345678"


def test_offset_not_updated_on_error(make: Maker) -> None:
    """[OffsetNotUpdatedOnError] A refused map leaves the range of the mapping alone."""
    buffer = make.mappable(80)
    buffer.map(MapMode.WRITE, 16, 32).write(b"here")
    with pytest.raises(BufferStateError):
        buffer.map(MapMode.WRITE, 0, 80)
    assert (buffer.mapped_data.offset, buffer.mapped_data.nbytes) == (16, 32)
    assert buffer.mapped_range(16, 8).read()[:4] == b"here"


# --- Arrays ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "shape", "expected"),
    [
        (np.uint8, None, (80,)),
        (np.float32, None, (20,)),
        ("f8", None, (10,)),
        (np.float32, 3, (3,)),
        (np.float32, (), ()),
        (np.float32, (2, 3), (2, 3)),
        (np.uint16, (0, 5), (0, 5)),
        (np.complex64, (5, 2), (5, 2)),
        (np.dtype([("p", "f4", 2), ("q", "u4")]), 6, (6,)),
        (np.dtype(">u4"), 20, (20,)),
        (np.dtype("S5"), None, (16,)),
        (bool, np.int64(7), (7,)),
    ],
    ids=str,
)
def test_as_array(
    dtype: Any, shape: Any, expected: tuple[int, ...], mapped: IMappableBuffer
) -> None:
    """[mapAsync,read,typedArrayAccess]"""
    view = mapped.mapped_data.as_array(dtype, shape)
    assert view.shape == expected
    assert view.dtype == np.dtype(dtype)
    assert view.flags.c_contiguous
    assert view.flags.writeable


def test_as_array_is_the_memory_itself(mapped: IMappableBuffer) -> None:
    one = mapped.mapped_data.as_array(np.uint32)
    other = mapped.mapped_range(8, 8).as_array(np.uint32)
    one[2:4] = [7, 8]
    assert other.tolist() == [7, 8]
    assert np.shares_memory(one, other)
    other[0] = 9
    assert one[2] == 9


def test_as_array_of_a_wide_item_type(mapped: IMappableBuffer) -> None:
    """A dtype that stands for several numbers adds its own dimensions, as in NumPy."""
    quads = mapped.mapped_data.as_array(np.dtype(("f4", 4)))
    assert quads.shape == (5, 4)


@pytest.mark.parametrize(
    ("dtype", "shape", "error"),
    [
        (np.uint8, 81, BufferRangeError),
        (np.float64, 11, BufferRangeError),
        (np.float32, (7, 3), BufferRangeError),
        (np.uint8, (2**40, 2**40), BufferRangeError),
        (np.dtype("S7"), None, BufferRangeError),  # 80 is no multiple of 7
        (np.uint8, -1, BufferRangeError),
        (np.uint8, (2, -1), BufferRangeError),
        (np.uint8, 1.5, BufferRangeError),
        (np.uint8, "4", BufferRangeError),
        (np.uint8, (2, None), BufferRangeError),
        (np.uint8, True, BufferRangeError),
        (np.uint8, float("nan"), BufferRangeError),
        (object, None, BufferUsageError),
        (str, None, BufferUsageError),
        (bytes, None, BufferUsageError),
        ("V0", None, BufferUsageError),
        ([("name", object)], None, BufferUsageError),
        ("no dtype", None, BufferUsageError),
        (3, None, BufferUsageError),
        (object(), None, BufferUsageError),
    ],
    ids=str,
)
def test_arrays_that_there_are_not(
    dtype: Any, shape: Any, error: type[Exception], mapped: IMappableBuffer
) -> None:
    with pytest.raises(error, match="'both'"):
        mapped.mapped_data.as_array(dtype, shape)
    mapped.unmap()


def test_read_mapping_is_read_only(device: IRenderDevice, make: Maker) -> None:
    buffer = readable(device, make, numbers(16))
    mapped = buffer.mapped_data
    view = mapped.as_array(np.uint32)
    assert mapped.mode is MapMode.READ
    assert view.tolist() == [*numbers(16)]
    assert not view.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1
    for attempt in (view[1:], view.reshape(4, 4), view.view(np.uint8)):
        assert not attempt.flags.writeable
        with pytest.raises(ValueError, match="WRITEABLE"):
            attempt.flags.writeable = True
    with pytest.raises(BufferUsageError, match="mapped for reading"):
        mapped.write(b"1234")


# --- write and read -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"12345678",
        bytearray(b"12345678"),
        memoryview(b"12345678"),
        memoryview(b"1122334455667788")[::2],
        array.array("I", [1, 2]),
        np.arange(2, dtype=np.float32),
        np.arange(8, dtype=np.uint8).reshape(2, 4),
        np.arange(8, dtype=np.uint8).reshape(2, 4).T,
        np.arange(16, dtype=np.uint8)[::2],
        np.arange(8, dtype=np.uint8)[::-1],
        np.array(1.5),
        np.float64(2.5),
        np.zeros(1, [("a", "f4"), ("b", "u4")]),
        np.array([True] * 8),
        np.array([b"1234", b"5678"]),
        np.ma.masked_array(np.arange(8, dtype=np.uint8)),
    ],
    ids=lambda data: f"{type(data).__name__} {getattr(data, 'dtype', '')}",
)
def test_write(data: Any, device: IRenderDevice, make: Maker) -> None:
    """[mapAsync,write] Any plain data, written as C-ordered bytes, arrives on the GPU."""
    expected = np.ascontiguousarray(data).tobytes()
    buffer = make.mappable(16, mapped=True)
    buffer.mapped_data.write(data, 4)
    assert buffer.mapped_data.read() == bytes(4) + expected + bytes(4)
    buffer.unmap()
    assert seen_by_the_gpu(device, make, buffer) == bytes(4) + expected + bytes(4)


@pytest.mark.parametrize(
    "data",
    [None, "text", 5, 1.5, [1, 2], object(), np.array([object()]), np.array(["text"]), [b"1"]],
    ids=repr,
)
def test_write_what_is_no_data(data: Any, mapped: IMappableBuffer) -> None:
    with pytest.raises(BufferUsageError, match="'both'"):
        mapped.mapped_data.write(data)
    assert mapped.mapped_data.read() == bytes(80)
    mapped.unmap()


@pytest.mark.parametrize(
    "offset", [77, 80, 81, 2**40, -1, 2**63, float("nan"), 1.5, "4", True, None]
)
def test_write_where_it_does_not_fit(offset: Any, mapped: IMappableBuffer) -> None:
    with pytest.raises(BufferRangeError, match="'both'"):
        mapped.mapped_data.write(b"1234", offset)
    assert mapped.mapped_data.read() == bytes(80)


def test_write_into_a_part(mapped: IMappableBuffer) -> None:
    part = mapped.mapped_range(16, 8)
    part.write(b"abcd", 4)
    with pytest.raises(BufferRangeError, match="do not fit into the range of 8"):
        part.write(b"abcd", 5)
    with pytest.raises(BufferRangeError):
        part.write(bytes(12))
    assert mapped.mapped_data.read() == bytes(20) + b"abcd" + bytes(56)


def test_write_nothing(mapped: IMappableBuffer) -> None:
    mapped.mapped_data.write(b"", 80)
    mapped.mapped_data.write(np.zeros(0, np.float32))
    assert mapped.mapped_data.read(80) == b""


def test_write_what_is_mapped(mapped: IMappableBuffer) -> None:
    """The source may be mapped memory, and even the same."""
    view = mapped.mapped_data.as_array(np.uint8)
    view[:] = np.arange(80)
    mapped.mapped_data.write(view[:40], 20)
    assert view[20:60].tolist() == list(range(40))


@pytest.mark.parametrize(
    ("offset", "size", "expected"),
    [(0, None, 80), (0, 0, 0), (3, 5, 5), (80, None, 0), (79, 1, 1), (np.int64(8), None, 72)],
)
def test_read(offset: int, size: int | None, expected: int, mapped: IMappableBuffer) -> None:
    mapped.mapped_data.as_array(np.uint8)[:] = np.arange(80)
    data = mapped.mapped_data.read(offset, size)
    assert type(data) is bytes
    assert data == bytes(range(80))[offset : offset + expected]


@pytest.mark.parametrize(
    ("offset", "size"),
    [
        (81, None), (0, 81), (79, 2), (-1, None), (0, -1), (2**63, None), (1.5, None), ("4", None),
        (0, "4"), (None, None), (True, 1), (0, True), (float("nan"), 1),
    ],
    ids=repr,
)  # fmt: skip
def test_read_what_there_is_not(offset: Any, size: Any, mapped: IMappableBuffer) -> None:
    with pytest.raises(BufferRangeError, match="'both'"):
        mapped.mapped_data.read(offset, size)


def test_read_is_a_copy(mapped: IMappableBuffer) -> None:
    before = mapped.mapped_data.read(0, 4)
    mapped.mapped_data.write(b"abcd")
    assert before == bytes(4)
    mapped.unmap()
    assert before == bytes(4)


@given(
    parts=st.lists(
        st.tuples(st.integers(0, 63), st.binary(min_size=0, max_size=32)), min_size=1, max_size=8
    )
)
def test_writes_and_reads_agree_with_a_bytearray(parts: list[tuple[int, bytes]]) -> None:
    with open_device("null") as device, Maker(device) as make:
        buffer = make.mappable(64, mapped=True)
        model = bytearray(64)
        for offset, data in parts:
            if offset + len(data) > 64:
                with pytest.raises(BufferRangeError):
                    buffer.mapped_data.write(data, offset)
            else:
                buffer.mapped_data.write(data, offset)
                model[offset : offset + len(data)] = data
        assert buffer.mapped_data.read() == model
        buffer.unmap()
        assert contents(device, buffer).tobytes() == model


# --- Dead ranges ----------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["unmap", "destroy", "unmap and map again"])
def test_ranges_die(end: str, mapped: IMappableBuffer) -> None:
    """[getMappedRange,state,unmapped · state,destroyed]"""
    whole, part = mapped.mapped_data, mapped.mapped_range(8, 8)
    getattr(mapped, end.split()[0])()
    if end.endswith("again"):
        mapped.map()
    for range_ in (whole, part):
        for call in (range_.as_array, range_.read, lambda r=range_: r.write(b"1234")):
            with pytest.raises(BufferStateError, match=r"'both'.*dead.*map the buffer again"):
                call()
        assert "'both'" in repr(range_)
        assert range_.mode is MapMode.WRITE


def test_range_keeps_no_memory_alive(make: Maker) -> None:
    """A dead range is only a description; see test_views for what arrays keep."""
    buffer = make.mappable(mapped=True)
    ranges: list[MappedRange] = [buffer.mapped_data, buffer.mapped_range(0, 8)]
    buffer.unmap()
    assert [r.nbytes for r in ranges] == [64, 8]


def test_repr(mapped: IMappableBuffer) -> None:
    assert (
        repr(mapped.mapped_range(8, 16)) == "<MappedRange of buffer 'both': bytes 8 to 24, WRITE>"
    )


# --- What is written arrives, and what is read was written ----------------------------------------


def test_write_twice(device: IRenderDevice, make: Maker) -> None:
    """[MapWrite_Twice]"""
    buffer = make.mappable(16)
    for value in (7, 9):
        buffer.map().as_array(np.uint32)[:] = value
        buffer.unmap()
        assert np.frombuffer(seen_by_the_gpu(device, make, buffer), "u4").tolist() == [value] * 4


def test_write_preserves_the_rest(device: IRenderDevice, make: Maker) -> None:
    """[mapAsync,write,unchanged_ranges_preserved · MapWrite_TwicePreserve]"""
    buffer = make.mappable(80, mapped=True)
    buffer.mapped_data.write(numbers(20))
    buffer.unmap()
    buffer.map(MapMode.WRITE, 16, 8).write(np.array([100, 101], np.uint32))
    buffer.unmap()
    buffer.map(MapMode.WRITE, 24, 8).write(np.array([102], np.uint32))
    buffer.unmap()
    expected = numbers(20)
    expected[4:7] = 100, 101, 102
    assert np.frombuffer(seen_by_the_gpu(device, make, buffer), "u4").tolist() == [*expected]


def test_write_mapping_shows_what_is_there(device: IRenderDevice, make: Maker) -> None:
    """[remapped_for_write]"""
    buffer = make.mappable(16, mapped=True)
    buffer.mapped_data.write(numbers(4))
    buffer.unmap()
    assert buffer.map().as_array(np.uint32).tolist() == [1, 2, 3, 4]


def test_overlapping_ranges_in_turn(device: IRenderDevice, make: Maker) -> None:
    """[MapWrite_TwiceRangeOverlap]"""
    buffer = make.mappable(32)
    buffer.map(MapMode.WRITE, 0, 16).as_array(np.uint32)[:] = 1
    buffer.unmap()
    buffer.map(MapMode.WRITE, 8, 16).as_array(np.uint32)[:] = 2
    buffer.unmap()
    data = np.frombuffer(seen_by_the_gpu(device, make, buffer), np.uint32)
    assert data.tolist() == [1, 1, 2, 2, 2, 2, 0, 0]


def test_several_ranges_of_one_mapping(device: IRenderDevice, make: Maker) -> None:
    """[MapWrite_MultipleMappedRange · MapRead_MultipleMappedRange]"""
    buffer = make.mappable(32, mapped=True)
    for index in range(4):
        buffer.mapped_range(8 * index, 8).write(np.full(2, index, np.uint32))
    buffer.unmap()
    data = np.frombuffer(seen_by_the_gpu(device, make, buffer), np.uint32)
    assert data.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    back = readable(device, make, data.copy())
    assert [back.mapped_range(8 * i, 8).as_array("u4")[1] for i in range(4)] == [0, 1, 2, 3]


@pytest.mark.parametrize("offset", [0, 8, 16])
def test_read_from_an_offset(offset: int, device: IRenderDevice, make: Maker) -> None:
    """[MapRead_NonZeroOffset]"""
    buffer = readable(device, make, numbers(8))
    buffer.unmap()
    mapped = buffer.map(MapMode.READ, offset, 12)
    assert mapped.as_array(np.uint32).tolist() == [*numbers(8)[offset // 4 :][:3]]
    assert mapped.read(4, 4) == numbers(8)[offset // 4 + 1].tobytes()


def test_large(device: IRenderDevice, make: Maker) -> None:
    """[MapRead_Large · MapWrite_Large]"""
    data = np.random.default_rng(1).integers(0, 2**32, 1 << 20, np.uint32)
    assert (readable(device, make, data).mapped_data.as_array(np.uint32) == data).all()


@pytest.mark.parametrize("usage", [UPLOAD, READBACK], ids=["WRITE", "READ"])
def test_zero_sized(usage: Any, device: IRenderDevice, make: Maker) -> None:
    """[MapRead_ZeroSized · MapWrite_ZeroSized] Empty mappings, and buffers of no bytes."""
    mode = MapMode.WRITE if usage == UPLOAD else MapMode.READ
    for buffer in (make.mappable(64, usage), make.mappable(0, usage)):
        mapped = buffer.map(mode, 0, 0)
        assert mapped.as_array(np.float32).shape == (0,)
        assert mapped.read() == b""
        assert buffer.mapped_range(0, 0).nbytes == 0
        buffer.unmap()
    empty = make.mappable(0, usage, mapped=True)
    assert empty.mapped_range().nbytes == 0
    empty.unmap()


def test_map_in_many_buffers_at_once(device: IRenderDevice, make: Maker) -> None:
    """[MapWrite_ManySimultaneous]"""
    buffers = [make.mappable(16) for _ in range(16)]
    mapped = [buffer.map() for buffer in buffers]
    for index, range_ in enumerate(mapped):
        range_.as_array(np.uint32)[:] = index
    for buffer in buffers:
        buffer.unmap()
    for index, buffer in enumerate(buffers):
        assert seen_by_the_gpu(device, make, buffer) == np.full(4, index, np.uint32).tobytes()


def test_write_from_a_memory_map(mapped: IMappableBuffer) -> None:
    with mmap.mmap(-1, 4096) as memory:
        memory[:5] = b"hello"
        mapped.mapped_data.write(memory[:80])
    assert mapped.mapped_data.read(0, 5) == b"hello"
