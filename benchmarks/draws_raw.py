"""The draws of wgpu-py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.lab import DRAW_FEATURE
from benchmarks.peers.raw_wgpu import RawWgpu
from benchmarks.scene import (
    FLOATS,
    RECORD_BYTES,
    WGSL_INSTANCED,
    WGSL_UNIFORM,
    Scene,
    indirect_draws,
)

__all__ = ["RawDraws"]

FORMAT = "rgba8unorm"
Work = Callable[[], None]


class RawDraws:
    """A scene on a wgpu device, in every mode."""

    def __init__(self, raw: RawWgpu, scene: Scene) -> None:
        self._raw, self._scene = raw, scene
        self._texture = raw.texture(scene.width, scene.height, FORMAT)
        self._view = self._texture.create_view()
        self._stride = -(-RECORD_BYTES // raw.uniform_alignment) * raw.uniform_alignment
        self._uniform_pipeline, layout = raw.pipeline(
            WGSL_UNIFORM, FORMAT, uniform=RECORD_BYTES, dynamic=True
        )
        self._instanced_pipeline, _ = raw.pipeline(WGSL_INSTANCED, FORMAT, attributes=2)
        self._spaced = np.zeros((scene.objects, self._stride // 4), np.float32)
        self._packed = np.zeros((scene.objects, FLOATS), np.float32)
        self._uniforms = raw.buffer(self._spaced.nbytes, "uniform")
        self._instances = raw.buffer(self._packed.nbytes, "vertex")
        self._arguments = raw.buffer_with(indirect_draws(scene.objects), "indirect")
        self._group = raw.group(layout, self._uniforms, RECORD_BYTES)
        bundle = raw.gpu.create_render_bundle_encoder(color_formats=[FORMAT])
        bundle.set_pipeline(self._uniform_pipeline)
        self._bind_and_draw(bundle)
        self._bundle = bundle.finish()
        self._recorded: Any = None

    def frames(self) -> dict[str, Work]:
        """Return what draws a whole frame, by the mode's name."""
        found: dict[str, Work] = {
            "set_bind_group + draw": lambda: self._frame_of_uniforms(self._bind_and_draw),
            "set_bind_group + draw, by cffi": lambda: self._frame_of_uniforms(self._draw_by_cffi),
            "bundle": lambda: self._frame_of_uniforms(self._draw_bundle),
            "instancing": lambda: self._frame_of_instances(self._draw_instances),
        }
        if DRAW_FEATURE in self._raw.features:
            found["multi_draw_indirect"] = lambda: self._frame_of_instances(self._draw_indirect)
        return found

    def recordings(self) -> dict[str, Work]:
        """Return what records draws of data that is on the GPU."""
        return {
            "set_bind_group + draw": lambda: self._record(self._bind_and_draw),
            "set_bind_group + draw, by cffi": lambda: self._record(self._draw_by_cffi),
            "bundle": lambda: self._record(self._draw_bundle),
        }

    def check(self) -> None:
        """Compare the picture."""
        self._scene.check(self._raw.read_pixels(self._texture, np.uint8, 4))

    def prepare_recording(self) -> None:
        """Bring new data to the GPU."""
        self._scene.move()
        self._scene.fill(self._spaced)
        self._raw.queue.write_buffer(self._uniforms, 0, self._spaced)
        self._recorded = None

    def check_recorded(self) -> None:
        """Submit what was recorded, and compare the picture."""
        self._raw.queue.submit([self._recorded])
        self._raw.wait()
        self.check()

    def _frame_of_uniforms(self, draw: Callable[[Any], None]) -> None:
        self._scene.fill(self._spaced)
        self._raw.queue.write_buffer(self._uniforms, 0, self._spaced)
        self._record(draw)
        self._raw.queue.submit([self._recorded])
        self._raw.wait()

    def _frame_of_instances(self, draw: Callable[[Any], None]) -> None:
        self._scene.fill(self._packed)
        self._raw.queue.write_buffer(self._instances, 0, self._packed)
        encoder = self._raw.gpu.create_command_encoder()
        draws = self._raw.begin_pass(encoder, self._view)
        draws.set_pipeline(self._instanced_pipeline)
        draws.set_vertex_buffer(0, self._instances)
        draw(draws)
        draws.end()
        self._raw.queue.submit([encoder.finish()])
        self._raw.wait()

    def _record(self, draw: Callable[[Any], None]) -> None:
        encoder = self._raw.gpu.create_command_encoder()
        draws = self._raw.begin_pass(encoder, self._view)
        draws.set_pipeline(self._uniform_pipeline)
        draw(draws)
        draws.end()
        self._recorded = encoder.finish()

    def _bind_and_draw(self, draws: Any) -> None:
        group, stride = self._group, self._stride
        for offset in range(0, stride * self._scene.objects, stride):
            draws.set_bind_group(0, group, (offset,))
            draws.draw(3)

    def _draw_by_cffi(self, draws: Any) -> None:
        lib, handle, group = self._raw.lib, draws._internal, self._group._internal
        bind, draw = lib.wgpuRenderPassEncoderSetBindGroup, lib.wgpuRenderPassEncoderDraw
        place = self._raw.ffi.new("uint32_t[1]")
        stride = self._stride
        for offset in range(0, stride * self._scene.objects, stride):
            place[0] = offset
            bind(handle, 0, group, 1, place)
            draw(handle, 3, 1, 0, 0)

    def _draw_bundle(self, draws: Any) -> None:
        draws.execute_bundles([self._bundle])

    def _draw_instances(self, draws: Any) -> None:
        draws.draw(3, self._scene.objects)

    def _draw_indirect(self, draws: Any) -> None:
        self._raw.multi_draw_indirect(draws, self._arguments, self._scene.objects)
