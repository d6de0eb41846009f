"""A texture that arrives band by band while frames go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_thread
import numpy as np
import numpy.typing as npt

from pers import (
    DeferredStagingBuffer,
    IRenderDevice,
    ITexture,
    TexelCopyTextureInfo,
    TextureDescriptor,
    TextureFormat,
    TextureRows,
    TextureUsage,
)

__all__ = ["TextureStream"]

Paint = Callable[[npt.NDArray[np.uint8], int], Any]
"""Fills pixels, shape (rows, width, 4), given which row of the texture the first of them is."""


class TextureStream:
    """Fills a texture through one staging buffer, used again for every band.

    The painting is done on a worker thread, straight into mapped memory; the copies are submitted
    between the frames. Until a band arrives its pixels are zero, alpha included.
    """

    def __init__(
        self, device: IRenderDevice, width: int, height: int, rows_per_band: int, paint: Paint
    ) -> None:
        """Make the texture and its staging buffer; `run` fills it.

        Args:
            device: Where the texture is.
            width: Pixels in a row.
            height: Rows, a multiple of `rows_per_band`.
            rows_per_band: Rows that arrive together.
            paint: Fills a band; called on a worker thread.
        """
        self._device = device
        self._paint = paint
        self.texture: ITexture = device.create_texture(
            TextureDescriptor(
                width,
                height,
                TextureFormat.RGBA8_UNORM,
                TextureUsage.TEXTURE_BINDING | TextureUsage.COPY_DST | TextureUsage.COPY_SRC,
                label="streamed texture",
            )
        )
        """What is filled."""
        self._band = TextureRows(self.texture.format, width, rows_per_band)
        self._staging = DeferredStagingBuffer(
            self._band.nbytes, device.buffer_factory, debug_name="texture stream"
        )
        self.bands = height // rows_per_band
        """How many bands there are."""
        self.bands_done = 0
        """How many of them were submitted."""
        self.finished = anyio.Event()
        """Set when all of them were."""

    @property
    def bytes_moved(self) -> int:
        """Bytes that went through the staging buffer."""
        return self.bands_done * self._band.nbytes

    async def run(self) -> None:
        """Stream all bands that are still missing."""
        while self.bands_done < self.bands:
            await self._stream_band(self.bands_done * self._band.height)
            self.bands_done += 1
        self.finished.set()

    def close(self) -> None:
        """Give the memory back; legal any number of times."""
        self._staging.destroy()
        self.texture.destroy()

    async def _stream_band(self, first_row: int) -> None:
        async with self._staging.map_async() as mapped:
            pixels = self._band.view(mapped.as_array())
            await anyio.to_thread.run_sync(self._paint, pixels, first_row)
        encoder = self._device.create_command_encoder("texture stream")
        target = TexelCopyTextureInfo(self.texture, origin=(0, first_row, 0))
        self._staging.upload_to(encoder, target, size=(self._band.width, self._band.height, 1))
        self._device.queue.submit([encoder.finish()])
