"""Descriptors: frozen values that say what a device is to make."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeAlias, get_args

import attrs
import numpy as np
import numpy.typing as npt

from pers._checks import items_of, whole_number
from pers.buffers.interfaces import IBuffer
from pers.errors import ValidationError
from pers.textures import ITexture, TextureFormat, TextureUsage

__all__ = [
    "AddressMode",
    "BindGroupLayout",
    "BindingKind",
    "BindingLayout",
    "BlendState",
    "BufferBinding",
    "ColorTarget",
    "CompareFunction",
    "ComputePipelineDescriptor",
    "CullMode",
    "DepthState",
    "DeviceInfo",
    "DeviceLimits",
    "DeviceLostInfo",
    "FilterMode",
    "IndexFormat",
    "PresentMode",
    "RenderPipelineDescriptor",
    "RenderTarget",
    "SamplerDescriptor",
    "ShaderStage",
    "StepMode",
    "TextureDescriptor",
    "Topology",
    "VertexAttribute",
    "VertexLayout",
]

AddressMode: TypeAlias = Literal["clamp-to-edge", "repeat", "mirror-repeat"]
BindingKind: TypeAlias = Literal[
    "uniform", "storage", "read-only-storage", "sampler", "comparison-sampler", "texture",
    "depth-texture", "uint-texture", "sint-texture", "unfilterable-texture", "storage-texture",
]  # fmt: skip
BlendFactor: TypeAlias = Literal[
    "zero", "one", "src", "one-minus-src", "src-alpha", "one-minus-src-alpha", "dst",
    "one-minus-dst", "dst-alpha", "one-minus-dst-alpha",
]  # fmt: skip
BlendOperation: TypeAlias = Literal["add", "subtract", "reverse-subtract", "min", "max"]
CompareFunction: TypeAlias = Literal[
    "never", "less", "equal", "less-equal", "greater", "not-equal", "greater-equal", "always"
]
CullMode: TypeAlias = Literal["none", "front", "back"]
FilterMode: TypeAlias = Literal["nearest", "linear"]
IndexFormat: TypeAlias = Literal["uint16", "uint32"]
PresentMode: TypeAlias = Literal["fifo", "fifo-relaxed", "immediate", "mailbox"]
StepMode: TypeAlias = Literal["vertex", "instance"]
Topology: TypeAlias = Literal[
    "point-list", "line-list", "line-strip", "triangle-list", "triangle-strip"
]

BUFFER_KINDS = ("uniform", "storage", "read-only-storage")


class ShaderStage(enum.IntFlag):
    """Which shader stages see a binding; combine with ``|``."""

    VERTEX = 1
    FRAGMENT = 2
    COMPUTE = 4


def _positive(instance: object, attribute: attrs.Attribute[int], value: Any) -> None:
    what = f"{type(instance).__name__}.{attribute.name}"
    whole_number(value, what, minimum=1, maximum=2**31 - 1, error=ValidationError)


def _not_negative(instance: object, attribute: attrs.Attribute[int], value: Any) -> None:
    whole_number(value, f"{type(instance).__name__}.{attribute.name}", error=ValidationError)


def _uint32(instance: object, attribute: attrs.Attribute[int], value: Any) -> None:
    what = f"{type(instance).__name__}.{attribute.name}"
    whole_number(value, what, maximum=2**32 - 1, error=ValidationError)


def _of(kind: type[Any]) -> Callable[[object, attrs.Attribute[Any], Any], None]:
    """Return a validator for a field that is a `kind`."""

    def check(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        if not isinstance(value, kind):
            raise ValidationError(
                f"{type(instance).__name__}.{attribute.name} must be a {kind.__name__}, "
                f"not {value!r}"
            )

    return check


def _one_of(literal: Any) -> Callable[[object, attrs.Attribute[Any], Any], None]:
    """Return a validator for a field of a ``Literal`` type."""
    choices = get_args(literal)

    def check(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        if not isinstance(value, str) or value not in choices:
            raise ValidationError(
                f"{type(instance).__name__}.{attribute.name} must be one of "
                f"{', '.join(choices)}, not {value!r}"
            )

    return check


def _to_tuple(value: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(items_of(value, "a descriptor"))


def _all(kind: type[Any]) -> Callable[[object, attrs.Attribute[Any], Any], None]:
    """Return a validator for a field that is a tuple of `kind`."""

    def check(instance: object, attribute: attrs.Attribute[Any], value: tuple[Any, ...]) -> None:
        for item in value:
            if not isinstance(item, kind):
                raise ValidationError(
                    f"{type(instance).__name__}.{attribute.name} takes {kind.__name__} objects, "
                    f"not {item!r}"
                )

    return check


def _samples(instance: object, attribute: attrs.Attribute[int], value: Any) -> None:
    check_sample_count(value, f"{type(instance).__name__}.{attribute.name}")


def check_sample_count(value: object, what: str) -> None:
    """Raise unless a pixel can have that many samples (WebGPU §6.1)."""
    if whole_number(value, what, error=ValidationError) not in (1, 4):
        raise ValidationError(f"{what} must be 1 or 4, not {value} (WebGPU §6.1)")


def to_color_format(value: Any) -> TextureFormat:
    """Return a format that a colour target can have."""
    texture_format = to_format(value)
    if texture_format.is_depth:
        raise ValidationError(f"{texture_format.value} holds depths; use a format with colours")
    return texture_format


def to_depth_format(value: Any) -> TextureFormat:
    """Return a format that a depth target can have."""
    texture_format = to_format(value)
    if not texture_format.is_depth:
        raise ValidationError(f"{texture_format.value} holds colours; use depth32float, say")
    return texture_format


def _to_stages(value: Any) -> ShaderStage:
    bits = whole_number(value, "a binding's visibility", error=ValidationError)
    if bits == 0 or bits & ~7:
        raise ValidationError(
            f"visibility {bits:#x} is empty or has unknown bits; "
            "combine members of pers.ShaderStage"
        )
    return ShaderStage(bits)


def to_format(value: Any) -> TextureFormat:
    """Return a `TextureFormat` given as such or by WebGPU's name."""
    try:
        return TextureFormat(value)
    except ValueError:
        raise ValidationError(
            f"{value!r} is no texture format; use a member of pers.TextureFormat"
        ) from None


