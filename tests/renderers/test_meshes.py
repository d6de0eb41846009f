"""The solids are closed, face outwards and have a radius of about 1."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from renderers.meshes import Mesh, icosphere, solids, torus

MESHES = solids()


def corners(mesh: Mesh) -> np.ndarray:
    """Positions of the corners of each triangle, shape (triangles, 3, 3)."""
    return mesh.vertices["position"][mesh.indices].reshape(-1, 3, 3).astype(np.float64)


@pytest.mark.parametrize("mesh", MESHES, ids=lambda mesh: mesh.name)
def test_faces_outwards(mesh: Mesh) -> None:
    triangles = corners(mesh)
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    assert (np.linalg.norm(normals, axis=1) > 1e-4).all()
    shading = mesh.vertices["normal"][mesh.indices].reshape(-1, 3, 3)
    assert ((normals[:, None] * shading).sum(-1) > 0).all()
    np.testing.assert_allclose(np.linalg.norm(mesh.vertices["normal"], axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("mesh", MESHES, ids=lambda mesh: mesh.name)
def test_is_closed(mesh: Mesh) -> None:
    """Every edge belongs to two triangles, which run along it in opposite directions."""
    edges: Counter[tuple[bytes, bytes]] = Counter()
    for triangle in corners(mesh).round(4) + 0.0:
        ends = [corner.tobytes() for corner in triangle]
        edges.update(zip(ends, ends[1:] + ends[:1], strict=True))
    assert all(count == 1 for count in edges.values())
    assert all((end, start) in edges for start, end in edges)


@pytest.mark.parametrize("mesh", MESHES, ids=lambda mesh: mesh.name)
def test_has_a_radius_of_one(mesh: Mesh) -> None:
    radius = np.linalg.norm(mesh.vertices["position"], axis=1).max()
    assert radius == pytest.approx(1, abs=1e-5)


def test_numbers_of_faces_are_the_textbooks() -> None:
    triangles = {mesh.name: len(mesh.indices) // 3 for mesh in MESHES}
    assert triangles["octahedron"] == 8
    assert triangles["icosahedron"] == 20
    assert triangles["dodecahedron"] == 12 * 3
    assert triangles["bevelled cube"] == 6 * 2 + 12 * 2 + 8
    assert len(icosphere("sphere", 2).indices) // 3 == 20 * 4**2
    assert len(torus("ring", 0.3, 8, 5).indices) // 3 == 8 * 5 * 2
