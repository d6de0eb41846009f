"""Faults on demand."""

from __future__ import annotations

import threading
import weakref
from typing import Protocol

from pers._checks import whole_number
from pers.backends.null.live import LiveObjects
from pers.errors import OutOfMemoryError, PersError, ValidationError

__all__ = ["NullFaults"]


class Losable(Protocol):
    """A device that can be lost."""

    def lose(self, message: str) -> None:
        """Be lost."""
        ...


class NullFaults:
    """What goes wrong on a `NullDevice`. Nothing, until a method here is called.

    Thread-safe; one object may serve several devices, which then share the faults.
    """

    def __init__(self, *, memory_limit: int | None = None) -> None:
        """Prepare faults.

        Args:
            memory_limit: See the attribute.

        Raises:
            ValidationError: The limit is no whole number or negative.
        """
        self._lock = threading.Lock()
        self._memory_limit: int | None = None
        self._allocations = 0
        self._maps: list[PersError | None] = []
        self._submits_left: int | None = None
        self._loss = ""
        self._devices: weakref.WeakSet[Losable] = weakref.WeakSet()
        self.memory_limit = memory_limit

    @property
    def memory_limit(self) -> int | None:
        """Bytes that the buffers and textures of a device may take together; None: no limit.

        A buffer or texture that would go above it raises `OutOfMemoryError` when created.
        """
        return self._memory_limit

    @memory_limit.setter
    def memory_limit(self, value: int | None) -> None:
        self._memory_limit = None if value is None else _count(value, "memory_limit (bytes)")

    def fail_next_allocations(self, count: int = 1) -> None:
        """Let the next `count` buffers and textures fail with `OutOfMemoryError`; 0: no more."""
        self._allocations = _count(count, "fail_next_allocations")

    def fail_next_maps(self, count: int = 1, *, error: PersError | None = None) -> None:
        """Let the next `count` maps that are asked for fail when they end; 0: no more.

        Args:
            count: How many.
            error: What the caller of the map gets; None means an `OutOfMemoryError`.
        """
        with self._lock:
            self._maps = [error] * _count(count, "fail_next_maps")

    def lose_device(self, message: str = "the null device was told to be lost") -> None:
        """Lose the device now: pending work ends with `DeviceLostError`, maps are aborted."""
        for device in list(self._devices):
            device.lose(message)

    def lose_after_submits(
        self, count: int = 1, message: str = "the null device was told to be lost"
    ) -> None:
        """Lose the device in place of the end of its `count`-th submission from now.

        The call of that submit succeeds, as it does when a real GPU hangs; the loss is noticed
        when the submission would have ended on the clock.
        """
        with self._lock:
            self._submits_left = _count(count, "lose_after_submits", minimum=1)
            self._loss = message

    # What follows is for the device.

    def attach(self, device: Losable) -> None:
        """Take part in `lose_device`."""
        self._devices.add(device)

    def check_allocation(self, what: str, nbytes: int, live: LiveObjects) -> None:
        """Raise `OutOfMemoryError` when an allocation is to fail."""
        with self._lock:
            fails = self._allocations > 0
            self._allocations -= fails
        if fails:
            raise OutOfMemoryError(
                f"{what}: no memory for {nbytes} bytes (a fault injected by fail_next_allocations);"
                " destroy something and try again"
            )
        limit = self._memory_limit
        if limit is not None and live.nbytes + nbytes > limit:
            raise OutOfMemoryError(
                f"{what}: no memory for {nbytes} bytes: {live.nbytes} are in use, and memory_limit "
                f"is {limit}; destroy something, or raise NullFaults.memory_limit"
            )

    def take_map_failure(self, what: str) -> PersError | None:
        """Return what the next map is to fail with, if it is."""
        with self._lock:
            if not self._maps:
                return None
            error = self._maps.pop()
        return error or OutOfMemoryError(
            f"{what}: no memory to map it (a fault injected by fail_next_maps); map again"
        )

    def take_loss(self) -> str | None:
        """Count a submit; return the message of the loss when it is the one to be lost with."""
        with self._lock:
            if self._submits_left is None:
                return None
            self._submits_left -= 1
            if self._submits_left:
                return None
            self._submits_left = None
            return self._loss


def _count(value: int, what: str, minimum: int = 0) -> int:
    return whole_number(value, what, minimum=minimum, error=ValidationError)
