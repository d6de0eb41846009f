"""`DeferredStagingBuffer`: upload later, for ever."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

from pers.buffers.core import check_map_range
from pers.buffers.interfaces import IBufferFactory
from pers.buffers.mapped_range import MappedRange
from pers.buffers.staging import STAGING_USAGE, StagingBuffer
from pers.buffers.types import BufferDesc, MapMode
from pers.buffers.view import check_factory, fixed_usage_desc

__all__ = ["DeferredStagingBuffer"]


class DeferredStagingBuffer(StagingBuffer):
    """An upload that is filled again and again, each time the GPU has let go of it.

    ::

        async with staging.map_async() as mapped:
            mapped.write(data)
        staging.upload_to(encoder, target)
    """

    def __init__(
        self,
        desc_or_size: BufferDesc | int,
        factory: IBufferFactory,
        *,
        debug_name: str = "",
    ) -> None:
        """Make an unmapped buffer.

        Args:
            desc_or_size: Size in bytes (rounded up to 4), or a description of it.
            factory: ``device.buffer_factory``.
            debug_name: A name for error messages and graphics debuggers.

        Raises:
            BufferUsageError: The description asks for more than MAP_WRITE | COPY_SRC.
        """
        check_factory("DeferredStagingBuffer", factory)
        desc = fixed_usage_desc("DeferredStagingBuffer", desc_or_size, STAGING_USAGE, debug_name)
        self._factory = factory
        self._stands_on = factory.create_mappable_buffer(desc)

    @asynccontextmanager
    async def map_async(
        self, offset: int = 0, size: int | None = None
    ) -> AsyncGenerator[MappedRange]:
        """Map for writing for the length of a block, once the GPU has let go of the buffer.

        Arrays made in the block may outlive it; what they are written to afterwards goes nowhere.

        Args:
            offset: First byte, a multiple of 8.
            size: Bytes, a multiple of 4; None means up to the end.

        Raises:
            BufferStateError: The buffer is being mapped, or was destroyed.
            MapAbortedError: The buffer was destroyed in the meantime, or the device was lost.
        """
        start, length = self._check(offset, size)
        await self._stands_on.map_async(MapMode.WRITE)
        try:
            yield self._stands_on.mapped_range(start, length)
        finally:
            self.end_mapping()

    @contextmanager
    def map(self, offset: int = 0, size: int | None = None) -> Generator[MappedRange]:
        """The same as `map_async`, but blocks the calling thread."""
        start, length = self._check(offset, size)
        self._stands_on.map(MapMode.WRITE)
        try:
            yield self._stands_on.mapped_range(start, length)
        finally:
            self.end_mapping()

    def _check(self, offset: int, size: int | None) -> tuple[int, int]:
        """Check the part that is wanted.

        The whole is mapped, because all of it has to be at hand when arrays outlive the block.
        """
        return check_map_range(offset, size, self.size, f"{self.debug_name!r}: map")
