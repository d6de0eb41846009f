"""Semaphores, fences and events, over those of a backend."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from pers._checks import items_of, whole_number
from pers.errors import (
    OperationNotSupportedError,
    TextureAccessError,
    ValidationError,
    WaitTimeoutError,
)
from pers.sharing.handles import SemaphoreHandle, SemaphoreKind
from pers.sharing.interfaces import (
    SharedEvent,
    SharedFence,
    SharedSemaphore,
    SyncPoint,
    TextureShareManager,
)
from pers.sharing.native import (
    NativeCounter,
    NativeFence,
    NativeObject,
    NativePoint,
    NativeSemaphore,
)

__all__ = ["ManagedEvent", "ManagedFence", "ManagedSemaphore", "to_points"]

MAX_VALUE = 2**63 - 1


class _Owned:
    """What all of them have in common: a manager, and an end."""

    def __init__(self, manager: TextureShareManager, what: str, native: NativeObject) -> None:
        self.manager = manager
        self.what = what
        self._free = weakref.finalize(self, native.destroy)
        self._free.atexit = False  # other threads may still use it; the system frees all

    def check_open(self) -> None:
        """Raise when it was closed, by itself or with its manager."""
        if not self._free.alive:
            raise TextureAccessError(f"the {self.what} was closed; make another one")

    def close(self) -> None:
        """Free it; the second time does nothing."""
        self._free()


class _Counting(_Owned):
    """A timeline semaphore or an event."""

    def counter(self) -> NativeCounter[Any]:
        """Return the backend's counter, or raise when this is none."""
        raise NotImplementedError

    @property
    def value(self) -> int:
        return self.counter().value

    def signal(self, value: int) -> None:
        counter = self.counter()
        number = whole_number(
            value, f"the value of a {self.what}", maximum=MAX_VALUE, error=ValidationError
        )
        if number <= (reached := counter.value):
            raise ValidationError(
                f"the {self.what} is at {reached} already and cannot go to {number}; "
                "signal a larger value"
            )
        counter.signal(number)

    def wait(self, value: int, timeout_ns: int) -> None:
        counter = self.counter()
        number = whole_number(
            value, f"the value of a {self.what}", maximum=MAX_VALUE, error=ValidationError
        )
        if not counter.wait(number, whole_number(timeout_ns, "timeout_ns")):
            raise WaitTimeoutError(
                f"the {self.what} did not reach {number} within {timeout_ns / 1e9:g} s, it is at "
                f"{counter.value}; see that the other side signals it, or wait longer"
            )


class ManagedSemaphore(_Counting, SharedSemaphore):
    """A semaphore of a `ShareManager`."""

    def __init__(
        self,
        manager: TextureShareManager,
        native: NativeSemaphore | NativeCounter[SemaphoreHandle],
    ) -> None:
        self.native = native
        kind = "timeline" if isinstance(native, NativeCounter) else "binary"
        super().__init__(manager, f"{kind} semaphore", native)

    @property
    def kind(self) -> SemaphoreKind:
        return "timeline" if isinstance(self.native, NativeCounter) else "binary"

    @property
    def native_handle(self) -> Any:
        self.check_open()
        return self.native.native_handle

    def counter(self) -> NativeCounter[Any]:
        self.check_open()
        if not isinstance(self.native, NativeCounter):
            raise OperationNotSupportedError(
                "a binary semaphore has no value and only the GPU waits for it; "
                "give it to access(), or create a timeline"
            )
        return self.native


class ManagedFence(_Owned, SharedFence):
    """A fence of a `ShareManager`."""

    def __init__(self, manager: TextureShareManager, native: NativeFence) -> None:
        self.native = native
        super().__init__(manager, "fence", native)

    @property
    def native_handle(self) -> Any:
        self.check_open()
        return self.native.native_handle

    @property
    def is_signaled(self) -> bool:
        self.check_open()
        return self.native.is_signaled

    def wait(self, timeout_ns: int) -> None:
        self.check_open()
        if not self.native.wait(whole_number(timeout_ns, "timeout_ns")):
            raise WaitTimeoutError(
                f"the fence was not signalled within {timeout_ns / 1e9:g} s; "
                "see that an access signals it, or wait longer"
            )

    def reset(self) -> None:
        self.check_open()
        self.native.reset()


class ManagedEvent(_Counting, SharedEvent):
    """An event of a `ShareManager`."""

    def __init__(self, manager: TextureShareManager, native: NativeCounter[Any]) -> None:
        self.native = native
        super().__init__(manager, "event", native)

    @property
    def native_handle(self) -> Any:
        self.check_open()
        return self.native.native_handle

    def counter(self) -> NativeCounter[Any]:
        self.check_open()
        return self.native


def to_points(
    manager: TextureShareManager, points: Sequence[SyncPoint], role: str
) -> list[NativePoint]:
    """Return the backend's objects for what an access waits for or signals, each of them once."""
    found: dict[int, NativePoint] = {}
    for point in items_of(points, f"access({role}=…)"):
        native = _to_point(manager, point, role)
        if id(native[0]) in found:  # which a GPU does not take
            raise ValidationError(
                f"access({role}=…) has {point!r} or another value of it twice; pass it once"
            )
        found[id(native[0])] = native
    return list(found.values())


def _to_point(manager: TextureShareManager, point: object, role: str) -> NativePoint:
    match point:
        case (ManagedSemaphore(kind="timeline") | ManagedEvent() as counting, object() as value):
            _check(manager, counting)
            number = whole_number(
                value, f"the value of a {counting.what}", maximum=MAX_VALUE, error=ValidationError
            )
            if role == "signal" and number <= (reached := counting.counter().value):
                raise ValidationError(
                    f"the {counting.what} is at {reached} already and cannot go to {number}; "
                    "signal a larger value"
                )
            return counting.counter(), number
        case ManagedSemaphore(native=NativeSemaphore() as native):
            _check(manager, point)
            return native, None
        case ManagedFence() if role == "signal":
            _check(manager, point)
            return point.native, None
        case ManagedFence():
            raise ValidationError(
                "the GPU cannot wait for a fence; call its wait(), or use a semaphore"
            )
        case _:
            raise ValidationError(
                f"access({role}=…) takes binary semaphores, (timeline, value) pairs"
                f"{' and fences' if role == 'signal' else ''}, not {point!r}"
            )


def _check(manager: TextureShareManager, thing: _Owned) -> None:
    thing.check_open()
    if thing.manager is not manager:
        raise OperationNotSupportedError(
            f"the {thing.what} belongs to another manager; export it there and import it here"
        )
