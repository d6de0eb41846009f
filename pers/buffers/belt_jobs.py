"""What is to be uploaded: bytes for a buffer, or pixels for a texture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import attrs
import numpy as np
import numpy.typing as npt

from pers._checks import whole_number
from pers._copying import copy_array
from pers._tracking import Trackable
from pers.buffers.core import Buffer, core_buffer
from pers.buffers.interfaces import IBuffer
from pers.buffers.mapped_range import as_bytes_array, as_plain_array
from pers.buffers.types import COPY_ALIGNMENT, BufferUsage
from pers.errors import BufferRangeError, BufferUsageError, ValidationError
from pers.textures import (
    ITexture,
    TexelCopyBufferInfo,
    TexelCopyTextureInfo,
    TextureRows,
    no_offset,
    pixel_extent,
    texture_info,
)

if TYPE_CHECKING:
    from pers.graphics.interfaces import ICommandEncoder
    from pers.graphics.queue import RenderQueue

PIXEL_ALIGNMENT = 512
"""Where pixels start in staging memory (bytes): D3D12 takes no other places."""

_COPY_DST = int(BufferUsage.COPY_DST)
_BYTE = np.dtype(np.uint8)
_PLAIN = "biufc"
"""Kinds of dtypes that are plain bytes for sure; `as_plain_array` looks closer at the rest."""


class BufferJob:
    """Bytes for a buffer."""

    __slots__ = ("_data", "core", "nbytes", "offset")

    alignment = COPY_ALIGNMENT

    def __init__(self, core: Buffer, offset: int, data: npt.NDArray[Any]) -> None:
        self.core = core
        self.offset = offset
        self.nbytes = data.nbytes
        self._data = data

    @classmethod
    def checked(cls, data: Any, target: IBuffer, offset: int, owner: object) -> BufferJob:
        """Make a job of what a caller passed, or raise.

        For small uploads the checks are most of the time, so what is wrong is looked for only
        when something is.
        """
        core = target if isinstance(target, Buffer) else core_buffer(target, "upload")
        if type(data) is not np.ndarray or data.dtype.kind not in _PLAIN:
            data = as_plain_array(data, f"upload to {core.label}")
        if type(offset) is not int:
            offset = whole_number(offset, f"upload to {core.label}: offset")
        job = cls(core, offset, data)
        if (
            (offset | job.nbytes) % COPY_ALIGNMENT
            or not 0 <= offset <= core.size - job.nbytes
            or core.owner is not owner
            or not core.usage_bits & _COPY_DST
        ):
            job._refuse()
        if not core.is_usable:
            core.owner.check_alive(f"upload to {core.label}")  # says more than the state does
            core.check_usable(f"upload to {core.label}")
        return job

    def _refuse(self) -> None:
        """Say what is wrong with the job."""
        core, call = self.core, f"upload to {self.core.label}"
        whole_number(self.offset, f"{call}: offset")
        if (self.offset | self.nbytes) % COPY_ALIGNMENT:
            raise BufferRangeError(
                f"{call}: offset and size must be multiples of {COPY_ALIGNMENT} bytes, not "
                f"{self.offset} and {self.nbytes}; pad the data"
            )
        if self.offset + self.nbytes > core.size:
            raise BufferRangeError(
                f"{call}: {self.nbytes} bytes at offset {self.offset} reach beyond its end "
                f"({core.size} bytes)"
            )
        if not core.usage_bits & _COPY_DST:
            raise BufferUsageError(f"{call}: it was created without COPY_DST; add that usage")
        raise ValidationError(f"{call}: it belongs to another device; use that device's belt")

    @property
    def resource(self) -> Trackable:
        """What the bytes are for."""
        return self.core

    @property
    def goes_direct(self) -> bool:
        """Whether `write_directly` may succeed."""
        return self.core.writes_directly

    def parts(self, limit: int) -> Iterator[BufferJob]:
        """Cut it into jobs of at most `limit` bytes."""
        if self.nbytes <= limit:
            yield self
            return
        data = as_bytes_array(self._data, "upload")
        for start in range(0, self.nbytes, limit):
            yield BufferJob(self.core, self.offset + start, data[start : start + limit])

    def fill(self, memory: npt.NDArray[np.uint8]) -> None:
        """Write the bytes to memory."""
        data = self._data
        if data.flags.c_contiguous:
            copy_array(memory[: self.nbytes], data.reshape(-1).view(_BYTE))
        else:
            copy_array(memory[: self.nbytes].view(data.dtype).reshape(data.shape), data)

    def write(self, queue: RenderQueue) -> None:
        """Have the queue write the bytes."""
        data = self._data
        if data.dtype is not _BYTE or data.ndim != 1 or not data.flags.c_contiguous:
            data = as_bytes_array(data, "upload")
        with queue.lock:
            queue.write_checked(self.core, self.offset, data, self.nbytes)

    def write_directly(self) -> bool:
        """Write the bytes to the target's own memory; False when that is not possible now."""
        core = self.core
        claim = core.owner.claim(core) if self.nbytes else None
        if claim is None:
            return False
        core.write_claimed(claim, self.offset, self.nbytes, self.fill)
        return True

    def record(self, encoder: ICommandEncoder, source: Buffer, at: int) -> None:
        """Record the copy that brings the bytes from a chunk to the target."""
        encoder.copy_buffer_to_buffer(source, at, self.core, self.offset, self.nbytes)


