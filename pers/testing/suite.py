"""The kit as a pytest class."""

from __future__ import annotations

from typing import Literal

from pers.testing.bench import OpenDevice
from pers.testing.case import Case, all_cases
from pers.testing.explore import explore
from pers.testing.report import run_case

STEPS = 2000
"""A few seconds of the property test."""


def conformance_suite(open_device: OpenDevice) -> type:
    """Make a test class: every case, and a short property test, on asyncio and on trio.

    Args:
        open_device: Makes a new device (a device class will do); called for each case.

    Returns:
        A class for pytest to find: bind it to a name that starts with ``Test``.
    """
    import pytest

    cases, _ = all_cases()

    @pytest.mark.parametrize("event_loop", ["asyncio", "trio"])
    class TestConformance:
        @pytest.mark.parametrize("case", cases, ids=lambda case: case.name)
        def test_case(self, case: Case, event_loop: str) -> None:
            result = run_case(case, open_device, event_loop)
            if result.outcome == "skipped":
                pytest.skip(result.detail)
            assert result.outcome == "passed", result.detail

        def test_any_calls_in_any_order(self, event_loop: Literal["asyncio", "trio"]) -> None:
            assert explore(open_device, steps=STEPS, event_loop=event_loop).steps > STEPS / 2

    return TestConformance
