"""Publishes a stream until its input ends: ``publisher.py NAME [POINT]``.

With a point it kills itself there, in the third frame unless the point comes before.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from pers import HostTextureShareManager, TextureFormat
from pers.sharing.ipc import listener
from pers.sharing.ipc.address import Claim
from pers.sharing.ipc.channel import Channel
from pers.sharing.ipc.listener import Client, Listener
from pers.sharing.ipc.wire import Bye, Frame, Textures
from pers.sharing.stream import StreamFrame, TexturePublisher
from pers.sharing.stream.publisher import _Hub
from tests.sharing.programs.deaths import (
    all_of_it,
    die,
    die_after,
    die_in,
    die_sending,
    half,
    nothing,
)
from tests.sharing.support import describe, picture

SMALL, LARGE = describe(8, 4), describe(32, 16, TextureFormat.R16_UINT)
LAST = 3
HAS_FORKED = threading.Event()

# From the start on.
EARLY: dict[str, Callable[[], None]] = {
    "name taken": lambda: die_in(Claim, "listen"),
    "listening": lambda: die_after(Claim, "listen"),
    "client at the door": lambda: die_in(Listener, "_accept"),
    "hello heard": lambda: die_in(_Hub, "let_in"),
    "welcome said": lambda: die_sending(Textures, nothing),
    "textures half sent": lambda: die_sending(Textures, half),
    "textures sent": lambda: die_sending(Textures, all_of_it),
}
# When the third frame comes.
LATE: dict[str, Callable[[], None]] = {
    "frame ended, nobody told": lambda: die_in(Client, "tell"),
    "notice half sent": lambda: die_sending(Frame, half),
    "notice sent": lambda: die_sending(Frame, all_of_it),
    "resizing": lambda: die_in(_Hub, "_tell_of_textures"),
    "new textures half sent": lambda: die_sending(Textures, half),
    "goodbye half said": lambda: die_sending(Bye, half),
    "name not given back": lambda: die_in(Claim, "close"),
}
INSIDE = ["frame open", "frame half written", "frame written"]
POINTS = [*EARLY, *INSIDE, *LATE]


def main() -> None:
    name, point = [*sys.argv[1:], ""][:2]
    if point in EARLY:
        EARLY[point]()
    if point == "forked with a client at the door":
        patch.object(listener, "Channel", ForkedAtTheDoor).start()
    with (
        HostTextureShareManager() as manager,
        TexturePublisher(name, SMALL, manager, timeout_ns=20_000_000_000) as publisher,
    ):
        print("publishing", flush=True)
        if point == "forked":
            fork()
        ended = threading.Event()
        threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
        while not ended.is_set():
            if point and publisher.stats.clients == 0:
                time.sleep(0.001)
                continue
            if publisher.stats.frames == LAST and point.startswith("forked"):
                if point == "forked with a client":
                    fork()
                assert HAS_FORKED.wait(20)
                die()
            if publisher.stats.frames == LAST - 1 and point in LATE:
                LATE[point]()
                if point in ("resizing", "new textures half sent"):
                    publisher.resize(LARGE)
                if point in ("goodbye half said", "name not given back"):
                    publisher.close()
            with publisher.next_frame() as frame:
                write(frame, point if frame.number == LAST else "")


class ForkedAtTheDoor(Channel):
    """Another thread forks when a client was accepted and before its connection is known."""

    def __init__(self, *arguments: Any) -> None:
        threading.Thread(target=fork).start()
        time.sleep(0.2)
        super().__init__(*arguments)


def fork() -> None:
    """Leave a child that does nothing."""
    with warnings.catch_warnings(action="ignore"):  # there are threads, which it does not need
        child = os.fork()
    if child == 0:
        os.close(0)
        os.close(1)
        while True:
            time.sleep(1)
    print(child, flush=True)
    HAS_FORKED.set()


def write(frame: StreamFrame, point: str) -> None:
    pixels = picture(frame.texture.descriptor, frame.number)
    if point == "frame open":
        die()
    if point == "frame half written":
        frame.view.as_array()[:2] = pixels[:2]
        die()
    frame.view.upload(pixels)
    if point == "frame written":
        die()


if __name__ == "__main__":
    main()
