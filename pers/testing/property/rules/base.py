"""What all rules stand on: one device, its oracle, and the comparison of the two."""

from __future__ import annotations

import functools
import gc
import random
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, TypeVar, cast

import attrs
import numpy as np
import numpy.typing as npt
from hypothesis import note, reject
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from hypothesis.strategies import SearchStrategy

from pers.backends.null import NullClock, NullDevice, NullFaults
from pers.buffers import BufferState, IBuffer, IMappableBuffer, MappedRange
from pers.buffers.view import BufferView
from pers.errors import MapAbortedError
from pers.graphics import ICommandBuffer, ICommandEncoder, IRenderDevice, Submission
from pers.testing.property.loop import EventLoop, Outcome, Task, attempt
from pers.testing.property.oracle import (
    LOST,
    NO_ERRORS,
    ROW_PITCH,
    STATE,
    TEXTURE_ROW,
    BufferModel,
    CommandsModel,
    Errors,
    Oracle,
    Promise,
    RangeModel,
    SubmissionModel,
    Window,
)

Item = TypeVar("Item")

MOST = 6
"""How many objects of a kind are held at once; a further one takes the place of the oldest."""

LONG = 10**6
"""Nanoseconds in which everything ends, whatever the latencies."""

LOSS: Errors = LOST | STATE | frozenset({MapAbortedError})
"""What a call may raise when the device is lost while it runs."""

_RANDOM_BYTES = random.Random(20250101).randbytes(1 << 20)


Method = TypeVar("Method", bound=Callable[..., None])


def step(**arguments: SearchStrategy[Any]) -> Callable[[Method], Method]:
    """Make a method a rule that is counted by its name."""

    def decorate(method: Method) -> Method:
        @functools.wraps(method)
        def counted(self: MachineBase, **given: Any) -> None:
            self.rule = method.__name__
            self.counts[self.rule, "taken"] += 1
            self.leave_the_lost_behind()
            method(self, **given)

        return cast("Method", cast("Any", rule)(**arguments)(counted))

    return decorate


@attrs.define(eq=False)
class Held:
    """A buffer that the test holds, until it is `gone`."""

    _handle: IBuffer | None
    model: BufferModel
    core: weakref.ref[Any]
    """The buffer itself, where the handle only stands on it."""

    @property
    def handle(self) -> IBuffer:
        """The buffer."""
        assert self._handle is not None
        return self._handle

    @property
    def gone(self) -> bool:
        """Whether the test let go of it."""
        return self._handle is None

    def drop(self) -> None:
        """Let go of the buffer; it lives on where commands or tasks use it."""
        self._handle = None
        if self.core() is None:
            self.model.home.forget(self.model)


@attrs.define(eq=False)
class View:
    """An array on mapped memory."""

    array: npt.NDArray[Any]
    window: Window
    start: int
    """Where it starts in the memory of the mapping."""
    rows: int = 0
    """How many padded rows of pixels it looks at; 0 for plain bytes."""

    @property
    def expected(self) -> bytes:
        """The bytes that it should have."""
        memory = self.window.mapping.memory
        if self.rows:
            return unpadded(memory, self.rows)
        return bytes(memory[self.start : self.start + self.array.nbytes])

    def drop(self) -> None:
        """Let go of the array."""
        self.array = np.empty(0, np.uint8)
        self.window.drop_array()


@attrs.define(eq=False)
class Job:
    """What a task is expected to do."""

    task: Task
    on_end: Callable[[Outcome], None]
    """Compares how it ended, and changes the model."""
    must_end: Callable[[], bool]
    """Whether, by the rules, it has ended by now."""
    may_end: Callable[[], bool]
    """Whether it may have."""


