"""Reads, writes and the places to record them, for the memory synchronization cases."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterator
from typing import TypeVar

import attrs
import numpy as np

from pers.buffers import BufferUsage, IBuffer
from pers.graphics import (
    BindGroupLayout,
    BindingLayout,
    ColorTarget,
    ComputePipelineDescriptor,
    ICommandBuffer,
    ICommandEncoder,
    IComputePass,
    IFrameBuffer,
    IPipeline,
    IRenderBundleEncoder,
    IRenderCommands,
    IRenderPass,
    IShaderModule,
    ITexture,
    RenderPipelineDescriptor,
    ShaderStage,
    TextureDescriptor,
    TextureFormat,
    TextureUsage,
    VertexAttribute,
    VertexLayout,
)
from pers.testing.bench import COPY, Bench

ALL_USES = (
    COPY
    | BufferUsage.STORAGE
    | BufferUsage.VERTEX
    | BufferUsage.INDEX
    | BufferUsage.INDIRECT
    | BufferUsage.UNIFORM
)
COLOR = TextureFormat.RGBA8_UNORM


class Place(enum.IntEnum):
    """Where a command is given, the outermost place first."""

    QUEUE = 0
    ENCODER = 1
    COMPUTE_PASS = 2
    RENDER_PASS = 3
    RENDER_BUNDLE = 4


PASSES = (Place.COMPUTE_PASS, Place.RENDER_PASS, Place.RENDER_BUNDLE)
DRAWS = (Place.RENDER_PASS, Place.RENDER_BUNDLE)


class Boundary(enum.Enum):
    """What separates two commands, in the words of the suite.

    Its boundaries within one render pass are left out: a buffer that is written there cannot be
    used otherwise in the same pass (WebGPU §3.4.4), and which of two writes is last is open.
    """

    QUEUE_OP = "queue-op"
    COMMAND_BUFFER = "command-buffer"
    PASS = "pass"
    DISPATCH = "dispatch"

    def separates(self, first: Place, second: Place) -> bool:
        """Whether it can lie between two commands in these places."""
        both = {first, second}
        if self is Boundary.QUEUE_OP:
            return True
        if self is Boundary.COMMAND_BUFFER:
            return Place.QUEUE not in both
        return both <= set(PASSES) if self is Boundary.PASS else both == {Place.COMPUTE_PASS}


class Write(enum.Enum):
    """Ways to write a number to a buffer, in the words of the suite."""

    STORAGE = "storage"
    COPY_BUFFER = "b2b-copy"
    COPY_TEXTURE = "t2b-copy"
    QUEUE_WRITE = "write-buffer"

    @property
    def places(self) -> tuple[Place, ...]:
        """Where it can be done."""
        if self is Write.STORAGE:
            return PASSES
        return (Place.QUEUE,) if self is Write.QUEUE_WRITE else (Place.ENCODER,)


class Read(enum.Enum):
    """Ways to read a number from a buffer into another, in the words of the suite."""

    VERTEX = "input-vertex"
    INDEX = "input-index"
    INDIRECT = "input-indirect"
    INDIRECT_INDEX = "input-indirect-index"
    INDIRECT_DISPATCH = "input-indirect-dispatch"
    UNIFORM = "constant-uniform"
    STORAGE = "storage-read"
    COPY_BUFFER = "b2b-copy"
    COPY_TEXTURE = "b2t-copy"

    @property
    def places(self) -> tuple[Place, ...]:
        """Where it can be done."""
        if self in (Read.COPY_BUFFER, Read.COPY_TEXTURE):
            return (Place.ENCODER,)
        if self is Read.INDIRECT_DISPATCH:
            return (Place.COMPUTE_PASS,)
        return PASSES if self is Read.STORAGE else DRAWS


First = TypeVar("First", Read, Write)
Second = TypeVar("Second", Read, Write)


def pairs(
    bench: Bench, boundary: Boundary, firsts: type[First], seconds: type[Second]
) -> Iterator[tuple[First, Place, Second, Place]]:
    """Yield what can be done on both sides of a boundary; without shaders, copies only."""
    for first, second in itertools.product(firsts, seconds):
        for place, other in itertools.product(first.places, second.places):
            if not bench.device.info.executes_shaders and {place, other} & set(PASSES):
                continue
            if boundary.separates(place, other):
                yield first, place, second, other


class Recorder:
    """Records commands in any place, and opens and ends passes and bundles on the way."""

    def __init__(self, bench: Bench, frame: IFrameBuffer) -> None:
        """Start at the queue.

        Args:
            bench: Has the device.
            frame: What is drawn to.
        """
        self._device = bench.device
        self._frame = frame
        self._command_buffers: list[ICommandBuffer] = []
        self._encoder: ICommandEncoder | None = None
        self._pass: IComputePass | IRenderPass | None = None
        self._bundle: IRenderBundleEncoder | None = None

    @property
    def encoder(self) -> ICommandEncoder:
        """The open encoder."""
        assert self._encoder is not None
        return self._encoder

    @property
    def compute_pass(self) -> IComputePass:
        """The open compute pass."""
        assert isinstance(self._pass, IComputePass)
        return self._pass

    @property
    def draws(self) -> IRenderCommands:
        """The open bundle, or else the open render pass."""
        if self._bundle is not None:
            return self._bundle
        assert isinstance(self._pass, IRenderPass)
        return self._pass

    def enter(self, place: Place) -> None:
        """Go to a place."""
        self._leave_for(place)
        if place is not Place.QUEUE and self._encoder is None:
            self._encoder = self._device.create_command_encoder("sync")
        if place is Place.COMPUTE_PASS and self._pass is None:
            self._pass = self.encoder.begin_compute_pass()
        elif place in DRAWS and self._pass is None:
            self._pass = self.encoder.begin_render_pass(self._frame)
        if place is Place.RENDER_BUNDLE and self._bundle is None:
            self._bundle = self._device.create_render_bundle_encoder((COLOR,))

    def separate(self, boundary: Boundary) -> None:
        """Put a boundary between what was recorded and what is to come."""
        if boundary in (Boundary.QUEUE_OP, Boundary.COMMAND_BUFFER):
            self._leave_for(Place.QUEUE)
        elif boundary is Boundary.PASS:
            self._leave_for(Place.ENCODER)
        if boundary is Boundary.QUEUE_OP:
            self.submit()

    def submit(self) -> None:
        """Submit everything recorded so far at once."""
        self._leave_for(Place.QUEUE)
        if self._command_buffers:
            self._device.queue.submit(self._command_buffers)
        self._command_buffers = []

    def _leave_for(self, place: Place) -> None:
        """End what is open and not around `place`."""
        if self._bundle is not None and place is not Place.RENDER_BUNDLE:
            assert isinstance(self._pass, IRenderPass)
            self._pass.execute_bundles([self._bundle.finish()])
            self._bundle = None
        if self._pass is not None and place < Place.COMPUTE_PASS:
            self._pass.end()
            self._pass = None
        if self._encoder is not None and place is Place.QUEUE:
            self._command_buffers.append(self._encoder.finish())
            self._encoder = None


VERTEX_STAGES = """
@vertex fn plain() -> @builtin(position) vec4f {
    return vec4f(0.5, 0.5, 0, 1);
}

