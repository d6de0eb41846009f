"""What the benchmarks of draws draw: many moving objects, each one pixel large and of its colour.

Since every object has a pixel of its own, a picture shows whether each of them was drawn, once,
with the newest data.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.payload import expect_equal

__all__ = ["FLOATS", "GLSL_FRAGMENT", "GLSL_INSTANCED", "GLSL_UNIFORM", "RECORD_BYTES",
           "WGSL_INSTANCED", "WGSL_UNIFORM", "Scene", "indirect_draws"]  # fmt: skip

FLOATS = 8
"""In a record: where the pixel is and how large it is (clip space), and its colour."""
RECORD_BYTES = 4 * FLOATS
VARIANTS = 4
ROWS_LEFT_FREE = 2
"""So that objects have where to move."""


class Scene:
    """Places and colours of all objects, another for each frame, and the picture of each."""

    def __init__(self, objects: int) -> None:
        self.objects = objects
        self.width = max(16, 1 << (math.isqrt(objects - 1).bit_length() if objects > 1 else 0))
        self.height = -(-objects // self.width) + ROWS_LEFT_FREE
        self._variants = [self._make(number) for number in range(VARIANTS)]
        self._current = 0

    def move(self) -> None:
        """Go on to the next frame."""
        self._current = (self._current + 1) % VARIANTS

    def fill(self, records: npt.NDArray[np.float32]) -> None:
        """Write all records; shape (objects, `FLOATS` or more)."""
        records[:, :FLOATS] = self._variants[self._current][0]

    @property
    def records(self) -> npt.NDArray[np.float32]:
        """The records of this frame, shape (objects, `FLOATS`)."""
        return self._variants[self._current][0]

    def check(self, pixels: npt.NDArray[Any]) -> None:
        """Raise `WrongContentError` unless this is the picture of this frame, top row first."""
        expect_equal(pixels, self._variants[self._current][1])

    def _make(self, variant: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
        pixel_count = self.width * self.height
        pixels = (np.arange(self.objects) + 7 * variant) % pixel_count
        colors = np.random.default_rng(variant).integers(0, 256, (self.objects, 4), np.uint8)
        colors[:, 3] = 255
        size = 2 / self.width, 2 / self.height
        records = np.empty((self.objects, FLOATS), np.float32)
        records[:, 0] = (pixels % self.width + 0.5) * size[0] - 1
        records[:, 1] = 1 - (pixels // self.width + 0.5) * size[1]
        records[:, 2:4] = size
        records[:, 4:] = colors / 255
        picture = np.zeros((pixel_count, 4), np.uint8)
        picture[:, 3] = 255
        picture[pixels] = colors
        return records, picture.reshape(self.height, self.width, 4)


def indirect_draws(objects: int) -> npt.NDArray[np.uint32]:
    """Return arguments that draw each object by itself: vertices, instances, first of each."""
    draws = np.zeros((objects, 4), np.uint32)
    draws[:, :2] = 3, 1
    draws[:, 3] = np.arange(objects)
    return draws


_WGSL = """
struct Out { @builtin(position) position: vec4f, @location(0) color: vec4f }

fn corner(vertex: u32, place: vec4f, color: vec4f) -> Out {
    // Around the centre of one pixel, and of no other.
    var corners = array(vec2f(-0.4, -0.4), vec2f(0.8, -0.4), vec2f(-0.4, 0.8));
    return Out(vec4f(place.xy + corners[vertex] * place.zw, 0.5, 1.0), color);
}

@fragment fn fs_main(in: Out) -> @location(0) vec4f { return in.color; }
"""

WGSL_UNIFORM = (
    _WGSL
    + """
struct Object { place: vec4f, color: vec4f }
@group(0) @binding(0) var<uniform> object: Object;

@vertex fn vs_main(@builtin(vertex_index) vertex: u32) -> Out {
    return corner(vertex, object.place, object.color);
}
"""
)
WGSL_INSTANCED = (
    _WGSL
    + """
@vertex fn vs_main(
    @builtin(vertex_index) vertex: u32, @location(0) place: vec4f, @location(1) color: vec4f
) -> Out {
    return corner(vertex, place, color);
}
"""
)

_GLSL_CORNER = """
out vec4 shade;
void corner(vec4 place, vec4 color) {
    vec2 corners[3] = vec2[3](vec2(-0.4, -0.4), vec2(0.8, -0.4), vec2(-0.4, 0.8));
    gl_Position = vec4(place.xy + corners[gl_VertexID] * place.zw, 0.0, 1.0);
    shade = color;
}
"""
GLSL_UNIFORM = (
    "#version 330\nuniform vec4 object[2];"
    + _GLSL_CORNER
    + "void main() { corner(object[0], object[1]); }"
)
GLSL_INSTANCED = (
    "#version 330\nin vec4 place; in vec4 color;"
    + _GLSL_CORNER
    + "void main() { corner(place, color); }"
)
GLSL_FRAGMENT = """#version 330
in vec4 shade;
out vec4 color;
void main() { color = shade; }
"""
