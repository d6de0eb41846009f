"""The same pixel format in Vulkan, OpenGL, Metal, WebGPU and NumPy.

One table, a row a format. The numbers are those of the headers; no API is needed to read them.
Each ``from_`` function returns the format that a number stands for, and is the inverse of its
partner wherever there is one.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import TypeVar

import attrs
import numpy as np
import numpy.typing as npt

from pers.errors import OperationNotSupportedError
from pers.textures import TextureFormat

__all__ = [
    "GL",
    "OpenGLFormat",
    "from_metal_pixel_format",
    "from_numpy",
    "from_opengl_format",
    "from_vulkan_format",
    "from_wgpu_format",
    "metal_pixel_format",
    "numpy_format",
    "opengl_format",
    "vulkan_format",
    "vulkan_format_name",
    "wgpu_format",
]

Key = TypeVar("Key")


class GL(enum.IntEnum):
    """The constants of OpenGL that the table uses, without their ``GL_`` (registry ``gl.xml``)."""

    R8 = 0x8229
    R8_SNORM = 0x8F94
    R8UI = 0x8232
    R8I = 0x8231
    R16 = 0x822A
    R16_SNORM = 0x8F98
    R16UI = 0x8234
    R16I = 0x8233
    R16F = 0x822D
    RG8 = 0x822B
    RG8_SNORM = 0x8F95
    RG8UI = 0x8238
    RG8I = 0x8237
    R32UI = 0x8236
    R32I = 0x8235
    R32F = 0x822E
    RG16 = 0x822C
    RG16_SNORM = 0x8F99
    RG16UI = 0x823A
    RG16I = 0x8239
    RG16F = 0x822F
    RGBA8 = 0x8058
    SRGB8_ALPHA8 = 0x8C43
    RGBA8_SNORM = 0x8F97
    RGBA8UI = 0x8D7C
    RGBA8I = 0x8D8E
    RGB9_E5 = 0x8C3D
    RGB10_A2UI = 0x906F
    RGB10_A2 = 0x8059
    R11F_G11F_B10F = 0x8C3A
    RG32UI = 0x823C
    RG32I = 0x823B
    RG32F = 0x8230
    RGBA16 = 0x805B
    RGBA16_SNORM = 0x8F9B
    RGBA16UI = 0x8D76
    RGBA16I = 0x8D88
    RGBA16F = 0x881A
    RGBA32UI = 0x8D70
    RGBA32I = 0x8D82
    RGBA32F = 0x8814
    STENCIL_INDEX8 = 0x8D48
    DEPTH_COMPONENT16 = 0x81A5
    DEPTH_COMPONENT24 = 0x81A6
    DEPTH24_STENCIL8 = 0x88F0
    DEPTH_COMPONENT32F = 0x8CAC
    DEPTH32F_STENCIL8 = 0x8CAD
    RED = 0x1903
    RED_INTEGER = 0x8D94
    RG = 0x8227
    RG_INTEGER = 0x8228
    RGBA = 0x1908
    RGBA_INTEGER = 0x8D99
    BGRA = 0x80E1
    RGB = 0x1907
    STENCIL_INDEX = 0x1901
    DEPTH_COMPONENT = 0x1902
    DEPTH_STENCIL = 0x84F9
    UNSIGNED_BYTE = 0x1401
    BYTE = 0x1400
    UNSIGNED_SHORT = 0x1403
    SHORT = 0x1402
    HALF_FLOAT = 0x140B
    UNSIGNED_INT = 0x1405
    INT = 0x1404
    FLOAT = 0x1406
    UNSIGNED_INT_5_9_9_9_REV = 0x8C3E
    UNSIGNED_INT_2_10_10_10_REV = 0x8368
    UNSIGNED_INT_10F_11F_11F_REV = 0x8C3B
    UNSIGNED_INT_24_8 = 0x84FA
    FLOAT_32_UNSIGNED_INT_24_8_REV = 0x8DAD


# VkFormat: Vulkan 1.3 §49.1. OpenGL: 4.6 core, tables 8.2 (type), 8.3 (format), 8.12 and 8.13
# (internal format). Metal: MTLPixelFormat in MTLPixelFormat.h.
#
# - BGRA has "-" for an internal format: OpenGL has none of its own. It keeps such pixels as RGBA8
#   (SRGB8_ALPHA8) and swaps red and blue in transfers; memory shared with it is not swapped.
# - depth24plus: "at least 24 bits". Vulkan and Metal have no such format on every GPU, so wgpu
#   takes 24 bits where there are, else 32-bit float. GPUs of Apple have only the latter, which is
#   why the Metal column says so; see `vulkan_format` for Vulkan.
# - VK_FORMAT_*_PACK32 and OpenGL's *_REV count channels from the lowest bit, as WebGPU does.
_TABLE = """
r8unorm                  9 R8_UNORM                 R8                 RED             UNSIGNED_BYTE                   10
r8snorm                 10 R8_SNORM                 R8_SNORM           RED             BYTE                            12
r8uint                  13 R8_UINT                  R8UI               RED_INTEGER     UNSIGNED_BYTE                   13
r8sint                  14 R8_SINT                  R8I                RED_INTEGER     BYTE                            14
r16unorm                70 R16_UNORM                R16                RED             UNSIGNED_SHORT                  20
r16snorm                71 R16_SNORM                R16_SNORM          RED             SHORT                           22
r16uint                 74 R16_UINT                 R16UI              RED_INTEGER     UNSIGNED_SHORT                  23
r16sint                 75 R16_SINT                 R16I               RED_INTEGER     SHORT                           24
r16float                76 R16_SFLOAT               R16F               RED             HALF_FLOAT                      25
rg8unorm                16 R8G8_UNORM               RG8                RG              UNSIGNED_BYTE                   30
rg8snorm                17 R8G8_SNORM               RG8_SNORM          RG              BYTE                            32
rg8uint                 20 R8G8_UINT                RG8UI              RG_INTEGER      UNSIGNED_BYTE                   33
rg8sint                 21 R8G8_SINT                RG8I               RG_INTEGER      BYTE                            34
r32uint                 98 R32_UINT                 R32UI              RED_INTEGER     UNSIGNED_INT                    53
r32sint                 99 R32_SINT                 R32I               RED_INTEGER     INT                             54
r32float               100 R32_SFLOAT               R32F               RED             FLOAT                           55
rg16unorm               77 R16G16_UNORM             RG16               RG              UNSIGNED_SHORT                  60
rg16snorm               78 R16G16_SNORM             RG16_SNORM         RG              SHORT                           62
rg16uint                81 R16G16_UINT              RG16UI             RG_INTEGER      UNSIGNED_SHORT                  63
rg16sint                82 R16G16_SINT              RG16I              RG_INTEGER      SHORT                           64
rg16float               83 R16G16_SFLOAT            RG16F              RG              HALF_FLOAT                      65
rgba8unorm              37 R8G8B8A8_UNORM           RGBA8              RGBA            UNSIGNED_BYTE                   70
rgba8unorm-srgb         43 R8G8B8A8_SRGB            SRGB8_ALPHA8       RGBA            UNSIGNED_BYTE                   71
rgba8snorm              38 R8G8B8A8_SNORM           RGBA8_SNORM        RGBA            BYTE                            72
rgba8uint               41 R8G8B8A8_UINT            RGBA8UI            RGBA_INTEGER    UNSIGNED_BYTE                   73
rgba8sint               42 R8G8B8A8_SINT            RGBA8I             RGBA_INTEGER    BYTE                            74
bgra8unorm              44 B8G8R8A8_UNORM           -                  BGRA            UNSIGNED_BYTE                   80
bgra8unorm-srgb         50 B8G8R8A8_SRGB            -                  BGRA            UNSIGNED_BYTE                   81
rgb9e5ufloat           123 E5B9G9R9_UFLOAT_PACK32   RGB9_E5            RGB             UNSIGNED_INT_5_9_9_9_REV        93
rgb10a2uint             68 A2B10G10R10_UINT_PACK32  RGB10_A2UI         RGBA_INTEGER    UNSIGNED_INT_2_10_10_10_REV     91
rgb10a2unorm            64 A2B10G10R10_UNORM_PACK32 RGB10_A2           RGBA            UNSIGNED_INT_2_10_10_10_REV     90
rg11b10ufloat          122 B10G11R11_UFLOAT_PACK32  R11F_G11F_B10F     RGB             UNSIGNED_INT_10F_11F_11F_REV    92
rg32uint               101 R32G32_UINT              RG32UI             RG_INTEGER      UNSIGNED_INT                   103
rg32sint               102 R32G32_SINT              RG32I              RG_INTEGER      INT                            104
rg32float              103 R32G32_SFLOAT            RG32F              RG              FLOAT                          105
rgba16unorm             91 R16G16B16A16_UNORM       RGBA16             RGBA            UNSIGNED_SHORT                 110
rgba16snorm             92 R16G16B16A16_SNORM       RGBA16_SNORM       RGBA            SHORT                          112
rgba16uint              95 R16G16B16A16_UINT        RGBA16UI           RGBA_INTEGER    UNSIGNED_SHORT                 113
rgba16sint              96 R16G16B16A16_SINT        RGBA16I            RGBA_INTEGER    SHORT                          114
rgba16float             97 R16G16B16A16_SFLOAT      RGBA16F            RGBA            HALF_FLOAT                     115
rgba32uint             107 R32G32B32A32_UINT        RGBA32UI           RGBA_INTEGER    UNSIGNED_INT                   123
rgba32sint             108 R32G32B32A32_SINT        RGBA32I            RGBA_INTEGER    INT                            124
rgba32float            109 R32G32B32A32_SFLOAT      RGBA32F            RGBA            FLOAT                          125
stencil8               127 S8_UINT                  STENCIL_INDEX8     STENCIL_INDEX   UNSIGNED_BYTE                  253
depth16unorm           124 D16_UNORM                DEPTH_COMPONENT16  DEPTH_COMPONENT UNSIGNED_SHORT                 250
depth24plus            125 X8_D24_UNORM_PACK32      DEPTH_COMPONENT24  DEPTH_COMPONENT UNSIGNED_INT                   252
depth24plus-stencil8   129 D24_UNORM_S8_UINT        DEPTH24_STENCIL8   DEPTH_STENCIL   UNSIGNED_INT_24_8              260
depth32float           126 D32_SFLOAT               DEPTH_COMPONENT32F DEPTH_COMPONENT FLOAT                          252
depth32float-stencil8  130 D32_SFLOAT_S8_UINT       DEPTH32F_STENCIL8  DEPTH_STENCIL   FLOAT_32_UNSIGNED_INT_24_8_REV 260
"""  # noqa: E501


@attrs.frozen
class OpenGLFormat:
    """What OpenGL calls a format.

    Attributes:
        internal: Of the texture (``glTexStorage2D``, ``glTexStorageMem2DEXT``); None for BGRA,
            which OpenGL stores as RGBA and only reads and writes in that order.
        format: Of pixels in a transfer (``glTexSubImage2D``).
        type: Of the items of a pixel in a transfer.
    """

    internal: GL | None
    format: GL
    type: GL


@attrs.frozen
class _Row:
    """What one line of the table says."""

    vulkan: int
    vulkan_name: str
    opengl: OpenGLFormat
    metal: int


def _row_of(fields: list[str]) -> _Row:
    number, name, internal, transfer, kind, metal = fields
    stored = None if internal == "-" else GL[internal]
    return _Row(
        int(number),
        f"VK_FORMAT_{name}",
        OpenGLFormat(stored, GL[transfer], GL[kind]),
        int(metal),
    )


_ROWS = {
    TextureFormat(name): _row_of(fields)
    for name, *fields in map(str.split, _TABLE.strip().splitlines())
}
_D24_FALLBACK = {
    TextureFormat.DEPTH24_PLUS: TextureFormat.DEPTH32_FLOAT,
    TextureFormat.DEPTH24_PLUS_STENCIL8: TextureFormat.DEPTH32_FLOAT_STENCIL8,
}
_FROM_WGPU = {texture_format.value: texture_format for texture_format in TextureFormat}
_FROM_VULKAN = {row.vulkan: texture_format for texture_format, row in _ROWS.items()}
_FROM_OPENGL = {
    int(row.opengl.internal): texture_format
    for texture_format, row in _ROWS.items()
    if row.opengl.internal is not None
}
# Two formats are Depth32Float there; it stands for the one that says so.
_FROM_METAL = {
    row.metal: texture_format
    for texture_format, row in _ROWS.items()
    if texture_format not in _D24_FALLBACK
}


def vulkan_format(texture_format: TextureFormat, *, has_d24: bool = True) -> int:
    """Return the number of the ``VkFormat``.

    Args:
        texture_format: The format.
        has_d24: Whether the GPU has 24-bit depth (``VK_FORMAT_X8_D24_UNORM_PACK32``, or
            ``VK_FORMAT_D24_UNORM_S8_UINT`` with stencil). Without it, the formats `DEPTH24_PLUS`
            and `DEPTH24_PLUS_STENCIL8` have 32-bit floats, as in wgpu.
    """
    if not has_d24:
        texture_format = _D24_FALLBACK.get(texture_format, texture_format)
    return _ROWS[texture_format].vulkan


def vulkan_format_name(texture_format: TextureFormat) -> str:
    """Return the name of the ``VkFormat``, such as ``"VK_FORMAT_R8_UNORM"``."""
    return _ROWS[texture_format].vulkan_name


def from_vulkan_format(number: int) -> TextureFormat:
    """Return the format that a ``VkFormat`` stands for.

    Raises:
        OperationNotSupportedError: WebGPU has no such format.
    """
    return _look_up(_FROM_VULKAN, number, f"VkFormat {number}")


def opengl_format(texture_format: TextureFormat) -> OpenGLFormat:
    """Return the constants of OpenGL."""
    return _ROWS[texture_format].opengl


def from_opengl_format(internal: int) -> TextureFormat:
    """Return the format that a sized internal format of OpenGL stands for.

    Raises:
        OperationNotSupportedError: WebGPU has no such format, or it has no size (``GL_RGBA``).
    """
    return _look_up(_FROM_OPENGL, internal, f"the OpenGL internal format {internal:#06x}")


def metal_pixel_format(texture_format: TextureFormat) -> int:
    """Return the number of the ``MTLPixelFormat``."""
    return _ROWS[texture_format].metal


def from_metal_pixel_format(number: int) -> TextureFormat:
    """Return the format that a ``MTLPixelFormat`` stands for.

    Raises:
        OperationNotSupportedError: WebGPU has no such format.
    """
    return _look_up(_FROM_METAL, number, f"MTLPixelFormat {number}")


def wgpu_format(texture_format: TextureFormat) -> str:
    """Return WebGPU's name, such as ``"rgba8unorm"``."""
    return texture_format.value


