"""Streams between processes, and what happens when one of them is killed.

The pictures are compared byte by byte between processes that were started separately.
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from pers import HostTextureShareManager, PeerLostError, TextureFormat, WaitTimeoutError
from pers.sharing.ipc.address import socket_folder
from pers.sharing.stream import TexturePublisher, TextureSubscriber, list_streams
from tests.sharing.programs import publisher as publisher_program
from tests.sharing.programs import subscriber as subscriber_program
from tests.sharing.support import describe, linux, open_fds, picture
from tests.sharing.test_stream import check, read, until, write

pytestmark = linux

SECOND = 1_000_000_000
PATIENCE = 30 * SECOND
SMALL, LARGE = describe(8, 4), describe(32, 16, TextureFormat.R16_UINT)


@pytest.fixture(autouse=True)
def runtime_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sockets of a test's own; nothing may be left there, however a process ends."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    yield
    gc.collect()
    assert [path.name for path in socket_folder().glob("*")] == []


@pytest.fixture
def manager() -> Iterator[HostTextureShareManager]:
    with HostTextureShareManager() as manager:
        yield manager


@contextmanager
def running(program: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A program of tests/sharing/programs, killed at the end when it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", f"tests.sharing.programs.{program}", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate(timeout=30)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def ended(process: subprocess.Popen[str]) -> int:
    return process.wait(timeout=60)


# --- Pictures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["latest", "every"])
def test_pictures_of_another_process(manager: HostTextureShareManager, policy: str) -> None:
    with running("publisher", "stream") as process:
        with TextureSubscriber("stream", manager, policy=policy, timeout_ns=PATIENCE) as subscriber:
            numbers = [read(subscriber) for _ in range(50)]
            assert list_streams() == ["stream"]
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert numbers == sorted(set(numbers))
    if policy == "every":
        assert numbers == list(range(numbers[0], numbers[0] + 50))


def test_pictures_in_another_process(manager: HostTextureShareManager) -> None:
    """Several of them, through a change of size; each checks every frame."""
    with TexturePublisher("stream", SMALL, manager, timeout_ns=PATIENCE) as publisher:
        with running("subscriber", "stream") as one, running("subscriber", "stream") as other:
            until(lambda: publisher.stats.clients == 2)
            for _ in range(20):
                write(publisher)
            publisher.resize(LARGE)
            for _ in range(20):
                write(publisher)
            publisher.close()
            for process in (one, other):
                output, _ = process.communicate(timeout=60)
                assert process.returncode == 0
                assert output.splitlines() == [
                    f"{number} {8 if number <= 20 else 32}" for number in range(1, 41)
                ]


# --- The publisher is killed ----------------------------------------------------------------------


@pytest.mark.parametrize("point", publisher_program.POINTS)
def test_a_publisher_that_is_killed(manager: HostTextureShareManager, point: str) -> None:
    """Whoever waits is told, sees nothing half written, and goes on with the next publisher."""
    numbers: list[int] = []
    with running("publisher", "stream", point) as process:
        if point in ("name taken", "listening"):  # nobody can connect, or nobody answers
            assert ended(process) == -signal.SIGKILL
            with pytest.raises((WaitTimeoutError, PeerLostError)):
                TextureSubscriber("stream", manager, timeout_ns=SECOND // 20)
        elif point in publisher_program.EARLY and point != "textures sent":
            with pytest.raises(PeerLostError, match="is gone"):
                TextureSubscriber("stream", manager, policy="every", timeout_ns=PATIENCE)
        else:
            subscriber = TextureSubscriber("stream", manager, policy="every", timeout_ns=PATIENCE)
            with pytest.raises(PeerLostError, match="is gone|has closed"):
                while True:
                    numbers.append(read(subscriber))
            assert not subscriber.is_connected
            subscriber.close()
        assert ended(process) == -signal.SIGKILL
    last = 3 if point == "notice sent" else 0 if point in publisher_program.EARLY else 2
    assert numbers == list(range(1, last + 1))

    assert list_streams() == []
    with (
        TexturePublisher("stream", SMALL, manager) as publisher,
        TextureSubscriber("stream", manager, timeout_ns=PATIENCE) as subscriber,
    ):
        write(publisher)
        assert read(subscriber) == 1


@pytest.mark.parametrize("point", ["frame half written", "notice half sent"])
def test_a_subscriber_reconnects(manager: HostTextureShareManager, point: str) -> None:
    """With the same object, to a publisher of another size."""
    with running("publisher", "stream", point) as process:
        subscriber = TextureSubscriber("stream", manager, timeout_ns=PATIENCE)
        with pytest.raises(PeerLostError):
            while True:
                read(subscriber)
        assert ended(process) == -signal.SIGKILL
    with TexturePublisher("stream", LARGE, manager) as publisher, subscriber:
        subscriber.reconnect()
        write(publisher)
        assert read(subscriber) == 1
        assert subscriber.stats.connections == 2


def test_a_frame_may_be_read_while_its_publisher_dies(manager: HostTextureShareManager) -> None:
    """Its memory lives as long as anyone has it."""
    with running("publisher", "stream") as process:
        with TextureSubscriber("stream", manager, timeout_ns=PATIENCE) as subscriber:
            with subscriber.next_frame() as frame:
                process.send_signal(signal.SIGKILL)
                assert ended(process) == -signal.SIGKILL
                check(frame)
            with pytest.raises(PeerLostError, match="is gone"):
                while True:
                    read(subscriber)


@pytest.mark.parametrize(
    "point", ["forked", "forked with a client", "forked with a client at the door"]
)
def test_a_publisher_whose_child_lives_on(manager: HostTextureShareManager, point: str) -> None:
    """The child has copies of everything; its parent is missed all the same."""
    with running("publisher", "stream", point) as process:
        subscriber = TextureSubscriber("stream", manager, timeout_ns=PATIENCE)
        with subscriber, pytest.raises(PeerLostError, match="is gone"):
            while True:
                read(subscriber)
        assert process.stdout is not None
        assert process.stdout.readline() == "publishing\n"
        child = int(process.stdout.readline())
        try:
            os.kill(child, 0)  # it lives
            until(lambda: not list_streams())  # it may still be at the very beginning of its life
            TexturePublisher("stream", SMALL, manager).close()
        finally:
            os.kill(child, signal.SIGKILL)


# --- A subscriber is killed -----------------------------------------------------------------------


@pytest.mark.parametrize("point", subscriber_program.POINTS)
def test_a_subscriber_that_is_killed(manager: HostTextureShareManager, point: str) -> None:
    """The publisher goes on, and so do the others; what the dead one had open is free again."""
    with (
        TexturePublisher("stream", SMALL, manager, buffers=2, timeout_ns=PATIENCE) as publisher,
        HostTextureShareManager() as its_own,
    ):
        other = TextureSubscriber("stream", its_own, timeout_ns=PATIENCE)
        write(publisher)
        assert read(other) == 1
        gc.collect()
        before = open_fds()
        with running("subscriber", "stream", point) as process:
            if point not in subscriber_program.EARLY:
                until(lambda: publisher.stats.clients == 2)
            while process.poll() is None:
                write(publisher)
            assert ended(process) == -signal.SIGKILL
        until(lambda: publisher.stats.clients == 1)
        for _ in range(5):
            write(publisher)
        with other.next_frame() as frame:
            check(frame)
            assert frame.number == publisher.stats.frames
        other.close()
        with TextureSubscriber("stream", its_own, policy="every") as subscriber:
            assert read(subscriber) == publisher.stats.frames
            number = write(publisher)
            assert read(subscriber) == number
        until(lambda: publisher.stats.clients == 0)
        gc.collect()
        assert open_fds() <= before


FORGETFUL = """
import pers
usage = pers.TextureUsage.COPY_DST
picture = pers.TextureDescriptor(4, 4, pers.TextureFormat.R8_UNORM, usage)
publisher = pers.TexturePublisher("forgotten", picture, pers.HostTextureShareManager())
print("ready", flush=True)
input()
"""


def test_a_publisher_that_is_not_closed_says_goodbye(manager: HostTextureShareManager) -> None:
    program = [sys.executable, "-c", FORGETFUL]
    pipe = subprocess.PIPE
    with subprocess.Popen(program, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with TextureSubscriber("forgotten", manager, timeout_ns=PATIENCE) as subscriber:
            _, complaints = process.communicate("\n", timeout=60)
            assert list(subscriber.frames()) == []  # not lost: closed
    assert complaints == ""


def test_a_subscriber_that_stands_still(manager: HostTextureShareManager) -> None:
    """It lives but reads no more: the publisher says so in time, and goes on when it is gone."""
    with TexturePublisher("stream", SMALL, manager, timeout_ns=PATIENCE) as publisher:
        with running("subscriber", "stream") as process:
            until(lambda: publisher.stats.clients == 1)
            write(publisher)
            assert process.stdout is not None
            assert process.stdout.readline().startswith("1 ")
            process.send_signal(signal.SIGSTOP)
            with pytest.raises(WaitTimeoutError, match=f"subscriber {process.pid} has not read"):
                for _ in range(5):
                    write(publisher, timeout_ns=SECOND // 20)
            process.send_signal(signal.SIGKILL)
            for _ in range(5):
                write(publisher)


def test_pictures_have_no_two_bytes_alike() -> None:
    """A frame that is mixed up with the one before cannot be taken for right."""
    assert not np.array_equal(picture(SMALL, 1), picture(SMALL, 2))
    assert np.mean(picture(SMALL, 1) == picture(SMALL, 2)) < 0.1
