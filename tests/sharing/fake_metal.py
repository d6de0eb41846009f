"""Apple's calls, played on the CPU: real bytes, real waits, and no call out of order.

What Apple's documentation forbids is an assertion here, so that a test fails which does it. What a
GPU would do happens when it can: a command buffer runs when those before it have, and its events
are reached.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

PIXEL_BYTES = {
    **dict.fromkeys((10,), 1),  # by MTLPixelFormat
    **dict.fromkeys((20, 25, 30), 2),
    **dict.fromkeys((55, 60, 65, 70, 71, 80, 81), 4),
    **dict.fromkeys((105, 110, 115), 8),
    125: 16,
}
READ_ONLY = 1
POISON = 0xDD
KEYS = {
    "kIOSurfaceWidth",
    "kIOSurfaceHeight",
    "kIOSurfaceBytesPerElement",
    "kIOSurfaceBytesPerRow",
    "kIOSurfaceAllocSize",
    "kIOSurfacePixelFormat",
}


@attrs.define(eq=False)
class Surface:
    properties: dict[str, int | bool]
    number: int
    memory: npt.NDArray[np.uint8]
    lock_options: int | None = None
    staging: npt.NDArray[np.uint8] | None = None

    def pixels(self, pixel_bytes: int) -> npt.NDArray[np.uint8]:
        """Height, width and bytes of a pixel, as the GPU sees them."""
        row, height = self.properties["kIOSurfaceBytesPerRow"], self.properties["kIOSurfaceHeight"]
        rows = self.memory[: row * height].reshape(height, row)
        width = self.properties["kIOSurfaceWidth"] * pixel_bytes
        return rows[:, :width].reshape(height, -1, pixel_bytes)


@attrs.define(eq=False)
class Texture:
    surface: Surface
    size: tuple[int, int]
    pixel_format: int
    usage: int

    @property
    def pixels(self) -> npt.NDArray[np.uint8]:
        return self.surface.pixels(PIXEL_BYTES[self.pixel_format])


@attrs.define(eq=False)
class EventHandle:
    event: Event


@attrs.define(eq=False)
class Event:
    gpu: Gpu
    value: int = 0
    changed: threading.Condition = attrs.Factory(threading.Condition)


@attrs.define(eq=False)
class Commands:
    queue: Queue
    steps: list[Callable[[], bool]] = attrs.Factory(list)
    is_committed: bool = False
    error: str = ""


@attrs.define(eq=False)
class Queue:
    gpu: Gpu
    pending: deque[Commands] = attrs.Factory(deque)

    def run(self) -> bool:
        """Do what can be done; return whether anything was."""
        moved = False
        while self.pending:
            commands = self.pending[0]
            while commands.steps:
                if not commands.steps[0]():
                    return moved
                commands.steps.pop(0)
                moved = True
            self.pending.popleft()
        return moved


@attrs.define(eq=False)
class Gpu:
    """The one GPU, which all processes, played by several `FakeMetal`, have in common."""

    surfaces: dict[int, tuple[Surface, object]] = attrs.Factory(dict)
    numbers: itertools.count[int] = attrs.Factory(lambda: itertools.count(17))
    queues: list[Queue] = attrs.Factory(list)
    lock: threading.RLock = attrs.Factory(threading.RLock)

    def run(self) -> None:
        with self.lock:
            moved = [True]
            while any(moved):
                moved = [queue.run() for queue in self.queues]


class FakeMetal:
    """Apple's calls as one process makes them.

    Args:
        gpu: The GPU; its own when none is given.
        fail: Calls that fail, with what they return then.
        row_alignment: What surfaces want their rows aligned to, in bytes.
    """

    def __init__(
        self, gpu: Gpu | None = None, fail: dict[str, Any] | None = None, row_alignment: int = 64
    ) -> None:
        self.gpu = gpu or Gpu()
        self.fail = fail or {}
        self.row_alignment = row_alignment
        self.calls: list[str] = []
        self.locks: list[int] = []
        self.timeouts: list[int] = []
        self.device = object()

    def _call(self, name: str) -> bool:
        """Note a call; return whether it is to fail."""
        self.calls.append(name)
        return name in self.fail

    # --- Device -----------------------------------------------------------------------------------

    def system_device(self) -> Any:
        return None if self._call("system_device") else self.device

    def device_name(self, device: Any) -> str:
        assert device is self.device
        return "Fake M9"

    def linear_alignment(self, device: Any, pixel_format: int) -> int:
        assert device is self.device
        assert pixel_format in PIXEL_BYTES
        return 16

    def new_queue(self, device: Any) -> Any:
        assert device is self.device
        if self._call("new_queue"):
            return None
        queue = Queue(self.gpu)
        self.gpu.queues.append(queue)
        return queue

    # --- Surfaces ---------------------------------------------------------------------------------

    def align_bytes_per_row(self, size: int) -> int:
        return -(-size // self.row_alignment) * self.row_alignment

    def create_surface(self, properties: dict[str, int | bool]) -> Any:
        if self._call("create_surface"):
            return None
        named = dict(properties)
        is_global = named.pop("kIOSurfaceIsGlobal", False)
        assert set(named) == KEYS
        assert all(type(value) is int and value > 0 for value in named.values())
        row, size = named["kIOSurfaceBytesPerRow"], named["kIOSurfaceAllocSize"]
        assert row % 16 == 0
        assert row % self.row_alignment == 0
        assert row >= named["kIOSurfaceWidth"] * named["kIOSurfaceBytesPerElement"]
        assert size >= row * named["kIOSurfaceHeight"]
        surface = Surface(named, next(self.gpu.numbers), np.full(size, POISON, np.uint8))
        self.gpu.surfaces[surface.number] = surface, None if is_global else self
        return surface

    def find_surface(self, number: int) -> Any:
        assert 0 < number < 2**32
        if self._call("find_surface"):
            return self.fail["find_surface"]
        surface, owner = self.gpu.surfaces.get(number, (None, None))
        return surface if owner in (None, self) else None

    def surface_id(self, surface: Any) -> int:
        return int(surface.number)

    def surface_size(self, surface: Any) -> tuple[int, int]:
        return surface.properties["kIOSurfaceWidth"], surface.properties["kIOSurfaceHeight"]

    def surface_format(self, surface: Any) -> int:
        return int(surface.properties["kIOSurfacePixelFormat"])

    def surface_bytes_per_element(self, surface: Any) -> int:
        return int(surface.properties["kIOSurfaceBytesPerElement"])

    def surface_bytes_per_row(self, surface: Any) -> int:
        return int(surface.properties["kIOSurfaceBytesPerRow"])

    def surface_nbytes(self, surface: Any) -> int:
        return len(surface.memory)

    def lock(self, surface: Any, options: int) -> int:
        assert options in (0, READ_ONLY)
        assert surface.lock_options is None, "locked twice"
        if self._call("lock"):
            return int(self.fail["lock"])
        surface.lock_options = options
        self.locks.append(options)
        return 0

    def surface_memory(self, surface: Any, size: int) -> Any:
        assert surface.lock_options is not None, "read or written without a lock"
        assert size <= len(surface.memory)
        # Not the memory itself: what is written after the unlock, or under a lock for reading,
        # must not arrive.
        surface.staging = surface.memory[:size].copy()
        return memoryview(surface.staging.data)

    def unlock(self, surface: Any, options: int) -> int:
        assert surface.lock_options == options, "unlocked with other options than locked"
        if surface.staging is not None:
            if options != READ_ONLY:
                surface.memory[: surface.staging.size] = surface.staging
            surface.staging[:] = POISON
        surface.lock_options = surface.staging = None
        return int(self.fail["unlock"]) if self._call("unlock") else 0

    # --- Textures ---------------------------------------------------------------------------------

    def new_texture(
        self, device: Any, surface: Any, size: tuple[int, int], pixel_format: int, usage: int
    ) -> Any:
        assert device is self.device
        if self._call("new_texture"):
            return None
        assert size == self.surface_size(surface)
        assert PIXEL_BYTES[pixel_format] == self.surface_bytes_per_element(surface)
        assert 0 < usage < 8
        return Texture(surface, size, pixel_format, usage)

    # --- Events -----------------------------------------------------------------------------------

    def new_event(self, device: Any) -> Any:
        assert device is self.device
        return None if self._call("new_event") else Event(self.gpu)

    def event_handle(self, event: Any) -> Any:
        self._call("event_handle")
        return EventHandle(event)

    def event_of_handle(self, device: Any, handle: Any) -> Any:
        assert device is self.device
        assert isinstance(handle, EventHandle)
        if self._call("event_of_handle"):
            return None
        return handle.event

    def event_value(self, event: Any) -> int:
        return int(event.value)

    def set_event_value(self, event: Any, value: int) -> None:
        with event.changed:
            assert value > event.value, "a shared event goes up"
            event.value = value
            event.changed.notify_all()
        self.gpu.run()

    def wait_event(self, event: Any, value: int, timeout_ms: int) -> bool:
        assert type(timeout_ms) is int
        assert timeout_ms >= 0
        self.timeouts.append(timeout_ms)
        if self._call("wait_event"):
            return False
        self.gpu.run()
        with event.changed:
            return event.changed.wait_for(lambda: event.value >= value, timeout_ms / 1000)

    # --- Commands ---------------------------------------------------------------------------------

    def new_commands(self, queue: Any) -> Any:
        assert len(queue.pending) < 64, "would block for ever"
        return None if self._call("new_commands") else Commands(queue)

    def encode_wait(self, commands: Any, event: Any, value: int) -> None:
        self._call("encode_wait")
        self.encode(commands, lambda: event.value >= value)

    def encode_signal(self, commands: Any, event: Any, value: int) -> None:
        self._call("encode_signal")

        def signal() -> bool:
            with event.changed:
                event.value = max(event.value, value)
                event.changed.notify_all()
            return True

        self.encode(commands, signal)

    def encode(self, commands: Any, step: Callable[[], bool]) -> None:
        """Add what the GPU is to do; tests put GPU work of their own here."""
        assert not commands.is_committed, "encoded after the commit"
        commands.steps.append(step)

    def commit(self, commands: Any) -> None:
        self._call("commit")
        assert not commands.is_committed, "committed twice"
        commands.is_committed = True
        with self.gpu.lock:
            commands.queue.pending.append(commands)
        self.gpu.run()

    def error_of(self, commands: Any) -> str:
        assert commands.is_committed
        return str(self.fail.get("error_of", ""))
