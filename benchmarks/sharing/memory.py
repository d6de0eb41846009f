"""What memory a shared texture takes, for each byte of its pixels.

The memory that stands behind the handle is what the driver says, with the page that the two sides
hold their turns in. What a process grows by is found by a process of its own, which makes a few
textures, writes and reads each, and looks at its resident memory before and after; GPU memory is
not in there where the GPU has its own.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory

import numpy as np

from benchmarks.core import PERS, Benchmark, Contender, Entrant, Missing, Point, Scale
from benchmarks.core import WrongContentError as WrongContent
from benchmarks.lab import Lab
from benchmarks.memory import resident_bytes
from benchmarks.sharing.blocks import contents
from benchmarks.sharing.managers import SHARED_MEMORY, Place, describe, open_managers
from benchmarks.sharing.processes import Answers, Child
from pers import HostTextureHandle, TextureShareManager, VulkanTextureHandle

__all__ = ["OVERHEAD"]

SIZES = {"256²": (256, 256), "1080p": (1920, 1080), "4K": (3840, 2160)}
COUNT = 4


def _points(lab: Lab, scale: Scale) -> list[Point]:
    labels = list(SIZES)[:1] if scale.quick else list(SIZES)
    return [Point(label, SIZES[label][0] * SIZES[label][1] * 4) for label in labels]


@contextmanager
def _open(lab: Lab, point: Point, scale: Scale) -> Generator[Sequence[Entrant]]:
    nbytes = int(point.x or 0)
    found: list[Entrant] = []
    with open_managers(lab) as managers, ExitStack() as stack:
        for name, manager in managers.items():
            if isinstance(manager, Missing):
                found.append(manager)
                continue
            behind = _Behind(manager, point)
            found.append(Contender(PERS, f"{name}, behind the handle", behind.run, behind.check))
            child = stack.enter_context(
                Child(open_textures, Place.of(manager), *SIZES[point.label])
            )
            found.append(_growth(PERS, f"{name}, growth of the process", child, nbytes))
        child = stack.enter_context(Child(open_blocks, nbytes))
        found.append(_growth(SHARED_MEMORY, "growth of the process", child, nbytes))
        yield found


class _Behind:
    """The memory behind a handle, for each byte of pixels."""

    def __init__(self, manager: TextureShareManager, point: Point) -> None:
        self._manager = manager
        self._descriptor = describe(*SIZES[point.label])
        self._pixels = int(point.x or 0)
        self._found = 0.0

    def run(self) -> float:
        with (
            self._manager.create_shareable_texture(self._descriptor) as texture,
            self._manager.export_texture(texture) as handle,
        ):
            if not isinstance(handle, VulkanTextureHandle | HostTextureHandle):
                raise TypeError(f"{handle!r} has no size")
            control = handle.control
            page = os.fstat(control.fileno()).st_size if control else 0
            self._found = (handle.size + page) / self._pixels
        return self._found

    def check(self) -> None:
        found, self._found = self._found, 0.0
        if found < 1:
            raise WrongContent(f"{found:.2f} bytes for each byte of pixels")


def _growth(library: str, road: str, child: Child, nbytes: int) -> Contender:
    found: list[float] = []

    def run() -> float:
        child.ask(None)
        grown = child.answer()
        share: float = grown / (COUNT * nbytes)
        found.append(share)
        return share

    def check() -> None:
        if not found:
            raise WrongContent("nothing was measured")
        found.clear()

    return Contender(library, road, run, check)


def _grown(use: Callable[[ExitStack], None]) -> int:
    """Return what the process has grown by, before what `use` made is taken away again."""
    gc.collect()
    before = resident_bytes()
    with ExitStack() as stack:
        use(stack)
        gc.collect()
        after = resident_bytes()
    if before is None or after is None:
        raise OSError("this system does not tell a process its size")
    return after - before


@contextmanager
def open_textures(
    connection: Connection, place: Place, width: int, height: int
) -> Generator[Answers]:
    """Make, write and read textures of a manager."""
    descriptor = describe(width, height)
    pixels = np.full((height, width, 4), 7, np.uint8)
    with place.open() as manager:

        def use(stack: ExitStack) -> None:
            for _ in range(COUNT):
                texture = stack.enter_context(manager.create_shareable_texture(descriptor))
                with texture.access(write=True) as view:
                    view.upload(pixels)
                with texture.access() as view:
                    if not np.array_equal(view.download(), pixels):
                        raise WrongContent("a texture holds other pixels than were written")

        _grown(use)  # what is needed once: staging memory, and the driver's
        yield lambda message: _grown(use)


@contextmanager
def open_blocks(connection: Connection, nbytes: int) -> Generator[Answers]:
    """Make, write and read blocks of shared memory."""

    def use(stack: ExitStack) -> None:
        for _ in range(COUNT):
            block = SharedMemory(create=True, size=nbytes)
            stack.callback(block.unlink)
            stack.callback(block.close)
            contents(block)[:nbytes] = b"\x07" * nbytes
            if contents(block)[nbytes - 1] != 7:
                raise WrongContent("a block holds other bytes than were written")

    _grown(use)
    yield lambda message: _grown(use)


OVERHEAD = Benchmark(
    name="share-memory",
    title="memory of a shared texture, for each byte of its pixels",
    axis="pixel bytes",
    points=_points,
    open=_open,
    unit="bytes per byte",
)
