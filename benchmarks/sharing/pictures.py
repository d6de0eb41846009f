"""The frames of a stream: each one different, and how the CPU makes and takes them.

Frame n is one of four pictures of noise, with n itself in three pixels, so that a frame that is
late, old or torn is noticed by these; a whole comparison finds everything else.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from benchmarks.core import WrongContentError
from benchmarks.payload import expect_equal
from pers import TextureAccess

__all__ = ["Maker", "Pictures", "Pixels", "Taker", "Target", "stamp", "stamp_places", "take_pixels"]

Pixels = npt.NDArray[np.uint8]
Target = TextureAccess | Pixels
"""Where a frame is: a texture, or memory that the CPU sees."""

NOISES = 4
"""More than the buffers of a stream, so that what is left in one is never right."""


def stamp_places(width: int, height: int) -> list[tuple[int, int]]:
    """Return the places, (x, y), of the pixels with the number: first, middle and last."""
    return [(0, 0), (width // 2, height // 2), (width - 1, height - 1)]


def stamp(pixels: Pixels, number: int) -> None:
    """Write the number of a frame into its pixels."""
    height, width = pixels.shape[:2]
    for x, y in stamp_places(width, height):
        pixels[y, x] = np.frombuffer(number.to_bytes(4, "little"), np.uint8)


class Maker(Protocol):
    """Makes frames."""

    def make(self, target: Target, number: int) -> None:
        """Have frame `number` in the target, at the latest when the access to it ends."""


class Taker(Protocol):
    """Takes frames."""

    def take(self, source: Target) -> None:
        """Have a frame where it is to be used, at the latest after `finish`."""

    def finish(self) -> None:
        """Return when what was taken may be used; the access has ended."""

    def check_stamps(self, number: int) -> None:
        """Raise `WrongContentError` unless the frame's number is in its pixels."""

    def check_whole(self, number: int) -> None:
        """Raise `WrongContentError` unless every pixel is right."""


class Pictures:
    """Makes and takes frames on the CPU: a NumPy array in, a NumPy array out."""

    def __init__(self, width: int, height: int) -> None:
        shape = (height, width, 4)
        self._noises: list[Pixels] = [
            np.random.default_rng(seed).integers(0, 256, shape, np.uint8) for seed in range(NOISES)
        ]
        self._places = stamp_places(width, height)
        self.found: Pixels = np.zeros(shape, np.uint8)
        """The frame that was taken last."""

    def of(self, number: int) -> Pixels:
        """Return the pixels of a frame, valid until the next one."""
        pixels = self._noises[number % NOISES]
        stamp(pixels, number)
        return pixels

    def make(self, target: Target, number: int) -> None:
        """Write a frame."""
        put_pixels(target, self.of(number))

    def take(self, source: Target) -> None:
        """Read a frame."""
        self.found = take_pixels(source, self.found)

    def finish(self) -> None:
        """Nothing is under way."""

    def check_stamps(self, number: int) -> None:
        """Compare three pixels."""
        found = [int.from_bytes(self.found[y, x].tobytes(), "little") for x, y in self._places]
        expect_stamps(found, number)

    def check_whole(self, number: int) -> None:
        """Compare every pixel."""
        expect_equal(self.found, self.of(number))


class Nothing:
    """Neither makes nor takes any pixels: what is left is the hand-over of a frame."""

    def make(self, target: Target, number: int) -> None:
        """Do nothing."""

    def take(self, source: Target) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing."""

    def check_stamps(self, number: int) -> None:
        """There are none; the frame's number came with the notice."""

    def check_whole(self, number: int) -> None:
        """There is nothing to compare."""


def expect_stamps(found: list[int], number: int) -> None:
    """Raise `WrongContentError` unless all stamps are this number."""
    if set(found) != {number}:
        raise WrongContentError(f"frame {number} has the stamps {found}")


def put_pixels(target: Target, pixels: Pixels) -> None:
    """Write pixels into a frame, on the shortest road."""
    if isinstance(target, TextureAccess):
        target.upload(pixels)
    else:
        np.copyto(target, pixels)


def take_pixels(source: Target, out: Pixels) -> Any:
    """Return a copy of the pixels of a frame, in `out` where that is shorter."""
    if isinstance(source, TextureAccess):
        return source.download()
    np.copyto(out, source)
    return out
