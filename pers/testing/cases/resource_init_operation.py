"""``operation/resource_init/buffer``: what was never written is zero, however it is first read.

WebGPU §5.1.3 (contents are zero) and §2.2.2 (nothing of another program can be seen).
"""

from __future__ import annotations

import functools
import itertools

import numpy as np

from pers.buffers import BufferUsage, IBuffer, IMappableBuffer, MapMode
from pers.graphics import (
    BindGroupLayout,
    BindingLayout,
    BufferBinding,
    ColorTarget,
    ComputePipelineDescriptor,
    ICommandEncoder,
    IFrameBuffer,
    IPipeline,
    ITexture,
    RenderPipelineDescriptor,
    ShaderStage,
    TexelCopyBufferInfo,
    TexelCopyTextureInfo,
    TextureDescriptor,
    TextureFormat,
    TextureRows,
    TextureUsage,
    VertexAttribute,
    VertexLayout,
)
from pers.graphics.types import BindingKind
from pers.testing.bench import MAP_READ, MAP_WRITE, Bench
from pers.testing.case import CaseFunction, Skip, case

OFFSETS = (0, 8, -12)
"""The start, the middle and the end of a buffer of 32 bytes."""

GREEN = bytes((0, 255, 0, 255))
CREATION_USAGES = (MAP_READ, MAP_WRITE, BufferUsage.COPY_SRC)


def on_dirty_memory(function: CaseFunction) -> CaseFunction:
    """Run a case where memory that was used and given back is likely to be used again."""

    @functools.wraps(function)
    async def run(bench: Bench) -> None:
        dirt = np.full(2048, 0xAA, np.uint8)
        buffers: list[IBuffer] = []
        for usage in (MAP_READ, MAP_WRITE, BufferUsage.COPY_SRC, BufferUsage.UNIFORM):
            for size in (32, 48, 256, 272, 2048):
                dirty = bench.mappable(size, usage, mapped=True, name="dirty")
                dirty.mapped_data.write(dirt[:size])
                dirty.unmap()
                buffers.append(dirty)
        await bench.device.queue.on_work_done().done()
        while buffers:
            buffers.pop().destroy()
        await bench.device.queue.on_work_done().done()
        await function(bench)

    return run


async def content(bench: Bench, buffer: IBuffer) -> bytes:
    """All bytes of a buffer, by a copy or (for a readback buffer) by a map."""
    if buffer.usage & BufferUsage.COPY_SRC:
        return (await bench.device.read_array(buffer)).tobytes()
    assert isinstance(buffer, IMappableBuffer)
    mapped = await buffer.map_async(MapMode.READ)
    data = mapped.read()
    buffer.unmap()
    return data


@case("operation/resource_init/buffer:partial_write_buffer")
@on_dirty_memory
async def partial_write(bench: Bench) -> None:
    data = bytes(range(1, 13))
    for offset in OFFSETS:
        start = offset % 32
        buffer = bench.buffer(32)
        bench.device.queue.write_buffer(buffer, start, data)
        expected = bytes(start) + data + bytes(32 - start - len(data))
        assert await content(bench, buffer) == expected, offset


@case("operation/resource_init/buffer:map_whole_buffer")
@on_dirty_memory
async def map_whole(bench: Bench) -> None:
    for mode, usage in ((MapMode.READ, MAP_READ), (MapMode.WRITE, MAP_WRITE)):
        buffer = bench.mappable(32, usage)
        mapped = await buffer.map_async(mode)
        assert mapped.read() == bytes(32)
        buffer.unmap()
        assert await content(bench, buffer) == bytes(32), mode


@case("operation/resource_init/buffer:map_partial_buffer")
@on_dirty_memory
async def map_partial(bench: Bench) -> None:
    data = bytes(range(1, 17))
    for (mode, usage), offset in itertools.product(
        ((MapMode.READ, MAP_READ), (MapMode.WRITE, MAP_WRITE)), (0, 8, 16)
    ):
        buffer = bench.mappable(32, usage)
        mapped = await buffer.map_async(mode, offset, 16)
        assert mapped.read() == bytes(16)
        if mode is MapMode.WRITE:
            mapped.write(data)
        buffer.unmap()
        inner = data if mode is MapMode.WRITE else bytes(16)
        expected = bytes(offset) + inner + bytes(16 - offset)
        assert await content(bench, buffer) == expected, (mode, offset)


@case("operation/resource_init/buffer:mapped_at_creation_whole_buffer")
@on_dirty_memory
async def mapped_at_creation_whole(bench: Bench) -> None:
    for usage in CREATION_USAGES:
        buffer = bench.mappable(32, usage, mapped=True)
        assert buffer.mapped_range().read() == bytes(32)
        buffer.unmap()
        assert await content(bench, buffer) == bytes(32), usage


