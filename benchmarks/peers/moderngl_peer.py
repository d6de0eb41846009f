"""moderngl: OpenGL through EGL, without a window."""

from __future__ import annotations

import importlib
from typing import Any

from benchmarks.peers import PeerMissingError, same_gpu

__all__ = ["ModernGL"]

GPUS_TO_TRY = 8


class ModernGL:
    """A moderngl context on the GPU that pers uses."""

    def __init__(self, gpu_name: str) -> None:
        """Make a context.

        Raises:
            PeerMissingError: It is not installed, or OpenGL does not run on that GPU.
        """
        try:
            moderngl: Any = importlib.import_module("moderngl")
        except ImportError as error:
            raise PeerMissingError(f"not installed ({error})") from error
        self.module: Any = moderngl
        self.context: Any = _find_context(moderngl, gpu_name)
        self.description = (
            f"{self.context.info['GL_RENDERER']}, OpenGL {self.context.info['GL_VERSION']}"
        )

    def close(self) -> None:
        """Give the context back."""
        self.context.release()


def _find_context(moderngl: Any, gpu_name: str) -> Any:
    """Ask EGL for one GPU after the other until it is the one that pers uses."""
    others: list[str] = []
    problem: Exception | None = None
    for number in range(GPUS_TO_TRY):
        try:
            context = moderngl.create_context(standalone=True, backend="egl", device_index=number)
        except Exception as error:
            problem = error
            break
        renderer = context.info["GL_RENDERER"]
        if same_gpu(gpu_name, renderer):
            return context
        others.append(renderer)
        context.release()
    if others:
        raise PeerMissingError(f"EGL offers {', '.join(others)}, and not {gpu_name}")
    raise PeerMissingError(f"no OpenGL context through EGL: {problem}")
