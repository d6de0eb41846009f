"""The solids of the stress test, flat-shaded and about 1 in radius."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

__all__ = ["MESH_VERTEX", "Mesh", "convex_solid", "icosphere", "solids", "torus"]

MESH_VERTEX = np.dtype([("position", "f4", 3), ("normal", "f4", 3)])

Vectors = npt.NDArray[np.float64]


@attrs.frozen(eq=False)
class Mesh:
    """Triangles, counter-clockwise as seen from outside.

    Attributes:
        name: What it is.
        vertices: Records of `MESH_VERTEX`, shape (vertices,).
        indices: Three for each triangle, dtype uint32, shape (indices,).
    """

    name: str
    vertices: npt.NDArray[Any]
    indices: npt.NDArray[np.uint32]


@functools.cache
def solids() -> tuple[Mesh, ...]:
    """Return the solids that the stress test draws; made once."""
    golden = (1 + math.sqrt(5)) / 2
    icosahedron = _turned([(0, 1, golden)], cyclic=True)
    dodecahedron = np.concatenate(
        [_turned([(1, 1, 1)]), _turned([(0, 1 / golden, golden)], cyclic=True)]
    )
    bevelled_cube = _turned([(1, 1, 1.22)])
    return (
        icosphere("pearl", 1),
        convex_solid("icosahedron", icosahedron),
        convex_solid("bevelled cube", bevelled_cube),
        convex_solid("octahedron", _turned([(0, 0, 1)])),
        convex_solid("dodecahedron", dodecahedron),
        torus("ring", 0.36),
    )


def convex_solid(name: str, points: Vectors) -> Mesh:
    """Build the convex hull of a few points on a sphere, each face a flat fan.

    Args:
        name: What it is.
        points: All of them corners, shape (points, 3).
    """
    points = points / np.linalg.norm(points, axis=1, keepdims=True)
    positions: list[Vectors] = []
    normals: list[Vectors] = []
    indices: list[int] = []
    for normal, corners in _faces(points):
        first = len(positions)
        positions.extend(points[corners])
        normals.extend([normal] * len(corners))
        for corner in range(1, len(corners) - 1):
            indices.extend((first, first + corner, first + corner + 1))
    return _mesh(name, np.array(positions), np.array(normals), np.array(indices))


def icosphere(name: str, subdivisions: int) -> Mesh:
    """Build a smooth sphere: an icosahedron, each triangle split into four, and again."""
    golden = (1 + math.sqrt(5)) / 2
    coarse = convex_solid(name, _turned([(0, 1, golden)], cyclic=True))
    triangles = coarse.vertices["position"][coarse.indices].reshape(-1, 3, 3).astype(np.float64)
    for _ in range(subdivisions):
        triangles = _split(triangles)
    points = triangles.reshape(-1, 3)
    corners, indices = np.unique(points.round(6), axis=0, return_inverse=True)
    corners /= np.linalg.norm(corners, axis=1, keepdims=True)
    return _mesh(name, corners, corners, indices.reshape(-1))


def torus(name: str, tube: float, around: int = 14, across: int = 7) -> Mesh:
    """Build a smooth ring of radius ``1 - tube`` to the middle of its tube."""
    u, v = np.meshgrid(np.arange(around), np.arange(across), indexing="ij")
    longitude, latitude = math.tau * u / around, math.tau * v / across
    outward = np.stack([np.cos(longitude), np.sin(longitude), np.zeros_like(longitude)], -1)
    up = np.array([0.0, 0.0, 1.0])
    normals = np.cos(latitude)[..., None] * outward + np.sin(latitude)[..., None] * up
    positions = (1 - tube) * outward + tube * normals

    next_u, next_v = (u + 1) % around, (v + 1) % across
    here, right = u * across + v, next_u * across + v
    above, diagonal = u * across + next_v, next_u * across + next_v
    quads = np.stack([here, right, diagonal, here, diagonal, above], -1)
    return _mesh(name, positions.reshape(-1, 3), normals.reshape(-1, 3), quads.reshape(-1))


def _mesh(name: str, positions: Vectors, normals: Vectors, indices: npt.NDArray[Any]) -> Mesh:
    vertices = np.empty(len(positions), MESH_VERTEX)
    vertices["position"], vertices["normal"] = positions, normals
    return Mesh(name, vertices, indices.astype(np.uint32))


def _turned(points: list[tuple[float, float, float]], *, cyclic: bool = False) -> Vectors:
    """Return the points in every order of their coordinates (or turned only), with every sign."""
    orders = (
        ((0, 1, 2), (1, 2, 0), (2, 0, 1)) if cyclic else tuple(itertools.permutations(range(3)))
    )
    found = {
        tuple(sign * point[axis] + 0.0 for sign, axis in zip(signs, order, strict=True))
        for point in points
        for order in orders
        for signs in itertools.product((-1, 1), repeat=3)
    }
    return np.array(sorted(found), np.float64)


def _faces(points: Vectors) -> list[tuple[Vectors, npt.NDArray[np.intp]]]:
    """Find the faces of a convex hull: outward normals, and corners counter-clockwise."""
    faces: dict[tuple[int, ...], tuple[Vectors, npt.NDArray[np.intp]]] = {}
    for a, b, c in itertools.combinations(range(len(points)), 3):
        normal = np.cross(points[b] - points[a], points[c] - points[a])
        length = np.linalg.norm(normal)
        if length < 1e-9:
            continue
        normal = normal / length * np.sign(normal @ points[a] or 1.0)
        heights = points @ normal
        if heights.max() > points[a] @ normal + 1e-9:
            continue
        corners = np.flatnonzero(heights > heights.max() - 1e-9)
        faces[tuple(corners.tolist())] = (normal, _around(points, corners, normal))
    return list(faces.values())


def _around(
    points: Vectors, corners: npt.NDArray[np.intp], normal: Vectors
) -> npt.NDArray[np.intp]:
    """Sort the corners of a face counter-clockwise around its normal."""
    spokes = points[corners] - points[corners].mean(axis=0)
    right = spokes[0]
    angles = np.arctan2(spokes @ np.cross(normal, right), spokes @ right)
    return corners[np.argsort(angles)]


def _split(triangles: Vectors) -> Vectors:
    """Split each triangle, shape (n, 3, 3), into four on the unit sphere."""
    a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
    ab, bc, ca = (p / np.linalg.norm(p, axis=1, keepdims=True) for p in (a + b, b + c, c + a))
    parts = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
    return np.concatenate([np.stack(part, axis=1) for part in parts])
