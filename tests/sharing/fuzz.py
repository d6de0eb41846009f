"""Generated messages against the protocol: ``python -m tests.sharing.fuzz --messages 1000000``.

Every message is a valid one, or one that was changed: bits, lengths, numbers, pieces, the count of
descriptors, the order. It must be accepted or refused with `ProtocolError`; anything else, a hang
(the caller's time limit) or a descriptor that stays open is a find, printed with its seed.
With ``--live`` they go to the socket of a publisher, who must serve the next client afterwards.
"""

from __future__ import annotations

import argparse
import array
import contextlib
import logging
import os
import random
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator

import attrs
import numpy as np

from pers import HostTextureShareManager, ProtocolError
from pers.sharing.control import create_memory
from pers.sharing.handles import OwnedFd
from pers.sharing.ipc.address import Address
from pers.sharing.ipc.dialogue import PublisherSide, SubscriberSide
from pers.sharing.ipc.wire import HEADER, Decoder, encode
from pers.sharing.stream import TexturePublisher, TextureSubscriber
from tests.sharing.messages import EVERY, FRAME, OPENED, WELCOME, plain, textures
from tests.sharing.support import describe, open_fds

EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
BATCH = 4  # messages on one connection at most


@attrs.define
class Outcome:
    """What became of the messages."""

    messages: int = 0
    accepted: int = 0
    refused: int = 0
    connections: int = 0
    reasons: Counter[str] = attrs.Factory(Counter)


@attrs.frozen
class Sample:
    """The bytes of a message and how many descriptors go with it."""

    data: bytes
    fds: list[OwnedFd]


class Source:
    """Makes messages, from one seed always the same ones."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._kept = [textures(vulkan=vulkan) for vulkan in (False, True)]
        self._samples = [Sample(*encode(message)) for message in [*plain(), *self._kept]]
        self._spare = create_memory(4096, "pers-test")

    def close(self) -> None:
        for message in self._kept:
            message.close()
        self._spare.close()

    def batch(self) -> Iterator[tuple[bytes, list[OwnedFd]]]:
        """Return the messages of one connection."""
        for _ in range(self.random.randint(1, BATCH)):
            sample = self.random.choice(self._samples)
            data = bytearray(sample.data)
            fds = list(sample.fds)
            for _ in range(self.random.choice((0, 0, 1, 1, 2, 5))):
                self.random.choice(CHANGES)(self.random, data)
            if self.random.random() < 0.1:
                fds = fds[: self.random.randint(0, len(fds))]
            if self.random.random() < 0.1:
                fds += [self._spare] * self.random.randint(1, 3)
            yield bytes(data), fds

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Cut a message into pieces."""
        if self.random.random() < 0.6 or not data:
            yield data
            return
        at = 0
        while at < len(data):
            length = self.random.randint(1, len(data))
            yield data[at : at + length]
            at += length


def _flip(source: random.Random, data: bytearray) -> None:
    if data:
        data[source.randrange(len(data))] ^= 1 << source.randrange(8)


def _number(source: random.Random, data: bytearray) -> None:
    if len(data) >= 4:
        value = source.choice(EXTREMES)
        struct.pack_into("<I", data, source.randrange(len(data) - 3), value)


def _cut(source: random.Random, data: bytearray) -> None:
    del data[source.randrange(len(data) + 1) :]


def _remove(source: random.Random, data: bytearray) -> None:
    start = source.randrange(len(data) + 1)
    del data[start : start + source.randint(1, 8)]


def _insert(source: random.Random, data: bytearray) -> None:
    start = source.randrange(len(data) + 1)
    data[start:start] = source.randbytes(source.randint(1, 8))


def _noise(source: random.Random, data: bytearray) -> None:
    """Random payload under a header that announces it."""
    payload = source.randbytes(source.randint(0, 64))
    data[:] = HEADER.pack(b"PERS", 1, source.randint(1, 8), len(payload), 0, 0) + payload


def _repeat(source: random.Random, data: bytearray) -> None:
    data.extend(bytes(data))


CHANGES: tuple[Callable[[random.Random, bytearray], None], ...] = (
    _flip, _flip, _flip, _number, _number, _cut, _remove, _insert, _noise, _repeat,
)  # fmt: skip


def fuzz_decoder(messages: int, seed: int) -> Outcome:
    """Feed messages to decoders and both sides of the dialogue."""
    outcome = Outcome()
    source = Source(seed)
    with contextlib.closing(source):
        while outcome.messages < messages:
            _one_connection(source, outcome, messages - outcome.messages)
    return outcome


