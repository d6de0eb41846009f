"""The draws of pers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.lab import DRAW_FEATURE, Lab
from benchmarks.scene import (
    FLOATS,
    RECORD_BYTES,
    WGSL_INSTANCED,
    WGSL_UNIFORM,
    Scene,
    indirect_draws,
)
from pers import (
    BindGroupLayout,
    BindingLayout,
    BufferBinding,
    BufferUsage,
    ColorTarget,
    DeviceBuffer,
    DynamicBuffer,
    IBindGroup,
    ICommandBuffer,
    IRenderCommands,
    IRenderPass,
    RenderPipelineDescriptor,
    ShaderStage,
    TextureFormat,
    VertexAttribute,
    VertexLayout,
)

__all__ = ["PersDraws"]

FORMAT = TextureFormat.RGBA8_UNORM
CLEAR = (0.0, 0.0, 0.0, 1.0)
Work = Callable[[], None]


class PersDraws:
    """A scene on a pers device, in every mode."""

    def __init__(self, lab: Lab, scene: Scene) -> None:
        self._lab, self._scene = lab, scene
        self._device = device = lab.device
        factory = device.buffer_factory
        self._frame = device.create_frame_buffer(scene.width, scene.height, (FORMAT,))
        self._stride = -(-RECORD_BYTES // _alignment(lab)) * _alignment(lab)

        layout = BindGroupLayout(
            [
                BindingLayout(
                    0, "uniform", ShaderStage.VERTEX, dynamic_offset=True, min_size=RECORD_BYTES
                )
            ]
        )
        self._uniform_pipeline = device.create_render_pipeline(
            RenderPipelineDescriptor(
                device.create_shader_module(WGSL_UNIFORM),
                (ColorTarget(FORMAT),),
                bind_groups=(layout,),
            )
        )
        self._instanced_pipeline = device.create_render_pipeline(
            RenderPipelineDescriptor(
                device.create_shader_module(WGSL_INSTANCED),
                (ColorTarget(FORMAT),),
                vertex_buffers=(
                    VertexLayout(
                        RECORD_BYTES,
                        (
                            VertexAttribute(0, "float32x4", 0),
                            VertexAttribute(1, "float32x4", 16),
                        ),
                        "instance",
                    ),
                ),
            )
        )
        spaced, packed = scene.objects * self._stride, scene.objects * RECORD_BYTES
        self._uniforms = DynamicBuffer(spaced, factory, usage=BufferUsage.UNIFORM)
        self._instances = DynamicBuffer(packed, factory, usage=BufferUsage.VERTEX)
        self._group = device.create_bind_group(
            layout, {0: BufferBinding(self._uniforms.inner, 0, RECORD_BYTES)}
        )
        self._fixed = DeviceBuffer(spaced, factory, usage=BufferUsage.UNIFORM)
        self._fixed_group = device.create_bind_group(
            layout, {0: BufferBinding(self._fixed, 0, RECORD_BYTES)}
        )
        self._spaced = np.zeros((scene.objects, self._stride // 4), np.float32)
        self._arguments = DeviceBuffer.from_array(
            indirect_draws(scene.objects), BufferUsage.INDIRECT, factory
        )
        self._draws = np.zeros((scene.objects, 2), np.uint32)
        self._draws[:] = 3, 1
        bundle = device.create_render_bundle_encoder((FORMAT,))
        bundle.set_pipeline(self._uniform_pipeline)
        self._bind_and_draw(bundle, self._fixed_group, 0)
        self._bundle = bundle.finish()
        self._recorded: ICommandBuffer | None = None

    def frames(self) -> dict[str, Work]:
        """Return what draws a whole frame, by the mode's name."""
        found: dict[str, Work] = {
            "set_bind_group + draw": self._frame_by_loop,
            "push, set_bind_group + draw": self._frame_by_pushes,
            "bundle": self._frame_by_bundle,
            "instancing": self._frame_by_instances,
        }
        if DRAW_FEATURE in self._device.features or not self._lab.draws:
            found["multi_draw_indirect"] = self._frame_by_indirect_draws
        found["draw_many"] = self._frame_by_draw_many
        return found

    def recordings(self) -> dict[str, Work]:
        """Return what records draws of data that is on the GPU."""
        return {
            "set_bind_group + draw": self._record_loop,
            "bundle": self._record_bundle,
            "draw_many": self._record_draw_many,
        }

    def check(self) -> None:
        """Compare the picture."""
        if self._lab.draws:
            self._scene.check(self._lab.read_pixels(self._frame.color_textures[0]))

    def prepare_recording(self) -> None:
        """Bring new data to the GPU."""
        self._scene.move()
        self._scene.fill(self._spaced)
        self._device.upload(self._spaced, self._fixed)
        self._recorded = None

    def check_recorded(self) -> None:
        """Submit what was recorded, and compare the picture."""
        assert self._recorded is not None
        self._device.queue.submit([self._recorded]).wait()
        self.check()

    def close(self) -> None:
        """Give the buffers back."""
        for buffer in (self._uniforms, self._instances, self._fixed, self._arguments):
            buffer.destroy()
        self._frame.destroy()

    # Frames

    def _frame_by_loop(self) -> None:
        with self._uniforms.begin_update() as update:
            self._scene.fill(update.as_array(np.float32, self._spaced.shape))
            offset = update.offset
        encoder = self._device.create_command_encoder()
        with encoder.begin_render_pass(self._frame, clear_color=CLEAR) as draws:
            draws.set_pipeline(self._uniform_pipeline)
            self._bind_and_draw(draws, self._group, offset)
        self._device.queue.submit([encoder.finish()]).wait()

    def _frame_by_pushes(self) -> None:
        encoder = self._device.create_command_encoder()
        group = self._group
        with self._uniforms.begin_update() as update:
            offsets = [update.push(record) for record in self._scene.records]
        with encoder.begin_render_pass(self._frame, clear_color=CLEAR) as draws:
            draws.set_pipeline(self._uniform_pipeline)
            for offset in offsets:
                draws.set_bind_group(0, group, (offset,))
                draws.draw(3)
        self._device.queue.submit([encoder.finish()]).wait()

    def _frame_by_draw_many(self) -> None:
        with self._uniforms.begin_update() as update:
            offsets = update.push_many(self._scene.records)
        encoder = self._device.create_command_encoder()
        with encoder.begin_render_pass(self._frame, clear_color=CLEAR) as draws:
            draws.set_pipeline(self._uniform_pipeline)
            draws.draw_many(self._draws, bind_group=self._group, dynamic_offsets=offsets)
        self._device.queue.submit([encoder.finish()]).wait()

    def _frame_by_bundle(self) -> None:
        self._scene.fill(self._spaced)
        self._device.upload(self._spaced, self._fixed)
        encoder = self._device.create_command_encoder()
        with encoder.begin_render_pass(self._frame, clear_color=CLEAR) as draws:
            draws.execute_bundles([self._bundle])
        self._device.queue.submit([encoder.finish()]).wait()

    def _frame_by_instances(self) -> None:
        self._frame_of_instances(lambda draws: draws.draw(3, self._scene.objects))

    def _frame_by_indirect_draws(self) -> None:
        self._frame_of_instances(
            lambda draws: draws.multi_draw_indirect(self._arguments, 0, self._scene.objects)
        )

    def _frame_of_instances(self, draw: Callable[[IRenderPass], None]) -> None:
        with self._instances.begin_update() as update:
            self._scene.fill(update.as_array(np.float32, (self._scene.objects, FLOATS)))
            buffer, offset = update.buffer, update.offset
        encoder = self._device.create_command_encoder()
        with encoder.begin_render_pass(self._frame, clear_color=CLEAR) as draws:
            draws.set_pipeline(self._instanced_pipeline)
            draws.set_vertex_buffer(0, buffer, offset)
            draw(draws)
        self._device.queue.submit([encoder.finish()]).wait()

    # Recordings

    def _record_loop(self) -> None:
        encoder = self._device.create_command_encoder()
        with encoder.begin_render_pass(self._frame, clear_color=CLEAR) as draws:
            draws.set_pipeline(self._uniform_pipeline)
            self._bind_and_draw(draws, self._fixed_group, 0)
        self._recorded = encoder.finish()

    def _record_bundle(self) -> None:
        encoder = self._device.create_command_encoder()
        with encoder.begin_render_pass(self._frame, clear_color=CLEAR) as draws:
            draws.execute_bundles([self._bundle])
        self._recorded = encoder.finish()

    def _record_draw_many(self) -> None:
        encoder = self._device.create_command_encoder()
        with encoder.begin_render_pass(self._frame, clear_color=CLEAR) as draws:
            draws.set_pipeline(self._uniform_pipeline)
            offsets = self._stride * np.arange(self._scene.objects)
            draws.draw_many(self._draws, bind_group=self._fixed_group, dynamic_offsets=offsets)
        self._recorded = encoder.finish()

    def _bind_and_draw(self, draws: IRenderCommands, group: IBindGroup, first: int) -> None:
        stride, count = self._stride, self._scene.objects
        for offset in range(first, first + stride * count, stride):
            draws.set_bind_group(0, group, (offset,))
            draws.draw(3)


def _alignment(lab: Lab) -> int:
    return lab.device.limits.min_uniform_buffer_offset_alignment
