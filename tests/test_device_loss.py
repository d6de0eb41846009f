"""A device that is lost, as its users meet it: everything that waits ends, every call says so."""

from __future__ import annotations

import contextlib
import functools
import gc
import inspect
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any, Self

import anyio
import anyio.lowlevel
import anyio.to_thread
import numpy as np
import pytest

import pers
from pers import (
    BindGroupLayout,
    BindingLayout,
    BufferDesc,
    BufferState,
    BufferUsage,
    ColorTarget,
    ComputePipelineDescriptor,
    DeferredStagingBuffer,
    DeviceBuffer,
    DeviceLostError,
    DeviceLostInfo,
    DynamicBuffer,
    ICommandBuffer,
    ImmediateStagingBuffer,
    IRenderDevice,
    MapAbortedError,
    MapMode,
    PersError,
    ReadbackBuffer,
    ReadbackStream,
    RenderPipelineDescriptor,
    ShaderStage,
    StagingBelt,
    TextureFormat,
    ValidationError,
)
from pers.backends.null import NullDevice
from pers.backends.webgpu import WebGPUDevice
from tests.support import (
    COPY,
    DOUBLE,
    FULL_SCREEN,
    READBACK,
    Hold,
    Maker,
    contents,
    copied,
    make_texture,
    numbers,
    open_device,
)

# Tasks and threads wait for a ring's frame here, with as few frames as there may be.
pytestmark = pytest.mark.filterwarnings("ignore::pers.errors.PerformanceWarning")

# --- Ways to lose a device ------------------------------------------------------------------------


class Losable:
    """A device, and a way to lose it."""

    def __init__(self, way: str) -> None:
        self.backend, self.way = way.split()
        self.device: Any
        self._gpu_device: Any = None
        if self.way == "wrapped":
            import wgpu

            self._gpu_device = wgpu.gpu.request_adapter_sync().request_device_sync()
            self.device = WebGPUDevice.wrap(self._gpu_device)
        else:
            self.device = open_device(self.backend)

    def lose(self) -> None:
        if self.way == "fault":
            self.device.faults.lose_device("the cable came loose")
        elif self.way == "closed":
            self.device.close()
        else:
            self.device.native_handle.destroy()

    @property
    def why(self) -> str:
        """What the messages say."""
        return {
            "fault": "the cable came loose",
            "closed": "the device was closed",
        }.get(self.way, "the application destroyed the wgpu device")

    @property
    def reason(self) -> str:
        """What the info says."""
        return "unknown" if self.way == "fault" else "destroyed"


WAYS = ("null fault", "null closed", "webgpu wrapped", "webgpu destroyed", "webgpu closed")


@pytest.fixture(params=WAYS)
def losable(request: pytest.FixtureRequest) -> Iterator[Losable]:
    losable = Losable(request.param)
    yield losable
    losable.device.close()
    losable.lose()


class Waiting(Hold):
    """Keeps submissions from ending also for those who block for them."""

    def __init__(self, device: IRenderDevice) -> None:
        super().__init__(device)
        self.entered = threading.Event()
        """Set when somebody has begun to wait."""

    def __enter__(self) -> Self:
        super().__enter__()
        native, undo = self._device.native, self._undo
        drive, watch, submit = native.drive, native.watch, native.submit
        assert undo is not None

        def entered(wait: Callable[[Any], None], completion: Any) -> None:
            self.entered.set()
            wait(completion)

        native.drive = functools.partial(entered, drive)
        native.watch = functools.partial(entered, watch)
        if self._device.info.backend == "webgpu":
            native.submit = lambda *arguments: submit(*arguments) * 0  # or `drive` would end it

        def undo_all() -> None:
            native.drive, native.watch, native.submit = drive, watch, submit
            undo()

        self._undo = undo_all
        return self


# --- What waits -----------------------------------------------------------------------------------


