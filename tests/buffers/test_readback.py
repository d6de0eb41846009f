"""`ReadbackBuffer` and the device's own reads: right, without a copy, and memory goes round."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from queue import SimpleQueue
from typing import Any

import anyio
import anyio.to_thread
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pers.buffers.contents as contents_module
from pers import (
    BufferRangeError,
    BufferState,
    BufferStateError,
    BufferUsage,
    BufferUsageError,
    DeviceBuffer,
    DeviceLostError,
    IRenderDevice,
    MapAbortedError,
    MapMode,
    OutOfMemoryError,
    ReadbackBuffer,
    ReadbackStats,
    TexelCopyTextureInfo,
    TextureFormat,
    TextureRows,
    TextureUsage,
    ValidationError,
)
from pers.buffers.readback_slots import size_class
from tests.support import (
    COPY,
    JUNK_NUMBERS,
    Hold,
    Maker,
    address_of,
    live,
    make_texture,
    numbers,
    open_device,
    random_pixels,
)

FORMATS = [
    TextureFormat.R8_UNORM,
    TextureFormat.R8_SINT,
    TextureFormat.RG8_UINT,
    TextureFormat.R16_FLOAT,
    TextureFormat.RGBA8_UNORM_SRGB,
    TextureFormat.BGRA8_UNORM,
    TextureFormat.RGB10A2_UNORM,
    TextureFormat.RG11B10_UFLOAT,
    TextureFormat.R32_FLOAT,
    TextureFormat.RG32_FLOAT,
    TextureFormat.RGBA16_SINT,
    TextureFormat.RGBA32_FLOAT,
]


def copy(device: IRenderDevice, readback: ReadbackBuffer, *what: Any, **more: Any) -> None:
    encoder = device.create_command_encoder()
    readback.copy_from(encoder, *what, **more)
    device.queue.submit([encoder.finish()])


@pytest.fixture
def readback(device: IRenderDevice) -> ReadbackBuffer:
    return ReadbackBuffer(64, device.buffer_factory, debug_name="result")


# --- Buffers --------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_read_array(device: IRenderDevice, make: Maker, readback: ReadbackBuffer) -> None:
    copy(device, readback, make.filled(numbers(16)))
    array = await readback.read_array(np.uint32)
    assert array.tolist() == [*numbers(16)]
    assert not array.flags.writeable


def test_read_array_blocking(device: IRenderDevice, make: Maker, readback: ReadbackBuffer) -> None:
    copy(device, readback, make.filled(numbers(16)))
    array = readback.read_array_blocking(np.uint32, (4, 4))
    assert array.tolist() == numbers(16).reshape(4, 4).tolist()


@pytest.mark.anyio
async def test_read_async(device: IRenderDevice, make: Maker, readback: ReadbackBuffer) -> None:
    copy(device, readback, make.filled(numbers(16)))
    async with readback.read_async() as mapped:
        assert readback.state is BufferState.MAPPED
        assert mapped.mode is MapMode.READ
        assert mapped.as_array(np.uint32).tolist() == [*numbers(16)]
    assert readback.state is BufferState.READY
    with pytest.raises(BufferStateError, match="dead"):
        mapped.read()
    with readback.read() as mapped:
        assert mapped.read(4, 4) == numbers(16)[1].tobytes()


@pytest.mark.parametrize(
    ("what", "more", "expected"),
    [
        ((), {}, [1, 2, 3, 4, 5, 6, 7, 8]),
        ((8,), {}, [3, 4, 5, 6, 7, 8]),
        ((8,), {"size": 8}, [3, 4]),
        ((32,), {}, []),
        ((), {"size": 0}, []),
        ((np.int64(4),), {"size": np.uint8(4)}, [2]),
    ],
)
def test_parts(
    what: Any, more: Any, expected: list[int], device: IRenderDevice, make: Maker,
    readback: ReadbackBuffer,
) -> None:  # fmt: skip
    copy(device, readback, make.filled(numbers(8)), *what, **more)
    assert readback.read_array_blocking(np.uint32).tolist() == expected
    assert len(readback.read_array_blocking()) == 4 * len(expected)


def test_larger_source(device: IRenderDevice, make: Maker, readback: ReadbackBuffer) -> None:
    """None takes what fits."""
    copy(device, readback, make.filled(numbers(100)), 40)
    assert readback.read_array_blocking(np.uint32).tolist() == [*numbers(16, 11)]


@pytest.mark.parametrize("junk", [68, 2, *[n for n in JUNK_NUMBERS if n is not None]])
@pytest.mark.parametrize("argument", ["source_offset", "size"])
def test_parts_that_there_are_not(
    argument: str, junk: Any, device: IRenderDevice, make: Maker, readback: ReadbackBuffer
) -> None:
    with pytest.raises(BufferRangeError):
        readback.copy_from(device.create_command_encoder(), make.plain(64), **{argument: junk})


@pytest.mark.parametrize("source", [None, 5, "source", object()])
def test_what_is_no_source(source: Any, device: IRenderDevice, readback: ReadbackBuffer) -> None:
    with pytest.raises(ValidationError):
        readback.copy_from(device.create_command_encoder(), source)
    with pytest.raises(BufferUsageError, match="takes a command encoder"):
        readback.copy_from(source, readback)


def test_source_without_copy_src(
    device: IRenderDevice, make: Maker, readback: ReadbackBuffer
) -> None:
    with pytest.raises(BufferUsageError, match="COPY_SRC"):
        readback.copy_from(device.create_command_encoder(), make.plain(64, BufferUsage.VERTEX))
    texture = make_texture(device, usage=TextureUsage.COPY_DST)
    big = ReadbackBuffer(1024, device.buffer_factory)
    with pytest.raises(ValidationError, match="COPY_SRC"):
        big.copy_from(device.create_command_encoder(), texture)


@pytest.mark.parametrize(
    ("dtype", "shape", "error"),
    [
        (np.uint32, 17, BufferRangeError),
        (np.uint32, (4, 5), BufferRangeError),
        (np.dtype("S7"), None, BufferRangeError),
        (np.uint32, -1, BufferRangeError),
        (np.uint32, (4, -1), BufferRangeError),
        (np.uint32, "4", BufferRangeError),
        (np.uint32, 1.5, BufferRangeError),
        (object, None, BufferUsageError),
        (str, None, BufferUsageError),
        ("nothing", None, BufferUsageError),
    ],
    ids=str,
)
@pytest.mark.anyio
async def test_arrays_that_there_are_not(
    dtype: Any, shape: Any, error: type[Exception], readback: ReadbackBuffer
) -> None:
    """Refused before the wait, and the buffer stays READY."""
    with pytest.raises(error, match="'result'"):
        await readback.read_array(dtype, shape)
    with pytest.raises(error, match="'result'"):
        readback.read_array_blocking(dtype, shape)
    assert readback.state is BufferState.READY


def test_first_read_is_zero(readback: ReadbackBuffer) -> None:
    assert readback.read_array_blocking(np.uint32).tolist() == [0] * 16


# --- Textures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 3, 63, 65])
@pytest.mark.parametrize("texture_format", FORMATS, ids=lambda f: f.value)
def test_pixels(texture_format: TextureFormat, width: int, device: IRenderDevice) -> None:
    """Rows are padded to 256 bytes on the GPU, and not in the array."""
    pixels = random_pixels(texture_format, 3, width)
    texture = make_texture(device, width, 3, texture_format)
    device.queue.write_texture(texture, pixels)
    rows = TextureRows(texture_format, width, 3)
    readback = ReadbackBuffer(rows.nbytes, device.buffer_factory)
    copy(device, readback, texture)
    array = readback.read_array_blocking()
    assert array.shape == rows.shape
    assert array.dtype == texture_format.dtype
    assert (array == pixels).all()
    assert not array.flags.writeable


def test_pixels_of_layers_levels_and_parts(device: IRenderDevice) -> None:
    texture = make_texture(device, 8, 4, layers=2, mip_levels=2)
    pixels = random_pixels(texture.format, 4, 8, 2)
    level = random_pixels(texture.format, 2, 4, 2, seed=2)
    device.queue.write_texture(texture, pixels)
    device.queue.write_texture(TexelCopyTextureInfo(texture, 1), level)
    readback = ReadbackBuffer(4096, device.buffer_factory)
    for what, size, expected in [
        (texture, None, pixels),
        (TexelCopyTextureInfo(texture, 1), None, level),
        (TexelCopyTextureInfo(texture, 0, (1, 2, 1)), None, pixels[1, 2:, 1:]),
        (TexelCopyTextureInfo(texture, 0, (1, 2, 0)), (3, 1, 2), pixels[:, 2:3, 1:4]),
        (TexelCopyTextureInfo(texture, 1, (2, 0, 1)), (2, 2, 1), level[1, :, 2:]),
    ]:
        copy(device, readback, what, size=size)
        assert (readback.read_array_blocking() == expected).all()


def test_pixels_as_something_else(device: IRenderDevice) -> None:
    texture = make_texture(device, 5, 3, TextureFormat.RGBA16_FLOAT)
    pixels = random_pixels(texture.format, 3, 5)
    device.queue.write_texture(texture, pixels)
    readback = ReadbackBuffer(1024, device.buffer_factory, debug_name="result")
    copy(device, readback, texture)
    assert (readback.read_array_blocking(np.uint16) == pixels.view(np.uint16)).all()
    assert (readback.read_array_blocking(None, (15, 4)) == pixels.reshape(15, 4)).all()
    assert (readback.read_array_blocking("f2", 60) == pixels.reshape(60)).all()
    flat = readback.read_array_blocking(None, (15, 4))  # which NumPy cannot do without a copy
    assert not flat.flags.writeable
    for dtype, shape in [
        (np.float32, None), (None, 61), (None, (3, 5)), (None, -1), (None, "60"), (None, (60.0,)),
        (None, (2**40, 2**40)),
    ]:  # fmt: skip
        with pytest.raises(BufferRangeError, match="'result'"):
            readback.read_array_blocking(dtype, shape)
    with pytest.raises(BufferUsageError, match="'result'"):
        readback.read_array_blocking(object)
    assert readback.state is BufferState.READY


def test_pixels_need_room_for_the_padding(device: IRenderDevice) -> None:
    texture = make_texture(device, 3, 3)
    readback = ReadbackBuffer(3 * 3 * 4, device.buffer_factory, debug_name="short")
    with pytest.raises(BufferRangeError, match=r"'short'.*take 768 bytes.*TextureRows") as caught:
        readback.copy_from(device.create_command_encoder(), texture)
    assert "has 36" in str(caught.value)


@pytest.mark.parametrize(
    "size", [(5, 4, 1), (4, 4), (4, 4, -1), (0.5, 4, 1), 64, "size", ("4", 4, 1)]
)
def test_pixels_that_there_are_not(size: Any, device: IRenderDevice) -> None:
    readback = ReadbackBuffer(4096, device.buffer_factory)
    with pytest.raises(BufferRangeError):
        readback.copy_from(device.create_command_encoder(), make_texture(device), size=size)


def test_depth_pixels(device: IRenderDevice) -> None:
    frame = device.create_frame_buffer(5, 3, [], depth_format=TextureFormat.DEPTH32_FLOAT)
    encoder = device.create_command_encoder()
    with encoder.begin_render_pass(frame, clear_depth=0.25):
        pass
    device.queue.submit([encoder.finish()])
    assert frame.depth_texture is not None
    array = device.read_array_blocking(frame.depth_texture)
    assert array.dtype == np.float32
    assert (array == 0.25).all()
    assert array.shape == (3, 5)


# --- Without a copy, and round and round ----------------------------------------------------------


def test_array_is_the_mapped_memory(
    device: IRenderDevice, make: Maker, readback: ReadbackBuffer
) -> None:
    copy(device, readback, make.filled(numbers(16)))
    with readback.read() as mapped:
        start = address_of(mapped.as_array())
    array = readback.read_array_blocking(np.uint32)
    assert start <= address_of(array) < start + 64
    assert readback.state is BufferState.MAPPED
    del array
    assert readback.state is BufferState.READY
    copied = readback.read_array_blocking(np.uint32, copy=True)
    assert not start <= address_of(copied) < start + 64
    assert readback.state is BufferState.READY
    assert copied.flags.writeable
    copied[:] = 0


def test_slot_goes_back_when_the_last_reference_dies(
    device: IRenderDevice, make: Maker, readback: ReadbackBuffer
) -> None:
    copy(device, readback, make.filled(numbers(16)))
    array = readback.read_array_blocking(np.uint32)
    part, view = array[3:5], memoryview(array)
    del array
    assert readback.state is BufferState.MAPPED
    view.release()
    assert readback.state is BufferState.MAPPED
    assert part.tolist() == [4, 5]
    del part
    assert readback.state is BufferState.READY


def test_slots_are_used_again(device: IRenderDevice, make: Maker, readback: ReadbackBuffer) -> None:
    source = make.filled(numbers(16))
    for _ in range(10):
        copy(device, readback, source)
        assert readback.read_array_blocking(np.uint32).tolist() == [*numbers(16)]
    assert readback.slots == 1


def test_several_arrays_alive(device: IRenderDevice, make: Maker, readback: ReadbackBuffer) -> None:
    """Each of them keeps its slot, and stays right while later results come."""
    sources = [make.filled(numbers(16, 100 * index)) for index in range(5)]
    arrays = []
    for source in sources:
        copy(device, readback, source)
        arrays.append(readback.read_array_blocking(np.uint32))
    assert readback.slots == 5
    for index, array in enumerate(arrays):
        assert array.tolist() == [*numbers(16, 100 * index)]
    del arrays[1:4], array
    for source in sources[1:4]:
        copy(device, readback, source)
        arrays.append(readback.read_array_blocking(np.uint32))
    assert readback.slots == 5
    assert [array[0] for array in arrays] == [0, 400, 100, 200, 300]


def test_copy_recorded_while_the_last_result_is_read(
    device: IRenderDevice, make: Maker, readback: ReadbackBuffer
) -> None:
    first, second = make.filled(numbers(16)), make.filled(numbers(16, 50))
    copy(device, readback, first)
    array = readback.read_array_blocking(np.uint32)
    encoder = device.create_command_encoder()
    readback.copy_from(encoder, second)
    del array  # its slot is free, but the copy goes to the one that was chosen
    device.queue.submit([encoder.finish()])
    assert readback.read_array_blocking(np.uint32).tolist() == [*numbers(16, 50)]
    assert readback.slots == 2


@pytest.mark.anyio
async def test_read_keeps_what_it_was_called_for(
    device: IRenderDevice, make: Maker, readback: ReadbackBuffer
) -> None:
    """The next result may be recorded and submitted before the first one is waited for."""
    copy(device, readback, make.filled(numbers(16)))
    first = readback.read_array(np.uint32)
    copy(device, readback, make.filled(numbers(16, 50)))
    second = readback.read_array(np.uint32)
    assert (await second).tolist() == [*numbers(16, 50)]
    assert (await first).tolist() == [*numbers(16)]
    assert readback.slots == 2


def test_array_blocks_no_later_read(
    device: IRenderDevice, make: Maker, readback: ReadbackBuffer
) -> None:
    """A second read of the same result while its array lives is refused: copy again, or keep it."""
    copy(device, readback, make.filled(numbers(16)))
    array = readback.read_array_blocking(np.uint32)
    with pytest.raises(BufferStateError, match="'result'.*mapped"):
        readback.read_array_blocking(np.uint32)
    assert array.tolist() == [*numbers(16)]
    with pytest.raises(BufferStateError), readback.read():
        pytest.fail("it is being read")


@pytest.mark.anyio
async def test_two_reads_at_once(
    device: IRenderDevice, make: Maker, readback: ReadbackBuffer
) -> None:
    copy(device, readback, make.filled(numbers(16)))
    results: list[Any] = []

    async def read() -> None:
        results.append((await readback.read_array(np.uint32)).tolist())

    with Hold(device) as hold:
        async with anyio.create_task_group() as group:
            group.start_soon(read)
            while readback.state is not BufferState.MAP_PENDING:
                await anyio.lowlevel.checkpoint()
            with pytest.raises(BufferStateError, match="map pending"):
                await readback.read_array(np.uint32)
            hold.release()
    assert results == [[*numbers(16)]]


def test_arrays_outlive_a_block(
    device: IRenderDevice, make: Maker, readback: ReadbackBuffer
) -> None:
    copy(device, readback, make.filled(numbers(16)))
    with readback.read() as mapped:
        array = mapped.as_array(np.uint32)
    assert array.tolist() == [*numbers(16)]
    assert readback.state is BufferState.MAPPED
    copy(device, readback, make.filled(numbers(16, 70)))
    assert array.tolist() == [*numbers(16)]
    del array, mapped
    assert readback.read_array_blocking(np.uint32)[0] == 70


def test_destroy_with_arrays_alive(fresh_device: IRenderDevice) -> None:
    make = Maker(fresh_device)
    source = make.filled(numbers(16))
    before = live(fresh_device)
    readback = ReadbackBuffer(64, fresh_device.buffer_factory)
    arrays = []
    for _ in range(3):
        copy(fresh_device, readback, source)
        arrays.append(readback.read_array_blocking(np.uint32))
    readback.destroy()
    assert readback.state is BufferState.DESTROYED
    assert all(array.tolist() == [*numbers(16)] for array in arrays)
    with pytest.raises(BufferStateError, match="destroyed"):
        readback.read_array_blocking()
    arrays.clear()
    del readback
    fresh_device.queue.on_work_done().wait()
    assert live(fresh_device) == before


def test_array_that_dies_on_another_thread(
    device: IRenderDevice, make: Maker, readback: ReadbackBuffer
) -> None:
    copy(device, readback, make.filled(numbers(16)))
    arrays = [readback.read_array_blocking()]
    thread = threading.Thread(target=arrays.clear)
    thread.start()
    thread.join()
    assert readback.state is BufferState.READY


def test_array_that_dies_in_a_collection(
    device: IRenderDevice, make: Maker, readback: ReadbackBuffer
) -> None:
    copy(device, readback, make.filled(numbers(16)))
    cycle: list[Any] = [readback.read_array_blocking()]
    cycle.append(cycle)
    del cycle
    assert readback.state is BufferState.MAPPED
    gc.collect()
    assert readback.state is BufferState.READY


def test_slot_is_free_only_when_the_gpu_may_have_it(
    device: IRenderDevice, make: Maker, readback: ReadbackBuffer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arrays die on any thread, while others look for a free slot: the native unmap comes first."""
    copy(device, readback, make.filled(numbers(16)))
    array = readback.read_array_blocking()
    slot: Any = readback.inner
    states: list[BufferState] = []
    unmap = slot.native.unmap
    monkeypatch.setattr(slot.native, "unmap", lambda: (states.append(slot.state), unmap()))
    del array
    assert states == [BufferState.MAPPED]
    assert slot.state is BufferState.READY


