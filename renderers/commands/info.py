"""``pers info``."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import attrs
import typer
from rich.console import Console
from rich.table import Table

import pers
from pers import DeviceInfo, IRenderDevice, PersError, list_adapters, open_device
from renderers.commands.options import CommandError, VerboseOption
from renderers.report import json_ready
from renderers.window import why_no_window

__all__ = ["show_info"]

PACKAGES = ("wgpu", "numpy", "rendercanvas", "glfw", "anyio", "attrs", "typer", "rich", "pillow")
OPTIONAL_FEATURES = {
    "timestamp-query": "GPU timestamps",
    "mappable-primary-buffers": "uploads without a copy, on GPUs that share the CPU's memory",
}


@attrs.frozen
class Part:
    """A part of pers, and whether it works on this machine.

    Attributes:
        name: What it is.
        works: Whether it works.
        detail: How, or what is missing and how to install it.
        required: Whether pers is of little use without it.
    """

    name: str
    works: bool
    detail: str
    required: bool = False


def show_info(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    verbose: VerboseOption = False,
) -> None:
    """Show what this machine has: adapters, driver, limits, features, and what works."""
    adapters, device, trouble = _look()
    parts = [_webgpu_part(device, trouble), _null_part(), _window_part(), *_feature_parts(device)]
    report = {
        "pers": pers.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "adapters": [json_ready(adapter) for adapter in adapters],
        "device": None if device is None else _describe(device),
        "parts": [attrs.asdict(part) for part in parts],
    }
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        _print(report, adapters, parts)
    if device is not None:
        device.close()
    for part in parts:
        if part.required and not part.works:
            raise CommandError(part.detail)


def _look() -> tuple[list[DeviceInfo], IRenderDevice | None, str]:
    """Find the adapters and open the best; return what went wrong as text."""
    adapters: list[DeviceInfo] = []
    try:
        adapters = list_adapters()
        return adapters, open_device(), ""
    except PersError as error:
        return adapters, None, str(error)


def _webgpu_part(device: IRenderDevice | None, trouble: str) -> Part:
    name = "webgpu backend"
    if device is None:
        return Part(name, False, trouble, required=True)
    return Part(name, True, f"{device.info.name}, {device.info.driver}", required=True)


def _null_part() -> Part:
    with open_device("null") as device:
        return Part("null backend", True, f"{device.info.name}: copies and clears, runs no shaders")


def _window_part() -> Part:
    reason = why_no_window()
    return Part("windows", reason is None, reason or "rendercanvas and glfw, and a display")


def _feature_parts(device: IRenderDevice | None) -> list[Part]:
    """Say which optional features the GPU has. They are off until a device is opened with them."""
    if device is None:
        return []
    has = device.info.features
    lacks = "this GPU or its driver lacks it: "
    return [
        Part(feature, feature in has, what if feature in has else lacks + what)
        for feature, what in OPTIONAL_FEATURES.items()
    ]


def _describe(device: IRenderDevice) -> dict[str, Any]:
    return {**json_ready(device.info), "limits": attrs.asdict(device.limits)}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _print(report: dict[str, Any], adapters: list[DeviceInfo], parts: list[Part]) -> None:
    console = Console()
    packages = ", ".join(
        f"{name} {number}" for name, number in report["packages"].items() if number
    )
    console.print(
        f"[bold]pers {report['pers']}[/] on Python {report['python']}, {report['platform']}"
    )
    console.print(packages, highlight=False)
    console.print(_table("Adapters", ("name", "kind", "API", "driver"), [
        (adapter.name, adapter.kind, adapter.api, adapter.driver) for adapter in adapters
    ]))  # fmt: skip
    console.print(_table("What works", ("part", "", ""), [
        (part.name, "[green]yes[/]" if part.works else "[yellow]no[/]", part.detail)
        for part in parts
    ]))  # fmt: skip
    if device := report["device"]:
        limits = [(name, f"{value:,}") for name, value in device["limits"].items()]
        console.print(_table(f"Limits of {device['name']}", ("limit", "value"), limits))
        features = ", ".join(device["features"]) or "none"
        console.print(f"[bold]Features that it can be opened with[/] {features}", highlight=False)


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    return table
