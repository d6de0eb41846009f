"""The seam to wgpu-py: its cffi layer, callbacks, and errors turned into pers errors.

pers calls the C library itself where wgpu-py's Python layer would abort the process, lose track
of a buffer, or cost too much per call; everything else goes through wgpu-py's own objects.
"""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, ClassVar, TypeAlias

import wgpu
from wgpu.backends import wgpu_native
from wgpu.backends.wgpu_native import _api, _helpers

from pers.backends.webgpu._losses import suspect_losses
from pers.errors import DeviceLostError, OutOfMemoryError, PersError, ValidationError

logger = logging.getLogger("pers.backends.webgpu")

__all__ = [
    "BUNDLES",
    "COMMAND_BUFFERS",
    "NO_LABEL",
    "NULL",
    "OFFSETS",
    "SUBMISSION_INDEX",
    "Owned",
    "Ticket",
    "cast",
    "checked",
    "clean",
    "ffi",
    "forget",
    "label_view",
    "lib",
    "map_info",
    "memmove",
    "memory_of",
    "new",
    "ticket",
    "translate",
    "translated",
    "work_info",
]

ffi: Any = wgpu_native.ffi
lib: Any = wgpu_native.lib
"""The C functions. An error they meet goes to wgpu's log, or aborts the process."""
NULL: Any = ffi.NULL

# What `ffi` does for the same names, without the step that looks types up by their names.
new: Callable[..., Any] = ffi._backend.newp
cast: Callable[[Any, Any], Any] = ffi._backend.cast
memmove: Callable[[Any, Any, int], None] = ffi._backend.memmove
memory_of: Callable[[Any], Any] = functools.partial(ffi._backend.from_buffer, ffi.typeof("char[]"))
"""Return a pointer to the memory of anything with the buffer protocol."""

# Types are looked up once: it takes a while.
_MAP_INFO = ffi.typeof("WGPUBufferMapCallbackInfo *")
_WORK_INFO = ffi.typeof("WGPUQueueWorkDoneCallbackInfo *")
COMMAND_BUFFERS = ffi.typeof("WGPUCommandBuffer[]")
SUBMISSION_INDEX = ffi.typeof("WGPUSubmissionIndex *")
OFFSETS = ffi.typeof("uint32_t[]")
BUNDLES = ffi.typeof("WGPURenderBundle[]")

Ticket: TypeAlias = Any
"""What the C library calls back with: a pointer that stands for a number."""

Callback = Callable[[Ticket, bool, str], None]
"""Gets its ticket, whether the operation succeeded, and the library's message if not."""


class _Slot:
    """Where wgpu-py leaves the error that the library reports during a call."""

    type = ""
    message: str | None = None


_errors: Any = _api.error_handler
_error_types: Any = _helpers.ERROR_TYPES


def checked(function: Any, release: Any = None) -> Callable[..., Any]:
    """Return a C function that raises the error it meets, if the library can report it.

    Args:
        function: The C function.
        release: The C function that gives back what `function` made, also when that is invalid.
    """
    threads = _errors._per_thread_data

    def call(*arguments: Any) -> Any:
        try:
            slots = threads.stack
        except AttributeError:  # the first call on this thread
            slots = _errors._get_proxy_stack()
        slot = _Slot()
        slots.append(slot)
        try:
            result = function(*arguments)
        finally:
            slots.pop()
        if slot.message is not None:
            if release is not None and result:
                release(result)
            raise _error_types.get(slot.type, wgpu.GPUError)(slot.message)
        return result

    return call


class Owned:
    """A native object that is given back with its Python object.

    The finalizers of a garbage cycle run in any order, so `internal` is None afterwards: C
    functions refuse that with a `TypeError`, where what is gone would abort the process.
    """

    internal: Any = None
    """What C functions take."""

    _release: ClassVar[Any]
    """The C function that gives it back."""

    def __init__(self, internal: Any) -> None:
        self.internal = internal

    def __del__(self) -> None:
        internal, self.internal = self.internal, None
        if internal is not None:
            self._release(internal)


