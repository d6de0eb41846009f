"""What the stress test draws: solids that stream along a knot, before a sky."""

from __future__ import annotations

from functools import partial
from typing import Any

import attrs

from pers import (
    BindGroupLayout,
    BindingLayout,
    BufferBinding,
    BufferUsage,
    ColorTarget,
    DepthState,
    DynamicBuffer,
    ICommandEncoder,
    IFrameBuffer,
    IPipeline,
    IRenderDevice,
    ITexture,
    RenderPipelineDescriptor,
    TextureFormat,
    VertexLayout,
)
from renderers.camera import CAMERA, camera_uniform
from renderers.checks import Words, words_of
from renderers.geometry import Geometry
from renderers.meshes import MESH_VERTEX, solids
from renderers.motion import INSTANCE, Swarm
from renderers.shaders import load

__all__ = ["CLEAR_COLOR", "DEPTH_FORMAT", "FRAMES_IN_FLIGHT", "SAMPLES", "FrameData", "Scene"]

CLEAR_COLOR = (0.016, 0.015, 0.042, 1.0)
"""What a frame starts with: red, green, blue (linear light) and alpha."""

DEPTH_FORMAT = TextureFormat.DEPTH32_FLOAT
SAMPLES = 4
FRAMES_IN_FLIGHT = 3


@attrs.frozen
class FrameData:
    """Where the data of a frame is in the dynamic buffers (bytes).

    Attributes:
        camera: Offset of the camera.
        instances: Offset of the instances.
        words: A copy of the instances as 32-bit words, when it was asked for.
    """

    camera: int
    instances: int
    words: Words | None


class Scene:
    """Meshes that never change, a camera and instances that change every frame, and a sky."""

    def __init__(self, device: IRenderDevice, objects: int, seed: int, sky: ITexture) -> None:
        """Upload the meshes and make room for the rest.

        Args:
            device: What draws.
            objects: How many objects move.
            seed: Equal seeds give equal scenes.
            sky: The panorama; may still be incomplete.

        Raises:
            ValueError: The device cannot take so many objects.
        """
        self._device = device
        self._objects = objects
        self.instance_bytes = _checked_bytes(device, objects)
        """Bytes of all instances of a frame."""

        meshes = solids()
        self.geometry = Geometry(device, meshes)
        """The meshes."""
        self._swarm = Swarm(objects, len(meshes), seed)
        factory = device.buffer_factory
        self.camera = DynamicBuffer(
            CAMERA.itemsize, factory, frames=FRAMES_IN_FLIGHT, debug_name="camera"
        )
        """One record of `CAMERA` a frame."""
        self.instances = DynamicBuffer(
            self.instance_bytes,
            factory,
            usage=BufferUsage.VERTEX | BufferUsage.STORAGE | BufferUsage.COPY_SRC,
            frames=FRAMES_IN_FLIGHT,
            debug_name="instances",
        )
        """Records of `INSTANCE`, sorted by mesh."""

        self._layout = BindGroupLayout(
            [
                BindingLayout(0, "uniform", dynamic_offset=True),
                BindingLayout(1, "texture"),
                BindingLayout(2, "sampler"),
            ]
        )
        self._bind_group = device.create_bind_group(
            self._layout,
            {
                0: BufferBinding(self.camera.inner, size=CAMERA.itemsize),
                1: sky,
                2: device.create_sampler(),
            },
            label="camera and sky",
        )
        self._pipelines: dict[TextureFormat, tuple[IPipeline, IPipeline]] = {}

    @property
    def triangles(self) -> int:
        """Triangles in a frame, the sky's left out."""
        return self.geometry.triangles(self._swarm.counts)

    def update(
        self, seconds: float, width: int, height: int, *, keep_words: bool = False
    ) -> FrameData:
        """Write what is new in a frame.

        Args:
            seconds: Time since the start; it alone decides where everything is.
            width: Width of the picture (pixels).
            height: Height of the picture (pixels).
            keep_words: Whether to return a copy of the instances.
        """
        with self.camera.begin_update() as update:
            camera = update.push(camera_uniform(seconds, width, height))
        with self.instances.begin_update() as update:
            instances = update.as_array(INSTANCE, self._objects)
            self._swarm.place(seconds, instances)
            words = words_of(instances) if keep_words else None
        return FrameData(camera, update.offset, words)

    def draw(self, encoder: ICommandEncoder, target: IFrameBuffer, data: FrameData) -> None:
        """Record a frame.

        Args:
            encoder: Records the commands.
            target: Where to draw; with depth and `SAMPLES` samples.
            data: What `update` returned.
        """
        draw_solids, draw_sky = self._pipelines_for(target.color_formats[0])
        with encoder.begin_render_pass(target, clear_color=CLEAR_COLOR) as render_pass:
            render_pass.set_pipeline(draw_solids)
            render_pass.set_bind_group(0, self._bind_group, [data.camera])
            render_pass.set_vertex_buffer(1, self.instances, data.instances)
            self.geometry.draw(render_pass, self._swarm.counts)
            render_pass.set_pipeline(draw_sky)
            render_pass.draw(3)

    def close(self) -> None:
        """Give the memory back; legal any number of times."""
        self.geometry.close()
        self.camera.destroy()
        self.instances.destroy()

    def _pipelines_for(self, target_format: TextureFormat) -> tuple[IPipeline, IPipeline]:
        if target_format not in self._pipelines:
            make = partial(self._make_pipeline, target_format)
            layouts = [
                VertexLayout.from_dtype(MESH_VERTEX),
                VertexLayout.from_dtype(INSTANCE, first_location=2, step_mode="instance"),
            ]
            self._pipelines[target_format] = (
                make(
                    "solids",
                    depth=DepthState(DEPTH_FORMAT),
                    cull_mode="back",
                    vertex_buffers=layouts,
                ),
                # The sky goes last, where nothing is in front of it.
                make("sky", depth=DepthState(DEPTH_FORMAT, "less-equal", write=False)),
            )
        return self._pipelines[target_format]

    def _make_pipeline(self, target_format: TextureFormat, name: str, **options: Any) -> IPipeline:
        return self._device.create_render_pipeline(
            RenderPipelineDescriptor(
                self._device.create_shader_module(load("color", "light", name), label=name),
                [ColorTarget(target_format)],
                bind_groups=[self._layout],
                sample_count=SAMPLES,
                fragment_entry="fs_main" if target_format.is_srgb else "fs_encoded",
                label=name,
                **options,
            )
        )


def _checked_bytes(device: IRenderDevice, objects: int) -> int:
    """Return the bytes of so many instances, or raise `ValueError` when they are too many."""
    limits = device.limits
    frame = min(limits.max_storage_buffer_binding_size, limits.max_buffer_size // FRAMES_IN_FLIGHT)
    most = frame // INSTANCE.itemsize
    if objects > most:
        raise ValueError(f"this device takes at most {most} objects, not {objects}")
    return objects * INSTANCE.itemsize
