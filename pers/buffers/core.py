"""The buffers that all backends share: the state machine, once.

A backend supplies a `NativeBuffer`, a port with four verbs and no checks. `Buffer` and
`MappableBuffer` put the rules around it: which call is legal in which state, what happens to a
pending map, and what must live until the last view is gone.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from pers._checks import whole_number
from pers._completion import Completion, ProgressSource
from pers._tracking import Guard, UsageTag
from pers.buffers.claim import Claim
from pers.buffers.interfaces import IBuffer, IMappableBuffer
from pers.buffers.mapped_range import Lease, MappedRange, Mapping
from pers.buffers.types import (
    COPY_ALIGNMENT,
    MAP_OFFSET_ALIGNMENT,
    MAP_USAGES,
    BufferDesc,
    BufferLimits,
    BufferState,
    BufferUsage,
    MapMode,
    usage_names,
)
from pers.errors import (
    BufferRangeError,
    BufferStateError,
    BufferUsageError,
    MapAbortedError,
    MappedViewsError,
    PersError,
)


class NativeBuffer(ABC):
    """What a backend does for one buffer. It is only asked for what is legal."""

    writes_directly = False
    """Whether it can be mapped for writing although its usage does not say so."""
    internal: Any = None
    """What the backend's own calls take for it, if that is something else."""

    @property
    @abstractmethod
    def handle(self) -> Any:
        """The backend's own object."""

    @abstractmethod
    def map_async(
        self, mode: MapMode, offset: int, size: int, done: Callable[[PersError | None], None]
    ) -> None:
        """Start a map; call `done` once when it ends, on any thread, also within this call."""

    @abstractmethod
    def address(self, offset: int, size: int) -> int:
        """Return where mapped bytes are in memory, valid until `unmap` or `destroy`."""

    @abstractmethod
    def unmap(self) -> None:
        """End the mapping or the pending map."""

    @abstractmethod
    def destroy(self) -> None:
        """Give the memory back. Called once, on any thread, possibly in garbage collection."""


class BufferOwner(Protocol):
    """What a buffer needs to know of its device."""

    @property
    def progress(self) -> ProgressSource:
        """Who delivers maps."""
        ...

    def check_alive(self, call: str) -> None:
        """Raise `DeviceLostError` when the device was lost or closed."""
        ...

    def write_buffer(self, buffer: IBuffer, offset: int, data: Any) -> None:
        """Queue a write, to be seen by everything submitted from now on."""
        ...

    def upload(self, data: Any, target: IBuffer, offset: int = 0) -> None:
        """Get bytes to the GPU through the device's belt, before what is submitted from now on."""
        ...

    def submit_uploads(self) -> None:
        """Submit what the device's belt holds back."""
        ...

    def claim(self, buffer: Buffer) -> Claim | None:
        """Keep `buffer` from the GPU, or return None when the GPU has it or is to get it."""
        ...


# Plain numbers are many times faster than flags.
_MAP_BITS = int(MAP_USAGES)
_READY = BufferState.READY  # and looking a member up in its class costs as much as a call
_MAP_PARTNERS = (
    (int(BufferUsage.MAP_READ), int(BufferUsage.COPY_DST)),
    (int(BufferUsage.MAP_WRITE), int(BufferUsage.COPY_SRC)),
)


def check_creation(desc: BufferDesc, limits: BufferLimits, *, mappable: bool) -> None:
    """Check what a device can know of a description (WebGPU §5.1.3), for any backend.

    Raises:
        BufferUsageError: The usages cannot be combined, or do not fit the method called.
        BufferRangeError: The size is above the limit.
    """
    usage = desc.usage_bits
    if mappable and not (usage & _MAP_BITS or desc.mapped_at_creation):
        raise BufferUsageError(
            f"{_name(desc.debug_name)} asks for no mapping (usage {usage_names(desc.usage)}); "
            "use create_buffer, or add MAP_READ, MAP_WRITE or mapped_at_creation"
        )
    if not mappable and (usage & _MAP_BITS or desc.mapped_at_creation):
        raise BufferUsageError(
            f"{_name(desc.debug_name)} asks for mapping (usage {usage_names(desc.usage)}, "
            f"mapped_at_creation {desc.mapped_at_creation}); use create_mappable_buffer"
        )
    if usage & _MAP_BITS and not limits.map_primary_buffers:
        for flag, partner in _MAP_PARTNERS:
            extra = usage & ~(flag | partner)
            if usage & flag and extra:
                raise BufferUsageError(
                    f"{_name(desc.debug_name)}: {usage_names(flag)} can be combined with "
                    f"{usage_names(partner)} only, not with {usage_names(extra)}; copy through a "
                    "staging buffer, or open the device with the feature "
                    "'mappable-primary-buffers'"
                )
    if desc.size > limits.max_buffer_size:
        raise BufferRangeError(
            f"{_name(desc.debug_name)}: {desc.size} bytes are above the device's limit of "
            f"{limits.max_buffer_size}; split the data, or open the device with a higher "
            "max_buffer_size limit"
        )


