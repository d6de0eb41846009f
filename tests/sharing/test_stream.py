"""Streams of frames: policies, sizes, order, waits. Both ends are in this process."""

from __future__ import annotations

import errno
import gc
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import attrs
import numpy as np
import pytest

from pers import (
    DeviceMismatchError,
    HostTextureShareManager,
    InvalidTextureHandleError,
    OperationNotSupportedError,
    PeerLostError,
    ProtocolError,
    ShareError,
    TextureAccessError,
    TextureFormat,
    TextureShareManager,
    ValidationError,
    WaitTimeoutError,
)
from pers.backends.host.device import HostTexture
from pers.sharing.ipc import address as address_module
from pers.sharing.ipc.address import Address, socket_folder
from pers.sharing.ipc.channel import Channel
from pers.sharing.ipc.credentials import Credentials
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
    encode,
)
from pers.sharing.stream import (
    StreamFrame,
    TexturePublisher,
    TextureSubscriber,
    list_streams,
)
from pers.sharing.stream import publisher as publisher_module
from pers.sharing.stream.generation import Generation, Slots
from tests.sharing.fuzz import check_service, fuzz_publisher
from tests.sharing.messages import HELLO, textures
from tests.sharing.support import MANAGERS, describe, linux, open_fds, picture

SECOND = 1_000_000_000
SOON = SECOND // 50
SMALL = describe(8, 4)
LARGE = describe(32, 16, TextureFormat.R16_UINT)


@pytest.fixture(autouse=True)
def runtime_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sockets of a test's own; nothing may be left there."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    yield
    gc.collect()
    folder = socket_folder()
    assert not folder.exists() or not list(folder.iterdir())


