"""``validation/buffer/mapping``: mapped memory outlives its buffer (WebGPU §5.2)."""

from __future__ import annotations

import gc
import weakref

import numpy as np

from pers.buffers import BufferUsage, IMappableBuffer, MapMode
from pers.testing.bench import MAP_READ, MAP_WRITE, Bench
from pers.testing.case import case


@case("validation/buffer/mapping:gc_behavior,mappedAtCreation")
async def mapped_at_creation(bench: Bench) -> None:
    buffer = bench.mappable(256, BufferUsage.COPY_DST, mapped=True)
    contents = buffer.mapped_range().as_array(np.uint32)
    contents[:] = np.arange(64)
    dropped = weakref.ref(buffer)
    del buffer
    _collect(dropped)
    assert np.array_equal(contents, np.arange(64))
    contents += 1
    assert np.array_equal(contents, np.arange(1, 65))


@case("validation/buffer/mapping:gc_behavior,mapAsync")
async def map_async(bench: Bench) -> None:
    buffer = bench.mappable(256, MAP_WRITE)
    await buffer.map_async(MapMode.WRITE)
    contents = buffer.mapped_range().as_array(np.uint32)
    contents[:] = np.arange(64)
    dropped = weakref.ref(buffer)
    del buffer
    _collect(dropped)
    assert np.array_equal(contents, np.arange(64))
    contents += 1
    assert np.array_equal(contents, np.arange(1, 65))

    buffer = bench.mappable(256, MAP_READ)
    bench.device.queue.write_buffer(buffer, 0, np.arange(64, dtype=np.uint32))
    await buffer.map_async(MapMode.READ)
    contents = buffer.mapped_range().as_array(np.uint32)
    dropped = weakref.ref(buffer)
    del buffer
    _collect(dropped)
    assert np.array_equal(contents, np.arange(64))


def _collect(dropped: weakref.ref[IMappableBuffer]) -> None:
    gc.collect()
    assert dropped() is None, "something still holds the buffer"
