"""Rules for raw buffers: making, mapping, looking, letting go."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import initialize

from pers.buffers import (
    BufferDesc,
    BufferState,
    BufferUsage,
    IBuffer,
    IMappableBuffer,
    MapMode,
    MappedRange,
)
from pers.testing.property.loop import Outcome
from pers.testing.property.oracle import (
    MEMORY,
    NO_ERRORS,
    STATE,
    USAGE,
    BufferModel,
    MapModel,
    MappingModel,
    RangeModel,
    whole,
)
from pers.testing.property.rules.base import Held, MachineBase, View, step
from pers.testing.property.rules.values import (
    COUNTS,
    DTYPES,
    FAULT,
    FORMS,
    MODES,
    OFFSETS,
    SHAPES,
    SIZES,
    USAGES,
    WHICH,
    formed,
    layout,
)

KINDS = ["staging", "readback", "dynamic", "texture"]
"""The buffer classes besides raw buffers, for rules that subclasses extend."""

HOW = st.sampled_from(["wait"] * 8 + ["timeout", "fault"])


class MappingRules(MachineBase):
    """Every call of `IBufferFactory`, `IMappableBuffer` and `MappedRange`."""

    @initialize()
    def start_with_some_buffers(self) -> None:
        for usage in (
            BufferUsage.MAP_WRITE | BufferUsage.COPY_SRC,
            BufferUsage.MAP_READ | BufferUsage.COPY_DST,
        ):
            self._create(32, usage, mapped=False, mappable=True, fault=False)
        both = BufferUsage.COPY_SRC | BufferUsage.COPY_DST
        self._create(64, both, mapped=False, mappable=False, fault=False)

    @step(
        size=st.sampled_from([32] * 8 + [64] * 4 + [16, 8, 128, 0, 10, 4, -1, 2**41, 2**64, 1.5]),
        usage=USAGES,
        mapped=st.booleans(),
        fitting=st.sampled_from([True] * 9 + [False]),
        fault=FAULT,
    )
    def create(self, size: Any, usage: int, mapped: bool, fitting: bool, fault: bool) -> None:
        maps = usage & (BufferUsage.MAP_READ | BufferUsage.MAP_WRITE)
        self._create(size, usage, mapped, bool(maps or mapped) is fitting, fault)

    def _create(self, size: Any, usage: int, mapped: bool, mappable: bool, fault: bool) -> None:
        name = self.name("buffer")
        factory = self.device.buffer_factory
        errors = self.oracle.creation_errors(size, usage, mapped=mapped, mappable=mappable)
        fault = fault and self.faults is not None and not errors

        def make() -> Any:
            desc = BufferDesc(size, BufferUsage(usage), mapped_at_creation=mapped, debug_name=name)
            return factory.create_mappable_buffer(desc) if mappable else factory.create_buffer(desc)

        if self.faults is not None and fault:
            self.faults.fail_next_allocations()
        outcome = self.call(make)
        if self.expect(f"create {name}", outcome, MEMORY if fault else errors):
            model = self.oracle.create(name, size, BufferUsage(usage), mapped=mapped)
            self.hold_buffer(outcome.value, model)

    # Maps

    @step(which=WHICH, mode=MODES, offset=OFFSETS, size=SIZES, how=HOW)
    def map_async(self, which: int, mode: Any, offset: Any, size: Any, how: str) -> None:
        held = self.mappable(which, BufferState.READY)
        if held is None:
            return
        handle, model = held.handle, held.model
        assert isinstance(handle, IMappableBuffer)
        mode = _mode(mode, model)
        errors = model.home.map_errors(model, mode, offset, size)
        what = f"map {model.name}"
        if errors:

            def refused(outcome: Outcome) -> None:
                self.expect(what, outcome, errors)

            self.start(
                what,
                lambda: handle.map_async(mode, offset, size),
                refused,
                cancelled=how == "timeout",
                must_end=lambda: True,
            )
            return
        self.before_access_ends(model)
        fails = how == "fault" and self.faults is not None
        if fails and self.faults is not None:
            self.faults.fail_next_maps()
        pending = self.oracle.begin_map(model, mode, offset, size, fails=fails)
        gives_up = how == "timeout"

        def ended(outcome: Outcome) -> None:
            self._map_ended(held, pending, outcome)

        self.start(
            what,
            lambda: handle.map_async(mode, offset, size),
            ended,
            cancelled=gives_up,
            must_end=lambda: gives_up or pending.ended,
        )

    def _map_ended(self, held: Held, pending: MapModel, outcome: Outcome) -> None:
        what = f"map {held.model.name}"
        if held.gone:
            held.drop()  # perhaps the task had it last
        if outcome.cancelled:
            self.abandon(pending)
        elif self.clock is None and outcome.error is None and not pending.mapping:
            # It ended before it was aborted, which nobody could see.
            self.check(pending.ended, f"{what}: {outcome}")
        elif pending.error is not None:
            self.expect(what, outcome, frozenset({pending.error}))
        elif self.expect(what, outcome, NO_ERRORS):
            assert pending.mapping is not None
            self._compare_range(outcome.value, pending.mapping.whole_range(), gone=held.gone)

    def abandon(self, pending: MapModel) -> None:
        """Note that nobody waits for a map any more."""
        if pending.buffer.mapping is not None and pending.buffer.mapping is pending.mapping:
            pending.buffer.home.unmap(pending.buffer)
        elif pending.buffer.pending is pending:
            pending.buffer.home.abort_map(pending.buffer)

    def _compare_range(self, mapped: MappedRange, model: RangeModel, *, gone: bool = False) -> None:
        self.check(
            (mapped.offset, mapped.nbytes, mapped.mode)
            == (model.offset, model.nbytes, model.mapping.mode),
            f"{mapped} should have {model.nbytes} bytes at {model.offset}",
        )
        if not model.mapping.ended and not gone:
            self.check(mapped.read() == model.bytes_at(0, model.nbytes), f"{mapped}: bytes")
        if not gone:
            self.hold_range(mapped, model)

    @step(which=WHICH, mode=MODES, offset=OFFSETS, size=SIZES)
    def map_blocking(self, which: int, mode: Any, offset: Any, size: Any) -> None:
        held = self.mappable(which, BufferState.READY)
        if held is None:
            return
        handle, model = held.handle, held.model
        assert isinstance(handle, IMappableBuffer)
        mode = _mode(mode, model)
        errors = model.home.map_errors(model, mode, offset, size)
        what = f"map {model.name}, blocking"
        if errors:
            self.expect(what, self.call(lambda: handle.map(mode, offset, size)), errors)
            return
        outcome = self.call_blocking(lambda: handle.map(mode, offset, size))
        self.before_access_ends(model)
        pending = self.oracle.begin_map(model, mode, offset, size, fails=False)
        self.waited(pending)
        if self.expect(what, outcome, NO_ERRORS) and pending.mapping is not None:
            self._compare_range(outcome.value, pending.mapping.whole_range())

    @step(which=WHICH)
    def cancel_task(self, which: int) -> None:
        if self.jobs:
            self.cancel(list(self.jobs.values())[which % len(self.jobs)])

    @step(which=WHICH)
    def unmap(self, which: int) -> None:
        held = self.mappable(which, BufferState.MAPPED)
        if held is None:
            return
        handle, model = held.handle, held.model
        assert isinstance(handle, IMappableBuffer)
        errors = model.home.unmap_errors(model)
        outcome = self.call(handle.unmap)
        if self.expect(f"unmap {model.name}", outcome, errors):
            model.home.unmap(model)
        elif model.mapping is not None:
            self.check(outcome.count == model.mapping.live_windows, f"{outcome}: wrong count")

    # Ranges

    @step(which=WHICH, offset=OFFSETS, size=SIZES)
    def mapped_range(self, which: int, offset: Any, size: Any) -> None:
        held = self.mappable(which, BufferState.MAPPED)
        if held is None:
            return
        handle, model = held.handle, held.model
        assert isinstance(handle, IMappableBuffer)
        errors = model.home.range_errors(model, offset, size)
        outcome = self.call(lambda: handle.mapped_range(offset, size))
        if self.expect(f"mapped_range of {model.name}", outcome, errors):
            self._compare_range(outcome.value, model.home.take_range(model, offset, size))

    @step(which=WHICH)
    def mapped_data(self, which: int) -> None:
        held = self.mappable(which, BufferState.MAPPED)
        if held is None:
            return
        handle, model = held.handle, held.model
        assert isinstance(handle, IMappableBuffer)
        errors = NO_ERRORS if model.mapping is not None else STATE
        if model.home.lost:
            errors = model.home.range_errors(model, 0, 0)
        outcome = self.call(lambda: handle.mapped_data)
        if self.expect(f"mapped_data of {model.name}", outcome, errors):
            assert model.mapping is not None
            self._compare_range(outcome.value, model.mapping.whole_range())

    @step(which=WHICH, offset=OFFSETS, count=COUNTS, form=FORMS)
    def write_range(self, which: int, offset: Any, count: int, form: str) -> None:
        mapped, model = self._range(which)
        if mapped is None:
            return
        data = self.fresh(count)
        errors = model.errors(offset, count)
        value, plain = formed(data, form)
        if model.mapping.mode is not MapMode.WRITE or not plain:
            errors |= USAGE
        outcome = self.call(lambda: mapped.write(value, offset))
        if self.expect(f"write to {mapped}", outcome, errors):
            model.write(offset, data)

    @step(which=WHICH, offset=OFFSETS, size=SIZES)
    def read_range(self, which: int, offset: Any, size: Any) -> None:
        mapped, model = self._range(which)
        if mapped is None:
            return
        start = whole(offset)
        length = model.nbytes - start if size is None and start is not None else size
        errors = model.errors(offset, length)
        outcome = self.call(lambda: mapped.read(offset, size))
        if self.expect(f"read of {mapped}", outcome, errors):
            there = model.bytes_at(offset, int(length or 0))
            self.check(outcome.value == there, f"read of {mapped}: other bytes")

    @step(which=WHICH, dtype=DTYPES, shape=SHAPES)
    def as_array(self, which: int, dtype: Any, shape: Any) -> None:
        mapped, model = self._range(which)
        if mapped is None:
            return
        nbytes, errors = layout(dtype, shape, model.nbytes)
        errors |= model.dead_errors()
        outcome = self.call(lambda: mapped.as_array(dtype, shape))
        if self.expect(f"as_array of {mapped}", outcome, errors):
            self._look(outcome, model.open_window(nbytes))

    def _look(self, outcome: Outcome, window: Any) -> None:
        array, outcome.value = outcome.value, None
        self.check(array.nbytes == window.nbytes, f"{array.nbytes} bytes, not {window.nbytes}")
        writable = window.mapping.mode is MapMode.WRITE
        self.check(
            not window.nbytes or array.flags.writeable is writable, f"writable: {not writable}"
        )
        self.hold_view(array, window, window.start)

    # Views

    @step(which=WHICH, start=st.sampled_from([0, 1, 4]))
    def slice_view(self, which: int, start: int) -> None:
        view = self._view(which)
        if view is not None and view.array.ndim == 1 and view.array.size > start:
            first = view.start + start * view.array.itemsize
            self.hold_view(view.array[start:], view.window, first)

    @step(which=WHICH)
    def write_view(self, which: int) -> None:
        view = self._view(which)
        if view is None:
            return
        if view.window.mapping.mode is MapMode.WRITE:
            data = self.fresh(view.array.nbytes)
            target = view.array.reshape(-1).view(np.uint8)
            target[:] = np.frombuffer(data, np.uint8)
            view.window.mapping.memory[view.start : view.start + len(data)] = data
            return
        try:
            view.array[...] = 0
        except ValueError:
            return
        raise AssertionError("an array that is mapped for reading was written")

    @step(which=WHICH)
    def drop_view(self, which: int) -> None:
        view = self._view(which)
        if view is not None:
            self.views.remove(view)
            view.drop()

    @step()
    def drop_all_views(self) -> None:
        while self.views:
            self.views.pop().drop()

    # The end

    @step(which=WHICH, kind=st.sampled_from(["buffer"] * 4 + KINDS), block=st.booleans())
    def destroy(self, which: int, kind: str, block: bool) -> None:
        for handle, models in self.destroyables(kind, which):

            def destroy(handle: IBuffer = handle) -> None:
                if block:
                    with handle as inside:
                        assert inside is handle
                else:
                    handle.destroy()

            if self.expect(f"destroy {handle}", self.call(destroy), NO_ERRORS):
                for model in models:
                    self.before_access_ends(model)
                    model.home.destroy(model)

    def destroyables(self, kind: str, which: int) -> list[tuple[IBuffer, list[BufferModel]]]:
        """Return a buffer of a kind (or none), and what goes with it."""
        held = self.choose(self.buffers, which) if kind == "buffer" else None
        return [] if held is None else [(held.handle, [held.model])]

    @step(which=WHICH, kind=st.sampled_from(["buffer"] * 4 + KINDS))
    def drop(self, which: int, kind: str) -> None:
        self.drop_one(kind, which)

    def drop_one(self, kind: str, which: int) -> None:
        """Drop a buffer of a kind."""
        held = self.choose(self.buffers, which)
        if kind == "buffer" and held is not None:
            self.buffers.remove(held)
            self.call(lambda: self.let_go(held))

    @step(thorough=st.sampled_from([False] * 15 + [True]))
    def collect_garbage(self, thorough: bool) -> None:
        gc.collect(2 if thorough else 0)

    def before_access_ends(self, buffer: BufferModel) -> None:
        """Note that the GPU soon cannot use a buffer; for a subclass with belts."""

    # Choosing

    def mappable(self, which: int, state: BufferState) -> Held | None:
        """Return one of the buffers that can be mapped, mostly one in `state`."""
        some = [held for held in self.buffers if isinstance(held.handle, IMappableBuffer)]
        return self.choose(some, which, lambda held: held.model.state is state)

    def _range(self, which: int) -> tuple[MappedRange, RangeModel] | tuple[None, RangeModel]:
        chosen = self.choose(self.ranges, which, lambda each: not each[1].mapping.ended)
        return chosen or (None, _NO_RANGE)

    def _view(self, which: int) -> View | None:
        return self.choose(self.views, which)


def _mode(mode: Any, model: BufferModel) -> Any:
    if mode != "fitting":
        return mode
    return MapMode.READ if model.usage & BufferUsage.MAP_READ else MapMode.WRITE


_NO_RANGE = RangeModel(MappingModel(None, MapMode.NONE, 0, bytearray()), 0, 0)
