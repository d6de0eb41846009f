"""How long it takes to have a buffer mapped, and to unmap it, with nothing else to do."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import anyio
import numpy as np

from benchmarks.core import (
    MODERNGL,
    PERS,
    SLANGPY,
    WGPU,
    Benchmark,
    Contender,
    Entrant,
    Missing,
    Point,
    Scale,
    WrongContentError,
)
from benchmarks.lab import Lab
from benchmarks.peers.raw_wgpu import RawWgpu
from benchmarks.sizes import KIB, MIB, show_bytes
from pers import BufferDesc, BufferUsage, MapMode

__all__ = ["LOOPS", "MAP_LATENCY"]

LOOPS = ("asyncio", "trio")
SIZES = (KIB, 64 * KIB, MIB, 16 * MIB)


def _points(lab: Lab, scale: Scale) -> list[Point]:
    return [Point(show_bytes(size), size) for size in (SIZES[:2] if scale.quick else SIZES)]


@contextmanager
def _open(lab: Lab, point: Point, scale: Scale) -> Generator[Sequence[Entrant]]:
    maps, size = (5 if scale.quick else 50), int(point.x or 0)
    ours = PersMaps(lab, size, maps)
    entrants = _contenders(ours)
    entrants += _contenders(RawMaps(lab.wgpu, size, maps)) if lab.wgpu else [lab.missing(WGPU)]
    for library in (MODERNGL, SLANGPY):
        entrants.append(lab.missing(library, "its buffers cannot be mapped from Python"))
    yield entrants
    ours.close()


class Maps:
    """Maps a buffer again and again, and writes a number of its own each time."""

    library: str
    blocking_road: str
    awaited_road: str

    def __init__(self, maps: int) -> None:
        self.maps = maps
        self.number = self._goal = 0

    def map_blocking(self) -> None:
        """Map, write the next number, unmap; as often as wanted."""
        raise NotImplementedError

    async def map_awaited(self) -> None:
        """The same, awaiting each map."""
        raise NotImplementedError

    def contents(self) -> bytes:
        """Return the first bytes of the buffer."""
        raise NotImplementedError

    def next_number(self) -> bytes:
        """Return bytes that were not there before."""
        self.number += 1
        return self.number.to_bytes(8, "little")

    def prepare(self) -> None:
        """Note which number the buffer is to hold after the next run."""
        self._goal = self.number + self.maps

    def check(self) -> None:
        """Raise `WrongContentError` unless it holds that number."""
        found, wanted = self.contents(), self._goal.to_bytes(8, "little")
        if found != wanted:
            raise WrongContentError(f"the buffer holds {found.hex()} instead of {wanted.hex()}")


class PersMaps(Maps):
    """pers."""

    library, blocking_road, awaited_road = PERS, "map", "await map_async"

    def __init__(self, lab: Lab, size: int, maps: int) -> None:
        super().__init__(maps)
        self._device = lab.device
        desc = BufferDesc(size, BufferUsage.MAP_WRITE | BufferUsage.COPY_SRC)
        self._buffer = lab.device.buffer_factory.create_mappable_buffer(desc)

    def map_blocking(self) -> None:
        buffer = self._buffer
        for _ in range(self.maps):
            buffer.map(MapMode.WRITE).write(self.next_number())
            buffer.unmap()

    async def map_awaited(self) -> None:
        buffer = self._buffer
        for _ in range(self.maps):
            (await buffer.map_async(MapMode.WRITE)).write(self.next_number())
            buffer.unmap()

    def contents(self) -> bytes:
        return self._device.read_array_blocking(self._buffer, np.uint8, copy=True)[:8].tobytes()

    def close(self) -> None:
        self._buffer.destroy()


class RawMaps(Maps):
    """wgpu-py."""

    library, blocking_road, awaited_road = WGPU, "map_sync", "await map_async"

    def __init__(self, raw: RawWgpu, size: int, maps: int) -> None:
        super().__init__(maps)
        self._raw = raw
        self._buffer = raw.buffer(size, "write")

    def map_blocking(self) -> None:
        buffer = self._buffer
        for _ in range(self.maps):
            buffer.map_sync("WRITE")
            buffer.write_mapped(self.next_number(), 0)
            buffer.unmap()

    async def map_awaited(self) -> None:
        buffer = self._buffer
        for _ in range(self.maps):
            await buffer.map_async("WRITE")
            buffer.write_mapped(self.next_number(), 0)
            buffer.unmap()

    def contents(self) -> bytes:
        return bytes(self._raw.queue.read_buffer(self._buffer, 0, 8))


def _contenders(maps: Maps) -> list[Entrant]:
    found: list[Entrant] = [
        Contender(
            maps.library,
            maps.blocking_road,
            maps.map_blocking,
            maps.check,
            maps.prepare,
            per=maps.maps,
        )
    ]
    for loop in LOOPS:
        road = f"{maps.awaited_road} on {loop}"
        if importlib.util.find_spec(loop) is None:
            found.append(Missing(maps.library, f"{loop} is not installed", road))
        else:
            run = _in_loop(loop, maps.map_awaited)
            found.append(
                Contender(maps.library, road, run, maps.check, maps.prepare, per=maps.maps)
            )
    return found


def _in_loop(loop: str, work: Callable[[], Awaitable[None]]) -> Callable[[], Any]:
    """Return a run that starts an event loop, and times only what happens in it."""

    async def timed() -> float:
        start = time.perf_counter()
        await work()
        return time.perf_counter() - start

    return lambda: anyio.run(timed, backend=loop)


MAP_LATENCY = Benchmark(
    name="map-latency",
    title="map latency: map for writing, write 8 bytes, unmap",
    axis="bytes",
    points=_points,
    open=_open,
)
