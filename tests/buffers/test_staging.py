"""`ImmediateStagingBuffer` and `DeferredStagingBuffer`: what is written arrives on the GPU."""

from __future__ import annotations

from typing import Any

import anyio
import numpy as np
import pytest

from pers import (
    BufferRangeError,
    BufferState,
    BufferStateError,
    BufferUsageError,
    DeferredStagingBuffer,
    ImmediateStagingBuffer,
    IRenderDevice,
    MapAbortedError,
    MapMode,
    TexelCopyTextureInfo,
    TextureFormat,
    TextureRows,
    ValidationError,
)
from tests.support import (
    JUNK_NUMBERS,
    Hold,
    Maker,
    contents,
    live,
    make_texture,
    numbers,
    open_device,
    random_pixels,
)

Staging = ImmediateStagingBuffer | DeferredStagingBuffer
FORMATS = [
    TextureFormat.R8_UNORM,
    TextureFormat.RG8_UINT,
    TextureFormat.R16_FLOAT,
    TextureFormat.RGBA8_UNORM_SRGB,
    TextureFormat.RGB10A2_UNORM,
    TextureFormat.RG32_FLOAT,
    TextureFormat.RGBA16_SINT,
    TextureFormat.RGBA32_FLOAT,
]


def uploaded(
    device: IRenderDevice, staging: Staging, target: Any, *where: Any, **more: Any
) -> None:
    encoder = device.create_command_encoder()
    staging.upload_to(encoder, target, *where, **more)
    device.queue.submit([encoder.finish()])


# --- Immediate ------------------------------------------------------------------------------------


def test_immediate(device: IRenderDevice, make: Maker) -> None:
    staging, target = ImmediateStagingBuffer(64, device.buffer_factory), make.plain(64)
    assert staging.state is BufferState.MAPPED
    staging.write(numbers(8))
    staging.write(numbers(4, 100), 48)
    staging.as_array(np.uint32)[8] = 77
    uploaded(device, staging, target)
    assert staging.state is BufferState.READY
    expected = [*numbers(8), 77, 0, 0, 0, *numbers(4, 100)]
    assert contents(device, target).view(np.uint32).tolist() == expected


def test_write_after_the_upload(device: IRenderDevice, make: Maker) -> None:
    staging = ImmediateStagingBuffer(64, device.buffer_factory, debug_name="once")
    uploaded(device, staging, make.plain(64))
    for call in (lambda: staging.write(b"1234"), staging.as_array):
        with pytest.raises(BufferStateError, match="'once'.*ready, not mapped"):
            call()


def test_upload_twice(device: IRenderDevice, make: Maker) -> None:
    """What was written stays there for more uploads."""
    staging = ImmediateStagingBuffer(64, device.buffer_factory)
    staging.write(numbers(16))
    targets = [make.plain(64), make.plain(64)]
    for target in targets:
        uploaded(device, staging, target)
        assert contents(device, target).view(np.uint32).tolist() == [*numbers(16)]


@pytest.mark.parametrize(
    ("where", "more", "expected"),
    [
        ((), {}, [1, 2, 3, 4, 5, 6, 7, 8]),
        ((8,), {}, [0, 0, 1, 2, 3, 4, 5, 6]),
        ((), {"source_offset": 8}, [3, 4, 5, 6, 7, 8, 0, 0]),
        ((4,), {"source_offset": 8, "size": 8}, [0, 3, 4, 0, 0, 0, 0, 0]),
        ((), {"size": 4}, [1, 0, 0, 0, 0, 0, 0, 0]),
        ((), {"size": 0}, [0] * 8),
        ((32,), {}, [0] * 8),
        ((), {"source_offset": 32}, [0] * 8),
        ((np.int64(8),), {"size": np.int32(4)}, [0, 0, 1, 0, 0, 0, 0, 0]),
    ],
)
def test_parts(
    where: Any, more: Any, expected: list[int], device: IRenderDevice, make: Maker
) -> None:
    staging, target = ImmediateStagingBuffer(32, device.buffer_factory), make.plain(32)
    staging.write(numbers(8))
    uploaded(device, staging, target, *where, **more)
    assert contents(device, target).view(np.uint32).tolist() == expected