@pytest.mark.anyio
async def test_destroyed_while_pending(device: IRenderDevice, readback: ReadbackBuffer) -> None:
    errors: list[Exception] = []

    async def read() -> None:
        try:
            await readback.read_array()
        except MapAbortedError as error:
            errors.append(error)

    with Hold(device):
        async with anyio.create_task_group() as group:
            group.start_soon(read)
            while readback.state is not BufferState.MAP_PENDING:
                await anyio.lowlevel.checkpoint()
            readback.destroy()
    assert "'result'" in str(errors[0])


# --- On the device --------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_device_reads(device: IRenderDevice, make: Maker) -> None:
    buffer = make.filled(numbers(16))
    assert (await device.read_array(buffer)).tobytes() == numbers(16).tobytes()
    assert (await device.read_array(buffer, np.uint32, (2, 8))).shape == (2, 8)
    texture = make_texture(device, 5, 3)
    pixels = random_pixels(texture.format, 3, 5)
    device.upload(pixels, texture)
    assert (await device.read_array(texture) == pixels).all()
    for copy_ in (False, True):
        array = device.read_array_blocking(buffer, np.uint32, copy=copy_)
        assert array.flags.writeable == copy_
        assert array.tolist() == [*numbers(16)]


@pytest.mark.anyio
async def test_many_device_reads_at_once(device: IRenderDevice, make: Maker) -> None:
    buffers = [make.filled(numbers(16, 100 * index)) for index in range(12)]
    results: dict[int, npt.NDArray[Any]] = {}

    async def read(index: int) -> None:
        results[index] = await device.read_array(buffers[index], np.uint32)

    async with anyio.create_task_group() as group:
        for index in range(len(buffers)):
            group.start_soon(read, index)
    for index, array in results.items():
        assert array.tolist() == [*numbers(16, 100 * index)]


