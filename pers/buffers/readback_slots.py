"""Memory that results come back in: used again as soon as nobody looks at it any more."""

from __future__ import annotations

import weakref

import attrs

from pers._checks import align_up
from pers.buffers.core import MappableBuffer, mappable_buffer
from pers.buffers.interfaces import IBufferFactory
from pers.buffers.mapped_range import MappedRange
from pers.buffers.types import BufferDesc, BufferState, BufferUsage, MapMode
from pers.errors import MappedViewsError, OutOfMemoryError

READBACK_USAGE = BufferUsage.MAP_READ | BufferUsage.COPY_DST

SMALLEST_STEP = 4096
"""Sizes of slots for results of any size are multiples of this (bytes), or of an eighth."""

STALE_AFTER = 64
"""An idle slot goes when so many others were taken in the meantime."""


@attrs.frozen
class ReadbackStats:
    """What holds results and what was read so far.

    Attributes:
        slots: Buffers that there are now.
        in_use: Those that keep a result, or that reads or living arrays look at.
        peak: Most `in_use` so far.
        reads: How many results were read.
        bytes_read: Their bytes, without the padding of rows.
        grows: Buffers made because all others were in use.
    """

    slots: int
    in_use: int
    peak: int
    reads: int
    bytes_read: int
    grows: int


class Slot:
    """A buffer for one result. In use while there are `Hold` objects on it."""

    __slots__ = ("__weakref__", "_holds", "_owner", "buffer", "taken")

    def __init__(self, buffer: MappableBuffer, owner: ReadbackSlots) -> None:
        self.buffer = buffer
        self.taken = 0
        """Which take of its owner's was the last to get it."""
        self._owner = weakref.ref(owner)
        # True is for the hold that comes first; it is the last to be taken out. Appending and
        # popping are atomic: holds end on any thread, also in garbage collection.
        self._holds: list[bool] = []

    def hold(self) -> Hold:
        """Keep it from being used again."""
        self._holds.append(not self._holds)
        return Hold(self)

    @property
    def is_shared(self) -> bool:
        """Whether there is more than one hold on it."""
        return len(self._holds) > 1

    def release(self) -> None:
        """End one hold; the end of the last one makes it idle."""
        if self._holds.pop():
            owner = self._owner()
            if owner is not None:
                owner.put_back(self)


class Hold:
    """Keeps a slot in use, until `release` or for as long as it lives."""

    __slots__ = ("_held", "slot")

    def __init__(self, slot: Slot) -> None:
        """Not called directly; `Slot.hold` and `ReadbackSlots.take` make holds."""
        self.slot = slot
        self._held = [slot]

    def release(self) -> None:
        """Let go. Legal any number of times, on any thread."""
        try:
            slot = self._held.pop()
        except IndexError:
            return
        slot.release()

    async def map_async(self, size: int | None = None) -> MappedRange:
        """Map so many bytes for reading, to be ended by `end_read`; lets go when that fails."""
        try:
            return await self.slot.buffer.map_async(MapMode.READ, 0, size)
        except BaseException:
            self.release()
            raise

    def map(self, size: int | None = None) -> MappedRange:
        """The same as `map_async`, but blocks the calling thread."""
        try:
            return self.slot.buffer.map(MapMode.READ, 0, size)
        except BaseException:
            self.release()
            raise

    def end_read(self) -> None:
        """Unmap and let go: now, or when the last array that looks at the memory is gone."""
        buffer = self.slot.buffer
        try:
            buffer.unmap()
        except MappedViewsError:
            buffer.on_views_gone(self._views_gone)
        else:
            self.release()

    def _views_gone(self) -> None:
        self.slot.buffer.finish_mapping()
        self.release()

    def __del__(self) -> None:
        self.release()


class ReadbackSlots:
    """The slots of one purpose. Thread-safe.

    It has no locks, since slots are put back in garbage collection too: on any thread, anywhere.
    """

    def __init__(
        self, factory: IBufferFactory, name: str, *, max_idle: int, max_idle_bytes: int
    ) -> None:
        """Start without any.

        Args:
            factory: Makes the buffers.
            name: Their debug name.
            max_idle: How many to keep that nobody uses; the longest unused go first.
            max_idle_bytes: How many bytes those may take.
        """
        self._factory = factory
        self._name = name
        self._max_idle = max_idle
        self._max_idle_bytes = max_idle_bytes
        self._held: dict[Slot, None] = {}
        self._idle: list[Slot] = []
        self._takes = self._peak = self._reads = self._bytes = self._made = 0

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._held) + len(self._idle)

    @property
    def stats(self) -> ReadbackStats:
        """What there is and what was read so far."""
        return ReadbackStats(
            slots=self.count,
            in_use=len(self._held),
            peak=self._peak,
            reads=self._reads,
            bytes_read=self._bytes,
            grows=max(self._made - 1, 0),
        )

    def count_read(self, nbytes: int) -> None:
        """Note a read, for `stats`."""
        self._reads += 1
        self._bytes += nbytes

    def take(self, nbytes: int, size: int | None = None) -> Hold:
        """Return a slot of at least `nbytes` that nobody uses.

        Args:
            nbytes: What has to fit.
            size: How large to make a new one; None means `nbytes`.
        """
        self._takes += 1
        if self._takes % STALE_AFTER == 0:
            self._drop_stale()
        size = nbytes if size is None else size
        slot = self._find(nbytes, 2 * size) or self._make(nbytes, size)
        slot.taken = self._takes
        self._held[slot] = None
        self._peak = max(self._peak, len(self._held))
        return slot.hold()

    def put_back(self, slot: Slot) -> None:
        """Take a slot back. Any thread, also in garbage collection."""
        self._held.pop(slot, None)
        if slot.buffer.state is BufferState.DESTROYED:
            return
        self._idle.append(slot)
        if len(self._idle) > self._max_idle or self._idle_bytes > self._max_idle_bytes:
            self._drop_oldest()

    def destroy(self) -> None:
        """Destroy all buffers. Arrays stay right."""
        idle, self._idle = self._idle, []
        for slot in (*idle, *tuple(self._held)):
            slot.buffer.destroy()

    def forget(self) -> None:
        """Let go of those that are idle."""
        self._idle.clear()

    @property
    def _idle_bytes(self) -> int:
        return sum(slot.buffer.size for slot in tuple(self._idle))

    def _find(self, nbytes: int, largest: int) -> Slot | None:
        """Take out the smallest idle slot that fits, of several the one used last."""
        fitting = [slot for slot in tuple(self._idle) if nbytes <= slot.buffer.size <= largest]
        for slot in sorted(fitting, key=lambda slot: (slot.buffer.size, -slot.taken)):
            if slot.buffer.state is BufferState.READY and slot.buffer.usage_tag.is_free:
                try:
                    self._idle.remove(slot)
                except ValueError:  # another thread was faster
                    continue
                return slot
        return None

    def _make(self, nbytes: int, size: int) -> Slot:
        try:
            return self._make_of(size)
        except OutOfMemoryError:
            if not self._idle and size == nbytes:
                raise
            self.forget()
            return self._make_of(nbytes)

    def _make_of(self, size: int) -> Slot:
        desc = BufferDesc(size, READBACK_USAGE, debug_name=self._name)
        buffer = mappable_buffer(self._factory.create_mappable_buffer(desc), self._name)
        self._made += 1
        return Slot(buffer, self)

    # Slots that go are not destroyed but dropped: that is safe anywhere, and commands or arrays
    # that still use one keep it.

    def _drop_oldest(self) -> None:
        for slot in sorted(self._idle, key=lambda slot: slot.taken):
            if len(self._idle) <= self._max_idle and self._idle_bytes <= self._max_idle_bytes:
                return
            self._drop(slot)

    def _drop_stale(self) -> None:
        for slot in tuple(self._idle):
            if slot.taken <= self._takes - STALE_AFTER:
                self._drop(slot)

    def _drop(self, slot: Slot) -> None:
        try:
            self._idle.remove(slot)
        except ValueError:  # another thread was faster
            return


def size_class(nbytes: int, limit: int) -> int:
    """Return how large to make a slot for `nbytes`, so that it fits other sizes, too.

    At most a quarter is wasted, or less than `SMALLEST_STEP`; never more than `limit`, unless
    `nbytes` is.
    """
    step = max(1 << max((nbytes - 1).bit_length() - 3, 0), SMALLEST_STEP)
    return max(min(align_up(max(nbytes, 1), step), limit), nbytes)
