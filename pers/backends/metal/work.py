"""The command queue: what waits, what signals, and when all of it is done."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from pers.backends.metal._objc import Metal
from pers.backends.metal.event import MetalEvent
from pers.errors import MetalApiError, MetalInitializationError, WaitTimeoutError
from pers.sharing.native import NativePoint

__all__ = ["Work"]


ROOM = 32
"""How many command buffers to have under way at most: ``commandBuffer`` blocks, without a time
limit, when there are 64 of them (``newCommandQueue``), the application's own included."""


class Work:
    """Puts waits and signals between the command buffers of one queue, which run in order.

    An event of its own counts what is done, since ``waitUntilCompleted`` knows no time limit and
    would never return when another process has died before it signalled.

    Args:
        metal: Apple's calls.
        device: The ``MTLDevice``.
        timeout_ns: How long to wait for the GPU at most, in nanoseconds.
    """

    def __init__(self, metal: Metal, device: Any, timeout_ns: int) -> None:
        self._metal = metal
        self._timeout_ns = timeout_ns
        self._lock = threading.Lock()
        self._count = 0
        queue, done = metal.new_queue(device), metal.new_event(device)
        if queue is None or done is None:
            raise MetalInitializationError(
                f"{metal.device_name(device)} gave no command queue or no shared event; "
                "close other programs that use the GPU, or use pers.HostTextureShareManager"
            )
        self.queue: Any = queue
        self._done: Any = done

    def wait(self, waits: Sequence[NativePoint], what: str) -> None:
        """Have all later work wait for events."""
        if waits:
            self._submit(self._metal.encode_wait, waits, what)

    def signal(self, signals: Sequence[NativePoint], what: str) -> None:
        """Signal events when all work so far is done; without events, return then."""
        commands, count = self._submit(self._metal.encode_signal, signals, what)
        if not signals:
            try:
                self._wait_done(count, what)
            finally:  # a command buffer that fails need not signal
                self._check(commands, what)

    def _submit(
        self, encode: Callable[[Any, Any, int], None], points: Sequence[NativePoint], what: str
    ) -> tuple[Any, int]:
        """Commit a command buffer with waits or signals; return it and its number."""
        with self._lock:
            if self._count >= ROOM:
                self._wait_done(self._count + 1 - ROOM, what)
            commands = self._metal.new_commands(self.queue)
            if commands is None:
                raise MetalApiError(
                    f"{what}: commandBuffer returned nothing; open the manager again"
                )
            for event, value in _events(points):
                encode(commands, event, value)
            self._count += 1
            self._metal.encode_signal(commands, self._done, self._count)
            self._metal.commit(commands)
            return commands, self._count

    def _wait_done(self, count: int, what: str) -> None:
        """Block until the first `count` command buffers are done."""
        if not self._metal.wait_event(self._done, count, -(-self._timeout_ns // 1_000_000)):
            raise WaitTimeoutError(
                f"{what}: what its access, or work before it, waits for was not signalled within "
                f"{self._timeout_ns / 1e9:g} s; see that the other side signals it, or signal the "
                "event yourself when that side is gone"
            )

    def _check(self, commands: Any, what: str) -> None:
        if problem := self._metal.error_of(commands):
            raise MetalApiError(f"{what}: the GPU gave up: {problem}; open the manager again")


def _events(points: Sequence[NativePoint]) -> list[tuple[Any, int]]:
    events: list[tuple[Any, int]] = []
    for point in points:
        match point:
            case (MetalEvent() as event, int() as value):
                events.append((event.native_handle, value))
            case _:  # there is nothing else that this backend makes
                raise AssertionError(point)
    return events
