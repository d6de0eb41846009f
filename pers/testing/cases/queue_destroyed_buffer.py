"""``validation/queue/destroyed/buffer``: the GPU gets no destroyed buffer (WebGPU §19.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from pers.buffers import BufferUsage, IBuffer
from pers.errors import BufferStateError
from pers.graphics import (
    BindGroupLayout,
    BindingLayout,
    ICommandBuffer,
    ShaderStage,
    TextureDescriptor,
)
from pers.testing.bench import PASS_KINDS, Bench, PassKind
from pers.testing.case import case
from pers.textures import TextureFormat, TextureUsage


@case("validation/queue/destroyed/buffer:writeBuffer")
async def write_buffer(bench: Bench) -> None:
    data = np.zeros(4, np.uint8)
    buffer = bench.buffer(4, BufferUsage.COPY_DST, "destroyed")
    bench.device.queue.write_buffer(buffer, 0, data)
    buffer.destroy()
    with bench.refuses(BufferStateError, words=("'destroyed'",)):
        bench.device.queue.write_buffer(buffer, 0, data)


@case("validation/queue/destroyed/buffer:copyBufferToBuffer")
async def copy_buffer_to_buffer(bench: Bench) -> None:
    for which in ((), (0,), (1,), (0, 1)):
        source = bench.buffer(4, BufferUsage.COPY_SRC, "destroyed")
        target = bench.buffer(4, BufferUsage.COPY_DST, "destroyed")
        encoder = bench.device.create_command_encoder()
        encoder.copy_buffer_to_buffer(source, 0, target, 0, 4)
        _check_submit(bench, encoder.finish(), [(source, target)[index] for index in which])


@case("validation/queue/destroyed/buffer:copyBufferToTexture")
async def copy_buffer_to_texture(bench: Bench) -> None:
    texture = bench.device.create_texture(
        TextureDescriptor(1, 1, TextureFormat.RGBA8_UNORM, TextureUsage.COPY_DST)
    )
    for is_destroyed in (False, True):
        buffer = bench.buffer(4, BufferUsage.COPY_SRC, "destroyed")
        encoder = bench.device.create_command_encoder()
        encoder.copy_buffer_to_texture(buffer, texture)
        _check_submit(bench, encoder.finish(), [buffer] * is_destroyed)


@case("validation/queue/destroyed/buffer:copyTextureToBuffer")
async def copy_texture_to_buffer(bench: Bench) -> None:
    texture = bench.device.create_texture(
        TextureDescriptor(1, 1, TextureFormat.RGBA8_UNORM, TextureUsage.COPY_SRC)
    )
    for is_destroyed in (False, True):
        buffer = bench.buffer(4, BufferUsage.COPY_DST, "destroyed")
        encoder = bench.device.create_command_encoder()
        encoder.copy_texture_to_buffer(texture, buffer)
        _check_submit(bench, encoder.finish(), [buffer] * is_destroyed)


@case("validation/queue/destroyed/buffer:setBindGroup")
async def set_bind_group(bench: Bench) -> None:
    stages = ShaderStage.COMPUTE | ShaderStage.VERTEX
    layout = BindGroupLayout([BindingLayout(0, "uniform", stages)])

    def use(buffer: IBuffer, commands: Any) -> None:
        commands.set_bind_group(0, bench.device.create_bind_group(layout, {0: buffer}))

    _check_passes(bench, PASS_KINDS, BufferUsage.UNIFORM, use)


@case("validation/queue/destroyed/buffer:setVertexBuffer")
async def set_vertex_buffer(bench: Bench) -> None:
    def use(buffer: IBuffer, commands: Any) -> None:
        commands.set_vertex_buffer(0, buffer)

    _check_passes(bench, PASS_KINDS[1:], BufferUsage.VERTEX, use)


@case("validation/queue/destroyed/buffer:setIndexBuffer")
async def set_index_buffer(bench: Bench) -> None:
    def use(buffer: IBuffer, commands: Any) -> None:
        commands.set_index_buffer(buffer, "uint16")

    _check_passes(bench, PASS_KINDS[1:], BufferUsage.INDEX, use)


@case("validation/queue/destroyed/buffer:resolveQuerySet")
async def resolve_query_set(bench: Bench) -> None:
    for is_destroyed in (False, True):
        buffer = bench.buffer(8, BufferUsage.QUERY_RESOLVE, "destroyed")
        encoder = bench.device.create_command_encoder()
        encoder.resolve_query_set(bench.device.create_query_set("occlusion", 1), 0, 1, buffer)
        _check_submit(bench, encoder.finish(), [buffer] * is_destroyed)


def _check_passes(
    bench: Bench,
    kinds: Sequence[PassKind],
    usage: BufferUsage,
    use: Callable[[IBuffer, Any], object],
) -> None:
    for kind in kinds:
        for is_destroyed in (False, True):
            buffer = bench.buffer(4, usage, "destroyed")
            commands = bench.record_in(kind, partial(use, buffer))
            _check_submit(bench, commands, [buffer] * is_destroyed)


def _check_submit(bench: Bench, commands: ICommandBuffer, destroy: Sequence[IBuffer]) -> None:
    for buffer in destroy:
        buffer.destroy()
    if destroy:
        with bench.refuses(BufferStateError, words=("'destroyed'", "create a new one")):
            bench.device.queue.submit([commands])
        bench.device.queue.submit([]).wait()  # the queue works on
    else:
        bench.device.queue.submit([commands]).wait()