class TextureJob:
    """Pixels for a texture: some rows of some layers."""

    alignment = PIXEL_ALIGNMENT
    goes_direct = False

    def __init__(
        self, place: TexelCopyTextureInfo, pixels: npt.NDArray[Any], rows: TextureRows
    ) -> None:
        self.pixels = pixels
        self.nbytes = rows.nbytes
        self._place = place
        self._rows = rows

    @classmethod
    def checked(cls, data: Any, target: ITexture | TexelCopyTextureInfo, offset: int) -> TextureJob:
        """Make a job of what a caller passed, or raise."""
        place = texture_info(target, "upload")
        texture = place.texture
        call = f"upload to texture {texture.label!r}"
        no_offset(offset, f"{call}: offset")
        pixels = np.asarray(data)
        if place is not target:  # all of a texture
            rows = TextureRows(texture.format, texture.width, texture.height, texture.layers)
            rows.check(pixels, call)
            return cls(place, pixels, rows)
        width, height, layers = pixel_extent(pixels, texture.format, call)
        if layers < 2 and pixels.ndim == 3 + (texture.format.channels > 1):
            pixels = pixels.reshape(layers * height, *pixels.shape[2:])
        rows = TextureRows(texture.format, width, height if layers else 0, max(layers, 1))
        return cls(place, pixels, rows)

    @property
    def resource(self) -> Trackable:
        """What the pixels are for."""
        return cast(Trackable, self._place.texture)

    def parts(self, limit: int) -> Iterator[TextureJob]:
        """Cut it into jobs of at most `limit` bytes, but no smaller than a row.

        Depths can only be copied as a whole (WebGPU §13.5).
        """
        rows = self._rows
        if self.nbytes <= limit or rows.format.is_depth:
            yield self
            return
        images = self.pixels if rows.layers > 1 else self.pixels[None]
        height = max(limit // rows.bytes_per_row, 1)
        for layer in range(rows.layers):
            for y in range(0, rows.height, height):
                part = TextureRows(rows.format, rows.width, min(height, rows.height - y))
                yield TextureJob(self._at(y, layer), images[layer, y : y + height], part)

    def _at(self, y: int, layer: int) -> TexelCopyTextureInfo:
        left, top, first = self._place.origin
        return attrs.evolve(self._place, origin=(left, top + y, first + layer))

    def write(self, queue: RenderQueue) -> None:
        """Have the queue write the pixels."""
        queue.write_texture(self._place, self.pixels)

    def write_directly(self) -> bool:
        """Never: how a texture lies in memory is the driver's own affair."""
        return False

    def fill(self, memory: npt.NDArray[np.uint8]) -> None:
        """Write the pixels to memory, rows padded."""
        copy_array(self._rows.view(memory), self.pixels.view(self._rows.format.dtype))

    def record(self, encoder: ICommandEncoder, source: Buffer, at: int) -> None:
        """Record the copy that brings the pixels from a chunk to the target."""
        rows = self._rows
        encoder.copy_buffer_to_texture(
            TexelCopyBufferInfo(source, at, rows.bytes_per_row, rows.height),
            self._place,
            (rows.width, rows.height, rows.layers),
        )


Job = BufferJob | TextureJob
