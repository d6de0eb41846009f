"""Whether the interpreter is on its way out.

Then nothing is freed any more: daemon threads may be in the driver with it, and the system frees
all. To free it under them ends the process with a crash.
"""

from __future__ import annotations

import atexit
import functools

__all__ = ["is_leaving", "watch"]

_left: list[bool] = []


def is_leaving() -> bool:
    """Whether functions registered with `atexit` are run, or have been."""
    return bool(_left)


@functools.cache
def watch() -> None:
    """Find out; called when a finalizer has been made, so that this runs before finalizers do."""
    atexit.register(_left.append, True)
