"""What must happen: buffers, queue and time as the rules describe them, and nothing else.

Nothing here looks at a device. For each call there is a method that returns every kind of error
that there is a reason for (``..._errors``; empty means that the call must succeed), and one that
changes the model as a successful call changes the device.

Contents are kept in queue order: a command changes them when it is submitted. That is all that a
caller can see, since memory is mapped and read back only after the work that uses it.
"""

from __future__ import annotations

import heapq
import operator
from collections.abc import Callable
from typing import Any, TypeAlias

import attrs

from pers.buffers import BufferLimits, BufferState, BufferUsage, MapMode
from pers.errors import (
    BufferRangeError,
    BufferStateError,
    BufferUsageError,
    DeviceLostError,
    MapAbortedError,
    MappedViewsError,
    OutOfMemoryError,
    PersError,
    ValidationError,
)
from pers.textures import TextureUsage

__all__ = [
    "NO_ERRORS",
    "BufferModel",
    "CommandsModel",
    "Errors",
    "MapModel",
    "MappingModel",
    "Oracle",
    "RangeModel",
    "SubmissionModel",
    "TextureModel",
    "VirtualClock",
    "Window",
    "row_copies",
    "whole",
]

Errors: TypeAlias = frozenset[type[PersError]]
"""The kinds of error that a call has a reason to raise; empty when it must succeed."""

Moment: TypeAlias = tuple[int, bool]
"""Nanoseconds, and whether only an explicit advance reaches that moment."""

NO_ERRORS: Errors = frozenset()
RANGE: Errors = frozenset({BufferRangeError})
STATE: Errors = frozenset({BufferStateError})
USAGE: Errors = frozenset({BufferUsageError})
INVALID: Errors = frozenset({ValidationError})
LOST: Errors = frozenset({DeviceLostError})
MEMORY: Errors = frozenset({OutOfMemoryError})
VIEWS: Errors = frozenset({MappedViewsError})

LARGEST = 2**63 - 1


def whole(value: object) -> int | None:
    """Return a size or an offset as an int, or None when it is none."""
    if isinstance(value, bool):
        return None
    try:
        number = operator.index(value)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    except TypeError:
        return None
    return number if 0 <= number <= LARGEST else None


@attrs.define(eq=False)
class Window:
    """Memory that at least one array looks at; an array and its slices share one."""

    mapping: MappingModel = attrs.field(repr=False)
    start: int
    nbytes: int
    arrays: int = 0
    on_gone: Callable[[], None] | None = None
    """Called when the last array is gone."""

    def drop_array(self) -> None:
        """Count an array out."""
        self.arrays -= 1
        if not self.arrays and self.on_gone is not None:
            self.on_gone()


@attrs.define(eq=False)
class MappingModel:
    """Mapped memory, which lives on for its windows when the mapping has ended."""

    home: Oracle | None = attrs.field(repr=False)
    mode: MapMode
    offset: int
    memory: bytearray = attrs.field(repr=False)
    taken: list[tuple[int, int]] = attrs.field(factory=list[tuple[int, int]])
    windows: list[Window] = attrs.field(factory=list[Window], repr=False)
    ended: bool = False

    @property
    def end(self) -> int:
        """The first byte of the buffer after it."""
        return self.offset + len(self.memory)

    @property
    def live_windows(self) -> int:
        """How many windows have arrays on them."""
        self.windows = [window for window in self.windows if window.arrays]
        return len(self.windows)

    def whole_range(self) -> RangeModel:
        """Return all of it as a range."""
        return RangeModel(self, self.offset, len(self.memory))