def test_device_reads_are_pooled(fresh_device: IRenderDevice) -> None:
    device = fresh_device
    buffer = Maker(device).filled(numbers(16))
    addresses = set()
    device.read_array_blocking(buffer)
    before = live(device)
    for _ in range(10):
        array = device.read_array_blocking(buffer, np.uint32)
        addresses.add(address_of(array))
        del array
    assert live(device) == before
    assert device.info.backend != "null" or len(addresses) == 1


def test_device_reads_of_what_cannot_be_read(device: IRenderDevice, make: Maker) -> None:
    for source in (None, 5, "buffer", object()):
        with pytest.raises(ValidationError):
            device.read_array_blocking(source)  # type: ignore[arg-type]
    with pytest.raises(BufferUsageError, match="COPY_SRC"):
        device.read_array_blocking(make.plain(64, BufferUsage.VERTEX))
    destroyed = make.plain()
    destroyed.destroy()
    with pytest.raises(BufferStateError, match="destroyed"):
        device.read_array_blocking(destroyed)
    with pytest.raises(BufferRangeError):
        device.read_array_blocking(make.plain(), np.uint32, 17)
    mapped = make.mappable(mapped=True)
    with pytest.raises(BufferStateError, match="mapped"):
        device.read_array_blocking(mapped)


