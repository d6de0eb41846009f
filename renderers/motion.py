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

WORDS = INSTANCE.itemsize // 4
CHUNK = 1 << 13
"""Objects that are placed together: few enough for the processor's cache."""

Array = npt.NDArray[np.floating[Any]]


def knot(u: Array) -> tuple[Array, Array, Array, Array]:
    """Return the points of the knot, two directions across it, and how far apart points are.

    Args:
        u: Places along the knot, 0 to 2π, shape (n,).

    Returns:
        Points, normals and binormals, shape (3, n) each; the directions have unit length. Then
        the length of the knot for each unit of `u`, shape (n,). All of the dtype of `u`.
    """
    cos_long, sin_long = np.cos(2 * u), np.sin(2 * u)
    cos_short, sin_short = np.cos(3 * u), np.sin(3 * u)
    radius = RING_RADIUS + KNOT_HEIGHT * cos_short
    points, normals, binormals = (np.empty((3, len(u)), u.dtype) for _ in range(3))
    np.multiply(radius, cos_long, out=points[0])
    np.multiply(radius, sin_long, out=points[1])
    np.multiply(KNOT_HEIGHT, sin_short, out=points[2])
    np.multiply(cos_short, cos_long, out=normals[0])
    np.multiply(cos_short, sin_long, out=normals[1])
    normals[2] = sin_short
    # The tangent has this much along the ring and around it; the binormal is across both.
    turn, climb = 2 * radius, 3 * KNOT_HEIGHT
    lengths: Array = np.sqrt(turn * turn + climb * climb)
    turn /= lengths
    climbs: Array = climb / lengths
    turn_sin = turn * sin_short
    np.subtract(turn_sin * cos_long, climbs * sin_long, out=binormals[0])
    np.add(turn_sin * sin_long, climbs * cos_long, out=binormals[1])
    np.multiply(-turn, cos_short, out=binormals[2])
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
        along, around, radius, speed, size = _courses(random, random.permutation(objects), objects)
        spread = math.sqrt(objects / 2000)
        self._scale = (np.minimum(0.056 / spread, 0.18) * size).astype(np.float32)
        self._radius = (STREAM_RADIUS * radius).astype(np.float32)
        self._spin_axis = _unit_vectors(random, objects).T.astype(np.float32)
        # Angles are turns, of which only the fraction counts: 32 bits are enough for that, at any
        # time, when 64 bits have counted the whole ones.
        self._along = along / math.tau
        self._around = around / math.tau
        self._speed = 0.11 * speed / math.tau
        self._spin_phase = random.uniform(0, 0.5, objects)
        self._spin_speed = random.normal(0, 0.9, objects) / (2 * math.tau)
        self._color_metal = _colors(random, along).view(np.float32)[:, 0]
        self._columns = np.empty((WORDS, min(objects, CHUNK)), np.float32)

    def place(self, time: float, out: npt.NDArray[Any]) -> None:
        """Write where all objects are.

        Args:
            time: Seconds since the start.
            out: Records of `INSTANCE`, shape (objects,), without gaps. All of it is written, in
                order and once, and nothing is read: it may be memory that is shared with a GPU.
        """
        words = out.view(np.float32).reshape(-1, WORDS)
        for start in range(0, len(out), CHUNK):
            part = slice(start, min(start + CHUNK, len(out)))
            words[part] = self._place(time, part).T

    def _place(self, time: float, part: slice) -> npt.NDArray[np.float32]:
        """Return the words of some records, shape (words, objects)."""
        turns = self._along[part] + self._speed[part] * time
        around = _angle(self._around[part] + 2 * turns + 0.35 / math.tau * time)
        half_spin = _angle(self._spin_phase[part] + self._spin_speed[part] * time)
        points, normals, binormals, lengths = knot(_angle(turns))
        swell = 1 + 0.16 * np.sin(_angle(5 * turns - 1.3 / math.tau * time))
        # Operations on columns, each in one piece, are several times faster than on fields.
        columns = self._columns[:, : len(turns)]
        position, scale, rotation, outward = columns[:3], columns[3], columns[4:8], columns[8:11]
        np.multiply(np.cos(around), normals, out=normals)
        np.multiply(np.sin(around), binormals, out=binormals)
        np.add(normals, binormals, out=outward)
        np.add(points, self._radius[part] * swell * outward, out=position)
        # Larger where there is more room, so that the skin stays closed.
        np.multiply(self._scale[part], np.sqrt(swell * lengths), out=scale)
        np.multiply(np.sin(half_spin), self._spin_axis[:, part], out=rotation[:3])
        np.cos(half_spin, out=rotation[3])
        columns[11] = self._color_metal[part]  # four bytes that are no number; copied as they are
        return columns


def _angle(turns: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Return angles (radians) in 32 bits."""
    return ((turns - np.rint(turns)) * math.tau).astype(np.float32)


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
