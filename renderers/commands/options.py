"""What the commands' options have in common: their types, and checks before any work is done."""

from __future__ import annotations

import enum
import logging
import os
import re
import tempfile
from pathlib import Path
from typing import Annotated

import attrs
import numpy as np
import numpy.typing as npt
import typer
from PIL import Image

__all__ = [
    "Backend",
    "BackendOption",
    "CommandError",
    "Size",
    "SizeOption",
    "VerboseOption",
    "WindowOption",
    "check_folder",
    "check_png",
    "is_verbose",
    "save_png",
    "set_verbose",
]


class CommandError(Exception):
    """A command failed, for a reason that fits into one line."""


class Backend(enum.StrEnum):
    """What draws: the GPU, or nothing (copies and clears only)."""

    WEBGPU = "webgpu"
    NULL = "null"


@attrs.frozen
class Size:
    """A picture's size (pixels)."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


_verbose = False


def set_verbose(wanted: bool) -> None:
    """Show tracebacks and log messages from now on, or no longer."""
    global _verbose
    _verbose = wanted
    if wanted:
        logging.basicConfig(format="%(name)s: %(message)s", level=logging.DEBUG)


def is_verbose() -> bool:
    """Whether tracebacks are to be shown: ``--verbose``, or ``PERS_DEBUG`` is set."""
    return _verbose or os.environ.get("PERS_DEBUG", "0") not in ("", "0")


def _to_size(text: str | Size) -> Size:
    if isinstance(text, Size):  # a default
        return text
    match = re.fullmatch(r"([1-9][0-9]{0,8})x([1-9][0-9]{0,8})", text, re.IGNORECASE | re.ASCII)
    if match is None:
        raise typer.BadParameter(f"{text!r} is no size; write WIDTHxHEIGHT, for example 1280x720")
    return Size(int(match[1]), int(match[2]))


SizeOption = Annotated[
    Size, typer.Option("--size", parser=_to_size, metavar="WxH", help="Size of the picture.")
]
BackendOption = Annotated[Backend, typer.Option("--backend", help="What draws.")]
WindowOption = Annotated[bool, typer.Option("--window", help="Show a window.")]
VerboseOption = Annotated[
    bool,
    typer.Option("--verbose", callback=set_verbose, help="Show log messages and tracebacks."),
]


def check_folder(folder: Path, *names: str) -> None:
    """Make a folder, and raise `CommandError` unless files of these names can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (FileExistsError, NotADirectoryError) as error:
        raise CommandError(f"cannot write to {folder}: it is no folder") from error
    except OSError as error:
        raise CommandError(f"cannot write to {folder}: {error.strerror or error}") from error
    for name in names:
        path = folder / name
        if path.is_dir() or (path.exists() and not os.access(path, os.W_OK)):
            raise CommandError(f"cannot write {path}: it is a folder, or protected")


def check_png(path: Path) -> None:
    """Raise `CommandError` unless a PNG file can be written there."""
    if path.suffix.lower() != ".png":
        raise CommandError(f"cannot write {path}: pictures are PNG files, so name it something.png")
    check_folder(path.parent, path.name)


def save_png(pixels: npt.NDArray[np.uint8], path: Path) -> None:
    """Write pixels, shape (height, width, 4), as an opaque PNG file."""
    try:
        Image.fromarray(pixels[:, :, :3]).save(path)
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror or error}") from error
