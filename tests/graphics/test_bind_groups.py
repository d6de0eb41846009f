"""Bind groups, their layouts and dynamic offsets (validation/cmds: setBindGroup)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from pers import (
    BindGroupLayout,
    BindingLayout,
    BufferBinding,
    BufferRangeError,
    BufferStateError,
    BufferUsage,
    BufferUsageError,
    DeviceLostError,
    IBindGroup,
    IRenderDevice,
    ISampler,
    ITexture,
    ShaderStage,
    TextureFormat,
    TextureUsage,
    ValidationError,
)
from tests.support import COPY, JUNK_NUMBERS, Maker, make_texture, open_device

ALL = BufferUsage.UNIFORM | BufferUsage.STORAGE | COPY
COMPUTE = ShaderStage.COMPUTE
DYNAMIC = BindGroupLayout([BindingLayout(0, "uniform", COMPUTE, dynamic_offset=True, min_size=16)])


def layout(kind: Any = "uniform", **more: Any) -> BindGroupLayout:
    return BindGroupLayout([BindingLayout(0, kind, COMPUTE, **more)])


@pytest.fixture
def compute(device: IRenderDevice) -> Iterator[Any]:
    """An open compute pass."""
    with device.create_command_encoder("groups").begin_compute_pass(label="pass") as compute_pass:
        yield compute_pass


# --- Layouts --------------------------------------------------------------------------------------


def test_layouts_are_values() -> None:
    one, other = layout(min_size=16), layout(min_size=16)
    assert one == other
    assert hash(one) == hash(other)
    assert one != layout()
    assert one.entries[0].visibility == COMPUTE


def test_dynamic_entries_are_in_order() -> None:
    entries = [BindingLayout(number, "uniform", dynamic_offset=number != 2) for number in (3, 2, 1)]
    assert [entry.binding for entry in BindGroupLayout(entries).dynamic_entries] == [1, 3]


@pytest.mark.parametrize(
    "arguments",
    [
        {"binding": -1}, {"binding": 2**32}, {"binding": 1.5}, {"binding": "0"}, {"binding": None},
        {"kind": "nothing"}, {"kind": None}, {"kind": 5},
        {"visibility": 0}, {"visibility": 8}, {"visibility": -1}, {"visibility": 2**63},
        {"visibility": "COMPUTE"}, {"visibility": None},
        {"min_size": -1}, {"min_size": 1.5}, {"min_size": "4"}, {"min_size": None},
        {"dynamic_offset": 1}, {"dynamic_offset": "yes"},
        {"kind": "texture", "dynamic_offset": True}, {"kind": "sampler", "dynamic_offset": True},
        {"kind": "storage-texture"}, {"kind": "storage-texture", "storage_format": "nothing"},
    ],
    ids=str,
)  # fmt: skip
def test_layouts_that_are_none(arguments: Any) -> None:
    with pytest.raises(ValidationError):
        BindingLayout(**({"binding": 0, "kind": "uniform"} | arguments))


@pytest.mark.parametrize("entries", [None, 5, "entries", [None], [5], [layout()]])
def test_entries_that_are_none(entries: Any) -> None:
    with pytest.raises(ValidationError):
        BindGroupLayout(entries)


def test_a_binding_twice() -> None:
    with pytest.raises(ValidationError, match=r"binding twice: \[0, 0\]"):
        BindGroupLayout([BindingLayout(0, "uniform"), BindingLayout(0, "sampler")])


# --- Bind groups ----------------------------------------------------------------------------------


def test_every_kind(device: IRenderDevice, make: Maker) -> None:
    """Whatever can be bound, can be bound together."""
    binding = TextureUsage.TEXTURE_BINDING
    resources: dict[str, Any] = {
        "uniform": make.plain(64, ALL),
        "storage": make.plain(64, ALL),
        "read-only-storage": BufferBinding(make.plain(1024, ALL), 256, 64),
        "sampler": device.create_sampler(),
        "texture": make_texture(device, usage=binding),
        "depth-texture": make_texture(device, 4, 4, TextureFormat.DEPTH32_FLOAT, binding),
        "uint-texture": make_texture(device, 4, 4, TextureFormat.R32_UINT, binding),
        "sint-texture": make_texture(device, 4, 4, TextureFormat.R32_SINT, binding),
        "unfilterable-texture": make_texture(device, 4, 4, TextureFormat.R32_FLOAT, binding),
        "storage-texture": make_texture(device, usage=TextureUsage.STORAGE_BINDING),
    }
    formats = {"storage-texture": TextureFormat.RGBA8_UNORM}
    entries = [
        BindingLayout(number, kind, COMPUTE, storage_format=formats.get(kind))
        for number, kind in enumerate(resources)
    ]
    group = device.create_bind_group(
        BindGroupLayout(entries), dict(enumerate(resources.values())), label="all"
    )
    assert isinstance(group, IBindGroup)
    assert group.label == "all"
    assert group.layout == BindGroupLayout(entries)


def test_comparison_sampler(device: IRenderDevice) -> None:
    from pers import SamplerDescriptor

    sampler = device.create_sampler(SamplerDescriptor(compare="less"))
    device.create_bind_group(layout("comparison-sampler"), {0: sampler})


@pytest.mark.parametrize("resources", [{}, {1: 0}, {0: 0, 1: 0}])
def test_missing_and_unknown_bindings(resources: Any, device: IRenderDevice, make: Maker) -> None:
    buffer = make.plain(64, ALL)
    with pytest.raises(ValidationError, match=r"'g': the layout has bindings \[0\]"):
        device.create_bind_group(layout(), dict.fromkeys(resources, buffer), label="g")


@pytest.mark.parametrize("kind", ["uniform", "storage", "sampler", "texture"])
@pytest.mark.parametrize("wrong", ["buffer", "sampler", "texture", None, 5, "text"])
def test_resources_of_the_wrong_kind(
    kind: str, wrong: Any, device: IRenderDevice, make: Maker
) -> None:
    things: dict[Any, Any] = {
        "buffer": make.plain(64, ALL),
        "sampler": device.create_sampler(),
        "texture": make_texture(device, usage=TextureUsage.TEXTURE_BINDING),
    }
    if {"uniform": "buffer", "storage": "buffer"}.get(kind, kind) == wrong:
        device.create_bind_group(layout(kind), {0: things[wrong]})
        return
    with pytest.raises(ValidationError, match=rf"binding 0 \({kind}\)"):
        device.create_bind_group(layout(kind), {0: things.get(wrong, wrong)})


@pytest.mark.parametrize("junk", [None, 5, "layout", [BindingLayout(0, "uniform")]])
def test_what_is_no_layout(junk: Any, device: IRenderDevice, make: Maker) -> None:
    with pytest.raises(ValidationError):
        device.create_bind_group(junk, {0: make.plain(64, ALL)})
    with pytest.raises(ValidationError):
        device.create_bind_group(layout(), junk)


@pytest.mark.parametrize("kind", ["uniform", "storage", "read-only-storage"])
def test_buffers_need_their_usage(kind: str, device: IRenderDevice, make: Maker) -> None:
    needed = "UNIFORM" if kind == "uniform" else "STORAGE"
    with pytest.raises(BufferUsageError, match=f"it needs {needed}"):
        device.create_bind_group(layout(kind), {0: make.plain(64, COPY)})


def test_textures_need_their_usage(device: IRenderDevice) -> None:
    texture = make_texture(device)
    with pytest.raises(ValidationError, match=r"without TextureUsage\.TEXTURE_BINDING"):
        device.create_bind_group(layout("texture"), {0: texture})
    storage = layout("storage-texture", storage_format=TextureFormat.RGBA8_UNORM)
    with pytest.raises(ValidationError, match=r"without TextureUsage\.STORAGE_BINDING"):
        device.create_bind_group(storage, {0: texture})


@pytest.mark.parametrize(
    ("offset", "size"),
    [
        (4, 16), (8, None), (0, 0), (0, 68), (256, 16), (2**32, 16), (0, 2**62),
        *[(0, junk) for junk in JUNK_NUMBERS if junk is not None],
    ],
)  # fmt: skip
def test_parts_that_cannot_be_bound(
    offset: Any, size: Any, device: IRenderDevice, make: Maker
) -> None:
    for kind in ("uniform", "storage"):
        with pytest.raises(BufferRangeError):
            device.create_bind_group(
                layout(kind), {0: BufferBinding(make.plain(64, ALL), offset, size)}
            )


@pytest.mark.parametrize("offset", JUNK_NUMBERS)
def test_offsets_of_bindings_that_are_none(offset: Any, make: Maker) -> None:
    with pytest.raises(ValidationError, match=r"BufferBinding\.offset"):
        BufferBinding(make.plain(64, ALL), offset)


def test_parts_above_the_limits(device: IRenderDevice, make: Maker) -> None:
    limits = device.limits
    for kind, limit in (
        ("uniform", limits.max_uniform_buffer_binding_size),
        ("storage", limits.max_storage_buffer_binding_size),
    ):
        buffer = make.plain(limit + 256, ALL)
        with pytest.raises(BufferRangeError, match=f"at most {limit} bytes"):
            device.create_bind_group(layout(kind), {0: buffer})
        device.create_bind_group(layout(kind), {0: BufferBinding(buffer, 0, limit)})


def test_min_size(device: IRenderDevice, make: Maker) -> None:
    device.create_bind_group(layout(min_size=64), {0: make.plain(64, ALL)})
    with pytest.raises(BufferRangeError, match="48 bytes are below min_size 64"):
        device.create_bind_group(
            layout(min_size=64), {0: BufferBinding(make.plain(64, ALL), 0, 48)}
        )


def test_storage_needs_whole_words(device: IRenderDevice, make: Maker) -> None:
    with pytest.raises(BufferRangeError, match="multiple of 4"):
        device.create_bind_group(layout("storage"), {0: BufferBinding(make.plain(64, ALL), 0, 18)})


def test_dynamic_binding_needs_a_size(device: IRenderDevice, make: Maker) -> None:
    with pytest.raises(BufferRangeError, match="size of one record must be known"):
        device.create_bind_group(layout(dynamic_offset=True), {0: make.plain(1024, ALL)})
    device.create_bind_group(DYNAMIC, {0: make.plain(1024, ALL)})


def test_destroyed_and_foreign_resources(backend: str, device: IRenderDevice, make: Maker) -> None:
    texture = make_texture(device, usage=TextureUsage.TEXTURE_BINDING)
    texture.destroy()
    with pytest.raises(ValidationError, match="'picture' was destroyed"):
        device.create_bind_group(layout("texture"), {0: texture})
    with open_device(backend) as other:
        foreign: list[tuple[str, Any]] = [
            ("uniform", Maker(other).plain(64, ALL)),
            ("sampler", other.create_sampler()),
            ("texture", make_texture(other, usage=TextureUsage.TEXTURE_BINDING)),
        ]
        for kind, resource in foreign:
            assert isinstance(resource, object)
            with pytest.raises(ValidationError, match="another device"):
                device.create_bind_group(layout(kind), {0: resource})


def test_destroyed_buffer_is_refused_at_the_submit(device: IRenderDevice, make: Maker) -> None:
    """[destroyed: setBindGroup]"""
    buffer = make.plain(64, ALL, "bound")
    group = device.create_bind_group(layout(), {0: buffer})
    encoder = device.create_command_encoder()
    with encoder.begin_compute_pass() as compute_pass:
        compute_pass.set_bind_group(0, group)
    commands = encoder.finish()
    buffer.destroy()
    with pytest.raises(BufferStateError, match="'bound' is destroyed"):
        device.queue.submit([commands])


def test_closed(fresh_device: IRenderDevice) -> None:
    buffer = Maker(fresh_device).plain(64, ALL)
    fresh_device.close()
    with pytest.raises(DeviceLostError):
        fresh_device.create_bind_group(layout(), {0: buffer})
    with pytest.raises(DeviceLostError):
        fresh_device.create_sampler()


# --- set_bind_group -------------------------------------------------------------------------------


def group_of(device: IRenderDevice, make: Maker) -> IBindGroup:
    return device.create_bind_group(DYNAMIC, {0: make.plain(4096, ALL)})


@pytest.mark.parametrize("count", [0, 2, 3])
def test_dynamic_offsets_match_expectations(
    count: int, compute: Any, device: IRenderDevice, make: Maker
) -> None:
    """[dynamic_offsets_match_expectations_in_pass_encoder]"""
    group = group_of(device, make)
    with pytest.raises(ValidationError, match=f"takes 1 dynamic offsets, not {count}"):
        compute.set_bind_group(0, group, [0] * count)
    compute.set_bind_group(0, group, [0])


def test_dynamic_offsets_passed_but_not_expected(
    compute: Any, device: IRenderDevice, make: Maker
) -> None:
    """[dynamic_offsets_passed_but_not_expected]"""
    group = device.create_bind_group(layout(), {0: make.plain(64, ALL)})
    with pytest.raises(ValidationError, match="takes 0 dynamic offsets, not 1"):
        compute.set_bind_group(0, group, [0])
    compute.set_bind_group(0, group)


def test_buffer_dynamic_offsets(compute: Any, device: IRenderDevice, make: Maker) -> None:
    """[buffer_dynamic_offsets] Multiples of the device's own alignment, inside the buffer."""
    alignment = device.limits.min_uniform_buffer_offset_alignment
    binding = BufferBinding(make.plain(16 * alignment, ALL), alignment, 16)
    group = device.create_bind_group(DYNAMIC, {0: binding})
    for offset in (0, alignment, 14 * alignment, np.int64(alignment), np.uint32(2 * alignment)):
        compute.set_bind_group(0, group, [offset])
    for offset in (4, alignment - 4, alignment + 1, -alignment):
        with pytest.raises(BufferRangeError, match=f"multiples of {alignment} bytes"):
            compute.set_bind_group(0, group, [offset])
    for offset in (15 * alignment, 2**31, 2**32, 2**63):
        with pytest.raises(BufferRangeError, match="beyond the end"):
            compute.set_bind_group(0, group, [offset])


