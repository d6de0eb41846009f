"""``pers bench`` and ``python -m benchmarks``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import benchmarks.__main__ as module
from benchmarks.command import CannotRunError, Request, carry_out
from benchmarks.core import Point, Scale, Series
from benchmarks.run import BENCHMARKS
from renderers.cli import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.gpu
def test_report_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "deep" / "report.json"
    arguments = ["bench", "frame-peak", "memory", "--quick", "--minutes", "0"]
    assert main([*arguments, "--json", str(path)]) == 0
    captured = capsys.readouterr()
    assert str(path) in captured.out
    assert "wgpu-py" in captured.out
    report = json.loads(path.read_text(encoding="utf-8"))
    assert set(report["benchmarks"]) == {"frame-peak", "memory"}
    assert report["scale"]["minutes"] == 0


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--list"]) == 0
    listed = capsys.readouterr().out
    assert all(benchmark.name in listed for benchmark in BENCHMARKS)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["uplaod"], "there is no benchmark 'uplaod'; there are upload,"),
        (["--plot", "plot.jpg"], "name it something.png"),
        (["--adapter", "no such GPU", "calls"], "no adapter is called 'no such GPU'"),
        (["--minutes", "-1"], "greater than or equal to 0"),
    ],
)
def test_what_cannot_be_done_is_refused(
    arguments: list[str],
    reason: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PERS_ADAPTER", "")
    assert main(["bench", *arguments]) != 0
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize(
    ("request_of", "reason"),
    [
        (lambda folder: Request(json=folder), "Is a directory"),
        (
            lambda folder: Request(plot=folder / "file" / "plot.png"),
            "cannot write .*plot.png: File exists",
        ),
        (lambda folder: Request(minutes=float("nan")), "--minutes must be 0 or more, not nan"),
        (lambda folder: Request(minutes=-1.0), "--minutes must be 0 or more, not -1.0"),
    ],
)
def test_nothing_is_measured_for_what_cannot_be_done(
    request_of: Callable[[Path], Request],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("benchmarks.command.Lab", None)
    monkeypatch.setattr("benchmarks.command._check_plot", lambda path: None)
    (tmp_path / "file").touch()
    with pytest.raises(CannotRunError, match=reason):
        carry_out(request_of(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.gpu
def test_wrong_content_fails_the_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(lab: object, benchmark: object, point: Point, scale: Scale) -> list[Series]:
        return [Series("calls", point, "pers", "road", "wrong", problem="3 values are wrong")]

    monkeypatch.setattr("benchmarks.run.measure", wrong)
    assert main(["bench", "calls", "--quick"]) == 1
    captured = capsys.readouterr()
    assert "pers: road in calls at create_buffer: 3 values are wrong" in captured.err
    assert "wrong" in captured.out


@pytest.mark.gpu
def test_module_needs_no_packages_of_the_command_line(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "for name in ('typer', 'rich', 'PIL', 'moderngl', 'slangpy', 'matplotlib'):\n"
        "    sys.modules[name] = None\n"
        "from benchmarks.__main__ import main\n"
        "sys.exit(main(['frame-peak', '--quick']))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_RUNTIME_DIR": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "pers: frame" in result.stdout
    assert "slangpy: not available: not installed" in result.stdout


def test_module_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_RUNTIME_DIR": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks", "uplaod"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert result.returncode == 2
    assert "benchmarks: error: there is no benchmark 'uplaod'" in result.stderr
    assert "Traceback" not in result.stderr


def test_module_ends_when_it_is_interrupted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(request: Request) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "carry_out", interrupted)
    assert module.main(["upload"]) == 130
    assert capsys.readouterr().err == "benchmarks: error: interrupted\n"