def _to_texture_usage(value: Any) -> TextureUsage:
    bits = whole_number(value, "a texture's usage", error=ValidationError)
    if bits == 0 or bits & ~31:  # plain numbers: the complement of a flag lacks unknown bits
        raise ValidationError(
            f"texture usage {bits:#x} is empty or has unknown bits; "
            "combine members of pers.TextureUsage"
        )
    return TextureUsage(bits)


@attrs.frozen
class TextureDescriptor:
    """What a texture is to be (2D, or a 2D array).

    Attributes:
        width: Pixels in a row.
        height: Rows.
        format: How a pixel is stored.
        usage: What it may be used for; not empty.
        label: A name for error messages and graphics debuggers.
        layers: Array layers.
        mip_levels: Mip levels, each half the size of the one before.
        sample_count: Samples of a pixel, 1 or 4.

    Raises:
        ValidationError: A value is out of range.
    """

    width: int = attrs.field(validator=_positive)
    height: int = attrs.field(validator=_positive)
    format: TextureFormat = attrs.field(converter=to_format)
    usage: TextureUsage = attrs.field(converter=_to_texture_usage)
    label: str = attrs.field(default="", validator=_of(str))
    layers: int = attrs.field(default=1, validator=_positive)
    mip_levels: int = attrs.field(default=1, validator=_positive)
    sample_count: int = attrs.field(default=1, validator=_samples)

    def __attrs_post_init__(self) -> None:
        if self.mip_levels > max(self.width, self.height).bit_length():
            raise ValidationError(
                f"texture {self.label!r}: {self.width}x{self.height} has at most "
                f"{max(self.width, self.height).bit_length()} mip levels, not {self.mip_levels}"
            )


@attrs.frozen
class RenderTarget:
    """One layer of one mip level of a texture, to draw to.

    Attributes:
        texture: The texture; it needs the usage RENDER_ATTACHMENT.
        mip_level: Which of its mip levels.
        layer: Which of its array layers.

    Raises:
        ValidationError: A value is of the wrong type, or the texture has no such level or layer.
    """

    texture: ITexture = attrs.field(validator=_of(ITexture))
    mip_level: int = attrs.field(default=0, validator=_not_negative)
    layer: int = attrs.field(default=0, validator=_not_negative)

    def __attrs_post_init__(self) -> None:
        levels, layers = self.texture.mip_levels, self.texture.layers
        if self.mip_level >= levels or self.layer >= layers:
            raise ValidationError(
                f"texture {self.texture.label!r} has {levels} mip levels and {layers} layers; "
                f"there is no level {self.mip_level}, layer {self.layer} to draw to"
            )


