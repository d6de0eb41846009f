"""`ReadbackBuffer`: results from the GPU."""

from __future__ import annotations

import inspect
import math
import weakref
from collections.abc import AsyncGenerator, Coroutine, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pers._checks import whole_number
from pers.buffers.core import MappableBuffer, mappable_buffer
from pers.buffers.interfaces import IBuffer, IBufferFactory
from pers.buffers.mapped_range import MappedRange, array_layout
from pers.buffers.types import BufferDesc, BufferState, BufferUsage, MapMode
from pers.buffers.view import BufferView, check_encoder, check_factory, fixed_usage_desc
from pers.errors import BufferRangeError, MappedViewsError
from pers.textures import (
    ITexture,
    TexelCopyBufferInfo,
    TexelCopyTextureInfo,
    TextureRows,
    mip_extent,
    texture_info,
    three_numbers,
)

if TYPE_CHECKING:
    from pers.graphics.interfaces import ICommandEncoder

__all__ = ["ReadbackBuffer"]

READBACK_USAGE = BufferUsage.MAP_READ | BufferUsage.COPY_DST


class ReadbackBuffer(BufferView[MappableBuffer]):
    """Where the GPU leaves results for the CPU.

    ::

        readback.copy_from(encoder, source)
        device.queue.submit([encoder.finish()])
        result = await readback.read_array(np.float32)

    An array from `read_array` is the mapped memory itself. While it is alive the next
    `copy_from` goes to other memory; when it dies its memory is used again. So a frame can be
    read while later frames are recorded.
    """

    def __init__(
        self,
        desc_or_size: BufferDesc | int,
        factory: IBufferFactory,
        *,
        debug_name: str = "",
    ) -> None:
        """Make a buffer to copy results to.

        Args:
            desc_or_size: Size in bytes (rounded up to 4), or a description of it. For pixels,
                count the rows' padding: ``pers.TextureRows(...).nbytes``.
            factory: ``device.buffer_factory``.
            debug_name: A name for error messages and graphics debuggers.

        Raises:
            BufferUsageError: The description asks for more than MAP_READ | COPY_DST.
        """
        check_factory("ReadbackBuffer", factory)
        self._desc = fixed_usage_desc("ReadbackBuffer", desc_or_size, READBACK_USAGE, debug_name)
        self._factory = factory
        self._inner = self._new_slot()
        self._slots = [self._inner]
        self._readers: dict[MappableBuffer, weakref.ref[Coroutine[Any, Any, npt.NDArray[Any]]]] = {}
        self._contents: TextureRows | int = self._desc.size

    @property
    def slots(self) -> int:
        """How many buffers it has made to be able to record while results are being read."""
        return len(self._slots)

    def copy_from(
        self,
        encoder: ICommandEncoder,
        source: IBuffer | ITexture | TexelCopyTextureInfo,
        source_offset: int = 0,
        *,
        size: int | tuple[int, int, int] | None = None,
    ) -> None:
        """Record the copy of a result; what was not read before is overwritten.

        Args:
            encoder: Records the copy.
            source: A buffer or a texture with usage COPY_SRC.
            source_offset: Where in a source buffer (bytes, a multiple of 4).
            size: Bytes for a buffer; width, height and layers for a texture. None means what is
                left of the source, at most the size of this buffer.

        Raises:
            BufferRangeError: It does not fit.
        """
        call = f"{self.debug_name!r}: copy_from"
        check_encoder(call, encoder)
        if isinstance(source, IBuffer):
            start = whole_number(source_offset, f"{call}: source_offset")
            if size is None:
                size = max(min(source.size - start, self.size), 0)
            nbytes = whole_number(size, f"{call}: size")
            slot = self._free_slot()
            encoder.copy_buffer_to_buffer(source, start, slot, 0, nbytes)
            self._inner, self._contents = slot, nbytes
        else:
            place = texture_info(source, call)
            rows = self._rows(place, size)
            slot = self._free_slot()
            target = TexelCopyBufferInfo(slot, 0, rows.bytes_per_row, rows.height)
            encoder.copy_texture_to_buffer(place, target, (rows.width, rows.height, rows.layers))
            self._inner, self._contents = slot, rows

    @asynccontextmanager
    async def read_async(self) -> AsyncGenerator[MappedRange]:
        """Map what was copied last for the length of a block, once the GPU has written it.

        Arrays made in the block may outlive it and stay right.

        Raises:
            BufferStateError: A read is going on already, or the buffer was destroyed.
            MapAbortedError: The buffer was destroyed in the meantime, or the device was lost.
        """
        slot = self._inner
        mapped = await slot.map_async(MapMode.READ)
        try:
            yield mapped
        finally:
            self._end_read(slot)

    @contextmanager
    def read(self) -> Generator[MappedRange]:
        """The same as `read_async`, but blocks the calling thread."""
        slot = self._inner
        mapped = slot.map(MapMode.READ)
        try:
            yield mapped
        finally:
            self._end_read(slot)

    def read_array(
        self,
        dtype: npt.DTypeLike | None = None,
        shape: int | tuple[int, ...] | None = None,
        *,
        copy: bool = False,
    ) -> Coroutine[Any, Any, npt.NDArray[Any]]:
        """Return what was copied last, once the GPU has written it: ``await`` the result.

        What is read is chosen by the call, not by the ``await``: a `copy_from` in between goes to
        other memory.

        Args:
            dtype: Item type; None means uint8 after a buffer and the format's type after a
                texture.
            shape: Shape; None means one dimension after a buffer and
                ``([layers,] height, width[, channels])`` after a texture.
            copy: Whether to return an independent, writable array. Otherwise the array is
                read-only and is the mapped memory itself.

        Raises:
            BufferRangeError: The array would be larger than what was copied.
            BufferStateError: A read is going on already, or the buffer was destroyed.
            MapAbortedError: The buffer was destroyed in the meantime, or the device was lost.
        """
        slot, contents = self._inner, self._contents
        self._check_layout(contents, dtype, shape)
        reading = self._read(slot, contents, dtype, shape, copy=copy)
        self._readers[slot] = weakref.ref(reading)
        return reading

    def read_array_blocking(
        self,
        dtype: npt.DTypeLike | None = None,
        shape: int | tuple[int, ...] | None = None,
        *,
        copy: bool = False,
    ) -> npt.NDArray[Any]:
        """The same as `read_array`, but blocks the calling thread."""
        slot, contents = self._inner, self._contents
        self._check_layout(contents, dtype, shape)
        mapped = slot.map(MapMode.READ)
        return self._to_array(slot, mapped, contents, dtype, shape, copy=copy)

    def destroy(self) -> None:
        for slot in self._slots:
            slot.destroy()

    def _new_slot(self) -> MappableBuffer:
        return mappable_buffer(self._factory.create_mappable_buffer(self._desc), "ReadbackBuffer")

    def _free_slot(self) -> MappableBuffer:
        """Return a slot that is not being read; destroyed ones stay, to be refused."""
        if self._inner.state is BufferState.DESTROYED or not self._is_being_read(self._inner):
            return self._inner
        for slot in self._slots:
            if not self._is_being_read(slot) and slot.usage_tag.is_free:
                return slot
        slot = self._new_slot()
        self._slots.append(slot)
        return slot

    def _is_being_read(self, slot: MappableBuffer) -> bool:
        """Whether a slot is mapped, or a `read_array` that was called has not ended."""
        reader = self._readers.get(slot)
        reading = None if reader is None else reader()
        if reading is not None and inspect.getcoroutinestate(reading) != inspect.CORO_CLOSED:
            return True
        return slot.state in (BufferState.MAPPED, BufferState.MAP_PENDING)

    def _end_read(self, slot: MappableBuffer) -> None:
        try:
            slot.unmap()
        except MappedViewsError:
            slot.on_views_gone(slot.finish_mapping)

    async def _read(
        self,
        slot: MappableBuffer,
        contents: TextureRows | int,
        dtype: npt.DTypeLike | None,
        shape: int | tuple[int, ...] | None,
        *,
        copy: bool,
    ) -> npt.NDArray[Any]:
        mapped = await slot.map_async(MapMode.READ)
        return self._to_array(slot, mapped, contents, dtype, shape, copy=copy)

    def _to_array(
        self,
        slot: MappableBuffer,
        mapped: MappedRange,
        contents: TextureRows | int,
        dtype: npt.DTypeLike | None,
        shape: int | tuple[int, ...] | None,
        *,
        copy: bool,
    ) -> npt.NDArray[Any]:
        try:
            array = self._as_array(mapped, contents, dtype, shape)
            if copy:
                return array.copy()
            array.flags.writeable = False  # also where the shape made NumPy copy padded rows
            return array
        finally:
            del mapped
            self._end_read(slot)

    def _check_layout(
        self,
        contents: TextureRows | int,
        dtype: npt.DTypeLike | None,
        shape: int | tuple[int, ...] | None,
    ) -> None:
        """Raise now what `_as_array` would raise after the wait."""
        what = f"ReadbackBuffer {self.debug_name!r}: read_array"
        if isinstance(contents, int):
            array_layout(np.uint8 if dtype is None else dtype, shape, contents, what)
            return
        wanted = contents.format.dtype if dtype is None else array_layout(dtype, 0, 0, what)[0]
        length = math.prod(contents.shape)
        dimensions = contents.shape
        if shape is not None:
            dimensions = array_layout(wanted, shape, contents.nbytes, what)[1]
        if wanted.itemsize != contents.format.dtype.itemsize or length != math.prod(dimensions):
            raise BufferRangeError(
                f"{what}: a {contents.width}x{contents.height} {contents.format.value} texture has "
                f"shape {contents.shape} and {contents.format.dtype.itemsize}-byte items; "
                f"not shape {dimensions} and dtype {wanted}"
            )

    @staticmethod
    def _as_array(
        mapped: MappedRange,
        contents: TextureRows | int,
        dtype: npt.DTypeLike | None,
        shape: int | tuple[int, ...] | None,
    ) -> npt.NDArray[Any]:
        if isinstance(contents, int):
            item = np.dtype(np.uint8 if dtype is None else dtype)
            return mapped.as_array(item, contents // item.itemsize if shape is None else shape)
        pixels = contents.view(mapped.as_array(np.uint8, contents.nbytes))
        if dtype is not None:
            pixels = pixels.view(dtype)
        return pixels if shape is None else pixels.reshape(shape)

    def _rows(self, source: TexelCopyTextureInfo, size: Any) -> TextureRows:
        what = f"{self.debug_name!r}: copy_from: size (width, height, layers)"
        width, height, layers = mip_extent(source) if size is None else three_numbers(size, what)
        rows = TextureRows(source.texture.format, width, height, layers)
        if rows.nbytes > self.size:
            raise BufferRangeError(
                f"ReadbackBuffer {self.debug_name!r}: {width}x{height} pixels of "
                f"{rows.format.value} take {rows.nbytes} bytes with rows padded to 256, but the "
                f"buffer has {self.size}; make it TextureRows(...).nbytes large"
            )
        return rows
