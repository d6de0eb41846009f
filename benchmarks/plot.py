"""Log-log plots of a report: how cost grows with size and count."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.core import LIMIT, MODERNGL, PERS, SLANGPY, WGPU, Benchmark, Series
from benchmarks.report import Report, show
from benchmarks.sizes import show_bytes

__all__ = ["plot"]

# By name, since the types of pers are checked where the extra `bench` is not installed, too.
Figure: Any = importlib.import_module("matplotlib.figure").Figure
LogLocator: Any = importlib.import_module("matplotlib.ticker").LogLocator
FuncFormatter: Any = importlib.import_module("matplotlib.ticker").FuncFormatter

COLORS = {
    PERS: ("#08306b", "#2171b5", "#6baed6", "#41b6c4", "#225ea8", "#7a0177", "#dd3497"),
    WGPU: ("#7f2704", "#d94801", "#fd8d3c", "#e6ab02", "#a6761d"),
    MODERNGL: ("#00441b", "#41ab5d", "#a1d99b"),
    SLANGPY: ("#54278f", "#9e9ac8"),
    LIMIT: ("#525252", "#969696", "#bdbdbd"),
}
STYLES = {PERS: "-", WGPU: "--", MODERNGL: "-.", SLANGPY: "-.", LIMIT: ":"}
MARKERS = {PERS: "o", WGPU: "s", MODERNGL: "^", SLANGPY: "v", LIMIT: ""}
PANEL = (9.0, 5.0)
"""Inches."""


def plot(report: Report, path: Path) -> None:
    """Write a PNG file with a panel for each benchmark that measured something."""
    shown = [each for each in report.benchmarks if _measured(report, each)]
    columns = 2 if len(shown) > 1 else 1
    rows = max(1, -(-len(shown) // columns))
    figure = Figure(figsize=(PANEL[0] * columns, PANEL[1] * rows), layout="constrained")
    device = report.machine["device"]
    figure.suptitle(
        f"{device['name']}, {device['driver']}; {report.machine['cpu']}, "
        f"{report.machine['cores']} cores; {report.machine['date'][:10]}"
    )
    panels: list[Any] = list(figure.subplots(rows, columns, squeeze=False).flat)
    for panel, benchmark in zip(panels, shown, strict=False):
        found = _measured(report, benchmark)
        if all(each.point.x is None for each in found):
            _draw_dots(panel, benchmark, found)
        else:
            _draw_lines(panel, benchmark, found)
    for panel in panels[len(shown) :]:
        panel.set_visible(False)
    figure.savefig(path, dpi=100)


def _measured(report: Report, benchmark: Benchmark) -> list[Series]:
    return [each for each in report.of(benchmark) if each.summary is not None]


def _draw_lines(panel: Any, benchmark: Benchmark, found: Sequence[Series]) -> None:
    """Draw a line for each road, with its quartiles as a band."""
    for (library, road), series in _roads(found).items():
        xs = [each.point.x for each, _ in series]
        color = COLORS[library][_number_of(library, road, found) % len(COLORS[library])]
        panel.plot(
            xs,
            [summary.median for _, summary in series],
            STYLES[library],
            marker=MARKERS[library],
            markersize=4,
            color=color,
            label=f"{library}: {road}",
        )
        panel.fill_between(
            xs,
            [summary.p25 for _, summary in series],
            [summary.p75 for _, summary in series],
            color=color,
            alpha=0.15,
            linewidth=0,
        )
    over_time = benchmark.axis == "seconds"
    if not over_time:
        panel.set_xscale("log", base=2 if benchmark.axis == "bytes" else 10)
        panel.set_yscale("log" if _all_positive(found) else "symlog")
    if benchmark.axis == "bytes":
        panel.set_xticks(sorted({each.point.x or 0.0 for each in found}))
        panel.xaxis.set_major_formatter(FuncFormatter(_bytes_label))
        panel.tick_params(axis="x", labelrotation=30)
        panel.minorticks_off()
    panel.set_xlabel(benchmark.axis)
    _finish(panel, benchmark)


def _draw_dots(panel: Any, benchmark: Benchmark, found: Sequence[Series]) -> None:
    """Draw a dot for each road of each case, with its quartiles as a bar."""
    labels = list(dict.fromkeys(each.point.label for each in found))
    roads = list(_roads(found))
    named: set[str] = set()
    # Where every case has roads of its own, the library says enough.
    by_library = len(roads) > 2 * len(labels)
    for (library, road), series in _roads(found).items():
        name = library if len(labels) > 4 else f"{library}: {road}"
        color = COLORS[library][
            0 if len(labels) > 4 else _number_of(library, road, found) % len(COLORS[library])
        ]
        shift = 0.0 if not by_library and len(labels) > 4 else _shift(roads, (library, road))
        panel.errorbar(
            [labels.index(each.point.label) + shift for each, _ in series],
            [summary.median for _, summary in series],
            yerr=[
                [summary.median - summary.p25 for _, summary in series],
                [summary.p75 - summary.median for _, summary in series],
            ],
            fmt=MARKERS[library] or "x",
            color=color,
            label=None if name in named else name,
        )
        named.add(name)
    panel.set_xticks(range(len(labels)), labels, rotation=20, ha="right")
    panel.set_yscale("log")
    _finish(panel, benchmark)


def _bytes_label(count: float, _position: int) -> str:
    return show_bytes(count)


def _finish(panel: Any, benchmark: Benchmark) -> None:
    def unit_label(value: float, _position: int) -> str:
        return show(value, benchmark.unit)

    if panel.get_yscale() == "log":
        low, high = panel.get_ylim()
        # Enough labels where all is of one order, and not too many where it is not.
        steps = (1,) if high / low > 300 else (1, 2, 5)
        panel.yaxis.set_major_locator(LogLocator(subs=steps, numticks=20))
        panel.tick_params(axis="y", which="minor", left=False, labelleft=False)
    panel.yaxis.set_major_formatter(FuncFormatter(unit_label))
    panel.set_title(benchmark.title, fontsize=10)
    panel.grid(True, which="major", alpha=0.3)
    panel.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _roads(found: Sequence[Series]) -> dict[tuple[str, str], list[tuple[Series, Any]]]:
    roads: dict[tuple[str, str], list[tuple[Series, Any]]] = {}
    for each in found:
        roads.setdefault((each.library, each.road), []).append((each, each.summary))
    return roads


def _number_of(library: str, road: str, found: Sequence[Series]) -> int:
    """Count the roads of a library before this one."""
    roads = dict.fromkeys(each.road for each in found if each.library == library)
    return list(roads).index(road)


def _shift(roads: Sequence[tuple[str, str]], one: tuple[str, str]) -> float:
    """Return where a road's dots are, beside the middle of their case."""
    return 0.7 * ((roads.index(one) + 0.5) / len(roads) - 0.5)


def _all_positive(found: Sequence[Series]) -> bool:
    return all(each.summary.p25 > 0 and math.isfinite(each.summary.p75) for each in found
               if each.summary is not None)  # fmt: skip