def check_map_range(offset: int, size: int | None, total: int, call: str) -> tuple[int, int]:
    """Return offset and size of a map of a buffer of `total` bytes, or raise (WebGPU §5.2).

    Raises:
        BufferRangeError: Misaligned or out of bounds.
    """
    start = whole_number(offset, f"{call} offset")
    length = max(total - start, 0) if size is None else whole_number(size, f"{call} size")
    if start % MAP_OFFSET_ALIGNMENT or length % COPY_ALIGNMENT:
        raise BufferRangeError(
            f"{call}: offset must be a multiple of {MAP_OFFSET_ALIGNMENT} and size of "
            f"{COPY_ALIGNMENT} bytes, not {start} and {length}"
        )
    if start + length > total:
        raise BufferRangeError(
            f"{call}: {length} bytes at offset {start} reach beyond the end of the buffer "
            f"({total} bytes)"
        )
    return start, length


class IBufferView(IBuffer):
    """A buffer class that stands on another buffer."""

    @property
    @abstractmethod
    def inner(self) -> IBuffer:
        """The buffer it stands on now; may change over time."""


class Buffer(IBuffer):
    """A buffer without CPU access, on any backend."""

    # What holds for most buffers, or until something happens, is left to the class.

    _state = BufferState.UNINITIALIZED  # what `__del__` sees when construction fails
    native_gone = False
    """Whether the backend was told to destroy it."""
    _claim: Claim | None = None
    last_write = 0
    """The serial of the submission that carries out the last write by the queue."""

    def __init__(self, desc: BufferDesc, native: NativeBuffer, owner: BufferOwner) -> None:
        """Not called by users; `IBufferFactory` makes buffers."""
        self.desc = desc
        self.native = native
        """What the backend does for it."""
        self.owner = owner
        """The device that the buffer belongs to."""
        self.usage_bits = desc.usage_bits
        """The usage as a plain number, which is many times faster to look at."""
        self._name = _name(desc.debug_name)
        self.guard = Guard(self._name)
        self.usage_tag = UsageTag()
        """Who uses the memory; pools and rings recycle by it. See `exchange_tag`."""
        self.writes_directly = native.writes_directly
        """Whether its memory can be written without a copy by the GPU; see `claim`."""
        self._state = _READY

    @property
    def size(self) -> int:
        return self.desc.size

    @property
    def usage(self) -> BufferUsage:
        return self.desc.usage

    @property
    def debug_name(self) -> str:
        return self.desc.debug_name

    def exchange_tag(self, tag: UsageTag) -> None:
        """Have commands that are recorded from now on noted in another tag."""
        self.usage_tag = tag
        UsageTag.new_epoch()

    @property
    def label(self) -> str:
        """How error messages call the buffer."""
        return self._name

    @property
    def native_handle(self) -> Any:
        return self.native.handle

    @property
    def state(self) -> BufferState:
        return self._state

    @property
    def is_usable(self) -> bool:
        """Whether `check_usable` would let it pass at once."""
        return self._state is _READY and self._claim is None

    def destroy(self) -> None:
        try:
            if self.usage_tag.recordings:
                self._submit_uploads()
        finally:
            guard = self.guard
            if not guard.lock.acquire(False):
                guard.refuse()
            try:
                self._destroy("destroyed; create a new one")
            finally:
                guard.lock.release()

    def lose(self) -> None:
        """Follow the device into its end: like `destroy`, for the device to call."""
        self._destroy("its device was lost or closed; open a new device")

    def check_usable(self, call: str) -> None:
        """Raise unless `is_usable`; waits for who writes it directly."""
        if self._claim is not None:
            self._claim.wait(call)
        if self._state is not BufferState.READY:
            raise BufferStateError(
                f"{call}: {self._name} is {self._state.value}; "
                + (
                    "create a new one"
                    if self._state is BufferState.DESTROYED
                    else "unmap it before the GPU uses it"
                )
            )

    def claim(self) -> Claim | None:
        """Start to write the memory directly; None when the state does not allow it.

        The caller sees to it that nobody submits the buffer meanwhile. For users it stays READY.
        """
        if not self.writes_directly or self._claim is not None:
            return None
        self._claim = claim = Claim()
        if self._state is not BufferState.READY:  # looked at last: `_destroy` looks at the claim
            self._claim = None
            claim.end()
            return None
        return claim

    def write_claimed(
        self, claim: Claim, offset: int, size: int, fill: Callable[[npt.NDArray[np.uint8]], None]
    ) -> None:
        """Map bytes under a claim, have `fill` write them, and end both.

        Raises:
            MapAbortedError: The device was lost.
            OutOfMemoryError: The map failed for want of memory.
        """
        start = offset - offset % MAP_OFFSET_ALIGNMENT
        length = offset + size - start
        mapped: Completion[None] = Completion(self._name, self.owner.progress)

        def done(error: PersError | None) -> None:
            if error is None:
                mapped.resolve(None)
            else:
                mapped.reject(error)

        try:
            self.native.map_async(MapMode.WRITE, start, length, done)
            try:
                mapped.wait()
                address = self.native.address(start, length) + offset - start
                fill(Lease(self.native).open_window(address, size, writable=True))
            finally:
                self.native.unmap()
        finally:
            self._claim = None
            claim.end()

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.debug_name!r}: {self.size} bytes, "
            f"{usage_names(self.usage)}, {self._state.value}>"
        )

    def __del__(self) -> None:
        if self._state is not BufferState.UNINITIALIZED:
            self._destroy("garbage collected; keep it until the map has ended")

    def _submit_uploads(self) -> None:
        """Have uploads to the buffer on their way before it cannot be submitted any more."""
        if self._state is BufferState.READY and self.usage_tag.recordings:
            self.owner.submit_uploads()

    def _destroy(self, reason: str) -> None:
        if not self.native_gone:
            self.native_gone = True
            self._state = BufferState.DESTROYED
            self._destroy_native()

    def _destroy_native(self) -> None:
        """Give the memory back, when it is not being written."""
        claim = self._claim
        if claim is None or not claim.put_off(self.native.destroy):
            self.native.destroy()