@pytest.mark.parametrize("junk", [n for n in JUNK_NUMBERS if n is not None])
@pytest.mark.parametrize("argument", ["target_offset", "source_offset", "size"])
def test_parts_that_there_are_not(
    argument: str, junk: Any, device: IRenderDevice, make: Maker
) -> None:
    staging, target = ImmediateStagingBuffer(32, device.buffer_factory), make.plain(32)
    encoder = device.create_command_encoder()
    with pytest.raises(BufferRangeError):
        staging.upload_to(encoder, target, **{argument: junk})
    encoder.finish()


@pytest.mark.parametrize(
    "more", [{"target_offset": 36}, {"source_offset": 36}, {"size": 36}, {"size": 2}]
)
def test_parts_that_do_not_fit(more: Any, device: IRenderDevice, make: Maker) -> None:
    staging, target = ImmediateStagingBuffer(32, device.buffer_factory), make.plain(32)
    with pytest.raises(BufferRangeError):
        staging.upload_to(device.create_command_encoder(), target, **more)


@pytest.mark.parametrize("target", [None, 5, "target", object()])
def test_upload_to_what_is_no_target(target: Any, device: IRenderDevice) -> None:
    staging = ImmediateStagingBuffer(32, device.buffer_factory)
    with pytest.raises(ValidationError):
        staging.upload_to(device.create_command_encoder(), target)
    with pytest.raises(BufferUsageError, match="takes a command encoder"):
        staging.upload_to(target, staging)


def test_target_without_copy_dst(device: IRenderDevice) -> None:
    first, second = (ImmediateStagingBuffer(32, device.buffer_factory) for _ in range(2))
    with pytest.raises(BufferUsageError, match="needs COPY_DST"):
        first.upload_to(device.create_command_encoder(), second)


# --- Textures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 3, 63, 65])
@pytest.mark.parametrize("texture_format", FORMATS, ids=lambda f: f.value)
def test_pixels(texture_format: TextureFormat, width: int, device: IRenderDevice) -> None:
    rows = TextureRows(texture_format, width, 5)
    pixels = random_pixels(texture_format, 5, width)
    texture = make_texture(device, width, 5, texture_format)
    staging = ImmediateStagingBuffer(rows.nbytes, device.buffer_factory)
    staging.write_pixels(pixels, texture)
    uploaded(device, staging, texture)
    assert (device.read_array_blocking(texture) == pixels).all()


def test_pixels_of_layers_and_parts(device: IRenderDevice) -> None:
    rows = TextureRows(TextureFormat.RGBA8_UNORM, 5, 3, 2)
    texture = make_texture(device, 5, 3, layers=2)
    pixels = random_pixels(rows.format, 3, 5, 2)
    staging = ImmediateStagingBuffer(512 + rows.nbytes, device.buffer_factory)
    staging.write_pixels(pixels, texture, 512)
    uploaded(device, staging, texture, source_offset=512)
    assert (device.read_array_blocking(texture) == pixels).all()

    part = make_texture(device, 5, 3, layers=2)
    place = TexelCopyTextureInfo(part, origin=(1, 1, 1))
    uploaded(device, staging, place, source_offset=512, size=(2, 2, 1))
    expected = np.zeros_like(pixels)
    expected[1, 1:3, 1:3] = pixels[0, 0:2, 0:2]
    assert (device.read_array_blocking(part) == expected).all()


def test_pixels_from_views(device: IRenderDevice) -> None:
    """Any strides, and any type with items of the right size."""
    texture = make_texture(device, 4, 3)
    pixels = random_pixels(texture.format, 6, 8)[::-2, ::2].view(np.int8)
    staging = ImmediateStagingBuffer(1024, device.buffer_factory)
    staging.write_pixels(pixels, texture)
    uploaded(device, staging, texture)
    assert (device.read_array_blocking(texture).view(np.int8) == pixels).all()


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 4), np.uint8), np.zeros((3, 4, 4), np.uint8), np.zeros((4, 4, 4), np.float32),
        np.zeros((1, 4, 4, 4), np.uint8), None, 5, "text", [[1, 2]],
    ],
    ids=str,
)  # fmt: skip
def test_pixels_that_do_not_fit(pixels: Any, device: IRenderDevice) -> None:
    staging = ImmediateStagingBuffer(1024, device.buffer_factory)
    with pytest.raises(BufferRangeError, match="4x4 rgba8unorm texture"):
        staging.write_pixels(pixels, make_texture(device))
    assert not staging.as_array().any()


