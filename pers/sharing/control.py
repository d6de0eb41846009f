"""The control page: a few numbers and a lock that the sides of a shared texture have in common.

The lock is the kernel's (``flock``), so it works between processes, and one that dies gives it up.
The numbers are hints; whatever a hostile peer writes there, it can only mislead those who wait.
"""

from __future__ import annotations

import mmap
import os
import sys
import tempfile
import threading
import time

from pers._checks import MAX_INT
from pers.errors import InvalidTextureHandleError, OutOfMemoryError
from pers.sharing.handles import OwnedFd
from pers.sharing.ipc.forks import abandon_in_children, no_forks
from pers.sharing.shortage import report_shortage

__all__ = ["ControlPage", "Naps", "create_memory", "map_memory", "poll_time"]

SIZE = 4096
MAGIC = b"persctl1"
READY, FRAME = 1, 2  # places of 8 bytes each

LINUX = sys.platform == "linux"

if sys.platform != "win32":
    import fcntl


def create_memory(size: int, name: str) -> OwnedFd:
    """Return new shared memory of `size` zero bytes, which has no name and goes with its last user.

    All of it is there from now on, where the system can promise that. Otherwise whoever writes the
    first byte that there is no room for is killed.

    On Linux it is sealed against resizing: memory that a peer can shorten under a mapping kills
    whoever reads it (``SIGBUS``).

    Raises:
        OutOfMemoryError: There is not so much, or the process has too many descriptors.
    """
    available = _available_memory()
    if size > available:
        raise OutOfMemoryError(
            f"no {size} bytes of shared memory: {available} are available; "
            "free some, or ask for less"
        )
    with report_shortage(f"no {size} bytes of shared memory"):
        if LINUX:
            flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
            fd = OwnedFd(os.memfd_create(name, flags))
            os.posix_fallocate(fd.fileno(), 0, size)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
            return fd
        with tempfile.TemporaryFile() as file:
            file.truncate(size)
            return OwnedFd(os.dup(file.fileno()))


def _available_memory() -> int:
    """Return how many bytes the system could give now, as far as it tells.

    Linux does not look at this itself: it goes on giving until other processes are killed.
    """
    try:
        with open("/proc/meminfo", "rb") as file:  # noqa: PTH123 - many times faster than Path
            for line in file:
                if line.startswith(b"MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:  # no Linux, or no /proc
        pass
    return MAX_INT


def map_memory(fd: OwnedFd, size: int) -> mmap.mmap:
    """Map shared memory that somebody may have sent.

    Raises:
        InvalidTextureHandleError: It is no shared memory, smaller than `size`, or could shrink.
        OutOfMemoryError: The process has no room for it, or too many descriptors.
    """
    try:
        length = os.fstat(fd.fileno()).st_size
        if length < size:
            raise InvalidTextureHandleError(
                f"the handle's memory has {length} bytes where {size} are needed; "
                "the other side must send the handle that it exported"
            )
        if LINUX and not fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
            raise InvalidTextureHandleError(
                "the handle's memory could be cut off by the other side (F_SEAL_SHRINK is not "
                "set); only memory that pers has exported is imported"
            )
        with report_shortage(f"{size} bytes of shared memory cannot be mapped"):
            return mmap.mmap(fd.fileno(), size)
    except (OSError, ValueError) as error:
        if isinstance(error, InvalidTextureHandleError):
            raise
        raise InvalidTextureHandleError(
            f"the handle's file descriptor is no shared memory ({error}); "
            "the other side must send the handle that it exported"
        ) from None


class ControlPage:
    """The page as one process sees it.

    Args:
        fd: The memory; None makes a new page. A copy is kept, the caller's stays the caller's.
    """

    def __init__(self, fd: OwnedFd | None = None) -> None:
        memory = create_memory(SIZE, "pers-control") if fd is None else fd
        with no_forks:
            # The lock belongs to an open file, which goes along with the handle; so use another.
            self._fd = _open_again(memory)
            abandon_in_children(self)
        self._map = map_memory(self._fd, SIZE)
        if fd is None:
            self._map[: len(MAGIC)] = MAGIC
        elif self._map[: len(MAGIC)] != MAGIC:
            raise InvalidTextureHandleError(
                "the handle's control page is none of pers'; "
                "the other side must run the same version"
            )
        self._words = memoryview(self._map).cast("Q")
        self._changing = threading.Lock()

    def export(self) -> OwnedFd:
        """Return a descriptor to send."""
        return _open_again(self._fd)

    def try_lock(self, *, exclusive: bool) -> bool:
        """Take the lock for reading or writing; False when another process's lock excludes it.

        Windows has no such lock: there nobody is excluded.
        """
        if sys.platform == "win32":
            return True
        kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
        try:
            fcntl.flock(self._fd, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(self) -> None:
        """Give the lock back."""
        if sys.platform != "win32":
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    @property
    def ready(self) -> int:
        """How often the texture was signalled ready."""
        return self._words[READY]

    def add_ready(self) -> None:
        """Count one more signal."""
        with self._changing:
            self._words[READY] = (self.ready + 1) % 2**64

    @property
    def frame(self) -> int:
        """Which frame of a stream the texture holds; 0 when none, or while it is written."""
        return self._words[FRAME]

    @frame.setter
    def frame(self, number: int) -> None:
        self._words[FRAME] = number

    def abandon(self) -> None:
        """Leave the lock to the parent, and have another for this process."""
        inherited = self._fd
        if inherited.is_open:
            try:
                self._fd = _open_again(inherited)
            finally:
                inherited.close()

    def close(self) -> None:
        """Unmap the page and give up the lock."""
        self._words.release()
        self._map.close()
        self._fd.close()


def _open_again(fd: OwnedFd) -> OwnedFd:
    """Return the same file opened once more, with locks of its own (Linux; else a duplicate)."""
    if not LINUX:
        return fd.duplicate()
    number = fd.fileno()
    try:
        with report_shortage("the control page cannot be opened"):
            return OwnedFd(os.open(f"/proc/self/fd/{number}", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise InvalidTextureHandleError(
            f"the handle's control page cannot be opened ({error}); "
            "the other side must send the handle that it exported"
        ) from None


def poll_time(end_ns: int) -> int:
    """Return how long ``poll`` may wait until `end_ns`, a day at most (milliseconds).

    It takes no more than 24 days, so whoever calls it looks at the clock and calls it again.
    Rounded up, so that the end of the wait is never before its time.
    """
    left = max(0, end_ns - time.monotonic_ns())
    return min(-(-left // 1_000_000), 86_400_000)


class Naps:
    """Waits between tries, longer each time, until the time is up: ``for _ in Naps(timeout_ns)``.

    The first tries follow each other at once, since the shortest sleep of most systems takes
    longer than the other side.

    Args:
        timeout_ns: How long in all, in nanoseconds.
    """

    AT_ONCE_NS, FIRST, LONGEST = 50_000, 20e-6, 1e-3

    def __init__(self, timeout_ns: int) -> None:
        self._start = time.monotonic_ns()
        self._end = self._start + timeout_ns
        self._next = self.FIRST

    def __iter__(self) -> Naps:
        return self

    def __next__(self) -> None:
        now = time.monotonic_ns()
        left = (self._end - now) / 1e9
        if left <= 0:
            raise StopIteration
        if now - self._start < self.AT_ONCE_NS:
            time.sleep(0)  # let others have the processor
            return
        time.sleep(min(self._next, left))
        self._next = min(self._next * 1.5, self.LONGEST)
