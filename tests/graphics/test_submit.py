"""Encoders, submits, submissions and queue writes.

The names in brackets are those of WebGPU's conformance suite (validation/queue,
operation/queue, operation/onSubmittedWorkDone).
"""

from __future__ import annotations

import gc
import threading
from typing import Any

import anyio
import anyio.lowlevel
import numpy as np
import pytest

from pers import (
    BufferRangeError,
    BufferState,
    BufferStateError,
    BufferUsage,
    BufferUsageError,
    DeviceLostError,
    IBuffer,
    ICommandBuffer,
    IRenderDevice,
    MapMode,
    Submission,
    TexelCopyTextureInfo,
    TextureFormat,
    TextureUsage,
    ValidationError,
    WaitTimeoutError,
)
from pers.backends.null import NullClock, NullDevice
from tests.support import (
    COPY,
    JUNK_NUMBERS,
    READBACK,
    UPLOAD,
    Hold,
    Maker,
    contents,
    copied,
    make_texture,
    numbers,
    open_device,
    random_pixels,
)


def clear(device: IRenderDevice, buffer: IBuffer, label: str = "clear") -> ICommandBuffer:
    encoder = device.create_command_encoder(label)
    encoder.clear_buffer(buffer)
    return encoder.finish()


# --- Encoders -------------------------------------------------------------------------------------


def test_empty_encoder(device: IRenderDevice) -> None:
    """[basic: empty]"""
    commands = device.create_command_encoder("nothing").finish()
    assert commands.label == "nothing"
    assert repr(commands) == "<CommandBuffer 'nothing'>"
    device.queue.submit([commands]).wait()
    assert "submitted" in repr(commands)


def test_after_finish(device: IRenderDevice, make: Maker) -> None:
    encoder = device.create_command_encoder("old")
    encoder.finish()
    frame = device.create_frame_buffer(4, 4)
    for call in (
        encoder.finish,
        lambda: encoder.clear_buffer(make.plain()),
        lambda: encoder.copy_buffer_to_buffer(make.plain(), 0, make.plain(), 0),
        lambda: encoder.begin_render_pass(frame),
        encoder.begin_compute_pass,
        lambda: encoder.copy_texture_to_texture(make_texture(device), make_texture(device)),
    ):
        with pytest.raises(ValidationError, match="'old'.*after finish; create a new encoder"):
            call()


@pytest.mark.parametrize("kind", ["render", "compute"])
def test_while_a_pass_is_open(kind: str, device: IRenderDevice, make: Maker) -> None:
    encoder = device.create_command_encoder("busy")
    frame = device.create_frame_buffer(4, 4)
    if kind == "render":
        open_pass: Any = encoder.begin_render_pass(frame, label="first")
    else:
        open_pass = encoder.begin_compute_pass(label="first")
    for call in (
        encoder.finish,
        lambda: encoder.clear_buffer(make.plain()),
        lambda: encoder.begin_render_pass(frame),
        encoder.begin_compute_pass,
    ):
        with pytest.raises(ValidationError, match=f"{kind} pass 'first' is open") as caught:
            call()
        assert "test_submit.py" in str(caught.value)  # where it was begun
    open_pass.end()
    encoder.clear_buffer(make.plain())
    encoder.finish()


def test_pass_ends_with_its_block(device: IRenderDevice) -> None:
    encoder = device.create_command_encoder()
    frame = device.create_frame_buffer(4, 4)
    with pytest.raises(ZeroDivisionError), encoder.begin_render_pass(frame):
        raise ZeroDivisionError
    with encoder.begin_compute_pass() as compute_pass:
        compute_pass.end()
    device.queue.submit([encoder.finish()]).wait()


