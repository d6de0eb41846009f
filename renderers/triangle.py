"""The simple case: one triangle, turning.

Each kind of data goes the way that pers has for it: the vertices never change (`DeviceBuffer`),
the rotation changes every frame (`DynamicBuffer`), and the picture comes back (`ReadbackBuffer`).
"""

from __future__ import annotations

import math
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from pers import (
    BindGroupLayout,
    BindingLayout,
    BufferBinding,
    BufferUsage,
    ColorTarget,
    DeviceBuffer,
    DynamicBuffer,
    IFrameBuffer,
    IPipeline,
    IRenderDevice,
    ReadbackBuffer,
    RenderPipelineDescriptor,
    ShaderStage,
    Submission,
    TextureFormat,
    TextureRows,
    VertexLayout,
)
from renderers.shaders import load

__all__ = ["CLEAR_COLOR", "VERTICES", "TriangleRenderer", "frame_uniform"]

VERTEX = np.dtype([("position", "f4", 2), ("color", "f4", 3)])
FRAME = np.dtype([("rotation", "f4", 2), ("aspect", "f4"), ("brightness", "f4")])

VERTICES = np.array(
    [
        ((0.0, 0.82), (1.0, 0.22, 0.12)),
        ((-0.71, -0.41), (0.10, 0.32, 1.0)),
        ((0.71, -0.41), (1.0, 0.72, 0.18)),
    ],
    VERTEX,
)
"""Position (1 is half the height of the picture, y up) and colour (linear light), shape (3,)."""

CLEAR_COLOR = (0.011, 0.013, 0.027, 1.0)
"""What is around the triangle: red, green, blue (linear light) and alpha."""

FRAMES_PER_TURN = 240
FRAMES_PER_BEAT = 120


def frame_uniform(frame: int, width: int, height: int) -> npt.NDArray[Any]:
    """Return what the shader is told about a frame: one record of `FRAME`, shape ()."""
    angle = math.tau * frame / FRAMES_PER_TURN
    brightness = 0.9 + 0.1 * math.cos(math.tau * frame / FRAMES_PER_BEAT)
    rotation = (math.cos(angle), math.sin(angle))
    return np.array((rotation, width / height, brightness), FRAME)


class TriangleRenderer:
    """Draws a turning triangle, offscreen or into a frame buffer of a window.

    Belongs to one thread. As a context manager it gives its memory back at the end.
    """

    def __init__(self, device: IRenderDevice, width: int = 800, height: int = 600) -> None:
        """Make everything that lives longer than a frame.

        Args:
            device: What draws.
            width: Width of the offscreen picture (pixels).
            height: Height of the offscreen picture (pixels).

        Raises:
            ValidationError: The device has no textures of that size.
        """
        factory = device.buffer_factory
        self._device = device
        self.frame_buffer = device.create_frame_buffer(width, height, label="triangle")
        """What `draw` draws to when it is given nothing else."""
        picture = TextureRows(self.frame_buffer.color_formats[0], width, height)
        self._readback = ReadbackBuffer(picture.nbytes, factory, debug_name="screenshot")
        self._vertices = DeviceBuffer.from_array(
            VERTICES, BufferUsage.VERTEX, factory, debug_name="triangle"
        )
        self._uniforms = DynamicBuffer(FRAME.itemsize, factory, debug_name="frame uniforms")
        self._shader = device.create_shader_module(load("color", "triangle"), label="triangle")
        self._layout = BindGroupLayout(
            [BindingLayout(0, "uniform", ShaderStage.VERTEX, dynamic_offset=True)]
        )
        self._bind_group = device.create_bind_group(
            self._layout, {0: BufferBinding(self._uniforms.inner, size=FRAME.itemsize)}
        )
        self._pipelines: dict[TextureFormat, IPipeline] = {}

    def draw(self, frame: int, target: IFrameBuffer | None = None) -> Submission:
        """Draw a frame.

        Args:
            frame: Number of the frame; it alone decides what is drawn.
            target: Where to; None means `frame_buffer`. Without depth, one sample a pixel.

        Returns:
            The work that the GPU was given.
        """
        target = target or self.frame_buffer
        with self._uniforms.begin_update() as update:
            offset = update.push(frame_uniform(frame, target.width, target.height))
        encoder = self._device.create_command_encoder("triangle")
        with encoder.begin_render_pass(target, clear_color=CLEAR_COLOR) as render_pass:
            render_pass.set_pipeline(self._pipeline(target.color_formats[0]))
            render_pass.set_bind_group(0, self._bind_group, [offset])
            render_pass.set_vertex_buffer(0, self._vertices)
            render_pass.draw(len(VERTICES))
        return self._device.queue.submit([encoder.finish()])

    def finish(self) -> None:
        """Block until the GPU has drawn everything."""
        self._device.queue.on_work_done().wait()

    def screenshot(self) -> npt.NDArray[np.uint8]:
        """Return what is in `frame_buffer`: sRGB, shape (height, width, 4)."""
        encoder = self._device.create_command_encoder("screenshot")
        self._readback.copy_from(encoder, self.frame_buffer.color_textures[0])
        self._device.queue.submit([encoder.finish()])
        return self._readback.read_array_blocking()

    def close(self) -> None:
        """Give the memory back; legal any number of times."""
        self.frame_buffer.destroy()
        for buffer in (self._vertices, self._uniforms, self._readback):
            buffer.destroy()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _pipeline(self, target_format: TextureFormat) -> IPipeline:
        if target_format not in self._pipelines:
            descriptor = RenderPipelineDescriptor(
                self._shader,
                [ColorTarget(target_format)],
                vertex_buffers=[VertexLayout.from_dtype(VERTEX)],
                bind_groups=[self._layout],
                fragment_entry="fs_main" if target_format.is_srgb else "fs_encoded",
                label="triangle",
            )
            self._pipelines[target_format] = self._device.create_render_pipeline(descriptor)
        return self._pipelines[target_format]