@pytest.mark.parametrize("offset", [4, 1024, 1025, *JUNK_NUMBERS])
def test_pixels_where_they_do_not_fit(offset: Any, device: IRenderDevice) -> None:
    staging = ImmediateStagingBuffer(1024, device.buffer_factory)
    pixels = np.zeros((4, 4, 4), np.uint8)
    with pytest.raises(BufferRangeError):
        staging.write_pixels(pixels, make_texture(device), offset)
    with pytest.raises(ValidationError):
        staging.write_pixels(pixels, offset)


# --- Leftover views are harmless ------------------------------------------------------------------


def test_view_left_over_from_an_immediate_upload(device: IRenderDevice, make: Maker) -> None:
    staging, target = ImmediateStagingBuffer(64, device.buffer_factory), make.plain(64)
    view = staging.as_array(np.uint32)
    view[:] = numbers(16)
    uploaded(device, staging, target)
    assert staging.state is BufferState.READY
    view[:] = 0  # goes nowhere
    assert contents(device, target).view(np.uint32).tolist() == [*numbers(16)]
    uploaded(device, staging, target)
    assert contents(device, target).view(np.uint32).tolist() == [*numbers(16)]
    assert not view.any()


@pytest.mark.anyio
async def test_view_left_over_from_a_deferred_block(device: IRenderDevice, make: Maker) -> None:
    staging, target = DeferredStagingBuffer(64, device.buffer_factory), make.plain(64)
    views = []
    for start in (1, 101, 201):
        async with staging.map_async() as mapped:
            view = mapped.as_array(np.uint32)
            view[:] = numbers(16, start)
            views.append(view)
        uploaded(device, staging, target)
        view[:] = 0
        assert contents(device, target).view(np.uint32).tolist() == [*numbers(16, start)]


@pytest.mark.anyio
async def test_view_left_over_of_a_part(device: IRenderDevice, make: Maker) -> None:
    """What was written in other blocks stays right when one leaves a view behind."""
    staging, target = DeferredStagingBuffer(64, device.buffer_factory), make.plain(64)
    async with staging.map_async() as mapped:
        mapped.write(numbers(16))
    async with staging.map_async(16, 16) as mapped:
        view = mapped.as_array(np.uint32)
        view[:] = 7
    uploaded(device, staging, target)
    expected = numbers(16)
    expected[4:8] = 7
    assert contents(device, target).view(np.uint32).tolist() == [*expected]
    assert view.tolist() == [7] * 4


def test_memory_of_leftover_views_goes(fresh_device: IRenderDevice) -> None:
    device = fresh_device
    target = Maker(device).plain(64)
    staging = DeferredStagingBuffer(64, device.buffer_factory)
    before = live(device)
    views = []
    for _ in range(4):
        with staging.map() as mapped:
            views.append(mapped.as_array())
        del mapped
        uploaded(device, staging, target)
    device.queue.on_work_done().wait()
    assert live(device) == before + 4
    views.clear()
    assert live(device) == before


# --- Deferred -------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_deferred_for_ever(device: IRenderDevice, make: Maker) -> None:
    """The buffer is waited for each time, so earlier uploads are not overwritten."""
    staging = DeferredStagingBuffer(64, device.buffer_factory)
    assert staging.state is BufferState.READY
    targets = [make.plain(64) for _ in range(8)]
    for index, target in enumerate(targets):
        async with staging.map_async() as mapped:
            assert staging.state is BufferState.MAPPED
            mapped.write(numbers(16, 100 * index))
        assert staging.state is BufferState.READY
        uploaded(device, staging, target)
    for index, target in enumerate(targets):
        expected = [*numbers(16, 100 * index)]
        assert contents(device, target).view(np.uint32).tolist() == expected


def test_deferred_blocking(device: IRenderDevice, make: Maker) -> None:
    staging, target = DeferredStagingBuffer(64, device.buffer_factory), make.plain(64)
    for start in (1, 50):
        with staging.map(8, 16) as mapped:
            assert (mapped.offset, mapped.nbytes, mapped.mode) == (8, 16, MapMode.WRITE)
            mapped.write(numbers(4, start))
        uploaded(device, staging, target)
        expected = [0, 0, *numbers(4, start), *[0] * 10]
        assert contents(device, target).view(np.uint32).tolist() == expected


