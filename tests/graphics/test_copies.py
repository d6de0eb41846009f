"""Copies and clears: what they do, and what is refused when recorded.

The names in brackets are those of WebGPU's conformance suite (validation/cmds,
operation/command_buffer).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pers import (
    BufferRangeError,
    BufferStateError,
    BufferUsage,
    BufferUsageError,
    DeviceBuffer,
    IBuffer,
    ICommandEncoder,
    IRenderDevice,
    TexelCopyBufferInfo,
    TexelCopyTextureInfo,
    TextureFormat,
    TextureRows,
    TextureUsage,
    ValidationError,
)
from tests.support import (
    COPY,
    JUNK_NUMBERS,
    Maker,
    contents,
    copied,
    make_texture,
    numbers,
    open_device,
    random_pixels,
)

JUNK = [junk for junk in JUNK_NUMBERS if junk is not None]


@pytest.fixture
def encoder(device: IRenderDevice) -> ICommandEncoder:
    return device.create_command_encoder("copies")


def words(device: IRenderDevice, buffer: IBuffer) -> list[int]:
    result: list[int] = contents(device, buffer).view(np.uint32).tolist()
    return result


# --- Buffer to buffer -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((0, 0, 16), [1, 2, 3, 4]),
        ((0, 0, None), [1, 2, 3, 4]),
        ((8, 0, None), [3, 4, 0, 0]),
        ((4, 8, 8), [0, 0, 2, 3]),
        ((0, 0, 0), [0, 0, 0, 0]),
        ((16, 0, None), [0, 0, 0, 0]),
        ((0, 16, 0), [0, 0, 0, 0]),
        ((np.int64(4), np.uint8(4), np.int16(4)), [0, 2, 0, 0]),
    ],
)
def test_copy_buffer_to_buffer(
    arguments: Any, expected: list[int], device: IRenderDevice, make: Maker,
    encoder: ICommandEncoder,
) -> None:  # fmt: skip
    """[copyBufferToBuffer: single] Without a size, what is left of the source is copied."""
    source, target = make.filled(numbers(4)), make.plain(16)
    source_offset, target_offset, size = arguments
    encoder.copy_buffer_to_buffer(source, source_offset, target, target_offset, size)
    device.queue.submit([encoder.finish()])
    assert words(device, target) == expected


def test_copies_in_order(device: IRenderDevice, make: Maker, encoder: ICommandEncoder) -> None:
    """[copyBufferToBuffer: state_transitions · copy_order]"""
    one, two = make.filled(numbers(4)), make.filled(numbers(4, 10))
    encoder.copy_buffer_to_buffer(one, 0, two, 4, 4)
    encoder.copy_buffer_to_buffer(two, 4, one, 8, 8)
    encoder.copy_buffer_to_buffer(one, 8, two, 0, 4)
    device.queue.submit([encoder.finish()])
    assert words(device, one) == [1, 2, 1, 12]
    assert words(device, two) == [1, 1, 12, 13]


BAD_COPIES: list[tuple[Any, Any, Any]] = [
    (1, 0, 4), (0, 2, 4), (0, 0, 3), (0, 0, 5), (6, 0, 4),  # alignment
    (0, 0, 20), (4, 0, 16), (0, 4, 16), (16, 0, 4), (0, 16, 4), (20, 0, None), (0, 20, 0),
    (0, 4, None), (2**62, 0, 4), (0, 2**62, 4), (0, 0, 2**62), (2**63 - 4, 0, 8),
]  # fmt: skip


@pytest.mark.parametrize("arguments", BAD_COPIES, ids=repr)
def test_copies_that_do_not_fit(arguments: Any, make: Maker, encoder: ICommandEncoder) -> None:
    """[copy_size_alignment · copy_offset_alignment · copy_overflow · copy_out_of_bounds]"""
    source, target = make.plain(16, name="from"), make.plain(16, name="to")
    source_offset, target_offset, size = arguments
    with pytest.raises(BufferRangeError, match="'copies': copy_buffer_to_buffer"):
        encoder.copy_buffer_to_buffer(source, source_offset, target, target_offset, size)
    encoder.finish()


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("position", range(3))
def test_copies_of_junk(position: int, junk: Any, make: Maker, encoder: ICommandEncoder) -> None:
    arguments = [0, 0, 4]
    arguments[position] = junk
    with pytest.raises(BufferRangeError):
        encoder.copy_buffer_to_buffer(
            make.plain(), arguments[0], make.plain(), arguments[1], arguments[2]
        )


@pytest.mark.parametrize("usage", BufferUsage, ids=lambda usage: usage.name)
def test_copies_need_their_usages(
    usage: BufferUsage, make: Maker, encoder: ICommandEncoder
) -> None:
    """[buffer_usage]"""
    buffer = make.mappable(16, usage, "it", mapped=True)
    if not usage & BufferUsage.COPY_SRC:
        with pytest.raises(BufferUsageError, match="source: buffer 'it'.*needs COPY_SRC"):
            encoder.copy_buffer_to_buffer(buffer, 0, make.plain(), 0, 16)
    if not usage & BufferUsage.COPY_DST:
        with pytest.raises(BufferUsageError, match="target: buffer 'it'.*needs COPY_DST"):
            encoder.copy_buffer_to_buffer(make.plain(), 0, buffer, 0, 16)
        with pytest.raises(BufferUsageError, match="clear_buffer: buffer 'it'.*needs COPY_DST"):
            encoder.clear_buffer(buffer)


def test_copy_within_the_same_buffer(make: Maker, encoder: ICommandEncoder) -> None:
    """[copy_within_same_buffer] Not even of parts that do not overlap."""
    buffer = make.plain(64, name="self")
    with pytest.raises(BufferUsageError, match="source and target are both buffer 'self'"):
        encoder.copy_buffer_to_buffer(buffer, 0, buffer, 32, 8)


@pytest.mark.parametrize("other", [None, 5, "buffer", object()])
def test_copies_of_what_is_no_buffer(other: Any, make: Maker, encoder: ICommandEncoder) -> None:
    for source, target in ((other, make.plain()), (make.plain(), other)):
        with pytest.raises(BufferUsageError, match="takes a pers buffer"):
            encoder.copy_buffer_to_buffer(source, 0, target, 0, 4)
    with pytest.raises(BufferUsageError, match="takes a pers buffer"):
        encoder.clear_buffer(other)


def test_copies_of_destroyed_buffers(make: Maker, encoder: ICommandEncoder) -> None:
    """[buffer_state]"""
    gone = make.plain(name="gone")
    gone.destroy()
    for source, target in ((gone, make.plain()), (make.plain(), gone)):
        with pytest.raises(BufferStateError, match="'gone' is destroyed"):
            encoder.copy_buffer_to_buffer(source, 0, target, 0, 4)
    with pytest.raises(BufferStateError, match="'gone' is destroyed"):
        encoder.clear_buffer(gone)


def test_copies_of_destroyed_and_foreign_device_buffers(
    backend: str, device: IRenderDevice, make: Maker, encoder: ICommandEncoder
) -> None:
    """What is asked of a buffer is asked of the one that a `DeviceBuffer` stands on."""
    usage = BufferUsage.COPY_SRC | BufferUsage.COPY_DST
    gone = DeviceBuffer(16, device.buffer_factory, usage=usage, debug_name="gone")
    gone.destroy()
    with pytest.raises(BufferStateError, match="'gone' is destroyed"):
        encoder.copy_buffer_to_buffer(make.plain(), 0, gone, 0, 4)
    with open_device(backend) as other:
        foreign = DeviceBuffer(16, other.buffer_factory, usage=usage, debug_name="foreign")
        with pytest.raises(ValidationError, match="^encoder .*'foreign' belongs to another device"):
            encoder.copy_buffer_to_buffer(foreign, 0, make.plain(), 0, 4)
        with pytest.raises(ValidationError, match="'foreign' belongs to another device"):
            device.queue.write_buffer(foreign, 0, bytes(4))


def test_a_device_buffer_destroyed_before_the_submit(device: IRenderDevice, make: Maker) -> None:
    usage = BufferUsage.COPY_SRC | BufferUsage.COPY_DST
    target = DeviceBuffer(16, device.buffer_factory, usage=usage, debug_name="target")
    commands = copied(device, make.plain(16), target)
    target.destroy()
    with pytest.raises(BufferStateError, match="'target' is destroyed"):
        device.queue.submit([commands])


def test_what_holds_a_buffer_is_none(make: Maker, encoder: ICommandEncoder) -> None:
    """Only pers' own classes are looked through."""

    class Wrapper:
        def __init__(self, inner: IBuffer) -> None:
            self.inner = self._inner = inner

    wrapper: Any = Wrapper(make.plain())
    with pytest.raises(BufferUsageError, match="takes a pers buffer, not Wrapper"):
        encoder.copy_buffer_to_buffer(wrapper, 0, make.plain(), 0, 4)


def test_copies_of_another_device(backend: str, make: Maker, encoder: ICommandEncoder) -> None:
    with open_device(backend) as other:
        foreign = Maker(other).plain(name="foreign")
        for source, target in ((foreign, make.plain()), (make.plain(), foreign)):
            with pytest.raises(ValidationError, match="'foreign' belongs to another device"):
                encoder.copy_buffer_to_buffer(source, 0, target, 0, 4)


# --- Clear ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), [0, 0, 0, 0]),
        ((0, 8), [0, 0, 3, 4]),
        ((4, 8), [1, 0, 0, 4]),
        ((8,), [1, 2, 0, 0]),
        ((16,), [1, 2, 3, 4]),
        ((8, 0), [1, 2, 3, 4]),
        ((0, None), [0, 0, 0, 0]),
    ],
)
def test_clear_buffer(
    arguments: Any, expected: list[int], device: IRenderDevice, make: Maker,
    encoder: ICommandEncoder,
) -> None:  # fmt: skip
    """[clearBuffer: clear · default_args]"""
    buffer = make.filled(numbers(4))
    encoder.clear_buffer(buffer, *arguments)
    device.queue.submit([encoder.finish()])
    assert words(device, buffer) == expected


@pytest.mark.parametrize(
    "arguments",
    [
        (1, 4), (2, 4), (0, 3), (0, 5),
        (0, 20), (4, 16), (16, 4), (20,), (20, 0), (2**62, 4), (0, 2**62),
        *[(junk, 4) for junk in JUNK], *[(0, junk) for junk in JUNK], (None, 4),
    ],
    ids=repr,
)  # fmt: skip
def test_clears_that_do_not_fit(arguments: Any, make: Maker, encoder: ICommandEncoder) -> None:
    """[size_alignment · offset_alignment · overflow · out_of_bounds]"""
    with pytest.raises(BufferRangeError, match="clear_buffer"):
        encoder.clear_buffer(make.plain(16), *arguments)


