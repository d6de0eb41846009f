"""Blocks of `multiprocessing.shared_memory`."""

from __future__ import annotations

from multiprocessing.shared_memory import SharedMemory

__all__ = ["contents"]


def contents(block: SharedMemory) -> memoryview:
    """Return the bytes of a block that is open."""
    view = block.buf
    if view is None:
        raise ValueError("the block is closed")
    return view
