"""Virtual time: events that happen in order, when time reaches them."""

from __future__ import annotations

import heapq
import itertools
import threading
from abc import ABC, abstractmethod
from typing import Any, TypeAlias

from pers._completion import Completion

Moment: TypeAlias = tuple[int, bool]
"""Nanoseconds, and whether that moment is only reached by an explicit advance."""


class Event(ABC):
    """Something to come."""

    owner: object
    """Whose event it is; see `Timeline.remove`."""

    @abstractmethod
    def happen(self) -> None:
        """Do what is to be done. Called under the timeline's lock, so it calls nobody back."""

    @abstractmethod
    def tell(self) -> None:
        """Tell who waits that it has happened. Called without the lock."""


class Timeline:
    """Events in order, told of by one thread at a time. Thread-safe.

    Events of the same moment happen in the order in which they were scheduled. While one thread
    tells of events, no other does: that keeps their order for everybody who listens.
    """

    def __init__(self) -> None:
        # Re-entrant, because garbage collection can run any code inside a critical section.
        self.lock = threading.RLock()
        """Held while events happen; devices keep their small state under it, too."""
        self._idle = threading.Condition(self.lock)
        self._events: list[tuple[Moment, int, Event]] = []
        self._serials = itertools.count()
        self._now = 0
        self._target: Moment = (0, False)
        self._runner: int | None = None
        self._wanted: list[Completion[Any]] = []

    @property
    def now(self) -> int:
        """The current time (nanoseconds)."""
        return self._now

    def schedule(self, moment: Moment, event: Event) -> None:
        """Add an event."""
        with self.lock:
            heapq.heappush(self._events, (moment, next(self._serials), event))

    def remove(self, owner: object) -> list[Event]:
        """Take out and return, in order, what is still to come for `owner`."""
        with self.lock:
            removed = sorted(entry for entry in self._events if entry[2].owner is owner)
            self._events = [entry for entry in self._events if entry[2].owner is not owner]
            heapq.heapify(self._events)
        return [event for _, _, event in removed]

    def run_due(self) -> None:
        """Tell of what is due now; leaves that to the thread or the call that does it already."""
        if self._runner is None:
            self._run()

    def run_until_done(self, completion: Completion[Any]) -> None:
        """Move time forward, event by event, until `completion` is done or nothing is to come."""
        with self.lock:
            self._wanted.append(completion)
        self._run()

    def advance(self, nanoseconds: int) -> None:
        """Move time forward and return when everything due was told of."""
        with self.lock:
            start = max(self._now, self._target[0])
            self._target = (start + nanoseconds, True)
        while not self._run():
            with self._idle:
                self._idle.wait_for(lambda: self._runner is None)

    def _run(self) -> bool:
        """Tell of events until nothing is left to do; False when another thread does that."""
        me = threading.get_ident()
        with self.lock:
            if self._runner not in (None, me):
                return False
            outer, self._runner = self._runner, me
        try:
            while True:
                with self.lock:
                    event = self._take()
                    if event is None:
                        self._stop(outer)
                        return True
                event.tell()
                del event  # what it holds must not live on while the next one happens
        except BaseException:
            self._stop(outer)
            raise

    def _stop(self, outer: int | None) -> None:
        with self.lock:
            self._runner = outer
            self._idle.notify_all()

    def _take(self) -> Event | None:
        """Let the next event happen and return it, or None when time need not move further."""
        self._wanted = [completion for completion in self._wanted if not completion.done]
        limit = max(self._target, (self._now, False))
        if self._events and (self._wanted or self._events[0][0] <= limit):
            moment, _, event = heapq.heappop(self._events)
            self._now = max(self._now, moment[0])
            event.happen()
            return event
        # The target is reached; what is scheduled from now on waits for the next advance.
        self._now = limit[0]
        self._target = (self._now, False)
        return None
