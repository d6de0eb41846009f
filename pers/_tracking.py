"""Who uses what: from the recording of commands to the end of their execution.

Encoders put what their commands touch into a `Recording`. At submit the queue asks every touched
resource whether the GPU may have it, and stamps its `UsageTag` with the submission; pools and
rings look at the tag to learn whether the memory is free again.
"""

from __future__ import annotations

import itertools
import threading
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Protocol

from pers.errors import BufferStateError

if TYPE_CHECKING:
    from pers.graphics.submission import Submission


class UsageTag:
    """The use of one piece of GPU memory."""

    __slots__ = ("last_submission", "recordings")

    epoch: ClassVar[object] = object()
    """Another object whenever some resource gets another tag; see `new_epoch`."""

    def __init__(self) -> None:
        self.last_submission: Submission | None = None
        """The latest submission that uses the memory."""
        self.recordings: dict[int, threading.Thread | None] = {}
        """The recordings that use the memory and were not submitted yet, and whose they are."""

    @staticmethod
    def new_epoch() -> None:
        """Have every recording look at the tags of its groups again."""
        UsageTag.epoch = object()

    @property
    def is_recorded(self) -> bool:
        """Whether commands that wait for their submit use the memory."""
        return bool(self.recordings)

    @property
    def is_in_flight(self) -> bool:
        """Whether the GPU has not finished with the memory."""
        return self.last_submission is not None and not self.last_submission.is_done

    @property
    def is_free(self) -> bool:
        """Whether nothing recorded or submitted uses the memory."""
        return not self.is_recorded and not self.is_in_flight

    @property
    def is_known_free(self) -> bool:
        """The same, from what is known without asking the GPU: legal while holding any lock."""
        last = self.last_submission
        return not self.is_recorded and (last is None or last.has_ended)


_new_lock = type(threading.RLock())  # without the function that chooses the type each time


class Guard:
    """Notices two threads inside one resource; re-entrant on one thread."""

    __slots__ = ("_name", "lock")

    def __init__(self, name: str) -> None:
        self.lock = _new_lock()
        """What `acquire` takes and is released to leave. Where `acquire` would take too long,
        take it without blocking."""
        self._name = name

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.lock.release()

    def acquire(self) -> None:
        """Enter, or raise `BufferStateError` when another thread is inside."""
        if not self.lock.acquire(False):
            self.refuse()

    def refuse(self) -> None:
        """Raise for a second thread."""
        raise BufferStateError(
            f"{self._name} is being used by another thread; it belongs to one thread at a "
            "time, so hand it over only between calls"
        )


class Trackable(Protocol):
    """A resource whose use has to be known: a buffer, a texture, a query set."""

    guard: Guard

    @property
    def usage_tag(self) -> UsageTag:
        """The use of its memory."""
        ...

    @property
    def is_usable(self) -> bool:
        """Whether the GPU may be given work with the resource now."""
        ...

    def check_usable(self, call: str) -> None:
        """Raise unless `is_usable`."""
        ...


class Closable(Protocol):
    """What has to be closed before commands that use it may be submitted."""

    def close(self) -> None:
        """Close it, if it is open."""
        ...


class Named(Protocol):
    """Something that messages have a name for."""

    @property
    def name(self) -> str:
        """The name."""
        ...


class TrackableGroup(Protocol):
    """Resources that are always used together: a bind group."""

    resources: tuple[Trackable, ...]


class Recording:
    """What the commands of one encoder use. A resource is noted once, however often it is used."""

    __slots__ = ("_open", "_serial", "_used", "_waits", "groups", "thread")

    _serials = itertools.count()

    def __init__(self, *, waits_for_submit: bool = True) -> None:
        """Start an empty recording.

        Args:
            waits_for_submit: False for a render bundle, which is never submitted itself.
        """
        self._waits = waits_for_submit
        self._serial = next(self._serials)
        self.thread: threading.Thread | None = threading.current_thread()
        """Who started it and is likely to submit it; None when any thread may."""
        self._open: list[Closable] = []
        self._used: dict[UsageTag, Trackable] = {}
        self.groups: dict[TrackableGroup, object] = {}
        """The groups noted, each with the epoch of the tags when that was."""

    def use(self, resource: Trackable) -> None:
        """Note that a command uses `resource`."""
        tag = resource.usage_tag
        if tag not in self._used:
            self._used[tag] = resource
            if self._waits:
                tag.recordings[self._serial] = self.thread

    def use_group(self, group: TrackableGroup) -> None:
        """Note that a command uses all of `group`.

        Needless while ``groups[group] is UsageTag.epoch``: a draw should not walk the resources
        that the draw before it used.
        """
        self.groups[group] = UsageTag.epoch
        for resource in group.resources:
            self.use(resource)

    def uses(self, resource: Trackable) -> bool:
        """Whether a command uses `resource`."""
        return resource.usage_tag in self._used

    def close_before_submit(self, closable: Closable) -> None:
        """Have staging memory closed (unmapped) before the GPU is to read it."""
        if closable not in self._open:
            self._open.append(closable)

    def use_all_of(self, other: Recording) -> None:
        """Note that a command uses everything that `other` does (a render bundle, say)."""
        for resource in other._used.values():
            self.use(resource)

    def acquire(self, owner: Named, held: list[Guard]) -> None:
        """Keep other threads away from everything recorded, and check that it may be submitted.

        Args:
            owner: What is to be submitted, for the message when that may not be.
            held: Gets the guards entered; release them when the submit is over.
        """
        while self._open:
            self._open.pop().close()
        for resource in self._used.values():
            guard = resource.guard
            if not guard.lock.acquire(False):
                guard.refuse()
            held.append(guard)
            if not resource.is_usable:
                resource.check_usable(f"submit {owner.name}")

    def submitted(self, submission: Submission) -> None:
        """Note that the commands were handed to the GPU."""
        for tag in self._used:
            tag.last_submission = submission
            tag.recordings.pop(self._serial, None)
        self._used.clear()
        self.groups.clear()

    def __del__(self) -> None:
        for tag in self._used:
            tag.recordings.pop(self._serial, None)
