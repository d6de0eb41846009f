"""What a copy left in a buffer, and how it becomes an array."""

from __future__ import annotations

import math
import threading
from typing import Any

import anyio.to_thread
import numpy as np
import numpy.typing as npt

from pers._checks import align_up
from pers._copying import copy_array
from pers.buffers.mapped_range import MappedRange, array_layout
from pers.buffers.types import COPY_ALIGNMENT
from pers.errors import BufferRangeError, BufferUsageError
from pers.textures import TextureRows

Contents = TextureRows | int
"""Pixels with padded rows, or so many plain bytes."""

COPY_ASIDE = 1024 * 1024
"""Copies of so many bytes or more do not hold up the event loop."""


def mapped_size(contents: Contents, size: int) -> int:
    """Return how many bytes of a buffer of `size` bytes to map for the contents."""
    nbytes = contents if isinstance(contents, int) else contents.nbytes
    return min(align_up(max(nbytes, 1), COPY_ALIGNMENT), size)


def packed_size(contents: Contents) -> int:
    """Return how many bytes the contents have without the padding of rows."""
    if isinstance(contents, int):
        return contents
    return math.prod(contents.shape) * contents.format.dtype.itemsize


def check_layout(
    contents: Contents,
    dtype: npt.DTypeLike | None,
    shape: int | tuple[int, ...] | None,
    what: str,
) -> None:
    """Raise now what `as_array` would raise after the wait."""
    if isinstance(contents, int):
        array_layout(np.uint8 if dtype is None else dtype, shape, contents, what)
        return
    wanted = contents.format.dtype if dtype is None else array_layout(dtype, 0, 0, what)[0]
    length = math.prod(contents.shape)
    dimensions = contents.shape
    if shape is not None:
        dimensions = array_layout(wanted, shape, contents.nbytes, what)[1]
    if wanted.itemsize != contents.format.dtype.itemsize or length != math.prod(dimensions):
        raise BufferRangeError(
            f"{what}: a {contents.width}x{contents.height} {contents.format.value} texture has "
            f"shape {contents.shape} and {contents.format.dtype.itemsize}-byte items; "
            f"not shape {dimensions} and dtype {wanted}"
        )


def as_array(
    mapped: MappedRange,
    contents: Contents,
    dtype: npt.DTypeLike | None,
    shape: int | tuple[int, ...] | None,
) -> npt.NDArray[Any]:
    """Look at mapped contents as an array; read-only, and without a copy.

    Only a shape that joins padded rows makes NumPy copy them.
    """
    if isinstance(contents, int):
        item = np.dtype(np.uint8 if dtype is None else dtype)
        return mapped.as_array(item, contents // item.itemsize if shape is None else shape)
    pixels = contents.view(mapped.as_array(np.uint8, contents.nbytes))
    if dtype is not None:
        pixels = pixels.view(dtype)
    if shape is not None:
        pixels = pixels.reshape(shape)
        pixels.flags.writeable = False
    return pixels


def writable_bytes(out: Any, contents: Contents, what: str) -> npt.NDArray[np.uint8]:
    """Return the bytes of what contents are to be read into, flat.

    Raises:
        BufferUsageError: It is no array or buffer, read-only, or not C-contiguous.
        BufferRangeError: It has another size.
    """
    try:
        array: npt.NDArray[Any] = np.asarray(out if type(out) is np.ndarray else memoryview(out))
    except TypeError:
        raise BufferUsageError(
            f"{what} takes a NumPy array or a writable object with the buffer protocol, not "
            f"{type(out).__name__}"
        ) from None
    if array.dtype.hasobject or array.dtype.kind == "U":
        raise BufferUsageError(f"{what} takes plain numbers, not dtype {array.dtype}")
    if not array.flags.c_contiguous:
        raise BufferUsageError(
            f"{what}: the array is not C-contiguous (strides {array.strides}); pass one that is, "
            "or assign what read_array returns"
        )
    if not array.flags.writeable:
        raise BufferUsageError(f"{what}: the array is read-only; pass one that can be written")
    nbytes = packed_size(contents)
    if array.nbytes != nbytes:
        raise BufferRangeError(
            f"{what}: the array has {array.nbytes} bytes, but {nbytes} were copied from the GPU"
            f"{'' if isinstance(contents, int) else f', shape {contents.shape}'}; pass one of "
            "that size"
        )
    return array.reshape(-1).view(np.uint8)


class CopyOut:
    """A copy out of mapped memory that is about to be unmapped."""

    __slots__ = ("_arrays", "_lock")

    def __init__(self, target: npt.NDArray[Any], source: npt.NDArray[Any]) -> None:
        # Whoever runs the copy takes the arrays out: no thread may keep mapped memory alive.
        self._arrays: tuple[npt.NDArray[Any], npt.NDArray[Any]] | None = (target, source)
        self._lock = threading.Lock()
        """Held for a copy."""

    @classmethod
    def of_array(cls, array: npt.NDArray[Any]) -> CopyOut:
        """Prepare a copy of `array`."""
        return cls(np.empty(array.shape, array.dtype), array)

    @classmethod
    def of_bytes(
        cls, target: npt.NDArray[np.uint8], mapped: MappedRange, contents: Contents, what: str
    ) -> CopyOut:
        """Prepare the copy of mapped contents to `target`, without the padding of rows.

        Raises:
            BufferUsageError: `target` is the mapped memory itself.
        """
        nbytes = contents if isinstance(contents, int) else contents.nbytes
        source = mapped.as_array(np.uint8, nbytes)
        if np.may_share_memory(target, source):
            raise BufferUsageError(
                f"{what}: the array overlaps the mapped memory that is to be read; pass memory of "
                "your own"
            )
        if not isinstance(contents, int):
            rows, row = contents.height * contents.layers, contents.width
            row *= contents.format.bytes_per_pixel
            if row < contents.bytes_per_row:
                source = source.reshape(rows, contents.bytes_per_row)[:, :row]
                target = target.reshape(rows, row)
        return cls(target, source)

    def run(self) -> npt.NDArray[Any]:
        """Copy, and return the copy; the mapped memory is not looked at any more afterwards."""
        with self._lock:
            arrays, self._arrays = self._arrays, None
            if arrays is None:  # given up, so nobody gets this
                return np.empty(0, np.uint8)
            copy_array(*arrays)
            return arrays[0]

    async def run_async(self) -> npt.NDArray[Any]:
        """The same, on another thread when it takes long."""
        assert self._arrays is not None
        if self._arrays[0].nbytes < COPY_ASIDE:
            return self.run()
        try:
            return await anyio.to_thread.run_sync(self.run)
        finally:
            # asyncio's own cancellation does not wait for the thread, which must not write to the
            # target any more when it is the caller's again.
            with self._lock:
                self._arrays = None
