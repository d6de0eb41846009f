"""The buffer interfaces that renderers and backends agree on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, Self

import attrs

from pers._completion import Completion
from pers.buffers.mapped_range import MappedRange
from pers.buffers.types import BufferDesc, BufferLimits, BufferState, BufferUsage, MapMode

__all__ = ["IBuffer", "IBufferFactory", "IMappableBuffer"]


class IBuffer(ABC):
    """A block of memory that the GPU can use.

    A buffer belongs to one thread at a time: it may be handed from thread to thread, but two
    threads inside its methods at once get a `BufferStateError`. As a context manager it is
    destroyed at the end of the block; dropped without that, it is released by garbage collection.
    """

    @property
    @abstractmethod
    def size(self) -> int:
        """Size in bytes, as asked for."""

    @property
    @abstractmethod
    def usage(self) -> BufferUsage:
        """What the buffer may be used for."""

    @property
    @abstractmethod
    def debug_name(self) -> str:
        """The name used in error messages; may be empty."""

    @property
    @abstractmethod
    def native_handle(self) -> Any:
        """The backend's own object (a `wgpu.GPUBuffer`, say), for code that must leave pers.

        What is done with it behind pers' back is outside the guarantees of pers.
        """

    @property
    @abstractmethod
    def state(self) -> BufferState:
        """Where the buffer is in its life."""

    @property
    def is_valid(self) -> bool:
        """Whether the buffer exists and was not destroyed."""
        return self.state not in (BufferState.UNINITIALIZED, BufferState.DESTROYED)

    @abstractmethod
    def destroy(self) -> None:
        """Give the memory back. Always legal, any number of times (WebGPU §5.1.4).

        A pending map ends with `MapAbortedError`. Arrays that look at mapped memory stay
        readable; that memory goes when the last of them does.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.destroy()


class IMappableBuffer(IBuffer):
    """A buffer whose memory the CPU can reach while the GPU does not use it."""

    @property
    def is_mapped(self) -> bool:
        """Whether the CPU may use the memory now."""
        return self.state is BufferState.MAPPED

    @property
    def is_map_pending(self) -> bool:
        """Whether a map was asked for and has not ended."""
        return self.state is BufferState.MAP_PENDING

    @abstractmethod
    async def map_async(
        self, mode: MapMode = MapMode.WRITE, offset: int = 0, size: int | None = None
    ) -> MappedRange:
        """Wait until the GPU is done with the buffer, then map it (WebGPU §5.2).

        What is wrong with the call is raised at once. Otherwise the map is pending at least until
        other tasks had their turn, also when the GPU does not use the buffer.

        Args:
            mode: Exactly one of READ and WRITE; the buffer needs the matching MAP usage.
            offset: First byte, a multiple of 8.
            size: Bytes, a multiple of 4; None means up to the end of the buffer.

        Returns:
            The whole mapping.

        Raises:
            BufferStateError: Not READY. Whatever was going on goes on.
            BufferRangeError: Misaligned or out of bounds; the buffer stays READY.
            BufferUsageError: No such mode, or the buffer lacks the usage; it stays READY.
            MapAbortedError: Unmapped or destroyed in the meantime, or the device was lost.

        Cancellation:
            A cancelled call (a timeout, say) aborts the map: the buffer is READY again when the
            cancellation arrives at the caller, and nothing changes it afterwards.
        """

    @abstractmethod
    def map(
        self, mode: MapMode = MapMode.WRITE, offset: int = 0, size: int | None = None
    ) -> MappedRange:
        """The same as `map_async`, but blocks the calling thread."""

    @abstractmethod
    def mapped_range(self, offset: int = 0, size: int | None = None) -> MappedRange:
        """Return a part of the mapped memory.

        Args:
            offset: First byte, counted from the start of the buffer; a multiple of 8.
            size: Bytes, a multiple of 4; None means up to the end of the buffer.

        Raises:
            BufferStateError: The buffer is not mapped.
            BufferRangeError: Misaligned, outside the mapped part, or it overlaps a range that
                was handed out by this method in this mapping (WebGPU §5.2, getMappedRange).
        """

    @property
    @abstractmethod
    def mapped_data(self) -> MappedRange:
        """The whole mapping, the same object that `map_async` returned.

        Raises:
            BufferStateError: The buffer is not mapped.
        """

    @abstractmethod
    def unmap(self) -> None:
        """End the mapping, or abort a pending map. Legal in every state (WebGPU §5.2).

        What was written becomes visible to the GPU; ranges are dead.

        Raises:
            MappedViewsError: Arrays that look at the mapped memory are alive. The buffer stays
                mapped; drop the arrays and call again.
        """


class IBufferFactory(ABC):
    """Makes buffers. Thread-safe."""

    @property
    @abstractmethod
    def limits(self) -> BufferLimits:
        """The device's limits on buffers."""

    @abstractmethod
    def create_buffer(self, desc: BufferDesc) -> IBuffer:
        """Make a buffer without CPU access; its contents are zero.

        Raises:
            BufferUsageError: `desc` asks for mapping; use `create_mappable_buffer`.
            BufferRangeError: The size is above the device's limit.
            OutOfMemoryError: The device has no memory for it.
            DeviceLostError: The device was lost or closed.
        """

    @abstractmethod
    def create_mappable_buffer(self, desc: BufferDesc) -> IMappableBuffer:
        """Make a buffer that can be mapped; its contents are zero.

        `desc` must ask for mapping: MAP_READ (then only COPY_DST beside it), MAP_WRITE (then
        only COPY_SRC), or `mapped_at_creation` with any usage. Devices with the feature
        ``mappable-primary-buffers`` take any combination.

        Raises:
            BufferUsageError: The usages cannot be combined, or nothing asks for mapping.
            BufferRangeError: The size is above the device's limit.
            OutOfMemoryError: The device has no memory for it.
            DeviceLostError: The device was lost or closed.
        """

    @property
    def lost(self) -> Completion[Any] | None:
        """Done when the device of the buffers has ended; None where that never happens."""
        return None

    def create_buffer_with_data(self, desc: BufferDesc, data: Any) -> IBuffer:
        """Make a buffer without CPU access that starts with `data` in it.

        Args:
            desc: As for `create_buffer`; the size is a multiple of 4.
            data: A NumPy array, or anything with the buffer protocol; no more than the size.
                Zeros follow it.

        Raises:
            BufferUsageError: `desc` asks for mapping.
            BufferRangeError: The size is above the device's limit, or below that of the data.
            OutOfMemoryError: The device has no memory for it.
            DeviceLostError: The device was lost or closed.
        """
        buffer = self.create_mappable_buffer(attrs.evolve(desc, mapped_at_creation=True))
        buffer.mapped_data.write(data)
        buffer.unmap()
        return buffer
