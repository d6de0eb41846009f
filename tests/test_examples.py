"""Every example runs, on every backend that it takes, and says what it verified."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
LONGEST = 80


@pytest.mark.parametrize("backend", [pytest.param("webgpu", marks=pytest.mark.gpu), "null"])
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(example: Path, backend: str, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", str(example), "--backend", backend],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert result.returncode == 0, result.stderr
    assert "verified: " in result.stdout
    assert result.stderr == ""
    assert list(tmp_path.glob("*.*")) == []


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_short_and_says_what_it_shows(example: Path) -> None:
    text = example.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST
    assert text.startswith('"""')
    assert f"python examples/{example.name}" in text


def test_there_are_examples() -> None:
    patterns = {"static_mesh", "texture_streaming", "per_frame_updates", "gpu_readback"}
    assert patterns <= {path.stem for path in EXAMPLES}