class Studio:
    """Makes publishers and subscribers, and closes them."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def publish(
        self, descriptor: Any = SMALL, name: str = "stream", **options: Any
    ) -> TexturePublisher:
        publisher = TexturePublisher(name, descriptor, self.manager(), **options)
        self._stack.callback(publisher.close)
        return publisher

    def subscribe(
        self, policy: Any = "latest", name: str = "stream", **options: Any
    ) -> TextureSubscriber:
        options.setdefault("timeout_ns", 20 * SECOND)
        subscriber = TextureSubscriber(name, self.manager(), policy=policy, **options)
        self._stack.callback(subscriber.close)
        return subscriber

    def manager(self) -> TextureShareManager:
        return self._stack.enter_context(HostTextureShareManager())

    def connect(self, name: str = "stream") -> Channel:
        """A client that does what a test tells it."""
        connection = Address(name).connect()
        assert connection is not None
        channel = Channel(connection)
        self._stack.callback(channel.close)
        return channel


@pytest.fixture
def studio() -> Iterator[Studio]:
    with ExitStack() as stack:
        yield Studio(stack)


def write(publisher: TexturePublisher, **options: Any) -> int:
    """Publish the frame whose picture is that of its number."""
    with publisher.next_frame(**options) as frame:
        frame.view.upload(picture(frame.texture.descriptor, frame.number))
    return frame.number


def read(subscriber: TextureSubscriber, **options: Any) -> int:
    with subscriber.next_frame(**options) as frame:
        check(frame)
    return frame.number


def check(frame: StreamFrame) -> None:
    np.testing.assert_array_equal(
        frame.view.download(), picture(frame.texture.descriptor, frame.number)
    )


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.001)


# --- Frames ---------------------------------------------------------------------------------------


def test_frames_arrive(studio: Studio) -> None:
    publisher = studio.publish()
    subscriber = studio.subscribe()
    for number in range(1, 8):
        before = time.monotonic_ns()
        assert write(publisher) == number
        with subscriber.next_frame() as frame:
            check(frame)
            assert frame.number == number
            assert before <= frame.timestamp_ns <= time.monotonic_ns()
            assert frame.dropped == 0
            assert not frame.view.writable
        with pytest.raises(TextureAccessError):
            frame.view.download()
    assert publisher.stats.frames == subscriber.stats.frames == 7
    assert publisher.stats.clients == 1


def test_who_comes_late_sees_the_newest_frame(studio: Studio) -> None:
    publisher = studio.publish()
    for _ in range(5):
        write(publisher)
    assert read(studio.subscribe()) == 5
    assert read(studio.subscribe("every")) == 5


def test_latest_misses_what_it_is_too_slow_for(studio: Studio) -> None:
    publisher = studio.publish()
    subscriber = studio.subscribe()
    assert [write(publisher) for _ in range(10)][-1] == 10
    assert read(subscriber) == 10
    for _ in range(4):
        write(publisher)
    with subscriber.next_frame() as frame:
        check(frame)
        assert (frame.number, frame.dropped) == (14, 3)
    assert subscriber.stats.dropped == 3
    assert publisher.stats.waits == 0


def test_latest_never_holds_the_publisher_up(studio: Studio) -> None:
    """While one frame is open for reading, the others take turns."""
    publisher = studio.publish()
    subscriber = studio.subscribe()
    write(publisher)
    with subscriber.next_frame() as frame:
        for _ in range(10):
            write(publisher, timeout_ns=0)
        check(frame)
        assert frame.number == 1
    assert read(subscriber) == 11


def test_every_gets_every_frame(studio: Studio) -> None:
    publisher = studio.publish(timeout_ns=20 * SECOND)
    subscriber = studio.subscribe("every")
    thread = threading.Thread(target=lambda: [write(publisher) for _ in range(60)])
    thread.start()
    assert [read(subscriber) for _ in range(60)] == list(range(1, 61))
    thread.join()
    assert subscriber.stats.dropped == 0


def test_the_publisher_waits_for_every_and_says_for_whom(studio: Studio) -> None:
    publisher = studio.publish(buffers=2)
    subscriber = studio.subscribe("every")
    write(publisher)
    write(publisher)
    with pytest.raises(WaitTimeoutError, match=rf"subscriber {os.getpid()} has not read frame 1;"):
        write(publisher, timeout_ns=SOON)
    assert publisher.stats.waits == 1
    assert read(subscriber) == 1
    assert write(publisher) == 3
    assert [read(subscriber), read(subscriber)] == [2, 3]


def test_readers_of_all_textures_hold_the_publisher_up(studio: Studio) -> None:
    publisher = studio.publish(buffers=1)
    subscriber = studio.subscribe()
    write(publisher)
    with subscriber.next_frame():
        with pytest.raises(WaitTimeoutError, match="all 1 textures open.*raise `buffers`"):
            write(publisher, timeout_ns=SOON)
    assert write(publisher) == 2
    assert read(subscriber) == 2


def test_a_subscriber_that_leaves_holds_nobody_up(studio: Studio) -> None:
    publisher = studio.publish(buffers=1, timeout_ns=20 * SECOND)
    subscriber = studio.subscribe("every")
    write(publisher)
    closer = threading.Timer(0.02, subscriber.close)
    closer.start()
    write(publisher)
    closer.join()
    until(lambda: publisher.stats.clients == 0)


def test_several_subscribers(studio: Studio) -> None:
    """Each at its own pace, from threads of their own; what they see is whole."""
    publisher = studio.publish(timeout_ns=20 * SECOND, buffers=4)
    policies = ["every", "latest", "every", "latest"]
    subscribers = [studio.subscribe(policy) for policy in policies]
    seen: list[list[int]] = [[] for _ in subscribers]

    def follow(number: int) -> None:
        while not seen[number] or seen[number][-1] < 50:
            seen[number].append(read(subscribers[number]))

    threads = [threading.Thread(target=follow, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        write(publisher)
    for thread in threads:
        thread.join()
    assert seen[0] == seen[2] == list(range(1, 51))
    for numbers in (seen[1], seen[3]):
        assert numbers == sorted(set(numbers))
        assert numbers[-1] == 50


def test_a_frame_that_fails_is_never_seen(studio: Studio) -> None:
    publisher = studio.publish()
    subscriber = studio.subscribe()
    write(publisher)
    with pytest.raises(ZeroDivisionError):
        with publisher.next_frame() as frame:
            frame.view.upload(np.full((4, 8, 4), 9, np.uint8))
            raise ZeroDivisionError
    assert read(subscriber) == 1
    assert write(publisher) == 2
    with subscriber.next_frame() as frame:
        check(frame)
        assert frame.dropped == 0


def test_a_wait_that_was_given_up_is_not_begun_again(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by the end of the subscriber's frame nor by that of the publisher's."""
    publisher, subscriber = studio.publish(), studio.subscribe()
    publisher._hub._semaphore = None
    write(publisher)
    ends: list[Any] = []

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(HostTexture, "upload", interrupt)
        patch.setattr(HostTexture, "download", interrupt)
        patch.setattr(HostTexture, "finish", lambda texture: ends.append(texture))
        with pytest.raises(KeyboardInterrupt), subscriber.next_frame() as frame:
            frame.view.download()
        with pytest.raises(KeyboardInterrupt), publisher.next_frame() as frame:
            frame.view.upload(picture(SMALL, 1))
        assert ends == []
    assert write(publisher) == read(subscriber) == 2


def test_a_texture_that_is_written_again_is_not_read(studio: Studio) -> None:
    """With one texture, the notice of a frame may be older than what is in it."""
    publisher = studio.publish(buffers=1)
    subscriber = studio.subscribe()
    write(publisher)
    with publisher.next_frame() as frame:
        with pytest.raises(WaitTimeoutError):
            read(subscriber, timeout_ns=SOON)
        frame.view.upload(picture(SMALL, 2))
    assert read(subscriber) == 2


