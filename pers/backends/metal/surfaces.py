"""Which textures an ``IOSurface`` can hold, and how."""

from __future__ import annotations

from typing import Any

from pers._checks import align_up
from pers.backends.metal._objc import Metal
from pers.errors import InvalidTextureHandleError, OperationNotSupportedError, OutOfMemoryError
from pers.graphics.types import TextureDescriptor
from pers.sharing.formats import metal_pixel_format
from pers.textures import TextureFormat, TextureUsage

__all__ = ["SURFACE_FORMATS", "check_surface", "check_texture", "create_surface", "texture_usage"]

F = TextureFormat

# The surface's own name for its pixels: the kCVPixelFormatType_* of CVPixelBuffer.h that has the
# same bytes. What has none (integers, signed and packed formats, depth) is not shared: another
# program could not tell what it holds.
SURFACE_FORMATS = {
    F.R8_UNORM: "L008",
    F.RG8_UNORM: "2C08",
    F.RGBA8_UNORM: "RGBA",
    F.RGBA8_UNORM_SRGB: "RGBA",
    F.BGRA8_UNORM: "BGRA",
    F.BGRA8_UNORM_SRGB: "BGRA",
    F.R16_UNORM: "L016",
    F.RG16_UNORM: "2C16",
    F.RGBA16_UNORM: "l64r",
    F.R16_FLOAT: "L00h",
    F.RG16_FLOAT: "2C0h",
    F.RGBA16_FLOAT: "RGhA",
    F.R32_FLOAT: "L00f",
    F.RG32_FLOAT: "2C0f",
    F.RGBA32_FLOAT: "RGfA",
}

MAX_SIZE = 16384
"""Largest width and height of a 2D texture on every Mac (Metal Feature Set Tables)."""

# MTLTextureUsage. Copies need none; 0 would mean "unknown", which is slow.
SHADER_READ, SHADER_WRITE, RENDER_TARGET = 1, 2, 4
USAGES = {
    TextureUsage.TEXTURE_BINDING: SHADER_READ,
    TextureUsage.STORAGE_BINDING: SHADER_READ | SHADER_WRITE,
    TextureUsage.RENDER_ATTACHMENT: RENDER_TARGET,
}


def surface_format(texture_format: TextureFormat) -> int:
    """Return the four characters of a format as a number, the first of them highest."""
    return int.from_bytes(SURFACE_FORMATS[texture_format].encode("ascii"), "big")


def texture_usage(usage: TextureUsage) -> int:
    """Return the ``MTLTextureUsage``."""
    found = 0
    for one, bits in USAGES.items():
        found |= bits if one in usage else 0
    return found or SHADER_READ


def check_texture(descriptor: TextureDescriptor) -> None:
    """Raise unless a surface can hold such a texture."""
    what = f"texture {descriptor.label!r}"
    if descriptor.layers > 1 or descriptor.mip_levels > 1:
        raise OperationNotSupportedError(
            f"{what}: an IOSurface holds one layer and one mip level, not {descriptor.layers} and "
            f"{descriptor.mip_levels}; share one texture for each"
        )
    if max(descriptor.width, descriptor.height) > MAX_SIZE:
        raise OperationNotSupportedError(
            f"{what}: {descriptor.width}x{descriptor.height} is more than the {MAX_SIZE} pixels "
            "that Metal takes in a direction; share it in parts"
        )
    if descriptor.format.is_srgb and TextureUsage.STORAGE_BINDING in descriptor.usage:
        raise OperationNotSupportedError(
            f"{what}: shaders cannot write {descriptor.format.value}; leave STORAGE_BINDING out, "
            "or use the format without -srgb"
        )


def create_surface(
    metal: Metal, device: Any, descriptor: TextureDescriptor, *, system_wide: bool
) -> Any:
    """Make the surface of a texture (Apple, IOSurface, "IOSurface creation properties").

    Rows start where both the GPU and the surface want them.
    """
    pixel = descriptor.format.bytes_per_pixel
    linear = metal.linear_alignment(device, metal_pixel_format(descriptor.format))
    row = metal.align_bytes_per_row(align_up(descriptor.width * pixel, linear))
    properties: dict[str, int | bool] = {
        "kIOSurfaceWidth": descriptor.width,
        "kIOSurfaceHeight": descriptor.height,
        "kIOSurfaceBytesPerElement": pixel,
        "kIOSurfaceBytesPerRow": row,
        "kIOSurfaceAllocSize": row * descriptor.height,
        "kIOSurfacePixelFormat": surface_format(descriptor.format),
    }
    if system_wide:
        properties["kIOSurfaceIsGlobal"] = True
    surface = metal.create_surface(properties)
    if surface is None:
        raise OutOfMemoryError(
            f"texture {descriptor.label!r}: no IOSurface of {row * descriptor.height} bytes; "
            "close what is not needed, or make it smaller"
        )
    return surface


def check_surface(metal: Metal, surface: Any, descriptor: TextureDescriptor) -> None:
    """Raise unless somebody's surface holds what the descriptor says, in the memory it has."""
    pixel = descriptor.format.bytes_per_pixel
    row, height = metal.surface_bytes_per_row(surface), descriptor.height
    wanted = (descriptor.width, height), surface_format(descriptor.format), pixel
    found = (
        metal.surface_size(surface),
        metal.surface_format(surface),
        metal.surface_bytes_per_element(surface),
    )
    fits = row >= descriptor.width * pixel and metal.surface_nbytes(surface) >= row * height
    if found != wanted or not fits:
        (width, height), code, size = found
        raise InvalidTextureHandleError(
            f"texture {descriptor.label!r}: {descriptor.width}x{descriptor.height} "
            f"{descriptor.format.value} is not what the surface holds: {width}x{height} pixels of "
            f"{size} bytes, rows of {row} bytes, format {code.to_bytes(4, 'big')!r}; "
            "import it with the descriptor that it was made with"
        )
