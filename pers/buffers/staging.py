"""What the two staging buffers share: writing, and handing the bytes to the GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pers._checks import whole_number
from pers.buffers.interfaces import IBuffer, IBufferFactory, IMappableBuffer
from pers.buffers.mapped_range import MappedRange
from pers.buffers.types import BufferDesc, BufferUsage
from pers.buffers.view import BufferView, check_encoder
from pers.errors import BufferRangeError, MappedViewsError
from pers.textures import (
    ITexture,
    TexelCopyBufferInfo,
    TexelCopyTextureInfo,
    TextureRows,
    no_offset,
    texture_info,
)

if TYPE_CHECKING:
    from pers.graphics.interfaces import ICommandEncoder

STAGING_USAGE = BufferUsage.MAP_WRITE | BufferUsage.COPY_SRC


class StagingBuffer(BufferView[IMappableBuffer]):
    """A buffer that the CPU writes and the GPU copies from."""

    _factory: IBufferFactory

    def write(self, data: Any, offset: int = 0) -> None:
        """Copy `data` into the mapped buffer.

        Args:
            data: A NumPy array, or anything with the buffer protocol.
            offset: Where to start (bytes).

        Raises:
            BufferRangeError: It does not fit.
            BufferStateError: The buffer is not mapped.
        """
        self._stands_on.mapped_data.write(data, offset)

    def write_pixels(self, pixels: npt.NDArray[Any], texture: ITexture, offset: int = 0) -> None:
        """Copy pixels into the mapped buffer in the layout that `upload_to` a texture takes.

        Args:
            pixels: Shape ``([layers,] height, width[, channels])`` of `texture`.
            texture: Whose size and format count.
            offset: Where to start (bytes).
        """
        call = f"{self.debug_name!r}: write_pixels"
        texture = texture_info(texture, call).texture
        start = whole_number(offset, f"{call}: offset", maximum=self.size)
        data = np.asarray(pixels)
        rows = TextureRows(texture.format, texture.width, texture.height, texture.layers)
        rows.check(data, call)
        memory = self._stands_on.mapped_data.as_array(np.uint8, start + rows.nbytes)
        rows.view(memory[start:])[...] = data.view(rows.format.dtype)

    def as_array(
        self, dtype: npt.DTypeLike = np.uint8, shape: int | tuple[int, ...] | None = None
    ) -> npt.NDArray[Any]:
        """Return the mapped buffer as a NumPy array, without a copy.

        The array may outlive the mapping: it then looks at memory that the GPU does not use.

        Args:
            dtype: Item type.
            shape: Shape, or None for one dimension with all that fits.
        """
        return self._stands_on.mapped_data.as_array(dtype, shape)

    def upload_to(
        self,
        encoder: ICommandEncoder,
        target: IBuffer | ITexture | TexelCopyTextureInfo,
        target_offset: int = 0,
        *,
        source_offset: int = 0,
        size: int | tuple[int, int, int] | None = None,
    ) -> None:
        """Record the copy to where the bytes are wanted; unmaps first.

        Args:
            encoder: Records the copy.
            target: A buffer or a texture with usage COPY_DST.
            target_offset: Where in a target buffer (bytes, a multiple of 4).
            source_offset: Where to start here (bytes, a multiple of 4).
            size: Bytes for a buffer; width, height and layers for a texture. None means all that
                is left here, at most what is left of the target.
        """
        call = f"{self.debug_name!r}: upload_to"
        check_encoder(call, encoder)
        start = whole_number(source_offset, f"{call}: source_offset")
        if isinstance(target, IBuffer):
            goal = whole_number(target_offset, f"{call}: target_offset")
            if size is None:
                size = max(min(self.size - start, target.size - goal), 0)
            nbytes = whole_number(size, f"{call}: size")
            self.end_mapping()
            encoder.copy_buffer_to_buffer(self._stands_on, start, target, goal, nbytes)
        else:
            place = texture_info(target, call)
            no_offset(target_offset, f"{call}: target_offset")
            if isinstance(size, int):
                raise BufferRangeError(f"{call}: a size of pixels is (width, height, layers)")
            self.end_mapping()
            source = TexelCopyBufferInfo(self._stands_on, start)
            encoder.copy_buffer_to_texture(source, place, size)

    def end_mapping(self) -> None:
        """Unmap. When arrays still look at the memory, leave it to them and take new memory."""
        if not self._stands_on.is_mapped:
            return
        try:
            self._stands_on.unmap()
        except MappedViewsError:
            self._replace(self._stands_on.mapped_data)

    def _replace(self, contents: MappedRange) -> None:
        old = self._stands_on
        new = self._factory.create_mappable_buffer(
            BufferDesc(old.size, old.usage, mapped_at_creation=True, debug_name=old.debug_name)
        )
        new.mapped_data.write(contents.as_array())
        new.unmap()
        self._stands_on = new
        old.destroy()
