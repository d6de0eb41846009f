"""Every cell of the state table: each call, in each state, for both kinds of mapping.

The names in brackets are those of WebGPU's conformance suite (validation/buffer/mapping).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import attrs
import numpy as np
import pytest

from pers import (
    BufferRangeError,
    BufferState,
    BufferStateError,
    BufferUsage,
    BufferUsageError,
    DeviceLostError,
    ICommandBuffer,
    IMappableBuffer,
    IRenderDevice,
    MapAbortedError,
    MapMode,
    MappedRange,
    PersError,
)
from tests.support import COPY, USAGE_FOR, Hold, Maker, MapTask, contents, start_map

READY, PENDING, MAPPED, DESTROYED = (
    BufferState.READY,
    BufferState.MAP_PENDING,
    BufferState.MAPPED,
    BufferState.DESTROYED,
)
MODES = pytest.mark.parametrize("mode", [MapMode.WRITE, MapMode.READ], ids=["WRITE", "READ"])


@attrs.frozen
class Cell:
    """What a call does in a state."""

    after: BufferState
    error: type[PersError] | None = None
    remedy: str = ""
    """What the message tells to do."""
    first_map: type[PersError] | None = None
    """What a map that was pending before ends with; None: it goes on and succeeds."""


# Which buffers a state is tested with: mapped by a map, and mapped at creation.
STATES = {
    "READY": READY,
    "MAP_PENDING": PENDING,
    "MAPPED": MAPPED,
    "MAPPED at creation": MAPPED,
    "DESTROYED": DESTROYED,
}

REFUSED_MAP = {
    "MAP_PENDING": Cell(PENDING, BufferStateError, "await the map that is going on, or unmap"),
    "MAPPED": Cell(MAPPED, BufferStateError, "unmap it first"),
    "MAPPED at creation": Cell(MAPPED, BufferStateError, "unmap it first"),
    "DESTROYED": Cell(DESTROYED, BufferStateError, "create a new one"),
}
REFUSED_ACCESS = {
    "READY": Cell(READY, BufferStateError, "map it first"),
    "MAP_PENDING": Cell(PENDING, BufferStateError, "await the map that is going on"),
    "MAPPED": Cell(MAPPED),
    "MAPPED at creation": Cell(MAPPED),
    "DESTROYED": Cell(DESTROYED, BufferStateError, "create a new one"),
}
TABLE: dict[str, dict[str, Cell]] = {
    "map_async": {"READY": Cell(MAPPED), **REFUSED_MAP},
    "map": {"READY": Cell(MAPPED), **REFUSED_MAP},
    "mapped_range": REFUSED_ACCESS,
    "mapped_data": REFUSED_ACCESS,
    "unmap": {
        "READY": Cell(READY),
        "MAP_PENDING": Cell(READY, first_map=MapAbortedError),
        "MAPPED": Cell(READY),
        "MAPPED at creation": Cell(READY),
        "DESTROYED": Cell(DESTROYED),
    },
    "destroy": {
        "READY": Cell(DESTROYED),
        "MAP_PENDING": Cell(DESTROYED, first_map=MapAbortedError),
        "MAPPED": Cell(DESTROYED),
        "MAPPED at creation": Cell(DESTROYED),
        "DESTROYED": Cell(DESTROYED),
    },
    "submit": {
        "READY": Cell(READY),
        "MAP_PENDING": Cell(PENDING, BufferStateError, "unmap it before the GPU uses it"),
        "MAPPED": Cell(MAPPED, BufferStateError, "unmap it before the GPU uses it"),
        "MAPPED at creation": Cell(MAPPED, BufferStateError, "unmap it before the GPU uses it"),
        "DESTROYED": Cell(DESTROYED, BufferStateError, "create a new one"),
    },
}


class Subject:
    """A buffer in a state, and everything that the calls need."""

    def __init__(self, device: IRenderDevice, make: Maker, mode: MapMode, *, mapped: bool) -> None:
        self.device = device
        self.mode = mode
        self.buffer = make.mappable(64, USAGE_FOR[mode], "the subject", mapped=mapped)
        self.partner = make.plain(64)
        self.commands = self._commands()
        self.first_map: MapTask | None = None

    def _commands(self) -> ICommandBuffer:
        """Record a copy from or to the buffer: recording is legal in every state."""
        encoder = self.device.create_command_encoder("with the subject")
        if self.mode is MapMode.WRITE:
            encoder.copy_buffer_to_buffer(self.buffer, 0, self.partner, 0, 64)
        else:
            encoder.copy_buffer_to_buffer(self.partner, 0, self.buffer, 0, 64)
        return encoder.finish()

    async def call(self, name: str) -> None:
        if name == "map_async":
            await self.buffer.map_async(self.mode)
        elif name == "map":
            self.buffer.map(self.mode)
        elif name == "mapped_range":
            assert self.buffer.mapped_range(8, 16).nbytes == 16
        elif name == "mapped_data":
            assert self.buffer.mapped_data.nbytes == 64
        elif name == "submit":
            self.device.queue.submit([self.commands])
        else:
            getattr(self.buffer, name)()

    def check_flags(self, state: BufferState) -> None:
        buffer = self.buffer
        assert buffer.state is state
        assert buffer.is_mapped == (state is MAPPED)
        assert buffer.is_map_pending == (state is PENDING)
        assert buffer.is_valid == (state is not DESTROYED)


@asynccontextmanager
async def subject_in(
    state: str, device: IRenderDevice, make: Maker, mode: MapMode
) -> AsyncIterator[Subject]:
    """Bring a buffer into a state; a pending map is allowed to end when the block does."""
    subject = Subject(device, make, mode, mapped=state == "MAPPED at creation")
    async with anyio.create_task_group() as group:
        with Hold(device) if state == "MAP_PENDING" else anyio.CancelScope():
            if state == "MAP_PENDING":
                subject.first_map = await start_map(group, subject.buffer, mode)
            elif state == "MAPPED":
                await subject.buffer.map_async(mode)
            elif state == "DESTROYED":
                subject.buffer.destroy()
            subject.check_flags(STATES[state])
            yield subject
        if subject.first_map is not None:
            await subject.first_map.ended.wait()


@MODES
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("call", TABLE)
@pytest.mark.anyio
async def test_cell(
    call: str, state: str, mode: MapMode, device: IRenderDevice, make: Maker
) -> None:
    cell = TABLE[call][state]
    async with subject_in(state, device, make, mode) as subject:
        if cell.error is None:
            await subject.call(call)
        else:
            with pytest.raises(cell.error) as caught:
                await subject.call(call)
            message = str(caught.value)
            for part in ("'the subject'", STATES[state].value, cell.remedy):
                assert part in message
        subject.check_flags(cell.after)

    if subject.first_map is not None:
        if cell.first_map is None:  # what was refused left the first map alone
            assert subject.first_map.error is None
            assert subject.first_map.mapped is subject.buffer.mapped_data
        else:
            assert type(subject.first_map.error) is cell.first_map
            assert "'the subject'" in str(subject.first_map.error)
            subject.check_flags(cell.after)
    if cell.after is MAPPED:  # what was refused left the mapping alone
        assert subject.buffer.mapped_data.read() == bytes(64)


@MODES
@pytest.mark.anyio
async def test_map_goes_through_pending(
    mode: MapMode, device: IRenderDevice, make: Maker, hold: Hold
) -> None:
    buffer = make.mappable(64, USAGE_FOR[mode])
    assert buffer.state is READY
    async with anyio.create_task_group() as group:
        task = await start_map(group, buffer, mode)
        assert buffer.state is PENDING
        hold.release()
    assert buffer.state is MAPPED
    assert task.mapped is buffer.mapped_data
    assert (task.mapped.offset, task.mapped.nbytes, task.mapped.mode) == (0, 64, mode)


@pytest.mark.parametrize("error", [MapAbortedError, BufferStateError])
@pytest.mark.parametrize("blocking", [False, True], ids=["map_async", "map"])
@pytest.mark.anyio
async def test_failed_map_leaves_the_buffer_ready(
    error: type[PersError],
    blocking: bool,
    make: Maker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    buffer = make.mappable()
    native: Any = buffer
    failure = error("this map was made to fail")

    with monkeypatch.context() as patch:
        patch.setattr(native.native, "map_async", lambda *args: args[-1](failure))
        with pytest.raises(error, match="made to fail"):
            buffer.map() if blocking else await buffer.map_async()
    assert buffer.state is READY
    mapped = buffer.map() if blocking else await buffer.map_async()
    assert mapped.read() == bytes(64)


@MODES
@pytest.mark.anyio
async def test_every_way_round(mode: MapMode, device: IRenderDevice, make: Maker) -> None:
    """[state,mappedAgain] A buffer goes round the states as often as one likes."""
    buffer = make.mappable(64, USAGE_FOR[mode])
    for _ in range(3):
        mapped = await buffer.map_async(mode)
        assert buffer.state is MAPPED
        assert mapped.read() == bytes(64)
        buffer.unmap()
        assert buffer.state is READY


# --- Arguments of a map ---------------------------------------------------------------------------

GOOD_RANGES = [
    (0, None),
    (0, 64),
    (8, None),
    (8, 4),
    (16, 44),
    (56, 8),
    (64, 0),
    (64, None),
    (0, 0),
]
BAD_RANGES: list[tuple[Any, Any]] = [
    (4, 8), (1, 4), (2, None), (60, 4),  # offset % 8
    (0, 2), (8, 1), (0, 63),  # size % 4
    (0, 68), (8, 60), (64, 4), (72, 0), (72, None), (2**62, 4), (8, 2**62), (2**63 - 8, 8),
    (-8, 8), (0, -4), (2**63, 0), (0, 2**63), (2**64, 4),
    (1.5, 4), (0, 1.5), ("4", 4), (0, "4"), (True, 4), (0, True), (None, 4), (float("nan"), 4),
]  # fmt: skip


@pytest.mark.parametrize(("offset", "size"), GOOD_RANGES)
@pytest.mark.anyio
async def test_ranges_that_can_be_mapped(offset: int, size: int | None, make: Maker) -> None:
    """[mapAsync,offsetAndSizeAlignment · offsetAndSizeOOB] Zero bytes, and none at the end."""
    buffer = make.mappable(64)
    mapped = await buffer.map_async(MapMode.WRITE, offset, size)
    expected = 64 - offset if size is None else size
    assert (mapped.offset, mapped.nbytes) == (offset, expected)
    assert mapped.as_array().nbytes == expected
    buffer.unmap()
    assert (buffer.map(MapMode.WRITE, offset, size)).nbytes == expected


@pytest.mark.parametrize("blocking", [False, True], ids=["map_async", "map"])
@pytest.mark.anyio
async def test_ranges_that_cannot_be_mapped(blocking: bool, make: Maker) -> None:
    """[mapAsync,offsetAndSizeAlignment · offsetAndSizeOOB · sizeUnspecifiedOOB]"""
    buffer = make.mappable(64, name="short")
    for offset, size in BAD_RANGES:
        with pytest.raises(BufferRangeError, match="'short'"):
            if blocking:
                buffer.map(MapMode.WRITE, offset, size)
            else:
                await buffer.map_async(MapMode.WRITE, offset, size)
        assert buffer.state is READY, (offset, size)


@pytest.mark.anyio
async def test_size_unspecified_of_an_odd_sized_buffer(make: Maker) -> None:
    buffer = make.mappable(10)
    with pytest.raises(BufferRangeError, match="multiple"):
        await buffer.map_async()
    assert (await buffer.map_async(MapMode.WRITE, 0, 8)).nbytes == 8


@pytest.mark.parametrize(
    "mode",
    [MapMode.NONE, 0, MapMode.READ | MapMode.WRITE, 3, 4, -1, 2**32, 1.0, 1.5, "WRITE", True, None],
)
@pytest.mark.anyio
async def test_modes_that_are_none(mode: Any, make: Maker) -> None:
    """[mapAsync,usage] Mode 0 aborts wgpu-py."""
    buffer = make.mappable(64, name="moody")
    with pytest.raises(BufferUsageError, match="'moody'"):
        await buffer.map_async(mode)
    assert buffer.state is READY


@MODES
@pytest.mark.anyio
async def test_mode_needs_its_usage(mode: MapMode, make: Maker) -> None:
    """[mapAsync,usage]"""
    other = MapMode.READ if mode is MapMode.WRITE else MapMode.WRITE
    buffer = make.mappable(64, USAGE_FOR[other])
    with pytest.raises(BufferUsageError, match=f"it needs MAP_{mode.name}"):
        await buffer.map_async(mode)
    assert buffer.state is READY


@pytest.mark.anyio
async def test_mapped_at_creation_gives_no_right_to_map_again(make: Maker) -> None:
    buffer = make.mappable(64, BufferUsage.VERTEX, mapped=True)
    buffer.unmap()
    for mode in (MapMode.READ, MapMode.WRITE):
        with pytest.raises(BufferUsageError, match="created with VERTEX"):
            await buffer.map_async(mode)
    assert buffer.state is READY


@pytest.mark.anyio
async def test_early_rejection(make: Maker, hold: Hold) -> None:
    """[mapAsync,earlyRejection] A refused map is refused at once, whatever is pending."""
    buffer = make.mappable()
    async with anyio.create_task_group() as group:
        first = await start_map(group, buffer)
        with pytest.raises(BufferStateError):
            await buffer.map_async(MapMode.WRITE, 3, 5)  # the state comes first
        assert not first.ended.is_set()
        hold.release()
    assert first.error is None
    assert buffer.is_mapped


# --- The end of a pending map ---------------------------------------------------------------------


@pytest.mark.parametrize("end", ["unmap", "destroy"])
@pytest.mark.anyio
async def test_abort_wins_over_any_other_error(
    end: str, make: Maker, hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[mapAsync,abort_over_invalid_error]"""
    buffer = make.mappable()
    native: Any = buffer
    news: list[Any] = []
    monkeypatch.setattr(native.native, "map_async", lambda *args: news.append(args[-1]))
    async with anyio.create_task_group() as group:
        task = await start_map(group, buffer)
        getattr(buffer, end)()
        state = buffer.state
        news[0](BufferStateError("too late"))
    assert type(task.error) is MapAbortedError
    assert buffer.state is state


