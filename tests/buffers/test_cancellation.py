"""A map whose task is cancelled leaves the buffer READY, and nothing changes it afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import numpy as np
import pytest

from pers import (
    BufferState,
    DeferredStagingBuffer,
    IMappableBuffer,
    IRenderDevice,
    MapAbortedError,
    MapMode,
    PersError,
    ReadbackBuffer,
)
from tests.support import (
    READBACK,
    USAGE_FOR,
    Hold,
    Maker,
    MapTask,
    copied,
    live,
    numbers,
    start_map,
)

pytestmark = pytest.mark.anyio
MODES = pytest.mark.parametrize("mode", [MapMode.WRITE, MapMode.READ], ids=["WRITE", "READ"])

SOON = 0.01
"""A time limit (seconds) that is reached, because what waits for is held back."""


async def by_move_on_after(buffer: IMappableBuffer, mode: MapMode) -> None:
    with anyio.move_on_after(SOON) as scope:
        await buffer.map_async(mode)
    assert scope.cancelled_caught


async def by_a_deadline_that_has_passed(buffer: IMappableBuffer, mode: MapMode) -> None:
    with anyio.move_on_after(0) as scope:
        await buffer.map_async(mode)
    assert scope.cancelled_caught


async def by_fail_after(buffer: IMappableBuffer, mode: MapMode) -> None:
    with pytest.raises(TimeoutError), anyio.fail_after(SOON):
        await buffer.map_async(mode)


async def by_task_group_cancel(buffer: IMappableBuffer, mode: MapMode) -> None:
    async with anyio.create_task_group() as group:
        task = await start_map(group, buffer, mode)
        group.cancel_scope.cancel()
    assert task.cancelled


async def by_a_sibling_that_fails(buffer: IMappableBuffer, mode: MapMode) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with anyio.create_task_group() as group:
            task = await start_map(group, buffer, mode)
            raise ZeroDivisionError
    assert caught.group_contains(ZeroDivisionError)
    assert task.cancelled


WAYS = pytest.mark.parametrize(
    "cancel",
    [
        by_move_on_after,
        by_a_deadline_that_has_passed,
        by_fail_after,
        by_task_group_cancel,
        by_a_sibling_that_fails,
    ],
    ids=lambda way: way.__name__,
)
Cancel = Callable[[IMappableBuffer, MapMode], Any]


@WAYS
@MODES
async def test_cancelled_while_pending(
    cancel: Cancel, mode: MapMode, device: IRenderDevice, make: Maker, hold: Hold
) -> None:
    buffer = make.mappable(64, USAGE_FOR[mode])
    await cancel(buffer, mode)
    assert buffer.state is BufferState.READY

    hold.release()  # what the device has to say about the map comes now
    for _ in range(3):
        device.poll()
        await anyio.lowlevel.checkpoint()
        assert buffer.state is BufferState.READY

    assert (await buffer.map_async(mode)).read() == bytes(64)
    assert buffer.state is BufferState.MAPPED


@WAYS
async def test_cancelled_while_the_gpu_uses_the_buffer(
    cancel: Cancel, device: IRenderDevice, make: Maker
) -> None:
    """Whatever wins, the map or the cancellation: the buffer goes on, and its contents are right.

    Cancelled calls end READY; where the map was there first, the call has returned it.
    """
    target = make.mappable(64, READBACK)
    source = make.filled(numbers(16))
    with Hold(device):
        device.queue.submit([copied(device, source, target)])
        await cancel(target, MapMode.READ)
        assert target.state is BufferState.READY
    assert (await target.map_async(MapMode.READ)).as_array(np.uint32).tolist() == [*numbers(16)]


@WAYS
async def test_cancelled_buffer_can_be_used_by_the_gpu(
    cancel: Cancel, device: IRenderDevice, make: Maker, hold: Hold
) -> None:
    target = make.mappable(64, READBACK)
    source = make.filled(numbers(16))
    await cancel(target, MapMode.READ)
    hold.release()
    device.queue.submit([copied(device, source, target)])
    assert (await target.map_async(MapMode.READ)).as_array(np.uint32).tolist() == [*numbers(16)]


# --- News that comes late -------------------------------------------------------------------------


class Postponed:
    """Keeps what the native buffer has to say about its maps."""

    def __init__(self, buffer: IMappableBuffer, patch: pytest.MonkeyPatch) -> None:
        self._news: list[Callable[[PersError | None], None]] = []
        self._calls: list[tuple[Any, ...]] = []
        core: Any = buffer
        self._map = core.native.map_async
        patch.setattr(core.native, "map_async", self._map_async)

    def _map_async(self, *arguments: Any) -> None:
        *what, done = arguments
        self._calls.append(tuple(what))
        self._news.append(done)

    def really_map(self, device: IRenderDevice) -> None:
        """Map natively, so that there is memory when the news is told."""
        told: list[Any] = []
        self._map(*self._calls[-1], told.append)
        while not told:
            device.poll()
        assert told == [None]

    def tell(self, error: PersError | None = None, *, which: int = -1) -> None:
        self._news[which](error)


@MODES
async def test_cancelled_after_the_native_map_is_done(
    mode: MapMode, device: IRenderDevice, make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The map was there before the cancellation, but the task had not been told."""
    buffer = make.mappable(64, USAGE_FOR[mode])
    with monkeypatch.context() as patch:
        late = Postponed(buffer, patch)
        async with anyio.create_task_group() as group:
            task = await start_map(group, buffer, mode)
            late.really_map(device)
            late.tell()  # wakes the task, which runs only after the next line
            group.cancel_scope.cancel()
        assert task.cancelled
    assert buffer.state is BufferState.READY
    assert (await buffer.map_async(mode)).read() == bytes(64)


