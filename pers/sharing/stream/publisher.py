"""The side of a stream that makes the frames."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import weakref
from collections.abc import Generator, Iterable
from contextlib import ExitStack, contextmanager

import attrs

from pers._checks import items_of, of_type, whole_number
from pers.errors import TextureAccessError, ValidationError, WaitTimeoutError
from pers.graphics.types import TextureDescriptor
from pers.sharing.interfaces import Closable, TextureShareManager
from pers.sharing.ipc.address import Address, Claim, check_system
from pers.sharing.ipc.credentials import user_number
from pers.sharing.ipc.listener import Client, Listener, ListenerSettings, RefusedError, Service
from pers.sharing.ipc.wire import MAX_BUFFERS, Frame, Hello, Message, Welcome, beyond_limits
from pers.sharing.stream.frames import (
    OpenTexture,
    PublisherStats,
    StreamFrame,
    manager_or_default,
    try_open,
)
from pers.sharing.stream.generation import Generation

__all__ = ["TexturePublisher"]

SECOND = 1_000_000_000
NAP = 0.0005  # seconds between two looks for a texture that a process has let go of

log = logging.getLogger("pers.sharing")


class TexturePublisher(Closable):
    """Publishes frames under a name, for any number of `TextureSubscriber` in other processes.

    A few textures take turns: the next frame goes into the one whose frame is the oldest and which
    nobody reads. Subscribers with the policy ``"latest"`` never make it wait unless they read
    all the textures at once; those with ``"every"`` make it wait until they have read each frame.

    Frames belong to one thread at a time; the rest may be used from any. A thread of its own lets
    subscribers in.

    Args:
        name: 1 to 64 letters, digits, dots, dashes and underscores.
        descriptor: What the textures are.
        manager: Makes them; it stays the caller's. None opens the best there is.
        buffers: How many textures, 1 to 16.
        allow_users: Users, by name or number, that may subscribe besides one's own. They must be
            able to enter the socket's folder, as root is.
        max_subscribers: How many may be connected at a time.
        timeout_ns: How long `next_frame` waits for a free texture, in nanoseconds.

    Raises:
        ShareError: The name is in use, the folder of the sockets is not safe, or the system
            refuses.
        OutOfMemoryError: There is no memory for the textures, or no file descriptor is left.
        OperationNotSupportedError: On Windows; or the manager cannot share such textures.
        ValidationError: An argument is out of range.
    """

    def __init__(
        self,
        name: str,
        descriptor: TextureDescriptor,
        manager: TextureShareManager | None = None,
        *,
        buffers: int = 3,
        allow_users: Iterable[str | int] = (),
        max_subscribers: int = 32,
        timeout_ns: int = SECOND,
    ) -> None:
        check_system()
        address = Address(name)
        _check_descriptor(descriptor, "TexturePublisher")
        buffers = _count(buffers, "buffers", MAX_BUFFERS)
        settings = ListenerSettings(
            allowed=_users(allow_users),
            max_clients=_count(max_subscribers, "max_subscribers", 1024),
        )
        self._timeout_ns = whole_number(timeout_ns, "timeout_ns")
        self._name = name
        with ExitStack() as undo:
            claim = Claim(address)
            undo.callback(claim.close)
            owns_manager = manager is None
            manager = manager_or_default(manager)
            if owns_manager:
                undo.callback(manager.close)
            hub = _Hub(name, descriptor, manager, buffers, owns_manager=owns_manager)
            undo.callback(hub.close_textures)
            hub.listener = Listener(claim, hub, settings)
            undo.pop_all()
        self._hub = hub
        self._manager = manager
        self._end = weakref.finalize(self, hub.close)

    @property
    def name(self) -> str:
        """The name of the stream."""
        return self._name

    @property
    def descriptor(self) -> TextureDescriptor:
        """What the textures are now."""
        return self._hub.generation.descriptor

    @property
    def manager(self) -> TextureShareManager:
        """Makes the textures."""
        return self._manager

    @property
    def stats(self) -> PublisherStats:
        """What it has done so far."""
        return self._hub.stats()

    def __repr__(self) -> str:
        closed = "" if self._end.alive else " closed"
        return f"<TexturePublisher {self._name!r}{closed}>"

    @contextmanager
    def next_frame(self, *, timeout_ns: int | None = None) -> Generator[StreamFrame]:
        """Open the texture of the next frame for writing; the end of the block publishes it.

        An exception in the block discards the frame.

        Args:
            timeout_ns: How long to wait for a texture that nobody reads, in nanoseconds; None is
                the publisher's own.

        Raises:
            WaitTimeoutError: Subscribers read all of them; the message names who.
            TextureAccessError: The publisher is closed, or a frame is open already.
        """
        wait_ns = self._timeout_ns if timeout_ns is None else whole_number(timeout_ns, "timeout_ns")
        writing = self._hub.begin(time.monotonic_ns() + wait_ns, wait_ns)
        try:
            yield writing.frame
        except BaseException:
            self._hub.discard(writing)
            raise
        self._hub.publish(writing)

    def resize(self, descriptor: TextureDescriptor) -> None:
        """Go on with textures of another size, format or usage.

        Subscribers get the frames that they have been told of in the old ones, then the new. Those
        of every frame make `next_frame` wait when they have not opened the old ones yet.

        Raises:
            TextureAccessError: The publisher is closed, or a frame is open.
            OutOfMemoryError: There is no memory for them; the stream goes on with the old ones.
            ValidationError: They are larger than the protocol allows.
            OperationNotSupportedError: The manager cannot share such textures.
        """
        _check_descriptor(descriptor, "resize")
        self._hub.resize(descriptor)

    def close(self) -> None:
        """Say goodbye to all subscribers and free the name; the second time does nothing.

        Raises:
            TextureAccessError: A frame is open.
        """
        if self._end.alive:
            self._hub.check_idle()
            self._end()


def _users(users: Iterable[str | int]) -> frozenset[int]:
    if isinstance(users, str):
        raise ValidationError(f"allow_users takes a list of users, not {users!r}; [{users!r}], say")
    return frozenset(map(user_number, items_of(users, "allow_users")))


def _check_descriptor(descriptor: TextureDescriptor, call: str) -> None:
    of_type(descriptor, TextureDescriptor, call)
    problem = beyond_limits(descriptor)
    if problem:
        raise ValidationError(f"{call}: {problem}; publish smaller textures")


def _count(value: int, what: str, maximum: int) -> int:
    return whole_number(value, what, minimum=1, maximum=maximum, error=ValidationError)


@attrs.frozen(eq=False)
class _Writing:
    """A frame that is being written."""

    frame: StreamFrame
    opened: OpenTexture
    slot: int
    value: int


class _Hub(Service):
    """What the render thread and the listener's thread share.

    The publisher owns it and not the reverse, so that a forgotten publisher is closed.
    """

    listener: Listener

    def __init__(
        self,
        name: str,
        descriptor: TextureDescriptor,
        manager: TextureShareManager,
        buffers: int,
        *,
        owns_manager: bool,
    ) -> None:
        self.lock = threading.Condition(threading.RLock())
        self._name = name
        self._manager = manager
        self._owns_manager = owns_manager
        self._buffers = buffers
        with ExitStack() as undo:
            self.generation = undo.enter_context(
                contextlib.closing(Generation(1, descriptor, manager, buffers))
            )
            timelines = "timeline" in manager.capabilities.semaphores
            self._semaphore = manager.create_semaphore("timeline") if timelines else None
            undo.pop_all()
        self._newest: Frame | None = None
        self._is_open = True
        self._is_writing = False
        self._number = self._value = 0
        self._frames = self._dropped = self._waits = 0

    def stats(self) -> PublisherStats:
        with self.lock:
            return PublisherStats(
                frames=self._frames,
                dropped=self._dropped,
                waits=self._waits,
                clients=len(self.listener.clients),
                generation=self.generation.number,
            )

    # --- Subscribers ----------------------------------------------------------------------------

    def let_in(self, client: Client, hello: Hello) -> Iterable[Message]:
        self._check_device(hello)
        can = self._manager.capabilities
        welcome = Welcome(
            name=self._name, pid=os.getpid(), buffers=self._buffers, backend=can.backend
        )
        messages: list[Message] = [welcome, self.generation.export(self._semaphore)]
        if self._newest is not None:
            # Who comes late sees the last frame at once, however long the next one takes.
            messages.append(self._newest)
        return messages

    def _check_device(self, hello: Hello) -> None:
        can = self._manager.capabilities
        if hello.handle_type != can.handle_type:
            raise RefusedError(
                "backend",
                f"the stream's textures are {can.handle_type}, "
                f"the subscriber's manager ({hello.backend}) imports {hello.handle_type}; "
                f"subscribe with a manager of the {can.backend} backend",
            )
        ours = (can.device_uuid, can.driver_uuid)
        if (hello.device_uuid, hello.driver_uuid) != ours:
            raise RefusedError(
                "device",
                f"the stream is on another GPU or driver, {can.device} ({can.backend}); "
                "subscribe with a manager on that one",
            )

    def opened(self, client: Client) -> None:
        self._tell_of_textures(client)

    def gone(self, client: Client) -> None:
        pass  # its frames count no more; who waits for them is told by the listener

    # --- Frames ---------------------------------------------------------------------------------

    def begin(self, end_ns: int, wait_ns: int) -> _Writing:
        """Open the best texture for writing."""
        with self.lock:
            self._check_open()
            self.check_idle()
            self._is_writing = True
            try:
                return self._wait_for_slot(end_ns, wait_ns)
            except BaseException:
                self._is_writing = False
                raise

    def _wait_for_slot(self, end_ns: int, wait_ns: int) -> _Writing:
        waited = False
        while (writing := self._try_begin()) is None:
            left = end_ns - time.monotonic_ns()
            self._waits += not waited
            waited = True
            if left <= 0:
                raise WaitTimeoutError(self._who_is_in_the_way(wait_ns))
            self.lock.wait(min(left / SECOND, NAP))
            self._check_open()
        return writing

    def _try_begin(self) -> _Writing | None:
        generation, value = self.generation, self._value + 1
        signal = [(self._semaphore, value)] if self._semaphore else []
        for slot in generation.slots.candidates(self._held()):
            opened = try_open(generation.textures[slot], write=True, signal=signal)
            if opened is None:
                continue
            opened.control.frame = 0
            if self._newest is not None and self._newest.slot == slot:
                self._newest = None
            self._value = value if self._semaphore else 0
            frame = StreamFrame(self._number + 1, time.monotonic_ns(), opened.view, opened.texture)
            return _Writing(frame, opened, slot, self._value)
        return None

    def _held(self) -> set[int]:
        """The slots that subscribers of every frame have not read yet, or cannot be told of."""
        now, clients = self.generation.number, self.listener.clients
        if any(client.wants_every and client.is_behind for client in clients):
            return set(range(self._buffers))
        held = (holds for client in clients for holds in client.holds)
        return {slot for generation, slot in held if generation == now}

    def _who_is_in_the_way(self, wait_ns: int) -> str:
        slow = [
            f"{client.name} has not read {client.owes}"
            for client in self.listener.clients
            if client.owes
        ]
        who = ", ".join(slow) or f"readers have all {self._buffers} textures open"
        return (
            f"stream {self._name!r}: no texture became free within {wait_ns / SECOND:g} s, {who}; "
            "wait longer, raise `buffers`, or subscribe with the policy 'latest'"
        )

    def publish(self, writing: _Writing) -> None:
        """End a frame and tell everybody."""
        number = writing.frame.number
        try:
            writing.opened.control.frame = number
            writing.opened.close()
        except BaseException:
            self._end_writing()
            raise
        with self.lock:
            self._number = number
            self._frames += 1
            self._is_writing = False
            self.generation.slots.set_frame(writing.slot, number)
            self._newest = Frame(
                self.generation.number,
                writing.slot,
                number,
                writing.frame.timestamp_ns,
                writing.value,
            )
            clients = self.listener.clients
            self._dropped += sum([client.tell(self._newest) for client in clients])
            if any(client.has_unsent for client in clients):
                self.listener.wake()

    def discard(self, writing: _Writing) -> None:
        """End a frame that nobody is to see."""
        try:
            writing.opened.close()
        finally:
            self._end_writing()

    def _end_writing(self) -> None:
        with self.lock:
            self._is_writing = False

    def resize(self, descriptor: TextureDescriptor) -> None:
        """Make new textures and tell everybody."""
        with self.lock:
            self._check_open()
            self.check_idle()
            old = self.generation
            if descriptor == old.descriptor:
                return
            self.generation = Generation(old.number + 1, descriptor, self._manager, self._buffers)
            self._newest = None
            for client in self.listener.clients:
                client.fall_behind()
                self._tell_of_textures(client)
            old.close()
            self.listener.wake()

    def _tell_of_textures(self, client: Client) -> None:
        """Send a client that is behind the new textures, one generation at a time.

        What it was sent and has not opened stays in memory, so it gets the next ones after that,
        and those in between never.
        """
        if not client.is_behind or client.side.unopened:
            return
        try:
            with contextlib.closing(self.generation.export(self._semaphore)) as message:
                client.catch_up(message)
        except Exception:
            log.exception("%s could not be given the new textures", client.name)
            client.give_up()

    # --- The end --------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if not self._is_open:
            raise TextureAccessError(f"stream {self._name!r} was closed; make another publisher")

    def check_idle(self) -> None:
        """Raise when a frame is open."""
        if self._is_writing:
            raise TextureAccessError(
                f"stream {self._name!r} has a frame open; leave the with block of next_frame()"
            )

    def close(self) -> None:
        with self.lock:
            self._is_open = False
            self.lock.notify_all()
        self.listener.close()
        self.close_textures()
        if self._owns_manager:
            self._manager.close()

    def close_textures(self) -> None:
        self.generation.close()
        semaphore, self._semaphore = self._semaphore, None
        if semaphore is not None:
            semaphore.close()
