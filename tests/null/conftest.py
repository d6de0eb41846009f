"""Devices for the tests of the null backend."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pers.backends.null import NullClock, NullDevice


@pytest.fixture
def device() -> Iterator[NullDevice]:
    """A device on which everything is done as soon as anybody looks."""
    with NullDevice() as device:
        yield device


@pytest.fixture
def manual() -> Iterator[NullDevice]:
    """A device whose clock stands still: submissions take 100 ns, maps 10 ns more."""
    clock = NullClock(auto=False, submission_latency=100, map_latency=10)
    with NullDevice(clock=clock) as device:
        yield device
