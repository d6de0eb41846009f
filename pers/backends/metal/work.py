"""The command queue: what waits, what signals, and when all of it is done."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from pers.backends.metal._objc import Metal
from pers.backends.metal.event import MetalEvent
from pers.errors import MetalApiError, MetalInitializationError, WaitTimeoutError
from pers.sharing.native import NativePoint

__all__ = ["Work"]


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

    def wait(self, waits: Sequence[NativePoint]) -> None:
        """Have all later work wait for events."""
        if waits:
            with self._lock:
                commands = self._commands()
                for event, value in _events(waits):
                    self._metal.encode_wait(commands, event, value)
                self._metal.commit(commands)

    def signal(self, signals: Sequence[NativePoint], what: str) -> None:
        """Signal events when all work so far is done; without events, return then."""
        with self._lock:
            self._count += 1
            count, commands = self._count, self._commands()
            for event, value in _events(signals):
                self._metal.encode_signal(commands, event, value)
            self._metal.encode_signal(commands, self._done, count)
            self._metal.commit(commands)
        if not signals:
            self._wait_done(count, commands, what)

    def _wait_done(self, count: int, commands: Any, what: str) -> None:
        done = self._metal.wait_event(self._done, count, -(-self._timeout_ns // 1_000_000))
        if problem := self._metal.error_of(commands):
            raise MetalApiError(f"{what}: the GPU gave up: {problem}; open the manager again")
        if not done:
            raise WaitTimeoutError(
                f"{what}: what its access, or work before it, waits for was not signalled within "
                f"{self._timeout_ns / 1e9:g} s; see that the other side signals it, or signal the "
                "event yourself when that side is gone"
            )

    def _commands(self) -> Any:
        commands = self._metal.new_commands(self.queue)
        if commands is None:
            raise MetalApiError("commandBuffer returned nothing; open the manager again")
        return commands


def _events(points: Sequence[NativePoint]) -> list[tuple[Any, int]]:
    events: list[tuple[Any, int]] = []
    for point in points:
        match point:
            case (MetalEvent() as event, int() as value):
                events.append((event.native_handle, value))
            case _:  # there is nothing else that this backend makes
                raise AssertionError(point)
    return events
