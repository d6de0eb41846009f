"""``operation/command_buffer``: basic, copyBufferToBuffer and clearBuffer (WebGPU §13.3, §13.4)."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

from pers.buffers import BufferUsage, DeviceBuffer
from pers.graphics import (
    ICommandEncoder,
    ITexture,
    TexelCopyBufferInfo,
    TextureDescriptor,
    TextureFormat,
    TextureUsage,
)
from pers.testing.bench import Bench
from pers.testing.case import case

OFFSETS_AND_SIZES = (0, 4, 8, 16)
PIXEL = np.array([0x01020304], np.uint32)


def counting(nbytes: int) -> npt.NDArray[np.uint8]:
    """1, 2, 3, ... one byte each."""
    return np.arange(1, nbytes + 1, dtype=np.uint8)


def one_pixel(bench: Bench) -> ITexture:
    """A texture to copy through."""
    usage = TextureUsage.COPY_SRC | TextureUsage.COPY_DST
    return bench.device.create_texture(TextureDescriptor(1, 1, TextureFormat.RGBA8_UINT, usage))


@case("operation/command_buffer/basic:empty")
async def empty(bench: Bench) -> None:
    await bench.submit(lambda encoder: None).done()


@case("operation/command_buffer/basic:b2t2b")
async def buffer_to_texture_to_buffer(bench: Bench) -> None:
    source, target, texture = bench.filled(PIXEL), bench.buffer(4), one_pixel(bench)

    def record(encoder: ICommandEncoder) -> None:
        encoder.copy_buffer_to_texture(TexelCopyBufferInfo(source, 0, 256), texture, (1, 1, 1))
        encoder.copy_texture_to_buffer(texture, TexelCopyBufferInfo(target, 0, 256), (1, 1, 1))

    bench.submit(record)
    assert bench.read(target).tobytes() == PIXEL.tobytes()


@case("operation/command_buffer/basic:b2t2t2b")
async def buffer_to_texture_to_texture_to_buffer(bench: Bench) -> None:
    source, target = bench.filled(PIXEL), bench.buffer(4)
    first, second = one_pixel(bench), one_pixel(bench)

    def record(encoder: ICommandEncoder) -> None:
        encoder.copy_buffer_to_texture(TexelCopyBufferInfo(source, 0, 256), first, (1, 1, 1))
        encoder.copy_texture_to_texture(first, second, (1, 1, 1))
        encoder.copy_texture_to_buffer(second, TexelCopyBufferInfo(target, 0, 256), (1, 1, 1))

    bench.submit(record)
    assert bench.read(target).tobytes() == PIXEL.tobytes()


@case("operation/command_buffer/copyBufferToBuffer:single")
async def copy_single(bench: Bench) -> None:
    for start, goal, size in itertools.product(OFFSETS_AND_SIZES, repeat=3):
        for more_source, more_target in itertools.product((0, 8), repeat=2):
            data = counting(start + size + more_source)
            source = filled_source(bench, data)
            target = bench.buffer(goal + size + more_target)
            encoder = bench.device.create_command_encoder("single")
            encoder.copy_buffer_to_buffer(source, start, target, goal, size)
            bench.device.queue.submit([encoder.finish()])

            expected = np.zeros(target.size, np.uint8)
            expected[goal : goal + size] = data[start : start + size]
            assert bench.read(target).tobytes() == expected.tobytes(), (start, goal, size)


def filled_source(bench: Bench, data: npt.NDArray[np.uint8]) -> DeviceBuffer:
    """A buffer, of no bytes perhaps, that can be copied from."""
    return bench.filled(data, BufferUsage.COPY_SRC)


@case("operation/command_buffer/copyBufferToBuffer:state_transitions")
async def copy_back_and_forth(bench: Bench) -> None:
    """A copy sees what the copy before it wrote, whichever way that went."""
    one = bench.filled(np.array([1, 2, 3, 4, 5, 6, 7, 8], np.uint8))
    other = bench.filled(np.array([10, 20, 30, 40, 50, 60, 70, 80], np.uint8))

    def record(encoder: ICommandEncoder) -> None:
        encoder.copy_buffer_to_buffer(one, 0, other, 4, 4)
        encoder.copy_buffer_to_buffer(other, 0, one, 4, 4)

    bench.submit(record)
    assert bench.read(one).tolist() == [1, 2, 3, 4, 10, 20, 30, 40]
    assert bench.read(other).tolist() == [10, 20, 30, 40, 1, 2, 3, 4]


@case("operation/command_buffer/copyBufferToBuffer:copy_order")
async def copy_order(bench: Bench) -> None:
    """Of two copies to overlapping places the later one wins."""
    source = bench.filled(np.array([1, 2, 3, 4, 5, 6, 7, 8], np.uint32), BufferUsage.COPY_SRC)
    target = bench.buffer(32)

    def record(encoder: ICommandEncoder) -> None:
        encoder.copy_buffer_to_buffer(source, 0, target, 0, 16)
        encoder.copy_buffer_to_buffer(source, 16, target, 8, 16)

    bench.submit(record)
    assert bench.read(target, np.uint32).tolist() == [1, 2, 5, 6, 7, 8, 0, 0]


@case("operation/command_buffer/clearBuffer:clear")
async def clear(bench: Bench) -> None:
    offsets = (*OFFSETS_AND_SIZES, None)
    for offset, size in itertools.product(offsets, offsets):
        start = offset or 0
        for more in (0, 8):
            data = counting(start + (16 if size is None else size) + more)
            buffer = bench.filled(data)
            encoder = bench.device.create_command_encoder("clear")
            if offset is None and size is None:
                encoder.clear_buffer(buffer)
            elif offset is None:
                encoder.clear_buffer(buffer, size=size)
            else:
                encoder.clear_buffer(buffer, offset, size)
            bench.device.queue.submit([encoder.finish()])

            data[start : None if size is None else start + size] = 0
            assert bench.read(buffer).tobytes() == data.tobytes(), (offset, size, more)
