"""``validation/buffer/destroy``: a buffer may be destroyed in any state (WebGPU §5.1.4)."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from pers.buffers import BufferState, BufferUsage, IMappableBuffer, MapMode
from pers.errors import BufferStateError, BufferUsageError
from pers.testing.bench import MAP_READ, MAP_USAGES, MAP_WRITE, Bench
from pers.testing.case import case


@case("validation/buffer/destroy:all_usages")
async def all_usages(bench: Bench) -> None:
    for usage in BufferUsage:
        buffer = bench.any_buffer(4, usage)
        buffer.destroy()
        assert buffer.state is BufferState.DESTROYED
        assert not buffer.is_valid


@case("validation/buffer/destroy:error_buffer")
async def error_buffer(bench: Bench) -> None:
    with bench.refuses(BufferUsageError):  # nothing is made that could be destroyed
        bench.buffer(4, BufferUsage(0x8000))
    buffer = bench.invalid_buffer(4, BufferUsage.COPY_SRC)
    buffer.destroy()
    assert not buffer.is_valid


@case("validation/buffer/destroy:twice")
async def twice(bench: Bench) -> None:
    for usage in (BufferUsage.COPY_SRC, MAP_WRITE, MAP_READ):
        for mapped in (False, True):
            buffer = bench.any_buffer(4, usage, mapped=mapped)
            for _ in range(2):
                buffer.destroy()
                assert buffer.state is BufferState.DESTROYED


@case("validation/buffer/destroy:while_mapped")
async def while_mapped(bench: Bench) -> None:
    async for buffer in _mapped_buffers(bench):
        mapped = buffer.mapped_data
        buffer.destroy()
        assert buffer.state is BufferState.DESTROYED
        with bench.refuses(BufferStateError, words=("'mapped'",)):
            mapped.read()
        bench.refuses_range(buffer, BufferStateError)


@case("validation/buffer/destroy:after_unmapped")
async def after_unmapped(bench: Bench) -> None:
    async for buffer in _mapped_buffers(bench):
        buffer.unmap()
        buffer.destroy()
        assert buffer.state is BufferState.DESTROYED


async def _mapped_buffers(bench: Bench) -> AsyncGenerator[IMappableBuffer]:
    for usage in (BufferUsage.COPY_SRC, MAP_WRITE, MAP_READ):
        yield bench.mappable(4, usage, mapped=True, name="mapped")
    for mode, usage in MAP_USAGES.items():
        buffer = bench.mappable(4, usage, name="mapped")
        await buffer.map_async(MapMode(mode))
        yield buffer
