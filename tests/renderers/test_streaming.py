"""A texture that arrives in bands."""

from __future__ import annotations

import anyio
import numpy as np
import numpy.typing as npt
import pytest

from pers import IRenderDevice
from renderers.streaming import TextureStream

pytestmark = pytest.mark.anyio


def paint(pixels: npt.NDArray[np.uint8], first_row: int) -> None:
    rows, columns = np.mgrid[first_row : first_row + pixels.shape[0], : pixels.shape[1]]
    pixels[...] = np.stack([rows, columns, rows ^ columns, np.full_like(rows, 255)], -1) % 256


def picture(width: int, height: int) -> npt.NDArray[np.uint8]:
    pixels = np.empty((height, width, 4), np.uint8)
    paint(pixels, 0)
    return pixels


async def test_arrives_complete(device: IRenderDevice) -> None:
    stream = TextureStream(device, 50, 24, 4, paint)  # rows are padded: 200 bytes to 256
    await stream.run()
    assert (stream.bands_done, stream.bands) == (6, 6)
    assert stream.finished.is_set()
    assert stream.bytes_moved == 24 * 256
    found = await device.read_array(stream.texture)
    assert np.array_equal(found, picture(50, 24))
    del found
    stream.close()


async def test_goes_on_after_a_cancellation(device: IRenderDevice) -> None:
    def slow(pixels: npt.NDArray[np.uint8], first_row: int) -> None:
        paint(pixels, first_row)
        if first_row >= 8:
            anyio.from_thread.run_sync(scope.cancel)

    stream = TextureStream(device, 16, 16, 4, slow)
    with anyio.CancelScope() as scope:
        await stream.run()
    assert scope.cancelled_caught
    assert stream.bands_done < stream.bands
    assert not stream.finished.is_set()
    with anyio.CancelScope(shield=True) as scope:
        stream._paint = paint
        await stream.run()
    assert np.array_equal(await device.read_array(stream.texture, copy=True), picture(16, 16))
    stream.close()


async def test_a_painter_that_fails_is_heard(device: IRenderDevice) -> None:
    def fail(pixels: npt.NDArray[np.uint8], first_row: int) -> None:
        raise OSError(f"row {first_row} cannot be read")

    stream = TextureStream(device, 16, 16, 4, fail)
    with pytest.raises(OSError, match="row 0 cannot be read"):
        await stream.run()
    assert stream.bands_done == 0
    stream.close()