def test_clear_odd_sized_buffer(device: IRenderDevice, make: Maker) -> None:
    encoder = device.create_command_encoder()
    with pytest.raises(BufferRangeError, match="multiples of 4"):
        encoder.clear_buffer(make.plain(10))
    encoder.clear_buffer(make.plain(10), 0, 8)


# --- Textures -------------------------------------------------------------------------------------

FORMATS = [
    TextureFormat.R8_UNORM,
    TextureFormat.RG8_SNORM,
    TextureFormat.RGBA8_UNORM_SRGB,
    TextureFormat.RGB9E5_UFLOAT,
    TextureFormat.RG16_FLOAT,
    TextureFormat.RGBA32_UINT,
]


def pixels_in(buffer: npt.NDArray[np.uint8], rows: TextureRows) -> npt.NDArray[Any]:
    return rows.view(buffer)


@pytest.mark.parametrize("texture_format", FORMATS, ids=lambda f: f.value)
def test_there_and_back(texture_format: TextureFormat, device: IRenderDevice, make: Maker) -> None:
    """[basic: b2t2t2b] Buffer to texture to texture to buffer."""
    rows = TextureRows(texture_format, 5, 3, 2)
    pixels = random_pixels(texture_format, 3, 5, 2)
    data = np.zeros(rows.nbytes, np.uint8)
    rows.view(data)[...] = pixels
    source, target = make.filled(data), make.plain(rows.nbytes)
    one, other = (make_texture(device, 5, 3, texture_format, layers=2) for _ in range(2))
    encoder = device.create_command_encoder()
    encoder.copy_buffer_to_texture(source, one)
    encoder.copy_texture_to_texture(one, other)
    encoder.copy_texture_to_buffer(other, target)
    device.queue.submit([encoder.finish()])
    assert (pixels_in(contents(device, target), rows) == pixels).all()


