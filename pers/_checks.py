"""Checks of what callers pass, shared by every public entry point."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import TypeVar

from pers.errors import BufferRangeError, PersError, ValidationError

T = TypeVar("T")

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
    if type(value) is int and minimum <= value <= maximum:
        return value
    if isinstance(value, bool):
        raise error(f"{what} must be a whole number, not {value!r}")
    try:
        number = operator.index(value)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    except TypeError:
        raise error(f"{what} must be a whole number, not {value!r}") from None
    if not minimum <= number <= maximum:
        raise error(f"{what} must be between {minimum} and {maximum}, not {number}")
    return number


def of_type(value: object, kind: type[T], call: str) -> T:
    """Return `value` when it is a `kind`, or raise `ValidationError`."""
    if not isinstance(value, kind):
        raise ValidationError(f"{call} takes a {kind.__name__}, not {value!r}")
    return value


def items_of(values: Iterable[T], call: str) -> list[T]:
    """Return the items of a sequence, or raise `ValidationError` when it is none."""
    try:
        return list(values)
    except TypeError:
        raise ValidationError(f"{call} takes a sequence (a list, say), not {values!r}") from None


def align_up(value: int, alignment: int) -> int:
    """Round `value` up to a multiple of `alignment`."""
    return -(-value // alignment) * alignment