def test_refused_command_changes_nothing(device: IRenderDevice, make: Maker) -> None:
    """An encoder goes on after a mistake, without the command."""
    source, target = make.filled(numbers(4)), make.plain(16)
    encoder = device.create_command_encoder()
    encoder.copy_buffer_to_buffer(source, 0, target, 0, 8)
    with pytest.raises(BufferRangeError):
        encoder.copy_buffer_to_buffer(source, 0, target, 0, 100)
    encoder.copy_buffer_to_buffer(source, 0, target, 8, 4)
    device.queue.submit([encoder.finish()])
    assert contents(device, target).view(np.uint32).tolist() == [1, 2, 1, 0]


@pytest.mark.parametrize("kind", ["encoder", "render pass", "compute pass", "commands", "bundle"])
def test_dropped_halfway(kind: str, device: IRenderDevice, make: Maker) -> None:
    """What is not submitted is forgotten, in any order of dropping."""
    buffer = make.plain()
    encoder: Any = device.create_command_encoder()
    encoder.clear_buffer(buffer)
    frame = device.create_frame_buffer(4, 4)
    kept: Any = None
    if kind == "render pass":
        kept = encoder.begin_render_pass(frame)
    elif kind == "compute pass":
        kept = encoder.begin_compute_pass()
    elif kind == "commands":
        kept = encoder.finish()
    elif kind == "bundle":
        kept = device.create_render_bundle_encoder([TextureFormat.RGBA8_UNORM])
    del encoder
    gc.collect()
    del kept
    gc.collect()
    device.queue.submit([]).wait()
    assert buffer.state is BufferState.READY


def test_pass_outlives_its_encoder(device: IRenderDevice) -> None:
    render_pass = device.create_command_encoder().begin_render_pass(
        device.create_frame_buffer(4, 4)
    )
    gc.collect()
    render_pass.set_scissor_rect(0, 0, 1, 1)
    render_pass.end()


# --- What is submitted ----------------------------------------------------------------------------


def test_several_in_order(device: IRenderDevice, make: Maker) -> None:
    one, two, three = make.filled(numbers(4)), make.plain(16), make.plain(16)
    commands = [copied(device, one, two), copied(device, two, three), clear(device, two)]
    device.queue.submit(commands)
    assert contents(device, two).tolist() == [0] * 16
    assert contents(device, three).view(np.uint32).tolist() == [1, 2, 3, 4]


def test_any_sequence(device: IRenderDevice, make: Maker) -> None:
    buffer = make.filled(numbers(4))
    commands = (clear(device, buffer),)
    device.queue.submit(commands)
    device.queue.submit(iter([clear(device, buffer)]))  # type: ignore[arg-type]
    assert not contents(device, buffer).any()


@pytest.mark.parametrize("junk", [None, 5, "text", object(), [None], [5], ["text"]])
def test_what_is_no_command_buffer(junk: Any, device: IRenderDevice) -> None:
    with pytest.raises(ValidationError, match="submit takes"):
        device.queue.submit(junk)


def test_one_without_a_list(device: IRenderDevice, make: Maker) -> None:
    commands = clear(device, make.plain())
    with pytest.raises(ValidationError, match="submit takes a sequence"):
        device.queue.submit(commands)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="from finish"):
        device.queue.submit([device.create_command_encoder()])  # type: ignore[list-item]
    device.queue.submit([commands])


def test_duplicate_buffers(device: IRenderDevice, make: Maker) -> None:
    """[submit: duplicate_buffers]"""
    buffer = make.filled(numbers(4))
    commands = clear(device, buffer)
    with pytest.raises(ValidationError, match="comes twice"):
        device.queue.submit([commands, commands])
    assert contents(device, buffer).any()


def test_submit_invalidates(device: IRenderDevice, make: Maker) -> None:
    """[submit: submit_invalidates]"""
    commands = clear(device, make.plain(), "used up")
    device.queue.submit([commands])
    for others in ([], [clear(device, make.plain())]):
        with pytest.raises(
            ValidationError, match="'used up' was submitted before; record it again"
        ):
            device.queue.submit([*others, commands])


