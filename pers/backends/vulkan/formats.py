"""Texture formats and usages as Vulkan names them, both ways."""

from __future__ import annotations

import re

from pers.backends.vulkan._ffi import vk
from pers.textures import TextureFormat, TextureUsage

__all__ = ["aspects_of", "from_vk_format", "image_usage", "to_vk_format"]

_SPECIAL = {
    TextureFormat.RGB9E5_UFLOAT: "E5B9G9R9_UFLOAT_PACK32",
    TextureFormat.RGB10A2_UINT: "A2B10G10R10_UINT_PACK32",
    TextureFormat.RGB10A2_UNORM: "A2B10G10R10_UNORM_PACK32",
    TextureFormat.RG11B10_UFLOAT: "B10G11R11_UFLOAT_PACK32",
    TextureFormat.STENCIL8: "S8_UINT",
    TextureFormat.DEPTH16_UNORM: "D16_UNORM",
    # Drivers may have only one of the 24-bit formats and D32; none of them can be copied as a
    # whole, so they are in no capabilities, and the map names the format of the same layout.
    TextureFormat.DEPTH24_PLUS: "X8_D24_UNORM_PACK32",
    TextureFormat.DEPTH24_PLUS_STENCIL8: "D24_UNORM_S8_UINT",
    TextureFormat.DEPTH32_FLOAT: "D32_SFLOAT",
    TextureFormat.DEPTH32_FLOAT_STENCIL8: "D32_SFLOAT_S8_UINT",
}


def _name(texture_format: TextureFormat) -> str:
    special = _SPECIAL.get(texture_format)
    if special is not None:
        return special
    match = re.fullmatch(r"([rgba]+)(\d+)(\w+?)(-srgb)?", texture_format.value)
    assert match is not None, texture_format
    letters, bits, kind, srgb = match.groups()
    channels = "".join(f"{letter.upper()}{bits}" for letter in letters)
    return f"{channels}_{'SRGB' if srgb else 'SFLOAT' if kind == 'float' else kind.upper()}"


_TO_VK: dict[TextureFormat, int] = {
    texture_format: getattr(vk, f"VK_FORMAT_{_name(texture_format)}")
    for texture_format in TextureFormat
}
_FROM_VK = {number: texture_format for texture_format, number in _TO_VK.items()}

_USAGES = {
    TextureUsage.COPY_SRC: vk.VK_IMAGE_USAGE_TRANSFER_SRC_BIT,
    TextureUsage.COPY_DST: vk.VK_IMAGE_USAGE_TRANSFER_DST_BIT,
    TextureUsage.TEXTURE_BINDING: vk.VK_IMAGE_USAGE_SAMPLED_BIT,
    TextureUsage.STORAGE_BINDING: vk.VK_IMAGE_USAGE_STORAGE_BIT,
}


def to_vk_format(texture_format: TextureFormat) -> int:
    """Return the `VkFormat` of a format."""
    return _TO_VK[texture_format]


def from_vk_format(number: int) -> TextureFormat | None:
    """Return the format of a `VkFormat`, or None when WebGPU has none like it."""
    return _FROM_VK.get(number)


def aspects_of(texture_format: TextureFormat) -> int:
    """Return the `VkImageAspectFlags` of all that a format stores."""
    name = _name(texture_format)
    if not texture_format.is_depth:
        return int(vk.VK_IMAGE_ASPECT_COLOR_BIT)
    depth = vk.VK_IMAGE_ASPECT_DEPTH_BIT if "D" in name.split("_UINT")[0] else 0
    stencil = vk.VK_IMAGE_ASPECT_STENCIL_BIT if "S8" in name else 0
    return int(depth | stencil)


def image_usage(texture_format: TextureFormat, usage: TextureUsage) -> int:
    """Return the `VkImageUsageFlags` for a usage; copies are always possible."""
    flags = vk.VK_IMAGE_USAGE_TRANSFER_SRC_BIT | vk.VK_IMAGE_USAGE_TRANSFER_DST_BIT
    for bit, flag in _USAGES.items():
        flags |= flag if usage & bit else 0
    if usage & TextureUsage.RENDER_ATTACHMENT:
        flags |= (
            vk.VK_IMAGE_USAGE_DEPTH_STENCIL_ATTACHMENT_BIT
            if texture_format.is_depth
            else vk.VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT
        )
    return int(flags)
