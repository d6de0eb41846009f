"""NumPy views of mapped memory: they block `unmap`, and outlive everything but themselves."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pers import (
    BufferState,
    BufferStateError,
    DeviceLostError,
    IMappableBuffer,
    IRenderDevice,
    MapMode,
    MappedViewsError,
    ReadbackBuffer,
)
from tests.support import (
    READBACK,
    UPLOAD,
    Maker,
    address_of,
    contents,
    copied,
    live,
    numbers,
    open_device,
)

View = Callable[[npt.NDArray[Any]], Any]
KINDS: dict[str, View] = {
    "the array": lambda array: array,
    "a slice": lambda array: array[1:3],
    "an element as array": lambda array: array[5:6].reshape(()),
    "a reshape": lambda array: array.reshape(4, 4),
    "a transpose": lambda array: array.reshape(4, 4).T,
    "another dtype": lambda array: array.view(np.uint8),
    "a memoryview": memoryview,
    "an object array around it": lambda array: np.array([array, None], object),
    "a ctypes pointer": lambda array: array.ctypes,
    "an iterator": lambda array: iter(array[:4].reshape(2, 2)),
    "a slice of a slice": lambda array: array[2:][2:][::2],
    "numpy from a memoryview": lambda array: np.asarray(memoryview(array)),
    "numpy from a buffer": lambda array: np.frombuffer(array, np.uint16),
    "a broadcast": lambda array: np.broadcast_to(array, (3, 16)),
    "a record array": lambda array: array.view(np.recarray),
}
NO_VIEWS: dict[str, View] = {
    "a copy": lambda array: array.copy(),
    "a fancy index": lambda array: array[[1, 2, 3]],
    "a sum": lambda array: array + 1,
    "an item": lambda array: array[3],
    "bytes": lambda array: array.tobytes(),
    "a list": lambda array: array.tolist(),
    "its shape": lambda array: array.shape,
}


def mapped_with(make: Maker, data: npt.NDArray[Any], name: str = "viewed") -> IMappableBuffer:
    buffer = make.mappable(data.nbytes, UPLOAD, name, mapped=True)
    buffer.mapped_data.write(data)
    return buffer


# --- Views block unmap ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_view_blocks_unmap(kind: str, make: Maker) -> None:
    buffer = mapped_with(make, numbers(16))
    view = KINDS[kind](buffer.mapped_data.as_array(np.uint32))
    with pytest.raises(
        MappedViewsError, match="'viewed' cannot be unmapped: 1 array looks"
    ) as caught:
        buffer.unmap()
    assert caught.value.count == 1
    assert buffer.state is BufferState.MAPPED
    assert buffer.mapped_data.read() == numbers(16).tobytes()

    del view
    gc.collect()
    buffer.unmap()
    assert buffer.state is BufferState.READY


@pytest.mark.parametrize("kind", NO_VIEWS)
def test_what_is_no_view_does_not(kind: str, make: Maker) -> None:
    buffer = mapped_with(make, numbers(16))
    kept = NO_VIEWS[kind](buffer.mapped_data.as_array(np.uint32))
    buffer.unmap()
    assert kept is not None


def test_count_of_views(make: Maker) -> None:
    """Arrays of one call count once, with all their slices."""
    buffer = mapped_with(make, numbers(16))
    views = [buffer.mapped_data.as_array(np.uint32) for _ in range(3)]
    views += [buffer.mapped_range(0, 8).as_array(), buffer.mapped_range(8, 8).as_array()]
    views += [views[0][:3], views[0][3:]]
    with pytest.raises(MappedViewsError, match="5 arrays look at its memory; delete") as caught:
        buffer.unmap()
    assert caught.value.count == 5
    del views[:3]
    gc.collect()
    with pytest.raises(MappedViewsError) as caught:
        buffer.unmap()
    assert caught.value.count == 3  # two ranges, and the slices of the first array
    views.clear()
    buffer.unmap()


def test_empty_array_blocks_nothing(make: Maker) -> None:
    buffer = mapped_with(make, numbers(16))
    empty = buffer.mapped_data.as_array(np.uint32, 0)
    buffer.unmap()
    assert empty.tolist() == []


def test_caught_error_does_not_keep_the_view(make: Maker) -> None:
    """`write` and `read` leave nothing behind, also when they fail."""
    buffer = mapped_with(make, numbers(16))
    with pytest.raises(ValueError, match="do not fit"):
        buffer.mapped_data.write(bytes(100))
    with pytest.raises(ValueError, match="takes 400 bytes"):
        buffer.mapped_data.as_array(np.uint32, 100)
    buffer.mapped_data.read()
    buffer.unmap()


def test_view_of_an_earlier_mapping_cannot_be(make: Maker) -> None:
    """As views block `unmap`, a new mapping never finds an old view."""
    buffer = mapped_with(make, numbers(16))
    view = buffer.mapped_data.as_array()
    for _ in range(3):
        with pytest.raises(MappedViewsError):
            buffer.unmap()
    with pytest.raises(BufferStateError):
        buffer.map()
    del view
    buffer.unmap()
    assert buffer.map().read() == numbers(16).tobytes()


def test_view_in_a_cycle_of_garbage(make: Maker) -> None:
    buffer = mapped_with(make, numbers(16))
    cycle: list[Any] = [buffer.mapped_data.as_array()]
    cycle.append(cycle)
    del cycle
    gc.collect()
    buffer.unmap()


# --- Views outlive --------------------------------------------------------------------------------


def check_alive(view: npt.NDArray[Any], expected: npt.NDArray[Any]) -> None:
    """Check contents while other memory comes and goes, which would take over what was freed."""
    for seed in range(3):
        others = [np.full(expected.nbytes, seed, np.uint8) for _ in range(16)]
        assert (view == expected).all()
        others.clear()
        gc.collect()


BIG = 1 << 16


@pytest.mark.parametrize("mode", [MapMode.WRITE, MapMode.READ], ids=["WRITE", "READ"])
@pytest.mark.parametrize("end", ["destroy", "drop", "close", "drop all"])
def test_view_outlives(end: str, mode: MapMode, fresh_device: IRenderDevice) -> None:
    """[gc_behavior,mappedAtCreation · gc_behavior,mapAsync · map_detach: while_mapped]"""
    device = fresh_device
    data = np.random.default_rng(2).integers(0, 256, BIG, np.uint8)
    factory = Maker(device)
    if mode is MapMode.WRITE:
        buffer = mapped_with(factory, data)
    else:
        buffer = factory.mappable(BIG, READBACK)
        device.queue.submit([copied(device, factory.filled(data), buffer)])
        buffer.map(MapMode.READ)
    view = buffer.mapped_data.as_array()
    part = view[100:200]
    factory._buffers.clear()
    if end == "destroy":
        buffer.destroy()
        assert buffer.state is BufferState.DESTROYED
    elif end == "drop":
        del buffer
    elif end == "close":
        device.close()
        assert buffer.state is BufferState.DESTROYED
    else:
        device.close()
        del buffer, device
    gc.collect()
    check_alive(view, data)
    if mode is MapMode.WRITE:
        view[:] = 7
        assert (part == 7).all()
    del view
    gc.collect()
    check_alive(part, np.full(100, 7) if mode is MapMode.WRITE else data[100:200])


@pytest.mark.parametrize("end", ["destroy", "drop"])
def test_memory_goes_with_the_last_view(end: str, fresh_device: IRenderDevice) -> None:
    make = Maker(fresh_device)
    before = live(fresh_device)
    buffer = mapped_with(make, numbers(16))
    make._buffers.clear()
    views = [buffer.mapped_data.as_array(), buffer.mapped_range(8, 8).as_array()[2:4]]
    if end == "destroy":
        buffer.destroy()
    del buffer
    while views:
        assert live(fresh_device) == before + 1
        views.pop()
    assert live(fresh_device) == before


def test_native_destroy_waits_for_the_views(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """`destroy` gives the memory back at once, or when the last view dies: once."""
    for views in (0, 2):
        buffer: Any = mapped_with(make, numbers(16))
        destroyed: list[int] = []
        destroy = buffer.native.destroy
        monkeypatch.setattr(
            buffer.native, "destroy", lambda d=destroy, log=destroyed: (log.append(1), d())
        )
        alive = [buffer.mapped_data.as_array() for _ in range(views)]
        buffer.destroy()
        buffer.destroy()
        while alive:
            assert destroyed == []
            alive.pop()
        assert destroyed == [1]


def test_native_device_waits_for_the_views(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed wgpu device is destroyed when nobody looks at its memory any more."""
    import wgpu

    destroyed: list[Any] = []
    device: Any = open_device("webgpu")
    gpu_class = type(device.native_handle)
    assert issubclass(gpu_class, wgpu.GPUDevice)
    monkeypatch.setattr(gpu_class, "destroy", destroyed.append)
    buffer = mapped_with(Maker(device), numbers(16))
    view = buffer.mapped_data.as_array(np.uint32)
    device.close()
    assert view.tolist() == [*numbers(16)]
    assert destroyed == []
    del view
    assert destroyed == [device.native_handle]
    device.close()
    assert destroyed == [device.native_handle]


