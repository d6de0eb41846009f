"""``pers bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from renderers.commands.options import (
    Backend,
    BackendOption,
    CommandError,
    VerboseOption,
    check_folder,
    check_png,
)

__all__ = ["run_benchmarks"]


def run_benchmarks(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Which ones; none means all.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the report as JSON.")
    ] = None,
    plot_file: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Write plots as a PNG file.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Measure a few small points, in seconds.")
    ] = False,
    only_list: Annotated[
        bool, typer.Option("--list", help="List the benchmarks and stop.")
    ] = False,
    minutes: Annotated[
        float | None, typer.Option(min=0.0, help="How long to watch the memory.")
    ] = None,
    backend: BackendOption = Backend.WEBGPU,
    adapter: Annotated[str | None, typer.Option(help="Part of the name of the GPU to use.")] = None,
    verbose: VerboseOption = False,
) -> None:
    """Measure pers beside wgpu-py, moderngl and slangpy, turn by turn."""
    # Here, because most commands need none of it.
    from benchmarks.command import CannotRunError, Request, carry_out, list_benchmarks

    if only_list:
        list_benchmarks()
        return
    if json_file is not None:
        check_folder(json_file.parent, json_file.name)
    if plot_file is not None:
        check_png(plot_file)
    request = Request(
        names=names or (),
        json=json_file,
        plot=plot_file,
        quick=quick,
        minutes=minutes,
        backend=backend.value,
        adapter=adapter,
    )
    try:
        report = carry_out(request)
    except CannotRunError as error:
        raise CommandError(str(error)) from error
    if report.problems:
        first = report.problems[0]
        raise CommandError(
            f"{len(report.problems)} results are wrong or missing; {first.name} in "
            f"{first.benchmark} at {first.point.label}: {first.problem}"
        )
