"""Sizes in bytes, as points and as text."""

from __future__ import annotations

from benchmarks.core import Point, Scale

__all__ = ["KIB", "MIB", "show_bytes", "size_points"]

KIB, MIB = 1024, 1024 * 1024

QUICK = (KIB, 4 * KIB, MIB)
FULL = tuple(KIB * 4**step for step in range(10))
"""1 KiB to 256 MiB."""


def size_points(scale: Scale, most: int = FULL[-1]) -> list[Point]:
    """Return the points of a benchmark over sizes."""
    sizes = QUICK if scale.quick else FULL
    return [Point(show_bytes(size), size) for size in sizes if size <= most]


def show_bytes(count: float) -> str:
    """Return "64 KiB", say."""
    for unit in ("B", "KiB", "MiB"):
        if abs(count) < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} GiB"
