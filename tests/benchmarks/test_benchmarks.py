"""Every benchmark in quick mode, on the real driver and with the peers that are there."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from benchmarks.core import (
    LIBRARIES,
    Contender,
    Point,
    Scale,
    WrongContentError,
    run_point,
)
from benchmarks.lab import Lab
from benchmarks.memory import FRAMES_A_TURN, Growth, blocks_per_frame, drift
from benchmarks.peers import same_gpu
from benchmarks.profiles import Sampler
from benchmarks.run import BENCHMARKS, UnknownBenchmarkError, choose, measure, run
from benchmarks.sharing import SHARING
from benchmarks.sizes import size_points
from tests.benchmarks.support import ONCE

pytestmark = pytest.mark.gpu

# Sharing has other contenders: see test_sharing.
BY_NAME = {benchmark.name: benchmark for benchmark in BENCHMARKS if benchmark not in SHARING}
WITHOUT_CONTENT = {"submit + wait", "empty encoder + submit", "compute pass"}
"""Calls that leave nothing to compare."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def null_lab() -> Iterator[Lab]:
    with Lab("null") as lab:
        yield lab


@pytest.mark.parametrize("name", BY_NAME)
def test_quick_mode_measures_and_finds_the_content_right(name: str, lab: Lab) -> None:
    report = run(lab, [BY_NAME[name]], ONCE)
    assert [f"{each.name} {each.point.label}: {each.problem}" for each in report.problems] == []
    by_point: dict[Point, set[str]] = {}
    for each in report.series:
        by_point.setdefault(each.point, set()).add(each.library)
    if name != "memory":  # its points are times
        assert all(set(LIBRARIES) <= there for there in by_point.values())
    measured = {each.library for each in report.series if each.status == "measured"}
    assert {"pers", "wgpu-py"} <= measured
    for each in report.series:
        assert (each.summary is not None) == (each.status == "measured")
        assert bool(each.problem) == (each.status != "measured")
    text = json.dumps(report.to_json(), allow_nan=False)
    assert {target["benchmark"] for target in json.loads(text)["targets"]} <= {name}


@pytest.mark.parametrize("name", [name for name in BY_NAME if name != "memory"])
def test_who_does_nothing_is_caught(name: str, lab: Lab) -> None:
    """After one honest run, so that all that can be found is what is old."""
    benchmark = BY_NAME[name]
    for point in benchmark.points(lab, ONCE):
        if point.label in WITHOUT_CONTENT:
            continue
        with benchmark.open(lab, point, ONCE) as entrants:
            players = [each for each in entrants if isinstance(each, Contender)]
            for honest in players:
                honest.prepare()
                honest.run()
                honest.check()
                honest.release()
                lazy = attrs.evolve(honest, run=lambda: 1e-9)
                (found,) = run_point(name, point, [lazy], ONCE)
                assert found.status in ("wrong", "failed"), f"{found.name} at {point.label}"
                assert found.summary is None


@pytest.mark.parametrize("name", BY_NAME)
def test_without_a_gpu_pers_is_measured_alone(name: str, null_lab: Lab) -> None:
    benchmark = BY_NAME[name]
    point = benchmark.points(null_lab, ONCE)[0]
    found = measure(null_lab, benchmark, point, ONCE)
    assert [each.problem for each in found if each.status in ("wrong", "failed")] == []
    assert "measured" in {each.status for each in found if each.library == "pers"}
    (raw,) = [each for each in found if each.library == "wgpu-py"]
    assert "not on wgpu" in raw.problem


def test_a_benchmark_that_cannot_start_is_a_problem(lab: Lab) -> None:
    def open_nothing(lab: Lab, point: Point, scale: Scale) -> None:
        raise MemoryError("no memory")

    broken = attrs.evolve(BY_NAME["calls"], open=open_nothing)
    report = run(lab, [broken], ONCE)
    assert {each.problem for each in report.problems} == {"MemoryError: no memory"}


def test_progress_counts_to_the_end(lab: Lab) -> None:
    told: list[tuple[str, int, int]] = []
    run(lab, choose(["frame-peak"]), ONCE, lambda *news: told.append(news))
    assert told == [("frame-peak 1", 0, 2), ("frame-peak 100", 1, 2), ("done", 2, 2)]


def test_plots_are_pictures(lab: Lab, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="comes with the extra `bench`")
    from PIL import Image

    from benchmarks.plot import plot

    report = run(lab, choose(["calls", "frame-blocks", "memory"]), ONCE)
    plot(report, tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.format == "PNG"
        assert len(picture.convert("RGB").getcolors(picture.width * picture.height) or ()) > 50


def test_machine_is_described(lab: Lab) -> None:
    machine = lab.describe()
    assert machine["cores"] >= 1
    assert machine["packages"]["wgpu"]
    assert set(machine["peers"]) == set(LIBRARIES) - {"pers"}
    for library, description in machine["peers"].items():
        if getattr(lab, library.replace("-py", "")) is None:
            assert description.startswith("not available: ")


def test_unknown_name() -> None:
    with pytest.raises(UnknownBenchmarkError, match=r"no benchmark 'uplaod'; there are upload, "):
        choose(["uplaod"])
    assert choose([]) == list(BENCHMARKS)


def test_sizes() -> None:
    labels = [point.label for point in size_points(Scale())]
    assert labels[0] == "1 KiB"
    assert labels[-1] == "256 MiB"
    assert {"4 KiB", "1 MiB", "64 MiB"} <= set(labels)
    assert [point.x for point in size_points(Scale(), most=4096)] == [1024, 4096]


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        ("NVIDIA H200", "NVIDIA H200/PCIe/SSE2", True),
        ("llvmpipe (LLVM 15.0.6, 256 bits)", "llvmpipe (LLVM 15.0.6, 256 bits)", True),
        ("NVIDIA H200", "llvmpipe (LLVM 15.0.6, 256 bits)", False),
    ],
)
def test_same_gpu(ours: str, theirs: str, same: bool) -> None:
    assert same_gpu(ours, theirs) is same


def test_drift_forgets_the_warm_up() -> None:
    warm_up = [0.0, 50.0, 90.0, 99.0, 100.0]
    assert drift([*warm_up, *[100.0] * 15]) == 0
    assert drift([*warm_up, *range(100, 115)]) == pytest.approx(12, abs=1)
    assert drift([5.0]) == 0


def test_blocks_per_frame_forget_the_warm_up() -> None:
    history = [Growth()]
    for turn in range(19):
        history.append(history[-1].after(0, 500 if turn < 4 else 0))
    assert blocks_per_frame(history) == 0
    leaky = [Growth()]
    for _ in range(19):
        leaky.append(leaky[-1].after(0, 2 * FRAMES_A_TURN))
    assert blocks_per_frame(leaky) == 2
    assert blocks_per_frame([Growth()]) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such timer")
def test_samples_are_of_what_ran() -> None:
    def busy() -> None:
        sum(range(100_000))

    with Sampler() as sampler:
        while len(sampler.rows()) < 2:
            busy()
    rows = {name.rpartition(".")[2]: row for name, *row in sampler.rows()}
    assert "test_samples_are_of_what_ran" in "".join(name for name, *_ in sampler.rows())
    assert all(0 <= innermost <= inside <= 1.0001 for inside, innermost in rows.values())
    assert sum(innermost for _, _, innermost in sampler.rows()) == pytest.approx(1)


def test_wrong_content_is_an_assertion() -> None:
    assert issubclass(WrongContentError, AssertionError)
