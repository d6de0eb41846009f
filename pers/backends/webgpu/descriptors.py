"""pers descriptors in the words of wgpu-py."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from pers.backends.webgpu._ffi import NULL, ffi, lib, new
from pers.backends.webgpu.textures import native_texture
from pers.graphics.native import BoundBuffer, BufferPlace, TexturePlace
from pers.graphics.resources import Sampler, Texture
from pers.graphics.types import (
    BindGroupLayout,
    BindingLayout,
    BlendState,
    ColorTarget,
    DepthState,
    RenderPipelineDescriptor,
    SamplerDescriptor,
    VertexLayout,
)

Struct = dict[str, Any]
"""Arguments of wgpu-py, for what is made seldom. The rest is C structs, fields in their order."""

_ENTRIES = ffi.typeof("WGPUBindGroupEntry[]")
_BIND_GROUP = ffi.typeof("WGPUBindGroupDescriptor *")
_TEXEL_BUFFER = ffi.typeof("WGPUTexelCopyBufferInfo *")
_TEXEL_TEXTURE = ffi.typeof("WGPUTexelCopyTextureInfo *")
_TEXEL_LAYOUT = ffi.typeof("WGPUTexelCopyBufferLayout *")
_EXTENT = ffi.typeof("WGPUExtent3D *")
_ALL_ASPECTS = lib.WGPUTextureAspect_All

_BUFFER_USAGES = {
    # pers bit -> WebGPU bit (WebGPU §5.1.2)
    1 << 0: 0x20,  # VERTEX
    1 << 1: 0x10,  # INDEX
    1 << 2: 0x40,  # UNIFORM
    1 << 3: 0x80,  # STORAGE
    1 << 4: 0x04,  # COPY_SRC
    1 << 5: 0x08,  # COPY_DST
    1 << 6: 0x01,  # MAP_READ
    1 << 7: 0x02,  # MAP_WRITE
    1 << 8: 0x100,  # INDIRECT
    1 << 9: 0x200,  # QUERY_RESOLVE
}


@functools.cache
def buffer_usage(usage: int) -> int:
    """Return the WebGPU bits of a `BufferUsage`."""
    return sum(theirs for ours, theirs in _BUFFER_USAGES.items() if usage & ours)


def sampler(descriptor: SamplerDescriptor) -> Struct:
    """Return the arguments of ``create_sampler``."""
    return {
        "label": descriptor.label,
        "mag_filter": descriptor.mag_filter,
        "min_filter": descriptor.min_filter,
        "mipmap_filter": descriptor.mipmap_filter,
        "address_mode_u": descriptor.address_mode,
        "address_mode_v": descriptor.address_mode,
        "address_mode_w": descriptor.address_mode,
        "compare": descriptor.compare,
        "max_anisotropy": descriptor.max_anisotropy,
    }


_TEXTURE_SAMPLE_TYPES = {
    "texture": "float",
    "depth-texture": "depth",
    "uint-texture": "uint",
    "sint-texture": "sint",
    "unfilterable-texture": "unfilterable-float",
}


def bind_group_layout(layout: BindGroupLayout) -> list[Struct]:
    """Return the entries of ``create_bind_group_layout``."""
    return [
        {"binding": entry.binding, "visibility": int(entry.visibility), **_binding(entry)}
        for entry in layout.entries
    ]


def _binding(entry: BindingLayout) -> Struct:
    if entry.kind in _TEXTURE_SAMPLE_TYPES:
        return {"texture": {"sample_type": _TEXTURE_SAMPLE_TYPES[entry.kind]}}
    if entry.kind == "storage-texture":
        storage_format = None if entry.storage_format is None else entry.storage_format.value
        return {"storage_texture": {"access": "write-only", "format": storage_format}}
    if entry.kind in ("sampler", "comparison-sampler"):
        kind = "filtering" if entry.kind == "sampler" else "comparison"
        return {"sampler": {"type": kind}}
    return {
        "buffer": {
            "type": entry.kind,
            "has_dynamic_offset": entry.dynamic_offset,
            "min_binding_size": entry.min_size,
        }
    }


def bind_group(
    resources: Mapping[int, BoundBuffer | Texture | Sampler], layout: Any, label: Any
) -> tuple[Any, Any]:
    """Return the C struct of ``wgpuDeviceCreateBindGroup``, and what has to live with it."""
    fields: list[tuple[Any, ...]] = []
    views: list[Any] = []
    for number, bound in resources.items():
        if isinstance(bound, BoundBuffer):
            buffer = bound.buffer.native.internal
            fields.append((NULL, number, buffer, bound.offset, bound.size, NULL, NULL))
        elif isinstance(bound, Texture):
            views.append(native_texture(bound).view())
            fields.append((NULL, number, NULL, 0, 0, NULL, views[-1].internal))
        else:
            fields.append((NULL, number, NULL, 0, 0, bound.native_handle._internal, NULL))
    entries = new(_ENTRIES, fields)
    struct = new(_BIND_GROUP, (NULL, label, layout._internal, len(entries), entries))
    return struct, (entries, views)


def render_pipeline(descriptor: RenderPipelineDescriptor, shader: Any, layout: Any) -> Struct:
    """Return the arguments of ``create_render_pipeline``."""
    return {
        "label": descriptor.label,
        "layout": layout,
        "vertex": {
            "module": shader,
            "entry_point": descriptor.vertex_entry,
            "buffers": [_vertex_buffer(vertices) for vertices in descriptor.vertex_buffers],
        },
        "fragment": {
            "module": shader,
            "entry_point": descriptor.fragment_entry,
            "targets": [_color_target(target) for target in descriptor.color_targets],
        },
        "primitive": {
            "topology": descriptor.topology,
            "cull_mode": descriptor.cull_mode,
            "strip_index_format": descriptor.strip_index_format,
        },
        "depth_stencil": None if descriptor.depth is None else _depth(descriptor.depth),
        "multisample": {"count": descriptor.sample_count},
    }


def _vertex_buffer(layout: VertexLayout) -> Struct:
    return {
        "array_stride": layout.stride,
        "step_mode": layout.step_mode,
        "attributes": [
            {
                "shader_location": attribute.location,
                "format": attribute.format,
                "offset": attribute.offset,
            }
            for attribute in layout.attributes
        ],
    }


def _color_target(target: ColorTarget) -> Struct:
    blend = None if target.blend is None else _blend(target.blend)
    return {"format": target.format.value, "blend": blend}


def _blend(blend: BlendState) -> Struct:
    return {
        "color": {
            "src_factor": blend.src,
            "dst_factor": blend.dst,
            "operation": blend.operation,
        },
        "alpha": {
            "src_factor": blend.src_alpha,
            "dst_factor": blend.dst_alpha,
            "operation": blend.operation_alpha,
        },
    }


def _depth(depth: DepthState) -> Struct:
    return {
        "format": depth.format.value,
        "depth_compare": depth.compare,
        "depth_write_enabled": depth.write,
    }


def texel_buffer(place: BufferPlace) -> Any:
    """Return pixels in a buffer, for copies."""
    layout = (place.offset, place.bytes_per_row, place.rows_per_image)
    return new(_TEXEL_BUFFER, (layout, place.buffer.native.internal))


def texel_texture(place: TexturePlace) -> Any:
    """Return a place in a texture, for copies."""
    fields = (native_texture(place.texture).internal, place.mip_level, place.origin, _ALL_ASPECTS)
    return new(_TEXEL_TEXTURE, fields)


def texel_layout(offset: int, bytes_per_row: int, rows_per_image: int) -> Any:
    """Return how pixels lie in memory."""
    return new(_TEXEL_LAYOUT, (offset, bytes_per_row, rows_per_image))


def extent(size: tuple[int, int, int]) -> Any:
    """Return width, height and layers."""
    return new(_EXTENT, size)
