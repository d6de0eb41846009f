"""Factories, queues and belts shared between threads; single buffers that are not to be."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pers import (
    BufferDesc,
    BufferState,
    BufferStateError,
    BufferUsage,
    DeviceBuffer,
    DynamicBuffer,
    ImmediateStagingBuffer,
    IRenderDevice,
    MapMode,
    PersError,
    ReadbackBuffer,
    StagingBelt,
)
from tests.support import (
    COPY,
    READBACK,
    Maker,
    contents,
    copied,
    make_texture,
    numbers,
    run_python,
)

THREADS = 8


def in_threads(work: Callable[[int], None], count: int = THREADS) -> None:
    """Run ``work(index)`` in threads that start together; raise what any of them raised."""
    start = threading.Barrier(count)
    errors: list[BaseException] = []

    def run(index: int) -> None:
        try:
            start.wait()
            work(index)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


# --- What may be shared ---------------------------------------------------------------------------


def test_factory(device: IRenderDevice) -> None:
    """Buffers of all kinds, made, filled, read and dropped in many threads."""

    def work(index: int) -> None:
        factory = device.buffer_factory
        for turn in range(10):
            data = numbers(64, 1000 * index + turn)
            buffer = DeviceBuffer.from_array(data, BufferUsage.COPY_SRC, factory)
            assert (contents(device, buffer).view(np.uint32) == data).all()
            mapped = factory.create_mappable_buffer(BufferDesc(64, READBACK, True))
            assert mapped.mapped_data.read() == bytes(64)
            mapped.destroy()

    in_threads(work)


def test_queue(device: IRenderDevice) -> None:
    """Every thread's submits and writes arrive, in the order of that thread."""
    results = Maker(device).plain(THREADS * 64)

    def work(index: int) -> None:
        make = Maker(device)
        source, target = make.plain(), make.plain()
        for turn in range(20):
            data = numbers(16, 10_000 * index + 100 * turn)
            device.queue.write_buffer(source, 0, data)
            submission = device.queue.submit([copied(device, source, target)])
            if turn % 5 == 4:
                submission.wait(60)
                array = device.read_array_blocking(target, np.uint32)
                assert array.tolist() == data.tolist()
        encoder = device.create_command_encoder()
        encoder.copy_buffer_to_buffer(target, 0, results, 64 * index, 64)
        device.queue.submit([encoder.finish()])

    in_threads(work)
    data = contents(device, results).view(np.uint32).reshape(THREADS, 16)
    expected = [numbers(16, 10_000 * index + 1900) for index in range(THREADS)]
    assert (data == np.stack(expected)).all()


