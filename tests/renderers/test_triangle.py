"""The triangle, pixel by pixel, against a rasteriser in NumPy that follows the same rules."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from pers import IRenderDevice, TextureFormat, ValidationError
from renderers.triangle import CLEAR_COLOR, VERTICES, TriangleRenderer, frame_uniform

TOLERANCE = 1
"""Steps of 8 bits that a pixel may differ by: the last bit of a rounding to sRGB."""

EDGE = 1.5 / 256
"""Pixels whose centre is so close to an edge (in pixels) are not compared: GPUs place vertices on a
grid of 1/256 pixel, which moves an edge by up to that much and the pixel in or out."""

SIZES_AND_FRAMES = [(64, 64, 0), (96, 64, 17), (61, 83, 100), (256, 192, 219), (200, 120, 60)]


class Reference(NamedTuple):
    """What the picture should be: sRGB pixels, which are inside, and which are not sure."""

    pixels: npt.NDArray[np.int64]  # (height, width, 4)
    inside: npt.NDArray[np.bool_]  # (height, width)
    unsure: npt.NDArray[np.bool_]  # (height, width)


def encode_srgb(linear: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Convert linear light, 0 to 1, to sRGB of 8 bits (IEC 61966-2-1)."""
    values = np.clip(np.asarray(linear, np.float64), 0, 1)
    encoded = np.where(values <= 0.0031308, 12.92 * values, 1.055 * values ** (1 / 2.4) - 0.055)
    return np.rint(255 * encoded).astype(np.int64)


def corners_in_pixels(frame: npt.NDArray[Any], width: int, height: int) -> npt.NDArray[np.float64]:
    """Do what the vertex shader and the viewport do; y goes down, as rows do."""
    cosine, sine = frame["rotation"].astype(np.float64)
    turned = VERTICES["position"].astype(np.float64) @ np.array([[cosine, sine], [-sine, cosine]])
    turned[:, 0] /= frame["aspect"]
    return (turned * [1, -1] + 1) / 2 * [width, height]


def rasterise(frame_number: int, width: int, height: int) -> Reference:
    """Draw the triangle: pixel centres, top-left rule, colours interpolated in linear light."""
    frame = frame_uniform(frame_number, width, height)
    corners = corners_in_pixels(frame, width, height)
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    inside = np.ones((height, width), bool)
    distances = []
    weights = []
    for i in range(3):
        start, end = corners[(i + 1) % 3], corners[(i + 2) % 3]
        along = end - start
        # Twice the area of the triangle of this edge and the pixel centre; positive inside.
        area = along[1] * (x - start[0]) - along[0] * (y - start[1])
        whole = along[1] * (corners[i][0] - start[0]) - along[0] * (corners[i][1] - start[1])
        along, area = (along, area) if whole > 0 else (-along, -area)
        is_top_left = along[1] > 0 or (along[1] == 0 and along[0] < 0)
        inside &= (area > 0) | ((area == 0) & is_top_left)
        distances.append(area / np.hypot(*along))
        weights.append(area / abs(whole))
    unsure = (np.min(distances, axis=0) > -EDGE) & (np.min(np.abs(distances), axis=0) < EDGE)

    colors = VERTICES["color"].astype(np.float64) * float(frame["brightness"])
    pixels = np.empty((height, width, 4), np.int64)
    pixels[...] = [*encode_srgb(CLEAR_COLOR[:3]), 255]
    pixels[inside, :3] = encode_srgb(np.stack(weights, -1) @ colors)[inside]
    return Reference(pixels, inside, unsure)


@pytest.mark.parametrize(("width", "height", "frame"), SIZES_AND_FRAMES)
def test_picture_is_the_reference(
    device: IRenderDevice, width: int, height: int, frame: int, record_property: Any
) -> None:
    reference = rasterise(frame, width, height)
    with TriangleRenderer(device, width, height) as renderer:
        renderer.draw(frame)
        picture = renderer.screenshot().astype(np.int64)

    if not device.info.executes_shaders:
        assert (picture == [*encode_srgb(CLEAR_COLOR[:3]), 255]).all()
        return
    record_property("pixels not compared", int(reference.unsure.sum()))
    assert 0.1 < reference.inside.mean() < 0.6
    assert reference.unsure.sum() <= 5
    difference = np.abs(picture - reference.pixels)
    difference[reference.unsure] = 0
    assert difference.max() <= TOLERANCE
    assert (difference[~reference.inside] == 0).all()


@pytest.mark.gpu
def test_comparison_notices_a_wrong_frame(gpu_device: IRenderDevice) -> None:
    reference = rasterise(18, 96, 64)
    with TriangleRenderer(gpu_device, 96, 64) as renderer:
        renderer.draw(17)
        difference = np.abs(renderer.screenshot().astype(np.int64) - reference.pixels)
    assert difference[~reference.unsure].max() > TOLERANCE


def test_reference_is_what_one_would_draw_by_hand() -> None:
    reference = rasterise(0, 64, 64)
    # The tip is at y = 0.82 of the half height above the middle: row 5.76.
    assert not reference.inside[:5].any()
    assert reference.inside[8:44, 32].all()
    assert not reference.inside[46:].any()
    assert (reference.inside == reference.inside[:, ::-1]).all()
    assert tuple(reference.pixels[7, 32, :3]) == pytest.approx(
        tuple(encode_srgb(VERTICES["color"][0])), abs=9
    )


def test_many_frames_reuse_the_ring(device: IRenderDevice) -> None:
    with TriangleRenderer(device, 32, 32) as renderer:
        for frame in range(12):
            renderer.draw(frame)
        last = renderer.screenshot()
        with TriangleRenderer(device, 32, 32) as fresh:
            fresh.draw(11)
            assert np.array_equal(last, fresh.screenshot())


def test_draws_into_a_given_frame_buffer(device: IRenderDevice) -> None:
    """A target without an sRGB format gets the same picture: the shader encodes it."""
    with (
        TriangleRenderer(device, 48, 48) as renderer,
        device.create_frame_buffer(48, 48, [TextureFormat.BGRA8_UNORM]) as target,
    ):
        renderer.draw(5)
        expected = renderer.screenshot().astype(np.int64)
        renderer.draw(5, target)
        found = device.read_array_blocking(target.color_textures[0]).astype(np.int64)
    if device.info.executes_shaders:
        inside = rasterise(5, 48, 48).inside
        assert np.abs(found[..., [2, 1, 0, 3]] - expected)[inside].max() <= TOLERANCE


def test_too_large_a_picture_is_refused(device: IRenderDevice) -> None:
    with pytest.raises(ValidationError, match="above the device's limit"):
        TriangleRenderer(device, 10**6, 10)


def test_close_may_be_repeated(null_device: IRenderDevice) -> None:
    renderer = TriangleRenderer(null_device, 8, 8)
    renderer.close()
    renderer.close()
