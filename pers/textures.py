"""Textures as buffers, graphics and sharing all see them: formats, pixels in memory, copies."""

from __future__ import annotations

import enum
import re
from abc import ABC, abstractmethod
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import attrs
import numpy as np
import numpy.typing as npt

from pers._checks import align_up, whole_number
from pers.errors import BufferRangeError, ValidationError

if TYPE_CHECKING:
    from pers.buffers.interfaces import IBuffer

__all__ = [
    "ITexture",
    "TexelCopyBufferInfo",
    "TexelCopyTextureInfo",
    "TextureFormat",
    "TextureRows",
    "TextureUsage",
]

ROW_ALIGNMENT = 256
"""Rows of texture copies start at multiples of this many bytes (WebGPU §13.5, bytesPerRow)."""


class TextureUsage(enum.IntFlag):
    """What a texture may be used for; combine with ``|``."""

    COPY_SRC = 1 << 0
    COPY_DST = 1 << 1
    TEXTURE_BINDING = 1 << 2
    STORAGE_BINDING = 1 << 3
    RENDER_ATTACHMENT = 1 << 4


@attrs.frozen
class _Pixel:
    """How one pixel is stored: `channels` items of `dtype`."""

    dtype: str
    channels: int
    is_depth: bool = False


class TextureFormat(enum.Enum):
    """The uncompressed WebGPU texture formats; the value is WebGPU's name."""

    R8_UNORM = "r8unorm"
    R8_SNORM = "r8snorm"
    R8_UINT = "r8uint"
    R8_SINT = "r8sint"
    R16_UNORM = "r16unorm"
    R16_SNORM = "r16snorm"
    R16_UINT = "r16uint"
    R16_SINT = "r16sint"
    R16_FLOAT = "r16float"
    RG8_UNORM = "rg8unorm"
    RG8_SNORM = "rg8snorm"
    RG8_UINT = "rg8uint"
    RG8_SINT = "rg8sint"
    R32_UINT = "r32uint"
    R32_SINT = "r32sint"
    R32_FLOAT = "r32float"
    RG16_UNORM = "rg16unorm"
    RG16_SNORM = "rg16snorm"
    RG16_UINT = "rg16uint"
    RG16_SINT = "rg16sint"
    RG16_FLOAT = "rg16float"
    RGBA8_UNORM = "rgba8unorm"
    RGBA8_UNORM_SRGB = "rgba8unorm-srgb"
    RGBA8_SNORM = "rgba8snorm"
    RGBA8_UINT = "rgba8uint"
    RGBA8_SINT = "rgba8sint"
    BGRA8_UNORM = "bgra8unorm"
    BGRA8_UNORM_SRGB = "bgra8unorm-srgb"
    RGB9E5_UFLOAT = "rgb9e5ufloat"
    RGB10A2_UINT = "rgb10a2uint"
    RGB10A2_UNORM = "rgb10a2unorm"
    RG11B10_UFLOAT = "rg11b10ufloat"
    RG32_UINT = "rg32uint"
    RG32_SINT = "rg32sint"
    RG32_FLOAT = "rg32float"
    RGBA16_UNORM = "rgba16unorm"
    RGBA16_SNORM = "rgba16snorm"
    RGBA16_UINT = "rgba16uint"
    RGBA16_SINT = "rgba16sint"
    RGBA16_FLOAT = "rgba16float"
    RGBA32_UINT = "rgba32uint"
    RGBA32_SINT = "rgba32sint"
    RGBA32_FLOAT = "rgba32float"
    STENCIL8 = "stencil8"
    DEPTH16_UNORM = "depth16unorm"
    DEPTH24_PLUS = "depth24plus"
    DEPTH24_PLUS_STENCIL8 = "depth24plus-stencil8"
    DEPTH32_FLOAT = "depth32float"
    DEPTH32_FLOAT_STENCIL8 = "depth32float-stencil8"

    @property
    def bytes_per_pixel(self) -> int:
        """Bytes of one pixel in a copy; for opaque depth formats, what drivers allocate."""
        pixel = self._pixel
        return np.dtype(pixel.dtype).itemsize * pixel.channels

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy type of one channel; packed formats are one uint32 a pixel."""
        return np.dtype(self._pixel.dtype)

    @property
    def channels(self) -> int:
        """How many `dtype` items make a pixel."""
        return self._pixel.channels

    @property
    def is_depth(self) -> bool:
        """Whether it is a depth or stencil format."""
        return self._pixel.is_depth

    @property
    def is_srgb(self) -> bool:
        """Whether reads and writes convert from and to sRGB."""
        return self.value.endswith("-srgb")

    @property
    def is_copyable(self) -> bool:
        """Whether its pixels can be copied to and from buffers as a whole (WebGPU §26.1.2)."""
        return self not in _OPAQUE

    @property
    def _pixel(self) -> _Pixel:
        return _PIXELS[self]


def _pixel_of(texture_format: TextureFormat) -> _Pixel:
    name = texture_format.value
    special = {
        "stencil8": _Pixel("u1", 1, True),
        "depth16unorm": _Pixel("u2", 1, True),
        "depth24plus": _Pixel("u4", 1, True),
        "depth24plus-stencil8": _Pixel("u4", 1, True),
        "depth32float": _Pixel("f4", 1, True),
        "depth32float-stencil8": _Pixel("u4", 2, True),
        "rgb9e5ufloat": _Pixel("u4", 1),
        "rgb10a2uint": _Pixel("u4", 1),
        "rgb10a2unorm": _Pixel("u4", 1),
        "rg11b10ufloat": _Pixel("u4", 1),
    }
    if name in special:
        return special[name]
    match = re.fullmatch(r"([rgba]+)(\d+)(unorm|snorm|uint|sint|float)(-srgb)?", name)
    assert match is not None, name
    letters, bits, kind, _ = match.groups()
    letter = {"unorm": "u", "uint": "u", "snorm": "i", "sint": "i", "float": "f"}[kind]
    return _Pixel(f"{letter}{int(bits) // 8}", len(letters))


_PIXELS = {texture_format: _pixel_of(texture_format) for texture_format in TextureFormat}
_OPAQUE = {
    TextureFormat.DEPTH24_PLUS,
    TextureFormat.DEPTH24_PLUS_STENCIL8,
    TextureFormat.DEPTH32_FLOAT_STENCIL8,
}


@attrs.frozen
class TextureRows:
    """How the pixels of a texture lie in a buffer: rows padded to 256 bytes (WebGPU §13.5).

    Attributes:
        format: The texture's format.
        width: Pixels in a row.
        height: Rows in a layer.
        layers: Layers.

    Raises:
        ValidationError: The format cannot be copied to or from a buffer.
    """

    format: TextureFormat
    width: int
    height: int
    layers: int = 1

    def __attrs_post_init__(self) -> None:
        if not self.format.is_copyable:
            raise ValidationError(
                f"pixels of format {self.format.value} cannot be copied to or from a buffer "
                "(WebGPU §26.1.2); use depth32float where depths must be read"
            )

    @property
    def bytes_per_row(self) -> int:
        """Bytes from one row to the next, padding included."""
        return align_up(self.width * self.format.bytes_per_pixel, ROW_ALIGNMENT)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows, padding included."""
        return self.bytes_per_row * self.height * self.layers

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape as an array: ``([layers,] height, width[, channels])``, lengths of 1 left out."""
        layers = (self.layers,) if self.layers > 1 else ()
        channels = (self.format.channels,) if self.format.channels > 1 else ()
        return (*layers, self.height, self.width, *channels)

    def view(self, memory: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """Look at `memory` (flat, at least `nbytes`) as pixels; no copy, padding skipped."""
        row = self.width * self.format.bytes_per_pixel
        rows = memory[: self.nbytes].reshape(self.layers, self.height, self.bytes_per_row)
        pixels = rows[:, :, :row].view(self.format.dtype)
        if self.format.channels > 1:
            pixels = pixels.reshape(self.layers, self.height, self.width, self.format.channels)
        return pixels if self.layers > 1 else pixels[0]

    def check(self, pixels: npt.NDArray[Any], what: str = "pixels") -> None:
        """Raise `BufferRangeError` unless shape, item size and byte order are this layout's.

        Args:
            pixels: The array.
            what: How the message begins.
        """
        if not pixels.dtype.isnative:
            raise BufferRangeError(
                f"{what}: the bytes of {pixels.dtype} are in the reverse order of this machine's; "
                "convert them with astype(array.dtype.newbyteorder('='))"
            )
        if pixels.shape != self.shape or pixels.dtype.itemsize != self.format.dtype.itemsize:
            raise BufferRangeError(
                f"{what}: a {self.width}x{self.height} {self.format.value} texture has shape "
                f"{self.shape} and {self.format.dtype.itemsize}-byte items, not shape "
                f"{pixels.shape} and dtype {pixels.dtype}"
            )


class ITexture(ABC):
    """A 2D image, or an array of them, that the GPU can use."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Pixels in a row."""

    @property
    @abstractmethod
    def height(self) -> int:
        """Rows."""

    @property
    @abstractmethod
    def layers(self) -> int:
        """Array layers."""

    @property
    @abstractmethod
    def mip_levels(self) -> int:
        """Mip levels."""

    @property
    @abstractmethod
    def sample_count(self) -> int:
        """Samples of a pixel."""

    @property
    @abstractmethod
    def format(self) -> TextureFormat:
        """How a pixel is stored."""

    @property
    @abstractmethod
    def usage(self) -> TextureUsage:
        """What it may be used for."""

    @property
    @abstractmethod
    def label(self) -> str:
        """The name used in error messages."""

    @property
    @abstractmethod
    def native_handle(self) -> Any:
        """The backend's own object."""

    @property
    @abstractmethod
    def is_valid(self) -> bool:
        """Whether neither it nor its device was destroyed."""

    @abstractmethod
    def destroy(self) -> None:
        """Give the memory back. Always legal, any number of times."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.destroy()


@attrs.frozen
class TexelCopyBufferInfo:
    """Pixels in a buffer, for copies (WebGPU §13.5).

    Attributes:
        buffer: The buffer.
        offset: Where the first pixel is (bytes); a multiple of the bytes of a pixel (and of 4).
        bytes_per_row: Bytes from row to row, a multiple of 256; None means the width, padded.
        rows_per_image: Rows from layer to layer; None means the height.
    """

    buffer: IBuffer
    offset: int = 0
    bytes_per_row: int | None = None
    rows_per_image: int | None = None


def three_numbers(value: tuple[int, int, int], what: str) -> tuple[int, int, int]:
    """Return a place (x, y, layer) or a size (width, height, layers) as ints."""
    try:
        x, y, z = value
    except (TypeError, ValueError):
        raise BufferRangeError(f"{what} takes three whole numbers, not {value!r}") from None
    return whole_number(x, what), whole_number(y, what), whole_number(z, what)


def _to_level(value: int) -> int:
    return whole_number(value, "mip_level", maximum=31, error=ValidationError)


def _to_origin(value: tuple[int, int, int]) -> tuple[int, int, int]:
    return three_numbers(value, "the origin of a copy")


@attrs.frozen
class TexelCopyTextureInfo:
    """A place in a texture, for copies.

    Attributes:
        texture: The texture.
        mip_level: Which of its mip levels.
        origin: First pixel: x, y, layer.

    Raises:
        ValidationError: There can be no such mip level.
        BufferRangeError: The origin is not three whole numbers, none of them negative.
    """

    texture: ITexture
    mip_level: int = attrs.field(default=0, converter=_to_level)
    origin: tuple[int, int, int] = attrs.field(default=(0, 0, 0), converter=_to_origin)


def texture_info(value: object, call: str) -> TexelCopyTextureInfo:
    """Return a place in a texture, given as such or as the texture."""
    if isinstance(value, ITexture):
        return TexelCopyTextureInfo(value)
    if isinstance(value, TexelCopyTextureInfo) and isinstance(value.texture, ITexture):  # pyright: ignore[reportUnnecessaryIsInstance]
        return value
    raise ValidationError(
        f"{call} takes a buffer, a texture or a TexelCopyTextureInfo, not {value!r}"
    )


def no_offset(offset: object, what: str) -> None:
    """Raise when a number of bytes is given for a texture, which has no such places."""
    if whole_number(offset, what):
        raise BufferRangeError(
            f"{what} counts the bytes of a buffer, so it must be 0 for a texture, not {offset}; "
            "where a copy takes a TexelCopyTextureInfo, that says where in a texture"
        )


def pixel_extent(
    pixels: npt.NDArray[Any], texture_format: TextureFormat, what: str
) -> tuple[int, int, int]:
    """Return the width, height and layers of an array of pixels, which may have a layer axis.

    Raises:
        BufferRangeError: It has another number of axes, channels, or bytes in an item.
    """
    channels = texture_format.channels
    images = pixels if pixels.ndim == 3 + (channels > 1) else pixels[None]
    if images.ndim != 3 + (channels > 1):
        raise BufferRangeError(
            f"{what}: pixels of {texture_format.value} have shape ([layers,] height, "
            f"width{', ' + str(channels) if channels > 1 else ''}), not {pixels.shape}"
        )
    layers, height, width = images.shape[:3]
    image = images[0] if layers else np.empty(images.shape[1:], pixels.dtype)
    TextureRows(texture_format, width, height).check(image, what)
    return width, height, layers


def mip_extent(place: TexelCopyTextureInfo) -> tuple[int, int, int]:
    """Return the width, height and layers that are left from a place in a texture."""
    texture, (x, y, layer) = place.texture, place.origin
    width = max(texture.width >> place.mip_level, 1)
    height = max(texture.height >> place.mip_level, 1)
    return max(width - x, 0), max(height - y, 0), max(texture.layers - layer, 0)
