"""``validation/buffer/mapping``: `unmap` is legal in any state (WebGPU §5.2, unmap)."""

from __future__ import annotations

from pers.buffers import BufferState, BufferUsage
from pers.errors import BufferStateError, MapAbortedError
from pers.testing.bench import MAP_USAGES, Bench
from pers.testing.case import case


@case("validation/buffer/mapping:unmap,state,unmapped")
async def unmapped(bench: Bench) -> None:
    for mode, usage in MAP_USAGES.items():
        buffer = bench.mappable(16, usage)
        for _ in range(2):
            buffer.unmap()
            assert buffer.state is BufferState.READY

        await buffer.map_async(mode)
        for _ in range(2):
            buffer.unmap()
            assert buffer.state is BufferState.READY

        mapped_at_creation = bench.mappable(16, usage, mapped=True)
        for _ in range(2):
            mapped_at_creation.unmap()
            assert mapped_at_creation.state is BufferState.READY


@case("validation/buffer/mapping:unmap,state,destroyed")
async def destroyed(bench: Bench) -> None:
    for mode, usage in MAP_USAGES.items():
        never_mapped = bench.mappable(16, usage)
        mapped = bench.mappable(16, usage)
        await mapped.map_async(mode)
        mapped_at_creation = bench.mappable(16, usage, mapped=True)
        for buffer in (never_mapped, mapped, mapped_at_creation):
            buffer.destroy()
            buffer.unmap()
            assert buffer.state is BufferState.DESTROYED


@case("validation/buffer/mapping:unmap,state,mappedAtCreation")
async def mapped_at_creation(bench: Bench) -> None:
    for usage in BufferUsage:
        buffer = bench.mappable(16, usage, mapped=True)
        assert buffer.is_mapped
        buffer.unmap()
        assert buffer.state is BufferState.READY


@case("validation/buffer/mapping:unmap,state,mapped")
async def mapped(bench: Bench) -> None:
    for mode, usage in MAP_USAGES.items():
        buffer = bench.mappable(16, usage, name="mapped")
        data = await buffer.map_async(mode)
        buffer.unmap()
        assert buffer.state is BufferState.READY
        with bench.refuses(BufferStateError, words=("'mapped'",)):
            data.read()


@case("validation/buffer/mapping:unmap,state,mappingPending")
async def mapping_pending(bench: Bench) -> None:
    for mode, usage in MAP_USAGES.items():
        buffer = bench.mappable(16, usage, name="pending")
        pending = bench.start_map(buffer, mode)
        buffer.unmap()
        assert buffer.state is BufferState.READY
        with bench.refuses(MapAbortedError, words=("'pending'", "unmapped")):
            await pending
        assert buffer.state is BufferState.READY
