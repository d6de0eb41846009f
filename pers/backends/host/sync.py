"""Semaphores, fences and events between processes without a GPU."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
import time
from pathlib import Path
from typing import Any

from pers.errors import InvalidTextureHandleError
from pers.sharing.control import Naps, create_memory, map_memory, poll_time
from pers.sharing.handles import EventHandle, FenceHandle, OwnedFd, SemaphoreHandle
from pers.sharing.native import NativeCounter, NativeFence, NativeSemaphore
from pers.sharing.shortage import report_shortage

__all__ = ["HAS_BINARY", "HostBinary", "HostEvent", "HostFence", "HostTimeline"]

HAS_BINARY = sys.platform == "linux"
"""Binary semaphores are Linux's ``eventfd``."""


class HostBinary(NativeSemaphore):
    """A binary semaphore: an ``eventfd`` that counts signals.

    Args:
        fd: That of an import; None makes a new one.
    """

    def __init__(self, fd: OwnedFd | None = None) -> None:
        if fd is None:
            flags = os.EFD_CLOEXEC | os.EFD_NONBLOCK | os.EFD_SEMAPHORE
            with report_shortage("a binary semaphore cannot be made"):
                self._fd = OwnedFd(os.eventfd(0, flags))
            return
        kind = str(Path(f"/proc/self/fd/{fd.fileno()}").readlink())
        if kind != "anon_inode:[eventfd]":
            raise InvalidTextureHandleError(
                f"the handle of a binary semaphore is {kind}, not an eventfd; the other side must "
                "send the handle that it exported"
            )
        self._fd = fd.duplicate()

    @property
    def native_handle(self) -> OwnedFd:
        return self._fd

    def export(self) -> SemaphoreHandle:
        return SemaphoreHandle("host", "binary", self._fd.duplicate())

    def signal(self) -> None:
        """Let one wait through."""
        os.eventfd_write(self._fd.fileno(), 1)

    def wait(self, timeout_ns: int) -> bool:
        """Block until it is signalled and take the signal; False when that takes too long."""
        end = time.monotonic_ns() + timeout_ns
        with contextlib.closing(self._fd.duplicate()) as fd:  # it may be closed meanwhile
            number = fd.fileno()
            poll = select.poll()
            poll.register(number, select.POLLIN)
            while True:
                if poll.poll(poll_time(end)):
                    os.set_blocking(number, False)  # a peer may have changed that
                    # Unless somebody else was quicker.
                    with contextlib.suppress(BlockingIOError):
                        os.eventfd_read(number)
                        return True
                if time.monotonic_ns() >= end:
                    return False

    def give_back(self) -> None:
        """Undo a `wait`, unless the semaphore was closed since."""
        if self._fd.is_open:
            self.signal()

    def destroy(self) -> None:
        self._fd.close()


class _Number:
    """A number in shared memory.

    Args:
        fd: That of an import; None makes a new one.
    """

    SIZE = 4096

    def __init__(self, fd: OwnedFd | None = None) -> None:
        self.fd = create_memory(self.SIZE, "pers-sync") if fd is None else fd.duplicate()
        self._words = memoryview(map_memory(self.fd, self.SIZE)).cast("Q")
        self._changing = threading.Lock()

    @property
    def value(self) -> int:
        return self._words[0]

    @value.setter
    def value(self, value: int) -> None:
        self._words[0] = value

    def raise_to(self, value: int) -> None:
        """Set it unless it is beyond that already."""
        with self._changing:
            if value > self._words[0]:
                self._words[0] = value

    def wait(self, value: int, timeout_ns: int) -> bool:
        """Block until it has reached `value`; False when that takes too long."""
        if self._words[0] >= value:
            return True
        return any(self._words[0] >= value for _ in Naps(timeout_ns))

    def close(self) -> None:
        self.fd.close()
        # The mapping goes with the last thread that still looks at it.


class _HostCounter(NativeCounter[Any]):
    def __init__(self, fd: OwnedFd | None = None) -> None:
        self._number = _Number(fd)

    @property
    def native_handle(self) -> OwnedFd:
        return self._number.fd

    @property
    def value(self) -> int:
        return self._number.value

    def signal(self, value: int) -> None:
        self._number.raise_to(value)

    def wait(self, value: int, timeout_ns: int) -> bool:
        return self._number.wait(value, timeout_ns)

    def destroy(self) -> None:
        self._number.close()


class HostTimeline(_HostCounter):
    """A timeline semaphore: a number in shared memory."""

    def export(self) -> SemaphoreHandle:
        return SemaphoreHandle("host", "timeline", self._number.fd.duplicate())


class HostEvent(_HostCounter):
    """An event: the same number, without a kind."""

    def export(self) -> EventHandle:
        return EventHandle(self._number.fd.duplicate())


class HostFence(NativeFence):
    """A fence: a number that is 1 when it is signalled.

    Args:
        fd: That of an import; None makes a new one.
    """

    def __init__(self, fd: OwnedFd | None = None) -> None:
        self._number = _Number(fd)

    @property
    def native_handle(self) -> OwnedFd:
        return self._number.fd

    def export(self) -> FenceHandle:
        return FenceHandle("host", self._number.fd.duplicate())

    @property
    def is_signaled(self) -> bool:
        return self._number.value > 0

    def signal(self) -> None:
        """Signal it."""
        self._number.value = 1

    def wait(self, timeout_ns: int) -> bool:
        return self._number.wait(1, timeout_ns)

    def reset(self) -> None:
        self._number.value = 0

    def destroy(self) -> None:
        self._number.close()