def test_belt(device: IRenderDevice) -> None:
    """Small and large uploads, with and without an encoder, within a budget that all can record in."""
    size = 300 * 1024
    belt = StagingBelt(device, budget=1 << 23)
    target = Maker(device).plain(THREADS * size)

    def work(index: int) -> None:
        for turn in range(4):
            data = np.full(size // 4, 100 * index + turn, np.uint32)
            encoder = device.create_command_encoder() if turn % 2 else None
            belt.upload(data, target, index * size, encoder=encoder)
            if encoder is not None:
                device.queue.submit([encoder.finish()])
            else:
                belt.flush()
            belt.upload(data[:16] + 50, target, index * size)
            belt.flush()

    in_threads(work)
    data = contents(device, target).view(np.uint32).reshape(THREADS, -1)
    last = 100 * np.arange(THREADS)[:, None] + 3
    assert (data[:, :16] == last + 50).all()
    assert (data[:, 16:] == last).all()
    stats = belt.stats
    assert stats.uploads == THREADS * 8
    assert stats.peak <= 1 << 23


def test_device_belt(device: IRenderDevice) -> None:
    buffers = [Maker(device).plain(1 << 19) for _ in range(THREADS)]

    def work(index: int) -> None:
        for turn in range(6):
            count = (1 << 17) if turn % 2 else 64
            device.upload(np.full(count, 100 * index + turn, np.uint32), buffers[index])
            array = device.read_array_blocking(buffers[index], np.uint32)
            assert (array[:count] == 100 * index + turn).all()

    in_threads(work)


def test_textures_and_reads(device: IRenderDevice) -> None:
    def work(index: int) -> None:
        texture = make_texture(device, 16, 16)
        for turn in range(5):
            device.upload(np.full((16, 16, 4), 16 * index + turn, np.uint8), texture)
            assert (device.read_array_blocking(texture) == 16 * index + turn).all()
        texture.destroy()

    in_threads(work)


def test_each_thread_its_own_buffers(device: IRenderDevice) -> None:
    """The five buffers, one set in each thread."""

    def work(index: int) -> None:
        factory = device.buffer_factory
        dynamic = DynamicBuffer(64, factory, usage=BufferUsage.VERTEX | BufferUsage.COPY_SRC)
        readback = ReadbackBuffer(64, factory)
        target = DeviceBuffer(64, factory, usage=BufferUsage.COPY_SRC)
        for turn in range(10):
            start = 1000 * index + turn
            staging = ImmediateStagingBuffer(64, factory)
            staging.write(numbers(16, start))
            with dynamic.begin_update() as update:
                offset = update.push(numbers(8, start + 500))
            encoder = device.create_command_encoder()
            staging.upload_to(encoder, target)
            encoder.copy_buffer_to_buffer(dynamic, offset, target, 0, 32)
            readback.copy_from(encoder, target)
            device.queue.submit([encoder.finish()])
            array = readback.read_array_blocking(np.uint32)
            expected = [*numbers(8, start + 500), *numbers(8, start + 8)]
            assert array.tolist() == expected

    in_threads(work)


def test_poll_from_all_sides(device: IRenderDevice) -> None:
    """Maps are delivered once, whoever polls."""

    def work(index: int) -> None:
        if index % 2:
            for _ in range(200):
                device.poll()
            return
        buffer = Maker(device).mappable()
        for _ in range(20):
            buffer.map().write(numbers(16))
            buffer.unmap()

    in_threads(work)


def test_handed_over_between_calls(device: IRenderDevice) -> None:
    """A buffer may go from thread to thread, as long as it is in one at a time."""
    buffer = Maker(device).mappable(64, READBACK)
    for start in range(5):
        threads = [
            threading.Thread(
                target=lambda s=start: device.queue.submit(
                    [copied(device, Maker(device).filled(numbers(16, s)), buffer)]
                )
            ),
            threading.Thread(target=lambda: buffer.map(MapMode.READ)),
        ]
        for thread in threads:
            thread.start()
            thread.join()
        assert buffer.mapped_data.as_array(np.uint32).tolist() == [*numbers(16, start)]
        buffer.unmap()


# --- What may not ---------------------------------------------------------------------------------


class Inside:
    """Holds a thread inside a native call of a buffer, for as long as the block lasts."""

    def __init__(self, buffer: Any, method: str, call: Callable[[], object]) -> None:
        self._native = buffer.native
        self._method = method
        self._real = getattr(self._native, method)
        self._entered, self._leave = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=call)

    def __enter__(self) -> None:
        def held(*arguments: Any) -> Any:
            self._entered.set()
            self._leave.wait()
            return self._real(*arguments)

        setattr(self._native, self._method, held)
        self._thread.start()
        self._entered.wait()

    def __exit__(self, *exc_info: object) -> None:
        delattr(self._native, self._method)
        self._leave.set()
        self._thread.join()