class Things:
    """Everything that one can wait for."""

    def __init__(self, device: IRenderDevice) -> None:
        factory = device.buffer_factory
        make = Maker(device)
        self.device = device
        self.source = make.filled(numbers(256), name="source")
        self.texture = make_texture(device)
        self.readable = make.mappable(64, READBACK, name="readable")
        self.writable = make.mappable(name="writable")
        self.readback = ReadbackBuffer(1024, factory)
        self.stream = ReadbackStream(1024, factory)
        self.deferred = DeferredStagingBuffer(64, factory)
        self.belt = StagingBelt(device, budget=1 << 16)
        self.target = make.plain(1 << 16)
        self.dynamic = DynamicBuffer(64, factory, usage=BufferUsage.COPY_SRC, frames=2)
        self.submission: Any = None
        self._commands = self._use_everything()

    def start(self) -> None:
        """Have the GPU use all of it, so that everything has to wait."""
        self.submission = self.device.queue.submit([self._commands])

    def _use_everything(self) -> ICommandBuffer:
        encoder = self.device.create_command_encoder("everything")
        self.readback.copy_from(encoder, self.source)
        self.stream.push(encoder, self.source)
        encoder.copy_buffer_to_buffer(self.source, 0, self.readable, 0, 64)
        encoder.copy_buffer_to_buffer(self.writable, 0, self.target, 0, 64)
        encoder.copy_buffer_to_buffer(self.deferred, 0, self.target, 64, 64)
        self.belt.upload(np.zeros(1 << 14, np.uint32), self.target, encoder=encoder)
        for frame in range(2):
            with self.dynamic.begin_update() as update:
                offset = update.push(numbers(16))
            encoder.copy_buffer_to_buffer(self.dynamic, offset, self.target, 256 * frame, 64)
        return encoder.finish()

    async def map_deferred(self) -> None:
        async with self.deferred.map_async():
            pass

    def map_deferred_blocking(self) -> None:
        with self.deferred.map():
            pass

    async def update(self) -> None:
        async with self.dynamic.begin_update():
            pass

    def update_blocking(self) -> None:
        with self.dynamic.begin_update():
            pass

    async def read_stream(self) -> None:
        async for _ in self.stream:
            pass

    async def read_block(self) -> None:
        async with self.readback.read_async():
            pass

    async def upload(self) -> Any:
        encoder = self.device.create_command_encoder()
        return await self.belt.upload_async(
            np.zeros(1 << 14, np.uint32), self.target, encoder=encoder
        )

    def upload_blocking(self) -> None:
        encoder = self.device.create_command_encoder()
        self.belt.upload(np.zeros(1 << 14, np.uint32), self.target, encoder=encoder)


TASKS: dict[str, tuple[Callable[[Things], Any], type[PersError]]] = {
    "submission.done": (lambda t: t.submission.done(), DeviceLostError),
    "on_work_done().done": (lambda t: t.device.queue.on_work_done().done(), DeviceLostError),
    "map_async for writing": (lambda t: t.writable.map_async(), MapAbortedError),
    "map_async for reading": (lambda t: t.readable.map_async(MapMode.READ), MapAbortedError),
    "DeferredStagingBuffer.map_async": (Things.map_deferred, MapAbortedError),
    "ReadbackBuffer.read_array": (lambda t: t.readback.read_array(), MapAbortedError),
    "ReadbackBuffer.read_into": (lambda t: t.readback.read_into(bytearray(1024)), MapAbortedError),
    "ReadbackStream": (Things.read_stream, MapAbortedError),
    "ReadbackBuffer.read_async": (Things.read_block, MapAbortedError),
    "device.read_array of a buffer": (lambda t: t.device.read_array(t.source), MapAbortedError),
    "device.read_array of a texture": (lambda t: t.device.read_array(t.texture), MapAbortedError),
    "belt.upload_async": (Things.upload, DeviceLostError),
    "DynamicBuffer.begin_update": (Things.update, DeviceLostError),
}
THREADS: dict[str, tuple[Callable[[Things], Any], type[PersError]]] = {
    "submission.wait": (lambda t: t.submission.wait(), DeviceLostError),
    "submission.wait(60)": (lambda t: t.submission.wait(60), DeviceLostError),
    "map for writing": (lambda t: t.writable.map(), MapAbortedError),
    "map for reading": (lambda t: t.readable.map(MapMode.READ), MapAbortedError),
    "DeferredStagingBuffer.map": (Things.map_deferred_blocking, MapAbortedError),
    "ReadbackBuffer.read_array": (lambda t: t.readback.read_array_blocking(), MapAbortedError),
    "ReadbackBuffer.read": (lambda t: t.readback.read().__enter__(), MapAbortedError),  # type: ignore[attr-defined]
    "ReadbackBuffer.read_into": (
        lambda t: t.readback.read_into_blocking(bytearray(1024)),
        MapAbortedError,
    ),
    "ReadbackStream.take_blocking": (lambda t: t.stream.take_blocking(), MapAbortedError),
    "device.read_array": (lambda t: t.device.read_array_blocking(t.source), MapAbortedError),
    "belt.upload": (Things.upload_blocking, DeviceLostError),
    "DynamicBuffer.begin_update": (Things.update_blocking, DeviceLostError),
}


@pytest.mark.anyio
@pytest.mark.parametrize("waits", TASKS)
async def test_waiting_tasks_end(waits: str, losable: Losable) -> None:
    """The task waits for the GPU; the device goes; the task learns of it."""
    wait, expected = TASKS[waits]
    things = Things(losable.device)
    errors: list[PersError] = []

    async def run() -> None:
        with pytest.raises(PersError) as caught:
            await wait(things)
        errors.append(caught.value)

    with Waiting(losable.device):
        things.start()
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await anyio.wait_all_tasks_blocked()
            assert not errors, "it did not wait"
            losable.lose()
    assert [type(error) for error in errors] == [expected]


