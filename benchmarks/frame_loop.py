"""What a frame of a steady loop leaves behind, and what it takes in between.

The frame is a small one of a usual kind: new data for every object, one pass, one submit, three
frames in flight. `FRAME_BLOCKS` counts the memory blocks that Python holds after a frame and did
not before, and the objects in cycles, which only the garbage collector can take away;
`FRAME_PEAK` is what a frame holds at most meanwhile.
"""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import attrs
import numpy as np

from benchmarks.core import (
    MODERNGL,
    PERS,
    SLANGPY,
    WGPU,
    Benchmark,
    Contender,
    Entrant,
    Point,
    Scale,
)
from benchmarks.lab import SLANGPY_DRAWS, Lab
from benchmarks.peers.moderngl_peer import ModernGL
from benchmarks.peers.raw_wgpu import RawWgpu
from benchmarks.scene import (
    FLOATS,
    GLSL_FRAGMENT,
    GLSL_INSTANCED,
    RECORD_BYTES,
    WGSL_INSTANCED,
    Scene,
)
from pers import (
    BufferUsage,
    ColorTarget,
    DynamicBuffer,
    RenderPipelineDescriptor,
    Submission,
    TextureFormat,
    VertexAttribute,
    VertexLayout,
)

__all__ = ["FRAME_BLOCKS", "FRAME_PEAK", "Frames", "open_frames"]

FRAMES_IN_FLIGHT = 3
OBJECTS = (1, 100, 10_000)
INSTANCE = VertexLayout(
    RECORD_BYTES,
    (VertexAttribute(0, "float32x4", 0), VertexAttribute(1, "float32x4", 16)),
    "instance",
)


class Frames(Protocol):
    """A loop that can draw one more frame."""

    def draw(self) -> None:
        """Draw a frame; waits while there are too many in flight."""

    def finish(self) -> None:
        """Wait for the frames in flight."""

    def check(self) -> None:
        """Compare the last picture."""

    def close(self) -> None:
        """Give everything back."""


class PersFrames:
    """pers, with a `DynamicBuffer`."""

    def __init__(self, lab: Lab, scene: Scene) -> None:
        self._lab, self._scene, self._device = lab, scene, lab.device
        texture_format = TextureFormat.RGBA8_UNORM
        self._frame = self._device.create_frame_buffer(scene.width, scene.height, (texture_format,))
        self._pipeline = self._device.create_render_pipeline(
            RenderPipelineDescriptor(
                self._device.create_shader_module(WGSL_INSTANCED),
                (ColorTarget(texture_format),),
                vertex_buffers=(INSTANCE,),
            )
        )
        self.data = DynamicBuffer(
            RECORD_BYTES * scene.objects,
            self._device.buffer_factory,
            usage=BufferUsage.VERTEX,
            frames=FRAMES_IN_FLIGHT,
        )
        self._in_flight: deque[Submission] = deque()

    def draw(self) -> None:
        if len(self._in_flight) == FRAMES_IN_FLIGHT:
            self._in_flight.popleft().wait()
        with self.data.begin_update() as update:
            self._scene.fill(update.as_array(np.float32, (self._scene.objects, FLOATS)))
        encoder = self._device.create_command_encoder()
        with encoder.begin_render_pass(self._frame) as draws:
            draws.set_pipeline(self._pipeline)
            draws.set_vertex_buffer(0, update.buffer, update.offset)
            draws.draw(3, self._scene.objects)
        self._in_flight.append(self._device.queue.submit([encoder.finish()]))

    def finish(self) -> None:
        while self._in_flight:
            self._in_flight.popleft().wait()

    def check(self) -> None:
        if self._lab.draws:
            self._scene.check(self._lab.read_pixels(self._frame.color_textures[0]))

    def close(self) -> None:
        self.finish()
        self.data.destroy()
        self._frame.destroy()


class RawFrames:
    """wgpu-py, with a buffer and queue writes, which is all that it needs."""

    def __init__(self, raw: RawWgpu, scene: Scene) -> None:
        self._raw, self._scene = raw, scene
        self._texture = raw.texture(scene.width, scene.height, "rgba8unorm")
        self._view = self._texture.create_view()
        self._pipeline, _ = raw.pipeline(WGSL_INSTANCED, "rgba8unorm", attributes=2)
        self._records = np.zeros((scene.objects, FLOATS), np.float32)
        self._data = raw.buffer(self._records.nbytes, "vertex")
        self._frames = 0

    def draw(self) -> None:
        if self._frames == FRAMES_IN_FLIGHT:
            self.finish()
        self._scene.fill(self._records)
        self._raw.queue.write_buffer(self._data, 0, self._records)
        encoder = self._raw.gpu.create_command_encoder()
        draws = self._raw.begin_pass(encoder, self._view)
        draws.set_pipeline(self._pipeline)
        draws.set_vertex_buffer(0, self._data)
        draws.draw(3, self._scene.objects)
        draws.end()
        self._raw.queue.submit([encoder.finish()])
        self._frames += 1

    def finish(self) -> None:
        self._raw.wait()
        self._frames = 0

    def check(self) -> None:
        self._scene.check(self._raw.read_pixels(self._texture, np.uint8, 4))

    def close(self) -> None:
        self.finish()