@attrs.define(eq=False)
class RangeModel:
    """A range that was handed out; `offset` counts from the start of the buffer."""

    mapping: MappingModel
    offset: int
    nbytes: int

    def open_window(self, nbytes: int) -> Window:
        """Look at the first bytes of the range."""
        window = Window(self.mapping, self.offset - self.mapping.offset, nbytes)
        if nbytes:
            self.mapping.windows.append(window)
        return window

    def dead_errors(self) -> Errors:
        """Why the range is dead, if it is."""
        if not self.mapping.ended:
            return NO_ERRORS
        return STATE | LOST if self.mapping.home is None or self.mapping.home.lost else STATE

    def errors(self, offset: Any, nbytes: Any) -> Errors:
        """Why bytes of the range cannot be read or written."""
        errors = self.dead_errors()
        start, length = whole(offset), whole(nbytes)
        if start is None or length is None or start + length > self.nbytes:
            errors |= RANGE
        return errors

    def bytes_at(self, offset: int, nbytes: int) -> bytes:
        """Return bytes of the range."""
        start = self.offset - self.mapping.offset + offset
        return bytes(self.mapping.memory[start : start + nbytes])

    def write(self, offset: int, data: bytes) -> None:
        """Change bytes of the range."""
        start = self.offset - self.mapping.offset + offset
        self.mapping.memory[start : start + len(data)] = data


@attrs.define(eq=False)
class Promise:
    """Something that ends later."""

    issued: int
    ended: bool = False
    error: type[PersError] | None = None


@attrs.define(eq=False)
class SubmissionModel(Promise):
    """Submitted work."""

    loses_device: bool = False


@attrs.define(eq=False)
class MapModel(Promise):
    """A map that was asked for."""

    buffer: BufferModel = attrs.field(kw_only=True)
    mode: MapMode = attrs.field(kw_only=True)
    offset: int = attrs.field(kw_only=True)
    size: int = attrs.field(kw_only=True)
    fails: bool = attrs.field(kw_only=True, default=False)
    mapping: MappingModel | None = None


@attrs.define(eq=False)
class BufferModel:
    """One buffer."""

    home: Oracle
    name: str
    usage: BufferUsage
    contents: bytearray
    state: BufferState = BufferState.READY
    pending: MapModel | None = None
    mapping: MappingModel | None = None
    used_until: Moment = (0, False)
    last_use: SubmissionModel | None = None

    @property
    def size(self) -> int:
        """Size in bytes."""
        return len(self.contents)


TEXTURE_ROW = 32
"""Bytes in a row of the textures used: 8 pixels of 4 bytes."""
ROW_PITCH = 256
"""Bytes from row to row where such pixels lie in a buffer."""


@attrs.define(eq=False)
class TextureModel(BufferModel):
    """One texture; `contents` has no padding between its rows."""

    texture_usage: TextureUsage = attrs.field(kw_only=True)

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return self.size // TEXTURE_ROW


@attrs.frozen
class Copy:
    """A recorded copy."""

    source: BufferModel
    source_offset: int
    target: BufferModel
    target_offset: int
    size: int


@attrs.frozen
class Fill:
    """Recorded bytes for a buffer: an upload, or the zeros of a clear."""

    target: BufferModel
    offset: int
    data: bytes


@attrs.define(eq=False)
class CommandsModel:
    """An encoder and the command buffer that it becomes."""

    home: Oracle
    steps: list[Copy | Fill] = attrs.field(factory=list[Copy | Fill])
    used: set[BufferModel] = attrs.field(factory=set[BufferModel])
    busy: set[BufferModel] = attrs.field(factory=set[BufferModel])
    """The part of `used` that the GPU gets something to do with."""
    uploads: int = 0
    """How many uploads of a belt were recorded."""
    open_pass: bool = False
    """Whether a pass was begun and not ended."""
    finished: bool = False
    submitted: bool = False

    def record(self, step: Copy | Fill, *used: BufferModel, idle: bool = False) -> None:
        """Record a command."""
        self.steps.append(step)
        self.used.update(used)
        if not idle:
            self.busy.update(used)

    def reads(self, buffer: BufferModel, start: int, end: int) -> bool:
        """Whether a command reads bytes of `buffer` from `start` to `end`."""
        return any(
            isinstance(step, Copy)
            and step.source is buffer
            and step.source_offset < end
            and step.source_offset + step.size > start
            for step in self.steps
        )


