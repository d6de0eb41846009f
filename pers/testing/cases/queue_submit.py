"""``validation/queue/submit``: each command buffer once (WebGPU §19.2, submit)."""

from __future__ import annotations

import numpy as np

from pers.buffers import IBuffer
from pers.errors import BufferStateError, ValidationError
from pers.graphics import ICommandBuffer
from pers.testing.bench import Bench
from pers.testing.case import case, not_applicable

not_applicable(
    "validation/queue/submit:command_buffer,invalid_submit_invalidates",
    "pers refuses before the device has seen anything, so the command buffers of a refused submit "
    "stay as they were, and the submit may be repeated when its cause is gone; see "
    "pers/queue/submit:refused_submit_changes_nothing",
)


@case("validation/queue/submit:command_buffer,duplicate_buffers")
async def duplicate_buffers(bench: Bench) -> None:
    target = bench.filled(np.full(4, 7, np.uint32))
    commands = _clear(bench, target)
    with bench.refuses(ValidationError, words=("twice",)):
        bench.device.queue.submit([commands, commands])
    assert np.all(bench.read(target, np.uint32) == 7)


@case("validation/queue/submit:command_buffer,submit_invalidates")
async def submit_invalidates(bench: Bench) -> None:
    target = bench.filled(np.full(4, 7, np.uint32))
    commands = _clear(bench, target)
    bench.device.queue.submit([commands])
    assert np.all(bench.read(target, np.uint32) == 0)
    bench.device.queue.write_buffer(target, 0, np.full(4, 7, np.uint32))
    with bench.refuses(ValidationError, words=("'clear'", "before")):
        bench.device.queue.submit([commands])
    assert np.all(bench.read(target, np.uint32) == 7)


@case("pers/queue/submit:refused_submit_changes_nothing")
async def refused_submit_changes_nothing(bench: Bench) -> None:
    for valid_first in (True, False):
        target = bench.filled(np.full(4, 7, np.uint32))
        mapped = bench.mappable(16, mapped=True, name="mapped")
        encoder = bench.device.create_command_encoder("copy")
        encoder.copy_buffer_to_buffer(mapped, 0, bench.buffer(16), 0)
        both = [_clear(bench, target), encoder.finish()]
        if not valid_first:
            both.reverse()
        with bench.refuses(BufferStateError, words=("'copy'", "'mapped'", "unmap")):
            bench.device.queue.submit(both)
        assert np.all(bench.read(target, np.uint32) == 7)
        mapped.unmap()
        bench.device.queue.submit(both)
        assert np.all(bench.read(target, np.uint32) == 0)


def _clear(bench: Bench, target: IBuffer) -> ICommandBuffer:
    encoder = bench.device.create_command_encoder("clear")
    encoder.clear_buffer(target)
    return encoder.finish()
