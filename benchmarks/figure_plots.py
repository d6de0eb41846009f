"""The plots in docs/: how cost grows with size and count, on one machine."""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs

from benchmarks.core import LIMIT, MODERNGL, PERS, SLANGPY, WGPU, Series
from benchmarks.report import Report, show
from benchmarks.sizes import show_bytes

__all__ = ["PLOTS", "SOURCE", "Plot", "describe", "draw_plots"]

SOURCE = "Source"
"""What in a PNG file says which results it was made from."""

COLORS = {PERS: "#1f5fbf", WGPU: "#d95f02", MODERNGL: "#1b9e77", SLANGPY: "#8e44ad", LIMIT: "#777"}
STYLES = ("-", "--", ":", "-.")
STYLE_OF = {"instancing": "-."}
"""Roads that look the same for every library."""
MARKERS = ("o", "s", "^", "D")
PALETTE = 48
"""Colours in a file; there are few, and so the files are small."""


@attrs.frozen
class Plot:
    """What is shown of a benchmark.

    Attributes:
        name: In the name of its file.
        benchmark: Whose results.
        title: What is measured, in words, with "higher is better" or the like.
        roads: Which ones, by library; none means all.
    """

    name: str
    benchmark: str
    title: str
    roads: dict[str, tuple[str, ...]]

    def file_name(self, machine: str) -> str:
        """Return the name of the PNG file of a machine."""
        return f"performance-{machine}-{self.name}.png"

    def roads_of(self, report: Report) -> dict[tuple[str, str], list[Series]]:
        """Return what is shown, by library and road, in the order of the plot."""
        found: dict[tuple[str, str], list[Series]] = {}
        for library, roads in self.roads.items():
            for road in roads or _roads(report, self.benchmark, library):
                series = _series(report, self.benchmark, library, road)
                if series:
                    found[library, road] = series
        return found


BEST_COPY = "memory copy"
"""The best of the copies by one thread and by several, at each size."""
LOOP = "set_bind_group + draw"
PLOTS = (
    Plot(
        "upload",
        "upload",
        "Upload: bandwidth over size (higher is better)",
        {
            PERS: ("belt.upload",),
            WGPU: ("queue.write_buffer", "reused staging, map_sync"),
            MODERNGL: ("buffer.write",),
            SLANGPY: ("upload_buffer_data",),
            LIMIT: (BEST_COPY,),
        },
    ),
    Plot(
        "readback",
        "readback",
        "Readback: bandwidth over size (higher is better)",
        {
            PERS: ("read_array", "ReadbackBuffer.read_into"),
            WGPU: ("queue.read_buffer", "reused buffer, copied by NumPy"),
            MODERNGL: ("buffer.read_into",),
            SLANGPY: ("to_numpy",),
            LIMIT: ("GPU copy alone",),
        },
    ),
    Plot(
        "draws",
        "draws",
        "A frame of moving objects: time per object over their number (lower is better)",
        {
            PERS: (LOOP, "draw_many", "bundle", "instancing"),
            WGPU: (LOOP, "instancing"),
            MODERNGL: ("uniform + render", "instancing"),
            SLANGPY: (LOOP, "instancing"),
        },
    ),
    Plot(
        "uniforms",
        "uniforms",
        "A uniform that changes before each draw: time per update (lower is better)",
        {PERS: (), WGPU: (), MODERNGL: (), SLANGPY: ()},
    ),
)


def draw_plots(report: Report, machine: str, source: str, folder: Path) -> list[Path]:
    """Draw every plot that the report has results for; return the files.

    Args:
        report: The results.
        machine: What to call it in the names of the files.
        source: The digest of the results, which goes into the files.
        folder: Where to.
    """
    # By name, since the types of pers are checked where the extra `bench` is not installed, too.
    figure_type: Any = importlib.import_module("matplotlib.figure").Figure
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for plot in PLOTS:
        roads = plot.roads_of(report)
        if not roads:
            continue
        ordered = any(each.point.x is not None for each in next(iter(roads.values())))
        figure = figure_type(figsize=(8.6, 4.6 if ordered else 4.9))
        panel = figure.add_subplot()
        draw = _draw_lines if ordered else _draw_matrix
        draw(panel, plot, roads)
        panel.set_title(f"{plot.title}\n{report.machine['device']['name']}", fontsize=10)
        panel.grid(True, which="major", alpha=0.3)
        path = folder / plot.file_name(machine)
        _save(figure, path, source)
        paths.append(path)
    return paths


