"""Single calls of pers beside the same calls of wgpu-py: what the layer costs.

moderngl and slangpy take part where a call of theirs does the same; they are held against no mark.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from benchmarks.calls_peers import ModernGLCalls, SlangPyCalls
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
    WrongContentError,
)
from benchmarks.lab import Lab
from benchmarks.payload import Payload, expect_equal
from benchmarks.peers.raw_wgpu import RawWgpu
from pers import BufferDesc, BufferUsage, DeviceBuffer, IBuffer, TextureFormat

__all__ = ["CALLS", "CALL_NAMES"]

SMALL = 256
CONTENTS = 4096
USAGE = BufferUsage.STORAGE | BufferUsage.COPY_SRC | BufferUsage.COPY_DST
SIDE = 16
"""Width and height of the target of the passes (pixels)."""


def _points(lab: Lab, scale: Scale) -> list[Point]:
    return [Point(name) for name in CALL_NAMES]


@contextmanager
def _open(lab: Lab, point: Point, scale: Scale) -> Generator[Sequence[Entrant]]:
    calls = 20 if scale.quick else 200
    ours = PersCalls(lab, calls)
    entrants: list[Entrant] = [ours.contender(point.label)]
    if lab.wgpu:
        entrants.append(RawCalls(lab.wgpu, calls).contender(point.label))
    else:
        entrants.append(lab.missing(WGPU))
    gl = ModernGLCalls(lab.moderngl, calls, SMALL, CONTENTS, SIDE) if lab.moderngl else None
    entrants.append(gl.entrant(point.label) if gl else lab.missing(MODERNGL))
    slang = SlangPyCalls(lab.slangpy, calls, SMALL, CONTENTS) if lab.slangpy else None
    entrants.append(slang.entrant(point.label) if slang else lab.missing(SLANGPY))
    yield entrants
    ours.close()
    if gl:
        gl.close()


Steps = tuple[Callable[[], None], Callable[[], None], Callable[[], None], Callable[[], None]]
"""What to prepare, run, check and release."""


def _nothing() -> None:
    pass


class PersCalls:
    """The calls of pers."""

    def __init__(self, lab: Lab, calls: int) -> None:
        self._lab, self._calls = lab, calls
        self._device, self._factory = lab.device, lab.device.buffer_factory
        self._payload = Payload(CONTENTS)
        self._source = DeviceBuffer.from_array(self._payload.words, USAGE, self._factory)
        self._target = DeviceBuffer(CONTENTS, self._factory, usage=USAGE)
        self._frame = self._device.create_frame_buffer(SIDE, SIDE, (TextureFormat.RGBA8_UNORM,))
        self._made: list[IBuffer] = []
        self._encoder = self._device.create_command_encoder()
        self._shade = 0

    def contender(self, call: str) -> Contender:
        prepare, run, check, release = getattr(self, f"_{_METHODS[call]}")()
        road = _ROADS_OF_PERS[call]
        return Contender(PERS, road, run, check, prepare, release, per=self._calls)

    def close(self) -> None:
        self._source.destroy()
        self._target.destroy()
        self._frame.destroy()

    def _create_buffer(self) -> Steps:
        desc = BufferDesc(SMALL, USAGE)

        def run() -> None:
            made, create = self._made, self._factory.create_buffer
            for _ in range(self._calls):
                made.append(create(desc))

        return _nothing, run, self._check_sizes(SMALL), self._destroy_made

    def _device_buffer(self) -> Steps:
        def run() -> None:
            made, factory = self._made, self._factory
            for _ in range(self._calls):
                made.append(DeviceBuffer(SMALL, factory, usage=USAGE))

        return _nothing, run, self._check_sizes(SMALL), self._destroy_made

    def _from_array(self) -> Steps:
        def run() -> None:
            made, factory, words = self._made, self._factory, self._payload.words
            for _ in range(self._calls):
                made.append(DeviceBuffer.from_array(words, USAGE, factory))

        def check() -> None:
            _check_sizes(self._made, self._calls, CONTENTS)
            for buffer in self._made[:: max(1, self._calls // 4)]:
                self._lab.check_buffer(buffer, self._payload)

        return self._payload.change_pages, run, check, self._destroy_made

    def _write_buffer(self) -> Steps:
        def run() -> None:
            write, target = self._device.queue.write_buffer, self._target
            data = self._payload.words.view(np.uint8)
            for number in range(self._calls):
                start = number * SMALL % CONTENTS
                write(target, start, data[start : start + SMALL])

        return self._payload.change_pages, run, self._check_target, self._wait

    def _submit(self) -> Steps:
        def run() -> None:
            device, queue = self._device, self._device.queue
            for _ in range(self._calls):
                queue.submit([device.create_command_encoder().finish()])

        return _nothing, run, self._wait, _nothing

    def _copy(self) -> Steps:
        def prepare() -> None:
            self._payload.change_pages()
            self._device.upload(self._payload.words, self._source)
            self._encoder = self._device.create_command_encoder()

        def run() -> None:
            copy, source, target = self._encoder.copy_buffer_to_buffer, self._source, self._target
            for number in range(self._calls):
                start = number * SMALL % CONTENTS
                copy(source, start, target, start, SMALL)

        return prepare, run, self._check_submitted, _nothing

    def _render_pass(self) -> Steps:
        def run() -> None:
            encoder, frame = self._encoder, self._frame
            shade = self._shade / 255
            for _ in range(self._calls):
                encoder.begin_render_pass(frame, clear_color=(shade, 0, 0, 1)).end()

        def check() -> None:
            self._device.queue.submit([self._encoder.finish()])
            pixels = self._lab.read_pixels(self._frame.color_textures[0])
            _check_cleared(pixels, self._shade)

        return self._next_shade, run, check, _nothing

    def _compute_pass(self) -> Steps:
        def run() -> None:
            encoder = self._encoder
            for _ in range(self._calls):
                encoder.begin_compute_pass().end()

        def check() -> None:
            self._device.queue.submit([self._encoder.finish()]).wait()

        return self._new_encoder, run, check, _nothing

    def _submit_and_wait(self) -> Steps:
        def run() -> None:
            device, queue = self._device, self._device.queue
            for _ in range(self._calls):
                queue.submit([device.create_command_encoder().finish()]).wait()

        return _nothing, run, _nothing, _nothing

    def _new_encoder(self) -> None:
        self._encoder = self._device.create_command_encoder()

    def _next_shade(self) -> None:
        self._shade = (self._shade + 1) % 256
        self._new_encoder()

    def _wait(self) -> None:
        self._device.queue.on_work_done().wait()

    def _destroy_made(self) -> None:
        for buffer in self._made:
            buffer.destroy()
        self._made.clear()

    def _check_target(self) -> None:
        self._wait()
        self._lab.check_buffer(self._target, self._payload)

    def _check_submitted(self) -> None:
        self._device.queue.submit([self._encoder.finish()]).wait()
        if self._calls * SMALL >= CONTENTS:
            self._lab.check_buffer(self._target, self._payload)

    def _check_sizes(self, size: int) -> Callable[[], None]:
        return lambda: _check_sizes(self._made, self._calls, size)


class RawCalls:
    """The same calls of wgpu-py."""

    def __init__(self, raw: RawWgpu, calls: int) -> None:
        self._raw, self._calls = raw, calls
        self._payload = Payload(CONTENTS)
        self._source = raw.buffer_with(self._payload.words, "target")
        self._target = raw.buffer(CONTENTS, "target")
        self._texture = raw.texture(SIDE, SIDE, "rgba8unorm")
        self._view = self._texture.create_view()
        self._made: list[Any] = []
        self._encoder: Any = None
        self._shade = 0

    def contender(self, call: str) -> Contender:
        prepare, run, check, release = getattr(self, f"_{_METHODS[call]}")()
        return Contender(WGPU, _ROADS_OF_WGPU[call], run, check, prepare, release, per=self._calls)

    def _create_buffer(self) -> Steps:
        def run() -> None:
            made, buffer = self._made, self._raw.buffer
            for _ in range(self._calls):
                made.append(buffer(SMALL, "target"))

        return _nothing, run, self._check_sizes(SMALL), self._destroy_made

    def _device_buffer(self) -> Steps:
        return self._create_buffer()

    def _from_array(self) -> Steps:
        def run() -> None:
            made, buffer_with, words = self._made, self._raw.buffer_with, self._payload.words
            for _ in range(self._calls):
                made.append(buffer_with(words, "target"))

        def check() -> None:
            _check_sizes(self._made, self._calls, CONTENTS)
            for buffer in self._made[:: max(1, self._calls // 4)]:
                self._raw.check(buffer, self._payload)

        return self._payload.change_pages, run, check, self._destroy_made

    def _write_buffer(self) -> Steps:
        def run() -> None:
            write, target = self._raw.queue.write_buffer, self._target
            data = self._payload.words.view(np.uint8)
            for number in range(self._calls):
                start = number * SMALL % CONTENTS
                write(target, start, data[start : start + SMALL])

        return self._payload.change_pages, run, self._check_target, self._raw.flush

    def _submit(self) -> Steps:
        def run() -> None:
            gpu, queue = self._raw.gpu, self._raw.queue
            for _ in range(self._calls):
                queue.submit([gpu.create_command_encoder().finish()])

        return _nothing, run, self._raw.flush, _nothing

    def _copy(self) -> Steps:
        def prepare() -> None:
            self._payload.change_pages()
            self._raw.queue.write_buffer(self._source, 0, self._payload.words)
            self._new_encoder()

        def run() -> None:
            copy, source, target = self._encoder.copy_buffer_to_buffer, self._source, self._target
            for number in range(self._calls):
                start = number * SMALL % CONTENTS
                copy(source, start, target, start, SMALL)

        def check() -> None:
            self._submit_encoder()
            if self._calls * SMALL >= CONTENTS:
                self._raw.check(self._target, self._payload)

        return prepare, run, check, _nothing

    def _render_pass(self) -> Steps:
        def run() -> None:
            encoder = self._encoder
            attachment = {
                "view": self._view,
                "load_op": "clear",
                "store_op": "store",
                "clear_value": (self._shade / 255, 0, 0, 1),
            }
            for _ in range(self._calls):
                encoder.begin_render_pass(color_attachments=[attachment]).end()

        def check() -> None:
            self._submit_encoder()
            _check_cleared(self._raw.read_pixels(self._texture, np.uint8, 4), self._shade)

        return self._next_shade, run, check, _nothing

    def _compute_pass(self) -> Steps:
        def run() -> None:
            encoder = self._encoder
            for _ in range(self._calls):
                encoder.begin_compute_pass().end()

        return self._new_encoder, run, self._submit_encoder, _nothing

    def _submit_and_wait(self) -> Steps:
        def run() -> None:
            gpu, queue, wait = self._raw.gpu, self._raw.queue, self._raw.wait
            for _ in range(self._calls):
                queue.submit([gpu.create_command_encoder().finish()])
                wait()

        return _nothing, run, _nothing, _nothing

    def _new_encoder(self) -> None:
        self._encoder = self._raw.gpu.create_command_encoder()

    def _next_shade(self) -> None:
        self._shade = (self._shade + 1) % 256
        self._new_encoder()

    def _submit_encoder(self) -> None:
        self._raw.queue.submit([self._encoder.finish()])
        self._raw.wait()

    def _destroy_made(self) -> None:
        for buffer in self._made:
            buffer.destroy()
        self._made.clear()

    def _check_target(self) -> None:
        self._raw.flush()
        self._raw.check(self._target, self._payload)

    def _check_sizes(self, size: int) -> Callable[[], None]:
        return lambda: _check_sizes(self._made, self._calls, size)


def _check_sizes(made: Sequence[Any], count: int, size: int) -> None:
    if [buffer.size for buffer in made] != [size] * count:
        raise WrongContentError(f"{len(made)} buffers, not all of {size} bytes")


def _check_cleared(pixels: Any, shade: int) -> None:
    wanted = np.empty((SIDE, SIDE, 4), np.uint8)
    wanted[:] = (shade, 0, 0, 255)
    expect_equal(pixels, wanted)


CALL_TABLE = (
    ("create_buffer", "factory.create_buffer", "create_buffer", "device.create_buffer"),
    ("DeviceBuffer", "DeviceBuffer", "device_buffer", "device.create_buffer"),
    ("from_array 4 KiB", "DeviceBuffer.from_array", "from_array", "create_buffer_with_data"),
    ("write_buffer 256 B", "queue.write_buffer", "write_buffer", "queue.write_buffer"),
    ("empty encoder + submit", "encoder, submit", "submit", "encoder, submit"),
    ("submit + wait", "submission.wait", "submit_and_wait", "poll"),
    ("copy 256 B", "copy_buffer_to_buffer", "copy", "copy_buffer_to_buffer"),
    ("render pass", "begin_render_pass, end", "render_pass", "begin_render_pass, end"),
    ("compute pass", "begin_compute_pass, end", "compute_pass", "begin_compute_pass, end"),
)
"""What is called, its name in pers, the method above, its name in wgpu-py."""

CALL_NAMES = tuple(row[0] for row in CALL_TABLE)
_ROADS_OF_PERS = {row[0]: row[1] for row in CALL_TABLE}
_METHODS = {row[0]: row[2] for row in CALL_TABLE}
_ROADS_OF_WGPU = {row[0]: row[3] for row in CALL_TABLE}

CALLS = Benchmark(
    name="calls",
    title="single calls: pers beside the same call of its peers",
    axis="",
    points=_points,
    open=_open,
)
