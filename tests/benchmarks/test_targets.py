"""The targets, from samples that are made up."""

from __future__ import annotations

import pytest

from benchmarks.core import Series
from benchmarks.targets import Target, judge
from tests.benchmarks.support import series

BELT, WRITE = "belt.upload", "queue.write_buffer"


def find(found: list[Target], *words: str) -> Target:
    (one,) = [each for each in found if all(word in each.what for word in words)]
    return one


def uploads(belt: float, write: float, size: str = "64 MiB") -> list[Series]:
    return [
        series("upload", size, "pers", BELT, [belt] * 3),
        series("upload", size, "wgpu-py", WRITE, [write] * 3),
    ]


@pytest.mark.parametrize(
    ("factor", "software", "verdict"),
    [(6.0, True, "pass"), (5.5, True, "fail"), (5.5, False, "pass"), (4.9, False, "fail")],
)
def test_large_upload(factor: float, software: bool, verdict: str) -> None:
    found = judge(uploads(1.0, factor), software=software)
    target = find(found, "upload of 64 MiB", WRITE)
    assert target.verdict == verdict
    assert target.measured is not None
    assert target.measured.median == pytest.approx(factor)
    assert target.detail == f"wgpu-py: {WRITE} / pers: {BELT}"
    assert find(found, "upload of 256 MiB", WRITE).verdict == "not measured"


def test_small_upload_is_held_against_the_best_road() -> None:
    results = [
        *uploads(1.0, 3.0, "4 KiB"),
        series("upload", "4 KiB", "wgpu-py", "other", [0.9]),
        series("upload", "4 KiB", "moderngl", "buffer.write", [0.1]),
    ]
    target = find(judge(results, software=True), "upload of 4 KiB: belt.upload against wgpu-py's")
    assert target.detail == f"wgpu-py: other / pers: {BELT}"
    assert target.verdict == "fail"
    assert target.measured is not None
    assert target.measured.median == pytest.approx(0.9)


def test_wrong_content_is_no_rival_and_no_winner() -> None:
    wrong = series("upload", "4 KiB", "wgpu-py", "other", [], "wrong")
    results = [*uploads(1.0, 3.0, "4 KiB"), wrong]
    target = find(judge(results, software=True), "upload of 4 KiB: belt.upload against wgpu-py's")
    assert target.detail == f"wgpu-py: {WRITE} / pers: {BELT}"

    lie = [series("upload", "64 MiB", "pers", BELT, [], "wrong"), *uploads(1.0, 3.0)[1:]]
    lie[0].problem = "half of it is zero"
    target = find(judge(lie, software=True), "upload of 64 MiB", WRITE)
    assert target.verdict == "not measured"
    assert "wrong, half of it is zero" in target.detail


def test_a_missing_peer_is_said() -> None:
    peer = series("readback", "64 MiB", "slangpy", "", [], "not available")
    peer.problem = "not installed"
    ours = series("readback", "64 MiB", "pers", "read_array", [1.0])
    target = find(judge([ours, peer], software=True), "readback of 64 MiB", "slangpy")
    assert target.verdict == "not measured"
    assert target.detail == "slangpy: not available, not installed"


def test_readback() -> None:
    results = [
        series("readback", "64 MiB", "pers", "read_array", [1.0]),
        series("readback", "64 MiB", "wgpu-py", "queue.read_buffer", [11.0]),
        series("readback", "64 MiB", "moderngl", "buffer.read", [9.0]),
        series("readback", "64 MiB", "moderngl", "buffer.read_into", [4.0]),
        series("readback", "64 MiB", "limit", "GPU copy alone", [0.95]),
    ]
    found = judge(results, software=False)
    assert find(found, "readback of 64 MiB", "queue.read_buffer").verdict == "fail"
    assert find(judge(results, software=True), "64 MiB", "queue.read_buffer").verdict == "pass"
    moderngl = find(found, "readback of 64 MiB", "moderngl")
    assert moderngl.verdict == "pass"
    assert not moderngl.reaches_moonshot
    limit = find(found, "readback of 64 MiB", "alone")
    assert limit.verdict == "no target"
    assert limit.reaches_moonshot


LOOP = "set_bind_group + draw"


@pytest.mark.parametrize(("cost", "verdict"), [(1.0, "pass"), (1.01, "fail")])
def test_cost_of_a_draw(cost: float, verdict: str) -> None:
    results = [
        series("recording", "10,000", "pers", LOOP, [cost]),
        series("recording", "10,000", "pers", "bundle", [0.01]),
        series("recording", "10,000", "wgpu-py", LOOP, [1.0]),
    ]
    assert find(judge(results, software=True), "cost of each").verdict == verdict