def test_parts_of_textures(device: IRenderDevice, make: Maker) -> None:
    pixels = random_pixels(TextureFormat.RGBA8_UNORM, 4, 8, 2)
    source = make_texture(device, 8, 4, layers=2)
    device.queue.write_texture(source, pixels)
    target = make_texture(device, 8, 4, layers=2, mip_levels=2)
    encoder = device.create_command_encoder()
    encoder.copy_texture_to_texture(
        TexelCopyTextureInfo(source, 0, (1, 2, 0)),
        TexelCopyTextureInfo(target, 1, (0, 1, 1)),
        (3, 1, 1),
    )
    out = make.plain(2048)
    encoder.copy_texture_to_buffer(
        TexelCopyTextureInfo(target, 1, (0, 0, 1)), TexelCopyBufferInfo(out, 256, 512), (4, 2, 1)
    )
    device.queue.submit([encoder.finish()])
    data = contents(device, out)
    assert not data[:256].any()
    assert not data[256 : 256 + 512].any()
    assert (data[768 : 768 + 12].reshape(3, 4) == pixels[0, 2, 1:4]).all()
    assert not data[780:].any()


def test_rows_per_image(device: IRenderDevice, make: Maker) -> None:
    pixels = random_pixels(TextureFormat.RGBA8_UNORM, 2, 4, 2)
    texture = make_texture(device, 4, 2, layers=2)
    device.queue.write_texture(texture, pixels)
    out = make.plain(256 * 5 + 512)
    encoder = device.create_command_encoder()
    encoder.copy_texture_to_buffer(texture, TexelCopyBufferInfo(out, 0, 256, 3))
    device.queue.submit([encoder.finish()])
    data = contents(device, out)
    assert (data[: 256 * 2].reshape(2, 256)[:, :16].reshape(2, 4, 4) == pixels[0]).all()
    assert not data[256 * 2 : 256 * 3].any()
    assert (data[256 * 3 : 256 * 5].reshape(2, 256)[:, :16].reshape(2, 4, 4) == pixels[1]).all()


def test_last_row_needs_no_padding(device: IRenderDevice, make: Maker) -> None:
    texture = make_texture(device, 4, 3)
    device.queue.write_texture(texture, np.full((3, 4, 4), 9, np.uint8))
    out = make.plain(2 * 256 + 16)
    encoder = device.create_command_encoder()
    encoder.copy_texture_to_buffer(texture, out)
    device.queue.submit([encoder.finish()])
    assert (contents(device, out)[512:] == 9).all()
    with pytest.raises(BufferRangeError, match=r"take 528 bytes at offset 0.*has 524"):
        device.create_command_encoder().copy_texture_to_buffer(texture, make.plain(2 * 256 + 12))


Record = Callable[[ICommandEncoder, Any, Any, Any], None]
BOTH_WAYS = pytest.mark.parametrize(
    "record",
    [
        lambda e, buffer, texture, size: e.copy_buffer_to_texture(buffer, texture, size),
        lambda e, buffer, texture, size: e.copy_texture_to_buffer(texture, buffer, size),
    ],
    ids=["to texture", "to buffer"],
)


@BOTH_WAYS
@pytest.mark.parametrize(
    "place",
    [
        {"offset": 2}, {"offset": 1}, {"offset": 4096}, {"offset": 3800},
        {"bytes_per_row": 16}, {"bytes_per_row": 255}, {"bytes_per_row": 0},
        {"bytes_per_row": 2048}, {"rows_per_image": 3}, {"rows_per_image": 0},
        *[{"offset": junk} for junk in JUNK_NUMBERS],
        *[{"bytes_per_row": junk} for junk in JUNK],
        *[{"rows_per_image": junk} for junk in JUNK],
    ],
    ids=str,
)  # fmt: skip
def test_layouts_that_do_not_fit(
    record: Record, place: Any, device: IRenderDevice, make: Maker, encoder: ICommandEncoder
) -> None:
    buffer = TexelCopyBufferInfo(make.plain(4096), **place)
    with pytest.raises(BufferRangeError, match="'copies'"):
        record(encoder, buffer, make_texture(device), None)
    encoder.finish()


