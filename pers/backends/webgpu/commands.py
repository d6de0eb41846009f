"""Encoders, passes and bundles on wgpu.

The C functions are called directly: wgpu-py's objects and its check after each call cost several
times what the call itself does. The library keeps what is wrong with draws until the encoder is
finished, so a check after each of them would find nothing.
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from pers.backends.webgpu import descriptors
from pers.backends.webgpu._ffi import (
    BUNDLES,
    NULL,
    OFFSETS,
    Owned,
    cast,
    checked,
    ffi,
    label_view,
    lib,
    memory_of,
    new,
    translate,
)
from pers.backends.webgpu.textures import native_texture
from pers.buffers.core import Buffer, NativeBuffer
from pers.graphics.native import (
    Attachments,
    BufferPlace,
    NativeBindGroup,
    NativeComputePass,
    NativeEncoder,
    NativeRenderCommands,
    NativeRenderPass,
    TexturePlace,
)
from pers.graphics.resources import QuerySet
from pers.graphics.types import IndexFormat

_INDEX_FORMATS = {"uint16": lib.WGPUIndexFormat_Uint16, "uint32": lib.WGPUIndexFormat_Uint32}
_ENCODER = ffi.typeof("WGPUCommandEncoderDescriptor *")
_RENDER_PASS = ffi.typeof("WGPURenderPassDescriptor *")
_COMPUTE_PASS = ffi.typeof("WGPUComputePassDescriptor *")
_COLORS = ffi.typeof("WGPURenderPassColorAttachment[]")
_DEPTH = ffi.typeof("WGPURenderPassDepthStencilAttachment *")
_OFFSET_POINTER = ffi.typeof("uint32_t *")
_LOAD, _CLEAR, _STORE = lib.WGPULoadOp_Load, lib.WGPULoadOp_Clear, lib.WGPUStoreOp_Store
_NO_DEPTH_SLICE = lib.WGPU_DEPTH_SLICE_UNDEFINED

_create_encoder = checked(lib.wgpuDeviceCreateCommandEncoder, lib.wgpuCommandEncoderRelease)
_begin_render_pass = checked(
    lib.wgpuCommandEncoderBeginRenderPass, lib.wgpuRenderPassEncoderRelease
)
_begin_compute_pass = checked(
    lib.wgpuCommandEncoderBeginComputePass, lib.wgpuComputePassEncoderRelease
)
_copy_buffer_to_texture = checked(lib.wgpuCommandEncoderCopyBufferToTexture)
_copy_texture_to_buffer = checked(lib.wgpuCommandEncoderCopyTextureToBuffer)
_copy_texture_to_texture = checked(lib.wgpuCommandEncoderCopyTextureToTexture)
_resolve_query_set = checked(lib.wgpuCommandEncoderResolveQuerySet)
# What is wrong with these is kept until the encoder is finished, as with draws.
_copy_buffer_to_buffer = lib.wgpuCommandEncoderCopyBufferToBuffer
_clear_buffer = lib.wgpuCommandEncoderClearBuffer
_finish = checked(lib.wgpuCommandEncoderFinish, lib.wgpuCommandBufferRelease)
_end_render_pass = checked(lib.wgpuRenderPassEncoderEnd)
_end_compute_pass = checked(lib.wgpuComputePassEncoderEnd)


class WebGPUCommandBuffer(Owned):
    """A `WGPUCommandBuffer`."""

    _release = lib.wgpuCommandBufferRelease


class WebGPUEncoder(Owned, NativeEncoder):
    """A `WGPUCommandEncoder`."""

    _release = lib.wgpuCommandEncoderRelease

    def __init__(self, device: Any, label: str) -> None:
        """Make the encoder; raises wgpu's errors."""
        view = label_view(label)
        super().__init__(_create_encoder(device, new(_ENCODER, (NULL, view))))
        self._label = label

    @property
    def _call(self) -> str:
        return f"encoder {self._label!r}"

    def copy_buffer_to_buffer(
        self, source: Buffer, source_offset: int, target: Buffer, target_offset: int, size: int
    ) -> None:
        origin, goal = source.native.internal, target.native.internal
        _copy_buffer_to_buffer(self.internal, origin, source_offset, goal, target_offset, size)

    def copy_buffer_to_texture(
        self, source: BufferPlace, target: TexturePlace, size: tuple[int, int, int]
    ) -> None:
        try:
            origin, goal = descriptors.texel_buffer(source), descriptors.texel_texture(target)
            _copy_buffer_to_texture(self.internal, origin, goal, descriptors.extent(size))
        except Exception as error:
            raise translate(error, self._call) from None

    def copy_texture_to_buffer(
        self, source: TexturePlace, target: BufferPlace, size: tuple[int, int, int]
    ) -> None:
        try:
            origin, goal = descriptors.texel_texture(source), descriptors.texel_buffer(target)
            _copy_texture_to_buffer(self.internal, origin, goal, descriptors.extent(size))
        except Exception as error:
            raise translate(error, self._call) from None

    def copy_texture_to_texture(
        self, source: TexturePlace, target: TexturePlace, size: tuple[int, int, int]
    ) -> None:
        try:
            origin, goal = descriptors.texel_texture(source), descriptors.texel_texture(target)
            _copy_texture_to_texture(self.internal, origin, goal, descriptors.extent(size))
        except Exception as error:
            raise translate(error, self._call) from None

    def clear_buffer(self, buffer: Buffer, offset: int, size: int) -> None:
        _clear_buffer(self.internal, buffer.native.internal, offset, size)

    def resolve_query_set(
        self, query_set: QuerySet, first: int, count: int, target: Buffer, offset: int
    ) -> None:
        queries, goal = query_set.native_handle._internal, target.native.internal
        try:
            _resolve_query_set(self.internal, queries, first, count, goal, offset)
        except Exception as error:
            raise translate(error, self._call) from None

    def begin_render_pass(
        self,
        attachments: Attachments,
        clear_color: tuple[float, float, float, float] | None,
        clear_depth: float | None,
        occlusion_queries: QuerySet | None,
        label: str,
    ) -> NativeRenderPass:
        queries = NULL if occlusion_queries is None else occlusion_queries.native_handle._internal
        try:
            descriptor = attachments.prepared
            if descriptor is None:
                descriptor = _PassDescriptor(attachments)
                if descriptor.is_lasting:
                    attachments.prepared = descriptor
            begun = descriptor.begin(self.internal, clear_color, clear_depth, queries, label)
        except Exception as error:
            raise translate(error, f"{self._call}: render pass {label!r}") from None
        return WebGPURenderPass(begun, self._label, label)

    def begin_compute_pass(self, label: str) -> NativeComputePass:
        try:
            view = label_view(label)
            descriptor = new(_COMPUTE_PASS, (NULL, view)) if label else NULL
            begun = _begin_compute_pass(self.internal, descriptor)
        except Exception as error:
            raise translate(error, f"{self._call}: compute pass {label!r}") from None
        return WebGPUComputePass(begun, self._label, label)

    def finish(self) -> Any:
        try:
            return WebGPUCommandBuffer(_finish(self.internal, NULL))
        except Exception as error:
            raise translate(error, f"{self._call}: finish") from None


