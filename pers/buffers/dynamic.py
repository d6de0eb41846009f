"""`DynamicBuffer`: data that changes every frame."""

from __future__ import annotations

import math
from types import TracebackType
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from pers._checks import align_up, whole_number
from pers._tracking import UsageTag
from pers.buffers.core import Buffer, core_buffer
from pers.buffers.interfaces import IBuffer, IBufferFactory
from pers.buffers.mapped_range import array_layout, as_bytes_array
from pers.buffers.types import COPY_ALIGNMENT, MAP_USAGES, BufferDesc, BufferUsage, usage_names
from pers.buffers.view import BufferView, check_factory
from pers.errors import BufferStateError, BufferUsageError, OutOfMemoryError, RingFullError

__all__ = ["DynamicBuffer", "DynamicBufferStats", "DynamicUpdate"]


@attrs.frozen
class DynamicBufferStats:
    """What a `DynamicBuffer` did so far.

    Attributes:
        frames: Frames in the ring.
        frame_size: Bytes a frame can take before the ring grows.
        peak: Most bytes that a frame took.
        updates: Finished updates.
        bytes_written: Bytes of all updates.
        stalls: Updates that had to wait for the GPU.
        grows: How often a frame needed more than `frame_size`.
    """

    frames: int
    frame_size: int
    peak: int
    updates: int
    bytes_written: int
    stalls: int
    grows: int


class _Frame:
    """One place in the ring."""

    __slots__ = ("base", "tag")

    def __init__(self, base: int) -> None:
        self.base = base
        self.tag = UsageTag()


@attrs.frozen
class _Outgrown:
    """What a frame stood on before it grew: bytes `start` to `end` of it are written there."""

    buffer: Buffer
    memory: npt.NDArray[np.uint8]
    start: int
    end: int


