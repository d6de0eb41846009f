"""Does everything with fewer file descriptors than it takes: ``few_files.py BACKEND STREAM``.

Each call is made with none left, then with one, and so on until it works. What comes out of it must
be an error of pers, nothing may stay open, and the call must work once the limit is back. To have
the stream resized it prints ``resize`` and reads a line; for each call it prints which errors came.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs

from pers import PeerLostError, PersError, ProtocolError, TextureShareManager
from pers.sharing.stream import TexturePublisher, TextureSubscriber, list_streams
from tests.sharing.support import MANAGERS, describe, open_fds

BACKEND, STREAM = sys.argv[1:]
MOST = 100
SMALL = describe(8, 4)


@contextmanager
def room_for(count: int) -> Iterator[None]:
    """Let this process open so many files more."""
    limit, free = 0, 0
    while free < count or not is_free(limit):
        free += is_free(limit)
        limit += 1
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def is_free(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return True
    return False


def tighten(name: str, call: Callable[[], Any]) -> None:
    call()  # what is loaded once
    before = open_fds()
    seen = []
    for room in range(MOST):
        failed = kind_of_failure(room, call)
        check_open(before, call, f"{name}: after {failed}")
        if not failed:
            break
        seen.append(failed)
        call()
        check_open(before, call, f"{name}: after it worked again")
    else:
        raise AssertionError(f"{name} never worked: {seen}")
    print(name, *dict.fromkeys(seen), flush=True)


def check_open(before: int, call: Callable[[], Any], when: str) -> None:
    """Compare with what was open; a GPU lets go of its memory with the next calls."""
    for _ in range(100):
        if open_fds() == before or BACKEND != "vulkan":
            break
        time.sleep(0.01)
        call()
    assert open_fds() == before, when


def kind_of_failure(room: int, call: Callable[[], Any]) -> str:
    with room_for(room):
        try:
            call()
        except PersError as error:
            assert not isinstance(error, ProtocolError), error
            words = ("ulimit", "VK_") if not isinstance(error, PeerLostError) else ("ulimit",)
            assert any(word in str(error) for word in words), repr(error)
            return type(error).__name__
    return ""


class Calls:
    """Everything that opens a descriptor; what a call makes it closes."""

    def __init__(self, manager: TextureShareManager, stream: str) -> None:
        self._manager = manager
        self._stream = stream
        self._texture = manager.create_shareable_texture(SMALL)
        self._handle = manager.export_texture(self._texture)

    def duplicate(self) -> None:
        self._handle.fds[0].duplicate().close()

    def texture(self) -> None:
        with self._manager.create_shareable_texture(SMALL) as texture:
            assert texture.is_valid

    def export_texture(self) -> None:
        self._manager.export_texture(self._texture).close()

    def import_texture(self) -> None:
        self._manager.import_texture(self._handle, SMALL).close()

    def buffer(self) -> None:
        manager = self._manager
        with (
            manager.create_shareable_buffer(64) as buffer,
            manager.export_buffer(buffer) as handle,
        ):
            manager.import_buffer(handle).close()

    def timeline(self) -> None:
        self._semaphore("timeline")

    def binary(self) -> None:
        self._semaphore("binary")

    def _semaphore(self, kind: Any) -> None:
        manager = self._manager
        if kind in manager.capabilities.semaphores:
            with (
                manager.create_semaphore(kind) as semaphore,
                manager.export_semaphore(semaphore) as handle,
            ):
                manager.import_semaphore(handle).close()

    def fence(self) -> None:
        manager = self._manager
        if manager.capabilities.fences:
            with manager.create_fence() as fence, manager.export_fence(fence) as handle:
                manager.import_fence(handle).close()

    def event(self) -> None:
        manager = self._manager
        if manager.capabilities.backend != "vulkan":
            with manager.create_event() as event, manager.export_event(event) as handle:
                manager.import_event(handle).close()

    def list(self) -> None:
        assert list_streams() == [self._stream]

    def publish(self) -> None:
        with TexturePublisher("own", SMALL, self._manager) as publisher:
            assert publisher.descriptor == SMALL

    def subscribe(self) -> None:
        TextureSubscriber(self._stream, self._manager, timeout_ns=20_000_000_000).close()


def tighten_publisher(manager: TextureShareManager) -> None:
    """A publisher that could not be resized goes on as it was."""
    with TexturePublisher("own", SMALL, manager) as publisher:

        def resize() -> None:
            old = publisher.descriptor
            new = attrs.evolve(old, width=24 - old.width)
            try:
                publisher.resize(new)
            finally:
                with publisher.next_frame() as frame:
                    assert frame.texture.descriptor == publisher.descriptor in (old, new)

        tighten("resize", resize)


def tighten_subscriber(manager: TextureShareManager, stream: str) -> None:
    """A subscriber that could not open new textures says so, and can connect again."""
    with TextureSubscriber(stream, manager, timeout_ns=20_000_000_000) as subscriber:

        def follow() -> None:
            if not subscriber.is_connected:
                subscriber.reconnect()
            print("resize", flush=True)
            sys.stdin.readline()
            with subscriber.next_frame() as frame:
                frame.view.download()

        tighten("follow", follow)


def main() -> None:
    with MANAGERS[BACKEND]() as manager:
        calls = Calls(manager, STREAM)
        for name in vars(Calls):
            if not name.startswith("_"):
                tighten(name, getattr(calls, name))
        tighten_publisher(manager)
        tighten_subscriber(manager, STREAM)


if __name__ == "__main__":
    main()