@pytest.mark.parametrize("end", ["unmap", "destroy"])
@pytest.mark.anyio
async def test_reason_of_an_abort(end: str, make: Maker, hold: Hold) -> None:
    buffer = make.mappable(name="aborted one")
    async with anyio.create_task_group() as group:
        task = await start_map(group, buffer)
        getattr(buffer, end)()
    assert "'aborted one'" in str(task.error)
    reasons = {"unmap": "unmapped; map again", "destroy": "destroyed; create a new one"}
    assert str(task.error).endswith(reasons[end])


@pytest.mark.anyio
async def test_map_again_at_once_after_an_abort(make: Maker, hold: Hold) -> None:
    """[RetryInErrorCallback] The second map is another one."""
    buffer = make.mappable()
    async with anyio.create_task_group() as group:
        first = await start_map(group, buffer)
        buffer.unmap()
        second = await start_map(group, buffer)
        hold.release()
    assert type(first.error) is MapAbortedError
    assert second.mapped is buffer.mapped_data


@pytest.mark.parametrize("end", ["close", "drop"])
@pytest.mark.anyio
async def test_device_closed_while_pending(end: str, fresh_device: IRenderDevice) -> None:
    """[DestroyDeviceWhilePending]"""
    with Hold(fresh_device), Maker(fresh_device) as make:
        buffer = make.mappable(name="left behind")
        async with anyio.create_task_group() as group:
            task = await start_map(group, buffer)
            fresh_device.close()
        assert type(task.error) is MapAbortedError
        assert "'left behind'" in str(task.error)
        assert buffer.state is DESTROYED


