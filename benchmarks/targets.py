"""What pers must reach, each as a ratio taken in one run, and whether it did."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import attrs

from benchmarks.core import LIMIT, MODERNGL, PERS, SLANGPY, WGPU, Series, Summary, ratio, summarize

__all__ = ["Target", "judge"]

Verdict = Literal["pass", "fail", "not measured", "no target"]


@attrs.frozen
class Target:
    """One thing that pers must reach.

    Attributes:
        benchmark: Where it is measured.
        what: In words.
        wanted: The number to reach; None where there is only a moonshot.
        at_least: Whether more is better; else `wanted` is the most there may be.
        moonshot: The number to dream of, or None.
        unit: "x" for a ratio.
        measured: What was measured, with its spread, or None.
        verdict: Whether the median reaches it.
        detail: Who was held against whom, or why nothing was measured.
    """

    benchmark: str
    what: str
    wanted: float | None
    at_least: bool
    moonshot: float | None
    unit: str
    measured: Summary | None
    verdict: Verdict
    detail: str

    @property
    def reaches_moonshot(self) -> bool:
        """Whether even the moonshot is reached."""
        if self.measured is None or self.moonshot is None:
            return False
        return _reaches(self.measured.median, self.moonshot, at_least=self.at_least)


Choice = Callable[[Series], bool]


def judge(series: Sequence[Series], *, software: bool) -> list[Target]:
    """Hold results against the targets.

    Args:
        series: What was measured.
        software: Whether the GPU shares the CPU's memory: other numbers are to be reached then.
    """
    found = Found(series)
    return [
        *_upload(found, software=software),
        *_readback(found, software=software),
        *_draws(found, software=software),
        *_calls(found),
        *_maps(found),
        *_flatness(found),
    ]


class Found:
    """The results, to be searched."""

    def __init__(self, series: Sequence[Series]) -> None:
        self._series = series

    def all(self, benchmark: str, point: str, choice: Choice) -> list[Series]:
        """Return what was measured at a point, the least first."""
        measured = [
            (each.summary.median, number, each)
            for number, each in enumerate(self._series)
            if each.benchmark == benchmark
            and each.point.label == point
            and each.summary is not None
            and choice(each)
        ]
        return [each for _, _, each in sorted(measured)]

    def best(self, benchmark: str, point: str, choice: Choice) -> Series | None:
        """Return what took least."""
        return next(iter(self.all(benchmark, point, choice)), None)

    def points(self, benchmark: str) -> list[str]:
        """Return the points that a benchmark was measured at."""
        labels = [each.point.label for each in self._series if each.benchmark == benchmark]
        return list(dict.fromkeys(labels))

    def why_not(self, benchmark: str, point: str, choice: Choice) -> str:
        """Say why there is no result."""
        for each in self._series:
            if each.benchmark == benchmark and choice(each) and each.point.label == point:
                return f"{each.name}: {each.status}" + (f", {each.problem}" * bool(each.problem))
        return f"{benchmark} at {point} was not run"


def by(library: str, *roads: str) -> Choice:
    """Choose a library's roads; none means all."""
    return lambda each: each.library == library and (not roads or each.road in roads)


def faster(
    found: Found,
    what: str,
    benchmark: str,
    point: str,
    ours: Choice,
    theirs: Choice,
    wanted: float | None,
    moonshot: float | None = None,
) -> Target:
    """How many times faster `ours` is than `theirs`: at least `wanted` times."""
    return _compare(found, what, benchmark, point, theirs, ours, wanted, moonshot, at_least=True)


def cheaper(
    found: Found,
    what: str,
    benchmark: str,
    point: str,
    ours: Choice,
    theirs: Choice,
    wanted: float | None,
    moonshot: float | None = None,
) -> Target:
    """How many times the cost of `theirs` `ours` has: at most `wanted` times."""
    return _compare(found, what, benchmark, point, ours, theirs, wanted, moonshot, at_least=False)


def _compare(
    found: Found,
    what: str,
    benchmark: str,
    point: str,
    above: Choice,
    below: Choice,
    wanted: float | None,
    moonshot: float | None,
    *,
    at_least: bool,
) -> Target:
    first, second = (found.best(benchmark, point, choice) for choice in (above, below))
    measured = None if first is None or second is None else ratio(first, second)
    if first is None or second is None or measured is None:
        missing = above if first is None else below
        detail = found.why_not(benchmark, point, missing)
        return Target(
            benchmark, what, wanted, at_least, moonshot, "x", None, "not measured", detail
        )
    who = f"{first.name} / {second.name}"
    return _judged(benchmark, what, wanted, at_least, moonshot, "x", measured, who)


def _judged(
    benchmark: str,
    what: str,
    wanted: float | None,
    at_least: bool,
    moonshot: float | None,
    unit: str,
    measured: Summary,
    detail: str,
) -> Target:
    verdict: Verdict = "no target"
    if wanted is not None:
        reached = _reaches(measured.median, wanted, at_least=at_least)
        verdict = "pass" if reached else "fail"
    return Target(benchmark, what, wanted, at_least, moonshot, unit, measured, verdict, detail)


def _reaches(value: float, wanted: float, *, at_least: bool) -> bool:
    return value >= wanted if at_least else value <= wanted


LARGE = ("64 MiB", "256 MiB")
SMALL = ("4 KiB", "1 MiB")
MANY = "10,000"
MOST = "100,000"
FRAME_SECONDS = 1 / 60


