"""Devices: opening, closing, losing, wrapping, and leaving nothing behind."""

from __future__ import annotations

import contextlib
import gc
import logging
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import anyio
import attrs
import numpy as np
import pytest

import pers
from pers import (
    BackendUnavailableError,
    BufferDesc,
    BufferRangeError,
    BufferState,
    BufferStateError,
    BufferUsage,
    BufferUsageError,
    DeferredStagingBuffer,
    DeviceBuffer,
    DeviceInfo,
    DeviceLimits,
    DeviceLostError,
    DeviceLostInfo,
    DynamicBuffer,
    ImmediateStagingBuffer,
    IRenderDevice,
    MapAbortedError,
    MapMode,
    OutOfMemoryError,
    PersError,
    ReadbackBuffer,
    TextureFormat,
    ValidationError,
)
from pers.backends.null import NullDevice
from pers.backends.webgpu import WebGPUDevice
from tests.support import (
    READBACK,
    Hold,
    Maker,
    contents,
    copied,
    live,
    make_texture,
    native_counts,
    numbers,
    open_device,
    settle,
    start_map,
)

# --- Opening --------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_open_async(backend: str) -> None:
    device = await pers.open_device_async(backend)
    with device:
        assert device.info.backend == backend
        assert not device.is_lost
    assert device.is_lost


def test_default_backend() -> None:
    with pers.open_device() as device:
        assert isinstance(device, WebGPUDevice)


@pytest.mark.parametrize("name", ["vulkan", "", "WEBGPU", None, 5])
def test_backends_that_are_none(name: Any) -> None:
    with pytest.raises(BackendUnavailableError, match="choose one of webgpu, null"):
        pers.open_device(name)


@pytest.mark.parametrize(
    "arguments",
    [
        {"features": ["no-such-feature"]},
        {"features": ["mappable-primary-buffers", "no-such-feature"]},
        {"limits": {"no_such_limit": 1}},
        {"limits": {"max_buffer_size": 2**62}},
        {"limits": {"max_buffer_size": "large"}},
        {"limits": {"max_buffer_size": None}},
        {"limits": {"min_uniform_buffer_offset_alignment": 1}},
    ],
    ids=str,
)
def test_what_there_is_not(arguments: Any, backend: str) -> None:
    """The message names what is missing, so that one can ask for less."""
    with pytest.raises(BackendUnavailableError):
        pers.open_device(backend, **arguments)


def test_power_preferences_that_are_none() -> None:
    with pytest.raises(BackendUnavailableError, match="power_preference"):
        pers.open_device("webgpu", power_preference="fast")  # type: ignore[arg-type]


def test_info_and_limits(device: IRenderDevice, backend: str) -> None:
    assert isinstance(device.info, DeviceInfo)
    assert device.info.name
    assert device.info.driver
    assert device.info.kind in ("discrete", "integrated", "virtual", "cpu", "unknown")
    assert device.info.executes_shaders == (backend == "webgpu")
    assert isinstance(device.limits, DeviceLimits)
    assert all(value > 0 for value in attrs.asdict(device.limits).values())
    assert isinstance(device.features, frozenset)


def test_list_adapters() -> None:
    adapters = pers.list_adapters()
    assert adapters, "no GPU driver; install libvulkan1 and mesa-vulkan-drivers"
    assert all(isinstance(info, DeviceInfo) and info.backend == "webgpu" for info in adapters)


# --- Error scopes ---------------------------------------------------------------------------------


def test_error_scope(device: IRenderDevice, make: Maker) -> None:
    with device.error_scope("validation") as scope:
        device.create_shader_module(5)  # type: ignore[arg-type]
        pytest.fail("the error ends the block")
    assert type(scope.error) is ValidationError
    with device.error_scope() as scope:
        make.plain()
    assert scope.error is None


@pytest.mark.parametrize(
    ("kind", "error", "caught"),
    [
        ("validation", ValidationError, True),
        ("validation", BufferStateError, True),
        ("validation", BufferUsageError, True),
        ("validation", BufferRangeError, True),
        ("validation", OutOfMemoryError, False),
        ("validation", DeviceLostError, False),
        ("out-of-memory", OutOfMemoryError, True),
        ("out-of-memory", ValidationError, False),
        ("internal", DeviceLostError, True),
        ("internal", MapAbortedError, True),
        ("internal", ZeroDivisionError, False),
    ],
)
def test_what_scopes_catch(
    kind: Any, error: type[Exception], caught: bool, device: IRenderDevice
) -> None:
    def fail() -> None:
        with device.error_scope(kind) as scope:
            raise error("it")
        assert type(scope.error) is error

    if caught:
        fail()
    else:
        with pytest.raises(error):
            fail()