struct Passed {
    @builtin(position) position: vec4f,
    @location(0) @interpolate(flat) value: u32,
}

@vertex fn passing(@location(0) value: u32) -> Passed {
    return Passed(vec4f(0.5, 0.5, 0, 1), value);
}
"""

WRITE_VALUE = """
@group(0) @binding(0) var<storage, read_write> target_value: u32;

@compute @workgroup_size(1) fn main() {
    target_value = VALUEu;
}

@fragment fn fs_main() -> @location(0) vec4f {
    target_value = VALUEu;
    return vec4f();
}
"""

WRITE_PASSED = """
@group(0) @binding(0) var<storage, read_write> target_value: u32;

@fragment fn fs_main(@location(0) @interpolate(flat) value: u32) -> @location(0) vec4f {
    target_value = value;
    return vec4f();
}
"""

WRITE_READ = """
@group(0) @binding(0) var<storage, read_write> target_value: u32;
@group(0) @binding(1) var<SPACE> source_value: u32;

@compute @workgroup_size(1) fn main() {
    target_value = source_value;
}

@fragment fn fs_main() -> @location(0) vec4f {
    target_value = source_value;
    return vec4f();
}
"""

EVERYWHERE = ShaderStage.COMPUTE | ShaderStage.FRAGMENT
TARGET = BindGroupLayout([BindingLayout(0, "storage", EVERYWHERE)])
TARGET_AND_UNIFORM = BindGroupLayout(
    [BindingLayout(0, "storage", EVERYWHERE), BindingLayout(1, "uniform", EVERYWHERE)]
)
TARGET_AND_STORAGE = BindGroupLayout(
    [BindingLayout(0, "storage", EVERYWHERE), BindingLayout(1, "read-only-storage", EVERYWHERE)]
)


@attrs.frozen
class Program:
    """WGSL, and what its group binds."""

    code: str
    layout: BindGroupLayout


def writes_value(value: int) -> Program:
    """A program that writes a number of its own."""
    return Program(WRITE_VALUE.replace("VALUE", str(value)), TARGET)


WRITES_PASSED = Program(WRITE_PASSED, TARGET)
WRITES_UNIFORM = Program(WRITE_READ.replace("SPACE", "uniform"), TARGET_AND_UNIFORM)
WRITES_STORAGE = Program(WRITE_READ.replace("SPACE", "storage, read"), TARGET_AND_STORAGE)


class Operations:
    """Reads and writes on a device."""

    def __init__(self, bench: Bench) -> None:
        """Make what the writes copy from.

        Args:
            bench: Has the device.
        """
        self._bench = bench
        self._device = bench.device
        self.frame = bench.device.create_frame_buffer(4, 4, (COLOR,))
        """What is drawn to."""
        self._shaders: dict[str, IShaderModule] = {}
        self._kept: dict[tuple[str, int], IBuffer | ITexture] = {}
        for value in (0, 1, 2):
            self._kept["buffer", value] = self.words(value)
            texture = self._device.create_texture(
                TextureDescriptor(
                    1, 1, TextureFormat.R32_UINT, TextureUsage.COPY_SRC | TextureUsage.COPY_DST
                )
            )
            self._device.queue.write_texture(texture, np.full((1, 1), value, np.uint32))
            self._kept["texture", value] = texture

    def words(self, *values: int) -> IBuffer:
        """A buffer for every use, with 32-bit numbers in it."""
        return self._bench.filled(np.array(values, np.uint32), ALL_USES)

    def source(self, read: Read, value: int) -> IBuffer:
        """What `read` reads: a number, in the arguments of an indirect call where it is one."""
        rest = {
            Read.INDIRECT: (1, 0, 0),
            Read.INDIRECT_INDEX: (1, 0, 0, 0),
            Read.INDIRECT_DISPATCH: (1, 1),
        }
        return self.words(value, *rest.get(read, ()))

    def recorder(self) -> Recorder:
        """Start recording."""
        return Recorder(self._bench, self.frame)

    def first_words(self, *buffers: IBuffer) -> list[int]:
        """Return the number at the start of each buffer."""
        numbers = self._bench.buffer(4 * len(buffers))
        encoder = self._device.create_command_encoder("first words")
        for index, buffer in enumerate(buffers):
            encoder.copy_buffer_to_buffer(buffer, 0, numbers, 4 * index, 4)
        self._device.queue.submit([encoder.finish()])
        return [int(number) for number in self._bench.read(numbers, np.uint32)]

    def write(
        self, recorder: Recorder, write: Write, place: Place, target: IBuffer, value: int
    ) -> None:
        """Write a number to the start of `target`."""
        recorder.enter(place)
        if write is Write.QUEUE_WRITE:
            self._device.queue.write_buffer(target, 0, np.array([value], np.uint32))
        elif write is Write.COPY_BUFFER:
            source = self._kept["buffer", value]
            assert isinstance(source, IBuffer)
            recorder.encoder.copy_buffer_to_buffer(source, 0, target, 0, 4)
        elif write is Write.COPY_TEXTURE:
            texture = self._kept["texture", value]
            assert isinstance(texture, ITexture)
            recorder.encoder.copy_texture_to_buffer(texture, target)
        elif place is Place.COMPUTE_PASS:
            self.dispatch(recorder.compute_pass, writes_value(value), target)
        else:
            self.draw(recorder.draws, writes_value(value), target)

    def read(
        self, recorder: Recorder, read: Read, place: Place, source: IBuffer, target: IBuffer
    ) -> None:
        """Have the number at the start of `source` written to `target`, which is 0.

        An index or a count of an indirect call cannot be written itself: 1 has a 1 written, and 0
        a 0 or nothing.
        """
        recorder.enter(place)
        if read is Read.COPY_BUFFER:
            recorder.encoder.copy_buffer_to_buffer(source, 0, target, 0, 4)
        elif read is Read.COPY_TEXTURE:
            usage = TextureUsage.COPY_SRC | TextureUsage.COPY_DST
            texture = self._device.create_texture(
                TextureDescriptor(1, 1, TextureFormat.R32_UINT, usage)
            )
            recorder.encoder.copy_buffer_to_texture(source, texture)
            recorder.encoder.copy_texture_to_buffer(texture, target)
        elif read is Read.INDIRECT_DISPATCH:
            self.dispatch(recorder.compute_pass, writes_value(1), target, counts=source)
        elif place is Place.COMPUTE_PASS:
            self.dispatch(recorder.compute_pass, WRITES_STORAGE, target, source)
        elif read is Read.STORAGE:
            self.draw(recorder.draws, WRITES_STORAGE, target, source)
        elif read is Read.UNIFORM:
            self.draw(recorder.draws, WRITES_UNIFORM, target, source)
        else:
            self._read_as_input(recorder.draws, read, source, target)

    def dispatch(
        self,
        compute_pass: IComputePass,
        program: Program,
        *buffers: IBuffer,
        groups: int = 1,
        counts: IBuffer | None = None,
    ) -> None:
        """Run a program for some workgroups, or for as many as a buffer says."""
        compute_pass.set_pipeline(
            self._device.create_compute_pipeline(
                ComputePipelineDescriptor(self._shader(program), (program.layout,))
            )
        )
        compute_pass.set_bind_group(
            0, self._device.create_bind_group(program.layout, dict(enumerate(buffers)))
        )
        if counts is None:
            compute_pass.dispatch_workgroups(groups)
        else:
            compute_pass.dispatch_workgroups_indirect(counts)

    def draw(self, draws: IRenderCommands, program: Program, *buffers: IBuffer) -> None:
        """Draw one point with a program."""
        self._prepare(draws, program, *buffers)
        draws.draw(1)

    def _read_as_input(
        self, draws: IRenderCommands, read: Read, source: IBuffer, target: IBuffer
    ) -> None:
        self._prepare(draws, WRITES_PASSED, target)
        if read is Read.VERTEX:
            draws.set_vertex_buffer(0, source)
            draws.draw(1)
        elif read is Read.INDEX:
            draws.set_vertex_buffer(0, self.words(0, 1))
            draws.set_index_buffer(source)
            draws.draw_indexed(1)
        elif read is Read.INDIRECT:
            draws.set_vertex_buffer(0, self.words(1))
            draws.draw_indirect(source)
        else:
            draws.set_vertex_buffer(0, self.words(1))
            draws.set_index_buffer(self.words(0))
            draws.draw_indexed_indirect(source)

    def _prepare(self, draws: IRenderCommands, program: Program, *buffers: IBuffer) -> None:
        draws.set_pipeline(self._render_pipeline(program))
        group = self._device.create_bind_group(program.layout, dict(enumerate(buffers)))
        draws.set_bind_group(0, group)

    def _render_pipeline(self, program: Program) -> IPipeline:
        passes = program is WRITES_PASSED
        vertices = VertexLayout(4, (VertexAttribute(0, "uint32"),))
        return self._device.create_render_pipeline(
            RenderPipelineDescriptor(
                self._shader(program),
                (ColorTarget(COLOR),),
                vertex_buffers=(vertices,) if passes else (),
                bind_groups=(program.layout,),
                topology="point-list",
                vertex_entry="passing" if passes else "plain",
            )
        )

    def _shader(self, program: Program) -> IShaderModule:
        if program.code not in self._shaders:
            code = VERTEX_STAGES + program.code
            self._shaders[program.code] = self._device.create_shader_module(code)
        return self._shaders[program.code]