def test_refused_submit_submits_nothing(device: IRenderDevice, make: Maker) -> None:
    """The others of the list are not submitted either; all may be, when the cause is gone."""
    good, bad = make.filled(numbers(4)), make.mappable(64, READBACK, "bad")
    commands = [clear(device, good), clear(device, bad)]
    bad.map(MapMode.READ)
    for order in (commands, commands[::-1]):
        with pytest.raises(BufferStateError, match="'bad' is mapped; unmap it"):
            device.queue.submit(order)
    assert contents(device, good).any()
    bad.unmap()
    device.queue.submit(commands)
    assert not contents(device, good).any()


def test_commands_of_another_device(backend: str, device: IRenderDevice) -> None:
    with open_device(backend) as other:
        foreign = clear(other, Maker(other).plain(), "foreign")
        with pytest.raises(ValidationError, match="'foreign' belongs to another device"):
            device.queue.submit([foreign])
        other.queue.submit([foreign])


@pytest.mark.parametrize("role", ["source", "target", "cleared", "to texture", "from texture"])
@pytest.mark.parametrize("state", ["mapped", "destroyed"])
def test_buffer_mapped_or_destroyed(
    role: str, state: str, device: IRenderDevice, make: Maker
) -> None:
    """[buffer_mapped · destroyed/buffer] In every kind of copy, checked at the submit."""
    subject = make.mappable(4096, UPLOAD if role in ("source", "to texture") else READBACK, "it")
    encoder = device.create_command_encoder("uses it")
    if role == "source":
        encoder.copy_buffer_to_buffer(subject, 0, make.plain(4096), 0)
    elif role == "target":
        encoder.copy_buffer_to_buffer(make.plain(4096), 0, subject, 0)
    elif role == "cleared":
        encoder.clear_buffer(subject)
    elif role == "to texture":
        encoder.copy_buffer_to_texture(subject, make_texture(device))
    else:
        encoder.copy_texture_to_buffer(make_texture(device), subject)
    commands = encoder.finish()
    if state == "destroyed":
        subject.destroy()
    else:
        subject.map(MapMode.WRITE if subject.usage & BufferUsage.MAP_WRITE else MapMode.READ)
    with pytest.raises(BufferStateError, match=f"'uses it': buffer 'it' is {state}"):
        device.queue.submit([commands])


@pytest.mark.parametrize("when", ["before finish", "after finish"])
def test_texture_destroyed(when: str, device: IRenderDevice) -> None:
    texture = make_texture(device)
    encoder = device.create_command_encoder("late")
    encoder.copy_texture_to_texture(texture, make_texture(device))
    if when == "before finish":
        texture.destroy()
    commands = encoder.finish()
    texture.destroy()
    with pytest.raises(ValidationError, match="'late': texture 'picture' was destroyed"):
        device.queue.submit([commands])


def test_objects_dropped_after_recording(device: IRenderDevice) -> None:
    """Commands keep alive what they use."""
    target = Maker(device).plain()
    make = Maker(device)
    commands = copied(device, make.filled(numbers(16)), target)
    del make
    gc.collect()
    device.queue.submit([commands])
    assert contents(device, target).view(np.uint32).tolist() == [*numbers(16)]


def test_closed(fresh_device: IRenderDevice) -> None:
    commands = clear(fresh_device, Maker(fresh_device).plain())
    queue = fresh_device.queue
    fresh_device.close()
    for call in (
        lambda: queue.submit([commands]),
        lambda: queue.submit([]),
        queue.on_work_done,
        fresh_device.create_command_encoder,
    ):
        with pytest.raises(DeviceLostError, match="open a new device"):
            call()


