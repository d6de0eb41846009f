"""``validation/queue/buffer_mapped``: the GPU gets no buffer that is mapped (WebGPU §19.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pers.buffers import BufferUsage, IBuffer, MapMode
from pers.errors import BufferStateError
from pers.graphics import ICommandBuffer, TextureDescriptor
from pers.testing.bench import MAP_READ, MAP_WRITE, Bench
from pers.testing.case import case
from pers.textures import ITexture, TextureFormat, TextureUsage

Use = Callable[[IBuffer], object]


@case("validation/queue/buffer_mapped:writeBuffer")
async def write_buffer(bench: Bench) -> None:
    data = np.array([42], np.uint32)
    await _check_use(bench, MAP_READ, lambda b: bench.device.queue.write_buffer(b, 0, data))


@case("validation/queue/buffer_mapped:copyBufferToBuffer")
async def copy_buffer_to_buffer(bench: Bench) -> None:
    source = bench.buffer(8, BufferUsage.COPY_SRC)
    target = bench.buffer(8, BufferUsage.COPY_DST)
    await _check_use(bench, MAP_WRITE, lambda buffer: bench.copy(buffer, target, 4))
    await _check_use(bench, MAP_READ, lambda buffer: bench.copy(source, buffer, 4))


@case("validation/queue/buffer_mapped:copyBufferToTexture")
async def copy_buffer_to_texture(bench: Bench) -> None:
    texture = _pixel(bench, TextureUsage.COPY_DST)

    def use(buffer: IBuffer) -> None:
        bench.submit(lambda encoder: encoder.copy_buffer_to_texture(buffer, texture))

    await _check_use(bench, MAP_WRITE, use)


@case("validation/queue/buffer_mapped:copyTextureToBuffer")
async def copy_texture_to_buffer(bench: Bench) -> None:
    texture = _pixel(bench, TextureUsage.COPY_SRC)

    def use(buffer: IBuffer) -> None:
        bench.submit(lambda encoder: encoder.copy_texture_to_buffer(texture, buffer))

    await _check_use(bench, MAP_READ, use)


@case("validation/queue/buffer_mapped:map_command_recording_order")
async def map_command_recording_order(bench: Bench) -> None:
    for order in (
        "record map unmap finish submit",
        "record map finish unmap submit",
        "record finish map unmap submit",
        "map record unmap finish submit",
        "map record finish unmap submit",
        "map record finish submit unmap",
        "record map finish submit unmap",
        "record finish map submit unmap",
    ):
        await _check_order(bench, order.split(), mapped_at_creation=False)
    for order in (
        "record unmap finish submit",
        "record finish unmap submit",
        "record finish submit unmap",
    ):
        await _check_order(bench, order.split(), mapped_at_creation=True)


async def _check_order(bench: Bench, order: Sequence[str], *, mapped_at_creation: bool) -> None:
    source = bench.mappable(4, MAP_WRITE, mapped=mapped_at_creation, name="source")
    target = bench.buffer(4, BufferUsage.COPY_DST)
    encoder = bench.device.create_command_encoder("order")
    commands: list[ICommandBuffer] = []
    for step in order:
        if step == "record":
            encoder.copy_buffer_to_buffer(source, 0, target, 0, 4)
        elif step == "map":
            await source.map_async(MapMode.WRITE)
        elif step == "unmap":
            source.unmap()
        elif step == "finish":
            commands.append(encoder.finish())
        elif order[-1] == "submit":
            bench.device.queue.submit(commands)
        else:
            with bench.refuses(BufferStateError, words=("'source'", "mapped")):
                bench.device.queue.submit(commands)


async def _check_use(bench: Bench, usage: BufferUsage, use: Use) -> None:
    """Check that a buffer can be used in some way exactly while it is not mapped."""
    mode = MapMode.READ if usage & BufferUsage.MAP_READ else MapMode.WRITE
    buffer = bench.mappable(8, usage, name="used")
    other = bench.mappable(8, usage, name="other")
    use(buffer)

    pending = bench.start_map(buffer, mode)
    with bench.refuses(BufferStateError, words=("'used'", "map pending")):
        use(buffer)
    assert buffer.is_map_pending
    use(other)
    await pending

    with bench.refuses(BufferStateError, words=("'used'", "mapped")):
        use(buffer)
    use(other)
    buffer.mapped_range()
    with bench.refuses(BufferStateError, words=("'used'", "mapped")):
        use(buffer)
    buffer.unmap()
    use(buffer)

    born_mapped = bench.mappable(8, usage, mapped=True, name="used")
    with bench.refuses(BufferStateError, words=("'used'", "mapped")):
        use(born_mapped)
    use(other)
    born_mapped.unmap()
    use(born_mapped)


def _pixel(bench: Bench, usage: TextureUsage) -> ITexture:
    return bench.device.create_texture(TextureDescriptor(1, 1, TextureFormat.RGBA8_UNORM, usage))
