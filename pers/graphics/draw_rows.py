"""The arguments of many draws as one array."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pers._checks import MAX_INT
from pers.errors import ValidationError

_MAX_UINT32 = 2**32 - 1

Columns: TypeAlias = tuple[tuple[str, int, int, int], ...]
"""Of each number of a draw: its name, what it is when left out, its smallest and largest value."""

DRAW: Columns = (
    ("vertex_count", 0, 0, _MAX_UINT32),
    ("instance_count", 1, 0, _MAX_UINT32),
    ("first_vertex", 0, 0, _MAX_UINT32),
    ("first_instance", 0, 0, _MAX_UINT32),
)
DRAW_INDEXED: Columns = (
    ("index_count", 0, 0, _MAX_UINT32),
    ("instance_count", 1, 0, _MAX_UINT32),
    ("first_index", 0, 0, _MAX_UINT32),
    ("base_vertex", 0, -(2**31), 2**31 - 1),
    ("first_instance", 0, 0, _MAX_UINT32),
)


def rows_of_draws(draws: npt.ArrayLike, columns: Columns, what: str) -> npt.NDArray[np.int64]:
    """Return the arguments of draws, complete and in range, shape (n, number of columns).

    Raises:
        ValidationError: They are no table of whole numbers, or one is out of range.
    """
    given = table_of_integers(draws, f"{what}: draws")
    if not 1 <= given.shape[1] <= len(columns):
        raise ValidationError(
            f"{what}: draws have shape (n,) to (n, {len(columns)}), with "
            f"{', '.join(name for name, *_ in columns)}; not {given.shape}"
        )
    rows = np.empty((len(given), len(columns)), np.int64)
    for place, (name, default, smallest, largest) in enumerate(columns):
        if place >= given.shape[1]:
            rows[:, place] = default
            continue
        column = rows[:, place] = given[:, place]
        bad = (column < smallest) | (column > largest)
        if bad.any():
            row = int(bad.argmax())
            raise ValidationError(
                f"{what}: {name} of draw {row} must be {smallest} to {largest}, not {column[row]}"
            )
    return rows


def table_of_integers(values: npt.ArrayLike, what: str) -> npt.NDArray[np.int64]:
    """Return a copy of an array-like of whole numbers, shape (n, k); (n,) becomes (n, 1).

    Raises:
        ValidationError: It is nothing like that.
    """
    try:
        given = np.asarray(values)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValidationError(f"{what} are no array of whole numbers ({error})") from None
    if given.ndim == 1:
        given = given[:, None]
    if given.dtype.kind not in "iu" and given.size:
        raise ValidationError(
            f"{what} are an array of whole numbers of at most 64 bits, not of {given.dtype}"
        )
    if given.ndim != 2:
        raise ValidationError(f"{what} have one or two dimensions, not {given.ndim}")
    if given.dtype == np.uint64:
        given = np.minimum(given, np.uint64(MAX_INT))
    return given.astype(np.int64, order="C")