def test_encoder_of_a_closed_device(fresh_device: IRenderDevice) -> None:
    encoder = fresh_device.create_command_encoder("orphan")
    buffer = Maker(fresh_device).plain()
    fresh_device.close()
    for call in (encoder.finish, lambda: encoder.clear_buffer(buffer), encoder.begin_compute_pass):
        with pytest.raises(DeviceLostError, match="'orphan'"):
            call()


# --- Submissions ----------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_done(device: IRenderDevice, make: Maker) -> None:
    """[onSubmittedWorkDone: with_work]"""
    submission = device.queue.submit([clear(device, make.plain())])
    assert isinstance(submission, Submission)
    await submission.done()
    assert submission.is_done
    await submission.done()
    submission.wait()
    submission.wait(0)


def test_submissions_that_somebody_keeps(device: IRenderDevice, make: Maker) -> None:
    """Each of them ends, whoever else was submitted in between and is kept or not."""
    kept = []
    for number in range(30):
        submission = device.queue.submit([copied(device, make.filled(numbers(4)), make.plain())])
        if number % 3 == 0:
            kept.append(submission)
        if number % 7 == 0:
            assert kept[-1].is_done in (False, True)
        if number % 5 == 0:
            device.queue.write_buffer(make.plain(), 0, bytes(16))
            make.mappable().map()
        del submission
    kept[4].wait(60)
    assert all(submission.is_done for submission in kept[:5])
    kept[-1].wait()
    assert all(submission.is_done for submission in kept)


def test_nobody_is_told_of_what_nobody_keeps(gpu: Any) -> None:
    """The library is not asked to call back at the end of submissions that are not kept."""
    for _ in range(5):
        gpu.queue.submit([])
    kept = gpu.queue.submit([])
    assert not gpu.native._in_flight
    gpu.queue.submit([])
    kept.wait(60)
    assert kept.is_done


@pytest.mark.anyio
async def test_work_done_without_work(device: IRenderDevice) -> None:
    """[without_work · many,serial]"""
    for _ in range(5):
        await device.queue.on_work_done().done()
        device.queue.on_work_done().wait()


@pytest.mark.anyio
async def test_work_done_in_parallel(device: IRenderDevice, make: Maker) -> None:
    """[many,parallel · many,parallel_order] They end in the order of the calls."""
    ended: list[int] = []
    submissions = []
    for _ in range(8):
        submissions.append(device.queue.submit([clear(device, make.plain())]))
        submissions.append(device.queue.on_work_done())
    for index, submission in enumerate(submissions):
        core: Any = submission
        core._completion.add_callback(lambda index=index: ended.append(index))
    async with anyio.create_task_group() as group:
        for submission in submissions[::-1]:
            group.start_soon(submission.done)
    assert ended == list(range(16))


def test_serials_count_up(device: IRenderDevice) -> None:
    serials = [device.queue.submit([]).serial for _ in range(3)]
    assert serials == list(range(serials[0], serials[0] + 3))


def test_wait_with_a_timeout() -> None:
    with NullDevice(clock=NullClock(auto=False)) as device:
        submission = device.queue.submit([])
        for timeout in (0, 0.001, -1):
            with pytest.raises(WaitTimeoutError, match=r"submission 1 was not done.*it goes on"):
                submission.wait(timeout)
        assert not submission.is_done
        assert repr(submission) == "<Submission 1>"
        device.clock.advance(0)
        submission.wait(0)
        assert repr(submission) == "<Submission 1: done>"


def test_wait_with_a_timeout_on_webgpu(device: IRenderDevice) -> None:
    with Hold(device) as hold:
        submission = device.queue.on_work_done()
        with pytest.raises(WaitTimeoutError) as caught:
            submission.wait(0.001)
        assert isinstance(caught.value, TimeoutError)
        hold.release()
    submission.wait(60)


@pytest.mark.anyio
async def test_cancelled_wait(device: IRenderDevice, make: Maker) -> None:
    """Cancelling ends the waiting, not the work."""
    buffer = make.filled(numbers(4))
    with Hold(device):
        submission = device.queue.submit([clear(device, buffer)])
        with anyio.move_on_after(0.01) as scope:
            await submission.done()
        assert scope.cancelled_caught
    await submission.done()
    assert not contents(device, buffer).any()