class DynamicBuffer(BufferView[Buffer]):
    """Per-frame data without stalls: a ring of frames in one buffer.

    ::

        with dynamic.begin_update() as update:
            offset = update.push(record)
        render_pass.set_bind_group(0, group, [offset])

    Each update takes the next frame of the ring. A frame that recorded or submitted commands
    still use is never overwritten: the update waits for the GPU then (`stats.stalls` counts it;
    with ``async with`` only the task waits). Frames are freed by finished submissions, never by
    counting.

    When a frame needs more than there is, the ring moves to a larger buffer (`inner` changes, so
    make bind groups from `inner` again when ``stats.grows`` changed). Offsets stay right.
    """

    def __init__(
        self,
        desc_or_size: BufferDesc | int,
        factory: IBufferFactory,
        *,
        usage: BufferUsage = BufferUsage.UNIFORM,
        frames: int = 3,
        debug_name: str = "",
    ) -> None:
        """Make the ring.

        Args:
            desc_or_size: Bytes that one frame takes, or a description with that size.
            factory: ``device.buffer_factory``.
            usage: What the data is for; COPY_DST is added.
            frames: How many frames may be in flight, 2 or more.
            debug_name: A name for error messages and graphics debuggers.

        Raises:
            BufferUsageError: A usage that needs mapping; the ring does that on its own.
        """
        check_factory("DynamicBuffer", factory)
        if isinstance(desc_or_size, BufferDesc):
            desc = desc_or_size
        else:
            size = whole_number(desc_or_size, f"DynamicBuffer {debug_name!r}: size", minimum=1)
            desc = BufferDesc(size, usage)
        size, usage = desc.size, desc.usage
        debug_name = desc.debug_name or debug_name
        if usage & MAP_USAGES or desc.mapped_at_creation:
            raise BufferUsageError(
                f"DynamicBuffer {debug_name!r} reaches its memory on its own; do not ask for "
                f"{usage_names(usage & MAP_USAGES) if usage & MAP_USAGES else 'mapped_at_creation'}"
            )
        self._factory = factory
        self._frame_count = whole_number(
            frames, f"DynamicBuffer {debug_name!r}: frames", minimum=2, maximum=64
        )
        self._usage = usage | BufferUsage.COPY_DST
        self._name = debug_name or "DynamicBuffer"
        self._alignment = _offset_alignment(usage, factory)
        self._frames: list[_Frame]
        self._frame_size: int
        self._next: int
        self._shadow: npt.NDArray[np.uint8]
        self._outgrown: list[_Outgrown] = []
        self._update: DynamicUpdate | None = None
        self._peak = self._updates = self._bytes = self._stalls = self._grows = 0
        self._lay_out(0, align_up(max(size, 1), self._alignment))

    @property
    def alignment(self) -> int:
        """What offsets are multiples of (bytes): the device's own limit for the usage."""
        return self._alignment

    @property
    def stats(self) -> DynamicBufferStats:
        """What it did so far."""
        return DynamicBufferStats(
            frames=self._frame_count,
            frame_size=self._frame_size,
            peak=self._peak,
            updates=self._updates,
            bytes_written=self._bytes,
            stalls=self._stalls,
            grows=self._grows,
        )

    def begin_update(self) -> DynamicUpdate:
        """Start a frame: use the result in a ``with`` or ``async with`` block.

        At the end of the block the data is on its way to the GPU, for everything that is
        submitted later. When the block raises, the frame is taken back. Errors are raised on
        entering the block.

        Raises:
            BufferStateError: An update is open already, or the buffer was destroyed.
            RingFullError: All frames are used by commands that were recorded but not submitted,
                which no waiting can change.
        """
        return DynamicUpdate(self)

    # What follows is for DynamicUpdate.

    def open_frame(self, update: DynamicUpdate) -> UsageTag:
        """Choose the next frame; return the tag to wait for."""
        if self._update is not None:
            raise BufferStateError(
                f"DynamicBuffer {self._name!r}: an update is open already; leave its block first"
            )
        self._inner.owner.check_alive(f"DynamicBuffer {self._name!r}: begin_update")
        self._inner.check_usable(f"DynamicBuffer {self._name!r}: begin_update")
        tag = self._frames[self._next].tag
        if tag.is_recorded:
            raise RingFullError(
                f"DynamicBuffer {self._name!r}: all {self._frame_count} frames are used by "
                "commands that were recorded but not submitted; submit (or drop) them, or make "
                "the buffer with more frames"
            )
        if tag.is_in_flight:
            self._stalls += 1
        self._update = update
        return tag

    def enter_frame(self) -> None:
        """Direct uses of the buffer that are recorded from now on to the current frame."""
        self._inner.usage_tag = self._frames[self._next].tag

    @property
    def base(self) -> int:
        """Where the current frame starts in the buffer (bytes)."""
        return self._frames[self._next].base

    def reserve(self, used: int, needed: int) -> npt.NDArray[np.uint8]:
        """Return the frame's memory on the CPU, at least `needed` bytes large."""
        if needed > self._frame_size:
            self._grow(used, needed)
        return self._shadow

    def close_frame(self, used: int, *, keep: bool) -> None:
        """End the update; with `keep`, queue the write and go on to the next frame."""
        self._update = None
        outgrown, self._outgrown = self._outgrown, []
        if not keep:
            return
        for old in outgrown:
            self._shadow[old.start : old.end] = old.memory[old.start : old.end]
            # For what was recorded with the smaller buffer before the frame outgrew it.
            self._inner.owner.write_buffer(old.buffer, self.base, self._shadow[: old.end])
        nbytes = align_up(used, COPY_ALIGNMENT)
        if nbytes:
            self._inner.owner.write_buffer(self._inner, self.base, self._shadow[:nbytes])
        self._next = (self._next + 1) % self._frame_count
        self._peak = max(self._peak, used)
        self._updates += 1
        self._bytes += nbytes

    def _grow(self, used: int, needed: int) -> None:
        self._inner.check_usable(f"DynamicBuffer {self._name!r}: growing for a larger frame")
        # Arrays given out in the frame look at its old memory, and are written to until it ends.
        start = self._outgrown[-1].end if self._outgrown else 0
        end = align_up(used, COPY_ALIGNMENT)
        outgrown = _Outgrown(self._inner, self._shadow, start, end)
        # The frame keeps its place, so that offsets given out in it stay right.
        self._lay_out(self.base, align_up(max(needed, 2 * self._frame_size), self._alignment))
        self._outgrown.append(outgrown)
        self._grows += 1
        self.enter_frame()

    def _lay_out(self, first_base: int, frame_size: int) -> None:
        """Make buffer, memory and frames; when that raises, nothing has changed."""
        size = first_base + self._frame_count * frame_size
        desc = BufferDesc(size, self._usage, debug_name=self._name)
        inner = core_buffer(self._factory.create_buffer(desc), "DynamicBuffer")
        self._shadow = _zeros(frame_size, self._name)
        self._inner, self._frame_size, self._next = inner, frame_size, 0
        self._frames = [
            _Frame(first_base + index * frame_size) for index in range(self._frame_count)
        ]