@pytest.mark.anyio
async def test_device_closed_while_mapped(fresh_device: IRenderDevice) -> None:
    """[DestroyDeviceAfterMapping]"""
    with Maker(fresh_device) as make:
        buffer = make.mappable(mapped=True)
        mapped = buffer.mapped_data
        fresh_device.close()
        assert buffer.state is DESTROYED
        with pytest.raises(DeviceLostError, match="closed"):
            mapped.as_array()
        with pytest.raises(DeviceLostError, match="closed"):
            buffer.mapped_data  # noqa: B018
        buffer.unmap()
        buffer.destroy()
        assert buffer.state is DESTROYED


@pytest.mark.anyio
async def test_calls_on_a_closed_device(fresh_device: IRenderDevice) -> None:
    with Maker(fresh_device) as make:
        buffer = make.mappable(name="late")
        fresh_device.close()
        for call in (buffer.map, buffer.mapped_range, lambda: buffer.mapped_data):
            with pytest.raises(DeviceLostError, match="'late'"):
                call()
        with pytest.raises(DeviceLostError, match="'late'"):
            await buffer.map_async()


# --- Use by the GPU -------------------------------------------------------------------------------


def test_state_at_submit_counts(device: IRenderDevice, make: Maker) -> None:
    """[map_command_recording_order] Recorded while mapped, submitted after: fine."""
    source = make.mappable(mapped=True)
    target = make.plain()
    encoder = device.create_command_encoder()
    encoder.copy_buffer_to_buffer(source, 0, target, 0)
    commands = encoder.finish()
    source.mapped_data.write(np.arange(16, dtype=np.uint32))
    source.unmap()
    device.queue.submit([commands])
    assert contents(device, target).view(np.uint32).tolist() == list(range(16))