@case("operation/resource_init/buffer:mapped_at_creation_partial_buffer")
@on_dirty_memory
async def mapped_at_creation_partial(bench: Bench) -> None:
    data = bytes(range(1, 13))
    for usage, offset in itertools.product(CREATION_USAGES, (0, 8, 16)):
        buffer = bench.mappable(32, usage, mapped=True)
        mapped = buffer.mapped_range(offset, 12)
        assert mapped.read() == bytes(12)
        mapped.write(data)
        buffer.unmap()
        expected = bytes(offset) + data + bytes(20 - offset)
        assert await content(bench, buffer) == expected, (usage, offset)


@case("operation/resource_init/buffer:copy_buffer_to_buffer_copy_source")
@on_dirty_memory
async def copy_source(bench: Bench) -> None:
    source, target = bench.buffer(32, BufferUsage.COPY_SRC), bench.filled(np.full(32, 7, np.uint8))
    bench.copy(source, target)
    assert await content(bench, target) == bytes(32)


@case("operation/resource_init/buffer:copy_buffer_to_texture")
@on_dirty_memory
async def copy_to_texture(bench: Bench) -> None:
    rows = TextureRows(TextureFormat.RGBA8_UNORM, 8, 8)
    usage = TextureUsage.COPY_SRC | TextureUsage.COPY_DST
    for offset in (0, 8):
        texture = bench.device.create_texture(TextureDescriptor(8, 8, rows.format, usage))
        bench.device.queue.write_texture(texture, np.full((8, 8, 4), 7, np.uint8))
        source = bench.buffer(rows.nbytes + offset, BufferUsage.COPY_SRC)
        place = TexelCopyBufferInfo(source, offset, rows.bytes_per_row, 8)

        def record(
            encoder: ICommandEncoder,
            place: TexelCopyBufferInfo = place,
            texture: ITexture = texture,
        ) -> None:
            encoder.copy_buffer_to_texture(place, texture, (8, 8, 1))

        bench.submit(record)
        assert not (await bench.device.read_array(texture)).any(), offset
        assert await content(bench, source) == bytes(source.size), offset


@case("operation/resource_init/buffer:resolve_query_set_to_partial_buffer")
@on_dirty_memory
async def resolve_queries(bench: Bench) -> None:
    """The rest of the buffer is zero, and so is a query that was never begun."""
    for offset in (0, 256):
        usage = BufferUsage.COPY_SRC | BufferUsage.QUERY_RESOLVE
        target = bench.buffer(offset + 8, usage)
        encoder = bench.device.create_command_encoder("resolve")
        queries = bench.device.create_query_set("occlusion", 1)
        encoder.resolve_query_set(queries, 0, 1, target, offset)
        bench.device.queue.submit([encoder.finish()])
        assert await content(bench, target) == bytes(target.size), offset


@case("operation/resource_init/buffer:copy_texture_to_partial_buffer")
@on_dirty_memory
async def copy_from_texture(bench: Bench) -> None:
    for offset, layers, level, rows_per_image in itertools.product(
        (0, 8, -16), (1, 3), (0, 2), (16, 20)
    ):
        width, height, start = 32 >> level, 16 >> level, max(offset, 0)
        texture = numbered_layers(bench, layers, level)
        image = 256 * rows_per_image
        nbytes = image * (layers - 1) + 256 * (height - 1) + width
        target = bench.buffer(nbytes + abs(offset) + -(nbytes + abs(offset)) % 4)
        encoder = bench.device.create_command_encoder("texture to part")
        encoder.copy_texture_to_buffer(
            TexelCopyTextureInfo(texture, level),
            TexelCopyBufferInfo(target, start, 256, rows_per_image),
        )
        bench.device.queue.submit([encoder.finish()])

        expected = np.zeros(start + image * layers + target.size, np.uint8)
        for layer in range(layers):
            first = start + image * layer
            rows = expected[first : first + 256 * height].reshape(height, 256)
            rows[:, :width] = layer + 1
        actual = await content(bench, target)
        case_of = (offset, layers, level, rows_per_image)
        assert actual == expected[: target.size].tobytes(), case_of


def numbered_layers(bench: Bench, layers: int, level: int) -> ITexture:
    """A texture with 1, 2, 3 in the pixels of the layers of one mip level."""
    usage = TextureUsage.COPY_SRC | TextureUsage.COPY_DST
    texture = bench.device.create_texture(
        TextureDescriptor(32, 16, TextureFormat.R8_UINT, usage, layers=layers, mip_levels=level + 1)
    )
    pixels = np.zeros((layers, 16 >> level, 32 >> level), np.uint8)
    pixels[:] = np.arange(1, layers + 1)[:, None, None]
    place = TexelCopyTextureInfo(texture, level)
    bench.device.queue.write_texture(place, pixels if layers > 1 else pixels[0])
    return texture


