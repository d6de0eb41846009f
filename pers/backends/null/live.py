"""The count of what lives on a null device."""

from __future__ import annotations

import itertools
from collections import Counter


class LiveObjects:
    """Which native objects are alive, and how many bytes they take.

    Without a lock: garbage collection may release an object at any point of any thread, so every
    change here is one dictionary operation.
    """

    def __init__(self) -> None:
        self._serials = itertools.count()
        self._alive: dict[int, tuple[str, int]] = {}

    def add(self, kind: str, nbytes: int) -> int:
        """Count an object; return its number."""
        serial = next(self._serials)
        self._alive[serial] = (kind, nbytes)
        return serial

    def remove(self, serial: int) -> None:
        """Count an object no longer, if that has not happened yet."""
        self._alive.pop(serial, None)

    @property
    def nbytes(self) -> int:
        """Bytes that all objects take."""
        return sum(nbytes for _, nbytes in list(self._alive.values()))

    def count(self) -> Counter[str]:
        """How many objects of each class are alive."""
        return Counter(kind for kind, _ in list(self._alive.values()))


class NullObject:
    """An object that is counted until it is released: destroyed or garbage collected."""

    _serial = -1  # what `__del__` sees when construction fails

    def __init__(self, live: LiveObjects, nbytes: int = 0) -> None:
        self._live = live
        self._serial = live.add(type(self).__name__, nbytes)

    def release(self) -> None:
        """Stop counting. Any thread, any number of times."""
        if self._serial >= 0:
            self._live.remove(self._serial)

    def __del__(self) -> None:
        self.release()