def _one_connection(source: Source, outcome: Outcome, most: int) -> None:
    decoder = Decoder()
    side = source.random.choice((PublisherSide, lambda: SubscriberSide("stream")))()
    if source.random.random() < 0.7:  # past the greeting
        side.receive(EVERY if isinstance(side, PublisherSide) else WELCOME)
    if isinstance(side, PublisherSide):
        side.outstanding[FRAME.number] = FRAME
        side.unopened = OPENED.generation
    outcome.connections += 1
    received: list[OwnedFd] = []
    try:
        for (data, fds), _ in zip(source.batch(), range(most), strict=False):
            outcome.messages += 1
            copies = [fd.duplicate() for fd in fds]
            received += copies
            for piece in source.pieces(data):
                for message in decoder.feed(piece, copies):
                    with contextlib.closing(message):
                        side.receive(message)
                        outcome.accepted += 1
                copies = []
    except ProtocolError as error:
        outcome.refused += 1
        outcome.reasons[_gist(error)] += 1
    finally:
        decoder.close()
    if any(fd.is_open for fd in received):
        raise AssertionError("a descriptor stayed open")


def _gist(error: ProtocolError) -> str:
    """The words of a message without its numbers, so that the kinds can be counted."""
    words = str(error).split(";")[0].split()
    return " ".join(word for word in words if word.isalpha())[:60]


def fuzz_publisher(messages: int, seed: int, name: str) -> Outcome:
    """Send messages to the socket of a living publisher; see that it serves the next client."""
    outcome = Outcome()
    source = Source(seed)
    with contextlib.closing(source):
        while outcome.messages < messages:
            _one_socket(source, outcome, Address(name), messages - outcome.messages)
    return outcome


def _one_socket(source: Source, outcome: Outcome, address: Address, most: int) -> None:
    connection = address.connect()
    if connection is None:  # more at the door than it lets in at once
        time.sleep(0.001)
        return
    outcome.connections += 1
    with connection:
        for (data, fds), _ in zip(source.batch(), range(most), strict=False):
            outcome.messages += 1
            numbers = array.array("i", [fd.fileno() for fd in fds])
            beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)] if numbers else []
            try:
                for piece in source.pieces(data):
                    if piece:
                        connection.sendmsg([piece], beside)
                    beside = []
                outcome.accepted += 1
            except OSError:  # it has hung up
                outcome.refused += 1
                return


def check_service(name: str) -> None:
    """Read a frame, as any other client."""
    with HostTextureShareManager() as manager, TextureSubscriber(name, manager) as subscriber:
        with subscriber.next_frame() as frame:
            assert frame.view.download().any()


def fuzz_live(messages: int, seed: int) -> Outcome:
    """Publish a stream, fuzz it, and read from it."""
    name = f"fuzz-{os.getpid()}"
    with HostTextureShareManager() as manager:
        with TexturePublisher(name, describe(8, 4), manager) as publisher:
            with publisher.next_frame() as frame:
                frame.view.upload(np.full((4, 8, 4), 7, np.uint8))
            outcome = Outcome()
            while outcome.messages < messages:
                part = fuzz_publisher(min(1000, messages - outcome.messages), seed, name)
                check_service(name)
                seed += 1
                outcome.messages += part.messages
                outcome.accepted += part.accepted
                outcome.refused += part.refused
                outcome.connections += part.connections
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.sharing.fuzz", description=__doc__)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--live", action="store_true", help="send them to a publisher's socket")
    options = parser.parse_args()
    logging.getLogger("pers.sharing").setLevel(logging.ERROR)  # it warns of each one refused
    before, began = open_fds(), time.perf_counter()
    if options.live:
        outcome = fuzz_live(options.messages, options.seed)
    else:
        outcome = fuzz_decoder(options.messages, options.seed)
    seconds = time.perf_counter() - began
    for reason, count in outcome.reasons.most_common():
        print(f"{count:9} {reason}")
    print(
        f"seed {options.seed}: {outcome.messages} messages on {outcome.connections} connections, "
        f"{outcome.accepted} accepted, {outcome.refused} connections refused, "
        f"{outcome.messages / seconds:.0f} messages/s, "
        f"{open_fds() - before} descriptors left open"
    )
    return int(open_fds() != before)


if __name__ == "__main__":
    sys.exit(main())
