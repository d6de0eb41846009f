"""The camera of the stress test."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["CAMERA", "camera_uniform"]

CAMERA = np.dtype(
    [
        ("view_projection", "f4", (4, 4)),  # column by column, as WGSL has it
        ("eye", "f4", 4),  # x, y, z, time in seconds
        ("right", "f4", 4),  # to the right edge of the picture at distance 1; w: width in pixels
        ("up", "f4", 4),  # to its upper edge; w: height in pixels
        ("forward", "f4", 4),  # unit length; w: distance of what is looked at
        ("lamps", "f4", (3, 4)),  # towards the key light, the rim light and the strip light
    ]
)

LAMPS = np.array([(0.55, 0.75, 0.45), (-0.6, 0.25, -0.75), (-0.9, 0.15, 0.35)])
"""The lamps move with the camera: to the right, up and towards the viewer."""

DISTANCE = 11.2
FIELD_OF_VIEW = math.radians(36)
WIDEST_SUBJECT = 1.45
"""Pictures narrower than this (width / height) see more above and below instead of cutting off."""
NEAR, FAR = 0.5, 60.0


def camera_uniform(time: float, width: int, height: int) -> npt.NDArray[Any]:
    """Return the camera on its slow orbit: one record of `CAMERA`, shape ().

    Args:
        time: Seconds since the start.
        width: Width of the picture (pixels).
        height: Height of the picture (pixels).
    """
    turn = 0.62 + 0.09 * time
    tilt = math.radians(30) + 0.07 * math.sin(0.21 * time)
    eye = DISTANCE * np.array(
        [math.sin(tilt) * math.cos(turn), math.sin(tilt) * math.sin(turn), math.cos(tilt)]
    )
    forward = -eye / DISTANCE
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)

    aspect = width / height
    tangent = math.tan(FIELD_OF_VIEW / 2) * max(1.0, WIDEST_SUBJECT / aspect)
    result = np.zeros((), CAMERA)
    result["view_projection"] = (_projection(tangent, aspect) @ _view(eye, right, up, forward)).T
    result["eye"] = (*eye, time)
    result["right"] = (*(right * tangent * aspect), width)
    result["up"] = (*(up * tangent), height)
    result["forward"] = (*forward, DISTANCE)
    lamps = LAMPS @ np.array([right, up, -forward])
    result["lamps"][:, :3] = lamps / np.linalg.norm(lamps, axis=1, keepdims=True)
    return result


def _view(eye: Any, right: Any, up: Any, forward: Any) -> npt.NDArray[np.float64]:
    matrix = np.eye(4)
    matrix[:3, :3] = right, up, -forward
    matrix[:3, 3] = -matrix[:3, :3] @ eye
    return matrix


def _projection(tangent: float, aspect: float) -> npt.NDArray[np.float64]:
    """Depth 0 at `NEAR` and 1 at `FAR`, as WebGPU clips."""
    depth = FAR / (NEAR - FAR)
    return np.array(
        [
            [1 / (tangent * aspect), 0, 0, 0],
            [0, 1 / tangent, 0, 0],
            [0, 0, depth, NEAR * depth],
            [0, 0, -1, 0],
        ]
    )
