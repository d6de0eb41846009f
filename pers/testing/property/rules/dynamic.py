"""Rules for `DynamicBuffer`."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
from hypothesis import strategies as st

from pers.buffers import BufferState, BufferUsage, DynamicBuffer, DynamicUpdate, IBuffer
from pers.testing.property.loop import Outcome
from pers.testing.property.oracle import (
    MEMORY,
    NO_ERRORS,
    STATE,
    USAGE,
    BufferModel,
    Copy,
    Errors,
)
from pers.testing.property.rules.base import step
from pers.testing.property.rules.belts import FULL
from pers.testing.property.rules.readback import ReadbackRules
from pers.testing.property.rules.values import FAULT, FORMS, OFFSETS, WHICH, formed

DYNAMIC = BufferUsage.UNIFORM | BufferUsage.COPY_SRC


@attrs.define(eq=False)
class Record:
    """Bytes that an update took."""

    buffer: IBuffer
    model: BufferModel
    offset: int
    data: bytes


@attrs.define(eq=False)
class Dynamic:
    """A dynamic buffer that the test holds."""

    handle: DynamicBuffer
    inners: list[tuple[IBuffer, BufferModel]]
    records: list[Record] = attrs.field(factory=list[Record])
    """Those of the last update; what is recorded later counts as a use of the next frame."""
    update: DynamicUpdate | None = None
    pushed: list[Record] = attrs.field(factory=list[Record])
    """Those of the open update."""
    waiting: bool = False
    """Whether a task is about to update it."""

    @property
    def model(self) -> BufferModel:
        """The buffer that it stands on now."""
        return self.inners[-1][1]

    def owns(self, buffer: BufferModel) -> bool:
        """Whether it stands on `buffer`, or did."""
        return any(buffer is model for _, model in self.inners)


class DynamicRules(ReadbackRules):
    """Every call of `DynamicBuffer` and `DynamicUpdate`."""

    def __init__(self) -> None:
        self.dynamics: list[Dynamic] = []
        super().__init__()

    @step(
        size=st.sampled_from([16, 256, 600, 4]),
        frames=st.sampled_from([2, 3, 3, 4]),
        fault=FAULT,
    )
    def create_dynamic(self, size: int, frames: int, fault: bool) -> None:
        self._create_dynamic(size, frames, fault)

    def _create_dynamic(self, size: int, frames: int, fault: bool) -> None:
        name = self.name("dynamic")
        errors = self.lost_errors()
        fault = fault and not errors and self.faults is not None
        if fault and self.faults is not None:
            self.faults.fail_next_allocations()
        outcome = self.call(
            lambda: DynamicBuffer(
                size, self.device.buffer_factory, usage=DYNAMIC, frames=frames, debug_name=name
            )
        )
        if self.expect(f"create {name}", outcome, MEMORY if fault else errors):
            dynamic = Dynamic(outcome.value, [])
            self._follow(dynamic)
            oldest = self.hold(self.dynamics, dynamic, 3)
            if oldest is not None:
                self._close(oldest, fails=False)

    def _follow(self, dynamic: Dynamic) -> None:
        """Note when it moved to another buffer."""
        inner = dynamic.handle.inner
        if not dynamic.inners or dynamic.inners[-1][0] is not inner:
            size = inner.size
            model = self.oracle.create(dynamic.handle.debug_name, size, inner.usage)
            dynamic.inners.append((inner, model))

    # Updates

    @step(which=WHICH)
    def begin_update(self, which: int) -> None:
        dynamic = self._dynamic(which)
        if dynamic is not None:
            self._begin(dynamic)

    def _begin(self, dynamic: Dynamic) -> None:
        update = dynamic.handle.begin_update()
        errors = self._begin_errors(dynamic)
        enter = update.__enter__
        outcome = self.call(enter) if errors else self.call_blocking(enter)
        outcome.value = None
        if not errors:
            self.waited()
        if self.expect("begin_update", outcome, errors, self._ring_full(dynamic)):
            dynamic.update = update
            dynamic.records.clear()

    def _begin_errors(self, dynamic: Dynamic) -> Errors:
        errors = self.lost_errors()
        if dynamic.update is not None or dynamic.waiting:
            errors |= STATE
        return errors | (STATE if dynamic.model.state is BufferState.DESTROYED else NO_ERRORS)

    def _ring_full(self, dynamic: Dynamic) -> Errors:
        """Whether frames are used by what was recorded and not submitted."""
        uses = any(any(map(dynamic.owns, each.used)) for each in self.recorded())
        return FULL if uses else NO_ERRORS

    @step(
        which=WHICH,
        count=st.sampled_from([4, 16, 64, 300, 1200, 0]),
        form=FORMS,
        looks=st.booleans(),
        fault=FAULT,
    )
    def push(self, which: int, count: int, form: str, looks: bool, fault: bool) -> None:
        dynamic = self._open_one(which)
        if dynamic is None or dynamic.update is None:
            return
        update = dynamic.update
        data = self.fresh(count)
        value, plain = formed(data, form)

        def push() -> int:
            if not looks:
                return update.push(value)
            update.as_array(np.uint8, count)[:] = np.frombuffer(data, np.uint8)
            return update.offset

        errors = NO_ERRORS if plain or looks else USAGE
        if self.faults is not None and fault:
            self.faults.fail_next_allocations()
        outcome = self.call(push)
        if self.faults is not None and fault:
            self.faults.fail_next_allocations(0)
        allowed = self.lost_errors() | (MEMORY if fault else NO_ERRORS)
        if dynamic.model.state is BufferState.DESTROYED:
            allowed |= STATE  # where it would have to grow
        if self.expect("push", outcome, errors, allowed):
            self._pushed(dynamic, update, outcome.value, data)

    def _pushed(self, dynamic: Dynamic, update: DynamicUpdate, offset: int, data: bytes) -> None:
        self._follow(dynamic)
        inner, model = dynamic.inners[-1]
        self.check(update.buffer is inner, "an update and its buffer differ")
        self._take_place(dynamic, model, offset, data)
        for other in dynamic.pushed:
            apart = other.offset + len(other.data) <= offset
            self.check(apart, f"bytes {offset} of {model.name} were given out before")
        dynamic.pushed.append(Record(inner, model, offset, data))

    def _take_place(self, dynamic: Dynamic, model: BufferModel, offset: int, data: bytes) -> None:
        alignment = dynamic.handle.alignment
        end = offset + len(data)
        self.check(offset % alignment == 0, f"offset {offset} is no multiple of {alignment}")
        self.check(end <= model.size, f"bytes {offset} to {end} are outside of {model.name}")
        for commands in self.recorded():
            if commands.reads(model, offset, end):
                raise AssertionError(f"{model.name}: a frame that is recorded was given out again")

    @step(which=WHICH, fails=st.sampled_from([False, False, False, True]))
    def end_update(self, which: int, fails: bool) -> None:
        dynamic = self._open_one(which)
        if dynamic is not None:
            self._close(dynamic, fails=fails)

    def _close(self, dynamic: Dynamic, *, fails: bool) -> None:
        update, dynamic.update = dynamic.update, None
        if update is None:
            return
        error = ValueError("the block raised") if fails else None

        def leave() -> None:
            update.__exit__(None if error is None else type(error), error, None)

        errors = NO_ERRORS
        wrote = any(record.data for record in dynamic.pushed)
        if wrote and not fails:
            errors = self.lost_errors()
            if dynamic.model.state is BufferState.DESTROYED:
                errors |= STATE
        outcome = self.call(leave)
        if self.expect("end an update", outcome, errors) and not fails:
            self._write_records(dynamic)
        dynamic.pushed.clear()

    def _write_records(self, dynamic: Dynamic) -> None:
        """The records of the update are where they belong, also where they were first."""
        if dynamic.pushed:
            self.uploads_go_first(submits=False)
        for record in dynamic.pushed:
            late = False
            for _, model in dynamic.inners:
                late = late or model is record.model
                if late:
                    self.oracle.write(model, record.offset, record.data)
            inner, model = dynamic.inners[-1]
            if record.data and len(record.data) % 4 == 0:
                self.hold(dynamic.records, Record(inner, model, record.offset, record.data), 4)

    @step(
        which=WHICH,
        count=st.sampled_from([4, 16, 64, 300, 1200]),
        gives_up=st.sampled_from([False, False, True]),
    )
    def update_later(self, which: int, count: int, gives_up: bool) -> None:
        dynamic = self._dynamic(which)
        if dynamic is None:
            return
        errors = self._begin_errors(dynamic)
        full = self._ring_full(dynamic)
        data = self.fresh(count)
        update = dynamic.handle.begin_update()

        async def work() -> int:
            async with update:
                return update.push(data)

        def ended(outcome: Outcome) -> None:
            dynamic.waiting = dynamic.waiting and bool(errors)
            if outcome.cancelled:
                return
            if errors:
                self.expect("update later", outcome, errors, full)
                return
            dynamic.records.clear()
            late = self.lost_errors()
            if dynamic.model.state is BufferState.DESTROYED:
                late |= STATE
            if outcome.error is None:
                late = NO_ERRORS
            if self.expect("update later", outcome, late, full):
                self._pushed(dynamic, update, outcome.value, data)
                self._write_records(dynamic)
            dynamic.pushed.clear()

        dynamic.waiting = dynamic.waiting or not errors
        self.start(
            "update later",
            work,
            ended,
            cancelled=gives_up,
            must_end=lambda: bool(errors) or gives_up or not self.oracle.submissions,
            may_end=lambda: True,
        )

    # Use

    @step(which=WHICH, encoder=WHICH, into=WHICH, record=WHICH, goal=OFFSETS)
    def copy_from_dynamic(
        self, which: int, encoder: int, into: int, record: int, goal: Any
    ) -> None:
        dynamic, chosen = self._dynamic(which), self.encoder(encoder)
        target = self.buffer_for(into, BufferUsage.COPY_DST)
        if dynamic is None or chosen is None or target is None or not dynamic.records:
            return
        place = dynamic.records[record % len(dynamic.records)]
        recorder, commands = chosen
        end, handle, source = target.model, target.handle, place.buffer
        if place.buffer is dynamic.handle.inner and record % 2:
            source = dynamic.handle
        length = min(len(place.data), end.size - end.size % 4)
        errors = self.recording_errors(commands)
        errors |= commands.home.copy_errors(place.model, place.offset, end, goal, length)
        outcome = self.call(
            lambda: recorder.copy_buffer_to_buffer(source, place.offset, handle, goal, length)
        )
        if self.expect(f"copy {place.model.name} to {end.name}", outcome, errors):
            commands.record(Copy(place.model, place.offset, end, goal, length), place.model, end)

    def destroyables(self, kind: str, which: int) -> list[tuple[IBuffer, list[BufferModel]]]:
        dynamic = self.choose(self.dynamics, which) if kind == "dynamic" else None
        if dynamic is None:
            return super().destroyables(kind, which)
        return [(dynamic.handle, [dynamic.model])]

    def drop_one(self, kind: str, which: int) -> None:
        super().drop_one(kind, which)
        dynamic = self.choose(self.dynamics, which)
        if kind == "dynamic" and dynamic is not None:
            self._close(dynamic, fails=False)
            self.dynamics.remove(dynamic)

    def _dynamic(self, which: int) -> Dynamic | None:
        """Return a dynamic buffer; makes one where none fits."""
        if not self.oracle.lost and not any(map(_is_idle, self.dynamics)):
            self._create_dynamic(16, 2 + which % 2, fault=False)
        return self.choose(self.dynamics, which, _is_idle)

    def _open_one(self, which: int) -> Dynamic | None:
        """Return a dynamic buffer with an open update; opens one where there is none."""
        if not any(each.update for each in self.dynamics):
            dynamic = self._dynamic(which)
            if dynamic is not None:
                self._begin(dynamic)
                self.settle()
        return self.choose(self.dynamics, 0, lambda each: each.update is not None)

    def is_being_written(self, buffer: BufferModel) -> bool:
        return any((each.update or each.waiting) and each.owns(buffer) for each in self.dynamics)

    def open(self) -> None:
        super().open()
        self.dynamics.clear()

    def compare_more(self) -> None:
        super().compare_more()
        for dynamic in self.dynamics:
            stats = dynamic.handle.stats
            self.check(stats.peak <= stats.frame_size, f"{stats}")
            self.compare_handle(dynamic.handle, dynamic.model)

    def drop_everything(self) -> None:
        for dynamic in self.dynamics:
            self._close(dynamic, fails=False)
        self.dynamics.clear()
        super().drop_everything()


def _is_idle(dynamic: Dynamic) -> bool:
    alive = dynamic.model.state is BufferState.READY
    return alive and not dynamic.update and not dynamic.waiting
