"""Plain value types of the buffer layer: usages, modes, states and descriptors."""

from __future__ import annotations

import enum
from typing import Any

import attrs

from pers._checks import MAX_INT, whole_number
from pers.errors import BufferRangeError, BufferUsageError

__all__ = ["BufferDesc", "BufferLimits", "BufferState", "BufferUsage", "MapMode"]

COPY_ALIGNMENT = 4
"""Copies, writes and mapped sizes are multiples of this many bytes (WebGPU §5.2, §13.5)."""

MAP_OFFSET_ALIGNMENT = 8
"""Mapped ranges start at multiples of this many bytes (WebGPU §5.2)."""


class BufferUsage(enum.IntFlag):
    """What a buffer may be used for; combine with ``|``."""

    NONE = 0
    VERTEX = 1 << 0
    INDEX = 1 << 1
    UNIFORM = 1 << 2
    STORAGE = 1 << 3
    COPY_SRC = 1 << 4
    COPY_DST = 1 << 5
    MAP_READ = 1 << 6
    MAP_WRITE = 1 << 7
    INDIRECT = 1 << 8
    QUERY_RESOLVE = 1 << 9


ALL_USAGES = BufferUsage((1 << 10) - 1)
MAP_USAGES = BufferUsage.MAP_READ | BufferUsage.MAP_WRITE


class MapMode(enum.IntFlag):
    """How mapped memory is accessed by the CPU; a map takes exactly one of READ and WRITE."""

    NONE = 0
    READ = 1
    WRITE = 2


class BufferState(enum.Enum):
    """Where a buffer is in its life; see the state table in the buffer guide."""

    UNINITIALIZED = "uninitialized"
    """The native buffer does not exist yet."""
    READY = "ready"
    """The GPU may use it."""
    MAP_PENDING = "map pending"
    """A map was asked for and has not ended; the GPU may not be given new work with it."""
    MAPPED = "mapped"
    """The CPU may use it, the GPU may not."""
    DESTROYED = "destroyed"
    """Its memory was given back."""


def usage_names(usage: int) -> str:
    """Return the usage as it is written in code: ``VERTEX | COPY_DST``."""
    names = [flag.name or "" for flag in BufferUsage if flag & usage]
    return " | ".join(names) or "NONE"


_UNKNOWN_BITS = ~int(ALL_USAGES)


_ALL_BITS = int(ALL_USAGES)


def _to_usage(value: Any) -> BufferUsage:
    bits = whole_number(value, "a buffer's usage", error=BufferUsageError)
    if bits & _UNKNOWN_BITS:
        raise BufferUsageError(
            f"buffer usage {bits:#x} has unknown bits {bits & _UNKNOWN_BITS:#x}; "
            "combine members of pers.BufferUsage"
        )
    return value if type(value) is BufferUsage else BufferUsage(bits)


def _to_size(value: Any) -> int:
    return whole_number(value, "a buffer's size (bytes)")


def _to_name(value: Any) -> str:
    if not isinstance(value, str):
        raise BufferUsageError(f"debug_name must be a string, not {value!r}")
    return value


@attrs.frozen(init=False)
class BufferDesc:
    """What a buffer is to be. Checked when made, as far as that is possible without a device.

    Attributes:
        size: Size in bytes; 0 is legal, and any size is unless `mapped_at_creation` asks for a
            multiple of 4 (WebGPU §5.1.3).
        usage: What it may be used for; not empty.
        mapped_at_creation: Whether the buffer starts out mapped for writing.
        debug_name: A name for error messages and graphics debuggers.
        usage_bits: The usage as a plain number, which is many times faster to look at.

    Raises:
        BufferRangeError: The size is no whole number, negative, over 2**63-1, or, mapped at
            creation, not a multiple of 4.
        BufferUsageError: The usage is empty or has unknown bits.
    """

    size: int
    usage: BufferUsage
    mapped_at_creation: bool = False
    debug_name: str = ""
    usage_bits: int = attrs.field(init=False, repr=False, eq=False)

    def __init__(
        self,
        size: int,
        usage: BufferUsage,
        mapped_at_creation: bool = False,
        debug_name: str = "",
    ) -> None:
        # Written by hand, since most buffers are made together with their description: what is
        # wrong is looked for only when something is.
        bits = int(usage) if type(usage) is BufferUsage else 0
        if (
            type(size) is not int
            or not 0 <= size <= MAX_INT
            or not 0 < bits <= _ALL_BITS
            or mapped_at_creation is not False
            or type(debug_name) is not str
        ):
            size, usage, debug_name = _to_size(size), _to_usage(usage), _to_name(debug_name)
            bits, mapped_at_creation = int(usage), bool(mapped_at_creation)
            _check_desc(size, bits, mapped_at_creation, debug_name)
        put = _put
        put(self, "size", size)
        put(self, "usage", usage)
        put(self, "mapped_at_creation", mapped_at_creation)
        put(self, "debug_name", debug_name)
        put(self, "usage_bits", bits)


_put = object.__setattr__


def _check_desc(size: int, usage: int, mapped_at_creation: bool, debug_name: str) -> None:
    if not usage:
        raise BufferUsageError(
            f"buffer {debug_name!r} needs at least one usage; "
            "say what it is for, for example BufferUsage.VERTEX"
        )
    if mapped_at_creation and size % COPY_ALIGNMENT:
        raise BufferRangeError(
            f"buffer {debug_name!r} is to be mapped at creation, so its size must be a "
            f"multiple of {COPY_ALIGNMENT} bytes, not {size}; round it up"
        )


@attrs.frozen
class BufferLimits:
    """Limits that the device sets on buffers (bytes), read from the device."""

    max_buffer_size: int
    min_uniform_buffer_offset_alignment: int
    min_storage_buffer_offset_alignment: int
    max_uniform_buffer_binding_size: int
    max_storage_buffer_binding_size: int
    map_primary_buffers: bool = False
    """Whether MAP_READ and MAP_WRITE may be combined with any usage."""
