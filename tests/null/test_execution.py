"""Commands are done in queue order, when they are due on the clock."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pers import (
    BufferDesc,
    BufferUsage,
    IBuffer,
    ITexture,
    MapMode,
    TexelCopyBufferInfo,
    TexelCopyTextureInfo,
    TextureDescriptor,
    TextureFormat,
    TextureUsage,
)
from pers.backends.null import NullClock, NullDevice

COPY = BufferUsage.COPY_SRC | BufferUsage.COPY_DST
TEXTURE_COPY = TextureUsage.COPY_SRC | TextureUsage.COPY_DST


def make_buffer(device: NullDevice, data: npt.NDArray[Any] | int) -> IBuffer:
    size = data if isinstance(data, int) else data.nbytes
    buffer = device.buffer_factory.create_buffer(BufferDesc(size, COPY))
    if not isinstance(data, int):
        device.queue.write_buffer(buffer, 0, data)
    return buffer


def contents(buffer: IBuffer) -> npt.NDArray[np.uint8]:
    """What is in a buffer at this moment of the clock, past all rules."""
    memory: npt.NDArray[np.uint8] = buffer.native_handle.memory
    return memory


def copy(device: NullDevice, source: IBuffer, target: IBuffer) -> Any:
    encoder = device.create_command_encoder()
    encoder.copy_buffer_to_buffer(source, 0, target, 0)
    return encoder.finish()


def test_new_memory_is_zero(device: NullDevice) -> None:
    assert not contents(make_buffer(device, 64)).any()


def test_copies_are_done_at_the_end_of_the_submission(manual: NullDevice) -> None:
    source, target = make_buffer(manual, np.arange(4, dtype=np.uint32)), make_buffer(manual, 16)
    manual.queue.submit([copy(manual, source, target)])
    manual.clock.advance(99)
    assert not contents(target).any()
    manual.clock.advance(1)
    assert contents(target).view(np.uint32).tolist() == [0, 1, 2, 3]


def test_overwriting_memory_in_flight_is_seen(manual: NullDevice) -> None:
    """What pers must never let happen is visible here when somebody does it."""
    source, target = make_buffer(manual, 16), make_buffer(manual, 16)
    manual.queue.submit([copy(manual, source, target)])
    contents(source)[:] = 7
    manual.clock.advance(100)
    assert contents(target).tolist() == [7] * 16


def test_queue_writes_take_their_place_in_the_queue(manual: NullDevice) -> None:
    source = make_buffer(manual, np.full(16, 1, np.uint8))
    first, second = make_buffer(manual, 16), make_buffer(manual, 16)
    manual.queue.submit([copy(manual, source, first)])
    data = np.full(16, 2, np.uint8)
    manual.queue.write_buffer(source, 0, data)
    data[:] = 9  # the call took a copy
    manual.queue.submit([copy(manual, source, second)])
    manual.clock.advance(100)
    assert contents(first).tolist() == [1] * 16
    assert contents(second).tolist() == [2] * 16


def test_destroyed_and_dropped_buffers_serve_the_work_in_flight(manual: NullDevice) -> None:
    source, target = make_buffer(manual, np.full(16, 5, np.uint8)), make_buffer(manual, 16)
    result = make_buffer(manual, 16)
    manual.queue.submit([copy(manual, source, target), copy(manual, target, result)])
    source.destroy()
    del target
    gc.collect()
    manual.clock.advance(100)
    assert contents(result).tolist() == [5] * 16


def test_map_shows_what_the_gpu_wrote(manual: NullDevice) -> None:
    source = make_buffer(manual, np.full(16, 3, np.uint8))
    usage = BufferUsage.MAP_READ | BufferUsage.COPY_DST
    target = manual.buffer_factory.create_mappable_buffer(BufferDesc(16, usage))
    manual.queue.submit([copy(manual, source, target)])
    manual.clock.auto = True
    mapped = target.map(MapMode.READ)
    assert manual.clock.now == 110
    assert mapped.read() == bytes([3] * 16)


def test_mapping_is_of_the_memory_itself(device: NullDevice) -> None:
    usage = BufferUsage.MAP_WRITE | BufferUsage.COPY_SRC
    buffer = device.buffer_factory.create_mappable_buffer(BufferDesc(32, usage))
    mapped = buffer.map(offset=8)
    array = mapped.as_array(np.uint8)
    array[:] = 4
    memory = contents(buffer)
    assert memory.tolist() == [0] * 8 + [4] * 24
    assert np.shares_memory(memory, array) or memory.ctypes.data + 8 == array.ctypes.data
    buffer.destroy()
    del memory
    gc.collect()
    assert array.tolist() == [4] * 24, "views keep the memory of a destroyed buffer"


def test_work_nobody_waits_for_does_not_pile_up(device: NullDevice) -> None:
    buffer = make_buffer(device, 1 << 20)
    for value in range(100):
        device.queue.write_buffer(buffer, 0, np.full(1 << 20, value, np.uint8))
    held = [entry for entry in gc.get_objects() if isinstance(entry, np.ndarray)]
    assert sum(array.nbytes == 1 << 20 for array in held) < 10
    assert device.counters.writes == 100
    assert contents(buffer)[0] == 99


def test_clear_buffer(device: NullDevice) -> None:
    buffer = make_buffer(device, np.full(16, 255, np.uint8))
    encoder = device.create_command_encoder()
    encoder.clear_buffer(buffer, 4, 8)
    device.queue.submit([encoder.finish()]).wait()
    assert contents(buffer).tolist() == [255] * 4 + [0] * 8 + [255] * 4


def test_query_results_are_zero() -> None:
    with NullDevice(features=["timestamp-query"]) as device:
        usage = BufferUsage.QUERY_RESOLVE | BufferUsage.COPY_DST
        buffer = device.buffer_factory.create_buffer(BufferDesc(32, usage))
        device.queue.write_buffer(buffer, 0, np.full(32, 255, np.uint8))
        encoder = device.create_command_encoder()
        encoder.resolve_query_set(device.create_query_set("timestamp", 4), 1, 2, buffer)
        device.queue.submit([encoder.finish()]).wait()
        assert contents(buffer).tolist() == [0] * 16 + [255] * 16


# --- Textures -------------------------------------------------------------------------------------


def make_texture(
    device: NullDevice,
    width: int,
    height: int,
    texture_format: TextureFormat = TextureFormat.RGBA8_UNORM,
    layers: int = 1,
    mip_levels: int = 1,
) -> ITexture:
    return device.create_texture(
        TextureDescriptor(
            width, height, texture_format, TEXTURE_COPY, layers=layers, mip_levels=mip_levels
        )
    )


formats = st.sampled_from([f for f in TextureFormat if f.is_copyable and not f.is_depth])


@given(
    texture_format=formats,
    width=st.integers(1, 70),
    height=st.integers(1, 5),
    layers=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_pixels_go_through_buffers_and_textures_unchanged(
    texture_format: TextureFormat, width: int, height: int, layers: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    channels = () if texture_format.channels == 1 else (texture_format.channels,)
    shape = (layers, height, width, *channels) if layers > 1 else (height, width, *channels)
    raw = random.integers(0, 256, (*shape[:-1], shape[-1] * texture_format.dtype.itemsize), "u1")
    pixels = raw.view(texture_format.dtype)
    with NullDevice() as device:
        first = make_texture(device, width, height, texture_format, layers)
        second = make_texture(device, width, height, texture_format, layers)
        device.queue.write_texture(first, pixels)
        encoder = device.create_command_encoder()
        encoder.copy_texture_to_texture(first, second)
        device.queue.submit([encoder.finish()])
        result = device.read_array_blocking(second)
        assert result.tobytes() == pixels.tobytes()


def test_rows_of_buffers_may_be_padded_in_any_way(device: NullDevice) -> None:
    """3x2 pixels, 2 layers, rows of 512 bytes, images of 4 rows, an offset of 8."""
    random = np.random.default_rng(1)
    data = random.integers(0, 256, 8 + 512 * 4 + 512 + 12, "u1")
    source, target = make_buffer(device, data), make_buffer(device, data.size)
    texture = make_texture(device, 5, 4, layers=3)
    place = TexelCopyTextureInfo(texture, 0, (2, 1, 1))
    encoder = device.create_command_encoder()
    encoder.copy_buffer_to_texture(TexelCopyBufferInfo(source, 8, 512, 4), place, (3, 2, 2))
    encoder.copy_texture_to_buffer(place, TexelCopyBufferInfo(target, 8, 512, 4), (3, 2, 2))
    device.queue.submit([encoder.finish()]).wait()

    expected = np.zeros((3, 4, 5, 4), np.uint8)
    result = np.zeros_like(data)
    for layer in range(2):
        for row in range(2):
            start = 8 + 512 * (4 * layer + row)
            expected[1 + layer, 1 + row, 2:] = data[start : start + 12].reshape(3, 4)
            result[start : start + 12] = data[start : start + 12]
    assert np.array_equal(device.read_array_blocking(texture), expected)
    assert np.array_equal(contents(target), result)


def test_mip_levels_are_separate(device: NullDevice) -> None:
    texture = make_texture(device, 8, 4, mip_levels=4)
    for level, (width, height) in enumerate([(8, 4), (4, 2), (2, 1), (1, 1)]):
        pixels = np.full((height, width, 4), level + 1, np.uint8)
        device.queue.write_texture(TexelCopyTextureInfo(texture, level), pixels)
    small = make_texture(device, 2, 1)
    encoder = device.create_command_encoder()
    encoder.copy_texture_to_texture(TexelCopyTextureInfo(texture, 2), small)
    device.queue.submit([encoder.finish()])
    assert (device.read_array_blocking(small) == 3).all()
    assert (device.read_array_blocking(texture) == 1).all()


def test_write_texture_takes_a_copy(manual: NullDevice) -> None:
    texture = make_texture(manual, 2, 2)
    pixels = np.full((2, 2, 4), 5, np.uint8)
    manual.queue.write_texture(texture, pixels)
    pixels[:] = 0
    manual.clock.advance(0)
    assert (texture.native_handle.level(0) == 5).all()


# --- Determinism ----------------------------------------------------------------------------------


def stream(seed: int) -> tuple[bytes, int, str]:
    """Random work with random waits; its result, its time and what was done."""
    random = np.random.default_rng(seed)
    clock = NullClock(submission_latency=13, map_latency=5)
    with NullDevice(clock=clock) as device:
        buffers = [make_buffer(device, 64) for _ in range(4)]
        for _ in range(50):
            source, target = random.choice(4, 2, replace=False)
            if random.random() < 0.5:
                device.queue.write_buffer(buffers[source], 0, random.integers(0, 256, 64, "u1"))
            submission = device.queue.submit([copy(device, buffers[source], buffers[target])])
            if random.random() < 0.3:
                submission.wait()
        result = b"".join(device.read_array_blocking(buffer).tobytes() for buffer in buffers)
        return result, clock.now, repr(device.counters)


@pytest.mark.parametrize("seed", range(3))
def test_the_same_calls_give_the_same_result(seed: int) -> None:
    assert stream(seed) == stream(seed)