class MachineBase(RuleBasedStateMachine):
    """A device beside its oracle. Rules make calls on both and compare."""

    event_loop: ClassVar[str]
    counts: ClassVar[Counter[tuple[str, str]]]
    """How often each rule was taken, and how its calls ended."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = EventLoop(self.event_loop)
        self.jobs: dict[Task, Job] = {}
        self.buffers: list[Held] = []
        self.ranges: list[tuple[MappedRange, RangeModel]] = []
        self.views: list[View] = []
        self.encoders: list[tuple[ICommandEncoder, CommandsModel]] = []
        self.commands: list[tuple[ICommandBuffer, CommandsModel]] = []
        self.submissions: list[tuple[Submission, SubmissionModel]] = []
        self._everything: list[weakref.ref[Any]] = []
        self.rule = ""
        """Which one was taken last."""
        self._named = 0
        self._written = 0
        self._device: IRenderDevice | None = None
        self.open()

    # The device

    @property
    def device(self) -> IRenderDevice:
        """The device under test."""
        assert self._device is not None
        return self._device

    def open(self) -> None:
        """Open a device, or take the one that the last example left as good as new."""
        self._device = self._take_device()
        self.clock: NullClock | None = None
        self.faults: NullFaults | None = None
        if isinstance(self.device, NullDevice) and not self.device.clock.auto:
            self.clock, self.faults = self.device.clock, self.device.faults
        self.oracle = Oracle(self.device.buffer_factory.limits, virtual=self.clock is not None)

    def leave_the_lost_behind(self) -> None:
        """Open another device some steps after the loss of the last one."""
        self._steps_lost = self._steps_lost + 1 if self.oracle.lost else 0
        if self._steps_lost > MOST:
            self._steps_lost = 0
            self.call(self.device.close)
            self.open()

    _steps_lost = 0
    _kept: ClassVar[IRenderDevice | None] = None

    @classmethod
    def open_device(cls) -> IRenderDevice:
        """Open a device to test."""
        raise NotImplementedError

    @classmethod
    def _take_device(cls) -> IRenderDevice:
        kept, cls._kept = cls._kept, None
        return cls.open_device() if kept is None or kept.is_lost else kept

    @classmethod
    def steps(cls) -> int:
        """How many steps were taken so far."""
        return sum(number for (_, what), number in cls.counts.items() if what == "taken")

    @classmethod
    def close_device(cls) -> None:
        """Close the device that is kept for the next example."""
        kept, cls._kept = cls._kept, None
        if kept is not None:
            kept.close()

    # Making calls

    def call(self, function: Callable[[], Any]) -> Outcome:
        """Make a call; let happen what is due after it, and let tasks run until they sleep."""
        if self.loop.tasks:
            return self.loop.run(lambda: attempt(function), poll=self.device.poll)
        outcome = attempt(function)
        self.device.poll()
        return outcome

    def call_blocking(self, function: Callable[[], Any]) -> Outcome:
        """Make a call that may wait for the GPU; on virtual time, everything ends meanwhile.

        Change the model as the call does, and call `waited` then.
        """
        clock = self.clock
        if clock is None:
            return self.call(function)
        if any(each.loses_device for each in self.oracle.submissions):
            reject()  # whether the call is over before the loss is not for the oracle to say

        def burst() -> Any:
            clock.auto = True
            try:
                return function()
            finally:
                clock.auto = False
                clock.advance(LONG)

        return self.call(burst)

    def waited(self, *ended: Promise) -> None:
        """Note that a blocking call has seen the end of `ended`, and of all that was due."""
        if self.oracle.clock is not None:
            assert self.clock is not None
            self.oracle.ended(self.oracle.clock.finish(self.clock.now))
        else:
            self.oracle.ended(list(ended))

    def expect(
        self, what: str, outcome: Outcome, errors: Errors, allowed: Errors = NO_ERRORS
    ) -> bool:
        """Compare how a call ended with what the rules say; return whether it succeeded.

        Args:
            what: The call, for messages.
            outcome: How it ended.
            errors: What there is a reason for; empty when it must succeed.
            allowed: What it may raise besides.
        """
        note(f"    {what}: {outcome}")
        if outcome.crash is not None:
            raise outcome.crash
        how = "succeeded" if outcome.error is None else outcome.error.__name__
        self.counts[self.rule, how] += 1
        if outcome.error is None:
            if errors:
                raise AssertionError(f"{what}: {outcome}; due was {_names(errors)}")
            return True
        if outcome.error in errors | allowed:
            return False
        if outcome.error in LOSS and self.device.is_lost and self.may_lose():
            return False
        due = _names(errors) if errors else "success"
        raise AssertionError(f"{what}: {outcome}; due was {due}")

    def check(self, holds: bool, *otherwise: object) -> None:
        """Raise unless something holds; the message is put together only then."""
        if not holds:
            raise AssertionError(" ".join(map(str, otherwise)))

    def lost_errors(self) -> Errors:
        """What a call without any other reason to fail raises."""
        return LOST if self.oracle.lost else NO_ERRORS

    def may_lose(self) -> bool:
        """Whether the device may be lost by now, though the oracle does not know yet."""
        oracle = self.oracle
        return (
            oracle.lost
            or oracle.loss_is_armed
            or any(each.loses_device for each in oracle.submissions)
        )

    # Tasks

    def start(
        self,
        name: str,
        call: Callable[[], Coroutine[Any, Any, Any]],
        on_end: Callable[[Outcome], None],
        *,
        cancelled: bool,
        must_end: Callable[[], bool],
        may_end: Callable[[], bool] | None = None,
    ) -> None:
        """Start a task. The model is changed before; what is due then is found by `settle`."""
        task = Task(name, call, cancelled=cancelled)
        self.jobs[task] = Job(task, on_end, must_end, may_end or must_end)
        self.loop.start(task)
        self.loop.run(lambda: None, poll=self.device.poll)

    def cancel(self, job: Job) -> None:
        """Cancel a task and see that it ends."""
        job.must_end = job.may_end = lambda: True
        self.loop.run(job.task.cancel, poll=self.device.poll)
        self.settle()

    # Comparing

    def settle(self) -> None:
        """Bring the model to now, and compare the tasks that have ended."""
        while True:
            if self.oracle.clock is not None:
                self.oracle.ended(self.oracle.clock.due())
            else:
                self._observe()
            if self.device.is_lost and not self.oracle.lost and self.may_lose():
                self.oracle.lose()
            ended = self.loop.take_ended() or self._overdue()
            if not ended:
                return
            for task in ended:
                self._compare(self.jobs.pop(task))

    def _overdue(self) -> list[Task]:
        """Wait for tasks that should have ended; where time is virtual, none is late."""
        for task in self.loop.tasks:
            if self.jobs[task].must_end():
                virtual = self.clock is not None
                in_time = not virtual and self.loop.wait_for(task, self.device.poll)
                self.check(in_time, f"{task.name} goes on, though what it waits for has ended")
                return self.loop.take_ended()
        return []

    def _compare(self, job: Job) -> None:
        outcome, job.task.outcome = job.task.outcome, None
        assert outcome is not None
        early = self.clock is not None and not job.may_end() and not self.may_lose()
        self.check(not early, f"{job.task.name} ended too early: {outcome}")
        if outcome.crash is not None:
            raise outcome.crash
        job.on_end(outcome)

    def _observe(self) -> None:
        """See what has ended where time is real."""
        latest = 0
        for submission, model in reversed(self.submissions):
            if not model.ended and submission.is_done:
                self.oracle.ended([model])
                latest = max(latest, model.issued)
            if not model.ended:
                self.check(not latest, f"{submission} is not done, but one after it is")
        for held in self.buffers:
            pending = held.model.pending
            if pending is None or held.model.home is not self.oracle:
                continue
            state = held.handle.state
            if state is BufferState.MAPPED:
                used = held.model.last_use
                self.oracle.ended([pending])
                if used is not None and not used.ended:
                    self._check_used_before(used, held)
            elif pending.issued < latest:
                self.check(
                    state is not BufferState.MAP_PENDING,
                    f"{held.handle} was asked to map before work that has ended, and has not",
                )

    def _check_used_before(self, used: SubmissionModel, held: Held) -> None:
        for submission, model in self.submissions:
            if model is used:
                self.check(
                    submission.is_done, f"{held.handle} is mapped while {submission} uses it"
                )

    @invariant()
    def all_is_as_the_rules_say(self) -> None:
        """Compare everything that can be seen without a call that changes something."""
        self.settle()
        self.check(self.device.is_lost == self.oracle.lost, "the device and its loss differ")
        for held in self.buffers:
            self.compare_handle(held.handle, held.model)
        self.compare_more()
        for view in self.views:
            same = view.array.tobytes() == view.expected
            self.check(same, "a view has other bytes:", view.window)

    def compare_more(self) -> None:
        """Compare what subclasses hold."""

    def compare_handle(self, handle: IBuffer, model: BufferModel) -> None:
        """Compare the state of a buffer."""
        state = handle.state
        if state is not model.state and model.pending is not None and self.clock is None:
            self.settle()  # it was mapped since the last look
        self.check(state is model.state, handle, "is", state, "but should be", model.state)
        self.check(handle.is_valid is (state is not BufferState.DESTROYED), "is_valid of", handle)
        if isinstance(handle, IMappableBuffer):
            self.check(handle.is_mapped is (state is BufferState.MAPPED), "is_mapped of", handle)
            pending = state is BufferState.MAP_PENDING
            self.check(handle.is_map_pending is pending, "is_map_pending of", handle)

    # Objects

    def name(self, kind: str) -> str:
        """Return a new name."""
        self._named += 1
        return f"{kind} {self._named}"

    def fresh(self, nbytes: int) -> bytes:
        """Return bytes unlike all that were written before."""
        start = (self._written * 7919) % (len(_RANDOM_BYTES) - nbytes)
        self._written += 1
        return _RANDOM_BYTES[start : start + nbytes]

    def choose(
        self, items: list[Item], which: int, fits: Callable[[Item], bool] = lambda item: True
    ) -> Item | None:
        """Return one of the objects, mostly one that fits."""
        fitting = [item for item in items if fits(item)] if which < 10 else items
        some = fitting or items
        return some[which % len(some)] if some else None

    def hold(self, items: list[Item], item: Item, most: int = MOST) -> Item | None:
        """Add an object; return the one that has to go for it."""
        items.append(item)
        return items.pop(0) if len(items) > most else None

    def hold_buffer(self, handle: IBuffer, model: BufferModel) -> Held:
        """Hold a buffer."""
        under: IBuffer = cast("BufferView[Any]", handle).inner if _is_view(handle) else handle
        core = weakref.ref(under)
        self._everything.append(core)
        held = Held(handle, model, core)
        oldest = self.hold(self.buffers, held)
        if oldest is not None:
            self.let_go(oldest)
        return held

    def let_go(self, held: Held) -> None:
        """Hold a buffer no longer. Its ranges are dead, or will be at some time."""
        mapping = held.model.mapping
        held.drop()
        if held.core() is not None:
            self.ranges = [each for each in self.ranges if each[1].mapping is not mapping]

    def hold_range(self, mapped: MappedRange, model: RangeModel) -> None:
        """Hold a range."""
        self.hold(self.ranges, (mapped, model), 2 * MOST)

    def hold_view(self, array: npt.NDArray[Any], window: Window, start: int, rows: int = 0) -> None:
        """Hold an array, if there is memory in it."""
        if window.nbytes:
            window.arrays += 1
            oldest = self.hold(self.views, View(array, window, start, rows), MOST)
            if oldest is not None:
                oldest.drop()

    def submitted(self, submission: Submission | None, model: SubmissionModel) -> None:
        """Hold a submission; those inside of pers have none to hold."""
        if submission is None:
            if self.clock is None:
                self.oracle.submissions.remove(model)
            return
        oldest = self.hold(self.submissions, (submission, model))
        if oldest is not None and self.clock is None and oldest[1] in self.oracle.submissions:
            self.oracle.submissions.remove(oldest[1])

    # The end

    def teardown(self) -> None:
        """Let everything end, and see that what was held goes when it is dropped."""
        try:
            if sys.exc_info()[0] is None:  # no step has failed
                self._end()
        finally:
            self.loop.close()

    def _end(self) -> None:
        self.finish_everything()
        for job in list(self.jobs.values()):
            self.cancel(job)
        self.all_is_as_the_rules_say()
        self.drop_everything()
        if self.device.is_lost or self.clock is not None:
            self.device.close()
        else:
            type(self)._kept = self.device
        self._device = self.clock = self.faults = None
        if any(ref() is not None for ref in self._everything):
            gc.collect()
            left = [ref() for ref in self._everything if ref() is not None]
            self.check(not left, f"dropped, but still there: {left}")

    def finish_everything(self) -> None:
        """Let time pass until nothing is under way that ends by itself."""
        clock = self.clock
        if clock is not None:
            for _ in range(3):
                self.call(lambda: clock.advance(LONG))
                self.waited()
                self.settle()
        elif not self.oracle.lost:
            submission = self.device.queue.on_work_done()
            submission.wait()
            self.settle()

    def drop_everything(self) -> None:
        """Drop all objects; subclasses drop theirs first."""
        for view in self.views:
            view.drop()
        for held in self.buffers:
            held.drop()
        for items in (
            self.views,
            self.buffers,
            self.ranges,
            self.encoders,
            self.commands,
            self.submissions,
        ):
            items.clear()


def _is_view(handle: IBuffer) -> bool:
    return isinstance(handle, BufferView)


def unpadded(memory: bytes | bytearray, rows: int) -> bytes:
    """Return rows of pixels without what is between them."""
    starts = range(0, rows * ROW_PITCH, ROW_PITCH)
    return b"".join(memory[start : start + TEXTURE_ROW] for start in starts)


def _names(errors: Errors) -> str:
    return " or ".join(sorted(error.__name__ for error in errors)) or "success"
