"""The null device: features, limits, counters, live objects, and what it checks of commands."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
import pytest

import pers
from pers import (
    BackendUnavailableError,
    BindGroupLayout,
    BindingLayout,
    BufferBinding,
    BufferDesc,
    BufferRangeError,
    BufferUsage,
    ColorTarget,
    ComputePipelineDescriptor,
    DepthState,
    IRenderPass,
    RenderPipelineDescriptor,
    ShaderStage,
    TexelCopyTextureInfo,
    TextureDescriptor,
    TextureFormat,
    TextureUsage,
    ValidationError,
    VertexLayout,
)
from pers.backends.null import NullCounters, NullDevice

SHADER = """
// fn commented_out() {}
@vertex fn vs_main() -> @builtin(position) vec4f { return vec4f(); }
@fragment fn fs_main() -> @location(0) vec4f { return vec4f(); }
@compute @workgroup_size(64) fn main() {}
"""
LAYOUT = BindGroupLayout([BindingLayout(0, "uniform", ShaderStage(7))])
VERTEX = VertexLayout.from_dtype([("position", "f4", 3), ("color", "u1", 4)])
INSTANCE = VertexLayout.from_dtype([("offset", "f4", 2)], first_location=2, step_mode="instance")


# --- Opening --------------------------------------------------------------------------------------


def test_open_device() -> None:
    with pers.open_device("null") as device:
        assert isinstance(device, NullDevice)
        assert (device.info.backend, device.info.api) == ("null", "NumPy")
        assert not device.info.executes_shaders
        assert device.features == frozenset()
        assert device.limits.max_buffer_size == 256 << 20
        assert device.limits.min_uniform_buffer_offset_alignment == 256


def test_features_and_limits_are_taken() -> None:
    limits = {"max_buffer_size": 2**40, "min_storage_buffer_offset_alignment": 32}
    with pers.open_device("null", features=["mappable-primary-buffers"], limits=limits) as device:
        assert device.features == {"mappable-primary-buffers"}
        assert device.buffer_factory.limits.map_primary_buffers
        assert device.limits.max_buffer_size == 2**40
        assert device.limits.min_storage_buffer_offset_alignment == 32
        assert device.limits.max_bind_groups == 4


def test_limits_are_kept() -> None:
    desc = BufferDesc(65, BufferUsage.VERTEX)
    device = NullDevice(limits={"max_buffer_size": 64})
    with device, pytest.raises(BufferRangeError, match="limit of 64"):
        device.buffer_factory.create_buffer(desc)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": ["ray-tracing"]}, "no feature 'ray-tracing'; it has mappable-primary"),
        ({"features": "ray-tracing"}, "no feature 'ray-tracing'; it has mappable-primary"),
        ({"limits": {"max_fun": 1}}, "there is no limit 'max_fun'; there are max_texture_dim"),
        ({"limits": {"max_buffer_size": 2**40 + 1}}, "max_buffer_size must be between 0 and"),
        ({"limits": {"max_buffer_size": -1}}, "max_buffer_size must be between 0 and"),
        ({"limits": {"max_buffer_size": 1.5}}, "max_buffer_size must be a whole number"),
        ({"limits": {"min_uniform_buffer_offset_alignment": 48}}, "power of two, not 48"),
        ({"limits": {"min_uniform_buffer_offset_alignment": 16}}, "must be between 32 and"),
    ],
)
def test_what_it_has_not_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(BackendUnavailableError, match=message):
        pers.open_device("null", **arguments)


def test_there_are_no_windows(device: NullDevice) -> None:
    with pytest.raises(BackendUnavailableError, match="the null backend shows no windows"):
        device.create_surface(object())


# --- Shaders and pipelines ------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["", "this is no shader", "// fn main() {}", "/* fn f() */"])
def test_what_is_no_wgsl_is_refused(device: NullDevice, code: str) -> None:
    with pytest.raises(ValidationError, match="shader 'broken' is no WGSL"):
        device.create_shader_module(code, label="broken")


def render_pipeline(device: NullDevice, **changes: Any) -> pers.IPipeline:
    arguments: dict[str, Any] = {
        "shader": device.create_shader_module(SHADER, label="s"),
        "color_targets": [ColorTarget(TextureFormat.RGBA8_UNORM)],
        "label": "p",
    }
    return device.create_render_pipeline(RenderPipelineDescriptor(**(arguments | changes)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"vertex_entry": "commented_out"},
            "no vertex entry point 'commented_out'; it has @compute main, ",
        ),
        ({"fragment_entry": "nothing"}, "shader 's' has no fragment entry point 'nothing'"),
        ({"color_targets": []}, "needs a colour target or a depth state"),
        ({"sample_count": 3}, "sample_count must be 1 or 4, not 3"),
        ({"bind_groups": [LAYOUT] * 5}, "5 bind groups; the device's limit is 4"),
        ({"vertex_buffers": [VERTEX] * 9}, "9 vertex buffers; the device's limit is 8"),
    ],
)
def test_impossible_pipelines(device: NullDevice, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=f"create_render_pipeline 'p'.*{message}"):
        render_pipeline(device, **changes)


def test_compute_pipeline_needs_its_entry(device: NullDevice) -> None:
    shader = device.create_shader_module(SHADER)
    with pytest.raises(ValidationError, match="no compute entry point 'start'"):
        device.create_compute_pipeline(ComputePipelineDescriptor(shader, entry="start"))


# --- Passes ---------------------------------------------------------------------------------------


@attrs.define
class Scene:
    """A device with all that a valid draw needs."""

    device: NullDevice
    pipeline: pers.IPipeline
    group: pers.IBindGroup
    vertices: pers.IBuffer
    instances: pers.IBuffer
    indices: pers.IBuffer
    frame: pers.IFrameBuffer

    def record(self, draw: Callable[[Scene, IRenderPass], None]) -> pers.ICommandBuffer:
        encoder = self.device.create_command_encoder("e")
        with encoder.begin_render_pass(self.frame, label="main") as render_pass:
            draw(self, render_pass)
        return encoder.finish()

    def set_all(self, commands: pers.IRenderPass | pers.IRenderBundleEncoder) -> None:
        commands.set_pipeline(self.pipeline)
        commands.set_bind_group(0, self.group)
        commands.set_vertex_buffer(0, self.vertices)
        commands.set_vertex_buffer(1, self.instances)
        commands.set_index_buffer(self.indices, "uint16")


@pytest.fixture
def scene(device: NullDevice) -> Scene:
    factory = device.buffer_factory
    uniform = factory.create_buffer(BufferDesc(256, BufferUsage.UNIFORM))
    indirect = BufferUsage.INDIRECT
    return Scene(
        device,
        render_pipeline(device, bind_groups=[LAYOUT], vertex_buffers=[VERTEX, INSTANCE]),
        device.create_bind_group(LAYOUT, {0: uniform}),
        factory.create_buffer(BufferDesc(16 * 3, BufferUsage.VERTEX)),
        factory.create_buffer(BufferDesc(8 * 10, BufferUsage.VERTEX)),
        factory.create_buffer(BufferDesc(2 * 6, BufferUsage.INDEX | indirect)),
        device.create_frame_buffer(8, 8, [TextureFormat.RGBA8_UNORM]),
    )


def test_valid_draws(scene: Scene) -> None:
    def draw(scene: Scene, render_pass: IRenderPass) -> None:
        scene.set_all(render_pass)
        render_pass.set_viewport(0, 0, 8, 8)
        render_pass.set_scissor_rect(0, 0, 8, 8)
        render_pass.draw(3, 10)
        render_pass.draw(1, 1, 2, 9)
        render_pass.draw_indexed(6, 10, 0, -5, 0)

    scene.device.queue.submit([scene.record(draw)]).wait()
    assert scene.device.counters.draws == 3


def all_set(draw: Callable[[Scene, IRenderPass], None]) -> Callable[[Scene, IRenderPass], None]:
    def set_and_draw(scene: Scene, render_pass: IRenderPass) -> None:
        scene.set_all(render_pass)
        draw(scene, render_pass)

    return set_and_draw


def other_group(scene: Scene) -> pers.IBindGroup:
    layout = BindGroupLayout([BindingLayout(0, "storage", ShaderStage(7))])
    buffer = scene.device.buffer_factory.create_buffer(BufferDesc(256, BufferUsage.STORAGE))
    return scene.device.create_bind_group(layout, {0: buffer})


def without_group(scene: Scene, render_pass: IRenderPass) -> None:
    render_pass.set_pipeline(scene.pipeline)
    render_pass.draw(3)


def without_vertices(scene: Scene, render_pass: IRenderPass) -> None:
    render_pass.set_pipeline(scene.pipeline)
    render_pass.set_bind_group(0, scene.group)
    render_pass.set_vertex_buffer(1, scene.instances)
    render_pass.draw(3)


def without_indices(scene: Scene, render_pass: IRenderPass) -> None:
    pipeline = render_pipeline(scene.device)
    render_pass.set_pipeline(pipeline)
    render_pass.draw_indexed(3)


MISTAKES: list[tuple[str, Callable[[Scene, IRenderPass], None], str]] = [
    ("no pipeline", lambda s, p: p.draw(3), "draw: no pipeline is set"),
    ("no group", without_group, "draw: pipeline 'p' uses bind group 0, which is not set"),
    ("no vertices", without_vertices, "draw: pipeline 'p' reads vertex buffer 0, which is not set"),
    ("no indices", without_indices, "draw_indexed: no index buffer is set"),
    (
        "other layout",
        all_set(lambda s, p: (p.set_bind_group(0, other_group(s)), p.draw(3))[-1]),
        "draw: the layout of bind group 0 is not the one",
    ),
    ("vertices", all_set(lambda s, p: p.draw(4)), "up to 4 vertices, but there are 3"),
    ("first vertex", all_set(lambda s, p: p.draw(3, 1, 1)), "up to 4 vertices, but there are 3"),
    ("instances", all_set(lambda s, p: p.draw(3, 11)), "up to 11 instances, but there are 10"),
    ("indices", all_set(lambda s, p: p.draw_indexed(7)), "up to 7 indices, but there are 6"),
    (
        "samples",
        lambda s, p: p.set_pipeline(render_pipeline(s.device, sample_count=4)),
        r"set_pipeline: pipeline 'p' was made for colors \(rgba8unorm\), depth none, 4 samples, "
        r"but this draws to colors \(rgba8unorm\), depth none, 1 samples",
    ),
    (
        "depth",
        lambda s, p: p.set_pipeline(render_pipeline(s.device, depth=DepthState())),
        "depth depth32float, 1 samples, but this draws to .* depth none",
    ),
    ("scissor", lambda s, p: p.set_scissor_rect(1, 0, 8, 8), "is not inside the 8x8 frame buffer"),
    ("viewport", lambda s, p: p.set_viewport(0, 0, -1, 8), "must not be negative"),
    ("depth range", lambda s, p: p.set_viewport(0, 0, 8, 8, 0.5, 0.25), "depths ordered"),
]


@pytest.mark.parametrize(
    ("draw", "message"), [case[1:] for case in MISTAKES], ids=[case[0] for case in MISTAKES]
)
def test_mistakes_are_found_by_finish(
    scene: Scene, draw: Callable[[Scene, IRenderPass], None], message: str
) -> None:
    with pytest.raises(ValidationError, match=f"encoder 'e': render pass 'main': .*{message}"):
        scene.record(draw)


def test_the_first_mistake_is_named(scene: Scene) -> None:
    def draw(scene: Scene, render_pass: IRenderPass) -> None:
        render_pass.draw(3)
        render_pass.set_scissor_rect(9, 9, 9, 9)

    with pytest.raises(ValidationError, match="draw: no pipeline is set"):
        scene.record(draw)


@pytest.mark.parametrize("number", [-1, 2**32, 1.5, "3"])
def test_bad_numbers_are_found_at_once(scene: Scene, number: int) -> None:
    encoder = scene.device.create_command_encoder()
    with encoder.begin_render_pass(scene.frame) as render_pass:
        scene.set_all(render_pass)
        with pytest.raises(ValidationError, match="takes whole numbers"):
            render_pass.draw(number)
        with pytest.raises(ValidationError, match="takes whole numbers"):
            render_pass.draw_indexed(3, number)
        with pytest.raises(ValidationError, match="takes whole numbers"):
            render_pass.set_scissor_rect(0, 0, number, 1)
    scene.device.queue.submit([encoder.finish()]).wait()
    assert scene.device.counters.draws == 0


def test_bundles(scene: Scene) -> None:
    recorder = scene.device.create_render_bundle_encoder([TextureFormat.RGBA8_UNORM], label="b")
    scene.set_all(recorder)
    recorder.draw(3)
    recorder.draw_indexed(6)
    bundle = recorder.finish()

    def draw(scene: Scene, render_pass: IRenderPass) -> None:
        render_pass.execute_bundles([bundle, bundle])

    scene.device.queue.submit([scene.record(draw)]).wait()
    assert scene.device.counters.draws == 4

    def draw_after(scene: Scene, render_pass: IRenderPass) -> None:
        scene.set_all(render_pass)
        render_pass.execute_bundles([bundle])
        render_pass.draw(3)

    with pytest.raises(ValidationError, match="no pipeline is set"):
        scene.record(draw_after)


def test_bundle_mistakes_are_found_by_its_finish(scene: Scene) -> None:
    recorder = scene.device.create_render_bundle_encoder([TextureFormat.RGBA8_UNORM], label="b")
    recorder.draw(3)
    with pytest.raises(ValidationError, match="render bundle 'b': draw: no pipeline is set"):
        recorder.finish()


def test_compute_mistakes(scene: Scene) -> None:
    shader = scene.device.create_shader_module(SHADER)
    pipeline = scene.device.create_compute_pipeline(
        ComputePipelineDescriptor(shader, [LAYOUT], label="c")
    )

    def record(*calls: Callable[[pers.IComputePass], None]) -> pers.ICommandBuffer:
        encoder = scene.device.create_command_encoder("e")
        with encoder.begin_compute_pass(label="sum") as compute_pass:
            for call in calls:
                call(compute_pass)
        return encoder.finish()

    what = "encoder 'e': compute pass 'sum': dispatch_workgroups: "
    with pytest.raises(ValidationError, match=f"{what}no pipeline is set"):
        record(lambda p: p.dispatch_workgroups(1))
    with pytest.raises(ValidationError, match=f"{what}pipeline 'c' uses bind group 0"):
        record(lambda p: p.set_pipeline(pipeline), lambda p: p.dispatch_workgroups(1))
    with pytest.raises(ValidationError, match=r"\(1, 65536, 1\) is above the device's limit"):
        record(
            lambda p: p.set_pipeline(pipeline),
            lambda p: p.set_bind_group(0, scene.group),
            lambda p: p.dispatch_workgroups(1, 65536),
        )


# --- Copies ---------------------------------------------------------------------------------------


def copyable(device: NullDevice, **changes: Any) -> pers.ITexture:
    usage = TextureUsage.COPY_SRC | TextureUsage.COPY_DST | TextureUsage.RENDER_ATTACHMENT
    return device.create_texture(
        TextureDescriptor(
            8, 8, changes.pop("format", TextureFormat.RGBA8_UNORM), usage, "t", **changes
        )
    )


def test_copies_within_one_texture_must_not_overlap(device: NullDevice) -> None:
    texture = copyable(device, layers=2, mip_levels=2)
    small, place = TexelCopyTextureInfo(texture, 1), TexelCopyTextureInfo
    for source, target in (
        (place(texture, 0, (0, 0, 0)), place(texture, 0, (0, 0, 1))),
        (place(texture, 0, (0, 0, 1)), small),
    ):
        encoder = device.create_command_encoder()
        encoder.copy_texture_to_texture(source, target, (4, 4, 1))
        device.queue.submit([encoder.finish()])
    encoder = device.create_command_encoder("e")
    encoder.copy_texture_to_texture(texture, place(texture, 0, (4, 4, 0)), (4, 4, 1))
    with pytest.raises(ValidationError, match="encoder 'e': copy_texture_to_texture: texture 't'"):
        encoder.finish()


def test_depth_and_samples_are_copied_whole(device: NullDevice) -> None:
    for changes in ({"format": TextureFormat.DEPTH32_FLOAT}, {"sample_count": 4}):
        one, other = copyable(device, **changes), copyable(device, **changes)
        encoder = device.create_command_encoder()
        encoder.copy_texture_to_texture(one, other)
        device.queue.submit([encoder.finish()])
        encoder = device.create_command_encoder()
        encoder.copy_texture_to_texture(one, other, (4, 8, 1))
        with pytest.raises(ValidationError, match="texture 't' can only be copied as a whole"):
            encoder.finish()


# --- Counters and live objects --------------------------------------------------------------------


def test_counters(scene: Scene) -> None:
    device = scene.device
    copies = BufferUsage.COPY_SRC | BufferUsage.COPY_DST | BufferUsage.INDIRECT
    one = device.buffer_factory.create_buffer(BufferDesc(64, copies))
    other = device.buffer_factory.create_buffer(BufferDesc(1024, copies))
    texture = device.create_texture(
        TextureDescriptor(
            3, 3, TextureFormat.RGBA8_UNORM, TextureUsage.COPY_SRC | TextureUsage.COPY_DST
        )
    )
    device.queue.write_buffer(one, 0, np.zeros(8, np.uint8))
    device.queue.write_texture(texture, np.zeros((3, 3, 4), np.uint8))
    encoder = device.create_command_encoder()
    encoder.copy_buffer_to_buffer(one, 0, other, 0)
    encoder.copy_texture_to_buffer(texture, other)
    with encoder.begin_compute_pass() as compute_pass:
        shader = device.create_shader_module(SHADER)
        compute_pass.set_pipeline(device.create_compute_pipeline(ComputePipelineDescriptor(shader)))
        compute_pass.dispatch_workgroups(7)
        compute_pass.dispatch_workgroups_indirect(one)
    with encoder.begin_render_pass(scene.frame) as render_pass:
        scene.set_all(render_pass)
        render_pass.draw(3)
        render_pass.multi_draw_indirect(one, 0, 4)
        render_pass.draw_indirect(one)
        render_pass.draw_indexed_indirect(one, 0)
        render_pass.multi_draw_indexed_indirect(one, 0, 3)
    device.queue.submit([encoder.finish()])
    assert device.counters == NullCounters(
        submits=1,
        draws=10,
        dispatches=2,
        render_passes=1,
        compute_passes=1,
        copies=2,
        copied_bytes=64 + 36,
        writes=2,
        written_bytes=8 + 36,
    )


def test_counters_follow_the_clock(manual: NullDevice) -> None:
    frame = manual.create_frame_buffer(4, 4)
    encoder = manual.create_command_encoder()
    with encoder.begin_render_pass(frame):
        pass
    manual.queue.submit([encoder.finish()])
    assert manual.counters == NullCounters(submits=1)
    manual.clock.advance(100)
    assert manual.counters == NullCounters(submits=1, render_passes=1)


def test_live_objects(device: NullDevice) -> None:
    before = device.live_objects()
    factory = device.buffer_factory
    buffers = [factory.create_buffer(BufferDesc(16, BufferUsage.UNIFORM)) for _ in range(3)]
    frame = device.create_frame_buffer(4, 4, depth_format=TextureFormat.DEPTH32_FLOAT)
    sampler = device.create_sampler()
    group = device.create_bind_group(LAYOUT, {0: BufferBinding(buffers[0])})
    alive = device.live_objects()
    assert alive["NullBuffer"] == 3
    assert alive["NullTexture"] == 2
    assert alive["NullSampler"] == alive["NullBindGroup"] == 1

    buffers[1].destroy()
    frame.destroy()
    assert device.live_objects()["NullBuffer"] == 2
    assert device.live_objects()["NullTexture"] == 0

    del buffers, frame, sampler, group
    gc.collect()
    assert device.live_objects() == before


def test_frames_leave_nothing_behind(scene: Scene) -> None:
    def frame() -> None:
        encoder = scene.device.create_command_encoder()
        with encoder.begin_render_pass(scene.frame) as render_pass:
            scene.set_all(render_pass)
            render_pass.draw(3)
        scene.device.queue.submit([encoder.finish()]).wait()
        scene.device.read_array_blocking(scene.frame.color_textures[0])

    frame()
    before = scene.device.live_objects()
    for _ in range(10):
        frame()
    gc.collect()
    assert scene.device.live_objects() == before
