"""Mapped memory as safe ranges and NumPy views.

NumPy arrays cannot be detached from their memory, so the memory has to outlive the arrays. Every
array handed out here is based on a `_Window`, which keeps the `Lease` on the native memory alive;
counting the living windows tells whether the memory may be unmapped, and the death of the lease
tells when memory that had to be kept for them may go.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from pers._checks import whole_number
from pers.buffers.types import COPY_ALIGNMENT, MAP_OFFSET_ALIGNMENT, MapMode
from pers.errors import BufferRangeError, BufferStateError, BufferUsageError

__all__ = ["MappedRange"]

Data = Any
"""Anything with bytes in it: a NumPy array, or any object with the buffer protocol."""


def as_bytes_array(data: Data, what: str) -> npt.NDArray[np.uint8]:
    """Return the bytes of `data` as a flat uint8 array, without a copy where it is contiguous.

    Raises:
        BufferUsageError: `data` holds no plain bytes (a string, an object array, None).
    """
    return np.ascontiguousarray(as_plain_array(data, what)).reshape(-1).view(np.uint8)


def as_plain_array(data: Data, what: str) -> npt.NDArray[Any]:
    """Return `data` as an array, and none of a subclass with rules of its own, without a copy.

    Raises:
        BufferUsageError: `data` holds no plain bytes (a string, an object array, None).
    """
    if isinstance(data, np.ndarray):
        array: npt.NDArray[Any] = np.asarray(data)  # pyright: ignore[reportUnknownArgumentType]
    else:
        try:
            view = memoryview(data)
        except TypeError:
            raise BufferUsageError(
                f"{what} takes a NumPy array or an object with the buffer protocol, "
                f"not {type(data).__name__}"
            ) from None
        array = np.asarray(view)
    if array.dtype.hasobject or array.dtype.kind == "U":
        raise BufferUsageError(f"{what} takes plain numbers, not dtype {array.dtype}")
    return array


def is_plain(data: object) -> bool:
    """Whether `data` is an array whose bytes can be taken as they are."""
    return type(data) is np.ndarray and data.dtype.kind in "fiu" and data.flags.c_contiguous


def array_layout(
    dtype: npt.DTypeLike, shape: int | tuple[int, ...] | None, nbytes: int, what: str
) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Check that an array of `dtype` and `shape` fits into `nbytes`.

    Returns:
        The dtype, and the shape with None replaced by "as many as fit, in one dimension". The
        dimensions of a subarray dtype are moved to the end of the shape, as NumPy does.
    """
    try:
        actual = np.dtype(dtype)
    except (TypeError, ValueError) as error:
        raise BufferUsageError(f"{what}: {dtype!r} is no NumPy dtype ({error})") from None
    if actual.hasobject or actual.itemsize == 0:
        raise BufferUsageError(f"{what}: an array of dtype {actual} cannot live in a buffer")
    if shape is None:
        if nbytes % actual.itemsize:
            raise BufferRangeError(
                f"{what}: {nbytes} bytes are no whole number of {actual} items "
                f"({actual.itemsize} bytes each); pass a shape"
            )
        shape = nbytes // actual.itemsize
    dimensions = shape if isinstance(shape, tuple) else (shape,)
    checked = tuple(whole_number(length, f"{what}: a shape's length") for length in dimensions)
    needed = math.prod(checked) * actual.itemsize
    if needed > nbytes:
        raise BufferRangeError(
            f"{what}: an array of shape {checked} and dtype {actual} takes {needed} bytes, "
            f"but the range has {nbytes}"
        )
    base, inner = actual.subdtype or (actual, ())
    return base, (*checked, *inner)