@BOTH_WAYS
@pytest.mark.parametrize(
    ("place", "size", "error"),
    [
        ({}, (5, 4, 1), BufferRangeError),
        ({}, (4, 5, 1), BufferRangeError),
        ({}, (4, 4, 2), BufferRangeError),
        ({}, (4, 4), BufferRangeError),
        ({}, (4, 4, -1), BufferRangeError),
        ({}, (4, 4, 1.5), BufferRangeError),
        ({}, ("4", 4, 1), BufferRangeError),
        ({}, 16, BufferRangeError),
        ({}, "444", BufferRangeError),
        ({"origin": (1, 0, 0)}, (4, 4, 1), BufferRangeError),
        ({"origin": (0, 0, 2)}, (1, 1, 1), BufferRangeError),
        ({"origin": (2**40, 0, 0)}, (1, 1, 1), BufferRangeError),
        ({"mip_level": 1}, None, ValidationError),
        ({"mip_level": 31}, None, ValidationError),
    ],
    ids=str,
)
def test_parts_that_there_are_not(
    record: Record, place: Any, size: Any, error: type[Exception], device: IRenderDevice,
    make: Maker, encoder: ICommandEncoder,
) -> None:  # fmt: skip
    texture = TexelCopyTextureInfo(make_texture(device), **place)
    with pytest.raises(error, match="'copies'"):
        record(encoder, make.plain(4096), texture, size)
    encoder.finish()


@pytest.mark.parametrize("junk", [-1, 32, 2**63, float("nan"), 1.5, "4", True, None])
def test_levels_that_are_none(junk: Any, device: IRenderDevice) -> None:
    with pytest.raises(ValidationError, match="mip_level"):
        TexelCopyTextureInfo(make_texture(device), junk)


@pytest.mark.parametrize(
    "junk",
    [(0, 0), (0, 0, 0, 0), 0, None, "000", (-1, 0, 0), (0, 1.5, 0), (0, 0, True), (0, 0, 2**63)],
)
def test_origins_that_are_none(junk: Any, device: IRenderDevice) -> None:
    with pytest.raises(BufferRangeError, match="origin"):
        TexelCopyTextureInfo(make_texture(device), 0, junk)


@BOTH_WAYS
def test_textures_need_their_usages(
    record: Record, device: IRenderDevice, make: Maker, encoder: ICommandEncoder
) -> None:
    texture = make_texture(device, usage=TextureUsage.TEXTURE_BINDING)
    with pytest.raises(ValidationError, match=r"'picture' was created without TextureUsage\.COPY_"):
        record(encoder, make.plain(4096), texture, None)
    for usage in (BufferUsage.VERTEX, BufferUsage.STORAGE):
        with pytest.raises(BufferUsageError, match="it needs COPY_"):
            record(encoder, make.plain(4096, usage), make_texture(device), None)


@BOTH_WAYS
def test_destroyed_textures_and_buffers(
    record: Record, device: IRenderDevice, make: Maker, encoder: ICommandEncoder
) -> None:
    texture, buffer = make_texture(device), make.plain(4096)
    texture.destroy()
    with pytest.raises(ValidationError, match="'picture' was destroyed"):
        record(encoder, buffer, texture, None)
    buffer.destroy()
    with pytest.raises(BufferStateError, match="is destroyed"):
        record(encoder, buffer, make_texture(device), None)


@BOTH_WAYS
def test_textures_of_another_device(
    record: Record, backend: str, make: Maker, encoder: ICommandEncoder
) -> None:
    with open_device(backend) as other:
        with pytest.raises(ValidationError, match="another device"):
            record(encoder, make.plain(4096), make_texture(other), None)
    for junk in (None, 5, "texture"):
        with pytest.raises(ValidationError, match="takes a Texture of this device"):
            record(encoder, make.plain(4096), junk, None)


