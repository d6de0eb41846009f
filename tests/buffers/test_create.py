"""Descriptions of buffers, and making them (validation/buffer/create)."""

from __future__ import annotations

import enum
import pickle
from typing import Any

import attrs
import numpy as np
import pytest

import pers
from pers import (
    BufferDesc,
    BufferLimits,
    BufferRangeError,
    BufferState,
    BufferUsage,
    BufferUsageError,
    DeviceLostError,
    IBuffer,
    IMappableBuffer,
    IRenderDevice,
    MapMode,
    OutOfMemoryError,
    ValidationError,
)
from tests.support import COPY, READBACK, UPLOAD, Maker, contents, lost, numbers, open_device

VERTEX = BufferUsage.VERTEX
MAP = BufferUsage.MAP_READ | BufferUsage.MAP_WRITE


# --- Types ----------------------------------------------------------------------------------------


def test_bits_of_usages() -> None:
    names = [
        "VERTEX", "INDEX", "UNIFORM", "STORAGE", "COPY_SRC", "COPY_DST", "MAP_READ", "MAP_WRITE",
        "INDIRECT", "QUERY_RESOLVE",
    ]  # fmt: skip
    assert {usage.name: usage.value for usage in BufferUsage} == {
        name: 1 << bit for bit, name in enumerate(names)
    }
    assert BufferUsage.NONE == 0
    assert issubclass(BufferUsage, enum.IntFlag)


def test_modes_and_states() -> None:
    assert (MapMode.NONE, MapMode.READ, MapMode.WRITE) == (0, 1, 2)
    assert issubclass(MapMode, enum.IntFlag)
    states = "UNINITIALIZED", "READY", "MAP_PENDING", "MAPPED", "DESTROYED"
    assert tuple(state.name for state in BufferState) == states


# --- BufferDesc -----------------------------------------------------------------------------------


def test_desc_defaults() -> None:
    desc = BufferDesc(10, VERTEX)
    assert (desc.size, desc.usage, desc.mapped_at_creation, desc.debug_name) == (
        10, VERTEX, False, "",
    )  # fmt: skip
    assert desc == BufferDesc(size=10, usage=VERTEX)
    assert hash(desc) == hash(BufferDesc(10, VERTEX))
    assert attrs.evolve(desc, size=12) == BufferDesc(12, VERTEX)
    assert pickle.loads(pickle.dumps(desc)) == desc
    assert desc.usage_bits == int(VERTEX)
    assert "usage_bits" not in repr(desc)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        desc.size = 12  # type: ignore[misc]


@pytest.mark.parametrize("size", [0, 1, 10, 2**40, 2**63 - 1, np.int64(12), np.uint8(4)])
def test_sizes(size: Any) -> None:
    desc = BufferDesc(size, VERTEX)
    assert desc.size == size
    assert type(desc.size) is int


@pytest.mark.parametrize(
    "size", [-1, -(2**63), 2**63, 2**64, float("nan"), float("inf"), 1.5, 4.0, "4", True, None, [4]]
)
def test_sizes_that_are_none(size: Any) -> None:
    with pytest.raises(BufferRangeError, match="size"):
        BufferDesc(size, VERTEX)


def test_usages() -> None:
    desc = BufferDesc(4, 33)  # type: ignore[arg-type]
    assert desc.usage == BufferUsage.VERTEX | BufferUsage.COPY_DST
    assert type(desc.usage) is BufferUsage


@pytest.mark.parametrize(
    "usage", [0, BufferUsage.NONE, 1 << 10, 1 << 31, 2**63, 2**64, -1, 1.0, "VERTEX", True, None]
)
def test_usages_that_are_none(usage: Any) -> None:
    """[usage] Nothing, and bits that mean nothing."""
    with pytest.raises(BufferUsageError, match="usage"):
        BufferDesc(4, usage)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 63])
def test_mapped_at_creation_needs_whole_words(size: int) -> None:
    with pytest.raises(BufferRangeError, match=f"'odd'.*multiple of 4 bytes, not {size}"):
        BufferDesc(size, VERTEX, True, "odd")
    assert BufferDesc(size, VERTEX).size == size


@pytest.mark.parametrize("name", [5, None, b"bytes", ["list"]])
def test_names_that_are_none(name: Any) -> None:
    with pytest.raises(BufferUsageError, match="debug_name"):
        BufferDesc(4, VERTEX, debug_name=name)


# --- Making buffers -------------------------------------------------------------------------------


def test_plain_buffer(make: Maker) -> None:
    buffer = make.plain(10, COPY, "plain")
    assert isinstance(buffer, IBuffer)
    assert not isinstance(buffer, IMappableBuffer)
    assert (buffer.size, buffer.usage, buffer.debug_name) == (10, COPY, "plain")
    assert buffer.state is BufferState.READY
    assert buffer.is_valid
    assert buffer.native_handle is not None
    for part in ("'plain'", "10 bytes", "COPY_SRC | COPY_DST", "ready"):
        assert part in repr(buffer)