@attrs.frozen
class SamplerDescriptor:
    """How a shader reads between pixels and beyond edges."""

    mag_filter: FilterMode = attrs.field(default="linear", validator=_one_of(FilterMode))
    min_filter: FilterMode = attrs.field(default="linear", validator=_one_of(FilterMode))
    mipmap_filter: FilterMode = attrs.field(default="nearest", validator=_one_of(FilterMode))
    address_mode: AddressMode = attrs.field(default="clamp-to-edge", validator=_one_of(AddressMode))
    compare: CompareFunction | None = attrs.field(
        default=None, validator=attrs.validators.optional(_one_of(CompareFunction))
    )
    max_anisotropy: int = attrs.field(default=1, validator=_positive)
    label: str = attrs.field(default="", validator=_of(str))


@attrs.frozen
class BufferBinding:
    """A part of a buffer, bound to a shader.

    Attributes:
        buffer: The buffer.
        offset: First byte; a multiple of the device's offset alignment for the kind of binding.
        size: Bytes; None means up to the end. With dynamic offsets, the bytes of one record.
    """

    buffer: IBuffer
    offset: int = attrs.field(default=0, validator=_not_negative)
    size: int | None = None


@attrs.frozen
class BindingLayout:
    """What one ``@binding`` of a shader is.

    Attributes:
        binding: The number in the shader.
        kind: What is bound.
        visibility: The stages that use it.
        dynamic_offset: Whether `set_bind_group` passes an offset for it (buffers only).
        min_size: The smallest buffer part that fits (bytes); 0 leaves the check to the draw.
        storage_format: For ``storage-texture``: the format the shader writes.
    """

    binding: int = attrs.field(validator=_uint32)
    kind: BindingKind = attrs.field(validator=_one_of(BindingKind))
    visibility: ShaderStage = attrs.field(
        default=ShaderStage.VERTEX | ShaderStage.FRAGMENT, converter=_to_stages
    )
    dynamic_offset: bool = attrs.field(default=False, validator=_of(bool))
    min_size: int = attrs.field(default=0, validator=_not_negative)
    storage_format: TextureFormat | None = attrs.field(
        default=None, converter=attrs.converters.optional(to_format)
    )

    def __attrs_post_init__(self) -> None:
        if self.dynamic_offset and self.kind not in BUFFER_KINDS:
            raise ValidationError(
                f"binding {self.binding}: only buffers can have dynamic offsets, not {self.kind}"
            )
        if self.kind == "storage-texture" and self.storage_format is None:
            raise ValidationError(
                f"binding {self.binding}: a storage texture needs the format that the shader "
                "writes; pass storage_format"
            )


@attrs.frozen(cache_hash=True)  # it is looked up for each bind group
class BindGroupLayout:
    """What the ``@binding`` numbers of one ``@group`` are. A value: equal layouts are the same."""

    entries: tuple[BindingLayout, ...] = attrs.field(
        converter=_to_tuple, validator=_all(BindingLayout)
    )

    def __attrs_post_init__(self) -> None:
        numbers = [entry.binding for entry in self.entries]
        if len(set(numbers)) != len(numbers):
            raise ValidationError(f"a bind group layout has a binding twice: {sorted(numbers)}")

    @property
    def dynamic_entries(self) -> tuple[BindingLayout, ...]:
        """The entries with a dynamic offset, in the order `set_bind_group` takes the offsets."""
        dynamic = (entry for entry in self.entries if entry.dynamic_offset)
        return tuple(sorted(dynamic, key=lambda entry: entry.binding))


_VERTEX_FORMATS: Mapping[tuple[str, int], str] = {
    **{("f4", n): f"float32{s}" for n, s in ((1, ""), (2, "x2"), (3, "x3"), (4, "x4"))},
    **{("u4", n): f"uint32{s}" for n, s in ((1, ""), (2, "x2"), (3, "x3"), (4, "x4"))},
    **{("i4", n): f"sint32{s}" for n, s in ((1, ""), (2, "x2"), (3, "x3"), (4, "x4"))},
    ("f2", 2): "float16x2",
    ("f2", 4): "float16x4",
    ("u1", 4): "unorm8x4",
    ("i1", 4): "snorm8x4",
    ("u2", 2): "uint16x2",
    ("u2", 4): "uint16x4",
}


