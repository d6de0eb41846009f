"""`DynamicBuffer`: data that changes every frame."""

from __future__ import annotations

import math
import warnings
from types import TracebackType
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import numpy.typing as npt

from pers._checks import align_up, whole_number
from pers._copying import copy_array
from pers._tracking import UsageTag
from pers.buffers.core import Buffer, core_buffer
from pers.buffers.interfaces import IBuffer, IBufferFactory
from pers.buffers.mapped_range import array_layout, as_bytes_array
from pers.buffers.types import (
    COPY_ALIGNMENT,
    MAP_USAGES,
    BufferDesc,
    BufferState,
    BufferUsage,
    usage_names,
)
from pers.buffers.view import BufferView, check_factory
from pers.errors import (
    BufferRangeError,
    BufferStateError,
    BufferUsageError,
    OutOfMemoryError,
    PerformanceWarning,
    RingFullError,
)

if TYPE_CHECKING:
    from pers.graphics.submission import Submission

__all__ = ["DynamicBuffer", "DynamicBufferStats", "DynamicUpdate"]

Offsets = npt.NDArray[np.uint32]

QUEUE_WRITE_LIMIT = 256 * 1024
"""Up to this many bytes the queue's own write is faster than a copy out of staging memory."""

LARGE_PUSH = 64 * 1024
"""From this many bytes on, a copy that lets other Python threads run pays."""

SUBMISSIONS_IN_FLIGHT = 3
"""So many let the CPU and the GPU work side by side: one recorded, one waiting, one executed."""

MOST_FRAMES = 64
"""More would be a mistake."""

