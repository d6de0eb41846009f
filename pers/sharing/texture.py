"""A shared texture and the access to it, over a backend's texture."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from pers._checks import whole_number
from pers.errors import BufferRangeError, TextureAccessError
from pers.graphics.types import TextureDescriptor
from pers.sharing.control import ControlPage
from pers.sharing.handles import TextureHandle
from pers.sharing.interfaces import SharedTexture, SyncPoint, TextureAccess, TextureShareManager
from pers.sharing.native import NativePoint, NativeTexture
from pers.sharing.turns import Turns
from pers.textures import TextureRows

__all__ = ["ManagedTexture"]

ToPoints = Callable[[Sequence[SyncPoint], str], list[NativePoint]]


class ManagedTexture(SharedTexture):
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
        self.manager = manager
        self.native = native
        self.seen_ready = 0
        self.turns = Turns(f"shared texture {descriptor.label!r}", native, control)
        self._descriptor = descriptor
        self._to_points = to_points

    @property
    def descriptor(self) -> TextureDescriptor:
        return self._descriptor

    @property
    def native_handle(self) -> Any:
        with self.turns.lock:
            self.turns.check_open()
            return self.native.native_handle

    @property
    def is_valid(self) -> bool:
        return self.turns.is_open

    @property
    def control(self) -> ControlPage:
        """The numbers that all sides see."""
        self.turns.check_open()
        return self.turns.control

    @contextmanager
    def access(
        self,
        *,
        write: bool = False,
        wait: Sequence[SyncPoint] = (),
        signal: Sequence[SyncPoint] = (),
        timeout_ns: int = 0,
    ) -> Generator[TextureAccess]:
        waits, signals = self._to_points(wait, "wait"), self._to_points(signal, "signal")
        self.turns.begin(waits, write=write, timeout_ns=whole_number(timeout_ns, "timeout_ns"))
        view = _Access(self, writable=write)
        try:
            yield view
        finally:
            view.is_over = True
            self.turns.end(signals)

    def export(self) -> TextureHandle:
        """Return a new handle."""
        with self.turns.lock:
            return self.native.export(self.control.export())

    def close(self) -> None:
        self.turns.close()

    def __repr__(self) -> str:
        size = f"{self.width}x{self.height} {self.format.value}"
        return f"<SharedTexture {self.label!r} {size}{'' if self.is_valid else ' closed'}>"


class _Access(TextureAccess):
    """The texture within one ``with`` block."""

    def __init__(self, texture: ManagedTexture, *, writable: bool) -> None:
        self._texture = texture
        self._writable = writable
        self.is_over = False

    @property
    def writable(self) -> bool:
        return self._writable

    @property
    def native_handle(self) -> Any:
        self._check()
        return self._texture.native_handle

    def upload(self, pixels: npt.ArrayLike, *, layer: int = 0, mip_level: int = 0) -> None:
        rows = self._rows(layer, mip_level)
        if not self._writable:
            raise TextureAccessError(
                f"{self._texture.turns.what} is open for reading; use access(write=True)"
            )
        array = np.asarray(pixels)
        rows.check(array)
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        with self._texture.turns.lock:
            self._check()
            self._texture.native.upload(flat, layer, mip_level)

    def download(self, *, layer: int = 0, mip_level: int = 0) -> npt.NDArray[Any]:
        rows = self._rows(layer, mip_level)
        out = np.empty(rows.shape, rows.format.dtype)
        with self._texture.turns.lock:
            self._check()
            self._texture.native.download(out.reshape(-1).view(np.uint8), layer, mip_level)
        return out

    def as_array(self, *, layer: int = 0, mip_level: int = 0) -> npt.NDArray[Any]:
        rows = self._rows(layer, mip_level)
        with self._texture.turns.lock:
            self._check()
            memory = self._texture.native.memory(layer, mip_level)
        if not self._writable:
            memory = np.frombuffer(memory.data.toreadonly(), np.uint8)
        return memory.view(rows.format.dtype).reshape(rows.shape)

    def _rows(self, layer: int, mip_level: int) -> TextureRows:
        """Check a place in the texture; return how its pixels look."""
        self._check()
        made = self._texture.descriptor
        what = self._texture.turns.what
        whole_number(layer, f"{what}: layer", maximum=made.layers - 1, error=BufferRangeError)
        level = whole_number(
            mip_level, f"{what}: mip_level", maximum=made.mip_levels - 1, error=BufferRangeError
        )
        return TextureRows(made.format, max(made.width >> level, 1), max(made.height >> level, 1))

    def _check(self) -> None:
        self._texture.turns.check_open()
        if self.is_over:
            raise TextureAccessError(
                f"{self._texture.turns.what} is used after its access; open another access()"
            )
