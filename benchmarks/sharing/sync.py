"""How long a signal takes to another process and back.

What a CPU can signal and wait for goes there and back by itself: timelines and events. Binary
semaphores and fences are signalled by an access, at whose end the GPU (the host backend: the CPU)
gets to them; a binary semaphore is waited for by an access, too, and has to be signalled before
that is begun, so that a message through a pipe goes ahead of it. The pipe alone is listed as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Semaphore
from typing import Any

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
from benchmarks.sharing.handing import receive_handle, send_handle
from benchmarks.sharing.latency import Latencies
from benchmarks.sharing.managers import TIMEOUT_NS, Place, describe, open_managers
from benchmarks.sharing.processes import SPAWN, Answers, Child
from pers import OperationNotSupportedError, SharedTexture, TextureShareManager

__all__ = ["SYNC"]

BINARY, TIMELINE, FENCE, EVENT = "binary semaphore", "timeline semaphore", "fence", "event"
ROUNDS, QUICK_ROUNDS = 50, 3
TIMEOUT_S = TIMEOUT_NS / 1e9

MULTIPROCESSING = "multiprocessing"
"""The peer: its semaphores and its pipes."""


class Line:
    """Two signals of a kind, one for each way; both sides have a `Line` on them."""

    def __init__(
        self, kind: str, out: Any, back: Any, texture: SharedTexture, pipe: Connection
    ) -> None:
        self._kind, self._out, self._back = kind, out, back
        self._texture, self._pipe = texture, pipe
        self._sent = self._received = 0

    def signal(self) -> None:
        """Signal the other side."""
        self._sent += 1
        if self._kind in (TIMELINE, EVENT):
            self._out.signal(self._sent)
            return
        with self._texture.access(signal=[self._out]):
            pass
        if self._kind == BINARY:
            self._pipe.send_bytes(self._sent.to_bytes(8, "little"))

    def wait(self) -> None:
        """Wait for the other side's signal, until the CPU knows of it."""
        self._received += 1
        if self._kind in (TIMELINE, EVENT):
            self._back.wait(self._received, TIMEOUT_NS)
            return
        if self._kind == FENCE:
            self._back.wait(TIMEOUT_NS)
            self._back.reset()
            return
        heard = receive_bytes(self._pipe)
        if int.from_bytes(heard, "little") != self._received:
            raise WrongContentError("a message came twice, or not at all")
        with self._texture.access(wait=[self._back]):
            pass

    @property
    def count(self) -> tuple[int, int]:
        """How often it has signalled, and been signalled."""
        return self._sent, self._received


def receive_bytes(pipe: Connection) -> bytes:
    """Return the next message of a pipe; TimeoutError when none comes."""
    if not pipe.poll(TIMEOUT_S):
        raise TimeoutError("the other process sent nothing")
    return pipe.recv_bytes()


def _make(manager: TextureShareManager, kind: str) -> Any:
    match kind:
        case "binary semaphore":
            return manager.create_semaphore("binary")
        case "timeline semaphore":
            return manager.create_semaphore("timeline")
        case "fence":
            return manager.create_fence()
        case _:
            return manager.create_event()


def _export(manager: TextureShareManager, kind: str, one: Any) -> Any:
    if kind in (BINARY, TIMELINE):
        return manager.export_semaphore(one)
    return manager.export_fence(one) if kind == FENCE else manager.export_event(one)


def _import(manager: TextureShareManager, kind: str, handle: Any) -> Any:
    if kind in (BINARY, TIMELINE):
        return manager.import_semaphore(handle)
    return manager.import_fence(handle) if kind == FENCE else manager.import_event(handle)


@contextmanager
def open_line(
    connection: Connection, place: Place, kind: str, pipe: Connection
) -> Generator[Answers]:
    """Answer every signal with one, as many as the message says."""
    with place.open() as manager, ExitStack() as stack:
        signals: list[Any] = []
        for _ in range(2):
            with receive_handle(connection) as handle:
                signals.append(stack.enter_context(_import(manager, kind, handle)))
        texture = stack.enter_context(manager.create_shareable_texture(describe(1, 1)))
        line = Line(kind, signals[1], signals[0], texture, pipe)

        def answer(count: int) -> tuple[int, int]:
            for _ in range(count):
                line.wait()
                line.signal()
            return line.count

        yield answer


