"""Stored results, and what the documentation shows of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest

from benchmarks import figure_tables as tables
from benchmarks.core import Point, Series, Summary, summarize
from benchmarks.figure_plots import PLOTS, describe, draw_plots
from benchmarks.figures import unexplained
from benchmarks.report import Report
from benchmarks.stored import (
    RESULTS,
    StoredResultsError,
    digest,
    read_report,
    read_results,
    read_sharing,
)
from benchmarks.targets import judge
from tests.benchmarks.support import series
from tests.benchmarks.test_report import machine, report


def write(folder: Path, data: Any, name: str = "box") -> Path:
    path = folder / f"{name}.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def test_a_report_survives_its_file(tmp_path: Path) -> None:
    written = report()
    read = read_report(write(tmp_path, written.to_json()))
    assert read.to_json() == written.to_json()
    assert [each.summary for each in read.series] == [each.summary for each in written.series]


def test_the_stored_files_are_reports() -> None:
    for name, found in {**read_results(), **read_sharing()}.items():
        stored = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        assert {**found.to_json(), "benchmarks": stored["benchmarks"]} == stored


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "JSONDecodeError"),
        ("{}", "KeyError"),
        ("[]", "TypeError"),
        ('{"schema": 99}', "schema 99, not 1"),
        ('{"schema": 1, "machine": {}, "scale": {"slow": true}}', "TypeError"),
    ],
)
def test_what_is_no_report_is_refused(text: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "box.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(StoredResultsError, match=problem) as caught:
        read_report(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoredResultsError, match="no results in"):
        read_results(tmp_path)


def test_results_of_sharing_are_apart(tmp_path: Path) -> None:
    write(tmp_path, report().to_json(), "box")
    with pytest.raises(StoredResultsError, match="no results in"):
        read_sharing(tmp_path)
    write(tmp_path, report().to_json(), "box-sharing")
    assert list(read_results(tmp_path)) == ["box"]
    assert list(read_sharing(tmp_path)) == ["box-sharing"]


def test_a_digest_tells_files_apart(tmp_path: Path) -> None:
    one, other = write(tmp_path, 1, "one"), write(tmp_path, 2, "other")
    assert digest(one) == digest(write(tmp_path, 1, "again")) != digest(other)


def result(**changes: Any) -> Report:
    found = [
        series("upload", "64 MiB", "pers", "belt.upload", [1.0, 1.0, 1.0]),
        series("upload", "64 MiB", "wgpu-py", "queue.write_buffer", [4.0, 5.0, 6.0]),
        series("recording", "10,000", "pers", "set_bind_group + draw", [0.7]),
        series("recording", "10,000", "wgpu-py", "set_bind_group + draw", [1.0]),
    ]
    for each in found:
        each.point = attrs.evolve(each.point, x=2.0**26)
    targets = judge(found, software=True)
    return attrs.evolve(report(), series=found, targets=targets, **changes)


def test_required_rows_say_what_is_met_and_what_is_missed() -> None:
    text = tables.required({"box": result()})
    what = "upload of 64 MiB: belt.upload against queue.write_buffer"
    assert f"| {what} | ≥ 6.00× | 5.00× | 4.50× to 5.50× | **missed** |" in text
    assert f"- {what}: 5.00×, wanted ≥ 6.00×" in text
    assert "| ≤ 1.00× | 0.70× | 0.70× to 0.70× | met |" in text
    assert "Not measured:" in text
    assert "slangpy did not take part: not installed." in text
    assert text.splitlines()[0] == "### GPU (CPU)"


def test_moonshots_say_by_how_much_they_are_missed() -> None:
    other = result(machine={**machine(), "device": {**machine()["device"], "kind": "discrete"}})
    text = tables.moonshots({"box": result(), "other": attrs.evolve(other, targets=[])})
    row = next(line for line in text.splitlines() if "10,000 draws" in line)
    assert row.endswith("| ≤ 0.50× | 0.70×, missed by 40% | not a goal |")


def test_a_missed_mark_needs_words() -> None:
    reports = {"box": result()}
    page = "\n## What misses its mark\n\n- **{}**: the copy.\n\n## Next\n**upload of 64 MiB**"
    assert unexplained(page.format("upload of 64 MiB"), reports) == []
    assert unexplained(page.format("upload of 1 MiB"), reports) == [
        "upload of 64 MiB: belt.upload against queue.write_buffer"
    ]


def test_a_frame_costs_a_floor_and_so_much_for_each_object() -> None:
    frame = {10_000: 0.011, 100_000: 0.101}  # 1 ms, and a microsecond each
    found = [
        Series("draws", Point(f"{count:,}", count), "pers", "instancing", samples=[time / count])
        for count, time in frame.items()
    ]
    text = tables.growth({"box": attrs.evolve(result(), series=found)})
    assert "| pers: instancing |  |  | 1.1 µs | 1.01 µs | 1 µs |" in text


def test_plots_show_the_best_of_several_copies(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="comes with the extra `bench`")
    found = result()
    for road, seconds in (("memory copy, 1 thread", 2.0), ("memory copy, 2 threads", 1.5)):
        one = series("upload", "64 MiB", "limit", road, [seconds])
        one.point = attrs.evolve(one.point, x=2.0**26)
        found.series.append(one)
    upload = PLOTS[0]
    (best,) = upload.roads_of(found)["limit", "memory copy"]
    assert best.road == "memory copy, 2 threads"
    assert "pers belt.upload 0.0671 GB/s" in describe(upload, found)
    (path,) = draw_plots(found, "box", "digest", tmp_path)
    assert path.name == "performance-box-upload.png"


def test_a_stored_distribution_counts_only_where_it_was_measured() -> None:
    stored = summarize([1.0, 2.0])
    one = Series("b", Point("p"), "pers", "road", stored=stored)
    assert one.summary == stored
    one.status = "wrong"
    assert one.summary is None
    assert isinstance(stored, Summary)
