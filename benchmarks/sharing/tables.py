"""The figures of sharing, as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from benchmarks.core import PERS, Series
from benchmarks.figure_tables import machine_line, machine_name, table
from benchmarks.report import Report, show

__all__ = ["sharing"]

STREAMS = {
    "share-stream": "A stream to another process, from array to array",
    "share-stream-gpu": "A stream to another process, from image to image on the GPU",
}
Cell = Callable[[Series], str]


def sharing(reports: Mapping[str, Report]) -> str:
    """Return the tables of all machines, one machine after the other."""
    parts: list[str] = []
    for name, report in reports.items():
        found = [each for each in report.series if each.benchmark.startswith("share-")]
        parts += [
            f"### Sharing on {machine_name(report)}",
            machine_line(name, report, peers=False),
            *_streams(found),
            *_titled(
                "A frame to another process and back, p50 and p99:",
                _by_point(found, "share-frame", "way", _percentiles),
            ),
            *_titled("Making, median:", _making(found)),
            *_titled(
                "A signal to another process and back, p50 and p99:",
                _by_point(found, "share-sync", "way", _percentiles),
            ),
            *_titled(
                "Memory for each byte of pixels:",
                _by_point(found, "share-memory", "what", _median_number),
            ),
            *_absent(found),
        ]
    return "\n\n".join(parts)


def _titled(title: str, rows: str) -> list[str]:
    """Return a table with its title, or nothing when the run was without it."""
    return [title, rows] if rows else []


def _streams(found: Sequence[Series]) -> list[str]:
    parts: list[str] = []
    for benchmark, title in STREAMS.items():
        title = f"{title}, frames per second, bytes per second, and p50 and p99 of the latency:"
        parts += _titled(title, _by_point(found, benchmark, "way", _stream_cell))
    return parts


def _stream_cell(one: Series) -> str:
    summary = one.summary
    if summary is None:
        return one.status
    frames = f"{1 / summary.median:,.0f}/s"
    rate = f", {one.point.x / summary.median / 1e9:.2f} GB/s" if one.point.x else ""
    return f"{frames}{rate}; {_percentiles(one)}"


def _percentiles(one: Series) -> str:
    if one.summary is None or "p50" not in one.extra:
        return one.status
    return f"{show(one.extra['p50'], 's')}, {show(one.extra['p99'], 's')}"


def _median_number(one: Series) -> str:
    return one.status if one.summary is None else f"{one.summary.median:.2f}"


def _median_time(one: Series) -> str:
    return one.status if one.summary is None else show(one.summary.median, "s")


def _name(one: Series) -> str:
    """Say whose way it is; that of pers need not be said."""
    return one.road if one.library == PERS else one.name


def _by_point(found: Sequence[Series], benchmark: str, what: str, cell: Cell) -> str:
    """Return a table with a row for each way and a column for each point."""
    own = [each for each in found if each.benchmark == benchmark]
    points = list(dict.fromkeys(each.point.label for each in own))
    rows = _rows(own, points, _name, cell)
    return table((what, *points), rows) if rows else ""


def _rows(
    own: Sequence[Series], points: Sequence[str], name: Callable[[Series], str], cell: Cell
) -> list[Sequence[str]]:
    ways: dict[str, dict[str, str]] = {}
    for each in own:
        if each.status != "not available":
            ways.setdefault(name(each), {})[each.point.label] = cell(each)
    return [(way, *(cells.get(point, "") for point in points)) for way, cells in ways.items()]


def _making(found: Sequence[Series]) -> str:
    rows: list[Sequence[str]] = []
    points: list[str] = []
    for benchmark, verb in (
        ("share-create", ""),
        ("share-export", ", export"),
        ("share-import", ", import"),
    ):
        own = [each for each in found if each.benchmark == benchmark]
        points = points or list(dict.fromkeys(each.point.label for each in own))

        def name(one: Series, verb: str = verb) -> str:
            return f"{_name(one)}{verb if one.library == PERS else ''}"

        rows += _rows(own, points, name, _median_time)
    return table(("what", *points), rows) if rows else ""


def _absent(found: Sequence[Series]) -> list[str]:
    """Say what did not take part, and why."""
    lines = dict.fromkeys(
        f"- {_name(each)}, {each.point.label}: {each.problem}"
        if each.benchmark == "share-sync"
        else f"- {_name(each)}: {each.problem}"
        for each in found
        if each.status == "not available" and each.library == PERS
    )
    return ["Not available:", "\n".join(lines)] if lines else []