NO_LABEL = (NULL, 0)


def label_view(label: str) -> tuple[Any, int]:
    """Return a label as the library takes it; what is returned has to live during the call."""
    if not label:
        return NO_LABEL
    data = label.encode()
    end = data.find(0)  # Vulkan's strings end there
    return memory_of(data), len(data) if end < 0 else end


# The C library calls back with a ticket; the callbacks themselves live for ever, so that a call
# that comes late, when everything around it is gone, finds nothing to do instead of freed memory.
_MAPPED = lib.WGPUMapAsyncStatus_Success
_DONE = lib.WGPUQueueWorkDoneStatus_Success
_MODE = lib.WGPUCallbackMode_AllowProcessEvents
_waiting: dict[Ticket, Callback] = {}
_zero = ffi.cast("char *", 0)
_tickets: Iterator[Ticket] = map(_zero.__add__, itertools.count(1))


@ffi.callback("void(WGPUMapAsyncStatus, WGPUStringView, void *, void *)")  # type: ignore[untyped-decorator]
def _on_map(status: int, message: Any, number: Any, _: Any) -> None:
    callback = _waiting.pop(number, None)
    if callback is not None:
        done = status == _MAPPED
        callback(number, done, "" if done else str(_api.from_c_string_view(message)))


@ffi.callback("void(WGPUQueueWorkDoneStatus, WGPUStringView, void *, void *)")  # type: ignore[untyped-decorator]
def _on_work_done(status: int, message: Any, number: Any, _: Any) -> None:
    callback = _waiting.pop(number, None)
    if callback is not None:
        done = status == _DONE
        callback(number, done, "" if done else str(_api.from_c_string_view(message)))


def map_info(callback: Callback) -> tuple[Any, Ticket]:
    """Return the struct that makes a map call back, and the ticket to `forget` it by."""
    number = ticket(callback)
    return new(_MAP_INFO, (NULL, _MODE, _on_map, number)), number


def work_info() -> Any:
    """Return a struct for "work done", to be used again and again with a new `ticket` in it."""
    return new(_WORK_INFO, (NULL, _MODE, _on_work_done))


def ticket(callback: Callback) -> Ticket:
    """Return what has to be in the struct of a call for `callback` to be called."""
    number = next(_tickets)
    _waiting[number] = callback
    return number


def forget(number: Ticket) -> Callback | None:
    """Take a callback out before it is called."""
    return _waiting.pop(number, None)


def translate(error: Exception, call: str) -> PersError:
    """Return the pers error that says what a wgpu error says."""
    text = clean(str(error))
    if "device is lost" in text.lower():
        suspect_losses()
        return DeviceLostError(f"{call}: the device was lost; open a new one ({text})")
    if isinstance(error, wgpu.GPUOutOfMemoryError) or "memory left" in text.lower():
        return OutOfMemoryError(f"{call}: {text}; free what is not needed, or ask for less")
    return ValidationError(f"{call}: {text}")


def clean(text: str) -> str:
    """Drop wgpu's heading, and put the causes on one line unless they are drawn (WGSL errors)."""
    lines = [line.rstrip() for line in text.splitlines()]
    headings = ("Validation Error", "Caused by:")
    lines = [line for line in lines if line and line not in headings]
    lines = [line for line in lines if not line.strip().startswith("In wgpu")]
    if any("┌─" in line for line in lines):
        return "\n".join(lines)
    return "; ".join(line.strip() for line in lines)


class translated:
    """A ``with`` block in which wgpu's errors become pers errors."""

    __slots__ = ("_call",)

    def __init__(self, call: str) -> None:
        self._call = call

    def __enter__(self) -> None: ...

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(exc, Exception) and not isinstance(exc, PersError):
            logger.debug("wgpu error in %s", self._call, exc_info=exc)
            raise translate(exc, self._call) from None
