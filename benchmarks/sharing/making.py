"""What it costs to make a texture that can be shared, to export it, and to import it.

The import is into a manager (and so a GPU device) of its own. The peer, a block of Python's
`multiprocessing.shared_memory`, has nothing to export: its name is enough. That it is made in
no time at all is because no page of it exists before it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing, contextmanager
from multiprocessing.shared_memory import SharedMemory

import numpy as np

from benchmarks.core import (
    PERS,
    Benchmark,
    Contender,
    Entrant,
    Missing,
    Point,
    Scale,
    WrongContentError,
)
from benchmarks.lab import Lab
from benchmarks.sharing.blocks import contents
from benchmarks.sharing.managers import SHARED_MEMORY, Place, describe, open_managers
from pers import SharedTexture, TextureDescriptor, TextureHandle, TextureShareManager

__all__ = ["CREATE", "EXPORT", "IMPORT"]

SIDES = (256, 512, 1024, 2048, 4096)
STAMP = 0xA5


def side_points(lab: Lab, scale: Scale) -> list[Point]:
    """Return square textures, by the bytes of their pixels."""
    sides = SIDES[:2] if scale.quick else SIDES
    return [Point(f"{side}²", side * side * 4) for side in sides]


def _descriptor(point: Point) -> TextureDescriptor:
    side = int(point.label.removesuffix("²"))
    return describe(side, side)


def _check_zeros(texture: SharedTexture) -> None:
    with texture.access() as view:
        if view.download().any():
            raise WrongContentError("the new texture is not all zeros")


def _check_stamp(texture: SharedTexture) -> None:
    with texture.access() as view:
        if not (view.download() == STAMP).all():
            raise WrongContentError("the imported texture has other pixels than the exported one")


Opened = Callable[[str, TextureShareManager, ExitStack], list[Contender]]


@contextmanager
def _entrants(lab: Lab, contenders: Opened, peer: Entrant) -> Generator[Sequence[Entrant]]:
    with open_managers(lab) as managers, ExitStack() as stack:
        found: list[Entrant] = []
        for name, manager in managers.items():
            if isinstance(manager, Missing):
                found.append(manager)
            else:
                found += contenders(name, manager, stack)
        yield [*found, peer]


# --- Create ---------------------------------------------------------------------------------------


@contextmanager
def _open_create(lab: Lab, point: Point, scale: Scale) -> Generator[Sequence[Entrant]]:
    descriptor = _descriptor(point)

    def contenders(name: str, manager: TextureShareManager, stack: ExitStack) -> list[Contender]:
        made: list[SharedTexture] = []

        def create() -> None:
            made.append(manager.create_shareable_texture(descriptor))

        def create_to_export() -> None:
            create()
            manager.export_texture(made[-1]).close()

        def check() -> None:
            if not made:
                raise WrongContentError("no texture was made")
            _check_zeros(made[-1])

        def release() -> None:
            made.pop().close()

        return [
            Contender(PERS, f"{name}, create", create, check, release=release),
            Contender(PERS, f"{name}, create and export", create_to_export, check, release=release),
        ]

    with _entrants(lab, contenders, _create_block(int(point.x or 0))) as entrants:
        yield entrants


def _create_block(nbytes: int) -> Contender:
    blocks: list[SharedMemory] = []

    def create() -> None:
        blocks.append(SharedMemory(create=True, size=nbytes))

    def check() -> None:
        if not blocks:
            raise WrongContentError("no block was made")
        if any(contents(blocks[-1])[:: nbytes // 16]):
            raise WrongContentError("the new block is not all zeros")

    def release() -> None:
        block = blocks.pop()
        block.close()
        block.unlink()

    return Contender(SHARED_MEMORY, "create", create, check, release=release)


# --- Export ---------------------------------------------------------------------------------------


@contextmanager
def _open_export(lab: Lab, point: Point, scale: Scale) -> Generator[Sequence[Entrant]]:
    descriptor = _descriptor(point)

    def contenders(name: str, manager: TextureShareManager, stack: ExitStack) -> list[Contender]:
        texture = _stamped(manager, descriptor, stack)
        importer = stack.enter_context(Place.of(manager).open())
        handles: list[TextureHandle] = []

        def export() -> None:
            handles.append(manager.export_texture(texture))

        def check() -> None:
            if not handles:
                raise WrongContentError("nothing was exported")
            with importer.import_texture(handles[-1], descriptor) as imported:
                _check_stamp(imported)

        def release() -> None:
            manager.release_texture_handle(handles.pop())

        return [Contender(PERS, name, export, check, release=release)]

    peer = Missing(SHARED_MEMORY, "a block has a name, and there is nothing to export")
    with _entrants(lab, contenders, peer) as entrants:
        yield entrants


def _stamped(
    manager: TextureShareManager, descriptor: TextureDescriptor, stack: ExitStack
) -> SharedTexture:
    """Make a texture that holds the stamp, and export it once: the first waits for its zeros."""
    texture = stack.enter_context(manager.create_shareable_texture(descriptor))
    pixels = np.full((descriptor.height, descriptor.width, 4), STAMP, np.uint8)
    with texture.access(write=True) as view:
        view.upload(pixels)
    manager.export_texture(texture).close()
    return texture


# --- Import ---------------------------------------------------------------------------------------


@contextmanager
def _open_import(lab: Lab, point: Point, scale: Scale) -> Generator[Sequence[Entrant]]:
    descriptor = _descriptor(point)

    def contenders(name: str, manager: TextureShareManager, stack: ExitStack) -> list[Contender]:
        texture = _stamped(manager, descriptor, stack)
        handle = stack.enter_context(closing(manager.export_texture(texture)))
        importer = stack.enter_context(Place.of(manager).open())
        imported: list[SharedTexture] = []

        def run() -> None:
            imported.append(importer.import_texture(handle, descriptor))

        def check() -> None:
            if not imported:
                raise WrongContentError("nothing was imported")
            _check_stamp(imported[-1])

        def release() -> None:
            imported.pop().close()

        return [Contender(PERS, name, run, check, release=release)]

    block = SharedMemory(create=True, size=int(point.x or 0))
    try:
        contents(block)[:] = bytes([STAMP]) * block.size
        with _entrants(lab, contenders, _attach(block)) as entrants:
            yield entrants
    finally:
        block.close()
        block.unlink()


def _attach(block: SharedMemory) -> Contender:
    attached: list[SharedMemory] = []

    def attach() -> None:
        attached.append(SharedMemory(block.name))

    def check() -> None:
        if not attached:
            raise WrongContentError("nothing was attached")
        if contents(attached[-1]) != contents(block):
            raise WrongContentError("the attached block holds other bytes")

    def release() -> None:
        attached.pop().close()

    return Contender(SHARED_MEMORY, "attach", attach, check, release=release)


CREATE = Benchmark(
    name="share-create",
    title="making a texture that can be shared, alone and until its first handle is there",
    axis="pixel bytes",
    points=side_points,
    open=_open_create,
)
EXPORT = Benchmark(
    name="share-export",
    title="exporting a texture once more",
    axis="pixel bytes",
    points=side_points,
    open=_open_export,
)
IMPORT = Benchmark(
    name="share-import",
    title="importing a texture into another device, or attaching to a block of shared memory",
    axis="pixel bytes",
    points=side_points,
    open=_open_import,
)
