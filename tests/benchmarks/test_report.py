"""The report: its JSON, its rows, and how it is shown."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks import screen
from benchmarks.core import Point, Scale, Series
from benchmarks.report import Report, show
from benchmarks.run import BENCHMARKS, choose
from benchmarks.targets import judge
from tests.benchmarks.support import series

REPORT_KEYS = {"benchmarks", "machine", "results", "scale", "schema", "targets"}
MACHINE_KEYS = {
    "cores", "cpu", "date", "device", "memory_bytes", "packages", "peers", "python", "system",
}  # fmt: skip
RESULT_KEYS = {
    "benchmark", "extra", "library", "point", "problem", "road", "status", "summary", "x",
}  # fmt: skip
SUMMARY_KEYS = {"count", "least", "median", "most", "p10", "p25", "p75", "p90"}
TARGET_KEYS = {
    "at_least", "benchmark", "detail", "measured", "moonshot", "unit", "verdict", "wanted", "what",
}  # fmt: skip


def machine() -> dict[str, Any]:
    device = {"name": "GPU", "driver": "1.0", "api": "Vulkan", "kind": "cpu", "features": []}
    return {
        "system": "Linux", "python": "3.11", "cpu": "CPU", "cores": 2, "memory_bytes": 1,
        "device": device, "packages": {"pers": "0.1", "slangpy": None}, "date": "2025-01-01",
        "peers": {"moderngl": "OpenGL", "slangpy": "not available: not installed"},
    }  # fmt: skip


def report() -> Report:
    missing = Series("upload", Point("64 MiB", 1 << 26), "slangpy", "", "not available")
    missing.problem = "not installed"
    wrong = Series("upload", Point("64 MiB", 1 << 26), "moderngl", "buffer.write", "wrong")
    wrong.problem = "all of it is zero"
    found = [
        series("upload", "64 MiB", "wgpu-py", "queue.write_buffer", [6.0, 7.0, 8.0]),
        series("upload", "64 MiB", "pers", "belt.upload", [1.0, 1.0, 1.0]),
        missing,
        wrong,
    ]
    for each in found:
        each.point = Point("64 MiB", 1 << 26)
    return Report(machine(), Scale(), choose(["upload"]), found, judge(found, software=True))


def test_json_has_what_it_always_has() -> None:
    data = json.loads(json.dumps(report().to_json(), allow_nan=False))
    assert set(data) == REPORT_KEYS
    assert data["schema"] == 1
    assert set(data["machine"]) == MACHINE_KEYS
    assert data["benchmarks"]["upload"]["axis"] == "bytes"
    assert all(set(result) == RESULT_KEYS for result in data["results"])
    measured = [result for result in data["results"] if result["status"] == "measured"]
    assert [set(result["summary"]) for result in measured] == [SUMMARY_KEYS] * 2
    others = [result for result in data["results"] if result["status"] != "measured"]
    assert [(result["summary"], bool(result["problem"])) for result in others] == [(None, True)] * 2
    assert data["targets"]
    assert all(set(target) == TARGET_KEYS for target in data["targets"])


def test_rows_are_sorted_and_leave_nobody_out() -> None:
    (upload,) = report().benchmarks
    rows = list(report().rows(upload))
    assert [row.name for row in rows] == [
        "pers: belt.upload", "wgpu-py: queue.write_buffer", "moderngl: buffer.write", "slangpy",
    ]  # fmt: skip
    assert rows[0].against == "7.00x (6.50 to 7.50)"
    assert rows[0].rate == "0.0671 GB/s"
    assert rows[1].spread == "6.5 s to 7.5 s"
    assert (rows[2].result, rows[2].spread) == ("wrong", "all of it is zero")
    assert (rows[3].point, rows[3].spread) == ("everywhere", "not installed")


def test_problems_are_those_that_are_no_ones_choice() -> None:
    assert [each.library for each in report().problems] == ["moderngl"]


@pytest.mark.parametrize("has_rich", [True, False])
def test_report_is_shown(
    has_rich: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_rich:
        monkeypatch.setattr(screen, "HAS_RICH", False)
    screen.print_report(report())
    shown = capsys.readouterr().out
    for words in ("belt.upload", "7.00x", "wrong", "not installed", "targets", "≥ 6.00x", "pass"):
        assert words in shown


@pytest.mark.parametrize("has_rich", [True, False])
def test_progress_is_shown(
    has_rich: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_rich:
        monkeypatch.setattr(screen, "HAS_RICH", False)
    with screen.progress_bar() as progress:
        progress("upload 1 KiB", 0, 2)
        progress("done", 2, 2)
    captured = capsys.readouterr()
    assert "2/2" in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1.5, "s", "1.5 s"),
        (0.0123, "s", "12.3 ms"),
        (3.21e-6, "s", "3.21 µs"),
        (4e-8, "s", "40 ns"),
        (0.0, "s", "0 ns"),
        (-2e-3, "s", "-2 ms"),
        (2048, "bytes", "2 KiB"),
        (4.125, "blocks", "4.125 blocks"),
    ],
)
def test_numbers_are_shown_with_their_unit(value: float, unit: str, text: str) -> None:
    assert show(value, unit) == text


def test_names_are_unique() -> None:
    names = [benchmark.name for benchmark in BENCHMARKS]
    assert len(set(names)) == len(names)
