"""`ReadbackStream`: a result of every frame, some frames later."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import attrs
import numpy as np
import numpy.typing as npt

from pers._checks import MAX_INT, whole_number
from pers._completion import Completion
from pers._tracking import UsageTag
from pers.buffers.contents import check_layout
from pers.buffers.interfaces import IBuffer, IBufferFactory
from pers.buffers.mapped_range import MappedRange, array_layout
from pers.buffers.readback_slots import READBACK_USAGE, ReadbackSlots
from pers.buffers.result import Result, Source
from pers.buffers.types import BufferDesc
from pers.buffers.view import check_encoder, check_factory, fixed_usage_desc
from pers.errors import BufferStateError, DeviceLostError, PersError, RingFullError
from pers.textures import ITexture, TexelCopyTextureInfo

if TYPE_CHECKING:
    from pers.graphics.interfaces import ICommandEncoder
    from pers.graphics.submission import Submission

__all__ = ["ReadbackStream", "ReadbackStreamStats"]


@attrs.frozen
class ReadbackStreamStats:
    """What a `ReadbackStream` holds and did so far.

    Attributes:
        pushed: Results that were recorded.
        delivered: Those that the consumer got.
        dropped: Those that it did not: given up or skipped because the consumer or the GPU was
            too slow, or never submitted.
        outstanding: Those that it is still to get.
        bytes_read: Bytes delivered, without the padding of rows.
        slots: Buffers that there are now, those of living arrays included.
    """

    pushed: int
    delivered: int
    dropped: int
    outstanding: int
    bytes_read: int
    slots: int


class _SubmitTag(UsageTag):
    """The use of a slot's memory; its stream hears of every submit, on whatever thread."""

    __slots__ = ("_last", "_stream")

    def __init__(self, stream: ReadbackStream) -> None:
        self._stream = weakref.ref(stream)
        super().__init__()

    @property
    def last_submission(self) -> Submission | None:
        """The latest submission that uses the memory."""
        return self._last

    @last_submission.setter
    def last_submission(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, submission: Submission | None
    ) -> None:
        self._last = submission
        stream = self._stream()
        if submission is not None and stream is not None:
            stream.ring()


class _Entry:
    """A result on its way."""

    __slots__ = ("before", "map", "result", "tag", "usage")

    def __init__(self, tag: Any, result: Result, usage: UsageTag) -> None:
        self.tag = tag
        self.result = result
        self.usage = usage
        self.before: Submission | None = usage.last_submission
        """The submission before the one that it waits for."""
        self.map: Completion[MappedRange] | None = None