class MappableBuffer(Buffer, IMappableBuffer):
    """A buffer that the CPU can map, on any backend."""

    _pending: Completion[MappedRange] | None = None
    _mapping: Mapping | None = None
    _mapped: MappedRange | None = None

    def __init__(self, desc: BufferDesc, native: NativeBuffer, owner: BufferOwner) -> None:
        """Not called by users; `IBufferFactory` makes buffers."""
        super().__init__(desc, native, owner)
        # Guards the state against the thread that delivers maps. Held for a few lines only, and
        # never while a native call could wait for that thread.
        self._lock = threading.Lock()
        if desc.mapped_at_creation:
            self._start_mapping(MapMode.WRITE, 0, desc.size)

    async def map_async(
        self, mode: MapMode = MapMode.WRITE, offset: int = 0, size: int | None = None
    ) -> MappedRange:
        pending = self._begin_map(mode, offset, size)
        try:
            return await pending.wait_async()
        except PersError:
            raise
        except BaseException:  # cancelled
            self._cancel_map(pending)
            raise

    def map(
        self, mode: MapMode = MapMode.WRITE, offset: int = 0, size: int | None = None
    ) -> MappedRange:
        pending = self._begin_map(mode, offset, size)
        try:
            return pending.wait()
        except PersError:
            raise
        except BaseException:  # interrupted from the keyboard
            self._cancel_map(pending)
            raise

    def mapped_range(self, offset: int = 0, size: int | None = None) -> MappedRange:
        call = f"{self._name}: mapped_range"
        with self.guard:
            mapping, _ = self._current_mapping(call)
            start = whole_number(offset, f"{call} offset")
            if size is None:
                size = max(self.size - start, 0)
            return mapping.take(start, whole_number(size, f"{call} size"))

    @property
    def mapped_data(self) -> MappedRange:
        with self.guard:
            return self._current_mapping(f"{self._name}: mapped_data")[1]

    def unmap(self) -> None:
        with self.guard:
            if self._abort_map(BufferState.READY, "unmapped; map again") or self._mapping is None:
                return
            count = self._end_unviewed()
            if count:
                raise MappedViewsError(
                    f"{self._name} cannot be unmapped: {count} array"
                    f"{'s look' if count > 1 else ' looks'} at its memory; "
                    "delete the arrays (and slices of them) first, or copy them",
                    count,
                )

    def on_views_gone(self, callback: Callable[[], None]) -> None:
        """Declare the ranges dead now, and call `callback` when the last array is gone.

        The buffer stays MAPPED until `callback` calls `finish_mapping`.
        """
        with self.guard:
            lease = None if self._mapping is None else self._mapping.end()
            if lease is not None:
                lease.on_end(callback)

    def finish_mapping(self) -> None:
        """Unmap after `on_views_gone`, on whatever thread the last array died."""
        if self._mapping is not None:
            self.native.unmap()  # before the state says so: another thread may look for READY
        if not self._end_mapping():
            self.native.destroy()  # destroyed in the meantime, which had to wait for the arrays

    def start_map(self, mode: MapMode) -> Completion[MappedRange]:
        """Start a map of the whole buffer, and do not wait for it."""
        return self._begin_map(mode, 0, None)

    def _begin_map(self, mode: MapMode, offset: int, size: int | None) -> Completion[MappedRange]:
        self._submit_uploads()
        with self.guard:
            mode, offset, size = self._check_map(mode, offset, size)
            pending: Completion[MappedRange] = Completion(
                f"the map of {self._name}", self.owner.progress
            )
            if self.usage_tag.last_submission is not None:
                pending.after = self.usage_tag.last_submission.native_index
            with self._lock:
                self._pending = pending
                self._state = BufferState.MAP_PENDING

            def done(error: PersError | None) -> None:
                self._map_done(pending, mode, offset, size, error)

            self.native.map_async(mode, offset, size, done)
            return pending

    def _check_map(self, mode: MapMode, offset: int, size: int | None) -> tuple[MapMode, int, int]:
        call = f"{self._name}: map"
        self.owner.check_alive(call)
        if self._state is not BufferState.READY:
            remedy = {
                BufferState.MAP_PENDING: "await the map that is going on, or unmap to abort it",
                BufferState.MAPPED: "unmap it first",
                BufferState.DESTROYED: "create a new one",
            }.get(self._state, "")
            raise BufferStateError(f"{call}: the buffer is {self._state.value}; {remedy}")
        if mode not in (MapMode.READ, MapMode.WRITE):
            raise BufferUsageError(f"{call}: mode must be MapMode.READ or WRITE, not {mode!r}")
        mode = MapMode(mode)
        needed = BufferUsage.MAP_READ if mode is MapMode.READ else BufferUsage.MAP_WRITE
        if not self.usage & needed:
            raise BufferUsageError(
                f"{call} for {mode.name}: the buffer was created with {usage_names(self.usage)}; "
                f"it needs {needed.name}"
            )
        return mode, *check_map_range(offset, size, self.size, call)

    def _map_done(
        self,
        pending: Completion[MappedRange],
        mode: MapMode,
        offset: int,
        size: int,
        error: PersError | None,
    ) -> None:
        """Take the news of a map from the backend, on any thread."""
        with self._lock:
            if self._pending is not pending:
                return  # aborted in the meantime; whoever did that has told the waiter
            self._pending = None
            mapped = None
            if error is None:
                mapped = self._start_mapping(mode, offset, size)
            else:
                self._state = BufferState.READY  # else never: a second map could begin meanwhile
        if mapped is not None:
            pending.resolve(mapped)
        elif error is not None:
            pending.reject(error)

    def _start_mapping(self, mode: MapMode, offset: int, size: int) -> MappedRange:
        address = self.native.address(offset, size) if size else 0
        self._mapping = Mapping(
            self._name, mode, offset, size, address, self.native, self.owner.check_alive
        )
        self._mapped = MappedRange(self._mapping, offset, size)
        self._state = BufferState.MAPPED
        return self._mapped

    def _cancel_map(self, pending: Completion[MappedRange]) -> None:
        """Leave the buffer READY after the caller of a map gave up."""
        with self.guard:
            reason = "cancelled; map again"
            if self._pending is pending and self._abort_map(BufferState.READY, reason):
                return
            heard_of = self._mapped is None or self._mapped is not pending.peek()
            if not heard_of:
                self._end_unviewed()

    def _abort_map(self, state: BufferState, reason: str) -> bool:
        """End a pending map, if there is one, and go to `state`.

        `reason` ends with what its waiter can do.
        """
        with self._lock:
            pending, self._pending = self._pending, None
            if pending is None:
                return False
            self._state = state
        pending.reject(MapAbortedError(f"{self._name}: the pending map was aborted: {reason}"))
        self.native.unmap()
        return True

    def _end_unviewed(self) -> int:
        """Unmap, unless arrays look at the memory; return how many do."""
        with self._lock:  # the device may be closed meanwhile, on any thread
            mapping = self._mapping
            if mapping is None or mapping.ended:
                return 0
            count = mapping.end_unless_viewed()
            if count:
                return count
            self._mapping = self._mapped = None
            self._state = BufferState.READY
        self.native.unmap()
        return 0

    def _end_mapping(self) -> bool:
        """End the mapping; False when there is none."""
        with self._lock:
            mapping, self._mapping, self._mapped = self._mapping, None, None
            if mapping is None:
                return False
            self._state = BufferState.READY
        mapping.end()
        return True

    def _current_mapping(self, call: str) -> tuple[Mapping, MappedRange]:
        self.owner.check_alive(call)
        mapping, mapped = self._mapping, self._mapped  # the device may be closed on any thread
        if mapping is None or mapped is None or mapping.ended:
            remedy = {
                BufferState.MAP_PENDING: "await the map that is going on",
                BufferState.DESTROYED: "create a new one",
            }.get(self._state, "map it first (map_async or map)")
            raise BufferStateError(
                f"{call}: the buffer is {self._state.value}, not mapped; {remedy}"
            )
        return mapping, mapped

    def _destroy(self, reason: str) -> None:
        self._abort_map(BufferState.DESTROYED, reason)
        with self._lock:
            if self.native_gone:
                return
            self.native_gone = True
            self._state = BufferState.DESTROYED
            mapping, self._mapping, self._mapped = self._mapping, None, None
        if mapping is None:
            self._destroy_native()
        elif not mapping.ended:
            lease = mapping.end()
            assert lease is not None
            lease.on_end(self.native.destroy)  # at once, unless arrays are alive
        # else the arrays hold the lease already, and `finish_mapping` destroys


