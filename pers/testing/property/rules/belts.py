"""Rules for `StagingBelt`, `DeviceBuffer` and uploads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
from hypothesis import strategies as st

from pers.buffers import BufferState, BufferUsage, DeviceBuffer, StagingBelt
from pers.buffers.belt import QUEUE_WRITE_LIMIT
from pers.errors import RingFullError
from pers.graphics import ICommandEncoder, Submission
from pers.testing.property.loop import Outcome
from pers.testing.property.oracle import (
    INVALID,
    LOST,
    MEMORY,
    NO_ERRORS,
    USAGE,
    BufferModel,
    CommandsModel,
    Errors,
    Fill,
    SubmissionModel,
)
from pers.testing.property.rules.base import step
from pers.testing.property.rules.faults import FaultRules
from pers.testing.property.rules.values import COUNTS, FAULT, FORMS, OFFSETS, WHICH, formed

FULL: Errors = frozenset({RingFullError})
BIG = QUEUE_WRITE_LIMIT + 64 * 1024
"""More than the belt leaves to the queue's own write."""
SMALL_BUDGET = 128 * 1024
BOTH = BufferUsage.COPY_SRC | BufferUsage.COPY_DST


@attrs.define(eq=False)
class Upload:
    """What is to be uploaded, and how."""

    belt: StagingBelt
    way: str
    value: Any
    data: bytes
    target: BufferModel
    offset: Any
    encoder: ICommandEncoder | None
    commands: CommandsModel | None


