"""Where streams are found, and who may be there."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pers import OperationNotSupportedError, ShareError, ValidationError
from pers.sharing.ipc import address as module
from pers.sharing.ipc.address import Address, Claim, list_streams, socket_folder
from pers.sharing.ipc.credentials import Credentials, check_peer, read_credentials, user_number
from tests.sharing.support import linux, open_fds


@pytest.fixture(autouse=True)
def runtime_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def claim() -> Iterator[Claim]:
    made = Claim(Address("stream"))
    yield made
    made.close()


def left() -> list[str]:
    return sorted(path.name for path in socket_folder().iterdir())


# --- The folder -----------------------------------------------------------------------------------


def test_the_folder_is_for_one_user(claim: Claim, runtime_folder: Path) -> None:
    folder = runtime_folder / f"pers-{os.geteuid()}"
    assert socket_folder() == folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert folder.stat().st_uid == os.geteuid()


def test_the_temporary_folder_stands_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    assert socket_folder() == tmp_path / "temporary" / f"pers-{os.geteuid()}"
    Claim(Address("stream")).close()


def test_an_open_folder_is_refused() -> None:
    socket_folder().mkdir(mode=0o755)
    with pytest.raises(ShareError, match=r"mode 755.*XDG_RUNTIME_DIR"):
        Claim(Address("stream"))


def test_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    socket_folder().symlink_to(tmp_path / "elsewhere")
    for call in (lambda: Claim(Address("stream")), list_streams, Address("stream").connect):
        with pytest.raises(ShareError, match="is a link"):
            call()


def test_a_file_is_refused() -> None:
    socket_folder().write_text("")
    with pytest.raises(ShareError, match="no folder"):
        list_streams()


@pytest.mark.parametrize("base", ["a file", "/proc/nothing", "x" * 300])
def test_a_folder_that_cannot_be_made(
    base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / base))
    for call in (lambda: Claim(Address("stream")), list_streams, Address("stream").connect):
        with pytest.raises(ShareError, match="cannot be made: .*; set XDG_RUNTIME_DIR"):
            call()


@pytest.mark.parametrize("name", ["stream.lock", "stream.sock"])
@linux
def test_a_folder_in_the_place_of_a_file(name: str, tmp_path: Path) -> None:
    list_streams()
    before = open_fds()
    (socket_folder() / name).mkdir()
    with pytest.raises(ShareError, match="cannot be used for streams: Is a directory"):
        Claim(Address("stream"))
    assert open_fds() == before


def test_a_folder_of_another_user_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = socket_folder()
    folder.mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    monkeypatch.setattr(module, "socket_folder", lambda uid=None: folder)
    with pytest.raises(ShareError, match=f"belongs to user {folder.stat().st_uid}, not 4711"):
        Claim(Address("stream"))


def test_the_folder_is_that_of_the_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing removes what was made, and not what another has made elsewhere since."""
    first = Claim(Address("stream"))
    first.listen(1)
    old = left_in(first)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "other"))
    second = Claim(Address("stream"))
    second.listen(1)
    first.close()
    assert old == ["stream.lock", "stream.sock"]
    assert left_in(first) == []
    assert list_streams() == ["stream"]
    second.close()
    assert left_in(second) == []


def left_in(claim: Claim) -> list[str]:
    return sorted(path.name for path in claim.address.folder.iterdir())


# --- Names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "a/b", "../x", "a b", "ä", "x" * 65, "a\0", "a\n", 7, None])
def test_names_that_are_no_names(name: str) -> None:
    with pytest.raises(ValidationError, match="cannot be named"):
        Address(name)


@pytest.mark.parametrize("name", ["a", "x" * 64, "My-stream_2.5", "..", "a.sock"])
def test_names(name: str) -> None:
    claim = Claim(Address(name))
    claim.listen(1)
    assert list_streams() == [name]
    claim.close()
    assert left() == []


def test_one_name_has_one_publisher(claim: Claim) -> None:
    with pytest.raises(ShareError, match="published already.*choose another name"):
        Claim(Address("stream"))
    assert Claim.try_now(Address("stream")) is None
    claim.close()
    Claim(Address("stream")).close()