def _series(report: Report, benchmark: str, library: str, road: str) -> list[Series]:
    """Return what a road was measured at; of several that begin with `road` the best at each."""
    found: dict[str, tuple[float, Series]] = {}
    for each in report.series:
        summary = each.summary
        fits = each.road == road or (road == BEST_COPY and each.road.startswith(road))
        if summary is None or not fits or (each.benchmark, each.library) != (benchmark, library):
            continue
        best = found.get(each.point.label)
        if best is None or summary.median < best[0]:
            found[each.point.label] = summary.median, each
    return [each for _, each in found.values()]


def _roads(report: Report, benchmark: str, library: str) -> list[str]:
    named = (each.road for each in report.series
             if (each.benchmark, each.library) == (benchmark, library))  # fmt: skip
    return [road for road in dict.fromkeys(named) if road]


def _draw_lines(panel: Any, plot: Plot, roads: dict[tuple[str, str], list[Series]]) -> None:
    """Draw a line for each road, with its quartiles as a band and its name at the end."""
    in_bytes = plot.benchmark in ("upload", "readback")
    shown: Callable[[float, float], float] = (
        (lambda x, seconds: x / seconds / 1e9) if in_bytes else (lambda x, seconds: seconds * 1e6)
    )
    ends: list[tuple[float, str, str]] = []
    for (library, road), series in roads.items():
        color = COLORS[library]
        style = STYLE_OF.get(road, STYLES[_number(library, road, roads) % len(STYLES)])
        xs = [each.point.x or 1.0 for each in series]
        summaries = [each.summary for each in series if each.summary is not None]
        pairs = list(zip(xs, summaries, strict=True))
        medians = [shown(x, each.median) for x, each in pairs]
        panel.plot(xs, medians, style, color=color, marker="o", markersize=3, linewidth=1.6)
        panel.fill_between(
            xs,
            [shown(x, each.p25) for x, each in pairs],
            [shown(x, each.p75) for x, each in pairs],
            color=color, alpha=0.15, linewidth=0,
        )  # fmt: skip
        ends.append((medians[-1], f"{library}: {road}", color))
    panel.set_xscale("log", base=2 if in_bytes else 10)
    panel.set_yscale("log")
    last = max(series[-1].point.x or 1.0 for series in roads.values())
    formatter: Any = importlib.import_module("matplotlib.ticker").FuncFormatter
    if in_bytes:
        ticks = sorted({each.point.x or 1.0 for series in roads.values() for each in series})
        panel.set_xticks(ticks[::2] if len(ticks) > 6 else ticks)
        panel.xaxis.set_major_formatter(formatter(_as_bytes))
        panel.set_xlabel("size of the transfer (bytes)")
        panel.set_ylabel("bandwidth (GB/s)")
    else:
        panel.xaxis.set_major_formatter(formatter(_as_count))
        panel.set_xlabel("objects in the frame")
        panel.set_ylabel("time per object (µs)")
    panel.yaxis.set_major_formatter(formatter(_as_number))
    panel.tick_params(which="minor", bottom=False)
    panel.figure.subplots_adjust(left=0.09, right=0.68, top=0.88, bottom=0.12)
    _label_ends(panel, last, ends)


def _label_ends(panel: Any, x: float, ends: Sequence[tuple[float, str, str]]) -> None:
    """Name each line where it ends; names that would cover one another are moved apart."""
    to_axes: Any = panel.transData + panel.transAxes.inverted()
    places = sorted((float(to_axes.transform((x, y))[1]), text, color) for y, text, color in ends)
    heights = _apart([place for place, _, _ in places])
    for (place, text, color), height in zip(places, heights, strict=True):
        panel.annotate(
            text, xy=(_right(panel, x), place), xytext=(1.03, height), xycoords="axes fraction",
            textcoords="axes fraction", color=color, fontsize=8.5, va="center",
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.6,
                        "shrinkA": 1, "shrinkB": 3, "relpos": (0.0, 0.5)},
        )  # fmt: skip


def _apart(places: Sequence[float], step: float = 0.056) -> list[float]:
    """Move places, the lowest first, until each is `step` above the one before."""
    groups: list[list[float]] = []
    for place in places:
        groups.append([place])
        while len(groups) > 1 and _bottom(groups[-1], step) < _top(groups[-2], step) + step:
            groups[-2:] = [groups[-2] + groups[-1]]
    return [
        _bottom(group, step) + step * number for group in groups for number in range(len(group))
    ]


