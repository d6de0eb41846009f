"""When the system has run out of descriptors, memory or room."""

from __future__ import annotations

import errno
import mmap
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from pers import HostTextureShareManager, OutOfMemoryError, PersError, ShareError
from pers.sharing.shortage import report_shortage
from pers.sharing.stream import TexturePublisher, TextureSubscriber, list_streams
from tests.sharing.support import MANAGERS, describe, linux, open_fds, picture

SMALL, LARGE = describe(8, 4), describe(16, 8)

pytestmark = linux


@pytest.fixture(autouse=True)
def runtime_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


MEMORY, STREAM = {"OutOfMemoryError"}, {"ShareError"}
EXPECTED = {
    "duplicate": MEMORY,
    "texture": MEMORY,
    "export_texture": MEMORY,
    "import_texture": MEMORY,
    "buffer": MEMORY,
    "timeline": MEMORY,
    "binary": MEMORY,
    "fence": MEMORY,
    "event": MEMORY,
    "list": STREAM,
    "publish": STREAM | MEMORY,
    "subscribe": STREAM | MEMORY,
    "resize": MEMORY,
    "follow": STREAM | MEMORY,
}


@pytest.mark.parametrize("backend", sorted({"host", "vulkan"} & set(MANAGERS)))
def test_too_few_descriptors(backend: str) -> None:
    """Whatever is called with however few left: an error of pers, nothing lost, and on it goes."""
    with MANAGERS[backend]() as manager, TexturePublisher("peer", SMALL, manager) as publisher:
        write(publisher)
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.sharing.programs.few_files", backend, "peer"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        assert process.stdin is not None
        assert process.stdout is not None
        seen = {}
        with process:
            for line in process.stdout:
                if line == "resize\n":
                    publisher.resize(LARGE if publisher.descriptor == SMALL else SMALL)
                    write(publisher)
                    process.stdin.write("done\n")
                    process.stdin.flush()
                else:
                    name, *kinds = line.split()
                    seen[name] = set(kinds)
        assert process.returncode == 0
    assert set(seen) == set(EXPECTED)
    for name, kinds in seen.items():
        # Not every driver exports semaphores and fences.
        assert kinds == EXPECTED[name] or (not kinds and backend == "vulkan"), name


def write(publisher: TexturePublisher) -> None:
    with publisher.next_frame() as frame:
        frame.view.upload(picture(frame.texture.descriptor, frame.number))


NUMBERS = {
    errno.EMFILE: "ulimit -n",
    errno.ENFILE: "the system has too many files open",
    errno.ENOMEM: "no memory for it; free some",
    errno.ENOSPC: "no room for it; free some",
}


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize(
    ("module", "name", "call", "kind"),
    [
        (os, "memfd_create", lambda it: it.create_shareable_texture(SMALL), OutOfMemoryError),
        (mmap, "mmap", lambda it: it.create_shareable_buffer(64), OutOfMemoryError),
        (os, "eventfd", lambda it: it.create_semaphore("binary"), OutOfMemoryError),
        (os, "dup", lambda it: it.export_event(it.create_event()), OutOfMemoryError),
        (os, "listdir", lambda it: list_streams(), ShareError),
        (socket, "socketpair", lambda it: TexturePublisher("own", SMALL, it), ShareError),
        (socket, "socket", lambda it: TextureSubscriber("own", it), ShareError),
    ],
)
def test_each_shortage_says_what_to_do(
    number: int,
    module: Any,
    name: str,
    call: Callable[[Any], Any],
    kind: type[PersError],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any, **__: Any) -> NoReturn:
        raise OSError(number, os.strerror(number))

    list_streams()  # makes the folder
    before = open_fds()
    with HostTextureShareManager() as manager:
        monkeypatch.setattr(module, name, fail)
        with pytest.raises(kind, match=NUMBERS[number]):
            call(manager)
        monkeypatch.undo()
    assert open_fds() == before


@pytest.mark.parametrize("size", [2**63 - 1, 2**62, 2**50])
def test_more_memory_than_there_is(size: int) -> None:
    with HostTextureShareManager() as manager:
        with pytest.raises(OutOfMemoryError, match=f"buffer 'huge': no {size} bytes.*ask for less"):
            manager.create_shareable_buffer(size, "huge")
        with pytest.raises(OutOfMemoryError, match="texture 'picture': no .* bytes"):
            manager.create_shareable_texture(describe(2**16, 2**16, layers=2**16))


def test_memory_is_there_before_it_is_written() -> None:
    with (
        HostTextureShareManager() as manager,
        manager.create_shareable_buffer(1 << 20) as buffer,
        manager.export_buffer(buffer) as handle,
    ):
        assert os.fstat(handle.fds[0].fileno()).st_blocks * 512 == 1 << 20


def test_other_errors_of_the_system_are_no_shortage() -> None:
    with pytest.raises(PermissionError), report_shortage("it cannot be made"):
        raise PermissionError(errno.EPERM, "not permitted")
