"""What a null device can, and how it is asked for more or less."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from pers._checks import whole_number
from pers.errors import BackendUnavailableError
from pers.graphics.types import DeviceLimits

FEATURES = frozenset({"mappable-primary-buffers", "timestamp-query"})

MAX_LIMIT = 2**40
"""The most that may be asked for of any limit."""

MIN_ALIGNMENT = 32
"""The smallest offset alignment there is (WebGPU §3.6.2)."""

DEFAULT_LIMITS = DeviceLimits(
    max_texture_dimension_2d=8192,
    max_texture_array_layers=256,
    max_bind_groups=4,
    max_bindings_per_bind_group=1000,
    max_dynamic_uniform_buffers_per_pipeline_layout=8,
    max_dynamic_storage_buffers_per_pipeline_layout=4,
    max_uniform_buffer_binding_size=64 << 10,
    max_storage_buffer_binding_size=128 << 20,
    min_uniform_buffer_offset_alignment=256,
    min_storage_buffer_offset_alignment=256,
    max_vertex_buffers=8,
    max_vertex_attributes=16,
    max_vertex_buffer_array_stride=2048,
    max_buffer_size=256 << 20,
    max_color_attachments=8,
    max_compute_workgroup_storage_size=16384,
    max_compute_invocations_per_workgroup=256,
    max_compute_workgroup_size_x=256,
    max_compute_workgroup_size_y=256,
    max_compute_workgroup_size_z=64,
    max_compute_workgroups_per_dimension=65535,
)
"""WebGPU's defaults (§3.6.2): what every WebGPU device reaches."""


def choose_features(wanted: Sequence[str]) -> frozenset[str]:
    """Return the features to open a device with."""
    features = frozenset([wanted] if isinstance(wanted, str) else wanted)
    unknown = sorted(map(str, features - FEATURES))
    if unknown:
        raise BackendUnavailableError(
            f"the null backend has no feature {', '.join(map(repr, unknown))}; it has "
            f"{', '.join(sorted(FEATURES))}"
        )
    return features


def choose_limits(wanted: Mapping[str, int]) -> DeviceLimits:
    """Return the default limits, with those in `wanted` in their place."""
    names = [field.name for field in attrs.fields(DeviceLimits)]
    unknown = sorted(str(name) for name in wanted if name not in names)
    if unknown:
        raise BackendUnavailableError(
            f"there is no limit {', '.join(map(repr, unknown))}; there are {', '.join(names)}"
        )
    chosen = {name: _limit(name, value) for name, value in wanted.items()}
    return attrs.evolve(DEFAULT_LIMITS, **chosen)


def _limit(name: str, value: int) -> int:
    is_alignment = name.startswith("min_")
    limit = whole_number(
        value,
        f"the null backend's limit {name}",
        minimum=MIN_ALIGNMENT if is_alignment else 0,
        maximum=MAX_LIMIT,
        error=BackendUnavailableError,
    )
    if is_alignment and limit & (limit - 1):
        raise BackendUnavailableError(f"the limit {name} must be a power of two, not {limit}")
    return limit
