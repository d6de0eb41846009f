"""One connection, over a pair of sockets."""

from __future__ import annotations

import array
import os
import socket
import threading
from collections.abc import Iterator

import anyio
import pytest

from pers import PeerLostError, ProtocolError, ShareError, WaitTimeoutError
from pers.sharing.control import create_memory
from pers.sharing.ipc import channel as module
from pers.sharing.ipc.channel import Channel
from pers.sharing.ipc.wire import MAX_FDS, Bye, Failure, Message, encode
from tests.sharing.messages import DONE, FRAME, HELLO, plain, same, textures
from tests.sharing.support import linux, open_fds

SECOND = 1_000_000_000
SOON = SECOND // 50
BULKY = Failure("full", "x" * 500)


@pytest.fixture
def pair() -> Iterator[tuple[Channel, Channel]]:
    one, other = socket.socketpair()
    channels = Channel(one, "peer 1"), Channel(other, "peer 2")
    yield channels
    for channel in channels:
        channel.close()


@pytest.fixture
def raw() -> Iterator[tuple[Channel, socket.socket]]:
    """A channel, and the other end as a socket."""
    one, other = socket.socketpair()
    channel = Channel(one, "peer 1")
    yield channel, other
    channel.close()
    other.close()


def beside(numbers: list[int]) -> list[tuple[int, int, array.array[int]]]:
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", numbers))]


# --- Sending and receiving ------------------------------------------------------------------------


def test_messages_travel(pair: tuple[Channel, Channel]) -> None:
    here, there = pair
    for message in plain():
        here.send(message, SECOND)
    assert [there.receive(SECOND) for _ in plain()] == plain()


@linux
def test_descriptors_travel_and_are_close_on_exec(pair: tuple[Channel, Channel]) -> None:
    here, there = pair
    before = open_fds()
    sent = textures(count=16)
    here.send(sent, SECOND)
    got = there.receive(SECOND)
    assert same(sent, got)
    sent.close()
    assert not any(os.get_inheritable(fd.fileno()) for fd in got.fds)
    got.close()
    assert open_fds() == before


def test_all_that_came_at_once(pair: tuple[Channel, Channel]) -> None:
    here, there = pair
    assert there.receive_now() == []
    sent: list[Message] = [FRAME, textures(), DONE, textures(2), Bye()]
    for message in sent:
        here.put(message)
    got = there.receive_now()
    assert [same(*both) for both in zip(sent, got, strict=True)] == [True] * 5
    for message in [*sent, *got]:
        message.close()


def test_what_does_not_fit_is_kept(pair: tuple[Channel, Channel]) -> None:
    """With its descriptors, though the caller closes his."""
    here, there = pair
    count = 0
    while here.put(BULKY):
        count += 1
    with textures_closed_later() as message:
        assert not here.put(message)
    assert here.unsent == 2
    got: list[Message] = []
    while len(got) < count + 2:
        got += there.receive_now()
        here.flush()
    assert got[:-1] == [BULKY] * (count + 1)
    assert got[-1].fds
    assert all(os.fstat(fd.fileno()).st_size for fd in got[-1].fds)
    got[-1].close()
    assert here.unsent == 0


class textures_closed_later:
    def __enter__(self) -> Message:
        self._message = textures()
        return self._message

    def __exit__(self, *_: object) -> None:
        self._message.close()


def test_sending_waits_for_room(pair: tuple[Channel, Channel]) -> None:
    here, there = pair
    while here.put(BULKY):
        pass
    got: list[Message] = []

    def read() -> None:
        while DONE not in got:
            got.append(there.receive(20 * SECOND))

    reader = threading.Timer(0.02, read)
    reader.start()
    here.send(DONE, 20 * SECOND)
    reader.join()


# --- Waits that end -------------------------------------------------------------------------------


def test_waits_end_in_time(pair: tuple[Channel, Channel]) -> None:
    here, _ = pair
    with pytest.raises(WaitTimeoutError, match="peer 1 did not send anything in time"):
        here.receive(SOON)
    with pytest.raises(WaitTimeoutError, match="peer 1 did not read"):
        for _ in range(10_000):
            here.send(BULKY, SOON)


@pytest.mark.parametrize("time_ns", [30 * 24 * 3600 * SECOND, 2**63 - 1])
def test_waits_without_end(pair: tuple[Channel, Channel], time_ns: int) -> None:
    here, there = pair
    sender = threading.Timer(0.02, there.send, (DONE, SECOND))
    sender.start()
    assert here.receive(time_ns) == DONE
    sender.join()


def test_the_other_side_closes(pair: tuple[Channel, Channel]) -> None:
    here, there = pair
    there.put(DONE)
    there.close()
    assert here.receive_now() == [DONE]
    for call in (here.receive_now, lambda: here.receive(SECOND), lambda: here.put(DONE)):
        with pytest.raises(PeerLostError, match="peer 1 is gone"):
            call()


def test_the_other_side_dies_in_a_message(raw: tuple[Channel, socket.socket]) -> None:
    channel, other = raw
    other.send(encode(FRAME)[0][:20])
    other.close()
    with pytest.raises(PeerLostError, match="in the middle of a message"):
        channel.receive(SECOND)


def test_the_other_side_resets(raw: tuple[Channel, socket.socket]) -> None:
    """With data unread the kernel says so by another error."""
    channel, other = raw
    channel.put(DONE)
    other.close()
    with pytest.raises(PeerLostError, match="is gone"):
        channel.receive(SECOND)


