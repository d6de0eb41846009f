"""Render passes, compute passes and render bundles: checked and counted, never run."""

from __future__ import annotations

import operator
from collections.abc import Sequence

from pers.backends.null.buffers import NullBuffer
from pers.backends.null.live import LiveObjects, NullObject
from pers.backends.null.objects import NullBindGroup, NullComputePipeline, NullRenderPipeline
from pers.backends.null.pixels import color_bytes, depth_bytes
from pers.backends.null.tape import Tape
from pers.backends.null.textures import Bytes, fill, native_texture
from pers.graphics.native import (
    Attachments,
    NativeComputePass,
    NativeRenderCommands,
    NativeRenderPass,
    Targets,
    TexturePlace,
)
from pers.graphics.passes import uint32
from pers.graphics.types import IndexFormat

_UNLIMITED = 2**64


class NullDraws(NativeRenderCommands):
    """Draws: checked as WebGPU does (§17.2), and counted."""

    def __init__(self, tape: Tape, targets: Targets, name: str) -> None:
        self._tape = tape
        self._targets = targets
        self._name = name
        self._reset()

    def _reset(self) -> None:
        self._pipeline: NullRenderPipeline | None = None
        self._groups: dict[int, NullBindGroup] = {}
        self._vertices: dict[int, int] = {}
        self._index_count: int | None = None
        self._checked = False

    def set_pipeline(self, pipeline: NullRenderPipeline) -> None:
        self._pipeline = pipeline
        self._checked = False
        made_for = Targets(pipeline.color_formats, pipeline.depth_format, pipeline.sample_count)
        if made_for != self._targets:
            self._fail(
                "set_pipeline",
                f"{pipeline.name} was made for {_describe(made_for)}, but this draws to "
                f"{_describe(self._targets)}",
            )

    def set_bind_group(self, index: int, bind_group: NullBindGroup, offsets: Sequence[int]) -> None:
        self._groups[index] = bind_group
        self._tape.buffers |= bind_group.buffers
        self._checked = False

    def set_vertex_buffer(self, slot: int, buffer: NullBuffer, offset: int, size: int) -> None:
        self._vertices[slot] = size
        self._tape.buffers.add(buffer)
        self._checked = False

    def set_index_buffer(
        self, buffer: NullBuffer, index_format: IndexFormat, offset: int, size: int
    ) -> None:
        self._index_count = size // (2 if index_format == "uint16" else 4)
        self._tape.buffers.add(buffer)

    def draw(
        self, vertex_count: int, instance_count: int, first_vertex: int, first_instance: int
    ) -> None:
        last_vertex = uint32(vertex_count) + uint32(first_vertex)
        last_instance = uint32(instance_count) + uint32(first_instance)
        self._draw("draw")
        if last_vertex > self._max_vertices:
            self._too_many("draw", last_vertex, "vertices", self._max_vertices)
        if last_instance > self._max_instances:
            self._too_many("draw", last_instance, "instances", self._max_instances)

    def draw_indexed(
        self,
        index_count: int,
        instance_count: int,
        first_index: int,
        base_vertex: int,
        first_instance: int,
    ) -> None:
        last_index = uint32(index_count) + uint32(first_index)
        last_instance = uint32(instance_count) + uint32(first_instance)
        if not -(2**31) <= operator.index(base_vertex) < 2**31:
            raise OverflowError(base_vertex)
        self._draw("draw_indexed", indexed=True)
        if self._index_count is not None and last_index > self._index_count:
            self._too_many("draw_indexed", last_index, "indices", self._index_count)
        if last_instance > self._max_instances:
            self._too_many("draw_indexed", last_instance, "instances", self._max_instances)

    def draw_indirect(self, buffer: NullBuffer, offset: int) -> None:
        self._tape.buffers.add(buffer)
        self._draw("draw_indirect")

    def draw_indexed_indirect(self, buffer: NullBuffer, offset: int) -> None:
        self._tape.buffers.add(buffer)
        self._draw("draw_indexed_indirect", indexed=True)

    def _draw(self, call: str, *, indexed: bool = False) -> None:
        self._tape.counters.draws += 1
        if not self._checked:
            self._check_state(call)
        if indexed and self._index_count is None:
            self._fail(call, "no index buffer is set; call set_index_buffer first")

    def _check_state(self, call: str) -> None:
        """Check what a draw needs; done again only after something was set."""
        self._checked = True
        self._max_vertices = self._max_instances = _UNLIMITED
        pipeline = self._pipeline
        if pipeline is None:
            self._fail(call, "no pipeline is set; call set_pipeline first")
            return
        problem = group_problem(pipeline.name, pipeline.signatures, self._groups)
        if problem:
            self._fail(call, problem)
        slots = zip(pipeline.vertex_buffers, pipeline.record_sizes, strict=True)
        for slot, (layout, record_size) in enumerate(slots):
            size = self._vertices.get(slot)
            if size is None:
                self._fail(
                    call,
                    f"{pipeline.name} reads vertex buffer {slot}, which is not set; "
                    "call set_vertex_buffer first",
                )
                continue
            count = (size - record_size) // layout.stride + 1 if size >= record_size else 0
            if layout.step_mode == "vertex":
                self._max_vertices = min(self._max_vertices, count)
            else:
                self._max_instances = min(self._max_instances, count)

    def _too_many(self, call: str, count: int, what: str, limit: int) -> None:
        self._fail(call, f"it reads up to {count} {what}, but there are {limit} in the buffers set")

    def _fail(self, call: str, why: str) -> None:
        self._tape.fail(f"{self._name}: {call}: {why}")


