"""``pers share`` as a user runs it: two processes, and what they say."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

from pers import (
    HostTextureShareManager,
    TextureDescriptor,
    TexturePublisher,
    TextureSubscriber,
    TextureUsage,
    list_streams,
)
from pers.sharing.ipc.address import socket_folder
from renderers.moving_picture import MovingPicture

PIL = pytest.importorskip("PIL.Image", reason="comes with the extra `cli`")

ROOT = Path(__file__).resolve().parents[2]
PERS = [sys.executable, "-W", "error", "-m", "renderers.cli", "share"]
SMALL = ["--size", "64x48", "--fps", "200"]
SECONDS = 60
"""For what takes one; only a command that hangs takes longer."""

Process: TypeAlias = "subprocess.Popen[str]"
Start: TypeAlias = Callable[..., Process]

PRODUCER_KEYS = {
    "backend", "bytes_per_second", "device", "dropped", "frames", "frames_per_second", "height",
    "name", "seconds", "waits", "width", "zero_copy",
}  # fmt: skip
CONSUMER_KEYS = {
    "backend", "bytes_per_second", "device", "dropped", "frames", "height", "latency_ms_p50",
    "latency_ms_p99", "name", "policy", "seconds", "verified", "width", "wrong_frames", "zero_copy",
}  # fmt: skip


@pytest.fixture(autouse=True)
def sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of its own for the sockets, for this process and those it starts."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts ``pers share`` in the background; what still runs at the end is killed."""
    running: list[Process] = []

    def start(*arguments: str) -> Process:
        process = subprocess.Popen(
            [*PERS, *arguments],
            cwd=tmp_path,
            env={**os.environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


def finish(process: Process, status: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == status, err
    return out, err


def stop(process: Process) -> dict[str, Any]:
    """Press Ctrl+C, and return the report."""
    process.send_signal(signal.SIGINT)
    out, err = finish(process)
    assert "Traceback" not in err
    report: dict[str, Any] = json.loads(out)
    return report


def refusal(process: Process) -> str:
    """The one line in which a command says why it failed."""
    out, err = finish(process, status=1)
    assert out == ""
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("pers: error: ")]
    assert len(lines) == 1, err
    assert err.strip().endswith(lines[0]), "nothing comes after it"
    return lines[0]


def wait_for(name: str) -> None:
    """Return when the stream is there."""
    with HostTextureShareManager() as manager:
        TextureSubscriber(name, manager, timeout_ns=SECONDS * 10**9).close()


@pytest.mark.parametrize("backend", ["auto", "host", pytest.param("webgpu", marks=pytest.mark.gpu)])
def test_two_processes_share_a_moving_picture(start: Start, tmp_path: Path, backend: str) -> None:
    common = ["--name", "moving", "--backend", backend, "--json"]
    output = tmp_path / "out"
    consumer = start(
        "consume", *common, "--frames", "30", "--policy", "every", "--verify",
        "--output", str(output), "--timeout", str(SECONDS),
    )  # fmt: skip
    producer = start("produce", *common, *SMALL)
    seen = json.loads(finish(consumer)[0])
    made = stop(producer)

    assert set(seen) == CONSUMER_KEYS
    assert (seen["frames"], seen["dropped"], seen["wrong_frames"]) == (30, 0, 0)
    assert (seen["width"], seen["height"], seen["policy"]) == (64, 48, "every")
    assert seen["verified"] is True
    assert 0 < seen["latency_ms_p50"] <= seen["latency_ms_p99"]
    assert set(made) == PRODUCER_KEYS
    assert made["frames"] >= 30
    assert (made["width"], made["height"]) == (64, 48)
    for report in (seen, made):
        assert report["name"] == "moving"
        assert backend in ("auto", report["backend"])
        assert report["zero_copy"] is (report["backend"] == "vulkan")

    assert {path.name for path in output.iterdir()} == {"share.png", "share.json"}
    assert json.loads((output / "share.json").read_text(encoding="utf-8")) == seen
    pixels = np.asarray(PIL.open(output / "share.png"))
    number = int.from_bytes(pixels[0, 0].tobytes(), "little")  # 3 bytes: the file is opaque
    assert np.array_equal(pixels, MovingPicture(64, 48).frame(number)[..., :3])
    assert list_streams() == []


def test_the_producer_ends_by_itself_and_people_get_a_table(start: Start) -> None:
    consumer = start("consume", "--name", "short", "--backend", "host", "--timeout", str(SECONDS))
    producer = start(
        "produce", "--name", "short", "--backend", "host", *SMALL, "--frames", "5", "--wait"
    )
    made, _ = finish(producer)
    assert "host was asked for" in made
    assert "frames" in made
    seen, progress = finish(consumer)
    assert "latency ms p50" in seen
    assert "Reading" in progress


def test_wrong_pixels_are_found(start: Start) -> None:
    """A publisher of something else under the same name."""
    usage = TextureUsage.COPY_SRC | TextureUsage.COPY_DST
    with HostTextureShareManager() as manager:
        descriptor = TextureDescriptor(64, 48, "rgba8unorm", usage)
        with TexturePublisher("wrong", descriptor, manager) as publisher:
            with publisher.next_frame() as frame:
                frame.view.upload(np.full((48, 64, 4), 7, np.uint8))
            arguments = ["--name", "wrong", "--backend", "host", "--frames", "1", "--verify"]
            process = start("consume", *arguments)
            _, err = finish(process, status=1)
    assert "pers: error: 1 of 1 frames have wrong pixels" in err


def test_a_name_that_nobody_publishes(start: Start) -> None:
    process = start("consume", "--name", "nobody", "--backend", "host", "--timeout", "0.1")
    line = refusal(process)
    assert line.startswith("pers: error: there was no stream named 'nobody' within 0.1 s")


def test_a_name_that_is_taken(start: Start) -> None:
    producing = ["produce", "--name", "taken", "--backend", "host", "--json", *SMALL]
    first = start(*producing)
    wait_for("taken")
    assert "a stream named 'taken' is being published already" in refusal(start(*producing))
    assert stop(first)["frames"] > 0, "the first goes on"


def test_list_shows_what_runs(start: Start) -> None:
    assert finish(start("list"))[0] == "there is no stream; start one with: pers share produce\n"
    assert json.loads(finish(start("list", "--json"))[0]) == []
    producers = [
        start("produce", "--name", name, "--backend", "host", "--json", *SMALL)
        for name in ("right", "left")
    ]
    for name in ("right", "left"):
        wait_for(name)
    assert finish(start("list"))[0] == "left\nright\n"
    assert json.loads(finish(start("list", "--json"))[0]) == ["left", "right"]
    for process in producers:
        stop(process)
    assert json.loads(finish(start("list", "--json"))[0]) == []


def test_ctrl_c_while_there_is_no_stream(start: Start) -> None:
    consumer = start(
        "consume", "--name", "nobody", "--backend", "host", "--json", "--timeout", "3600"
    )
    while not socket_folder().exists():  # where it looks for the stream
        assert consumer.poll() is None
        time.sleep(0.01)
    assert stop(consumer)["frames"] == 0


def test_ctrl_c_while_no_frame_comes(start: Start) -> None:
    consuming = ["consume", "--name", "still", "--backend", "host", "--policy", "every"]
    with HostTextureShareManager() as manager:
        descriptor = TextureDescriptor(64, 48, "rgba8unorm", TextureUsage.COPY_DST)
        with TexturePublisher("still", descriptor, manager, buffers=1) as publisher:
            with publisher.next_frame():
                pass
            consumer = start(*consuming, "--json", "--timeout", "3600")
            while not publisher.stats.clients:
                assert consumer.poll() is None
                time.sleep(0.01)
            with publisher.next_frame(timeout_ns=SECONDS * 10**9):  # so the first was read
                assert stop(consumer)["frames"] == 1


def test_ctrl_c_while_the_next_frame_is_minutes_away(start: Start) -> None:
    producer = start("produce", "--name", "slow", "--backend", "host", "--json", "--fps", "0.001")
    with (
        HostTextureShareManager() as manager,
        TextureSubscriber("slow", manager, timeout_ns=SECONDS * 10**9) as subscriber,
        subscriber.next_frame() as frame,
    ):
        assert frame.number == 1
        assert stop(producer)["frames"] == 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["produce", "--fps", "1e-300"], "--fps.*neither 0 nor in 0.001 to"),
        (["produce", "--fps", "nan"], "--fps.*neither 0 nor in 0.001 to"),
        (["consume", "--timeout", "inf"], "--timeout.*not in 0 to 86400"),
        (["consume", "--timeout", "nan"], "--timeout.*not in 0 to 86400"),
        (["consume", "--timeout", "-1"], "--timeout.*not in 0 to 86400"),
    ],
)
def test_numbers_out_of_range(start: Start, arguments: list[str], reason: str) -> None:
    _, err = finish(start(*arguments), status=2)
    text = " ".join(err.replace("\u2502", " ").split())
    assert re.search(reason, text), err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["produce", "--size", "1x48"], "at least 2 pixels wide"),
        (["produce", "--name", "no spaces", "--backend", "host"], "cannot be named 'no spaces'"),
        (["consume", "--backend", "metal"], "Metal needs macOS"),
    ],
)
@pytest.mark.skipif(sys.platform == "darwin", reason="there is Metal here, perhaps")
def test_wrong_arguments(start: Start, arguments: list[str], reason: str) -> None:
    assert reason in refusal(start(*arguments))