def from_wgpu_format(name: str) -> TextureFormat:
    """Return the format that WebGPU calls `name`.

    Raises:
        OperationNotSupportedError: There is none, or it is compressed.
    """
    return _look_up(_FROM_WGPU, name, f"the WebGPU format {name!r}")


def numpy_format(texture_format: TextureFormat) -> tuple[np.dtype[np.generic], int]:
    """Return the NumPy type of an item and how many items make a pixel."""
    return texture_format.dtype, texture_format.channels


def from_numpy(
    dtype: npt.DTypeLike, channels: int = 1, *, normalized: bool = True
) -> TextureFormat:
    """Return the colour format for arrays of shape ``(height, width[, channels])``.

    Packed, BGRA, sRGB and depth formats are never meant; name those.

    Args:
        dtype: Type of the items: integers or floats of the machine's byte order.
        channels: Items in a pixel.
        normalized: Whether shaders see integers of 8 and 16 bits as 0 to 1 (-1 to 1 when signed)
            and not as integers. Those of 32 bits they can only see as integers.

    Raises:
        OperationNotSupportedError: WebGPU has no such format.
    """
    kind = np.dtype(dtype)
    letters = {1: "r", 2: "rg", 4: "rgba"}.get(channels, "")
    scaled = normalized and kind.itemsize < 4
    suffix = {
        "u": "unorm" if scaled else "uint",
        "i": "snorm" if scaled else "sint",
        "f": "float",
    }.get(kind.kind, "")
    name = f"{letters}{kind.itemsize * 8}{suffix}"
    formats = {
        texture_format.value: texture_format
        for texture_format in TextureFormat
        if texture_format.dtype == kind and texture_format.channels == channels
    }
    if name not in formats:
        raise OperationNotSupportedError(
            f"no texture format has {channels} channels of {kind.str}; there are 1, 2 and 4 "
            "channels of integers of 8, 16 and 32 bits and of floats of 16 and 32 bits: "
            "convert the array (pixels.astype), or add a channel"
        )
    return formats[name]


def _look_up(formats: Mapping[Key, TextureFormat], key: Key, what: str) -> TextureFormat:
    found = formats.get(key)
    if found is None:
        raise OperationNotSupportedError(
            f"{what} is none of the uncompressed formats of WebGPU; "
            "convert the pixels to one that pers.TextureFormat lists"
        )
    return found
