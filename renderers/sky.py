"""The sky of the stress test: a panorama that is painted row by row while frames go on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["paint_sky"]

Array = npt.NDArray[Any]

ZENITH, HORIZON, NADIR = (0.012, 0.016, 0.05), (0.045, 0.03, 0.1), (0.006, 0.006, 0.018)
CLOUDS = (
    # Where (x, y, z), how wide (radians), and the colour in its middle (linear light).
    ((-0.75, -0.55, -0.35), 0.55, (0.20, 0.055, 0.17)),
    ((-0.35, -0.85, -0.55), 0.42, (0.30, 0.09, 0.08)),
    ((-0.9, 0.1, -0.6), 0.5, (0.03, 0.09, 0.20)),
    ((0.4, 0.8, 0.3), 0.7, (0.05, 0.16, 0.19)),
    ((0.7, -0.3, 0.65), 0.6, (0.34, 0.22, 0.16)),
)


def paint_sky(rows: npt.NDArray[np.uint8], first_row: int, seed: int) -> None:
    """Paint some rows of the panorama: an octahedron unfolded to a square, z up in its middle.

    Args:
        rows: Pixels to write: sRGB and opaque, shape (rows, size, 4).
        first_row: Which row of the panorama the first of them is.
        seed: Equal seeds give equal skies.
    """
    count, size = rows.shape[:2]
    direction = _directions(first_row, count, size)
    color = _gradient(direction[2])
    warped = _turbulence(direction, seed)
    veil = 0.5 + 0.5 * np.sin(2.2 * warped[0] + 1.4 * warped[1])
    for center, spread, tint in CLOUDS:
        unit = np.array(center) / np.linalg.norm(center)
        # Warped a little, so that the clouds fray; the unwarped direction keeps them in place.
        near = np.tensordot(unit, 0.86 * direction + 0.14 * warped, axes=1)
        strength = np.exp((near - 1) / (spread * spread)) * (0.35 + 0.65 * veil)
        color += np.array(tint)[:, None, None] * strength
    # Noise of one step hides the steps of 8 bits.
    grain = np.random.default_rng((seed, first_row)).random((count, size))
    rows[..., :3] = np.moveaxis(255 * _encode_srgb(color) + grain, 0, -1).clip(0, 255)
    rows[..., 3] = 255


def _directions(first_row: int, count: int, size: int) -> Array:
    """Fold the square to an octahedron; return unit vectors, shape (3, count, size)."""
    x = np.broadcast_to((np.arange(size) + 0.5) * 2 / size - 1, (count, size))
    y = ((first_row + np.arange(count) + 0.5) * 2 / size - 1)[:, None]
    z = 1 - np.abs(x) - np.abs(y)
    fold = np.maximum(-z, 0)
    octahedron = np.stack([x - np.sign(x) * fold, y - np.sign(y) * fold, z])
    return octahedron / np.linalg.norm(octahedron, axis=0)


def _gradient(up: Array) -> Array:
    zenith, horizon, nadir = (np.array(color)[:, None, None] for color in (ZENITH, HORIZON, NADIR))
    above, below = np.clip(up, 0, 1) ** 0.6, np.clip(-up, 0, 1) ** 0.6
    return horizon + (zenith - horizon) * above + (nadir - horizon) * below


def _turbulence(direction: Array, seed: int) -> Array:
    """Bend the directions again and again: smooth, without seams, and different by `seed`."""
    phases = np.random.default_rng(seed).uniform(0, math.tau, 6)
    point = 2.0 * direction
    for octave, phase in enumerate(phases):
        frequency = 1.45**octave
        point = point + 0.55 / frequency * np.sin(frequency * point[[1, 2, 0]] + phase)
    return point / 2.0


def _encode_srgb(linear: Array) -> Array:
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
