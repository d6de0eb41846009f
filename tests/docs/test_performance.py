"""The figures in the README and in docs/performance.md are those of the stored results."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.figure_plots import PLOTS, SOURCE
from benchmarks.figure_tables import machine_name, what_misses
from benchmarks.figures import BLOCKS, IMAGES, PERFORMANCE, FigureError, fill_in, unexplained
from benchmarks.report import Report
from benchmarks.stored import RESULTS, digest, read_results
from benchmarks.targets import judge

MOST_BYTES = 60 * 1024
COMMAND = "run python -m benchmarks.figures"


@pytest.fixture(scope="module")
def reports() -> dict[str, Report]:
    return read_results()


@pytest.mark.parametrize("page", BLOCKS, ids=lambda page: page.name)
def test_figures_are_the_stored_ones(page: Path, reports: dict[str, Report]) -> None:
    text = page.read_text(encoding="utf-8")
    assert fill_in(page, text, reports) == text, COMMAND


@pytest.mark.parametrize("page", BLOCKS, ids=lambda page: page.name)
def test_a_figure_that_is_not_stored_is_noticed(page: Path, reports: dict[str, Report]) -> None:
    text = page.read_text(encoding="utf-8")
    number = re.search(r"\d\.\d\d×", text)
    assert number is not None
    assert fill_in(page, text.replace(number[0], "9.99×", 1), reports) == text
    with pytest.raises(FigureError, match="needs one line"):
        fill_in(page, text.replace("<!-- end of figures", "<!--", 1), reports)


def test_every_machine_and_mark_is_on_the_page(reports: dict[str, Report]) -> None:
    text = PERFORMANCE.read_text(encoding="utf-8")
    for report in reports.values():
        section = text.partition(f"### {machine_name(report)}\n")[2].partition("\n##")[0]
        rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
        wanted = [target.what for target in report.targets if target.wanted is not None]
        assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == wanted
        assert len(rows) >= 20


def test_marks_of_stored_results_are_those_of_now(reports: dict[str, Report]) -> None:
    for name, report in reports.items():
        software = report.machine["device"]["kind"] in ("cpu", "integrated")
        marks = {each.what: each for each in judge([], software=software)}
        stored = [each for each in report.targets if each.what in marks]
        assert len(stored) >= 15, name
        for each in stored:
            now = marks[each.what]
            assert (each.wanted, each.moonshot) == (now.wanted, now.moonshot), each.what


def test_every_missed_mark_is_explained(reports: dict[str, Report]) -> None:
    text = PERFORMANCE.read_text(encoding="utf-8")
    assert unexplained(text, reports) == []
    missed = {target.what for _, target in what_misses(reports)}
    assert set(unexplained("a page without that section", reports)) == missed


def test_plots_are_of_the_stored_results(reports: dict[str, Report]) -> None:
    image = pytest.importorskip("PIL.Image", reason="comes with the extra `cli`")
    for name, report in reports.items():
        for plot in PLOTS:
            assert plot.roads_of(report), f"{plot.name} shows nothing of {name}"
            path = IMAGES / plot.file_name(name)
            assert path.stat().st_size <= MOST_BYTES
            with image.open(path) as picture:
                assert picture.info[SOURCE] == digest(RESULTS / f"{name}.json"), COMMAND
                assert picture.width >= 800


def test_no_plot_is_left_over(reports: dict[str, Report]) -> None:
    shown = {plot.file_name(name) for name in reports for plot in PLOTS}
    assert {path.name for path in IMAGES.glob("performance-*.png")} == shown
