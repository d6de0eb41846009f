"""Which message may come when."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import attrs
import pytest

from pers import ProtocolError
from pers.sharing.ipc.dialogue import PublisherSide, SubscriberSide
from pers.sharing.ipc.wire import Bye, Failure, Frame, Opened, Textures
from tests.sharing.messages import DONE, EVERY, FRAME, HELLO, OPENED, WELCOME, textures


@pytest.fixture
def made() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def generation(made: ExitStack, number: int, count: int = 2) -> Textures:
    message = textures(number, count)
    made.callback(message.close)
    return message


def refused(side: Any, before: Sequence[Any], last: Any) -> str:
    for message in before:
        side.receive(message)
    with pytest.raises(ProtocolError) as info:
        side.receive(last)
    assert type(last).__name__ in str(info.value)
    return str(info.value)


# --- The publisher's side -------------------------------------------------------------------------


@pytest.mark.parametrize("message", [DONE, OPENED, FRAME, WELCOME, Failure("full", "")])
def test_a_subscriber_says_hello_first(message: Any) -> None:
    assert "before Hello" in refused(PublisherSide(), [], message)


def test_a_subscriber_says_hello_once() -> None:
    assert "came twice" in refused(PublisherSide(), [HELLO], EVERY)


@pytest.mark.parametrize("message", [FRAME, WELCOME, Failure("full", "")])
def test_a_subscriber_does_not_publish(message: Any) -> None:
    assert "not for a publisher" in refused(PublisherSide(), [HELLO], message)


def test_done_is_for_a_frame_that_was_sent() -> None:
    side = PublisherSide()
    assert "not outstanding" in refused(side, [EVERY], DONE)
    side.sent(FRAME)
    for wrong in (attrs.evolve(DONE, slot=0), attrs.evolve(DONE, generation=2)):
        assert "not outstanding" in refused(side, [], wrong)
    side.receive(DONE)
    assert side.outstanding == {}


def test_a_replayed_done_is_refused() -> None:
    side = PublisherSide()
    side.receive(EVERY)
    side.sent(FRAME)
    assert "not outstanding" in refused(side, [DONE], DONE)


def test_who_wants_the_latest_holds_nothing() -> None:
    side = PublisherSide()
    side.receive(HELLO)
    side.sent(FRAME)
    assert side.outstanding == {}
    assert "not outstanding" in refused(side, [], DONE)


def test_textures_are_opened_once_they_were_sent(made: ExitStack) -> None:
    side = PublisherSide()
    assert "generation 1, not 0" in refused(side, [HELLO], OPENED)
    side.sent(generation(made, 3))
    assert side.unopened == 3
    assert "generation 1, not 3" in refused(side, [], OPENED)
    side.receive(Opened(3))
    assert side.unopened == 0
    assert "generation 3, not 0" in refused(side, [], Opened(3))


def test_goodbye_may_come_at_any_time() -> None:
    PublisherSide().receive(Bye())
    SubscriberSide("stream").receive(Bye())


# --- The subscriber's side ------------------------------------------------------------------------


def test_a_publisher_answers_as_the_stream_that_was_asked_for() -> None:
    assert "from 'stream', not 'other'" in refused(SubscriberSide("other"), [], WELCOME)


def test_a_publisher_welcomes_first_and_once(made: ExitStack) -> None:
    for message in (FRAME, generation(made, 1), HELLO, DONE):
        assert "before Welcome" in refused(SubscriberSide("stream"), [], message)
    assert "came twice" in refused(SubscriberSide("stream"), [WELCOME], WELCOME)


@pytest.mark.parametrize("message", [HELLO, DONE, OPENED])
def test_a_publisher_does_not_subscribe(message: Any) -> None:
    assert "not for a subscriber" in refused(SubscriberSide("stream"), [WELCOME], message)


def test_frames_need_their_textures(made: ExitStack) -> None:
    side = SubscriberSide("stream")
    assert "of generation 1, not 0" in refused(side, [WELCOME], FRAME)
    side.receive(generation(made, 1))
    assert "of generation 2, not 1" in refused(side, [], attrs.evolve(FRAME, generation=2))
    assert "slot 2 of 2" in refused(side, [], attrs.evolve(FRAME, slot=2))
    side.receive(FRAME)
    side.receive(generation(made, 2))
    assert "of generation 1, not 2" in refused(side, [], attrs.evolve(FRAME, number=9))


def test_a_replayed_frame_is_refused(made: ExitStack) -> None:
    before = [WELCOME, generation(made, 1), FRAME]
    assert "5 follows 5" in refused(SubscriberSide("stream"), before, FRAME)
    assert "4 follows 5" in refused(SubscriberSide("stream"), before, attrs.evolve(FRAME, number=4))
    assert "value 5 after 5" in refused(
        SubscriberSide("stream"), before, attrs.evolve(FRAME, number=6)
    )
    side = SubscriberSide("stream")
    for message in [*before, Frame(1, 0, 6, 0, 0), Frame(1, 0, 7, 0, 6)]:
        side.receive(message)


def test_generations_follow_each_other(made: ExitStack) -> None:
    before = [WELCOME, generation(made, 7)]  # the first that one sees may be any
    for wrong in (7, 6):
        assert "follows 7" in refused(SubscriberSide("stream"), before, generation(made, wrong))
    side = SubscriberSide("stream")
    for message in [*before, generation(made, 9)]:  # and some may be missing
        side.receive(message)
    assert side.generation == 9
    assert "has 3 slots, not 2" in refused(
        SubscriberSide("stream"), before, generation(made, 8, count=3)
    )
