"""The null device: all of pers but the GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from pers.backends.null.clock import NullClock
from pers.backends.null.faults import NullFaults
from pers.backends.null.limits import choose_features, choose_limits
from pers.backends.null.native import NullNative
from pers.backends.null.tape import NullCounters
from pers.graphics.device import RenderDevice

__all__ = ["NullDevice"]


class NullDevice(RenderDevice):
    """A device without a GPU: deterministic, with virtual time and faults on demand.

    Copies, writes and clears are done, with NumPy, when they are due on the clock: work that is
    in flight sees memory as it is then, not as it was at the submit. Shaders are not run: draws
    and dispatches are checked as WebGPU does and counted, and leave their targets as they are
    (``info.executes_shaders`` is False). WGSL is not compiled either; a shader module only has
    to have functions, and pipelines have to name them. Query results are zero.

    Thread-safe, like every device::

        device = NullDevice(clock=NullClock(auto=False, submission_latency=1_000_000))
        submission = device.queue.submit([encoder.finish()])
        assert not submission.is_done
        device.clock.advance(1_000_000)
        assert submission.is_done
    """

    def __init__(
        self,
        *,
        clock: NullClock | None = None,
        faults: NullFaults | None = None,
        features: Sequence[str] = (),
        limits: Mapping[str, int] | None = None,
    ) -> None:
        """Open a null device.

        Args:
            clock: When work ends; None makes an automatic clock without latencies.
            faults: What goes wrong; None makes one that lets everything go right.
            features: Any of ``mappable-primary-buffers`` and
                ``timestamp-query``.
            limits: Limits other than WebGPU's defaults, by their names in `DeviceLimits`.

        Raises:
            BackendUnavailableError: There is no such feature or limit, or a limit is above 2**40
                or no whole number.
        """
        self._null = NullNative(
            clock or NullClock(),
            faults or NullFaults(),
            choose_features(features),
            choose_limits(limits or {}),
        )
        super().__init__(self._null)

    @property
    def clock(self) -> NullClock:
        """The clock that says when work ends."""
        return self._null.clock

    @property
    def faults(self) -> NullFaults:
        """What goes wrong."""
        return self._null.faults

    @property
    def counters(self) -> NullCounters:
        """What was done so far; a copy."""
        return self._null.counters

    def live_objects(self) -> Counter[str]:
        """Count the native objects that are alive, by class: ``{"NullBuffer": 2, ...}``."""
        return self._null.live_objects()
