"""Shows a report and the progress: with rich where it is installed, in plain text without."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager

from benchmarks.core import Benchmark
from benchmarks.report import Report, Row, show
from benchmarks.run import Progress
from benchmarks.targets import Target

__all__ = ["print_report", "progress_bar"]

HAS_RICH = importlib.util.find_spec("rich") is not None

STYLES = {"pers": "bold", "limit": "dim", "problem": "yellow", "peer": ""}
VERDICT_STYLES = {"pass": "green", "fail": "red", "not measured": "yellow", "no target": "dim"}
Line = tuple[str, Sequence[str]]
"""A style, and the cells."""


@contextmanager
def progress_bar() -> Generator[Progress]:
    """Yield what the runner reports its progress to; it is shown on stderr."""
    if not HAS_RICH:
        yield lambda what, done, total: print(f"[{done}/{total}] {what}", file=sys.stderr)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TimeElapsedColumn())  # fmt: skip
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("opening devices")
        yield lambda what, done, total: bar.update(
            task, description=what, completed=done, total=total
        )


def print_report(report: Report) -> None:
    """Print the machine, a table for each benchmark, and the targets."""
    for line in _machine_lines(report):
        print(line)
    for benchmark in report.benchmarks:
        _print_table(*_benchmark_table(report, benchmark))
    _print_table(*_target_table(report.targets))


def _machine_lines(report: Report) -> Iterator[str]:
    machine = report.machine
    device = machine["device"]
    yield f"{device['name']}, {device['driver']} ({device['api']}); {machine['date']}"
    yield f"{machine['cpu']}, {machine['cores']} cores; Python {machine['python']}"
    yield ", ".join(f"{name} {found}" for name, found in machine["packages"].items() if found)
    for name, description in machine["peers"].items():
        yield f"{name}: {description}"


def _benchmark_table(
    report: Report, benchmark: Benchmark
) -> tuple[str, Sequence[str], Sequence[Line]]:
    columns = (benchmark.axis or "case", "road", "median", "quartiles", "", "best peer / pers")
    lines = [(STYLES[row.kind], _cells(row)) for row in report.rows(benchmark)]
    return benchmark.title, columns, lines


def _cells(row: Row) -> Sequence[str]:
    return row.point, row.name, row.result, row.spread, row.rate, row.against


def _target_table(targets: Sequence[Target]) -> tuple[str, Sequence[str], Sequence[Line]]:
    columns = ("target", "wanted", "moonshot", "measured", "quartiles", "", "who")
    return "targets", columns, [(VERDICT_STYLES[each.verdict], _target(each)) for each in targets]


def _target(target: Target) -> Sequence[str]:
    def number(value: float) -> str:
        return f"{value:.2f}x" if target.unit == "x" else show(value, target.unit)

    def bound(value: float | None) -> str:
        return "" if value is None else f"{'≥' if target.at_least else '≤'} {number(value)}"

    measured, spread = "", ""
    if target.measured is not None:
        measured = number(target.measured.median)
        spread = f"{number(target.measured.p25)} to {number(target.measured.p75)}"
    verdict = f"{target.verdict}{', moonshot' if target.reaches_moonshot else ''}"
    return (target.what, bound(target.wanted), bound(target.moonshot), measured, spread, verdict,
            target.detail)  # fmt: skip


def _print_table(title: str, columns: Sequence[str], lines: Sequence[Line]) -> None:
    if not HAS_RICH:
        _print_plain(title, columns, [cells for _, cells in lines])
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, title=title, title_justify="left")
    for style, cells in lines:
        table.add_row(*cells, style=style)
    Console(width=None if sys.stdout.isatty() else 180).print(table)


def _print_plain(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[i]) for row in (columns, *rows)) for i in range(len(columns))]
    print(f"\n{title}")
    for row in (columns, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
