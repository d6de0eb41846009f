"""A uniform that changes before every draw: the matrix of Dawn's UniformBufferUpdatePerf.

Every update is followed by a render pass and a submit of its own. A full update writes the whole
of a small buffer, a partial one the start of a larger one; all draws use a single buffer or each
has one of its own. The draws add up, so the picture shows whether each of them saw its own value.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from benchmarks.core import (
    MODERNGL,
    PERS,
    SLANGPY,
    WGPU,
    Benchmark,
    Contender,
    Entrant,
    Missing,
    Point,
    Scale,
)
from benchmarks.lab import MAP_FEATURE, SLANGPY_DRAWS, Lab
from benchmarks.payload import expect_equal
from benchmarks.peers.moderngl_peer import ModernGL
from benchmarks.peers.raw_wgpu import RawWgpu
from pers import (
    BindGroupLayout,
    BindingLayout,
    BlendState,
    BufferBinding,
    BufferDesc,
    BufferUsage,
    ColorTarget,
    DeferredStagingBuffer,
    DeviceBuffer,
    DynamicBuffer,
    IBindGroup,
    IBuffer,
    ICommandEncoder,
    IMappableBuffer,
    IPipeline,
    MapMode,
    RenderPipelineDescriptor,
    ShaderStage,
    TextureFormat,
)

__all__ = ["UNIFORMS"]

SIDE = 128
"""Width and height of the target (pixels)."""
RECORD = 16
"""Bytes of an update."""
LARGE = 256
"""Bytes of a buffer that is updated in part."""

WGSL = """
@group(0) @binding(0) var<uniform> color: vec4f;
@vertex fn vs_main(@builtin(vertex_index) i: u32) -> @builtin(position) vec4f {
    return vec4f(f32(i & 1u) * 4.0 - 1.0, f32(i >> 1u) * 4.0 - 1.0, 0.5, 1.0);
}
@fragment fn fs_main() -> @location(0) vec4f { return color; }
"""
GLSL_VERTEX = """#version 330
void main() { gl_Position = vec4((gl_VertexID & 1) * 4 - 1, (gl_VertexID >> 1) * 4 - 1, 0.5, 1); }
"""
GLSL_FRAGMENT = """#version 330
layout(std140) uniform Color { vec4 color; };
out vec4 result;
void main() { result = color; }
"""


@attrs.frozen
class Case:
    """A cell of the matrix.

    Attributes:
        partial: Whether an update is a part of its buffer.
        single: Whether all draws use one buffer.
    """

    partial: bool
    single: bool

    @property
    def label(self) -> str:
        """What a reader sees."""
        size = f"{RECORD} of {LARGE} B" if self.partial else f"{RECORD} B"
        return f"{size}, {'one buffer' if self.single else 'a buffer each'}"

    @property
    def buffer_size(self) -> int:
        """Bytes of a buffer."""
        return LARGE if self.partial else RECORD


CASES = tuple(Case(partial, single) for single in (True, False) for partial in (False, True))


class Values:
    """What the updates write, other numbers in each run, and what they add up to."""

    def __init__(self, updates: int) -> None:
        self.updates = updates
        self._runs = 0
        self.change()

    def change(self) -> None:
        """Choose new values: whole numbers, whose sum a 16-bit float can hold."""
        self._runs += 1
        numbers = 1 + (np.arange(self.updates) * 5 + self._runs) % 8
        self.all: npt.NDArray[np.float32] = np.repeat(numbers, 4).astype(np.float32).reshape(-1, 4)

    def check(self, pixels: npt.NDArray[Any]) -> None:
        """Raise `WrongContentError` unless every pixel is the sum of all values."""
        wanted = np.empty((SIDE, SIDE, 4), np.float16)
        wanted[:] = self.all.sum(axis=0)
        expect_equal(pixels, wanted)


Write = Callable[[int, Any], None]
"""Update a number with an encoder that is submitted right after it."""


def _points(lab: Lab, scale: Scale) -> list[Point]:
    return [Point(case.label) for case in CASES]


@contextmanager
def _open(lab: Lab, point: Point, scale: Scale) -> Generator[Sequence[Entrant]]:
    case = next(case for case in CASES if case.label == point.label)
    values = Values(10 if scale.quick else 100)
    ours = PersUniforms(lab, case, values)
    entrants = ours.entrants()
    entrants += RawUniforms(lab.wgpu, case, values).entrants() if lab.wgpu else [lab.missing(WGPU)]
    if lab.moderngl:
        entrants.append(ModernGLUniforms(lab.moderngl, case, values).contender())
    else:
        entrants.append(lab.missing(MODERNGL))
    entrants.append(lab.missing(SLANGPY, SLANGPY_DRAWS))
    yield entrants
    ours.close()


class PersUniforms:
    """pers."""

    def __init__(self, lab: Lab, case: Case, values: Values) -> None:
        self._lab, self._case, self._values = lab, case, values
        self._device = lab.device
        self._factory = lab.device.buffer_factory
        self._frame = self._device.create_frame_buffer(SIDE, SIDE, (TextureFormat.RGBA16_FLOAT,))
        self._pipelines = {dynamic: self._pipeline(dynamic) for dynamic in (False, True)}
        count = 1 if case.single else values.updates
        self._buffers = [
            DeviceBuffer(case.buffer_size, self._factory, usage=BufferUsage.UNIFORM)
            for _ in range(count)
        ]
        self._groups = [self._group(buffer) for buffer in self._buffers]
        self._common = DeferredStagingBuffer(RECORD * values.updates, self._factory)
        self._stagings = [
            DeferredStagingBuffer(RECORD, self._factory) for _ in range(values.updates)
        ]
        self._mapped: list[IMappableBuffer] = []
        self._mapped_groups: list[IBindGroup] = []
        self._dynamic = DynamicBuffer(256 * values.updates, self._factory)
        self._dynamic_group = self._group(self._dynamic.inner, dynamic=True)

    def entrants(self) -> list[Entrant]:
        """Return what takes part."""
        device, belt = self._device, self._device.belt

        def write(number: int, encoder: ICommandEncoder) -> None:
            device.queue.write_buffer(self._buffer(number), 0, self._values.all[number])

        def upload(number: int, encoder: ICommandEncoder) -> None:
            belt.upload(self._values.all[number], self._buffer(number), encoder=encoder)

        def copy_common(number: int, encoder: ICommandEncoder) -> None:
            if number == 0:
                with self._common.map() as mapped:
                    mapped.write(self._values.all)
            self._common.upload_to(
                encoder, self._buffer(number), source_offset=RECORD * number, size=RECORD
            )

        def copy_own(number: int, encoder: ICommandEncoder) -> None:
            staging = self._stagings[number]
            with staging.map() as mapped:
                mapped.write(self._values.all[number])
            staging.upload_to(encoder, self._buffer(number), size=RECORD)

        roads: dict[str, Write] = {
            "write_buffer": write,
            "belt.upload with encoder": upload,
            "one staging buffer": copy_common,
            "a staging buffer each": copy_own,
        }
        found: list[Entrant] = [
            self._contender(road, lambda write=write: self._run(write, self._groups))  # type: ignore[misc]
            for road, write in roads.items()
        ]
        found.append(self._contender("DynamicBuffer", self._run_dynamic))
        if not self._case.single:
            found.append(self._mapping())
        return found

    def close(self) -> None:
        """Give everything back."""
        buffers: list[IBuffer] = [*self._buffers, *self._stagings, *self._mapped]
        for buffer in (*buffers, self._common, self._dynamic):
            buffer.destroy()
        self._frame.destroy()

    def _mapping(self) -> Entrant:
        road = "uniform buffers mapped"
        if MAP_FEATURE not in self._device.features:
            return Missing(PERS, f"the device was opened without {MAP_FEATURE}", road)
        usage = BufferUsage.UNIFORM | BufferUsage.MAP_WRITE
        for _ in range(self._values.updates):
            desc = BufferDesc(self._case.buffer_size, usage)
            self._mapped.append(self._factory.create_mappable_buffer(desc))
            self._mapped_groups.append(self._group(self._mapped[-1]))

        def write(number: int, encoder: ICommandEncoder) -> None:
            buffer = self._mapped[number]
            buffer.map(MapMode.WRITE).write(self._values.all[number])
            buffer.unmap()

        return self._contender(road, lambda: self._run(write, self._mapped_groups))

    def _run(self, write: Write, groups: Sequence[IBindGroup]) -> None:
        queue = self._device.queue
        for number in range(self._values.updates):
            encoder = self._device.create_command_encoder()
            write(number, encoder)
            self._draw(encoder, number, groups[number % len(groups)])
            queue.submit([encoder.finish()])
        queue.on_work_done().wait()

    def _run_dynamic(self) -> None:
        queue = self._device.queue
        with self._dynamic.begin_update() as update:
            offsets = [update.push(value) for value in self._values.all]
        for number, offset in enumerate(offsets):
            encoder = self._device.create_command_encoder()
            self._draw(encoder, number, self._dynamic_group, offset)
            queue.submit([encoder.finish()])
        queue.on_work_done().wait()

    def _draw(
        self, encoder: ICommandEncoder, number: int, group: IBindGroup, *offsets: int
    ) -> None:
        clear = None if number else (0.0, 0.0, 0.0, 0.0)
        with encoder.begin_render_pass(self._frame, clear_color=clear) as draws:
            draws.set_pipeline(self._pipelines[bool(offsets)])
            draws.set_bind_group(0, group, offsets)
            draws.draw(3)

    def _buffer(self, number: int) -> IBuffer:
        return self._buffers[number % len(self._buffers)]

    def _contender(self, road: str, run: Callable[[], None]) -> Contender:
        return Contender(
            PERS, road, run, self._check, self._values.change, per=self._values.updates
        )

    def _check(self) -> None:
        if self._lab.draws:
            self._values.check(self._device.read_array_blocking(self._frame.color_textures[0]))

    def _layout(self, dynamic: bool) -> BindGroupLayout:
        return BindGroupLayout(
            [
                BindingLayout(
                    0, "uniform", ShaderStage.FRAGMENT, dynamic_offset=dynamic, min_size=RECORD
                )
            ]
        )

    def _group(self, buffer: IBuffer, *, dynamic: bool = False) -> IBindGroup:
        binding = BufferBinding(buffer, 0, RECORD)
        return self._device.create_bind_group(self._layout(dynamic), {0: binding})

    def _pipeline(self, dynamic: bool) -> IPipeline:
        add = BlendState("one", "one", "add", "one", "one", "add")
        return self._device.create_render_pipeline(
            RenderPipelineDescriptor(
                self._device.create_shader_module(WGSL),
                (ColorTarget(TextureFormat.RGBA16_FLOAT, add),),
                bind_groups=(self._layout(dynamic),),
            )
        )


class RawUniforms:
    """wgpu-py."""

    def __init__(self, raw: RawWgpu, case: Case, values: Values) -> None:
        self._raw, self._case, self._values = raw, case, values
        self._texture = raw.texture(SIDE, SIDE, "rgba16float")
        self._view = self._texture.create_view()
        self._pipeline, self._layout = raw.pipeline(
            WGSL, "rgba16float", uniform=RECORD, stage="FRAGMENT", adds=True
        )
        count = 1 if case.single else values.updates
        self._buffers = [raw.buffer(case.buffer_size, "uniform") for _ in range(count)]
        self._groups = [raw.group(self._layout, buffer, RECORD) for buffer in self._buffers]
        self._common = raw.buffer(RECORD * values.updates, "write")
        self._stagings = [raw.buffer(RECORD, "write") for _ in range(values.updates)]

    def entrants(self) -> list[Entrant]:
        """Return what takes part."""

        def write(number: int, encoder: Any) -> None:
            self._raw.queue.write_buffer(self._buffer(number), 0, self._values.all[number])

        def copy_common(number: int, encoder: Any) -> None:
            if number == 0:
                self._common.map_sync("WRITE")
                self._common.write_mapped(self._values.all)
                self._common.unmap()
            encoder.copy_buffer_to_buffer(
                self._common, RECORD * number, self._buffer(number), 0, RECORD
            )

        def copy_own(number: int, encoder: Any) -> None:
            staging = self._stagings[number]
            staging.map_sync("WRITE")
            staging.write_mapped(self._values.all[number])
            staging.unmap()
            encoder.copy_buffer_to_buffer(staging, 0, self._buffer(number), 0, RECORD)

        roads: dict[str, Write] = {
            "write_buffer": write,
            "one staging buffer": copy_common,
            "a staging buffer each": copy_own,
        }
        found: list[Entrant] = [
            self._contender(road, lambda write=write: self._run(write, self._groups))  # type: ignore[misc]
            for road, write in roads.items()
        ]
        if not self._case.single:
            found.append(self._mapping())
        return found

    def _mapping(self) -> Entrant:
        road = "uniform buffers mapped"
        if MAP_FEATURE not in self._raw.features:
            return Missing(WGPU, f"the device was opened without {MAP_FEATURE}", road)
        count, size = self._values.updates, self._case.buffer_size
        buffers = [self._raw.buffer(size, "mapped uniform") for _ in range(count)]
        groups = [self._raw.group(self._layout, buffer, RECORD) for buffer in buffers]

        def write(number: int, encoder: Any) -> None:
            buffer = buffers[number]
            buffer.map_sync("WRITE")
            buffer.write_mapped(self._values.all[number], 0)
            buffer.unmap()

        return self._contender(road, lambda: self._run(write, groups))

    def _run(self, write: Write, groups: Sequence[Any]) -> None:
        raw = self._raw
        for number in range(self._values.updates):
            encoder = raw.gpu.create_command_encoder()
            write(number, encoder)
            color = {
                "view": self._view,
                "load_op": "load" if number else "clear",
                "store_op": "store",
                "clear_value": (0, 0, 0, 0),
            }
            draws = encoder.begin_render_pass(color_attachments=[color])
            draws.set_pipeline(self._pipeline)
            draws.set_bind_group(0, groups[number % len(groups)])
            draws.draw(3)
            draws.end()
            raw.queue.submit([encoder.finish()])
        raw.wait()

    def _buffer(self, number: int) -> Any:
        return self._buffers[number % len(self._buffers)]

    def _contender(self, road: str, run: Callable[[], None]) -> Contender:
        return Contender(
            WGPU, road, run, self._check, self._values.change, per=self._values.updates
        )

    def _check(self) -> None:
        self._values.check(self._raw.read_pixels(self._texture, np.float16, 4))


class ModernGLUniforms:
    """moderngl, which has one way to write a buffer."""

    def __init__(self, peer: ModernGL, case: Case, values: Values) -> None:
        self._values, self._module = values, peer.module
        self._context = context = peer.context
        self._texture = context.texture((SIDE, SIDE), 4, dtype="f2")
        self._frame = context.framebuffer(color_attachments=[self._texture])
        program = context.program(vertex_shader=GLSL_VERTEX, fragment_shader=GLSL_FRAGMENT)
        program["Color"].binding = 0
        self._vertices = context.vertex_array(program, [])
        count = 1 if case.single else values.updates
        self._buffers = [
            context.buffer(reserve=case.buffer_size, dynamic=True) for _ in range(count)
        ]

    def contender(self) -> Contender:
        """Return what takes part."""
        return Contender(MODERNGL, "buffer.write", self._run, self._check, self._values.change,
                         per=self._values.updates)  # fmt: skip

    def _run(self) -> None:
        context, module = self._context, self._module
        self._frame.use()
        self._frame.clear(0.0, 0.0, 0.0, 0.0)
        context.enable_only(module.BLEND)
        context.blend_func = module.ONE, module.ONE
        for number in range(self._values.updates):
            buffer = self._buffers[number % len(self._buffers)]
            buffer.write(self._values.all[number])
            buffer.bind_to_uniform_block(0)
            self._vertices.render(vertices=3)
        context.finish()
        context.enable_only(module.NOTHING)

    def _check(self) -> None:
        pixels = np.frombuffer(self._texture.read(), np.float16)
        self._values.check(pixels.reshape(SIDE, SIDE, 4))


UNIFORMS = Benchmark(
    name="uniforms",
    title="uniform updates: each with a pass and a submit of its own; for each update",
    axis="",
    points=_points,
    open=_open,
)