@pytest.mark.parametrize("kind", ["nothing", None, 5, ["validation"]])
def test_scopes_that_are_none(kind: Any, device: IRenderDevice) -> None:
    with pytest.raises(ValidationError), device.error_scope(kind):
        pytest.fail("no such scope")


# --- Closing and losing ---------------------------------------------------------------------------


def everything_on(device: IRenderDevice) -> list[Any]:
    factory = device.buffer_factory
    make = Maker(device)
    mapped = make.mappable(mapped=True)
    return [
        make.plain(), make.mappable(), mapped, mapped.mapped_data, make_texture(device),
        device.create_frame_buffer(4, 4), device.create_sampler(),
        device.create_query_set("occlusion", 1), device.create_command_encoder(),
        device.create_command_encoder().begin_compute_pass(),
        device.create_render_bundle_encoder([TextureFormat.RGBA8_UNORM]),
        device.create_command_encoder().finish(), device.queue.submit([]),
        DeviceBuffer(64, factory, usage=BufferUsage.VERTEX), ImmediateStagingBuffer(64, factory),
        DeferredStagingBuffer(64, factory), ReadbackBuffer(64, factory), DynamicBuffer(64, factory),
    ]  # fmt: skip


def test_close(fresh_device: IRenderDevice) -> None:
    things = everything_on(fresh_device)
    for _ in range(3):
        fresh_device.close()
        assert fresh_device.is_lost
    for thing in things:
        if hasattr(thing, "state"):
            assert thing.state is BufferState.DESTROYED
        if hasattr(thing, "destroy"):
            thing.destroy()
        repr(thing)
    fresh_device.poll()
    assert fresh_device.info.name
    assert fresh_device.limits.max_buffer_size > 0


@pytest.mark.anyio
async def test_lost_resolves_when_closed(fresh_device: IRenderDevice) -> None:
    calls: list[DeviceLostInfo] = []
    fresh_device.on_lost(calls.append)
    got: list[DeviceLostInfo] = []

    async def wait() -> None:
        got.append(await fresh_device.lost)

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        assert not got
        fresh_device.close()
    fresh_device.on_lost(calls.append)  # at once, when it is lost already
    assert calls == [got[0], got[0]]
    assert got[0].reason == "destroyed"
    assert await fresh_device.lost == got[0]


