"""What passes, bundles, pipelines and query sets refuse, the same on every backend.

Where a backend notices a mistake differs (at the call, or when the encoder finishes), the error
does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import attrs
import numpy as np
import pytest

from pers import (
    BindGroupLayout,
    BindingLayout,
    BlendState,
    BufferRangeError,
    BufferStateError,
    BufferUsage,
    BufferUsageError,
    ColorTarget,
    ComputePipelineDescriptor,
    DepthState,
    DeviceLostError,
    IFrameBuffer,
    IPipeline,
    IQuerySet,
    IRenderDevice,
    IRenderPass,
    RenderPipelineDescriptor,
    SamplerDescriptor,
    ShaderStage,
    TextureDescriptor,
    TextureFormat,
    TextureUsage,
    ValidationError,
    VertexAttribute,
    VertexLayout,
)
from tests.support import COPY, DOUBLE, FULL_SCREEN, JUNK_NUMBERS, Maker, open_device

RGBA = TextureFormat.RGBA8_UNORM
VERTICES = """
@vertex fn vs_main(@location(0) p: vec2f) -> @builtin(position) vec4f { return vec4f(p, 0., 1.); }
@fragment fn fs_main() -> @location(0) vec4f { return vec4f(1.0); }
"""
POINT = VertexLayout(8, [VertexAttribute(0, "float32x2")])
DATA = BindGroupLayout([BindingLayout(0, "storage", ShaderStage.COMPUTE)])
GPU_USAGES = (
    BufferUsage.VERTEX | BufferUsage.INDEX | BufferUsage.INDIRECT | BufferUsage.STORAGE | COPY
)


def pipeline(device: IRenderDevice, code: str = FULL_SCREEN, **changes: Any) -> IPipeline:
    arguments: dict[str, Any] = {
        "shader": device.create_shader_module(code),
        "color_targets": [ColorTarget(RGBA)],
        "label": "drawing",
    }
    return device.create_render_pipeline(RenderPipelineDescriptor(**(arguments | changes)))


@attrs.frozen
class Scene:
    """What draws need."""

    device: IRenderDevice
    make: Maker
    buffer: Any

    def draws(self, commands: Callable[[Any], object], frame: IFrameBuffer | None = None) -> None:
        """Record commands in a pass, and finish."""
        encoder = self.device.create_command_encoder("scene")
        target = frame or self.device.create_frame_buffer(4, 4, [RGBA])
        with encoder.begin_render_pass(target, label="pass") as render_pass:
            commands(render_pass)
        encoder.finish()

    def dispatches(self, commands: Callable[[Any], object]) -> None:
        encoder = self.device.create_command_encoder("scene")
        with encoder.begin_compute_pass(label="pass") as compute_pass:
            commands(compute_pass)
        encoder.finish()


@pytest.fixture
def scene(device: IRenderDevice, make: Maker) -> Scene:
    return Scene(device, make, make.plain(64, GPU_USAGES))


# --- Numbers of draws and dispatches --------------------------------------------------------------

BAD_COUNTS = [-1, 2**32, 2**63, 2**64, float("nan"), 1.5, "4", None]


def with_junk(good: tuple[Any, ...], junk: list[Any]) -> Iterator[list[Any]]:
    """Yield the arguments with each of them replaced by each piece of junk."""
    for position in range(len(good)):
        for piece in junk:
            yield [*good[:position], piece, *good[position + 1 :]]


@pytest.mark.parametrize("where", ["pass", "bundle"])
def test_draw_numbers(where: str, scene: Scene) -> None:
    drawing = pipeline(scene.device)

    def draw(commands: Any) -> None:
        commands.set_pipeline(drawing)
        commands.set_index_buffer(scene.buffer)
        for arguments in with_junk((3, 1, 0, 0), BAD_COUNTS):
            with pytest.raises(ValidationError, match="draw takes whole numbers"):
                commands.draw(*arguments)
        for arguments in with_junk((3, 1, 0, 0, 0), BAD_COUNTS):
            if arguments[3] != -1:  # base_vertex may be negative
                with pytest.raises(ValidationError, match="draw_indexed takes whole numbers"):
                    commands.draw_indexed(*arguments)

    if where == "pass":
        scene.draws(draw)
    else:
        bundle = scene.device.create_render_bundle_encoder([RGBA])
        draw(bundle)
        bundle.finish()


def test_dispatch_numbers(scene: Scene) -> None:
    def dispatch(commands: Any) -> None:
        for arguments in with_junk((1, 1, 1), BAD_COUNTS):
            with pytest.raises(ValidationError, match="dispatch_workgroups takes whole numbers"):
                commands.dispatch_workgroups(*arguments)

    scene.dispatches(dispatch)


def test_scissor_numbers(scene: Scene) -> None:
    def scissor(commands: IRenderPass) -> None:
        for arguments in with_junk((0, 0, 1, 1), BAD_COUNTS):
            with pytest.raises(ValidationError, match="set_scissor_rect takes whole numbers"):
                commands.set_scissor_rect(*arguments)

    scene.draws(scissor)


def test_viewport_numbers(scene: Scene) -> None:
    junk = [float("nan"), float("inf"), 1e30, "4", None, [1], 1j]

    def viewport(commands: IRenderPass) -> None:
        for arguments in with_junk((0, 0, 1, 1, 0, 1), junk):
            with pytest.raises(ValidationError, match="set_viewport takes finite numbers"):
                commands.set_viewport(*arguments)

    scene.draws(viewport)


def test_numbers_of_numpy(scene: Scene) -> None:
    drawing = pipeline(scene.device)

    def draw(commands: Any) -> None:
        commands.set_pipeline(drawing)
        commands.draw(np.int64(3), np.uint8(1))
        commands.set_viewport(np.float32(0), np.float64(0), np.int64(2), 2)
        commands.set_scissor_rect(np.int64(0), np.int32(0), np.uint8(2), 2)

    scene.draws(draw)


# --- What a draw needs ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "commands",
    [
        lambda p, s: p.draw(3),
        lambda p, s: p.draw_indexed(3),
        lambda p, s: (p.set_pipeline(pipeline(s.device)), p.draw_indexed(3)),
        lambda p, s: (p.set_pipeline(pipeline(s.device, VERTICES, vertex_buffers=[POINT])), p.draw(3)),
        lambda p, s: (
            p.set_pipeline(pipeline(s.device, VERTICES, vertex_buffers=[POINT])),
            p.set_vertex_buffer(0, s.buffer, 48),
            p.draw(3),
        ),
        lambda p, s: (
            p.set_pipeline(pipeline(s.device)),
            p.set_index_buffer(s.buffer, "uint32", 60),
            p.draw_indexed(3),
        ),
        lambda p, s: p.set_pipeline(pipeline(s.device, color_targets=[ColorTarget("bgra8unorm")])),
        lambda p, s: p.set_pipeline(pipeline(s.device, sample_count=4)),
        lambda p, s: p.set_pipeline(pipeline(s.device, depth=DepthState())),
        lambda p, s: p.set_scissor_rect(0, 0, 5, 4),
        lambda p, s: p.set_scissor_rect(4, 0, 1, 1),
        lambda p, s: p.set_viewport(0, 0, -1, 1),
        lambda p, s: p.set_viewport(0, 0, 1, 1, 1.0, 0.0),
        lambda p, s: p.set_viewport(0, 0, 1, 1, 0.0, 2.0),
    ],
    ids=[
        "no pipeline", "no pipeline, indexed", "no indices", "no vertices", "too few vertices",
        "too few indices", "other format", "other samples", "other depth", "scissor too wide",
        "scissor outside", "viewport negative", "viewport upside down", "viewport too deep",
    ],
)  # fmt: skip
def test_draws_that_are_not_valid(commands: Any, scene: Scene) -> None:
    with pytest.raises(ValidationError, match="'scene'"):
        scene.draws(lambda render_pass: commands(render_pass, scene))


@pytest.mark.parametrize(
    "commands",
    [
        lambda p, s: p.dispatch_workgroups(1),
        lambda p, s: (p.set_pipeline(doubling(s.device)), p.dispatch_workgroups(1)),
        lambda p, s: (
            p.set_pipeline(doubling(s.device)),
            p.set_bind_group(0, s.device.create_bind_group(DATA, {0: s.buffer})),
            p.dispatch_workgroups(65536),
        ),
        lambda p, s: p.dispatch_workgroups_indirect(s.buffer),
    ],
    ids=["no pipeline", "no bind group", "too many", "no pipeline, indirect"],
)
def test_dispatches_that_are_not_valid(commands: Any, scene: Scene) -> None:
    with pytest.raises(ValidationError, match="'scene'"):
        scene.dispatches(lambda compute_pass: commands(compute_pass, scene))


def doubling(device: IRenderDevice) -> IPipeline:
    shader = device.create_shader_module(DOUBLE)
    return device.create_compute_pipeline(ComputePipelineDescriptor(shader, [DATA]))


def test_the_wrong_kind_of_pipeline(scene: Scene) -> None:
    drawing, computing = pipeline(scene.device), doubling(scene.device)

    def draw(commands: Any) -> None:
        with pytest.raises(ValidationError, match="is a compute pipeline; set one that draws"):
            commands.set_pipeline(computing)

    def dispatch(commands: Any) -> None:
        with pytest.raises(ValidationError, match="is a render pipeline; set one that computes"):
            commands.set_pipeline(drawing)

    scene.draws(draw)
    scene.dispatches(dispatch)


# --- Buffers in passes ----------------------------------------------------------------------------

BIND: dict[str, tuple[str, Callable[..., object]]] = {
    "set_vertex_buffer": ("VERTEX", lambda p, b, *a: p.set_vertex_buffer(0, b, *a)),
    "set_index_buffer": ("INDEX", lambda p, b, *a: p.set_index_buffer(b, "uint32", *a)),
    "draw_indirect": ("INDIRECT", lambda p, b, *a: p.draw_indirect(b, *a)),
    "draw_indexed_indirect": ("INDIRECT", lambda p, b, *a: p.draw_indexed_indirect(b, *a)),
    "multi_draw_indirect": ("INDIRECT", lambda p, b, o=0: p.multi_draw_indirect(b, o, 2)),
    "multi_draw_indexed_indirect": (
        "INDIRECT",
        lambda p, b, o=0: p.multi_draw_indexed_indirect(b, o, 2),
    ),
}
EVERY_BIND = pytest.mark.parametrize("call", BIND)


@EVERY_BIND
def test_buffers_need_their_usage(call: str, scene: Scene) -> None:
    usage, bind = BIND[call]

    def draw(commands: Any) -> None:
        with pytest.raises(BufferUsageError, match=f"'pass': {call}: buffer 'x'.*needs {usage}"):
            bind(commands, scene.make.plain(64, COPY, "x"))
        for junk in (None, 5, "buffer"):
            with pytest.raises(BufferUsageError, match="takes a pers buffer"):
                bind(commands, junk)

    scene.draws(draw)


@EVERY_BIND
def test_offsets_of_buffers(call: str, scene: Scene) -> None:
    def draw(commands: Any) -> None:
        for offset in (1, 2, 64, 68, 2**62, *JUNK_NUMBERS):
            with pytest.raises(BufferRangeError, match=f"'pass': {call}"):
                BIND[call][1](commands, scene.buffer, offset)

    scene.draws(draw)


@EVERY_BIND
def test_destroyed_and_foreign_buffers(call: str, backend: str, scene: Scene) -> None:
    """[destroyed: setVertexBuffer · setIndexBuffer]"""
    bind = BIND[call][1]
    buffer = scene.make.plain(64, GPU_USAGES, "bound")
    encoder = scene.device.create_command_encoder()
    frame = scene.device.create_frame_buffer(4, 4, [RGBA])
    with encoder.begin_render_pass(frame) as render_pass:
        render_pass.set_pipeline(pipeline(scene.device))
        render_pass.set_index_buffer(scene.buffer)
        bind(render_pass, buffer)
        with open_device(backend) as other:
            with pytest.raises(ValidationError, match="another device"):
                bind(render_pass, Maker(other).plain(64, GPU_USAGES))
    commands = encoder.finish()
    buffer.destroy()
    with pytest.raises(BufferStateError, match="'bound' is destroyed"):
        scene.device.queue.submit([commands])


@pytest.mark.parametrize("slot", [-1, 64, 2**32, 1.5, "0", None, True])
def test_slots_that_are_none(slot: Any, scene: Scene) -> None:
    def draw(commands: Any) -> None:
        with pytest.raises(ValidationError, match="slot must be"):
            commands.set_vertex_buffer(slot, scene.buffer)

    scene.draws(draw)


def test_numbers_of_numpy_are_numbers(scene: Scene) -> None:
    layout = BindGroupLayout([BindingLayout(0, "read-only-storage", ShaderStage.FRAGMENT)])
    group = scene.device.create_bind_group(layout, {0: scene.buffer})
    one = np.int64(1)

    def draw(commands: Any) -> None:
        commands.set_pipeline(pipeline(scene.device))
        commands.set_vertex_buffer(one, scene.buffer)
        commands.set_bind_group(one, group)
        commands.draw_many([3], bind_group=group, group_index=one)
        commands.draw(one, one)
        commands.multi_draw_indirect(scene.buffer, one * 4, one)

    scene.draws(draw)


@pytest.mark.parametrize("index_format", ["uint8", "float32", 4, None])
def test_index_formats_that_are_none(index_format: Any, scene: Scene) -> None:
    def draw(commands: Any) -> None:
        with pytest.raises(ValidationError, match="index_format must be"):
            commands.set_index_buffer(scene.buffer, index_format)

    scene.draws(draw)


@pytest.mark.parametrize("size", [0, 68, 2**62, *[n for n in JUNK_NUMBERS if n is not None]])
@pytest.mark.parametrize("call", ["set_vertex_buffer", "set_index_buffer"])
def test_sizes_of_buffers(call: str, size: Any, scene: Scene) -> None:
    def draw(commands: Any) -> None:
        with pytest.raises(BufferRangeError, match=f"'pass': {call}"):
            BIND[call][1](commands, scene.buffer, 0, size)

    scene.draws(draw)


@pytest.mark.parametrize("count", [5, 2**32, *JUNK_NUMBERS])
@pytest.mark.parametrize("call", ["multi_draw_indirect", "multi_draw_indexed_indirect"])
def test_multi_draw_counts(call: str, count: Any, scene: Scene) -> None:
    def draw(commands: Any) -> None:
        multi_draw = getattr(commands, call)
        with pytest.raises((ValidationError, BufferRangeError), match=call):
            multi_draw(scene.buffer, 0, count)
        multi_draw(scene.buffer, 0, 0)
        for junk in ("buffer", None):
            with pytest.raises(BufferUsageError, match=f"{call} takes a pers buffer"):
                multi_draw(junk, 0, 0)

    scene.draws(draw)


# --- Passes themselves ----------------------------------------------------------------------------


def test_after_the_end(scene: Scene) -> None:
    encoder = scene.device.create_command_encoder()
    frame = scene.device.create_frame_buffer(4, 4, [RGBA])
    render_pass = encoder.begin_render_pass(frame, label="over")
    render_pass.end()
    drawing = pipeline(scene.device)
    for call in (
        render_pass.end,
        lambda: render_pass.draw(3),
        lambda: render_pass.draw_indexed(3),
        lambda: render_pass.set_pipeline(drawing),
        lambda: render_pass.set_viewport(0, 0, 1, 1),
        lambda: render_pass.set_scissor_rect(0, 0, 1, 1),
        lambda: render_pass.set_vertex_buffer(0, scene.buffer),
        lambda: render_pass.set_index_buffer(scene.buffer),
        lambda: render_pass.execute_bundles([]),
        lambda: render_pass.multi_draw_indirect(scene.buffer, 0, 1),
        lambda: render_pass.multi_draw_indirect(scene.buffer, 0, 0),
        lambda: render_pass.multi_draw_indexed_indirect(scene.buffer, 0, 1),
        lambda: render_pass.begin_occlusion_query(0),
        render_pass.end_occlusion_query,
    ):
        with pytest.raises(ValidationError, match="'over'.*after its end"):
            call()
    compute_pass = encoder.begin_compute_pass(label="over")
    compute_pass.end()
    for call in (
        compute_pass.end,
        lambda: compute_pass.dispatch_workgroups(1),
        lambda: compute_pass.dispatch_workgroups_indirect(scene.buffer),
        lambda: compute_pass.set_pipeline(doubling(scene.device)),
    ):
        with pytest.raises(ValidationError, match="'over'.*after its end"):
            call()
    encoder.finish()


@pytest.mark.parametrize("junk", [None, 5, "frame", object()])
def test_what_is_no_frame_buffer(junk: Any, device: IRenderDevice) -> None:
    with pytest.raises(ValidationError, match="takes a frame buffer"):
        device.create_command_encoder().begin_render_pass(junk)


def test_frame_buffers_destroyed_and_foreign(backend: str, device: IRenderDevice) -> None:
    with open_device(backend) as other, pytest.raises(ValidationError, match="another device"):
        device.create_command_encoder().begin_render_pass(other.create_frame_buffer(4, 4))
    frame = device.create_frame_buffer(4, 4, label="gone")
    frame.destroy()
    frame.destroy()
    with pytest.raises(ValidationError, match="'gone color 0' was destroyed"):
        device.create_command_encoder().begin_render_pass(frame)
    with device.create_frame_buffer(4, 4, label="late") as frame:
        encoder = device.create_command_encoder()
        encoder.begin_render_pass(frame).end()
        commands = encoder.finish()
    with pytest.raises(ValidationError, match="'late color 0' was destroyed"):
        device.queue.submit([commands])


@pytest.mark.parametrize(
    "color", [5, "text", (0, 0, 0), (0, 0, 0, 0, 0), (0, 0, 0, "x"), (None,) * 4]
)
def test_clear_colors_that_are_none(color: Any, device: IRenderDevice) -> None:
    with pytest.raises(ValidationError, match="clear_color takes four numbers"):
        device.create_command_encoder().begin_render_pass(
            device.create_frame_buffer(4, 4), clear_color=color
        )


@pytest.mark.parametrize("depth", [-0.1, 1.1, float("nan"), "1", [1]])
def test_clear_depths_that_are_none(depth: Any, device: IRenderDevice) -> None:
    with pytest.raises(ValidationError, match=r"clear_depth must be 0\.0 to 1\.0"):
        device.create_command_encoder().begin_render_pass(
            device.create_frame_buffer(4, 4), clear_depth=depth
        )


@pytest.mark.parametrize(
    "arguments",
    [
        *[{"width": n} for n in (0, 10**6, *JUNK_NUMBERS)], {"height": 0}, {"height": 10**6},
        {"color_formats": []}, {"color_formats": None}, {"color_formats": 5},
        {"color_formats": ["nothing"]}, {"color_formats": [RGBA] * 9},
        {"color_formats": [TextureFormat.DEPTH32_FLOAT]}, {"depth_format": RGBA},
        {"depth_format": "nothing"}, {"depth_format": 5},
        {"sample_count": 0}, {"sample_count": 2}, {"sample_count": 16}, {"sample_count": "4"},
        {"sample_count": None}, {"sample_count": 1.5},
    ],
    ids=str,
)  # fmt: skip
def test_frame_buffers_that_cannot_be(arguments: Any, device: IRenderDevice) -> None:
    with pytest.raises(ValidationError):
        device.create_frame_buffer(**({"width": 4, "height": 4} | arguments))


def test_frame_buffer(device: IRenderDevice) -> None:
    depth = TextureFormat.DEPTH32_FLOAT
    frame = device.create_frame_buffer(
        5, 3, [RGBA, TextureFormat.R8_UNORM], depth_format=depth, sample_count=4, label="all"
    )
    assert (frame.width, frame.height, frame.sample_count) == (5, 3, 4)
    assert frame.color_formats == (RGBA, TextureFormat.R8_UNORM)
    assert frame.depth_format is depth
    assert [texture.sample_count for texture in frame.color_textures] == [1, 1]
    assert frame.depth_texture is not None
    assert frame.depth_texture.sample_count == 4
    assert "'all'" in repr(frame)
    frame.destroy()
    assert not any(texture.is_valid for texture in frame.color_textures)
    plain = device.create_frame_buffer(4, 4)
    assert (plain.color_formats, plain.depth_format, plain.sample_count) == (
        (TextureFormat.RGBA8_UNORM_SRGB,), None, 1,
    )  # fmt: skip


# --- Bundles --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "commands",
    [
        lambda b, s: b.draw(3),
        lambda b, s: (b.set_pipeline(pipeline(s.device)), b.draw_indexed(3)),
        lambda b, s: (
            b.set_pipeline(pipeline(s.device, color_targets=[ColorTarget("bgra8unorm")])),
            b.draw(3),
        ),
        lambda b, s: (
            b.set_pipeline(pipeline(s.device, VERTICES, vertex_buffers=[POINT])),
            b.draw(3),
        ),
    ],
    ids=["no pipeline", "no indices", "other format", "no vertices"],
)
def test_invalid_bundle(commands: Any, scene: Scene) -> None:
    """An error, where wgpu-py aborts the process."""
    bundle = scene.device.create_render_bundle_encoder([RGBA], label="broken")
    commands(bundle, scene)
    with pytest.raises(ValidationError, match="'broken'"):
        bundle.finish()


def test_bundle_is_finished_once(device: IRenderDevice) -> None:
    bundle = device.create_render_bundle_encoder([RGBA], label="once")
    assert bundle.finish().label == "once"
    for call in (bundle.finish, lambda: bundle.draw(3)):
        with pytest.raises(ValidationError, match="'once'.*after its end"):
            call()


def test_bundle_for_other_targets(scene: Scene) -> None:
    bundle = scene.device.create_render_bundle_encoder(
        [TextureFormat.R8_UNORM], label="red"
    ).finish()

    def draw(commands: Any) -> None:
        with pytest.raises(ValidationError, match="'red' was recorded for"):
            commands.execute_bundles([bundle])

    scene.draws(draw)


@pytest.mark.parametrize("junk", [None, 5, "bundles", [None], [5]])
def test_what_is_no_bundle(junk: Any, scene: Scene) -> None:
    def draw(commands: Any) -> None:
        with pytest.raises(ValidationError):
            commands.execute_bundles(junk)
        commands.execute_bundles([])

    scene.draws(draw)


def test_bundles_of_another_device(backend: str, scene: Scene) -> None:
    with open_device(backend) as other:
        foreign = other.create_render_bundle_encoder([RGBA]).finish()

        def draw(commands: Any) -> None:
            with pytest.raises(ValidationError, match="another device"):
                commands.execute_bundles([foreign])

        scene.draws(draw)


def test_bundle_with_a_destroyed_buffer(scene: Scene) -> None:
    buffer = scene.make.plain(64, GPU_USAGES, "bundled")
    encoder = scene.device.create_render_bundle_encoder([RGBA])
    encoder.set_pipeline(pipeline(scene.device, VERTICES, vertex_buffers=[POINT]))
    encoder.set_vertex_buffer(0, buffer)
    encoder.draw(3)
    bundle = encoder.finish()
    commands = scene.device.create_command_encoder()
    frame = scene.device.create_frame_buffer(4, 4, [RGBA])
    with commands.begin_render_pass(frame) as render_pass:
        render_pass.execute_bundles([bundle])
    finished = commands.finish()
    buffer.destroy()
    with pytest.raises(BufferStateError, match="'bundled' is destroyed"):
        scene.device.queue.submit([finished])


@pytest.mark.parametrize(
    "arguments",
    [
        {"color_formats": []}, {"color_formats": None}, {"color_formats": ["nothing"]},
        {"color_formats": [5]}, {"color_formats": [RGBA] * 9}, {"depth_format": RGBA},
        {"depth_format": "nothing"}, {"color_formats": [TextureFormat.DEPTH32_FLOAT]},
        {"sample_count": 0}, {"sample_count": 2}, {"sample_count": None}, {"sample_count": "4"},
    ],
    ids=str,
)  # fmt: skip
def test_bundles_that_cannot_be(arguments: Any, device: IRenderDevice) -> None:
    with pytest.raises(ValidationError):
        device.create_render_bundle_encoder(**({"color_formats": [RGBA]} | arguments))


# --- Query sets -----------------------------------------------------------------------------------


@pytest.fixture
def queries(device: IRenderDevice) -> IQuerySet:
    return device.create_query_set("occlusion", 4, label="counted")


@pytest.mark.parametrize("count", [0, 4097, *JUNK_NUMBERS])
def test_query_counts(count: Any, device: IRenderDevice) -> None:
    with pytest.raises(ValidationError, match="count"):
        device.create_query_set("occlusion", count)


@pytest.mark.parametrize("kind", ["nothing", None, 5])
def test_query_kinds(kind: Any, device: IRenderDevice) -> None:
    with pytest.raises(ValidationError, match="kind must be"):
        device.create_query_set(kind, 1)


def test_timestamps_need_their_feature(backend: str, device: IRenderDevice) -> None:
    with pytest.raises(ValidationError, match="feature 'timestamp-query'"):
        device.create_query_set("timestamp", 2)
    with open_device(backend, ["timestamp-query"]) as other:
        queries = other.create_query_set("timestamp", 2, label="times")
        assert (queries.kind, queries.count, queries.label) == ("timestamp", 2, "times")
        frame = other.create_frame_buffer(4, 4)
        with pytest.raises(ValidationError, match="counts timestamps"):
            other.create_command_encoder().begin_render_pass(frame, occlusion_queries=queries)


@pytest.mark.parametrize("index", [4, 2**32, *[n for n in JUNK_NUMBERS if n is not True], None])
def test_query_indices(index: Any, device: IRenderDevice, queries: IQuerySet) -> None:
    encoder = device.create_command_encoder()
    frame = device.create_frame_buffer(4, 4)
    with encoder.begin_render_pass(frame, occlusion_queries=queries) as render_pass:
        with pytest.raises(ValidationError, match="begin_occlusion_query"):
            render_pass.begin_occlusion_query(index)


def test_queries_in_order(device: IRenderDevice, queries: IQuerySet) -> None:
    encoder = device.create_command_encoder()
    frame = device.create_frame_buffer(4, 4)
    with encoder.begin_render_pass(frame) as render_pass:
        with pytest.raises(ValidationError, match="needs a pass with an occlusion query set"):
            render_pass.begin_occlusion_query(0)
    with encoder.begin_render_pass(frame, occlusion_queries=queries) as render_pass:
        with pytest.raises(ValidationError, match="without an open query"):
            render_pass.end_occlusion_query()
        render_pass.begin_occlusion_query(0)
        with pytest.raises(ValidationError, match="no open query"):
            render_pass.begin_occlusion_query(1)
        render_pass.end_occlusion_query()
        render_pass.begin_occlusion_query(1)  # left open: the end of the pass ends it
    device.queue.submit([encoder.finish()]).wait()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((0, 5, 0), ValidationError),
        ((4, 1, 0), ValidationError),
        ((5, 0, 0), ValidationError),
        *[((junk, 1, 0), ValidationError) for junk in JUNK_NUMBERS],
        *[((0, junk, 0), ValidationError) for junk in JUNK_NUMBERS],
        *[((0, 1, junk), BufferRangeError) for junk in JUNK_NUMBERS],
        ((0, 1, 8), BufferRangeError),
        ((0, 1, 255), BufferRangeError),
        ((0, 1, 512), BufferRangeError),
    ],
)
def test_resolves_that_do_not_fit(
    arguments: Any, error: type[Exception], device: IRenderDevice, make: Maker, queries: IQuerySet
) -> None:
    encoder = device.create_command_encoder("resolve")
    first, count, offset = arguments
    with pytest.raises(error, match="'resolve'"):
        encoder.resolve_query_set(
            queries, first, count, make.plain(512, BufferUsage.QUERY_RESOLVE), offset
        )
    encoder.finish()


def test_resolve_states(
    backend: str, device: IRenderDevice, make: Maker, queries: IQuerySet
) -> None:
    """[destroyed: resolveQuerySet]"""
    target = make.plain(512, BufferUsage.QUERY_RESOLVE, "results")
    with pytest.raises(BufferUsageError, match="needs QUERY_RESOLVE"):
        device.create_command_encoder().resolve_query_set(queries, 0, 1, make.plain(512))
    for junk in (None, 5, "queries"):
        with pytest.raises(ValidationError):
            device.create_command_encoder().resolve_query_set(junk, 0, 1, target)  # type: ignore[arg-type]
    with open_device(backend) as other:
        foreign = other.create_query_set("occlusion", 1)
        with pytest.raises(ValidationError, match="another device"):
            device.create_command_encoder().resolve_query_set(foreign, 0, 1, target)
    encoder = device.create_command_encoder()
    encoder.resolve_query_set(queries, 0, 4, target)
    commands = encoder.finish()
    target.destroy()
    with pytest.raises(BufferStateError, match="'results' is destroyed"):
        device.queue.submit([commands])


def test_destroyed_query_set(device: IRenderDevice, make: Maker, queries: IQuerySet) -> None:
    target = make.plain(512, BufferUsage.QUERY_RESOLVE)
    encoder = device.create_command_encoder()
    encoder.resolve_query_set(queries, 0, 1, target)
    resolving = encoder.finish()
    encoder = device.create_command_encoder()
    frame = device.create_frame_buffer(4, 4)
    encoder.begin_render_pass(frame, occlusion_queries=queries).end()
    counting = encoder.finish()
    queries.destroy()
    queries.destroy()
    for commands in (resolving, counting):
        with pytest.raises(ValidationError, match="'counted' was destroyed"):
            device.queue.submit([commands])
    with pytest.raises(ValidationError, match="'counted' was destroyed"):
        device.create_command_encoder().resolve_query_set(queries, 0, 1, target)


def test_resolve_of_queries_that_never_counted(
    device: IRenderDevice, make: Maker, queries: IQuerySet
) -> None:
    """Zeros, and no hang."""
    target = make.filled(np.full(64, 7, np.uint64), BufferUsage.QUERY_RESOLVE | COPY)
    encoder = device.create_command_encoder()
    encoder.resolve_query_set(queries, 1, 2, target, 256)
    device.queue.submit([encoder.finish()])
    expected = [7] * 32 + [0, 0] + [7] * 30
    assert device.read_array_blocking(target, np.uint64).tolist() == expected


# --- Descriptors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make_one",
    [
        lambda junk: SamplerDescriptor(mag_filter=junk),
        lambda junk: SamplerDescriptor(min_filter=junk),
        lambda junk: SamplerDescriptor(mipmap_filter=junk),
        lambda junk: SamplerDescriptor(address_mode=junk),
        lambda junk: SamplerDescriptor(compare=junk or 0),
        lambda junk: SamplerDescriptor(max_anisotropy=0 if junk == 4 else junk),
        lambda junk: DepthState(compare=junk),
        lambda junk: DepthState(format=junk),
        lambda junk: DepthState(write=junk),
        lambda junk: DepthState(RGBA),
        lambda junk: ColorTarget(junk),
        lambda junk: ColorTarget(TextureFormat.DEPTH32_FLOAT),
        lambda junk: ColorTarget(RGBA, junk or 0),
        lambda junk: BlendState(src=junk),
        lambda junk: BlendState(operation=junk),
        lambda junk: BlendState(dst_alpha=junk),
        lambda junk: VertexAttribute(-1 if junk == 4 else junk, "float32"),
        lambda junk: VertexAttribute(0, 4 if junk == "nothing" else junk),
        lambda junk: VertexAttribute(0, "float32", -4 if junk == 4 else junk),
        lambda junk: VertexLayout(8, [junk]),
        lambda junk: VertexLayout(8, junk),
        lambda junk: VertexLayout(8, [], junk),
        lambda junk: VertexLayout(0 if junk == 4 else junk, []),
        lambda junk: VertexLayout.from_dtype(junk or "f4"),
        lambda junk: RenderPipelineDescriptor(None, junk),
        lambda junk: RenderPipelineDescriptor(None, [junk]),
        lambda junk: RenderPipelineDescriptor(None, [], [junk]),
        lambda junk: RenderPipelineDescriptor(None, [], bind_groups=[junk]),
        lambda junk: RenderPipelineDescriptor(None, [], depth=junk or 0),
        lambda junk: RenderPipelineDescriptor(None, [], topology=junk),
        lambda junk: RenderPipelineDescriptor(None, [], cull_mode=junk),
        lambda junk: RenderPipelineDescriptor(
            None, [], vertex_entry=junk if junk != "nothing" else 0
        ),
        lambda junk: RenderPipelineDescriptor(None, [], label=junk if junk != "nothing" else 0),
        lambda junk: ComputePipelineDescriptor(None, [junk]),
        lambda junk: ComputePipelineDescriptor(None, junk),
        lambda junk: ComputePipelineDescriptor(None, entry=junk if junk != "nothing" else 0),
    ],
)
@pytest.mark.parametrize("junk", [4, "nothing", None, [4]], ids=repr)
def test_descriptors_that_are_none(make_one: Any, junk: Any) -> None:
    """Several of these abort the process when wgpu-py hands them on."""
    with pytest.raises(ValidationError):
        make_one(junk)


@pytest.mark.parametrize(
    "arguments",
    [
        *[{"width": n} for n in (0, 2**31, *JUNK_NUMBERS) if n is not True],
        *[{"height": n} for n in (0, -1, None)],
        *[{"layers": n} for n in (0, -1, 1.5, None)],
        *[{"mip_levels": n} for n in (0, 4, -1, None)],
        *[{"sample_count": n} for n in (0, 2, 3, 16, None, "4")],
        {"format": "nothing"}, {"format": None}, {"format": 5},
        {"usage": 0}, {"usage": 32}, {"usage": -1}, {"usage": None}, {"usage": "COPY_SRC"},
        {"label": 5}, {"label": None},
    ],
    ids=str,
)  # fmt: skip
def test_textures_that_cannot_be(arguments: Any) -> None:
    good = {"width": 4, "height": 4, "format": RGBA, "usage": TextureUsage.COPY_SRC}
    with pytest.raises(ValidationError):
        TextureDescriptor(**(good | arguments))


@pytest.mark.parametrize(
    "arguments",
    [
        {"width": 10**6}, {"height": 10**6}, {"layers": 10**6},
        {"sample_count": 4}, {"sample_count": 4, "usage": TextureUsage.RENDER_ATTACHMENT, "layers": 2},
        {"sample_count": 4, "usage": TextureUsage.RENDER_ATTACHMENT, "mip_levels": 2},
        {"usage": TextureUsage.RENDER_ATTACHMENT, "format": TextureFormat.RGB9E5_UFLOAT},
    ],
    ids=str,
)  # fmt: skip
def test_textures_that_the_device_refuses(arguments: Any, device: IRenderDevice) -> None:
    good = {"width": 4, "height": 4, "format": RGBA, "usage": TextureUsage.COPY_SRC, "label": "no"}
    descriptor = TextureDescriptor(**(good | arguments))
    with pytest.raises(ValidationError, match="'no'"):
        device.create_texture(descriptor)


@pytest.mark.parametrize("junk", [None, 5, "descriptor", object()])
def test_what_is_no_descriptor(junk: Any, device: IRenderDevice) -> None:
    for create in (
        device.create_texture, device.create_render_pipeline, device.create_compute_pipeline,
        device.create_shader_module,
    ):  # fmt: skip
        if create == device.create_shader_module and isinstance(junk, str):
            continue
        with pytest.raises(ValidationError):
            create(junk)
    if junk is not None:
        with pytest.raises(ValidationError):
            device.create_sampler(junk)


@pytest.mark.parametrize("junk", [None, 5, "shader"])
def test_what_is_no_shader(junk: Any, backend: str, device: IRenderDevice) -> None:
    with pytest.raises(ValidationError, match="takes a ShaderModule of this device"):
        device.create_compute_pipeline(ComputePipelineDescriptor(junk))
    with pytest.raises(ValidationError, match="takes a ShaderModule of this device"):
        device.create_render_pipeline(RenderPipelineDescriptor(junk, [ColorTarget(RGBA)]))
    with open_device(backend) as other:
        with pytest.raises(ValidationError, match="another device"):
            device.create_compute_pipeline(
                ComputePipelineDescriptor(other.create_shader_module(DOUBLE))
            )


@pytest.mark.parametrize(
    "changes",
    [
        {"vertex_entry": "nothing"}, {"fragment_entry": "nothing"}, {"sample_count": 2},
        {"sample_count": None}, {"color_targets": []}, {"bind_groups": [DATA] * 40},
        {"vertex_buffers": [POINT] * 40}, {"color_targets": [ColorTarget(RGBA)] * 9},
    ],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_pipelines_that_cannot_be(changes: Any, device: IRenderDevice) -> None:
    with pytest.raises(ValidationError, match="'drawing'"):
        pipeline(device, **changes)


def test_compute_pipelines_that_cannot_be(device: IRenderDevice) -> None:
    shader = device.create_shader_module(DOUBLE)
    for changes in ({"entry": "nothing"}, {"bind_groups": [DATA] * 40}):
        with pytest.raises(ValidationError, match="'bad'"):
            device.create_compute_pipeline(
                ComputePipelineDescriptor(**({"shader": shader, "label": "bad"} | changes))
            )


STAGES = """
fn plain() {}
@vertex /* @compute */ fn vs() -> @builtin(position) vec4f { plain(); return vec4f(); }
@fragment fn fs() -> @location(0) vec4f { return vec4f(); }
struct Pair { a: f32, b: f32 }
@workgroup_size(max(1, 2), 1) // @vertex
@compute
fn cs(@builtin(global_invocation_id) id: vec3u) {}
"""


@pytest.mark.parametrize("entry", ["plain", "vs", "fs", "cs", "Pair"])
def test_entry_points_of_another_stage(entry: str, device: IRenderDevice) -> None:
    shader = device.create_shader_module(STAGES, label="stages")
    rgba = [ColorTarget(RGBA)]
    makes: dict[str, Callable[[], object]] = {
        "vs": lambda: device.create_render_pipeline(
            RenderPipelineDescriptor(
                shader, rgba, vertex_entry=entry, fragment_entry="fs", label="it"
            )
        ),
        "fs": lambda: device.create_render_pipeline(
            RenderPipelineDescriptor(
                shader, rgba, vertex_entry="vs", fragment_entry=entry, label="it"
            )
        ),
        "cs": lambda: device.create_compute_pipeline(
            ComputePipelineDescriptor(shader, entry=entry, label="it")
        ),
    }
    for stage, make in makes.items():
        if stage == entry:
            make()
        else:
            with pytest.raises(ValidationError, match=f"'it'.*{entry}"):
                make()


def test_equal_descriptors_give_the_same_pipeline(device: IRenderDevice) -> None:
    shader = device.create_shader_module(FULL_SCREEN)
    descriptors = [RenderPipelineDescriptor(shader, [ColorTarget(RGBA)]) for _ in range(2)]
    one, other = map(device.create_render_pipeline, descriptors)
    assert one is other
    assert one.bind_groups == ()
    shader = device.create_shader_module(DOUBLE)
    computing = [ComputePipelineDescriptor(shader, [DATA]) for _ in range(2)]
    assert len({id(device.create_compute_pipeline(descriptor)) for descriptor in computing}) == 1
    assert device.create_compute_pipeline(computing[0]).bind_groups == (DATA,)


def test_closed(fresh_device: IRenderDevice) -> None:
    device = fresh_device
    shader = device.create_shader_module(FULL_SCREEN + DOUBLE)
    bundle = device.create_render_bundle_encoder([RGBA])
    frame = device.create_frame_buffer(4, 4, [RGBA])
    encoder = device.create_command_encoder()
    render_pass = encoder.begin_render_pass(frame)
    drawing = pipeline(device)
    device.close()
    for call in (
        lambda: device.create_shader_module(FULL_SCREEN),
        lambda: device.create_render_pipeline(
            RenderPipelineDescriptor(shader, [ColorTarget(RGBA)])
        ),
        lambda: device.create_compute_pipeline(ComputePipelineDescriptor(shader)),
        lambda: device.create_frame_buffer(4, 4),
        lambda: device.create_query_set("occlusion", 1),
        lambda: device.create_render_bundle_encoder([RGBA]),
        device.create_sampler,
        encoder.finish,
    ):
        with pytest.raises((DeviceLostError, ValidationError)):
            call()
    render_pass.set_pipeline(drawing)
    render_pass.draw(3)
    render_pass.end()
    with pytest.raises(DeviceLostError):
        encoder.finish()
    with pytest.raises(DeviceLostError):
        bundle.finish()
