"""`DeviceBuffer`, and what all five buffer classes have in common."""

from __future__ import annotations

import array
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pers import (
    BufferDesc,
    BufferRangeError,
    BufferState,
    BufferUsage,
    BufferUsageError,
    DeferredStagingBuffer,
    DeviceBuffer,
    DeviceLostError,
    DynamicBuffer,
    IBuffer,
    IMappableBuffer,
    ImmediateStagingBuffer,
    IRenderDevice,
    ReadbackBuffer,
)
from tests.support import COPY, JUNK_NUMBERS, contents, numbers

VERTEX = BufferUsage.VERTEX
COPIED = BufferUsage.COPY_SRC


# --- DeviceBuffer ---------------------------------------------------------------------------------


def test_by_size(device: IRenderDevice) -> None:
    buffer = DeviceBuffer(64, device.buffer_factory, usage=VERTEX | COPIED, debug_name="mesh")
    assert isinstance(buffer, IBuffer)
    assert not isinstance(buffer, IMappableBuffer)
    assert (buffer.size, buffer.debug_name) == (64, "mesh")
    assert buffer.usage == VERTEX | COPY  # COPY_DST is added, or nothing could fill it
    assert buffer.state is BufferState.READY
    assert not contents(device, buffer).any()
    assert repr(buffer) == "<DeviceBuffer 'mesh': 64 bytes, ready>"


def test_by_desc(device: IRenderDevice) -> None:
    desc = BufferDesc(64, VERTEX, debug_name="mesh")
    buffer = DeviceBuffer(desc, device.buffer_factory)
    assert (buffer.size, buffer.usage) == (64, VERTEX | BufferUsage.COPY_DST)
    assert buffer.debug_name == "mesh"


