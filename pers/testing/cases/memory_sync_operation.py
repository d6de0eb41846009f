"""``operation/memory_sync/buffer``: reads and writes happen as if one after the other.

WebGPU §3.4.5 (synchronization): single_buffer and multiple_buffers. A device that runs no shaders
does the copies and queue writes among the combinations.
"""

from __future__ import annotations

import itertools

import numpy as np

from pers.graphics import IRenderCommands
from pers.testing.bench import Bench
from pers.testing.case import Skip, case
from pers.testing.cases._memory_sync import (
    COLOR,
    TARGET,
    Boundary,
    Operations,
    Program,
    Read,
    Write,
    pairs,
    writes_value,
)

MULTIPLE = 4


def read_then_write(bench: Bench, count: int) -> None:
    """The read does not see what is written after it."""
    operations = Operations(bench)
    for boundary in Boundary:
        for read, place, write, other in pairs(bench, boundary, Read, Write):
            sources = [operations.source(read, 0) for _ in range(count)]
            targets = [operations.words(0) for _ in range(count)]
            recorder = operations.recorder()
            for source, target in zip(sources, targets, strict=True):
                operations.read(recorder, read, place, source, target)
            recorder.separate(boundary)
            for source in sources:
                operations.write(recorder, write, other, source, 1)
            recorder.submit()
            actual = operations.first_words(*targets, *sources)
            assert actual == [0] * count + [1] * count, (boundary, read, place, write, other)


def write_then_read(bench: Bench, count: int) -> None:
    """The read sees exactly what was written before it."""
    operations = Operations(bench)
    for boundary in Boundary:
        for write, place, read, other in pairs(bench, boundary, Write, Read):
            sources = [operations.source(read, 0) for _ in range(count)]
            targets = [operations.words(0) for _ in range(count)]
            recorder = operations.recorder()
            for source in sources:
                operations.write(recorder, write, place, source, 1)
            recorder.separate(boundary)
            for source, target in zip(sources, targets, strict=True):
                operations.read(recorder, read, other, source, target)
            recorder.submit()
            actual = operations.first_words(*targets)
            assert actual == [1] * count, (boundary, write, place, read, other)


def write_then_write(bench: Bench, count: int) -> None:
    """The second write wins."""
    operations = Operations(bench)
    for boundary in Boundary:
        for write, place, again, other in pairs(bench, boundary, Write, Write):
            buffers = [operations.words(0) for _ in range(count)]
            recorder = operations.recorder()
            for buffer in buffers:
                operations.write(recorder, write, place, buffer, 1)
            recorder.separate(boundary)
            for buffer in buffers:
                operations.write(recorder, again, other, buffer, 2)
            recorder.submit()
            actual = operations.first_words(*buffers)
            assert actual == [2] * count, (boundary, write, place, again, other)


@case("operation/memory_sync/buffer/single_buffer:rw")
async def single_read_write(bench: Bench) -> None:
    read_then_write(bench, 1)


@case("operation/memory_sync/buffer/single_buffer:wr")
async def single_write_read(bench: Bench) -> None:
    write_then_read(bench, 1)


@case("operation/memory_sync/buffer/single_buffer:ww")
async def single_write_write(bench: Bench) -> None:
    write_then_write(bench, 1)


@case("operation/memory_sync/buffer/multiple_buffers:rw")
async def multiple_read_write(bench: Bench) -> None:
    read_then_write(bench, MULTIPLE)


@case("operation/memory_sync/buffer/multiple_buffers:wr")
async def multiple_write_read(bench: Bench) -> None:
    write_then_read(bench, MULTIPLE)


@case("operation/memory_sync/buffer/multiple_buffers:ww")
async def multiple_write_write(bench: Bench) -> None:
    write_then_write(bench, MULTIPLE)


def needs_shaders(bench: Bench) -> None:
    if not bench.device.info.executes_shaders:
        raise Skip("the device runs no shaders")