@pytest.mark.anyio
async def test_all_tasks_end_together(losable: Losable) -> None:
    """Eight that wait for work, and eight that want to know of the loss."""
    device = losable.device
    things = Things(device)
    ends: list[object] = []

    async def work() -> None:
        with pytest.raises(DeviceLostError):
            await things.submission.done()
        ends.append("work")

    async def loss() -> None:
        ends.append(await device.lost)

    with Waiting(device):
        things.start()
        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(work)
                group.start_soon(loss)
            await anyio.wait_all_tasks_blocked()
            assert not ends
            losable.lose()
    assert ends.count("work") == 8
    assert ends.count(await device.lost) == 8


@pytest.mark.parametrize("waits", THREADS)
def test_waiting_threads_end(waits: str, losable: Losable) -> None:
    wait, expected = THREADS[waits]
    things = Things(losable.device)
    errors: list[BaseException | None] = []

    def run() -> None:
        try:
            wait(things)
        except BaseException as error:
            errors.append(error)
        else:
            errors.append(None)

    with Waiting(losable.device) as hold:
        things.start()
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        assert hold.entered.wait(60)
        assert not errors, "it did not wait"
        losable.lose()
        thread.join(60)
        assert not thread.is_alive()
    assert [type(error) for error in errors] == [expected]


# --- Who wants to know ----------------------------------------------------------------------------


@pytest.mark.anyio
async def test_the_loss_is_told(losable: Losable) -> None:
    """Each callback is called once, however often the device is lost."""
    device = losable.device
    calls: list[tuple[int, DeviceLostInfo]] = []
    for number in range(3):
        device.on_lost(lambda info, number=number: calls.append((number, info)))
    for _ in range(3):
        losable.lose()
        device.poll()
        device.close()
    assert device.is_lost
    info = await device.lost
    assert calls == [(0, info), (1, info), (2, info)]
    assert info.reason == losable.reason
    assert losable.why in info.message
    device.on_lost(lambda info: calls.append((3, info)))
    assert calls[3:] == [(3, info)]


def test_lost_from_eight_threads(losable: Losable) -> None:
    device = losable.device
    calls: list[DeviceLostInfo] = []
    device.on_lost(calls.append)
    start = threading.Barrier(8)

    def run() -> None:
        start.wait()
        losable.lose()
        device.close()

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert device.is_lost


def test_lost_by_a_callback_of_another_loss(losable: Losable) -> None:
    """Devices may go one after the other, each telling of its loss."""
    other = open_device(losable.backend)
    calls: list[str] = []

    def close_other(_: DeviceLostInfo) -> None:
        other.close()
        calls.append("first")

    losable.device.on_lost(close_other)
    other.on_lost(lambda _: calls.append("second"))
    losable.lose()
    assert calls == ["second", "first"]


# --- Every call -----------------------------------------------------------------------------------

INTERFACES: tuple[type, ...] = (
    pers.IRenderDevice, pers.IRenderQueue, pers.IBufferFactory, pers.IBuffer, pers.IMappableBuffer,
    pers.ICommandEncoder, pers.ICommandBuffer, pers.IRenderPass, pers.IComputePass,
    pers.IRenderBundleEncoder, pers.IRenderBundle, pers.ITexture, pers.ISampler,
    pers.IShaderModule, pers.IPipeline, pers.IBindGroup, pers.IQuerySet, pers.IFrameBuffer,
    pers.ISurface, StagingBelt, DeviceBuffer, ImmediateStagingBuffer, DeferredStagingBuffer,
    ReadbackBuffer, ReadbackStream, DynamicBuffer, pers.DynamicUpdate, pers.MappedRange, pers.Submission,
)  # fmt: skip


def public_methods() -> set[str]:
    """Name every public method of every interface; properties only tell what is known."""
    names = set()
    for interface in INTERFACES:
        for name, member in inspect.getmembers(interface):
            if not name.startswith("_") and callable(member):
                names.add(f"{interface.__name__}.{name}")
    return names


ALWAYS_LEGAL = {
    "destroy", "close", "unmap", "on_lost", "error_scope", "IRenderDevice.poll", "StagingBelt.trim"
}  # fmt: skip
"""Methods that end things or tell what has happened, whether the device is there or not."""

BETWEEN_CLASSES = {
    "DeferredStagingBuffer.end_mapping", "ImmediateStagingBuffer.end_mapping",
    "DynamicBuffer.open_frame", "DynamicBuffer.enter_frame", "DynamicBuffer.reserve",
    "DynamicBuffer.close_frame", "ReadbackStream.ring",
    # The device and its queue call these; after a loss there is no submit that they belong to.
    "StagingBelt.take_pending", "StagingBelt.submitted", "StagingBelt.lose",
    "StagingBelt.holds_back",
}  # fmt: skip
"""Not for users, though without an underscore: one class of pers calls it on another."""