# What shaders read. Green says that all of it was zero.

COMPUTE = """
@group(0) @binding(0) var<SPACE> value: vec4u;
@group(0) @binding(1) var picture: texture_storage_2d<rgba8unorm, write>;

@compute @workgroup_size(1) fn main() {
    let color = select(vec4f(1, 0, 0, 1), vec4f(0, 1, 0, 1), all(value == vec4u()));
    textureStore(picture, vec2u(), color);
}
"""

RED = """
@group(0) @binding(0) var picture: texture_storage_2d<rgba8unorm, write>;

@compute @workgroup_size(1) fn main() {
    textureStore(picture, vec2u(), vec4f(1, 0, 0, 1));
}
"""

POINT = """
struct Point {
    @builtin(position) position: vec4f,
    @location(0) color: vec4f,
}

fn point(is_zero: bool) -> Point {
    let color = select(vec4f(1, 0, 0, 1), vec4f(0, 1, 0, 1), is_zero);
    return Point(vec4f(0, 0, 0, 1), color);
}

@vertex fn of_vertex(@location(0) value: vec4f) -> Point {
    return point(all(value == vec4f()));
}

@vertex fn of_index(@builtin(vertex_index) index: u32) -> Point {
    return point(index == 0u);
}

@vertex fn always_red() -> Point {
    return point(false);
}

@fragment fn fs_main(in: Point) -> @location(0) vec4f {
    return in.color;
}
"""


def needs_shaders(bench: Bench) -> None:
    if not bench.device.info.executes_shaders:
        raise Skip("the device runs no shaders")


def picture_of(bench: Bench, usage: TextureUsage) -> ITexture:
    """One pixel, to be green in the end."""
    return bench.device.create_texture(
        TextureDescriptor(1, 1, TextureFormat.RGBA8_UNORM, TextureUsage.COPY_SRC | usage)
    )


async def check_binding(bench: Bench, kind: BindingKind, space: str, usage: BufferUsage) -> None:
    """Read a new buffer in a compute shader, from its start and from further on."""
    needs_shaders(bench)
    device = bench.device
    layout = BindGroupLayout(
        [
            BindingLayout(0, kind, ShaderStage.COMPUTE),
            BindingLayout(
                1,
                "storage-texture",
                ShaderStage.COMPUTE,
                storage_format=TextureFormat.RGBA8_UNORM,
            ),
        ]
    )
    shader = device.create_shader_module(COMPUTE.replace("SPACE", space))
    pipeline = device.create_compute_pipeline(ComputePipelineDescriptor(shader, (layout,)))
    for offset in (0, 256):
        buffer = bench.buffer(offset + 16, usage | BufferUsage.COPY_SRC)
        picture = picture_of(bench, TextureUsage.STORAGE_BINDING)
        group = device.create_bind_group(layout, {0: BufferBinding(buffer, offset, 16), 1: picture})
        encoder = device.create_command_encoder(kind)
        with encoder.begin_compute_pass() as compute_pass:
            compute_pass.set_pipeline(pipeline)
            compute_pass.set_bind_group(0, group)
            compute_pass.dispatch_workgroups(1)
        device.queue.submit([encoder.finish()])
        assert (await device.read_array(picture)).tobytes() == GREEN, offset
        assert await content(bench, buffer) == bytes(buffer.size), offset


def point_pipeline(bench: Bench, entry: str) -> IPipeline:
    """Draws one point over the whole of a one-pixel frame buffer."""
    needs_shaders(bench)
    vertices = VertexLayout(16, (VertexAttribute(0, "float32x4"),))
    return bench.device.create_render_pipeline(
        RenderPipelineDescriptor(
            bench.device.create_shader_module(POINT),
            (ColorTarget(TextureFormat.RGBA8_UNORM),),
            vertex_buffers=(vertices,) if entry == "of_vertex" else (),
            topology="point-list",
            vertex_entry=entry,
        )
    )


def one_pixel_frame(bench: Bench) -> IFrameBuffer:
    return bench.device.create_frame_buffer(1, 1, (TextureFormat.RGBA8_UNORM,))


async def check_picture(bench: Bench, frame: IFrameBuffer, buffer: IBuffer) -> None:
    """Expect a green picture, and nothing but zeros in the buffer."""
    assert (await bench.device.read_array(frame.color_textures[0])).tobytes() == GREEN
    assert await content(bench, buffer) == bytes(buffer.size)


@case("operation/resource_init/buffer:uniform_buffer")
@on_dirty_memory
async def uniform_buffer(bench: Bench) -> None:
    await check_binding(bench, "uniform", "uniform", BufferUsage.UNIFORM)


