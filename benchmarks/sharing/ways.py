"""The ways of a frame to another process: a stream of textures, or a block of shared memory.

A `Sender` and a `Receiver` are the two ends. Every way has three buffers that take turns, and none
drops a frame. The stream of the host backend lends the memory itself, so that pixels are copied
in once and out once there, as with the block.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from multiprocessing.shared_memory import SharedMemory
from multiprocessing.synchronize import Semaphore
from typing import Protocol

import attrs
import numpy as np

from benchmarks.core import WrongContentError
from benchmarks.sharing.blocks import contents
from benchmarks.sharing.managers import TIMEOUT_NS, VULKAN, Place, describe
from benchmarks.sharing.pictures import Pixels, Target
from benchmarks.sharing.processes import SPAWN
from pers import TextureAccess, TexturePublisher, TextureShareManager, TextureSubscriber

__all__ = ["BUFFERS", "Block", "Ends", "Receiver", "Sender", "Stream", "new_name"]

BUFFERS = 3
TIMEOUT_S = TIMEOUT_NS / 1e9
_numbers = itertools.count()


def new_name() -> str:
    """Return a name of a stream that no other process has."""
    return f"benchmark-{os.getpid()}-{next(_numbers)}"


class Sender(Protocol):
    """The end that frames go into."""

    def frame(self) -> AbstractContextManager[Target]:
        """Open the next frame for writing; the end of the block sends it."""
        ...


@attrs.frozen
class Received:
    """A frame that has arrived, in the block of `Receiver.frame`.

    Attributes:
        began_ns: When it was begun, on the clock of ``time.monotonic_ns()``.
        source: Its pixels.
    """

    began_ns: int
    source: Target


class Receiver(Protocol):
    """The end that frames come out of."""

    def frame(self, number: int) -> AbstractContextManager[Received]:
        """Wait for a frame, which has to be this one, and open it for reading."""
        ...


class Ends(Protocol):
    """A way that has been agreed on; it can be sent to a process that is being started."""

    def send(self, manager: TextureShareManager | None) -> AbstractContextManager[Sender]:
        """Open the end that frames go into."""
        ...

    def receive(self, manager: TextureShareManager | None) -> AbstractContextManager[Receiver]:
        """Open the end that frames come out of."""
        ...


# --- Streams --------------------------------------------------------------------------------------


@attrs.frozen
class Stream:
    """A publisher and a subscriber that wants every frame.

    Attributes:
        place: Where both open their manager.
        width: Pixels in a row.
        height: Rows.
        name: Of the stream.
    """

    place: Place
    width: int
    height: int
    name: str = attrs.field(factory=new_name)

    @contextmanager
    def send(self, manager: TextureShareManager | None) -> Generator[Sender]:
        """Publish, with this manager or one of one's own."""
        with ExitStack() as stack:
            manager = manager or stack.enter_context(self.place.open())
            descriptor = describe(self.width, self.height)
            publisher = stack.enter_context(
                TexturePublisher(
                    self.name, descriptor, manager, buffers=BUFFERS, timeout_ns=TIMEOUT_NS
                )
            )
            yield StreamSender(publisher)

    @contextmanager
    def receive(self, manager: TextureShareManager | None) -> Generator[Receiver]:
        """Subscribe, with this manager or one of one's own."""
        with ExitStack() as stack:
            manager = manager or stack.enter_context(self.place.open())
            subscriber = stack.enter_context(
                TextureSubscriber(self.name, manager, policy="every", timeout_ns=TIMEOUT_NS)
            )
            yield StreamReceiver(subscriber)


def _target(view: TextureAccess, manager: TextureShareManager) -> Target:
    return view if manager.capabilities.backend == VULKAN else view.as_array()


class StreamSender:
    """Over a publisher."""

    def __init__(self, publisher: TexturePublisher) -> None:
        self._publisher = publisher

    @contextmanager
    def frame(self) -> Generator[Target]:
        """Open the next frame for writing."""
        with self._publisher.next_frame() as frame:
            yield _target(frame.view, self._publisher.manager)