class BeltRules(FaultRules):
    """Every way to get bytes to the GPU, on the device's belt and on a small one."""

    def __init__(self) -> None:
        self.small_belt: StagingBelt | None = None
        self.held_back: list[Fill] = []
        """Uploads that wait for the next flush or submit."""
        self.queue_writes_wait = False
        """Whether the next flush has queue writes to submit."""
        self.flights: list[SubmissionModel] = []
        """Submissions with uploads in them."""
        super().__init__()

    def open(self) -> None:
        super().open()
        self.small_belt = None
        self.held_back.clear()
        self.queue_writes_wait = False

    @step(
        which=WHICH,
        into=WHICH,
        offset=OFFSETS,
        count=COUNTS,
        form=FORMS,
        way=st.sampled_from(["upload", "try", "async", "async", "async", "device", "gives up"]),
        small=st.booleans(),
        recorded=st.booleans(),
    )
    def upload(
        self,
        which: int,
        into: int,
        offset: Any,
        count: int,
        form: str,
        way: str,
        small: bool,
        recorded: bool,
    ) -> None:
        held = self.buffer_for(into, BufferUsage.COPY_DST)
        if held is None:
            return
        chosen = self.encoder(which) if recorded and way != "device" else None
        encoder, commands = chosen or (None, None)
        data = self.fresh(count)
        value, plain = formed(data, form)
        model = held.model
        upload = Upload(self._belt(small), way, value, data, model, offset, encoder, commands)
        errors = self._upload_errors(upload) | (NO_ERRORS if plain else USAGE)
        self._upload(upload, held.handle, errors)

    @step(which=WHICH)
    def upload_much(self, which: int) -> None:
        some = [each for each in self.buffers if each.model.size == BIG]
        if not some:
            name = self.name("big buffer")
            make = lambda: DeviceBuffer(  # noqa: E731
                BIG, self.device.buffer_factory, usage=BOTH, debug_name=name
            )
            errors = self.oracle.creation_errors(BIG, int(BOTH), mapped=False, mappable=False)
            outcome = self.call(make)
            if self.expect(f"create {name}", outcome, errors):
                self.hold_buffer(outcome.value, self.oracle.create(name, BIG, BOTH))
            return
        held = some[which % len(some)]
        data = self.fresh(BIG)
        upload = Upload(self.device.belt, "upload", data, data, held.model, 0, None, None)
        self._upload(upload, held.handle, self._upload_errors(upload))

    def _belt(self, small: bool) -> StagingBelt:
        if not small:
            return self.device.belt
        if self.small_belt is None:
            self.small_belt = StagingBelt(self.device, budget=SMALL_BUDGET)
        return self.small_belt

    def _upload_errors(self, upload: Upload) -> Errors:
        home = upload.commands.home if upload.commands else self.oracle
        errors = home.write_errors(upload.target, upload.offset, len(upload.data))
        errors |= LOST if upload.target.home.lost else NO_ERRORS
        errors |= NO_ERRORS if upload.target.home is self.oracle else INVALID  # the belt's device
        return errors | (self.recording_errors(upload.commands) if upload.commands else NO_ERRORS)

    def _upload(self, upload: Upload, handle: Any, errors: Errors) -> None:
        belt, way = upload.belt, upload.way
        what = f"{way} {len(upload.data)} bytes to {upload.target.name}"
        value, offset, encoder = upload.value, upload.offset, upload.encoder
        call: Callable[[], Any]
        if way == "device":
            call = lambda: self.device.upload(value, handle, offset)  # noqa: E731
        elif way == "try":
            call = lambda: belt.try_upload(value, handle, offset, encoder=encoder)  # noqa: E731
        elif way in ("async", "gives up"):
            self._upload_async(what, upload, handle, errors)
            return
        else:
            call = lambda: belt.upload(value, handle, offset, encoder=encoder)  # noqa: E731
        stages = encoder is not None or len(upload.data) == BIG or self.held_back
        full = self._full_errors(upload)
        outcome = self.call_blocking(call) if stages else self.call(call)
        if self.expect(what, outcome, errors, full):
            self._uploaded(upload)
        if stages:
            self.waited()

    def _full_errors(self, upload: Upload) -> Errors:
        """Whether the small belt may be full."""
        if upload.belt is self.device.belt or upload.encoder is None:
            return NO_ERRORS
        recorded = any(each.uploads for each in self.recorded())
        flying = upload.way == "try" and any(self._flying())
        return FULL if recorded or flying else NO_ERRORS

    def recorded(self) -> list[CommandsModel]:
        """Return what was recorded and waits for its submit."""
        return [model for _, model in [*self.encoders, *self.commands] if not model.submitted]

    def _flying(self) -> list[SubmissionModel]:
        self.flights = [each for each in self.flights if not each.ended]
        return self.flights

    def _upload_async(self, what: str, upload: Upload, handle: Any, errors: Errors) -> None:
        if self.oracle.clock is not None:
            # The belt maps its chunks while it has the task's thread; see NullClock.map_latency.
            self.change_map_latency(0)
        gives_up = upload.way == "gives up"
        value, offset, encoder, belt = upload.value, upload.offset, upload.encoder, upload.belt

        def ended(outcome: Outcome) -> None:
            self.uploads_waiting -= 1
            if outcome.cancelled:
                return
            allowed = self._full_errors(upload)
            late = self._upload_errors(upload)
            if outcome.error is None or outcome.error not in late | allowed:
                late = NO_ERRORS
            if self.expect(what, outcome, errors or late, allowed):
                self._uploaded(upload)

        self.uploads_waiting += 1
        self.start(
            what,
            lambda: belt.upload_async(value, handle, offset, encoder=encoder),
            ended,
            cancelled=gives_up,
            must_end=lambda: (
                bool(errors)
                or gives_up
                or upload.encoder is None
                or not (any(each.uploads for each in self.recorded()) or self._flying())
            ),
            may_end=lambda: True,
        )

    uploads_waiting = 0

    def change_map_latency(self, nanoseconds: int | None) -> None:
        if not self.uploads_waiting or nanoseconds == 0:
            super().change_map_latency(nanoseconds)

    def _uploaded(self, upload: Upload) -> None:
        fill = Fill(upload.target, upload.offset, upload.data)
        if upload.commands is not None:
            upload.commands.record(fill, upload.target)
            upload.commands.uploads += 1
        elif len(upload.data) == BIG or self.held_back:
            self.held_back.append(fill)
        else:
            if upload.belt is self.device.belt and upload.data:
                self.queue_writes_wait = True
            self.oracle.write(upload.target, upload.offset, upload.data)

    # What is held back

    def uploads_go_first(self, *, submits: bool = True) -> None:
        fills, self.held_back = self.held_back, []
        self.queue_writes_wait = self.queue_writes_wait and not (submits or fills)
        if fills:
            commands = CommandsModel(self.oracle)
            for fill in fills:
                commands.record(fill, fill.target)
            self.submitted(None, self.oracle.submit([commands]))

    def before_access_ends(self, buffer: BufferModel) -> None:
        recorded = any(buffer in each.used for each in self.recorded())
        held_back = any(fill.target is buffer for fill in self.held_back)
        if buffer.state is BufferState.READY and (recorded or held_back):
            self.uploads_go_first()

    @step()
    def flush(self) -> None:
        outcome = self.call_keeping(self.device.belt.flush)
        if self.expect("flush", outcome, self.lost_errors()):
            self._flushed(self.kept)
            self.kept = None

    def _flushed(self, submission: Submission) -> None:
        submits = self.held_back or self.queue_writes_wait
        self.uploads_go_first()
        if self.clock is None:  # which road the uploads took is the belt's business
            self.expect("wait for a flush", self.call(submission.wait), self.lost_errors())
        elif submits:
            self.submitted(submission, self.oracle.submit([]))

    def after_refused_submit(self) -> None:
        if not self.oracle.lost and not self.device.is_lost:
            self.settle()
            self.flush.__wrapped__(self)  # type: ignore[attr-defined]

    def note_submit(self, submission: SubmissionModel, commands: list[CommandsModel]) -> None:
        if any(each.uploads for each in commands):
            self.flights.append(submission)

    def compare_more(self) -> None:
        super().compare_more()
        for belt in filter(None, (self.small_belt, self.device.belt)):
            stats = belt.stats
            self.check(stats.in_flight <= stats.capacity <= stats.peak, f"{stats}")
            self.check(stats.peak <= stats.budget, f"{stats}")
            self.check(
                stats.uploads == stats.queue_writes + stats.staged + stats.direct, f"{stats}"
            )

    # DeviceBuffer

    @step(
        count=COUNTS,
        form=FORMS,
        usage=st.sampled_from([BOTH] * 6 + [BufferUsage.VERTEX, BOTH | BufferUsage.MAP_READ]),
        filled=st.booleans(),
        fault=FAULT,
    )
    def create_device_buffer(
        self, count: int, form: str, usage: BufferUsage, filled: bool, fault: bool
    ) -> None:
        name = self.name("device buffer")
        factory = self.device.buffer_factory
        data = self.fresh(count)
        value, plain = formed(data, form)
        errors = self.lost_errors()
        if usage & BufferUsage.MAP_READ or (filled and not plain):
            errors |= USAGE
        fault = fault and not errors and self.faults is not None

        def make() -> DeviceBuffer:
            if filled:
                return DeviceBuffer.from_array(value, usage, factory, debug_name=name)
            return DeviceBuffer(count, factory, usage=usage, debug_name=name)

        if fault and self.faults is not None:
            self.faults.fail_next_allocations()
        outcome = self.call(make)
        if self.expect(f"create {name}", outcome, MEMORY if fault else errors):
            size = -(-count // 4) * 4 if filled else count
            model = self.oracle.create(name, size, usage | BufferUsage.COPY_DST)
            model.contents[: len(data) if filled else 0] = data if filled else b""
            self.hold_buffer(outcome.value, model)

    def finish_everything(self) -> None:
        self.after_refused_submit()
        super().finish_everything()

    def drop_everything(self) -> None:
        self.small_belt = None
        super().drop_everything()


__all__ = ["BeltRules", "np"]
