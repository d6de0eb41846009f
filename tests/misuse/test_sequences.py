"""Random misuse must not abort, hang or leak; see `sequences.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("sequences.py")


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("backend", "first", "count"),
    [("null", 0, 200), ("null", 10_000, 200), ("webgpu", 0, 25), ("webgpu", 10_000, 25)],
)
def test_random_misuse(backend: str, first: int, count: int) -> None:
    program = [sys.executable, str(PROGRAM), backend, str(first), str(count)]
    result = subprocess.run(
        program,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env={**os.environ, "RUST_BACKTRACE": "0"},
    )
    tail = "\n".join((result.stdout + result.stderr).splitlines()[-30:])
    assert result.returncode == 0, tail
    assert f"{count} sequences" in result.stdout, tail


def test_findings_are_reported() -> None:
    """The sequences notice an error that is no PersError, and so are a test that can fail."""
    broken = (
        "import sys, runpy\n"
        "from pers.buffers.core import MappableBuffer\n"
        "MappableBuffer.unmap = lambda self: 1 / 0\n"
        f"sys.argv = ['sequences', 'null', '0', '5']\n"
        f"runpy.run_path({str(PROGRAM)!r}, run_name='__main__')\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", broken], capture_output=True, text=True, timeout=100, check=False
    )
    assert result.returncode == 1
    assert "ZeroDivisionError" in result.stdout