@pytest.mark.parametrize("news", [None, MapAbortedError("too late")], ids=["success", "failure"])
@pytest.mark.parametrize("end", ["unmap", "destroy", "cancel"])
async def test_late_news_changes_nothing(
    end: str,
    news: PersError | None,
    make: Maker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    buffer = make.mappable()
    late = Postponed(buffer, monkeypatch)
    async with anyio.create_task_group() as group:
        await start_map(group, buffer)
        if end == "cancel":
            group.cancel_scope.cancel()
        else:
            getattr(buffer, end)()
    state = BufferState.DESTROYED if end == "destroy" else BufferState.READY
    assert buffer.state is state
    late.tell(news)
    assert buffer.state is state
    late.tell(news)
    assert buffer.state is state


@pytest.mark.parametrize("news", [None, MapAbortedError("too late")], ids=["success", "failure"])
async def test_late_news_does_not_end_the_next_map(
    news: PersError | None,
    device: IRenderDevice,
    make: Maker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    buffer = make.mappable()
    late = Postponed(buffer, monkeypatch)
    async with anyio.create_task_group() as group:
        first = await start_map(group, buffer)
        buffer.unmap()
        second = await start_map(group, buffer)
        late.tell(news, which=0)
        assert buffer.is_map_pending
        assert not second.ended.is_set()
        late.really_map(device)
        late.tell()
    assert type(first.error) is MapAbortedError
    assert second.mapped is buffer.mapped_data


async def test_news_in_the_middle_of_the_call(
    device: IRenderDevice, make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backend may call back before its `map_async` has returned."""
    buffer = make.mappable()
    core: Any = buffer
    late = Postponed(buffer, monkeypatch)

    def at_once(*arguments: Any) -> None:
        late._map_async(*arguments)
        late.really_map(device)
        late.tell()

    monkeypatch.setattr(core.native, "map_async", at_once)
    mapped = await buffer.map_async()
    assert mapped is buffer.mapped_data


# --- Cancelling what stands on a map --------------------------------------------------------------


async def test_cancelled_deferred_staging(device: IRenderDevice, hold: Hold) -> None:
    staging = DeferredStagingBuffer(64, device.buffer_factory)
    with anyio.move_on_after(SOON) as scope:
        async with staging.map_async():
            pytest.fail("it is held back")
    assert scope.cancelled_caught
    assert staging.state is BufferState.READY
    hold.release()
    async with staging.map_async() as mapped:
        assert mapped.read() == bytes(64)


@pytest.mark.parametrize("way", ["read_async", "read_array"])
async def test_cancelled_readback(way: str, device: IRenderDevice, make: Maker, hold: Hold) -> None:
    readback = ReadbackBuffer(64, device.buffer_factory)
    with anyio.move_on_after(SOON) as scope:
        if way == "read_async":
            async with readback.read_async():
                pytest.fail("it is held back")
        else:
            await readback.read_array()
    assert scope.cancelled_caught
    assert readback.state is BufferState.READY

    hold.release()
    encoder = device.create_command_encoder()
    readback.copy_from(encoder, make.filled(numbers(16)))
    device.queue.submit([encoder.finish()])
    assert (await readback.read_array(np.uint32)).tolist() == [*numbers(16)]
    assert readback.slots == 1


async def test_cancelled_device_read(device: IRenderDevice, make: Maker) -> None:
    source = make.filled(numbers(16))
    with Hold(device):
        with anyio.move_on_after(SOON) as scope:
            await device.read_array(source)
        assert scope.cancelled_caught
    assert (await device.read_array(source, np.uint32)).tolist() == [*numbers(16)]


async def test_cancelled_in_the_block(device: IRenderDevice) -> None:
    """A mapping that is left by a cancellation is unmapped as in any other case."""
    staging = DeferredStagingBuffer(64, device.buffer_factory)
    with anyio.CancelScope() as scope:
        async with staging.map_async() as mapped:
            mapped.write(numbers(16))
            scope.cancel()
            await anyio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert staging.state is BufferState.READY


# --- Ends that are no cancellation from anyio -----------------------------------------------------


async def test_dropped_coroutine(make: Maker, hold: Hold) -> None:
    """A call that nobody goes on with (a generator thrown away, say) gives up its map."""
    buffer = make.mappable()
    coroutine = buffer.map_async()
    coroutine.send(None)
    assert buffer.is_map_pending
    coroutine.close()
    assert buffer.state is BufferState.READY


async def test_coroutine_never_started(make: Maker) -> None:
    buffer = make.mappable()
    coroutine = buffer.map_async()
    assert buffer.state is BufferState.READY
    coroutine.close()


async def test_dropped_before_the_result(device: IRenderDevice, make: Maker, hold: Hold) -> None:
    """[MapAsync_DroppedBeforeResult] Nobody holds the buffer any more when the news comes."""
    before = live(device)
    async with anyio.create_task_group() as group:
        buffer = make.mappable()
        await start_map(group, buffer)
        make._buffers.clear()
        del buffer
        group.cancel_scope.cancel()
    assert live(device) == before
    hold.release()
    device.poll()


async def test_asyncio_wait_for(make: Maker, hold: Hold, anyio_backend_name: str) -> None:
    """asyncio's own ways to cancel are cancellations, too."""
    if anyio_backend_name != "asyncio":
        return
    buffer = make.mappable()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(buffer.map_async(), SOON)
    assert buffer.state is BufferState.READY

    task = asyncio.create_task(buffer.map_async())
    while not buffer.is_map_pending:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert buffer.state is BufferState.READY


def test_keyboard_interrupt_in_a_blocking_map(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = make.mappable()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    core: Any = buffer
    with monkeypatch.context() as patch:
        patch.setattr(type(core.owner.progress), "poll", interrupted)
        with pytest.raises(KeyboardInterrupt):
            buffer.map()
    assert buffer.state is BufferState.READY
    assert buffer.map().read() == bytes(64)


# --- Many at once ---------------------------------------------------------------------------------


async def test_many_pending_maps_and_every_second_cancelled(make: Maker, hold: Hold) -> None:
    buffers = [make.mappable(name=f"number {index}") for index in range(16)]
    tasks: list[MapTask] = []
    async with anyio.create_task_group() as group:
        scopes = [anyio.CancelScope() for _ in buffers]

        async def run(task: MapTask, scope: anyio.CancelScope) -> None:
            with scope:
                await task.run()

        for buffer, scope in zip(buffers, scopes, strict=True):
            task = MapTask(buffer, MapMode.WRITE)
            tasks.append(task)
            group.start_soon(run, task, scope)
        await anyio.wait_all_tasks_blocked()
        for scope in scopes[::2]:
            scope.cancel()
        await anyio.wait_all_tasks_blocked()
        assert [buffer.state.name for buffer in buffers] == ["READY", "MAP_PENDING"] * 8
        hold.release()
    assert [buffer.state.name for buffer in buffers] == ["READY", "MAPPED"] * 8
    assert [task.cancelled for task in tasks] == [True, False] * 8
