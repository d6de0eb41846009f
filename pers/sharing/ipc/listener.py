"""The publisher's side of all its connections: one thread that lets subscribers in.

A client that is late, of the wrong user or sends nonsense is dropped, which the log says (under
``pers.sharing``), and the others notice nothing.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable

import attrs

from pers.errors import PeerLostError, ProtocolError, ShareError
from pers.sharing.ipc.address import Claim
from pers.sharing.ipc.channel import Channel
from pers.sharing.ipc.credentials import (
    Credentials,
    CredentialsReader,
    check_peer,
    read_credentials,
)
from pers.sharing.ipc.dialogue import PublisherSide
from pers.sharing.ipc.forks import no_forks
from pers.sharing.ipc.wire import (
    Bye,
    Done,
    Failure,
    FailureCode,
    Frame,
    Hello,
    Message,
    Opened,
    Textures,
)
from pers.sharing.shortage import report_shortage

__all__ = ["Client", "Listener", "ListenerSettings", "RefusedError", "Service"]

log = logging.getLogger("pers.sharing")


class RefusedError(ShareError):
    """A subscriber is not let in.

    Attributes:
        code: Why, as the protocol says it.
    """

    def __init__(self, code: FailureCode, message: str) -> None:
        super().__init__(message)
        self.code: FailureCode = code


class Client:
    """One subscriber, as its publisher sees it. Whoever uses it holds the service's lock."""

    def __init__(self, channel: Channel, credentials: Credentials, deadline_ns: int) -> None:
        self.channel = channel
        self.credentials = credentials
        self.side = PublisherSide()
        self.deadline_ns: int | None = deadline_ns
        self.is_alive = True
        self.is_behind = False
        """Whether there are textures that it is to be sent when it has opened those before."""
        self._waiting: Frame | None = None

    @property
    def name(self) -> str:
        """For people."""
        return self.channel.peer

    @property
    def wants_every(self) -> bool:
        """Whether the publisher waits for it."""
        return self.side.hello is not None and self.side.hello.policy == "every"

    @property
    def is_let_in(self) -> bool:
        """Whether it was welcomed and lives."""
        return self.is_alive and self.side.hello is not None

    @property
    def holds(self) -> set[tuple[int, int]]:
        """Generation and slot of each frame that it may still be reading."""
        frames = self.side.outstanding.values() if self.is_alive else ()
        return {(frame.generation, frame.slot) for frame in frames}

    @property
    def owes(self) -> str:
        """What has to be read before it can be sent more, when it wants every frame; or nothing."""
        if self.wants_every and self.side.outstanding:
            return f"frame {min(self.side.outstanding)}"
        return "the textures before" if self.wants_every and self.is_behind else ""

    @property
    def has_unsent(self) -> bool:
        """Whether something waits until it reads."""
        return bool(self.channel.unsent) or (self._waiting is not None and not self.is_behind)

    def put(self, message: Message) -> None:
        """Send without waiting. A client that is gone is given up, not an error."""
        self.side.sent(message)
        try:
            self.channel.put(message)
        except PeerLostError:
            self.give_up()

    def tell(self, frame: Frame) -> bool:
        """Tell of a frame; return whether a frame before was never told of, and is dropped."""
        if self.wants_every or not (self.is_behind or self.channel.unsent):
            self.put(frame)
            return False
        # Only the last one counts; it goes when there is room.
        dropped, self._waiting = self._waiting is not None, frame
        return dropped

    def fall_behind(self) -> None:
        """Note that there are new textures, and that frames in those before count no more."""
        self.is_behind = True
        self._waiting = None

    def catch_up(self, textures: Textures) -> None:
        """Send the new textures, and the frame that waits for them."""
        self.put(textures)
        self.is_behind = False
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as it fits."""
        if self.channel.flush() and self._waiting is not None and not self.is_behind:
            frame, self._waiting = self._waiting, None
            self.put(frame)

    def give_up(self) -> None:
        """Count it as gone; the service's thread sees the end and takes it away."""
        self.is_alive = False
        self.channel.shut_down()