LAST_OFFSET = 2**32 - 1
"""The largest dynamic offset (WebGPU §17.2.1: offsets are unsigned 32-bit numbers)."""


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
        queue_writes: Updates written by the queue itself, the small ones.
        staged: Updates copied out of the device's staging memory, the large ones.
    """

    frames: int
    frame_size: int
    peak: int
    updates: int
    bytes_written: int
    stalls: int
    grows: int
    queue_writes: int
    staged: int


class _Frame:
    """One place in the ring."""

    __slots__ = ("_many", "_offsets", "base", "tag")

    def __init__(self, base: int) -> None:
        self.base = base
        self.tag = UsageTag()
        self._many = (0, 0, 0)
        self._offsets: Offsets = np.empty(0, np.uint32)

    def offsets(self, start: int, count: int, stride: int) -> Offsets:
        """Return the offsets of so many records; mostly those of the ring's last turn."""
        if self._many != (start, count, stride):
            first = self.base + start
            offsets = np.arange(first, first + count * stride, stride, dtype=np.uint32)
            offsets.flags.writeable = False
            self._many, self._offsets = (start, count, stride), offsets
        return self._offsets


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
            offsets = update.push_many(records)
        render_pass.set_bind_group(0, group, [offset])

    Each update takes the next frame of the ring. A frame that recorded or submitted commands
    still use is never overwritten: the update waits for the GPU then (`stats.stalls` counts it;
    with ``async with`` only the task waits). Frames are freed by finished submissions, never by
    counting. A `PerformanceWarning`, once, says how many frames to ask for where more of them
    would spare the wait.

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
            frames, f"DynamicBuffer {debug_name!r}: frames", minimum=2, maximum=MOST_FRAMES
        )
        self._usage = usage | BufferUsage.COPY_DST
        self._name = debug_name or "DynamicBuffer"
        self._alignment = _offset_alignment(usage, factory)
        self._frames: list[_Frame]
        self._frame_size: int
        self._next: int
        self._shadow: npt.NDArray[np.uint8]
        self._uploads = UsageTag()  # a frame that only they use may be overwritten: they keep order
        self._outgrown: list[_Outgrown] = []
        self._update: DynamicUpdate | None = None
        self._peak = self._updates = self._bytes = self._stalls = self._grows = 0
        self._queue_writes = self._staged = 0
        self._has_warned = False
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
            queue_writes=self._queue_writes,
            staged=self._staged,
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

    def destroy(self) -> None:
        self._submit_uploads()  # which cannot be submitted afterwards
        self._stands_on.destroy()

    # What follows is for DynamicUpdate.

    def open_frame(self, update: DynamicUpdate) -> Submission | None:
        """Choose the next frame; return what the update has to wait for."""
        if self._update is not None:
            raise BufferStateError(
                f"DynamicBuffer {self._name!r}: an update is open already; leave its block first"
            )
        if self._stands_on.state is not BufferState.READY:
            self._refuse()
        tag = self._frames[self._next].tag
        if tag.is_recorded:
            raise RingFullError(
                f"DynamicBuffer {self._name!r}: all {self._frame_count} frames are used by "
                "commands that were recorded but not submitted; submit (or drop) them, or make "
                "the buffer with more frames"
            )
        is_stall = tag.is_in_flight
        if is_stall:
            self._stalls += 1
            if not self._has_warned:
                self._warn_if_short()
        self._update = update
        return tag.last_submission if is_stall else None

    def enter_frame(self) -> _Frame:
        """Direct uses of the buffer that are recorded from now on to the current frame."""
        frame = self._frames[self._next]
        self._stands_on.exchange_tag(frame.tag)
        return frame

    @property
    def frame_size(self) -> int:
        """Bytes a frame can take before the ring grows."""
        return self._frame_size

    def reserve(self, used: int, needed: int) -> npt.NDArray[np.uint8]:
        """Return the frame's memory on the CPU, at least `needed` bytes large."""
        if needed > self._frame_size:
            self._grow(used, needed)
        return self._shadow

    def close_frame(self, used: int, *, keep: bool) -> None:
        """End the update; with `keep`, queue the write and go on to the next frame."""
        self._update = None
        base = self._frames[self._next].base
        if self._outgrown:
            outgrown, self._outgrown = self._outgrown, []
            self._submit_uploads()
            for old in outgrown if keep else ():
                self._shadow[old.start : old.end] = old.memory[old.start : old.end]
                # For what was recorded with the smaller buffer before the frame outgrew it.
                self._stands_on.owner.write_buffer(old.buffer, base, self._shadow[: old.end])
        if not keep:
            return
        nbytes = align_up(used, COPY_ALIGNMENT)
        if nbytes:
            self._write(base, self._shadow[:nbytes])
        self._next = (self._next + 1) % self._frame_count
        self._peak = max(self._peak, used)
        self._updates += 1
        self._bytes += nbytes

    def _write(self, base: int, data: npt.NDArray[np.uint8]) -> None:
        """Have the GPU get the data before whatever is submitted from now on."""
        if data.nbytes > QUEUE_WRITE_LIMIT and self._stage(base, data):
            self._staged += 1
            return
        self._submit_uploads()  # or the write would overtake them
        self._stands_on.owner.write_buffer(self._stands_on, base, data)
        self._queue_writes += 1

    def _stage(self, base: int, data: npt.NDArray[np.uint8]) -> bool:
        """Upload data through the device's belt, or return False where that has no room."""
        inner = self._stands_on
        tag = inner.usage_tag
        inner.exchange_tag(self._uploads)
        try:
            inner.owner.upload(data, inner, base)
        except RingFullError:
            return False
        finally:
            inner.exchange_tag(tag)
        return True

    def _submit_uploads(self) -> None:
        if self._uploads.is_recorded:
            self._stands_on.owner.submit_uploads()

    def _refuse(self) -> None:
        """Raise for a buffer that is no longer there."""
        call = f"DynamicBuffer {self._name!r}: begin_update"
        self._stands_on.owner.check_alive(call)
        self._stands_on.check_usable(call)

    def _warn_if_short(self) -> None:
        """Warn when the wait is for want of frames, and not because the GPU has too much to do."""
        submissions = [frame.tag.last_submission for frame in self._frames]
        together = max(submissions.count(each) for each in submissions)
        needed = min(SUBMISSIONS_IN_FLIGHT * together, MOST_FRAMES)
        if self._frame_count >= needed:
            return
        self._has_warned = True
        updates = "update is" if together == 1 else "updates are"
        warnings.warn(
            f"DynamicBuffer {self._name!r}: an update had to wait for the GPU, because "
            f"{together} {updates} submitted at a time and there are {self._frame_count} frames; "
            f"make it with frames={needed}",
            PerformanceWarning,
            stacklevel=4,
        )

    def _grow(self, used: int, needed: int) -> None:
        self._stands_on.check_usable(f"DynamicBuffer {self._name!r}: growing for a larger frame")
        # Arrays given out in the frame look at its old memory, and are written to until it ends.
        start = self._outgrown[-1].end if self._outgrown else 0
        end = align_up(used, COPY_ALIGNMENT)
        outgrown = _Outgrown(self._stands_on, self._shadow, start, end)
        # The frame keeps its place, so that offsets given out in it stay right.
        base = self._frames[self._next].base
        self._lay_out(base, align_up(max(needed, 2 * self._frame_size), self._alignment))
        self._outgrown.append(outgrown)
        self._grows += 1
        self.enter_frame()

    def _lay_out(self, first_base: int, frame_size: int) -> None:
        """Make buffer, memory and frames; when that raises, nothing has changed."""
        size = first_base + self._frame_count * frame_size
        desc = BufferDesc(size, self._usage, debug_name=self._name)
        inner = core_buffer(self._factory.create_buffer(desc), "DynamicBuffer")
        inner.writes_directly = False  # the GPU may have other frames than the tag in use tells
        self._shadow = _zeros(frame_size, self._name)
        self._stands_on, self._frame_size, self._next = inner, frame_size, 0
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

    __slots__ = ("_frame", "_is_open", "_memory", "_offset", "_ring", "_used", "_view")

    def __init__(self, ring: DynamicBuffer) -> None:
        """Not called by users; `DynamicBuffer.begin_update` makes updates."""
        self._ring = ring
        self._frame: _Frame | None = None
        self._is_open = False
        self._used = self._offset = 0
        self._memory = _NOTHING
        self._view = _NOTHING.data

    @property
    def buffer(self) -> IBuffer:
        """The buffer that the data goes to."""
        return self._ring.inner

    @property
    def offset(self) -> int:
        """Where the last `as_array`, `push` or `push_many` starts in the buffer (bytes)."""
        return 0 if self._frame is None else self._frame.base + self._offset

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
        self._opened("as_array")
        start = align_up(self._used, self._ring.alignment)
        if shape is None:
            available = max(self._ring.frame_size - start, 0)
            array_layout(dtype, 0, 0, "DynamicUpdate: as_array")
            shape = available // np.dtype(dtype).itemsize
        actual, dimensions = array_layout(dtype, shape, 2**62, "DynamicUpdate: as_array")
        nbytes = math.prod(dimensions) * actual.itemsize
        self._take(start, nbytes)
        return self._memory[start : start + nbytes].view(actual).reshape(dimensions)

    def push(self, record: Any) -> int:
        """Copy a record to the next aligned place of the frame.

        Args:
            record: A NumPy array or scalar, or anything with the buffer protocol.

        Returns:
            Where it starts in the buffer (bytes): the dynamic offset for `set_bind_group`.
        """
        frame = self._opened("push")
        start = align_up(self._used, self._ring.alignment)
        data = _small_bytes(record)
        if data is not None:
            self._take(start, data.nbytes)
            self._view[start : self._used] = data
        else:
            array = as_bytes_array(record, "DynamicUpdate: push")
            self._take(start, array.nbytes)
            copy_array(self._memory[start : self._used], array)
        return frame.base + start

    def push_many(self, records: Any, *, dtype: npt.DTypeLike | None = None) -> Offsets:
        """Copy many records, each to an aligned place, at once.

        Args:
            records: A NumPy array of shape ``(n, ...)``, a record for each item of its first
                axis (so a structured array has shape ``(n,)``), or anything with the buffer
                protocol. With `dtype`, also what NumPy makes an array of, lists for example.
            dtype: What to convert the records to; None leaves them as they are.

        Returns:
            Where each record starts in the buffer (bytes, shape ``(n,)``, read-only): the dynamic
            offsets for `set_bind_group`, `IRenderPass`, and your own use.

        Raises:
            BufferUsageError: `records` holds no plain numbers.
            BufferRangeError: It has no first axis, a record has no bytes, or an offset would be
                above 2**32-1.
        """
        frame = self._opened("push_many")
        array = _records(records, dtype)
        count, alignment = len(array), self._ring.alignment
        nbytes = math.prod(array.shape[1:]) * array.itemsize
        stride = align_up(nbytes, alignment)
        start = align_up(self._used, alignment)
        if frame.base + start + count * stride > LAST_OFFSET:
            raise BufferRangeError(
                f"DynamicUpdate: push_many: {count} records of {stride} bytes (aligned to "
                f"{alignment}) do not fit below offset 2**32; push them in several buffers"
            )
        if count:
            self._take(start, (count - 1) * stride + nbytes)
            _pack(self._memory[start : self._used], array, nbytes, stride)
        return frame.offsets(start, count, stride)

    def __enter__(self) -> DynamicUpdate:
        user = self._ring.open_frame(self)
        if user is not None:
            try:
                user.wait()
            except BaseException:
                self._ring.close_frame(0, keep=False)
                raise
        return self._enter()

    async def __aenter__(self) -> DynamicUpdate:
        user = self._ring.open_frame(self)
        if user is not None:
            try:
                await user.done()
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
        if not self._is_open:
            return  # it was left before, and another update may be open by now
        self._is_open = False
        self._memory = _NOTHING
        self._view = _NOTHING.data
        self._ring.close_frame(self._used, keep=exc_type is None)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(exc_type, exc, traceback)

    def _enter(self) -> DynamicUpdate:
        self._frame = self._ring.enter_frame()
        self._used = self._offset = 0
        self._look_at(self._ring.reserve(0, 0))
        self._is_open = True
        return self

    def _take(self, start: int, nbytes: int) -> None:
        """Make the next bytes of the frame the ones in use."""
        end = start + nbytes
        if end > self._memory.nbytes:
            self._look_at(self._ring.reserve(self._used, end))
        self._used, self._offset = end, start

    def _look_at(self, memory: npt.NDArray[np.uint8]) -> None:
        self._memory = memory
        self._view = memory.data

    def _opened(self, call: str) -> _Frame:
        if not self._is_open:
            raise BufferStateError(
                f"DynamicUpdate: {call} outside of its block; "
                "use ``with dynamic.begin_update() as update:``"
            )
        assert self._frame is not None
        return self._frame


