"""`StagingBelt` and `device.upload`: the bytes get there, in order, within the budget."""

from __future__ import annotations

import gc
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import numpy as np
import numpy.typing as npt
import pytest

import pers.buffers.belt as belt_module
from pers import (
    BeltStats,
    BufferRangeError,
    BufferState,
    BufferStateError,
    BufferUsage,
    BufferUsageError,
    DeviceBuffer,
    DeviceLostError,
    IBuffer,
    ImmediateStagingBuffer,
    IRenderDevice,
    MapMode,
    ReadbackBuffer,
    RingFullError,
    StagingBelt,
    Submission,
    TexelCopyTextureInfo,
    TextureFormat,
    TextureUsage,
    ValidationError,
)
from pers.backends.null import NullClock, NullDevice
from pers.backends.webgpu import WebGPUDevice
from pers.buffers.belt_jobs import BufferJob
from pers.buffers.belt_memory import Others
from tests.support import (
    COPY,
    JUNK_NUMBERS,
    READBACK,
    Hold,
    Maker,
    contents,
    copied,
    live,
    make_texture,
    numbers,
    open_device,
    random_pixels,
)

CHUNK = 64 * 1024
LARGE = belt_module.QUEUE_WRITE_LIMIT + CHUNK
"""Bytes that do not go by the queue's own write."""


@pytest.fixture
def manual() -> Iterator[NullDevice]:
    """A null device where submissions stay in flight, and free buffers are mapped at once."""
    with NullDevice(clock=NullClock(auto=False, submission_latency=100, map_latency=0)) as device:
        yield device


def large(value: int = 0) -> npt.NDArray[np.uint32]:
    return np.full(LARGE // 4, value, np.uint32)


def keep_busy(device: IRenderDevice, target: IBuffer) -> None:
    """Have commands recorded that use `target`, so that an upload to it is staged."""
    encoder = device.create_command_encoder("keeps it busy")
    encoder.clear_buffer(target, 0, 0)
    _busy.append(encoder)


_busy: list[Any] = []


@pytest.fixture(autouse=True)
def nothing_busy() -> Iterator[None]:
    """Ends `keep_busy` after every test."""
    yield
    _busy.clear()


def busy_target(device: IRenderDevice, make: Maker, size: int = LARGE) -> IBuffer:
    """Make a target that cannot be written directly."""
    target = make.plain(size)
    keep_busy(device, target)
    return target


# --- The bytes get there --------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 4, 64, 64 * 1024, 1 << 20, (1 << 20) + 4, 3 << 20])
def test_upload(size: int, device: IRenderDevice, make: Maker) -> None:
    data = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    target = make.plain(size + 8)
    before = device.belt.stats
    assert device.belt.upload(data, target, 4) is None
    after = device.belt.stats
    assert after.uploads == before.uploads + 1
    assert after.uploaded == before.uploaded + size
    assert after.queue_writes + after.staged + after.direct == after.uploads
    result = contents(device, target)
    assert (result[4:-4] == data).all()
    assert not result[:4].any()
    assert not result[-4:].any()


@pytest.mark.anyio
async def test_upload_async(device: IRenderDevice, make: Maker) -> None:
    target = make.plain(LARGE)
    await device.belt.upload_async(large(3), target)
    await device.belt.upload_async(numbers(4), target, 16)
    data = contents(device, target).view(np.uint32)
    assert data[:10].tolist() == [3, 3, 3, 3, 1, 2, 3, 4, 3, 3]
    assert (data[8:] == 3).all()


def test_device_upload(device: IRenderDevice, make: Maker) -> None:
    target = make.plain(64)
    device.upload(b"12345678", target, 8)
    assert contents(device, target)[8:16].tobytes() == b"12345678"


@pytest.mark.parametrize("size", [64, LARGE])
def test_data_is_taken_at_the_call(size: int, device: IRenderDevice, make: Maker) -> None:
    data, target = np.full(size, 7, np.uint8), make.plain(size)
    device.upload(data, target)
    data[:] = 0
    assert (contents(device, target) == 7).all()


@pytest.mark.parametrize(
    "data",
    [
        b"12345678", bytearray(b"12345678"), memoryview(b"12345678"), np.arange(2.0),
        np.arange(16, dtype=np.uint8)[::2], np.arange(8, dtype=np.uint8).reshape(2, 4).T,
        np.zeros(2, [("a", "f4"), ("b", "u4")]),
    ],
    ids=lambda data: type(data).__name__,
)  # fmt: skip
def test_any_plain_data(data: Any, device: IRenderDevice, make: Maker) -> None:
    expected = np.ascontiguousarray(data).tobytes()
    target = make.plain(len(expected))
    device.upload(data, target)
    assert contents(device, target).tobytes() == expected


@pytest.mark.parametrize("kind", [np.matrix, np.recarray, np.ma.MaskedArray])
@pytest.mark.parametrize("size", [8, 1024])
def test_kinds_of_arrays(size: int, kind: Any, device: IRenderDevice, make: Maker) -> None:
    """Whatever a subclass makes of its shape or its items, its bytes are uploaded."""
    data = np.arange(size * size, dtype=np.float32).reshape(size, size)
    for target in (make.plain(data.nbytes), busy_target(device, make, data.nbytes)):
        device.upload(data.view(kind), target)
        assert (contents(device, target).view(np.float32) == data.reshape(-1)).all()


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, np.array])
def test_many_small_ones(kind: Any, device: IRenderDevice) -> None:
    """All of them arrive, and all are counted."""
    usage = BufferUsage.COPY_SRC | BufferUsage.COPY_DST
    target = DeviceBuffer(4096, device.buffer_factory, usage=usage)
    before = device.belt.stats
    encoded = DeviceBuffer.from_array(np.full(4096, 255, np.uint8), usage, device.buffer_factory)
    device.queue.submit([copied(device, encoded, target)])  # so that the GPU has it
    for number in range(64):
        piece = np.full(64, number, np.uint8)
        device.belt.upload(
            kind(piece if kind is np.array else piece.tobytes()), target, 64 * number
        )
    device.belt.flush().wait()
    assert (contents(device, target).reshape(64, 64) == np.arange(64)[:, None]).all()
    after = device.belt.stats
    assert after.uploads - before.uploads == 64
    assert after.uploaded - before.uploaded == 4096
    device.belt.upload(kind(np.zeros(0, np.uint8)), target)
    assert contents(device, target)[0] == 0