class NullBundle(NullObject):
    """Recorded draws."""

    def __init__(self, live: LiveObjects, tape: Tape) -> None:
        super().__init__(live)
        self.draws = tape.counters.draws
        self.buffers = frozenset(tape.buffers)


class NullRenderPass(NullDraws, NativeRenderPass):
    """A render pass: clears, and resolves what it cleared."""

    def __init__(
        self,
        tape: Tape,
        attachments: Attachments,
        clear_color: tuple[float, float, float, float] | None,
        clear_depth: float | None,
        name: str,
    ) -> None:
        colors = [place for place, _ in attachments.colors]
        depth = attachments.depth
        first = colors[0] if colors else depth
        assert first is not None  # the front end makes no frame buffer without a texture
        formats = tuple(place.texture.format for place in colors)
        depth_format = None if depth is None else depth.texture.format
        super().__init__(tape, Targets(formats, depth_format, first.texture.sample_count), name)
        self._extent = first.level_size
        self._resolves = [(place, goal) for place, goal in attachments.colors if goal]
        if clear_color is not None:
            for place in colors:
                self._fill(place, color_bytes(place.texture.format, clear_color))
        if depth is not None and clear_depth is not None:
            pixel = depth_bytes(depth.texture.format, clear_depth)
            if pixel is not None:
                self._fill(depth, pixel)

    def set_viewport(
        self, x: float, y: float, width: float, height: float, min_depth: float, max_depth: float
    ) -> None:
        if width < 0 or height < 0 or not 0.0 <= min_depth <= max_depth <= 1.0:
            self._fail(
                "set_viewport",
                "width and height must not be negative, depths ordered and 0.0 to 1.0; not "
                f"{(x, y, width, height, min_depth, max_depth)}",
            )

    def set_scissor_rect(self, x: int, y: int, width: int, height: int) -> None:
        right, bottom = uint32(x) + uint32(width), uint32(y) + uint32(height)
        if right > self._extent[0] or bottom > self._extent[1]:
            self._fail(
                "set_scissor_rect",
                f"{(x, y, width, height)} is not inside the {self._extent[0]}x{self._extent[1]} "
                "frame buffer",
            )

    def execute_bundles(self, bundles: Sequence[NullBundle]) -> None:
        for bundle in bundles:
            self._tape.counters.draws += bundle.draws
            self._tape.buffers |= bundle.buffers
        self._reset()

    def multi_draw_indirect(self, buffer: NullBuffer, offset: int, count: int) -> None:
        self.draw_indirect(buffer, offset)
        self._tape.counters.draws += count - 1

    def multi_draw_indexed_indirect(self, buffer: NullBuffer, offset: int, count: int) -> None:
        self.draw_indexed_indirect(buffer, offset)
        self._tape.counters.draws += count - 1

    def begin_occlusion_query(self, index: int) -> None:
        pass  # nothing is drawn, so nothing passes: results are zero

    def end_occlusion_query(self) -> None:
        pass

    def end(self) -> None:
        self._tape.counters.render_passes += 1
        for place, goal in self._resolves:
            self._resolve(place, goal)

    def _fill(self, place: TexturePlace, pixel: bytes) -> None:
        pixels = _pixels(place)
        self._tape.commands.append(lambda: fill(pixels, pixel))

    def _resolve(self, place: TexturePlace, goal: TexturePlace) -> None:
        source, target = _pixels(place), _pixels(goal)

        def resolve() -> None:
            target[...] = source

        self._tape.commands.append(resolve)