def test_callback_that_raises(
    fresh_device: IRenderDevice, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody else's mistake does not keep the device from closing, or others from hearing."""
    calls: list[DeviceLostInfo] = []

    def fail(_: DeviceLostInfo) -> None:
        raise ZeroDivisionError

    fresh_device.on_lost(fail)
    fresh_device.on_lost(calls.append)
    buffer = Maker(fresh_device).mappable(mapped=True)
    with caplog.at_level(logging.CRITICAL, "pers"):
        fresh_device.close()
    assert len(calls) == 1
    assert buffer.state is BufferState.DESTROYED
    assert fresh_device.is_lost


def test_callback_that_uses_the_device(fresh_device: IRenderDevice) -> None:
    errors: list[Exception] = []

    def use(_: DeviceLostInfo) -> None:
        fresh_device.close()
        fresh_device.poll()
        try:
            Maker(fresh_device).plain()
        except DeviceLostError as error:
            errors.append(error)

    fresh_device.on_lost(use)
    fresh_device.close()
    assert len(errors) == 1


def test_lost_by_accident() -> None:
    with NullDevice() as device:
        calls: list[DeviceLostInfo] = []
        device.on_lost(calls.append)
        buffer = Maker(device).mappable(mapped=True)
        view = buffer.mapped_data.as_array()
        device.faults.lose_device("pulled out")
        device.poll()
        assert device.is_lost
        assert calls == [DeviceLostInfo("unknown", "pulled out")]
        assert buffer.state is BufferState.DESTROYED
        assert not view.any()
        with pytest.raises(DeviceLostError, match="pulled out; open a new device"):
            Maker(device).plain()


def test_lost_during_a_submit() -> None:
    with NullDevice() as device:
        target = Maker(device).mappable(64, READBACK)
        device.faults.lose_after_submits(1)
        submission = device.queue.submit([copied(device, Maker(device).plain(), target)])
        with pytest.raises((DeviceLostError, MapAbortedError)):
            target.map(MapMode.READ)
        with pytest.raises(DeviceLostError):
            submission.wait()
        assert target.state is BufferState.DESTROYED


# --- Nothing is left behind -----------------------------------------------------------------------


@pytest.fixture
def quick_watcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the thread that polls webgpu end at once when there is nothing to wait for."""
    from pers.backends.webgpu.native import _Watcher

    monkeypatch.setattr(_Watcher, "_LINGER", 0)


def join_watchers() -> None:
    for thread in threading.enumerate():
        if thread.name == "pers-webgpu-poll":
            thread.join()


@pytest.mark.parametrize("end", ["close", "drop"])
@pytest.mark.parametrize("work", ["none", "submitted", "written", "mapped", "read"])
def test_devices_leave_nothing(end: str, work: str, backend: str, quick_watcher: None) -> None:
    """Closed or simply dropped, with work in flight or not."""
    join_watchers()
    before = native_counts("Device"), native_counts("Buffer"), native_counts("Texture")
    device: Any = open_device(backend)
    native = weakref.ref(device.native)
    things: Any = everything_on(device)
    if work == "submitted":
        with Hold(device):
            things.append(device.queue.on_work_done())
    elif work == "written":
        device.queue.write_buffer(things[13], 0, b"1234")
    elif work == "mapped":
        things[1].map()
    elif work == "read":
        things.append(device.read_array_blocking(Maker(device).filled(numbers(16))))
    if end == "close":
        device.close()
    del device, things
    join_watchers()
    gc.collect()
    assert native() is None
    assert before == (native_counts("Device"), native_counts("Buffer"), native_counts("Texture"))


@pytest.mark.anyio
async def test_device_dropped_after_async_use(backend: str, quick_watcher: None) -> None:
    join_watchers()
    before = native_counts("Device"), native_counts("Buffer")
    device: Any = open_device(backend)
    native = weakref.ref(device.native)
    buffer = Maker(device).filled(numbers(16))
    assert (await device.read_array(buffer, np.uint32))[0] == 1
    await device.queue.on_work_done().done()
    del device, buffer
    join_watchers()
    gc.collect()
    assert native() is None
    assert before == (native_counts("Device"), native_counts("Buffer"))


def test_submission_outlives_its_device(backend: str) -> None:
    """Whoever still waits for work gets an answer."""
    device = open_device(backend)
    submission = device.queue.on_work_done()
    del device
    gc.collect()
    with contextlib.suppress(DeviceLostError):
        submission.wait(60)
    assert submission.is_done


def test_buffers_leave_nothing(device: IRenderDevice) -> None:
    settle(device)
    before = live(device)
    for _ in range(10):
        make = Maker(device)
        make.plain()
        make.mappable(mapped=True).mapped_data.as_array()
        target = make.mappable(64, READBACK)
        device.queue.submit([copied(device, make.filled(numbers(16)), target)])
        target.map(MapMode.READ)
        del make, target
    settle(device)
    assert live(device) == before


@pytest.mark.anyio
async def test_cancelled_maps_leave_nothing(device: IRenderDevice) -> None:
    settle(device)
    before = live(device)
    with Hold(device):
        async with anyio.create_task_group() as group:
            make = Maker(device)
            for _ in range(10):
                await start_map(group, make.mappable())
            group.cancel_scope.cancel()
        del make
        assert live(device) == before


def test_buffers_keep_their_device(backend: str) -> None:
    """A device is needed for as long as anything of it is."""
    device = open_device(backend)
    buffer = Maker(device).filled(numbers(16), READBACK)
    del device
    gc.collect()
    assert buffer.map(MapMode.READ).as_array(np.uint32)[3] == 4  # type: ignore[attr-defined]


# --- WebGPUDevice.wrap ----------------------------------------------------------------------------


@pytest.fixture
def gpu_device() -> Iterator[Any]:
    """A device of wgpu-py, as an application has it."""
    import wgpu

    device = wgpu.gpu.request_adapter_sync().request_device_sync()
    yield device
    type(device).destroy(device)


def alive(gpu_device: Any) -> bool:
    """Whether the application can still use its device."""
    import wgpu

    try:
        buffer = gpu_device.create_buffer(size=4, usage=wgpu.BufferUsage.COPY_DST)
        gpu_device.queue.write_buffer(buffer, 0, b"1234")
        gpu_device.queue.submit([gpu_device.create_command_encoder().finish()])
    except wgpu.GPUError:
        return False
    return True


def test_wrap(gpu_device: Any) -> None:
    with WebGPUDevice.wrap(gpu_device) as device:
        assert device.native_handle is gpu_device
        assert device.info.backend == "webgpu"
        assert device.limits.max_buffer_size == gpu_device.limits["max-buffer-size"]
        make = Maker(device)
        target = make.plain()
        device.queue.submit([copied(device, make.filled(numbers(16)), target)])
        assert contents(device, target).view(np.uint32).tolist() == [*numbers(16)]


def test_closing_leaves_the_application_s_device(gpu_device: Any) -> None:
    device = WebGPUDevice.wrap(gpu_device)
    buffer = Maker(device).mappable(mapped=True)
    device.close()
    assert buffer.state is BufferState.DESTROYED
    with pytest.raises(DeviceLostError):
        Maker(device).plain()
    assert alive(gpu_device)
    with WebGPUDevice.wrap(gpu_device) as again:
        assert not contents(again, Maker(again).plain()).any()
    assert alive(gpu_device)


@pytest.mark.anyio
async def test_application_destroys_its_device(gpu_device: Any) -> None:
    """pers follows: maps are aborted, `lost` resolves, arrays stay."""
    device = WebGPUDevice.wrap(gpu_device)
    make = Maker(device)
    view = make.mappable(mapped=True).mapped_data.as_array(np.uint32)
    view[:] = 7
    pending = make.mappable(name="pending one")
    commands = copied(device, make.plain(), make.plain())
    with Hold(device):
        async with anyio.create_task_group() as group:
            task = await start_map(group, pending)
            gpu_device.destroy()
        assert type(task.error) is MapAbortedError
    assert (await device.lost).reason == "destroyed"
    assert (view == 7).all()
    for call in (lambda: device.queue.submit([commands]), make.plain, pending.map):
        with pytest.raises(DeviceLostError, match="the application destroyed the wgpu device"):
            call()
    del view
    gc.collect()
    gpu_device.destroy()
    device.close()


def test_two_wraps_of_one_device(gpu_device: Any) -> None:
    one, other = WebGPUDevice.wrap(gpu_device), WebGPUDevice.wrap(gpu_device)
    buffer = Maker(one).plain()
    with pytest.raises(ValidationError, match="another device"):
        other.queue.write_buffer(buffer, 0, b"1234")
    one.close()
    assert not contents(other, Maker(other).plain()).any()
    gpu_device.destroy()
    assert other.is_lost
    with pytest.raises(DeviceLostError):
        Maker(other).plain()


def test_work_of_application_and_pers_in_order(gpu_device: Any) -> None:
    import wgpu

    with WebGPUDevice.wrap(gpu_device) as device:
        buffer = Maker(device).plain()
        device.queue.write_buffer(buffer, 0, numbers(16))
        theirs = gpu_device.create_buffer(
            size=64, usage=wgpu.BufferUsage.COPY_SRC | wgpu.BufferUsage.COPY_DST
        )
        encoder = gpu_device.create_command_encoder()
        encoder.copy_buffer_to_buffer(buffer.native_handle, 0, theirs, 0, 64)
        gpu_device.queue.submit([encoder.finish()])
        device.queue.write_buffer(buffer, 0, bytes(64))
        data = np.frombuffer(gpu_device.queue.read_buffer(theirs), np.uint32)
        assert data.tolist() == [*numbers(16)]


@pytest.mark.parametrize("junk", [None, 5, "device", object()])
def test_wrap_what_is_no_device(junk: Any) -> None:
    with pytest.raises(BackendUnavailableError, match=r"takes a wgpu\.GPUDevice"):
        WebGPUDevice.wrap(junk)


def test_wrapped_device_is_not_kept(gpu_device: Any) -> None:
    device: Any = WebGPUDevice.wrap(gpu_device)
    native = weakref.ref(device.native)
    Maker(device).plain()
    del device
    gc.collect()
    assert native() is None
    assert alive(gpu_device)
    gpu_device.destroy()


def test_native_handle_destroyed_behind_the_back() -> None:
    """The handle is there to leave pers with; what happens then is an error, not an abort."""
    device = open_device("webgpu")
    make = Maker(device)
    mapped = make.mappable(mapped=True).mapped_data
    commands = copied(device, make.plain(), make.plain())
    device.native_handle.destroy()
    assert device.is_lost
    for call in (
        lambda: device.queue.submit([commands]), make.plain, device.create_command_encoder,
        lambda: device.upload(b"1234", DeviceBuffer(4, device.buffer_factory, usage=BufferUsage.VERTEX)),
    ):  # fmt: skip
        with pytest.raises(DeviceLostError):
            call()
    with pytest.raises(PersError):
        mapped.as_array()
    device.native_handle.destroy()
    device.close()


def test_factory_desc_is_kept(device: IRenderDevice) -> None:
    desc = BufferDesc(16, BufferUsage.VERTEX, debug_name="kept")
    one, other = (device.buffer_factory.create_buffer(desc) for _ in range(2))
    assert one is not other
    assert (one.size, one.debug_name) == (other.size, other.debug_name) == (16, "kept")
