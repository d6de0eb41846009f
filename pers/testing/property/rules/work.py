"""Rules for encoders, the queue, submissions, and reading back."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from pers.buffers import BufferState, BufferUsage, MapMode
from pers.errors import WaitTimeoutError
from pers.graphics import ICommandEncoder
from pers.testing.property.loop import Outcome
from pers.testing.property.oracle import (
    INVALID,
    LOST,
    NO_ERRORS,
    RANGE,
    STATE,
    USAGE,
    BufferModel,
    CommandsModel,
    Copy,
    Errors,
    Fill,
    MapModel,
    SubmissionModel,
)
from pers.testing.property.rules.base import LOSS, step
from pers.testing.property.rules.mapping import MappingRules
from pers.testing.property.rules.values import COUNTS, FORMS, OFFSETS, SIZES, WHICH, formed

READBACK = BufferUsage.MAP_READ | BufferUsage.COPY_DST
WAITED: Errors = frozenset({WaitTimeoutError})


class WorkRules(MappingRules):
    """Every call of `ICommandEncoder` and `IRenderQueue` that is about buffers."""

    def uploads_go_first(self, *, submits: bool = True) -> None:
        """Note that what a belt holds back is submitted now; for a subclass with belts.

        Args:
            submits: Whether there is a submit even when nothing was held back.
        """

    # Recording

    @step()
    def begin_commands(self) -> None:
        name = self.name("commands")
        outcome = self.call(lambda: self.device.create_command_encoder(name))
        if self.expect("create_command_encoder", outcome, self.lost_errors()):
            self.hold(self.encoders, (outcome.value, CommandsModel(self.oracle)))

    def encoder(self, which: int) -> tuple[ICommandEncoder, CommandsModel] | None:
        """Return an encoder, mostly one that takes commands."""
        if not self.oracle.lost and not any(map(_is_open, self.encoders)):
            self.begin_commands.__wrapped__(self)  # type: ignore[attr-defined]
        return self.choose(self.encoders, which, _is_open)

    @step(which=WHICH, source=WHICH, into=WHICH, start=OFFSETS, goal=OFFSETS, size=SIZES)
    def copy(self, which: int, source: int, into: int, start: Any, goal: Any, size: Any) -> None:
        chosen = self.encoder(which)
        origin = self.buffer_for(source, BufferUsage.COPY_SRC)
        end = self.buffer_for(into, BufferUsage.COPY_DST)
        if chosen is None or origin is None or end is None:
            return
        encoder, commands = chosen
        a, b = origin.model, end.model
        errors = self.recording_errors(commands)
        errors |= commands.home.copy_errors(a, start, b, goal, size)
        first, second = origin.handle, end.handle
        outcome = self.call(lambda: encoder.copy_buffer_to_buffer(first, start, second, goal, size))
        if self.expect(f"copy {a.name} to {b.name}", outcome, errors):
            length = a.size - start if size is None else size
            commands.record(Copy(a, start, b, goal, length), a, b)

    @step(which=WHICH, into=WHICH, offset=OFFSETS, size=SIZES)
    def clear(self, which: int, into: int, offset: Any, size: Any) -> None:
        chosen = self.encoder(which)
        held = self.buffer_for(into, BufferUsage.COPY_DST)
        if chosen is None or held is None:
            return
        encoder, commands = chosen
        handle, model = held.handle, held.model
        errors = self.recording_errors(commands)
        errors |= commands.home.clear_errors(model, offset, size)
        outcome = self.call(lambda: encoder.clear_buffer(handle, offset, size))
        if self.expect(f"clear {model.name}", outcome, errors):
            length = model.size - offset if size is None else size
            commands.record(Fill(model, offset, bytes(length)), model, idle=not length)

    def recording_errors(self, commands: CommandsModel) -> Errors:
        """Why an encoder takes no more commands."""
        errors = INVALID if commands.finished or commands.open_pass else NO_ERRORS
        return errors | LOST if commands.home.lost else errors

    @step(which=WHICH)
    def finish(self, which: int) -> None:
        chosen = self.encoder(which)
        if chosen is None:
            return
        encoder, commands = chosen
        errors = self.recording_errors(commands)
        if self.expect("finish", self.call_keeping(encoder.finish), errors):
            commands.finished = True
            self.hold(self.commands, (self.kept, commands))
            self.kept = None

    kept: Any = None

    def call_keeping(self, function: Any) -> Outcome:
        """Make a call; keep what it returns in `kept`."""
        outcome = self.call(function)
        self.kept, outcome.value = outcome.value, None
        return outcome

    @step(which=WHICH, finished=st.booleans())
    def drop_commands(self, which: int, finished: bool) -> None:
        some: list[Any] = self.commands if finished else self.encoders
        chosen = self.choose(some, which)
        if chosen is not None:
            some.remove(chosen)

    # Submitting

    @step(which=st.lists(WHICH, max_size=3))
    def submit(self, which: list[int]) -> None:
        picks = [self.choose(self.commands, each, _is_fresh) for each in which]
        chosen = [each for each in picks if each is not None]
        if which and which[0] < 10:
            chosen = list({id(each[1]): each for each in chosen}.values())
        models = [model for _, model in chosen]
        errors = self.oracle.submit_errors(models)
        buffers = [command_buffer for command_buffer, _ in chosen]
        if any(self.is_being_written(buffer) for model in models for buffer in model.used):
            return
        if errors:
            refused = self.call(lambda: self.device.queue.submit(buffers))
            self.expect("submit", refused, errors)
            self.after_refused_submit()
            return
        outcome = self.call_keeping(lambda: self.device.queue.submit(buffers))
        if self.expect("submit", outcome, NO_ERRORS):
            self.uploads_go_first()
            submission = self.oracle.submit(models)
            self.note_submit(submission, models)
            self.submitted(self.kept, submission)
            self.kept = None

    def note_submit(self, submission: SubmissionModel, commands: list[CommandsModel]) -> None:
        """Note a submit; for a subclass with belts."""

    def is_being_written(self, buffer: BufferModel) -> bool:
        """Whether a frame of the buffer is open, so that its bytes are nobody's business yet."""
        return False

    def after_refused_submit(self) -> None:
        """Bring about a known state of pending uploads; for a subclass with belts."""

    @step()
    def on_work_done(self) -> None:
        outcome = self.call_keeping(self.device.queue.on_work_done)
        if self.expect("on_work_done", outcome, self.lost_errors()):
            self.uploads_go_first()
            self.submitted(self.kept, self.oracle.submit([]))
            self.kept = None

    @step(which=WHICH, offset=OFFSETS, count=COUNTS, form=FORMS)
    def write_buffer(self, which: int, offset: Any, count: int, form: str) -> None:
        held = self.buffer_for(which, BufferUsage.COPY_DST)
        if held is None:
            return
        handle, model = held.handle, held.model
        data = self.fresh(count)
        value, plain = formed(data, form)
        errors = self.oracle.write_errors(model, offset, count)
        errors |= NO_ERRORS if plain else USAGE
        outcome = self.call(lambda: self.device.queue.write_buffer(handle, offset, value))
        if self.expect(f"write_buffer to {model.name}", outcome, errors):
            self.uploads_go_first(submits=False)
            self.oracle.write(model, offset, data)

    # Waiting

    @step(which=WHICH, how=st.sampled_from(["await", "await", "timeout", "look", "wait", "block"]))
    def wait_for_submission(self, which: int, how: str) -> None:
        if not self.submissions:
            return
        chosen = self.choose(self.submissions, which, lambda each: not each[1].ended)
        assert chosen is not None
        submission, model = chosen
        if how in ("await", "timeout"):
            gives_up = how == "timeout"
            self.start(
                f"await {submission}",
                submission.done,
                lambda outcome: self._waited_for(model, outcome),
                cancelled=gives_up,
                must_end=lambda: gives_up or model.ended,
            )
            return
        if how == "block":
            errors = _ended_with(model)
            outcome = self.call_blocking(submission.wait)
            self.waited(model)
            self.expect(f"wait for {submission}", outcome, errors)
            return
        if how == "look":
            outcome = self.call(lambda: submission.is_done)
            outcome.error = None if outcome.value else WaitTimeoutError
        else:
            outcome = self.call(lambda: submission.wait(0))
        if outcome.error is None and not model.ended and self.clock is None:
            self.oracle.ended([model])
        due = _ended_with(model) if model.ended else WAITED
        if model.error is not None and how == "look":
            due = NO_ERRORS
        late = WAITED if self.clock is None and not model.ended else NO_ERRORS
        self.expect(f"{how} for {submission}", outcome, due, late)

    def _waited_for(self, model: SubmissionModel, outcome: Outcome) -> None:
        if not outcome.cancelled:
            if outcome.error is None and not model.ended and self.clock is None:
                self.oracle.ended([model])
            self.expect("await a submission", outcome, _ended_with(model))

    # Reading back

    @step(which=WHICH, how=st.sampled_from(["await", "await", "await", "timeout", "fault"]))
    def read_array(self, which: int, how: str) -> None:
        held = self.buffer_for(which, BufferUsage.COPY_SRC)
        if held is None:
            return
        handle, source = held.handle, held.model
        errors = self.read_errors(source)
        what = f"read_array of {source.name}"
        gives_up = how == "timeout"
        if errors:
            self.start(
                what,
                lambda: self.device.read_array(handle),
                lambda outcome: void(self.expect(what, outcome, errors)),
                cancelled=gives_up,
                must_end=lambda: True,
            )
            self.after_refused_submit()
            return
        fails = how == "fault" and self.faults is not None
        if self.faults is not None and fails:
            self.faults.fail_next_maps()
        pending = self.read_begun(source, fails=fails)
        self.start(
            what,
            lambda: self.device.read_array(handle),
            lambda outcome: self.read_ended(what, pending, outcome),
            cancelled=gives_up,
            must_end=lambda: gives_up or pending.ended,
            may_end=lambda: True if self.clock is None else gives_up or pending.ended,
        )

    def read_errors(self, source: BufferModel) -> Errors:
        """Why a buffer cannot be read back."""
        errors = self.oracle.use_errors(source, BufferUsage.COPY_SRC)
        if source.state is not BufferState.READY:
            errors |= STATE
        return errors | (RANGE if source.size % 4 else NO_ERRORS)

    def read_begun(self, source: BufferModel, *, fails: bool) -> MapModel:
        """Change the model as a read-back does: a copy that is submitted, and a map."""
        self.uploads_go_first()
        slot = self.oracle.create("slot", source.size, READBACK)
        commands = CommandsModel(self.oracle)
        commands.record(Copy(source, 0, slot, 0, source.size), source, slot)
        self.submitted(None, self.oracle.submit([commands]))
        return self.oracle.begin_map(slot, MapMode.READ, 0, None, fails=fails)

    def read_ended(self, what: str, pending: MapModel, outcome: Outcome) -> None:
        """Compare an array that was read with the oracle."""
        slot = pending.buffer
        if not outcome.cancelled:
            if self.clock is None:
                self.oracle.ended([pending])
            errors = NO_ERRORS if pending.error is None else frozenset({pending.error})
            if self.expect(what, outcome, errors, LOSS if pending.buffer.home.lost else NO_ERRORS):
                array, outcome.value = outcome.value, None
                assert pending.mapping is not None
                self.check(not array.flags.writeable or not array.size, f"{what} is writable")
                self.compare_bytes(what, array, pending.mapping.memory)
                self.hold_view(array, pending.mapping.whole_range().open_window(array.nbytes), 0)
        slot.home.forget(slot)

    @step(which=WHICH)
    def read_array_blocking(self, which: int) -> None:
        held = self.buffer_for(which, BufferUsage.COPY_SRC)
        if held is not None:
            self.read_back(held.handle, held.model)

    def read_back(self, handle: Any, source: BufferModel) -> None:
        """Read a buffer and compare it with the oracle."""
        errors = self.read_errors(source)
        what = f"read_array_blocking of {source.name}"
        if errors:
            refused = self.call(lambda: self.device.read_array_blocking(handle))
            self.expect(what, refused, errors)
            self.after_refused_submit()
            return
        outcome = self.call_blocking(lambda: self.device.read_array_blocking(handle, copy=True))
        pending = self.read_begun(source, fails=False)
        self.waited(pending)
        if self.expect(what, outcome, NO_ERRORS):
            self.compare_bytes(what, outcome.value, source.contents)
        self.oracle.forget(pending.buffer)

    def compare_bytes(self, what: str, array: Any, there: bytes | bytearray) -> None:
        """Compare an array with what should be in it."""
        if array.tobytes() != bytes(there):
            other = np.flatnonzero(
                array.reshape(-1).view(np.uint8) != np.frombuffer(there, np.uint8)
            )
            raise AssertionError(f"{what}: other bytes than due, the first at {other[:1]}")

    def buffer_for(self, which: int, usage: BufferUsage) -> Any:
        """Return one of the buffers, mostly one with the usage."""
        return self.choose(
            self.buffers,
            which,
            lambda held: bool(held.model.usage & usage) and held.model.state is BufferState.READY,
        )

    # The end

    def finish_everything(self) -> None:
        super().finish_everything()
        if not self.oracle.lost:
            for held in self.buffers:
                if not self.read_errors(held.model):
                    self.read_back(held.handle, held.model)
                    self.settle()


def _is_open(each: tuple[Any, CommandsModel]) -> bool:
    return not each[1].finished and not each[1].open_pass


def _is_fresh(commands: tuple[Any, CommandsModel]) -> bool:
    return not commands[1].submitted and all(
        buffer.state is BufferState.READY for buffer in commands[1].used
    )


def void(_: object) -> None:
    """Ignore a result."""


def _ended_with(model: SubmissionModel) -> Errors:
    return NO_ERRORS if model.error is None else frozenset({model.error})
