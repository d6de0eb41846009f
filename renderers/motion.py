"""Where the objects of the stress test are: a stream along a torus knot, in vectorised NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["INSTANCE", "Swarm", "knot"]

INSTANCE = np.dtype(
    [
        ("position_scale", "f4", 4),  # x, y, z, radius
        ("rotation", "f4", 4),  # unit quaternion x, y, z, w
        ("outward", "f4", 3),  # away from the middle of the stream, unit length
        ("color_metal", "u1", 4),  # sRGB colour, and 0 (porcelain) to 255 (metal)
    ]
)

RING_RADIUS = 2.0
KNOT_HEIGHT = 1.02
STREAM_RADIUS = 0.44
SKIN, MIST = 0.78, 0.12
"""Which parts of the objects cover the stream and float above it; the rest is dust."""
GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))

PALETTE = ("f7e8d2", "ffb47c", "f8715f", "c94b93", "7d55c7", "5a78dc", "3fb0c4", "a4e0cd")
"""Colours along the knot, which is closed, as they are."""

Array = npt.NDArray[np.floating[Any]]


def knot(u: Array) -> tuple[Array, Array, Array, Array]:
    """Return the points of the knot, two directions across it, and how far apart points are.

    Args:
        u: Places along the knot, 0 to 2π, shape (n,).

    Returns:
        Points, normals and binormals, shape (n, 3) each; the directions have unit length. Then
        the length of the knot for each unit of `u`, shape (n,).
    """
    long_way, short_way = 2 * u, 3 * u
    cos_long, sin_long = np.cos(long_way), np.sin(long_way)
    cos_short, sin_short = np.cos(short_way), np.sin(short_way)
    radius = RING_RADIUS + KNOT_HEIGHT * cos_short
    points = np.stack([radius * cos_long, radius * sin_long, KNOT_HEIGHT * sin_short], -1)
    normals = np.stack([cos_short * cos_long, cos_short * sin_long, sin_short], -1)
    turn, climb = 2 * radius, 3 * KNOT_HEIGHT
    tangents = np.stack(
        [
            -turn * sin_long - climb * sin_short * cos_long,
            turn * cos_long - climb * sin_short * sin_long,
            climb * cos_short,
        ],
        -1,
    )
    lengths: Array = np.linalg.norm(tangents, axis=1)
    binormals: Array = np.cross(tangents / lengths[:, None], normals)
    return points, normals, binormals, lengths


class Swarm:
    """Objects of several kinds, sorted by kind, each with its own course."""

    def __init__(self, objects: int, kinds: int, seed: int) -> None:
        """Choose the course of every object.

        Args:
            objects: How many.
            kinds: How many kinds they are spread over.
            seed: Equal seeds give equal courses.
        """
        random = np.random.default_rng(seed)
        kind = np.sort(random.integers(0, kinds, objects))
        self.counts: tuple[int, ...] = tuple(
            int(count) for count in np.bincount(kind, minlength=kinds)
        )
        """How many objects of each kind there are."""

        # Shuffled, so that every kind is everywhere.
        self._along, self._around, self._radius, self._speed, size = _courses(
            random, random.permutation(objects), objects
        )
        spread = math.sqrt(objects / 2000)
        self._scale = np.minimum(0.056 / spread, 0.18) * size
        self._spin_axis = _unit_vectors(random, objects)
        self._spin_phase = random.uniform(0, math.tau, objects)
        self._spin_speed = random.normal(0, 0.9, objects)
        self._color_metal = _colors(random, self._along)

    def place(self, time: float, out: npt.NDArray[Any]) -> None:
        """Write where all objects are.

        Args:
            time: Seconds since the start.
            out: Records of `INSTANCE`, shape (objects,); all of it is written.
        """
        along = self._along + 0.11 * self._speed * time
        around = self._around + 2 * along + 0.35 * time
        points, normals, binormals, lengths = knot(along)
        outward = np.cos(around)[:, None] * normals + np.sin(around)[:, None] * binormals
        swell = 1 + 0.16 * np.sin(5 * along - 1.3 * time)
        distance = STREAM_RADIUS * self._radius * swell
        out["position_scale"][:, :3] = points + distance[:, None] * outward
        # Larger where there is more room, so that the skin stays closed.
        out["position_scale"][:, 3] = self._scale * np.sqrt(swell * lengths)
        half_angle = 0.5 * (self._spin_phase + self._spin_speed * time)
        out["rotation"][:, :3] = np.sin(half_angle)[:, None] * self._spin_axis
        out["rotation"][:, 3] = np.cos(half_angle)
        out["outward"] = outward
        out["color_metal"] = self._color_metal


def _courses(
    random: np.random.Generator, place: npt.NDArray[np.intp], objects: int
) -> tuple[Array, Array, Array, Array, Array]:
    """Choose where the objects start, in three layers: a skin, a mist above it, and stray dust.

    Returns:
        Place along the knot, angle around it, distance from it (1 is the skin's), speed and size,
        shape (objects,) each.
    """
    skin, mist = place < SKIN * objects, place < (SKIN + MIST) * objects
    # A sunflower's lattice, rolled up, covers the skin evenly.
    lattice = math.tau * (place + 0.5) / max(SKIN * objects, 1)
    along = np.where(skin, lattice, random.uniform(0, math.tau, objects))
    around = GOLDEN_ANGLE * place
    radius = np.select(
        [skin, mist],
        [random.normal(1.0, 0.02, objects), 1.15 + random.exponential(0.3, objects)],
        1.6 + random.exponential(1.5, objects),
    )
    speed = np.select(
        [skin, mist],
        [np.ones(objects), random.normal(1.5, 0.2, objects)],
        random.normal(0.7, 0.5, objects),
    )
    size = np.select(
        [skin, mist],
        [random.uniform(0.82, 1.2, objects), random.uniform(0.22, 0.5, objects)],
        random.uniform(0.08, 0.26, objects),
    )
    return along, around, radius, speed, size


def _colors(random: np.random.Generator, along: Array) -> npt.NDArray[np.uint8]:
    """Choose colours from the palette by the place along the knot, some of them metal."""
    objects = len(along)
    palette = np.array([tuple(bytes.fromhex(color)) for color in PALETTE], np.float64)
    place = (along / math.tau * len(palette) + random.normal(0, 0.45, objects)) % len(palette)
    low = place.astype(np.intp) % len(palette)
    blend = (place - np.floor(place))[:, None]
    color = (1 - blend) * palette[low] + blend * palette[(low + 1) % len(palette)]
    color *= random.uniform(0.82, 1.1, (objects, 1))
    metal = np.where(random.random(objects) < 0.3, random.uniform(0.6, 1, objects), 0.0)
    result = np.empty((objects, 4), np.uint8)
    result[:, :3] = np.clip(color, 0, 255)
    result[:, 3] = 255 * metal
    return result


def _unit_vectors(random: np.random.Generator, count: int) -> Array:
    vectors: Array = random.normal(size=(count, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors
