"""Many draws from one array: the same as a loop of draws, and refused as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pers import (
    BindGroupLayout,
    BindingLayout,
    BufferBinding,
    BufferRangeError,
    BufferStateError,
    BufferUsage,
    ColorTarget,
    DynamicBuffer,
    IBindGroup,
    IPipeline,
    IRenderDevice,
    PersError,
    RenderPipelineDescriptor,
    ShaderStage,
    TextureFormat,
    ValidationError,
    VertexLayout,
)
from pers.backends.null import NullDevice
from tests.support import JUNK_NUMBERS, Maker, open_device

RGBA = TextureFormat.RGBA8_UNORM
SIZE = 16
# A triangle for each three vertices, moved by two bindings and tinted by the instance.
SCATTERED = """
struct Place { at: vec4f };
@group(0) @binding(2) var<uniform> place: Place;
@group(0) @binding(5) var<storage, read> tint: vec4f;
struct Out { @builtin(position) position: vec4f, @location(0) color: vec4f };
@vertex fn vs_main(
    @location(0) corner: vec2f, @builtin(vertex_index) v: u32, @builtin(instance_index) i: u32
) -> Out {
    let moved = corner * 0.2 + place.at.xy + vec2f(f32(i) * 0.3, 0.0);
    return Out(vec4f(moved, 0.5, 1.0), vec4f(tint.xyz, 1.0) / f32(v / 3u + 1u));
}
@fragment fn fs_main(in: Out) -> @location(0) vec4f { return in.color; }
"""
GROUP = BindGroupLayout(
    [
        BindingLayout(5, "read-only-storage", ShaderStage.VERTEX, dynamic_offset=True, min_size=16),
        BindingLayout(2, "uniform", ShaderStage.VERTEX, dynamic_offset=True, min_size=16),
    ]
)
CORNERS = np.array([(-1, -1), (1, -1), (0, 1), (-1, 1), (1, 1), (0, -1)], np.float32)


class Scattered:
    """A pipeline with two dynamic bindings, vertices, indices, and places for 8 draws."""

    def __init__(self, device: IRenderDevice, make: Maker) -> None:
        self.device = device
        random = np.random.default_rng(1)
        self.step = max(
            device.limits.min_uniform_buffer_offset_alignment,
            device.limits.min_storage_buffer_offset_alignment,
        )
        records = np.zeros((8, self.step // 4), np.float32)
        records[:, :4] = random.uniform(-0.7, 0.7, (8, 4))
        self.places = make.filled(records, BufferUsage.UNIFORM)
        records[:, :4] = random.uniform(0.3, 1.0, (8, 4))
        self.tints = make.filled(records, BufferUsage.STORAGE)
        self.vertices = make.filled(CORNERS, BufferUsage.VERTEX)
        self.indices = make.filled(np.array([0, 1, 2, 3, 4, 5, 5, 4, 0], "u4"), BufferUsage.INDEX)
        self.group = self.bound(self.places, self.tints)
        self.pipeline: IPipeline = device.create_render_pipeline(
            RenderPipelineDescriptor(
                device.create_shader_module(SCATTERED),
                [ColorTarget(RGBA)],
                vertex_buffers=[VertexLayout.from_dtype([("corner", "f4", 2)])],
                bind_groups=[GROUP],
            )
        )

    def bound(self, places: Any, tints: Any) -> IBindGroup:
        return self.device.create_bind_group(
            GROUP, {2: BufferBinding(places, 0, 16), 5: BufferBinding(tints, 0, 16)}, label="moves"
        )

    def begin(self, commands: Any) -> None:
        commands.set_pipeline(self.pipeline)
        commands.set_vertex_buffer(0, self.vertices)
        commands.set_index_buffer(self.indices)

    def picture(self, draws: Callable[[Any], object], *, bundled: bool) -> npt.NDArray[Any]:
        frame = self.device.create_frame_buffer(SIZE, SIZE, [RGBA])
        encoder = self.device.create_command_encoder()
        with encoder.begin_render_pass(frame) as render_pass:
            commands: Any = render_pass
            if bundled:
                commands = self.device.create_render_bundle_encoder([RGBA])
            self.begin(commands)
            draws(commands)
            if bundled:
                render_pass.execute_bundles([commands.finish()])
        self.device.queue.submit([encoder.finish()])
        return self.device.read_array_blocking(frame.color_textures[0])


@pytest.fixture
def scattered(device: IRenderDevice, make: Maker) -> Scattered:
    return Scattered(device, make)


DRAWS = np.array([(3, 1, 0, 0), (3, 2, 3, 0), (6, 1, 0, 1), (0, 5, 0, 0), (3, 1, 3, 2)])
INDEXED = np.array([(3, 1, 0, 0, 0), (3, 2, 3, 0, 0), (6, 1, 3, -1, 0), (3, 1, 6, 0, 2)])


def offsets_for(scattered: Scattered, count: int, seed: int = 3) -> npt.NDArray[np.uint32]:
    random = np.random.default_rng(seed)
    return (random.integers(0, 8, (count, 2)) * scattered.step).astype(np.uint32)


# --- What is drawn --------------------------------------------------------------------------------


@pytest.mark.parametrize("bundled", [False, True])
@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize("columns", [1, 2, 3, 4, 5])
def test_the_same_as_a_loop(columns: int, indexed: bool, bundled: bool, gpu: IRenderDevice) -> None:
    scattered = Scattered(gpu, Maker(gpu))
    table = (INDEXED if indexed else DRAWS)[:, :columns]
    offsets = offsets_for(scattered, len(table))

    def loop(commands: Any) -> None:
        one = commands.draw_indexed if indexed else commands.draw
        for row, (place, tint) in zip(table.tolist(), offsets.tolist(), strict=True):
            commands.set_bind_group(0, scattered.group, [place, tint])
            one(*row)

    def many(commands: Any) -> None:
        call = commands.draw_indexed_many if indexed else commands.draw_many
        call(table, bind_group=scattered.group, dynamic_offsets=offsets)

    expected = scattered.picture(loop, bundled=False)
    assert len(np.unique(expected.reshape(-1, 4), axis=0)) > 2
    assert np.array_equal(scattered.picture(many, bundled=bundled), expected)


@pytest.mark.parametrize("bundled", [False, True])
def test_without_a_group_the_one_that_is_set_stays(bundled: bool, gpu: IRenderDevice) -> None:
    scattered = Scattered(gpu, Maker(gpu))
    step = scattered.step

    def loop(commands: Any) -> None:
        commands.set_bind_group(0, scattered.group, [step, 2 * step])
        for row in DRAWS.tolist():
            commands.draw(*row)

    def many(commands: Any) -> None:
        # What many draws set last stays set, too.
        commands.draw_many(
            np.zeros(2, int),
            bind_group=scattered.group,
            dynamic_offsets=[(0, 0), (step, 2 * step)],
        )
        commands.draw_many(DRAWS)

    expected = scattered.picture(loop, bundled=False)
    assert expected.any()
    assert np.array_equal(scattered.picture(many, bundled=bundled), expected)


@pytest.mark.parametrize("dtype", ["i1", "u1", ">i2", "u4", "i8", "u8", list, tuple])
def test_any_array_of_whole_numbers(dtype: Any, gpu: IRenderDevice) -> None:
    scattered = Scattered(gpu, Maker(gpu))
    scattered.group = scattered.bound(scattered.places, scattered.tints)
    table: Any = DRAWS if isinstance(dtype, type) else DRAWS.astype(dtype)
    offsets: Any = offsets_for(scattered, len(DRAWS))
    if isinstance(dtype, type):
        table, offsets = dtype(map(dtype, table.tolist())), dtype(map(dtype, offsets.tolist()))
    else:  # not in one piece
        table = np.repeat(table, 2, axis=0)[::2]
        offsets = np.asfortranarray(offsets.astype("u8"))

    def many(draws: Any, places: Any) -> Callable[[Any], object]:
        return lambda p: p.draw_many(draws, bind_group=scattered.group, dynamic_offsets=places)

    expected = scattered.picture(many(DRAWS, offsets_for(scattered, len(DRAWS))), bundled=False)
    assert np.array_equal(scattered.picture(many(table, offsets), bundled=False), expected)


def test_arrays_may_change_after_the_call(gpu: IRenderDevice) -> None:
    """A bundle is recorded later; it has the numbers of the call."""
    scattered = Scattered(gpu, Maker(gpu))
    table, offsets = DRAWS.copy(), offsets_for(scattered, len(DRAWS))

    def many(commands: Any, change: bool) -> None:
        mine, places = table.copy(), offsets.copy()
        commands.draw_many(mine, bind_group=scattered.group, dynamic_offsets=places)
        if change:
            mine[:] = 2**31
            places[:] = 1

    expected = scattered.picture(lambda p: many(p, False), bundled=True)
    assert np.array_equal(scattered.picture(lambda p: many(p, True), bundled=True), expected)


def test_draws_are_counted() -> None:
    with NullDevice() as device:
        scattered = Scattered(device, Maker(device))
        offsets = offsets_for(scattered, 5)
        scattered.picture(
            lambda p: (
                p.draw_many(DRAWS, bind_group=scattered.group, dynamic_offsets=offsets),
                p.draw_indexed_many(INDEXED),
                p.draw_many([]),
            ),
            bundled=False,
        )
        assert device.counters.draws == len(DRAWS) + len(INDEXED)


def test_a_million_draws(device: IRenderDevice, scattered: Scattered) -> None:
    """Checked in one go, recorded without a step in Python for each."""
    table = np.zeros((100_000, 1), np.uint8)
    offsets = np.zeros((100_000, 2), np.uint8)

    def many(commands: Any) -> None:
        commands.draw_many(table, bind_group=scattered.group, dynamic_offsets=offsets)

    assert (scattered.picture(many, bundled=False)[..., :3] == 0).all()


@pytest.mark.parametrize("empty", [[], (), np.empty(0), np.empty((0, 4), int), [[]]])
def test_no_draws(empty: Any, scattered: Scattered) -> None:
    def none(commands: Any) -> None:
        if np.shape(empty) == (1, 0):
            with pytest.raises(ValidationError, match="shape"):
                commands.draw_many(empty)
            return
        commands.draw_many(empty)
        commands.draw_indexed_many(empty)
        two_columns = np.empty((0, 2), int)
        commands.draw_many(empty, bind_group=scattered.group, dynamic_offsets=two_columns)

    scattered.picture(none, bundled=False)


def test_a_group_without_dynamic_bindings(device: IRenderDevice, make: Maker) -> None:
    layout = BindGroupLayout([BindingLayout(0, "uniform", ShaderStage.FRAGMENT)])
    uniform = make.filled(np.ones(4, np.float32), BufferUsage.UNIFORM)
    group = device.create_bind_group(layout, {0: uniform})
    drawing = device.create_render_pipeline(
        RenderPipelineDescriptor(
            device.create_shader_module(
                "@group(0) @binding(0) var<uniform> color: vec4f;"
                "@vertex fn vs_main(@builtin(vertex_index) i: u32) -> @builtin(position) vec4f {"
                "return vec4f(f32(i & 1u) * 4. - 1., f32(i >> 1u) * 4. - 1., .5, 1.); }"
                "@fragment fn fs_main() -> @location(0) vec4f { return color; }"
            ),
            [ColorTarget(RGBA)],
            bind_groups=[layout],
        )
    )
    frame = device.create_frame_buffer(4, 4, [RGBA])
    encoder = device.create_command_encoder()
    with encoder.begin_render_pass(frame) as render_pass:
        render_pass.set_pipeline(drawing)
        render_pass.draw_many([], bind_group=group)
        render_pass.draw_many([3, 3], bind_group=group)
        with pytest.raises(ValidationError, match="takes 0 dynamic offsets, not 1"):
            render_pass.draw_many([3, 3], bind_group=group, dynamic_offsets=[0, 0])
    device.queue.submit([encoder.finish()])
    if device.info.executes_shaders:
        assert (device.read_array_blocking(frame.color_textures[0]) == 255).all()


# --- What is refused ------------------------------------------------------------------------------


@pytest.fixture
def commands(scattered: Scattered) -> Iterator[Any]:
    """An open render pass, in which nothing that is refused leaves a trace."""
    frame = scattered.device.create_frame_buffer(SIZE, SIZE, [RGBA])
    encoder = scattered.device.create_command_encoder("many")
    with encoder.begin_render_pass(frame, label="pass") as render_pass:
        yield render_pass
    scattered.device.queue.submit([encoder.finish()])  # a draw without a pipeline would raise


JUNK_TABLES: list[Any] = [
    None, 5, 3.5, "draws", b"draws", object(), {}, {3}, [None], [[3, "1"]], [3.0], np.ones(3),
    [True], np.ones((2, 2), bool), [[3, 1], [3]], [[[3]]], np.zeros((2, 6), int),
    np.array(["3"]), np.array([3], object), np.zeros(2, "M8[s]"), np.zeros(2, "f4, f4"),
    [2**64], [float("nan")], [1j], np.ma.masked_array([3.5], [True]),
]  # fmt: skip


@pytest.mark.parametrize("junk", JUNK_TABLES)
@pytest.mark.parametrize("call", ["draw_many", "draw_indexed_many"])
def test_tables_that_are_none(call: str, junk: Any, commands: Any, scattered: Scattered) -> None:
    with pytest.raises(ValidationError, match=f"'many': render pass 'pass': {call}: draws"):
        getattr(commands, call)(junk)
    with pytest.raises(ValidationError, match="dynamic"):
        getattr(commands, call)([3], bind_group=scattered.group, dynamic_offsets=junk)


@pytest.mark.parametrize(
    ("call", "row", "name"),
    [
        ("draw_many", [-1], "vertex_count"),
        ("draw_many", [2**32], "vertex_count"),
        ("draw_many", [3, -1], "instance_count"),
        ("draw_many", [3, 1, 2**32], "first_vertex"),
        ("draw_many", [3, 1, 0, 2**63 - 1], "first_instance"),
        ("draw_many", [3, 1, 0, 2**64 - 1], "first_instance"),
        ("draw_many", [3, 1, 0, -(2**63)], "first_instance"),
        ("draw_indexed_many", [2**32], "index_count"),
        ("draw_indexed_many", [3, 1, -1], "first_index"),
        ("draw_indexed_many", [3, 1, 0, 2**31], "base_vertex"),
        ("draw_indexed_many", [3, 1, 0, -(2**31) - 1], "base_vertex"),
        ("draw_indexed_many", [3, 1, 0, 0, -1], "first_instance"),
    ],
)
def test_numbers_out_of_range(call: str, row: list[int], name: str, commands: Any) -> None:
    good = [3, 1, 0, 0, 0][: len(row)]
    dtype = np.uint64 if max(row) >= 2**63 else np.int64
    with pytest.raises(ValidationError, match=f"{call}: {name} of draw 2 must be"):
        getattr(commands, call)(np.array([good, good, row, good, row], dtype))


def test_largest_numbers(commands: Any) -> None:
    """In range for the call; what they read beyond the buffers is for the device to say."""
    from pers.graphics.draw_rows import DRAW, DRAW_INDEXED, rows_of_draws

    for columns in (DRAW, DRAW_INDEXED):
        for place in (2, 3):
            rows = np.array([[smallest, largest] for *_, smallest, largest in columns]).T
            assert rows_of_draws(rows, columns, "test").tolist() == rows.tolist()
            assert rows_of_draws(rows[:, :place], columns, "test").shape == rows.shape


def test_offsets_that_do_not_fit(commands: Any, scattered: Scattered) -> None:
    step, end = scattered.step, 8 * scattered.step
    for bad, error, match in (
        ((4, 0), BufferRangeError, "draw 1: dynamic offsets into .* multiples of"),
        ((0, 4), BufferRangeError, "draw 1: dynamic offsets into .* multiples of"),
        ((-step, 0), BufferRangeError, "draw 1: .* not -"),
        ((end, 0), BufferRangeError, "draw 1: dynamic offset .* beyond the end"),
        ((0, end), BufferRangeError, "draw 1: dynamic offset .* beyond the end"),
        ((0, 2**40), BufferRangeError, "draw 1: dynamic offset .* beyond the end"),
    ):
        for call in (commands.draw_many, commands.draw_indexed_many):
            with pytest.raises(error, match=match):
                call([3, 3], bind_group=scattered.group, dynamic_offsets=[(0, 0), bad])


def test_offsets_of_the_wrong_shape(commands: Any, scattered: Scattered) -> None:
    for offsets, match in (
        (None, "takes 2 dynamic offsets, not 0"),
        ([0, 0], "takes 2 dynamic offsets, not 1"),
        (np.zeros((2, 3), int), "takes 2 dynamic offsets, not 3"),
        (np.zeros((3, 2), int), "3 rows were given for 2 draws"),
        (np.zeros((1, 2), int), "1 rows were given for 2 draws"),
        ([], "0 rows were given for 2 draws"),
    ):
        with pytest.raises(ValidationError, match=match):
            commands.draw_many([3, 3], bind_group=scattered.group, dynamic_offsets=offsets)
    with pytest.raises(ValidationError, match="pass bind_group"):
        commands.draw_many([3], dynamic_offsets=[0])


@pytest.mark.parametrize("junk", [0, "group", object(), [None]])
def test_what_is_no_group(junk: Any, commands: Any) -> None:
    with pytest.raises(ValidationError, match="takes a BindGroup"):
        commands.draw_many([3], bind_group=junk, dynamic_offsets=[0])


@pytest.mark.parametrize("index", [*(n for n in JUNK_NUMBERS if n is not True), 99])
def test_group_numbers_that_are_none(index: Any, commands: Any, scattered: Scattered) -> None:
    with pytest.raises(ValidationError, match="group_index must be"):
        commands.draw_many(
            [3], bind_group=scattered.group, dynamic_offsets=[(0, 0)], group_index=index
        )


def test_group_of_another_device(commands: Any, backend: str) -> None:
    with open_device(backend) as other:
        foreign = Scattered(other, Maker(other)).group
        with pytest.raises(ValidationError, match="belongs to another device"):
            commands.draw_many([3], bind_group=foreign, dynamic_offsets=[(0, 0)])


def test_after_the_end(scattered: Scattered) -> None:
    frame = scattered.device.create_frame_buffer(SIZE, SIZE, [RGBA])
    encoder = scattered.device.create_command_encoder()
    render_pass = encoder.begin_render_pass(frame, label="over")
    render_pass.end()
    bundle = scattered.device.create_render_bundle_encoder([RGBA], label="over")
    bundle.finish()
    for call in (
        render_pass.draw_many, render_pass.draw_indexed_many,
        bundle.draw_many, bundle.draw_indexed_many,
    ):  # fmt: skip
        with pytest.raises(ValidationError, match="'over'.*after its end"):
            call([3])


@pytest.mark.parametrize("call", ["draw_many", "draw_indexed_many"])
def test_draws_that_are_not_valid(call: str, scattered: Scattered) -> None:
    """What only the device knows is raised by finish, as with single draws."""
    for bundled in (False, True):
        with pytest.raises(ValidationError):
            scattered.picture(lambda p: getattr(p, call)([3, 3]), bundled=bundled)


# --- What is noted --------------------------------------------------------------------------------


def test_resources_are_noted(device: IRenderDevice, scattered: Scattered) -> None:
    frame = device.create_frame_buffer(SIZE, SIZE, [RGBA])
    encoder = device.create_command_encoder()
    with encoder.begin_render_pass(frame) as render_pass:
        scattered.begin(render_pass)
        render_pass.draw_many([3], bind_group=scattered.group, dynamic_offsets=[(0, 0)])
    commands = encoder.finish()
    scattered.tints.destroy()
    with pytest.raises(BufferStateError, match="is destroyed"):
        device.queue.submit([commands])


@pytest.mark.parametrize("many", [False, True])
def test_every_frame_of_a_ring_is_noted(many: bool, device: IRenderDevice) -> None:
    """A group is noted once, but what it stands on may belong to another frame by then."""
    layout = BindGroupLayout(
        [BindingLayout(0, "uniform", ShaderStage.VERTEX, dynamic_offset=True, min_size=16)]
    )
    ring = DynamicBuffer(16, device.buffer_factory, frames=3)
    group = device.create_bind_group(layout, {0: BufferBinding(ring, size=16)})
    encoder = device.create_command_encoder()
    tags: list[Any] = []
    with encoder.begin_render_pass(device.create_frame_buffer(4, 4, [RGBA])) as render_pass:
        for _ in range(2):
            with ring.begin_update() as update:
                offset = update.push(np.zeros(4, np.float32))
            for _ in range(2):
                if many:
                    render_pass.draw_many([], bind_group=group, dynamic_offsets=np.empty((0, 1)))
                else:
                    render_pass.set_bind_group(0, group, [offset])
            tags.append(ring.inner.usage_tag)
    assert tags[0] is not tags[1]
    assert all(tag.is_recorded for tag in tags)
    device.queue.submit([encoder.finish()]).wait()
    assert not any(tag.is_recorded for tag in tags)
    assert all(tag.is_free for tag in tags)


def test_a_recording_that_is_dropped_uses_nothing(device: IRenderDevice, make: Maker) -> None:
    buffer: Any = make.plain()
    encoder: Any = device.create_command_encoder()
    encoder.clear_buffer(buffer)
    assert buffer.usage_tag.is_recorded
    del encoder
    assert not buffer.usage_tag.is_recorded


def test_errors_are_pers_errors(commands: Any, scattered: Scattered) -> None:
    """Whatever comes in any place."""
    junk: list[Any] = [*JUNK_NUMBERS, *JUNK_TABLES]
    junk = [piece for piece in junk if piece is not None and type(piece) is not bool]
    for piece in junk:
        for arguments in (
            {"draws": piece},
            {"draws": [3], "bind_group": piece},
            {"draws": [3], "dynamic_offsets": piece},
            {"draws": [3], "bind_group": scattered.group, "dynamic_offsets": piece},
            {
                "draws": [3],
                "bind_group": scattered.group,
                "dynamic_offsets": [(0, 0)],
                "group_index": "5" if type(piece) is int and piece > 0 else piece,
            },
        ):
            try:
                commands.draw_many(**arguments)
            except PersError:
                continue
            pytest.fail(f"draw_many took {arguments}")