def _upload(found: Found, *, software: bool) -> Iterator[Target]:
    belt = by(PERS, "belt.upload")
    for size in LARGE:
        what = f"upload of {size}: belt.upload against queue.write_buffer"
        raw = by(WGPU, "queue.write_buffer")
        yield faster(found, what, "upload", size, belt, raw, 6.0 if software else 5.0)
    for size in LARGE:
        # The moonshot alone; it is the best that anything at all reached at this size.
        what = f"upload of {size}: belt.upload against the best of all other roads"
        limit: Choice = lambda each: each.library != PERS  # noqa: E731
        yield faster(found, what, "upload", size, belt, limit, None, 0.9)
    for size in SMALL:
        what = f"upload of {size}: belt.upload against wgpu-py's best road"
        yield faster(found, what, "upload", size, belt, by(WGPU), 0.95, 1.0)
    what = "upload of 4 KiB, many together: belt.upload against wgpu-py's best road"
    yield faster(found, what, "upload-packs", "4 KiB", belt, by(WGPU), 0.95, 1.0)


def _readback(found: Found, *, software: bool) -> Iterator[Target]:
    zero_copy = by(PERS, "read_array")
    for size in LARGE:
        what = f"readback of {size}: read_array against queue.read_buffer"
        raw = by(WGPU, "queue.read_buffer")
        yield faster(found, what, "readback", size, zero_copy, raw, 8.0 if software else 12.0)
    for size in LARGE:
        what = f"readback of {size}: read_array against the GPU's copy alone"
        yield faster(found, what, "readback", size, zero_copy, by(LIMIT), None, 0.9)
    for library in (MODERNGL, SLANGPY):
        for size in LARGE:
            what = f"readback of {size}: read_array against {library}"
            yield faster(found, what, "readback", size, zero_copy, by(library), 1.0, 5.0)


RAW_LOOP = "set_bind_group + draw"


def _draws(found: Found, *, software: bool) -> Iterator[Target]:
    loop, raw_loop = by(PERS, RAW_LOOP), by(WGPU, RAW_LOOP)
    what = f"cost of each of {MANY} draws through IRenderPass against wgpu-py"
    yield cheaper(found, what, "recording", MANY, loop, raw_loop, 1.0, 0.5)
    what = f"{MANY} moving objects in a frame: best mode against wgpu-py's loop"
    yield faster(found, what, "draws", MANY, by(PERS), raw_loop, 4.0 if software else 20.0)
    if not software:
        yield _frame_time(found)


def _frame_time(found: Found) -> Target:
    what = f"{MOST} moving objects in a frame, for 60 frames/s"
    best = found.best("draws", MOST, by(PERS))
    if best is None or best.summary is None:
        why = found.why_not("draws", MOST, by(PERS))
        return Target("draws", what, None, False, FRAME_SECONDS, "s", None, "not measured", why)
    # Samples are per object.
    times = summarize([sample * 100_000 for sample in best.samples])
    return _judged("draws", what, None, False, FRAME_SECONDS, "s", times, best.name)


def _calls(found: Found) -> Iterator[Target]:
    for call in found.points("calls") or ["any call"]:
        what = f"{call}: the call of pers against wgpu-py's"
        yield cheaper(found, what, "calls", call, by(PERS), by(WGPU), 1.10, 1.0)


def _maps(found: Found) -> Iterator[Target]:
    for loop in ("asyncio", "trio"):
        road = f"await map_async on {loop}"
        what = f"await map_async of 1 KiB on {loop} against wgpu-py's"
        yield cheaper(found, what, "map-latency", "1 KiB", by(PERS, road), by(WGPU, road), 1.0)
        what = f"await map_async of 1 KiB on {loop} against the blocking call"
        blocking = by(PERS, "map")
        yield cheaper(found, what, "map-latency", "1 KiB", by(PERS, road), blocking, None, 1.0)


def _flatness(found: Found) -> Iterator[Target]:
    yield _extra(found, "memory", "drift", "memory over the run, after warm-up", 2.0**20, "bytes")
    what = "memory blocks for each frame of the run, after warm-up"
    yield _extra(found, "memory", "blocks_per_frame", what, None, "blocks", 0.0)
    what = "stalls of a DynamicBuffer with 3 frames in flight"
    yield _extra(found, "frame-blocks", "stalls", what, 0.0, "stalls", 0.0)
    what = "memory blocks that a frame leaves behind"
    yield _blocks(found, what)


def _blocks(found: Found, what: str) -> Target:
    ours = [
        each
        for point in found.points("frame-blocks")
        for each in found.all("frame-blocks", point, by(PERS))
    ]
    if not ours:
        why = "frame-blocks was not run"
        return Target("frame-blocks", what, None, False, 0.0, "blocks", None, "not measured", why)
    # Where there are most objects.
    measured = summarize(ours[-1].samples)
    who = f"{ours[-1].name}, {ours[-1].point.label} objects"
    return _judged("frame-blocks", what, None, False, 0.0, "blocks", measured, who)


def _extra(
    found: Found,
    benchmark: str,
    key: str,
    what: str,
    most: float | None,
    unit: str,
    moonshot: float | None = None,
) -> Target:
    values = _extras(found, benchmark, key)
    if not values:
        why = f"{benchmark} was not run"
        for point in found.points(benchmark)[:1]:
            why = found.why_not(benchmark, point, by(PERS))
        return Target(benchmark, what, most, False, moonshot, unit, None, "not measured", why)
    return _judged(benchmark, what, most, False, moonshot, unit, summarize(values), "pers")


def _extras(found: Found, benchmark: str, key: str) -> list[float]:
    ours: Iterable[Series] = (
        each for point in found.points(benchmark) for each in found.all(benchmark, point, by(PERS))
    )
    return [each.extra[key] for each in ours if key in each.extra]
