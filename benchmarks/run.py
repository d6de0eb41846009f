"""Runs benchmarks and makes the report."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence

from benchmarks.calls import CALLS
from benchmarks.core import Benchmark, Point, Scale, Series, run_point
from benchmarks.draws import DRAWS, RECORDING
from benchmarks.frame_loop import FRAME_BLOCKS, FRAME_PEAK
from benchmarks.lab import Lab
from benchmarks.map_latency import MAP_LATENCY
from benchmarks.memory import MEMORY
from benchmarks.readback import READBACK
from benchmarks.report import Report
from benchmarks.sharing import SHARING
from benchmarks.targets import judge
from benchmarks.uniforms import UNIFORMS
from benchmarks.upload import UPLOAD, UPLOAD_PACKS

__all__ = ["BENCHMARKS", "Progress", "UnknownBenchmarkError", "choose", "run"]

BENCHMARKS: tuple[Benchmark, ...] = (
    UPLOAD,
    UPLOAD_PACKS,
    READBACK,
    UNIFORMS,
    RECORDING,
    DRAWS,
    MAP_LATENCY,
    CALLS,
    FRAME_BLOCKS,
    FRAME_PEAK,
    MEMORY,
    *SHARING,
)

Progress = Callable[[str, int, int], None]
"""Told what comes next, how many points are done, and how many there are."""


class UnknownBenchmarkError(ValueError):
    """No benchmark has that name."""


def choose(names: Sequence[str]) -> list[Benchmark]:
    """Return the benchmarks with these names, or all when there are none.

    Raises:
        UnknownBenchmarkError: One of the names is none.
    """
    known = {benchmark.name: benchmark for benchmark in BENCHMARKS}
    for name in names:
        if name not in known:
            raise UnknownBenchmarkError(
                f"there is no benchmark {name!r}; there are {', '.join(known)}"
            )
    return [benchmark for benchmark in BENCHMARKS if not names or benchmark.name in names]


def run(
    lab: Lab,
    benchmarks: Sequence[Benchmark],
    scale: Scale,
    progress: Progress = lambda what, done, total: None,
) -> Report:
    """Measure, point after point."""
    work = [(each, point) for each in benchmarks for point in each.points(lab, scale)]
    found: list[Series] = []
    for done, (benchmark, point) in enumerate(work):
        progress(f"{benchmark.name} {point.label}", done, len(work))
        found += measure(lab, benchmark, point, scale)
        gc.collect()
    progress("done", len(work), len(work))
    chosen = {benchmark.name for benchmark in benchmarks}
    targets = judge(found, software=lab.shares_memory)
    return Report(
        machine=lab.describe(),
        scale=scale,
        benchmarks=list(benchmarks),
        series=found,
        targets=[each for each in targets if each.benchmark in chosen],
    )


def measure(lab: Lab, benchmark: Benchmark, point: Point, scale: Scale) -> list[Series]:
    """Measure one point; a benchmark that cannot even start is a failure with a reason."""
    take = benchmark.measure or run_point
    try:
        with benchmark.open(lab, point, scale) as entrants:
            return take(benchmark.name, point, entrants, scale)
    except Exception as error:
        problem = " ".join(f"{type(error).__name__}: {error}".split())
        return [Series(benchmark.name, point, "all", "", "failed", problem=problem)]
