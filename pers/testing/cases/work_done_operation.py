"""``operation/onSubmittedWorkDone``: when submitted work has ended, and in which order.

WebGPU §19.3: a map asked for before "work done" settles first, and "work done" comes in call order.
"""

from __future__ import annotations

import anyio

from pers.buffers import MapMode, MappedRange
from pers.graphics import Submission
from pers.testing.bench import MAP_READ, MAP_WRITE, Attempt, Bench
from pers.testing.case import case


@case("operation/onSubmittedWorkDone:without_work")
async def without_work(bench: Bench) -> None:
    await bench.device.queue.on_work_done().done()


@case("operation/onSubmittedWorkDone:with_work")
async def with_work(bench: Bench) -> None:
    buffer = bench.buffer(4)
    bench.device.queue.write_buffer(buffer, 0, b"work")
    await bench.device.queue.on_work_done().done()
    assert bench.read(buffer).tobytes() == b"work"
    await maps_settle_first(bench)


async def maps_settle_first(bench: Bench) -> None:
    """Who learns that work is done finds the maps settled that were asked for before."""
    source, target = bench.mappable(64, MAP_WRITE), bench.mappable(64, MAP_READ)
    maps = [Attempt[MappedRange](), Attempt[MappedRange]()]
    async with anyio.create_task_group() as tasks:
        with bench.occupied(lambda e: e.copy_buffer_to_buffer(source, 0, target, 0)) as busy:
            await maps[0].start(tasks, source.map_async, MapMode.WRITE)
            await maps[1].start(tasks, target.map_async, MapMode.READ)
            assert source.is_map_pending
            assert target.is_map_pending
            assert not busy.is_done
            after = bench.device.queue.on_work_done()
        await after.done()
        assert source.is_mapped
        assert target.is_mapped
        assert busy.is_done
    assert [attempt.result.nbytes for attempt in maps] == [64, 64]


@case("operation/onSubmittedWorkDone:many,serial")
async def many_serial(bench: Bench) -> None:
    for _ in range(1000):
        await bench.device.queue.on_work_done().done()


@case("operation/onSubmittedWorkDone:many,parallel")
async def many_parallel(bench: Bench) -> None:
    ended: list[Submission] = []

    async def wait_for(submission: Submission) -> None:
        await submission.done()
        ended.append(submission)

    async with anyio.create_task_group() as tasks:
        with bench.occupied(lambda encoder: None) as busy:
            for _ in range(1000):
                tasks.start_soon(wait_for, busy)
            await anyio.lowlevel.checkpoint()  # drivers may block in a submit behind busy work
        for _ in range(1000):
            tasks.start_soon(wait_for, bench.device.queue.on_work_done())
    assert len(ended) == 2000
    assert all(submission.is_done for submission in ended)


@case("operation/onSubmittedWorkDone:many,parallel_order")
async def many_parallel_order(bench: Bench) -> None:
    """Whoever learns that a call is done finds all earlier ones done."""
    with bench.occupied(lambda encoder: None) as busy:
        submissions = [busy, *(bench.device.queue.on_work_done() for _ in range(200))]
    serials = [submission.serial for submission in submissions]
    assert serials == list(range(serials[0], serials[0] + 201))
    resolved: list[int] = []

    async def wait_for(index: int, submission: Submission) -> None:
        await submission.done()
        assert all(earlier.is_done for earlier in reversed(submissions[:index]))
        resolved.append(index)

    async with anyio.create_task_group() as tasks:
        for index, submission in reversed(list(enumerate(submissions))):
            tasks.start_soon(wait_for, index, submission)
        for _ in range(10):
            done = [submission.is_done for submission in reversed(submissions)]
            assert done == sorted(done), "a later call was done before an earlier one"
            await anyio.lowlevel.checkpoint()
    assert sorted(resolved) == list(range(201))