def _name(debug_name: str) -> str:
    return f"buffer {debug_name!r}" if debug_name else _NO_NAME


_NO_NAME = "buffer ''"


def core_behind(buffer: object) -> Buffer | None:
    """Return the backend buffer behind any pers buffer, or None for what is no pers buffer."""
    while type(buffer) not in _CORES:
        kind = type(buffer)
        if kind not in _VIEWS:  # looked at once for each class: an ABC takes its time
            if isinstance(buffer, Buffer):
                return buffer
            if not isinstance(buffer, IBufferView):
                return None
            _VIEWS.add(kind)
        buffer = cast("IBufferView", buffer).inner
    return cast("Buffer", buffer)


def core_buffer(buffer: object, call: str) -> Buffer:
    """Return the backend buffer behind any pers buffer.

    Raises:
        BufferUsageError: `buffer` is no pers buffer.
    """
    core = core_behind(buffer)
    if core is None:
        raise BufferUsageError(f"{call} takes a pers buffer, not {type(buffer).__name__}")
    return core


_CORES = {Buffer, MappableBuffer}
_VIEWS: set[type] = set()


def mappable_buffer(buffer: IBuffer, call: str) -> MappableBuffer:
    """Return the backend buffer behind a buffer that was created mappable."""
    core = core_buffer(buffer, call)
    assert isinstance(core, MappableBuffer)
    return core
