"""What is to be uploaded: bytes for a buffer, or pixels for a texture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pers._checks import of_type, whole_number
from pers._copying import copy_array
from pers.buffers.core import Buffer, core_buffer
from pers.buffers.interfaces import IBuffer
from pers.buffers.mapped_range import as_bytes_array, as_plain_array
from pers.buffers.types import COPY_ALIGNMENT, BufferUsage
from pers.errors import BufferRangeError, BufferUsageError
from pers.textures import (
    ITexture,
    TexelCopyBufferInfo,
    TexelCopyTextureInfo,
    TextureRows,
)

if TYPE_CHECKING:
    from pers.graphics.device import RenderDevice
    from pers.graphics.interfaces import ICommandEncoder

PIXEL_ALIGNMENT = 512
"""Where pixels start in staging memory (bytes): D3D12 takes no other places."""

_COPY_DST = int(BufferUsage.COPY_DST)


class BufferCopy:
    """Bytes from a chunk to a buffer, not recorded yet."""

    __slots__ = ("_at", "_nbytes", "_offset", "source", "target")

    def __init__(self, job: BufferJob, source: Buffer, at: int) -> None:
        self.source = source
        self.target = job.core
        self._at = at
        self._offset = job.offset
        self._nbytes = job.nbytes

    def join(self, job: BufferJob, source: Buffer, at: int) -> bool:
        """Take in the copy of a job that goes on where this one ends; False when it does not."""
        if (
            job.core is not self.target
            or source is not self.source
            or at != self._at + self._nbytes
            or job.offset != self._offset + self._nbytes
        ):
            return False
        self._nbytes += job.nbytes
        return True

    def record(self, encoder: ICommandEncoder) -> None:
        """Record it."""
        encoder.copy_buffer_to_buffer(
            self.source, self._at, self.target, self._offset, self._nbytes
        )


class BufferJob:
    """Bytes for a buffer."""

    alignment = COPY_ALIGNMENT

    def __init__(self, core: Buffer, offset: int, data: npt.NDArray[Any]) -> None:
        self.core = core
        self.offset = offset
        self.nbytes = data.nbytes
        self._data = data

    @classmethod
    def checked(cls, data: Any, target: IBuffer, offset: int) -> BufferJob:
        """Make a job of what a caller passed, or raise."""
        core = target if isinstance(target, Buffer) else core_buffer(target, "upload")
        call = f"upload to {core.label}"
        array = as_plain_array(data, call)
        nbytes = array.nbytes
        start = whole_number(offset, f"{call}: offset")
        if start % COPY_ALIGNMENT or nbytes % COPY_ALIGNMENT:
            raise BufferRangeError(
                f"{call}: offset and size must be multiples of {COPY_ALIGNMENT} bytes, not "
                f"{start} and {nbytes}; pad the data"
            )
        if start + nbytes > core.size:
            raise BufferRangeError(
                f"{call}: {nbytes} bytes at offset {start} reach beyond its end ({core.size} bytes)"
            )
        if not int(core.usage) & _COPY_DST:
            raise BufferUsageError(f"{call}: it was created without COPY_DST")
        core.check_usable(call)
        return cls(core, start, array)

    @property
    def data(self) -> npt.NDArray[np.uint8]:
        """The bytes, in one row."""
        return as_bytes_array(self._data, "upload")

    def parts(self, limit: int) -> Iterator[BufferJob]:
        """Cut it into jobs of at most `limit` bytes."""
        if self.nbytes <= limit:
            yield self
            return
        data = self.data
        for start in range(0, self.nbytes, limit):
            yield BufferJob(self.core, self.offset + start, data[start : start + limit])

    def fill(self, memory: npt.NDArray[np.uint8]) -> None:
        """Write the bytes to memory."""
        data = self._data
        if data.flags.c_contiguous:
            copy_array(memory[: self.nbytes], data.reshape(-1).view(np.uint8))
        else:
            copy_array(memory[: self.nbytes].view(data.dtype).reshape(data.shape), data)

    def write(self, device: RenderDevice) -> None:
        """Have the queue write the bytes."""
        device.write_checked(self.core, self.offset, self.data)

    def write_directly(self) -> bool:
        """Write the bytes to the target's own memory; False when that is not possible now."""
        core = self.core
        if not core.writes_directly or not self.nbytes:
            return False
        claim = core.owner.claim(core)
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

    def __init__(
        self, target: ITexture, pixels: npt.NDArray[Any], rows: TextureRows, y: int, layer: int
    ) -> None:
        self.target = target
        self.pixels = pixels
        self.nbytes = rows.nbytes
        self._rows = rows
        self._origin = (0, y, layer)

    @classmethod
    def checked(cls, data: Any, target: ITexture) -> TextureJob:
        """Make a job of what a caller passed, or raise."""
        of_type(target, ITexture, "upload")  # type: ignore[type-abstract]
        pixels = np.asarray(data)
        rows = TextureRows(target.format, target.width, target.height, target.layers)
        rows.check(pixels)
        return cls(target, pixels, rows, 0, 0)

    def parts(self, limit: int) -> Iterator[TextureJob]:
        """Cut it into jobs of at most `limit` bytes, but no smaller than a row."""
        rows = self._rows
        if self.nbytes <= limit:
            yield self
            return
        images = self.pixels if rows.layers > 1 else self.pixels[None]
        height = max(limit // rows.bytes_per_row, 1)
        for layer in range(rows.layers):
            for y in range(0, rows.height, height):
                part = TextureRows(rows.format, rows.width, min(height, rows.height - y))
                yield TextureJob(self.target, images[layer, y : y + height], part, y, layer)

    def write(self, device: RenderDevice) -> None:
        """Have the queue write the pixels."""
        device.queue.write_texture(self.target, self.pixels)

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
            TexelCopyTextureInfo(self.target, 0, self._origin),
            (rows.width, rows.height, rows.layers),
        )


Job = BufferJob | TextureJob