def test_small_ones_in_many_threads_are_all_counted(device: IRenderDevice) -> None:
    usage = BufferUsage.COPY_SRC | BufferUsage.COPY_DST
    before = device.belt.stats

    def work() -> None:
        mine = DeviceBuffer(64, device.buffer_factory, usage=usage)
        for number in range(200):
            device.belt.upload(np.full(64, number, np.uint8), mine)
        assert (contents(device, mine) == 199).all()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = device.belt.stats
    assert after.uploads - before.uploads == 800
    assert after.queue_writes + after.direct + after.staged == after.uploads


def test_with_an_encoder(device: IRenderDevice, make: Maker) -> None:
    """The copy is where it was recorded, in the order of the encoder."""
    target, between = make.plain(64), make.plain(64)
    encoder = device.create_command_encoder()
    assert device.belt.upload(numbers(16), target, encoder=encoder) is None
    encoder.copy_buffer_to_buffer(target, 0, between, 0)
    device.belt.upload(numbers(16, 50), target, encoder=encoder)
    commands = encoder.finish()
    device.queue.on_work_done().wait()
    assert not contents(device, target).any()  # nothing happens before the submit
    device.queue.submit([commands])
    assert contents(device, between).view(np.uint32).tolist() == [*numbers(16)]
    assert contents(device, target).view(np.uint32).tolist() == [*numbers(16, 50)]


def test_flush(device: IRenderDevice, make: Maker) -> None:
    target = make.plain(LARGE)
    device.belt.upload(large(5), target)
    submission = device.belt.flush()
    assert isinstance(submission, Submission)
    submission.wait()
    assert submission.is_done
    assert (contents(device, target).view(np.uint32) == 5).all()
    assert isinstance(device.belt.flush(), Submission)


def test_flush_includes_queue_writes(manual: NullDevice) -> None:
    target = Maker(manual).plain(64)
    manual.upload(numbers(16), target)
    submission = manual.belt.flush()
    assert not submission.is_done
    manual.clock.advance(100)
    assert submission.is_done
    assert target.native_handle.memory.view(np.uint32).tolist() == [*numbers(16)]


def test_seen_by_whatever_is_submitted_later(device: IRenderDevice, make: Maker) -> None:
    """The device's queue flushes the device's belt before it submits."""
    target, copy = make.plain(LARGE), make.plain(LARGE)
    commands = copied(device, target, copy)
    device.upload(large(9), target)
    device.queue.submit([commands])
    assert (contents(device, copy).view(np.uint32) == 9).all()


# --- In order, whichever road ---------------------------------------------------------------------


def by_belt_small(device: IRenderDevice, target: IBuffer, value: int) -> int:
    device.upload(np.full(16, value, np.uint32), target)
    return 64


def by_belt_large(device: IRenderDevice, target: IBuffer, value: int) -> int:
    device.upload(large(value), target)
    return LARGE


def by_belt_encoder(device: IRenderDevice, target: IBuffer, value: int) -> int:
    encoder = device.create_command_encoder()
    device.belt.upload(np.full(16, value, np.uint32), target, encoder=encoder)
    device.queue.submit([encoder.finish()])
    return 64


def by_queue(device: IRenderDevice, target: IBuffer, value: int) -> int:
    device.queue.write_buffer(target, 0, np.full(16, value, np.uint32))
    return 64


def by_queue_large(device: IRenderDevice, target: IBuffer, value: int) -> int:
    device.queue.write_buffer(target, 0, large(value))
    return LARGE


def by_staging(device: IRenderDevice, target: IBuffer, value: int) -> int:
    staging = ImmediateStagingBuffer(64, device.buffer_factory)
    staging.write(np.full(16, value, np.uint32))
    encoder = device.create_command_encoder()
    staging.upload_to(encoder, target)
    device.queue.submit([encoder.finish()])
    return 64


ROADS = [by_belt_small, by_belt_large, by_belt_encoder, by_queue, by_queue_large, by_staging]
Road = Callable[[IRenderDevice, IBuffer, int], int]