class StreamReceiver:
    """Over a subscriber."""

    def __init__(self, subscriber: TextureSubscriber) -> None:
        self._subscriber = subscriber

    @contextmanager
    def frame(self, number: int) -> Generator[Received]:
        """Wait for a frame and open it for reading."""
        with self._subscriber.next_frame() as frame:
            _expect(frame.number, number)
            yield Received(frame.timestamp_ns, _target(frame.view, self._subscriber.manager))


def _expect(found: int, number: int) -> None:
    if found != number:
        raise WrongContentError(f"frame {found} came instead of frame {number}")


# --- Shared memory --------------------------------------------------------------------------------


@attrs.frozen
class Block:
    """Slots in a block of shared memory, and two semaphores that count them.

    Attributes:
        width: Pixels in a row.
        height: Rows.
        name: Of the block.
        free: Counts the slots that may be written.
        filled: Counts those that may be read.
    """

    width: int
    height: int
    name: str
    free: Semaphore
    filled: Semaphore

    @classmethod
    @contextmanager
    def make(cls, width: int, height: int) -> Generator[Block]:
        """Make the block, and take it away in the end."""
        size = BUFFERS * (width * height * 4 + HEADER)
        memory = SharedMemory(create=True, size=size)
        try:
            yield cls(width, height, memory.name, SPAWN.Semaphore(BUFFERS), SPAWN.Semaphore(0))
        finally:
            memory.close()
            memory.unlink()

    @contextmanager
    def send(self, manager: TextureShareManager | None) -> Generator[Sender]:
        """Open the end that frames go into."""
        with self._open() as slots:
            yield BlockSender(self, slots)

    @contextmanager
    def receive(self, manager: TextureShareManager | None) -> Generator[Receiver]:
        """Open the end that frames come out of."""
        with self._open() as slots:
            yield BlockReceiver(self, slots)

    @contextmanager
    def _open(self) -> Generator[Slots]:
        memory = SharedMemory(self.name)
        slots = Slots(memory, self.width, self.height)
        try:
            yield slots
        finally:
            slots.close()  # before the memory, which cannot be closed under arrays
            memory.close()


HEADER = 64
"""Bytes before the pixels of each slot, for the frame's number and time."""


class Slots:
    """The slots of a block as arrays."""

    def __init__(self, memory: SharedMemory, width: int, height: int) -> None:
        nbytes = width * height * 4
        self.headers: list[np.ndarray[tuple[int], np.dtype[np.int64]]] = []
        self.pixels: list[Pixels] = []
        for start in range(0, BUFFERS * (nbytes + HEADER), nbytes + HEADER):
            header = np.frombuffer(contents(memory), np.int64, 2, start)
            pixels = np.frombuffer(contents(memory), np.uint8, nbytes, start + HEADER)
            self.headers.append(header)
            self.pixels.append(pixels.reshape(height, width, 4))

    def close(self) -> None:
        """Let go of the memory."""
        self.headers.clear()
        self.pixels.clear()


class BlockSender:
    """Writes into the slots in turn."""

    def __init__(self, block: Block, slots: Slots) -> None:
        self._block, self._slots = block, slots
        self._number = 0

    @contextmanager
    def frame(self) -> Generator[Target]:
        """Open the next slot for writing."""
        if not self._block.free.acquire(timeout=TIMEOUT_S):
            raise TimeoutError("no slot became free")
        self._number += 1
        slot = self._number % BUFFERS
        self._slots.headers[slot][:] = self._number, time.monotonic_ns()
        yield self._slots.pixels[slot]
        self._block.filled.release()


class BlockReceiver:
    """Reads the slots in turn."""

    def __init__(self, block: Block, slots: Slots) -> None:
        self._block, self._slots = block, slots

    @contextmanager
    def frame(self, number: int) -> Generator[Received]:
        """Wait for a slot and open it for reading."""
        if not self._block.filled.acquire(timeout=TIMEOUT_S):
            raise TimeoutError("no frame came")
        slot = number % BUFFERS
        found, began_ns = (int(each) for each in self._slots.headers[slot])
        _expect(found, number)
        yield Received(began_ns, self._slots.pixels[slot])
        self._block.free.release()
