"""Load operations: clear colours and depths in every format, against independent formulas."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pers import TextureDescriptor, TextureFormat, TextureUsage, ValidationError
from pers.backends.null import NullDevice
from pers.backends.null.pixels import color_bytes, depth_bytes

Color = tuple[float, float, float, float]
COLOR: Color = (0.2, 0.5, 0.75, 0.4)


def cleared(device: NullDevice, texture_format: TextureFormat, color: Color) -> npt.NDArray[Any]:
    frame = device.create_frame_buffer(5, 3, [texture_format])
    encoder = device.create_command_encoder()
    with encoder.begin_render_pass(frame, clear_color=color):
        pass
    device.queue.submit([encoder.finish()])
    return device.read_array_blocking(frame.color_textures[0])


def srgb_to_linear(encoded: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def of_kind(*kinds: str) -> list[TextureFormat]:
    names = [f for f in TextureFormat if not f.is_depth and f.value[-1] != "b"]
    return [f for f in names if f.value.endswith(kinds) and f.value[:4] not in ("rgb1", "rgb9")]


UNORM, SNORM = of_kind("unorm"), of_kind("snorm")
UINT, SINT = of_kind("uint"), of_kind("sint")
FLOAT = [f for f in of_kind("float") if not f.value.startswith("rg11")]


@pytest.mark.parametrize("texture_format", UNORM, ids=lambda f: f.value)
def test_unorm(device: NullDevice, texture_format: TextureFormat) -> None:
    pixels = cleared(device, texture_format, COLOR)
    largest = np.iinfo(texture_format.dtype).max
    order = [2, 1, 0, 3] if texture_format.value.startswith("bgra") else [0, 1, 2, 3]
    expected = np.rint(np.array(COLOR)[order][: texture_format.channels] * largest)
    assert (pixels.reshape(15, -1) == expected).all()


@pytest.mark.parametrize("texture_format", SNORM, ids=lambda f: f.value)
def test_snorm(device: NullDevice, texture_format: TextureFormat) -> None:
    pixels = cleared(device, texture_format, (-0.5, 2.0, -3.0, 0.25))
    largest = np.iinfo(texture_format.dtype).max
    expected = np.rint(np.array([-0.5, 1.0, -1.0, 0.25])[: texture_format.channels] * largest)
    assert (pixels.reshape(15, -1) == expected).all()


@pytest.mark.parametrize("texture_format", UINT + SINT, ids=lambda f: f.value)
def test_integers(device: NullDevice, texture_format: TextureFormat) -> None:
    pixels = cleared(device, texture_format, (7.9, 1e30, -1e30, math.nan))
    bounds = np.iinfo(texture_format.dtype)
    expected = [7, bounds.max, bounds.min, 0][: texture_format.channels]
    assert (pixels.reshape(15, -1) == np.array(expected, texture_format.dtype)).all()


@pytest.mark.parametrize("texture_format", FLOAT, ids=lambda f: f.value)
def test_floats(device: NullDevice, texture_format: TextureFormat) -> None:
    color = (0.1, -2.5, 1e6, math.inf)
    pixels = cleared(device, texture_format, color)
    with np.errstate(over="ignore"):
        expected = np.array(color[: texture_format.channels]).astype(texture_format.dtype)
    assert (pixels.reshape(15, -1) == expected).all()


@pytest.mark.parametrize(
    "texture_format", [TextureFormat.RGBA8_UNORM_SRGB, TextureFormat.BGRA8_UNORM_SRGB]
)
@given(color=st.tuples(*[st.floats(0, 1)] * 4))
def test_srgb(texture_format: TextureFormat, color: Color) -> None:
    """The stored colour decodes to within half a step (in sRGB) of the colour asked for."""
    pixel = np.frombuffer(color_bytes(texture_format, color), np.uint8).astype(float)
    if texture_format is TextureFormat.BGRA8_UNORM_SRGB:
        pixel = pixel[[2, 1, 0, 3]]
    low, high = srgb_to_linear((pixel[:3] - 0.501) / 255), srgb_to_linear((pixel[:3] + 0.501) / 255)
    # The standard's two pieces meet only to about 1e-7.
    assert (low - 1e-7 <= color[:3]).all()
    assert (color[:3] <= high + 1e-7).all()
    assert abs(pixel[3] / 255 - color[3]) <= 0.501 / 255


def test_srgb_of_known_colors() -> None:
    pixel = color_bytes(TextureFormat.RGBA8_UNORM_SRGB, (0.0, 0.5, 1.0, 0.5))
    assert list(pixel) == [0, 188, 255, 128]
    assert list(color_bytes(TextureFormat.RGBA8_UNORM_SRGB, (-1.0, 2.0, math.nan, 9.0))) == [
        0, 255, 0, 255,
    ]  # fmt: skip


def test_packed_formats() -> None:
    word = int.from_bytes(color_bytes(TextureFormat.RGB10A2_UNORM, (1.0, 0.5, 0.0, 1.0)), "little")
    assert (word & 1023, word >> 10 & 1023, word >> 20 & 1023, word >> 30) == (1023, 512, 0, 3)
    word = int.from_bytes(color_bytes(TextureFormat.RGB10A2_UINT, (5, 1e9, -1, 2)), "little")
    assert (word & 1023, word >> 10 & 1023, word >> 20 & 1023, word >> 30) == (5, 1023, 0, 2)


def decode_small_float(bits: int, mantissa_bits: int) -> float:
    exponent, mantissa = bits >> mantissa_bits, bits & ((1 << mantissa_bits) - 1)
    if exponent == 31:
        return math.nan if mantissa else math.inf
    if exponent == 0:
        return mantissa * 2.0 ** (-14 - mantissa_bits)
    return (1 + mantissa / (1 << mantissa_bits)) * 2.0 ** (exponent - 15)


@given(st.floats(0, 64000, allow_subnormal=False))
def test_rg11b10_is_within_half_a_step(value: float) -> None:
    pixel = color_bytes(TextureFormat.RG11B10_UFLOAT, (value, 0.0, value, 1.0))
    word = int.from_bytes(pixel, "little")
    for bits, mantissa_bits in ((word & 2047, 6), (word >> 22, 5)):
        tolerance = max(value, 2.0**-14) * 2.0 ** -(mantissa_bits + 1)
        assert abs(decode_small_float(bits, mantissa_bits) - value) <= tolerance
    assert word >> 11 & 2047 == 0


def test_rg11b10_at_its_ends() -> None:
    def red(value: float) -> float:
        pixel = color_bytes(TextureFormat.RG11B10_UFLOAT, (value, 0.0, 0.0, 0.0))
        return decode_small_float(int.from_bytes(pixel, "little") & 2047, 6)

    assert red(-1.0) == 0.0
    assert red(65024.0) == 65024.0
    assert red(math.inf) == math.inf
    assert math.isnan(red(math.nan))


@given(st.floats(0, 1))
def test_depth_formats(depth: float) -> None:
    def stored(texture_format: TextureFormat, dtype: str) -> float:
        pixel = depth_bytes(texture_format, depth)
        assert pixel is not None
        assert len(pixel) == texture_format.bytes_per_pixel
        return float(np.frombuffer(pixel, dtype)[0])

    assert stored(TextureFormat.DEPTH32_FLOAT, "f4") == np.float32(depth)
    assert stored(TextureFormat.DEPTH32_FLOAT_STENCIL8, "f4") == np.float32(depth)
    assert abs(stored(TextureFormat.DEPTH16_UNORM, "u2") / 65535 - depth) <= 0.501 / 65535
    for texture_format in (TextureFormat.DEPTH24_PLUS, TextureFormat.DEPTH24_PLUS_STENCIL8):
        assert abs(stored(texture_format, "u4") / (2**24 - 1) - depth) <= 0.501 / 2**24


def test_clear_of_depth_and_of_nothing(device: NullDevice) -> None:
    frame = device.create_frame_buffer(4, 4, depth_format=TextureFormat.DEPTH32_FLOAT)
    assert frame.depth_texture is not None
    encoder = device.create_command_encoder()
    with encoder.begin_render_pass(frame, clear_color=(1, 0, 0, 1), clear_depth=0.25):
        pass
    with encoder.begin_render_pass(frame, clear_color=None, clear_depth=None):
        pass
    device.queue.submit([encoder.finish()])
    color = device.read_array_blocking(frame.color_textures[0])
    assert (color == [255, 0, 0, 255]).all()
    assert (device.read_array_blocking(frame.depth_texture) == 0.25).all()


@pytest.mark.parametrize("depth_format", [f for f in TextureFormat if f.is_depth])
def test_every_depth_format_can_be_cleared(device: NullDevice, depth_format: TextureFormat) -> None:
    frame = device.create_frame_buffer(4, 4, (), depth_format=depth_format)
    encoder = device.create_command_encoder()
    with encoder.begin_render_pass(frame, clear_depth=0.5):
        pass
    device.queue.submit([encoder.finish()]).wait()


def test_multisampled_targets_resolve_to_the_clear_color(device: NullDevice) -> None:
    frame = device.create_frame_buffer(4, 4, [TextureFormat.RGBA8_UNORM], sample_count=4)
    for clear in ((0.0, 1.0, 0.0, 1.0), None):
        encoder = device.create_command_encoder()
        with encoder.begin_render_pass(frame, clear_color=clear):
            pass
        device.queue.submit([encoder.finish()])
        assert (device.read_array_blocking(frame.color_textures[0]) == [0, 255, 0, 255]).all()


def test_clears_are_done_when_due(manual: NullDevice) -> None:
    frame = manual.create_frame_buffer(4, 4, [TextureFormat.RGBA8_UNORM])
    level = frame.color_textures[0].native_handle.level(0)
    encoder = manual.create_command_encoder()
    with encoder.begin_render_pass(frame, clear_color=(1, 1, 1, 1)):
        pass
    manual.queue.submit([encoder.finish()])
    assert not level.any()
    manual.clock.advance(100)
    assert (level == 255).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "rgb9e5ufloat"}, "rgb9e5ufloat cannot be a RENDER_ATTACHMENT"),
        ({"sample_count": 4, "layers": 2}, "has 1 layer and 1 mip level, not 2 and 1"),
        ({"sample_count": 4, "mip_levels": 2}, "has 1 layer and 1 mip level, not 1 and 2"),
        ({"sample_count": 4, "usage": TextureUsage.COPY_SRC}, "needs the usage RENDER_ATTACHMENT"),
    ],
)
def test_impossible_textures(device: NullDevice, changes: dict[str, Any], message: str) -> None:
    arguments = {"format": "rgba8unorm", "usage": TextureUsage.RENDER_ATTACHMENT, "label": "t"}
    with pytest.raises(ValidationError, match=f"texture 't'.*{message}"):
        device.create_texture(TextureDescriptor(4, 4, **(arguments | changes)))
