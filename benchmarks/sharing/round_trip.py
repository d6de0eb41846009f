"""A frame to another process and back: it goes there in one stream and returns in another.

It begins as a NumPy array and ends as one. The other process reads the frame into memory of its
own, writes a new number into it, and sends it back; here every pixel is compared, after the clock
has been stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection

import numpy as np

from benchmarks.core import (
    PERS,
    Benchmark,
    Contender,
    Entrant,
    Missing,
    Point,
    Scale,
    WrongContentError,
)
from benchmarks.lab import Lab
from benchmarks.payload import expect_equal
from benchmarks.sharing.latency import Latencies
from benchmarks.sharing.managers import SHARED_MEMORY, Place, open_managers
from benchmarks.sharing.pictures import Pictures, put_pixels, stamp
from benchmarks.sharing.processes import Answers, Child
from benchmarks.sharing.ways import Block, Ends, Stream
from pers import TextureShareManager

__all__ = ["FRAME"]

SIZES = {"64²": (64, 64), "1080p": (1920, 1080), "4K": (3840, 2160)}
FRAMES, QUICK_FRAMES = 10, 3
ANSWERED = 1 << 31
"""Is added to a frame's number by the process that sends it back."""


@contextmanager
def open_echo(
    connection: Connection, size: tuple[int, int], there: Ends, back: Ends
) -> Generator[Answers]:
    """Send every frame back, with another number, as many as the message says."""
    pictures = Pictures(*size)
    done = 0
    with back.send(None) as sender, there.receive(None) as receiver:

        def answer(count: int) -> None:
            nonlocal done
            for _ in range(count):
                done += 1
                with receiver.frame(done) as received:
                    pictures.take(received.source)
                pictures.check_stamps(done)
                stamp(pictures.found, done + ANSWERED)
                with sender.frame() as target:
                    put_pixels(target, pictures.found)

        yield answer


def _points(lab: Lab, scale: Scale) -> list[Point]:
    labels = list(SIZES)[:1] if scale.quick else list(SIZES)
    return [Point(label, SIZES[label][0] * SIZES[label][1] * 4) for label in labels]


Opened = Callable[[], tuple[Ends, TextureShareManager | None]]


@contextmanager
def _open(lab: Lab, point: Point, scale: Scale) -> Generator[Sequence[Entrant]]:
    size = SIZES[point.label]
    count = QUICK_FRAMES if scale.quick else FRAMES
    pictures = Pictures(*size)
    with open_managers(lab) as managers, ExitStack() as stack:
        found: list[Entrant] = []
        for name, manager in managers.items():
            if isinstance(manager, Missing):
                found.append(manager)
                continue
            there, back = (Stream(Place.of(manager), *size) for _ in range(2))
            found.append(_enter(stack, PERS, name, (there, back), manager, pictures, size, count))
        blocks = stack.enter_context(Block.make(*size)), stack.enter_context(Block.make(*size))
        found.append(_enter(stack, SHARED_MEMORY, "", blocks, None, pictures, size, count))
        yield found


def _enter(
    stack: ExitStack,
    library: str,
    road: str,
    ways: tuple[Ends, Ends],
    manager: TextureShareManager | None,
    pictures: Pictures,
    size: tuple[int, int],
    count: int,
) -> Contender:
    there, back = ways
    sender = stack.enter_context(there.send(manager))
    child = stack.enter_context(Child(open_echo, size, there, back))
    child.wait_ready()
    receiver = stack.enter_context(back.receive(manager))
    latencies = Latencies()
    done = asked = 0

    def run() -> float:
        nonlocal done
        child.ask(count)
        times: list[float] = []
        for _ in range(count):
            done += 1
            pictures.of(done)
            start = time.perf_counter()
            with child.explaining():
                with sender.frame() as target:
                    pictures.make(target, done)
                with receiver.frame(done) as received:
                    pictures.take(received.source)
            times.append(time.perf_counter() - start)
            _check(pictures, done)
        child.answer()
        latencies.add(contender, times)
        return sum(times)

    def check() -> None:
        nonlocal asked
        asked += count
        if done != asked:
            raise WrongContentError(f"{done} of {asked} frames came back")

    contender = Contender(library, road, run, check, per=count)
    return contender


def _check(pictures: Pictures, number: int) -> None:
    pictures.check_stamps(number + ANSWERED)
    wanted = pictures.of(number).copy()
    stamp(wanted, number + ANSWERED)
    expect_equal(np.asarray(pictures.found), wanted)


FRAME = Benchmark(
    name="share-frame",
    title="a frame to another process and back, array to array; every pixel is compared",
    axis="bytes",
    points=_points,
    open=_open,
)
