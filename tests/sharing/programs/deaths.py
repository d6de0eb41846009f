"""Where a program of a stream may kill itself: at once, as by the kernel, with nothing tidied up."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from pers.sharing.ipc.wire import Message, encode


def die(*_: Any, **__: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def die_in(kind: type, method: str) -> None:
    """Die when a method is called."""
    setattr(kind, method, die)


def die_after(kind: type, method: str) -> None:
    """Die when a method has returned."""
    real = getattr(kind, method)

    def call(*arguments: Any, **options: Any) -> None:
        real(*arguments, **options)
        die()

    setattr(kind, method, call)


def die_sending(kind: type[Message], part: Callable[[bytes], bytes]) -> None:
    """Die when a kind of message is sent, with only a part of it on the way."""
    from pers.sharing.ipc import channel

    real = channel.Channel.put

    def put(self: channel.Channel, message: Message) -> bool:
        if isinstance(message, kind):
            data, fds = encode(message)
            some = memoryview(part(data))
            if some:
                channel._Outgoing(some, fds).send(self._socket)
            die()
        return real(self, message)

    channel.Channel.put = put  # type: ignore[method-assign]


def nothing(data: bytes) -> bytes:
    return b""


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def all_of_it(data: bytes) -> bytes:
    return data