def _zeros(nbytes: int, name: str) -> npt.NDArray[np.uint8]:
    try:
        return np.zeros(nbytes, np.uint8)
    except MemoryError:
        raise OutOfMemoryError(
            f"DynamicBuffer {name!r}: the host has no memory for a frame of {nbytes} bytes; "
            "write less in a frame"
        ) from None


class DynamicUpdate:
    """One frame of a `DynamicBuffer`, while it is being written."""

    def __init__(self, ring: DynamicBuffer) -> None:
        """Not called by users; `DynamicBuffer.begin_update` makes updates."""
        self._ring = ring
        self._open = False
        self._used = 0
        self._offset = 0

    @property
    def buffer(self) -> IBuffer:
        """The buffer that the data goes to."""
        return self._ring.inner

    @property
    def offset(self) -> int:
        """Where the last `as_array` or `push` starts in the buffer (bytes): a dynamic offset."""
        return self._ring.base + self._offset if self._open else self._closed_offset

    def as_array(
        self, dtype: npt.DTypeLike = np.uint8, shape: int | tuple[int, ...] | None = None
    ) -> npt.NDArray[Any]:
        """Return the next part of the frame as an array, to be written until the block ends.

        Args:
            dtype: Item type.
            shape: Shape; None means one dimension with all that is left of the frame.

        Returns:
            Zeros, or what an older frame left; write all of it.
        """
        self._check_open("as_array")
        start = align_up(self._used, self._ring.alignment)
        if shape is None:
            available = max(self._ring.stats.frame_size - start, 0)
            array_layout(dtype, 0, 0, "DynamicUpdate: as_array")
            shape = available // np.dtype(dtype).itemsize
        actual, dimensions = array_layout(dtype, shape, 2**62, "DynamicUpdate: as_array")
        nbytes = math.prod(dimensions) * actual.itemsize
        memory = self._take(start, nbytes)
        return memory.view(actual).reshape(dimensions)

    def push(self, record: Any) -> int:
        """Copy a record to the next aligned place of the frame.

        Args:
            record: A NumPy array or scalar, or anything with the buffer protocol.

        Returns:
            Where it starts in the buffer (bytes): the dynamic offset for `set_bind_group`.
        """
        self._check_open("push")
        data = as_bytes_array(record, "DynamicUpdate: push")
        self._take(align_up(self._used, self._ring.alignment), data.nbytes)[:] = data
        return self.offset

    def __enter__(self) -> DynamicUpdate:
        tag = self._ring.open_frame(self)
        if tag.last_submission is not None:
            try:
                tag.last_submission.wait()
            except BaseException:
                self._ring.close_frame(0, keep=False)
                raise
        return self._enter()

    async def __aenter__(self) -> DynamicUpdate:
        tag = self._ring.open_frame(self)
        if tag.last_submission is not None and not tag.last_submission.is_done:
            try:
                await tag.last_submission.done()
            except BaseException:
                self._ring.close_frame(0, keep=False)
                raise
        return self._enter()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closed_offset = self.offset
        self._open = False
        self._ring.close_frame(self._used, keep=exc_type is None)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(exc_type, exc, traceback)

    _closed_offset = 0

    def _enter(self) -> DynamicUpdate:
        self._ring.enter_frame()
        self._used = self._offset = 0
        self._open = True
        return self

    def _take(self, start: int, nbytes: int) -> npt.NDArray[np.uint8]:
        end = start + nbytes
        memory = self._ring.reserve(self._used, end)
        self._used, self._offset = end, start
        return memory[start:end]

    def _check_open(self, call: str) -> None:
        if not self._open:
            raise BufferStateError(
                f"DynamicUpdate: {call} outside of its block; "
                "use ``with dynamic.begin_update() as update:``"
            )


def _offset_alignment(usage: BufferUsage, factory: IBufferFactory) -> int:
    alignment = COPY_ALIGNMENT
    if usage & BufferUsage.UNIFORM:
        alignment = max(alignment, factory.limits.min_uniform_buffer_offset_alignment)
    if usage & BufferUsage.STORAGE:
        alignment = max(alignment, factory.limits.min_storage_buffer_offset_alignment)
    return alignment
