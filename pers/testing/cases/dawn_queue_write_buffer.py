"""Dawn's ``QueueWriteBufferTests``: writes in queue order, small and large (WebGPU §19.2).

Dawn's dynamic uploader is the belt here, so the uploads of its cases go through the belt too.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pers.buffers import BufferUsage, IBuffer
from pers.graphics import TextureDescriptor, TextureFormat, TextureUsage
from pers.testing.bench import COPY, Bench
from pers.testing.case import case

VALUE = np.array([0x01020304], np.uint32)


def expect(bench: Bench, buffer: IBuffer, expected: npt.NDArray[np.uint32]) -> None:
    """Compare a buffer byte by byte."""
    assert bench.read(buffer).tobytes() == expected.tobytes()


@case("dawn/QueueWriteBufferTests:SmallDataAtZero")
async def small(bench: Bench) -> None:
    buffer = bench.buffer(4)
    bench.device.queue.write_buffer(buffer, 0, VALUE)
    expect(bench, buffer, VALUE)


@case("dawn/QueueWriteBufferTests:SmallDataAtOffset")
async def small_at_offset(bench: Bench) -> None:
    buffer = bench.buffer(4000)
    bench.device.queue.write_buffer(buffer, 2000, VALUE)
    expected = np.zeros(1000, np.uint32)
    expected[500] = VALUE[0]
    expect(bench, buffer, expected)


@case("dawn/QueueWriteBufferTests:ZeroSized")
async def zero_sized(bench: Bench) -> None:
    buffer = bench.buffer(4)
    bench.device.queue.write_buffer(buffer, 0, VALUE)
    for offset in (0, 4):
        bench.device.queue.write_buffer(buffer, offset, b"")
        bench.device.upload(b"", buffer, offset)
    expect(bench, buffer, VALUE)


@case("dawn/QueueWriteBufferTests:SetTwice")
async def set_twice(bench: Bench) -> None:
    buffer = bench.buffer(4)
    for value in (VALUE, VALUE + 0x04040404):
        bench.device.queue.write_buffer(buffer, 0, value)
        expect(bench, buffer, value)
    bench.device.queue.write_buffer(buffer, 0, VALUE)
    bench.device.queue.write_buffer(buffer, 0, VALUE + 1)
    expect(bench, buffer, VALUE + 1)


@case("dawn/QueueWriteBufferTests:ManyWriteBuffer")
async def many(bench: Bench) -> None:
    numbers = np.arange(100 * 100, dtype=np.uint32)
    buffer = bench.buffer(numbers.nbytes)
    for index in range(numbers.size):
        bench.device.queue.write_buffer(buffer, 4 * index, numbers[index : index + 1])
    expect(bench, buffer, numbers)


@case("dawn/QueueWriteBufferTests:LargeWriteBuffer")
async def large(bench: Bench) -> None:
    write_and_upload(bench, 1_000_000)


@case("dawn/QueueWriteBufferTests:SuperLargeWriteBuffer")
async def super_large(bench: Bench) -> None:
    write_and_upload(bench, 3_000_000)


def write_and_upload(bench: Bench, count: int) -> None:
    """Get numbers to the GPU with one call, by the queue and by the belt."""
    numbers = np.arange(count, dtype=np.uint32)
    written, uploaded = bench.buffer(numbers.nbytes), bench.buffer(numbers.nbytes)
    bench.device.queue.write_buffer(written, 0, numbers)
    bench.device.upload(numbers, uploaded)
    numbers += 1  # the data was taken by the calls, so this changes nothing
    expect(bench, written, numbers - 1)
    expect(bench, uploaded, numbers - 1)


@case("dawn/QueueWriteBufferTests:UnalignedDynamicUploader")
async def unaligned_uploader(bench: Bench) -> None:
    """A write of one byte (to a texture) before a write to a buffer moves nothing."""
    device = bench.device
    usage = TextureUsage.COPY_DST | TextureUsage.COPY_SRC
    texture = device.create_texture(TextureDescriptor(1, 1, TextureFormat.R8_UNORM, usage))
    pixel = np.full((1, 1), 5, np.uint8)
    for upload in (False, True):
        buffer = bench.buffer(4)
        if upload:
            encoder = device.create_command_encoder("unaligned")
            device.belt.upload(pixel, texture, encoder=encoder)
            device.belt.upload(VALUE, buffer, encoder=encoder)
            device.queue.submit([encoder.finish()])
        else:
            device.queue.write_texture(texture, pixel)
            device.queue.write_buffer(buffer, 0, VALUE)
        expect(bench, buffer, VALUE)
        assert device.read_array_blocking(texture, copy=True).tolist() == [[5]]


@case("dawn/QueueWriteBufferTests:WriteUniformBufferWithVariousOffsetAndSizeAlignments")
async def uniform_alignments(bench: Bench) -> None:
    buffer = bench.buffer(128, COPY | BufferUsage.UNIFORM)
    data = np.zeros(32, np.uint32)
    data[:16] = np.arange(1, 17)
    bench.device.queue.write_buffer(buffer, 0, data[:16])
    expect(bench, buffer, data)
    for first, count in ((1, 1), (4, 4), (10, 4), (12, 1)):
        data[first : first + count] = 100 * first + np.arange(count)
        bench.device.queue.write_buffer(buffer, 4 * first, data[first : first + count])
        expect(bench, buffer, data)
