"""``pers triangle``."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import anyio
import typer

from pers import IFrameBuffer, IRenderDevice, open_device
from renderers.commands.options import (
    Backend,
    BackendOption,
    Size,
    SizeOption,
    VerboseOption,
    WindowOption,
    check_png,
    save_png,
)
from renderers.report import FrameTimes, not_drawn
from renderers.triangle import TriangleRenderer
from renderers.window import show

__all__ = ["draw_triangle"]

DEFAULT_SIZE = Size(800, 600)
DEFAULT_FRAMES = 60
FRAMES_HELP = f"{DEFAULT_FRAMES}, or until the window is closed"


def draw_triangle(
    frames: Annotated[
        int | None, typer.Option(min=1, show_default=FRAMES_HELP, help="How many frames.")
    ] = None,
    size: SizeOption = DEFAULT_SIZE,
    output: Annotated[Path, typer.Option(help="The picture of the last frame.")] = Path(
        "out/triangle.png"
    ),
    window: WindowOption = False,
    backend: BackendOption = Backend.WEBGPU,
    verbose: VerboseOption = False,
) -> None:
    """Draw the simple case: a turning triangle."""
    check_png(output)
    with (
        open_device(backend) as device,
        TriangleRenderer(device, size.width, size.height) as renderer,
    ):
        if window:
            seconds = anyio.run(_draw_in_window, device, renderer, size, frames)
            renderer.draw(max(len(seconds) - 1, 0))
        else:
            seconds = _draw_offscreen(renderer, frames or DEFAULT_FRAMES)
        save_png(renderer.screenshot(), output)
        times = FrameTimes.of(seconds)
        print(
            f"{output}: {size}, {len(seconds)} frames, {times.p50:.2f} ms a frame (p50), "
            f"{device.info.name} ({device.info.api})"
        )
        if missing := not_drawn(device):
            print(f"pers: note: {missing}", file=sys.stderr)


def _draw_offscreen(renderer: TriangleRenderer, frames: int) -> list[float]:
    seconds: list[float] = []
    clock = time.perf_counter()
    for frame in range(frames):
        renderer.draw(frame)
        if frame == frames - 1:
            renderer.finish()
        now = time.perf_counter()
        seconds.append(now - clock)
        clock = now
    return seconds


async def _draw_in_window(
    device: IRenderDevice, renderer: TriangleRenderer, size: Size, frames: int | None
) -> list[float]:
    seconds: list[float] = []
    clock = time.perf_counter()

    def draw(target: IFrameBuffer) -> None:
        nonlocal clock
        renderer.draw(len(seconds), target)
        now = time.perf_counter()
        seconds.append(now - clock)
        clock = now

    await show(
        device,
        draw,
        title="pers triangle",
        width=size.width,
        height=size.height,
        frames=frames,
    )
    return seconds
