"""Rules for `ReadbackBuffer`."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
from hypothesis import strategies as st

from pers.buffers import BufferState, BufferUsage, IBuffer, MapMode, ReadbackBuffer
from pers.testing.property.loop import Outcome
from pers.testing.property.oracle import (
    MEMORY,
    NO_ERRORS,
    RANGE,
    ROW_PITCH,
    BufferModel,
    Copy,
    Errors,
    MapModel,
    MappingModel,
    whole,
)
from pers.testing.property.rules.base import step, unpadded
from pers.testing.property.rules.staging import StagingRules
from pers.testing.property.rules.values import COUNTS, FAULT, OFFSETS, SIZES, WHICH
from pers.testing.property.rules.work import READBACK


@attrs.define(eq=False)
class Readback:
    """A readback buffer that the test holds, and the buffers that it stands on by turns."""

    handle: ReadbackBuffer
    slots: list[tuple[IBuffer, BufferModel]]
    length: int
    """Bytes that were copied last."""
    rows: int = 0
    """Rows of pixels that were copied last; 0 after a buffer."""

    @property
    def model(self) -> BufferModel:
        """The buffer that it stands on now."""
        inner = self.handle.inner
        return next(model for buffer, model in self.slots if buffer is inner)


class ReadbackRules(StagingRules):
    """Every call of `ReadbackBuffer`."""

    def __init__(self) -> None:
        self.readbacks: list[Readback] = []
        super().__init__()

    @step(count=st.one_of(COUNTS, st.just(2 * ROW_PITCH)), fault=FAULT)
    def create_readback(self, count: int, fault: bool) -> None:
        self._create_readback(count, fault)

    def _create_readback(self, count: int, fault: bool) -> None:
        name = self.name("readback")
        errors = self.lost_errors()
        fault = fault and not errors and self.faults is not None
        if fault and self.faults is not None:
            self.faults.fail_next_allocations()
        outcome = self.call(
            lambda: ReadbackBuffer(count, self.device.buffer_factory, debug_name=name)
        )
        if self.expect(f"create {name}", outcome, MEMORY if fault else errors):
            size = -(-count // 4) * 4
            handle = outcome.value
            slot = self.oracle.create(name, size, READBACK)
            self.hold(self.readbacks, Readback(handle, [(handle.inner, slot)], size), 4)

    @step(
        which=WHICH,
        encoder=WHICH,
        source=WHICH,
        start=OFFSETS,
        size=SIZES,
        fault=FAULT,
    )
    def copy_to_readback(
        self, which: int, encoder: int, source: int, start: Any, size: Any, fault: bool
    ) -> None:
        held, chosen = self._readback(which), self.encoder(encoder)
        origin = self.buffer_for(source, BufferUsage.COPY_SRC)
        if held is None or chosen is None or origin is None:
            return
        handle, recorder, commands = held.handle, chosen[0], chosen[1]
        a, source_handle = origin.model, origin.handle
        before, old = handle.inner, held.model
        first, length = whole(start), size
        if size is None and first is not None:
            length = max(min(a.size - first, old.size), 0)
        if self.faults is not None and fault:
            self.faults.fail_next_allocations()
        outcome = self.call(lambda: handle.copy_from(recorder, source_handle, start, size=size))
        if self.faults is not None and fault:
            self.faults.fail_next_allocations(0)
        inner = handle.inner
        if all(buffer is not inner for buffer, _ in held.slots):
            held.slots.append((inner, self.oracle.create(old.name, old.size, READBACK)))
        errors = self.recording_errors(commands)
        errors |= commands.home.copy_errors(a, start, held.model, 0, length)
        if whole(length) is None:
            errors |= RANGE
        busy = old.pending is not None or old.mapping is not None
        allowed = MEMORY if fault and busy else NO_ERRORS
        if busy and self.oracle.lost:
            errors |= self.lost_errors()
        if self.expect(f"copy {a.name} to {old.name}", outcome, errors, allowed):
            commands.record(Copy(a, start, held.model, 0, length), a, held.model)
            held.length, held.rows = length, 0
        else:
            self.check(inner is before, f"{handle} reads from other memory after {outcome}")

    @step(
        which=WHICH,
        how=st.sampled_from(["await"] * 6 + ["timeout", "fault", "block", "block"]),
        dtype=st.sampled_from([None] * 6 + [np.uint32, np.uint32, "<f8"]),
        copy=st.booleans(),
    )
    def read_readback(self, which: int, how: str, dtype: Any, copy: bool) -> None:
        held = self._readback(which)
        if held is None:
            return
        handle, slot, length, rows = held.handle, held.model, held.length, held.rows
        dtype = None if rows else dtype
        errors = slot.home.map_errors(slot, MapMode.READ, 0, None)
        if length % np.dtype(dtype or np.uint8).itemsize:
            errors |= RANGE
        what = f"read_array of {slot.name}"
        fails = how == "fault" and self.faults is not None and not errors
        gives_up = how == "timeout"
        pending: MapModel | None = None
        outcome = Outcome()
        if how == "block":
            read = lambda: handle.read_array_blocking(dtype, copy=copy)  # noqa: E731
            outcome = self.call(read) if errors else self.call_blocking(read)
        if not errors:
            self.before_access_ends(slot)
            pending = self.oracle.begin_map(slot, MapMode.READ, 0, None, fails=fails)
        if how == "block":
            if pending is not None:
                self.waited(pending)
            self._read(what, pending, length, rows, errors, copy, outcome)
            return
        if self.faults is not None and fails:
            self.faults.fail_next_maps()
        self.start(
            what,
            lambda: handle.read_array(dtype, copy=copy),
            lambda outcome: self._read(what, pending, length, rows, errors, copy, outcome),
            cancelled=gives_up,
            must_end=lambda: pending is None or gives_up or pending.ended,
        )

    def _read(
        self,
        what: str,
        pending: MapModel | None,
        length: int,
        rows: int,
        errors: Errors,
        copy: bool,
        outcome: Outcome,
    ) -> None:
        if pending is not None:
            if outcome.cancelled:
                self.abandon(pending)
                return
            if self.clock is None and not pending.ended:
                self.oracle.ended([pending])
            errors = NO_ERRORS if pending.error is None else frozenset({pending.error})
        if not self.expect(what, outcome, errors) or pending is None or pending.mapping is None:
            return
        array, outcome.value = outcome.value, None
        mapping, slot = pending.mapping, pending.buffer
        due = unpadded(mapping.memory, rows) if rows else bytes(mapping.memory[:length])
        self.compare_bytes(what, array, due)
        if copy:
            self.check(array.flags.writeable, f"{what}: a copy is read-only")
        if copy or not length:
            slot.home.unmap(slot)
            return
        window = mapping.whole_range().open_window(length)
        window.on_gone = lambda: self._read_array_died(slot, mapping)
        self.hold_view(array, window, 0, rows)

    def _read_array_died(self, slot: BufferModel, mapping: MappingModel) -> None:
        """The slot is free again, unless it was destroyed."""
        if slot.mapping is mapping:
            slot.home.unmap(slot)

    @step(which=WHICH, keep=st.booleans())
    def read_readback_in_block(self, which: int, keep: bool) -> None:
        held = self._readback(which)
        if held is None:
            return
        handle, slot = held.handle, held.model
        errors = slot.home.map_errors(slot, MapMode.READ, 0, None)
        kept: list[Any] = []

        def read() -> bytes:
            with handle.read() as mapped:
                if keep:
                    kept.append(mapped.as_array(np.uint8))
                return mapped.read()

        outcome = self.call(read) if errors else self.call_blocking(read)
        if errors:
            self.expect(f"read of {slot.name}", outcome, errors)
            return
        self.before_access_ends(slot)
        pending = self.oracle.begin_map(slot, MapMode.READ, 0, None, fails=False)
        self.waited(pending)
        if self.expect(f"read of {slot.name}", outcome, NO_ERRORS):
            assert pending.mapping is not None
            mapping = pending.mapping
            self.check(outcome.value == bytes(mapping.memory), f"read of {slot.name}: other bytes")
            if not kept or not slot.size:
                slot.home.unmap(slot)
            else:
                window = mapping.whole_range().open_window(slot.size)
                window.on_gone = lambda: self._read_array_died(slot, mapping)
                self.hold_view(kept.pop(), window, 0)

    def destroyables(self, kind: str, which: int) -> list[tuple[IBuffer, list[BufferModel]]]:
        held = self.choose(self.readbacks, which) if kind == "readback" else None
        if held is None:
            return super().destroyables(kind, which)
        return [(held.handle, [model for _, model in held.slots])]

    def drop_one(self, kind: str, which: int) -> None:
        super().drop_one(kind, which)
        held = self.choose(self.readbacks, which)
        if kind == "readback" and held is not None:
            self.readbacks.remove(held)

    def _readback(self, which: int) -> Readback | None:
        """Return a readback buffer; makes one where none fits."""
        if not self.oracle.lost and not any(map(_is_ready, self.readbacks)):
            self._create_readback(32, fault=False)
        return self.choose(self.readbacks, which, _is_ready)

    def compare_more(self) -> None:
        super().compare_more()
        for held in self.readbacks:
            self.compare_handle(held.handle, held.model)

    def drop_everything(self) -> None:
        self.readbacks.clear()
        super().drop_everything()


def _is_ready(held: Readback) -> bool:
    return held.model.state is BufferState.READY
