"""Taking turns and the statistics: nothing here looks at a clock or a GPU."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

from benchmarks.core import (
    Contender,
    Missing,
    Scale,
    WrongContentError,
    ratio,
    run_point,
    summarize,
)
from benchmarks.payload import Payload
from tests.benchmarks.support import ONCE, POINT, contender, series

THREE_ROUNDS = Scale(least=3, most=3)


def test_contenders_take_turns() -> None:
    turns: list[str] = []

    def player(name: str) -> Contender:
        return contender(
            road=name,
            prepare=lambda: turns.append(f"prepare {name}"),
            run=lambda: turns.append(f"run {name}"),
            check=lambda: turns.append(f"check {name}"),
            release=lambda: turns.append(f"release {name}"),
        )

    run_point("test", POINT, [player("a"), player("b")], THREE_ROUNDS)
    one_round = [
        f"{step} {name}" for name in "ab" for step in ("prepare", "run", "check", "release")
    ]
    assert turns == one_round * 4  # the first of them warms up


def test_the_first_round_is_not_counted() -> None:
    numbers = iter([1000.0, 1.0, 2.0, 3.0])
    (found,) = run_point("test", POINT, [contender(run=lambda: next(numbers))], THREE_ROUNDS)
    assert found.samples == [1.0, 2.0, 3.0]


def test_a_turn_after_another_library_is_not_counted() -> None:
    turns: list[str] = []

    def player(name: str, library: str) -> Contender:
        return contender(library=library, run=lambda: float(turns.append(name) or len(turns)))

    players = [player("a", "wgpu-py"), player("b", "pers"), player("c", "pers")]
    a, b, c = run_point("test", POINT, players, Scale(least=1, most=1))
    assert "".join(turns) == "abc" + "aabbc"
    assert (a.samples, b.samples, c.samples) == ([5.0], [7.0], [8.0])


def test_samples_are_per_operation() -> None:
    (found,) = run_point("test", POINT, [contender(run=lambda: 12.0, per=4)], THREE_ROUNDS)
    assert found.samples == [3.0, 3.0, 3.0]


def test_what_a_run_does_not_return_is_timed() -> None:
    (found,) = run_point("test", POINT, [contender()], THREE_ROUNDS)
    assert len(found.samples) == 3
    assert all(sample >= 0 for sample in found.samples)


def test_rounds_stop_when_the_time_is_up() -> None:
    in_no_time = Scale(least=2, most=1000, seconds=0.0)
    (found,) = run_point("test", POINT, [contender(run=lambda: 1.0)], in_no_time)
    assert len(found.samples) == 2


@pytest.mark.parametrize("wrong_in_turn", [1, 3])
def test_wrong_content_wins_nothing(wrong_in_turn: int) -> None:
    turns = iter(range(1, 100))

    def check() -> None:
        if next(turns) == wrong_in_turn:
            raise WrongContentError("1 of 4 values is wrong")

    quick_and_wrong = contender(road="wrong", run=lambda: 1e-9, check=check)
    right = contender(road="right", run=lambda: 1.0)
    wrong, other = run_point("test", POINT, [quick_and_wrong, right], THREE_ROUNDS)
    assert wrong.status == "wrong"
    assert "1 of 4 values" in wrong.problem
    assert wrong.samples == []
    assert wrong.summary is None
    assert ratio(wrong, other) is None
    assert other.status == "measured"
    assert len(other.samples) == 3


def test_a_failure_is_kept_with_its_reason() -> None:
    def run() -> None:
        raise MemoryError("no memory\nfor that")

    failed, other = run_point("test", POINT, [contender(run=run), contender()], ONCE)
    assert failed.status == "failed"
    assert failed.problem == "MemoryError: no memory for that"
    assert other.status == "measured"


def test_who_is_missing_is_listed() -> None:
    entrants: list[Any] = [Missing("moderngl", "not installed"), contender()]
    missing, there = run_point("test", POINT, entrants, ONCE)
    assert (missing.status, missing.problem) == ("not available", "not installed")
    assert missing.summary is None
    assert there.status == "measured"


def test_extra_numbers_come_along() -> None:
    (found,) = run_point("test", POINT, [contender(extra={"stalls": 2.0})], ONCE)
    assert found.extra == {"stalls": 2.0}


def test_nothing_is_collected_while_a_run_is_timed() -> None:
    seen: list[bool] = []
    run_point("test", POINT, [contender(run=lambda: seen.append(gc.isenabled()))], ONCE)
    assert seen == [False, False]
    assert gc.isenabled()


def test_summary() -> None:
    found = summarize([4.0, 1.0, 3.0, 2.0, 5.0])
    assert (found.count, found.median, found.p25, found.p75) == (5, 3.0, 2.0, 4.0)
    assert (found.least, found.most) == (1.0, 5.0)
    assert found.p10 < found.p25 < found.p75 < found.p90


def test_a_ratio_is_taken_round_by_round() -> None:
    # A disturbance that hits both in a round does not show in the ratio.
    above = series("b", "p", "wgpu-py", "x", [2.0, 20.0, 2.0, 2.0])
    below = series("b", "p", "pers", "y", [1.0, 10.0, 1.0, 1.0])
    found = ratio(above, below)
    assert found is not None
    assert (found.median, found.p10, found.p90) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize(("nbytes", "pieces"), [(4, 1), (1024, 64), (4096, 1), (1 << 20, 1)])
def test_payload_changes_in_every_page_and_piece(nbytes: int, pieces: int) -> None:
    payload = Payload(nbytes, pieces)
    old = payload.words.copy()
    payload.change_pages()
    for start, piece in payload.pieces:
        assert not np.array_equal(piece, old.view(np.uint8)[start : start + nbytes])
    for start in range(0, payload.nbytes, 4096):
        assert payload.words[start // 4] != old[start // 4]
    assert payload.words[-1] != old[-1]
    with pytest.raises(WrongContentError):
        payload.check(old)
    payload.check(payload.words.copy())


def test_payload_says_what_is_wrong() -> None:
    payload = Payload(64)
    found = payload.words.copy()
    found[3] += 1
    with pytest.raises(WrongContentError, match=r"1 of 16 values are wrong; the first, at \(3,\)"):
        payload.check(found)
    with pytest.raises(WrongContentError, match="shape"):
        payload.check(found[:8])