def test_view_that_dies_on_another_thread(fresh_device: IRenderDevice) -> None:
    make = Maker(fresh_device)
    before = live(fresh_device)
    buffer = mapped_with(make, numbers(16))
    make._buffers.clear()
    views = [buffer.mapped_data.as_array()]
    buffer.destroy()
    del buffer
    thread = threading.Thread(target=views.clear)
    thread.start()
    thread.join()
    assert live(fresh_device) == before


def test_closed_while_another_thread_writes() -> None:
    """Memory that is being written to when the device goes stays until the copy is done."""
    for _ in range(20):
        device = open_device("null")
        buffer = mapped_with(Maker(device), np.zeros(1 << 18, np.uint8))
        mapped = buffer.mapped_data
        data = np.ones(1 << 18, np.uint8)
        start = threading.Barrier(2)
        errors: list[BaseException] = []

        def write(mapped: Any = mapped, data: Any = data, start: Any = start) -> None:
            start.wait()
            try:
                while True:
                    mapped.write(data)
            except DeviceLostError:
                pass
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=write)
        thread.start()
        start.wait()
        device.close()
        thread.join()
        assert errors == []


# --- Views of the high-level buffers are no burden ------------------------------------------------


def test_view_of_a_readback_outlives_device_and_buffer(fresh_device: IRenderDevice) -> None:
    device = fresh_device
    data = np.random.default_rng(3).integers(0, 2**32, 1 << 12, np.uint32)
    source = Maker(device).filled(data)
    readback = ReadbackBuffer(data.nbytes, device.buffer_factory)
    encoder = device.create_command_encoder()
    readback.copy_from(encoder, source)
    device.queue.submit([encoder.finish()])
    array = readback.read_array_blocking(np.uint32)
    part = array[5:10]
    readback.destroy()
    device.close()
    del readback, source, encoder, device
    check_alive(array, data)
    del array
    gc.collect()
    check_alive(part, data[5:10])


def test_view_of_read_array_outlives_its_device(backend: str) -> None:
    data = numbers(1 << 12)
    with open_device(backend) as device:
        array = device.read_array_blocking(Maker(device).filled(data), np.uint32)
    del device
    check_alive(array, data)


def test_nothing_is_seen_by_the_gpu_through_an_outlived_view(
    device: IRenderDevice, make: Maker
) -> None:
    """Writes into the view of a destroyed buffer go nowhere."""
    buffer = mapped_with(make, numbers(16))
    target = make.filled(numbers(16, 100))
    view = buffer.mapped_data.as_array(np.uint32)
    buffer.destroy()
    view[:] = 0
    assert contents(device, target).view(np.uint32).tolist() == [*numbers(16, 100)]
    assert address_of(view) != 0
