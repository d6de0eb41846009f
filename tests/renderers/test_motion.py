"""Where the objects go."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from renderers.camera import camera_uniform
from renderers.motion import CHUNK, INSTANCE, Swarm, knot
from renderers.sky import paint_sky


def placed(objects: int, seed: int, time: float) -> np.ndarray:
    out = np.frombuffer(bytearray(b"\xff" * objects * INSTANCE.itemsize), INSTANCE).copy()
    Swarm(objects, 6, seed).place(time, out)
    return out


def test_knot_is_closed_and_its_directions_are_across_it() -> None:
    u = np.linspace(0, math.tau, 400)
    points, normals, binormals, lengths = knot(u)
    np.testing.assert_allclose(points[:, 0], points[:, -1], atol=1e-12)
    for directions in (normals, binormals):
        np.testing.assert_allclose(np.linalg.norm(directions, axis=0), 1, atol=1e-12)
    step = 1e-6
    moved = (knot(u + step)[0] - points) / step
    np.testing.assert_allclose(np.linalg.norm(moved, axis=0), lengths, rtol=1e-4)
    np.testing.assert_allclose((normals * moved).sum(0), 0, atol=1e-4)
    np.testing.assert_allclose((binormals * moved).sum(0), 0, atol=1e-4)
    np.testing.assert_allclose((binormals * normals).sum(0), 0, atol=1e-12)


@given(objects=st.integers(1, 300), seed=st.integers(0, 2**32), time=st.floats(0, 1e4))
def test_every_instance_is_sound(objects: int, seed: int, time: float) -> None:
    instances = placed(objects, seed, time)
    assert np.isfinite(instances["position_scale"]).all()
    assert (instances["position_scale"][:, 3] > 0).all()
    np.testing.assert_allclose(np.linalg.norm(instances["rotation"], axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(instances["outward"], axis=1), 1, atol=1e-5)


def test_large_swarms_are_placed_in_parts() -> None:
    """Every object is where it is alone, whatever part it is placed with."""
    objects = 2 * CHUNK + 5
    swarm = Swarm(objects, 6, 3)
    out = np.zeros(objects, INSTANCE)
    swarm.place(2.5, out)
    for part in (slice(0, 1), slice(CHUNK - 1, CHUNK + 1), slice(2 * CHUNK, objects)):
        alone = swarm._place(2.5, part)
        np.testing.assert_allclose(alone[:3].T, out["position_scale"][part, :3], atol=1e-5)
        np.testing.assert_allclose(alone[8:11].T, out["outward"][part], atol=1e-5)
    assert len(np.unique(out["color_metal"], axis=0)) > 1000


def test_no_time_is_too_late_for_small_steps() -> None:
    """Angles lose no precision, so motion stays as smooth as it was at the start."""
    swarm = Swarm(500, 6, 1)
    out = np.zeros((2, 500), INSTANCE)

    def step(time: float) -> float:
        swarm.place(time, out[0])
        swarm.place(time + 1e-3, out[1])
        position = out["position_scale"][..., :3].astype(np.float64)
        return float(np.linalg.norm(position[1] - position[0], axis=1).max())

    assert step(1e6) < 1.5 * max(step(time) for time in (0.0, 1.0, 2.0, 3.0, 4.0, 5.0))


def test_seed_and_time_decide_everything() -> None:
    assert placed(50, 3, 1.5).tobytes() == placed(50, 3, 1.5).tobytes()
    assert placed(50, 3, 1.5).tobytes() != placed(50, 4, 1.5).tobytes()
    assert placed(50, 3, 1.5).tobytes() != placed(50, 3, 1.6).tobytes()


def test_kinds_are_counted() -> None:
    counts = Swarm(1000, 6, 1).counts
    assert sum(counts) == 1000
    assert min(counts) > 100
    assert sum(Swarm(1, 6, 1).counts) == 1


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (300, 900), (64, 64)])
def test_camera_sees_the_middle_and_its_own_frame(width: int, height: int) -> None:
    camera = camera_uniform(2.0, width, height)
    matrix = camera["view_projection"].T.astype(np.float64)
    middle = matrix @ [0, 0, 0, 1]
    np.testing.assert_allclose(middle[:2] / middle[3], 0, atol=1e-5)
    assert 0 < middle[2] / middle[3] < 1
    corner = camera["eye"][:3] + 7 * (
        camera["forward"][:3] + camera["right"][:3] + camera["up"][:3]
    )
    seen = matrix @ [*corner, 1]
    np.testing.assert_allclose(seen[:2] / seen[3], [1, 1], atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(camera["lamps"][:, :3], axis=1), 1, atol=1e-5)


def test_sky_is_the_same_in_one_piece_and_in_bands() -> None:
    size = 64
    whole = np.zeros((size, size, 4), np.uint8)
    for first in range(0, size, 16):
        paint_sky(whole[first : first + 16], first, seed=5)
    again = np.zeros((16, size, 4), np.uint8)
    paint_sky(again, 32, seed=5)
    assert np.array_equal(again, whole[32:48])
    assert (whole[..., 3] == 255).all()
    assert len(np.unique(whole[..., :3].reshape(-1, 3), axis=0)) > 100
    other = np.zeros_like(again)
    paint_sky(other, 32, seed=6)
    assert not np.array_equal(again, other)
