"""A result on its way from the GPU: the copy into a slot, and the read out of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import numpy.typing as npt

from pers._checks import whole_number
from pers._completion import Completion
from pers.buffers.contents import (
    Contents,
    CopyOut,
    as_array,
    check_layout,
    mapped_size,
    packed_size,
    writable_bytes,
)
from pers.buffers.interfaces import IBuffer
from pers.buffers.mapped_range import MappedRange
from pers.buffers.readback_slots import Hold, ReadbackSlots
from pers.buffers.types import MapMode
from pers.errors import BufferRangeError
from pers.textures import (
    ITexture,
    TexelCopyBufferInfo,
    TexelCopyTextureInfo,
    TextureRows,
    mip_extent,
    no_offset,
    texture_info,
    three_numbers,
)

if TYPE_CHECKING:
    from pers.graphics.interfaces import ICommandEncoder


@attrs.frozen
class Source:
    """What a result is copied from.

    Attributes:
        place: A buffer, or a place in a texture.
        start: Where in a buffer (bytes).
        contents: What the copy leaves.
    """

    place: IBuffer | TexelCopyTextureInfo
    start: int
    contents: Contents

    @classmethod
    def of(
        cls,
        source: IBuffer | ITexture | TexelCopyTextureInfo,
        source_offset: int,
        size: int | tuple[int, int, int] | None,
        room: int,
        call: str,
    ) -> Source:
        """Check what is to be copied to a buffer of `room` bytes; see `ReadbackBuffer.copy_from`.

        Raises:
            BufferRangeError: It does not fit.
        """
        if isinstance(source, IBuffer):
            start = whole_number(source_offset, f"{call}: source_offset")
            if size is None:
                size = max(min(source.size - start, room), 0)
            return cls(source, start, whole_number(size, f"{call}: size"))
        place = texture_info(source, call)
        no_offset(source_offset, f"{call}: source_offset")
        what = f"{call}: size (width, height, layers)"
        extent: Any = mip_extent(place) if size is None else size
        rows = TextureRows(place.texture.format, *three_numbers(extent, what))
        if rows.nbytes > room:
            raise BufferRangeError(
                f"{call}: {rows.width}x{rows.height} pixels of {rows.format.value} take "
                f"{rows.nbytes} bytes with rows padded to 256, but the buffer has {room}; make it "
                "TextureRows(...).nbytes large"
            )
        return cls(place, 0, rows)

    def record(self, encoder: ICommandEncoder, target: IBuffer) -> None:
        """Record the copy."""
        if isinstance(self.place, IBuffer):
            assert isinstance(self.contents, int)
            encoder.copy_buffer_to_buffer(self.place, self.start, target, 0, self.contents)
        else:
            assert isinstance(self.contents, TextureRows)
            rows = self.contents
            info = TexelCopyBufferInfo(target, 0, rows.bytes_per_row, rows.height)
            encoder.copy_texture_to_buffer(self.place, info, (rows.width, rows.height, rows.layers))


class Result:
    """Contents of a slot, to be read once. Dropped unread, it lets go of the slot."""

    __slots__ = ("_contents", "_hold", "_slots", "_what")

    def __init__(self, slots: ReadbackSlots, hold: Hold, contents: Contents, what: str) -> None:
        self._slots = slots
        self._hold = hold
        self._contents = contents
        self._what = what

    def check_layout(
        self, dtype: npt.DTypeLike | None, shape: int | tuple[int, ...] | None
    ) -> None:
        """Raise now what reading such an array would raise after the wait."""
        check_layout(self._contents, dtype, shape, self._what)

    def writable_bytes(self, out: Any) -> npt.NDArray[np.uint8]:
        """Return the bytes of `out`, when the contents can be read into it."""
        return writable_bytes(out, self._contents, self._what)

    async def array_async(
        self, dtype: npt.DTypeLike | None, shape: int | tuple[int, ...] | None, *, copy: bool
    ) -> npt.NDArray[Any]:
        """Return the contents as an array, once the GPU has written them."""
        mapped = await self._hold.map_async(self._mapped_size)
        try:
            array = as_array(mapped, self._contents, dtype, shape)
            self._count()
            if not copy:
                return array
            copied = CopyOut.of_array(array)
            del array
            return await copied.run_async()
        finally:
            self._hold.end_read()

    def array_blocking(
        self, dtype: npt.DTypeLike | None, shape: int | tuple[int, ...] | None, *, copy: bool
    ) -> npt.NDArray[Any]:
        """The same, but blocks the calling thread."""
        mapped = self._hold.map(self._mapped_size)
        try:
            array = as_array(mapped, self._contents, dtype, shape)
            self._count()
            if not copy:
                return array
            copied = CopyOut.of_array(array)
            del array
            return copied.run()
        finally:
            self._hold.end_read()

    async def into_async(self, out: npt.NDArray[np.uint8]) -> None:
        """Copy the contents to `out`, from `writable_bytes`, once the GPU has written them."""
        mapped = await self._hold.map_async(self._mapped_size)
        try:
            copy = self._copy_to(out, mapped)
            await copy.run_async()
        finally:
            self._hold.end_read()

    def into_blocking(self, out: npt.NDArray[np.uint8]) -> None:
        """The same, but blocks the calling thread."""
        mapped = self._hold.map(self._mapped_size)
        try:
            self._copy_to(out, mapped).run()
        finally:
            self._hold.end_read()

    def start_map(self) -> Completion[MappedRange]:
        """Start to wait for the contents; to be ended by `mapped_array` or `give_up`."""
        return self._hold.slot.buffer.start_map(MapMode.READ)

    def mapped_array(
        self,
        mapped: MappedRange,
        dtype: npt.DTypeLike | None,
        shape: int | tuple[int, ...] | None,
    ) -> npt.NDArray[Any]:
        """Return the contents as an array, now that they are mapped."""
        try:
            self._count()
            return as_array(mapped, self._contents, dtype, shape)
        finally:
            self._hold.end_read()

    def give_up(self) -> None:
        """Let go of the contents unread, whether mapped or not."""
        self._hold.end_read()

    @property
    def _mapped_size(self) -> int:
        return mapped_size(self._contents, self._hold.slot.buffer.size)

    def _copy_to(self, out: npt.NDArray[np.uint8], mapped: MappedRange) -> CopyOut:
        copy = CopyOut.of_bytes(out, mapped, self._contents, self._what)
        self._count()
        return copy

    def _count(self) -> None:
        self._slots.count_read(packed_size(self._contents))
