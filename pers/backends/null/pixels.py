"""Colours and depths as the bytes of a pixel (WebGPU §26.1)."""

from __future__ import annotations

import math
import re

import numpy as np

from pers.textures import TextureFormat

Color = tuple[float, float, float, float]


def color_bytes(texture_format: TextureFormat, color: Color) -> bytes:
    """Return a pixel of `texture_format` that holds `color` (linear red, green, blue, alpha)."""
    channels = dict(zip("rgba", color, strict=True))
    name = texture_format.value
    if name == "rgb10a2unorm":
        return _pack([_scale(channels[c], 0.0, 1023 if c in "rgb" else 3) for c in "rgba"])
    if name == "rgb10a2uint":
        return _pack([_whole(channels[c], 0, 1023 if c in "rgb" else 3) for c in "rgba"])
    if name == "rg11b10ufloat":
        red, green, blue = (_small_float(channels[c], 6 if c in "rg" else 5) for c in "rgb")
        return (red | green << 11 | blue << 22).to_bytes(4, "little")
    match = re.fullmatch(r"([rgba]+)(\d+)(unorm|snorm|uint|sint|float)(-srgb)?", name)
    assert match is not None, name
    letters, bits, kind, srgb = match.groups()
    if srgb:
        channels.update({c: _srgb(channels[c]) for c in "rgb"})
    values = [_channel(channels[letter], kind, int(bits)) for letter in letters]
    with np.errstate(over="ignore"):  # float16 has an infinity for what is too large
        return np.array(values).astype(texture_format.dtype).tobytes()


def depth_bytes(texture_format: TextureFormat, depth: float) -> bytes | None:
    """Return a pixel of `texture_format` that holds `depth`; None when it holds none."""
    match texture_format:
        case TextureFormat.DEPTH32_FLOAT:
            return np.float32(depth).tobytes()
        case TextureFormat.DEPTH32_FLOAT_STENCIL8:
            return np.float32(depth).tobytes() + bytes(4)
        case TextureFormat.DEPTH16_UNORM:
            return np.uint16(_scale(depth, 0.0, 2**16 - 1)).tobytes()
        case TextureFormat.DEPTH24_PLUS | TextureFormat.DEPTH24_PLUS_STENCIL8:
            return np.uint32(_scale(depth, 0.0, 2**24 - 1)).tobytes()
        case _:
            return None


def _channel(value: float, kind: str, bits: int) -> float:
    match kind:
        case "unorm":
            return _scale(value, 0.0, 2**bits - 1)
        case "snorm":
            return _scale(value, -1.0, 2 ** (bits - 1) - 1)
        case "uint":
            return _whole(value, 0, 2**bits - 1)
        case "sint":
            return _whole(value, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        case _:
            return value


def _scale(value: float, lowest: float, largest: int) -> int:
    """Return a value of `lowest` to 1 as the nearest step of `largest` steps."""
    return 0 if math.isnan(value) else round(min(max(value, lowest), 1.0) * largest)


def _whole(value: float, lowest: int, largest: int) -> int:
    """Return a value without its fraction, within bounds."""
    return 0 if math.isnan(value) else int(min(max(value, lowest), largest))


def _srgb(linear: float) -> float:
    if not linear > 0.0031308:
        return 12.92 * linear
    return 1.055 * math.pow(min(linear, 1.0), 1 / 2.4) - 0.055


def _small_float(value: float, mantissa: int) -> int:
    """Return the bits of an unsigned float with 5 exponent bits, like float16 without its sign."""
    if math.isnan(value):
        return 31 << mantissa | 1
    value = min(max(value, 0.0), 65536.0)
    exponent = max(math.frexp(value)[1] - 1, -14)
    step = 2.0 ** (exponent - mantissa)
    with np.errstate(over="ignore"):
        nearest = np.float16(round(value / step) * step)
    return int(nearest.view(np.uint16)) >> (10 - mantissa)


def _pack(channels: list[int]) -> bytes:
    red, green, blue, alpha = channels
    return (red | green << 10 | blue << 20 | alpha << 30).to_bytes(4, "little")