class ReadbackStream:
    """Results of every frame, in order, some frames later and without blocking the frame loop.

    ::

        for tag, pixels in stream.poll():
            ...
        stream.push(encoder, picture, tag=frame_number)
        device.queue.submit([encoder.finish()])

    A task of its own may take them with ``async for tag, pixels in stream``, until `close`. The
    arrays are the mapped memory itself, as those of `ReadbackBuffer.read_array` are.

    At most `frames_in_flight` results are outstanding: pushed and not yet taken. What happens
    then is the choice of the caller: `push` raises `RingFullError`, ``await stream.room()`` waits
    for the consumer, `take_blocking` for the GPU, and with `drop_oldest` results are left out.

    A stream belongs to one thread; several of its tasks may use it.
    """

    def __init__(
        self,
        desc_or_size: BufferDesc | int,
        factory: IBufferFactory,
        *,
        frames_in_flight: int = 3,
        drop_oldest: bool = False,
        dtype: npt.DTypeLike | None = None,
        shape: int | tuple[int, ...] | None = None,
        debug_name: str = "",
    ) -> None:
        """Make a stream.

        Args:
            desc_or_size: Most bytes of a result, or a description with that size. For pixels,
                count the rows' padding: ``pers.TextureRows(...).nbytes``.
            factory: ``device.buffer_factory``.
            frames_in_flight: How many results may be outstanding, 2 or more.
            drop_oldest: Whether `push` makes room by giving up the oldest result that has
                arrived. When none has, because the GPU is behind, it leaves out the new one.
            dtype: Item type of the arrays; None as for `ReadbackBuffer.read_array`.
            shape: Shape of the arrays; None as for `ReadbackBuffer.read_array`.
            debug_name: A name for error messages and graphics debuggers.

        Raises:
            BufferUsageError: The description asks for more than MAP_READ | COPY_DST, or no such
                items can be in a buffer.
            BufferRangeError: There is no such shape.
        """
        check_factory("ReadbackStream", factory)
        self._factory = factory
        desc = fixed_usage_desc("ReadbackStream", desc_or_size, READBACK_USAGE, debug_name)
        self._size = desc.size
        self._name = f"ReadbackStream {desc.debug_name!r}"
        self._frames = whole_number(
            frames_in_flight, f"{self._name}: frames_in_flight", minimum=2, maximum=64
        )
        array_layout(np.uint8 if dtype is None else dtype, shape or 0, MAX_INT, self._name)
        self._drop_oldest = drop_oldest
        self._dtype = dtype
        self._shape = shape
        self._slots = ReadbackSlots(
            factory, desc.debug_name, max_idle=self._frames, max_idle_bytes=MAX_INT
        )
        self._entries: deque[_Entry] = deque()
        self._closed = False
        self._ringing = threading.Lock()
        self._news: Completion[None] = Completion(f"news of {self._name}")
        self._pushed = self._delivered = self._dropped = 0

    @property
    def outstanding(self) -> int:
        """How many results were pushed and not yet taken."""
        return len(self._entries)

    @property
    def is_full(self) -> bool:
        """Whether `push` has no room."""
        return len(self._entries) >= self._frames

    @property
    def stats(self) -> ReadbackStreamStats:
        """What it holds and did so far."""
        slots = self._slots.stats
        return ReadbackStreamStats(
            pushed=self._pushed,
            delivered=self._delivered,
            dropped=self._dropped,
            outstanding=self.outstanding,
            bytes_read=slots.bytes_read,
            slots=slots.slots,
        )

    def push(
        self,
        encoder: ICommandEncoder,
        source: IBuffer | ITexture | TexelCopyTextureInfo,
        source_offset: int = 0,
        *,
        size: int | tuple[int, int, int] | None = None,
        tag: Any = None,
    ) -> bool:
        """Record the copy of a result. It arrives when the GPU has carried out the commands.

        Args:
            encoder: Records the copy.
            source: A buffer or a texture with usage COPY_SRC.
            source_offset: Where in a source buffer (bytes, a multiple of 4).
            size: As for `ReadbackBuffer.copy_from`.
            tag: Comes back with the array.

        Returns:
            Whether it was recorded; always, without `drop_oldest`.

        Raises:
            RingFullError: `frames_in_flight` results are outstanding, without `drop_oldest`.
            BufferRangeError: It does not fit.
            BufferStateError: The stream is closed.
        """
        call = f"{self._name}: push"
        check_encoder(call, encoder)
        if self._closed:
            raise BufferStateError(f"{call}: the stream is closed; make a new one")
        what = Source.of(source, source_offset, size, self._size, call)
        check_layout(what.contents, self._dtype, self._shape, call)
        self._advance()
        if self.is_full and not self._make_room():
            self._dropped += 1
            return False
        hold = self._slots.take(self._size)
        buffer = hold.slot.buffer
        if not isinstance(buffer.usage_tag, _SubmitTag):
            buffer.exchange_tag(_SubmitTag(self))
        what.record(encoder, buffer)
        result = Result(self._slots, hold, what.contents, call)
        self._entries.append(_Entry(tag, result, buffer.usage_tag))
        self._pushed += 1
        self.ring()
        return True

    def poll(self) -> list[tuple[Any, npt.NDArray[Any]]]:
        """Return the results that have arrived, the oldest first; never waits.

        Returns:
            Pairs of tag and array; nothing of a frame that comes after one still missing.
        """
        self._advance()
        arrived: list[tuple[Any, npt.NDArray[Any]]] = []
        while self._has_arrived:
            arrived.append(self._take())
        return arrived

    def take_blocking(self) -> tuple[Any, npt.NDArray[Any]]:
        """Return the oldest outstanding result; blocks the thread until it has arrived.

        Raises:
            BufferStateError: None is outstanding, or its commands were not submitted.
        """
        self._advance()
        if not self._entries:
            raise BufferStateError(f"{self._name}: take_blocking: nothing was pushed; push first")
        pending = self._entries[0].map
        if pending is None:
            raise BufferStateError(
                f"{self._name}: take_blocking: the commands of the oldest result were not "
                "submitted; submit them first"
            )
        with contextlib.suppress(PersError):  # which `_take` raises
            pending.wait()
        return self._take()

    async def room(self) -> None:
        """Wait until the consumer has left room for a `push`; with `drop_oldest` there always is.

        Let another task take results meanwhile (``async for``, `poll`).

        Raises:
            DeviceLostError: The device has ended.
        """
        while self.is_full and not self._drop_oldest and not self._closed:
            news = self._news
            self._advance()
            if self.is_full:
                await self._wait_for(news, "room")

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[Any, npt.NDArray[Any]]:
        while True:
            news = self._news
            self._advance()
            if self._has_arrived:
                return self._take()
            if not self._entries and self._closed:
                raise StopAsyncIteration
            pending = self._entries[0].map if self._entries else None
            if pending is None:
                await self._wait_for(news, "async for")
            else:
                with contextlib.suppress(PersError):  # which `_take` raises
                    await pending

    async def _wait_for(self, news: Completion[None], call: str) -> None:
        """Wait for something to happen, unless the device has ended and nothing can."""
        lost = self._factory.lost
        if lost is None:
            await news
            return
        if lost.done:
            raise DeviceLostError(
                f"{self._name}: {call}: the device was lost or closed; open a new device and make "
                "a new stream"
            )
        lost.add_callback(self.ring)
        try:
            await news
        finally:
            lost.remove_callback(self.ring)

    def close(self) -> None:
        """Take no more results. ``async for`` ends when the outstanding ones are delivered."""
        self._closed = True
        self.ring()

    def destroy(self) -> None:
        """Close, give up what is outstanding, and give the memory back. Arrays stay right."""
        while self._entries:
            self._give_up(self._entries.popleft())
        self._slots.destroy()
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.destroy()

    def __repr__(self) -> str:
        return f"<{self._name}: {self.outstanding} of {self._frames} outstanding>"

    def ring(self) -> None:
        """Wake the tasks that wait for something to happen. Any thread; not called by users."""
        with self._ringing:
            news, self._news = self._news, Completion(f"news of {self._name}")
        news.resolve(None)

    @property
    def _has_arrived(self) -> bool:
        pending = self._entries[0].map if self._entries else None
        return pending is not None and pending.poll()

    def _advance(self) -> None:
        """Start the maps of what was submitted, and drop what never will be."""
        for entry in tuple(self._entries):
            if entry.map is None and not entry.usage.is_recorded:
                if entry.usage.last_submission is entry.before:
                    self._entries.remove(entry)
                    self._give_up(entry)
                    self.ring()
                else:
                    entry.map = entry.result.start_map()

    def _make_room(self) -> bool:
        """Give up the oldest result, if it has arrived."""
        if not self._drop_oldest:
            raise RingFullError(
                f"{self._name}: push: all {self._frames} results are outstanding; take some "
                "(poll, take_blocking, `async for`), wait with `await stream.room()`, or make the "
                "stream with more frames_in_flight or with drop_oldest"
            )
        if not self._has_arrived:
            return False
        self._give_up(self._entries.popleft())
        return True

    def _give_up(self, entry: _Entry) -> None:
        self._dropped += 1
        entry.result.give_up()

    def _take(self) -> tuple[Any, npt.NDArray[Any]]:
        """Return the oldest result, which has arrived."""
        entry = self._entries.popleft()
        assert entry.map is not None
        self.ring()
        array = entry.result.mapped_array(entry.map.result(), self._dtype, self._shape)
        self._delivered += 1
        return entry.tag, array
