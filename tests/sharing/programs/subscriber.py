"""Reads every frame of a stream and checks it: ``subscriber.py NAME [POINT]``.

It prints the numbers. With a point it kills itself there, in the second frame unless the point
comes before.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np

from pers import HostTextureShareManager
from pers.sharing.ipc.wire import Bye, Done, Hello
from pers.sharing.stream import TextureSubscriber
from pers.sharing.stream.generation import Imported
from pers.sharing.stream.subscriber import _Session
from tests.sharing.programs.deaths import (
    all_of_it,
    die,
    die_after,
    die_in,
    die_sending,
    half,
    nothing,
)
from tests.sharing.support import picture

LAST = 2

EARLY: dict[str, Callable[[], None]] = {
    "connected": lambda: die_in(_Session, "_greet"),
    "hello half said": lambda: die_sending(Hello, half),
    "hello said": lambda: die_sending(Hello, all_of_it),
    "textures there": lambda: die_in(Imported, "open"),
    "textures half opened": lambda: die_after(HostTextureShareManager, "import_texture"),
    "textures opened": lambda: die_after(_Session, "_greet"),
}
LATE: dict[str, Callable[[], None]] = {
    "frame read": lambda: die_sending(Done, nothing),
    "done half said": lambda: die_sending(Done, half),
    "done said": lambda: die_sending(Done, all_of_it),
    "goodbye said": lambda: die_sending(Bye, all_of_it),
}
INSIDE = ["frame open", "frame half read"]
POINTS = [*EARLY, *INSIDE, *LATE]


def main() -> None:
    name, point = [*sys.argv[1:], ""][:2]
    if point in EARLY:
        EARLY[point]()
    with HostTextureShareManager() as manager:
        subscriber = TextureSubscriber(name, manager, policy="every", timeout_ns=20_000_000_000)
        for read, frame in enumerate(subscriber.frames(), 1):
            if read == LAST and point == "frame open":
                die()
            pixels = frame.view.download()
            if read == LAST and point == "frame half read":
                die()
            if read == LAST and point in LATE:
                LATE[point]()
            wanted = picture(frame.texture.descriptor, frame.number)
            np.testing.assert_array_equal(pixels, wanted)
            print(frame.number, frame.texture.width, flush=True)
            if read == LAST and point == "goodbye said":
                break
        subscriber.close()


if __name__ == "__main__":
    main()
