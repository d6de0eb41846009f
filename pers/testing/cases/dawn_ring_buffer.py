"""Dawn's ``RingBufferAllocatorTests``, on the ring that pers has: `DynamicBuffer`.

How they map: Dawn's allocator hands out bytes tagged with the serial of a submission, and gets
them back when that serial has passed. A `DynamicBuffer` hands out frames (`begin_update`) and
parts of a frame (`push`, `as_array`), and a frame is free again when the submissions that use it
have ended. Where Dawn's allocator answers "invalid offset" because

- a request is larger than what is left, a `DynamicBuffer` grows;
- everything is in use, the update waits for the GPU, or raises `RingFullError` when no waiting
  can help;
- the numbers overflow, it raises a typed error and is as it was before.

The bytes that arrive on the GPU are compared too.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator
from contextlib import contextmanager

import numpy as np

from pers.buffers import BufferUsage, DynamicBuffer, DynamicUpdate, IBuffer
from pers.errors import BufferRangeError, OutOfMemoryError, PerformanceWarning, RingFullError
from pers.graphics import ICommandBuffer
from pers.testing.bench import Bench
from pers.testing.case import case

COPIED = BufferUsage.UNIFORM | BufferUsage.COPY_SRC


def ring_of(bench: Bench, size: int, frames: int = 3) -> DynamicBuffer:
    """A ring whose frames have room for `size` bytes."""
    return DynamicBuffer(
        size, bench.device.buffer_factory, usage=COPIED, frames=frames, debug_name="ring"
    )


def records(
    bench: Bench, ring: DynamicBuffer, offset: int, log: IBuffer, at: int
) -> ICommandBuffer:
    """Record a copy of one word of the ring to a log."""
    encoder = bench.device.create_command_encoder("ring to log")
    encoder.copy_buffer_to_buffer(ring, offset, log, at, 4)
    return encoder.finish()


@contextmanager
def meant_to_wait() -> Generator[None]:
    """Allow that a ring is too short for the updates that were submitted together."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PerformanceWarning)
        yield


def word(value: int) -> np.uint32:
    return np.uint32(value)


@case("dawn/RingBufferAllocatorTests:BasicTest")
async def basic(bench: Bench) -> None:
    ring = ring_of(bench, 64 * 1024)
    stats, half = ring.stats, 32 * 1024
    assert (stats.updates, stats.bytes_written, stats.peak, stats.stalls) == (0, 0, 0, 0)
    assert ring.size == stats.frames * stats.frame_size == 3 * 64 * 1024

    log, commands = bench.buffer(4), list[ICommandBuffer]()
    for frame in range(3):
        with ring.begin_update() as update:  # two requests of equal size fill the frame
            first = update.push(np.full(half, 1, np.uint8))
            second = update.push(np.full(half, 2, np.uint8))
        assert (first, second) == (2 * frame * half, (2 * frame + 1) * half)
        commands.append(records(bench, ring, first, log, 0))
    assert ring.stats.grows == 0

    with bench.refuses(RingFullError, words=("ring", "submit")), ring.begin_update():
        pass
    expected = np.tile(np.repeat(np.array([1, 2], np.uint8), half), 3)
    assert bench.read(ring).tobytes() == expected.tobytes()

    bench.device.queue.submit(commands)
    with meant_to_wait(), ring.begin_update() as update:  # more than a frame has
        update.push(np.full(64 * 1024 + 1, 3, np.uint8))
    assert ring.stats.grows == 1
    assert ring.stats.frame_size > 64 * 1024


@case("dawn/RingBufferAllocatorTests:RingBufferManyAlloc")
async def many(bench: Bench) -> None:
    """Far more frames than the ring has: places come in turn, and none is overwritten too early."""
    count, frames = 1000, 5
    ring, log = ring_of(bench, 4, frames), bench.buffer(4 * count)
    for number in range(count):
        async with ring.begin_update() as update:
            offset = update.push(word(number))
        assert offset == number % frames * ring.stats.frame_size
        bench.device.queue.submit([records(bench, ring, offset, log, 4 * number)])
    assert bench.read(log, np.uint32).tolist() == list(range(count))
    assert ring.stats.updates == count
    assert ring.stats.bytes_written == 4 * count
    assert ring.stats.grows == 0