def test_wait_on_another_thread(device: IRenderDevice) -> None:
    submissions = [device.queue.on_work_done() for _ in range(4)]
    threads = [threading.Thread(target=submission.wait) for submission in submissions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(submission.is_done for submission in submissions)


@pytest.mark.anyio
async def test_lost_while_waiting(fresh_device: IRenderDevice) -> None:
    errors: list[Exception] = []

    async def wait() -> None:
        try:
            await submission.done()
        except DeviceLostError as error:
            errors.append(error)

    with Hold(fresh_device):
        submission = fresh_device.queue.on_work_done()
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            fresh_device.close()
    assert len(errors) == 1
    assert submission.is_done
    with pytest.raises(DeviceLostError):
        submission.wait()


@pytest.mark.anyio
async def test_map_settles_before_work_done_asked_for_later(
    device: IRenderDevice, make: Maker
) -> None:
    """[order] A map issued before "work done" was asked for settles first."""
    target = make.mappable(64, READBACK)
    order: list[str] = []
    device.queue.submit([copied(device, make.filled(numbers(16)), target)])

    async def mapped() -> None:
        await target.map_async(MapMode.READ)
        order.append("map")

    async def done() -> None:
        await submission.done()
        order.append("done")

    with Hold(device) as hold:
        async with anyio.create_task_group() as group:
            group.start_soon(mapped)
            while not target.is_map_pending:
                await anyio.lowlevel.checkpoint()
            submission = device.queue.on_work_done()
            group.start_soon(done)
            await anyio.wait_all_tasks_blocked()
            hold.release()
    assert order == ["map", "done"]


# --- Queue writes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "?", ">u4"]
)
def test_write_array_types(dtype: str, device: IRenderDevice, make: Maker) -> None:
    """[writeBuffer: array_types]"""
    data = np.arange(8).astype(dtype)
    buffer = make.plain(64)
    device.queue.write_buffer(buffer, 0, data)
    assert contents(device, buffer)[: data.nbytes].tobytes() == data.tobytes()


def test_writes_at_different_offsets_and_sizes(device: IRenderDevice, make: Maker) -> None:
    """[multiple_writes_at_different_offsets_and_sizes · SetTwice · ManyWriteBuffer]"""
    buffer, expected = make.plain(64), np.zeros(16, np.uint32)
    random = np.random.default_rng(4)
    for value in range(1, 50):
        start, end = sorted(random.integers(0, 17, 2))
        device.queue.write_buffer(buffer, 4 * int(start), np.full(end - start, value, np.uint32))
        expected[start:end] = value
    assert contents(device, buffer).view(np.uint32).tolist() == expected.tolist()


def test_write_and_submit_in_order(device: IRenderDevice, make: Maker) -> None:
    buffer, first, second = make.plain(16), make.plain(16), make.plain(16)
    for start, target in ((1, first), (5, second)):
        device.queue.write_buffer(buffer, 0, numbers(4, start))
        device.queue.submit([copied(device, buffer, target)])
    assert contents(device, first).view(np.uint32).tolist() == [1, 2, 3, 4]
    assert contents(device, second).view(np.uint32).tolist() == [5, 6, 7, 8]


def test_large_write(device: IRenderDevice, make: Maker) -> None:
    """[LargeWriteBuffer · SuperLargeWriteBuffer]"""
    data = np.random.default_rng(5).integers(0, 2**32, 1 << 21, np.uint32)
    buffer = make.plain(data.nbytes)
    device.queue.write_buffer(buffer, 0, data)
    assert (contents(device, buffer).view(np.uint32) == data).all()