class VirtualClock:
    """When things end on a `NullClock` that is advanced by hand, by its documentation."""

    def __init__(self) -> None:
        self.now = 0
        self.submission_latency: int | None = None
        self.map_latency: int | None = None
        self._queue_end: Moment = (0, False)
        self._events: list[tuple[Moment, int, Promise]] = []
        self._serial = 0

    def work_end(self) -> Moment:
        """Return when work submitted now ends."""
        held = self.submission_latency is None
        self._queue_end = max((self.now + (self.submission_latency or 0), held), self._queue_end)
        return self._queue_end

    def write_end(self) -> Moment:
        """Return when a queue write ends: with all the work before it."""
        self._queue_end = max((self.now, False), self._queue_end)
        return self._queue_end

    def map_end(self, used_until: Moment) -> Moment:
        """Return when a map ends, given when the GPU is done with the buffer."""
        free, held = max((self.now, False), used_until)
        held = (held and not self.map_latency) or self.map_latency is None
        return free + (self.map_latency or 0), held

    def schedule(self, moment: Moment, promise: Promise) -> None:
        """Let `promise` end at `moment`."""
        self._serial += 1
        heapq.heappush(self._events, (moment, self._serial, promise))

    def due(self) -> list[Promise]:
        """Take out what ends without an advance."""
        return self._until((self.now, False))

    def advance(self, nanoseconds: int) -> list[Promise]:
        """Move forward; take out what ends by then."""
        ended = self._until((self.now + nanoseconds, True))
        self.now += nanoseconds
        return ended

    def finish(self, now: int) -> list[Promise]:
        """Take out everything: `now` is after all of it."""
        self.now = now
        self._queue_end = min(self._queue_end, (now, True))
        return self._until((LARGEST, True))

    def _until(self, limit: Moment) -> list[Promise]:
        ended: list[Promise] = []
        while self._events and self._events[0][0] <= limit:
            ended.append(heapq.heappop(self._events)[2])
        return ended


