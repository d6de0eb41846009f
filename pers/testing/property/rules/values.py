"""The arguments that rules choose from: mostly right, often at an edge, sometimes absurd."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from pers.buffers import BufferUsage, MapMode
from pers.testing.property.oracle import NO_ERRORS, RANGE, USAGE, Errors, whole

WHICH = st.integers(0, 11)
"""Which of the objects there are: up to 9 one of those that fit the rule, above that any."""

ABSURD: list[Any] = [-4, 2**63, 2**64, 1.5, True, "8", None]

OFFSETS: st.SearchStrategy[Any] = st.sampled_from(
    [0] * 40 + [8] * 20 + [16] * 10 + [24, 32, 64, 4, 12, 2, 3, 2**62, *ABSURD]
)
SIZES: st.SearchStrategy[Any] = st.sampled_from(
    [None] * 30 + [8] * 20 + [16] * 10 + [4] * 10 + [12, 24, 32, 64, 0, 0, 6, 3, 2**62, *ABSURD]
)
COUNTS = st.sampled_from([8] * 12 + [4] * 8 + [16] * 8 + [32, 32, 0, 0, 12, 64, 3, 6])
FAULT = st.sampled_from([False] * 15 + [True])
"""Whether the call meets an injected fault."""

_WRITE = int(BufferUsage.MAP_WRITE | BufferUsage.COPY_SRC)
_READ = int(BufferUsage.MAP_READ | BufferUsage.COPY_DST)
_BOTH = int(BufferUsage.COPY_SRC | BufferUsage.COPY_DST)
USAGES = st.sampled_from(
    [_WRITE] * 12
    + [_READ] * 12
    + [_BOTH] * 6
    + [_BOTH | int(BufferUsage.VERTEX), _BOTH | int(BufferUsage.UNIFORM)]
    + [int(BufferUsage.MAP_READ), int(BufferUsage.MAP_WRITE), int(BufferUsage.INDEX)]
    + [_READ | _WRITE, _WRITE | int(BufferUsage.STORAGE), _READ | int(BufferUsage.INDIRECT)]
    + [0, 1 << 12]
)
MODES: st.SearchStrategy[Any] = st.sampled_from(
    ["fitting"] * 40 + [MapMode.WRITE, MapMode.READ, 1, 2, MapMode.NONE, 3, 4, -1, "read", None]
)
DTYPES: st.SearchStrategy[Any] = st.sampled_from(
    [np.uint8] * 16 + [np.uint32] * 4 + [np.float32, np.int16, "<f8", object, "nonsense", "V0"]
)
SHAPES: st.SearchStrategy[Any] = st.sampled_from(
    [None] * 16 + [1, 2, 4, 8, (2, 2), (4, 2), 0, (), (2, 0), -1, 1.5, 2**62, "8"]
)
FORMS = st.sampled_from(["bytes"] * 12 + ["array", "words", "view", "text", "objects", "none"])


def formed(data: bytes, form: str) -> tuple[Any, bool]:
    """Return `data` as callers have it, and whether it is plain bytes at all."""
    if form == "array":
        return np.frombuffer(data, np.uint8).reshape(1, -1), True
    if form == "words" and len(data) % 4 == 0:
        return np.frombuffer(data, np.uint32), True
    if form == "view":
        return memoryview(bytearray(data)), True
    if form == "text":
        return "text", False
    if form == "objects":
        return np.array([None, "x"], object), False
    if form == "none":
        return None, False
    return data, True


def layout(dtype: Any, shape: Any, available: int) -> tuple[int, Errors]:
    """Return how many bytes an array takes, and why it cannot be in `available` bytes."""
    try:
        item = np.dtype(dtype)
    except TypeError:
        return 0, USAGE
    if item.hasobject or not item.itemsize:
        return 0, USAGE
    if shape is None:
        return available, RANGE if available % item.itemsize else NO_ERRORS
    nbytes = item.itemsize
    lengths: tuple[Any, ...] = shape if isinstance(shape, tuple) else (shape,)  # pyright: ignore[reportUnknownVariableType]
    for length in lengths:
        number = whole(length)
        if number is None:
            return 0, RANGE
        nbytes *= number
    return nbytes, RANGE if nbytes > available else NO_ERRORS
