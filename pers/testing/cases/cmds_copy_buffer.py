"""``validation/cmds/copyBufferToBuffer``: which copies are recorded (WebGPU §13.4)."""

from __future__ import annotations

from pers.buffers import BufferUsage, IBuffer
from pers.errors import (
    BufferRangeError,
    BufferStateError,
    BufferUsageError,
    ValidationError,
)
from pers.testing.bench import COPY, MAX_SAFE, Bench
from pers.testing.case import case


@case("validation/cmds/copyBufferToBuffer:buffer_state")
async def buffer_state(bench: Bench) -> None:
    states = "valid", "invalid", "destroyed"
    for source_state in states:
        for target_state in states:
            source = _in_state(bench, source_state, BufferUsage.COPY_SRC)
            target = _in_state(bench, target_state, BufferUsage.COPY_DST)
            if source_state == target_state == "valid":
                bench.copy(source, target, 8).wait()
            else:
                with bench.refuses(BufferStateError, ValidationError, words=("'wrong'",)):
                    bench.copy(source, target, 8)


@case("validation/cmds/copyBufferToBuffer:buffer_usage")
async def buffer_usage(bench: Bench) -> None:
    for source_usage in BufferUsage:
        for target_usage in BufferUsage:
            source = bench.any_buffer(16, source_usage, name="source")
            target = bench.any_buffer(16, target_usage, name="target")
            if (source_usage, target_usage) == (BufferUsage.COPY_SRC, BufferUsage.COPY_DST):
                bench.copy(source, target, 8).wait()
            else:
                wrong = "target" if source_usage == BufferUsage.COPY_SRC else "source"
                with bench.refuses(BufferUsageError, words=(repr(wrong), "COPY_")):
                    bench.copy(source, target, 8)


@case("validation/cmds/copyBufferToBuffer:copy_size_alignment")
async def copy_size_alignment(bench: Bench) -> None:
    for size in (0, 2, 4, 5, 8):
        _check_copy(bench, 16, 0, 0, size, legal=size % 4 == 0)


@case("validation/cmds/copyBufferToBuffer:copy_offset_alignment")
async def copy_offset_alignment(bench: Bench) -> None:
    for source_offset in (0, 2, 4, 5, 8):
        for target_offset in (0, 2, 4, 5, 8):
            legal = source_offset % 4 == target_offset % 4 == 0
            _check_copy(bench, 16, source_offset, target_offset, 8, legal=legal)


@case("validation/cmds/copyBufferToBuffer:copy_overflow")
async def copy_overflow(bench: Bench) -> None:
    for huge in (MAX_SAFE, 2**32, 2**63 - 8, 2**64 - 16, 2**64 - 8, 2**64):
        for source_offset, target_offset, size in (
            (0, 0, huge), (16, 0, huge), (0, 16, huge),
            (huge, 0, 16), (0, huge, 16),
            (huge, 0, huge), (0, huge, huge), (huge, huge, huge), (huge, huge, 16),
        ):  # fmt: skip
            _check_copy(bench, 16, source_offset, target_offset, size, legal=False)


@case("validation/cmds/copyBufferToBuffer:copy_out_of_bounds")
async def copy_out_of_bounds(bench: Bench) -> None:
    for source_offset, target_offset, size, legal in (
        (0, 0, 32, True), (0, 0, 36, False),
        (36, 0, 4, False), (0, 36, 4, False),
        (36, 0, 0, False), (0, 36, 0, False), (32, 32, 0, True),
        (20, 0, 16, False), (20, 0, 12, True), (0, 20, 16, False), (0, 20, 12, True),
        # What is left of the source, by default.
        (0, 0, None, True), (20, 20, None, True), (32, 0, None, True), (36, 0, None, False),
        (0, 4, None, False), (-4, 0, 4, False), (0, -4, 4, False), (0, 0, -4, False),
    ):  # fmt: skip
        _check_copy(bench, 32, source_offset, target_offset, size, legal=legal)


@case("validation/cmds/copyBufferToBuffer:copy_within_same_buffer")
async def copy_within_same_buffer(bench: Bench) -> None:
    buffer = bench.buffer(16, COPY, "same")
    for source_offset, target_offset, size in ((0, 8, 4), (8, 0, 4), (0, 4, 8), (4, 0, 8)):
        encoder = bench.device.create_command_encoder()
        with bench.refuses(BufferUsageError, words=("'same'", "third buffer")):
            encoder.copy_buffer_to_buffer(buffer, source_offset, buffer, target_offset, size)


def _in_state(bench: Bench, state: str, usage: BufferUsage) -> IBuffer:
    if state == "invalid":
        return bench.invalid_buffer(16, usage, "wrong")
    buffer = bench.buffer(16, usage, "wrong" if state == "destroyed" else "right")
    if state == "destroyed":
        buffer.destroy()
    return buffer


def _check_copy(
    bench: Bench,
    buffer_size: int,
    source_offset: int,
    target_offset: int,
    size: int | None,
    *,
    legal: bool,
) -> None:
    source = bench.buffer(buffer_size, BufferUsage.COPY_SRC, "source")
    target = bench.buffer(buffer_size, BufferUsage.COPY_DST, "target")
    encoder = bench.device.create_command_encoder("copy")
    if legal:
        encoder.copy_buffer_to_buffer(source, source_offset, target, target_offset, size)
    else:
        with bench.refuses(BufferRangeError, words=("'copy'",)):
            encoder.copy_buffer_to_buffer(source, source_offset, target, target_offset, size)
    bench.device.queue.submit([encoder.finish()]).wait()