def test_device_reads_of_other_devices(backend: str, device: IRenderDevice) -> None:
    with open_device(backend) as other:
        for source in (Maker(other).plain(), make_texture(other)):
            with pytest.raises(ValidationError, match="another device"):
                device.read_array_blocking(source)


@pytest.mark.anyio
async def test_device_reads_when_closed(fresh_device: IRenderDevice) -> None:
    buffer = Maker(fresh_device).plain()
    fresh_device.close()
    with pytest.raises(DeviceLostError):
        await fresh_device.read_array(buffer)
    with pytest.raises(DeviceLostError):
        fresh_device.read_array_blocking(buffer)


@pytest.mark.anyio
async def test_a_read_keeps_what_it_was_called_for(device: IRenderDevice) -> None:
    """What a copy records after the call, but before the task's first step, goes elsewhere."""
    readback = ReadbackBuffer(64, device.buffer_factory)
    source = DeviceBuffer(64, device.buffer_factory, usage=BufferUsage.COPY_SRC)
    readings = []
    for value in range(3):
        device.upload(np.full(16, value, np.uint32), source)
        encoder = device.create_command_encoder()
        readback.copy_from(encoder, source)
        device.queue.submit([encoder.finish()])
        readings.append(readback.read_array(np.uint32, copy=True))
    assert [int((await reading)[0]) for reading in readings] == [0, 1, 2]
    assert readback.slots == 3
    readback.read_array().close()  # a call that nobody awaits keeps nothing
    encoder = device.create_command_encoder()
    readback.copy_from(encoder, source)
    assert readback.slots == 3


