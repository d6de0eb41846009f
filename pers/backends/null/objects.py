"""What a null device makes beside buffers and textures: descriptions, kept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pers.backends.null.buffers import NullBuffer, native_buffer
from pers.backends.null.live import LiveObjects, NullObject
from pers.errors import ValidationError
from pers.graphics.native import BoundBuffer, NativeBindGroup
from pers.graphics.types import (
    BindGroupLayout,
    ComputePipelineDescriptor,
    DeviceLimits,
    RenderPipelineDescriptor,
    SamplerDescriptor,
    VertexLayout,
)

if TYPE_CHECKING:
    from pers.graphics.resources import Sampler, Texture

_ENTRY = re.compile(r"@\s*(vertex|fragment|compute)\b[^;{}]*?\bfn\s+(\w+)")
"""The stage and the name of an entry point; its attributes come in any order."""


class NullSampler(NullObject):
    """A sampler."""

    def __init__(self, live: LiveObjects, descriptor: SamplerDescriptor) -> None:
        super().__init__(live)
        self.descriptor = descriptor


class NullQuerySet(NullObject):
    """A query set; all its results are zero."""


class NullShader(NullObject):
    """A shader that is never run, so all that is known of it is its entry points."""

    def __init__(self, live: LiveObjects, code: str, label: str) -> None:
        super().__init__(live)
        plain = re.sub(r"//[^\n]*|/\*.*?\*/", " ", code, flags=re.DOTALL)
        self._name = f"shader {label!r}"
        self._entries = frozenset(_ENTRY.findall(plain))
        if not re.search(r"\bfn\s+\w+\s*\(", plain):
            raise ValidationError(
                f"{self._name} is no WGSL: it has no function; write one like "
                "'@vertex fn vs_main() -> ...' (the null backend does not compile WGSL, so it "
                "finds no other mistakes)"
            )

    def check_entry(self, entry: str, stage: str, call: str) -> None:
        """Raise `ValidationError` unless there is such an entry point."""
        if (stage, entry) not in self._entries:
            known = (f"@{stage} {name}" for stage, name in sorted(self._entries))
            raise ValidationError(
                f"{call}: {self._name} has no {stage} entry point {entry!r}; it has "
                f"{', '.join(known) or 'no entry points'}"
            )


class NullBindGroup(NullObject, NativeBindGroup):
    """Bound resources."""

    def __init__(
        self,
        live: LiveObjects,
        layout: BindGroupLayout,
        resources: Mapping[int, BoundBuffer | Texture | Sampler],
    ) -> None:
        super().__init__(live)
        self.signature = signature(layout)
        bound = (item.buffer for item in resources.values() if isinstance(item, BoundBuffer))
        self.buffers: frozenset[NullBuffer] = frozenset(map(native_buffer, bound))

    @property
    def handle(self) -> Any:
        return self


class NullRenderPipeline(NullObject):
    """A render pipeline: what has to be set before its draws, and how much they may read."""

    def __init__(
        self,
        live: LiveObjects,
        descriptor: RenderPipelineDescriptor,
        shader: NullShader,
        limits: DeviceLimits,
    ) -> None:
        super().__init__(live)
        call = f"create_render_pipeline {descriptor.label!r}"
        self.name = f"pipeline {descriptor.label!r}"
        shader.check_entry(descriptor.vertex_entry, "vertex", call)
        if descriptor.color_targets:
            shader.check_entry(descriptor.fragment_entry, "fragment", call)
        elif descriptor.depth is None:
            raise ValidationError(f"{call}: it needs a colour target or a depth state")
        if descriptor.sample_count not in (1, 4):
            raise ValidationError(
                f"{call}: sample_count must be 1 or 4, not {descriptor.sample_count}"
            )
        _check_count(call, "bind groups", descriptor.bind_groups, limits.max_bind_groups)
        _check_count(call, "vertex buffers", descriptor.vertex_buffers, limits.max_vertex_buffers)
        _check_count(call, "color targets", descriptor.color_targets, limits.max_color_attachments)
        self.color_formats = tuple(target.format for target in descriptor.color_targets)
        self.depth_format = None if descriptor.depth is None else descriptor.depth.format
        self.sample_count = descriptor.sample_count
        self.signatures = tuple(map(signature, descriptor.bind_groups))
        self.vertex_buffers = descriptor.vertex_buffers
        self.record_sizes = tuple(map(_record_nbytes, descriptor.vertex_buffers))
        """Bytes that the last vertex of each buffer takes."""


class NullComputePipeline(NullObject):
    """A compute pipeline."""

    def __init__(
        self,
        live: LiveObjects,
        descriptor: ComputePipelineDescriptor,
        shader: NullShader,
        limits: DeviceLimits,
    ) -> None:
        super().__init__(live)
        call = f"create_compute_pipeline {descriptor.label!r}"
        self.name = f"pipeline {descriptor.label!r}"
        shader.check_entry(descriptor.entry, "compute", call)
        _check_count(call, "bind groups", descriptor.bind_groups, limits.max_bind_groups)
        self.signatures = tuple(map(signature, descriptor.bind_groups))


def signature(layout: BindGroupLayout) -> frozenset[object]:
    """Return what two layouts have to share to be the same to WebGPU (§8.1)."""
    return frozenset(layout.entries)


def _record_nbytes(layout: VertexLayout) -> int:
    """Return how far into a vertex (bytes) a shader reads."""
    return max((item.offset + _format_nbytes(item.format) for item in layout.attributes), default=0)


def _format_nbytes(name: str) -> int:
    """Return the bytes of a vertex format: 12 for ``float32x3``."""
    match = re.fullmatch(r"[a-z]+(\d+)(?:x(\d))?", name)
    if match is None:
        raise ValidationError(f"there is no vertex format {name!r}; see VertexLayout.from_dtype")
    bits, items = match.groups()
    return int(bits) // 8 * int(items or 1)


def _check_count(call: str, what: str, given: tuple[object, ...], limit: int) -> None:
    if len(given) > limit:
        raise ValidationError(f"{call}: {len(given)} {what}; the device's limit is {limit}")