def test_mappable_buffer(make: Maker) -> None:
    buffer = make.mappable(12, UPLOAD, "mappable")
    assert isinstance(buffer, IMappableBuffer)
    assert (buffer.state, buffer.is_mapped, buffer.is_map_pending) == (
        BufferState.READY, False, False,
    )  # fmt: skip


@pytest.mark.parametrize("usage", [*BufferUsage, UPLOAD, READBACK, COPY, VERTEX | COPY], ids=repr)
@pytest.mark.parametrize("size", [0, 4, 16, 100])
def test_mapped_at_creation(usage: BufferUsage, size: int, make: Maker) -> None:
    """[state,mappedAtCreation] Whatever the usage; it is mapped for writing, and zero."""
    buffer = make.mappable(size, usage, mapped=True)
    assert buffer.state is BufferState.MAPPED
    assert buffer.mapped_data.mode is MapMode.WRITE
    assert buffer.mapped_data.as_array().flags.writeable
    assert buffer.mapped_data.read() == bytes(size)
    buffer.unmap()
    assert buffer.state is BufferState.READY


@pytest.mark.parametrize("partner", BufferUsage, ids=lambda usage: usage.name)
@pytest.mark.parametrize("mapping", [BufferUsage.MAP_READ, BufferUsage.MAP_WRITE])
def test_combinations_with_mapping(
    mapping: BufferUsage, partner: BufferUsage, device: IRenderDevice, make: Maker
) -> None:
    """[usage] MAP_READ goes with COPY_DST only, MAP_WRITE with COPY_SRC only."""
    fits = {BufferUsage.MAP_READ: BufferUsage.COPY_DST, BufferUsage.MAP_WRITE: BufferUsage.COPY_SRC}
    if partner in (mapping, fits[mapping]):
        assert make.mappable(16, mapping | partner).usage == mapping | partner
        return
    for mapped in (False, True):
        with pytest.raises(BufferUsageError, match="'mixed'.*can be combined with") as caught:
            make.mappable(16, mapping | partner, "mixed", mapped=mapped)
        assert "mappable-primary-buffers" in str(caught.value)


def test_combinations_with_the_feature(backend: str) -> None:
    """Where the device maps primary buffers and the caller asked for it, anything goes."""
    with open_device(backend, ["mappable-primary-buffers"]) as device, Maker(device) as make:
        assert device.buffer_factory.limits.map_primary_buffers
        usage = BufferUsage.MAP_WRITE | BufferUsage.MAP_READ | COPY | BufferUsage.STORAGE
        buffer = make.mappable(64, usage)
        buffer.map().write(numbers(16))
        buffer.unmap()
        assert contents(device, buffer).view(np.uint32).tolist() == [*numbers(16)]
        device.queue.write_buffer(buffer, 0, numbers(16, 100))
        assert buffer.map(MapMode.READ).as_array(np.uint32).tolist() == [*numbers(16, 100)]


def test_the_other_method(device: IRenderDevice) -> None:
    factory = device.buffer_factory
    for desc in (
        BufferDesc(4, UPLOAD, debug_name="x"),
        BufferDesc(4, BufferUsage.MAP_READ, debug_name="x"),
        BufferDesc(4, VERTEX, True, "x"),
    ):
        with pytest.raises(BufferUsageError, match="'x' asks for mapping.*create_mappable_buffer"):
            factory.create_buffer(desc)
    with pytest.raises(BufferUsageError, match="'x' asks for no mapping.*use create_buffer"):
        factory.create_mappable_buffer(BufferDesc(4, VERTEX, debug_name="x"))


@pytest.mark.parametrize("desc", [None, 16, "desc", {"size": 4}])
def test_what_is_no_desc(desc: Any, device: IRenderDevice) -> None:
    for create in (
        device.buffer_factory.create_buffer,
        device.buffer_factory.create_mappable_buffer,
    ):
        with pytest.raises(ValidationError, match="BufferDesc"):
            create(desc)


def test_limit(device: IRenderDevice) -> None:
    """[limit] Above the limit is refused before the device is asked."""
    limits = device.buffer_factory.limits
    assert isinstance(limits, BufferLimits)
    assert limits.max_buffer_size == device.limits.max_buffer_size
    for size in (limits.max_buffer_size + 1, 2**62, 2**63 - 1):
        with pytest.raises(BufferRangeError, match=f"'vast': {size} bytes are above"):
            device.buffer_factory.create_buffer(BufferDesc(size, VERTEX, debug_name="vast"))


def test_limits_are_the_device_s(device: IRenderDevice) -> None:
    buffers, limits = device.buffer_factory.limits, device.limits
    for field in attrs.fields(BufferLimits):
        if field.name != "map_primary_buffers":
            assert getattr(buffers, field.name) == getattr(limits, field.name) > 0
    assert not buffers.map_primary_buffers