def test_texture_copies_between_formats(device: IRenderDevice, encoder: ICommandEncoder) -> None:
    one, other = make_texture(device), make_texture(device, 4, 4, TextureFormat.R32_FLOAT)
    with pytest.raises(ValidationError, match="draw or compute to convert"):
        encoder.copy_texture_to_texture(one, other)


def test_texture_copies_that_do_not_fit(device: IRenderDevice, encoder: ICommandEncoder) -> None:
    large, small = make_texture(device, 8, 8), make_texture(device, 4, 4)
    for size in (None, (5, 4, 1), (4, 4, 2)):
        with pytest.raises(BufferRangeError):
            encoder.copy_texture_to_texture(large, small, size)
    encoder.copy_texture_to_texture(large, small, (4, 4, 1))


def test_formats_that_cannot_be_copied(device: IRenderDevice, make: Maker) -> None:
    frame = device.create_frame_buffer(4, 4, [], depth_format=TextureFormat.DEPTH24_PLUS)
    assert frame.depth_texture is not None
    with pytest.raises(ValidationError, match="use depth32float where depths must be read"):
        device.create_command_encoder().copy_texture_to_buffer(frame.depth_texture, make.plain())
    with pytest.raises(ValidationError, match="depth24plus"):
        device.read_array_blocking(frame.depth_texture)


def test_several_samples_cannot_be_copied(device: IRenderDevice, make: Maker) -> None:
    """Found where it is asked for, also by uploads: they share a command buffer with others."""
    usage = TextureUsage.COPY_SRC | TextureUsage.COPY_DST | TextureUsage.RENDER_ATTACHMENT
    samples = make_texture(device, 1024, 1024, usage=usage, sample_count=4)
    buffer, encoder = make.plain(1024 * 1024 * 4), device.create_command_encoder()
    with pytest.raises(ValidationError, match="'picture' has 4 samples of each pixel"):
        encoder.copy_texture_to_buffer(samples, buffer)
    with pytest.raises(ValidationError, match="'picture' has 4 samples of each pixel"):
        encoder.copy_buffer_to_texture(buffer, samples)
    with pytest.raises(ValidationError, match="has 4 samples"):
        device.read_array_blocking(samples)
    pixels = np.full((1024, 1024, 4), 7, np.uint8)
    picture = make_texture(device, 1024, 1024)
    device.upload(pixels, picture)
    with pytest.raises(ValidationError, match="has 4 samples"):
        device.upload(pixels, samples)
    device.queue.submit([encoder.finish()])
    assert (device.read_array_blocking(picture) == 7).all()


def test_depth_is_copied_as_a_whole(device: IRenderDevice, make: Maker) -> None:
    frame = device.create_frame_buffer(8, 8, [], depth_format=TextureFormat.DEPTH32_FLOAT)
    encoder = device.create_command_encoder()
    assert frame.depth_texture is not None
    encoder.copy_texture_to_buffer(frame.depth_texture, make.plain(2048))
    device.queue.submit([encoder.finish()]).wait()


def test_nothing_is_copied(device: IRenderDevice, make: Maker, encoder: ICommandEncoder) -> None:
    texture = make_texture(device)
    for size in ((0, 4, 1), (4, 0, 1), (4, 4, 0), (0, 0, 0)):
        encoder.copy_buffer_to_texture(make.plain(4096), texture, size)
        encoder.copy_texture_to_buffer(texture, make.plain(4096), size)
        encoder.copy_texture_to_texture(texture, make_texture(device), size)
    device.queue.submit([encoder.finish()]).wait()


def test_copy_uses_are_noted(device: IRenderDevice, make: Maker) -> None:
    """What is recorded is checked at the submit, also through textures."""
    buffer, texture = make.plain(4096, COPY, "late"), make_texture(device)
    for record in (
        lambda e: e.copy_buffer_to_texture(buffer, texture),
        lambda e: e.copy_texture_to_buffer(texture, buffer),
    ):
        encoder = device.create_command_encoder()
        record(encoder)
        commands = encoder.finish()
        device.queue.submit([commands])
    encoder = device.create_command_encoder()
    encoder.copy_buffer_to_texture(buffer, texture)
    commands = encoder.finish()
    buffer.destroy()
    with pytest.raises(BufferStateError, match="'late' is destroyed"):
        device.queue.submit([commands])