class Service(ABC):
    """What the listener serves. Every method is called with `lock` held, by one thread."""

    lock: threading.Condition

    @abstractmethod
    def let_in(self, client: Client, hello: Hello) -> Iterable[Message]:
        """Return the messages for a new client, which go out before any other.

        They are closed when sent.

        Raises:
            RefusedError: It cannot be served.
        """

    @abstractmethod
    def opened(self, client: Client) -> None:
        """Go on with a client that has opened the textures it was sent."""

    @abstractmethod
    def gone(self, client: Client) -> None:
        """Forget a client."""


@attrs.frozen
class ListenerSettings:
    """How a listener treats its clients.

    Attributes:
        allowed: Users that may connect besides one's own.
        max_clients: How many may be connected.
        handshake_ns: How long each has from its connection until it has read its textures.
        credentials: Tells who is on the other side of a socket.
    """

    allowed: frozenset[int] = frozenset()
    max_clients: int = 32
    handshake_ns: int = 2_000_000_000
    credentials: CredentialsReader = read_credentials


class Listener:
    """Accepts, greets and hears subscribers until it is closed.

    Args:
        claim: The name to listen under; it is closed with the listener.
        service: What they come for.
        settings: How they are treated.
    """

    def __init__(self, claim: Claim, service: Service, settings: ListenerSettings) -> None:
        self._claim = claim
        self._service = service
        self._settings = settings
        self._clients: list[Client] = []
        self._ending = False
        name = claim.address.name
        self._socket = claim.listen(settings.max_clients)
        with (
            contextlib.ExitStack() as undo,
            report_shortage(f"stream {name!r} cannot be published", ShareError),
        ):
            self._selector = undo.enter_context(selectors.DefaultSelector())
            self._wake_in, self._wake_out = socket.socketpair()
            undo.callback(self._wake_in.close)
            undo.callback(self._wake_out.close)
            self._wake_in.setblocking(False)
            self._wake_out.setblocking(False)
            self._selector.register(self._socket, selectors.EVENT_READ)
            self._selector.register(self._wake_in, selectors.EVENT_READ)
            self._thread = threading.Thread(
                target=self._run, name=f"pers-stream-{name}", daemon=True
            )
            self._thread.start()
            undo.pop_all()

    @property
    def clients(self) -> list[Client]:
        """The clients that were let in and live; ask with the service's lock held."""
        return [client for client in self._clients if client.is_let_in]

    def wake(self) -> None:
        """Have the thread look for what waits to be sent."""
        with contextlib.suppress(BlockingIOError, OSError):
            self._wake_out.send(b"!")

    def close(self) -> None:
        """Say goodbye to all and end the thread; the second time does nothing."""
        self._ending = True
        self.wake()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    # --- The thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._ending:
                self._turn()
        except Exception:
            log.exception("the stream %r has ended", self._claim.address.name)
        finally:
            self._end()

    def _turn(self) -> None:
        """Wait for something and handle it."""
        for client in self._clients:
            self._watch(client)
        for key, events in self._selector.select(self._patience()):
            if key.fileobj is self._socket:
                self._accept()
            elif key.fileobj is self._wake_in:
                with contextlib.suppress(BlockingIOError):
                    self._wake_in.recv(4096)
            else:
                self._serve(key.data, events)
        now = time.monotonic_ns()
        for client in [*self._clients]:
            if client.deadline_ns is not None and now > client.deadline_ns:
                self._drop(client, "took too long to connect")

    def _watch(self, client: Client) -> None:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.has_unsent else 0)
        if self._selector.get_key(client.channel).events != events:
            self._selector.modify(client.channel, events, client)

    def _patience(self) -> float | None:
        deadlines = [it.deadline_ns for it in self._clients if it.deadline_ns is not None]
        return max(0.0, (min(deadlines) - time.monotonic_ns()) / 1e9) if deadlines else None

    def _accept(self) -> None:
        try:
            with no_forks:
                connection, _ = self._socket.accept()
                channel = Channel(connection)
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:  # too many open files, say
            log.warning("a subscriber could not be let in: %s", error)
            time.sleep(0.02)
            return
        with contextlib.ExitStack() as undo:
            undo.callback(channel.close)
            credentials = self._settings.credentials(connection)
            channel.peer = f"subscriber {credentials.pid}"
            refusal = self._refusal(credentials)
            if refusal is not None:
                log.warning("%s was refused: %s", channel.peer, refusal)
                with contextlib.suppress(PeerLostError):
                    channel.put(Failure(refusal.code, str(refusal)[:120]))
                return
            deadline = time.monotonic_ns() + self._settings.handshake_ns
            client = Client(channel, credentials, deadline)
            self._selector.register(channel, selectors.EVENT_READ, client)
            self._clients.append(client)
            undo.pop_all()

    def _refusal(self, credentials: Credentials) -> RefusedError | None:
        try:
            check_peer(credentials, self._settings.allowed)
        except ShareError as error:
            return RefusedError("refused", str(error))
        if len(self._clients) >= self._settings.max_clients:
            return RefusedError("full", f"there are {len(self._clients)} subscribers already")
        return None

    def _serve(self, client: Client, events: int) -> None:
        with self._service.lock:
            try:
                if events & selectors.EVENT_READ:
                    self._hear(client)
                if client.is_alive and events & selectors.EVENT_WRITE:
                    client.flush()
                if client.is_let_in and not client.has_unsent:
                    client.deadline_ns = None
            except PeerLostError as error:
                self._drop(client, str(error), level=logging.DEBUG)
            except RefusedError as error:
                self._drop(client, str(error), code=error.code)
            except ProtocolError as error:
                self._drop(client, str(error), code="protocol")
            except Exception as error:
                log.exception("%s could not be served", client.name)
                self._drop(client, f"could not be served: {error}", code="internal")

    def _hear(self, client: Client) -> None:
        for message in client.channel.receive_now():
            try:
                client.side.receive(message)
            finally:
                message.close()
            match message:
                case Hello():
                    self._let_in(client, message)
                case Bye():
                    raise PeerLostError(f"{client.name} has said goodbye")
                case Done():
                    self._service.lock.notify_all()
                case Opened():
                    self._service.opened(client)
                    self._service.lock.notify_all()
                case _:
                    raise AssertionError(message)

    def _let_in(self, client: Client, hello: Hello) -> None:
        client.channel.peer = f"subscriber {client.credentials.pid or hello.pid}"
        with contextlib.ExitStack() as sent:
            for message in self._service.let_in(client, hello):
                sent.callback(message.close)
                client.put(message)
        log.debug("%s was let in", client.name)

    def _drop(
        self,
        client: Client,
        why: str,
        *,
        code: FailureCode = "refused",
        level: int = logging.WARNING,
    ) -> None:
        log.log(level, "%s was dropped: %s", client.name, why)
        with self._service.lock:
            client.is_alive = False
            self._clients.remove(client)
            self._selector.unregister(client.channel)
            if level > logging.DEBUG:
                with contextlib.suppress(PeerLostError):
                    client.channel.put(Failure(code, why[:120]))
            client.channel.close()
            self._service.gone(client)
            self._service.lock.notify_all()

    def _end(self) -> None:
        with self._service.lock:
            for client in self._clients:
                client.is_alive = False
                with contextlib.suppress(PeerLostError):
                    client.channel.put(Bye())
                client.channel.close()
                self._service.gone(client)
            self._clients.clear()
            self._selector.close()
            self._wake_in.close()
            self._wake_out.close()
            self._claim.close()
            self._service.lock.notify_all()
