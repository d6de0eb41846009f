"""``pers share``."""

from __future__ import annotations

import enum
import json
import signal
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from pers import TextureShareManager, list_streams, open_device, open_share_manager
from renderers.commands.options import (
    CommandError,
    Size,
    SizeOption,
    VerboseOption,
    check_folder,
    save_png,
)
from renderers.share import Ending, consume, produce

__all__ = ["share"]

PICTURE, REPORT = "share.png", "share.json"
DEFAULT_NAME = "pers"
DEFAULT_SIZE = Size(1280, 720)
SLOWEST, FASTEST = 0.001, 100_000  # frames per second
LONGEST = 86_400  # seconds: a day

share = typer.Typer(
    help="Share a moving picture between processes: produce in one terminal, consume in others."
)


class ShareBackend(enum.StrEnum):
    """What shares the textures."""

    AUTO = "auto"
    VULKAN = "vulkan"
    METAL = "metal"
    WEBGPU = "webgpu"
    HOST = "host"


class Policy(enum.StrEnum):
    """Which frames a consumer reads."""

    LATEST = "latest"
    EVERY = "every"


NameOption = Annotated[str, typer.Option("--name", help="Name of the stream.")]
ShareBackendOption = Annotated[
    ShareBackend, typer.Option("--backend", help="What shares the textures.")
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print the report as JSON, and nothing else.")
]


def _check_fps(value: float) -> float:
    if value != 0 and not SLOWEST <= value <= FASTEST:
        raise typer.BadParameter(f"{value:g} is neither 0 nor in {SLOWEST:g} to {FASTEST:g}")
    return value


def _check_timeout(value: float) -> float:
    if not 0 <= value <= LONGEST:
        raise typer.BadParameter(f"{value:g} is not in 0 to {LONGEST} seconds")
    return value


@share.command("produce")
def run_producer(
    name: NameOption = DEFAULT_NAME,
    size: SizeOption = DEFAULT_SIZE,
    frames: Annotated[
        int | None, typer.Option(min=1, show_default="until Ctrl+C", help="How many frames.")
    ] = None,
    fps: Annotated[
        float,
        typer.Option(
            callback=_check_fps,
            metavar=f"0 or {SLOWEST:g}..{FASTEST:g}",
            help="Frames per second; 0 for as many as possible.",
        ),
    ] = 60,
    buffers: Annotated[int, typer.Option(min=1, max=16, help="How many textures take turns.")] = 3,
    wait: Annotated[
        bool, typer.Option("--wait", help="Publish nothing before somebody reads.")
    ] = False,
    backend: ShareBackendOption = ShareBackend.AUTO,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Publish a moving test picture."""
    if size.width < 2:
        raise CommandError("the test picture is at least 2 pixels wide")
    with _manager(backend) as manager, _interruptible() as ending:
        with _progress("Publishing", frames) as advance:
            report = produce(
                name,
                size.width,
                size.height,
                manager,
                frames=frames,
                frames_per_second=fps,
                buffers=buffers,
                wait=wait,
                on_frame=advance,
                ending=ending,
            )
        _show(report.to_json(), as_json, manager)


@share.command("consume")
def run_consumer(
    name: NameOption = DEFAULT_NAME,
    frames: Annotated[
        int | None, typer.Option(min=1, show_default="all that come", help="How many frames.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help=f"Folder for {PICTURE}, the last frame, and {REPORT}.")
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Compare every byte.")] = False,
    policy: Annotated[Policy, typer.Option(help="Which frames to read.")] = Policy.LATEST,
    timeout: Annotated[
        float,
        typer.Option(
            callback=_check_timeout,
            metavar=f"0..{LONGEST}",
            help="Seconds to wait for the stream, and for each frame.",
        ),
    ] = 10,
    backend: ShareBackendOption = ShareBackend.AUTO,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Read a stream, and say how it went."""
    if output is not None:
        check_folder(output, PICTURE, REPORT)
    with _manager(backend) as manager, _interruptible() as ending:
        with _progress("Reading", frames) as advance:
            report, pixels = consume(
                name,
                manager,
                frames=frames,
                policy="every" if policy is Policy.EVERY else "latest",
                verify=verify,
                timeout=timeout,
                on_frame=advance,
                ending=ending,
            )
        if output is not None and pixels is not None:
            save_png(pixels, output / PICTURE)
            text = json.dumps(report.to_json(), indent=2)
            (output / REPORT).write_text(text + "\n", encoding="utf-8")
        _show(report.to_json(), as_json, manager)
    if report.wrong_frames:
        raise CommandError(f"{report.wrong_frames} of {report.frames} frames have wrong pixels")


@share.command("list")
def show_streams(as_json: JsonOption = False, verbose: VerboseOption = False) -> None:
    """List the streams that can be read now."""
    names = list_streams()
    if as_json:
        print(json.dumps(names))
    else:
        print("\n".join(names) or "there is no stream; start one with: pers share produce")


@contextmanager
def _manager(backend: ShareBackend) -> Generator[TextureShareManager]:
    with ExitStack() as stack:
        device = None
        if backend is ShareBackend.WEBGPU:
            device = stack.enter_context(open_device())
        yield stack.enter_context(open_share_manager(device, backend))


@contextmanager
def _interruptible() -> Generator[Ending]:
    """Have Ctrl+C end the stream."""
    ending = Ending()

    def press(number: int, frame: FrameType | None) -> None:
        ending.say()

    before = signal.signal(signal.SIGINT, press)
    try:
        yield ending
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _progress(what: str, frames: int | None) -> Generator[Callable[[int], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TextColumn("frames"), console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=frames)
        yield lambda done: progress.update(task, completed=done)


def _show(report: Mapping[str, Any], as_json: bool, manager: TextureShareManager) -> None:
    if as_json:
        print(json.dumps(report, indent=2))
        return
    table = Table(show_header=False, title="pers share", title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in report.items():
        table.add_row(*_row(name, value))
    table.add_row("chosen", manager.choice)
    Console().print(table)


def _row(name: str, value: Any) -> tuple[str, str]:
    if name == "bytes_per_second":
        return "bandwidth", f"{value / 1e9:.3g} GB/s"
    if isinstance(value, float):
        return name.replace("_", " "), f"{value:.4g}"
    if isinstance(value, bool):
        value = "yes" if value else "no"
    return name.replace("_", " "), str(value)
