"""Memory over time: does a program that runs for long stay as large as it was?

Frames, uploads and readbacks go on for ``--minutes``. The libraries take turns of a second or
less, and what the process grows by in a turn is put down to the library whose turn it was: memory
that is in RAM, and the memory blocks that Python holds, for each frame.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs
import numpy as np

from benchmarks.core import (
    LIBRARIES,
    PERS,
    WGPU,
    Benchmark,
    Contender,
    Entrant,
    Point,
    Scale,
    Series,
    WrongContentError,
)
from benchmarks.frame_loop import open_frames
from benchmarks.lab import SLANGPY_DRAWS, Lab
from benchmarks.payload import Payload
from benchmarks.scene import Scene
from benchmarks.sizes import MIB
from pers import BufferUsage, DeviceBuffer

__all__ = ["MEMORY", "Growth", "blocks_per_frame", "drift", "resident_bytes"]

OBJECTS = 1000
FRAMES_A_TURN = 20
SAMPLES = 20
WARM_UP = 0.25
"""The part of the run that is not counted."""


def resident_bytes() -> int | None:
    """Return the memory of this process that is in RAM (bytes), or None where unknown."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return None
    import resource

    return int(pages) * resource.getpagesize()


def drift(growth: Sequence[float]) -> float:
    """Return how much was added after the warm-up (bytes), from growth sampled at even times.

    The first and the last quarter of what is left are compared by their medians, so that one
    sample that is taken in the middle of things says nothing.
    """
    counted = np.asarray(growth[int(len(growth) * WARM_UP) :], float)
    part = max(1, len(counted) // 4)
    return float(np.median(counted[-part:]) - np.median(counted[:part]))


@attrs.frozen
class Growth:
    """What a library's turns added so far."""

    nbytes: float = 0.0
    blocks: int = 0
    frames: int = 0

    def after(self, nbytes: float, blocks: int) -> Growth:
        """Return it after another turn."""
        return Growth(self.nbytes + nbytes, self.blocks + blocks, self.frames + FRAMES_A_TURN)


def blocks_per_frame(growth: Sequence[Growth]) -> float:
    """Return how many blocks a frame left behind after the warm-up, to a hundredth."""
    frames = drift([float(each.frames) for each in growth])
    blocks = drift([float(each.blocks) for each in growth])
    return round(blocks / frames, 2) if frames else 0.0


def _points(lab: Lab, scale: Scale) -> list[Point]:
    return [Point("over time")]


@contextmanager
def _open(lab: Lab, point: Point, scale: Scale) -> Generator[Sequence[Entrant]]:
    scene = Scene(OBJECTS)
    loops = open_frames(lab, scene)
    payload = Payload(MIB)
    target = DeviceBuffer(
        MIB, lab.device.buffer_factory, usage=BufferUsage.STORAGE | BufferUsage.COPY_SRC
    )
    raw_target = lab.wgpu.buffer(MIB, "target") if lab.wgpu else None

    def move_bytes_by_pers() -> None:
        lab.device.upload(payload.words, target)
        payload.check(lab.device.read_array_blocking(target))

    def move_bytes_by_wgpu() -> None:
        assert lab.wgpu is not None
        lab.wgpu.queue.write_buffer(raw_target, 0, payload.words)
        payload.check(lab.wgpu.queue.read_buffer(raw_target))

    transfers: dict[str, Callable[[], None]] = {PERS: move_bytes_by_pers, WGPU: move_bytes_by_wgpu}

    def turn(library: str) -> Callable[[], None]:
        def run() -> None:
            frames = loops[library]
            for number in range(FRAMES_A_TURN):
                scene.move()
                frames.draw()
                if number % 4 == 0 and library in transfers:
                    payload.change_pages()
                    transfers[library]()
            frames.finish()

        return run

    entrants: list[Entrant] = [
        Contender(library, "frames, uploads, readbacks", turn(library), frames.check)
        for library, frames in loops.items()
    ]
    for library in LIBRARIES:
        if library not in loops:
            entrants.append(lab.missing(library, SLANGPY_DRAWS))
    yield entrants
    for frames in loops.values():
        frames.close()
    target.destroy()


def _watch(benchmark: str, point: Point, entrants: Sequence[Entrant], scale: Scale) -> list[Series]:
    """Take turns until the time is up; one series for each contender and time."""
    found = [
        Series(benchmark, point, each.library, "", "not available", problem=each.reason)
        for each in entrants
        if not isinstance(each, Contender)
    ]
    contenders = [each for each in entrants if isinstance(each, Contender)]
    before = resident_bytes()
    if before is None:
        return found + [
            Series(benchmark, point, each.library, each.road, "not available",
                   problem="this system does not tell a process its size")
            for each in contenders
        ]  # fmt: skip
    growth = {each.library: Growth() for each in contenders}
    history: dict[str, list[tuple[float, Growth]]] = {each.library: [] for each in contenders}
    start = time.monotonic()
    seconds = scale.minutes * 60
    next_sample = 0.0
    while (elapsed := time.monotonic() - start) < seconds or not history[PERS]:
        for each in contenders:
            blocks = sys.getallocatedblocks()
            each.run()
            blocks = sys.getallocatedblocks() - blocks
            now = resident_bytes() or before
            growth[each.library] = growth[each.library].after(now - before, blocks)
            before = now
        if elapsed >= next_sample:
            for each in contenders:
                history[each.library].append((elapsed, growth[each.library]))
            next_sample += seconds / SAMPLES
    for each in contenders:
        found += _series(benchmark, each, history[each.library])
    return found


def _series(
    benchmark: str, contender: Contender, history: Sequence[tuple[float, Growth]]
) -> list[Series]:
    try:
        contender.check()
    except WrongContentError as error:
        end = Point("at the end")
        return [Series(benchmark, end, contender.library, contender.road, "wrong",
                       problem=str(error))]  # fmt: skip
    found = [
        Series(benchmark, Point(f"{seconds:.1f} s", seconds), contender.library, contender.road,
               samples=[grown.nbytes])
        for seconds, grown in history
    ]  # fmt: skip
    found[-1].extra["drift"] = drift([grown.nbytes for _, grown in history])
    found[-1].extra["blocks_per_frame"] = blocks_per_frame([grown for _, grown in history])
    return found


MEMORY = Benchmark(
    name="memory",
    title="memory over time: what the process has grown by in a library's turns",
    axis="seconds",
    points=_points,
    open=_open,
    unit="bytes",
    measure=_watch,
)