@attrs.frozen
class VertexAttribute:
    """One ``@location`` of a vertex shader, and where its data lies in a vertex."""

    location: int = attrs.field(validator=_uint32)
    format: str = attrs.field(validator=_of(str))
    offset: int = attrs.field(default=0, validator=_not_negative)


@attrs.frozen
class VertexLayout:
    """How the vertices (or instances) of one vertex buffer are stored.

    Attributes:
        stride: Bytes from one vertex to the next.
        attributes: What is in a vertex.
        step_mode: Whether the buffer advances per vertex or per instance.
    """

    stride: int = attrs.field(validator=_positive)
    attributes: tuple[VertexAttribute, ...] = attrs.field(
        converter=_to_tuple, validator=_all(VertexAttribute)
    )
    step_mode: StepMode = attrs.field(default="vertex", validator=_one_of(StepMode))

    @classmethod
    def from_dtype(
        cls, dtype: npt.DTypeLike, *, first_location: int = 0, step_mode: StepMode = "vertex"
    ) -> VertexLayout:
        """Derive the layout from a structured NumPy dtype: one location a field, in order.

        A field is 1 to 4 float32, uint32 or int32 items, 2 or 4 float16 or uint16, or 4 uint8
        (read by the shader as 0 to 1) or int8 (-1 to 1).

        Raises:
            ValidationError: The dtype has no fields, or a field fits no vertex format.
        """
        try:
            record = np.dtype(dtype)
        except (TypeError, ValueError) as error:
            raise ValidationError(f"{dtype!r} is no NumPy dtype ({error})") from None
        if record.fields is None or record.names is None:
            raise ValidationError(f"a vertex layout needs a structured dtype, not {record}")
        fields = {str(name): field for name, field in record.fields.items()}
        attributes: list[VertexAttribute] = []
        for location, name in enumerate(record.names, first_location):
            field, offset = fields[name][:2]
            items = int(np.prod(field.shape, dtype=int))
            key = (f"{field.base.kind}{field.base.itemsize}", items)
            if key not in _VERTEX_FORMATS:
                raise ValidationError(
                    f"field {name!r} ({field}) fits no vertex format; there are "
                    f"{', '.join(sorted(set(_VERTEX_FORMATS.values())))}"
                )
            attributes.append(VertexAttribute(location, _VERTEX_FORMATS[key], offset))
        return cls(record.itemsize, attributes, step_mode)


@attrs.frozen
class BlendState:
    """How a fragment's colour and what is there become the new colour."""

    src: BlendFactor = attrs.field(default="src-alpha", validator=_one_of(BlendFactor))
    dst: BlendFactor = attrs.field(default="one-minus-src-alpha", validator=_one_of(BlendFactor))
    operation: BlendOperation = attrs.field(default="add", validator=_one_of(BlendOperation))
    src_alpha: BlendFactor = attrs.field(default="one", validator=_one_of(BlendFactor))
    dst_alpha: BlendFactor = attrs.field(
        default="one-minus-src-alpha", validator=_one_of(BlendFactor)
    )
    operation_alpha: BlendOperation = attrs.field(default="add", validator=_one_of(BlendOperation))


@attrs.frozen
class ColorTarget:
    """One colour output of a fragment shader."""

    format: TextureFormat = attrs.field(converter=to_color_format)
    blend: BlendState | None = attrs.field(
        default=None, validator=attrs.validators.optional(_of(BlendState))
    )


@attrs.frozen
class DepthState:
    """How fragments are compared with the depth buffer."""

    format: TextureFormat = attrs.field(
        default=TextureFormat.DEPTH32_FLOAT, converter=to_depth_format
    )
    compare: CompareFunction = attrs.field(default="less", validator=_one_of(CompareFunction))
    write: bool = attrs.field(default=True, validator=_of(bool))