_NOTHING = np.empty(0, np.uint8)
_PLAIN_NUMBERS = frozenset("?bBhHiIlLqQefd")


def _small_bytes(record: Any) -> memoryview | None:
    """Return the bytes of a small record of plain numbers, or None where NumPy has to look at it.

    Records are pushed by the thousand, and this is several times as fast.
    """
    try:
        view = memoryview(record)
        if view.format in _PLAIN_NUMBERS and view.nbytes < LARGE_PUSH:
            return view.cast("B")
    except (TypeError, ValueError, BufferError):  # nothing plain, or not contiguous
        pass
    return None


def _records(records: Any, dtype: npt.DTypeLike | None) -> npt.NDArray[Any]:
    """Return records as an array with one of them for each item of its first axis."""
    call = "DynamicUpdate: push_many"
    try:
        if dtype is not None:
            array = np.asarray(records, dtype)
        else:
            array = np.asarray(records if type(records) is np.ndarray else memoryview(records))
    except (TypeError, ValueError) as error:
        remedy = "" if dtype is not None else "; pass a dtype to convert it"
        raise BufferUsageError(
            f"{call} takes a NumPy array of records, not {type(records).__name__} ({error}){remedy}"
        ) from None
    if array.dtype.hasobject or array.dtype.kind == "U":
        raise BufferUsageError(f"{call} takes plain numbers, not dtype {array.dtype}")
    if array.ndim == 0 or (array.nbytes == 0 and len(array)):
        raise BufferRangeError(
            f"{call} takes records of at least a byte along the first axis, not an array of shape "
            f"{array.shape} and dtype {array.dtype}; use push for a single record"
        )
    return array


def _pack(memory: npt.NDArray[np.uint8], array: npt.NDArray[Any], nbytes: int, stride: int) -> None:
    """Copy records of `nbytes` to `memory`, from the start of one to that of the next `stride`."""
    if array.flags.c_contiguous or array.dtype.names is not None:
        # Bytes, since NumPy copies the fields of structured records one by one.
        array = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        if nbytes == stride:
            copy_array(memory, array)
            return
        array = array.reshape(-1, nbytes)
    inner = np.ndarray((1, *array.shape[1:]), array.dtype, memory).strides[1:]
    copy_array(np.ndarray(array.shape, array.dtype, memory, 0, (stride, *inner)), array)


def _offset_alignment(usage: BufferUsage, factory: IBufferFactory) -> int:
    alignment = COPY_ALIGNMENT
    if usage & BufferUsage.UNIFORM:
        alignment = max(alignment, factory.limits.min_uniform_buffer_offset_alignment)
    if usage & BufferUsage.STORAGE:
        alignment = max(alignment, factory.limits.min_storage_buffer_offset_alignment)
    return alignment