class _PassDescriptor:
    """The C struct for passes into the same textures. Thread-safe.

    It is kept with the frame buffer, since all that changes from pass to pass is what is cleared.
    """

    def __init__(self, attachments: Attachments) -> None:
        places = [place for pair in attachments.colors for place in pair if place]
        if attachments.depth is not None:
            places.append(attachments.depth)
        natives = {place: native_texture(place.texture) for place in places}
        self.is_lasting = all(native.is_owned for native in natives.values())
        """Whether it can be used again. What belongs to a window has to be let go of at once."""
        self._lock = threading.Lock()
        self._views = {
            place: native.layer_view(place.mip_level, place.origin[2])
            for place, native in natives.items()
        }
        self._colors = new(_COLORS, len(attachments.colors))
        for color, (drawn, resolved) in zip(self._colors, attachments.colors, strict=True):
            color.view = self._views[drawn].internal
            color.depthSlice = _NO_DEPTH_SLICE
            if resolved is not None:
                color.resolveTarget = self._views[resolved].internal
            color.storeOp = _STORE
        self._depth = NULL
        self._has_depth = self._has_stencil = False
        if attachments.depth is not None:
            self._depth = new(_DEPTH)
            self._depth.view = self._views[attachments.depth].internal
            depth_format = attachments.depth.texture.format.value
            self._has_depth = depth_format != "stencil8"
            self._has_stencil = "stencil" in depth_format
        self._struct = new(
            _RENDER_PASS, (NULL, (NULL, 0), len(self._colors), self._colors, self._depth)
        )
        self._clear: object = None  # what the struct says is cleared

    def begin(
        self,
        encoder: Any,
        clear_color: tuple[float, float, float, float] | None,
        clear_depth: float | None,
        queries: Any,
        label: str,
    ) -> Any:
        """Begin a pass; raises wgpu's errors."""
        view = label_view(label)
        for texture_view in self._views.values():
            if texture_view.internal is None:  # a finalizer draws to what is garbage as well
                raise RuntimeError("the frame buffer is gone; create a new one")
        with self._lock:
            if self._clear != (clear_color, clear_depth):
                self._clear = None
                self._set_color(clear_color)
                self._set_depth(clear_depth)
                self._clear = (clear_color, clear_depth)
            self._struct.label = view
            self._struct.occlusionQuerySet = queries
            return _begin_render_pass(encoder, self._struct)

    def _set_color(self, clear: tuple[float, float, float, float] | None) -> None:
        for color in self._colors:
            color.loadOp = _LOAD if clear is None else _CLEAR
            color.clearValue = clear or (0.0, 0.0, 0.0, 0.0)

    def _set_depth(self, clear: float | None) -> None:
        load = _LOAD if clear is None else _CLEAR
        if self._has_depth:
            self._depth.depthLoadOp, self._depth.depthStoreOp = load, _STORE
            self._depth.depthClearValue = 1.0 if clear is None else clear
        if self._has_stencil:
            self._depth.stencilLoadOp, self._depth.stencilStoreOp = load, _STORE