class Everything:
    """One of each, made while the device was there."""

    def __init__(self, device: IRenderDevice) -> None:
        factory = device.buffer_factory
        make = Maker(device)
        self.device, self.queue, self.factory = device, device.queue, factory
        self.belt = StagingBelt(device)
        self.plain = make.plain(1024, COPY, "plain")
        self.other = make.plain(1024, COPY, "other")
        self.mappable = make.mappable(name="mappable")
        self.mapped = make.mappable(name="mapped", mapped=True)
        self.range = self.mapped.mapped_data
        self.texture = make_texture(device, 16, 16)
        self.pixels = np.zeros((16, 16, 4), np.uint8)
        self.encoder: Any = device.create_command_encoder("started")
        self.commands = copied(device, self.plain, self.other)
        self.shader = device.create_shader_module(FULL_SCREEN + DOUBLE)
        self.layout = BindGroupLayout([BindingLayout(0, "storage", ShaderStage.COMPUTE)])
        usage = BufferUsage.STORAGE | BufferUsage.INDIRECT | BufferUsage.VERTEX | BufferUsage.INDEX
        self.storage = DeviceBuffer(256, factory, usage=usage)
        self.group = device.create_bind_group(self.layout, {0: self.storage})
        self.rgba = [TextureFormat.RGBA8_UNORM]
        self.frame = device.create_frame_buffer(4, 4, self.rgba)
        self.queries = device.create_query_set("occlusion", 1)
        self.resolved = DeviceBuffer(256, factory, usage=BufferUsage.QUERY_RESOLVE)
        self.drawing = device.create_render_pipeline(self.render_descriptor)
        self.doubling = device.create_compute_pipeline(self.compute_descriptor)
        self.render_encoder = device.create_command_encoder("drawing")
        self.render_pass: Any = self.render_encoder.begin_render_pass(
            self.frame, occlusion_queries=self.queries
        )
        self.compute_encoder = device.create_command_encoder("computing")
        self.compute_pass: Any = self.compute_encoder.begin_compute_pass()
        self.bundle_encoder: Any = device.create_render_bundle_encoder(self.rgba)
        drawn = device.create_render_bundle_encoder(self.rgba)
        drawn.set_pipeline(self.drawing)
        drawn.draw(3)
        self.bundle = drawn.finish()
        self.immediate = ImmediateStagingBuffer(1024, factory)
        self.deferred = DeferredStagingBuffer(1024, factory)
        self.readback = ReadbackBuffer(1024, factory)
        self.stream = ReadbackStream(1024, factory, frames_in_flight=2)
        self.full = ReadbackStream(1024, factory, frames_in_flight=2)
        self.dynamic = DynamicBuffer(1024, factory)
        self.update = self.dynamic.begin_update().__enter__()
        self.ring = DynamicBuffer(1024, factory)
        self.query_encoder = device.create_command_encoder("counting")
        self.query_pass = self.query_encoder.begin_render_pass(
            self.frame, occlusion_queries=self.queries
        )
        self.query_pass.begin_occlusion_query(0)
        self.finished = self.queue.on_work_done()
        self.finished.wait()
        self.hold = Waiting(device).__enter__()  # this does not end before the loss
        results = device.create_command_encoder("results")
        for _ in range(2):
            self.full.push(results, self.plain)
        self.queue.submit([results.finish()])
        self.submission = self.queue.on_work_done()

    @property
    def render_descriptor(self) -> RenderPipelineDescriptor:
        return RenderPipelineDescriptor(self.shader, [ColorTarget(TextureFormat.RGBA8_UNORM)])

    @property
    def compute_descriptor(self) -> ComputePipelineDescriptor:
        return ComputePipelineDescriptor(self.shader, [self.layout])


async def entered(block: Any) -> None:
    async with block:
        pass


def entered_now(block: Any) -> None:
    with block:
        pass


DESC = BufferDesc(64, COPY, debug_name="new")
Call = Callable[[Everything], Any]