@case("dawn/RingBufferAllocatorTests:AllocInSameFrame")
async def same_frame(bench: Bench) -> None:
    """Parts of one frame lie behind one another, and become free together."""
    ring, log = ring_of(bench, 4 * 256), bench.buffer(16)
    step = ring.alignment
    with ring.begin_update() as update:
        offsets = [update.push(word(value)) for value in (1, 2, 3)]
        update.as_array(np.uint32, 1)[0] = 4
        offsets.append(update.offset)
    assert offsets == [0, step, 2 * step, 3 * step]
    assert ring.stats.peak == 3 * step + 4

    commands = [records(bench, ring, at, log, 4 * i) for i, at in enumerate(offsets)]
    fill(ring, 2)
    with bench.refuses(RingFullError), ring.begin_update():
        pass  # all of the first frame is in use
    bench.device.queue.submit(commands[:-1])
    with bench.refuses(RingFullError), ring.begin_update():
        pass  # a part of it still is
    await bench.device.queue.submit(commands[-1:]).done()
    with ring.begin_update() as update:
        assert update.push(word(5)) == 0
    assert bench.read(log, np.uint32).tolist() == [1, 2, 3, 4]


def fill(ring: DynamicBuffer, frames: int) -> list[int]:
    """Take some frames, and return where they start."""
    offsets: list[int] = []
    for value in range(frames):
        with ring.begin_update() as update:
            offsets.append(update.push(word(value)))
    return offsets


@case("dawn/RingBufferAllocatorTests:RingBufferSubAlloc")
async def sub_alloc(bench: Bench) -> None:
    """Frames become free in the order of their submissions, and are taken again in turn."""
    frames = 10
    ring, log = ring_of(bench, 4, frames), bench.buffer(4 * 2 * frames)
    size = ring.stats.frame_size
    offsets = fill(ring, 8)
    assert offsets == [index * size for index in range(8)]

    commands: list[ICommandBuffer] = []
    for index in range(8, frames + 8):  # the last two free frames, then the first eight again
        async with ring.begin_update() as update:
            offset = update.push(word(index))
        assert offset == index % frames * size
        commands.append(records(bench, ring, offset, log, 4 * (index - 8)))
    with bench.refuses(RingFullError), ring.begin_update():
        pass

    last = bench.device.queue.submit(commands[:3])
    for index in range(frames + 8, frames + 11):  # three are free, or will be soon
        with meant_to_wait():
            async with ring.begin_update() as update:
                assert update.push(word(index)) == index % frames * size
        commands.append(records(bench, ring, update.offset, log, 4 * (index - 8)))
    assert last.is_done
    with bench.refuses(RingFullError), ring.begin_update():
        pass

    bench.device.queue.submit(commands[3:])
    assert bench.read(log, np.uint32)[: frames + 3].tolist() == list(range(8, frames + 11))
    with meant_to_wait(), ring.begin_update() as update:  # larger than a frame; all just used
        offset = update.push(np.full(3 * size, 7, np.uint8))
    assert ring.stats.grows == 1
    whole = bench.read(ring)
    assert whole[offset : offset + 3 * size].tobytes() == b"\7" * (3 * size)


@case("dawn/RingBufferAllocatorTests:RingBufferOverflow")
async def overflow(bench: Bench) -> None:
    """A request that nothing can have is refused, and the ring is as it was."""
    ring = ring_of(bench, 256)
    before, inner = ring.stats, ring.inner
    largest = bench.device.limits.max_buffer_size
    for nbytes in (largest, largest // 2 + 1, 2**40, 2**62, 2**63 - 1):
        with bench.refuses(BufferRangeError, OutOfMemoryError), ring.begin_update() as update:
            assert update.push(word(1)) == 0
            update.as_array(np.uint8, nbytes)
        assert ring.stats == before, nbytes
        assert ring.inner is inner

    with ring.begin_update() as update:
        assert outgrow(update) == 0
    with ring.begin_update() as update:
        offset = update.push(word(9))
    assert bench.read(ring).view(np.uint32)[[0, offset // 4]].tolist() == [8, 9]


def outgrow(update: DynamicUpdate) -> int:
    """Fill an array after its frame has grown, and return its offset."""
    early = update.as_array(np.uint32, 1)
    offset = update.offset
    update.push(np.full(4096, 7, np.uint8))
    early[0] = 8
    return offset