@pytest.mark.parametrize("second", ROADS, ids=lambda road: road.__name__)
@pytest.mark.parametrize("first", ROADS, ids=lambda road: road.__name__)
def test_the_last_one_wins(first: Road, second: Road, device: IRenderDevice, make: Maker) -> None:
    target = make.plain(LARGE)
    expected = np.zeros(LARGE, np.uint8).view(np.uint32)
    for value, road in ((1, first), (2, second), (3, first)):
        expected[: road(device, target, value) // 4] = value
    assert (contents(device, target).view(np.uint32) == expected).all()


@pytest.mark.parametrize("second", ROADS, ids=lambda road: road.__name__)
def test_the_last_one_wins_over_another_belt(
    second: Road, device: IRenderDevice, make: Maker
) -> None:
    """Every submit takes what any belt of the device holds back, also one that nobody keeps."""
    target = busy_target(device, make)
    StagingBelt(device).upload(large(1), target)
    expected = large(1)
    expected[: second(device, target, 2) // 4] = 2
    assert (contents(device, target).view(np.uint32) == expected).all()


def test_uploads_of_several_belts_go_with_one_submit(device: IRenderDevice, make: Maker) -> None:
    belts = [device.belt, StagingBelt(device), StagingBelt(device)]
    targets = [busy_target(device, make) for _ in belts]
    for value, (belt, target) in enumerate(zip(belts, targets, strict=True)):
        assert belt.upload(large(value), target) is None
        assert belt.stats.pending == LARGE
    submission = device.queue.submit([])
    for value, (belt, target) in enumerate(zip(belts, targets, strict=True)):
        assert belt.stats.pending == 0
        assert belt.flush() is submission
        assert (contents(device, target).view(np.uint32) == value).all()


@pytest.mark.parametrize("roads", list(itertools.product("qu", repeat=3)), ids="".join)
def test_the_last_picture_wins(roads: tuple[str, ...], device: IRenderDevice) -> None:
    """q: the queue's write, u: an upload that is too large for that."""
    texture = make_texture(device, 520, 520)
    for value, road in enumerate(roads, 1):
        pixels = np.full((520, 520, 4), value, np.uint8)
        device.queue.write_texture(texture, pixels) if road == "q" else device.upload(
            pixels, texture
        )
    assert (device.read_array_blocking(texture) == 3).all()


def test_map_sees_the_upload(device: IRenderDevice, make: Maker) -> None:
    """A map comes after what was uploaded before it, whichever way that went."""
    for data in (numbers(16), large(7)):
        target = make.mappable(data.nbytes, READBACK)
        device.upload(data, target)
        assert (target.map(MapMode.READ).as_array(np.uint32) == data).all()


# --- Targets that go ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [64, LARGE])
def test_target_destroyed_after_the_upload(size: int, device: IRenderDevice, make: Maker) -> None:
    """Destroying is always legal, and takes nothing from the uploads to others."""
    for belt in (device.belt, StagingBelt(device)):
        doomed, other = busy_target(device, make, size), busy_target(device, make, size)
        data = np.full(size, 7, np.uint8)
        belt.upload(data, doomed)
        belt.upload(data, other)
        doomed.destroy()
        belt.flush()
        assert (contents(device, other) == 7).all()
        assert doomed.state is BufferState.DESTROYED


def test_texture_destroyed_after_the_upload(device: IRenderDevice, make: Maker) -> None:
    texture, other = make_texture(device, 520, 520), make.plain(LARGE)
    device.upload(np.full((520, 520, 4), 7, np.uint8), texture)
    device.upload(large(7), other)
    texture.destroy()
    device.queue.submit([])
    assert (contents(device, other).view(np.uint32) == 7).all()


def test_target_dropped_after_the_upload(device: IRenderDevice, make: Maker) -> None:
    for _ in range(4):
        with Maker(device) as other:
            device.upload(large(7), other.plain(LARGE))
    target = make.plain(LARGE)
    device.upload(large(8), target)
    gc.collect()
    assert (contents(device, target).view(np.uint32) == 8).all()


# --- Pictures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texture_format", "width", "height", "layers"),
    [
        (TextureFormat.RGBA8_UNORM, 5, 3, 1),
        (TextureFormat.R8_UNORM, 257, 3, 2),
        (TextureFormat.RGBA8_UNORM_SRGB, 601, 550, 1),
        (TextureFormat.RGBA32_FLOAT, 165, 170, 5),
        (TextureFormat.R16_FLOAT, 1023, 200, 1),
    ],
)
@pytest.mark.parametrize("with_encoder", [False, True], ids=["", "encoder"])
def test_pictures(
    texture_format: TextureFormat, width: int, height: int, layers: int, with_encoder: bool,
    device: IRenderDevice,
) -> None:  # fmt: skip
    texture = make_texture(device, width, height, texture_format, layers=layers)
    pixels = random_pixels(texture_format, height, width, layers)
    if with_encoder:
        encoder = device.create_command_encoder()
        device.belt.upload(pixels, texture, encoder=encoder)
        device.queue.submit([encoder.finish()])
    else:
        device.belt.upload(pixels, texture)
    assert (device.read_array_blocking(texture) == pixels).all()


def test_pictures_that_do_not_fit(device: IRenderDevice) -> None:
    texture = make_texture(device, 4, 4)
    for pixels in (
        np.zeros((4, 5, 4), np.uint8), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), "f4"),
        None, "text", 5, [[1]],
    ):  # fmt: skip
        with pytest.raises(BufferRangeError, match="4x4 rgba8unorm"):
            device.upload(pixels, texture)
    with pytest.raises(ValidationError, match="COPY_DST"):
        device.upload(
            np.zeros((4, 4, 4), np.uint8), make_texture(device, usage=TextureUsage.COPY_SRC)
        )


@pytest.mark.parametrize("way", ["queue", "encoder", "parts"])
def test_parts_of_pictures(way: str, device: IRenderDevice) -> None:
    """To a place of a layer of a level; all around it stays as it was."""
    texture = make_texture(device, 700, 600, layers=3, mip_levels=2)
    level = TexelCopyTextureInfo(texture, 1)
    expected = np.zeros((3, 300, 350, 4), np.uint8)
    belt = StagingBelt(device, budget=64 * 1024) if way == "parts" else device.belt
    for x, y, layer, layers, height, width in (
        (0, 0, 0, 3, 300, 350), (7, 9, 1, 2, 5, 3), (20, 3, 2, 1, 290, 300), (349, 299, 0, 1, 1, 1),
    ):  # fmt: skip
        pixels = random_pixels(TextureFormat.RGBA8_UNORM, height, width, layers)
        target = TexelCopyTextureInfo(texture, 1, (x, y, layer))
        if way == "encoder":
            encoder = device.create_command_encoder()
            belt.upload(pixels, target, encoder=encoder)
            device.queue.submit([encoder.finish()])
        else:
            belt.upload(pixels, target)
            belt.flush()
        expected[layer : layer + layers, y : y + height, x : x + width] = pixels
        assert (device.read_array_blocking(level) == expected).all()
        part = device.read_array_blocking(target)
        assert (part == np.squeeze(expected[layer:, y:, x:], 0 if layer == 2 else ())).all()
    assert not device.read_array_blocking(texture).any()


def test_pictures_with_an_axis_for_one_layer_or_none(device: IRenderDevice) -> None:
    texture = make_texture(device, 4, 4, layers=2)
    second = TexelCopyTextureInfo(texture, 0, (0, 0, 1))
    device.upload(np.full((1, 4, 4, 4), 9, np.uint8), second)
    for nothing in ((0, 4, 4, 4), (1, 0, 4, 4), (4, 0, 4), (2, 0, 0, 4)):
        device.upload(np.zeros(nothing, np.uint8), TexelCopyTextureInfo(texture))
        encoder = device.create_command_encoder()
        device.belt.upload(
            np.zeros(nothing, np.uint8), TexelCopyTextureInfo(texture), encoder=encoder
        )
        device.queue.submit([encoder.finish()])
    assert (device.read_array_blocking(second) == 9).all()
    assert not device.read_array_blocking(texture)[0].any()


def test_parts_of_pictures_that_do_not_fit(device: IRenderDevice) -> None:
    texture = make_texture(device, 8, 8, layers=2, mip_levels=2)
    encoder = device.create_command_encoder()
    for pixels, place in (
        ((8, 9, 4), TexelCopyTextureInfo(texture)),
        ((5, 4, 4), TexelCopyTextureInfo(texture, 1)),
        ((4, 4, 4), TexelCopyTextureInfo(texture, 0, (5, 0, 0))),
        ((4, 4, 4), TexelCopyTextureInfo(texture, 0, (0, 0, 2))),
        ((3, 4, 4, 4), TexelCopyTextureInfo(texture)),
        ((4, 4, 4), TexelCopyTextureInfo(texture, 2)),
        ((4, 4), TexelCopyTextureInfo(texture)),
        ((4, 4, 3), TexelCopyTextureInfo(texture)),
    ):
        for options in ({}, {"encoder": encoder}):
            with pytest.raises((BufferRangeError, ValidationError)):
                device.belt.upload(np.zeros(pixels, np.uint8), place, **options)
    with pytest.raises(ValidationError, match="mip"):
        device.read_array_blocking(TexelCopyTextureInfo(texture, 2))


