"""``python -m benchmarks.figures``: bring the figures in the documentation up to date.

Writes the marked parts of docs/performance.md and of the README, and the plots in docs/images, from
the files in benchmarks/results, one for each machine. Measures nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks import figure_tables as tables
from benchmarks.report import Report
from benchmarks.sharing.tables import sharing
from benchmarks.stored import RESULTS, StoredResultsError, digest, read_results, read_sharing

__all__ = ["BLOCKS", "IMAGES", "fill_in", "main", "unexplained"]

ROOT = Path(__file__).resolve().parents[1]
PERFORMANCE = ROOT / "docs" / "performance.md"
IMAGES = ROOT / "docs" / "images"
BOUNDS_HEADING = "## What misses its mark"
"""Of the section, written by hand, that says why."""

BLOCKS: dict[Path, dict[str, Callable[[Mapping[str, Report]], str]]] = {
    PERFORMANCE: {
        "required": tables.required,
        "moonshots": tables.moonshots,
        "plots": tables.pictures,
        "growth": tables.growth,
        # Of files of their own, with other contenders.
        "sharing": lambda reports: sharing(read_sharing()),
    },
    ROOT / "README.md": {"summary": tables.summary},
}
"""Pages, and what is written into which of their marked parts."""


class FigureError(Exception):
    """The figures cannot be brought up to date, for a reason that fits into one line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write everything; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.figures", description=__doc__)
    parser.parse_args(arguments)
    try:
        reports = read_results()
        for page in BLOCKS:
            old = page.read_text(encoding="utf-8")
            new = fill_in(page, old, reports)
            page.write_text(new, encoding="utf-8")
            print(f"{page.relative_to(ROOT)}: {'changed' if new != old else 'as it was'}")
        _draw(reports)
    except (FigureError, StoredResultsError, OSError) as error:
        print(f"figures: error: {error}", file=sys.stderr)
        return 1
    for machine, target in tables.what_misses(reports):
        print(f"missed on {machine}: {target.what}")
    for what in unexplained(PERFORMANCE.read_text(encoding="utf-8"), reports):
        print(f"figures: write under {BOUNDS_HEADING!r} what bounds: {what}", file=sys.stderr)
    return 0


def fill_in(page: Path, text: str, reports: Mapping[str, Report]) -> str:
    """Return the text of a page with its figures.

    Raises:
        FigureError: A mark is not there, or not once.
    """
    for name, make in BLOCKS[page].items():
        begin = f"<!-- figures: {name} (written by python -m benchmarks.figures) -->"
        end = f"<!-- end of figures: {name} -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise FigureError(f"{page.name} needs one line {begin!r} and after it one {end!r}")
        before, rest = text.split(begin)
        after = rest.partition(end)[2]
        text = f"{before}{begin}\n\n{make(reports)}\n\n{end}{after}"
    return text


def unexplained(text: str, reports: Mapping[str, Report]) -> list[str]:
    """Return the missed marks that the page does not explain, by bold words they begin with."""
    section = text.partition(f"\n{BOUNDS_HEADING}\n")[2].partition("\n## ")[0]
    explained = tuple(re.findall(r"\*\*(.+?)\*\*", section))
    missed = dict.fromkeys(target.what for _, target in tables.what_misses(reports))
    return [what for what in missed if not what.startswith(explained)]


def _draw(reports: Mapping[str, Report]) -> None:
    if importlib.util.find_spec("matplotlib") is None:
        raise FigureError("plots need matplotlib; pip install 'pers[bench]'")
    from benchmarks.figure_plots import draw_plots

    drawn: list[Path] = []
    for name, report in reports.items():
        drawn += draw_plots(report, name, digest(RESULTS / f"{name}.json"), IMAGES)
    for path in sorted(IMAGES.glob("performance-*.png")):
        if path in drawn:
            print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1024} KiB")
        else:
            path.unlink()
            print(f"{path.relative_to(ROOT)}: removed, its results are no longer stored")


if __name__ == "__main__":
    sys.exit(main())
