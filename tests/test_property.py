"""The property test finds bugs; that pers has none it can find is in test_conformance.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pers.backends.null import NullClock, NullDevice
from pers.backends.null.commands import NullEncoder
from pers.buffers import MappedRange
from pers.buffers.mapped_range import Lease
from pers.testing import buffer_machine, command, explore


def manual_device() -> NullDevice:
    """Make a device whose time stands still until the test moves it."""
    return NullDevice(clock=NullClock(auto=False))


TestOneMachine = buffer_machine(manual_device).TestCase


@pytest.mark.parametrize("event_loop", ["asyncio", "trio"])
def test_virtual_time_and_injected_faults(event_loop: Any) -> None:
    found = explore(manual_device, steps=3000, seed=7, event_loop=event_loop)
    assert found.steps >= 3000
    ended = {outcome for outcomes in found.outcomes.values() for outcome in outcomes}
    assert {"succeeded", "BufferStateError", "OutOfMemoryError"} <= ended


def test_the_same_seed_takes_the_same_steps() -> None:
    first, again = (explore(manual_device, steps=1000, seed=3) for _ in range(2))
    assert first == again


def _nothing(*_: object) -> None:
    pass


@pytest.mark.parametrize(
    ("owner", "method", "broken"),
    [
        (NullEncoder, "copy_buffer_to_buffer", _nothing),
        (MappedRange, "write", _nothing),
        (Lease, "live_views", 0),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bug_is_found(
    owner: type, method: str, broken: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, method, broken)
    with pytest.raises(AssertionError) as caught:
        explore(manual_device, steps=10_000, shrink=False)
    assert "state." in "\n".join(getattr(caught.value, "__notes__", []))


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results.json"
    assert command.main(["explore", "null", "--steps", "500", "--json", str(results)]) == 0
    assert "nothing found" in capsys.readouterr().out
    written = json.loads(results.read_text())
    assert written["steps"] >= 450
    assert sum(outcomes.get("succeeded", 0) for outcomes in written["outcomes"].values()) > 0


def test_command_with_a_device_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["cases", "pers.backends.null:NullDevice"]) == 0
    assert "165 passed, 0 failed, 14 skipped" in capsys.readouterr().out
