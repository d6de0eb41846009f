"""Finalizers that use what is garbage as well."""

from __future__ import annotations

from pathlib import Path

from tests.support import run_python

PROGRAM = Path(__file__).with_name("finalizers.py")


def test_finalizers_of_a_garbage_cycle(backend: str) -> None:
    ran = run_python(str(PROGRAM), backend)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert ran.stdout.splitlines() == ["28 of 28 calls"] * 2
    assert "Exception ignored" not in ran.stderr
