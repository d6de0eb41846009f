"""Rules for `ImmediateStagingBuffer` and `DeferredStagingBuffer`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
from hypothesis import strategies as st

from pers.buffers import (
    BufferState,
    BufferUsage,
    DeferredStagingBuffer,
    IBuffer,
    ImmediateStagingBuffer,
    MapMode,
)
from pers.testing.property.loop import Outcome
from pers.testing.property.oracle import (
    LOST,
    MEMORY,
    NO_ERRORS,
    RANGE,
    STATE,
    USAGE,
    BufferModel,
    Copy,
    Errors,
    MapModel,
    whole,
)
from pers.testing.property.rules.base import step
from pers.testing.property.rules.belts import BeltRules
from pers.testing.property.rules.values import (
    COUNTS,
    DTYPES,
    FAULT,
    FORMS,
    OFFSETS,
    SHAPES,
    SIZES,
    WHICH,
    formed,
    layout,
)

STAGING = BufferUsage.MAP_WRITE | BufferUsage.COPY_SRC


@attrs.define(eq=False)
class Staging:
    """A staging buffer that the test holds, and the buffer that it stands on."""

    handle: ImmediateStagingBuffer | DeferredStagingBuffer
    model: BufferModel


class StagingRules(BeltRules):
    """Every call of the two staging buffers."""

    def __init__(self) -> None:
        self.staging: list[Staging] = []
        super().__init__()

    @step(count=COUNTS, immediate=st.booleans(), fault=FAULT)
    def create_staging(self, count: int, immediate: bool, fault: bool) -> None:
        self._create_staging(count, immediate, fault)

    def _create_staging(self, count: int, immediate: bool, fault: bool) -> None:
        name = self.name("staging")
        kind = ImmediateStagingBuffer if immediate else DeferredStagingBuffer
        errors = self.lost_errors()
        fault = fault and not errors and self.faults is not None
        if fault and self.faults is not None:
            self.faults.fail_next_allocations()
        outcome = self.call(lambda: kind(count, self.device.buffer_factory, debug_name=name))
        if self.expect(f"create {name}", outcome, MEMORY if fault else errors):
            size = -(-count // 4) * 4
            model = self.oracle.create(name, size, STAGING, mapped=immediate)
            self.hold(self.staging, Staging(outcome.value, model), 4)

    @step(which=WHICH, offset=OFFSETS, count=COUNTS, form=FORMS)
    def write_staging(self, which: int, offset: Any, count: int, form: str) -> None:
        held = self._held(which, _is_mapped)
        if held is None:
            return
        handle, model = held.handle, held.model
        data = self.fresh(count)
        value, plain = formed(data, form)
        errors = self._mapped_errors(model) | (NO_ERRORS if plain else USAGE)
        if model.mapping is not None:
            errors |= model.mapping.whole_range().errors(offset, count)
        outcome = self.call(lambda: handle.write(value, offset))
        if self.expect(f"write {model.name}", outcome, errors):
            assert model.mapping is not None
            model.mapping.whole_range().write(offset, data)

    @step(which=WHICH, dtype=DTYPES, shape=SHAPES)
    def look_at_staging(self, which: int, dtype: Any, shape: Any) -> None:
        held = self._held(which, _is_mapped)
        if held is None:
            return
        handle, model = held.handle, held.model
        nbytes, errors = layout(dtype, shape, model.size)
        if self._mapped_errors(model):
            errors = self._mapped_errors(model)
        outcome = self.call(lambda: handle.as_array(dtype, shape))
        if self.expect(f"as_array of {model.name}", outcome, errors):
            assert model.mapping is not None
            self._look(outcome, model.mapping.whole_range().open_window(nbytes))

    def _mapped_errors(self, model: BufferModel) -> Errors:
        errors = STATE if model.mapping is None else NO_ERRORS
        return errors | LOST if model.home.lost else errors

    @step(which=WHICH, encoder=WHICH, into=WHICH, goal=OFFSETS, start=OFFSETS, size=SIZES)
    def upload_staging(
        self, which: int, encoder: int, into: int, goal: Any, start: Any, size: Any
    ) -> None:
        held, chosen = self._held(which, _is_alive), self.encoder(encoder)
        target = self.buffer_for(into, BufferUsage.COPY_DST)
        if held is None or chosen is None or target is None:
            return
        handle, commands, end, into_handle = held.handle, chosen[1], target.model, target.handle
        recorder = chosen[0]
        first, second = whole(start), whole(goal)
        length = size
        if size is None and first is not None and second is not None:
            length = max(min(held.model.size - first, end.size - second), 0)
        outcome = self.call(
            lambda: handle.upload_to(recorder, into_handle, goal, source_offset=start, size=size)
        )
        if outcome.error is None or handle.state is BufferState.READY:
            self._unmap_staging(held)
        errors = self.recording_errors(commands)
        errors |= commands.home.copy_errors(held.model, start, end, goal, length)
        if first is None or second is None or whole(length) is None:
            errors |= RANGE
        if self.expect(f"upload {held.model.name}", outcome, errors):
            copy = Copy(held.model, start, end, goal, length)
            commands.record(copy, held.model, end)

    def _unmap_staging(self, held: Staging) -> None:
        """Unmap; where arrays look at the memory, they keep it, and the bytes move on."""
        old = held.model
        mapping = old.mapping
        if mapping is None:
            return
        viewed = mapping.live_windows
        old.home.unmap(old)
        if viewed:
            held.model = old.home.create(old.name, old.size, STAGING)
            held.model.contents[:] = old.contents
            old.home.forget(old)

    @step(
        which=WHICH,
        offset=OFFSETS,
        size=SIZES,
        keep=st.booleans(),
        how=st.sampled_from(["await"] * 6 + ["timeout", "fault", "block", "block"]),
    )
    def map_staging(self, which: int, offset: Any, size: Any, keep: bool, how: str) -> None:
        held = self._held(which, _is_unmapped)
        if held is None or not isinstance(held.handle, DeferredStagingBuffer):
            return
        handle, model = held.handle, held.model
        errors = model.home.span_errors(offset, size, model.size)
        errors |= model.home.map_errors(model, MapMode.WRITE, 0, None)
        length = model.size - offset if size is None and not errors else size
        data = b"" if errors else self.fresh(int(length or 0))
        kept: list[Any] = []

        def fill(mapped: Any) -> None:
            mapped.write(data)
            if keep:
                kept.append(mapped.as_array(np.uint8))

        async def wait() -> None:
            async with handle.map_async(offset, size) as mapped:
                fill(mapped)

        def block() -> None:
            with handle.map(offset, size) as mapped:
                fill(mapped)

        what = f"map {model.name}"
        fails = how == "fault" and self.faults is not None and not errors
        gives_up = how == "timeout"
        pending: MapModel | None = None
        outcome = Outcome()
        if how == "block":
            outcome = self.call_blocking(block) if not errors else self.call(block)
        if not errors:
            self.before_access_ends(model)
            pending = self.oracle.begin_map(model, MapMode.WRITE, 0, None, fails=fails)
        if how == "block":
            if pending is not None:
                self.waited(pending)
            self._filled(what, held, pending, offset, data, kept, errors, outcome)
            return
        if self.faults is not None and fails:
            self.faults.fail_next_maps()
        self.start(
            what,
            wait,
            lambda outcome: self._filled(what, held, pending, offset, data, kept, errors, outcome),
            cancelled=gives_up,
            must_end=lambda: pending is None or gives_up or pending.ended,
        )

    def _filled(
        self,
        what: str,
        held: Staging,
        pending: MapModel | None,
        offset: int,
        data: bytes,
        kept: list[Any],
        errors: Errors,
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
        mapping = pending.mapping
        part = mapping.whole_range()
        part.offset, part.nbytes = offset, len(data)
        part.write(0, data)
        for array in kept:
            self.hold_view(array, part.open_window(array.nbytes), offset)
        kept.clear()
        if held.model is pending.buffer:
            self._unmap_staging(held)

    def destroyables(self, kind: str, which: int) -> list[tuple[IBuffer, list[BufferModel]]]:
        held = self.choose(self.staging, which) if kind == "staging" else None
        return [(held.handle, [held.model])] if held else super().destroyables(kind, which)

    def drop_one(self, kind: str, which: int) -> None:
        super().drop_one(kind, which)
        held = self.choose(self.staging, which)
        if kind == "staging" and held is not None:
            self.staging.remove(held)

    def _held(self, which: int, fits: Callable[[Staging], bool]) -> Staging | None:
        """Return a staging buffer; makes one where none fits."""
        if not self.oracle.lost and not any(map(fits, self.staging)):
            self._create_staging(32, bool(which % 2), fault=False)
        return self.choose(self.staging, which, fits)

    def compare_more(self) -> None:
        super().compare_more()
        for held in self.staging:
            self.compare_handle(held.handle, held.model)

    def drop_everything(self) -> None:
        self.staging.clear()
        super().drop_everything()


def _is_mapped(held: Staging) -> bool:
    return held.model.state is BufferState.MAPPED


def _is_alive(held: Staging) -> bool:
    return held.model.state is not BufferState.DESTROYED


def _is_unmapped(held: Staging) -> bool:
    ready = held.model.state is BufferState.READY
    return ready and isinstance(held.handle, DeferredStagingBuffer)
