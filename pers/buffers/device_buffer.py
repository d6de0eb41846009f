"""`DeviceBuffer`: memory for the GPU alone."""

from __future__ import annotations

from typing import Any, Self

from pers._checks import align_up
from pers.buffers.interfaces import IBuffer, IBufferFactory
from pers.buffers.mapped_range import as_bytes_array, is_plain
from pers.buffers.types import COPY_ALIGNMENT, MAP_USAGES, BufferDesc, BufferUsage, usage_names
from pers.buffers.view import KNOWN_FACTORIES, BufferView, check_factory
from pers.errors import BufferUsageError

__all__ = ["DeviceBuffer"]

_MAP_BITS = int(MAP_USAGES)


_COPY_DST = int(BufferUsage.COPY_DST)


def _fillable(desc: BufferDesc) -> BufferDesc:
    """Add COPY_DST, without which nothing could fill the buffer."""
    if desc.usage_bits & _COPY_DST:
        return desc
    return BufferDesc(desc.size, desc.usage | BufferUsage.COPY_DST, debug_name=desc.debug_name)


class DeviceBuffer(BufferView[IBuffer]):
    """A buffer that only the GPU reaches, at the highest bandwidth there is.

    Fill it with `from_array`, `device.upload`, a staging buffer, or on the GPU.
    """

    def __init__(
        self,
        desc_or_size: BufferDesc | int,
        factory: IBufferFactory,
        *,
        usage: BufferUsage = BufferUsage.NONE,
        debug_name: str = "",
    ) -> None:
        """Make a buffer with zeros in it.

        Args:
            desc_or_size: A description, or a size in bytes together with `usage`.
            factory: ``device.buffer_factory``.
            usage: What it is for; COPY_DST is added, or nothing could fill it.
            debug_name: A name for error messages and graphics debuggers.

        Raises:
            BufferUsageError: No usage, or one that needs CPU access.
        """
        if type(factory) not in KNOWN_FACTORIES:
            check_factory("DeviceBuffer", factory)
        if isinstance(desc_or_size, BufferDesc):
            desc = desc_or_size
        else:
            desc = BufferDesc(desc_or_size, usage, debug_name=debug_name)
        mapping = desc.usage_bits & _MAP_BITS
        if mapping or desc.mapped_at_creation:
            raise BufferUsageError(
                f"DeviceBuffer {desc.debug_name!r} has no CPU access, but was asked for "
                f"{usage_names(mapping) if mapping else ''}"
                f"{' mapped_at_creation' if desc.mapped_at_creation else ''}; "
                "use a staging, readback or dynamic buffer beside it"
            )
        if not desc.usage_bits & _COPY_DST:
            desc = _fillable(desc)
        self._stands_on = factory.create_buffer(desc)

    @classmethod
    def from_array(
        cls,
        array: Any,
        usage: BufferUsage,
        factory: IBufferFactory,
        *,
        debug_name: str = "",
    ) -> Self:
        """Make a buffer with the bytes of `array` in it, without an encoder or a submit.

        Args:
            array: A NumPy array of any shape, or anything with the buffer protocol. The buffer's
                size is its size, rounded up to 4 bytes.
            usage: What the buffer is for.
            factory: ``device.buffer_factory``.
            debug_name: A name for error messages and graphics debuggers.

        Raises:
            BufferUsageError: No usage, one that needs CPU access, or no plain data.
        """
        if type(factory) not in KNOWN_FACTORIES:
            check_factory("DeviceBuffer.from_array", factory)
        data = array
        if not is_plain(array):
            data = as_bytes_array(array, f"DeviceBuffer {debug_name!r}: from_array")
        size = align_up(data.nbytes, COPY_ALIGNMENT)
        desc = BufferDesc(size, usage, debug_name=debug_name)
        mapping = desc.usage_bits & _MAP_BITS
        if mapping:
            raise BufferUsageError(
                f"DeviceBuffer {debug_name!r} has no CPU access, but was asked for "
                f"{usage_names(mapping)}; use a staging or readback buffer"
            )
        self = cls.__new__(cls)
        self._stands_on = factory.create_buffer_with_data(_fillable(desc), data)
        return self
