"""``operation/queue/writeBuffer``: bytes from the CPU in queue order (WebGPU §19.2)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pers.buffers import BufferUsage, MapMode
from pers.testing.bench import MAP_READ, MAP_WRITE, Bench
from pers.testing.case import case

Write = tuple[int, Any]
"""An offset and data."""

COUNTING = range(16)


def bytes_of(data: npt.NDArray[Any] | bytes | bytearray | memoryview) -> bytes:
    """What a write of `data` writes."""
    return data.tobytes() if isinstance(data, np.ndarray) else bytes(data)


def check_writes(bench: Bench, *writes: Write) -> None:
    """Write one after the other and compare the whole buffer."""
    size = max(offset + len(bytes_of(data)) for offset, data in writes)
    buffer = bench.buffer(size)
    expected = bytearray(size)
    for offset, data in writes:
        bench.device.queue.write_buffer(buffer, offset, data)
        nbytes = bytes_of(data)
        expected[offset : offset + len(nbytes)] = nbytes
    assert bench.read(buffer).tobytes() == expected, writes


@case("operation/queue/writeBuffer:array_types")
async def array_types(bench: Bench) -> None:
    kinds = ("u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8", "u8", "i8", "f2", "c8", "?")
    for kind in kinds:
        data: npt.NDArray[Any] = np.array(COUNTING).astype(kind)[1:9]
        check_writes(bench, (0, data))
        check_writes(bench, (0, data.tobytes()))
        check_writes(bench, (0, bytearray(data.tobytes())))
        check_writes(bench, (0, memoryview(data.tobytes())))
        check_writes(bench, (0, data.reshape(2, 4)))
        check_writes(bench, (0, np.array(COUNTING).astype(kind)[::2]))  # not contiguous
        check_writes(bench, (0, np.asfortranarray(data.reshape(2, 4))))


@case("operation/queue/writeBuffer:multiple_writes_at_different_offsets_and_sizes")
async def multiple_writes(bench: Bench) -> None:
    words, small = np.array(COUNTING, np.uint32), np.array(COUNTING, np.uint8)
    nothing = np.zeros(0, np.uint8)
    check_writes(bench, (0, words[2:4]), (8, words[:2]))
    check_writes(bench, (0, small[:4]), (4, small[4:8]))
    check_writes(bench, (0, small), (4, np.zeros(1, np.uint32)))
    check_writes(bench, (0, words.view(np.uint8)[2:18]), (4, np.array([0x04030201], np.uint32)))
    check_writes(bench, (0, small), (0, nothing))
    check_writes(bench, (0, small), (16, nothing))
    check_writes(bench, (0, nothing))
    check_writes(bench, (0, np.array([0x77, *COUNTING], np.uint8)[1:]))
    check_writes(
        bench,
        *((0, np.full(count, 0x01010101 * count, np.uint32)) for count in (5, 4, 3, 2, 1)),
    )
    await maps_come_after(bench)


async def maps_come_after(bench: Bench) -> None:
    """A map sees what was written before it was asked for, and what it writes stays."""
    usages = [(MapMode.READ, MAP_READ)]
    if "mappable-primary-buffers" in bench.device.features:
        usages.append((MapMode.WRITE, MAP_WRITE | BufferUsage.COPY_DST))
    for mode, usage in usages:
        buffer = bench.mappable(4, usage)
        bench.device.queue.write_buffer(buffer, 0, b"one.")
        mapped = await buffer.map_async(mode)
        assert mapped.read() == b"one."
        if mode is MapMode.WRITE:
            mapped.write(b"two.")
            buffer.unmap()
            assert bench.read(buffer).tobytes() == b"two."
