"""A device without a GPU: deterministic, with virtual time and faults on demand."""

from pers.backends.null.clock import NullClock
from pers.backends.null.device import NullDevice
from pers.backends.null.faults import NullFaults
from pers.backends.null.tape import NullCounters

__all__ = ["NullClock", "NullCounters", "NullDevice", "NullFaults"]