def test_best_mode_of_many_objects() -> None:
    results = [
        series("draws", "10,000", "pers", LOOP, [2.0]),
        series("draws", "10,000", "pers", "instancing", [0.1]),
        series("draws", "10,000", "wgpu-py", LOOP, [1.0]),
        series("draws", "100,000", "pers", "instancing", [1e-7]),
    ]
    target = find(judge(results, software=True), "10,000 moving objects", "best mode")
    assert target.verdict == "pass"
    assert target.detail == f"wgpu-py: {LOOP} / pers: instancing"
    assert find(judge(results, software=False), "10,000 moving objects").verdict == "fail"
    frame = find(judge(results, software=False), "100,000 moving objects")
    assert frame.measured is not None
    assert frame.measured.median == pytest.approx(0.01)
    assert frame.reaches_moonshot


def test_every_call_is_held_against_its_twin() -> None:
    results = [
        series("calls", "create_buffer", "pers", "a", [1.1]),
        series("calls", "create_buffer", "wgpu-py", "b", [1.0]),
        series("calls", "copy", "pers", "a", [1.2]),
        series("calls", "copy", "wgpu-py", "b", [1.0]),
    ]
    found = judge(results, software=True)
    assert find(found, "create_buffer:").verdict == "pass"
    assert find(found, "copy:").verdict == "fail"


def test_awaited_maps() -> None:
    results = [
        series("map-latency", "1 KiB", "pers", "map", [1.0]),
        series("map-latency", "1 KiB", "pers", "await map_async on asyncio", [1.5]),
        series("map-latency", "1 KiB", "wgpu-py", "await map_async on asyncio", [2.0]),
    ]
    found = judge(results, software=True)
    assert find(found, "asyncio", "wgpu-py").verdict == "pass"
    blocking = find(found, "asyncio", "blocking")
    assert blocking.verdict == "no target"
    assert not blocking.reaches_moonshot
    assert find(found, "trio", "wgpu-py").verdict == "not measured"


@pytest.mark.parametrize(("drift", "verdict"), [(2.0**20, "pass"), (2.0**20 + 1, "fail")])
def test_drift(drift: float, verdict: str) -> None:
    early = series("memory", "1.0 s", "pers", "frames", [5e6])
    late = series("memory", "2.0 s", "pers", "frames", [6e6], drift=drift)
    rival = series("memory", "2.0 s", "wgpu-py", "frames", [9e9], drift=9e9)
    target = find(judge([early, late, rival], software=True), "memory over the run")
    assert target.verdict == verdict
    assert target.unit == "bytes"


def test_stalls() -> None:
    good = series("frame-blocks", "1", "pers", "frame", [4.0], stalls=0.0)
    assert find(judge([good], software=True), "stalls").verdict == "pass"
    bad = series("frame-blocks", "1", "pers", "frame", [4.0], stalls=1.0)
    assert find(judge([bad], software=True), "stalls").verdict == "fail"


def test_blocks_left_where_there_are_most_objects() -> None:
    results = [
        series("frame-blocks", "1", "pers", "frame", [9.0]),
        series("frame-blocks", "100", "pers", "frame", [0.0, 0.0, 1.0]),
    ]
    target = find(judge(results, software=True), "blocks that a frame")
    assert target.verdict == "no target"
    assert target.reaches_moonshot
    assert "100 objects" in target.detail


def test_nothing_measured_is_no_success() -> None:
    found = judge([], software=False)
    assert {each.verdict for each in found} == {"not measured"}
    assert all(each.detail for each in found)
    # Every row of what pers must reach has its place.
    for words in (
        ("upload of 64 MiB", WRITE),
        ("upload of 256 MiB", WRITE),
        ("upload of 64 MiB", "best of all"),
        ("upload of 4 KiB: ",),
        ("upload of 1 MiB: ",),
        ("readback of 64 MiB", "queue.read_buffer"),
        ("readback of 64 MiB", "alone"),
        ("readback of 64 MiB", "moderngl"),
        ("readback of 64 MiB", "slangpy"),
        ("cost of each",),
        ("10,000 moving objects", "best mode"),
        ("100,000 moving objects", "60 frames"),
        ("call of pers",),
        ("on asyncio", "wgpu-py"),
        ("on trio", "blocking"),
        ("memory over the run",),
        ("blocks for each frame of the run",),
        ("stalls", "3 frames"),
        ("blocks that a frame",),
    ):
        find(found, *words)