def _enter(
    stack: ExitStack, manager: TextureShareManager, name: str, kind: str, rounds: int
) -> Entrant:
    try:
        out, back = (stack.enter_context(_make(manager, kind)) for _ in range(2))
    except OperationNotSupportedError as error:
        return Missing(PERS, _reason(manager, kind, error), name)
    ours, theirs = SPAWN.Pipe()
    stack.callback(ours.close)
    child = stack.enter_context(Child(open_line, Place.of(manager), kind, theirs))
    theirs.close()
    for one in (out, back):
        send_handle(child.connection, _export(manager, kind, one))
    child.wait_ready()
    texture = stack.enter_context(manager.create_shareable_texture(describe(1, 1)))
    line = Line(kind, out, back, texture, ours)
    return _round_trips(PERS, name, child, line.signal, line.wait, rounds, lambda: line.count)


def _reason(manager: TextureShareManager, kind: str, error: Exception) -> str:
    """Return what the manager has found out about a kind, or else what it said just now."""
    return next(
        (each for each in manager.capabilities.reasons if each.startswith(kind)), str(error)
    )


def _round_trips(
    library: str,
    road: str,
    child: Child,
    signal: Callable[[], Any],
    wait: Callable[[], Any],
    rounds: int,
    count: Callable[[], tuple[int, int]],
) -> Contender:
    latencies = Latencies()
    answers: list[Any] = []
    asked = [0]

    def run() -> float:
        child.ask(rounds)
        times: list[float] = []
        for _ in range(rounds):
            start = time.perf_counter()
            with child.explaining():
                signal()
                wait()
            times.append(time.perf_counter() - start)
        answers.append(child.answer())
        latencies.add(contender, times)
        return sum(times)

    def check() -> None:
        asked[0] += rounds
        there = answers[-1] if answers else None
        if not there == count() == (asked[0], asked[0]):
            raise WrongContentError(f"{asked[0]} round trips were asked for: {there}, {count()}")

    contender = Contender(library, road, run, check, per=rounds)
    return contender


# --- Peers ----------------------------------------------------------------------------------------


class Plain:
    """The two ways of a pipe, or of a pair of semaphores, counted."""

    def __init__(self, out: Any, back: Any) -> None:
        self._out, self._back = out, back
        self._sent = self._received = 0

    def signal(self) -> None:
        self._sent += 1
        if isinstance(self._out, Semaphore):
            self._out.release()
        else:
            self._out.send_bytes(self._sent.to_bytes(8, "little"))

    def wait(self) -> None:
        self._received += 1
        if not isinstance(self._back, Semaphore):
            receive_bytes(self._back)
        elif not self._back.acquire(timeout=TIMEOUT_S):
            raise TimeoutError("the other process did not signal")

    def count(self) -> tuple[int, int]:
        return self._sent, self._received


@contextmanager
def open_plain(connection: Connection, out: Any, back: Any) -> Generator[Answers]:
    """Answer every signal with one, as many as the message says."""
    line = Plain(out, back)

    def answer(count: int) -> tuple[int, int]:
        for _ in range(count):
            line.wait()
            line.signal()
        return line.count()

    yield answer


def _peers(stack: ExitStack, rounds: int) -> Generator[Contender]:
    ours, theirs = SPAWN.Pipe()
    stack.callback(ours.close)
    stack.callback(theirs.close)
    there, back = SPAWN.Semaphore(0), SPAWN.Semaphore(0)
    for road, mine, other in (
        ("Semaphore", (there, back), (back, there)),
        ("Pipe", (ours, ours), (theirs, theirs)),
    ):
        child = stack.enter_context(Child(open_plain, *other))
        line = Plain(*mine)
        yield _round_trips(MULTIPROCESSING, road, child, line.signal, line.wait, rounds, line.count)


def _points(lab: Lab, scale: Scale) -> list[Point]:
    return [Point(kind) for kind in (BINARY, TIMELINE, FENCE, EVENT)]


@contextmanager
def _open(lab: Lab, point: Point, scale: Scale) -> Generator[Sequence[Entrant]]:
    rounds = QUICK_ROUNDS if scale.quick else ROUNDS
    with open_managers(lab) as managers, ExitStack() as stack:
        found: list[Entrant] = []
        for name, manager in managers.items():
            if isinstance(manager, Missing):
                found.append(manager)
            else:
                found.append(_enter(stack, manager, name, point.label, rounds))
        found += _peers(stack, rounds)
        yield found


SYNC = Benchmark(
    name="share-sync",
    title="a signal to another process and back",
    axis="",
    points=_points,
    open=_open,
)
