"""Streams of frames to another process, beside two ways of copying them.

``share-stream`` goes from a NumPy array to a NumPy array. ``share-stream-gpu`` goes from an image
of this process's GPU device to one of the other's: the producer copies a picture that is on the GPU
to the frame, and the consumer copies the frame to an image of its own, both on the GPU. A stream of
Vulkan textures does nothing else. The copying ways, a stream of the host backend and a block of
`multiprocessing.shared_memory`, have the GPU copy the picture to mapped memory, the CPU copy that
to the way's memory, and the same back at the other end.

A result is the time of a frame when as many are sent as the way takes. The latencies are those of
frames that are sent one by one: from when the producer begins the frame, until the consumer has it.
The number in each frame is compared at once. Of the frames that are sent one by one every pixel is
compared, outside of the time that is measured, and of the others the last.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing, contextmanager
from multiprocessing.connection import Connection
from typing import Any

import attrs

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
from benchmarks.sharing.latency import Latencies
from benchmarks.sharing.managers import (
    SHARED_MEMORY,
    VULKAN,
    Place,
    open_managers,
    open_vulkan,
)
from benchmarks.sharing.pictures import Maker, Nothing, Pictures, Taker
from benchmarks.sharing.processes import Answers, Child
from benchmarks.sharing.ways import Block, Ends, Receiver, Sender, Stream
from pers import TextureShareManager, VulkanTextureShareManager

__all__ = ["STREAM", "STREAM_GPU"]

SIZES = {"64²": (64, 64), "1080p": (1920, 1080), "4K": (3840, 2160)}
HAND_OVER = "no pixels"
"""A point at which nothing is made and nothing taken: what is left is the hand-over."""

FRAMES, QUICK_FRAMES = 30, 4
SINGLE, QUICK_SINGLE = 15, 3


@attrs.frozen
class Order:
    """What the consumer is asked for.

    Attributes:
        frames: How many frames come, as fast as they can.
        single: How many come one by one after those.
    """

    frames: int
    single: int


@attrs.frozen
class Result:
    """What the consumer has seen.

    Attributes:
        done: How many frames so far, since it was started.
        ended_ns: When it had the last of those that came as fast as they could.
        latencies: Of those that came one by one, in seconds.
    """

    done: int
    ended_ns: int
    latencies: list[float]


# --- The consumer ---------------------------------------------------------------------------------


@contextmanager
def open_consumer(
    connection: Connection, kind: str, size: tuple[int, int], ends: Ends, gpu: Place | None
) -> Generator[Answers]:
    """Take frames, and check them."""
    with ExitStack() as stack:
        manager = stack.enter_context(open_vulkan(gpu)) if gpu else None
        taker = stack.enter_context(_pictures(kind, manager, size))
        receiver = stack.enter_context(ends.receive(manager if _is_vulkan(ends) else None))
        consumer = _Consumer(connection, receiver, taker)
        yield consumer.take


def _is_vulkan(ends: Ends) -> bool:
    return isinstance(ends, Stream) and ends.place.backend == VULKAN


class _Consumer:
    def __init__(self, connection: Connection, receiver: Receiver, taker: Taker) -> None:
        self._connection, self._receiver, self._taker = connection, receiver, taker
        self._done = 0

    def take(self, order: Order) -> Result:
        for _ in range(order.frames):
            self._take_one()
        ended_ns = time.monotonic_ns()
        self._taker.check_whole(self._done)
        self._connection.send((True, self._done))
        latencies: list[float] = []
        for _ in range(order.single):
            began_ns, done_ns = self._take_one()
            latencies.append((done_ns - began_ns) / 1e9)
            self._taker.check_whole(self._done)
            self._connection.send((True, self._done))
        return Result(self._done, ended_ns, latencies)

    def _take_one(self) -> tuple[int, int]:
        """Take a frame; return when it was begun, and when it was here."""
        self._done += 1
        with self._receiver.frame(self._done) as received:
            self._taker.take(received.source)
        self._taker.finish()
        done_ns = time.monotonic_ns()
        self._taker.check_stamps(self._done)
        return received.began_ns, done_ns


# --- The producer ---------------------------------------------------------------------------------

CPU, GPU = "cpu", "gpu"


@contextmanager
def _pictures(
    kind: str, manager: TextureShareManager | None, size: tuple[int, int]
) -> Generator[Any]:
    if kind == CPU:
        yield Pictures(*size)
    elif kind == GPU:
        from benchmarks.sharing.gpu import GpuPictures  # needs Vulkan

        assert isinstance(manager, VulkanTextureShareManager)
        with closing(GpuPictures(manager, *size)) as pictures:
            yield pictures
    else:
        yield Nothing()


class _Producer:
    """Sends frames, and has the contender checked.

    Args:
        sender: Where they go.
        maker: Makes them.
        child: The process that takes them.
        order: How many of them.
    """

    def __init__(self, sender: Sender, maker: Maker, child: Child, order: Order) -> None:
        self._sender, self._maker, self._child, self._order = sender, maker, child, order
        self._latencies = Latencies()
        self._sent = self._asked = self._done = 0
        self._is_warm = False

    def run(self, contender: Contender) -> float:
        """Send what the order says; return the seconds of those that go as fast as they can."""
        order = self._order
        self._child.ask(order)
        start_ns = time.monotonic_ns()
        for _ in range(order.frames):
            self._send_one()
        self._child.answer()
        for _ in range(order.single):
            self._send_one()
            self._child.answer()
        result: Result = self._child.answer()
        self._done = result.done
        if self._is_warm:
            self._latencies.add(contender, result.latencies)
        self._is_warm = True
        return (result.ended_ns - start_ns) / 1e9

    def _send_one(self) -> None:
        self._sent += 1
        with self._child.explaining(), self._sender.frame() as target:
            self._maker.make(target, self._sent)

    def check(self) -> None:
        """The pixels are compared by the consumer, which says so when one is wrong."""
        self._asked += self._order.frames + self._order.single
        if not self._sent == self._done == self._asked:
            raise WrongContentError(
                f"of {self._asked} frames {self._sent} were sent and {self._done} arrived"
            )


def _enter(
    stack: ExitStack,
    library: str,
    road: str,
    kind: str,
    size: tuple[int, int],
    ends: Ends,
    managers: tuple[TextureShareManager | None, TextureShareManager | None],
    order: Order,
) -> Contender:
    """Start a way: here the producer with its managers, that of the way and that of the GPU."""
    manager, gpu = managers
    place = Place.of(gpu) if gpu is not None else None
    if place is None and _is_vulkan(ends):
        assert isinstance(ends, Stream)
        place = ends.place
    maker = stack.enter_context(_pictures(kind, gpu, size))
    sender = stack.enter_context(ends.send(manager))
    child = stack.enter_context(Child(open_consumer, kind, size, ends, place))
    child.wait_ready()
    producer = _Producer(sender, maker, child, order)
    contender = Contender(
        library, road, lambda: producer.run(contender), producer.check, per=order.frames
    )
    return contender


# --- Benchmarks -----------------------------------------------------------------------------------


def _sizes(lab: Lab, scale: Scale) -> list[Point]:
    labels = list(SIZES)[:1] if scale.quick else list(SIZES)[1:]
    return [Point(label, SIZES[label][0] * SIZES[label][1] * 4) for label in labels]


def _sizes_and_none(lab: Lab, scale: Scale) -> list[Point]:
    return [*_sizes(lab, scale), Point(HAND_OVER)]


def _order(scale: Scale) -> Order:
    return Order(QUICK_FRAMES, QUICK_SINGLE) if scale.quick else Order(FRAMES, SINGLE)


@contextmanager
def _open(lab: Lab, point: Point, scale: Scale) -> Generator[Sequence[Entrant]]:
    with _opened(lab, point, CPU, scale) as entrants:
        yield entrants


@contextmanager
def _open_gpu(lab: Lab, point: Point, scale: Scale) -> Generator[Sequence[Entrant]]:
    kind = HAND_OVER if point.label == HAND_OVER else GPU
    with _opened(lab, point, kind, scale) as entrants:
        yield entrants


@contextmanager
def _opened(lab: Lab, point: Point, kind: str, scale: Scale) -> Generator[Sequence[Entrant]]:
    size = SIZES.get(point.label, SIZES["1080p"])
    order = _order(scale)
    with open_managers(lab) as managers, ExitStack() as stack:
        vulkan = managers[VULKAN]
        gpu = vulkan if kind == GPU else None
        if isinstance(gpu, Missing):
            yield [attrs.evolve(gpu, road=""), Missing(SHARED_MEMORY, gpu.reason)]
            return
        found: list[Entrant] = []
        for name, manager in managers.items():
            if isinstance(manager, Missing):
                found.append(manager)
                continue
            ends = Stream(Place.of(manager), *size)
            found.append(_enter(stack, PERS, name, kind, size, ends, (manager, gpu), order))
        block = stack.enter_context(Block.make(*size))
        found.append(_enter(stack, SHARED_MEMORY, "", kind, size, block, (None, gpu), order))
        yield found


STREAM = Benchmark(
    name="share-stream",
    title="a stream of frames to another process, from array to array",
    axis="bytes",
    points=_sizes,
    open=_open,
)
STREAM_GPU = Benchmark(
    name="share-stream-gpu",
    title="a stream of frames to another process, from image to image on the GPU",
    axis="bytes",
    points=_sizes_and_none,
    open=_open_gpu,
)
