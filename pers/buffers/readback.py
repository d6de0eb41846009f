"""`ReadbackBuffer`: results from the GPU."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import numpy.typing as npt

from pers._checks import MAX_INT, whole_number
from pers.buffers.contents import Contents
from pers.buffers.core import MappableBuffer
from pers.buffers.interfaces import IBuffer, IBufferFactory
from pers.buffers.mapped_range import MappedRange
from pers.buffers.readback_slots import READBACK_USAGE, Hold, ReadbackSlots, ReadbackStats
from pers.buffers.result import Result, Source
from pers.buffers.types import BufferDesc, BufferState
from pers.buffers.view import BufferView, check_encoder, check_factory, fixed_usage_desc
from pers.textures import ITexture, TexelCopyTextureInfo

if TYPE_CHECKING:
    from pers.graphics.interfaces import ICommandEncoder

__all__ = ["ReadbackBuffer", "ReadbackStats"]

Out = TypeVar("Out")


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
        max_idle: int = 4,
        debug_name: str = "",
    ) -> None:
        """Make a buffer to copy results to.

        Args:
            desc_or_size: Size in bytes (rounded up to 4), or a description of it. For pixels,
                count the rows' padding: ``pers.TextureRows(...).nbytes``.
            factory: ``device.buffer_factory``.
            max_idle: How many buffers to keep that nothing is read from. Those that were not
                needed for 64 copies go, too.
            debug_name: A name for error messages and graphics debuggers.

        Raises:
            BufferUsageError: The description asks for more than MAP_READ | COPY_DST.
        """
        check_factory("ReadbackBuffer", factory)
        self._desc = fixed_usage_desc("ReadbackBuffer", desc_or_size, READBACK_USAGE, debug_name)
        idle = whole_number(max_idle, f"ReadbackBuffer {debug_name!r}: max_idle")
        self._slots = ReadbackSlots(
            factory, self._desc.debug_name, max_idle=idle, max_idle_bytes=MAX_INT
        )
        self._keep(self._slots.take(self._desc.size), self._desc.size)

    @property
    def slots(self) -> int:
        """How many buffers it has, to be able to record while results are being read."""
        return self._slots.count

    @property
    def stats(self) -> ReadbackStats:
        """What it holds and did so far."""
        return self._slots.stats

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
        call = f"ReadbackBuffer {self.debug_name!r}: copy_from"
        check_encoder(call, encoder)
        what = Source.of(source, source_offset, size, self.size, call)
        hold = self._hold
        if self._is_being_read:
            hold = self._slots.take(self._desc.size)
        what.record(encoder, hold.slot.buffer)
        self._keep(hold, what.contents)

    @asynccontextmanager
    async def read_async(self) -> AsyncGenerator[MappedRange]:
        """Map what was copied last for the length of a block, once the GPU has written it.

        Arrays made in the block may outlive it and stay right.

        Raises:
            BufferStateError: A read is going on already, or the buffer was destroyed.
            MapAbortedError: The buffer was destroyed in the meantime, or the device was lost.
        """
        hold = self._hold.slot.hold()
        mapped = await hold.map_async()
        self._slots.count_read(self._desc.size)
        try:
            yield mapped
        finally:
            hold.end_read()

    @contextmanager
    def read(self) -> Generator[MappedRange]:
        """The same as `read_async`, but blocks the calling thread."""
        hold = self._hold.slot.hold()
        mapped = hold.map()
        self._slots.count_read(self._desc.size)
        try:
            yield mapped
        finally:
            hold.end_read()

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
        result = self._result("read_array")
        result.check_layout(dtype, shape)
        return result.array_async(dtype, shape, copy=copy)

    def read_array_blocking(
        self,
        dtype: npt.DTypeLike | None = None,
        shape: int | tuple[int, ...] | None = None,
        *,
        copy: bool = False,
    ) -> npt.NDArray[Any]:
        """The same as `read_array`, but blocks the calling thread."""
        result = self._result("read_array")
        result.check_layout(dtype, shape)
        return result.array_blocking(dtype, shape, copy=copy)

    def read_into(self, out: Out) -> Coroutine[Any, Any, Out]:
        """Copy what was copied last to memory of your own: ``await`` the result.

        Faster than ``read_array(copy=True)``, because `out` can be used again and again. Several
        threads copy when there is much; the event loop goes on meanwhile. As with `read_array`,
        what is read is chosen by the call. Nobody may use `out` until this is over.

        Args:
            out: A C-contiguous array of any type, or any writable buffer, with as many bytes as
                were copied. For a texture: its pixels without the padding of rows.

        Returns:
            `out`.

        Raises:
            BufferRangeError: `out` has another size.
            BufferUsageError: `out` is no array or buffer, read-only, not C-contiguous, or
                overlaps the mapped memory itself.
            BufferStateError: A read is going on already, or the buffer was destroyed.
            MapAbortedError: The buffer was destroyed in the meantime, or the device was lost.

        Cancellation:
            `out` may have been written then; nothing is written to it afterwards.
        """
        result = self._result("read_into")
        memory = result.writable_bytes(out)

        async def read_into() -> Out:
            await result.into_async(memory)
            return out

        return read_into()

    def read_into_blocking(self, out: Out) -> Out:
        """The same as `read_into`, but blocks the calling thread."""
        result = self._result("read_into")
        result.into_blocking(result.writable_bytes(out))
        return out

    def destroy(self) -> None:
        self._slots.destroy()

    @property
    def _is_being_read(self) -> bool:
        """Whether the next copy has to go elsewhere; a destroyed buffer stays, to be refused."""
        if self._hold.slot.is_shared:
            return self._stands_on.state is not BufferState.DESTROYED
        return self._stands_on.state in (BufferState.MAPPED, BufferState.MAP_PENDING)

    def _keep(self, hold: Hold, contents: Contents) -> None:
        self._hold, self._stands_on, self._contents = hold, hold.slot.buffer, contents

    def _result(self, call: str) -> Result:
        what = f"ReadbackBuffer {self.debug_name!r}: {call}"
        return Result(self._slots, self._hold.slot.hold(), self._contents, what)