CALLS: dict[str, Call] = {
    "IRenderDevice.create_texture": lambda e: make_texture(e.device),
    "IRenderDevice.create_sampler": lambda e: e.device.create_sampler(),
    "IRenderDevice.create_shader_module": lambda e: e.device.create_shader_module(FULL_SCREEN),
    "IRenderDevice.create_bind_group": lambda e: e.device.create_bind_group(
        e.layout, {0: e.storage}
    ),
    "IRenderDevice.create_render_pipeline": lambda e: e.device.create_render_pipeline(
        e.render_descriptor
    ),
    "IRenderDevice.create_compute_pipeline": lambda e: e.device.create_compute_pipeline(
        e.compute_descriptor
    ),
    "IRenderDevice.create_frame_buffer": lambda e: e.device.create_frame_buffer(4, 4),
    "IRenderDevice.create_frame_buffer_from": lambda e: e.device.create_frame_buffer_from(
        e.frame.color_textures
    ),
    "IRenderDevice.create_query_set": lambda e: e.device.create_query_set("occlusion", 1),
    "IRenderDevice.create_command_encoder": lambda e: e.device.create_command_encoder(),
    "IRenderDevice.create_render_bundle_encoder": lambda e: e.device.create_render_bundle_encoder(
        e.rgba
    ),
    "IRenderDevice.create_surface": lambda e: e.device.create_surface(object()),
    "IRenderDevice.upload": lambda e: e.device.upload(bytes(64), e.plain),
    "IRenderDevice.read_array": lambda e: e.device.read_array(e.plain),
    "IRenderDevice.read_array_blocking": lambda e: e.device.read_array_blocking(e.plain),
    "IRenderQueue.submit": lambda e: e.queue.submit([e.commands]),
    "IRenderQueue.write_buffer": lambda e: e.queue.write_buffer(e.plain, 0, bytes(64)),
    "IRenderQueue.write_texture": lambda e: e.queue.write_texture(e.texture, e.pixels),
    "IRenderQueue.on_work_done": lambda e: e.queue.on_work_done(),
    "IBufferFactory.create_buffer": lambda e: e.factory.create_buffer(DESC),
    "IBufferFactory.create_buffer_with_data": lambda e: e.factory.create_buffer_with_data(
        DESC, bytes(64)
    ),
    "IBufferFactory.create_mappable_buffer": lambda e: e.factory.create_mappable_buffer(
        BufferDesc(64, READBACK)
    ),
    "IMappableBuffer.map": lambda e: e.mappable.map(),
    "IMappableBuffer.map_async": lambda e: e.mappable.map_async(),
    "IMappableBuffer.mapped_range": lambda e: e.mapped.mapped_range(),
    "IMappableBuffer.mapped_data": lambda e: e.mapped.mapped_data,
    "MappedRange.as_array": lambda e: e.range.as_array(),
    "MappedRange.read": lambda e: e.range.read(),
    "MappedRange.write": lambda e: e.range.write(bytes(4)),
    "ICommandEncoder.copy_buffer_to_buffer": lambda e: e.encoder.copy_buffer_to_buffer(
        e.plain, 0, e.other, 0
    ),
    "ICommandEncoder.copy_buffer_to_texture": lambda e: e.encoder.copy_buffer_to_texture(
        e.plain, e.texture
    ),
    "ICommandEncoder.copy_texture_to_buffer": lambda e: e.encoder.copy_texture_to_buffer(
        e.texture, e.plain
    ),
    "ICommandEncoder.copy_texture_to_texture": lambda e: e.encoder.copy_texture_to_texture(
        e.texture, e.texture
    ),
    "ICommandEncoder.clear_buffer": lambda e: e.encoder.clear_buffer(e.plain),
    "ICommandEncoder.begin_render_pass": lambda e: e.encoder.begin_render_pass(e.frame),
    "ICommandEncoder.begin_compute_pass": lambda e: e.encoder.begin_compute_pass(),
    "ICommandEncoder.resolve_query_set": lambda e: e.encoder.resolve_query_set(
        e.queries, 0, 1, e.resolved
    ),
    "ICommandEncoder.finish": lambda e: e.encoder.finish(),
    "IRenderBundleEncoder.finish": lambda e: e.bundle_encoder.finish(),
    "StagingBelt.upload": lambda e: e.belt.upload(bytes(64), e.plain),
    "StagingBelt.upload_async": lambda e: e.belt.upload_async(bytes(64), e.plain),
    "StagingBelt.try_upload": lambda e: e.belt.try_upload(bytes(64), e.plain),
    "StagingBelt.flush": lambda e: e.belt.flush(),
    "DeviceBuffer.from_array": lambda e: DeviceBuffer.from_array(
        bytes(64), BufferUsage.VERTEX, e.factory
    ),
    "ImmediateStagingBuffer.write": lambda e: e.immediate.write(bytes(4)),
    "ImmediateStagingBuffer.write_pixels": lambda e: e.immediate.write_pixels(e.pixels, e.texture),
    "ImmediateStagingBuffer.as_array": lambda e: e.immediate.as_array(),
    "ImmediateStagingBuffer.upload_to": lambda e: e.immediate.upload_to(e.encoder, e.plain),
    "DeferredStagingBuffer.map": lambda e: entered_now(e.deferred.map()),
    "DeferredStagingBuffer.map_async": lambda e: entered(e.deferred.map_async()),
    "DeferredStagingBuffer.write": lambda e: e.deferred.write(bytes(4)),
    "DeferredStagingBuffer.write_pixels": lambda e: e.deferred.write_pixels(e.pixels, e.texture),
    "DeferredStagingBuffer.as_array": lambda e: e.deferred.as_array(),
    "DeferredStagingBuffer.upload_to": lambda e: e.deferred.upload_to(e.encoder, e.plain),
    "ReadbackBuffer.copy_from": lambda e: e.readback.copy_from(e.encoder, e.plain),
    "ReadbackBuffer.read": lambda e: entered_now(e.readback.read()),
    "ReadbackBuffer.read_async": lambda e: entered(e.readback.read_async()),
    "ReadbackBuffer.read_array": lambda e: e.readback.read_array(),
    "ReadbackBuffer.read_array_blocking": lambda e: e.readback.read_array_blocking(),
    "ReadbackBuffer.read_into": lambda e: e.readback.read_into(bytearray(1024)),
    "ReadbackBuffer.read_into_blocking": lambda e: e.readback.read_into_blocking(bytearray(1024)),
    "ReadbackStream.push": lambda e: e.stream.push(e.encoder, e.plain),
    "ReadbackStream.poll": lambda e: e.full.poll(),
    "ReadbackStream.take_blocking": lambda e: e.full.take_blocking(),
    "ReadbackStream.room": lambda e: e.full.room(),
    "DynamicBuffer.begin_update": lambda e: entered_now(e.ring.begin_update()),
    "Submission.wait": lambda e: e.submission.wait(),
    "Submission.done": lambda e: e.submission.done(),
}

