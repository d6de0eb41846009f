"""Texture formats, pixels in memory, and textures themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pers import (
    BufferRangeError,
    IRenderDevice,
    ITexture,
    OutOfMemoryError,
    TexelCopyTextureInfo,
    TextureDescriptor,
    TextureFormat,
    TextureRows,
    TextureUsage,
    ValidationError,
)
from pers.backends.null import NullDevice
from tests.support import live, make_texture, random_pixels

F = TextureFormat
COPYABLE = [texture_format for texture_format in F if texture_format.is_copyable]

# Bytes of a pixel, WebGPU §26.1.
SIZES = {
    1: "r8unorm r8snorm r8uint r8sint stencil8",
    2: "r16unorm r16snorm r16uint r16sint r16float rg8unorm rg8snorm rg8uint rg8sint depth16unorm",
    4: "r32uint r32sint r32float rg16unorm rg16snorm rg16uint rg16sint rg16float rgba8unorm "
    "rgba8unorm-srgb rgba8snorm rgba8uint rgba8sint bgra8unorm bgra8unorm-srgb rgb9e5ufloat "
    "rgb10a2uint rgb10a2unorm rg11b10ufloat depth24plus depth24plus-stencil8 depth32float",
    8: "rg32uint rg32sint rg32float rgba16unorm rgba16snorm rgba16uint rgba16sint rgba16float "
    "depth32float-stencil8",
    16: "rgba32uint rgba32sint rgba32float",
}


# --- Formats --------------------------------------------------------------------------------------


def test_every_format_has_its_size() -> None:
    known = {name: size for size, names in SIZES.items() for name in names.split()}
    assert known == {texture_format.value: texture_format.bytes_per_pixel for texture_format in F}


@pytest.mark.parametrize(
    ("texture_format", "dtype", "channels"),
    [
        (F.R8_UNORM, "u1", 1),
        (F.RG8_SNORM, "i1", 2),
        (F.RGBA8_UNORM_SRGB, "u1", 4),
        (F.BGRA8_UNORM, "u1", 4),
        (F.R16_FLOAT, "f2", 1),
        (F.RGBA16_SINT, "i2", 4),
        (F.RG32_FLOAT, "f4", 2),
        (F.RGBA32_UINT, "u4", 4),
        (F.RGB10A2_UNORM, "u4", 1),
        (F.RG11B10_UFLOAT, "u4", 1),
        (F.DEPTH16_UNORM, "u2", 1),
        (F.DEPTH32_FLOAT, "f4", 1),
        (F.STENCIL8, "u1", 1),
    ],
)
def test_how_a_pixel_is_stored(texture_format: F, dtype: str, channels: int) -> None:
    assert texture_format.dtype == np.dtype(dtype)
    assert texture_format.channels == channels


def test_kinds_of_formats() -> None:
    assert {f.value for f in F if f.is_srgb} == {"rgba8unorm-srgb", "bgra8unorm-srgb"}
    depths = {f.value for f in F if f.is_depth}
    assert depths == {f.value for f in F if f.value.startswith(("depth", "stencil"))}
    assert {f.value for f in F if not f.is_copyable} == {
        "depth24plus", "depth24plus-stencil8", "depth32float-stencil8",
    }  # fmt: skip
    assert F("rgba8unorm") is F.RGBA8_UNORM


# --- Rows -----------------------------------------------------------------------------------------


def test_rows_are_padded() -> None:
    rows = TextureRows(F.RGBA8_UNORM, 65, 3, 2)
    assert rows.bytes_per_row == 512
    assert rows.nbytes == 512 * 3 * 2
    assert rows.shape == (2, 3, 65, 4)
    assert TextureRows(F.R8_UNORM, 256, 2).bytes_per_row == 256
    assert TextureRows(F.R8_UNORM, 257, 2).shape == (2, 257)


@given(
    texture_format=st.sampled_from(COPYABLE),
    width=st.integers(1, 70),
    height=st.integers(1, 5),
    layers=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_view(texture_format: F, width: int, height: int, layers: int, seed: int) -> None:
    """The view is the pixels in the memory, and nothing of the padding."""
    rows = TextureRows(texture_format, width, height, layers)
    memory = np.random.default_rng(seed).integers(0, 256, rows.nbytes + 8, np.uint8)
    pixels = rows.view(memory)
    assert pixels.shape == rows.shape
    assert pixels.dtype == texture_format.dtype
    assert np.shares_memory(pixels, memory)
    expected = [
        memory[start : start + width * texture_format.bytes_per_pixel].tobytes()
        for start in range(0, rows.nbytes, rows.bytes_per_row)
    ]
    flat = pixels.reshape(layers * height, -1) if pixels.ndim else pixels
    assert [row.tobytes() for row in flat] == expected
    rows.check(pixels)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 5, 4), np.uint8), np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8),
        np.zeros((1, 4, 4, 4), np.uint8), np.zeros((4, 4, 4), np.uint16), np.zeros(64, np.uint8),
    ],
    ids=lambda pixels: str(pixels.shape),
)  # fmt: skip
def test_check(pixels: npt.NDArray[Any]) -> None:
    with pytest.raises(BufferRangeError, match=r"4x4 rgba8unorm texture has shape \(4, 4, 4\)"):
        TextureRows(F.RGBA8_UNORM, 4, 4).check(pixels)


@pytest.mark.parametrize("texture_format", [f for f in F if not f.is_copyable])
def test_rows_of_opaque_formats(texture_format: F) -> None:
    with pytest.raises(ValidationError, match="use depth32float"):
        TextureRows(texture_format, 4, 4)


# --- Textures -------------------------------------------------------------------------------------


def test_texture(device: IRenderDevice) -> None:
    usage = TextureUsage.COPY_SRC | TextureUsage.TEXTURE_BINDING
    descriptor = TextureDescriptor(8, 4, F.RG8_UINT, usage, "described", layers=3, mip_levels=2)
    texture = device.create_texture(descriptor)
    assert isinstance(texture, ITexture)
    assert (texture.width, texture.height, texture.layers) == (8, 4, 3)
    assert (texture.mip_levels, texture.sample_count) == (2, 1)
    assert (texture.format, texture.usage, texture.label) == (F.RG8_UINT, usage, "described")
    assert texture.native_handle is not None
    assert repr(texture) == "<Texture 'described': 8x4 rg8uint>"
    assert texture.is_valid
    with texture:
        pass
    assert not texture.is_valid
    texture.destroy()


def test_format_by_name() -> None:
    descriptor = TextureDescriptor(4, 4, "rgba8unorm", 1)  # type: ignore[arg-type]
    assert descriptor.format is F.RGBA8_UNORM
    assert descriptor.usage is TextureUsage.COPY_SRC


def test_levels_go_down_to_one_pixel(device: IRenderDevice) -> None:
    texture = make_texture(device, 5, 3, mip_levels=3)
    for level, (width, height) in enumerate([(5, 3), (2, 1), (1, 1)]):
        pixels = random_pixels(texture.format, height, width, seed=level)
        device.queue.write_texture(TexelCopyTextureInfo(texture, level), pixels)
        with pytest.raises(BufferRangeError):
            device.queue.write_texture(
                TexelCopyTextureInfo(texture, level), np.zeros((height + 1, width, 4), np.uint8)
            )
    with pytest.raises(ValidationError, match="at most 3 mip levels, not 4"):
        make_texture(device, 5, 3, mip_levels=4)


@pytest.mark.parametrize("texture_format", COPYABLE, ids=lambda f: f.value)
def test_every_format_there_and_back(texture_format: F, device: IRenderDevice) -> None:
    """What is written to a texture is read from it, bit by bit; new ones are zero."""
    try:
        texture = make_texture(device, 7, 3, texture_format, layers=2)
    except ValidationError as error:  # a feature of some GPUs
        assert texture_format.value.endswith(("16unorm", "16snorm")), error
        return
    if texture_format is F.DEPTH32_FLOAT:  # cannot be written (WebGPU §26.1.2)
        assert not device.read_array_blocking(texture).any()
        return
    assert not device.read_array_blocking(texture).any()
    pixels = random_pixels(texture_format, 3, 7, 2)
    device.queue.write_texture(texture, pixels)
    assert device.read_array_blocking(texture).tobytes() == pixels.tobytes()


def test_out_of_memory() -> None:
    with NullDevice() as device:
        device.faults.memory_limit = 1000
        with pytest.raises(OutOfMemoryError, match="'picture'"):
            make_texture(device, 16, 16)
        make_texture(device, 15, 16)


def test_dropped_textures_leave_nothing(fresh_device: IRenderDevice) -> None:
    before = live(fresh_device, "Texture")
    for _ in range(5):
        texture = make_texture(fresh_device)
        fresh_device.upload(np.zeros((4, 4, 4), np.uint8), texture)
        frame = fresh_device.create_frame_buffer(4, 4, sample_count=4, depth_format=F.DEPTH32_FLOAT)
        encoder = fresh_device.create_command_encoder()
        encoder.begin_render_pass(frame).end()
        fresh_device.queue.submit([encoder.finish()]).wait()
        del texture, frame, encoder
    assert live(fresh_device, "Texture") == before
