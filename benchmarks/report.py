"""What a run found, as JSON and as rows of text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from benchmarks.core import LIMIT, PERS, Benchmark, Point, Scale, Series, Summary, ratio
from benchmarks.sizes import show_bytes
from benchmarks.targets import Target

__all__ = ["SCHEMA", "Report", "Row", "show"]

MOST_POINTS = 12
SCHEMA = 1
"""Counts up when what is in the JSON file changes its meaning."""


@attrs.frozen
class Row:
    """One contender at one point, for a table.

    Attributes:
        point: Where.
        name: Who.
        result: The median, or why there is none.
        spread: From the first to the third quartile.
        rate: Bytes per second, where the point is a size.
        against: How many times the best peer took, round by round; for pers alone.
        kind: "pers", "peer", "limit" or "problem".
    """

    point: str
    name: str
    result: str
    spread: str
    rate: str
    against: str
    kind: str


@attrs.frozen
class Report:
    """Everything that a run found."""

    machine: dict[str, Any]
    scale: Scale
    benchmarks: list[Benchmark]
    series: list[Series]
    targets: list[Target]

    @property
    def problems(self) -> list[Series]:
        """What came out wrong or failed."""
        return [each for each in self.series if each.status in ("wrong", "failed")]

    def of(self, benchmark: Benchmark) -> list[Series]:
        """Return the series of a benchmark."""
        return [each for each in self.series if each.benchmark == benchmark.name]

    def to_json(self) -> dict[str, Any]:
        """Return what `json.dumps` takes."""
        return {
            "schema": SCHEMA,
            "machine": self.machine,
            "scale": attrs.asdict(self.scale),
            "benchmarks": {
                each.name: {"title": each.title, "unit": each.unit, "axis": each.axis}
                for each in self.benchmarks
            },
            "results": [_series_json(each) for each in self.series],
            "targets": [_target_json(each) for each in self.targets],
        }

    def rows(self, benchmark: Benchmark) -> Iterator[Row]:
        """Yield a table of a benchmark: its points, and in each the fastest first."""
        points: dict[Point, list[Series]] = {}
        absent: dict[tuple[str, str], list[str]] = {}
        for each in self.of(benchmark):
            if each.status == "not available":
                absent.setdefault((each.name, each.problem), []).append(each.point.label)
            else:
                points.setdefault(each.point, []).append(each)
        for point, all_of_it in _thinned(list(points.items())):
            yield from _point_rows(benchmark, point, all_of_it)
        for (name, reason), labels in absent.items():
            where = "everywhere" if len(labels) >= len(points) else ", ".join(labels)
            yield Row(where, name, "not available", reason, "", "", "problem")


def _thinned(points: list[tuple[Point, list[Series]]]) -> list[tuple[Point, list[Series]]]:
    """Leave out what no table has room for; the last one stays."""
    step = -(-len(points) // MOST_POINTS)
    return points[::-1][::step][::-1] if step > 1 else points


def show(value: float, unit: str) -> str:
    """Return a number with its unit: "3.21 µs", "12 MiB", "4.5 blocks"."""
    if unit == "bytes":
        return show_bytes(value)
    if unit != "s":
        return f"{value:.4g} {unit}".strip()
    for name, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if abs(value) >= size:
            return f"{value / size:.3g} {name}"
    return f"{value / 1e-9:.3g} ns"


def _point_rows(benchmark: Benchmark, point: Point, found: Sequence[Series]) -> Iterator[Row]:
    by_time = sorted(found, key=lambda each: each.summary.median if each.summary else math.inf)
    peers = [each for each in by_time if each.summary and each.library not in (PERS, LIMIT)]
    label = point.label
    for each in by_time:
        kind = each.library if each.library in (PERS, LIMIT) else "peer"
        summary = each.summary
        if summary is None:
            yield Row(label, each.name, each.status, each.problem, "", "", "problem")
        else:
            spread = f"{show(summary.p25, benchmark.unit)} to {show(summary.p75, benchmark.unit)}"
            compared = kind == PERS and benchmark.unit == "s"
            against = _against(each, peers) if compared else ""
            result = show(summary.median, benchmark.unit)
            yield Row(label, each.name, result, spread, _rate(benchmark, point, summary), against,
                      kind)  # fmt: skip
        label = ""


def _rate(benchmark: Benchmark, point: Point, summary: Summary) -> str:
    if benchmark.axis != "bytes" or benchmark.unit != "s" or not point.x or not summary.median:
        return ""
    return f"{point.x / summary.median / 1e9:.3g} GB/s"


def _against(ours: Series, peers: Sequence[Series]) -> str:
    found = ratio(peers[0], ours) if peers else None
    if found is None:
        return ""
    return f"{found.median:.2f}x ({found.p25:.2f} to {found.p75:.2f})"


def _series_json(each: Series) -> dict[str, Any]:
    summary = each.summary
    return {
        "benchmark": each.benchmark,
        "point": each.point.label,
        "x": each.point.x,
        "library": each.library,
        "road": each.road,
        "status": each.status,
        "problem": each.problem,
        "summary": None if summary is None else attrs.asdict(summary),
        "extra": each.extra,
    }


def _target_json(target: Target) -> dict[str, Any]:
    return attrs.asdict(target)
