"""One connection: messages in, messages out, over a non-blocking Unix domain socket."""

from __future__ import annotations

import array
import contextlib
import os
import select
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Iterable

import anyio
import anyio.lowlevel

from pers.errors import PeerLostError, PersError, ProtocolError, ShareError, WaitTimeoutError
from pers.sharing.control import poll_time
from pers.sharing.handles import OwnedFd
from pers.sharing.ipc.forks import abandon_in_children
from pers.sharing.ipc.wire import MAX_FDS, Decoder, Message, encode
from pers.sharing.shortage import TOO_MANY_FILES

__all__ = ["Channel"]

CHUNK = 1 << 16
READS = 16  # at once at most, so that one peer who never stops does not keep the others waiting
ANCILLARY_BYTES = socket.CMSG_SPACE(4 * MAX_FDS) if hasattr(socket, "CMSG_SPACE") else 0
CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)
GONE = (BrokenPipeError, ConnectionResetError, ConnectionAbortedError)


class Channel:
    """A connection to a peer. One thread may receive while others send.

    Args:
        connection: A connected stream socket; the channel closes it.
        peer: Who is there, for error messages.
    """

    def __init__(self, connection: socket.socket, peer: str = "the peer") -> None:
        connection.setblocking(False)
        self._socket = connection
        self.peer = peer
        self._decoder = Decoder()
        self._inbox: deque[Message] = deque()
        self._sending = threading.RLock()
        self._outbox: deque[_Outgoing] = deque()
        self._closed = False
        self._end = weakref.finalize(self, connection.close)
        self._end.atexit = False  # whoever uses it may have more to say; the system closes all
        abandon_in_children(self)

    def fileno(self) -> int:
        """Return the socket's number, -1 when closed."""
        return self._socket.fileno()

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    # --- Sending ---------------------------------------------------------------------------------

    @property
    def unsent(self) -> int:
        """How many messages were put that do not fit into the socket yet."""
        return len(self._outbox)

    def put(self, message: Message) -> bool:
        """Send without waiting; what does not fit is kept for `flush`. Return whether all is sent.

        The message's descriptors stay the caller's.

        Raises:
            PeerLostError: The peer is gone.
        """
        data, fds = encode(message)
        with self._sending:
            self._outbox.append(_Outgoing(memoryview(data), fds))
            try:
                sent = self.flush()
                for waiting in self._outbox:
                    waiting.keep()
            except (PersError, OSError):  # too many descriptors may be on their way, or open
                self._drop_unsent()
                raise
            return sent

    def flush(self) -> bool:
        """Send what was put, as far as it fits; return whether all is sent.

        Raises:
            PeerLostError: The peer is gone.
        """
        with self._sending:
            if self._closed:
                raise PeerLostError(f"the connection to {self.peer} is closed")
            try:
                while self._outbox:
                    if not self._outbox[0].send(self._socket):
                        return False
                    self._outbox.popleft()
            except GONE as error:
                raise self._lost(error) from None
            return True

    def send(self, message: Message, timeout_ns: int) -> None:
        """Send, and wait for that as long as the timeout.

        Raises:
            PeerLostError: The peer is gone.
            WaitTimeoutError: The peer does not read.
        """
        end = time.monotonic_ns() + timeout_ns
        sent = self.put(message)
        while not sent:
            self._poll(select.POLLOUT, end, "read what was sent")
            sent = self.flush()

    async def send_async(self, message: Message) -> None:
        """Send, and wait for that as long as the caller's cancel scope allows.

        When cancelled the connection is in the middle of a message; close it.

        Raises:
            PeerLostError: The peer is gone.
        """
        sent = self.put(message)
        while not sent:
            await self._wait(anyio.wait_writable)
            sent = self.flush()
        await anyio.lowlevel.checkpoint()

    def _drop_unsent(self) -> None:
        for waiting in self._outbox:
            waiting.close()
        self._outbox.clear()

    # --- Receiving -------------------------------------------------------------------------------

    def receive_now(self) -> list[Message]:
        """Return what has arrived, without waiting; the caller closes the messages.

        Raises:
            PeerLostError: The peer is gone, and all it has sent was returned before.
            ProtocolError: It sent nonsense; close the connection.
            ShareError: There is no place for the descriptors it sent; close the connection.
        """
        try:
            for _ in range(READS):
                self._read()
        except BlockingIOError:
            pass
        except PeerLostError:
            if not self._inbox:
                raise
        return self._take_all()

    def receive(self, timeout_ns: int) -> Message:
        """Return the next message, and wait for it as long as the timeout.

        Raises:
            PeerLostError: The peer is gone.
            ProtocolError: It sent nonsense; close the connection.
            WaitTimeoutError: Nothing came in time.
        """
        end = time.monotonic_ns() + timeout_ns
        while not self._inbox:
            try:
                self._read()
            except BlockingIOError:
                self._poll(select.POLLIN, end, "send anything")
        return self._inbox.popleft()

    async def receive_async(self) -> Message:
        """Return the next message; wait as long as the caller's cancel scope allows.

        When cancelled nothing is lost: the next call goes on where this one was.

        Raises:
            PeerLostError: The peer is gone.
            ProtocolError: It sent nonsense; close the connection.
        """
        await anyio.lowlevel.checkpoint()
        while not self._inbox:
            try:
                self._read()
            except BlockingIOError:
                await self.wait_readable_async()
        return self._inbox.popleft()

    def wait_readable(self, end_ns: int) -> None:
        """Block until something has arrived.

        Args:
            end_ns: Until when at most, on the clock of ``time.monotonic_ns()``.

        Raises:
            WaitTimeoutError: Nothing came in time.
        """
        if not self._inbox:
            self._poll(select.POLLIN, end_ns, "send anything")

    async def wait_readable_async(self) -> None:
        """Wait until something has arrived."""
        if not self._inbox:
            await self._wait(anyio.wait_readable)

    def _take_all(self) -> list[Message]:
        messages = list(self._inbox)
        self._inbox.clear()
        return messages

    def _read(self) -> None:
        """Read what is there once; BlockingIOError when nothing is."""
        if self._closed:
            raise PeerLostError(f"the connection to {self.peer} is closed")
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(CHUNK, ANCILLARY_BYTES, CLOSE_ON_EXEC)
        except GONE as error:
            raise self._lost(error) from None
        fds = list(_descriptors(ancillary))
        try:
            if flags & getattr(socket, "MSG_CTRUNC", 0):
                for fd in fds:
                    fd.close()
                if len(fds) < MAX_FDS:  # there was place for all, but not in this process
                    self._break_off()
                    raise ShareError(
                        f"file descriptors from {self.peer} were lost: {TOO_MANY_FILES}"
                    )
                raise ProtocolError("more file descriptors than allowed came")
            if not data:
                for fd in fds:
                    fd.close()
                raise self._lost(None)
            self._inbox += self._decoder.feed(data, fds)
        except ProtocolError as error:
            self._break_off()
            raise ProtocolError(f"{self.peer}: {error}") from None

    def _break_off(self) -> None:
        """Take nothing more; the socket stays, so that the peer can be told why."""
        self._decoder.close()
        for message in self._take_all():
            message.close()

    def _lost(self, error: OSError | None) -> PeerLostError:
        how = (
            f"({error.strerror})"
            if error
            else (
                "in the middle of a message"
                if self._decoder.is_within
                else "(end of the connection)"
            )
        )
        return PeerLostError(
            f"{self.peer} is gone {how}; it was closed or has died, connect again when it is back"
        )

    # --- Waiting ---------------------------------------------------------------------------------

    def _poll(self, event: int, end_ns: int, what: str) -> None:
        poll = select.poll()
        if self._closed:
            raise PeerLostError(f"the connection to {self.peer} is closed")
        poll.register(self._socket, event)
        while not poll.poll(poll_time(end_ns)):
            if time.monotonic_ns() >= end_ns:
                raise WaitTimeoutError(f"{self.peer} did not {what} in time; give it longer")

    async def _wait(self, wait: Callable[[socket.socket], Awaitable[None]]) -> None:
        try:
            await wait(self._socket)
        except (anyio.ClosedResourceError, ValueError):
            raise PeerLostError(f"the connection to {self.peer} is closed") from None

    def shut_down(self) -> None:
        """End the connection for both sides; whoever waits for it wakes up."""
        with self._sending, contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection and every descriptor that was not given out."""
        with self._sending:
            self._closed = True
            self._drop_unsent()
            self._end()
            self._decoder.close()
            for message in self._take_all():
                message.close()

    def abandon(self) -> None:
        """Close this process's descriptor only; the connection is its parent's."""
        self._closed = True
        if self._socket.fileno() >= 0:
            os.close(self._socket.detach())


class _Outgoing:
    """A message on its way, with what is left of it."""

    def __init__(self, data: memoryview, fds: list[OwnedFd]) -> None:
        self._data = data
        self._fds: list[OwnedFd] = fds
        self._owned = False

    def keep(self) -> None:
        """Own the descriptors from now on, for the caller is about to close his."""
        if not self._owned:
            self._fds = [fd.duplicate() for fd in self._fds]
            self._owned = True

    def send(self, connection: socket.socket) -> bool:
        """Send as much as fits; return whether that was all."""
        while self._data:
            numbers = array.array("i", [fd.fileno() for fd in self._fds])
            beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)] if numbers else []
            try:
                count = connection.sendmsg([self._data], beside, NO_SIGNAL)
            except BlockingIOError:
                return False
            # They went with the first byte.
            self._data = self._data[count:]
            self.close()
        return True

    def close(self) -> None:
        for fd in self._fds if self._owned else ():
            fd.close()
        self._fds.clear()


def _descriptors(ancillary: Iterable[tuple[int, int, bytes]]) -> Iterable[OwnedFd]:
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers = array.array("i")
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
            yield from (OwnedFd(number) for number in numbers)
