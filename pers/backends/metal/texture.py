"""A texture in an ``IOSurface``."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from pers.backends.metal._objc import Metal
from pers.backends.metal.surfaces import texture_usage
from pers.backends.metal.work import Work
from pers.errors import MetalApiError
from pers.graphics.types import TextureDescriptor
from pers.sharing.formats import metal_pixel_format
from pers.sharing.handles import MetalTextureHandle, OwnedFd
from pers.sharing.native import NativePoint, NativeTexture

__all__ = ["MetalTexture"]

LOCK_READ_ONLY = 1  # kIOSurfaceLockReadOnly


class MetalTexture(NativeTexture):
    """A surface, and the ``MTLTexture`` that looks at it.

    The CPU reads and writes the surface between ``IOSurfaceLock`` and ``IOSurfaceUnlock``, once
    the queue has done all before: the lock moves pixels, it does not wait for the GPU's work
    (Apple, ``IOSurfaceLock``: the term is "used loosely").

    Args:
        metal: Apple's calls.
        device: The ``MTLDevice``.
        work: The queue.
        surface: The ``IOSurfaceRef``, which fits the descriptor.
        descriptor: What it is.
    """

    def __init__(
        self, metal: Metal, device: Any, work: Work, surface: Any, descriptor: TextureDescriptor
    ) -> None:
        self._metal = metal
        self._work = work
        self._surface = surface
        self._height = descriptor.height
        self._row_bytes = descriptor.width * descriptor.format.bytes_per_pixel
        self._what = f"shared texture {descriptor.label!r}"
        self._texture = metal.new_texture(
            device,
            surface,
            (descriptor.width, descriptor.height),
            metal_pixel_format(descriptor.format),
            texture_usage(descriptor.usage),
        )
        if self._texture is None:
            raise MetalApiError(
                f"{self._what}: newTextureWithDescriptor:iosurface:plane: returned nothing; this "
                f"GPU has no textures of {descriptor.format.value} in an IOSurface"
            )

    @property
    def native_handle(self) -> Any:
        return self._texture

    @property
    def surface_id(self) -> int:
        """The number under which the system knows the surface."""
        return self._metal.surface_id(self._surface)

    def export(self, control: OwnedFd) -> MetalTextureHandle:
        control.close()  # the handle is a number and nothing else
        return MetalTextureHandle(self.surface_id)

    def wait_first(self, waits: Sequence[NativePoint]) -> None:
        pass  # the GPU waits

    def give_back(self, waits: Sequence[NativePoint]) -> None:
        pass

    def acquire(self, waits: Sequence[NativePoint], *, write: bool) -> None:
        self._work.wait(waits, self._what)

    def release(self, signals: Sequence[NativePoint]) -> None:
        self.signal(signals)

    def wait(self, waits: Sequence[NativePoint]) -> None:
        self._work.wait(waits, self._what)

    def signal(self, signals: Sequence[NativePoint]) -> None:
        if signals:
            self._work.signal(signals, self._what)

    def finish(self) -> None:
        self._work.signal((), self._what)

    def upload(self, pixels: npt.NDArray[np.uint8], layer: int, mip_level: int) -> None:
        self.finish()
        with self._rows(0) as rows:
            rows[:] = pixels.reshape(rows.shape)

    def download(self, out: npt.NDArray[np.uint8], layer: int, mip_level: int) -> None:
        self.finish()
        with self._rows(LOCK_READ_ONLY) as rows:
            out.reshape(rows.shape)[:] = rows

    def clear(self) -> None:
        """Make all bytes zero; nobody else has the surface yet."""
        with self._rows(0) as rows:
            rows[:] = 0

    @contextmanager
    def _rows(self, options: int) -> Generator[npt.NDArray[np.uint8]]:
        """Lend the pixels, a row of bytes for each row, without the padding between them."""
        surface = self._surface
        self._check(self._metal.lock(surface, options), "IOSurfaceLock")
        try:
            stride = self._metal.surface_bytes_per_row(surface)
            memory = self._metal.surface_memory(surface, stride * self._height)
            rows = np.frombuffer(memory, np.uint8).reshape(self._height, stride)
            yield rows[:, : self._row_bytes]
        finally:
            result = self._metal.unlock(surface, options)
        self._check(result, "IOSurfaceUnlock")

    def _check(self, result: int, call: str) -> None:
        if result:
            raise MetalApiError(
                f"{self._what}: {call} returned {result:#x} (kern_return_t); "
                "close the texture and make another one"
            )

    def destroy(self) -> None:
        # Command buffers keep what they use until they are done (MTLCommandQueue.commandBuffer).
        self._texture = self._surface = None