def two_draws(bench: Bench, count: int) -> None:
    """Two draws of one render pass, each in a bundle or not, leave one of their numbers."""
    needs_shaders(bench)
    operations = Operations(bench)
    for bundled in itertools.product((False, True), repeat=2):
        buffers = [operations.words(0) for _ in range(count)]
        encoder = bench.device.create_command_encoder("two draws")
        with encoder.begin_render_pass(operations.frame) as render_pass:
            for value, in_bundle in enumerate(bundled, 1):
                bundle = bench.device.create_render_bundle_encoder((COLOR,))
                draws: IRenderCommands = bundle if in_bundle else render_pass
                for buffer in buffers:
                    operations.draw(draws, writes_value(value), buffer)
                if in_bundle:
                    render_pass.execute_bundles([bundle.finish()])
        bench.device.queue.submit([encoder.finish()])
        assert set(operations.first_words(*buffers)) <= {1, 2}, bundled


def two_draws_in_a_bundle(bench: Bench, count: int) -> None:
    """Two draws of one bundle leave one of their numbers."""
    needs_shaders(bench)
    operations = Operations(bench)
    buffers = [operations.words(0) for _ in range(count)]
    bundle = bench.device.create_render_bundle_encoder((COLOR,))
    for value in (1, 2):
        for buffer in buffers:
            operations.draw(bundle, writes_value(value), buffer)
    encoder = bench.device.create_command_encoder("two draws in a bundle")
    with encoder.begin_render_pass(operations.frame) as render_pass:
        render_pass.execute_bundles([bundle.finish()])
    bench.device.queue.submit([encoder.finish()])
    assert set(operations.first_words(*buffers)) <= {1, 2}


def two_dispatches(bench: Bench, count: int) -> None:
    """Each dispatch is synchronized with the one before, so the second one wins."""
    needs_shaders(bench)
    operations = Operations(bench)
    buffers = [operations.words(0) for _ in range(count)]
    encoder = bench.device.create_command_encoder("two dispatches")
    with encoder.begin_compute_pass() as compute_pass:
        for value in (1, 2):
            for buffer in buffers:
                operations.dispatch(compute_pass, writes_value(value), buffer)
    bench.device.queue.submit([encoder.finish()])
    assert operations.first_words(*buffers) == [2] * count


@case("operation/memory_sync/buffer/single_buffer:two_draws_in_the_same_render_pass")
async def single_two_draws(bench: Bench) -> None:
    two_draws(bench, 1)


@case("operation/memory_sync/buffer/single_buffer:two_draws_in_the_same_render_bundle")
async def single_two_draws_in_a_bundle(bench: Bench) -> None:
    two_draws_in_a_bundle(bench, 1)


@case("operation/memory_sync/buffer/single_buffer:two_dispatches_in_the_same_compute_pass")
async def single_two_dispatches(bench: Bench) -> None:
    two_dispatches(bench, 1)


@case("operation/memory_sync/buffer/multiple_buffers:multiple_pairs_of_draws_in_one_render_pass")
async def multiple_two_draws(bench: Bench) -> None:
    two_draws(bench, MULTIPLE)


@case("operation/memory_sync/buffer/multiple_buffers:multiple_pairs_of_draws_in_one_render_bundle")
async def multiple_two_draws_in_a_bundle(bench: Bench) -> None:
    two_draws_in_a_bundle(bench, MULTIPLE)


@case(
    "operation/memory_sync/buffer/multiple_buffers:multiple_pairs_of_dispatches_in_one_compute_pass"
)
async def multiple_two_dispatches(bench: Bench) -> None:
    two_dispatches(bench, MULTIPLE)


COUNT_ALONG = """
@group(0) @binding(0) var<storage, read_write> data: array<u32>;

@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
    let i = id.x;
    data[i] = OPERATION;
}
"""


@case("operation/memory_sync/buffer/single_buffer:multiple_dispatches_in_the_same_compute_pass")
async def single_many_dispatches(bench: Bench) -> None:
    """Dispatches that each change what the one before left come to what they do in order."""
    needs_shaders(bench)
    operations = Operations(bench)
    buffer = operations.words(*[0] * 512)
    encoder = bench.device.create_command_encoder("many dispatches")
    with encoder.begin_compute_pass() as compute_pass:
        for operation in ("i * 2u", "data[i] + 2u", "data[i] / 2u", "data[i] - 1u"):
            program = Program(COUNT_ALONG.replace("OPERATION", operation), TARGET)
            operations.dispatch(compute_pass, program, buffer, groups=8)
    bench.device.queue.submit([encoder.finish()])
    assert bench.read(buffer, np.uint32).tolist() == list(range(512))