class _WebGPUDraws(NativeRenderCommands):
    """What passes and bundle encoders share, by the C functions of each."""

    internal: Any
    _prefix: str

    def __init__(self, internal: Any) -> None:
        self.internal = internal
        self._one_offset = new(OFFSETS, 1)
        for name, function in self._bound:  # instead of the methods: one call less for each draw
            setattr(self, name, functools.partial(function, internal))

    def __init_subclass__(cls) -> None:
        if not hasattr(cls, "_prefix"):
            return

        def function(name: str) -> Any:
            return getattr(lib, f"{cls._prefix}{name}")

        cls._bound = (("draw", function("Draw")), ("draw_indexed", function("DrawIndexed")))
        cls._draw = function("Draw")
        cls._draw_indexed = function("DrawIndexed")
        cls._set_pipeline = function("SetPipeline")
        cls._set_bind_group = function("SetBindGroup")
        cls._set_vertex_buffer = function("SetVertexBuffer")
        cls._set_index_buffer = function("SetIndexBuffer")
        cls._draw_indirect = function("DrawIndirect")
        cls._draw_indexed_indirect = function("DrawIndexedIndirect")

    _bound: tuple[tuple[str, Any], ...]
    _draw: Any
    _draw_indexed: Any
    _set_pipeline: Any
    _set_bind_group: Any
    _set_vertex_buffer: Any
    _set_index_buffer: Any
    _draw_indirect: Any
    _draw_indexed_indirect: Any

    def set_pipeline(self, pipeline: Any) -> None:
        self._set_pipeline(self.internal, pipeline._internal)

    def set_bind_group(
        self, index: int, bind_group: NativeBindGroup, offsets: Sequence[int]
    ) -> None:
        count = len(offsets)
        if count == 1:
            numbers = self._one_offset
            numbers[0] = offsets[0]
        else:
            numbers = new(OFFSETS, offsets) if count else NULL
        self._set_bind_group(self.internal, index, bind_group.internal, count, numbers)

    def set_vertex_buffer(self, slot: int, buffer: NativeBuffer, offset: int, size: int) -> None:
        self._set_vertex_buffer(self.internal, slot, buffer.internal, offset, size)

    def set_index_buffer(
        self, buffer: NativeBuffer, index_format: IndexFormat, offset: int, size: int
    ) -> None:
        number = _INDEX_FORMATS[index_format]
        self._set_index_buffer(self.internal, buffer.internal, number, offset, size)

    def draw(
        self, vertex_count: int, instance_count: int, first_vertex: int, first_instance: int
    ) -> None:
        self._draw(self.internal, vertex_count, instance_count, first_vertex, first_instance)

    def draw_indexed(
        self,
        index_count: int,
        instance_count: int,
        first_index: int,
        base_vertex: int,
        first_instance: int,
    ) -> None:
        self._draw_indexed(
            self.internal, index_count, instance_count, first_index, base_vertex, first_instance
        )

    def draw_many(
        self,
        draws: npt.NDArray[Any],
        index: int,
        bind_group: NativeBindGroup | None,
        offsets: npt.NDArray[Any],
    ) -> None:
        self._many(self._draw, draws, index, bind_group, offsets)

    def draw_indexed_many(
        self,
        draws: npt.NDArray[Any],
        index: int,
        bind_group: NativeBindGroup | None,
        offsets: npt.NDArray[Any],
    ) -> None:
        self._many(self._draw_indexed, draws, index, bind_group, offsets)

    def draw_indirect(self, buffer: NativeBuffer, offset: int) -> None:
        self._draw_indirect(self.internal, buffer.internal, offset)

    def draw_indexed_indirect(self, buffer: NativeBuffer, offset: int) -> None:
        self._draw_indexed_indirect(self.internal, buffer.internal, offset)

    def _many(
        self,
        draw: Any,
        draws: npt.NDArray[Any],
        index: int,
        bind_group: NativeBindGroup | None,
        offsets: npt.NDArray[Any],
    ) -> None:
        """Make the C calls, and nothing else: `map` goes from one to the next without Python."""
        always = itertools.repeat
        calls = map(draw, always(self.internal), *draws.T.tolist())
        if bind_group is None:
            deque(calls, maxlen=0)
            return
        total, count = offsets.shape
        first = cast(_OFFSET_POINTER, memory_of(offsets))
        places = map(first.__add__, range(0, total * count, count))
        groups = map(
            self._set_bind_group,
            always(self.internal), always(index), always(bind_group.internal), always(count),
            places,
        )  # fmt: skip
        deque(zip(groups, calls, strict=False), maxlen=0)  # which takes from one after the other


