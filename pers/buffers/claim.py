"""Writing a buffer's own memory while nobody else may have it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from pers.errors import BufferStateError

NativeCall = Callable[[], None]


class Claim:
    """One thread's right to write a buffer's memory; ends when it has written.

    Other threads that want to hand the buffer to the GPU wait for the end. A native destroy that
    would take the memory away is put off until then.
    """

    __slots__ = ("_destroy", "_ended", "_lock", "_thread", "_written")

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._lock = (
            threading.RLock()
        )  # re-entrant: garbage collection may destroy buffers anywhere
        self._written = threading.Lock()
        self._written.acquire()
        self._ended = False
        self._destroy: NativeCall | None = None

    def wait(self, call: str) -> None:
        """Block until the writer is through.

        Raises:
            BufferStateError: The writer is this thread itself, as when a signal handler submits.
        """
        if self._ended:
            return
        if self._thread == threading.get_ident():
            raise BufferStateError(
                f"{call}: the buffer is being uploaded to by this thread; do it after the upload"
            )
        with self._written:
            pass

    def put_off(self, destroy: NativeCall) -> bool:
        """Have `destroy` called at the end; False when that has come already."""
        with self._lock:
            if not self._ended:
                self._destroy = destroy
            return not self._ended

    def end(self) -> None:
        """Let others have the buffer."""
        with self._lock:
            self._ended = True
        if self._destroy is not None:
            self._destroy()
        self._written.release()
