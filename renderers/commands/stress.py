"""``pers stress``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import anyio
import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from pers import IFrameBuffer, IRenderDevice, open_device
from renderers.commands.options import (
    Backend,
    BackendOption,
    CommandError,
    Size,
    SizeOption,
    VerboseOption,
    WindowOption,
    check_folder,
    save_png,
)
from renderers.report import StressReport
from renderers.scene import DEPTH_FORMAT, SAMPLES
from renderers.stress import StressTestRenderer
from renderers.window import show

__all__ = ["run_stress"]

DEFAULT_SIZE = Size(1280, 720)
DEFAULT_FRAMES = 120
FRAMES_HELP = f"{DEFAULT_FRAMES}, or until the window is closed"
Pixels = npt.NDArray[np.uint8]

PICTURE, REPORT = "stress.png", "stress.json"


def run_stress(
    objects: Annotated[int, typer.Option(min=1, help="How many objects move.")] = 2000,
    frames: Annotated[
        int | None, typer.Option(min=1, show_default=FRAMES_HELP, help="How many frames.")
    ] = None,
    size: SizeOption = DEFAULT_SIZE,
    output: Annotated[Path, typer.Option(help=f"Folder for {PICTURE} and {REPORT}.")] = Path("out"),
    window: WindowOption = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON, and nothing else.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Equal seeds give equal pictures.")] = 1,
    backend: BackendOption = Backend.WEBGPU,
    verbose: VerboseOption = False,
) -> None:
    """Draw many moving objects, and check what the GPU saw of them."""
    check_folder(output, PICTURE, REPORT)
    with (
        open_device(backend) as device,
        StressTestRenderer(device, objects, size.width, size.height, seed=seed) as renderer,
    ):
        if window:
            report, pixels = anyio.run(_run_in_window, device, renderer, size, frames)
        else:
            report, pixels = anyio.run(_run_offscreen, renderer, frames or DEFAULT_FRAMES)
        save_png(pixels, output / PICTURE)
    text = json.dumps(report.to_json(), indent=2)
    (output / REPORT).write_text(text + "\n", encoding="utf-8")
    if as_json:
        print(text)
    else:
        Console().print(_table(report))
        print(f"{output / PICTURE}\n{output / REPORT}")
    if report.not_drawn:
        print(f"pers: note: {report.not_drawn}", file=sys.stderr)
    _raise_for_failures(report)


def _raise_for_failures(report: StressReport) -> None:
    """Raise `CommandError` when a readback check did not come out right."""
    failed = len(report.check_failures)
    if failed:
        raise CommandError(
            f"{failed} of {failed + report.checks_passed} readback checks failed; "
            f"{report.check_failures[0]}"
        )


async def _run_offscreen(renderer: StressTestRenderer, frames: int) -> tuple[StressReport, Pixels]:
    with _progress(frames) as advance:
        await renderer.run(frames, lambda _: advance())
    pixels = renderer.screenshot()
    return renderer.report(), pixels


async def _run_in_window(
    device: IRenderDevice, renderer: StressTestRenderer, size: Size, frames: int | None
) -> tuple[StressReport, Pixels]:
    with _progress(frames) as advance:

        def draw(target: IFrameBuffer) -> None:
            renderer.draw_frame(target)
            advance()

        async with renderer.running():
            await show(
                device,
                draw,
                title="pers stress",
                width=size.width,
                height=size.height,
                frames=frames,
                depth_format=DEPTH_FORMAT,
                sample_count=SAMPLES,
            )
    report = renderer.report()
    await renderer.run(1)  # one frame more, offscreen, for the picture
    return report, renderer.screenshot()


@contextmanager
def _progress(frames: int | None) -> Generator[Callable[[], None]]:
    """Show a progress bar on stderr; call the result once for each frame."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("frames"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("Rendering", total=frames)
        yield lambda: progress.advance(task)


def _table(report: StressReport) -> Table:
    times, moved = report.frame_ms, report.bytes_moved
    failed = len(report.check_failures)
    rows = {
        "device": f"{report.device.name}, {report.device.driver} ({report.device.api})",
        "scene": f"{report.objects:,} objects, {report.triangles:,} triangles a frame, "
        f"{report.width}x{report.height}, seed {report.seed}",
        "frames": f"{report.frames} in {report.seconds:.2f} s",
        "frame time": f"p50 {times.p50:.2f}  p95 {times.p95:.2f}  p99 {times.p99:.2f} ms",
        "objects per second": f"{report.objects_per_second:,.0f}",
        "static staging": _bytes(moved.static_staging),
        "deferred staging": f"{_bytes(moved.deferred_staging)}, "
        f"{report.sky_bands[0]} of {report.sky_bands[1]} bands of the sky",
        "dynamic": f"{_bytes(moved.dynamic)}, {report.dynamic_stalls} stalls, "
        f"{report.dynamic_grows} grows",
        "readback": _bytes(moved.readback),
        "readback checks": f"{report.checks_passed} passed, {failed} failed: {report.check}",
    }
    if report.rss_start is not None and report.rss_end is not None:
        rows["memory"] = (
            f"{_bytes(report.rss_start)} at the start, {_bytes(report.rss_end)} at the end"
        )
    if report.not_drawn is not None:
        rows["not drawn"] = report.not_drawn
    table = Table(show_header=False, title="pers stress", title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} GiB"
