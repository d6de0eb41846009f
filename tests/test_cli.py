"""The command line: what it prints, what it leaves behind, and how it says no."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import pers
from renderers.checks import CopyCheck
from renderers.cli import main

ROOT = Path(__file__).resolve().parent.parent
BACKENDS = [pytest.param("webgpu", marks=pytest.mark.gpu), "null"]
SMALL = ["--objects", "20", "--frames", "5", "--size", "96x64"]

REPORT_KEYS = {
    "bytes_moved", "check", "check_failures", "checks_passed", "device", "dynamic_grows",
    "dynamic_stalls", "frame_ms", "frames", "height", "not_drawn", "objects",
    "objects_per_second", "rss_end", "rss_start", "seconds", "seed", "sky_bands", "triangles",
    "width",
}  # fmt: skip
INFO_KEYS = {"adapters", "device", "packages", "parts", "pers", "platform", "python"}


PERS = [sys.executable, "-W", "error", "-m", "renderers.cli"]


def pers_process(
    *arguments: str, cwd: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run ``pers`` as a user does."""
    return subprocess.run(
        [*PERS, *arguments],
        cwd=cwd,
        env=process_environment(cwd, **environment),
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.fixture
def small_sky(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves the time to paint the whole sky."""
    monkeypatch.setattr("renderers.stress.SKY_SIZE", 128)


def process_environment(cwd: Path, **changes: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "XDG_RUNTIME_DIR": str(cwd), **changes}


def reason(err: str) -> str:
    """The one line that says what went wrong."""
    lines = [line for line in err.splitlines() if line.startswith("pers: error: ")]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    return lines[0].removeprefix("pers: error: ")


# --- What works -----------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_triangle_leaves_a_picture(
    backend: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "deep" / "down" / "picture.png"
    arguments = ["triangle", "--frames", "3", "--size", "80x50", "--output", str(output)]
    assert main([*arguments, "--backend", backend]) == 0
    captured = capsys.readouterr()
    assert str(output) in captured.out
    assert "80x50, 3 frames" in captured.out
    with Image.open(output) as picture:
        assert picture.size == (80, 50)
        assert picture.format == "PNG"
        colors = len(picture.getcolors(80 * 50) or [])
    if backend == "null":
        assert colors == 1
        assert "not executed" in captured.err
    else:
        assert colors > 100
        assert captured.err == ""


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.usefixtures("small_sky")
def test_stress_leaves_a_picture_and_a_report(
    backend: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["stress", *SMALL, "--output", str(tmp_path), "--backend", backend]) == 0
    captured = capsys.readouterr()
    for words in ("frame time", "p99", "objects per second", "deferred staging", "2 passed"):
        assert words in captured.out
    assert "Rendering" in captured.err
    assert ("not executed" in captured.err) == (backend == "null")
    report = json.loads((tmp_path / "stress.json").read_text(encoding="utf-8"))
    assert set(report) == REPORT_KEYS
    assert report["device"]["backend"] == backend
    assert report["checks_passed"] == 2
    with Image.open(tmp_path / "stress.png") as picture:
        assert picture.size == (96, 64)


@pytest.mark.parametrize("backend", BACKENDS)
def test_stress_json_is_json_alone(backend: str, tmp_path: Path) -> None:
    result = pers_process("stress", *SMALL, "--json", "--backend", backend, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert set(report) == REPORT_KEYS
    assert set(report["frame_ms"]) == {"p50", "p95", "p99", "mean", "slowest"}
    assert set(report["bytes_moved"]) == {
        "static_staging", "deferred_staging", "dynamic", "readback",
    }  # fmt: skip
    assert json.loads((tmp_path / "out" / "stress.json").read_text(encoding="utf-8")) == report
    assert (tmp_path / "out" / "stress.png").is_file()


@pytest.mark.usefixtures("small_sky")
def test_stress_runs_again_over_its_own_output(tmp_path: Path) -> None:
    arguments = ["stress", *SMALL, "--output", str(tmp_path), "--backend", "null", "--seed", "7"]
    assert main(arguments) == 0
    first = json.loads((tmp_path / "stress.json").read_text(encoding="utf-8"))
    assert main(arguments) == 0
    second = json.loads((tmp_path / "stress.json").read_text(encoding="utf-8"))
    assert first["seed"] == second["seed"] == 7
    assert first["bytes_moved"] == second["bytes_moved"]


@pytest.mark.gpu
def test_info_shows_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    shown = capsys.readouterr().out
    assert pers.__version__ in shown
    assert "max_buffer_size" in shown
    assert main(["info", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report) == INFO_KEYS
    assert report["adapters"]
    assert report["device"]["limits"]["max_buffer_size"] > 0
    parts = {part["name"]: part for part in report["parts"]}
    assert parts["webgpu backend"]["works"]
    assert parts["null backend"]["works"]
    assert all(part["detail"] for part in parts.values())


@pytest.mark.parametrize("arguments", [[], ["--help"], ["stress", "--help"], ["info", "--help"]])
def test_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    assert "Usage: pers" in capsys.readouterr().out


# --- What does not --------------------------------------------------------------------------------

BAD_ARGUMENTS = [
    (["triangle", "--size", "12"], "is no size; write WIDTHxHEIGHT"),
    (["triangle", "--size", "0x10"], "is no size"),
    (["triangle", "--size", "-4x10"], "is no size"),
    (["triangle", "--size", "10x10x10"], "is no size"),
    (["triangle", "--size", "1e3x10"], "is no size"),
    (["triangle", "--size", "٣x٣"], "is no size"),
    (["triangle", "--size", ""], "is no size"),
    (["triangle", "--frames", "0"], "--frames"),
    (["triangle", "--frames", "-1"], "--frames"),
    (["triangle", "--frames", "many"], "--frames"),
    (["triangle", "--backend", "vulkan"], "--backend"),
    (["stress", "--objects", "0"], "--objects"),
    (["stress", "--objects", "-7"], "--objects"),
    (["stress", "--objects", "nan"], "--objects"),
    (["stress", "--objects", "1.5"], "--objects"),
    (["stress", "--frames", "0"], "--frames"),
    (["stress", "--seed", "-1"], "--seed"),
    (["stress", "--colour"], "--colour"),
    (["stress", "--output", "\0"], "null byte"),
    (["stress", "extra"], "extra"),
    (["dance"], "dance"),
    (["--dance"], "--dance"),
]


@pytest.mark.parametrize(("arguments", "words"), BAD_ARGUMENTS, ids=lambda value: str(value)[:40])
def test_bad_arguments_are_refused(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert words in reason(captured.err)
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["stress", "--objects", str(2**63)], "takes at most"),
        (["stress", "--objects", "99999999"], "takes at most"),
        (["stress", "--size", "999999999x999999999"], "above the device's limit"),
        (["triangle", "--size", "100000x10"], "above the device's limit"),
        (["triangle", "--output", "picture.jpg"], "something.png"),
        (["triangle", "--output", "folder.png"], "it is a folder"),
        (["triangle", "--output", "file.png/picture.png"], "it is no folder"),
        (["triangle", "--output", "file.png/more/picture.png"], "it is no folder"),
        (["stress", "--output", "file.png"], "it is no folder"),
        (["stress", "--output", "taken"], "stress.json"),
        pytest.param(
            ["stress", "--output", "/proc/pers"],
            "cannot write to /proc/pers",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="needs /proc"),
        ),
    ],
)
def test_what_cannot_be_done_is_refused(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.png").write_text("not a folder")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "taken" / "stress.json").mkdir(parents=True)
    assert main([*arguments, "--backend", "null"]) == 1
    assert words in reason(capsys.readouterr().err)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_protected_folder_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # pragma: no cover
    tmp_path.chmod(0o500)
    assert main(["stress", *SMALL, "--output", str(tmp_path / "out"), "--backend", "null"]) == 1
    assert "cannot write" in reason(capsys.readouterr().err)


def test_output_is_checked_before_rendering(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("a device was opened")

    monkeypatch.setattr("renderers.commands.stress.open_device", fail)
    monkeypatch.setattr("renderers.commands.triangle.open_device", fail)
    file = tmp_path / "file"
    file.touch()
    assert main(["stress", "--output", str(file)]) == 1
    assert "cannot write" in reason(capsys.readouterr().err)
    assert main(["triangle", "--output", str(file / "picture.png")]) == 1
    assert "cannot write" in reason(capsys.readouterr().err)


@pytest.mark.usefixtures("small_sky")
def test_a_failed_check_fails_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def expect(words: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
        return words + np.uint32(1)

    def make(device: Any, source: Any, nbytes: int) -> CopyCheck:
        return CopyCheck(device, source, nbytes, expect)

    monkeypatch.setattr("renderers.stress.CopyCheck", make)
    assert main(["stress", *SMALL, "--output", str(tmp_path), "--backend", "null"]) == 1
    captured = capsys.readouterr()
    assert "2 of 2 readback checks failed; frame 0: word 0" in reason(captured.err)
    assert "0 passed, 2 failed" in captured.out
    report = json.loads((tmp_path / "stress.json").read_text(encoding="utf-8"))
    assert len(report["check_failures"]) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="Vulkan's loader is asked to find no driver")
@pytest.mark.parametrize("command", [["info"], ["info", "--json"], ["stress"]])
def test_no_driver_is_said(command: list[str], tmp_path: Path) -> None:
    nowhere = {"VK_DRIVER_FILES": "/nowhere", "VK_ICD_FILENAMES": "/nowhere"}
    result = pers_process(*command, cwd=tmp_path, **nowhere)
    assert result.returncode == 1
    assert "driver" in reason(result.stderr)
    assert "install" in reason(result.stderr)
    if "--json" in command:
        report = json.loads(result.stdout)
        assert report["adapters"] == []
        assert report["device"] is None
    elif command == ["info"]:
        assert "null backend" in result.stdout


@pytest.mark.parametrize("missing", ["typer", "rich", "PIL"])
def test_a_missing_extra_is_said(missing: str, tmp_path: Path) -> None:
    program = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from renderers.cli import main; sys.exit(main(['info']))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=process_environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 1
    assert reason(result.stderr).endswith("pip install 'pers[cli]'")


def test_tracebacks_are_for_those_who_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["triangle", "--backend", "null", "--size", "100000x1", "--output", "x.png"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PERS_DEBUG", "0")
    assert main(arguments) == 1
    assert "Traceback" not in capsys.readouterr().err
    monkeypatch.setenv("PERS_DEBUG", "1")
    assert main(arguments) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_an_interrupt_ends_quietly(tmp_path: Path) -> None:
    command = ["-m", "renderers.cli", "stress", "--backend", "null", "--frames", "9999999"]
    with subprocess.Popen(
        [sys.executable, "-X", "faulthandler", *command],
        cwd=tmp_path,
        env=process_environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "out").is_dir() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        try:
            out, err = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # says where each thread is
            pytest.fail(f"it goes on:\n{process.communicate()[1]}")
    assert process.returncode == 130
    assert "Traceback" not in err
    assert out == ""


# --- Windows --------------------------------------------------------------------------------------


def windowed(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run ``pers`` with a display: the one that is there, or a virtual one."""
    command = [*PERS, *arguments]
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        if shutil.which("xvfb-run") is None:
            pytest.skip("no display, and no xvfb-run to make one")
        command = ["xvfb-run", "-a", *command]
    return subprocess.run(
        command,
        cwd=cwd,
        env=process_environment(cwd),
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.mark.gpu
@pytest.mark.window
def test_triangle_in_a_window(tmp_path: Path) -> None:
    result = windowed("triangle", "--window", "--frames", "4", "--size", "200x150", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "200x150, 4 frames" in result.stdout
    with Image.open(tmp_path / "out" / "triangle.png") as picture:
        assert picture.size == (200, 150)


@pytest.mark.gpu
@pytest.mark.window
def test_stress_in_a_window(tmp_path: Path) -> None:
    result = windowed("stress", "--window", *SMALL, "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["frames"] == 5
    assert report["checks_passed"] == 2
    with Image.open(tmp_path / "out" / "stress.png") as picture:
        assert picture.size == (96, 64)
        assert len(picture.getcolors(96 * 64) or []) > 500


@pytest.mark.window
def test_null_backend_has_no_windows(tmp_path: Path) -> None:
    result = windowed("triangle", "--window", "--frames", "1", "--backend", "null", cwd=tmp_path)
    assert result.returncode == 1
    assert "window" in reason(result.stderr)


@pytest.mark.skipif(sys.platform != "linux", reason="needs X11")
def test_a_display_that_is_not_there_is_said(tmp_path: Path) -> None:
    """The native library would abort the process."""
    nowhere = {"DISPLAY": ":4242", "WAYLAND_DISPLAY": ""}
    arguments = ["triangle", "--window", "--frames", "1", "--backend", "null"]
    result = pers_process(*arguments, cwd=tmp_path, **nowhere)
    assert result.returncode == 1
    assert "display :4242" in reason(result.stderr)
