"""The side of a stream that reads the frames."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress

import anyio
import anyio.lowlevel
import attrs

from pers._checks import whole_number
from pers.errors import (
    DeviceMismatchError,
    OperationNotSupportedError,
    PeerLostError,
    PersError,
    ProtocolError,
    ShareError,
    TextureAccessError,
    ValidationError,
    WaitTimeoutError,
)
from pers.graphics.types import TextureDescriptor
from pers.sharing.control import Naps
from pers.sharing.interfaces import Closable, SharedSemaphore, SyncPoint, TextureShareManager
from pers.sharing.ipc.address import Address, check_system
from pers.sharing.ipc.channel import Channel
from pers.sharing.ipc.credentials import check_peer, read_credentials
from pers.sharing.ipc.dialogue import SubscriberSide
from pers.sharing.ipc.forks import no_forks
from pers.sharing.ipc.wire import (
    POLICIES,
    Bye,
    Done,
    Failure,
    FailureCode,
    Frame,
    Hello,
    Message,
    Opened,
    Policy,
    Textures,
)
from pers.sharing.stream.frames import (
    OpenTexture,
    StreamFrame,
    SubscriberStats,
    manager_or_default,
    try_open,
)
from pers.sharing.stream.generation import Imported

__all__ = ["TextureSubscriber"]

SECOND = 1_000_000_000

FAILURES: dict[FailureCode, type[ShareError]] = {
    "refused": ShareError,
    "full": ShareError,
    "device": DeviceMismatchError,
    "backend": OperationNotSupportedError,
    "protocol": ProtocolError,
    "internal": PeerLostError,
}


class TextureSubscriber(Closable):
    """Reads the frames that a `TexturePublisher` of another process (or this one) makes.

    Making one waits until the stream is there. One thread uses it at a time.

    Args:
        name: Of the stream.
        manager: Imports the textures, on the publisher's GPU; it stays the caller's. None opens
            the best there is.
        policy: ``"latest"`` reads the newest frame and misses those that it is too slow for.
            ``"every"`` reads each one, and the publisher waits for it.
        user: Who publishes it, by name or number; None is oneself.
        timeout_ns: How long to wait for the publisher, and for each frame, in nanoseconds.

    Raises:
        WaitTimeoutError: There is no such stream in time.
        PeerLostError: The publisher went away meanwhile.
        DeviceMismatchError: The manager is on another GPU or driver than the publisher's.
        OperationNotSupportedError: On Windows; or the manager cannot import the textures.
        ShareError: The publisher or the system refuses, or the folder of the sockets is not safe.
        OutOfMemoryError: There is no memory for the textures, or no file descriptor is left.
    """

    def __init__(
        self,
        name: str,
        manager: TextureShareManager | None = None,
        *,
        policy: Policy = "latest",
        user: str | int | None = None,
        timeout_ns: int = 5 * SECOND,
    ) -> None:
        check_system()
        self._address = Address(name, user)
        if policy not in POLICIES:
            raise ValidationError(f"a subscriber's policy is 'latest' or 'every', not {policy!r}")
        self._policy: Policy = policy
        self._timeout_ns = whole_number(timeout_ns, "timeout_ns")
        self._owns_manager = manager is None
        self._manager = manager_or_default(manager)
        self._in_use = threading.Lock()
        self._session: _Session | None = None
        self._reading: _Reading | None = None
        self._is_open = True
        self._frames = self._dropped = self._waits = self._connections = 0
        try:
            self.reconnect()
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        """The name of the stream."""
        return self._address.name

    @property
    def manager(self) -> TextureShareManager:
        """Imports the textures."""
        return self._manager

    @property
    def descriptor(self) -> TextureDescriptor:
        """What the newest textures are; frames that are under way may be of those before."""
        return self._connected().descriptor

    @property
    def is_connected(self) -> bool:
        """Whether the publisher was there when last heard of."""
        return self._session is not None and self._session.lost is None

    @property
    def stats(self) -> SubscriberStats:
        """What it has done so far."""
        return SubscriberStats(
            frames=self._frames,
            dropped=self._dropped,
            waits=self._waits,
            connections=self._connections,
        )

    def __repr__(self) -> str:
        state = "" if self.is_connected else " not connected" if self._is_open else " closed"
        return f"<TextureSubscriber {self.name!r}{state}>"

    # --- The connection -------------------------------------------------------------------------

    def reconnect(self, *, timeout_ns: int | None = None) -> None:
        """Connect again, to the same publisher or to one that has taken its place.

        Args:
            timeout_ns: How long to wait for it, in nanoseconds; None is the subscriber's own.

        Raises:
            WaitTimeoutError: There is no such stream in time.
            PeerLostError: The publisher went away meanwhile.
            TextureAccessError: The subscriber is closed, or a frame is open.
        """
        end_ns, wait_ns = self._deadline(timeout_ns)
        with self._used():
            self._check_idle()
            self._disconnect()
            self._session = _Session.open(
                self._address, self._manager, self._policy, end_ns, wait_ns
            )
            self._connections += 1

    def _disconnect(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def close(self) -> None:
        """Say goodbye and close the textures; the second time does nothing.

        Raises:
            TextureAccessError: A frame is open, or another thread waits for one.
        """
        if not self._is_open:
            return
        with self._used():
            self._check_idle()
            self._is_open = False
            self._disconnect()
        if self._owns_manager:
            self._manager.close()

    # --- Frames ---------------------------------------------------------------------------------

    @contextmanager
    def next_frame(self, *, timeout_ns: int | None = None) -> Generator[StreamFrame]:
        """Wait for a frame and open it for reading, until the end of the block.

        Args:
            timeout_ns: How long to wait, in nanoseconds; None is the subscriber's own.

        Raises:
            WaitTimeoutError: No frame came in time.
            PeerLostError: The publisher was closed or has died; see `reconnect`.
            TextureAccessError: The subscriber is closed, or a frame is open already.
        """
        frame = self._begin(timeout_ns)
        try:
            yield frame
        finally:
            self._finish()

    @asynccontextmanager
    async def next_frame_async(
        self, *, timeout_ns: int | None = None
    ) -> AsyncGenerator[StreamFrame]:
        """Wait for a frame as `next_frame` does, without blocking the event loop.

        It may be cancelled while it waits: no frame is lost, and the next call goes on.

        Args:
            timeout_ns: How long to wait, in nanoseconds; None is the subscriber's own.

        Raises:
            WaitTimeoutError: No frame came in time.
            PeerLostError: The publisher was closed or has died; see `reconnect`.
            TextureAccessError: The subscriber is closed, or a frame is open already.
        """
        frame = await self._begin_async(timeout_ns)
        try:
            yield frame
        finally:
            self._finish()

    def frames(self, *, timeout_ns: int | None = None) -> Generator[StreamFrame]:
        """Iterate over the frames until the publisher closes the stream; each is open in its turn.

        Args:
            timeout_ns: How long to wait for each, in nanoseconds; None is the subscriber's own.

        Raises:
            WaitTimeoutError: No frame came in time.
            PeerLostError: The publisher has died.
        """
        while True:
            try:
                frame = self._begin(timeout_ns)
            except PeerLostError:
                if self._session is not None and self._session.has_ended:
                    return
                raise
            try:
                yield frame
            finally:
                self._finish()

    def _begin(self, timeout_ns: int | None) -> StreamFrame:
        end_ns, wait_ns = self._deadline(timeout_ns)
        with self._used():
            self._check_idle()
            session = self._connected()
            waited = False
            while (reading := session.take()) is None:
                self._waits += not waited
                waited = True
                try:
                    session.channel.wait_readable(end_ns)
                except WaitTimeoutError:
                    raise self._too_late(wait_ns) from None
            return self._start(reading)

    async def _begin_async(self, timeout_ns: int | None) -> StreamFrame:
        _, wait_ns = self._deadline(timeout_ns)
        with self._used():
            self._check_idle()
            session = self._connected()
            await anyio.lowlevel.checkpoint()
            with anyio.move_on_after(wait_ns / SECOND):
                waited = False
                while (reading := session.take()) is None:
                    self._waits += not waited
                    waited = True
                    await session.channel.wait_readable_async()
                return self._start(reading)
            raise self._too_late(wait_ns)

    def _too_late(self, wait_ns: int) -> WaitTimeoutError:
        return WaitTimeoutError(
            f"stream {self.name!r}: no frame came within {wait_ns / SECOND:g} s; "
            "see that the publisher makes frames, or wait longer"
        )

    def _start(self, reading: _Reading) -> StreamFrame:
        self._reading = reading
        self._frames += 1
        self._dropped += reading.frame.dropped
        return reading.frame

    def _finish(self) -> None:
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.session.finish(reading)

    # --- Checks ---------------------------------------------------------------------------------

    def _deadline(self, timeout_ns: int | None) -> tuple[int, int]:
        wait_ns = self._timeout_ns if timeout_ns is None else whole_number(timeout_ns, "timeout_ns")
        return time.monotonic_ns() + wait_ns, wait_ns

    @contextmanager
    def _used(self) -> Generator[None]:
        if not self._in_use.acquire(blocking=False):
            raise TextureAccessError(
                f"the subscriber of {self.name!r} is used by another thread or task; "
                "give each a subscriber of its own"
            )
        try:
            yield
        finally:
            self._in_use.release()

    def _check_open(self) -> None:
        if not self._is_open:
            raise TextureAccessError(
                f"the subscriber of {self.name!r} was closed; make another one"
            )

    def _check_idle(self) -> None:
        self._check_open()
        if self._reading is not None:
            raise TextureAccessError(
                f"the subscriber of {self.name!r} has frame {self._reading.frame.number} open; "
                "leave the with block of next_frame()"
            )

    def _connected(self) -> _Session:
        self._check_open()
        if self._session is None:
            raise PeerLostError(f"the subscriber of {self.name!r} is not connected; reconnect()")
        return self._session


@attrs.frozen(eq=False)
class _Reading:
    """A frame that is being read."""

    frame: StreamFrame
    notice: Frame
    opened: OpenTexture
    session: _Session


class _Session:
    """One connection to a publisher, and what came through it."""

    def __init__(
        self, address: Address, channel: Channel, manager: TextureShareManager, policy: Policy
    ) -> None:
        self.channel = channel
        self.lost: PersError | None = None
        self.has_ended = False
        self._address = address
        self._manager = manager
        self._policy: Policy = policy
        self._side = SubscriberSide(address.name)
        self._generations: dict[int, Imported] = {}
        self._notices: deque[Frame] = deque()
        self._last = 0

    @property
    def descriptor(self) -> TextureDescriptor:
        """What the newest textures are."""
        return self._generations[max(self._generations)].textures[0].descriptor

    # --- Beginning ------------------------------------------------------------------------------

    @classmethod
    def open(
        cls,
        address: Address,
        manager: TextureShareManager,
        policy: Policy,
        end_ns: int,
        wait_ns: int,
    ) -> _Session:
        """Connect, and return when the textures are imported."""
        channel = cls._connect(address, end_ns)
        if channel is None:
            raise WaitTimeoutError(
                f"there was no stream named {address.name!r} within {wait_ns / SECOND:g} s; "
                "start its publisher, or look at list_streams()"
            )
        session = cls(address, channel, manager, policy)
        try:
            session._greet(end_ns)
        except BaseException:
            session.close()
            raise
        return session

    @classmethod
    def _connect(cls, address: Address, end_ns: int) -> Channel | None:
        channel = cls._try_connect(address)
        for _ in Naps(end_ns - time.monotonic_ns()) if channel is None else ():
            channel = cls._try_connect(address)
            if channel is not None:
                break
        return channel

    @staticmethod
    def _try_connect(address: Address) -> Channel | None:
        with no_forks:
            connection = address.connect()
            if connection is None:
                return None
            channel = Channel(connection, f"the publisher of {address.name!r}")
        try:
            check_peer(read_credentials(connection), {address.uid})
        except BaseException:
            channel.close()
            raise
        return channel

    def _greet(self, end_ns: int) -> None:
        can = self._manager.capabilities
        hello = Hello(
            pid=os.getpid(),
            policy=self._policy,
            backend=can.backend,
            handle_type=can.handle_type,
            device_uuid=can.device_uuid,
            driver_uuid=can.driver_uuid,
        )
        with suppress(PeerLostError):  # why it does not listen may be there to be read
            self.channel.send(hello, max(0, end_ns - time.monotonic_ns()))
        while not self._generations:
            message = self.channel.receive(max(0, end_ns - time.monotonic_ns()))
            self._handle(message)
            if self.lost is not None:
                raise self.lost

    # --- Listening ------------------------------------------------------------------------------

    def _listen(self) -> None:
        """Handle all that has arrived."""
        if self.lost is not None:
            return
        try:
            messages = self.channel.receive_now()
        except ShareError as error:
            self._lose(error)
            return
        try:
            for message in messages:
                self._handle(message)
        except PersError as error:
            self._lose(error)
        finally:
            for message in messages:
                message.close()

    def _handle(self, message: Message) -> None:
        """Take a message, and close it."""
        try:
            self._side.receive(message)
            match message:
                case Textures():
                    imported = Imported.open(self._manager, message)
                    self._generations[imported.number] = imported
                    with suppress(PeerLostError):  # the next call says so
                        self.channel.put(Opened(imported.number))
                case Frame():
                    self._notices.append(message)
                case Bye():
                    self.has_ended = True
                    self._lose(
                        PeerLostError(
                            f"{self.channel.peer} has closed the stream; "
                            "reconnect() when there is another"
                        )
                    )
                case Failure():
                    self._lose(
                        FAILURES[message.code](f"{self.channel.peer} refuses: {message.text}")
                    )
                case _:
                    pass
        finally:
            message.close()

    def _lose(self, error: PersError) -> None:
        if self.lost is None:
            # It lives as long as the session; what the failed calls had open must not.
            error.__traceback__ = error.__context__ = None
            self.lost = error
            self.channel.shut_down()

    # --- Frames ---------------------------------------------------------------------------------

    def take(self) -> _Reading | None:
        """Open the next frame that is there, or return None; raise when none can come any more."""
        self._listen()
        self._close_before(self._notices[0].generation if self._notices else max(self._generations))
        while self._notices:
            notice = self._notices.popleft() if self._policy == "every" else self._notices.pop()
            if self._policy == "latest":
                self._notices.clear()
            reading = self._try_read(notice)
            if reading is not None:
                return reading
            self._tell_done(notice)
        if self.lost is not None:
            with suppress(ShareError, OSError):
                self._address.remove_stale()
            raise self.lost.with_traceback(None)
        return None

    def _try_read(self, notice: Frame) -> _Reading | None:
        """Open a frame, unless the publisher has gone on to the next in its texture."""
        self._close_before(notice.generation)
        imported = self._generations[notice.generation]
        wait: list[SyncPoint] = []
        if notice.value and imported.semaphore is not None:
            if not self._may_reach(imported.semaphore, notice.value):
                return None  # it died before its GPU was done, and nobody will signal it
            wait.append((imported.semaphore, notice.value))
        try:
            opened = try_open(imported.textures[notice.slot], wait=wait)
        except BaseException:
            self._tell_done(notice)
            raise
        if opened is None:
            return None
        if opened.control.frame != notice.number:
            opened.close()
            return None
        dropped = notice.number - self._last - 1 if self._last else 0
        self._last = notice.number
        frame = StreamFrame(
            notice.number, notice.timestamp_ns, opened.view, opened.texture, dropped
        )
        return _Reading(frame, notice, opened, self)

    def _may_reach(self, semaphore: SharedSemaphore, value: int) -> bool:
        """Return whether a timeline has come to a value, or may with a publisher that lives."""
        if semaphore.value >= value:
            return True
        self._listen()
        if self._manager.capabilities.hand_over == "cpu":
            # The access would wait on the CPU, and hear nothing of the publisher's end meanwhile.
            for _ in Naps(SECOND):
                if self.lost is not None or semaphore.value >= value:
                    break
                self._listen()
        return self.lost is None or semaphore.value >= value

    def finish(self, reading: _Reading) -> None:
        """End the reading of a frame."""
        try:
            self._free_gpu(reading.notice)
            reading.opened.close()
        finally:
            self._tell_done(reading.notice)

    def _free_gpu(self, notice: Frame) -> None:
        """Let the GPU go on which waits for a publisher that has died."""
        semaphore = self._generations[notice.generation].semaphore
        if notice.value and semaphore is not None and semaphore.value < notice.value:
            self._listen()
            if self.lost is not None:
                semaphore.signal(notice.value)

    def _tell_done(self, notice: Frame) -> None:
        if self._policy == "every" and self.lost is None:
            with suppress(PeerLostError):  # the next call says so
                self.channel.put(Done(notice.generation, notice.slot, notice.number))

    def _close_before(self, generation: int) -> None:
        """Close textures that no frame can be in any more."""
        for number in [number for number in self._generations if number < generation]:
            self._generations.pop(number).close()

    def close(self) -> None:
        """Say goodbye and close everything."""
        if self.lost is None:
            with suppress(PeerLostError):
                self.channel.put(Bye())
        self.channel.close()
        for imported in self._generations.values():
            imported.close()
        self._generations.clear()
