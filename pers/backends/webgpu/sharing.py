"""Sharing the textures of a render device, through shared memory."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from pers.backends.host.device import HostShareDevice
from pers.buffers.readback import ReadbackBuffer
from pers.errors import OperationNotSupportedError, ValidationError
from pers.graphics.interfaces import IRenderDevice
from pers.graphics.types import TextureDescriptor
from pers.sharing.handles import OwnedFd, TextureHandle
from pers.sharing.manager import ShareManager
from pers.sharing.native import NativePoint, NativeTexture
from pers.textures import (
    ITexture,
    TexelCopyTextureInfo,
    TextureFormat,
    TextureRows,
    TextureUsage,
    mip_extent,
)

__all__ = ["WebGPUTextureShareManager"]

COPIES = TextureUsage.COPY_SRC | TextureUsage.COPY_DST


class WebGPUTextureShareManager(ShareManager):
    """Shares textures that a render device copies to and samples from.

    Within an access, ``view.native_handle`` is an `ITexture` of the device, with the content that
    the other side left; submit before the block ends, and the other side sees what was done. The
    pixels travel through shared memory: one upload where they come in, one readback where they go
    out, each only when `native_handle` was used. Handles are those of the host backend, so the
    other side may be a `HostTextureShareManager`.

    Args:
        device: The device; it stays the caller's.
        timeout_ns: How long an access waits for a semaphore at most, in nanoseconds.
    """

    def __init__(self, device: IRenderDevice, *, timeout_ns: int = 10_000_000_000) -> None:
        if not isinstance(device, IRenderDevice):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValidationError(
                f"WebGPUTextureShareManager takes a render device, not {device!r}; "
                "pers.open_device() opens one"
            )
        super().__init__(_WebGPUShareDevice(device, timeout_ns))


class _WebGPUShareDevice(HostShareDevice):
    """The host's device, with a texture of the GPU beside each of its own."""

    def __init__(self, device: IRenderDevice, timeout_ns: int) -> None:
        super().__init__(timeout_ns)
        self._device = device

        self._capabilities = attrs.evolve(
            self._capabilities,
            backend="webgpu",
            device=device.info.name,
            formats=frozenset(one for one in self._capabilities.formats if self._has(one)),
            reasons=(
                "this device's textures cannot be exported: pixels travel through shared memory",
            ),
        )

    def _has(self, texture_format: TextureFormat) -> bool:
        """Try whether the device has textures of a format and copies them both ways."""
        if texture_format.is_depth:  # depths cannot be copied in (WebGPU §26.1.2)
            return False
        try:
            self._device.create_texture(TextureDescriptor(1, 1, texture_format, COPIES)).destroy()
        except ValidationError:
            return False
        return True

    def create_texture(self, descriptor: TextureDescriptor) -> NativeTexture:
        return self._beside(super().create_texture(descriptor), descriptor)

    def import_texture(self, handle: TextureHandle, descriptor: TextureDescriptor) -> NativeTexture:
        return self._beside(super().import_texture(handle, descriptor), descriptor)

    def _beside(self, shared: NativeTexture, descriptor: TextureDescriptor) -> NativeTexture:
        with ExitStack() as undo:
            undo.callback(shared.destroy)
            own = self._create(attrs.evolve(descriptor, usage=descriptor.usage | COPIES))
            undo.callback(own.destroy)
            texture = _WebGPUTexture(self._device, own, shared)
            undo.pop_all()
        return texture

    def _create(self, descriptor: TextureDescriptor) -> ITexture:
        try:
            return self._device.create_texture(descriptor)
        except ValidationError as error:
            raise OperationNotSupportedError(
                f"{self._device.info.name} has no such texture to share: {error}"
            ) from None


class _WebGPUTexture(NativeTexture):
    """Shared memory, and the texture of the GPU that shows it."""

    def __init__(self, device: IRenderDevice, own: ITexture, shared: NativeTexture) -> None:
        self._device = device
        self._own = own
        self._shared = shared
        rows = TextureRows(own.format, own.width, own.height)
        self._readback = ReadbackBuffer(
            rows.nbytes, device.buffer_factory, debug_name=f"shared texture {own.label}"
        )
        self._writes = False
        self._on_gpu = False

    @property
    def native_handle(self) -> ITexture:
        """The GPU's texture; the first use in an access brings the content there."""
        if not self._on_gpu:
            for place in self._places():
                self._device.queue.write_texture(place, self._pixels(place))
            self._on_gpu = True
        return self._own

    def wait_first(self, waits: Sequence[NativePoint]) -> None:
        self._shared.wait_first(waits)

    def give_back(self, waits: Sequence[NativePoint]) -> None:
        self._shared.give_back(waits)

    def acquire(self, waits: Sequence[NativePoint], *, write: bool) -> None:
        self._shared.acquire(waits, write=write)
        self._writes, self._on_gpu = write, False

    def release(self, signals: Sequence[NativePoint]) -> None:
        try:
            if self._writes:
                self._bring_home()
        finally:
            self._shared.release(signals)

    def wait(self, waits: Sequence[NativePoint]) -> None:
        self._shared.wait(waits)

    def signal(self, signals: Sequence[NativePoint]) -> None:
        self._shared.signal(signals)

    def finish(self) -> None:
        pass  # the end of an access has waited for the readback

    def export(self, control: OwnedFd) -> TextureHandle:
        return self._shared.export(control)

    def upload(self, pixels: npt.NDArray[np.uint8], layer: int, mip_level: int) -> None:
        self._bring_home()
        self._shared.upload(pixels, layer, mip_level)

    def download(self, out: npt.NDArray[np.uint8], layer: int, mip_level: int) -> None:
        if self._writes:
            self._bring_home()
        self._shared.download(out, layer, mip_level)

    def memory(self, layer: int, mip_level: int) -> npt.NDArray[np.uint8]:
        if self._writes:
            self._bring_home()
        return self._shared.memory(layer, mip_level)

    def destroy(self) -> None:
        self._readback.destroy()
        self._own.destroy()
        self._shared.destroy()

    def _bring_home(self) -> None:
        """Read back what the GPU may have changed; the next use of the GPU starts from there."""
        if not self._on_gpu:
            return
        for place in self._places():
            encoder = self._device.create_command_encoder()
            width, height, _ = mip_extent(place)
            self._readback.copy_from(encoder, place, size=(width, height, 1))
            self._device.queue.submit([encoder.finish()])
            self._readback.read_into_blocking(self._pixels(place))
        self._on_gpu = False

    def _places(self) -> list[TexelCopyTextureInfo]:
        return [
            TexelCopyTextureInfo(self._own, level, (0, 0, layer))
            for level in range(self._own.mip_levels)
            for layer in range(self._own.layers)
        ]

    def _pixels(self, place: TexelCopyTextureInfo) -> npt.NDArray[Any]:
        """Return the shared pixels of one layer, not a copy."""
        width, height, _ = mip_extent(place)
        rows = TextureRows(self._own.format, width, height)
        memory = self._shared.memory(place.origin[2], place.mip_level)
        return memory.view(rows.format.dtype).reshape(rows.shape)
