"""Who uses what: from the recording of commands to the end of their execution.

Encoders put what their commands touch into a `Recording`. At submit the queue asks every touched
resource whether the GPU may have it, and stamps its `UsageTag` with the submission; pools and
rings look at the tag to learn whether the memory is free again.
"""

from __future__ import annotations

import threading
import weakref
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from pers.errors import BufferStateError

if TYPE_CHECKING:
    from pers.graphics.submission import Submission


class UsageTag:
    """The use of one piece of GPU memory."""

    __slots__ = ("__weakref__", "last_submission", "recordings")

    def __init__(self) -> None:
        self.last_submission: Submission | None = None
        """The latest submission that uses the memory."""
        self.recordings: weakref.WeakSet[Recording] = weakref.WeakSet()
        """Commands that use the memory and were not submitted yet."""

    @property
    def is_recorded(self) -> bool:
        """Whether commands that wait for their submit use the memory."""
        return len(self.recordings) > 0

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


class Guard:
    """Notices two threads inside one resource; re-entrant on one thread."""

    __slots__ = ("_lock", "_name")

    def __init__(self, name: str) -> None:
        self._lock = threading.RLock()
        self._name = name

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()

    def acquire(self) -> None:
        """Enter, or raise `BufferStateError` when another thread is inside."""
        if not self._lock.acquire(blocking=False):
            raise BufferStateError(
                f"{self._name} is being used by another thread; it belongs to one thread at a "
                "time, so hand it over only between calls"
            )

    def release(self) -> None:
        """Leave."""
        self._lock.release()


class Trackable(Protocol):
    """A resource whose use has to be known: a buffer, a texture, a query set."""

    usage_tag: UsageTag
    guard: Guard

    def check_usable(self, call: str) -> None:
        """Raise unless the GPU may be given work with the resource now."""
        ...


class Closable(Protocol):
    """What has to be closed before commands that use it may be submitted."""

    def close(self) -> None:
        """Close it, if it is open."""
        ...


class Recording:
    """What the commands of one encoder use."""

    __slots__ = ("__weakref__", "_open", "_resources", "_tags", "_waits", "thread")

    def __init__(self, *, waits_for_submit: bool = True) -> None:
        """Start an empty recording.

        Args:
            waits_for_submit: False for a render bundle, which is never submitted itself.
        """
        self._waits = waits_for_submit
        self.thread: threading.Thread | None = threading.current_thread()
        """Who started it and is likely to submit it; None when any thread may."""
        self._open: list[Closable] = []
        self._resources: set[Trackable] = set()
        self._tags: set[UsageTag] = set()

    def use(self, resource: Trackable) -> None:
        """Note that a command uses `resource`."""
        tag = resource.usage_tag
        if tag not in self._tags:
            self._tags.add(tag)
            self._resources.add(resource)
            if self._waits:
                tag.recordings.add(self)

    def uses(self, resource: Trackable) -> bool:
        """Whether a command uses `resource`."""
        return resource.usage_tag in self._tags

    def close_before_submit(self, closable: Closable) -> None:
        """Have staging memory closed (unmapped) before the GPU is to read it."""
        if closable not in self._open:
            self._open.append(closable)

    def use_all_of(self, other: Recording) -> None:
        """Note that a command uses everything that `other` does (a render bundle, say)."""
        for resource in other._resources:
            self.use(resource)

    def acquire(self, call: str, held: list[Guard]) -> None:
        """Keep other threads away from everything recorded, and check that it may be submitted.

        Args:
            call: For the message when something may not.
            held: Gets the guards entered; release them when the submit is over.
        """
        while self._open:
            self._open.pop().close()
        for resource in self._resources:
            resource.guard.acquire()
            held.append(resource.guard)
            resource.check_usable(call)

    def submitted(self, submission: Submission) -> None:
        """Note that the commands were handed to the GPU."""
        for tag in self._tags:
            tag.last_submission = submission
            tag.recordings.discard(self)
        self._resources.clear()
        self._tags.clear()