# Recording is fast because it looks for the device only where it begins and ends. What is recorded
# in between goes nowhere, and the end says so.
DRAWS: dict[str, Call] = {
    "set_pipeline": lambda e: (e.drawing,),
    "set_bind_group": lambda e: (0, e.group),
    "set_vertex_buffer": lambda e: (0, e.storage),
    "set_index_buffer": lambda e: (e.storage,),
    "draw": lambda e: (3,),
    "draw_indexed": lambda e: (3,),
    "draw_many": lambda e: ([3, 3],),
    "draw_indexed_many": lambda e: ([3, 3],),
    "draw_indirect": lambda e: (e.storage,),
    "draw_indexed_indirect": lambda e: (e.storage,),
}
PASS: dict[str, Call] = {
    "set_viewport": lambda e: (0, 0, 1, 1),
    "set_scissor_rect": lambda e: (0, 0, 1, 1),
    "execute_bundles": lambda e: ([e.bundle],),
    "multi_draw_indirect": lambda e: (e.storage, 0, 1),
    "multi_draw_indexed_indirect": lambda e: (e.storage, 0, 1),
    "begin_occlusion_query": lambda e: (0,),
    "end": lambda e: (),
}
COMPUTE: dict[str, Call] = {
    "set_pipeline": lambda e: (e.doubling,),
    "set_bind_group": lambda e: (0, e.group),
    "dispatch_workgroups": lambda e: (1,),
    "dispatch_workgroups_indirect": lambda e: (e.storage,),
    "end": lambda e: (),
}


def _recording(method: str, arguments: Call, what: str) -> Call:
    def call(e: Everything) -> None:
        recorder = getattr(e, what)
        getattr(recorder, method)(*arguments(e))
        if what == "bundle_encoder":
            recorder.finish()
        if method != "end":
            recorder.end()
        (e.render_encoder if what == "render_pass" else e.compute_encoder).finish()

    return call


def query_ended(e: Everything) -> None:
    e.query_pass.end_occlusion_query()
    e.query_pass.end()
    e.query_encoder.finish()


def updated(e: Everything, fill: Callable[[], object]) -> None:
    fill()
    e.update.__exit__(None, None, None)


RECORDED: dict[str, Call] = {
    **{
        f"{interface}.{method}": _recording(method, arguments, what)
        for interface, what, methods in (
            ("IRenderBundleEncoder", "bundle_encoder", DRAWS),
            ("IRenderPass", "render_pass", DRAWS | PASS),
            ("IComputePass", "compute_pass", COMPUTE),
        )
        for method, arguments in methods.items()
    },
    "IRenderPass.end_occlusion_query": query_ended,
    "DynamicUpdate.push": lambda e: updated(e, lambda: e.update.push(bytes(64))),
    "DynamicUpdate.push_many": lambda e: updated(e, lambda: e.update.push_many(np.ones((4, 4)))),
    "DynamicUpdate.as_array": lambda e: updated(e, lambda: e.update.as_array().fill(0)),
}

WINDOW: dict[str, Callable[[Any], object]] = {
    "ISurface.configure": lambda surface: surface.configure(),
    "ISurface.acquire": lambda surface: surface.acquire(),
}
"""`present` shows what was drawn before, or nothing."""


