"""Draws and dispatches that really happen: on webgpu, checked by reading back."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pers import (
    BindGroupLayout,
    BindingLayout,
    BlendState,
    BufferBinding,
    BufferUsage,
    ColorTarget,
    ComputePipelineDescriptor,
    DepthState,
    DeviceBuffer,
    DynamicBuffer,
    IBindGroup,
    IBuffer,
    IFrameBuffer,
    IPipeline,
    IRenderDevice,
    ReadbackBuffer,
    RenderPipelineDescriptor,
    SamplerDescriptor,
    ShaderStage,
    TextureFormat,
    TextureUsage,
    ValidationError,
    VertexLayout,
)
from tests.support import COPY, DOUBLE, FULL_SCREEN, ORANGE, Maker, numbers, random_pixels

RGBA = TextureFormat.RGBA8_UNORM
STORAGE = BufferUsage.STORAGE | COPY
DATA = BindGroupLayout([BindingLayout(0, "storage", ShaderStage.COMPUTE)])
COLOR = BindGroupLayout(
    [BindingLayout(0, "uniform", ShaderStage.FRAGMENT, dynamic_offset=True, min_size=16)]
)

COLORED = """
@group(0) @binding(0) var<uniform> color: vec4f;
@vertex fn vs_main(@location(0) p: vec2f) -> @builtin(position) vec4f {
    return vec4f(p, 0.5, 1.0);
}
@fragment fn fs_main() -> @location(0) vec4f { return color; }
"""
INSTANCED = """
struct Out { @builtin(position) position: vec4f, @location(0) color: vec4f };
@vertex fn vs_main(@builtin(vertex_index) i: u32, @location(0) x: f32, @location(1) color: vec4f)
    -> Out {
    let corner = vec2f(f32(i & 1u), f32(i >> 1u));
    return Out(vec4f(x + corner.x * 0.5, corner.y * 2.0 - 1.0, 0.5, 1.0), color);
}
@fragment fn fs_main(in: Out) -> @location(0) vec4f { return in.color; }
"""
TEXTURED = """
@group(0) @binding(0) var image: texture_2d<f32>;
@group(0) @binding(1) var near: sampler;
struct Out { @builtin(position) position: vec4f, @location(0) uv: vec2f };
@vertex fn vs_main(@builtin(vertex_index) i: u32) -> Out {
    let uv = vec2f(f32(i & 1u) * 2.0, f32(i >> 1u) * 2.0);
    return Out(vec4f(uv.x * 2.0 - 1.0, 1.0 - uv.y * 2.0, 0.5, 1.0), uv);
}
@fragment fn fs_main(in: Out) -> @location(0) vec4f { return textureSample(image, near, in.uv); }
"""
STRIP = np.array([(-1, -1), (1, -1), (-1, 1), (1, 1)], np.float32)


@pytest.fixture
def device(gpu: IRenderDevice) -> IRenderDevice:
    return gpu


def pipeline(device: IRenderDevice, code: str = FULL_SCREEN, **changes: Any) -> IPipeline:
    arguments: dict[str, Any] = {
        "shader": device.create_shader_module(code),
        "color_targets": [ColorTarget(RGBA)],
    }
    return device.create_render_pipeline(RenderPipelineDescriptor(**(arguments | changes)))


def draw(
    device: IRenderDevice, commands: Any, frame: IFrameBuffer | None = None, **more: Any
) -> npt.NDArray[Any]:
    """Draw into a 4x4 picture and return it."""
    frame = frame or device.create_frame_buffer(4, 4, [RGBA])
    encoder = device.create_command_encoder()
    with encoder.begin_render_pass(frame, **({"clear_color": (0, 0, 0, 0)} | more)) as render_pass:
        commands(render_pass)
    device.queue.submit([encoder.finish()])
    return device.read_array_blocking(frame.color_textures[0])


def doubled(device: IRenderDevice, buffer: IBuffer) -> tuple[IPipeline, IBindGroup]:
    shader = device.create_shader_module(DOUBLE)
    return (
        device.create_compute_pipeline(ComputePipelineDescriptor(shader, [DATA])),
        device.create_bind_group(DATA, {0: buffer}),
    )


# --- Compute --------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 64, 65, 1000])
def test_doubling(count: int, device: IRenderDevice, make: Maker) -> None:
    buffer = make.filled(numbers(count), STORAGE)
    computing, group = doubled(device, buffer)
    encoder = device.create_command_encoder()
    with encoder.begin_compute_pass() as compute_pass:
        compute_pass.set_pipeline(computing)
        compute_pass.set_bind_group(0, group)
        compute_pass.dispatch_workgroups(-(-count // 64))
    device.queue.submit([encoder.finish()])
    assert (device.read_array_blocking(buffer, np.uint32) == 2 * numbers(count)).all()


def test_dispatches_in_one_pass(device: IRenderDevice, make: Maker) -> None:
    """[memory_sync: two dispatches in one pass] The second sees what the first wrote."""
    buffer = make.filled(numbers(64), STORAGE)
    computing, group = doubled(device, buffer)
    encoder = device.create_command_encoder()
    with encoder.begin_compute_pass() as compute_pass:
        compute_pass.set_pipeline(computing)
        compute_pass.set_bind_group(0, group)
        for _ in range(3):
            compute_pass.dispatch_workgroups(1)
    device.queue.submit([encoder.finish()])
    assert (device.read_array_blocking(buffer, np.uint32) == 8 * numbers(64)).all()


def test_dispatch_indirect(device: IRenderDevice, make: Maker) -> None:
    """Also [resource_init: indirect_buffer_for_dispatch_indirect]: zeros run nothing."""
    buffer = make.filled(numbers(128), STORAGE)
    computing, group = doubled(device, buffer)
    arguments = np.array([0, 0, 0, 1, 1, 1], np.uint32)
    indirect = make.filled(arguments, BufferUsage.INDIRECT)
    unwritten = make.plain(12, BufferUsage.INDIRECT)
    encoder = device.create_command_encoder()
    with encoder.begin_compute_pass() as compute_pass:
        compute_pass.set_pipeline(computing)
        compute_pass.set_bind_group(0, group)
        compute_pass.dispatch_workgroups_indirect(unwritten)
        compute_pass.dispatch_workgroups_indirect(indirect, 12)
    device.queue.submit([encoder.finish()])
    expected = numbers(128)
    expected[:64] *= 2
    assert (device.read_array_blocking(buffer, np.uint32) == expected).all()


def test_copies_and_dispatches_in_order(device: IRenderDevice, make: Maker) -> None:
    """[memory_sync: rw · wr · ww]"""
    buffer, before, after = make.filled(numbers(64), STORAGE), make.plain(256), make.plain(256)
    computing, group = doubled(device, buffer)
    encoder = device.create_command_encoder()
    encoder.copy_buffer_to_buffer(buffer, 0, before, 0)
    with encoder.begin_compute_pass() as compute_pass:
        compute_pass.set_pipeline(computing)
        compute_pass.set_bind_group(0, group)
        compute_pass.dispatch_workgroups(1)
    encoder.copy_buffer_to_buffer(buffer, 0, after, 0)
    encoder.clear_buffer(buffer)
    device.queue.submit([encoder.finish()])
    assert (device.read_array_blocking(before, np.uint32) == numbers(64)).all()
    assert (device.read_array_blocking(after, np.uint32) == 2 * numbers(64)).all()
    assert not device.read_array_blocking(buffer).any()


def test_dynamic_offsets_choose_the_record(device: IRenderDevice, make: Maker) -> None:
    alignment = device.limits.min_storage_buffer_offset_alignment
    layout = BindGroupLayout(
        [BindingLayout(0, "storage", ShaderStage.COMPUTE, dynamic_offset=True)]
    )
    buffer = make.filled(np.ones(alignment, np.uint32), STORAGE)
    group = device.create_bind_group(layout, {0: BufferBinding(buffer, size=alignment)})
    shader = device.create_shader_module(DOUBLE)
    computing = device.create_compute_pipeline(ComputePipelineDescriptor(shader, [layout]))
    encoder = device.create_command_encoder()
    with encoder.begin_compute_pass() as compute_pass:
        compute_pass.set_pipeline(computing)
        for offset in (alignment, 3 * alignment, 3 * alignment):
            compute_pass.set_bind_group(0, group, [offset])
            compute_pass.dispatch_workgroups(-(-alignment // 256))
    device.queue.submit([encoder.finish()])
    records = device.read_array_blocking(buffer, np.uint32, (4, alignment // 4))
    assert (records == np.array([[1], [2], [1], [4]])).all()


def test_storage_texture(device: IRenderDevice) -> None:
    code = """
    @group(0) @binding(0) var image: texture_storage_2d<rgba8uint, write>;
    @compute @workgroup_size(1) fn main(@builtin(global_invocation_id) id: vec3u) {
        textureStore(image, id.xy, vec4u(id.x, id.y, 7u, 9u));
    }
    """
    from pers import TextureDescriptor

    form = TextureFormat.RGBA8_UINT
    usage = TextureUsage.STORAGE_BINDING | TextureUsage.COPY_SRC
    texture = device.create_texture(TextureDescriptor(5, 3, form, usage))
    layout = BindGroupLayout(
        [BindingLayout(0, "storage-texture", ShaderStage.COMPUTE, storage_format=form)]
    )
    computing = device.create_compute_pipeline(
        ComputePipelineDescriptor(device.create_shader_module(code), [layout])
    )
    encoder = device.create_command_encoder()
    with encoder.begin_compute_pass() as compute_pass:
        compute_pass.set_pipeline(computing)
        compute_pass.set_bind_group(0, device.create_bind_group(layout, {0: texture}))
        compute_pass.dispatch_workgroups(5, 3)
    device.queue.submit([encoder.finish()])
    pixels = device.read_array_blocking(texture)
    y, x = np.mgrid[0:3, 0:5]
    assert (pixels == np.stack([x, y, np.full_like(x, 7), np.full_like(x, 9)], -1)).all()


# --- Draws ----------------------------------------------------------------------------------------


def test_full_screen_triangle(device: IRenderDevice) -> None:
    drawing = pipeline(device)
    picture = draw(device, lambda p: (p.set_pipeline(drawing), p.draw(3)))
    assert (picture == ORANGE).all()


def test_clear(device: IRenderDevice) -> None:
    picture = draw(device, lambda p: None, clear_color=(1.0, 0.5, 0.0, 1.0))
    assert (picture == ORANGE).all()


def test_keep_what_is_there(device: IRenderDevice) -> None:
    frame = device.create_frame_buffer(4, 4, [RGBA])
    drawing = pipeline(device)

    def half(render_pass: Any) -> None:
        render_pass.set_pipeline(drawing)
        render_pass.set_scissor_rect(0, 0, 2, 4)
        render_pass.draw(3)

    draw(device, lambda p: None, frame, clear_color=(0, 0, 1, 1))
    picture = draw(device, half, frame, clear_color=None)
    assert (picture[:, :2] == ORANGE).all()
    assert (picture[:, 2:] == (0, 0, 255, 255)).all()


def test_viewport(device: IRenderDevice) -> None:
    drawing = pipeline(device)
    picture = draw(
        device, lambda p: (p.set_pipeline(drawing), p.set_viewport(1, 2, 2, 2), p.draw(3))
    )
    expected = np.zeros((4, 4, 4), np.uint8)
    expected[2:4, 1:3] = ORANGE
    assert (picture == expected).all()


def test_vertices_indices_and_uniforms(device: IRenderDevice, make: Maker) -> None:
    vertices = DeviceBuffer.from_array(STRIP, BufferUsage.VERTEX, device.buffer_factory)
    indices = DeviceBuffer.from_array(
        np.array([9, 9, 0, 1, 2, 2, 1, 3], np.uint16), BufferUsage.INDEX, device.buffer_factory
    )
    uniforms = DynamicBuffer(1024, device.buffer_factory)
    drawing = pipeline(
        device,
        COLORED,
        bind_groups=[COLOR],
        vertex_buffers=[VertexLayout.from_dtype([("p", "f4", 2)])],
    )
    group = device.create_bind_group(COLOR, {0: BufferBinding(uniforms, size=16)})
    with uniforms.begin_update() as update:
        red = update.push(np.array([1, 0, 0, 1], np.float32))
        green = update.push(np.array([0, 1, 0, 1], np.float32))

    def two_halves(render_pass: Any) -> None:
        render_pass.set_pipeline(drawing)
        render_pass.set_vertex_buffer(0, vertices)
        render_pass.set_index_buffer(indices, "uint16", 4)
        render_pass.set_bind_group(0, group, [red])
        render_pass.set_scissor_rect(0, 0, 4, 2)
        render_pass.draw_indexed(6)
        render_pass.set_bind_group(0, group, [green])
        render_pass.set_scissor_rect(0, 2, 4, 2)
        render_pass.draw_indexed(6)

    picture = draw(device, two_halves)
    assert (picture[:2] == (255, 0, 0, 255)).all()
    assert (picture[2:] == (0, 255, 0, 255)).all()


def test_unwritten_buffers_are_zero(device: IRenderDevice, make: Maker) -> None:
    """[resource_init: uniform_buffer · vertex_buffer · index_buffer]"""
    everything = BufferUsage.VERTEX | BufferUsage.INDEX | BufferUsage.UNIFORM
    empty = make.plain(256, everything)
    vertices = make.filled(STRIP, BufferUsage.VERTEX)
    drawing = pipeline(
        device, COLORED, bind_groups=[COLOR], topology="triangle-strip",
        strip_index_format="uint32",
        vertex_buffers=[VertexLayout.from_dtype([("p", "f4", 2)])],
    )  # fmt: skip
    group = device.create_bind_group(COLOR, {0: empty})

    def uniform(render_pass: Any) -> None:
        render_pass.set_pipeline(drawing)
        render_pass.set_bind_group(0, group, [0])
        render_pass.set_vertex_buffer(0, vertices)
        render_pass.draw(4)

    assert not draw(device, uniform, clear_color=(1, 1, 1, 1)).any()

    def nothing_to_see(render_pass: Any) -> None:
        render_pass.set_pipeline(drawing)
        render_pass.set_bind_group(0, group, [0])
        render_pass.set_vertex_buffer(0, empty)
        render_pass.draw(4)
        render_pass.set_vertex_buffer(0, vertices)
        render_pass.set_index_buffer(empty)
        render_pass.draw_indexed(4)

    assert (draw(device, nothing_to_see, clear_color=(1, 1, 1, 1)) == 255).all()


def test_instances(device: IRenderDevice, make: Maker) -> None:
    record = np.dtype([("x", "f4"), ("color", "u1", 4)])
    instances = np.array([(-1, (255, 0, 0, 255)), (-0.5, (0, 255, 0, 255)), (0.5, ORANGE)], record)
    buffer = make.filled(instances, BufferUsage.VERTEX)
    drawing = pipeline(
        device, INSTANCED, topology="triangle-strip",
        vertex_buffers=[VertexLayout.from_dtype(record, step_mode="instance")],
    )  # fmt: skip
    picture = draw(
        device, lambda p: (p.set_pipeline(drawing), p.set_vertex_buffer(0, buffer), p.draw(4, 3))
    )
    expected = [(255, 0, 0, 255), (0, 255, 0, 255), (0, 0, 0, 0), ORANGE]
    assert (picture == np.array(expected)).all()


def test_indirect_draws(device: IRenderDevice, make: Maker) -> None:
    drawing = pipeline(device)
    arguments = np.array([9, 0, 0, 0, 3, 1, 0, 0, 3, 1, 0, 0, 0], np.uint32)
    indirect = make.filled(arguments, BufferUsage.INDIRECT)
    indices = make.filled(np.arange(3, dtype=np.uint32), BufferUsage.INDEX)
    for commands, filled in (
        (lambda p: p.draw_indirect(indirect), False),
        (lambda p: p.draw_indirect(indirect, 16), True),
        (lambda p: (p.set_index_buffer(indices), p.draw_indexed_indirect(indirect, 32)), True),
        (lambda p: p.multi_draw_indirect(indirect, 0, 1), False),
        (lambda p: p.multi_draw_indirect(indirect, 0, 2), True),
        (lambda p: p.multi_draw_indirect(indirect, 0, 0), False),
        (
            lambda p: (
                p.set_index_buffer(indices),
                p.multi_draw_indexed_indirect(indirect, 12, 2),
            ),
            True,
        ),
    ):
        picture = draw(device, lambda p, c=commands: (p.set_pipeline(drawing), c(p)))
        assert (picture == (ORANGE if filled else 0)).all()


def test_samples_are_resolved(device: IRenderDevice) -> None:
    drawing = pipeline(device, sample_count=4)
    frame = device.create_frame_buffer(4, 4, [RGBA], sample_count=4)
    picture = draw(
        device,
        lambda p: (p.set_pipeline(drawing), p.set_scissor_rect(0, 0, 2, 4), p.draw(3)),
        frame,
    )
    assert (picture[:, :2] == ORANGE).all()
    assert not picture[:, 2:].any()


def test_depth(device: IRenderDevice) -> None:
    frame = device.create_frame_buffer(4, 4, [RGBA], depth_format=TextureFormat.DEPTH32_FLOAT)
    drawing = pipeline(device, depth=DepthState())  # the triangle is at 0.5
    behind = draw(device, lambda p: (p.set_pipeline(drawing), p.draw(3)), frame, clear_depth=0.25)
    assert not behind.any()
    before = draw(device, lambda p: (p.set_pipeline(drawing), p.draw(3)), frame, clear_depth=0.75)
    assert (before == ORANGE).all()
    assert frame.depth_texture is not None
    assert (device.read_array_blocking(frame.depth_texture) == 0.5).all()


def test_blending(device: IRenderDevice) -> None:
    adding = BlendState("one", "one", "add", "one", "one", "add")
    drawing = pipeline(device, color_targets=[ColorTarget(RGBA, adding)])
    picture = draw(
        device, lambda p: (p.set_pipeline(drawing), p.draw(3)), clear_color=(0, 0.25, 1, 0)
    )
    assert (np.abs(picture.astype(int) - (255, 192, 255, 255)) <= 1).all()


def test_textures_and_samplers(device: IRenderDevice) -> None:
    from pers import TextureDescriptor

    layout = BindGroupLayout([BindingLayout(0, "texture"), BindingLayout(1, "sampler")])
    usage = TextureUsage.TEXTURE_BINDING | TextureUsage.COPY_DST
    image = device.create_texture(TextureDescriptor(4, 4, RGBA, usage))
    pixels = random_pixels(RGBA, 4, 4)
    device.upload(pixels, image)
    sampler = device.create_sampler(SamplerDescriptor("nearest", "nearest"))
    group = device.create_bind_group(layout, {0: image, 1: sampler})
    drawing = pipeline(device, TEXTURED, bind_groups=[layout])
    picture = draw(
        device, lambda p: (p.set_pipeline(drawing), p.set_bind_group(0, group), p.draw(3))
    )
    assert (picture == pixels).all()


def test_a_picture_drawn_is_read_by_the_next_pass(device: IRenderDevice) -> None:
    layout = BindGroupLayout([BindingLayout(0, "texture"), BindingLayout(1, "sampler")])
    first = device.create_frame_buffer(4, 4, [RGBA])
    second = device.create_frame_buffer(4, 4, [RGBA])
    group = device.create_bind_group(
        layout, {0: first.color_textures[0], 1: device.create_sampler()}
    )
    drawing, showing = pipeline(device), pipeline(device, TEXTURED, bind_groups=[layout])
    encoder = device.create_command_encoder()
    with encoder.begin_render_pass(first) as render_pass:
        render_pass.set_pipeline(drawing)
        render_pass.draw(3)
    with encoder.begin_render_pass(second) as render_pass:
        render_pass.set_pipeline(showing)
        render_pass.set_bind_group(0, group)
        render_pass.draw(3)
    readback = ReadbackBuffer(1024, device.buffer_factory)
    readback.copy_from(encoder, second.color_textures[0])
    device.queue.submit([encoder.finish()])
    assert (readback.read_array_blocking() == ORANGE).all()


def test_drawing_into_what_is_read(device: IRenderDevice) -> None:
    layout = BindGroupLayout([BindingLayout(0, "texture"), BindingLayout(1, "sampler")])
    frame = device.create_frame_buffer(4, 4, [RGBA])
    group = device.create_bind_group(
        layout, {0: frame.color_textures[0], 1: device.create_sampler()}
    )
    drawing = pipeline(device, TEXTURED, bind_groups=[layout])
    with pytest.raises(ValidationError, match="conflicting usages"):
        draw(
            device,
            lambda p: (p.set_pipeline(drawing), p.set_bind_group(0, group), p.draw(3)),
            frame,
        )


# --- Bundles and queries --------------------------------------------------------------------------


def test_bundles(device: IRenderDevice) -> None:
    encoder = device.create_render_bundle_encoder([RGBA], label="triangle")
    encoder.set_pipeline(pipeline(device))
    encoder.draw(3)
    bundle = encoder.finish()
    for _ in range(2):
        assert (draw(device, lambda p: p.execute_bundles([bundle])) == ORANGE).all()
    empty = device.create_render_bundle_encoder([RGBA]).finish()
    assert not draw(device, lambda p: p.execute_bundles([empty, empty])).any()


def test_bundle_with_everything(device: IRenderDevice, make: Maker) -> None:
    vertices = make.filled(STRIP, BufferUsage.VERTEX)
    indices = make.filled(np.array([0, 1, 2, 3], np.uint32), BufferUsage.INDEX)
    colors = make.filled(np.array([0, 1, 0, 1], np.float32), BufferUsage.UNIFORM)
    indirect = make.filled(np.array([4, 1, 0, 0, 0], np.uint32), BufferUsage.INDIRECT)
    drawing = pipeline(
        device, COLORED, bind_groups=[COLOR], topology="triangle-strip", depth=DepthState(),
        strip_index_format="uint32",
        vertex_buffers=[VertexLayout.from_dtype([("p", "f4", 2)])], sample_count=4,
    )  # fmt: skip
    depth = TextureFormat.DEPTH32_FLOAT
    for draw_call in (
        lambda e: e.draw(4),
        lambda e: e.draw_indexed(4),
        lambda e: e.draw_indirect(indirect),
        lambda e: e.draw_indexed_indirect(indirect),
    ):
        encoder = device.create_render_bundle_encoder([RGBA], depth_format=depth, sample_count=4)
        encoder.set_pipeline(drawing)
        encoder.set_bind_group(0, device.create_bind_group(COLOR, {0: colors}), [0])
        encoder.set_vertex_buffer(0, vertices)
        encoder.set_index_buffer(indices)
        draw_call(encoder)
        bundle = encoder.finish()
        frame = device.create_frame_buffer(4, 4, [RGBA], depth_format=depth, sample_count=4)
        picture = draw(device, lambda p, b=bundle: p.execute_bundles([b]), frame)
        assert (picture == (0, 255, 0, 255)).all()


def test_nothing_is_set_after_a_bundle(device: IRenderDevice) -> None:
    drawing = pipeline(device)
    bundle = device.create_render_bundle_encoder([RGBA]).finish()
    with pytest.raises(ValidationError):
        draw(device, lambda p: (p.set_pipeline(drawing), p.execute_bundles([bundle]), p.draw(3)))


def test_occlusion_queries(device: IRenderDevice, make: Maker) -> None:
    queries = device.create_query_set("occlusion", 4)
    results = make.plain(512, BufferUsage.QUERY_RESOLVE | COPY)
    drawing = pipeline(device)
    frame = device.create_frame_buffer(4, 4, [RGBA])
    encoder = device.create_command_encoder()
    with encoder.begin_render_pass(frame, occlusion_queries=queries) as render_pass:
        render_pass.set_pipeline(drawing)
        render_pass.begin_occlusion_query(1)
        render_pass.draw(3)
        render_pass.end_occlusion_query()
        render_pass.begin_occlusion_query(2)
        render_pass.end_occlusion_query()
    encoder.resolve_query_set(queries, 0, 4, results, 256)
    device.queue.submit([encoder.finish()])
    counts = device.read_array_blocking(results, np.uint64)
    assert not counts[:32].any()
    assert (counts[32:36] > 0).tolist() == [False, True, False, False]


# --- Mistakes that only a real device notices -----------------------------------------------------


def test_wgsl_errors_show_the_place(device: IRenderDevice) -> None:
    with pytest.raises(ValidationError) as caught:
        device.create_shader_module("fn main() {\n  let x = nothing;\n}", label="broken")
    message = str(caught.value)
    for part in ("'broken'", "nothing", "wgsl:2:11"):
        assert part in message


@pytest.mark.parametrize("code", ["nonsense", "@compute fn main() {}", "fn f() -> u32 {}"])
def test_wgsl_that_is_none(code: str, device: IRenderDevice) -> None:
    with pytest.raises(ValidationError, match="'bad'"):
        device.create_shader_module(code, label="bad")


def test_layout_that_does_not_fit_the_shader(device: IRenderDevice) -> None:
    shader = device.create_shader_module(DOUBLE)
    for layouts in ([], [BindGroupLayout([BindingLayout(0, "uniform", ShaderStage.COMPUTE)])]):
        with pytest.raises(ValidationError, match="'unfit'"):
            device.create_compute_pipeline(
                ComputePipelineDescriptor(shader, layouts, label="unfit")
            )


@pytest.mark.parametrize(
    "changes",
    [
        {"vertex_buffers": [VertexLayout(7, [])], "color_targets": [ColorTarget(RGBA)]},
        {"color_targets": [ColorTarget(TextureFormat.RGB9E5_UFLOAT)]},
        {"color_targets": [ColorTarget(TextureFormat.RGBA8_UINT)]},
        {"color_targets": [ColorTarget(TextureFormat.R32_UINT, BlendState())]},
    ],
)
def test_pipelines_that_a_gpu_cannot_make(changes: Any, device: IRenderDevice) -> None:
    with pytest.raises(ValidationError, match="'unfit'"):
        pipeline(device, label="unfit", **changes)


@pytest.mark.parametrize("name", ["float32x5", "nothing", "", "FLOAT32"])
def test_vertex_formats_that_are_none(name: str, device: IRenderDevice) -> None:
    from pers import VertexAttribute

    layout = VertexLayout(32, [VertexAttribute(0, name)])
    with pytest.raises(ValidationError, match="'unfit'"):
        pipeline(device, COLORED, label="unfit", bind_groups=[COLOR], vertex_buffers=[layout])


def test_texture_kinds_are_checked(device: IRenderDevice) -> None:
    from tests.support import make_texture

    usage = TextureUsage.TEXTURE_BINDING
    for kind, texture in (
        ("uint-texture", make_texture(device, usage=usage)),
        ("texture", make_texture(device, 4, 4, TextureFormat.R32_UINT, usage)),
        ("depth-texture", make_texture(device, usage=usage)),
    ):
        layout = BindGroupLayout([BindingLayout(0, kind)])  # type: ignore[arg-type]
        with pytest.raises(ValidationError, match="'unfit'"):
            device.create_bind_group(layout, {0: texture}, label="unfit")
