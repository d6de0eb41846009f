"""Checks of caller-supplied numbers, shared by every public entry point."""

from __future__ import annotations

import operator

from pers.errors import BufferRangeError, PersError

MAX_INT = 2**63 - 1
"""The largest size or offset accepted anywhere (bytes): what a signed 64-bit offset can hold."""


def whole_number(
    value: object,
    what: str,
    *,
    minimum: int = 0,
    maximum: int = MAX_INT,
    error: type[PersError] = BufferRangeError,
) -> int:
    """Return `value` as an int, or raise `error` naming `what`.

    Anything with ``__index__`` counts as whole (NumPy integers do); floats, NaN and bools do not.
    """
    if isinstance(value, bool):
        raise error(f"{what} must be a whole number, not {value!r}")
    try:
        number = operator.index(value)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    except TypeError:
        raise error(f"{what} must be a whole number, not {value!r}") from None
    if not minimum <= number <= maximum:
        raise error(f"{what} must be between {minimum} and {maximum}, not {number}")
    return number


def align_up(value: int, alignment: int) -> int:
    """Round `value` up to a multiple of `alignment`."""
    return -(-value // alignment) * alignment