@case("operation/resource_init/buffer:readonly_storage_buffer")
@on_dirty_memory
async def readonly_storage_buffer(bench: Bench) -> None:
    await check_binding(bench, "read-only-storage", "storage, read", BufferUsage.STORAGE)


@case("operation/resource_init/buffer:storage_buffer")
@on_dirty_memory
async def storage_buffer(bench: Bench) -> None:
    await check_binding(bench, "storage", "storage, read_write", BufferUsage.STORAGE)


@case("operation/resource_init/buffer:vertex_buffer")
@on_dirty_memory
async def vertex_buffer(bench: Bench) -> None:
    pipeline = point_pipeline(bench, "of_vertex")
    for offset in (0, 16):
        buffer = bench.buffer(16 + offset, BufferUsage.VERTEX | BufferUsage.COPY_SRC)
        frame = one_pixel_frame(bench)
        encoder = bench.device.create_command_encoder("vertices")
        with encoder.begin_render_pass(frame, clear_color=(0, 0, 0, 0)) as render_pass:
            render_pass.set_pipeline(pipeline)
            render_pass.set_vertex_buffer(0, buffer, offset)
            render_pass.draw(1)
        bench.device.queue.submit([encoder.finish()])
        await check_picture(bench, frame, buffer)


@case("operation/resource_init/buffer:index_buffer")
@on_dirty_memory
async def index_buffer(bench: Bench) -> None:
    pipeline = point_pipeline(bench, "of_index")
    for offset in (0, 16):
        buffer = bench.buffer(4 + offset, BufferUsage.INDEX | BufferUsage.COPY_SRC)
        frame = one_pixel_frame(bench)
        encoder = bench.device.create_command_encoder("indices")
        with encoder.begin_render_pass(frame, clear_color=(0, 0, 0, 0)) as render_pass:
            render_pass.set_pipeline(pipeline)
            render_pass.set_index_buffer(buffer, "uint16", offset, 4)
            render_pass.draw_indexed(1)
        bench.device.queue.submit([encoder.finish()])
        await check_picture(bench, frame, buffer)


@case("operation/resource_init/buffer:indirect_buffer_for_draw_indirect")
@on_dirty_memory
async def indirect_draw(bench: Bench) -> None:
    """Arguments of zero draw nothing, so the picture keeps the green it was cleared to."""
    pipeline = point_pipeline(bench, "always_red")
    for offset, indexed in itertools.product((0, 16), (False, True)):
        buffer = bench.buffer(20 + offset, BufferUsage.INDIRECT | BufferUsage.COPY_SRC)
        frame = one_pixel_frame(bench)
        encoder = bench.device.create_command_encoder("indirect draw")
        with encoder.begin_render_pass(frame, clear_color=(0, 1, 0, 1)) as render_pass:
            render_pass.set_pipeline(pipeline)
            if indexed:
                render_pass.set_index_buffer(bench.buffer(4, BufferUsage.INDEX), "uint16")
                render_pass.draw_indexed_indirect(buffer, offset)
            else:
                render_pass.draw_indirect(buffer, offset)
        bench.device.queue.submit([encoder.finish()])
        await check_picture(bench, frame, buffer)


@case("operation/resource_init/buffer:indirect_buffer_for_dispatch_indirect")
@on_dirty_memory
async def indirect_dispatch(bench: Bench) -> None:
    """Counts of zero dispatch nothing, so the texture keeps the green that was written to it."""
    needs_shaders(bench)
    device = bench.device
    entry = BindingLayout(
        0, "storage-texture", ShaderStage.COMPUTE, storage_format=TextureFormat.RGBA8_UNORM
    )
    layout = BindGroupLayout([entry])
    shader = device.create_shader_module(RED)
    pipeline = device.create_compute_pipeline(ComputePipelineDescriptor(shader, (layout,)))
    for offset in (0, 16):
        buffer = bench.buffer(12 + offset, BufferUsage.INDIRECT | BufferUsage.COPY_SRC)
        picture = picture_of(bench, TextureUsage.STORAGE_BINDING | TextureUsage.COPY_DST)
        green = np.frombuffer(GREEN, np.uint8).reshape(1, 1, 4)
        device.queue.write_texture(picture, green)
        encoder = device.create_command_encoder("indirect dispatch")
        with encoder.begin_compute_pass() as compute_pass:
            compute_pass.set_pipeline(pipeline)
            compute_pass.set_bind_group(0, device.create_bind_group(layout, {0: picture}))
            compute_pass.dispatch_workgroups_indirect(buffer, offset)
        device.queue.submit([encoder.finish()])
        assert (await device.read_array(picture)).tobytes() == GREEN, offset
        assert await content(bench, buffer) == bytes(buffer.size), offset
