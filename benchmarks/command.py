"""What both command lines do: run, show, and write the files."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Sequence
from pathlib import Path

import attrs

from benchmarks.core import Scale
from benchmarks.lab import Lab
from benchmarks.report import Report
from benchmarks.run import BENCHMARKS, UnknownBenchmarkError, choose, run
from benchmarks.screen import print_report, progress_bar
from pers import PersError

__all__ = ["CannotRunError", "Request", "carry_out", "list_benchmarks"]


class CannotRunError(Exception):
    """What was asked for cannot be done, for a reason that fits into one line."""


@attrs.frozen
class Request:
    """What the user asked for.

    Attributes:
        names: Which benchmarks; none means all.
        json: Where to write the report, or None.
        plot: Where to write the plots, or None.
        quick: Whether to measure a few small points only.
        minutes: How long to watch the memory; None takes what the scale has.
        backend: The pers backend.
        adapter: Part of the name of the GPU, or None for the best.
    """

    names: Sequence[str] = ()
    json: Path | None = None
    plot: Path | None = None
    quick: bool = False
    minutes: float | None = None
    backend: str = "webgpu"
    adapter: str | None = None


def list_benchmarks() -> None:
    """Print the names of all benchmarks, and what they measure."""
    for benchmark in BENCHMARKS:
        print(f"{benchmark.name:14} {benchmark.title}")


def carry_out(request: Request) -> Report:
    """Run what was asked for, show it, and write the files.

    Raises:
        CannotRunError: Before anything is measured, or when a file cannot be written.
    """
    try:
        benchmarks = choose(request.names)
    except UnknownBenchmarkError as error:
        raise CannotRunError(str(error)) from error
    if request.plot is not None:
        _check_plot(request.plot)
    for path in filter(None, (request.json, request.plot)):
        _check_file(path)
    if not 0 <= (request.minutes or 0) < math.inf:
        raise CannotRunError(f"--minutes must be 0 or more, not {request.minutes}")
    scale = Scale.for_tests() if request.quick else Scale()
    if request.minutes is not None:
        scale = attrs.evolve(scale, minutes=request.minutes)
    try:
        with Lab(request.backend, request.adapter) as lab, progress_bar() as progress:
            report = run(lab, benchmarks, scale, progress)
    except PersError as error:
        raise CannotRunError(str(error)) from error
    print_report(report)
    _write(request, report)
    return report


def _check_plot(path: Path) -> None:
    if path.suffix.lower() != ".png":
        raise CannotRunError(f"cannot write {path}: plots are PNG files, so name it something.png")
    if importlib.util.find_spec("matplotlib") is None:
        raise CannotRunError("plots need matplotlib; pip install 'pers[bench]'")


def _check_file(path: Path) -> None:
    """Refuse early what could not be written in the end."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        existed = path.exists()
        path.open("ab").close()
        if not existed:
            path.unlink()
    except OSError as error:
        raise CannotRunError(f"cannot write {path}: {error.strerror}") from error


def _write(request: Request, report: Report) -> None:
    try:
        if request.json is not None:
            text = json.dumps(report.to_json(), indent=1, allow_nan=False)
            request.json.write_text(text + "\n", encoding="utf-8")
            print(request.json)
        if request.plot is not None:
            from benchmarks.plot import plot

            plot(report, request.plot)
            print(request.plot)
    except OSError as error:
        raise CannotRunError(f"cannot write a file: {error}") from error