class ModernGLFrames:
    """moderngl."""

    def __init__(self, peer: ModernGL, scene: Scene) -> None:
        self._scene, self._context = scene, peer.context
        context = self._context
        texture = context.texture((scene.width, scene.height), 4)
        self._frame = context.framebuffer(color_attachments=[texture])
        program = context.program(vertex_shader=GLSL_INSTANCED, fragment_shader=GLSL_FRAGMENT)
        self._records = np.zeros((scene.objects, FLOATS), np.float32)
        self._data = context.buffer(reserve=self._records.nbytes, dynamic=True)
        self._vertices = context.vertex_array(program, [(self._data, "4f 4f /i", "place", "color")])
        self._frames = 0

    def draw(self) -> None:
        if self._frames == FRAMES_IN_FLIGHT:
            self.finish()
        self._frame.use()
        self._frame.clear(0.0, 0.0, 0.0, 1.0)
        self._scene.fill(self._records)
        self._data.write(self._records)
        self._vertices.render(vertices=3, instances=self._scene.objects)
        self._frames += 1

    def finish(self) -> None:
        self._context.finish()
        self._frames = 0

    def check(self) -> None:
        pixels = np.frombuffer(self._frame.read(components=4), np.uint8)
        self._scene.check(pixels.reshape(self._scene.height, self._scene.width, 4)[::-1])

    def close(self) -> None:
        self.finish()
        for thing in (self._vertices, self._data, self._frame):
            thing.release()


def open_frames(lab: Lab, scene: Scene) -> dict[str, Frames]:
    """Return the loops of all libraries that are there."""
    found: dict[str, Frames] = {PERS: PersFrames(lab, scene)}
    if lab.wgpu:
        found[WGPU] = RawFrames(lab.wgpu, scene)
    if lab.moderngl:
        found[MODERNGL] = ModernGLFrames(lab.moderngl, scene)
    return found


def _points(lab: Lab, scale: Scale) -> list[Point]:
    return [Point(f"{count:,}", count) for count in (OBJECTS[:2] if scale.quick else OBJECTS)]


Measure = Callable[[Frames, int], float]
"""Draw so many frames; return what was measured in all of them."""


def _opener(measure: Measure) -> Callable[[Lab, Point, Scale], Any]:
    @contextmanager
    def open_point(lab: Lab, point: Point, scale: Scale) -> Generator[Sequence[Entrant]]:
        scene = Scene(int(point.x or 0))
        count = 10 if scale.quick else 100 if scene.objects < OBJECTS[-1] else 20
        loops = open_frames(lab, scene)
        entrants: list[Entrant] = [
            _contender(library, frames, scene, count, measure) for library, frames in loops.items()
        ]
        for library in (WGPU, MODERNGL):
            if library not in loops:
                entrants.append(lab.missing(library))
        entrants.append(lab.missing(SLANGPY, SLANGPY_DRAWS))
        yield entrants
        for frames in loops.values():
            frames.close()

    return open_point


def _contender(
    library: str, frames: Frames, scene: Scene, count: int, measure: Measure
) -> Contender:
    extra: dict[str, float] = {}

    def run() -> float:
        result = measure(frames, count)
        if isinstance(frames, PersFrames):
            extra["stalls"] = frames.data.stats.stalls
        return result

    return Contender(library, "frame", run, frames.check, scene.move, per=count, extra=extra)


def _blocks_left(frames: Frames, count: int) -> float:
    frames.draw()
    frames.finish()
    gc.collect()  # also empties the lists of free objects, whose blocks would be counted
    before = sys.getallocatedblocks()
    for _ in range(count):
        frames.draw()
    frames.finish()
    in_cycles = gc.collect()
    return float(sys.getallocatedblocks() - before + in_cycles)


def _peak(frames: Frames, count: int) -> float:
    """Return the sum of the peaks of single frames (bytes)."""
    frames.finish()
    frames.draw()
    found = 0
    tracemalloc.start()
    try:
        for _ in range(count):
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            frames.draw()
            found += tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    frames.finish()
    return float(found)


FRAME_BLOCKS = Benchmark(
    name="frame-blocks",
    title="memory blocks that a frame leaves behind, and objects in cycles",
    axis="objects",
    points=_points,
    open=_opener(_blocks_left),
    unit="blocks",
)
FRAME_PEAK = attrs.evolve(
    FRAME_BLOCKS,
    name="frame-peak",
    title="memory that Python takes during a frame, at most",
    open=_opener(_peak),
    unit="bytes",
)
