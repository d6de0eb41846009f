"""The benchmarks of sharing in quick mode, with real processes on the other side."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import attrs
import numpy as np
import pytest

from benchmarks.core import PERS, Contender, Missing, WrongContentError, run_point
from benchmarks.lab import Lab
from benchmarks.run import run
from benchmarks.sharing import SHARING, pictures, processes, ways
from benchmarks.sharing.managers import HOST, SHARED_MEMORY, VULKAN, Place, find_vulkan
from benchmarks.sharing.pictures import Pictures, Target
from benchmarks.sharing.processes import Child, ChildError
from benchmarks.sharing.tables import sharing
from benchmarks.sharing.ways import Block, Stream
from pers import HostTextureShareManager, VulkanTextureShareManager, list_streams
from tests.benchmarks.children import obedient, unable
from tests.benchmarks.support import ONCE, series
from tests.benchmarks.test_report import report

pytestmark = pytest.mark.gpu

BY_NAME = {benchmark.name: benchmark for benchmark in SHARING}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture
def nothing_left() -> Iterator[None]:
    yield
    assert multiprocessing.active_children() == []
    assert [name for name in list_streams() if f"benchmark-{os.getpid()}-" in name] == []


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.usefixtures("nothing_left")
def test_quick_mode_measures_and_finds_the_content_right(name: str, lab: Lab) -> None:
    found = run(lab, [BY_NAME[name]], ONCE)
    assert [f"{each.name} {each.point.label}: {each.problem}" for each in found.problems] == []
    for each in found.series:
        assert (each.summary is not None) == (each.status == "measured")
        assert bool(each.problem) == (each.status != "measured")
        if name in ("share-sync", "share-frame", "share-stream", "share-stream-gpu"):
            wanted = {"p50", "p99", "latencies"} if each.status == "measured" else set()
            assert set(each.extra) == wanted
            assert each.extra.get("p50", 0) <= each.extra.get("p99", 0)
    for point in {each.point for each in found.series}:
        there = [each for each in found.series if each.point == point]
        measured = [each for each in there if each.status == "measured"]
        assert any(each.library == PERS and each.road.startswith(HOST) for each in measured)
        assert any(each.road.startswith(VULKAN) for each in there)
        assert {each.library for each in there} > {PERS}
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.usefixtures("nothing_left")
def test_who_does_nothing_is_caught(name: str, lab: Lab) -> None:
    """After one honest run, so that all that can be found is what is old."""
    benchmark = BY_NAME[name]
    point = benchmark.points(lab, ONCE)[0]
    with benchmark.open(lab, point, ONCE) as entrants:
        players = [each for each in entrants if isinstance(each, Contender)]
        assert players
        for honest in players:
            honest.prepare()
            honest.run()
            honest.check()
            honest.release()
            lazy = attrs.evolve(honest, run=lambda: 1e-9)
            (found,) = run_point(name, point, [lazy], ONCE)
            assert found.status == "wrong", found.name


def _blank(target: Target, pixels: Any) -> None:
    pictures_put(target, np.zeros_like(pixels))


def _one_pixel_off(target: Target, pixels: Any) -> None:
    other = pixels.copy()
    other[1, 1, 0] ^= 1
    pictures_put(target, other)


pictures_put = pictures.put_pixels


@pytest.mark.parametrize(
    ("name", "wrong"), [("share-frame", _blank), ("share-stream", _one_pixel_off)]
)
def test_wrong_pixels_are_noticed_by_the_other_side(
    name: str, wrong: Callable[..., None], lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "put_pixels", wrong)
    monkeypatch.setattr(ways, "TIMEOUT_S", 2.0)
    found = run(lab, [BY_NAME[name]], ONCE)
    told = {each.name: each.status for each in found.series}
    assert set(told.values()) - {"not available"} == {"wrong"}, told


def test_wrong_pixels_of_the_gpu_are_noticed(lab: Lab) -> None:
    vulkan = find_vulkan(lab)
    if isinstance(vulkan, Missing):
        pytest.skip(vulkan.reason)
    from benchmarks.sharing.gpu import GpuPictures

    with vulkan, vulkan.create_shareable_texture(pictures_of(16, 8)) as texture:
        made = GpuPictures(vulkan, 16, 8)
        with texture.access(write=True) as view:
            made.make(view, 5)
        with texture.access() as view:
            assert np.array_equal(view.download(), Pictures(16, 8).of(5))
            made.take(view)
        made.check_stamps(5)
        made.check_whole(5)
        with pytest.raises(WrongContentError, match="stamps"):
            made.check_stamps(6)
        wrong = Pictures(16, 8).of(5).copy()
        wrong[1, 1, 0] ^= 1
        made.take(wrong)
        made.check_stamps(5)
        with pytest.raises(WrongContentError, match="1 of 512 values"):
            made.check_whole(5)
        back = np.zeros((8, 16, 4), np.uint8)
        made.make(back, 9)
        assert np.array_equal(back, Pictures(16, 8).of(9))
        made.close()


def pictures_of(width: int, height: int) -> Any:
    from benchmarks.sharing.managers import describe

    return describe(width, height)


def test_a_gpu_that_cannot_share_is_missing_with_the_reason() -> None:
    info = SimpleNamespace(name="no such GPU")
    other = cast(Lab, SimpleNamespace(draws=True, device=SimpleNamespace(info=info)))
    found = find_vulkan(other)
    assert isinstance(found, Missing)
    assert "no such GPU" in found.reason
    assert (found.library, found.road) == (PERS, VULKAN)


def test_without_the_gpu_the_host_is_measured_alone(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = Missing(PERS, "no Vulkan here", VULKAN)
    monkeypatch.setattr("benchmarks.sharing.managers.find_vulkan", lambda lab: missing)
    for name in ("share-export", "share-stream-gpu"):
        point = BY_NAME[name].points(lab, ONCE)[0]
        with BY_NAME[name].open(lab, point, ONCE) as entrants:
            absent = [each for each in entrants if isinstance(each, Missing)]
            assert "no Vulkan here" in {each.reason for each in absent}
            players = {each.road for each in entrants if isinstance(each, Contender)}
            assert players == (set() if name == "share-stream-gpu" else {HOST})


# --- Processes ------------------------------------------------------------------------------------


def test_a_child_is_another_process_and_ends_with_the_block() -> None:
    with Child(obedient) as child:
        child.ask("pid")
        assert child.answer() not in (None, os.getpid())
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("order", "kind", "problem"),
    [
        ("die", ChildError, "has died with status 7"),
        ("fail", ChildError, "ValueError: no such order"),
        ("wrong", WrongContentError, "3 values are wrong"),
    ],
)
def test_what_goes_wrong_in_a_child_is_told(
    order: str, kind: type[Exception], problem: str
) -> None:
    with Child(obedient) as child:
        child.ask(order)
        with pytest.raises(kind, match=problem):
            child.answer()


def test_a_child_that_cannot_open_says_why() -> None:
    with Child(unable) as child, pytest.raises(ChildError, match="OSError: nothing to open"):
        child.wait_ready()


def test_a_child_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "END_S", 0.2)
    with Child(obedient) as child:
        child.ask("hang")
        with pytest.raises(ChildError, match="did not answer within 0.01 s"):
            child.answer(0.01)
    assert multiprocessing.active_children() == []


# --- Ways -----------------------------------------------------------------------------------------


def test_a_frame_out_of_turn_is_noticed() -> None:
    with HostTextureShareManager() as manager:
        stream = Stream(Place.of(manager), 4, 4)
        with stream.send(manager) as sender, stream.receive(manager) as receiver:
            with sender.frame():
                pass
            with pytest.raises(WrongContentError, match="frame 1 came instead of frame 2"):
                with receiver.frame(2):
                    pass
    with Block.make(4, 4) as block, block.send(None) as sender:
        with block.receive(None) as receiver:
            with sender.frame():
                pass
            with pytest.raises(WrongContentError, match="instead of frame 4"):
                with receiver.frame(4):  # in the same slot
                    pass


def test_places_open_where_they_say(lab: Lab) -> None:
    with Place(HOST).open() as manager:
        assert manager.capabilities.backend == HOST
    found = find_vulkan(lab)
    if isinstance(found, Missing):
        pytest.skip(found.reason)
    with found, Place.of(found).open() as manager:
        assert isinstance(manager, VulkanTextureShareManager)
        assert manager.capabilities.device_uuid == found.capabilities.device_uuid


# --- Tables ---------------------------------------------------------------------------------------


def test_tables_say_what_was_measured_and_what_was_not() -> None:
    tail = {"p50": 0.002, "p99": 0.03}
    found = [
        series("share-sync", "fence", PERS, HOST, [1e-4], p50=1e-4, p99=3e-4),
        series("share-sync", "event", PERS, HOST, [1e-4], p50=2e-4, p99=3e-4),
        series("share-sync", "event", "multiprocessing", "Pipe", [1e-5], p50=1e-5, p99=2e-5),
        series("share-sync", "fence", PERS, VULKAN, [], "not available"),
        series("share-export", "256²", PERS, HOST, [5e-5]),
        series("share-export", "256²", SHARED_MEMORY, "", [], "not available"),
        series("share-stream", "1080p", PERS, VULKAN, [0.001, 0.002, 0.003], **tail),
        series("share-stream", "1080p", SHARED_MEMORY, "", [], "wrong"),
    ]
    found[3].problem = "fences cannot be shared"
    found[6].point = attrs.evolve(found[6].point, x=8e6)
    text = sharing({"box": attrs.evolve(report(), series=found)})
    lines = text.splitlines()
    assert "| way | fence | event |" in lines
    assert "| host | 100 µs, 300 µs | 200 µs, 300 µs |" in lines
    assert "| multiprocessing: Pipe |  | 10 µs, 20 µs |" in lines
    assert "| host, export | 50 µs |" in lines
    assert "| vulkan | 500/s, 4.00 GB/s; 2 ms, 30 ms |" in lines
    assert "| shared_memory | wrong |" in lines
    assert text.partition("Not available:")[2].strip() == "- vulkan, fence: fences cannot be shared"
