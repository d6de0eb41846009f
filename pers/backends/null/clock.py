"""The clock that says when a null device finishes what it was given."""

from __future__ import annotations

from typing import Any

import attrs

from pers._checks import whole_number
from pers.backends.null.timeline import Moment, Timeline
from pers.errors import ValidationError

__all__ = ["NullClock"]


def _nanoseconds(value: Any) -> int:
    return whole_number(value, "a time (nanoseconds)", maximum=2**62, error=ValidationError)


def _latency(value: Any) -> int | None:
    return None if value is None else _nanoseconds(value)


@attrs.define(eq=False, kw_only=True)
class NullClock:
    """Virtual time (nanoseconds, from 0) for one or more `NullDevice`.

    Automatic, the clock moves forward by itself to the end of whatever is waited for, so that
    nothing ever takes real time. Manual (``auto=False``), it stands still until `advance`: work
    stays in flight for as long as a test wants, and blocking waits wait for another thread (or a
    task) to advance.

    Submissions end in order, each `submission_latency` after it was made. A map ends
    `map_latency` after the work that was submitted before it and uses its buffer. What ends at the
    same time ends in the order of the calls.

    Thread-safe.

    Attributes:
        auto: Whether waiting moves the clock.
        submission_latency: Nanoseconds that the GPU takes for a submission. None means 0, and on
            a manual clock: until the next `advance`, however short.
        map_latency: Nanoseconds that a map takes when the GPU is done with the buffer; None as
            above. With 0, buffers that the GPU does not use are mapped at once on a manual clock
            too (which code that maps and blocks in one thread needs).
        timeline: What is to come; for devices.

    Raises:
        ValidationError: A latency is no whole number or negative.
    """

    auto: bool = True
    submission_latency: int | None = attrs.field(default=None, converter=_latency)
    map_latency: int | None = attrs.field(default=None, converter=_latency)
    timeline: Timeline = attrs.field(init=False, factory=Timeline, repr=False)

    @property
    def now(self) -> int:
        """The current time (nanoseconds)."""
        return self.timeline.now

    def advance(self, nanoseconds: int) -> None:
        """Move the clock forward, from any thread.

        Everything that is due by then has happened, in order, and who waits was told, when this
        returns. Work given to the device meanwhile (by a callback, say) counts when it is due.

        Args:
            nanoseconds: How far; 0 ends what has no latency.

        Raises:
            ValidationError: No whole number, or negative: time does not run backwards.
        """
        self.timeline.advance(_nanoseconds(nanoseconds))

    # What follows is for devices.

    def submission_end(self, previous: Moment) -> Moment:
        """Return when work submitted now ends, given when the work before it does."""
        held = self.submission_latency is None and not self.auto
        return max((self.now + (self.submission_latency or 0), held), previous)

    def map_end(self, in_use_until: Moment) -> Moment:
        """Return when a map asked for now ends, given when the GPU is done with the buffer."""
        free, held = max((self.now, False), in_use_until)
        held = (held and not self.map_latency) or (self.map_latency is None and not self.auto)
        return free + (self.map_latency or 0), held