class Lease:
    """Holds native memory for the arrays that look at it."""

    __slots__ = ("__weakref__", "_keep_alive", "_on_end", "_windows")

    def __init__(self, keep_alive: object) -> None:
        self._keep_alive = keep_alive
        self._windows: set[weakref.ref[_Window]] = set()  # changed by single, atomic operations
        self._on_end: Callable[[], None] | None = None

    def open_window(self, address: int, nbytes: int, *, writable: bool) -> npt.NDArray[np.uint8]:
        """Return the memory as an array; the lease lives at least as long as the array."""
        if nbytes == 0:
            return np.empty(0, np.uint8)
        window = _Window(self, address, nbytes, writable=writable)
        self._windows.add(weakref.ref(window, self._windows.discard))
        return np.asarray(window)

    @property
    def live_views(self) -> int:
        """How many windows still have arrays on them."""
        return len(self._windows)

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the lease dies, which is when its holder and all arrays have.

        It runs wherever the last reference is dropped: on any thread, in garbage collection.
        """
        self._on_end = callback

    def __del__(self) -> None:
        if self._on_end is not None:
            self._on_end()


class _Window:
    """What the base of a mapped array is: an address, and the lease on what is there."""

    __slots__ = ("__array_interface__", "__weakref__", "lease")

    def __init__(self, lease: Lease, address: int, nbytes: int, *, writable: bool) -> None:
        self.lease = lease
        self.__array_interface__ = {
            "version": 3,
            "shape": (nbytes,),
            "typestr": "|u1",
            "data": (address, not writable),
        }


class Mapping:
    """One mapping of one buffer, from the map to the unmap."""

    __slots__ = ("_address", "_check_alive", "_lease", "_taken", "mode", "name", "offset", "size")

    def __init__(
        self,
        name: str,
        mode: MapMode,
        offset: int,
        size: int,
        address: int,
        keep_alive: object,
        check_alive: Callable[[str], None],
    ) -> None:
        """Describe mapped memory.

        Args:
            name: How error messages call the buffer.
            mode: READ or WRITE.
            offset: First mapped byte of the buffer.
            size: Mapped bytes.
            address: Where the first mapped byte is in memory.
            keep_alive: What has to live for the memory to be there.
            check_alive: Raises when the device was lost, given how to call what was tried.
        """
        self.name = name
        self.mode = mode
        self.offset = offset
        self.size = size
        self._address = address
        self._check_alive = check_alive
        self._lease: Lease | None = Lease(keep_alive)
        self._taken: list[tuple[int, int]] = []

    @property
    def ended(self) -> bool:
        """Whether the ranges are dead."""
        return self._lease is None

    def end(self) -> Lease | None:
        """Declare all ranges dead and hand over the lease (None when already ended)."""
        lease, self._lease = self._lease, None
        return lease

    def end_unless_viewed(self) -> int:
        """Declare all ranges dead, unless arrays look at the memory; return how many do."""
        lease = self.end()  # before the count: an array that it misses finds the lease gone
        count = 0 if lease is None else lease.live_views
        if count:
            self._lease = lease
        return count

    def take(self, offset: int, size: int) -> MappedRange:
        """Hand out a part that no other part overlaps."""
        start, end = self.offset, self.offset + self.size
        if offset % MAP_OFFSET_ALIGNMENT or size % COPY_ALIGNMENT:
            raise BufferRangeError(
                f"{self.name}: a mapped range starts at a multiple of {MAP_OFFSET_ALIGNMENT} and "
                f"has a multiple of {COPY_ALIGNMENT} bytes, not offset {offset} and size {size}"
            )
        if offset < start or offset + size > end:
            raise BufferRangeError(
                f"{self.name}: bytes {offset} to {offset + size} are not all mapped; "
                f"mapped are {start} to {end}"
            )
        for other_start, other_end in self._taken:
            if offset < other_end and offset + size > other_start:
                raise BufferRangeError(
                    f"{self.name}: bytes {offset} to {offset + size} overlap the range "
                    f"{other_start} to {other_end} handed out before; "
                    "ask for disjoint ranges, or use mapped_data"
                )
        self._taken.append((offset, offset + size))
        return MappedRange(self, offset, size)

    def window(self, offset: int, size: int) -> npt.NDArray[np.uint8]:
        """Return mapped bytes as an array. Any thread, also while another one unmaps."""
        lease = self._lease
        if lease is None:
            self._check_alive(self.name)
            raise BufferStateError(
                f"{self.name}: this mapped range is dead, because the buffer was unmapped or "
                "destroyed; map the buffer again, or create a new one"
            )
        window = lease.open_window(
            self._address + offset - self.offset, size, writable=self.mode is MapMode.WRITE
        )
        if self._lease is not lease:  # looked at last: who unmaps takes it before counting windows
            self._check_alive(self.name)
            raise BufferStateError(
                f"{self.name} is being unmapped or destroyed by another thread; use a mapped "
                "range only until then"
            )
        return window


class MappedRange:
    """Mapped memory, safely. Dead after `unmap` or `destroy` of its buffer.

    Arrays from `as_array` are the memory itself. While any of them (or a slice of one) is alive
    the buffer cannot be unmapped, and the memory stays even when the buffer is destroyed.

    Thread-safe: several threads may write and read a range at once, each of them its own bytes.
    One that comes too late, while another thread unmaps, gets a `BufferStateError`.
    """

    __slots__ = ("_mapping", "nbytes", "offset")

    def __init__(self, mapping: Mapping, offset: int, nbytes: int) -> None:
        """Not called by users; `IMappableBuffer` hands ranges out."""
        self._mapping = mapping
        self.offset = offset
        """First byte, counted from the start of the buffer."""
        self.nbytes = nbytes
        """Size in bytes."""

    @property
    def mode(self) -> MapMode:
        """READ or WRITE."""
        return self._mapping.mode

    def as_array(
        self, dtype: npt.DTypeLike = np.uint8, shape: int | tuple[int, ...] | None = None
    ) -> npt.NDArray[Any]:
        """Return the memory as a NumPy array, without a copy.

        Args:
            dtype: Item type.
            shape: Shape of the array, or None for one dimension with all that fits. The array
                starts at the start of the range and may be smaller than it.

        Returns:
            An array of `shape`; read-only when mapped for reading.

        Raises:
            BufferRangeError: The array would be larger than the range.
            BufferUsageError: The dtype cannot live in a buffer.
            BufferStateError: The range is dead.
        """
        what = f"{self._mapping.name}: as_array"
        actual, dimensions = array_layout(dtype, shape, self.nbytes, what)
        nbytes = math.prod(dimensions) * actual.itemsize
        return self._mapping.window(self.offset, nbytes).view(actual).reshape(dimensions)

    def write(self, data: Data, offset: int = 0) -> None:
        """Copy `data` into the range.

        Args:
            data: A NumPy array of any shape and dtype (written in C order), or any object with
                the buffer protocol.
            offset: Where to start, in bytes from the start of the range.

        Raises:
            BufferRangeError: It does not fit.
            BufferUsageError: Mapped for reading, or `data` holds no plain bytes.
            BufferStateError: The range is dead.
        """
        what = f"{self._mapping.name}: write"
        if self.mode is not MapMode.WRITE:
            raise BufferUsageError(f"{what}: mapped for reading; map with MapMode.WRITE to write")
        source = as_bytes_array(data, what)
        start = self._check(what, offset, source.nbytes)
        self._mapping.window(self.offset + start, source.nbytes)[:] = source

    def read(self, offset: int = 0, size: int | None = None) -> bytes:
        """Return a copy of the bytes.

        Args:
            offset: Where to start, in bytes from the start of the range.
            size: How many bytes; None means up to the end of the range.

        Raises:
            BufferRangeError: Outside the range.
            BufferStateError: The range is dead.
        """
        what = f"{self._mapping.name}: read"
        if size is None:
            size = self.nbytes - whole_number(offset, f"{what}: offset", maximum=self.nbytes)
        start = self._check(what, offset, size)
        return self._mapping.window(self.offset + start, size).tobytes()

    def __repr__(self) -> str:
        return (
            f"<MappedRange of {self._mapping.name}: bytes {self.offset} to "
            f"{self.offset + self.nbytes}, {self.mode.name}>"
        )

    def _check(self, what: str, offset: int, size: int) -> int:
        start = whole_number(offset, f"{what}: offset")
        length = whole_number(size, f"{what}: size")
        if start + length > self.nbytes:
            raise BufferRangeError(
                f"{what}: {length} bytes at offset {start} do not fit into the range of "
                f"{self.nbytes} bytes"
            )
        return start