@pytest.mark.parametrize("inside", ["map_async", "unmap"])
def test_two_threads_inside_one_buffer(inside: str, device: IRenderDevice) -> None:
    """A race is an exception in the second thread, and harmless for the first."""
    buffer: Any = Maker(device).mappable(name="shared", mapped=inside == "unmap")
    commands = copied(device, buffer, Maker(device).plain())
    call = buffer.unmap if inside == "unmap" else buffer.map
    with Inside(buffer, inside, call):
        for other in (
            buffer.map,
            buffer.unmap,
            buffer.mapped_range,
            buffer.destroy,
            lambda: buffer.mapped_data,
            lambda: device.queue.submit([commands]),
        ):
            with pytest.raises(BufferStateError, match="'shared' is being used by another thread"):
                other()
    if inside == "map_async":
        assert buffer.state is BufferState.MAPPED
        buffer.unmap()
    assert buffer.state is BufferState.READY
    device.queue.submit([commands]).wait()


def test_two_threads_inside_one_submit(device: IRenderDevice) -> None:
    """While one thread submits, another cannot map what is submitted."""
    native: Any = device
    buffer: Any = Maker(device).mappable(name="submitted")
    commands = copied(device, buffer, Maker(device).plain())

    class Held(Inside):
        def __init__(self) -> None:
            super().__init__(buffer, "unmap", lambda: device.queue.submit([commands]))
            self._native = native.native
            self._method = "submit"
            self._real = native.native.submit

    with Held():
        with pytest.raises(BufferStateError, match="'submitted' is being used by another thread"):
            buffer.map()
    assert buffer.state is BufferState.READY


def test_same_thread_may_be_inside_twice(device: IRenderDevice) -> None:
    """Callbacks and garbage collection come back on the same thread."""
    buffer: Any = Maker(device).mappable()
    with buffer.guard:
        buffer.map()
        buffer.unmap()


# --- Closing --------------------------------------------------------------------------------------

BUSY_UNTIL_CLOSED = """
import sys, threading
import numpy as np
import pers
from pers import *
from tests.support import COPY, Maker, copied, make_texture, open_device

def busy(device, index, errors):
    make = Maker(device)
    try:
        while True:
            source, target = make.plain(), make.mappable(64, BufferUsage.MAP_READ | BufferUsage.COPY_DST)
            device.queue.write_buffer(source, 0, bytes(64))
            device.upload(np.zeros(1 << 17, np.uint32), make.plain(1 << 19))
            device.queue.submit([copied(device, source, target)])
            view = target.map(MapMode.READ).as_array()
            view.sum()
            texture = make_texture(device)
            device.queue.write_texture(texture, np.zeros((4, 4, 4), np.uint8))
            device.read_array_blocking(texture).sum()
            device.belt.flush().wait(60)
            encoder = device.create_command_encoder()
            with encoder.begin_render_pass(device.create_frame_buffer(4, 4)):
                pass
            device.queue.submit([encoder.finish()])
            view.sum()
            ready[index].set()
    except PersError as error:
        ready[index].set()
    except BaseException as error:
        ready[index].set()
        errors.append(f"{type(error).__name__}: {error}")

errors = []
for turn in range(int(sys.argv[2])):
    device = open_device(sys.argv[1])
    ready = [threading.Event() for _ in range(6)]
    threads = [threading.Thread(target=busy, args=(device, i, errors)) for i in range(6)]
    for thread in threads:
        thread.start()
    for event in ready:
        event.wait()
    device.close()
    for thread in threads:
        thread.join()
print("\\n".join(errors) or "only pers errors")
"""


@pytest.mark.parametrize(("backend_name", "turns"), [("null", 5), ("webgpu", 8)])
def test_close_while_others_work(backend_name: str, turns: int) -> None:
    """Whatever they are at: nothing but PersErrors, and no abort."""
    result = run_python("-c", BUSY_UNTIL_CLOSED, backend_name, str(turns))
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.strip() == "only pers errors", result.stdout
    assert "Traceback" not in result.stderr, result.stderr[-3000:]


def test_closed_from_two_threads(fresh_device: IRenderDevice) -> None:
    make = Maker(fresh_device)
    for _ in range(50):
        make.mappable(mapped=True)

    def work(index: int) -> None:
        fresh_device.close()
        with pytest.raises(PersError):
            make.plain(64, COPY)

    in_threads(work)
    assert fresh_device.is_lost