@pytest.mark.anyio
async def test_upload_in_the_block_unmaps_first(device: IRenderDevice, make: Maker) -> None:
    staging, target = DeferredStagingBuffer(64, device.buffer_factory), make.plain(64)
    async with staging.map_async() as mapped:
        mapped.write(numbers(16))
        uploaded(device, staging, target)
        assert staging.state is BufferState.READY
        with pytest.raises(BufferStateError, match="dead"):
            mapped.write(b"1234")
    assert contents(device, target).view(np.uint32).tolist() == [*numbers(16)]


@pytest.mark.anyio
async def test_block_that_raises(device: IRenderDevice) -> None:
    staging = DeferredStagingBuffer(64, device.buffer_factory)
    with pytest.raises(ZeroDivisionError):
        async with staging.map_async():
            raise ZeroDivisionError
    assert staging.state is BufferState.READY
    with pytest.raises(ZeroDivisionError), staging.map() as mapped:
        mapped.as_array()
        raise ZeroDivisionError
    assert staging.state is BufferState.READY


@pytest.mark.anyio
async def test_block_in_a_block(device: IRenderDevice) -> None:
    staging = DeferredStagingBuffer(64, device.buffer_factory, debug_name="nested")
    async with staging.map_async() as mapped:
        with pytest.raises(BufferStateError, match="'nested'.*mapped"):
            async with staging.map_async():
                pytest.fail("it is mapped already")
        mapped.write(b"1234")


@pytest.mark.anyio
async def test_destroyed_in_the_block(device: IRenderDevice) -> None:
    staging = DeferredStagingBuffer(64, device.buffer_factory)
    async with staging.map_async() as mapped:
        view = mapped.as_array()
        staging.destroy()
        view[:] = 1
    assert staging.state is BufferState.DESTROYED


@pytest.mark.anyio
async def test_destroyed_while_pending(device: IRenderDevice) -> None:
    staging = DeferredStagingBuffer(64, device.buffer_factory, debug_name="gone")
    errors: list[Exception] = []

    async def fill() -> None:
        try:
            async with staging.map_async():
                pytest.fail("it is held back")
        except MapAbortedError as error:
            errors.append(error)

    with Hold(device):
        async with anyio.create_task_group() as group:
            group.start_soon(fill)
            await anyio.wait_all_tasks_blocked()
            staging.destroy()
    assert "'gone'" in str(errors[0])
    with pytest.raises(BufferStateError, match="destroyed"):
        async with staging.map_async():
            pytest.fail("it is destroyed")


def test_submit_while_mapped(device: IRenderDevice, make: Maker) -> None:
    staging, target = DeferredStagingBuffer(64, device.buffer_factory), make.plain(64)
    encoder = device.create_command_encoder()
    staging.upload_to(encoder, target)
    commands = encoder.finish()
    with staging.map():
        with pytest.raises(BufferStateError, match="is mapped"):
            device.queue.submit([commands])


@pytest.mark.parametrize("junk", JUNK_NUMBERS[:-1])
def test_parts_of_a_map_that_there_are_not(junk: Any, device: IRenderDevice) -> None:
    staging = DeferredStagingBuffer(64, device.buffer_factory)
    for arguments in ((junk, None), (0, junk)):
        with pytest.raises(BufferRangeError), staging.map(*arguments):
            pytest.fail("no such part")
    assert staging.state is BufferState.READY


def test_many_in_flight(make: Maker, device: IRenderDevice) -> None:
    """Buffers dropped right after the submit live until the GPU is done with them."""
    target = make.plain(16 * 64)
    for index in range(16):
        staging = ImmediateStagingBuffer(64, device.buffer_factory)
        staging.write(numbers(16, 100 * index))
        uploaded(device, staging, target, 64 * index)
        del staging
    data = contents(device, target).view(np.uint32).reshape(16, 16)
    assert (data == np.stack([numbers(16, 100 * index) for index in range(16)])).all()


def test_other_device(backend: str, device: IRenderDevice) -> None:
    with open_device(backend) as other:
        staging = ImmediateStagingBuffer(64, device.buffer_factory)
        with pytest.raises(ValidationError, match="another device"):
            staging.upload_to(other.create_command_encoder(), Maker(other).plain(64))
