"""The table of formats, every row of it, against what the APIs themselves say."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from pers import TextureFormat
from pers.errors import OperationNotSupportedError
from pers.sharing.formats import (
    GL,
    from_metal_pixel_format,
    from_numpy,
    from_opengl_format,
    from_vulkan_format,
    from_wgpu_format,
    metal_pixel_format,
    numpy_format,
    opengl_format,
    vulkan_format,
    vulkan_format_name,
    wgpu_format,
)

F = TextureFormat
EVERY = pytest.mark.parametrize("texture_format", F, ids=lambda member: member.value)
BGRA = {F.BGRA8_UNORM, F.BGRA8_UNORM_SRGB}
D24 = {F.DEPTH24_PLUS: F.DEPTH32_FLOAT, F.DEPTH24_PLUS_STENCIL8: F.DEPTH32_FLOAT_STENCIL8}

# What textures could be shared in before there was a table.
# fmt: off
NAMED_IN_THE_CONTRACT = [
    "rgba8unorm", "bgra8unorm", "rgba8unorm-srgb",
    "bgra8unorm-srgb", "r8unorm", "rg8unorm",
    "r16float", "rg16float", "rgba16float",
    "r16uint", "r16sint", "r32float",
    "rg32float", "rgba32float", "r32uint",
    "r32sint", "depth32float", "depth24plus",
    "depth24plus-stencil8", "rgb10a2unorm", "rg11b10ufloat",
]
# fmt: on

# From the registry of OpenGL (gl.xml).
REGISTRY = {
    "GL_R8": 0x8229,
    "GL_R8_SNORM": 0x8F94,
    "GL_R8UI": 0x8232,
    "GL_R8I": 0x8231,
    "GL_R16": 0x822A,
    "GL_R16_SNORM": 0x8F98,
    "GL_R16UI": 0x8234,
    "GL_R16I": 0x8233,
    "GL_R16F": 0x822D,
    "GL_RG8": 0x822B,
    "GL_RG8_SNORM": 0x8F95,
    "GL_RG8UI": 0x8238,
    "GL_RG8I": 0x8237,
    "GL_R32UI": 0x8236,
    "GL_R32I": 0x8235,
    "GL_R32F": 0x822E,
    "GL_RG16": 0x822C,
    "GL_RG16_SNORM": 0x8F99,
    "GL_RG16UI": 0x823A,
    "GL_RG16I": 0x8239,
    "GL_RG16F": 0x822F,
    "GL_RGBA8": 0x8058,
    "GL_SRGB8_ALPHA8": 0x8C43,
    "GL_RGBA8_SNORM": 0x8F97,
    "GL_RGBA8UI": 0x8D7C,
    "GL_RGBA8I": 0x8D8E,
    "GL_RGB9_E5": 0x8C3D,
    "GL_RGB10_A2UI": 0x906F,
    "GL_RGB10_A2": 0x8059,
    "GL_R11F_G11F_B10F": 0x8C3A,
    "GL_RG32UI": 0x823C,
    "GL_RG32I": 0x823B,
    "GL_RG32F": 0x8230,
    "GL_RGBA16": 0x805B,
    "GL_RGBA16_SNORM": 0x8F9B,
    "GL_RGBA16UI": 0x8D76,
    "GL_RGBA16I": 0x8D88,
    "GL_RGBA16F": 0x881A,
    "GL_RGBA32UI": 0x8D70,
    "GL_RGBA32I": 0x8D82,
    "GL_RGBA32F": 0x8814,
    "GL_STENCIL_INDEX8": 0x8D48,
    "GL_DEPTH_COMPONENT16": 0x81A5,
    "GL_DEPTH_COMPONENT24": 0x81A6,
    "GL_DEPTH24_STENCIL8": 0x88F0,
    "GL_DEPTH_COMPONENT32F": 0x8CAC,
    "GL_DEPTH32F_STENCIL8": 0x8CAD,
    "GL_RED": 0x1903,
    "GL_RED_INTEGER": 0x8D94,
    "GL_RG": 0x8227,
    "GL_RG_INTEGER": 0x8228,
    "GL_RGBA": 0x1908,
    "GL_RGBA_INTEGER": 0x8D99,
    "GL_BGRA": 0x80E1,
    "GL_RGB": 0x1907,
    "GL_STENCIL_INDEX": 0x1901,
    "GL_DEPTH_COMPONENT": 0x1902,
    "GL_DEPTH_STENCIL": 0x84F9,
    "GL_UNSIGNED_BYTE": 0x1401,
    "GL_BYTE": 0x1400,
    "GL_UNSIGNED_SHORT": 0x1403,
    "GL_SHORT": 0x1402,
    "GL_HALF_FLOAT": 0x140B,
    "GL_UNSIGNED_INT": 0x1405,
    "GL_INT": 0x1404,
    "GL_FLOAT": 0x1406,
    "GL_UNSIGNED_INT_5_9_9_9_REV": 0x8C3E,
    "GL_UNSIGNED_INT_2_10_10_10_REV": 0x8368,
    "GL_UNSIGNED_INT_10F_11F_11F_REV": 0x8C3B,
    "GL_UNSIGNED_INT_24_8": 0x84FA,
    "GL_FLOAT_32_UNSIGNED_INT_24_8_REV": 0x8DAD,
}

# From MTLPixelFormat.h; the two that do not say what the format says are Apple's 32-bit depths.
MTL_PIXEL_FORMAT = {
    F.R8_UNORM: ("R8Unorm", 10),
    F.R8_SNORM: ("R8Snorm", 12),
    F.R8_UINT: ("R8Uint", 13),
    F.R8_SINT: ("R8Sint", 14),
    F.R16_UNORM: ("R16Unorm", 20),
    F.R16_SNORM: ("R16Snorm", 22),
    F.R16_UINT: ("R16Uint", 23),
    F.R16_SINT: ("R16Sint", 24),
    F.R16_FLOAT: ("R16Float", 25),
    F.RG8_UNORM: ("RG8Unorm", 30),
    F.RG8_SNORM: ("RG8Snorm", 32),
    F.RG8_UINT: ("RG8Uint", 33),
    F.RG8_SINT: ("RG8Sint", 34),
    F.R32_UINT: ("R32Uint", 53),
    F.R32_SINT: ("R32Sint", 54),
    F.R32_FLOAT: ("R32Float", 55),
    F.RG16_UNORM: ("RG16Unorm", 60),
    F.RG16_SNORM: ("RG16Snorm", 62),
    F.RG16_UINT: ("RG16Uint", 63),
    F.RG16_SINT: ("RG16Sint", 64),
    F.RG16_FLOAT: ("RG16Float", 65),
    F.RGBA8_UNORM: ("RGBA8Unorm", 70),
    F.RGBA8_UNORM_SRGB: ("RGBA8Unorm_sRGB", 71),
    F.RGBA8_SNORM: ("RGBA8Snorm", 72),
    F.RGBA8_UINT: ("RGBA8Uint", 73),
    F.RGBA8_SINT: ("RGBA8Sint", 74),
    F.BGRA8_UNORM: ("BGRA8Unorm", 80),
    F.BGRA8_UNORM_SRGB: ("BGRA8Unorm_sRGB", 81),
    F.RGB9E5_UFLOAT: ("RGB9E5Float", 93),
    F.RGB10A2_UINT: ("RGB10A2Uint", 91),
    F.RGB10A2_UNORM: ("RGB10A2Unorm", 90),
    F.RG11B10_UFLOAT: ("RG11B10Float", 92),
    F.RG32_UINT: ("RG32Uint", 103),
    F.RG32_SINT: ("RG32Sint", 104),
    F.RG32_FLOAT: ("RG32Float", 105),
    F.RGBA16_UNORM: ("RGBA16Unorm", 110),
    F.RGBA16_SNORM: ("RGBA16Snorm", 112),
    F.RGBA16_UINT: ("RGBA16Uint", 113),
    F.RGBA16_SINT: ("RGBA16Sint", 114),
    F.RGBA16_FLOAT: ("RGBA16Float", 115),
    F.RGBA32_UINT: ("RGBA32Uint", 123),
    F.RGBA32_SINT: ("RGBA32Sint", 124),
    F.RGBA32_FLOAT: ("RGBA32Float", 125),
    F.STENCIL8: ("Stencil8", 253),
    F.DEPTH16_UNORM: ("Depth16Unorm", 250),
    F.DEPTH24_PLUS: ("Depth32Float", 252),
    F.DEPTH24_PLUS_STENCIL8: ("Depth32Float_Stencil8", 260),
    F.DEPTH32_FLOAT: ("Depth32Float", 252),
    F.DEPTH32_FLOAT_STENCIL8: ("Depth32Float_Stencil8", 260),
}


def ordinary(texture_format: TextureFormat) -> tuple[str, int, str, bool] | None:
    """Letters, bits, kind and sRGB of a format whose name says it all."""
    match = re.fullmatch(r"([rgba]+)(8|16|32)([usfi][a-z]+)(-srgb)?", texture_format.value)
    return match and (match[1], int(match[2]), match[3], bool(match[4]))


# --- Vulkan ---------------------------------------------------------------------------------------


@EVERY
def test_vulkan_number_is_that_of_the_name(texture_format: TextureFormat) -> None:
    vulkan: Any = pytest.importorskip("vulkan", reason="pers[vulkan] is not installed")
    name = vulkan_format_name(texture_format)
    assert getattr(vulkan, name) == vulkan_format(texture_format)


@EVERY
def test_vulkan_name_says_what_the_format_says(texture_format: TextureFormat) -> None:
    parts = ordinary(texture_format)
    name = vulkan_format_name(texture_format)
    if parts is None:
        packed = {"rgb9e5ufloat", "rgb10a2uint", "rgb10a2unorm", "rg11b10ufloat", "depth24plus"}
        assert name.endswith("_PACK32") == (texture_format.value in packed)
        numbers = sorted(re.findall(r"\d+", texture_format.value))
        assert all(number in re.findall(r"\d+", name) for number in numbers)
        return
    letters, bits, kind, srgb = parts
    channels = "".join(f"{letter.upper()}{bits}" for letter in letters)
    kinds = {"float": "SFLOAT"}
    assert name == f"VK_FORMAT_{channels}_{'SRGB' if srgb else kinds.get(kind, kind.upper())}"


@EVERY
def test_vulkan_both_ways(texture_format: TextureFormat) -> None:
    assert from_vulkan_format(vulkan_format(texture_format)) is texture_format
    without_d24 = vulkan_format(texture_format, has_d24=False)
    assert from_vulkan_format(without_d24) is D24.get(texture_format, texture_format)


@pytest.mark.parametrize("number", [0, 23, 51, 131, 1000066000, -1])
def test_vulkan_format_without_counterpart(number: int) -> None:
    with pytest.raises(OperationNotSupportedError, match=rf"VkFormat {number} .* convert"):
        from_vulkan_format(number)


# --- OpenGL ---------------------------------------------------------------------------------------


def test_opengl_constants_are_those_of_the_registry() -> None:
    assert {f"GL_{member.name}": member.value for member in GL} == REGISTRY


def test_opengl_constants_are_those_of_pyopengl() -> None:
    gl: Any = pytest.importorskip("OpenGL.GL", reason="PyOpenGL is not installed")
    assert {name: int(getattr(gl, name)) for name in REGISTRY} == REGISTRY


@EVERY
def test_opengl_internal_format_says_what_the_format_says(texture_format: TextureFormat) -> None:
    parts = ordinary(texture_format)
    internal = opengl_format(texture_format).internal
    if texture_format in BGRA:
        assert internal is None
        return
    assert internal is not None
    if parts is None or parts[3]:
        numbers = re.findall(r"\d+", texture_format.value.replace("depth24plus-", "depth24"))
        assert re.findall(r"\d+", internal.name.replace("F_", "_").replace("ALPHA8", ""))
        assert set(numbers) <= set(re.findall(r"\d+", internal.name))
        return
    letters, bits, kind, _ = parts
    suffix = {"unorm": "", "snorm": "_SNORM", "uint": "UI", "sint": "I", "float": "F"}[kind]
    assert internal.name == f"{letters.upper()}{bits}{suffix}"


# Bytes of an item of each type, and how many items a pixel has of each format (OpenGL 4.6 §8.4).
TYPE_SIZE = {
    GL.UNSIGNED_BYTE: 1,
    GL.BYTE: 1,
    GL.UNSIGNED_SHORT: 2,
    GL.SHORT: 2,
    GL.HALF_FLOAT: 2,
    GL.UNSIGNED_INT: 4,
    GL.INT: 4,
    GL.FLOAT: 4,
}
PACKED_SIZE = {
    GL.UNSIGNED_INT_5_9_9_9_REV: 4,
    GL.UNSIGNED_INT_2_10_10_10_REV: 4,
    GL.UNSIGNED_INT_10F_11F_11F_REV: 4,
    GL.UNSIGNED_INT_24_8: 4,
    GL.FLOAT_32_UNSIGNED_INT_24_8_REV: 8,
}
PACKED_FORMATS = {
    GL.UNSIGNED_INT_5_9_9_9_REV: {GL.RGB},
    GL.UNSIGNED_INT_2_10_10_10_REV: {GL.RGBA, GL.RGBA_INTEGER},
    GL.UNSIGNED_INT_10F_11F_11F_REV: {GL.RGB},
    GL.UNSIGNED_INT_24_8: {GL.DEPTH_STENCIL},
    GL.FLOAT_32_UNSIGNED_INT_24_8_REV: {GL.DEPTH_STENCIL},
}
ITEMS = {
    GL.RED: 1,
    GL.RED_INTEGER: 1,
    GL.RG: 2,
    GL.RG_INTEGER: 2,
    GL.RGBA: 4,
    GL.RGBA_INTEGER: 4,
    GL.BGRA: 4,
    GL.STENCIL_INDEX: 1,
    GL.DEPTH_COMPONENT: 1,
}


@EVERY
def test_opengl_transfer_has_the_bytes_of_a_pixel(texture_format: TextureFormat) -> None:
    row = opengl_format(texture_format)
    size = PACKED_SIZE.get(row.type) or TYPE_SIZE[row.type] * ITEMS[row.format]
    assert size == texture_format.bytes_per_pixel
    assert row.format in PACKED_FORMATS.get(row.type, ITEMS)
    integer = texture_format.value.endswith(("uint", "sint"))
    assert row.format.name.endswith("_INTEGER") == integer
    if row.type in TYPE_SIZE and not texture_format.is_depth:
        assert ITEMS[row.format] == texture_format.channels
        kind = texture_format.dtype.kind
        assert ("FLOAT" in row.type.name) == (kind == "f")
        assert row.type.name.startswith("UNSIGNED") == (kind == "u")


@EVERY
def test_opengl_both_ways(texture_format: TextureFormat) -> None:
    internal = opengl_format(texture_format).internal
    if internal is not None:
        assert from_opengl_format(internal) is texture_format
        assert from_opengl_format(int(internal)) is texture_format


def test_opengl_stores_bgra_as_rgba() -> None:
    assert {member for member in F if opengl_format(member).internal is None} == BGRA
    assert {opengl_format(member).format for member in BGRA} == {GL.BGRA}
    assert from_opengl_format(GL.RGBA8) is F.RGBA8_UNORM
    assert from_opengl_format(GL.SRGB8_ALPHA8) is F.RGBA8_UNORM_SRGB


@pytest.mark.parametrize("number", [0, GL.RGBA, GL.BGRA, 0x8051, 0x83F0, -1])
def test_opengl_format_without_counterpart(number: int) -> None:
    with pytest.raises(OperationNotSupportedError, match="OpenGL internal format .* convert"):
        from_opengl_format(number)


# --- Metal ----------------------------------------------------------------------------------------


@EVERY
def test_metal_number_is_that_of_the_header(texture_format: TextureFormat) -> None:
    name, number = MTL_PIXEL_FORMAT[texture_format]
    assert metal_pixel_format(texture_format) == number
    parts = ordinary(texture_format)
    if parts is not None:
        letters, bits, kind, srgb = parts
        assert name == f"{letters.upper()}{bits}{kind.capitalize()}{'_sRGB' if srgb else ''}"


def test_metal_numbers_are_those_of_pyobjc() -> None:
    metal: Any = pytest.importorskip("Metal", reason="needs macOS and pers[metal]")
    for texture_format, (name, _) in MTL_PIXEL_FORMAT.items():
        assert getattr(metal, f"MTLPixelFormat{name}") == metal_pixel_format(texture_format)


@EVERY
def test_metal_both_ways(texture_format: TextureFormat) -> None:
    found = from_metal_pixel_format(metal_pixel_format(texture_format))
    assert found is D24.get(texture_format, texture_format)


@pytest.mark.parametrize("number", [0, 1, 11, 40, 255, 500, -1])
def test_metal_format_without_counterpart(number: int) -> None:
    with pytest.raises(OperationNotSupportedError, match=f"MTLPixelFormat {number} .* convert"):
        from_metal_pixel_format(number)


# --- WebGPU ---------------------------------------------------------------------------------------


@EVERY
def test_wgpu_both_ways(texture_format: TextureFormat) -> None:
    import wgpu

    name = wgpu_format(texture_format)
    assert name in list(wgpu.TextureFormat)
    assert from_wgpu_format(name) is texture_format


def test_every_uncompressed_wgpu_format_is_there() -> None:
    import wgpu

    compressed = ("bc", "etc2", "eac", "astc")
    # Of native wgpu and not of WebGPU: a video format.
    others = {name for name in wgpu.TextureFormat if name.startswith((*compressed, "nv12", "p010"))}
    assert {wgpu_format(member) for member in F} == set(wgpu.TextureFormat) - others


@pytest.mark.parametrize("name", ["", "rgba8", "RGBA8UNORM", "bc1-rgba-unorm", "rgb8unorm"])
def test_wgpu_format_without_counterpart(name: str) -> None:
    with pytest.raises(OperationNotSupportedError, match="convert"):
        from_wgpu_format(name)


def test_the_formats_of_the_contract_are_there() -> None:
    assert len({from_wgpu_format(name) for name in NAMED_IN_THE_CONTRACT}) == 21


# --- NumPy ----------------------------------------------------------------------------------------


@EVERY
def test_numpy_items_make_a_pixel(texture_format: TextureFormat) -> None:
    dtype, channels = numpy_format(texture_format)
    assert dtype.itemsize * channels == texture_format.bytes_per_pixel
    parts = ordinary(texture_format)
    if parts is not None:
        letters, bits, kind, _ = parts
        assert channels == len(letters)
        assert dtype.itemsize * 8 == bits
        assert dtype.kind == {"unorm": "u", "uint": "u", "float": "f"}.get(kind, "i")


@EVERY
def test_numpy_both_ways(texture_format: TextureFormat) -> None:
    """An array means the plain colour format: no packed, BGRA, sRGB or depth one."""
    parts = ordinary(texture_format)
    dtype, channels = numpy_format(texture_format)
    normalized = texture_format.value.endswith("norm")
    meant = parts is not None and not parts[3] and parts[0] in ("r", "rg", "rgba")
    assert (from_numpy(dtype, channels, normalized=normalized) is texture_format) == meant


def test_numpy_chooses_by_normalized() -> None:
    assert from_numpy(np.uint8, 4) is F.RGBA8_UNORM
    assert from_numpy("i2", 2) is F.RG16_SNORM
    assert from_numpy("i2", 2, normalized=False) is F.RG16_SINT
    assert from_numpy(np.uint32) is from_numpy(np.uint32, normalized=False) is F.R32_UINT
    assert from_numpy(np.float32) is F.R32_FLOAT


@pytest.mark.parametrize(
    ("dtype", "channels"),
    [
        ("u1", 3),
        ("u1", 0),
        ("u1", 5),
        ("f8", 1),
        ("u8", 1),
        ("c8", 1),
        ("?", 1),
        (">f4", 1),
        ("S1", 1),
        ("f4,f4", 1),
    ],
)
def test_numpy_array_without_counterpart(dtype: str, channels: int) -> None:
    with pytest.raises(OperationNotSupportedError, match=f"{channels} channels of .*astype"):
        from_numpy(dtype, channels)
