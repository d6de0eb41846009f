"""``python -m benchmarks.profiles``: where the main thread's time goes, by sampling.

A signal interrupts the main thread every millisecond, and what is on its stack is noted. That costs
little and does not slow down short functions more than long ones, as a tracing profiler does. Shown
is the share of the time that each function was on the stack, and the share in which it was the
innermost one: in its own lines, or in native code that it called. Not on Windows.
"""

from __future__ import annotations

import argparse
import functools
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Self

import anyio
import numpy as np

import pers
from benchmarks.sizes import KIB, MIB, show_bytes
from pers import BufferUsage, DeviceBuffer, IRenderDevice
from renderers.stress import StressTestRenderer

__all__ = ["Sampler", "main"]

INTERVAL = 0.001
"""Seconds between two looks."""
SIZES = (4 * KIB, MIB, 64 * MIB)
PICTURES = ((1280, 720), (64, 64))
"""The second one is almost no work for the GPU, so that what the CPU does is seen."""
OURS = ("pers/", "renderers/")
CALLBACK = "_ffi.py: _on_"
LEAST = 0.01
"""Functions of others are shown when so much of the time is theirs alone."""
SHOWN = 30
ROOT = Path(__file__).resolve().parents[1]


class Sampler:
    """Watches the main thread, which enters its block."""

    def __init__(self) -> None:
        self._looks: list[tuple[float, list[CodeType]]] = []
        self._last = 0.0
        self._stopped = False

    def __enter__(self) -> Self:
        signal.signal(signal.SIGALRM, self._look)
        self._last = time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, INTERVAL)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopped = True
        signal.setitimer(signal.ITIMER_REAL, 0)

    @property
    def seconds(self) -> float:
        """What all looks stand for."""
        return sum(taken for taken, _ in self._looks)

    def rows(self) -> list[tuple[str, float, float]]:
        """Return functions with both shares, of 1, the largest first."""
        inside: dict[str, float] = defaultdict(float)
        innermost: dict[str, float] = defaultdict(float)
        for taken, codes in self._looks:
            names = [_name(code) for code in codes]
            # What the library calls back counts for the call that it does so in.
            while CALLBACK in names[0] and len(names) > 1:
                del names[0]
            innermost[names[0]] += taken
            for name in set(names):
                inside[name] += taken
        whole = self.seconds
        by_time = sorted(inside.items(), key=lambda item: -item[1])
        return [(name, taken / whole, innermost[name] / whole) for name, taken in by_time]

    def _look(self, number: int, frame: FrameType | None) -> None:
        # A look that came late, after native code, stands for all the time that it took.
        taken = time.perf_counter() - self._last
        codes: list[CodeType] = []
        while frame is not None:
            codes.append(frame.f_code)
            frame = frame.f_back
        self._looks.append((taken, codes))
        self._last = time.perf_counter()
        if not self._stopped:
            signal.setitimer(signal.ITIMER_REAL, INTERVAL)


def main(arguments: Sequence[str] | None = None) -> int:
    """Profile the frame loop of the stress test and the belt; print tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profiles", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each profile")
    parser.add_argument("--objects", type=int, default=2000, help="in the frame loop")
    given = parser.parse_args(arguments)
    try:
        with pers.open_device() as device:
            print(f"{device.info.name}, {device.info.driver}")
            for width, height in PICTURES:
                _profile_frames(device, given.objects, width, height, given.seconds)
            for size in SIZES:
                _profile_uploads(device, size, given.seconds)
    except pers.PersError as error:
        print(f"profiles: error: {error}", file=sys.stderr)
        return 1
    return 0


def _profile_frames(
    device: IRenderDevice, objects: int, width: int, height: int, seconds: float
) -> None:
    with StressTestRenderer(device, objects, width, height) as renderer:
        anyio.run(renderer.run, 10)  # shaders are compiled, pools are filled
        sampler = Sampler()
        frames = 0
        end = time.monotonic() + seconds
        with sampler:
            while time.monotonic() < end:
                anyio.run(renderer.run, 30)
                frames += 30
        what = f"frame loop of the stress test, {objects} objects, {width} x {height} pixels"
        _print(f"{what}, {frames} frames", sampler)


def _profile_uploads(device: IRenderDevice, size: int, seconds: float) -> None:
    data = np.ones(size, np.uint8)
    usage = BufferUsage.STORAGE | BufferUsage.COPY_DST
    with DeviceBuffer(size, device.buffer_factory, usage=usage) as target:

        def upload() -> None:
            (device.belt.upload(data, target) or device.belt.flush()).wait()

        uploads, sampler = _repeat(upload, seconds)
        _print(f"belt.upload of {show_bytes(size)} and the wait for it, {uploads} times", sampler)


def _repeat(work: Callable[[], None], seconds: float) -> tuple[int, Sampler]:
    for _ in range(3):
        work()
    count, end = 0, time.monotonic() + seconds
    with Sampler() as sampler:
        while time.monotonic() < end:
            work()
            count += 1
    return count, sampler


def _print(title: str, sampler: Sampler) -> None:
    print(f"\n{title}; {sampler.seconds:.1f} s\n  inside  innermost")
    rows = [row for row in sampler.rows() if row[0].startswith(OURS) or row[2] >= LEAST]
    for name, inside, innermost in rows[:SHOWN]:
        print(f"{inside:8.1%} {innermost:10.1%}  {name}")


@functools.cache
def _name(code: CodeType) -> str:
    path = Path(code.co_filename)
    try:
        shown = path.relative_to(ROOT)
    except ValueError:
        shown = Path(*path.parts[-2:])
    return f"{shown}: {code.co_qualname}"


if __name__ == "__main__":
    sys.exit(main())