def test_what_a_failed_frame_has_overwritten_is_not_read(studio: Studio) -> None:
    """The notice of the frame before is still there, but its pixels are not."""
    publisher = studio.publish(buffers=1)
    subscriber = studio.subscribe()
    write(publisher)
    with pytest.raises(ZeroDivisionError):
        with publisher.next_frame() as frame:
            frame.view.as_array()[:2] = 9
            raise ZeroDivisionError
    with pytest.raises(WaitTimeoutError):
        read(subscriber, timeout_ns=SOON)
    with pytest.raises(WaitTimeoutError):
        read(studio.subscribe(), timeout_ns=SOON)
    write(publisher)
    assert read(subscriber) == 2


def test_iteration_ends_with_the_stream(studio: Studio) -> None:
    publisher = studio.publish(timeout_ns=20 * SECOND)
    subscriber = studio.subscribe("every")

    def publish() -> None:
        for _ in range(20):
            write(publisher)
        publisher.close()

    thread = threading.Thread(target=publish)
    thread.start()
    numbers = []
    for frame in subscriber.frames():
        check(frame)
        numbers.append(frame.number)
    thread.join()
    assert numbers == list(range(1, 21))
    with pytest.raises(PeerLostError, match="has closed the stream"):
        read(subscriber)
    assert not subscriber.is_connected


def test_leaving_an_iteration_ends_the_frame(studio: Studio) -> None:
    publisher = studio.publish()
    subscriber = studio.subscribe()
    for _ in range(2):
        write(publisher)
        for frame in subscriber.frames():
            check(frame)
            break
        gc.collect()
    assert subscriber.stats.frames == 2


