"""Textures as NumPy arrays."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pers.backends.null.buffers import native_buffer, zeros
from pers.backends.null.live import LiveObjects, NullObject
from pers.errors import ValidationError
from pers.graphics.native import BufferPlace, NativeTexture, TexturePlace
from pers.graphics.types import TextureDescriptor
from pers.textures import TextureFormat, TextureUsage

if TYPE_CHECKING:
    from pers.graphics.resources import Texture

Bytes = npt.NDArray[np.uint8]
Extent = tuple[int, int, int]


class NullTexture(NullObject, NativeTexture):
    """A texture whose mip levels are arrays of bytes, of shape (layers, height, width, bytes).

    Nothing is ever drawn, so the samples of a pixel are all the same and are stored once.
    """

    def __init__(self, live: LiveObjects, descriptor: TextureDescriptor) -> None:
        super().__init__(live, texture_nbytes(descriptor))
        self._label = f"texture {descriptor.label!r}"
        self._levels: tuple[Bytes, ...] | None = tuple(
            zeros(math.prod(shape), self._label).reshape(shape) for shape in _shapes(descriptor)
        )

    @property
    def handle(self) -> Any:
        return self

    def level(self, index: int) -> Bytes:
        """Return a mip level. Commands hold on to it, so they work on after `destroy`.

        Raises:
            ValidationError: The texture was destroyed.
        """
        if self._levels is None:
            raise ValidationError(f"{self._label} was destroyed; create a new one")
        return self._levels[index]

    def destroy(self) -> None:
        self._levels = None
        self.release()


def native_texture(texture: Texture) -> NullTexture:
    """Return the null texture behind a texture of a null device."""
    native = texture.native_handle
    assert isinstance(native, NullTexture)
    return native


def texture_nbytes(descriptor: TextureDescriptor) -> int:
    """Return how many bytes a GPU would take for the texture."""
    return descriptor.sample_count * sum(math.prod(shape) for shape in _shapes(descriptor))


def check_descriptor(descriptor: TextureDescriptor) -> None:
    """Raise `ValidationError` for what cannot be combined (WebGPU §6.1.3)."""
    what = f"texture {descriptor.label!r}"
    attachment = bool(descriptor.usage & TextureUsage.RENDER_ATTACHMENT)
    if attachment and descriptor.format is TextureFormat.RGB9E5_UFLOAT:
        raise ValidationError(
            f"{what}: {descriptor.format.value} cannot be a RENDER_ATTACHMENT; "
            "draw to rg11b10ufloat or rgba16float"
        )
    if descriptor.sample_count == 1:
        return
    if not attachment or descriptor.usage & TextureUsage.STORAGE_BINDING:
        raise ValidationError(
            f"{what}: a multisampled texture needs the usage RENDER_ATTACHMENT and cannot have "
            "STORAGE_BINDING"
        )
    if descriptor.layers != 1 or descriptor.mip_levels != 1:
        raise ValidationError(
            f"{what}: a multisampled texture has 1 layer and 1 mip level, not "
            f"{descriptor.layers} and {descriptor.mip_levels}"
        )


def fill(level: Bytes, pixel: bytes) -> None:
    """Set all pixels."""
    kind = f"V{len(pixel)}"
    level.view(kind)[...] = np.frombuffer(pixel, kind)[0]


def texels(place: TexturePlace, size: Extent) -> Bytes:
    """View part of a texture as bytes, of shape (layers, height, width, bytes of a pixel)."""
    (x, y, layer), (width, height, layers) = place.origin, size
    level = native_texture(place.texture).level(place.mip_level)
    return level[layer : layer + layers, y : y + height, x : x + width]


def rows(place: BufferPlace, pixel: int, size: Extent) -> Bytes:
    """View pixels of `pixel` bytes in a buffer, of shape (layers, height, width, pixel)."""
    width, height, layers = size
    return np.ndarray(
        shape=(layers, height, width, pixel),
        dtype=np.uint8,
        buffer=native_buffer(place.buffer).memory,
        offset=place.offset,
        strides=(place.bytes_per_row * place.rows_per_image, place.bytes_per_row, pixel, 1),
    )


def _shapes(descriptor: TextureDescriptor) -> list[tuple[int, int, int, int]]:
    return [
        (
            descriptor.layers,
            max(descriptor.height >> level, 1),
            max(descriptor.width >> level, 1),
            descriptor.format.bytes_per_pixel,
        )
        for level in range(descriptor.mip_levels)
    ]