def test_every_method_is_tried() -> None:
    methods = {
        name for name in public_methods() if not {name, name.rpartition(".")[2]} & ALWAYS_LEGAL
    }
    tried = {*CALLS, *RECORDED, *WINDOW, "ISurface.present", *BETWEEN_CLASSES}
    assert methods - tried == set()
    assert tried - methods == {"IMappableBuffer.mapped_data"}, "a property that does something"


def call_all(calls: dict[str, Call], losable: Losable) -> list[str]:
    """Make each call after the loss; describe those that do not say what has happened."""
    things = Everything(losable.device)
    losable.lose()
    found = []
    for name, call in calls.items():
        try:
            result = call(things)
            if inspect.isawaitable(result):
                anyio.run(wait_for, result)
        except DeviceLostError as error:
            # Work is ended by the native device, which does not know why.
            if losable.why not in str(error) and "lost or closed before" not in str(error):
                found.append(f"{name} does not say why: {error}")
        except Exception as error:
            found.append(f"{name}: {type(error).__name__}: {error}")
        else:
            found.append(f"{name} raises nothing")
    return found


async def wait_for(result: Any) -> None:
    await result


def test_every_call_says_that_the_device_is_lost(losable: Losable) -> None:
    assert call_all(CALLS, losable) == []


@pytest.mark.parametrize("name", RECORDED)
def test_what_is_recorded_meanwhile(name: str, losable: Losable) -> None:
    """Nothing aborts, and the end of the pass, of the recording or of the block raises."""
    assert call_all({name: RECORDED[name]}, losable) == []


def test_what_is_recorded_raises_at_finish(losable: Losable) -> None:
    """What docs/device.md says: passes go on until their encoder is finished."""
    things = Everything(losable.device)
    losable.lose()
    things.render_pass.set_pipeline(things.drawing)
    things.render_pass.draw(3)
    things.render_pass.end()
    things.compute_pass.set_pipeline(things.doubling)
    things.compute_pass.set_bind_group(0, things.group)
    things.compute_pass.dispatch_workgroups(1)
    things.compute_pass.end()
    things.bundle_encoder.set_pipeline(things.drawing)
    things.bundle_encoder.draw(3)
    for encoder in (things.render_encoder, things.compute_encoder, things.bundle_encoder):
        with pytest.raises(DeviceLostError, match=f"finish: {losable.why}; open a new device"):
            encoder.finish()


def test_loss_that_nobody_told_of() -> None:
    """A driver fails without a word: whatever it refuses raises, and the device is found lost."""
    with open_device("webgpu") as device:
        commands = device.create_command_encoder("before").finish()
        encoder = device.create_command_encoder("meanwhile")
        compute_pass = encoder.begin_compute_pass()
        type(device.native_handle).destroy(device.native_handle)
        compute_pass.end()
        assert not device.is_lost
        with pytest.raises(DeviceLostError, match="'meanwhile': finish: the device was lost"):
            encoder.finish()
        with pytest.raises(DeviceLostError, match="submit: the device was lost or closed"):
            device.queue.submit([commands])
        assert device.is_lost


@pytest.mark.parametrize("way", [way for way in WAYS if way.startswith("webgpu")])
def test_surfaces(way: str) -> None:
    from rendercanvas.offscreen import RenderCanvas

    losable = Losable(way)
    surface = losable.device.create_surface(RenderCanvas(size=(64, 64)))
    surface.configure()
    losable.lose()
    for call in WINDOW.values():
        with pytest.raises(DeviceLostError, match=losable.why):
            call(surface)
    surface.present()


def test_what_stays_legal(losable: Losable) -> None:
    """Ending things, asking for what is known, and waiting for what had ended before."""
    things = Everything(losable.device)
    things.finished.wait()
    losable.lose()
    assert {
        things.plain.state,
        things.mappable.state,
        things.mapped.state,
        things.deferred.state,
    } == {BufferState.DESTROYED}
    for thing in (
        things.plain, things.mappable, things.mapped, things.texture, things.frame, things.queries,
        things.immediate, things.deferred, things.readback, things.dynamic, things.storage,
    ):  # fmt: skip
        for _ in range(2):
            thing.destroy()
    for buffer in (things.mappable, things.mapped):
        buffer.unmap()
        assert buffer.state is BufferState.DESTROYED
        assert not buffer.is_valid
    things.finished.wait()
    assert things.finished.is_done
    assert things.submission.is_done
    device = losable.device
    device.poll()
    for belt in (things.belt, device.belt):
        belt.trim()
        assert belt.stats.capacity == 0
    for stream in (things.stream, things.full):
        stream.close()
        stream.destroy()
        assert not stream.outstanding
    with device.error_scope("internal") as scope:
        things.plain = Maker(device).plain()
    assert type(scope.error) is DeviceLostError
    assert device.info.backend == losable.backend
    assert device.limits.max_buffer_size > 0
    assert device.features is not None
    assert device.belt.stats.budget > 0
    assert things.plain.size == 1024
    for thing in vars(things).values():
        repr(thing)
    for _ in range(2):
        device.close()
    with device:
        pass