def _pixels(place: TexturePlace) -> Bytes:
    """Return the layer that a pass draws to."""
    pixels: Bytes = native_texture(place.texture).level(place.mip_level)[place.origin[2]]
    return pixels


class NullComputePass(NativeComputePass):
    """A compute pass."""

    def __init__(self, tape: Tape, max_workgroups: int, name: str) -> None:
        self._tape = tape
        self._max_workgroups = max_workgroups
        self._name = name
        self._pipeline: NullComputePipeline | None = None
        self._groups: dict[int, NullBindGroup] = {}

    def set_pipeline(self, pipeline: NullComputePipeline) -> None:
        self._pipeline = pipeline

    def set_bind_group(self, index: int, bind_group: NullBindGroup, offsets: Sequence[int]) -> None:
        self._groups[index] = bind_group
        self._tape.buffers |= bind_group.buffers

    def dispatch_workgroups(self, x: int, y: int, z: int) -> None:
        counts = (uint32(x), uint32(y), uint32(z))
        self._dispatch("dispatch_workgroups")
        if max(counts) > self._max_workgroups:
            self._tape.fail(
                f"{self._name}: dispatch_workgroups: {counts} is above the device's limit of "
                f"{self._max_workgroups} workgroups a dimension; dispatch in parts"
            )

    def dispatch_workgroups_indirect(self, buffer: NullBuffer, offset: int) -> None:
        self._tape.buffers.add(buffer)
        self._dispatch("dispatch_workgroups_indirect")

    def end(self) -> None:
        self._tape.counters.compute_passes += 1

    def _dispatch(self, call: str) -> None:
        self._tape.counters.dispatches += 1
        if self._pipeline is None:
            self._tape.fail(f"{self._name}: {call}: no pipeline is set; call set_pipeline first")
            return
        problem = group_problem(self._pipeline.name, self._pipeline.signatures, self._groups)
        if problem:
            self._tape.fail(f"{self._name}: {call}: {problem}")


def group_problem(
    name: str, signatures: tuple[frozenset[object], ...], groups: dict[int, NullBindGroup]
) -> str | None:
    """Return what is wrong with the bind groups set for a pipeline, if anything is."""
    for index, wanted in enumerate(signatures):
        group = groups.get(index)
        if group is None:
            return f"{name} uses bind group {index}, which is not set; call set_bind_group first"
        if group.signature != wanted:
            return (
                f"the layout of bind group {index} is not the one that {name} was made with; "
                "make both from the same BindGroupLayout"
            )
    return None


def _describe(targets: Targets) -> str:
    colors = ", ".join(texture_format.value for texture_format in targets.color_formats)
    depth = "none" if targets.depth_format is None else targets.depth_format.value
    return f"colors ({colors}), depth {depth}, {targets.sample_count} samples"