class Oracle:
    """One device, by the rules."""

    def __init__(self, limits: BufferLimits, *, virtual: bool) -> None:
        """Describe a new device.

        Args:
            limits: Its limits.
            virtual: Whether its time stands still until it is advanced. Otherwise what ends, and
                when, is observed and told by `ended`.
        """
        self.limits = limits
        self.clock = VirtualClock() if virtual else None
        self.lost = False
        self.loss_is_armed = False
        """Whether the next submission loses the device."""
        self.buffers: list[BufferModel] = []
        self.submissions: list[SubmissionModel] = []
        """Those that have not ended."""
        self._issued = 0

    # Creation (WebGPU §5.1.3)

    def creation_errors(self, size: Any, usage: int, *, mapped: bool, mappable: bool) -> Errors:
        """Why a buffer cannot be made."""
        errors = LOST if self.lost else NO_ERRORS
        nbytes = whole(size)
        if nbytes is None or nbytes > self.limits.max_buffer_size or (mapped and nbytes % 4):
            errors |= RANGE
        known = sum(flag.value for flag in BufferUsage)
        maps = usage & (BufferUsage.MAP_READ | BufferUsage.MAP_WRITE)
        if usage == 0 or usage & ~known or mappable != bool(maps or mapped):
            errors |= USAGE
        if not self.limits.map_primary_buffers:
            if usage & BufferUsage.MAP_READ:
                maps = usage & ~(BufferUsage.MAP_READ | BufferUsage.COPY_DST)
                errors |= USAGE if maps else NO_ERRORS
            if usage & BufferUsage.MAP_WRITE:
                maps = usage & ~(BufferUsage.MAP_WRITE | BufferUsage.COPY_SRC)
                errors |= USAGE if maps else NO_ERRORS
        return errors

    def create(
        self, name: str, size: int, usage: BufferUsage, *, mapped: bool = False
    ) -> BufferModel:
        """Make a buffer with zeros in it."""
        buffer = BufferModel(self, name, usage, bytearray(size))
        if mapped:
            self._start_mapping(buffer, MapMode.WRITE, 0, size)
        self.buffers.append(buffer)
        return buffer

    def forget(self, buffer: BufferModel) -> None:
        """Note that nobody has the buffer any more."""
        self.destroy(buffer)
        if buffer in self.buffers:
            self.buffers.remove(buffer)

    def create_texture(self, name: str, rows: int, usage: TextureUsage) -> TextureModel:
        """Make a texture with zeros in it."""
        contents = bytearray(TEXTURE_ROW * rows)
        texture = TextureModel(self, name, BufferUsage.NONE, contents, texture_usage=usage)
        self.buffers.append(texture)
        return texture

    # Mapping (WebGPU §5.2)

    def map_errors(self, buffer: BufferModel, mode: Any, offset: Any, size: Any) -> Errors:
        """Why a map is rejected at once."""
        errors = LOST if self.lost else NO_ERRORS
        if buffer.state is not BufferState.READY:
            errors |= STATE
        needed = {1: BufferUsage.MAP_READ, 2: BufferUsage.MAP_WRITE}.get(mode)
        if needed is None or not buffer.usage & needed:
            errors |= USAGE
        return errors | _span_errors(offset, size, 0, buffer.size, buffer.size)

    def begin_map(
        self, buffer: BufferModel, mode: MapMode, offset: int, size: int | None, *, fails: bool
    ) -> MapModel:
        """Ask for a map; `fails` when it is to end with `OutOfMemoryError`."""
        length = buffer.size - offset if size is None else size
        pending = MapModel(
            self._next_issue(),
            buffer=buffer,
            mode=MapMode(mode),
            offset=offset,
            size=length,
            fails=fails,
        )
        buffer.pending, buffer.state = pending, BufferState.MAP_PENDING
        if self.clock is not None:
            self.clock.schedule(self.clock.map_end(buffer.used_until), pending)
        return pending

    def abort_map(self, buffer: BufferModel) -> None:
        """End a pending map without a mapping."""
        pending, buffer.pending = buffer.pending, None
        if pending is not None:
            pending.ended, pending.error = True, MapAbortedError
            buffer.state = BufferState.READY

    def unmap_errors(self, buffer: BufferModel) -> Errors:
        """Why `unmap` is refused."""
        return VIEWS if buffer.mapping is not None and buffer.mapping.live_windows else NO_ERRORS

    def unmap(self, buffer: BufferModel) -> None:
        """End the mapping or the pending map; what was written becomes visible to the GPU."""
        self.abort_map(buffer)
        mapping = buffer.mapping
        if mapping is not None:
            if mapping.mode is MapMode.WRITE:
                buffer.contents[mapping.offset : mapping.end] = mapping.memory
            self._end_mapping(buffer, BufferState.READY)

    def destroy(self, buffer: BufferModel) -> None:
        """Give the memory back; windows keep theirs."""
        self.abort_map(buffer)
        self._end_mapping(buffer, BufferState.DESTROYED)

    def range_errors(self, buffer: BufferModel, offset: Any, size: Any) -> Errors:
        """Why a mapped range is not handed out."""
        errors = LOST if self.lost else NO_ERRORS
        mapping = buffer.mapping
        if mapping is None:
            return errors | STATE | _span_errors(offset, size, 0, LARGEST, buffer.size)
        errors |= _span_errors(offset, size, mapping.offset, mapping.end, buffer.size)
        if not errors:
            end = buffer.size if size is None else offset + size
            if any(offset < other_end and end > start for start, other_end in mapping.taken):
                errors |= RANGE
        return errors

    def take_range(self, buffer: BufferModel, offset: int, size: int | None) -> RangeModel:
        """Hand out a mapped range."""
        assert buffer.mapping is not None
        length = buffer.size - offset if size is None else size
        buffer.mapping.taken.append((offset, offset + length))
        return RangeModel(buffer.mapping, offset, length)

    # Work (WebGPU §13, §19)

    def write_errors(self, buffer: BufferModel, offset: Any, nbytes: int) -> Errors:
        """Why a write on the queue, or an upload, is refused."""
        if isinstance(buffer, TextureModel):
            return self.texture_errors(buffer, TextureUsage.COPY_DST)
        errors = self.use_errors(buffer, BufferUsage.COPY_DST)
        if buffer.state is not BufferState.READY:
            errors |= STATE
        return errors | _place_errors(buffer, offset, nbytes)

    def write(self, buffer: BufferModel, offset: int, data: bytes) -> None:
        """Write on the queue."""
        buffer.contents[offset : offset + len(data)] = data
        if data and self.clock is not None:
            buffer.used_until = self.clock.write_end()

    def use_errors(self, buffer: BufferModel, usage: BufferUsage) -> Errors:
        """Why a command with the buffer cannot be recorded."""
        errors = LOST if self.lost else NO_ERRORS
        if buffer.home is not self:
            errors |= INVALID
        if not buffer.usage & usage:
            errors |= USAGE
        if buffer.state is BufferState.DESTROYED:
            errors |= STATE
        return errors

    def texture_errors(self, texture: TextureModel, usage: TextureUsage) -> Errors:
        """Why a command with the texture cannot be recorded."""
        errors = LOST if self.lost else NO_ERRORS
        destroyed = texture.state is BufferState.DESTROYED
        if texture.home is not self or destroyed or not texture.texture_usage & usage:
            errors |= INVALID
        return errors

    def pixels_errors(
        self, buffer: BufferModel, usage: BufferUsage, offset: Any, pitch: Any, rows: int
    ) -> Errors:
        """Why a buffer cannot be where the pixels of a texture are copied from or to."""
        errors = self.use_errors(buffer, usage)
        start = whole(offset)
        per_row = ROW_PITCH if pitch is None else whole(pitch)
        if start is None or per_row is None or start % 4 or per_row % ROW_PITCH or not per_row:
            return errors | RANGE
        needed = start + per_row * (rows - 1) + TEXTURE_ROW
        return errors | (RANGE if needed > buffer.size else NO_ERRORS)

    def copy_errors(
        self,
        source: BufferModel,
        source_offset: Any,
        target: BufferModel,
        target_offset: Any,
        size: Any,
    ) -> Errors:
        """Why a copy between buffers cannot be recorded."""
        errors = self.use_errors(source, BufferUsage.COPY_SRC)
        errors |= self.use_errors(target, BufferUsage.COPY_DST)
        if source is target:
            errors |= USAGE
        start = whole(source_offset)
        length = source.size - start if size is None and start is not None else size
        errors |= _place_errors(source, source_offset, length)
        return errors | _place_errors(target, target_offset, length)

    def clear_errors(self, buffer: BufferModel, offset: Any, size: Any) -> Errors:
        """Why a clear cannot be recorded."""
        start = whole(offset)
        length = buffer.size - start if size is None and start is not None else size
        errors = self.use_errors(buffer, BufferUsage.COPY_DST)
        return errors | _place_errors(buffer, offset, length)

    def submit_errors(self, commands: list[CommandsModel]) -> Errors:
        """Why a submit is refused; what counts is the state of the buffers now."""
        errors = LOST if self.lost else NO_ERRORS
        if len(set(map(id, commands))) < len(commands):
            errors |= INVALID
        for each in commands:
            if each.submitted or each.home is not self:
                errors |= INVALID
            for buffer in each.used:
                if buffer.state is not BufferState.READY:
                    errors |= INVALID if isinstance(buffer, TextureModel) else STATE
        return errors

    def submit(self, commands: list[CommandsModel]) -> SubmissionModel:
        """Hand over command buffers."""
        submission = SubmissionModel(self._next_issue(), loses_device=self.loss_is_armed)
        self.loss_is_armed = False
        self.submissions.append(submission)
        end = (0, False)
        if self.clock is not None:
            end = self.clock.work_end()
            self.clock.schedule(end, submission)
        for each in commands:
            each.submitted = True
            for step in each.steps:
                _execute(step)
            for buffer in each.busy:
                buffer.used_until = end
                buffer.last_use = submission
            each.steps.clear()
            each.used.clear()
            each.busy.clear()
        return submission

    # Time

    def ended(self, promises: list[Promise]) -> None:
        """Note that these have ended, in this order."""
        for promise in promises:
            if promise.ended:
                continue
            if isinstance(promise, MapModel):
                self._map_ended(promise)
            elif isinstance(promise, SubmissionModel):
                if promise.loses_device:
                    self.lose()
                    return
                promise.ended = True
                self.submissions.remove(promise)

    def lose(self) -> None:
        """End the device: maps are aborted, work never ends, buffers are destroyed."""
        self.lost = True
        for buffer in self.buffers:
            self.destroy(buffer)
        for submission in self.submissions:
            submission.ended, submission.error = True, DeviceLostError
        self.submissions.clear()

    def _map_ended(self, pending: MapModel) -> None:
        buffer = pending.buffer
        pending.ended = True
        buffer.pending, buffer.state = None, BufferState.READY
        if pending.fails:
            pending.error = OutOfMemoryError
        else:
            pending.mapping = self._start_mapping(
                buffer, pending.mode, pending.offset, pending.size
            )

    def _start_mapping(
        self, buffer: BufferModel, mode: MapMode, offset: int, size: int
    ) -> MappingModel:
        buffer.mapping = MappingModel(self, mode, offset, buffer.contents[offset : offset + size])
        buffer.state = BufferState.MAPPED
        return buffer.mapping

    def _end_mapping(self, buffer: BufferModel, state: BufferState) -> None:
        mapping, buffer.mapping = buffer.mapping, None
        buffer.state = state
        if mapping is not None:
            mapping.ended = True

    def _next_issue(self) -> int:
        self._issued += 1
        return self._issued

    def span_errors(self, offset: Any, size: Any, buffer_size: int) -> Errors:
        """Why a part of a buffer cannot be mapped, whatever its state."""
        return _span_errors(offset, size, 0, buffer_size, buffer_size)