class WebGPUBundleDraws(_WebGPUDraws):
    """Draws for a `WGPURenderBundleEncoder`."""

    _prefix = "wgpuRenderBundleEncoder"


class WebGPUPassDraws(_WebGPUDraws):
    """Draws for a `WGPURenderPassEncoder`."""

    _prefix = "wgpuRenderPassEncoder"


class WebGPURenderPass(Owned, WebGPUPassDraws, NativeRenderPass):
    """A `WGPURenderPassEncoder`."""

    _release = lib.wgpuRenderPassEncoderRelease

    def __init__(self, internal: Any, encoder_label: str, label: str) -> None:
        WebGPUPassDraws.__init__(self, internal)
        self._labels = (encoder_label, label)

    def __del__(self) -> None:
        for name, _ in self._bound:
            delattr(self, name)
        super().__del__()

    def set_viewport(
        self, x: float, y: float, width: float, height: float, min_depth: float, max_depth: float
    ) -> None:
        lib.wgpuRenderPassEncoderSetViewport(
            self.internal, x, y, width, height, min_depth, max_depth
        )

    def set_scissor_rect(self, x: int, y: int, width: int, height: int) -> None:
        lib.wgpuRenderPassEncoderSetScissorRect(self.internal, x, y, width, height)

    def execute_bundles(self, bundles: Sequence[Any]) -> None:
        handles = new(BUNDLES, [bundle._internal for bundle in bundles])
        lib.wgpuRenderPassEncoderExecuteBundles(self.internal, len(bundles), handles)

    def multi_draw_indirect(self, buffer: NativeBuffer, offset: int, count: int) -> None:
        lib.wgpuRenderPassEncoderMultiDrawIndirect(self.internal, buffer.internal, offset, count)

    def multi_draw_indexed_indirect(self, buffer: NativeBuffer, offset: int, count: int) -> None:
        draw = lib.wgpuRenderPassEncoderMultiDrawIndexedIndirect
        draw(self.internal, buffer.internal, offset, count)

    def begin_occlusion_query(self, index: int) -> None:
        lib.wgpuRenderPassEncoderBeginOcclusionQuery(self.internal, index)

    def end_occlusion_query(self) -> None:
        lib.wgpuRenderPassEncoderEndOcclusionQuery(self.internal)

    def end(self) -> None:
        try:
            _end_render_pass(self.internal)
        except Exception as error:
            encoder, label = self._labels
            raise translate(error, f"encoder {encoder!r}: render pass {label!r}") from None


class WebGPUComputePass(Owned, NativeComputePass):
    """A `WGPUComputePassEncoder`."""

    _release = lib.wgpuComputePassEncoderRelease

    def __init__(self, internal: Any, encoder_label: str, label: str) -> None:
        super().__init__(internal)
        self._labels = (encoder_label, label)

    def set_pipeline(self, pipeline: Any) -> None:
        lib.wgpuComputePassEncoderSetPipeline(self.internal, pipeline._internal)

    def set_bind_group(
        self, index: int, bind_group: NativeBindGroup, offsets: Sequence[int]
    ) -> None:
        numbers = new(OFFSETS, offsets) if offsets else NULL
        lib.wgpuComputePassEncoderSetBindGroup(
            self.internal, index, bind_group.internal, len(offsets), numbers
        )

    def dispatch_workgroups(self, x: int, y: int, z: int) -> None:
        lib.wgpuComputePassEncoderDispatchWorkgroups(self.internal, x, y, z)

    def dispatch_workgroups_indirect(self, buffer: NativeBuffer, offset: int) -> None:
        lib.wgpuComputePassEncoderDispatchWorkgroupsIndirect(self.internal, buffer.internal, offset)

    def end(self) -> None:
        try:
            _end_compute_pass(self.internal)
        except Exception as error:
            encoder, label = self._labels
            raise translate(error, f"encoder {encoder!r}: compute pass {label!r}") from None