def test_write_nothing(device: IRenderDevice, make: Maker) -> None:
    """[ZeroSized] Zero bytes, at the end too."""
    buffer = make.filled(numbers(4))
    for offset in (0, 8, 16):
        device.queue.write_buffer(buffer, offset, b"")
    assert contents(device, buffer).view(np.uint32).tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("offset", "size"),
    [(1, 4), (2, 4), (0, 3), (0, 5), (0, 20), (4, 16), (16, 4), (20, 0), (2**62, 4)]
    + [(junk, 4) for junk in JUNK_NUMBERS],
)
def test_write_ranges(offset: Any, size: int, device: IRenderDevice, make: Maker) -> None:
    """[writeBuffer: ranges]"""
    with pytest.raises(BufferRangeError, match="write_buffer to buffer 'thing'"):
        device.queue.write_buffer(make.plain(16), offset, bytes(size))


def test_write_states_and_usages(backend: str, device: IRenderDevice, make: Maker) -> None:
    """[writeBuffer: buffer_state · usages]"""
    queue = device.queue
    for usage in BufferUsage:
        if usage is not BufferUsage.COPY_DST:
            buffer = make.mappable(16, usage, mapped=True)
            buffer.unmap()
            with pytest.raises(BufferUsageError, match="needs COPY_DST"):
                queue.write_buffer(buffer, 0, b"1234")
    mapped = make.mappable(16, READBACK, mapped=True)
    with pytest.raises(BufferStateError, match="is mapped"):
        queue.write_buffer(mapped, 0, b"1234")
    mapped.unmap()
    queue.write_buffer(mapped, 0, b"1234")
    destroyed = make.plain()
    destroyed.destroy()
    with pytest.raises(BufferStateError, match="is destroyed"):
        queue.write_buffer(destroyed, 0, b"1234")
    with open_device(backend) as other, pytest.raises(ValidationError, match="another device"):
        queue.write_buffer(Maker(other).plain(), 0, b"1234")
    for junk in (None, 5, "buffer"):
        with pytest.raises(BufferUsageError, match="takes a pers buffer"):
            queue.write_buffer(junk, 0, b"1234")  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_write_while_pending(device: IRenderDevice, make: Maker) -> None:
    buffer = make.mappable(16, READBACK)
    with Hold(device):
        coroutine = buffer.map_async(MapMode.READ)
        coroutine.send(None)
        with pytest.raises(BufferStateError, match="is map pending"):
            device.queue.write_buffer(buffer, 0, b"1234")
        coroutine.close()


@pytest.mark.parametrize("data", [None, "text", 5, [1], np.array([None]), np.array(["text"])])
def test_write_what_is_no_data(data: Any, device: IRenderDevice, make: Maker) -> None:
    with pytest.raises(BufferUsageError, match="write_buffer to buffer 'thing'"):
        device.queue.write_buffer(make.plain(), 0, data)


def test_writes_when_closed(fresh_device: IRenderDevice) -> None:
    buffer, texture = Maker(fresh_device).plain(), make_texture(fresh_device)
    queue = fresh_device.queue
    fresh_device.close()
    with pytest.raises(DeviceLostError):
        queue.write_buffer(buffer, 0, b"1234")
    with pytest.raises(DeviceLostError):
        queue.write_texture(texture, np.zeros((4, 4, 4), np.uint8))


@pytest.mark.parametrize("shape", [(3, 5, 4), (1, 3, 5, 4), (2, 3, 5, 4), (1, 1, 4), (3, 2, 4)])
def test_write_texture(shape: tuple[int, ...], device: IRenderDevice) -> None:
    """Any part of the texture that starts at the origin."""
    texture = make_texture(device, 5, 3, layers=2)
    pixels = np.random.default_rng(6).integers(0, 256, shape, np.uint8)
    device.queue.write_texture(texture, pixels)
    expected = np.zeros((2, 3, 5, 4), np.uint8)
    layered = pixels if pixels.ndim == 4 else pixels[None]
    expected[: len(layered), : layered.shape[1], : layered.shape[2]] = layered
    assert (device.read_array_blocking(texture) == expected).all()


