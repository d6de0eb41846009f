"""The conformance kit on the backends of pers, the way a backend's author uses it."""

from __future__ import annotations

from pathlib import Path

import pytest

import pers
from pers.backends.null import NullDevice
from pers.backends.webgpu import WebGPUDevice
from pers.testing import Case, all_cases, conformance_suite, run_conformance

TestNull = conformance_suite(NullDevice)
TestWebGPU = conformance_suite(WebGPUDevice.open)


def test_a_report_counts_what_came_of_the_cases() -> None:
    async def fails(_: object) -> None:
        raise AssertionError("as it should")

    cases = [all_cases()[0][0], Case("pers/fails", fails)]
    seen: list[str] = []
    report = run_conformance(
        lambda: pers.open_device("null"), cases=cases, progress=lambda r: seen.append(r.name)
    )
    assert report.device.backend == "null"
    assert (report.count("passed"), report.count("failed"), report.passed) == (1, 1, False)
    assert "as it should" in report.results[1].detail
    assert seen == [case.name for case in cases]


@pytest.mark.parametrize("what", ["validation/buffer/mapping", "operation/", "dawn/", "pers/"])
def test_there_are_cases_of_every_suite(what: str) -> None:
    names = [case.name for case in all_cases()[0]]
    assert len(names) == len(set(names))
    assert sum(name.startswith(what) for name in names) >= 8


def test_what_means_nothing_here_has_a_reason() -> None:
    for case in all_cases()[1]:
        assert len(case.reason) > 10


def test_the_documented_results_are_of_these_cases() -> None:
    page = (Path(__file__).parents[1] / "docs" / "conformance.md").read_text()
    cases, not_applicable = all_cases()
    assert f"All {len(cases)} cases" in page
    rows = [
        line.split("|") for line in page.splitlines() if line.startswith("| ") and "Vulkan" in line
    ]
    assert len(rows) == 3
    assert all(int(row[3]) + int(row[4]) + int(row[5]) == len(cases) for row in rows)
    for case in not_applicable:
        assert case.name.split(":")[0] in page