@pytest.mark.anyio
async def test_map_resolves_after_the_work_that_uses_the_buffer(
    device: IRenderDevice, make: Maker
) -> None:
    source = make.filled(np.arange(16, dtype=np.uint32))
    target = make.mappable(64, USAGE_FOR[MapMode.READ])
    encoder = device.create_command_encoder()
    encoder.copy_buffer_to_buffer(source, 0, target, 0)
    submission = device.queue.submit([encoder.finish()])
    mapped = await target.map_async(MapMode.READ)
    assert mapped.as_array(np.uint32).tolist() == list(range(16))
    submission.wait(10)  # it is over, though another thread may still be about to say so


@pytest.mark.parametrize("usage", list(BufferUsage), ids=lambda usage: usage.name)
def test_unmap_and_destroy_for_every_usage(
    usage: BufferUsage, device: IRenderDevice, make: Maker
) -> None:
    """[destroy: all_usages · unmap,state,mappedAtCreation]"""
    buffer: IMappableBuffer = make.mappable(16, usage, mapped=True)
    assert buffer.state is MAPPED
    buffer.unmap()
    assert buffer.state is READY
    with buffer:
        pass
    assert buffer.state is DESTROYED
    buffer.destroy()
    if not usage & (BufferUsage.MAP_READ | BufferUsage.MAP_WRITE):
        plain = make.plain(16, usage)
        for _ in range(2):
            plain.destroy()
            assert plain.state is DESTROYED


def test_destroy_while_in_flight(device: IRenderDevice, make: Maker) -> None:
    """The work that was submitted with the buffer still ends, and right."""
    source, target = make.filled(np.arange(16, dtype=np.uint32)), make.plain()
    encoder = device.create_command_encoder()
    encoder.copy_buffer_to_buffer(source, 0, target, 0)
    device.queue.submit([encoder.finish()])
    source.destroy()
    assert contents(device, target).view(np.uint32).tolist() == list(range(16))


def test_mapped_range_is_one_object(make: Maker) -> None:
    buffer = make.mappable(mapped=True)
    assert buffer.mapped_data is buffer.mapped_data
    assert isinstance(buffer.mapped_data, MappedRange)


def test_context_manager_destroys(make: Maker) -> None:
    with make.mappable(64, COPY, mapped=True) as buffer:
        assert buffer.is_valid
    assert buffer.state is DESTROYED
    with pytest.raises(ZeroDivisionError), make.plain() as plain:
        raise ZeroDivisionError
    assert plain.state is DESTROYED