def row_copies(
    rows: int,
    source: BufferModel,
    source_offset: int,
    source_pitch: int,
    target: BufferModel,
    target_offset: int,
    target_pitch: int,
) -> list[Copy]:
    """Return a copy of rows of pixels as copies of bytes."""
    return [
        Copy(
            source,
            source_offset + row * source_pitch,
            target,
            target_offset + row * target_pitch,
            TEXTURE_ROW,
        )
        for row in range(rows)
    ]


def _execute(step: Copy | Fill) -> None:
    if isinstance(step, Copy):
        data = step.source.contents[step.source_offset : step.source_offset + step.size]
        step.target.contents[step.target_offset : step.target_offset + step.size] = data
    else:
        step.target.contents[step.offset : step.offset + len(step.data)] = step.data


def _span_errors(offset: Any, size: Any, start: int, end: int, buffer_size: int) -> Errors:
    """Check a mapped span: None means up to the end of the *buffer*."""
    first = whole(offset)
    if first is None or first % 8 or first < start:
        return RANGE
    length = whole(buffer_size - first if size is None else size)
    if length is None or length % 4 or first + length > end:
        return RANGE
    return NO_ERRORS


def _place_errors(buffer: BufferModel, offset: Any, nbytes: Any) -> Errors:
    """Check bytes of a copy or a write."""
    start, length = whole(offset), whole(nbytes)
    if start is None or length is None or start % 4 or length % 4 or start + length > buffer.size:
        return RANGE
    return NO_ERRORS
