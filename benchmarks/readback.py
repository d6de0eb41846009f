"""Bytes from the GPU: a buffer to an array in the program's hands, by every road."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from benchmarks.core import (
    LIMIT,
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
from benchmarks.lab import Lab
from benchmarks.payload import Payload
from benchmarks.peers.moderngl_peer import ModernGL
from benchmarks.peers.raw_wgpu import RawWgpu
from benchmarks.peers.slangpy_peer import SlangPy
from benchmarks.sizes import size_points
from pers import BufferUsage, DeviceBuffer, ReadbackBuffer

__all__ = ["READBACK"]

SOURCE_USAGE = BufferUsage.STORAGE | BufferUsage.COPY_SRC | BufferUsage.COPY_DST


class Result:
    """What a run brought, until it is checked and let go: letting go is not timed for anyone."""

    def __init__(self, payload: Payload) -> None:
        self._payload = payload
        self._array: Any = None

    def keep(self, array: Any) -> None:
        self._array = array

    def check(self) -> None:
        self._payload.check(self._array)

    def release(self) -> None:
        self._array = None


def _points(lab: Lab, scale: Scale) -> list[Point]:
    return size_points(scale, int(lab.device.buffer_factory.limits.max_buffer_size))


@contextmanager
def _open(lab: Lab, point: Point, scale: Scale) -> Generator[Sequence[Entrant]]:
    payload = Payload(int(point.x or 0))
    out = np.zeros(payload.nbytes, np.uint8)
    entrants: list[Entrant] = []
    with _pers(lab, payload, out) as ours:
        entrants += ours
        entrants += _raw(lab.wgpu, payload, out) if lab.wgpu else [lab.missing(WGPU)]
        peer = lab.moderngl
        entrants += _moderngl(peer, payload, out) if peer else [lab.missing(MODERNGL)]
        entrants += _slangpy(lab.slangpy, payload) if lab.slangpy else [lab.missing(SLANGPY)]
        yield entrants


@contextmanager
def _pers(lab: Lab, payload: Payload, out: Any) -> Generator[list[Contender]]:
    device = lab.device
    factory = device.buffer_factory
    source = DeviceBuffer(payload.nbytes, factory, usage=SOURCE_USAGE, debug_name="source")
    readback = ReadbackBuffer(payload.nbytes, factory)
    result = Result(payload)
    device.upload(payload.words, source)

    def prepare() -> None:
        payload.change_pages()
        device.upload(payload.words, source)
        device.queue.on_work_done().wait()
        out.fill(0)

    def copy_to_readback() -> None:
        encoder = device.create_command_encoder()
        readback.copy_from(encoder, source)
        device.queue.submit([encoder.finish()])

    def zero_copy() -> None:
        result.keep(device.read_array_blocking(source))

    def with_copy() -> None:
        result.keep(device.read_array_blocking(source, copy=True))

    def reused() -> None:
        copy_to_readback()
        result.keep(readback.read_array_blocking())

    def into() -> None:
        copy_to_readback()
        readback.read_into_blocking(out)
        result.keep(out)

    roads: dict[str, Callable[[], None]] = {
        "read_array": zero_copy,
        "read_array, copy=True": with_copy,
        "ReadbackBuffer": reused,
        "ReadbackBuffer.read_into": into,
    }
    try:
        yield [
            Contender(PERS, road, run, result.check, prepare, result.release)
            for road, run in roads.items()
        ]
    finally:
        result.release()
        readback.destroy()
        source.destroy()


def _raw(raw: RawWgpu, payload: Payload, out: Any) -> list[Entrant]:
    source = raw.buffer_with(payload.words, "target")
    staging = raw.buffer(payload.nbytes, "read")
    whole = [(0, 0, payload.nbytes)]
    result = Result(payload)

    def prepare() -> None:
        payload.change_pages()
        raw.queue.write_buffer(source, 0, payload.words)
        raw.flush()
        out.fill(0)

    def by_queue() -> None:
        result.keep(raw.queue.read_buffer(source))

    def copied() -> None:
        raw.copy(source, staging, whole)
        staging.map_sync("READ")
        result.keep(staging.read_mapped(copy=True))
        staging.unmap()

    def mapped() -> None:
        raw.copy(source, staging, whole)
        staging.map_sync("READ")
        result.keep(staging.read_mapped(copy=False))

    def mapped_and_copied() -> None:
        raw.copy(source, staging, whole)
        staging.map_sync("READ")
        np.copyto(out, np.frombuffer(staging.read_mapped(copy=False), np.uint8))
        staging.unmap()
        result.keep(out)

    def copy_alone() -> None:
        raw.copy(source, staging, whole)
        raw.wait()

    def check_staging() -> None:
        staging.map_sync("READ")
        payload.check(staging.read_mapped(copy=False))
        staging.unmap()

    def unmap() -> None:
        result.release()
        staging.unmap()

    def contender(
        road: str, run: Callable[[], None], release: Callable[[], None] = result.release
    ) -> Contender:
        return Contender(WGPU, road, run, result.check, prepare, release)

    return [
        contender("queue.read_buffer", by_queue),
        contender("reused buffer, copy=True", copied),
        contender("reused buffer, copy=False", mapped, unmap),
        contender("reused buffer, copied by NumPy", mapped_and_copied),
        Contender(LIMIT, "GPU copy alone", copy_alone, check_staging, prepare),
    ]


def _moderngl(peer: ModernGL, payload: Payload, out: Any) -> list[Entrant]:
    source = peer.context.buffer(payload.words.tobytes())
    result = Result(payload)

    def prepare() -> None:
        payload.change_pages()
        source.write(payload.words)
        peer.context.finish()
        out.fill(0)

    def read() -> None:
        result.keep(source.read())

    def read_into() -> None:
        source.read_into(out)
        result.keep(out)

    return [
        Contender(MODERNGL, road, run, result.check, prepare, result.release)
        for road, run in (("buffer.read", read), ("buffer.read_into", read_into))
    ]


def _slangpy(peer: SlangPy, payload: Payload) -> list[Entrant]:
    source = peer.buffer(payload.nbytes)
    result = Result(payload)

    def prepare() -> None:
        payload.change_pages()
        peer.upload(source, 0, payload.words.view(np.uint8))
        peer.wait()

    def read() -> None:
        result.keep(source.to_numpy())

    return [Contender(SLANGPY, "to_numpy", read, result.check, prepare, result.release)]


READBACK = Benchmark(
    name="readback",
    title="readback: a buffer to an array",
    axis="bytes",
    points=_points,
    open=_open,
)