# --- Afterwards -----------------------------------------------------------------------------------


def test_arrays_stay(losable: Losable) -> None:
    """Mapped memory, and what was read, are there until the arrays die."""
    make = Maker(losable.device)
    mapped = make.mappable(mapped=True).mapped_data.as_array(np.uint32)
    mapped[:] = numbers(16)
    read = losable.device.read_array_blocking(make.filled(numbers(16, 50)), np.uint32)
    losable.lose()
    gc.collect()
    with open_device(losable.backend) as other:
        assert contents(other, Maker(other).filled(bytes(64))).tolist() == [0] * 64
    assert mapped.tolist() == [*numbers(16)]
    mapped[3] = 1000
    assert mapped[3] == 1000
    assert read.tolist() == [*numbers(16, 50)]


def use(device: IRenderDevice) -> None:
    """A frame of a renderer: upload, draw, read."""
    frame = device.create_frame_buffer(4, 4, [TextureFormat.RGBA8_UNORM])
    shader = device.create_shader_module(FULL_SCREEN)
    pipeline = device.create_render_pipeline(
        RenderPipelineDescriptor(shader, [ColorTarget(TextureFormat.RGBA8_UNORM)])
    )
    target = DeviceBuffer(64, device.buffer_factory, usage=COPY)
    device.upload(numbers(16), target)
    encoder = device.create_command_encoder()
    with encoder.begin_render_pass(frame) as render_pass:
        render_pass.set_pipeline(pipeline)
        render_pass.draw(3)
    device.queue.submit([encoder.finish()]).wait()
    assert device.read_array_blocking(target, np.uint32).tolist() == [*numbers(16)]
    pixels = device.read_array_blocking(frame.color_textures[0])
    assert (pixels[0, 0, 0] == 255) == device.info.executes_shaders


def test_another_device_carries_on(losable: Losable) -> None:
    """Opened before or after the loss; things of the lost one are refused."""
    with open_device(losable.backend) as before:
        pending = Maker(before).mappable()
        use(losable.device)
        with Hold(before):
            core: Any = pending
            waits = core._begin_map(MapMode.WRITE, 0, None)
            things = Everything(losable.device)
            losable.lose()
            assert pending.is_map_pending
        waits.wait()
        assert pending.is_mapped
        assert not before.is_lost
        use(before)
        for _ in range(3):
            with open_device(losable.backend) as after:
                use(after)
                with pytest.raises(ValidationError, match="another device"):
                    after.queue.submit([things.commands])
                with pytest.raises(ValidationError, match="another device"):
                    after.create_bind_group(things.layout, {0: things.storage})
                with pytest.raises((ValidationError, DeviceLostError)):
                    after.upload(bytes(64), things.plain)
            use(before)


def test_lost_while_it_is_being_closed(losable: Losable) -> None:
    """A callback of the loss closes the device, makes things and loses it again."""
    device = losable.device
    errors: list[Exception] = []

    def again(_: DeviceLostInfo) -> None:
        device.close()
        losable.lose()
        with contextlib.suppress(ValidationError):
            try:
                Maker(device).plain()
            except DeviceLostError as error:
                errors.append(error)

    device.on_lost(again)
    Maker(device).mappable(mapped=True)
    losable.lose()
    assert len(errors) == 1


def test_lost_in_the_middle_of_a_submit() -> None:
    """The loss comes while the call is made, and is noticed by whoever looks first."""
    with NullDevice() as device:
        things = Things(device)
        device.faults.lose_after_submits(1, "hung")
        things.start()
        for wait in (things.submission.wait, things.submission.wait):
            with pytest.raises(DeviceLostError, match="hung"):
                wait()
        for call in (things.writable.map, things.readback.read_array_blocking):
            with pytest.raises(DeviceLostError, match="hung"):
                call()


def test_a_loss_is_heard_when_the_log_is_muted() -> None:
    """wgpu-py only logs that a device is lost; pers listens whatever becomes of the log."""
    from wgpu.backends.wgpu_native import _api

    logging.disable(logging.CRITICAL)
    try:
        with open_device("webgpu") as device:
            native: Any = device.native  # type: ignore[attr-defined]
            heard: list[str] = []
            native.suspect_loss = lambda: heard.append("suspected")
            _api.error_handler.log_error("The WGPU device was lost (Unknown):\nunplugged")
            assert heard == ["suspected"]
    finally:
        logging.disable(logging.NOTSET)
