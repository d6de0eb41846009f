"""``validation/buffer/create``: which descriptions make a buffer (WebGPU §5.1.3)."""

from __future__ import annotations

from itertools import combinations_with_replacement

from pers.buffers import BufferUsage
from pers.errors import BufferRangeError, BufferUsageError
from pers.testing.bench import MAP_READ, MAP_WRITE, MAX_SAFE, Bench
from pers.testing.case import case


@case("validation/buffer/create:size")
async def size(bench: Bench) -> None:
    for nbytes in (0, 2, 4, 10, 64, 4096):
        assert bench.buffer(nbytes).size == nbytes
        if nbytes % 4:
            with bench.refuses(BufferRangeError):
                bench.mappable(nbytes, mapped=True)
        else:
            assert bench.mappable(nbytes, mapped=True).is_mapped


@case("validation/buffer/create:limit")
async def limit(bench: Bench) -> None:
    largest = bench.device.limits.max_buffer_size
    with bench.refuses(BufferRangeError, words=("too big", str(largest + 1), str(largest))):
        bench.buffer(largest + 1, name="too big")


@case("validation/buffer/create:usage")
async def usage(bench: Bench) -> None:
    unknown = BufferUsage(0x8000)
    for one, other in combinations_with_replacement((BufferUsage.NONE, *BufferUsage, unknown), 2):
        combined = one | other
        for mapped in (False, True):
            if _is_legal(bench, combined) and not combined & unknown:
                made = bench.any_buffer(8, combined, mapped=mapped)
                assert (made.usage, made.size, made.is_valid) == (combined, 8, True)
            else:
                with bench.refuses(BufferUsageError):
                    bench.any_buffer(8, combined, mapped=mapped)


@case("validation/buffer/create:createBuffer_invalid_and_oom")
async def invalid_and_oom(bench: Bench) -> None:
    for usage in (BufferUsage.UNIFORM, BufferUsage.STORAGE):
        assert bench.any_buffer(16, usage).is_valid
    for mapping in (BufferUsage.MAP_READ, BufferUsage.MAP_WRITE):
        usage = mapping | BufferUsage.UNIFORM
        for nbytes in (16, 128 * 2**30, MAX_SAFE):
            if not _is_legal(bench, usage):
                with bench.refuses(BufferUsageError, words=("huge", "UNIFORM")):
                    bench.any_buffer(nbytes, usage, name="huge")
            elif nbytes > bench.device.limits.max_buffer_size:
                with bench.refuses(BufferRangeError, words=("huge", str(nbytes))):
                    bench.any_buffer(nbytes, usage, name="huge")


def _is_legal(bench: Bench, usage: BufferUsage) -> bool:
    """Whether the usages can be combined (WebGPU §5.1.3, createBuffer)."""
    if usage == BufferUsage.NONE:
        return False
    if "mappable-primary-buffers" in bench.device.features:
        return True
    return all(
        not usage & flag or not usage & ~allowed
        for flag, allowed in (
            (BufferUsage.MAP_READ, MAP_READ),
            (BufferUsage.MAP_WRITE, MAP_WRITE),
        )
    )