def test_a_wait_sees_the_end(pair: tuple[Channel, Channel]) -> None:
    here, there = pair
    closer = threading.Timer(0.02, there.close)
    closer.start()
    with pytest.raises(PeerLostError):
        here.receive(60 * SECOND)
    closer.join()


def test_shutting_down_wakes_whoever_waits(pair: tuple[Channel, Channel]) -> None:
    here, there = pair
    ender = threading.Timer(0.02, here.shut_down)
    ender.start()
    with pytest.raises(PeerLostError):
        here.receive(60 * SECOND)
    with pytest.raises(PeerLostError):
        there.receive(60 * SECOND)
    ender.join()


@linux
def test_closing_closes_what_was_not_given_out(pair: tuple[Channel, Channel]) -> None:
    here, there = pair
    message = textures()
    data, fds = encode(message)
    before = open_fds()
    for part in (data, data[:30]):  # one whole, one begun
        here._socket.sendmsg([part], beside([fd.fileno() for fd in fds]))
    with pytest.raises(WaitTimeoutError):
        there.receive_now().clear()
        there.receive(SOON)
    here.close()
    there.close()
    there.close()
    del fds
    message.close()
    assert open_fds() <= before  # the sockets are gone too
    for call in (there.receive_now, lambda: there.put(DONE), lambda: there.receive(SECOND)):
        with pytest.raises(PeerLostError, match="is closed"):
            call()


# --- Nonsense -------------------------------------------------------------------------------------


@linux
def test_nonsense_closes_every_descriptor(raw: tuple[Channel, socket.socket]) -> None:
    channel, other = raw
    message = textures()
    data, fds = encode(message)
    before = open_fds()
    numbers = [fd.fileno() for fd in fds]
    other.sendmsg([data], beside(numbers))
    other.sendmsg([b"PERS but not really" + data], beside(numbers))
    with pytest.raises(ProtocolError, match="^peer 1: "):
        channel.receive_now()
    assert open_fds() == before
    other.sendmsg([data], beside(numbers))
    with pytest.raises(ProtocolError, match="had an error before"):
        channel.receive_now()
    assert open_fds() == before
    message.close()


@linux
def test_too_many_descriptors_are_closed(raw: tuple[Channel, socket.socket]) -> None:
    """More than there is room for: the kernel cuts them off (MSG_CTRUNC)."""
    channel, other = raw
    memory = create_memory(16, "pers-test")
    before = open_fds()
    other.sendmsg([encode(FRAME)[0]], beside([memory.fileno()] * (MAX_FDS + 2)))
    with pytest.raises(ProtocolError, match="more file descriptors than allowed"):
        channel.receive_now()
    assert open_fds() == before


@linux
def test_a_full_table_of_descriptors(raw: tuple[Channel, socket.socket]) -> None:
    """The process has as many open as it may: an error, and nothing stays behind."""
    import resource

    channel, other = raw
    message = textures()
    data, fds = encode(message)
    other.sendmsg([data], beside([fd.fileno() for fd in fds]))
    before = open_fds()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208
    filler = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 2, hard))
    try:
        while True:
            filler.append(os.dup(0))
    except OSError:
        os.close(filler.pop())
        with pytest.raises(ShareError, match="ulimit") as caught:
            channel.receive_now()
        assert not isinstance(caught.value, ProtocolError), "the other side did nothing wrong"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in filler:
            os.close(number)
    assert open_fds() == before
    message.close()


def test_a_flood_is_read_in_turns(raw: tuple[Channel, socket.socket]) -> None:
    """One who never stops sending does not keep the receiver for ever."""
    channel, other = raw
    other.setblocking(False)
    reads = 0

    class Endless:
        def recvmsg(self, *_: int) -> tuple[bytes, list[object], int, None]:
            nonlocal reads
            reads += 1
            return encode(DONE)[0], [], 0, None

        def close(self) -> None:
            pass

    real, channel._socket = channel._socket, Endless()  # type: ignore[assignment]
    assert channel.receive_now() == [DONE] * module.READS
    channel._socket = real
    assert reads == module.READS


# --- Async ----------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_async_twins(pair: tuple[Channel, Channel]) -> None:
    here, there = pair
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(here.send_async, HELLO)
        with anyio.fail_after(20):
            assert await there.receive_async() == HELLO
            await here.send_async(FRAME)
            await here.send_async(DONE)
            assert [await there.receive_async() for _ in range(2)] == [FRAME, DONE]


@pytest.mark.anyio
async def test_async_sending_waits_for_room(pair: tuple[Channel, Channel]) -> None:
    here, there = pair
    sent = 0
    while here.put(BULKY):
        sent += 1
    got: list[Message] = []

    async def read() -> None:
        while len(got) < sent + 2:
            got.append(await there.receive_async())

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await here.send_async(DONE)
    assert got[-1] == DONE


@pytest.mark.anyio
async def test_async_receive_may_be_cancelled(pair: tuple[Channel, Channel]) -> None:
    """In the middle of a message: the next call goes on where that one was."""
    here, there = pair
    data, _ = encode(FRAME)
    here._socket.send(data[:20])
    with anyio.move_on_after(0.02) as scope:
        await there.receive_async()
    assert scope.cancelled_caught
    here._socket.send(data[20:])
    with anyio.fail_after(20):
        assert await there.receive_async() == FRAME


@pytest.mark.anyio
async def test_async_receive_sees_the_end(pair: tuple[Channel, Channel]) -> None:
    here, there = pair

    async def end() -> None:
        await anyio.sleep(0.02)
        there.close()

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(end)
            with pytest.raises(PeerLostError):
                await here.receive_async()
