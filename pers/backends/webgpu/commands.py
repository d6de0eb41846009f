"""Encoders, passes and bundles on wgpu.

Draws call the C functions directly: the library keeps what is wrong with them until the encoder
is finished, so wgpu-py's check after each call would cost time and find nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pers.backends.webgpu import descriptors
from pers.backends.webgpu._ffi import BUNDLES, OFFSETS, ffi, lib, libf, translated
from pers.buffers.core import Buffer
from pers.graphics.native import (
    Attachments,
    BufferPlace,
    NativeComputePass,
    NativeEncoder,
    NativeRenderCommands,
    NativeRenderPass,
    TexturePlace,
)
from pers.graphics.resources import QuerySet, Texture
from pers.graphics.types import IndexFormat

_INDEX_FORMATS = {"uint16": lib.WGPUIndexFormat_Uint16, "uint32": lib.WGPUIndexFormat_Uint32}


def _offsets(offsets: Sequence[int]) -> Any:
    return ffi.new(OFFSETS, list(offsets))


class WebGPUEncoder(NativeEncoder):
    """A `wgpu.GPUCommandEncoder`."""

    def __init__(self, encoder: Any, label: str) -> None:
        self._encoder = encoder
        self._call = f"encoder {label!r}"

    def copy_buffer_to_buffer(
        self, source: Buffer, source_offset: int, target: Buffer, target_offset: int, size: int
    ) -> None:
        with translated(self._call):
            libf.wgpuCommandEncoderCopyBufferToBuffer(
                self._encoder._internal,
                source.native_handle._internal,
                source_offset,
                target.native_handle._internal,
                target_offset,
                size,
            )

    def copy_buffer_to_texture(
        self, source: BufferPlace, target: TexturePlace, size: tuple[int, int, int]
    ) -> None:
        with translated(self._call):
            self._encoder.copy_buffer_to_texture(
                descriptors.texel_buffer(source), descriptors.texel_texture(target), size
            )

    def copy_texture_to_buffer(
        self, source: TexturePlace, target: BufferPlace, size: tuple[int, int, int]
    ) -> None:
        with translated(self._call):
            self._encoder.copy_texture_to_buffer(
                descriptors.texel_texture(source), descriptors.texel_buffer(target), size
            )

    def copy_texture_to_texture(
        self, source: TexturePlace, target: TexturePlace, size: tuple[int, int, int]
    ) -> None:
        with translated(self._call):
            self._encoder.copy_texture_to_texture(
                descriptors.texel_texture(source), descriptors.texel_texture(target), size
            )

    def clear_buffer(self, buffer: Buffer, offset: int, size: int) -> None:
        with translated(self._call):
            self._encoder.clear_buffer(buffer.native_handle, offset, size)

    def resolve_query_set(
        self, query_set: QuerySet, first: int, count: int, target: Buffer, offset: int
    ) -> None:
        with translated(self._call):
            self._encoder.resolve_query_set(
                query_set.native_handle, first, count, target.native_handle, offset
            )

    def begin_render_pass(self, attachments: Attachments, label: str) -> NativeRenderPass:
        queries = attachments.occlusion_queries
        with translated(f"{self._call}: render pass {label!r}"):
            render_pass = self._encoder.begin_render_pass(
                label=label,
                color_attachments=[
                    _color_attachment(drawn, resolved, attachments.clear_color)
                    for drawn, resolved in attachments.colors
                ],
                depth_stencil_attachment=_depth_attachment(attachments),
                occlusion_query_set=None if queries is None else queries.native_handle,
            )
        return WebGPURenderPass(render_pass, f"{self._call}: render pass {label!r}")

    def begin_compute_pass(self, label: str) -> NativeComputePass:
        with translated(f"{self._call}: compute pass {label!r}"):
            compute_pass = self._encoder.begin_compute_pass(label=label)
        return WebGPUComputePass(compute_pass, f"{self._call}: compute pass {label!r}")

    def finish(self) -> Any:
        with translated(f"{self._call}: finish"):
            return self._encoder.finish()


def _color_attachment(
    drawn: Texture, resolved: Texture | None, clear: tuple[float, float, float, float] | None
) -> dict[str, Any]:
    return {
        "view": drawn.native_handle.create_view(),
        "resolve_target": None if resolved is None else resolved.native_handle.create_view(),
        "load_op": "load" if clear is None else "clear",
        "store_op": "store",
        "clear_value": clear or (0, 0, 0, 0),
    }


def _depth_attachment(attachments: Attachments) -> dict[str, Any] | None:
    depth, clear = attachments.depth, attachments.clear_depth
    if depth is None:
        return None
    attachment: dict[str, Any] = {"view": depth.native_handle.create_view()}
    if depth.format.value != "stencil8":
        attachment["depth_load_op"] = "load" if clear is None else "clear"
        attachment["depth_store_op"] = "store"
        attachment["depth_clear_value"] = 1.0 if clear is None else clear
    if "stencil" in depth.format.value:
        attachment["stencil_load_op"] = "load" if clear is None else "clear"
        attachment["stencil_store_op"] = "store"
        attachment["stencil_clear_value"] = 0
    return attachment


class _WebGPUDraws(NativeRenderCommands):
    """What passes and bundle encoders share, by the C functions of each."""

    _prefix: str

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder
        self._internal = encoder._internal

    def __init_subclass__(cls) -> None:
        def function(name: str) -> Any:
            return staticmethod(getattr(lib, f"{cls._prefix}{name}"))

        cls._set_pipeline = function("SetPipeline")
        cls._set_bind_group = function("SetBindGroup")
        cls._set_vertex_buffer = function("SetVertexBuffer")
        cls._set_index_buffer = function("SetIndexBuffer")
        cls._draw = function("Draw")
        cls._draw_indexed = function("DrawIndexed")
        cls._draw_indirect = function("DrawIndirect")
        cls._draw_indexed_indirect = function("DrawIndexedIndirect")

    _set_pipeline: Any
    _set_bind_group: Any
    _set_vertex_buffer: Any
    _set_index_buffer: Any
    _draw: Any
    _draw_indexed: Any
    _draw_indirect: Any
    _draw_indexed_indirect: Any

    def set_pipeline(self, pipeline: Any) -> None:
        self._set_pipeline(self._internal, pipeline._internal)

    def set_bind_group(self, index: int, bind_group: Any, offsets: Sequence[int]) -> None:
        self._set_bind_group(
            self._internal, index, bind_group._internal, len(offsets), _offsets(offsets)
        )

    def set_vertex_buffer(self, slot: int, buffer: Any, offset: int, size: int) -> None:
        self._set_vertex_buffer(self._internal, slot, buffer._internal, offset, size)

    def set_index_buffer(
        self, buffer: Any, index_format: IndexFormat, offset: int, size: int
    ) -> None:
        number = _INDEX_FORMATS[index_format]
        self._set_index_buffer(self._internal, buffer._internal, number, offset, size)

    def draw(
        self, vertex_count: int, instance_count: int, first_vertex: int, first_instance: int
    ) -> None:
        self._draw(self._internal, vertex_count, instance_count, first_vertex, first_instance)

    def draw_indexed(
        self,
        index_count: int,
        instance_count: int,
        first_index: int,
        base_vertex: int,
        first_instance: int,
    ) -> None:
        self._draw_indexed(
            self._internal, index_count, instance_count, first_index, base_vertex, first_instance
        )

    def draw_indirect(self, buffer: Any, offset: int) -> None:
        self._draw_indirect(self._internal, buffer._internal, offset)

    def draw_indexed_indirect(self, buffer: Any, offset: int) -> None:
        self._draw_indexed_indirect(self._internal, buffer._internal, offset)


class WebGPUBundleDraws(_WebGPUDraws):
    """Draws for a `wgpu.GPURenderBundleEncoder`."""

    _prefix = "wgpuRenderBundleEncoder"


class WebGPURenderPass(_WebGPUDraws, NativeRenderPass):
    """A `wgpu.GPURenderPassEncoder`."""

    _prefix = "wgpuRenderPassEncoder"

    def __init__(self, render_pass: Any, call: str) -> None:
        super().__init__(render_pass)
        self._call = call

    def set_viewport(
        self, x: float, y: float, width: float, height: float, min_depth: float, max_depth: float
    ) -> None:
        lib.wgpuRenderPassEncoderSetViewport(
            self._internal, x, y, width, height, min_depth, max_depth
        )

    def set_scissor_rect(self, x: int, y: int, width: int, height: int) -> None:
        lib.wgpuRenderPassEncoderSetScissorRect(self._internal, x, y, width, height)

    def execute_bundles(self, bundles: Sequence[Any]) -> None:
        handles = ffi.new(BUNDLES, [bundle._internal for bundle in bundles])
        lib.wgpuRenderPassEncoderExecuteBundles(self._internal, len(bundles), handles)

    def multi_draw_indirect(self, buffer: Any, offset: int, count: int) -> None:
        lib.wgpuRenderPassEncoderMultiDrawIndirect(self._internal, buffer._internal, offset, count)

    def begin_occlusion_query(self, index: int) -> None:
        lib.wgpuRenderPassEncoderBeginOcclusionQuery(self._internal, index)

    def end_occlusion_query(self) -> None:
        lib.wgpuRenderPassEncoderEndOcclusionQuery(self._internal)

    def end(self) -> None:
        with translated(self._call):
            self._encoder.end()


class WebGPUComputePass(NativeComputePass):
    """A `wgpu.GPUComputePassEncoder`."""

    def __init__(self, compute_pass: Any, call: str) -> None:
        self._pass = compute_pass
        self._internal = compute_pass._internal
        self._call = call

    def set_pipeline(self, pipeline: Any) -> None:
        lib.wgpuComputePassEncoderSetPipeline(self._internal, pipeline._internal)

    def set_bind_group(self, index: int, bind_group: Any, offsets: Sequence[int]) -> None:
        lib.wgpuComputePassEncoderSetBindGroup(
            self._internal, index, bind_group._internal, len(offsets), _offsets(offsets)
        )

    def dispatch_workgroups(self, x: int, y: int, z: int) -> None:
        lib.wgpuComputePassEncoderDispatchWorkgroups(self._internal, x, y, z)

    def dispatch_workgroups_indirect(self, buffer: Any, offset: int) -> None:
        lib.wgpuComputePassEncoderDispatchWorkgroupsIndirect(
            self._internal, buffer._internal, offset
        )

    def end(self) -> None:
        with translated(self._call):
            self._pass.end()
