"""What a forked child must not keep: the kernel sees a connection or a lock as alive while it does.

Without this, a publisher that dies is not missed as long as a child of its own lives, which
``multiprocessing`` may well have forked for something else.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol

__all__ = ["abandon_in_children", "no_forks"]

no_forks = threading.RLock()
"""Held by who opens a descriptor, until `abandon_in_children` knows it; forks wait meanwhile.

Never for something that may block.
"""


class Abandonable(Protocol):
    """Something that holds file descriptors."""

    def abandon(self) -> None:
        """Close the descriptors of this process, and nothing beyond it."""


_all: weakref.WeakSet[Abandonable] = weakref.WeakSet()


def abandon_in_children(thing: Abandonable) -> None:
    """Have `thing` abandoned in every child that is forked from now on."""
    _all.add(thing)


def _abandon_all() -> None:
    no_forks.release()
    for thing in list(_all):
        thing.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=no_forks.acquire, after_in_parent=no_forks.release, after_in_child=_abandon_all
    )
