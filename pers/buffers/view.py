"""What the five buffer classes have in common: they stand on a buffer of the factory."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from pers._checks import align_up, whole_number
from pers.buffers.core import IBufferView
from pers.buffers.interfaces import IBuffer, IBufferFactory
from pers.buffers.types import COPY_ALIGNMENT, BufferDesc, BufferState, BufferUsage, usage_names
from pers.errors import BufferUsageError

Inner = TypeVar("Inner", bound=IBuffer)


class BufferView(IBufferView, Generic[Inner]):
    """An `IBuffer` that passes everything on to the buffer it stands on."""

    _stands_on: Inner
    """The buffer it stands on. Commands look here first, which saves them a call; see
    `pers.buffers.core.core_behind` for all other cases."""

    @property
    def inner(self) -> Inner:
        """The buffer it stands on now; may change over time."""
        return self._stands_on

    @property
    def size(self) -> int:
        return self._stands_on.size

    @property
    def usage(self) -> BufferUsage:
        return self._stands_on.usage

    @property
    def debug_name(self) -> str:
        return self._stands_on.debug_name

    @property
    def native_handle(self) -> Any:
        return self._stands_on.native_handle

    @property
    def state(self) -> BufferState:
        return self._stands_on.state

    def destroy(self) -> None:
        self._stands_on.destroy()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.debug_name!r}: {self.size} bytes, {self.state.value}>"


def fixed_usage_desc(
    what: str,
    desc_or_size: BufferDesc | int,
    usage: BufferUsage,
    debug_name: str,
    *,
    mapped_at_creation: bool = False,
) -> BufferDesc:
    """Describe a buffer of a class that fixes the usage itself.

    Raises:
        BufferUsageError: A descriptor asks for more than `usage`, or for another mapping.
    """
    if isinstance(desc_or_size, BufferDesc):
        extra = desc_or_size.usage & ~usage
        if extra:
            raise BufferUsageError(
                f"{what} {desc_or_size.debug_name!r} is for {usage_names(usage)}, and cannot be "
                f"used for {usage_names(extra)} too; pass its size only, or make another kind of "
                "buffer for that"
            )
        if desc_or_size.mapped_at_creation and not mapped_at_creation:
            raise BufferUsageError(
                f"{what} {desc_or_size.debug_name!r} is not mapped at creation; it maps itself "
                "when it is used"
            )
        size, debug_name = desc_or_size.size, desc_or_size.debug_name or debug_name
    else:
        size = whole_number(desc_or_size, f"{what} {debug_name!r}: size")
    return BufferDesc(
        align_up(size, COPY_ALIGNMENT),
        usage,
        mapped_at_creation=mapped_at_creation,
        debug_name=debug_name or what,
    )


KNOWN_FACTORIES: set[type] = set()
"""The classes that `check_factory` let pass: it looks once at each, an ABC takes its time."""


def check_factory(what: str, factory: object) -> None:
    """Raise unless `factory` can make buffers; catches swapped constructor arguments early."""
    if not isinstance(factory, IBufferFactory):
        raise BufferUsageError(
            f"{what} takes (size or BufferDesc, factory); {factory!r} is no buffer factory; "
            "pass device.buffer_factory"
        )
    KNOWN_FACTORIES.add(type(factory))


def check_encoder(call: str, encoder: object) -> None:
    """Raise unless `encoder` records copies; catches swapped arguments early."""
    if not hasattr(encoder, "copy_buffer_to_buffer"):
        raise BufferUsageError(
            f"{call} takes a command encoder to record the copy, not {encoder!r}; "
            "make one with device.create_command_encoder()"
        )
