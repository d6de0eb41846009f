"""Every exception that pers raises.

`PersError` is the root. Where a built-in exception says the same thing, the pers exception is
also that built-in, so ``except ValueError`` keeps working. Each message names the object by its
debug name, says what was asked for and what the state was, and ends with what to do instead.
"""

from __future__ import annotations

__all__ = [
    "BackendUnavailableError",
    "BufferRangeError",
    "BufferStateError",
    "BufferUsageError",
    "DeviceLostError",
    "MapAbortedError",
    "MappedViewsError",
    "OutOfMemoryError",
    "PerformanceWarning",
    "PersError",
    "RingFullError",
    "ValidationError",
    "WaitTimeoutError",
]


class PersError(Exception):
    """The root of all pers errors."""


class BufferStateError(PersError, RuntimeError):
    """The call is not possible in the state that the buffer is in."""


class BufferUsageError(PersError, ValueError):
    """The buffer was not created for this use, or was asked for a use that is not possible."""


class BufferRangeError(PersError, ValueError):
    """An offset or a size is misaligned, out of bounds, or no whole number of bytes."""


class MapAbortedError(PersError, RuntimeError):
    """A pending map ended without a mapping: unmapped, destroyed, or its device was lost."""


class MappedViewsError(PersError, RuntimeError):
    """Memory cannot be unmapped, because arrays that look at it are still alive.

    Attributes:
        count: How many views are alive.
    """

    def __init__(self, message: str, count: int) -> None:
        super().__init__(message)
        self.count = count


class OutOfMemoryError(PersError, MemoryError):
    """The device or the host could not give the memory that was asked for."""


class ValidationError(PersError, ValueError):
    """The device refused a call or a description as invalid."""


class DeviceLostError(PersError, RuntimeError):
    """The device was lost or closed; nothing created from it can be used any more."""


class BackendUnavailableError(PersError, RuntimeError):
    """A backend cannot run here; the message says what is missing and how to install it."""


class RingFullError(PersError, RuntimeError):
    """A ring or pool has no free space and the caller asked not to wait."""


class WaitTimeoutError(PersError, TimeoutError):
    """A blocking wait reached its time limit before the work was done."""


class PerformanceWarning(UserWarning):
    """The program is right but waits where it need not; the message says what to set."""
