"""A shared texture and the access to it, over a backend's texture."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt

from pers._checks import whole_number
from pers.errors import BufferRangeError
from pers.graphics.types import TextureDescriptor
from pers.sharing.control import ControlPage
from pers.sharing.handles import TextureHandle
from pers.sharing.interfaces import SharedTexture, SyncPoint, TextureAccess, TextureShareManager
from pers.sharing.native import NativeTexture
from pers.sharing.resource import ManagedAccess, ManagedResource, ToPoints
from pers.textures import TextureRows

__all__ = ["ManagedTexture"]


class ManagedTexture(ManagedResource, SharedTexture):
    """A texture of a `ShareManager`, which it keeps alive.

    Args:
        manager: Who made it.
        descriptor: What it is.
        native: The backend's texture.
        control: Its control page.
        to_points: Turns what an access waits for or signals into the backend's objects.
    """

    def __init__(
        self,
        manager: TextureShareManager,
        descriptor: TextureDescriptor,
        native: NativeTexture,
        control: ControlPage,
        to_points: ToPoints,
    ) -> None:
        what = f"shared texture {descriptor.label!r}"
        super().__init__(manager, what, native, control, to_points)
        self.native = native
        self.seen_ready = 0
        self._descriptor = descriptor

    @property
    def descriptor(self) -> TextureDescriptor:
        return self._descriptor

    def access(
        self,
        *,
        write: bool = False,
        wait: Sequence[SyncPoint] = (),
        signal: Sequence[SyncPoint] = (),
        timeout_ns: int = 0,
    ) -> AbstractContextManager[TextureAccess]:
        return self.take_turn(_Access(self, writable=write), wait, signal, timeout_ns)

    def export(self) -> TextureHandle:
        """Return a new handle."""
        with self.turns.lock:
            return self.native.export(self.control.export())

    def __repr__(self) -> str:
        size = f"{self.width}x{self.height} {self.format.value}"
        return f"<SharedTexture {self.label!r} {size}{'' if self.is_valid else ' closed'}>"


class _Access(ManagedAccess, TextureAccess):
    """The texture within one ``with`` block."""

    def __init__(self, texture: ManagedTexture, *, writable: bool) -> None:
        super().__init__(texture, writable=writable)
        self._texture = texture

    def upload(self, pixels: npt.ArrayLike, *, layer: int = 0, mip_level: int = 0) -> None:
        rows = self._rows(layer, mip_level)
        self.check_writable()
        array = np.asarray(pixels)
        rows.check(array)
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        with self.calling():
            self._texture.native.upload(flat, layer, mip_level)

    def download(self, *, layer: int = 0, mip_level: int = 0) -> npt.NDArray[Any]:
        rows = self._rows(layer, mip_level)
        out = np.empty(rows.shape, rows.format.dtype)
        with self.calling():
            self._texture.native.download(out.reshape(-1).view(np.uint8), layer, mip_level)
        return out

    def as_array(self, *, layer: int = 0, mip_level: int = 0) -> npt.NDArray[Any]:
        rows = self._rows(layer, mip_level)
        with self.calling():
            memory = self._texture.native.memory(layer, mip_level)
        if not self._writable:
            memory = np.frombuffer(memory.data.toreadonly(), np.uint8)
        return memory.view(rows.format.dtype).reshape(rows.shape)

    def _rows(self, layer: int, mip_level: int) -> TextureRows:
        """Check a place in the texture; return how its pixels look."""
        self.check()
        made = self._texture.descriptor
        what = self.turns.what
        whole_number(layer, f"{what}: layer", maximum=made.layers - 1, error=BufferRangeError)
        level = whole_number(
            mip_level, f"{what}: mip_level", maximum=made.mip_levels - 1, error=BufferRangeError
        )
        return TextureRows(made.format, max(made.width >> level, 1), max(made.height >> level, 1))