@pytest.mark.parametrize("junk", [float("nan"), 1.5, "0", None, [0]])
def test_dynamic_offsets_that_are_none(
    junk: Any, compute: Any, device: IRenderDevice, make: Maker
) -> None:
    group = group_of(device, make)
    with pytest.raises(BufferRangeError):
        compute.set_bind_group(0, group, [junk])
    with pytest.raises((ValidationError, BufferRangeError)):
        compute.set_bind_group(0, group, junk if junk != [0] else None)


@pytest.mark.parametrize("index", [-1, 64, 2**32, 2**63, 1.5, "0", None])
def test_group_numbers_that_are_none(
    index: Any, compute: Any, device: IRenderDevice, make: Maker
) -> None:
    group = device.create_bind_group(layout(), {0: make.plain(64, ALL)})
    with pytest.raises(ValidationError, match="index must be"):
        compute.set_bind_group(index, group)


@pytest.mark.parametrize("junk", [None, 5, "group", object()])
def test_what_is_no_group(junk: Any, compute: Any) -> None:
    with pytest.raises(ValidationError, match="takes a BindGroup of this device"):
        compute.set_bind_group(0, junk)


def test_group_of_another_device(compute: Any, backend: str) -> None:
    with open_device(backend) as other:
        group = other.create_bind_group(layout(), {0: Maker(other).plain(64, ALL)})
        with pytest.raises(ValidationError, match="another device"):
            compute.set_bind_group(0, group)


def test_types_of_resources(device: IRenderDevice) -> None:
    assert isinstance(device.create_sampler(), ISampler)
    assert isinstance(make_texture(device), ITexture)
