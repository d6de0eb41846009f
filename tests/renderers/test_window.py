"""What happens to frames of a window; real windows are opened by tests/test_cli.py."""

from __future__ import annotations

from typing import Any

import pytest

from pers import BackendUnavailableError, IRenderDevice
from renderers.window import _Window, show, why_no_window


class Surface:
    """Gives out frames by a list; None is a minimised window."""

    def __init__(self, frames: list[Any]) -> None:
        self.frames = frames
        self.presented = 0

    def acquire(self) -> Any:
        return self.frames.pop(0)

    def present(self) -> None:
        self.presented += 1


class Canvas:
    closed = False

    def close(self) -> None:
        self.closed = True


class Device:
    def __init__(self, frames: list[Any]) -> None:
        self.surface = Surface(frames)

    def create_surface(self, canvas: Any) -> Surface:
        return self.surface


def make(frames: list[Any], draw: Any, limit: int | None) -> tuple[_Window, Device, Canvas]:
    device, canvas = Device(frames), Canvas()
    return _Window(device, canvas, draw, limit), device, canvas  # type: ignore[arg-type]


def test_skips_frames_while_minimised_and_closes_after_the_last() -> None:
    drawn: list[Any] = []
    window, device, canvas = make(["a", None, None, "b", "c"], drawn.append, 2)
    for _ in range(6):
        window.draw_frame()
    assert drawn == ["a", "b"]
    assert device.surface.presented == 2
    assert canvas.closed
    assert device.surface.frames == ["c"]


def test_an_error_closes_the_window_and_is_kept() -> None:
    def draw(target: Any) -> None:
        raise ValueError("broken")

    window, device, canvas = make(["a", "b"], draw, None)
    window.draw_frame()
    window.draw_frame()
    assert canvas.closed
    assert str(window.error) == "broken"
    assert device.surface.frames == ["b"]


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_no_display_is_said(
    null_device: IRenderDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert "no display" in (why_no_window() or "")
    with pytest.raises(BackendUnavailableError, match="no display"):
        await show(null_device, print, title="", width=8, height=8)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_other_event_loops_are_refused(
    null_device: IRenderDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("renderers.window.why_no_window", lambda: None)
    with pytest.raises(RuntimeError, match="asyncio"):
        await show(null_device, print, title="", width=8, height=8)
