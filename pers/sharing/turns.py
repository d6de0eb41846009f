"""Whose turn it is: the accesses to one shared texture or buffer, in this process and beyond."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence

from pers.errors import TextureAccessError
from pers.sharing.control import ControlPage, Naps
from pers.sharing.native import NativePoint, NativeResource

__all__ = ["Turns"]


class Turns:
    """One writer or several readers, and nothing after the end.

    Threads of this process are told apart here, other processes by the control page's lock.

    Args:
        what: Names the resource in messages.
        native: The resource; freed by `close`, or with this object.
        control: Its control page, closed with it.
    """

    def __init__(self, what: str, native: NativeResource, control: ControlPage) -> None:
        self.what = what
        self.control = control
        # Reentrant, since a finalizer may run while this thread holds it.
        self.lock = threading.RLock()
        self._native = native
        self._readers = 0
        self._writing = False
        self._closed_by = ""
        self._free = weakref.finalize(self, _free, native, control)
        self._free.atexit = False  # other threads may still use it; the system frees all

    @property
    def is_open(self) -> bool:
        """Whether it has not been closed."""
        return not self._closed_by

    @property
    def is_busy(self) -> bool:
        """Whether an access of this process is under way."""
        return self._writing or self._readers > 0

    @property
    def is_writing(self) -> bool:
        """Whether an access of this process writes it."""
        return self._writing

    def check_open(self) -> None:
        """Raise unless it is open."""
        if self._closed_by:
            raise TextureAccessError(f"{self.what} was closed{self._closed_by}; make another one")

    def begin(self, waits: Sequence[NativePoint], *, write: bool, timeout_ns: int) -> None:
        """Start an access, or raise when another one excludes it for that long.

        What the CPU waits for comes first: meanwhile others have their turns, and may signal it.
        """
        self.check_open()
        self._native.wait_first(waits)
        try:
            self._take(waits, write=write, timeout_ns=timeout_ns)
        except BaseException:
            self._native.give_back(waits)
            raise

    def _take(self, waits: Sequence[NativePoint], *, write: bool, timeout_ns: int) -> None:
        """Take the turn, or raise when another access excludes this one for that long."""
        problem = self._try_begin(waits, write=write)
        for _ in Naps(timeout_ns) if problem else ():
            problem = self._try_begin(waits, write=write)
            if not problem:
                break
        if problem:
            raise TextureAccessError(
                f"{self.what} cannot be opened for {'writing' if write else 'reading'}: {problem}; "
                "end that access first, or wait for it with timeout_ns"
            )

    def _try_begin(self, waits: Sequence[NativePoint], *, write: bool) -> str:
        """Take the turn; return what excludes it, or an empty string."""
        with self.lock:
            self.check_open()
            if self._writing:
                return "it is being written in this process"
            if write and self._readers:
                return f"{self._readers} of this process read it"
            if self._readers:
                self._native.wait(waits)
            else:
                if not self.control.try_lock(exclusive=write):
                    return f"another process or manager {'uses' if write else 'writes'} it"
                try:
                    self._native.acquire(waits, write=write)
                except BaseException:
                    self.control.unlock()
                    raise
            if write:
                self._writing = True
            else:
                self._readers += 1
            return ""

    def end(self, signals: Sequence[NativePoint], *, wait: bool = True) -> None:
        """End an access that `begin` started.

        Args:
            signals: What the GPU signals when it is done.
            wait: Whether to wait for the GPU when there are none.
        """
        with self.lock:
            is_last = self._readers <= 1
            try:
                if is_last:
                    self._native.release(signals)
                else:
                    self._native.signal(signals)
                if wait and not signals:
                    self._native.finish()
            finally:
                self._writing, self._readers = False, max(0, self._readers - 1)
                if is_last:
                    self.control.unlock()

    def close(self, by: str = "") -> None:
        """Free the resource; the second time does nothing.

        Raises:
            TextureAccessError: An access is under way.
        """
        with self.lock:
            if self._closed_by:
                return
            self.check_idle()
            self._closed_by = by or " before"
            self._free()

    def check_idle(self) -> None:
        """Raise when an access is under way."""
        if self.is_busy:
            kind = "writing" if self._writing else "reading"
            raise TextureAccessError(
                f"{self.what} is open for {kind}; leave the with block of access() first"
            )


def _free(native: NativeResource, control: ControlPage) -> None:
    native.destroy()
    control.close()
