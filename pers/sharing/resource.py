"""What a shared texture and a shared buffer have in common: a manager, turns, and accesses."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any, TypeVar

from pers._checks import whole_number
from pers.errors import TextureAccessError, WaitTimeoutError
from pers.sharing.control import ControlPage
from pers.sharing.interfaces import SyncPoint, TextureShareManager
from pers.sharing.native import NativePoint, NativeResource
from pers.sharing.turns import Turns

__all__ = ["ManagedAccess", "ManagedResource", "ToPoints"]

ToPoints = Callable[[Sequence[SyncPoint], str], list[NativePoint]]


class ManagedResource:
    """A resource of a `ShareManager`, which it keeps alive.

    Args:
        manager: Who made it.
        what: Names it in messages.
        native: The backend's resource.
        control: Its control page.
        to_points: Turns what an access waits for or signals into the backend's objects.
    """

    def __init__(
        self,
        manager: TextureShareManager,
        what: str,
        native: NativeResource,
        control: ControlPage,
        to_points: ToPoints,
    ) -> None:
        self.manager = manager
        self.turns = Turns(what, native, control)
        self._resource = native
        self._to_points = to_points

    @property
    def native_handle(self) -> Any:
        with self.turns.lock:
            self.turns.check_open()
            return self._resource.native_handle

    @property
    def is_valid(self) -> bool:
        return self.turns.is_open

    @property
    def control(self) -> ControlPage:
        """The numbers that all sides see."""
        self.turns.check_open()
        return self.turns.control

    def take_turn(
        self,
        view: Access,
        wait: Sequence[SyncPoint],
        signal: Sequence[SyncPoint],
        timeout_ns: int,
    ) -> AbstractContextManager[Access]:
        """Have the resource for the length of a ``with`` block, and `view` be good in it."""
        return _Once(self._turn(view, wait, signal, timeout_ns), self.turns.what)

    @contextmanager
    def _turn(
        self,
        view: Access,
        wait: Sequence[SyncPoint],
        signal: Sequence[SyncPoint],
        timeout_ns: int,
    ) -> Generator[Access]:
        waits, signals = self._to_points(wait, "wait"), self._to_points(signal, "signal")
        timeout_ns = whole_number(timeout_ns, "timeout_ns")
        self.turns.begin(waits, write=view.writable, timeout_ns=timeout_ns)
        completed = False
        try:
            yield view
            completed = True
        finally:
            view.is_over = True
            # Who leaves because a wait was given up does not wait once more.
            self.turns.end(signals, wait=completed or not view.gave_up)

    def close(self) -> None:
        self.turns.close()


class ManagedAccess:
    """A resource within one ``with`` block.

    Args:
        resource: The resource.
        writable: Whether it was opened for writing.
    """

    def __init__(self, resource: ManagedResource, *, writable: bool) -> None:
        self.turns = resource.turns
        self.is_over = False
        self.gave_up = False
        """Whether its last call was given up while it waited for the GPU."""
        self._whole = resource
        self._writable = writable

    @property
    def writable(self) -> bool:
        return self._writable

    @property
    def native_handle(self) -> Any:
        self.check()
        return self._whole.native_handle

    def check(self) -> None:
        """Raise after the block, and when the resource was closed."""
        self.turns.check_open()
        if self.is_over:
            raise TextureAccessError(
                f"{self.turns.what} is used after its access; open another access()"
            )

    @contextmanager
    def calling(self) -> Generator[None]:
        """Call the backend, one thread at a time."""
        with self.turns.lock:
            self.check()
            try:
                yield
            except (WaitTimeoutError, KeyboardInterrupt):
                self.gave_up = True
                raise
            self.gave_up = False

    def check_writable(self) -> None:
        """Raise when it was opened for reading."""
        if not self._writable:
            raise TextureAccessError(
                f"{self.turns.what} is open for reading; use access(write=True)"
            )


Access = TypeVar("Access", bound=ManagedAccess)


class _Once(AbstractContextManager[Access]):
    """A turn, for one ``with`` block."""

    def __init__(self, turn: AbstractContextManager[Access], what: str) -> None:
        self._turn = turn
        self._what = what
        self._is_begun = False

    def __enter__(self) -> Access:
        if self._is_begun:
            raise TextureAccessError(
                f"{self._what}: an access is for one with block; call access() again"
            )
        self._is_begun = True
        return self._turn.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        return self._turn.__exit__(kind, error, trace)
