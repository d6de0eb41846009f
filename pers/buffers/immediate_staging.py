"""`ImmediateStagingBuffer`: upload now."""

from __future__ import annotations

from pers.buffers.interfaces import IBufferFactory
from pers.buffers.staging import STAGING_USAGE, StagingBuffer
from pers.buffers.types import BufferDesc
from pers.buffers.view import check_factory, fixed_usage_desc

__all__ = ["ImmediateStagingBuffer"]


class ImmediateStagingBuffer(StagingBuffer):
    """An upload that is written at once: mapped at creation, filled, copied, dropped.

    For data that is loaded once. `DeferredStagingBuffer` is for buffers that are filled again
    and again.
    """

    def __init__(
        self,
        desc_or_size: BufferDesc | int,
        factory: IBufferFactory,
        *,
        debug_name: str = "",
    ) -> None:
        """Make a mapped buffer with zeros in it.

        Args:
            desc_or_size: Size in bytes (rounded up to 4), or a description of it.
            factory: ``device.buffer_factory``.
            debug_name: A name for error messages and graphics debuggers.

        Raises:
            BufferUsageError: The description asks for more than MAP_WRITE | COPY_SRC.
        """
        check_factory("ImmediateStagingBuffer", factory)
        desc = fixed_usage_desc(
            "ImmediateStagingBuffer",
            desc_or_size,
            STAGING_USAGE,
            debug_name,
            mapped_at_creation=True,
        )
        self._factory = factory
        self._stands_on = factory.create_mappable_buffer(desc)
