"""Renderers in a window, through rendercanvas and glfw."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

import anyio

from pers import BackendUnavailableError, IFrameBuffer, IRenderDevice, TextureFormat

__all__ = ["show", "why_no_window"]


def why_no_window() -> str | None:
    """Say what keeps windows from opening here and how to mend it; None when nothing does."""
    try:
        import glfw
        import rendercanvas
    except ImportError as error:
        return f"windows need rendercanvas and glfw ({error}); pip install rendercanvas glfw"
    del rendercanvas
    if sys.platform == "linux" and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        return "no display: neither DISPLAY nor WAYLAND_DISPLAY is set; try xvfb-run"
    # Asked now, because a window that cannot be made would abort the process.
    with warnings.catch_warnings(record=True) as trouble:
        warnings.simplefilter("always")
        if glfw.init():
            return None
    return f"glfw cannot open windows: {'; '.join(str(warning.message) for warning in trouble)}"


async def show(
    device: IRenderDevice,
    draw: Callable[[IFrameBuffer], object],
    *,
    title: str,
    width: int,
    height: int,
    frames: int | None = None,
    depth_format: TextureFormat | None = None,
    sample_count: int = 1,
) -> int:
    """Open a window and draw to it until it is closed. Needs anyio's asyncio backend.

    Args:
        device: What draws.
        draw: Draws the next frame. An error closes the window and is raised here.
        title: What the window is called.
        width: First width of the picture (logical pixels).
        height: First height of the picture (logical pixels).
        frames: Close the window after so many; None leaves that to its user.
        depth_format: None draws without a depth target.
        sample_count: 1 or 4.

    Returns:
        How many frames were drawn.

    Raises:
        BackendUnavailableError: Windows cannot be opened here, or not by this backend.
        RuntimeError: Another event loop than asyncio's is running.
    """
    if reason := why_no_window():
        raise BackendUnavailableError(reason)
    from rendercanvas.glfw import RenderCanvas
    from rendercanvas.utils.asyncs import detect_current_async_lib

    if detect_current_async_lib() != "asyncio":
        raise RuntimeError("rendercanvas drives windows by asyncio; use anyio's asyncio backend")
    # Made while an event loop runs, the canvas lives in that loop, beside all other tasks.
    canvas = RenderCanvas(
        title=title, size=(width, height), update_mode="continuous", max_fps=240, vsync=True
    )
    try:
        window = _Window(device, canvas, draw, frames)
        window.surface.configure(depth_format=depth_format, sample_count=sample_count)
        closed = anyio.Event()
        canvas.add_event_handler(lambda _: closed.set(), "close")
        canvas.request_draw(window.draw_frame)
        await closed.wait()
    finally:
        canvas.close()
    if window.error is not None:
        raise window.error
    return window.drawn


class _Window:
    """What happens each time that a window wants a frame."""

    def __init__(
        self,
        device: IRenderDevice,
        canvas: Any,
        draw: Callable[[IFrameBuffer], object],
        frames: int | None,
    ) -> None:
        self.surface = device.create_surface(canvas)
        self.drawn = 0
        self.error: Exception | None = None
        self._canvas = canvas
        self._draw = draw
        self._frames = frames

    def draw_frame(self) -> None:
        """Draw and present; rendercanvas would log an error and go on, so it is kept."""
        if self.error is not None or self.drawn == self._frames:
            return
        try:
            target = self.surface.acquire()
            if target is None:  # minimised, or being made again
                return
            self._draw(target)
            self.surface.present()
            self.drawn += 1
        except Exception as error:
            self.error = error
        if self.error is not None or self.drawn == self._frames:
            self._canvas.close()
