"""Which message may come when. No input or output here.

Each side holds the other to the order: what comes twice, too early or for something that is not
there is a `ProtocolError`.
"""

from __future__ import annotations

from pers.errors import ProtocolError
from pers.sharing.ipc.wire import (
    Bye,
    Done,
    Failure,
    Frame,
    Hello,
    Message,
    Opened,
    Textures,
    Welcome,
)

__all__ = ["PublisherSide", "SubscriberSide"]


def _out_of_place(message: Message, why: str) -> ProtocolError:
    return ProtocolError(
        f"{type(message).__name__} {why}; the other side must run the same version of pers"
    )


class PublisherSide:
    """What a publisher may receive from one subscriber."""

    def __init__(self) -> None:
        self.hello: Hello | None = None
        self.outstanding: dict[int, Frame] = {}
        """The frames it was told of and has not said `Done` for, when it wants every one."""
        self.unopened = 0
        """The generation of the textures that it was sent and has not opened; 0 when it has."""

    def sent(self, message: Message) -> None:
        """Note what the subscriber was sent."""
        match message:
            case Textures():
                self.unopened = message.generation
            case Frame() if self.hello is not None and self.hello.policy == "every":
                self.outstanding[message.number] = message
            case _:
                pass

    def receive(self, message: Message) -> None:
        """Take a message in its turn.

        Raises:
            ProtocolError: It is not its turn.
        """
        match message:
            case Hello() if self.hello is None:
                self.hello = message
            case Hello():
                raise _out_of_place(message, "came twice")
            case Bye():
                pass
            case _ if self.hello is None:
                raise _out_of_place(message, "came before Hello")
            case Done():
                frame = self.outstanding.get(message.number)
                if frame is None or (frame.generation, frame.slot) != (
                    message.generation,
                    message.slot,
                ):
                    raise _out_of_place(message, f"names frame {message.number}, not outstanding")
                del self.outstanding[message.number]
            case Opened():
                if message.generation != self.unopened:
                    raise _out_of_place(
                        message, f"names generation {message.generation}, not {self.unopened}"
                    )
                self.unopened = 0
            case _:
                raise _out_of_place(message, "is not for a publisher")


class SubscriberSide:
    """What a subscriber may receive from its publisher."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.welcome: Welcome | None = None
        self.generation = 0
        self._number = 0
        self._value = 0

    def receive(self, message: Message) -> None:
        """Take a message in its turn.

        Raises:
            ProtocolError: It is not its turn.
        """
        match message:
            case Bye() | Failure():
                pass
            case Welcome() if self.welcome is None:
                if message.name != self._name:
                    raise _out_of_place(message, f"is from {message.name!r}, not {self._name!r}")
                self.welcome = message
            case Welcome():
                raise _out_of_place(message, "came twice")
            case _ if self.welcome is None:
                raise _out_of_place(message, "came before Welcome")
            case Textures():
                self._receive_textures(message, self.welcome.buffers)
            case Frame():
                self._receive_frame(message, self.welcome.buffers)
            case _:
                raise _out_of_place(message, "is not for a subscriber")

    def _receive_textures(self, message: Textures, buffers: int) -> None:
        if message.generation <= self.generation:
            raise _out_of_place(
                message, f"of generation {message.generation} follows {self.generation}"
            )
        if len(message.handles) != buffers:
            raise _out_of_place(message, f"has {len(message.handles)} slots, not {buffers}")
        self.generation = message.generation

    def _receive_frame(self, message: Frame, buffers: int) -> None:
        if not self.generation or message.generation != self.generation:
            raise _out_of_place(
                message, f"is of generation {message.generation}, not {self.generation}"
            )
        if message.slot >= buffers:
            raise _out_of_place(message, f"names slot {message.slot} of {buffers}")
        if message.number <= self._number:
            raise _out_of_place(message, f"{message.number} follows {self._number}")
        if message.value and message.value <= self._value:
            raise _out_of_place(message, f"has value {message.value} after {self._value}")
        self._number = message.number
        self._value = message.value or self._value
