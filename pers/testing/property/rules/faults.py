"""Rules for time and for what goes wrong."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from pers.testing.property.loop import Outcome
from pers.testing.property.oracle import NO_ERRORS
from pers.testing.property.rules.base import step
from pers.testing.property.rules.work import WorkRules

LATENCY = st.sampled_from([None, None, 0, 0, 10, 100])


class FaultRules(WorkRules):
    """Time that passes, devices that end, and new ones."""

    @step(nanoseconds=st.sampled_from([0, 0, 1, 10, 10, 50, 100, 1000]))
    def let_time_pass(self, nanoseconds: int) -> None:
        clock = self.clock
        if clock is None or self.oracle.clock is None:
            self.call(self.device.poll)
            return
        self.expect("advance", self.call(lambda: clock.advance(nanoseconds)), NO_ERRORS)
        self.oracle.ended(self.oracle.clock.advance(nanoseconds))

    @step(submission=LATENCY, mapping=LATENCY)
    def change_latency(self, submission: int | None, mapping: int | None) -> None:
        if self.clock is not None and self.oracle.clock is not None:
            self.clock.submission_latency = self.oracle.clock.submission_latency = submission
            self.change_map_latency(mapping)

    def change_map_latency(self, nanoseconds: int | None) -> None:
        """Let maps take so long."""
        if self.clock is not None and self.oracle.clock is not None:
            self.clock.map_latency = self.oracle.clock.map_latency = nanoseconds

    @step(how=st.sampled_from([""] * 40 + ["close", "lose", "later"]))
    def lose_device(self, how: str) -> None:
        faults = self.faults
        if how == "close" or (how == "lose" and faults is None):
            outcome = self.call(self.device.close)
            self.oracle.lose()
            self.expect("close", outcome, NO_ERRORS)
        elif how == "lose" and faults is not None:
            outcome = self.call(faults.lose_device)
            self.oracle.lose()
            self.expect("lose_device", outcome, NO_ERRORS)
        elif how == "later" and faults is not None and not self.oracle.lost:
            faults.lose_after_submits(1)
            self.oracle.loss_is_armed = True

    @step(gives_up=st.booleans())
    def wait_for_loss(self, gives_up: bool) -> None:
        oracle = self.oracle

        async def wait() -> Any:
            return await self.device.lost

        def ended(outcome: Outcome) -> None:
            if not outcome.cancelled:
                self.expect("await lost", outcome, NO_ERRORS)
                self.check(oracle.lost, f"the device is not lost, but {outcome}")

        self.start(
            "await lost",
            wait,
            ended,
            cancelled=gives_up,
            must_end=lambda: gives_up or oracle.lost,
        )
