"""Factories, queues and belts shared between threads; single buffers that are not to be."""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading
from collections.abc import Callable
from typing import Any

import anyio
import numpy as np
import pytest

from pers import (
    BindGroupLayout,
    BindingLayout,
    BufferDesc,
    BufferState,
    BufferStateError,
    BufferUsage,
    ColorTarget,
    ComputePipelineDescriptor,
    DeferredStagingBuffer,
    DeviceBuffer,
    DynamicBuffer,
    ImmediateStagingBuffer,
    IRenderDevice,
    MapAbortedError,
    MapMode,
    MappedRange,
    MappedViewsError,
    PersError,
    ReadbackBuffer,
    RenderPipelineDescriptor,
    RingFullError,
    ShaderStage,
    StagingBelt,
    TextureFormat,
)
from pers.buffers.belt import QUEUE_WRITE_LIMIT
from pers.buffers.mapped_range import Lease, Mapping
from tests.support import (
    COPY,
    DOUBLE,
    FULL_SCREEN,
    ORANGE,
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
    size = QUEUE_WRITE_LIMIT + 4096
    belt = StagingBelt(device, budget=1 << 24)
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
    assert stats.peak <= 1 << 24


def test_device_belt(device: IRenderDevice) -> None:
    large = QUEUE_WRITE_LIMIT // 4 + 1024
    buffers = [Maker(device).plain(4 * large) for _ in range(THREADS)]

    def work(index: int) -> None:
        for turn in range(6):
            count = large if turn % 2 else 64
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


def test_belt_that_is_short_of_memory(device: IRenderDevice) -> None:
    """Chunks go from thread to thread, and everybody waits for everybody else's uploads."""
    size = 320 * 1024  # more than the queue's own write takes, and one chunk each
    belt = StagingBelt(device, budget=1 << 20)
    target = Maker(device).plain(THREADS * size)
    refused: list[int] = []

    def work(index: int) -> None:
        for turn in range(6):
            data = np.full(size // 4, 100 * index + turn, np.uint32)
            if turn == 3:
                anyio.run(lambda: belt.upload_async(data, target, index * size))
            elif turn == 4:
                try:
                    belt.try_upload(data, target, index * size)
                except RingFullError:
                    refused.append(index)
                    belt.upload(data, target, index * size)
            else:
                belt.upload(data, target, index * size)
            encoder = device.create_command_encoder()
            check = ReadbackBuffer(size, device.buffer_factory)
            belt.flush()
            check.copy_from(encoder, target, index * size, size=size)
            device.queue.submit([encoder.finish()])
            assert (check.read_array_blocking(np.uint32) == 100 * index + turn).all()

    in_threads(work)
    stats = belt.stats
    assert stats.uploads == THREADS * 6
    assert stats.capacity <= stats.peak <= 1 << 20
    belt.flush().wait()
    assert belt.stats.in_flight == 0


def test_device_pool(device: IRenderDevice) -> None:
    """Readback buffers of the device's pool go from thread to thread, but not their contents."""
    sources = [Maker(device).filled(numbers(256, 1000 * index)) for index in range(THREADS)]

    def work(index: int) -> None:
        kept: list[tuple[int, Any]] = []
        for turn in range(24):
            which = (index + turn) % THREADS
            kept.append((which, device.read_array_blocking(sources[which], np.uint32)))
            for old, array in kept:
                assert (array == numbers(256, 1000 * old)).all()
            del kept[: max(len(kept) - 3, 0)]

    in_threads(work)


def test_pipelines_and_layouts(device: IRenderDevice) -> None:
    """Whoever is first makes the pipeline; all get the same one, and what they draw is right."""
    shader = device.create_shader_module(FULL_SCREEN + DOUBLE)
    rgba = TextureFormat.RGBA8_UNORM
    found: list[Any] = []
    layout = BindGroupLayout([BindingLayout(0, "storage", ShaderStage.COMPUTE)])

    def work(index: int) -> None:
        drawing = device.create_render_pipeline(
            RenderPipelineDescriptor(shader, [ColorTarget(rgba)])
        )
        doubling = device.create_compute_pipeline(ComputePipelineDescriptor(shader, [layout]))
        found.append((drawing, doubling))
        for turn in range(4):
            data = numbers(64, 1000 * index + turn)
            usage = BufferUsage.STORAGE | BufferUsage.COPY_SRC
            buffer = DeviceBuffer.from_array(data, usage, device.buffer_factory)
            frame = device.create_frame_buffer(4, 4, [rgba])
            encoder = device.create_command_encoder()
            with encoder.begin_render_pass(frame, clear_color=(0, 0, 0, 0)) as render_pass:
                render_pass.set_pipeline(drawing)
                render_pass.draw(3)
            with encoder.begin_compute_pass() as compute:
                compute.set_pipeline(doubling)
                compute.set_bind_group(0, device.create_bind_group(layout, {0: buffer}))
                compute.dispatch_workgroups(1)
            device.queue.submit([encoder.finish()])
            runs = device.info.executes_shaders
            result = device.read_array_blocking(buffer, np.uint32)
            assert (result == (2 * data if runs else data)).all()
            color = ORANGE if runs else (0, 0, 0, 0)
            assert (device.read_array_blocking(frame.color_textures[0]) == color).all()

    in_threads(work)
    assert len(found) == THREADS
    assert all(one is found[0][0] and other is found[0][1] for one, other in found)


def test_an_event_loop_in_each_thread(device: IRenderDevice) -> None:
    """asyncio here and trio there: each task hears of its own work, on its own loop."""

    async def one(index: int, task: int) -> None:
        data = numbers(1 << 17, 1000 * index + task)
        buffer = Maker(device).plain(data.nbytes)
        await device.belt.upload_async(data, buffer)
        staging = DeferredStagingBuffer(64, device.buffer_factory)
        async with staging.map_async() as mapped:
            mapped.write(numbers(16, 7 * index))
        encoder = device.create_command_encoder()
        staging.upload_to(encoder, buffer)
        await device.queue.submit([encoder.finish()]).done()
        array = await device.read_array(buffer, np.uint32)
        assert (array[:16] == numbers(16, 7 * index)).all()
        assert (array[16:] == data[16:]).all()

    async def several(index: int) -> None:
        for _ in range(3):
            async with anyio.create_task_group() as group:
                for task in range(3):
                    group.start_soon(one, index, task)

    in_threads(lambda index: anyio.run(several, index, backend=("asyncio", "trio")[index % 2]))


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


def test_eight_threads_fight_for_one_buffer(device: IRenderDevice) -> None:
    """Most of their calls fail. What arrives was written by one of them, from end to end."""
    count = 1 << 16
    buffer = Maker(device).mappable(4 * count, name="contested")
    writes: list[int] = []

    def work(index: int) -> None:
        for turn in range(30):
            number = 1000 * index + turn + 1
            target = Maker(device).plain(4 * count)
            commands = copied(device, buffer, target)
            try:
                buffer.map().write(np.full(count, number, np.uint32))
                writes.append(number)
                buffer.unmap()
                device.queue.submit([commands])
            except (BufferStateError, MapAbortedError, MappedViewsError) as error:
                assert "'contested'" in str(error), error
                with contextlib.suppress(BufferStateError, MappedViewsError):
                    buffer.unmap()
            else:
                found = np.unique(contents(device, target).view(np.uint32))
                assert len(found) == 1
                assert found[0] in writes or found[0] == 0

    in_threads(work)
    buffer.unmap()
    assert buffer.state is BufferState.READY
    buffer.map().write(np.full(count, 5, np.uint32))
    buffer.unmap()
    target = Maker(device).plain(4 * count)
    device.queue.submit([copied(device, buffer, target)])
    assert (contents(device, target).view(np.uint32) == 5).all()


def test_eight_threads_end_one_buffer(device: IRenderDevice) -> None:
    """One ends it, however it was used; the others find it destroyed or in use."""
    for turn in range(20):
        buffer = Maker(device).mappable(name="contested", mapped=turn % 2 == 0)
        view = buffer.mapped_data.as_array(np.uint32) if turn % 4 == 0 else None
        if view is not None:
            view[:] = turn

        def work(index: int, buffer: Any = buffer) -> None:
            call = (buffer.destroy, buffer.map, buffer.unmap, lambda: buffer.mapped_data)[index % 4]
            with contextlib.suppress(BufferStateError, MapAbortedError, MappedViewsError):
                call()

        in_threads(work)
        buffer.destroy()
        assert buffer.state is BufferState.DESTROYED
        assert view is None or (view == turn).all()


def test_never_ready_between_pending_and_mapped(device: IRenderDevice) -> None:
    """The news of a map may come on one thread while another looks whether it can map."""
    buffer: Any = Maker(device).mappable()
    native, address, seen = buffer.native, buffer.native.address, []

    def watched(*arguments: int) -> int:
        seen.append(buffer.state)
        return int(address(*arguments))

    native.address = watched
    buffer.map()
    assert seen == [BufferState.MAP_PENDING]


def test_arrays_from_eight_threads_are_all_counted(device: IRenderDevice) -> None:
    """An array that is forgotten would look at memory that was unmapped."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(10):
            buffer = Maker(device).mappable(1024, mapped=True)
            mapped, kept = buffer.mapped_data, []

            def work(index: int, mapped: MappedRange = mapped, kept: list[Any] = kept) -> None:
                kept.extend(mapped.as_array(np.uint8, 128 * (index + 1)) for _ in range(20))

            in_threads(work)
            with pytest.raises(MappedViewsError) as caught:
                buffer.unmap()
            assert caught.value.count == 20 * THREADS
            for index, array in enumerate(kept):
                array[:] = index
                assert mapped.read(0, array.size) == bytes([index]) * array.size
            del array
            kept.clear()
            buffer.unmap()
    finally:
        sys.setswitchinterval(interval)


def in_another_thread(call: Callable[[], object]) -> object:
    """Return what a call returns, or raises, in a thread of its own."""
    ends: list[object] = []

    def run() -> None:
        try:
            ends.append(call())
        except BaseException as error:
            ends.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return ends[0]


LOOKS: dict[str, Callable[[MappedRange], object]] = {
    "as_array": lambda mapped: mapped.as_array(),
    "write": lambda mapped: mapped.write(bytes(64)),
    "read": lambda mapped: mapped.read(),
}


@pytest.mark.parametrize("look", LOOKS)
def test_look_after_unmap_has_counted(
    look: str, device: IRenderDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`unmap` has found no arrays; then another thread wants one."""
    buffer = Maker(device).mappable(name="shared", mapped=True)
    mapped, ends = buffer.mapped_data, list[object]()
    count: Any = Lease.live_views

    def counted(lease: Lease) -> int:
        views: int = count.fget(lease)
        ends.append(in_another_thread(lambda: LOOKS[look](mapped)))
        return views

    monkeypatch.setattr(Lease, "live_views", property(counted))
    buffer.unmap()
    assert [type(end) for end in ends] == [BufferStateError]
    assert "'shared'" in str(ends[0])
    assert buffer.state is BufferState.READY


@pytest.mark.parametrize("end", ["unmap", "destroy"])
@pytest.mark.parametrize("look", LOOKS)
def test_end_while_an_array_is_made(
    look: str, end: str, device: IRenderDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread has seen that the range is alive; then another one ends the mapping."""
    buffer = Maker(device).mappable(name="shared", mapped=True)
    mapped, ends, open_window = buffer.mapped_data, list[object](), Lease.open_window

    def opened(*arguments: Any, **more: Any) -> Any:
        ends.append(in_another_thread(getattr(buffer, end)))
        return open_window(*arguments, **more)

    monkeypatch.setattr(Lease, "open_window", opened)
    with pytest.raises(
        BufferStateError, match="'shared' is being unmapped or destroyed by another"
    ):
        LOOKS[look](mapped)
    assert ends == [None]
    assert buffer.state is (BufferState.READY if end == "unmap" else BufferState.DESTROYED)


@pytest.mark.parametrize("look", LOOKS)
def test_unmap_while_bytes_are_copied(
    look: str, device: IRenderDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory stays for as long as a thread writes or reads it, and the range after that."""
    buffer = Maker(device).mappable(name="shared", mapped=True)
    mapped, ends, window = buffer.mapped_data, list[object](), Mapping.window

    def held(*arguments: Any) -> Any:
        array = window(*arguments)
        ends.append(in_another_thread(buffer.unmap))
        return array

    with monkeypatch.context() as patch:
        patch.setattr(Mapping, "window", held)
        LOOKS[look](mapped)
    assert [type(end) for end in ends] == [MappedViewsError]
    mapped.write(numbers(16))
    assert mapped.read() == numbers(16).tobytes()
    buffer.unmap()


def test_closed_while_unmap_counts(
    fresh_device: IRenderDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The arrays keep the memory of a device that goes in the midst of an `unmap`."""
    buffer: Any = Maker(fresh_device).mappable(name="shared", mapped=True)
    given_back, destroy = list[object](), buffer.native.destroy
    buffer.native.destroy = lambda: given_back.append(destroy())
    view = buffer.mapped_data.as_array(np.uint32)
    view[:] = numbers(16)
    count: Any = Lease.live_views
    closing = threading.Thread(target=fresh_device.close)

    def counted(lease: Lease) -> int:
        closing.start()
        return int(count.fget(lease))

    with monkeypatch.context() as patch:
        patch.setattr(Lease, "live_views", property(counted))
        with pytest.raises(MappedViewsError):
            buffer.unmap()
    closing.join()
    assert buffer.state is BufferState.DESTROYED
    assert (view == numbers(16)).all()
    assert not given_back
    del view
    assert given_back == [None]


def test_eight_threads_look_while_one_unmaps(device: IRenderDevice) -> None:
    """Whoever has an array has one on memory that is mapped."""
    buffer: Any = Maker(device).mappable(4096, name="contested", mapped=True)
    mapped, over, wrong = [buffer.mapped_data], threading.Event(), list[object]()

    def look(index: int) -> None:
        part = np.full(512, index, np.uint8)
        for turn in itertools.count():
            if over.is_set():
                return
            with contextlib.suppress(BufferStateError):
                if turn % 3 == 0:
                    mapped[0].write(part, 512 * index)
                elif turn % 3 == 1:
                    assert len(mapped[0].read(512 * index, 512)) == 512
                else:
                    array = mapped[0].as_array(np.uint8, 512)
                    if buffer.state is not BufferState.MAPPED:
                        wrong.append(array)
                    del array

    def remap() -> None:
        for _ in range(300):
            while buffer.state is BufferState.MAPPED:
                with contextlib.suppress(MappedViewsError):
                    buffer.unmap()
            mapped[0] = buffer.map()
        over.set()

    def work(index: int) -> None:
        try:
            remap() if index == 0 else look(index)
        finally:
            over.set()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        in_threads(work)
    finally:
        sys.setswitchinterval(interval)
    assert not wrong


def test_threads_write_parts_of_one_range(device: IRenderDevice) -> None:
    """Different bytes of one mapping may be written from several threads at once."""
    part = 1 << 18
    buffer = Maker(device).mappable(THREADS * part, mapped=True)
    mapped = buffer.mapped_data

    def work(index: int) -> None:
        for turn in range(4):
            data = np.full(part, 10 * index + turn, np.uint8)
            if turn % 2:
                mapped.write(data, part * index)
            else:
                mapped.as_array()[part * index : part * (index + 1)] = data
            assert mapped.read(part * index, part) == data.tobytes()

    in_threads(work)
    buffer.unmap()
    target = Maker(device).plain(THREADS * part)
    device.queue.submit([copied(device, buffer, target)])
    data = contents(device, target).reshape(THREADS, part)
    assert (data == 10 * np.arange(THREADS)[:, None] + 3).all()


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

BUSY_UNTIL_THE_END = """
import logging, sys, threading
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
            device.upload(np.zeros(1 << 19, np.uint32), make.plain(1 << 21))
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
        if not ending.is_set():
            errors.append(f"before the end: {error}")
        ready[index].set()
    except BaseException as error:
        ready[index].set()
        errors.append(f"{type(error).__name__}: {error}")

logging.getLogger("pers").setLevel(logging.CRITICAL)
errors = []
for turn in range(int(sys.argv[2])):
    device = open_device(sys.argv[1])
    ending = threading.Event()
    ready = [threading.Event() for _ in range(8)]
    threads = [threading.Thread(target=busy, args=(device, i, errors)) for i in range(8)]
    for thread in threads:
        thread.start()
    for event in ready:
        event.wait()
    ending.set()
    if sys.argv[3] == "close":
        device.close()
    elif sys.argv[1] == "null":
        device.faults.lose_device()
    else:
        device.native_handle.destroy()
    for thread in threads:
        thread.join()
print("\\n".join(errors) or "only pers errors")
"""


@pytest.mark.parametrize("end", ["close", "lose"])
@pytest.mark.parametrize(("backend_name", "turns"), [("null", 5), ("webgpu", 8)])
def test_end_while_others_work(backend_name: str, turns: int, end: str) -> None:
    """Whatever they are at: nothing but PersErrors, and no abort."""
    result = run_python("-c", BUSY_UNTIL_THE_END, backend_name, str(turns), end)
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