def test_publishers_that_race_for_a_name() -> None:
    """However often: one at a time has it, and it is never lost."""
    winners: list[int] = []
    inside = threading.Semaphore(1)

    def try_often(number: int) -> None:
        for _ in range(40):
            try:
                claim = Claim(Address("stream"))
            except ShareError:
                continue
            assert inside.acquire(blocking=False)
            winners.append(number)
            inside.release()
            claim.close()

    threads = [threading.Thread(target=try_often, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(winners) >= 40
    assert left() == []


# --- Connecting -----------------------------------------------------------------------------------


def test_connecting(claim: Claim) -> None:
    address = Address("stream")
    assert address.connect() is None
    listener = claim.listen(1)
    connection = address.connect()
    assert connection is not None
    accepted, _ = listener.accept()
    assert read_credentials(accepted).uid == os.geteuid()
    assert read_credentials(connection).pid == os.getpid()
    assert not connection.get_inheritable()
    accepted.close()
    connection.close()
    claim.close()
    assert address.connect() is None
    assert left() == []


@linux
def test_nothing_stays_open(claim: Claim) -> None:
    before = open_fds()
    for _ in range(3):
        Address("nobody").connect()
        with pytest.raises(ShareError):
            Claim(Address("stream"))
        list_streams()
        other = Claim(Address("other"))
        other.listen(1)
        other.close()
    assert open_fds() == before


@linux
def test_long_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket's address has 108 bytes; the folder's path may be longer."""
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    claim = Claim(Address("x" * 64))
    claim.listen(1)
    connection = Address("x" * 64).connect()
    assert connection is not None
    connection.close()
    assert list_streams() == ["x" * 64]
    claim.close()
    assert left() == []


def test_long_paths_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module.sys, "platform", "darwin")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / ("d" * 100)))
    claim = Claim(Address("stream"))
    with pytest.raises(ShareError, match="longer than.*shorter folder"):
        claim.listen(1)
    claim.close()


def test_windows_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.sys, "platform", "win32")
    for call in (lambda: Claim(Address("s", 0)), list_streams, Address("s", 0).connect):
        with pytest.raises(OperationNotSupportedError, match="Windows"):
            call()


# --- After a crash --------------------------------------------------------------------------------

CRASH = """
import os, signal, sys
from pers.sharing.ipc.address import Address, Claim
claim = Claim(Address("stream"))
claim.listen(1)
print("listening", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def stale() -> None:
    """What a publisher leaves behind that was killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", CRASH], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "listening\n"
    assert list_streams() == ["stream"]
    with pytest.raises(ShareError, match="published already"):
        Claim(Address("stream"))
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)
    assert left() == ["stream.lock", "stream.sock"]


def test_a_stale_stream_is_not_listed(stale: None) -> None:
    assert list_streams() == []
    assert left() == []


def test_a_stale_stream_is_not_connected(stale: None) -> None:
    assert Address("stream").connect() is None
    assert Address("stream").remove_stale()
    assert left() == []
    assert Address("stream").remove_stale()


def test_a_stale_name_can_be_taken(stale: None) -> None:
    claim = Claim(Address("stream"))
    claim.listen(1)
    connection = Address("stream").connect()
    assert connection is not None
    connection.close()
    assert not Address("stream").remove_stale()
    claim.close()
    assert left() == []


def test_other_files_are_left_alone(claim: Claim) -> None:
    (socket_folder() / "notes.txt").write_text("")
    (socket_folder() / "not a name.lock").write_text("")
    assert list_streams() == ["stream"]
    claim.close()
    assert left() == ["not a name.lock", "notes.txt"]


# --- Who is there ---------------------------------------------------------------------------------


def test_credentials_of_the_other_side() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert read_credentials(one) == Credentials(os.getpid(), os.geteuid())


def test_users_by_name_and_number() -> None:
    assert user_number(4711) == 4711
    assert user_number("root") == 0
    with pytest.raises(ValidationError, match="no user named 'nobody-of-that-name'"):
        user_number("nobody-of-that-name")
    with pytest.raises(ValidationError, match="a name or a number"):
        user_number(1.5)  # type: ignore[arg-type]


def test_other_users_are_refused() -> None:
    check_peer(Credentials(1, os.geteuid()))
    check_peer(Credentials(1, 4711), [4711])
    with pytest.raises(ShareError, match="belongs to user 4711.*allow_users"):
        check_peer(Credentials(1, 4711), [4712])
