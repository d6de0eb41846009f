"""Bytes to the GPU: from an array to a buffer, until the GPU has it, by every road.

`UPLOAD` is one upload at a time. `UPLOAD_PACKS` are many small ones that are waited for together,
as in a frame: each road may share what can be shared (a submit, a mapping), and the time is that
of one upload.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import partial

import pers
from benchmarks.copying import copy_contenders
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
from benchmarks.lab import MAP_FEATURE, Lab
from benchmarks.payload import Payload
from benchmarks.peers.moderngl_peer import ModernGL
from benchmarks.peers.raw_wgpu import RawWgpu
from benchmarks.peers.slangpy_peer import SlangPy
from benchmarks.sizes import KIB, size_points
from pers import BufferUsage, DeferredStagingBuffer, DeviceBuffer, ImmediateStagingBuffer

__all__ = ["UPLOAD", "UPLOAD_PACKS"]

PACK = 64
LARGEST_IN_A_PACK = 256 * KIB
TARGET_USAGE = BufferUsage.STORAGE | BufferUsage.COPY_SRC | BufferUsage.COPY_DST


def _points(lab: Lab, scale: Scale) -> list[Point]:
    return size_points(scale, int(lab.device.buffer_factory.limits.max_buffer_size))


def _pack_points(lab: Lab, scale: Scale) -> list[Point]:
    return size_points(scale, LARGEST_IN_A_PACK)


@contextmanager
def _open(lab: Lab, point: Point, scale: Scale, pieces: int = 1) -> Generator[Sequence[Entrant]]:
    payload = Payload(int(point.x or 0), pieces)
    entrants: list[Entrant] = []
    with copy_contenders(payload, lab.threads, pieces) as copies, _pers(lab, payload) as ours:
        entrants += ours
        entrants += _raw(lab.wgpu, payload) if lab.wgpu else [lab.missing(WGPU)]
        entrants += _moderngl(lab.moderngl, payload) if lab.moderngl else [lab.missing(MODERNGL)]
        entrants += _slangpy(lab.slangpy, payload) if lab.slangpy else [lab.missing(SLANGPY)]
        yield [*entrants, *copies]


@contextmanager
def _pers(lab: Lab, payload: Payload) -> Generator[list[Contender]]:
    device, belt, factory = lab.device, lab.device.belt, lab.device.buffer_factory
    target = DeviceBuffer(payload.nbytes, factory, usage=TARGET_USAGE, debug_name="target")
    staging = DeferredStagingBuffer(payload.nbytes, factory)

    def by_belt() -> None:
        last: pers.Submission | None = None
        for start, piece in payload.pieces:
            last = belt.upload(piece, target, start)
        (last or belt.flush()).wait()

    def by_belt_with_encoder() -> None:
        encoder = device.create_command_encoder()
        for start, piece in payload.pieces:
            belt.upload(piece, target, start, encoder=encoder)
        device.queue.submit([encoder.finish()]).wait()

    def by_queue() -> None:
        for start, piece in payload.pieces:
            device.queue.write_buffer(target, start, piece)
        device.queue.on_work_done().wait()

    def by_fresh_staging() -> None:
        encoder = device.create_command_encoder()
        made: list[ImmediateStagingBuffer] = []
        for start, piece in payload.pieces:
            fresh = ImmediateStagingBuffer(len(piece), factory)
            fresh.write(piece)
            fresh.upload_to(encoder, target, start)
            made.append(fresh)
        device.queue.submit([encoder.finish()]).wait()
        for fresh in made:
            fresh.destroy()

    def by_reused_staging() -> None:
        encoder = device.create_command_encoder()
        with staging.map() as mapped:
            for start, piece in payload.pieces:
                mapped.write(piece, start)
        for start, piece in payload.pieces:
            staging.upload_to(encoder, target, start, source_offset=start, size=len(piece))
        device.queue.submit([encoder.finish()]).wait()

    roads = {
        "belt.upload": by_belt,
        "belt.upload with encoder": by_belt_with_encoder,
        "queue.write_buffer": by_queue,
        "ImmediateStagingBuffer": by_fresh_staging,
        "DeferredStagingBuffer": by_reused_staging,
    }
    try:
        yield [
            Contender(PERS, road, run, lambda: lab.check_buffer(target, payload),
                      prepare=payload.change_pages, per=len(payload.pieces))
            for road, run in roads.items()
        ]  # fmt: skip
    finally:
        target.destroy()
        staging.destroy()


def _raw(raw: RawWgpu, payload: Payload) -> list[Entrant]:
    target = raw.buffer(payload.nbytes, "target")
    staging = raw.buffer(payload.nbytes, "write")
    places = [(start, start, len(piece)) for start, piece in payload.pieces]

    def by_queue() -> None:
        for start, piece in payload.pieces:
            raw.queue.write_buffer(target, start, piece)
        raw.flush()

    def by_fresh_staging() -> None:
        encoder = raw.gpu.create_command_encoder()
        for start, piece in payload.pieces:
            fresh = raw.buffer(len(piece), "write", mapped=True)
            fresh.write_mapped(piece)
            fresh.unmap()
            encoder.copy_buffer_to_buffer(fresh, 0, target, start, len(piece))
        raw.queue.submit([encoder.finish()])
        raw.wait()

    def by_reused_staging() -> None:
        staging.map_sync("WRITE")
        for start, piece in payload.pieces:
            staging.write_mapped(piece, start)
        staging.unmap()
        raw.copy(staging, target, places)
        raw.wait()

    def contender(road: str, run: object, checked: object = target) -> Contender:
        assert callable(run)
        return Contender(WGPU, road, run, lambda: raw.check(checked, payload),
                         prepare=payload.change_pages, per=len(payload.pieces))  # fmt: skip

    entrants: list[Entrant] = [
        contender("queue.write_buffer", by_queue),
        contender("fresh staging, mapped at creation", by_fresh_staging),
        contender("reused staging, map_sync", by_reused_staging),
    ]
    if MAP_FEATURE in raw.features:
        mapped_target = raw.buffer(payload.nbytes, "mapped target")

        def by_mapped_target() -> None:
            mapped_target.map_sync("WRITE")
            for start, piece in payload.pieces:
                mapped_target.write_mapped(piece, start)
            mapped_target.unmap()

        entrants.append(contender("target mapped directly", by_mapped_target, mapped_target))
    return entrants


def _moderngl(peer: ModernGL, payload: Payload) -> list[Entrant]:
    context = peer.context
    target = context.buffer(reserve=payload.nbytes, dynamic=True)

    def run() -> None:
        for start, piece in payload.pieces:
            target.write(piece, offset=start)
        context.finish()

    return [
        Contender(MODERNGL, "buffer.write", run, lambda: payload.check(target.read()),
                  prepare=payload.change_pages, per=len(payload.pieces))
    ]  # fmt: skip


def _slangpy(peer: SlangPy, payload: Payload) -> list[Entrant]:
    target = peer.buffer(payload.nbytes)

    def by_encoder() -> None:
        encoder = peer.device.create_command_encoder()
        for start, piece in payload.pieces:
            encoder.upload_buffer_data(target, start, piece)
        peer.device.submit_command_buffer(encoder.finish())
        peer.wait()

    def by_array() -> None:
        target.copy_from_numpy(payload.words)
        peer.wait()

    def contender(road: str, run: object) -> Contender:
        assert callable(run)
        return Contender(SLANGPY, road, run, lambda: payload.check(target.to_numpy()),
                         prepare=payload.change_pages, per=len(payload.pieces))  # fmt: skip

    entrants: list[Entrant] = [contender("upload_buffer_data", by_encoder)]
    if len(payload.pieces) == 1:
        entrants.append(contender("copy_from_numpy", by_array))
    return entrants


UPLOAD = Benchmark(
    name="upload",
    title="upload: an array to a buffer, until the GPU has it",
    axis="bytes",
    points=_points,
    open=_open,
)
UPLOAD_PACKS = Benchmark(
    name="upload-packs",
    title=f"upload packs: {PACK} uploads, until the GPU has them all; for each upload",
    axis="bytes",
    points=_pack_points,
    open=partial(_open, pieces=PACK),
)