# --- Mistakes -------------------------------------------------------------------------------------


def ways(belt: StagingBelt) -> list[Callable[..., Any]]:
    return [belt.upload, belt.try_upload]


@pytest.mark.parametrize("target", [None, 5, "target", object()])
def test_targets_that_are_none(target: Any, device: IRenderDevice) -> None:
    for upload in ways(device.belt):
        with pytest.raises(ValidationError):
            upload(b"1234", target)


@pytest.mark.parametrize("data", [None, "text", 5, [1, 2], np.array([None]), np.array(["text"])])
def test_data_that_is_none(data: Any, device: IRenderDevice, make: Maker) -> None:
    for upload in ways(device.belt):
        with pytest.raises(BufferUsageError, match="upload to buffer 'thing'"):
            upload(data, make.plain())


@pytest.mark.parametrize("offset", [1, 2, 64, 2**40, *JUNK_NUMBERS])
def test_offsets_that_are_none(offset: Any, device: IRenderDevice, make: Maker) -> None:
    for upload in ways(device.belt):
        with pytest.raises(BufferRangeError, match="upload to buffer 'thing'"):
            upload(b"1234", make.plain(), offset)


@pytest.mark.parametrize("offset", [4, 64, *JUNK_NUMBERS])
def test_offsets_into_textures(offset: Any, device: IRenderDevice, make: Maker) -> None:
    """They were passed over, and the pixels went to the start."""
    texture, encoder = make_texture(device), device.create_command_encoder()
    pixels = np.zeros((4, 4, 4), np.uint8)
    staging = ImmediateStagingBuffer(1024, device.buffer_factory)
    readback = ReadbackBuffer(1024, device.buffer_factory)
    for upload in ways(device.belt):
        with pytest.raises(BufferRangeError, match="upload to texture 'picture': offset"):
            upload(pixels, texture, offset)
    with pytest.raises(BufferRangeError, match="upload_to: target_offset"):
        staging.upload_to(encoder, texture, offset)
    with pytest.raises(BufferRangeError, match="copy_from: source_offset"):
        readback.copy_from(encoder, texture, offset)


@pytest.mark.parametrize("size", [1, 2, 3, 63, 68, LARGE])
def test_sizes_that_do_not_fit(size: int, device: IRenderDevice, make: Maker) -> None:
    with pytest.raises(BufferRangeError, match="upload to buffer 'thing'"):
        device.upload(bytes(size), make.plain())


def test_states_and_usages(device: IRenderDevice, make: Maker) -> None:
    with pytest.raises(BufferUsageError, match="without COPY_DST"):
        device.upload(b"1234", make.plain(64, BufferUsage.VERTEX))
    mapped = make.mappable(64, READBACK, mapped=True)
    for size in (64, LARGE):
        with pytest.raises(BufferStateError, match="is mapped"):
            device.upload(bytes(64), mapped)
        destroyed = make.plain(size)
        destroyed.destroy()
        with pytest.raises(BufferStateError, match="is destroyed"):
            device.upload(bytes(size), destroyed)


def test_mistakes_leave_the_belt_working(device: IRenderDevice, make: Maker, backend: str) -> None:
    finished = device.create_command_encoder()
    finished.finish()
    capacity = device.belt.stats.capacity
    with open_device(backend) as other:
        foreign = Maker(other).plain(LARGE)
        for data in (b"1234", large()):
            with pytest.raises(ValidationError, match="another device"):
                device.upload(data, foreign)
        for _ in range(3):
            with pytest.raises(ValidationError, match="after finish"):
                device.belt.upload(large(), make.plain(LARGE), encoder=finished)
    assert device.belt.stats.capacity <= max(capacity, LARGE)
    target = make.plain(LARGE)
    device.upload(large(4), target)
    assert (contents(device, target).view(np.uint32) == 4).all()


@pytest.mark.parametrize("budget", [0, 1000, *JUNK_NUMBERS])
def test_budgets_that_are_none(budget: Any, device: IRenderDevice) -> None:
    with pytest.raises(BufferRangeError, match="budget"):
        StagingBelt(device, budget=budget)


def test_closed_device(fresh_device: IRenderDevice) -> None:
    target = Maker(fresh_device).plain(LARGE)
    fresh_device.upload(large(), target)  # and never flushed
    belt = fresh_device.belt
    fresh_device.close()
    for data in (b"1234", large()):
        with pytest.raises((DeviceLostError, BufferStateError)):
            belt.upload(data, target)
    with pytest.raises(DeviceLostError):
        belt.flush()
    assert isinstance(belt.stats, BeltStats)


# --- The budget -----------------------------------------------------------------------------------


