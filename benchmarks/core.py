"""What a benchmark is made of, and how contenders take turns."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Literal

import attrs
import numpy as np

if TYPE_CHECKING:
    from benchmarks.lab import Lab

__all__ = [
    "LIBRARIES",
    "Benchmark",
    "Contender",
    "Missing",
    "Point",
    "Run",
    "Scale",
    "Series",
    "Status",
    "Summary",
    "WrongContentError",
    "ratio",
    "run_point",
    "summarize",
]

PERS, WGPU, MODERNGL, SLANGPY, LIMIT = "pers", "wgpu-py", "moderngl", "slangpy", "limit"
LIBRARIES = (PERS, WGPU, MODERNGL, SLANGPY)

Status = Literal["measured", "wrong", "failed", "not available"]


class WrongContentError(AssertionError):
    """A contender left other bytes than it was given."""


@attrs.frozen
class Scale:
    """How much is measured.

    Attributes:
        quick: A few small points, a few rounds: for tests.
        least: Rounds of a point at least.
        most: Rounds at most.
        seconds: What a point may take, checks included, once it has had its least rounds.
        minutes: How long the memory is watched.
    """

    quick: bool = False
    least: int = 7
    most: int = 200
    seconds: float = 5.0
    minutes: float = 0.5

    @classmethod
    def for_tests(cls) -> Scale:
        """Return the scale of ``--quick``."""
        return cls(quick=True, least=2, most=3, seconds=0.2, minutes=0.02)


@attrs.frozen
class Point:
    """Where a benchmark measures.

    Attributes:
        label: What a reader sees: "64 KiB", say.
        x: The place on the x axis, or None where points have no order.
    """

    label: str
    x: float | None = None


def _nothing() -> None:
    pass


@attrs.define
class Contender:
    """One way to do the work of a point.

    Attributes:
        library: Whose way it is.
        road: Which of its ways.
        run: Does the work; the runner times it, unless it returns what it measured itself.
        check: Raises `WrongContentError` when the work of the last run was not done right.
        prepare: What comes before each run, outside the timed part.
        release: What comes after each check.
        per: How many operations one run does; results are per operation.
        extra: Other numbers, which end up beside the results.
    """

    library: str
    road: str
    run: Callable[[], Any]
    check: Callable[[], None]
    prepare: Callable[[], None] = _nothing
    release: Callable[[], None] = _nothing
    per: int = 1
    extra: dict[str, float] = attrs.field(factory=dict[str, float])


@attrs.frozen
class Missing:
    """A library, or one of its roads, that cannot take part, and why."""

    library: str
    reason: str
    road: str = ""


Entrant = Contender | Missing


@attrs.frozen
class Benchmark:
    """One thing that is measured.

    Attributes:
        name: What the command line calls it.
        title: What is measured, in words.
        unit: Of the results: "s", "blocks" or "bytes"; less is better in all of them.
        axis: What x counts: "bytes", "objects", ... or "" where points have no order.
        points: Where to measure.
        open: Makes the contenders of a point and takes them away again.
        measure: How they are run; `run_point` unless the benchmark is of a kind of its own.
    """

    name: str
    title: str
    axis: str
    points: Callable[[Lab, Scale], Sequence[Point]]
    open: Callable[[Lab, Point, Scale], AbstractContextManager[Sequence[Entrant]]]
    unit: str = "s"
    measure: Callable[[str, Point, Sequence[Entrant], Scale], list[Series]] | None = None


@attrs.frozen
class Summary:
    """The distribution of a series' samples."""

    count: int
    median: float
    p10: float
    p25: float
    p75: float
    p90: float
    least: float
    most: float


@attrs.define
class Series:
    """What one contender did at one point.

    Attributes:
        benchmark: Name of the benchmark.
        point: Where.
        library: Whose road.
        road: Which road.
        status: How it ended.
        samples: One number for each round, per operation.
        problem: What was wrong, or why it is not available.
        extra: Other numbers that the contender left.
        stored: The distribution, where it comes from a file, which has no samples.
    """

    benchmark: str
    point: Point
    library: str
    road: str
    status: Status = "measured"
    samples: list[float] = attrs.field(factory=list[float])
    problem: str = ""
    extra: dict[str, float] = attrs.field(factory=dict[str, float])
    stored: Summary | None = None

    @property
    def name(self) -> str:
        """Library and road."""
        return f"{self.library}: {self.road}" if self.road else self.library

    @property
    def summary(self) -> Summary | None:
        """The distribution, or None when nothing may be said: wrong content wins nothing."""
        if self.status != "measured":
            return None
        return summarize(self.samples) if self.samples else self.stored


def summarize(samples: Sequence[float]) -> Summary:
    """Return the distribution of samples."""
    values = np.asarray(samples, float)
    p10, p25, p50, p75, p90 = (float(p) for p in np.percentile(values, (10, 25, 50, 75, 90)))
    return Summary(len(values), p50, p10, p25, p75, p90, float(values.min()), float(values.max()))


def ratio(above: Series, below: Series) -> Summary | None:
    """Return ``above / below`` round by round: what disturbed both in a round cancels out."""
    if above.summary is None or below.summary is None:
        return None
    pairs = zip(above.samples, below.samples, strict=False)
    return summarize([a / b for a, b in pairs if b])


def run_point(
    benchmark: str, point: Point, entrants: Sequence[Entrant], scale: Scale
) -> list[Series]:
    """Have all contenders take turns: A B C, A B C, ... and check each after each run.

    The first round warms up and is not counted; nor is a first turn after another library's. Who
    is wrong or fails once is out, with all that was measured.
    """
    series = [_start(benchmark, point, entrant) for entrant in entrants]
    playing = [
        Run(entrant, one)
        for entrant, one in zip(entrants, series, strict=True)
        if isinstance(entrant, Contender)
    ]
    for each in playing:
        each.take_turn(counted=False)
    end = time.monotonic() + scale.seconds
    for number in range(scale.most):
        if number >= scale.least and time.monotonic() >= end:
            break
        for place, each in enumerate(playing):
            if playing[place - 1].contender.library != each.contender.library:
                # Whoever comes first after another library would pay for the GPU's change from
                # one to the other, a third of a millisecond.
                each.take_turn(counted=False)
            each.take_turn()
    return series


def _start(benchmark: str, point: Point, entrant: Entrant) -> Series:
    if isinstance(entrant, Contender):
        return Series(benchmark, point, entrant.library, entrant.road)
    return Series(
        benchmark, point, entrant.library, entrant.road, "not available", problem=entrant.reason
    )


@attrs.define
class Run:
    """A contender at work."""

    contender: Contender
    series: Series

    def take_turn(self, *, counted: bool = True) -> None:
        """Prepare, run, check and release once; nothing after a failure."""
        if self.series.status != "measured":
            return
        contender = self.contender
        try:
            contender.prepare()
            with _no_collection():
                start = time.perf_counter()
                measured = contender.run()
                seconds = time.perf_counter() - start
            contender.check()
            contender.release()
        except WrongContentError as error:
            self._drop("wrong", error)
        except Exception as error:
            self._drop("failed", error)
        else:
            taken = measured if isinstance(measured, float) else seconds
            if counted:
                self.series.samples.append(taken / contender.per)
                self.series.extra.update(contender.extra)

    def _drop(self, status: Status, error: Exception) -> None:
        self.series.status = status
        self.series.samples.clear()
        self.series.problem = " ".join(f"{type(error).__name__}: {error}".split())


@contextmanager
def _no_collection() -> Generator[None]:
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
