"""``validation/cmds/clearBuffer``: which clears are recorded (WebGPU §13.4)."""

from __future__ import annotations

from pers.buffers import BufferUsage
from pers.errors import BufferRangeError, BufferStateError, BufferUsageError, ValidationError
from pers.testing.bench import MAX_SAFE, Bench
from pers.testing.case import case


@case("validation/cmds/clearBuffer:buffer_state")
async def buffer_state(bench: Bench) -> None:
    valid = bench.buffer(8, BufferUsage.COPY_DST)
    bench.submit(lambda encoder: encoder.clear_buffer(valid, 0, 8)).wait()

    destroyed = bench.buffer(8, BufferUsage.COPY_DST, "destroyed")
    destroyed.destroy()
    with bench.refuses(BufferStateError, words=("'destroyed'",)):
        bench.submit(lambda encoder: encoder.clear_buffer(destroyed, 0, 8))

    invalid = bench.invalid_buffer(8, BufferUsage.COPY_DST)
    with bench.refuses(BufferStateError, ValidationError, words=("'invalid'",)):
        bench.submit(lambda encoder: encoder.clear_buffer(invalid, 0, 8))


@case("validation/cmds/clearBuffer:default_args")
async def default_args(bench: Bench) -> None:
    buffer = bench.buffer(16, BufferUsage.COPY_DST)
    bench.submit(lambda encoder: encoder.clear_buffer(buffer)).wait()
    bench.submit(lambda encoder: encoder.clear_buffer(buffer, 4)).wait()
    bench.submit(lambda encoder: encoder.clear_buffer(buffer, size=8)).wait()


@case("validation/cmds/clearBuffer:buffer_usage")
async def buffer_usage(bench: Bench) -> None:
    for usage in BufferUsage:
        buffer = bench.any_buffer(16, usage, name="target")
        encoder = bench.device.create_command_encoder()
        if usage == BufferUsage.COPY_DST:
            encoder.clear_buffer(buffer, 0, 16)
        else:
            with bench.refuses(BufferUsageError, words=("'target'", "COPY_DST")):
                encoder.clear_buffer(buffer, 0, 16)


@case("validation/cmds/clearBuffer:size_alignment")
async def size_alignment(bench: Bench) -> None:
    for size, legal in (
        (0, True), (2, False), (4, True), (5, False), (8, True), (20, False), (None, True),
    ):  # fmt: skip
        _check_clear(bench, 16, 0, size, legal=legal)


@case("validation/cmds/clearBuffer:offset_alignment")
async def offset_alignment(bench: Bench) -> None:
    for offset, legal in ((0, True), (2, False), (4, True), (5, False), (8, True), (20, False)):
        _check_clear(bench, 16, offset, 8, legal=legal)


@case("validation/cmds/clearBuffer:overflow")
async def overflow(bench: Bench) -> None:
    for huge in (MAX_SAFE, 2**32, 2**63 - 8, 2**64 - 16, 2**64 - 8, 2**64):
        for offset, size in ((0, huge), (16, huge), (huge, 16), (huge, huge), (huge, None)):
            _check_clear(bench, 16, offset, size, legal=False)


@case("validation/cmds/clearBuffer:out_of_bounds")
async def out_of_bounds(bench: Bench) -> None:
    for offset, size, legal in (
        (0, 32, True), (0, 36, False),
        (32, 0, True), (32, 4, False), (36, 4, False), (36, 0, False), (36, None, False),
        (20, 16, False), (20, 12, True), (-4, 4, False), (0, -4, False),
    ):  # fmt: skip
        _check_clear(bench, 32, offset, size, legal=legal)


def _check_clear(
    bench: Bench, buffer_size: int, offset: int, size: int | None, *, legal: bool
) -> None:
    buffer = bench.buffer(buffer_size, BufferUsage.COPY_DST, "target")
    encoder = bench.device.create_command_encoder("clear")
    if legal:
        encoder.clear_buffer(buffer, offset, size)
    else:
        with bench.refuses(BufferRangeError, words=("'clear'",)):
            encoder.clear_buffer(buffer, offset, size)
    bench.device.queue.submit([encoder.finish()]).wait()