def fill_up(device: IRenderDevice, belt: StagingBelt, target: IBuffer, chunks: int) -> Any:
    """Record that many chunks' worth of uploads; return the commands."""
    encoder = device.create_command_encoder()
    for index in range(chunks):
        belt.upload(
            np.full(CHUNK // 4, index + 1, np.uint32), target, CHUNK * index, encoder=encoder
        )
    return encoder.finish()


def test_recorded_but_not_submitted(device: IRenderDevice, make: Maker) -> None:
    belt = StagingBelt(device, budget=2 * CHUNK)
    target = make.plain(3 * CHUNK)
    commands = fill_up(device, belt, target, 2)
    encoder = device.create_command_encoder()
    for upload in ways(belt):
        with pytest.raises(RingFullError, match="submit their encoders, or raise the budget"):
            upload(bytes(CHUNK), target, encoder=encoder)
    assert belt.stats.capacity == belt.stats.in_flight == belt.stats.peak == 2 * CHUNK

    device.queue.submit([commands])
    belt.upload(np.full(CHUNK // 4, 9, np.uint32), target, 2 * CHUNK, encoder=encoder)
    device.queue.submit([encoder.finish()])
    data = contents(device, target).view(np.uint32).reshape(3, -1)
    assert (data == np.array([[1], [2], [9]])).all()
    assert belt.stats.peak == 2 * CHUNK


@pytest.mark.anyio
async def test_recorded_but_not_submitted_async(device: IRenderDevice, make: Maker) -> None:
    belt = StagingBelt(device, budget=CHUNK)
    target = make.plain(2 * CHUNK)
    commands = fill_up(device, belt, target, 1)
    with pytest.raises(RingFullError):
        await belt.upload_async(b"1234", target, encoder=device.create_command_encoder())
    device.queue.submit([commands])


def test_try_upload_while_in_flight(manual: NullDevice) -> None:
    belt = StagingBelt(manual, budget=2 * CHUNK)
    target = Maker(manual).plain(2 * CHUNK)
    manual.queue.submit([fill_up(manual, belt, target, 2)])
    encoder = manual.create_command_encoder()
    with pytest.raises(RingFullError, match=f"budget of {2 * CHUNK} bytes is used up by uploads"):
        belt.try_upload(b"1234", target, encoder=encoder)
    manual.clock.advance(99)
    with pytest.raises(RingFullError):
        belt.try_upload(b"1234", target, encoder=encoder)
    manual.clock.advance(1)
    assert belt.stats.in_flight == 0
    belt.try_upload(b"1234", target, encoder=encoder)
    assert belt.stats.capacity == 2 * CHUNK


def test_upload_waits_for_the_gpu(manual: NullDevice) -> None:
    belt = StagingBelt(manual, budget=CHUNK)
    target = Maker(manual).plain(CHUNK)
    manual.queue.submit([fill_up(manual, belt, target, 1)])
    encoder = manual.create_command_encoder()
    done = threading.Event()

    def upload() -> None:
        belt.upload(numbers(16), target, encoder=encoder)
        done.set()

    thread = threading.Thread(target=upload)
    thread.start()
    while belt.stats.stalls == 0:
        pass
    assert not done.is_set()
    manual.clock.advance(100)
    thread.join()
    manual.queue.submit([encoder.finish()])
    manual.clock.advance(1000)
    assert target.native_handle.memory[:64].view(np.uint32).tolist() == [*numbers(16)]
    assert belt.stats.stalls == 1


@pytest.mark.anyio
async def test_async_back_pressure(manual: NullDevice) -> None:
    """Only the task waits; others go on."""
    belt = StagingBelt(manual, budget=CHUNK)
    target = Maker(manual).plain(CHUNK)
    manual.queue.submit([fill_up(manual, belt, target, 1)])
    encoder = manual.create_command_encoder()
    log: list[str] = []

    async def upload() -> None:
        await belt.upload_async(numbers(16), target, encoder=encoder)
        log.append("uploaded")

    async with anyio.create_task_group() as group:
        group.start_soon(upload)
        while belt.stats.stalls == 0:
            await anyio.lowlevel.checkpoint()
        log.append("others run")
        manual.clock.advance(100)
    assert log == ["others run", "uploaded"]


@pytest.mark.anyio
async def test_cancelled_while_waiting_for_budget(manual: NullDevice) -> None:
    belt = StagingBelt(manual, budget=CHUNK)
    target = Maker(manual).plain(CHUNK)
    manual.queue.submit([fill_up(manual, belt, target, 1)])
    encoder = manual.create_command_encoder()
    with anyio.move_on_after(0.01) as scope:
        await belt.upload_async(b"1234", target, encoder=encoder)
    assert scope.cancelled_caught
    assert belt.stats.uploads == 1
    manual.clock.advance(100)
    await belt.upload_async(b"1234", target, encoder=encoder)
    assert belt.stats.uploads == 2


def test_larger_than_the_budget(device: IRenderDevice, make: Maker) -> None:
    """Without an encoder it goes in parts; with one it would have to be there all at once."""
    belt = StagingBelt(device, budget=CHUNK)
    target = busy_target(device, make)
    data = np.arange(LARGE // 4, dtype=np.uint32)
    belt.upload(data, target)
    belt.flush()
    assert (contents(device, target).view(np.uint32) == data).all()
    assert belt.stats.staged == belt.stats.uploads
    assert belt.stats.peak <= CHUNK

    encoder = device.create_command_encoder()
    uploads = belt.stats.uploads
    with pytest.raises(BufferRangeError, match=f"budget of {CHUNK}; upload it without an encoder"):
        belt.upload(data, target, encoder=encoder)
    for more in ({}, {"encoder": encoder}):
        keep_busy(device, target)
        with pytest.raises(BufferRangeError, match=f"budget of {CHUNK}"):
            belt.try_upload(data, target, **more)
    assert belt.stats.uploads == uploads


def test_depths_are_never_uploaded_in_parts(device: IRenderDevice) -> None:
    """They can only be copied as a whole."""
    pixels = np.full((1024, 1024), 7, np.uint16)
    texture = make_texture(device, 1024, 1024, TextureFormat.DEPTH16_UNORM)
    belt = StagingBelt(device, budget=pixels.nbytes - 4)
    with pytest.raises(BufferRangeError, match="raise the budget"):
        belt.upload(pixels, texture)
    belt = StagingBelt(device, budget=pixels.nbytes)
    belt.upload(pixels, texture)
    belt.flush()
    assert (device.read_array_blocking(texture) == 7).all()


def test_as_large_as_the_budget(device: IRenderDevice, make: Maker) -> None:
    for budget in (LARGE, LARGE + 1, LARGE + 12, LARGE + 15):
        belt = StagingBelt(device, budget=budget)
        target = busy_target(device, make)
        belt.upload(large(6), target)
        belt.flush()
        assert (contents(device, target).view(np.uint32) == 6).all()
        assert belt.stats.capacity <= budget


def test_after_commands_that_were_dropped(device: IRenderDevice, make: Maker) -> None:
    """The chunk that small uploads share is there for a large one when nobody uses it any more."""
    belt = StagingBelt(device, budget=CHUNK)
    belt.upload(bytes(64), make.plain(64), encoder=device.create_command_encoder())
    target, encoder = make.plain(CHUNK), device.create_command_encoder()
    belt.upload(np.full(CHUNK // 4, 3, np.uint32), target, encoder=encoder)
    device.queue.submit([encoder.finish()])
    assert (contents(device, target).view(np.uint32) == 3).all()
    assert (belt.stats.stalls, belt.stats.grows) == (0, 1)


def test_waits_for_what_another_thread_recorded(device: IRenderDevice, make: Maker) -> None:
    """The whole budget is in commands of a thread that is about to submit them."""
    belt = StagingBelt(device, budget=CHUNK)
    target = make.plain(2 * CHUNK)
    recorded, done = threading.Event(), threading.Event()

    def other() -> None:
        commands = fill_up(device, belt, target, 1)
        recorded.set()
        while belt.stats.stalls == 0:  # until the main thread waits
            pass
        assert not done.is_set()
        device.queue.submit([commands])

    thread = threading.Thread(target=other)
    thread.start()
    recorded.wait()
    encoder = device.create_command_encoder()
    belt.upload(np.full(CHUNK // 4, 9, np.uint32), target, CHUNK, encoder=encoder)
    done.set()
    thread.join()
    device.queue.submit([encoder.finish()])
    data = contents(device, target).view(np.uint32).reshape(2, -1)
    assert (data == np.array([[1], [9]])).all()
    assert belt.stats.peak == CHUNK


def test_does_not_wait_for_a_thread_that_has_ended(device: IRenderDevice, make: Maker) -> None:
    belt = StagingBelt(device, budget=CHUNK)
    target = make.plain(CHUNK)
    held: list[Any] = []
    thread = threading.Thread(target=lambda: held.append(fill_up(device, belt, target, 1)))
    thread.start()
    thread.join()
    with pytest.raises(RingFullError):
        belt.upload(bytes(64), target, encoder=device.create_command_encoder())
    device.queue.submit(held)
    belt.upload(bytes(64), target, encoder=device.create_command_encoder())


def test_two_threads_that_wait_for_each_other(
    device: IRenderDevice, make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has half of the budget and wants more: no waiting can help, so it is not waited."""
    monkeypatch.setattr(Others, "PATIENCE", float("inf"))
    belt = StagingBelt(device, budget=2 * CHUNK)
    target = make.plain(2 * CHUNK)
    both_have, errors = threading.Barrier(2), []

    def work(index: int) -> None:
        encoder = device.create_command_encoder()
        belt.upload(bytes(CHUNK), target, index * CHUNK, encoder=encoder)
        both_have.wait()
        try:
            belt.upload(bytes(CHUNK), target, index * CHUNK, encoder=encoder)
        except RingFullError as error:
            errors.append(error)
        device.queue.submit([encoder.finish()])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors
    assert belt.stats.peak <= 2 * CHUNK


@pytest.mark.anyio
async def test_many_tasks_within_a_small_budget(device: IRenderDevice, make: Maker) -> None:
    """Back-pressure for tasks, some of which give up: nothing leaks, and the rest arrives."""
    belt = StagingBelt(device, budget=2 * CHUNK)
    target = make.plain(8 * CHUNK)
    part = CHUNK

    async def upload(index: int) -> None:
        with anyio.CancelScope() as scope:
            if index % 2:
                scope.cancel()
            data = np.full(part // 4, index + 1, np.uint32)
            encoder = device.create_command_encoder()
            await anyio.lowlevel.checkpoint()
            await belt.upload_async(data, target, part * index, encoder=encoder)
            device.queue.submit([encoder.finish()])

    async with anyio.create_task_group() as group:
        for index in range(8):
            group.start_soon(upload, index)
    data = contents(device, target).view(np.uint32).reshape(8, -1)
    assert (data == np.array([[1], [0], [3], [0], [5], [0], [7], [0]])).all()
    assert belt.stats.peak <= 2 * CHUNK
    assert belt.stats.in_flight == belt.stats.used == 0


def test_pictures_larger_than_the_budget(device: IRenderDevice) -> None:
    """They go in rows."""
    for width, height, layers in ((300, 301, 1), (165, 230, 3)):
        texture = make_texture(device, width, height, TextureFormat.RGBA32_FLOAT, layers=layers)
        pixels = random_pixels(TextureFormat.RGBA32_FLOAT, height, width, layers)
        belt = StagingBelt(device, budget=CHUNK)
        belt.upload(pixels, texture)
        belt.flush()
        assert (device.read_array_blocking(texture) == pixels).all()
        assert 0 < belt.stats.peak <= CHUNK


# --- Large and small ------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["flat", "rows", "transposed", "strided"])
def test_large_data_of_any_layout(layout: str, device: IRenderDevice, make: Maker) -> None:
    """Copied by several threads, wherever the bytes come from."""
    size = 9 << 20
    data = np.random.default_rng(1).integers(0, 256, size, np.uint8).view(np.uint32)
    if layout == "rows":
        data = data.reshape(-1, 1024)
    elif layout == "transposed":
        data = data.reshape(-1, 1024).T
    elif layout == "strided":
        data = np.repeat(data, 2)[::2]
    for busy in (False, True):
        target = make.plain(size)
        if busy:
            keep_busy(device, target)
        submission = device.belt.upload(data, target)
        assert isinstance(submission, Submission)
        submission.wait()
        assert (contents(device, target).view(np.uint32) == data.reshape(-1)).all()


def test_parts(device: IRenderDevice, make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A staged upload larger than a part: the GPU copies one while the next is written."""
    monkeypatch.setattr(belt_module, "PART", 1 << 20)
    belt = StagingBelt(device)
    data = np.random.default_rng(1).integers(0, 256, (5 << 20) + 4, np.uint8)
    target = busy_target(device, make, data.nbytes)
    belt.upload(data, target)
    belt.flush()
    assert (contents(device, target) == data).all()
    assert belt.stats.uploads == 6


def test_small_uploads_share_a_chunk(device: IRenderDevice, make: Maker) -> None:
    """Of several encoders and threads, submitted in any order or never."""
    belt = StagingBelt(device)
    target = make.plain(64 * 100)
    encoders = [device.create_command_encoder() for _ in range(3)]
    for index in range(100):
        belt.upload(numbers(16, index), target, 64 * index, encoder=encoders[index % 3])
    assert belt.stats.grows == 1
    assert belt.stats.used == 6400
    commands = [encoder.finish() for encoder in encoders]
    device.queue.submit([commands[2]])
    belt.upload(numbers(16, 5), target, 0, encoder=device.create_command_encoder())
    device.queue.submit([commands[0]])
    del commands[1], encoders
    data = contents(device, target).view(np.uint32).reshape(100, 16)
    expected = np.stack([numbers(16, index) for index in range(100)])
    expected[1::3] = 0
    assert (data == expected).all()
    assert belt.stats.in_flight == belt.stats.used == 0


@pytest.mark.parametrize("order", ["small first", "large first"])
def test_order_of_small_and_large(order: str, device: IRenderDevice, make: Maker) -> None:
    """A write by the queue does not overtake a copy to the same target that waits for a flush."""
    target, other = busy_target(device, make), busy_target(device, make)
    before = device.belt.stats
    for value, each in ((1, target), (2, other)):
        if order == "small first":
            device.upload(numbers(16, 100), each)
        device.upload(large(value), each)
        if order == "large first":
            device.upload(numbers(16, 100), each)
    after = device.belt.stats
    assert after.pending > 0
    for value, each in ((1, target), (2, other)):
        expected = large(value)
        if order == "large first":
            expected[:16] = numbers(16, 100)
        assert (contents(device, each).view(np.uint32) == expected).all()
    assert device.belt.stats.pending == 0
    assert after.staged - before.staged == (2 if order == "small first" else 4)


def test_uploads_go_with_the_next_submit(manual: NullDevice) -> None:
    """They cost no submit of their own, also when that one is refused."""
    target = busy_target(manual, Maker(manual))
    before = manual.counters.submits
    manual.upload(large(1), target)
    manual.queue.submit([])
    assert manual.counters.submits == before + 1

    manual.upload(large(2), target)
    mapped = Maker(manual).mappable(64)
    commands = copied(manual, mapped, Maker(manual).plain(64))
    mapped.map()
    with pytest.raises(BufferStateError):
        manual.queue.submit([commands])
    assert manual.belt.stats.pending == 0
    manual.clock.advance(1000)
    assert (target.native_handle.memory.view(np.uint32) == 2).all()


# --- Written directly -----------------------------------------------------------------------------


def test_idle_targets_are_written_directly(gpu: IRenderDevice) -> None:
    """A software driver shares the CPU's memory, so there is nothing to copy from it."""
    assert gpu.info.kind in ("cpu", "integrated")
    assert "mappable-primary-buffers" not in gpu.features  # nobody asked for it
    with Maker(gpu) as make:
        target = make.plain(LARGE)
        before = gpu.belt.stats
        gpu.belt.flush()
        gpu.upload(numbers(16, 50), target)
        gpu.upload(large(1), target)
        gpu.belt.flush()
        gpu.upload(numbers(16), target, 4)
        after = gpu.belt.stats
        assert (after.direct - before.direct, after.direct_bytes - before.direct_bytes) == (
            3,
            LARGE + 128,
        )
        assert after.pending == 0
        assert gpu.belt.flush().is_done
        assert target.state is BufferState.READY
        with pytest.raises(BufferUsageError):
            make.mappable(64, COPY | BufferUsage.MAP_WRITE)
        data = contents(gpu, target).view(np.uint32)
        assert data[:18].tolist() == [1, *numbers(16), 1]
        assert (data[18:] == 1).all()


def test_several_small_uploads_take_the_queue(gpu: IRenderDevice) -> None:
    with Maker(gpu) as make:
        target = make.plain(6400)
        gpu.belt.flush()
        before = gpu.belt.stats
        for index in range(100):
            gpu.upload(numbers(16, index), target, 64 * index)
        after = gpu.belt.stats
        assert (after.direct - before.direct, after.queue_writes - before.queue_writes) == (1, 99)
        data = contents(gpu, target).view(np.uint32).reshape(100, 16)
        assert (data == np.stack([numbers(16, index) for index in range(100)])).all()


def test_nothing_submitted_earlier_sees_a_direct_write(gpu: IRenderDevice) -> None:
    with Maker(gpu) as make:
        target = make.plain(LARGE)
        copies = [make.plain(LARGE) for _ in range(4)]
        for value, copy in enumerate(copies):
            gpu.upload(large(value), target)
            gpu.queue.submit([copied(gpu, target, copy)])
        for value, copy in enumerate(copies):
            assert (contents(gpu, copy).view(np.uint32) == value).all()


@pytest.mark.parametrize("busy_with", ["recorded", "in flight", "queue write"])
def test_busy_targets_are_not(busy_with: str, gpu: IRenderDevice) -> None:
    with Maker(gpu) as make, Hold(gpu):
        target, other = make.plain(LARGE), make.plain(LARGE)
        if busy_with == "queue write":
            gpu.queue.write_buffer(target, 0, bytes(64))
        else:
            commands = copied(gpu, target, other)
            if busy_with == "in flight":
                gpu.queue.submit([commands])
        before = gpu.belt.stats
        gpu.upload(large(7), target)
        after = gpu.belt.stats
        assert (after.direct - before.direct, after.staged - before.staged) == (0, 1)


def test_mapped_at_creation_then_written_directly(gpu: IRenderDevice) -> None:
    buffer = DeviceBuffer.from_array(large(1), BufferUsage.COPY_SRC, gpu.buffer_factory)
    before = gpu.belt.stats
    gpu.belt.flush()
    gpu.upload(numbers(16), buffer, 64)
    assert gpu.belt.stats.direct == before.direct + 1
    data = contents(gpu, buffer).view(np.uint32)
    assert data[16:32].tolist() == [*numbers(16)]
    assert (data[:16] == 1).all()
    assert (data[32:] == 1).all()


class Writing:
    """Holds a direct upload of another thread in the middle of its copy."""

    def __init__(self, device: IRenderDevice, target: IBuffer, value: int) -> None:
        self.entered, self.leave = threading.Event(), threading.Event()
        self.errors: list[BaseException] = []
        self._job = BufferJob.checked(large(value), target, 0, device)
        self._thread = threading.Thread(target=self._write)

    def _write(self) -> None:
        core = self._job.core
        claim = core.owner.claim(core)
        assert claim is not None

        def fill(memory: npt.NDArray[np.uint8]) -> None:
            self.entered.set()
            self.leave.wait()
            self._job.fill(memory)

        try:
            core.write_claimed(claim, 0, LARGE, fill)
        except BaseException as error:
            self.errors.append(error)

    def __enter__(self) -> Writing:
        self._thread.start()
        self.entered.wait()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.leave.set()
        self._thread.join()


def test_a_submit_waits_for_a_direct_write(gpu: IRenderDevice) -> None:
    """What other threads do with the target meanwhile comes after it, and nothing aborts."""
    with Maker(gpu) as make:
        target, copy = make.plain(LARGE), make.plain(LARGE)
        commands = copied(gpu, target, copy)
        submitted = threading.Event()

        def submit() -> None:
            gpu.queue.submit([commands])
            submitted.set()

        del commands
        encoder = gpu.create_command_encoder()
        with Writing(gpu, target, 5):
            assert target.state is BufferState.READY
            encoder.copy_buffer_to_buffer(target, 0, copy, 0)
            commands = encoder.finish()
            thread = threading.Thread(target=submit)
            thread.start()
            assert not submitted.wait(0.05)
        thread.join()
        assert (contents(gpu, copy).view(np.uint32) == 5).all()


@pytest.mark.parametrize("end", ["destroy", "close"])
def test_a_target_that_goes_during_a_direct_write(end: str) -> None:
    """Its memory stays until the write is through."""
    with open_device("webgpu") as device:
        target = Maker(device).plain(LARGE)
        with Writing(device, target, 5) as writing:
            target.destroy() if end == "destroy" else device.close()
            assert target.state is BufferState.DESTROYED
        assert not writing.errors


def test_wrapped_devices_are_not_written_directly(gpu: IRenderDevice) -> None:
    """The application may write to buffers, too, and pers would not know."""
    with WebGPUDevice.wrap(gpu.native_handle) as device:
        with Maker(device) as make:
            target = make.plain(LARGE)
            device.upload(large(3), target)
            assert device.belt.stats.staged == 1
            assert (contents(device, target).view(np.uint32) == 3).all()


# --- Recycling ------------------------------------------------------------------------------------


def test_chunks_are_recycled_by_submission(manual: NullDevice) -> None:
    belt = StagingBelt(manual)
    target = Maker(manual).plain(CHUNK)
    for _ in range(5):
        manual.queue.submit([fill_up(manual, belt, target, 1)])
        manual.clock.advance(100)
    size = belt.stats.capacity
    assert belt.stats.grows == 1
    for _ in range(3):  # none of these is done
        manual.queue.submit([fill_up(manual, belt, target, 1)])
    assert (belt.stats.capacity, belt.stats.grows) == (3 * size, 3)
    assert belt.stats.in_flight == belt.stats.peak == 3 * size
    assert belt.stats.used == 3 * CHUNK
    manual.clock.advance(1000)
    assert belt.stats.in_flight == belt.stats.used == 0


def test_dropped_commands_free_their_chunks(device: IRenderDevice, make: Maker) -> None:
    belt = StagingBelt(device, budget=2 * CHUNK)
    target = make.plain(2 * CHUNK)
    for _ in range(5):
        commands = fill_up(device, belt, target, 2)
        assert belt.stats.in_flight == 2 * CHUNK
        del commands
        assert belt.stats.in_flight == 0
    assert belt.stats.grows == 2


def test_requests_of_all_sizes(device: IRenderDevice, make: Maker) -> None:
    """Free chunks that are too small make room for large ones."""
    belt = StagingBelt(device, budget=4 * CHUNK)
    for size in (4, CHUNK, 2 * CHUNK, 4 * CHUNK, 3 * CHUNK + 4, 4, 4 * CHUNK):
        target = make.plain(size)
        data = np.random.default_rng(size).integers(0, 256, size, np.uint8)
        encoder = device.create_command_encoder()
        belt.upload(data, target, encoder=encoder)
        device.queue.submit([encoder.finish()]).wait()
        assert (contents(device, target) == data).all()
        assert belt.stats.capacity <= 4 * CHUNK


def test_destroyed_chunks_give_their_memory_back(fresh_device: IRenderDevice) -> None:
    before = live(fresh_device)
    belt = StagingBelt(fresh_device, budget=4 * CHUNK)
    target = Maker(fresh_device).plain(4 * CHUNK)
    fresh_device.queue.submit([fill_up(fresh_device, belt, target, 4)]).wait()
    assert live(fresh_device) == before + 5
    belt.upload(bytes(4 * CHUNK), target, encoder=fresh_device.create_command_encoder())
    assert live(fresh_device) == before + 2
    del belt
    assert live(fresh_device) == before + 1


def test_nothing_in_flight_is_overwritten(device: IRenderDevice, make: Maker) -> None:
    """Many uploads through few chunks, none waited for by hand."""
    belt = StagingBelt(device, budget=3 * CHUNK)
    target = make.plain(40 * CHUNK, COPY)
    for index in range(40):
        encoder = device.create_command_encoder()
        data = np.full(CHUNK // 4, index + 1, np.uint32)
        belt.upload(data, target, CHUNK * index, encoder=encoder)
        device.queue.submit([encoder.finish()])
    data = contents(device, target).view(np.uint32).reshape(40, -1)
    assert (data == np.arange(1, 41)[:, None]).all()
    assert belt.stats.peak <= 3 * CHUNK


def test_idle_chunks_are_given_back(manual: NullDevice) -> None:
    """After some hundred submits in which nobody used them; no clock decides."""
    belt = manual.belt
    target = busy_target(manual, Maker(manual), 4 << 20)
    for _ in range(3):
        manual.upload(np.ones(4 << 20, np.uint8), target)
    belt.flush()
    manual.clock.advance(1000)
    assert (belt.stats.capacity, belt.stats.in_flight) == (12 << 20, 0)
    for _ in range(100):
        manual.queue.submit([])
    assert belt.stats.shrinks == 0
    for _ in range(300):
        manual.queue.submit([])
        manual.clock.advance(100)
    assert (belt.stats.capacity, belt.stats.shrinks) == (0, 3)
    assert belt.stats.peak == 12 << 20
    manual.upload(np.ones(4 << 20, np.uint8), target)
    assert belt.stats.grows == 4


def test_trim(device: IRenderDevice, make: Maker) -> None:
    belt = StagingBelt(device)
    target = make.plain(LARGE)
    encoder = device.create_command_encoder()
    for size in (64, LARGE):
        belt.upload(bytes(size), target, encoder=encoder)
    belt.trim()
    assert belt.stats.shrinks == 0
    device.queue.submit([encoder.finish()]).wait()
    belt.trim()
    assert (belt.stats.capacity, belt.stats.shrinks) == (0, 2)


def test_own_belts_follow_the_device_into_its_end(fresh_device: IRenderDevice) -> None:
    belt = StagingBelt(fresh_device)
    target = busy_target(fresh_device, Maker(fresh_device))
    belt.upload(large(), target, encoder=fresh_device.create_command_encoder())
    belt.upload(large(), target)
    fresh_device.close()
    assert belt.stats.capacity == 0
    with pytest.raises(DeviceLostError):
        belt.flush()
    belt.trim()
