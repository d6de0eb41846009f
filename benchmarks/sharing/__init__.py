"""Sharing textures between processes, beside two ways of copying them.

The other side is always a process of its own (`benchmarks.sharing.processes`), started anew and
not forked, and opened on the same GPU. What it finds in a frame it compares itself.
"""

from benchmarks.core import Benchmark
from benchmarks.sharing.making import CREATE, EXPORT, IMPORT
from benchmarks.sharing.memory import OVERHEAD
from benchmarks.sharing.round_trip import FRAME
from benchmarks.sharing.stream import STREAM, STREAM_GPU
from benchmarks.sharing.sync import SYNC

__all__ = ["SHARING"]

SHARING: tuple[Benchmark, ...] = (CREATE, EXPORT, IMPORT, OVERHEAD, SYNC, FRAME, STREAM, STREAM_GPU)
