"""``validation/queue/writeBuffer``: which writes are taken (WebGPU §19.2, writeBuffer)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pers.buffers import BufferUsage, IBuffer
from pers.errors import (
    BufferRangeError,
    BufferStateError,
    BufferUsageError,
    DeviceLostError,
    PersError,
    ValidationError,
)
from pers.testing.bench import COPY, Bench
from pers.testing.case import case


@case("validation/queue/writeBuffer:buffer_state")
async def buffer_state(bench: Bench) -> None:
    data = np.zeros(16, np.uint8)
    bench.device.queue.write_buffer(bench.buffer(16, BufferUsage.COPY_DST), 0, data)

    destroyed = bench.buffer(16, BufferUsage.COPY_DST, "destroyed")
    destroyed.destroy()
    _refuses_write(bench, destroyed, BufferStateError)

    invalid = bench.invalid_buffer(16, BufferUsage.COPY_DST)
    _refuses_write(bench, invalid, ValidationError)

    orphan = bench.buffer(16, BufferUsage.COPY_DST, "orphan")
    bench.device.close()
    _refuses_write(bench, orphan, DeviceLostError)


@case("validation/queue/writeBuffer:ranges")
async def ranges(bench: Bench) -> None:
    for dtype in "u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8":
        _check_ranges(bench, np.arange(1, 33).astype(dtype))


@case("validation/queue/writeBuffer:usages")
async def usages(bench: Bench) -> None:
    data = np.zeros(16, np.uint8)
    for usage in (BufferUsage.COPY_DST, BufferUsage.STORAGE | BufferUsage.COPY_DST):
        bench.device.queue.write_buffer(bench.buffer(16, usage), 0, data)
    for usage in (BufferUsage.STORAGE, BufferUsage.STORAGE | BufferUsage.COPY_SRC):
        _refuses_write(bench, bench.buffer(16, usage, "target"), BufferUsageError)


def _check_ranges(bench: Bench, items: npt.NDArray[Any]) -> None:
    """Write parts of `items` (32 of them) into a buffer for 16, as arrays and as plain bytes.

    Parts of the source are slices here, and Python keeps those in bounds.
    """
    width = items.itemsize
    size = 16 * width
    target = bench.buffer(size, COPY, "target")
    expected = np.zeros(size, np.uint8)

    def write(offset: int, part: npt.NDArray[Any]) -> None:
        data = part.tobytes()
        fits = offset % 4 == 0 and len(data) % 4 == 0 and offset + len(data) <= size
        for given in (part, data, bytearray(data), memoryview(data)):
            if fits:
                bench.device.queue.write_buffer(target, offset, given)
                expected[offset : offset + len(data)] = np.frombuffer(data, np.uint8)
            else:
                with bench.refuses(BufferRangeError, words=("'target'",)):
                    bench.device.queue.write_buffer(target, offset, given)

    small, medium, large = items[:8], items[:16], items
    # Whole arrays, from the start and from elsewhere.
    for offset in (0, 4, 8, 3, size // 2, size - 4, size):
        for array in (items[:15], small, medium, large):
            write(offset, array)
    # Parts of arrays, some of no whole number of words.
    for array in (items[:15], small, medium, large):
        for first in (0, 3, 4, 8, 16):
            write(0, array[first:])
            write(8, array[first:])
        for first, count in ((0, 7), (0, 8), (0, 12), (3, 4), (4, 4), (4, 8), (8, 0)):
            write(0, array[first : first + count])
            write(size // 2, array[first : first + count])
    # Every other item, which is not contiguous.
    write(0, medium[::2])
    # No bytes at all.
    for offset in (0, size - 4, size, size + 4, 2):
        write(offset, items[:0])
    assert np.array_equal(bench.read(target), expected), items.dtype


def _refuses_write(bench: Bench, buffer: IBuffer, kind: type[PersError]) -> None:
    with bench.refuses(kind, words=(repr(buffer.debug_name),)):
        bench.device.queue.write_buffer(buffer, 0, np.zeros(16, np.uint8))