def test_without_semaphores(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some drivers share none; then the end of a frame waits instead."""
    managers = [studio.manager(), studio.manager()]
    for manager in managers:
        plain = attrs.evolve(manager.capabilities, semaphores=frozenset())
        monkeypatch.setattr(type(manager), "capabilities", property(lambda _, plain=plain: plain))
    with (
        TexturePublisher("stream", SMALL, managers[0]) as publisher,
        TextureSubscriber("stream", managers[1]) as subscriber,
    ):
        assert publisher._hub._semaphore is None
        for number in (1, 2, 3, 4):
            write(publisher)
            assert read(subscriber) == number


@pytest.mark.parametrize("name", MANAGERS)
def test_streams_of_every_manager(name: str) -> None:
    with MANAGERS[name]() as one, MANAGERS[name]() as other:
        with (
            TexturePublisher("stream", SMALL, one) as publisher,
            TextureSubscriber("stream", other, policy="every") as subscriber,
        ):
            for size in (SMALL, describe(40, 30)):
                publisher.resize(size)
                for _ in range(8):
                    number = write(publisher)
                    assert read(subscriber) == number
                    assert subscriber.descriptor == size


@pytest.mark.parametrize("lives", [0.0, 0.1])
def test_a_publisher_that_dies_before_its_gpu_is_done(studio: Studio, lives: float) -> None:
    """Its timeline will never be signalled: the frame is no frame, and nobody waits for it."""
    manager = studio.manager()
    generation = Generation(1, SMALL, manager, 2)
    semaphore = manager.create_semaphore("timeline")
    message = generation.export(semaphore)
    with Impostor(WELCOME, message, Frame(1, 0, 1, 0, 1), stays=False, lives=lives):
        subscriber = studio.subscribe()
        with pytest.raises(PeerLostError):
            read(subscriber)
    generation.close()


def test_a_publisher_that_dies_while_the_gpu_waits_for_it(studio: Studio) -> None:
    """The reader signals the timeline himself, or his GPU would wait for ever."""

    class Timeline:
        value = 0

        def signal(self, value: int) -> None:
            self.value = value

    publisher = studio.publish()
    subscriber = studio.subscribe()
    write(publisher)
    session, timeline = subscriber._session, Timeline()
    assert session is not None
    with subscriber.next_frame():
        imported = session._generations[1]
        session._generations[1] = attrs.evolve(imported, semaphore=timeline)
    assert timeline.value == 0  # it lives
    session._generations[1] = imported
    write(publisher)
    with subscriber.next_frame():
        session._generations[1] = attrs.evolve(imported, semaphore=timeline)
        publisher.close()
    assert timeline.value == 2
    session._generations[1] = imported


# --- Another size ---------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["latest", "every"])
def test_resize(studio: Studio, policy: str) -> None:
    publisher = studio.publish()
    subscriber = studio.subscribe(policy)
    write(publisher)
    assert read(subscriber) == 1
    publisher.resize(LARGE)
    assert publisher.descriptor == LARGE
    write(publisher)
    with subscriber.next_frame() as frame:
        check(frame)
        assert frame.texture.descriptor == LARGE
        assert (frame.number, frame.dropped) == (2, 0)
    assert subscriber.descriptor == LARGE
    assert publisher.stats.generation == 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"width": 2**16 + 1, "height": 1}, "65537x1 is too large, sides have at most 65536"),
        ({"layers": 2**12 + 1}, "4097 layers are too many, more than 4096"),
        ({"width": 2**16, "height": 2**16, "layers": 2**12}, "too large, more than 17592186044416"),
    ],
)
def test_textures_that_no_subscriber_takes_are_not_published(
    studio: Studio, changes: Any, reason: str
) -> None:
    huge = attrs.evolve(SMALL, **changes)
    with pytest.raises(ValidationError, match=f"TexturePublisher: .*{reason}"):
        studio.publish(huge)
    publisher = studio.publish()
    with pytest.raises(ValidationError, match=f"resize: .*{reason}"):
        publisher.resize(huge)
    assert publisher.descriptor == SMALL
    assert write(publisher) == 1


def test_a_closed_subscriber_says_so(studio: Studio) -> None:
    studio.publish()
    subscriber = studio.subscribe()
    subscriber.close()
    with pytest.raises(TextureAccessError, match="was closed; make another one"):
        _ = subscriber.descriptor


def test_users_are_a_list(studio: Studio) -> None:
    with pytest.raises(ValidationError, match=r"list of users, not 'root'; \['root'\]"):
        studio.publish(allow_users="root")


def test_resize_while_a_frame_is_read(studio: Studio) -> None:
    """It stays as it is; so do those that were announced before."""
    publisher = studio.publish(buffers=3)
    subscriber = studio.subscribe("every")
    for _ in range(3):
        write(publisher)
    with subscriber.next_frame() as frame:
        publisher.resize(LARGE)
        for _ in range(3):
            write(publisher)
        check(frame)
    sizes = []
    for number in range(2, 7):
        with subscriber.next_frame() as frame:
            check(frame)
            assert frame.number == number
            sizes.append(frame.texture.width)
    assert sizes == [8, 8, 32, 32, 32]


@linux
def test_textures_of_old_sizes_are_closed(studio: Studio) -> None:
    publisher = studio.publish()
    subscriber = studio.subscribe()
    write(publisher)
    read(subscriber)
    gc.collect()
    before = open_fds()
    for size in range(9, 40):
        publisher.resize(describe(size, size))
        if size % 2:
            write(publisher)
            read(subscriber)
    gc.collect()
    assert open_fds() == before
    assert publisher.stats.generation == 32


def test_resize_to_the_same_changes_nothing(studio: Studio) -> None:
    publisher = studio.publish()
    publisher.resize(describe(8, 4))
    assert publisher.stats.generation == 1


def test_a_subscriber_that_cannot_be_told_of_a_resize_is_dropped(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ETOOMANYREFS, "too many descriptors on their way")

    publisher, subscriber = studio.publish(), studio.subscribe()
    with monkeypatch.context() as patch:
        patch.setattr("pers.sharing.ipc.channel._Outgoing.send", refuse)
        publisher.resize(describe(21, 9))
    until(lambda: publisher.stats.clients == 0)
    with pytest.raises(PeerLostError), subscriber.next_frame():
        pass
    with publisher.next_frame(), studio.subscribe():  # others are served as before
        pass


def test_resize_that_fails_leaves_things_as_they_were(studio: Studio) -> None:
    publisher = studio.publish()
    subscriber = studio.subscribe()
    with pytest.raises(OperationNotSupportedError):
        publisher.resize(describe(8, 4, TextureFormat.DEPTH24_PLUS))
    write(publisher)
    assert read(subscriber) == 1


# --- Async ----------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_async_frames(studio: Studio) -> None:
    publisher = studio.publish(timeout_ns=20 * SECOND)
    subscriber = studio.subscribe("every")
    thread = threading.Thread(target=lambda: [write(publisher) for _ in range(20)])
    thread.start()
    for number in range(1, 21):
        async with subscriber.next_frame_async() as frame:
            check(frame)
            assert frame.number == number
    thread.join()
    with pytest.raises(WaitTimeoutError, match="no frame came within"):
        async with subscriber.next_frame_async(timeout_ns=SOON):
            pass


@pytest.mark.anyio
async def test_async_wait_may_be_cancelled(studio: Studio) -> None:
    """At any moment; no frame is lost by it, and none stays open."""
    publisher = studio.publish(timeout_ns=20 * SECOND)
    subscriber = studio.subscribe("every")
    stop = threading.Event()
    thread = threading.Thread(target=publish_until, args=(publisher, stop))
    thread.start()
    numbers: list[int] = []
    for attempt in range(60):
        with anyio.move_on_after(0.0004 * (attempt % 7)):
            async with subscriber.next_frame_async() as frame:
                check(frame)
                numbers.append(frame.number)
    stop.set()
    with suppress(PeerLostError, WaitTimeoutError):
        while True:
            numbers.append(read(subscriber, timeout_ns=SECOND // 5))
    thread.join()
    assert numbers == list(range(1, numbers[-1] + 1))


def publish_until(publisher: TexturePublisher, stop: threading.Event) -> None:
    while not stop.is_set():
        write(publisher)
        time.sleep(0.0005)


@pytest.mark.anyio
async def test_cancelling_within_a_frame_ends_it(studio: Studio) -> None:
    publisher = studio.publish(buffers=1, timeout_ns=20 * SECOND)
    subscriber = studio.subscribe("every")
    write(publisher)
    with anyio.CancelScope() as scope:
        async with subscriber.next_frame_async():
            scope.cancel()
            await anyio.sleep(20)
    write(publisher)
    assert read(subscriber) == 2


@pytest.mark.anyio
async def test_async_wait_sees_the_end(studio: Studio) -> None:
    publisher = studio.publish()
    subscriber = studio.subscribe()
    closer = threading.Timer(0.02, publisher.close)
    closer.start()
    with pytest.raises(PeerLostError, match="closed the stream"):
        async with subscriber.next_frame_async():
            pass
    closer.join()


# --- Coming and going -----------------------------------------------------------------------------


def test_a_subscriber_waits_for_its_publisher(studio: Studio) -> None:
    made: list[TexturePublisher] = []
    starter = threading.Timer(0.05, lambda: made.append(studio.publish()))
    starter.start()
    subscriber = studio.subscribe()
    starter.join()
    write(made[0])
    assert read(subscriber) == 1


def test_there_is_no_such_stream(studio: Studio) -> None:
    with pytest.raises(
        WaitTimeoutError, match=r"no stream named 'nothing' within 0.02 s.*list_streams"
    ):
        studio.subscribe(name="nothing", timeout_ns=SOON)


def test_no_frame_comes(studio: Studio) -> None:
    studio.publish()
    subscriber = studio.subscribe()
    with pytest.raises(WaitTimeoutError, match=r"'stream': no frame came within 0.02 s"):
        read(subscriber, timeout_ns=SOON)


def test_reconnecting(studio: Studio) -> None:
    publisher = studio.publish()
    subscriber = studio.subscribe()
    write(publisher)
    assert read(subscriber) == 1
    publisher.close()
    with pytest.raises(PeerLostError):
        read(subscriber)
    with pytest.raises(WaitTimeoutError):
        subscriber.reconnect(timeout_ns=SOON)
    with pytest.raises(PeerLostError, match="not connected"):
        read(subscriber)
    another = studio.publish(LARGE)
    subscriber.reconnect()
    write(another)
    assert read(subscriber) == 1
    assert subscriber.stats.connections == 2


def test_frames_that_were_announced_may_be_read_after_the_end(studio: Studio) -> None:
    publisher = studio.publish()
    subscriber = studio.subscribe("every")
    for _ in range(3):
        write(publisher)
    publisher.close()
    assert [read(subscriber) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(PeerLostError):
        read(subscriber)


def test_streams_are_listed(studio: Studio) -> None:
    assert list_streams() == []
    first = studio.publish(name="b")
    studio.publish(name="a")
    assert list_streams() == ["a", "b"]
    first.close()
    first.close()
    assert list_streams() == ["a"]
    with pytest.raises(ShareError, match="published already"):
        studio.publish(name="a")
    assert list_streams() == ["a"]


def test_a_forgotten_publisher_is_closed(studio: Studio) -> None:
    TexturePublisher("stream", SMALL, studio.manager())
    gc.collect()
    assert list_streams() == []


@linux
def test_nothing_stays_open(studio: Studio) -> None:
    def once() -> None:
        with studio_of_its_own() as own:
            publisher = own.publish()
            subscribers = [own.subscribe(), own.subscribe("every")]
            write(publisher)
            for subscriber in subscribers:
                read(subscriber)
            publisher.resize(LARGE)
            write(publisher)
            subscribers[0].reconnect()
            subscribers[0].close()

    once()
    gc.collect()
    before, threads = open_fds(), threading.active_count()
    for _ in range(5):
        once()
    gc.collect()
    assert open_fds() == before
    assert threading.active_count() == threads


@contextmanager
def studio_of_its_own() -> Iterator[Studio]:
    with ExitStack() as stack:
        yield Studio(stack)


# --- Misuse ---------------------------------------------------------------------------------------


def test_one_frame_at_a_time(studio: Studio) -> None:
    publisher = studio.publish()
    subscriber = studio.subscribe()
    with publisher.next_frame():
        for call in (
            lambda: publisher.next_frame().__enter__(),
            publisher.close,
            lambda: publisher.resize(LARGE),
        ):
            with pytest.raises(TextureAccessError, match="has a frame open"):
                call()
    with subscriber.next_frame():
        for call in (
            lambda: subscriber.next_frame().__enter__(),
            subscriber.close,
            subscriber.reconnect,
        ):
            with pytest.raises(TextureAccessError, match="has frame 1 open"):
                call()


def test_use_after_close(studio: Studio) -> None:
    publisher = studio.publish()
    subscriber = studio.subscribe()
    for one in (publisher, subscriber):
        one.close()
        one.close()
        assert "closed" in repr(one)
        with pytest.raises(TextureAccessError, match="was closed; make another"):
            one.next_frame().__enter__()
    with pytest.raises(TextureAccessError, match="was closed"):
        publisher.resize(LARGE)
    with pytest.raises(TextureAccessError, match="was closed"):
        subscriber.reconnect()


def test_a_subscriber_is_for_one_thread(studio: Studio) -> None:
    publisher = studio.publish()
    subscriber = studio.subscribe()
    thread = threading.Thread(target=read, args=(subscriber,))
    thread.start()
    until(subscriber._in_use.locked)
    with pytest.raises(TextureAccessError, match="used by another thread"):
        read(subscriber)
    with pytest.raises(TextureAccessError, match="used by another thread"):
        subscriber.close()
    write(publisher)
    thread.join()


@pytest.mark.parametrize(
    "options",
    [
        {"name": "a/b"},
        {"descriptor": "large"},
        {"buffers": 0},
        {"buffers": 17},
        {"buffers": 2.5},
        {"max_subscribers": 0},
        {"allow_users": ["nobody-of-that-name"]},
        {"allow_users": 7},
    ],
)
def test_wrong_arguments_of_a_publisher(studio: Studio, options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        studio.publish(**options)
    assert list_streams() == []


def test_wrong_arguments_of_a_subscriber(studio: Studio) -> None:
    for options in ({"policy": "newest"}, {"name": "a b"}, {"user": "nobody-of-that-name"}):
        with pytest.raises(ValidationError):
            studio.subscribe(**options)


def test_a_manager_is_a_manager() -> None:
    for call in (
        lambda: TexturePublisher("stream", SMALL, "host"),  # type: ignore[arg-type]
        lambda: TextureSubscriber("stream", object()),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValidationError, match="takes a TextureShareManager"):
            call()
    assert list_streams() == []


def test_without_a_manager_the_best_is_taken() -> None:
    with TexturePublisher("stream", SMALL) as publisher, TextureSubscriber("stream") as subscriber:
        write(publisher)
        assert read(subscriber) == 1
        managers = [publisher.manager, subscriber.manager]
    for manager in managers:
        with pytest.raises(TextureAccessError, match="was closed"):
            manager.create_semaphore()


def test_windows_says_so(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = studio.manager()
    monkeypatch.setattr(address_module.sys, "platform", "win32")
    for call in (
        lambda: TexturePublisher("stream", SMALL, manager),
        lambda: TextureSubscriber("stream", manager),
        list_streams,
    ):
        with pytest.raises(OperationNotSupportedError, match="Windows"):
            call()


# --- Clients that do not behave -------------------------------------------------------------------


def served(publisher: TexturePublisher, studio: Studio) -> None:
    """The next client is served as if nothing had happened."""
    subscriber = studio.subscribe()
    number = write(publisher)
    assert read(subscriber) == number
    subscriber.close()


def answer(client: Channel) -> Failure:
    """What a client is told that is thrown out, and that it is."""
    while not isinstance(message := client.receive(20 * SECOND), Failure):
        message.close()
    with pytest.raises(PeerLostError):
        client.receive(20 * SECOND)
    return message


def test_nonsense_is_thrown_out(studio: Studio, caplog: pytest.LogCaptureFixture) -> None:
    publisher = studio.publish()
    client = studio.connect()
    client._socket.send(b"GET / HTTP/1.1\r\n\r\n")
    failure = answer(client)
    assert failure.code == "protocol"
    assert "begins with b'GET '" in failure.text
    assert any(
        record.name == "pers.sharing" and "was dropped" in record.message
        for record in caplog.records
    )
    served(publisher, studio)


@pytest.mark.parametrize(
    "message", [Done(1, 0, 1), Opened(9), Frame(1, 0, 1, 0, 0), Failure("full", "")]
)
def test_what_is_out_of_order_is_thrown_out(studio: Studio, message: Message) -> None:
    publisher = studio.publish()
    early, late = studio.connect(), studio.connect()
    early.put(message)
    assert "came before Hello" in answer(early).text
    late.put(HELLO)
    late.put(message)
    assert answer(late).code == "protocol"
    served(publisher, studio)


def test_a_replayed_done_is_thrown_out(studio: Studio) -> None:
    publisher = studio.publish()
    client = studio.connect()
    client.put(Hello(1, "every", "host", "shared_memory"))
    until(lambda: publisher.stats.clients == 1)
    write(publisher)
    while not isinstance(frame := client.receive(20 * SECOND), Frame):
        frame.close()
    done = Done(frame.generation, frame.slot, frame.number)
    client.put(done)
    client.put(done)
    assert "not outstanding" in answer(client).text
    served(publisher, studio)


def test_a_truncated_message_blocks_nobody(studio: Studio) -> None:
    publisher = studio.publish()
    client = studio.connect()
    client._socket.send(encode(HELLO)[0][:-3])
    served(publisher, studio)
    client.close()
    served(publisher, studio)


def test_who_says_nothing_is_thrown_out(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = publisher_module.ListenerSettings
    monkeypatch.setattr(
        publisher_module,
        "ListenerSettings",
        lambda **given: settings(**given, handshake_ns=SECOND // 2),
    )
    publisher = studio.publish()
    silent, slow, good = studio.connect(), studio.connect(), studio.connect()
    slow._socket.send(encode(HELLO)[0][:20])
    good.put(HELLO)
    for client in (silent, slow):
        assert "too long" in answer(client).text
    served(publisher, studio)
    until(lambda: publisher.stats.clients == 1)


@linux
def test_descriptors_of_bad_clients_are_closed(studio: Studio) -> None:
    publisher = studio.publish()
    served(publisher, studio)
    message = textures()
    gc.collect()
    before = open_fds()
    for _ in range(5):
        client = studio.connect()
        client.put(message)
        assert answer(client).code == "protocol"
        client.close()
    until(lambda: open_fds() <= before)
    message.close()


def test_too_many_subscribers(studio: Studio) -> None:
    publisher = studio.publish(max_subscribers=2)
    first = studio.subscribe()
    studio.subscribe()
    with pytest.raises(ShareError, match="refuses: there are 2 subscribers already"):
        studio.subscribe()
    first.close()
    until(lambda: publisher.stats.clients == 1)
    served(publisher, studio)


def other_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the kernel say that clients belong to user 4711."""
    settings = publisher_module.ListenerSettings
    monkeypatch.setattr(
        publisher_module,
        "ListenerSettings",
        lambda **given: settings(**given, credentials=lambda _: Credentials(99, 4711)),
    )


def test_other_users_are_refused(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    other_user(monkeypatch)
    publisher = studio.publish()
    with pytest.raises(ShareError, match="refuses: process 99 belongs to user 4711"):
        studio.subscribe()
    assert publisher.stats.clients == 0


@pytest.mark.parametrize("users", [[4711], ["root", 4711]])
def test_other_users_may_be_allowed(
    studio: Studio, monkeypatch: pytest.MonkeyPatch, users: list[Any]
) -> None:
    other_user(monkeypatch)
    served(studio.publish(allow_users=users), studio)


def test_a_client_that_never_reads(studio: Studio) -> None:
    """The publisher goes on; when the client wakes up it sees the newest frame."""
    publisher = studio.publish()
    client = studio.connect()
    client.put(HELLO)
    until(lambda: publisher.stats.clients == 1)
    while not publisher.stats.dropped:
        with publisher.next_frame():
            pass
    last = write(publisher)
    served(publisher, studio)
    numbers: list[int] = []
    while not numbers or numbers[-1] < last:
        message = client.receive(20 * SECOND)
        if isinstance(message, Frame):
            numbers.append(message.number)
        message.close()
    assert numbers[-2] < last - 1
    assert numbers == sorted(numbers)


def test_a_client_that_never_reads_new_textures(studio: Studio) -> None:
    """It is sent those of one size, which stay in memory, and the newest when it has opened them."""
    publisher = studio.publish()
    client = studio.connect()
    client.put(HELLO)
    until(lambda: publisher.stats.clients == 1)
    for size in range(9, 69):
        publisher.resize(describe(size, size))
        last = [write(publisher) for _ in range(3)][-1]
    assert publisher.stats.clients == 1
    served(publisher, studio)
    generations: list[int] = []
    numbers: list[int] = []
    while not numbers or numbers[-1] <= last:  # one more was made for the other client
        message = client.receive(20 * SECOND)
        if isinstance(message, Textures):
            generations.append(message.generation)
            client.put(Opened(message.generation))
        if isinstance(message, Frame):
            assert message.generation == generations[-1]
            numbers.append(message.number)
        message.close()
    assert generations == [1, 61]
    assert numbers == [last + 1]


@pytest.mark.parametrize("policy", ["latest", "every"])
def test_a_subscriber_that_slept_through_changes_of_size(studio: Studio, policy: str) -> None:
    publisher = studio.publish()
    subscriber = studio.subscribe(policy)
    write(publisher)
    assert read(subscriber) == 1
    [client] = publisher._hub.listener.clients
    until(lambda: not client.side.unopened)
    for size in (20, 30, 40):
        publisher.resize(describe(size, size))
    assert client.is_behind
    if policy == "every":  # it is to miss no frame, so there is none before it has caught up
        with pytest.raises(WaitTimeoutError, match=r"subscriber \d+ has not read the textures"):
            write(publisher, timeout_ns=SOON)
        with pytest.raises(WaitTimeoutError), subscriber.next_frame(timeout_ns=0):
            pass
        write(publisher, timeout_ns=20 * SECOND)
    else:
        write(publisher)
    with subscriber.next_frame() as frame:
        check(frame)
        assert (frame.number, frame.dropped, frame.texture.width) == (2, 0, 40)
    assert not client.is_behind


@linux
def test_a_publisher_stands_a_fuzzer(studio: Studio, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "pers.sharing")
    publisher = studio.publish()
    write(publisher)
    check_service("stream")
    until(lambda: publisher.stats.clients == 0)
    gc.collect()
    before = open_fds()
    outcome = fuzz_publisher(1500, 5, "stream")
    assert outcome.messages == 1500
    check_service("stream")
    until(lambda: publisher.stats.clients == 0)
    gc.collect()
    until(lambda: open_fds() <= before)


# --- Publishers that do not behave ----------------------------------------------------------------


class Impostor:
    """A publisher that says what a test tells it."""

    def __init__(
        self, *messages: Message, raw: bytes = b"", stays: bool = True, lives: float = 0.0
    ) -> None:
        self._messages, self._raw, self._stays, self._lives = messages, raw, stays, lives
        self._claim = address_module.Claim(Address("stream"))
        self._listener = self._claim.listen(1)
        self._listener.setblocking(True)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        connection, _ = self._listener.accept()
        channel = Channel(connection)
        with suppress(PeerLostError):
            for message in self._messages:
                channel.put(message)
                message.close()
            if self._raw:
                connection.send(self._raw)
            assert isinstance(channel.receive(20 * SECOND), Hello)
            while self._stays:
                channel.receive(20 * SECOND)
        time.sleep(self._lives)
        channel.close()

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._claim.close()


WELCOME = Welcome(name="stream", pid=1, buffers=2, backend="host")


def wrong_textures() -> Textures:
    return textures(vulkan=True)


@pytest.mark.parametrize(
    ("messages", "error", "why"),
    [
        ([Frame(1, 0, 1, 0, 0)], ProtocolError, "before Welcome"),
        ([WELCOME, WELCOME], ProtocolError, "came twice"),
        ([WELCOME, Frame(1, 0, 1, 0, 0)], ProtocolError, "generation 1, not 0"),
        ([WELCOME, Done(1, 0, 1)], ProtocolError, "not for a subscriber"),
        ([Welcome("other", 1, 2, "host")], ProtocolError, "'other', not 'stream'"),
        ([Failure("device", "another GPU")], DeviceMismatchError, "refuses: another GPU"),
        ([Failure("backend", "other memory")], OperationNotSupportedError, "other memory"),
        ([Failure("internal", "out of luck")], PeerLostError, "out of luck"),
        ([Bye()], PeerLostError, "has closed the stream"),
    ],
)
def test_a_publisher_that_does_not_behave(
    studio: Studio, messages: list[Message], error: type[Exception], why: str
) -> None:
    with Impostor(*messages):
        with pytest.raises(error, match=why):
            studio.subscribe()


def test_a_publisher_that_sends_nonsense(studio: Studio) -> None:
    with Impostor(raw=b"HTTP/1.1 400 Bad Request\r\n"):
        with pytest.raises(ProtocolError, match="begins with b'HTTP'"):
            studio.subscribe()


def test_a_publisher_that_says_nothing(studio: Studio) -> None:
    with Impostor():
        with pytest.raises(WaitTimeoutError, match="did not send anything in time"):
            studio.subscribe(timeout_ns=SOON)


def test_a_publisher_of_other_memory(studio: Studio) -> None:
    """The manager refuses the handles; what it says passes through."""
    with Impostor(WELCOME, wrong_textures()):
        with pytest.raises(InvalidTextureHandleError):
            studio.subscribe()


def test_another_gpu_is_refused(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher = studio.publish()
    client = studio.connect()
    client.put(Hello(1, "latest", "host", "shared_memory", bytes(16), bytes(range(16))))
    failure = answer(client)
    assert failure.code == "device"
    assert "another GPU or driver" in failure.text
    client = studio.connect()
    client.put(Hello(1, "latest", "vulkan", "opaque_fd"))
    assert answer(client).code == "backend"
    served(publisher, studio)


def test_a_client_without_a_word(studio: Studio) -> None:
    """It connects and leaves, as `list_streams` of another version might."""
    publisher = studio.publish()
    for _ in range(5):
        studio.connect().close()
    served(publisher, studio)


def test_sockets_of_others_in_the_same_folder(studio: Studio) -> None:
    """A socket that nobody listens at is as good as none."""
    publisher = studio.publish(name="other")
    path = Address("stream").socket_path
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        with pytest.raises(WaitTimeoutError):
            studio.subscribe(timeout_ns=SOON)
    path.unlink()
    del publisher


# --- Which texture is next ------------------------------------------------------------------------


def test_the_oldest_texture_is_next() -> None:
    slots = Slots(3)
    assert slots.candidates(set()) == [0, 1, 2]
    slots.set_frame(0, 1)
    assert slots.candidates(set()) == [1, 2, 0]
    slots.set_frame(2, 2)
    slots.set_frame(1, 3)
    assert slots.candidates(set()) == [0, 2, 1]
    assert slots.candidates({0}) == [2, 1]
    assert slots.candidates({0, 1, 2}) == []
