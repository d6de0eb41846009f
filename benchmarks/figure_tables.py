"""The figures in docs/ and in the README, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.core import Series
from benchmarks.figure_plots import PLOTS, Plot, describe
from benchmarks.report import Report, show
from benchmarks.targets import Target

__all__ = [
    "growth",
    "machine_line",
    "machine_name",
    "moonshots",
    "pictures",
    "required",
    "summary",
    "table",
    "what_misses",
]

HEADLINES = {
    "upload of 64 MiB: belt.upload against queue.write_buffer": "upload of 64 MiB",
    "readback of 64 MiB: read_array against queue.read_buffer": "readback of 64 MiB",
    "cost of each of 10,000 draws through IRenderPass against wgpu-py":
        "cost of each of 10,000 draws",
    "10,000 moving objects in a frame: best mode against wgpu-py's loop":
        "frame of 10,000 moving objects, best mode against the loop of draws",
    "render pass: the call of pers against wgpu-py's": "cost of beginning and ending a pass",
    "await map_async of 1 KiB on asyncio against wgpu-py's": "cost of an awaited map",
    "memory over the run, after warm-up": "memory growth of a long run",
}  # fmt: skip
"""What the README shows of the targets, and in which words."""

SIZES = ("1 KiB", "64 KiB", "1 MiB", "16 MiB", "256 MiB")
COUNTS = ("1", "100", "10,000", "100,000")
FEWEST, MOST = 10_000, 100_000


def required(reports: Mapping[str, Report]) -> str:
    """Return, for each machine, the rows that pers must reach, and which it does not."""
    parts: list[str] = []
    for name, report in reports.items():
        targets = [each for each in report.targets if each.wanted is not None]
        rows = [
            (each.what, _wanted(each, each.wanted), *_measured(each), _verdict(each))
            for each in targets
        ]
        parts += [
            f"### {machine_name(report)}",
            machine_line(name, report),
            table(("what", "wanted", "measured", "quartiles", "verdict"), rows),
            _misses(report, targets),
        ]
    return "\n\n".join(parts)


def moonshots(reports: Mapping[str, Report]) -> str:
    """Return a table of the moonshots with a column for each machine."""
    whats = dict.fromkeys(
        each.what for report in reports.values() for each in report.targets
        if each.moonshot is not None
    )  # fmt: skip
    rows: list[Sequence[str]] = []
    for what in whats:
        found = [_find(report, what) for report in reports.values()]
        first = next(each for each in found if each is not None)
        rows.append((what, _wanted(first, first.moonshot), *(_distance(each) for each in found)))
    return table(("what", "moonshot", *map(machine_name, reports.values())), rows)


def summary(reports: Mapping[str, Report]) -> str:
    """Return the few lines of the README, with a column for each machine."""
    rows = [
        (words, *(_headline(_find(report, what)) for report in reports.values()))
        for what, words in HEADLINES.items()
    ]
    return table(("pers beside wgpu-py", *map(machine_name, reports.values())), rows)


def pictures(reports: Mapping[str, Report]) -> str:
    """Return the plots, one after the other, each on all machines."""
    return "\n\n".join(
        f"![{describe(plot, report)}](images/{plot.file_name(name)})"
        for plot in PLOTS
        for name, report in reports.items()
        if plot.roads_of(report)
    )


def growth(reports: Mapping[str, Report]) -> str:
    """Return tables of the cost by size and by count."""
    parts: list[str] = []
    for plot in PLOTS:
        for report in reports.values():
            rows = _growth(plot, report)
            if rows:
                parts += [f"{plot.title.partition(':')[0]}, on {machine_name(report)}:", rows]
    return "\n\n".join(parts)


def what_misses(reports: Mapping[str, Report]) -> list[tuple[str, Target]]:
    """Return every mark that is missed, with the machine."""
    return [
        (machine_name(report), each)
        for report in reports.values()
        for each in report.targets
        if each.verdict == "fail"
    ]


def machine_name(report: Report) -> str:
    """Return what readers call a machine."""
    device = report.machine["device"]
    name = str(device["name"]).partition(" (")[0]
    return f"{name} (CPU)" if device["kind"] == "cpu" else name


def machine_line(name: str, report: Report, *, peers: bool = True) -> str:
    """Return what a report is of: the file, the machine and the versions."""
    machine = report.machine
    device, packages = machine["device"], machine["packages"]
    versions = ", ".join(f"{package} {found}" for package, found in packages.items() if found)
    lines = [
        f"`benchmarks/results/{name}.json`, {machine['date'][:10]}: {device['name']}, driver "
        f"{device['driver']}, {device['api']}; {machine['cpu']}, {machine['cores']} cores, "
        f"{show(machine['memory_bytes'] or 0, 'bytes')}; Python {machine['python']}, {versions}."
    ]
    for peer, found in machine["peers"].items() if peers else ():
        if found.startswith("not available"):
            lines.append(f"{peer} did not take part: {found.partition(': ')[2].rstrip('.!')}.")
    return " ".join(lines)


def _misses(report: Report, targets: Sequence[Target]) -> str:
    missed = [each for each in targets if each.verdict == "fail"]
    unmeasured = [each for each in targets if each.verdict == "not measured"]
    met = len(targets) - len(missed) - len(unmeasured)
    text = f"On {machine_name(report)}, {met} of {len(targets)} marks are met."
    lines = [f"- {each.what}: {_measured(each)[0]}, wanted {_wanted(each, each.wanted)}"
             for each in missed]  # fmt: skip
    if lines:
        text += " Missed:\n\n" + "\n".join(lines)
    if unmeasured:
        text += "\n\nNot measured:\n\n" + "\n".join(f"- {each.what}: {each.detail}"
                                                    for each in unmeasured)  # fmt: skip
    return text


def _growth(plot: Plot, report: Report) -> str:
    roads = plot.roads_of(report)
    by_size = plot.benchmark in ("upload", "readback")
    rows: list[Sequence[str]] = []
    for (library, road), series in roads.items():
        places = {each.point.label: each for each in series}
        name = f"{library}: {road}"
        if by_size:
            first = places.get(SIZES[0])
            rates = (_rate(places.get(size)) for size in SIZES[1:])
            rows.append((name, _time(first), *rates))
        elif plot.benchmark == "draws":
            times = (_time(places.get(count)) for count in COUNTS)
            rows.append((name, *times, _slope(places)))
    if not rows:
        return ""
    if by_size:
        columns = ("road", f"time of {SIZES[0]}", *(f"GB/s at {size}" for size in SIZES[1:]))
    else:
        columns = ("road", *(f"per object, {count}" for count in COUNTS), "each further object")
    return table(columns, rows)


def _time(series: Series | None) -> str:
    return show(series.summary.median, "s") if series and series.summary else ""


def _rate(series: Series | None) -> str:
    if series is None or series.summary is None:
        return ""
    return f"{(series.point.x or 0) / series.summary.median / 1e9:.3g}"


def _slope(places: Mapping[str, Series]) -> str:
    """Return what one more object costs: from the frames of the two largest numbers."""
    few, many = (places.get(f"{count:,}") for count in (FEWEST, MOST))
    if few is None or many is None or few.summary is None or many.summary is None:
        return ""
    difference = many.summary.median * MOST - few.summary.median * FEWEST
    return show(difference / (MOST - FEWEST), "s")


def _find(report: Report, what: str) -> Target | None:
    return next((each for each in report.targets if each.what == what), None)


def _number(target: Target, value: float) -> str:
    return f"{value:.2f}×" if target.unit == "x" else show(value, target.unit)


def _wanted(target: Target, value: float | None) -> str:
    return "" if value is None else f"{'≥' if target.at_least else '≤'} {_number(target, value)}"


def _measured(target: Target) -> tuple[str, str]:
    found = target.measured
    if found is None:
        return "", ""
    spread = f"{_number(target, found.p25)} to {_number(target, found.p75)}"
    return _number(target, found.median), spread


def _verdict(target: Target) -> str:
    return {"pass": "met", "fail": "**missed**"}.get(target.verdict, target.verdict)


def _headline(target: Target | None) -> str:
    if target is None or target.measured is None:
        return "not measured"
    number = _number(target, target.measured.median)
    if target.unit != "x":
        return number
    return f"{number.removesuffix('×')} times as fast" if target.at_least else number


def _distance(target: Target | None) -> str:
    """Say by how much a moonshot is missed, of itself."""
    if target is None:
        return "not a goal"
    if target.measured is None or target.moonshot is None:
        return "not measured"
    median = target.measured.median
    text = _number(target, median)
    if target.reaches_moonshot:
        return f"{text}, met"
    if not target.moonshot:
        return f"{text}, missed"
    return f"{text}, missed by {abs(median / target.moonshot - 1):.0%}"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [f"| {' | '.join(row)} |" for row in (columns, *rows)]
    lines.insert(1, "|" + "---|" * len(columns))
    return "\n".join(lines)
