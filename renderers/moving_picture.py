"""A moving test picture: whoever knows a frame's number knows each of its bytes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["MovingPicture"]

PERIOD = 256
STAMP = 2
"""Pixels at the start of the first row that hold the frame's number: 8 bytes."""

Pixels = npt.NDArray[np.uint8]


class MovingPicture:
    """Frames of waves that drift, RGBA with 8 bits each.

    A frame is a window on a larger picture, so it is made by one copy. No two frames in a row have
    a row of pixels in common, which shows frames that were torn.

    Args:
        width: Pixels in a row, at least 2.
        height: Rows.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width = width
        self.height = height
        x = np.arange(width + PERIOD) * (2 * np.pi / PERIOD)
        y = np.arange(height + PERIOD)[:, None] * (2 * np.pi / PERIOD)
        waves = [
            np.sin(x + 2 * np.sin(y)),
            np.sin(2 * y + np.sin(x)),
            np.sin(x - y) * np.sin(3 * y),
        ]
        self._picture = np.full((height + PERIOD, width + PERIOD, 4), 255, np.uint8)
        for channel, wave in enumerate(waves):
            self._picture[..., channel] = 128 + 100 * wave
        # Rows that look alike differ in the last channel.
        self._picture[..., 3] = 255 - np.arange(height + PERIOD, dtype=np.uint8)[:, None] % 64

    def frame(self, number: int, out: Pixels | None = None) -> Pixels:
        """Return a frame, shape ``(height, width, 4)``, in memory of its own or in `out`."""
        left, top = 5 * number % PERIOD, 3 * number % PERIOD
        window = self._picture[top : top + self.height, left : left + self.width]
        if out is None:
            out = window.copy()
        else:
            out[...] = window
        out[0, :STAMP] = np.frombuffer(number.to_bytes(8, "little"), np.uint8).reshape(STAMP, 4)
        return out

    def wrong_bytes(self, number: int, pixels: Pixels) -> int:
        """Return how many bytes of a frame are not what they are to be."""
        return int(np.count_nonzero(self.frame(number) != pixels))