def test_lower_limits() -> None:
    with pers.open_device("null", limits={"max_buffer_size": 1024}) as device:
        factory = device.buffer_factory
        assert factory.create_buffer(BufferDesc(1024, VERTEX)).size == 1024
        with pytest.raises(BufferRangeError, match="limit of 1024"):
            factory.create_buffer(BufferDesc(1025, VERTEX))


def test_invalid_and_out_of_memory() -> None:
    """[createBuffer_invalid_and_oom] What is invalid is said first."""
    from pers.backends.null import NullDevice

    with NullDevice() as device:
        device.faults.fail_next_allocations(2)
        with pytest.raises(BufferUsageError):
            device.buffer_factory.create_mappable_buffer(BufferDesc(64, MAP | VERTEX))
        for mapped in (False, True):  # [map_oom: mappedAtCreation]
            with pytest.raises(OutOfMemoryError, match="'big'"):
                Maker(device).mappable(64, UPLOAD, "big", mapped=mapped)
        assert device.live_objects()["NullBuffer"] == 0
        assert Maker(device).mappable(64, mapped=True).is_mapped


def test_out_of_memory_on_webgpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """wgpu's own error for it becomes pers'."""
    import wgpu

    from pers.backends.webgpu import buffers

    with open_device("webgpu") as device:

        def fail(*_: object) -> None:
            raise wgpu.GPUOutOfMemoryError("Not enough memory left.")

        monkeypatch.setattr(buffers, "create_native", fail)
        with pytest.raises(OutOfMemoryError, match="'big'.*free what is not needed"):
            device.buffer_factory.create_buffer(BufferDesc(64, VERTEX, debug_name="big"))


def test_closed_device(fresh_device: IRenderDevice) -> None:
    factory = fresh_device.buffer_factory
    fresh_device.close()
    with lost(fresh_device, "create_buffer"):
        factory.create_buffer(BufferDesc(4, VERTEX))
    with pytest.raises(DeviceLostError, match="'late'.*open a new device"):
        factory.create_mappable_buffer(BufferDesc(4, VERTEX, True, "late"))
    assert factory.limits.max_buffer_size > 0


@pytest.mark.parametrize("name", ["", "grün", "名前", "a b", "\0", "x" * 10_000, "\ud800"])
def test_names(name: str, device: IRenderDevice) -> None:
    """Any string is a name, or is refused; none of them does harm."""
    try:
        buffer = device.buffer_factory.create_buffer(BufferDesc(4, VERTEX, debug_name=name))
    except ValidationError:
        assert name == "\ud800"
    else:
        assert buffer.debug_name == name


# --- New memory is zero (operation/resource_init/buffer) ------------------------------------------


def test_new_memory_is_zero(device: IRenderDevice, make: Maker) -> None:
    """[copy_buffer_to_buffer_copy_source] Also where other contents were before."""
    for _ in range(3):
        with make.filled(np.full(1 << 16, 255, np.uint8)):
            pass
        with make.plain(1 << 16) as buffer:
            assert not contents(device, buffer).any()


@pytest.mark.parametrize("usage", [UPLOAD, READBACK], ids=["WRITE", "READ"])
@pytest.mark.parametrize(("offset", "size"), [(0, None), (8, 16)], ids=["whole", "partial"])
def test_mapped_memory_is_zero(
    usage: BufferUsage, offset: int, size: int | None, make: Maker
) -> None:
    """[map_whole_buffer · map_partial_buffer]"""
    mode = MapMode.READ if usage == READBACK else MapMode.WRITE
    mapped = make.mappable(64, usage).map(mode, offset, size)
    assert mapped.read() == bytes(mapped.nbytes)


@pytest.mark.parametrize("part", [64, 16], ids=["whole", "partial"])
def test_what_was_not_written_at_creation_is_zero(
    part: int, device: IRenderDevice, make: Maker
) -> None:
    """[mapped_at_creation_whole_buffer · mapped_at_creation_partial_buffer]"""
    buffer = make.mappable(64, COPY, mapped=True)
    buffer.mapped_range(0, part).write(np.full(part, 7, np.uint8))
    buffer.unmap()
    assert contents(device, buffer).tolist() == [7] * part + [0] * (64 - part)


@pytest.mark.parametrize(("offset", "size"), [(0, 16), (24, 8), (48, 16), (0, 64)])
def test_partial_write(offset: int, size: int, device: IRenderDevice, make: Maker) -> None:
    """[partial_write_buffer]"""
    buffer = make.plain(64)
    device.queue.write_buffer(buffer, offset, np.full(size, 7, np.uint8))
    expected = [0] * offset + [7] * size + [0] * (64 - offset - size)
    assert contents(device, buffer).tolist() == expected


def test_copy_to_a_part(device: IRenderDevice, make: Maker) -> None:
    source, target = make.filled(numbers(4)), make.plain(64)
    encoder = device.create_command_encoder()
    encoder.copy_buffer_to_buffer(source, 4, target, 32, 8)
    device.queue.submit([encoder.finish()])
    expected = [0] * 8 + [2, 3] + [0] * 6
    assert contents(device, target).view(np.uint32).tolist() == expected
