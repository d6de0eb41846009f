"""The renderers' shaders, as WGSL files beside this module."""

from __future__ import annotations

from importlib.resources import files

__all__ = ["load"]


def load(*names: str) -> str:
    """Return the shaders ``NAME.wgsl``, one after the other, as the code of one module."""
    folder = files(__name__)
    return "\n".join((folder / f"{name}.wgsl").read_text(encoding="utf-8") for name in names)