@pytest.mark.parametrize(
    "data",
    [
        np.arange(8, dtype=np.float32),
        np.arange(12, dtype=np.uint16).reshape(3, 4),
        np.arange(12, dtype=np.uint16).reshape(3, 4).T,
        np.arange(5, dtype=np.uint8),
        np.zeros(3, [("position", "f4", 3), ("color", "u1", 4)]),
        np.array(7, np.uint64),
        b"123456",
        bytearray(8),
        array.array("d", [1.0, 2.0]),
    ],
    ids=lambda data: f"{type(data).__name__} {getattr(data, 'dtype', '')}",
)
def test_from_array(data: Any, device: IRenderDevice) -> None:
    expected = np.ascontiguousarray(data).tobytes()
    buffer = DeviceBuffer.from_array(
        data, VERTEX | COPIED, device.buffer_factory, debug_name="data"
    )
    assert buffer.size == -(-len(expected) // 4) * 4
    assert buffer.usage == VERTEX | COPY
    assert buffer.debug_name == "data"
    assert buffer.state is BufferState.READY
    assert contents(device, buffer).tobytes() == expected.ljust(buffer.size, b"\0")


def test_from_empty_array(device: IRenderDevice) -> None:
    buffer = DeviceBuffer.from_array(np.zeros(0, np.float32), VERTEX, device.buffer_factory)
    assert buffer.size == 0


def test_from_array_takes_a_copy(device: IRenderDevice) -> None:
    data = numbers(4)
    buffer = DeviceBuffer.from_array(data, COPIED, device.buffer_factory)
    data[:] = 0
    assert contents(device, buffer).view(np.uint32).tolist() == [1, 2, 3, 4]


class Subclass(DeviceBuffer):
    """Users may derive their own."""


def test_from_array_of_a_subclass(device: IRenderDevice) -> None:
    assert type(Subclass.from_array(b"1234", VERTEX, device.buffer_factory)) is Subclass


@pytest.mark.parametrize(
    "usage", [BufferUsage.MAP_READ, BufferUsage.MAP_WRITE | COPIED, 0, 1 << 12]
)
def test_usages_it_cannot_have(usage: Any, device: IRenderDevice) -> None:
    with pytest.raises(BufferUsageError):
        DeviceBuffer(64, device.buffer_factory, usage=usage)
    with pytest.raises(BufferUsageError):
        DeviceBuffer.from_array(b"1234", usage, device.buffer_factory)


def test_it_is_never_mapped(device: IRenderDevice) -> None:
    for desc in (BufferDesc(64, BufferUsage.MAP_READ), BufferDesc(64, VERTEX, True)):
        with pytest.raises(BufferUsageError, match="DeviceBuffer.*has no CPU access"):
            DeviceBuffer(desc, device.buffer_factory)


@pytest.mark.parametrize("data", [None, "text", 5, [1, 2], np.array([None]), np.array(["text"])])
def test_from_what_is_no_data(data: Any, device: IRenderDevice) -> None:
    with pytest.raises(BufferUsageError, match="'bad': from_array"):
        DeviceBuffer.from_array(data, VERTEX, device.buffer_factory, debug_name="bad")


# --- What all five have in common -----------------------------------------------------------------

Constructor = Callable[..., Any]
FIVE: list[Constructor] = [
    DeviceBuffer,
    ImmediateStagingBuffer,
    DeferredStagingBuffer,
    ReadbackBuffer,
    DynamicBuffer,
]
ALL_FIVE = pytest.mark.parametrize("kind", FIVE, ids=lambda kind: kind.__name__)
FIXED = FIVE[1:4]


def construct(kind: Constructor, size: Any, factory: Any, **more: Any) -> Any:
    usage = {"usage": VERTEX} if kind is DeviceBuffer else {}
    return kind(size, factory, **usage, **more)


@ALL_FIVE
@pytest.mark.parametrize("size", [n for n in JUNK_NUMBERS if n is not None] + [None, [4], b"4"])
def test_sizes_that_are_none(kind: Constructor, size: Any, device: IRenderDevice) -> None:
    with pytest.raises(BufferRangeError):
        construct(kind, size, device.buffer_factory)


@ALL_FIVE
def test_size_above_the_limit(kind: Constructor, device: IRenderDevice) -> None:
    for size in (device.limits.max_buffer_size + 1, 2**62, 2**63 - 4, 2**63 - 1):
        with pytest.raises(BufferRangeError):
            construct(kind, size, device.buffer_factory)


@ALL_FIVE
@pytest.mark.parametrize("factory", [None, 64, "factory"])
def test_swapped_arguments(kind: Constructor, factory: Any, device: IRenderDevice) -> None:
    with pytest.raises(BufferUsageError, match=r"takes \(size or BufferDesc, factory\)"):
        construct(kind, 64, factory)
    with pytest.raises(BufferUsageError, match=r"device\.buffer_factory"):
        construct(kind, device.buffer_factory, 64)
    with pytest.raises(BufferUsageError):
        construct(kind, 64, device)


@ALL_FIVE
@pytest.mark.parametrize("name", [5, b"bytes"])
def test_names_that_are_none(kind: Constructor, name: Any, device: IRenderDevice) -> None:
    with pytest.raises(BufferUsageError, match="debug_name"):
        construct(kind, 64, device.buffer_factory, debug_name=name)


@ALL_FIVE
def test_closed_device(kind: Constructor, fresh_device: IRenderDevice) -> None:
    factory = fresh_device.buffer_factory
    buffer = construct(kind, 64, factory)
    fresh_device.close()
    assert buffer.state is BufferState.DESTROYED
    with pytest.raises(DeviceLostError):
        construct(kind, 64, factory)
    buffer.destroy()


@ALL_FIVE
def test_destroy(kind: Constructor, device: IRenderDevice) -> None:
    with construct(kind, 64, device.buffer_factory, debug_name="done") as buffer:
        assert buffer.is_valid
    assert buffer.state is BufferState.DESTROYED
    assert not buffer.is_valid
    buffer.destroy()
    assert "'done'" in repr(buffer)
    assert "destroyed" in repr(buffer)


@ALL_FIVE
def test_it_has_all_that_a_buffer_has(kind: Constructor, device: IRenderDevice) -> None:
    buffer = construct(kind, 64, device.buffer_factory, debug_name="name")
    assert isinstance(buffer, IBuffer)
    assert buffer.size >= 64
    assert buffer.debug_name == "name"
    assert isinstance(buffer.usage, BufferUsage)
    assert buffer.native_handle is buffer.inner.native_handle


@pytest.mark.parametrize("kind", FIXED, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("size", [1, 2, 3, 63, 0])
def test_sizes_are_rounded_up(kind: Constructor, size: int, device: IRenderDevice) -> None:
    assert kind(size, device.buffer_factory).size == -(-size // 4) * 4


@pytest.mark.parametrize(
    ("kind", "usage"),
    [
        (ImmediateStagingBuffer, BufferUsage.MAP_READ),
        (ImmediateStagingBuffer, BufferUsage.MAP_WRITE | VERTEX),
        (DeferredStagingBuffer, BufferUsage.COPY_DST),
        (DeferredStagingBuffer, BufferUsage.MAP_READ),
        (ReadbackBuffer, BufferUsage.MAP_WRITE),
        (ReadbackBuffer, BufferUsage.MAP_READ | COPIED),
        (DynamicBuffer, BufferUsage.MAP_WRITE),
        (DynamicBuffer, BufferUsage.MAP_READ | VERTEX),
    ],
)
def test_usages_for_another_purpose(
    kind: Constructor, usage: BufferUsage, device: IRenderDevice
) -> None:
    """Constructor checks replace late failures."""
    with pytest.raises(BufferUsageError, match="'wrong'"):
        kind(BufferDesc(64, usage, debug_name="wrong"), device.buffer_factory)


@pytest.mark.parametrize("kind", [DeferredStagingBuffer, ReadbackBuffer, DynamicBuffer])
def test_mapped_at_creation_where_that_is_not_possible(
    kind: Constructor, device: IRenderDevice
) -> None:
    usage = {DeferredStagingBuffer: BufferUsage.MAP_WRITE, ReadbackBuffer: BufferUsage.MAP_READ}
    desc = BufferDesc(64, usage.get(kind, BufferUsage.UNIFORM), True, "wrong")
    with pytest.raises(BufferUsageError, match="'wrong'"):
        kind(desc, device.buffer_factory)
    immediate = BufferDesc(64, BufferUsage.MAP_WRITE, True, "right")
    assert ImmediateStagingBuffer(immediate, device.buffer_factory).state is BufferState.MAPPED


@pytest.mark.parametrize(
    ("kind", "usage"),
    [
        (ImmediateStagingBuffer, BufferUsage.MAP_WRITE),
        (DeferredStagingBuffer, BufferUsage.COPY_SRC),
        (ReadbackBuffer, BufferUsage.MAP_READ),
        (DynamicBuffer, BufferUsage.STORAGE),
    ],
)
def test_by_description(kind: Constructor, usage: BufferUsage, device: IRenderDevice) -> None:
    buffer = kind(BufferDesc(64, usage, debug_name="right"), device.buffer_factory)
    assert buffer.usage & usage
    assert buffer.debug_name == "right"
