"""Recorded commands."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from pers.errors import ValidationError

if TYPE_CHECKING:
    from pers.backends.null.buffers import NullBuffer

Command = Callable[[], None]


@attrs.define
class NullCounters:
    """What a null device was given to do.

    Attributes:
        submits: Calls of `IRenderQueue.submit` (counted in the call).
        draws: Draws, those of bundles and each of a ``multi_draw_indirect`` included. Counted,
            like everything from here on, when the GPU gets there on the clock.
        dispatches: Dispatches.
        render_passes: Render passes.
        compute_passes: Compute passes.
        copies: Copies between buffers and textures.
        copied_bytes: Bytes that these copies moved, without the padding of rows.
        writes: Calls of `write_buffer` and `write_texture`.
        written_bytes: Bytes that these wrote.
    """

    submits: int = 0
    draws: int = 0
    dispatches: int = 0
    render_passes: int = 0
    compute_passes: int = 0
    copies: int = 0
    copied_bytes: int = 0
    writes: int = 0
    written_bytes: int = 0

    def add(self, other: NullCounters) -> None:
        """Add the counts of `other`."""
        for field in attrs.fields(NullCounters):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


class Tape:
    """Commands in order, the buffers they use, and the first of them that was not valid."""

    def __init__(self) -> None:
        self.commands: list[Command] = []
        self.buffers: set[NullBuffer] = set()
        self.counters = NullCounters()
        self._error: str | None = None

    def fail(self, message: str) -> None:
        """Note a command that is not valid; like WebGPU, `check` raises for the first of them."""
        if self._error is None:
            self._error = message

    def check(self) -> None:
        """Raise `ValidationError` when a command was not valid."""
        if self._error is not None:
            raise ValidationError(self._error)
