"""Latencies over all rounds of a contender, and what is reported of them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from benchmarks.core import Contender

__all__ = ["Latencies"]


class Latencies:
    """Collects seconds; the median and the 99th percentile go beside a contender's results."""

    def __init__(self) -> None:
        self._seconds: list[float] = []

    def add(self, contender: Contender, seconds: Iterable[float]) -> None:
        """Add those of a round, and bring the contender's `extra` up to date."""
        self._seconds += seconds
        p50, p99 = (float(each) for each in np.percentile(self._seconds, (50, 99)))
        contender.extra.update(p50=p50, p99=p99, latencies=len(self._seconds))