def test_write_texture_in_places(device: IRenderDevice) -> None:
    texture = make_texture(device, 8, 8, TextureFormat.R16_UINT, layers=2, mip_levels=3)
    part = random_pixels(texture.format, 2, 3)
    device.queue.write_texture(TexelCopyTextureInfo(texture, 1, (1, 2, 1)), part[:, ::-1])
    encoder = device.create_command_encoder()
    flat = make_texture(device, 4, 4, TextureFormat.R16_UINT, layers=2)
    encoder.copy_texture_to_texture(TexelCopyTextureInfo(texture, 1), flat)
    device.queue.submit([encoder.finish()])
    expected = np.zeros((2, 4, 4), np.uint16)
    expected[1, 2:4, 1:4] = part[:, ::-1]
    assert (device.read_array_blocking(flat) == expected).all()


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((5, 4, 4), np.uint8), np.zeros((4, 5, 4), np.uint8), np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 4), np.float32), np.zeros((2, 4, 4, 4), "u1"),
        np.zeros((1, 1, 4, 4, 4), np.uint8), np.zeros(64, np.uint8), None, 5, "text", [[1, 2]],
    ],
    ids=lambda p: str(getattr(p, "shape", p)),
)  # fmt: skip
def test_write_pixels_that_do_not_fit(pixels: Any, device: IRenderDevice) -> None:
    with pytest.raises(BufferRangeError):
        device.queue.write_texture(make_texture(device), pixels)


def test_write_texture_states_and_usages(backend: str, device: IRenderDevice) -> None:
    pixels = np.zeros((4, 4, 4), np.uint8)
    with pytest.raises(ValidationError, match="COPY_DST"):
        device.queue.write_texture(make_texture(device, usage=TextureUsage.COPY_SRC), pixels)
    destroyed = make_texture(device)
    destroyed.destroy()
    with pytest.raises(ValidationError, match="was destroyed"):
        device.queue.write_texture(destroyed, pixels)
    with open_device(backend) as other, pytest.raises(ValidationError, match="another device"):
        device.queue.write_texture(make_texture(other), pixels)
    for junk in (None, 5, "texture"):
        with pytest.raises(ValidationError):
            device.queue.write_texture(junk, pixels)  # type: ignore[arg-type]


def test_write_no_pixels(device: IRenderDevice) -> None:
    texture = make_texture(device)
    for shape in ((0, 4, 4), (4, 0, 4), (0, 4, 4, 4)):
        device.queue.write_texture(texture, np.zeros(shape, np.uint8))
    assert not device.read_array_blocking(texture).any()


def test_textures_that_cannot_be_written(device: IRenderDevice) -> None:
    """Multisampled textures and depth32float take no copies (WebGPU §6.1, §26.1.2)."""
    both = TextureUsage.RENDER_ATTACHMENT | TextureUsage.COPY_DST | TextureUsage.COPY_SRC
    samples = make_texture(device, usage=both, sample_count=4)
    with pytest.raises(ValidationError):
        device.queue.write_texture(samples, np.zeros((4, 4, 4), np.uint8))
    depth = make_texture(device, 4, 4, TextureFormat.DEPTH32_FLOAT, both)
    with pytest.raises(ValidationError):
        device.queue.write_texture(depth, np.zeros((4, 4), np.float32))
    buffer = Maker(device).plain(4096, COPY)
    for texture in (samples, depth):
        encoder = device.create_command_encoder()
        with pytest.raises(ValidationError):
            encoder.copy_buffer_to_texture(buffer, texture)
            encoder.finish()
    encoder = device.create_command_encoder()
    with pytest.raises(ValidationError):
        encoder.copy_texture_to_buffer(samples, buffer)
        encoder.finish()
