"""Many moving objects: one draw for each, and the ways to need fewer calls.

`DRAWS` is a whole frame: new data for every object, commands, submit, until the GPU is done.
`RECORDING` is a part of it: to bind and draw every object, from the begin of the pass to the
finished command buffer. Times are per object.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

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
from benchmarks.draws_moderngl import ModernGLDraws
from benchmarks.draws_pers import PersDraws
from benchmarks.draws_raw import RawDraws
from benchmarks.lab import SLANGPY_DRAWS, Lab
from benchmarks.scene import Scene

__all__ = ["DRAWS", "RECORDING"]

QUICK = (1, 100)
FULL = (1, 10, 100, 1_000, 10_000, 100_000)
MOST_RECORDED = 10_000


def _points(lab: Lab, scale: Scale) -> list[Point]:
    return [Point(f"{count:,}", count) for count in (QUICK if scale.quick else FULL)]


def _recording_points(lab: Lab, scale: Scale) -> list[Point]:
    return [point for point in _points(lab, scale) if (point.x or 0) <= MOST_RECORDED]


@contextmanager
def _open(lab: Lab, point: Point, scale: Scale) -> Generator[Sequence[Entrant]]:
    scene = Scene(int(point.x or 0))
    ours = PersDraws(lab, scene)
    entrants: list[Entrant] = _contenders(PERS, ours.frames(), scene, ours.check)
    if lab.wgpu:
        raw = RawDraws(lab.wgpu, scene)
        entrants += _contenders(WGPU, raw.frames(), scene, raw.check)
    else:
        entrants.append(lab.missing(WGPU))
    if lab.moderngl:
        peer = ModernGLDraws(lab.moderngl, scene)
        entrants += _contenders(MODERNGL, peer.frames(), scene, peer.check)
    else:
        entrants.append(lab.missing(MODERNGL))
    entrants.append(lab.missing(SLANGPY, SLANGPY_DRAWS))
    yield entrants
    ours.close()


@contextmanager
def _open_recording(lab: Lab, point: Point, scale: Scale) -> Generator[Sequence[Entrant]]:
    scene = Scene(int(point.x or 0))
    ours = PersDraws(lab, scene)
    entrants: list[Entrant] = [
        Contender(PERS, road, run, ours.check_recorded, ours.prepare_recording, per=scene.objects)
        for road, run in ours.recordings().items()
    ]
    if lab.wgpu:
        raw = RawDraws(lab.wgpu, scene)
        entrants += [
            Contender(WGPU, road, run, raw.check_recorded, raw.prepare_recording, per=scene.objects)
            for road, run in raw.recordings().items()
        ]
    else:
        entrants.append(lab.missing(WGPU))
    entrants.append(lab.missing(MODERNGL, "OpenGL draws at once; it records nothing"))
    entrants.append(lab.missing(SLANGPY, SLANGPY_DRAWS))
    yield entrants
    ours.close()


def _contenders(
    library: str, frames: dict[str, Callable[[], None]], scene: Scene, check: Callable[[], None]
) -> list[Entrant]:
    return [
        Contender(library, road, run, check, scene.move, per=scene.objects)
        for road, run in frames.items()
    ]


DRAWS = Benchmark(
    name="draws",
    title="draws: a frame of moving objects, until the GPU is done; for each object",
    axis="objects",
    points=_points,
    open=_open,
)
RECORDING = Benchmark(
    name="recording",
    title="recording: bind and draw each object, without the submit; for each object",
    axis="objects",
    points=_recording_points,
    open=_open_recording,
)