def _bottom(group: Sequence[float], step: float) -> float:
    """Return where the lowest of a group comes to lie, which stays around its own middle."""
    height = step * (len(group) - 1)
    return min(max(sum(group) / len(group) - height / 2, 0.0), 1.0 - height)


def _top(group: Sequence[float], step: float) -> float:
    return _bottom(group, step) + step * (len(group) - 1)


def _right(panel: Any, x: float) -> float:
    to_axes: Any = panel.transData + panel.transAxes.inverted()
    return float(to_axes.transform((x, panel.get_ylim()[0]))[0])


def _draw_matrix(panel: Any, plot: Plot, roads: dict[tuple[str, str], list[Series]]) -> None:
    """Draw a row for each road and in it a mark for each case, with its quartiles as a bar."""
    cases = list(dict.fromkeys(each.point.label for series in roads.values() for each in series))
    names = list(roads)
    named: set[str] = set()
    for row, ((library, _), series) in enumerate(roads.items()):
        for each in series:
            summary, number = each.summary, cases.index(each.point.label)
            assert summary is not None
            below, above = summary.median - summary.p25, summary.p75 - summary.median
            panel.errorbar(
                [summary.median * 1e6],
                [row + 0.16 * (number - (len(cases) - 1) / 2)],
                xerr=[[below * 1e6], [above * 1e6]],
                fmt=MARKERS[number % len(MARKERS)], color=COLORS[library], markersize=4,
                elinewidth=0.8,
            )  # fmt: skip
            if each.point.label not in named:
                named.add(each.point.label)
                panel.plot([], [], MARKERS[number % len(MARKERS)], color="#333", markersize=4,
                           label=each.point.label)  # fmt: skip
    panel.set_yticks(range(len(names)), [f"{library}: {road}" for library, road in names])
    for label, (library, _) in zip(panel.get_yticklabels(), names, strict=True):
        label.set_color(COLORS[library])
    panel.invert_yaxis()
    panel.set_xscale("log")
    ticker: Any = importlib.import_module("matplotlib.ticker")
    panel.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_major_formatter(ticker.FuncFormatter(_as_number))
    panel.xaxis.set_minor_formatter(ticker.NullFormatter())
    panel.tick_params(which="minor", bottom=False)
    panel.set_xlabel("time per update, with a pass and a submit of its own (µs)")
    panel.figure.subplots_adjust(left=0.27, right=0.98, top=0.89, bottom=0.2)
    panel.legend(loc="upper center", bbox_to_anchor=(0.36, -0.13), ncols=len(cases), fontsize=8,
                 frameon=False, handletextpad=0.2, columnspacing=1.2)  # fmt: skip


def _as_bytes(value: float, _position: int) -> str:
    return show_bytes(value)


def _as_count(value: float, _position: int) -> str:
    return f"{value:,.0f}"


def _as_number(value: float, _position: int) -> str:
    return f"{value:g}"


def _number(library: str, road: str, roads: dict[tuple[str, str], list[Series]]) -> int:
    return [name for of, name in roads if of == library].index(road)


def _save(figure: Any, path: Path, source: str) -> None:
    # matplotlib brings it.
    image: Any = importlib.import_module("PIL.Image")
    info: Any = importlib.import_module("PIL.PngImagePlugin").PngInfo()
    info.add_text(SOURCE, source)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=110)
    picture = image.open(drawn).convert("RGB")
    picture.quantize(PALETTE).save(path, optimize=True, pnginfo=info)


def describe(plot: Plot, report: Report) -> str:
    """Return in words what a plot shows, for who cannot see it."""
    parts: list[str] = []
    for (library, road), series in plot.roads_of(report).items():
        summary = series[-1].summary
        assert summary is not None
        at = series[-1].point
        if plot.benchmark in ("upload", "readback"):
            value = f"{(at.x or 0) / summary.median / 1e9:.3g} GB/s"
        else:
            value = show(summary.median, "s")
        parts.append(f"{library} {road} {value}")
    place = next(iter(plot.roads_of(report).values()))[-1].point.label
    return f"{plot.title.partition(' (')[0]}; at {place}: {', '.join(parts)}"
