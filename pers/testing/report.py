"""Running all cases against a device, and what came of it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from typing import Literal

import anyio
import attrs

from pers.graphics import DeviceInfo
from pers.testing.bench import Bench, OpenDevice
from pers.testing.case import Case, NotApplicable, Skip, all_cases

Outcome = Literal["passed", "failed", "skipped"]


@attrs.frozen
class CaseResult:
    """What came of one case.

    Attributes:
        name: The case.
        outcome: ``passed``, ``failed`` or ``skipped``.
        detail: The traceback of a failure, the reason of a skip, or nothing.
    """

    name: str
    outcome: Outcome
    detail: str = ""


@attrs.frozen
class ConformanceReport:
    """What came of all cases.

    Attributes:
        device: What was tested.
        results: One for each case.
        not_applicable: The cases of the suites that mean nothing here.
    """

    device: DeviceInfo
    results: tuple[CaseResult, ...]
    not_applicable: tuple[NotApplicable, ...]

    def count(self, outcome: Outcome) -> int:
        """Count the cases with an outcome."""
        return sum(result.outcome == outcome for result in self.results)

    @property
    def passed(self) -> bool:
        """Whether no case failed (and some passed)."""
        return self.count("passed") > 0 and self.count("failed") == 0


CASE_LIMIT = 60
"""Seconds after which a case that waits for something has failed."""


def run_case(case: Case, open_device: OpenDevice, event_loop: str = "asyncio") -> CaseResult:
    """Run one case on a new device.

    Args:
        case: The case.
        open_device: Makes the device.
        event_loop: ``asyncio`` or ``trio``.
    """

    async def run() -> None:
        with Bench(open_device) as bench:
            with anyio.fail_after(CASE_LIMIT):
                await case.run(bench)

    try:
        anyio.run(run, backend=event_loop)
    except Skip as skip:
        return CaseResult(case.name, "skipped", str(skip))
    except Exception:
        return CaseResult(case.name, "failed", traceback.format_exc())
    return CaseResult(case.name, "passed")


def run_conformance(
    open_device: OpenDevice,
    *,
    cases: Sequence[Case] | None = None,
    event_loop: str = "asyncio",
    progress: Callable[[CaseResult], None] = lambda result: None,
) -> ConformanceReport:
    """Hold a backend against the contract.

    Args:
        open_device: Makes a new device; called for each case.
        cases: Which cases to run; None runs all.
        event_loop: ``asyncio`` or ``trio``.
        progress: Called after each case.
    """
    every, not_applicable = all_cases()
    results: list[CaseResult] = []
    for case in every if cases is None else cases:
        results.append(run_case(case, open_device, event_loop))
        progress(results[-1])
    with open_device() as device:
        info = device.info
    return ConformanceReport(info, tuple(results), tuple(not_applicable))