@attrs.frozen
class RenderPipelineDescriptor:
    """Everything fixed about a draw: shader, layouts, targets and fixed-function state.

    Attributes:
        shader: The module with both entry points.
        color_targets: One for each colour target of the frame buffer.
        vertex_buffers: One for each slot of `set_vertex_buffer`.
        bind_groups: One for each ``@group``, from 0.
        depth: None draws without a depth buffer.
        topology: What the vertices form.
        cull_mode: Which triangles are left out; counter-clockwise is front.
        sample_count: Samples of a pixel, as in the frame buffer.
        vertex_entry: Name of the vertex entry point.
        fragment_entry: Name of the fragment entry point.
        label: A name for error messages and graphics debuggers.
        strip_index_format: For indexed draws of strips: the format of their indices.
    """

    shader: Any
    color_targets: tuple[ColorTarget, ...] = attrs.field(
        converter=_to_tuple, validator=_all(ColorTarget)
    )
    vertex_buffers: tuple[VertexLayout, ...] = attrs.field(
        default=(), converter=_to_tuple, validator=_all(VertexLayout)
    )
    bind_groups: tuple[BindGroupLayout, ...] = attrs.field(
        default=(), converter=_to_tuple, validator=_all(BindGroupLayout)
    )
    depth: DepthState | None = attrs.field(
        default=None, validator=attrs.validators.optional(_of(DepthState))
    )
    topology: Topology = attrs.field(default="triangle-list", validator=_one_of(Topology))
    cull_mode: CullMode = attrs.field(default="none", validator=_one_of(CullMode))
    sample_count: int = 1
    vertex_entry: str = attrs.field(default="vs_main", validator=_of(str))
    fragment_entry: str = attrs.field(default="fs_main", validator=_of(str))
    label: str = attrs.field(default="", validator=_of(str))
    strip_index_format: IndexFormat | None = attrs.field(
        default=None, validator=attrs.validators.optional(_one_of(IndexFormat))
    )


@attrs.frozen
class ComputePipelineDescriptor:
    """Everything fixed about a dispatch.

    Attributes:
        shader: The module with the entry point.
        bind_groups: One for each ``@group``, from 0.
        entry: Name of the entry point.
        label: A name for error messages and graphics debuggers.
    """

    shader: Any
    bind_groups: tuple[BindGroupLayout, ...] = attrs.field(
        default=(), converter=_to_tuple, validator=_all(BindGroupLayout)
    )
    entry: str = attrs.field(default="main", validator=_of(str))
    label: str = attrs.field(default="", validator=_of(str))


@attrs.frozen
class DeviceInfo:
    """What the device is.

    Attributes:
        backend: The pers backend: ``webgpu`` or ``null``.
        api: The graphics API below it (``Vulkan``, ``Metal``, ``D3D12``, ``OpenGL``, ``NumPy``).
        name: The adapter's name.
        driver: The driver's name and version.
        kind: ``discrete``, ``integrated``, ``virtual``, ``cpu`` or ``unknown``.
        executes_shaders: Whether draws and dispatches run. The null backend copies and clears,
            and counts draws and dispatches without running them.
        features: The WebGPU features that it can be opened with; ``device.features`` are those
            that are on.
    """

    backend: str
    api: str
    name: str
    driver: str
    kind: str
    executes_shaders: bool
    features: frozenset[str] = frozenset()


@attrs.frozen
class DeviceLimits:
    """The device's limits, named as in WebGPU §3.6.2 (bytes where not counts)."""

    max_texture_dimension_2d: int
    max_texture_array_layers: int
    max_bind_groups: int
    max_bindings_per_bind_group: int
    max_dynamic_uniform_buffers_per_pipeline_layout: int
    max_dynamic_storage_buffers_per_pipeline_layout: int
    max_uniform_buffer_binding_size: int
    max_storage_buffer_binding_size: int
    min_uniform_buffer_offset_alignment: int
    min_storage_buffer_offset_alignment: int
    max_vertex_buffers: int
    max_vertex_attributes: int
    max_vertex_buffer_array_stride: int
    max_buffer_size: int
    max_color_attachments: int
    max_compute_workgroup_storage_size: int
    max_compute_invocations_per_workgroup: int
    max_compute_workgroup_size_x: int
    max_compute_workgroup_size_y: int
    max_compute_workgroup_size_z: int
    max_compute_workgroups_per_dimension: int


@attrs.frozen
class DeviceLostInfo:
    """Why a device was lost.

    Attributes:
        reason: ``destroyed`` when it was closed, ``unknown`` for anything else.
        message: What is known beyond that.
    """

    reason: Literal["destroyed", "unknown"]
    message: str
