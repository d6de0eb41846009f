"""The sky of the stress test: a panorama that is painted row by row while frames go on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["paint_sky"]

Array = npt.NDArray[np.floating[Any]]

ZENITH, HORIZON, NADIR = (0.010, 0.014, 0.040), (0.022, 0.020, 0.060), (0.004, 0.005, 0.014)
CLOUDS = (
    # Where (x, y, z), how wide (radians), and the colour in its middle (linear light).
    ((-0.75, -0.55, -0.85), 0.50, (0.050, 0.014, 0.050)),
    ((-0.15, -0.75, -0.75), 0.36, (0.085, 0.024, 0.030)),
    ((-0.80, 0.30, -0.70), 0.45, (0.008, 0.040, 0.070)),
    ((0.40, 0.80, 0.30), 0.70, (0.030, 0.160, 0.190)),
    ((0.70, -0.30, 0.65), 0.60, (0.340, 0.220, 0.160)),
)


def paint_sky(rows: npt.NDArray[np.uint8], first_row: int, seed: int) -> None:
    """Paint some rows of the panorama: an octahedron unfolded to a square, z up in its middle.

    Args:
        rows: Pixels to write: square roots of linear light, and opaque; shape (rows, size, 4).
        first_row: Which row of the panorama the first of them is.
        seed: Equal seeds give equal skies.
    """
    count, size = rows.shape[:2]
    direction = _directions(first_row, count, size)
    color = _gradient(direction[2])
    warped = _turbulence(direction, seed)
    veil = 0.675 + 0.325 * np.sin(2.2 * warped[0] + 1.4 * warped[1])
    # Warped a little, so that the clouds fray; the plain direction keeps them in place.
    frayed = 0.86 * direction + 0.14 * warped
    for center, spread, tint in CLOUDS:
        x, y, z = (part / math.hypot(*center) for part in center)
        near = x * frayed[0] + y * frayed[1] + z * frayed[2]
        color += _column(tint) * (veil * np.exp((near - 1) / (spread * spread)))
    # Noise of one step hides the steps of 8 bits.
    grain = np.random.default_rng((seed, first_row)).random((count, size), np.float32)
    rows[..., :3] = np.moveaxis(255 * np.sqrt(color) + grain, 0, -1).clip(0, 255)
    rows[..., 3] = 255


def _directions(first_row: int, count: int, size: int) -> Array:
    """Fold the square to an octahedron; return unit vectors, shape (3, count, size)."""
    places = ((np.arange(size) + 0.5) * 2 / size - 1).astype(np.float32)
    x = np.broadcast_to(places, (count, size))
    y = places[first_row : first_row + count, None]
    z = 1 - np.abs(x) - np.abs(y)
    fold = np.maximum(-z, 0)
    octahedron = np.stack([x - np.sign(x) * fold, y - np.sign(y) * fold, z])
    octahedron /= np.sqrt(np.square(octahedron).sum(axis=0))
    return octahedron


def _gradient(up: Array) -> Array:
    zenith, horizon, nadir = (_column(color) for color in (ZENITH, HORIZON, NADIR))
    above, below = np.clip(up, 0, 1) ** 0.6, np.clip(-up, 0, 1) ** 0.6
    return horizon + (zenith - horizon) * above + (nadir - horizon) * below


def _turbulence(direction: Array, seed: int) -> Array:
    """Bend the directions again and again: smooth, without seams, and different by `seed`."""
    phases: list[float] = np.random.default_rng(seed).uniform(0, math.tau, 6).tolist()
    point = 2.0 * direction
    for octave, phase in enumerate(phases):
        frequency = 1.45**octave
        point = point + 0.55 / frequency * np.sin(frequency * point[[1, 2, 0]] + phase)
    return point / 2.0


def _column(color: tuple[float, float, float]) -> Array:
    return np.array(color, np.float32)[:, None, None]