# --- Into one's own memory ------------------------------------------------------------------------

BIG = 5 * 1024 * 1024


@pytest.mark.parametrize(
    "make_out",
    [
        lambda: np.zeros(16, np.uint32),
        lambda: np.zeros((4, 4), np.float32),
        lambda: np.zeros(64, np.uint8),
        lambda: np.zeros(4, [("a", "u4"), ("b", "f4", 3)]),
        lambda: bytearray(64),
        lambda: memoryview(bytearray(64)),
        lambda: np.zeros((2, 64), np.uint8)[1],
        lambda: np.zeros((16, 1), np.uint32).T,
    ],
)
def test_read_into(
    make_out: Any, device: IRenderDevice, make: Maker, readback: ReadbackBuffer
) -> None:
    copy(device, readback, make.filled(numbers(16)))
    out = make_out()
    assert readback.read_into_blocking(out) is out
    assert bytes(out) == numbers(16).tobytes()
    assert readback.state is BufferState.READY
    assert readback.slots == 1


@pytest.mark.anyio
@pytest.mark.parametrize("size", [0, 64, BIG])
async def test_read_into_async(size: int, device: IRenderDevice, make: Maker) -> None:
    """The same memory, again and again; large results are copied by several threads."""
    readback = ReadbackBuffer(size, device.buffer_factory)
    source = DeviceBuffer(size, device.buffer_factory, usage=BufferUsage.COPY_SRC)
    out = np.zeros(size // 4, np.uint32)
    for turn in range(3):
        data = numbers(size // 4, turn)
        device.upload(data, source)
        copy(device, readback, source)
        assert await readback.read_into(out) is out
        assert (out == data).all()
        assert readback.state is BufferState.READY
    assert readback.slots == 1
    assert readback.stats.bytes_read == 3 * size


@pytest.mark.anyio
async def test_read_into_keeps_what_it_was_called_for(
    device: IRenderDevice, make: Maker, readback: ReadbackBuffer
) -> None:
    copy(device, readback, make.filled(numbers(16)))
    first = readback.read_into(np.zeros(16, np.uint32))
    copy(device, readback, make.filled(numbers(16, 50)))
    second = readback.read_into(np.zeros(16, np.uint32))
    assert (await second).tolist() == [*numbers(16, 50)]
    assert (await first).tolist() == [*numbers(16)]
    assert readback.slots == 2


@pytest.mark.parametrize(("width", "height", "layers"), [(3, 5, 1), (64, 3, 1), (65, 2, 3)])
def test_pixels_into(width: int, height: int, layers: int, device: IRenderDevice) -> None:
    """Rows arrive without their padding."""
    pixels = random_pixels(TextureFormat.RGBA8_UNORM, height, width, layers)
    texture = make_texture(device, width, height, layers=layers)
    device.queue.write_texture(texture, pixels)
    rows = TextureRows(texture.format, width, height, layers)
    readback = ReadbackBuffer(rows.nbytes, device.buffer_factory, debug_name="result")
    copy(device, readback, texture)
    out = np.zeros(rows.shape, np.uint8)
    assert (readback.read_into_blocking(out) == pixels).all()
    assert readback.read_into_blocking(bytearray(pixels.nbytes)) == pixels.tobytes()
    assert readback.stats.bytes_read == 2 * pixels.nbytes
    with pytest.raises(BufferRangeError, match=f"'result'.*{pixels.nbytes} were.*shape"):
        readback.read_into_blocking(np.zeros(pixels.nbytes + 4, np.uint8))


def read_only() -> npt.NDArray[Any]:
    array = np.zeros(64, np.uint8)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        (np.zeros(15, np.uint32), BufferRangeError, "has 60 bytes, but 64 were copied"),
        (bytearray(65), BufferRangeError, "pass one of that size"),
        (read_only(), BufferUsageError, "read-only; pass"),
        (b"x" * 64, BufferUsageError, "read-only; pass"),
        (np.zeros(32, np.uint32)[::2], BufferUsageError, r"not C-contiguous.*\(8,\).*pass one"),
        (np.zeros((4, 4), np.uint32).T, BufferUsageError, "not C-contiguous"),
        (memoryview(bytearray(128))[::2], BufferUsageError, "not C-contiguous"),
        (np.zeros(8, object), BufferUsageError, "plain numbers"),
        (np.zeros(1, "U16"), BufferUsageError, "plain numbers"),
        ([0] * 64, BufferUsageError, "takes a NumPy array.*not list"),
        (None, BufferUsageError, "takes a NumPy array.*not NoneType"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_read_into(
    out: Any, error: type[Exception], message: str, device: IRenderDevice, make: Maker,
    readback: ReadbackBuffer,
) -> None:  # fmt: skip
    """Refused by the call, before the wait, and the result can still be read."""
    copy(device, readback, make.filled(numbers(16)))
    with pytest.raises(error, match=f"'result': read_into.*{message}"):
        readback.read_into(out)
    with pytest.raises(error, match=message):
        readback.read_into_blocking(out)
    assert readback.read_array_blocking(np.uint32).tolist() == [*numbers(16)]


def test_read_into_the_mapped_memory_itself() -> None:
    with open_device("null") as device:
        readback = ReadbackBuffer(64, device.buffer_factory, debug_name="result")
        alias: Any = readback.inner.native_handle.memory
        assert alias.flags.writeable
        with pytest.raises(BufferUsageError, match="'result'.*overlaps.*memory of your own"):
            readback.read_into_blocking(alias)
        assert readback.state is BufferState.READY


@pytest.mark.parametrize("has_begun", [True, False])
def test_nothing_is_written_after_a_timeout_of_asyncio(
    has_begun: bool, device: IRenderDevice, make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own cancellation does not wait for the thread that copies."""
    begun, go_on = threading.Event(), threading.Event()

    def copy_slowly(target: npt.NDArray[Any], source: npt.NDArray[Any]) -> None:
        begun.set()
        go_on.wait(0.1)
        target[:] = source

    monkeypatch.setattr(contents_module, "copy_array", copy_slowly)
    size = contents_module.COPY_ASIDE
    out = np.zeros(size, np.uint8)
    readback = ReadbackBuffer(size, device.buffer_factory)
    encoder = device.create_command_encoder()
    readback.copy_from(encoder, DeviceBuffer.from_array(out + 7, COPY, device.buffer_factory))
    device.queue.submit([encoder.finish()])

    async def main() -> None:
        limiter = anyio.to_thread.current_default_thread_limiter()
        limiter.total_tokens = 1
        if not has_begun:  # the copy waits for a thread
            await limiter.acquire_on_behalf_of(begun)
        read = asyncio.ensure_future(readback.read_into(out))
        while has_begun and not begun.is_set():
            await asyncio.sleep(0.001)
        for _ in range(100):
            await asyncio.sleep(0)
        read.cancel()
        with pytest.raises(asyncio.CancelledError):
            await read
        at_the_end = out.copy()
        go_on.set()
        if not has_begun:
            limiter.release_on_behalf_of(begun)
        await anyio.to_thread.run_sync(time.sleep, 0.05)
        assert (out == at_the_end).all()
        assert (out == (7 if has_begun else 0)).all()

    asyncio.run(main())
    assert readback.slots == 1


@pytest.mark.anyio
async def test_read_into_while_it_is_read(
    device: IRenderDevice, make: Maker, readback: ReadbackBuffer
) -> None:
    copy(device, readback, make.filled(numbers(16)))
    array = readback.read_array_blocking()
    with pytest.raises(BufferStateError, match="mapped"):
        await readback.read_into(bytearray(64))
    assert array.view(np.uint32).tolist() == [*numbers(16)]


@pytest.mark.anyio
async def test_cancelled_read_gives_its_slot_back(
    device: IRenderDevice, make: Maker, readback: ReadbackBuffer
) -> None:
    for read in (readback.read_into, lambda _: readback.read_array(copy=True)):
        with Hold(device), anyio.move_on_after(0) as scope:
            await read(bytearray(64))
        assert scope.cancelled_caught
        assert readback.state is BufferState.READY
        copy(device, readback, make.filled(numbers(16)))
        assert readback.stats.in_use == readback.slots == 1


# --- How many slots there are ---------------------------------------------------------------------


def test_stats(device: IRenderDevice, make: Maker, readback: ReadbackBuffer) -> None:
    source = make.filled(numbers(16))
    arrays = []
    for _ in range(3):
        copy(device, readback, source)
        arrays.append(readback.read_array_blocking())
    assert readback.stats == ReadbackStats(
        slots=3, in_use=3, peak=3, reads=3, bytes_read=192, grows=2
    )
    arrays.clear()
    assert readback.stats.in_use == 1  # what was copied last can be read again
    copy(device, readback, source, size=8)
    readback.read_array_blocking()
    assert readback.stats == ReadbackStats(
        slots=3, in_use=1, peak=3, reads=4, bytes_read=200, grows=2
    )


@pytest.mark.parametrize("max_idle", [0, 2, 4])
def test_idle_slots_are_bounded(max_idle: int, fresh_device: IRenderDevice) -> None:
    device = fresh_device
    source = Maker(device).filled(numbers(16))
    readback = ReadbackBuffer(64, device.buffer_factory, max_idle=max_idle)
    before = live(device)
    arrays = []
    for _ in range(10):
        copy(device, readback, source)
        arrays.append(readback.read_array_blocking())
    assert readback.slots == 10
    thread = threading.Thread(target=arrays.clear)
    thread.start()
    thread.join()
    assert readback.slots == 1 + max_idle
    device.queue.on_work_done().wait()
    assert live(device) == before + max_idle


def test_slots_that_are_not_needed_any_more_go(device: IRenderDevice, make: Maker) -> None:
    source = make.filled(numbers(16))
    readback = ReadbackBuffer(64, device.buffer_factory)
    arrays = []
    for _ in range(4):
        copy(device, readback, source)
        arrays.append(readback.read_array_blocking())
    arrays.clear()
    assert readback.slots == 4
    for turn in range(200):
        copy(device, readback, source)
        array = readback.read_array_blocking(np.uint32)  # which needs two of them in turn
        assert array.tolist() == [*numbers(16)]
        assert turn < 150 or readback.slots <= 2


def test_a_dropped_buffer_leaves_only_what_arrays_look_at(fresh_device: IRenderDevice) -> None:
    device = fresh_device
    source = Maker(device).filled(numbers(16))
    before = live(device)
    readback = ReadbackBuffer(64, device.buffer_factory)
    arrays = []
    for _ in range(3):
        copy(device, readback, source)
        arrays.append(readback.read_array_blocking(np.uint32))
    del arrays[1:], readback
    device.queue.on_work_done().wait()
    assert live(device) == before + 1
    assert arrays[0].tolist() == [*numbers(16)]
    arrays.clear()
    assert live(device) == before


def test_arrays_die_on_many_threads(device: IRenderDevice, make: Maker) -> None:
    """While the reads go on: every array is right, and every slot comes back."""
    readback = ReadbackBuffer(64, device.buffer_factory, max_idle=8)
    queue: SimpleQueue[Any] = SimpleQueue()
    wrong: list[Any] = []

    def consume() -> None:
        while (item := queue.get()) is not None:
            value, array = item
            if array.tolist() != [*numbers(16, value)]:
                wrong.append(value)
            del item, array

    threads = [threading.Thread(target=consume) for _ in range(4)]
    for thread in threads:
        thread.start()
    source = DeviceBuffer(64, device.buffer_factory, usage=BufferUsage.COPY_SRC)
    for turn in range(200):
        device.upload(numbers(16, turn), source)
        copy(device, readback, source)
        queue.put((turn, readback.read_array_blocking(np.uint32)))
    for _ in threads:
        queue.put(None)
    for thread in threads:
        thread.join()
    assert not wrong
    assert readback.stats.in_use == 1
    assert readback.slots <= 1 + 8


@given(nbytes=st.integers(0, 2**40), limit=st.integers(1, 2**40))
def test_size_classes(nbytes: int, limit: int) -> None:
    size = size_class(nbytes, limit)
    assert nbytes <= size <= max(limit, nbytes)
    assert size <= max(nbytes * 5 / 4, nbytes + 4096)
    assert size_class(size, limit) == size


def test_slot_of_commands_that_are_not_submitted(
    device: IRenderDevice, make: Maker, readback: ReadbackBuffer
) -> None:
    """Nobody reads what they will leave, but they still write there: it is not used again."""
    first, second, third = (make.filled(numbers(16, start)) for start in (100, 200, 300))
    encoder = device.create_command_encoder()
    readback.copy_from(encoder, first)
    late = encoder.finish()
    reading = readback.read_array()
    copy(device, readback, second)
    reading.close()
    array = readback.read_array_blocking(np.uint32)
    copy(device, readback, third)
    device.queue.submit([late])
    assert readback.read_array_blocking(np.uint32).tolist() == [*numbers(16, 300)]
    assert array.tolist() == [*numbers(16, 200)]


# --- The device's pool ----------------------------------------------------------------------------


def test_device_reads_of_many_sizes(fresh_device: IRenderDevice) -> None:
    """Sizes that vary for ever cost no more memory than a few of them do."""
    device = fresh_device
    source = DeviceBuffer(2_000_000, device.buffer_factory, usage=BufferUsage.COPY_SRC)
    counts = []
    for turn in range(300):
        buffer = Maker(device).filled(numbers(1 + 1000 * turn))
        assert (device.read_array_blocking(buffer, np.uint32) == numbers(1 + 1000 * turn)).all()
        buffer.destroy()
        del buffer
        if turn % 50 == 49:
            counts.append(live(device))
    assert max(counts) <= 40
    assert device.read_array_blocking(source).nbytes == 2_000_000


def test_device_reads_share_slots_of_a_size_class(fresh_device: IRenderDevice) -> None:
    device = fresh_device
    make = Maker(device)
    sources = [make.filled(numbers(count)) for count in (10, 500, 1000)]
    texture = make_texture(device, 5, 3)
    device.read_array_blocking(sources[0])
    before = live(device)
    for source in sources:
        array = device.read_array_blocking(source, np.uint32)
        assert (array == numbers(len(array))).all()
        del array
        device.read_array_blocking(texture)
    assert live(device) == before


def test_device_pool_is_bounded_in_bytes(
    fresh_device: IRenderDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool: Any = fresh_device._readbacks  # type: ignore[attr-defined]
    monkeypatch.setattr(pool, "_max_idle_bytes", 100_000)
    source = Maker(fresh_device).filled(numbers(10_000))
    arrays = [fresh_device.read_array_blocking(source) for _ in range(6)]
    assert pool.count == 6
    arrays.clear()
    assert pool.count == 2
    huge = Maker(fresh_device).filled(numbers(30_000))
    fresh_device.read_array_blocking(huge)
    assert pool.count == 0


def test_device_pool_makes_room_when_memory_is_short() -> None:
    with open_device("null") as device:
        faults: Any = device.faults  # type: ignore[attr-defined]
        make = Maker(device)
        small, large = make.filled(numbers(16)), make.filled(numbers(100_000))
        device.read_array_blocking(small)
        faults.fail_next_allocations()
        assert (device.read_array_blocking(large, np.uint32) == numbers(100_000)).all()
        faults.fail_next_allocations(10)
        arrays = [device.read_array_blocking(large)]
        with pytest.raises(OutOfMemoryError):
            arrays.append(device.read_array_blocking(large))


@pytest.mark.anyio
async def test_device_read_that_fails_gives_its_slot_back(fresh_device: IRenderDevice) -> None:
    device = fresh_device
    pool: Any = device._readbacks  # type: ignore[attr-defined]
    make = Maker(device)
    for _ in range(3):
        with pytest.raises(BufferUsageError):
            device.read_array_blocking(make.plain(64, BufferUsage.VERTEX))
        with pytest.raises(BufferRangeError):
            await device.read_array(make.plain(), np.uint32, 17)
        with Hold(device), anyio.move_on_after(0) as scope:
            await device.read_array(make.plain())
        assert scope.cancelled_caught
    assert pool.stats.in_use == 0
    assert pool.count <= 4
