"""The protocol as bytes: what a message looks like, and what is refused. No input or output here.

Every message is a header of 16 bytes and a payload, all little-endian::

    magic "PERS" | version u16 | type u16 | payload length u32 | file descriptors u16 | zero u16

The file descriptors travel beside the first byte (``SCM_RIGHTS``). What a peer sends is checked to
the last bit before anyone sees it: another process of the same user may still be broken.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, TypeAlias, cast

import attrs

from pers.errors import ProtocolError, ValidationError
from pers.graphics.types import TextureDescriptor
from pers.sharing.handles import (
    HostTextureHandle,
    OwnedFd,
    SemaphoreHandle,
    SemaphoreKind,
    TextureHandle,
    VulkanTextureHandle,
)
from pers.textures import TextureFormat, TextureUsage

__all__ = [
    "MAX_BUFFERS",
    "MAX_FDS",
    "MAX_PAYLOAD",
    "NAME",
    "VERSION",
    "Bye",
    "Decoder",
    "Done",
    "Failure",
    "FailureCode",
    "Frame",
    "Hello",
    "Message",
    "Opened",
    "Policy",
    "Textures",
    "Welcome",
    "beyond_limits",
    "encode",
]

MAGIC = b"PERS"
VERSION = 1
HEADER = struct.Struct("<4sHHIHH")

MAX_PAYLOAD = 1 << 14
MAX_BUFFERS = 16
MAX_FDS = 2 * MAX_BUFFERS + 1
MAX_SIDE = 1 << 16
MAX_LAYERS = 1 << 12
MAX_TEXT = 512
MAX_BYTES = 1 << 44
CONTROL_BYTES = 4096

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
WORD = re.compile(r"[a-z0-9_]{1,32}")

Policy: TypeAlias = Literal["latest", "every"]
POLICIES: tuple[Policy, ...] = ("latest", "every")

FailureCode: TypeAlias = Literal["refused", "full", "device", "backend", "protocol", "internal"]
FAILURES: tuple[FailureCode, ...] = ("refused", "full", "device", "backend", "protocol", "internal")

HANDLES: tuple[type[TextureHandle], ...] = (HostTextureHandle, VulkanTextureHandle)
BACKENDS = ("host", "vulkan")
KINDS: tuple[SemaphoreKind, ...] = ("binary", "timeline")


# --- Values, checked ----------------------------------------------------------------------------


def _wrong(what: str) -> ProtocolError:
    return ProtocolError(f"{what}; the other side must run the same version of pers")


def _require(condition: object, what: str) -> None:
    if not condition:
        raise _wrong(what)


def _within(least: int, most: int) -> Callable[[Any, attrs.Attribute[int], int], None]:
    def check(_: Any, attribute: attrs.Attribute[int], value: int) -> None:
        _require(least <= value <= most, f"{attribute.name} is {value}, not in {least} to {most}")

    return check


def _matches(pattern: re.Pattern[str]) -> Callable[[Any, attrs.Attribute[str], str], None]:
    def check(_: Any, attribute: attrs.Attribute[str], value: str) -> None:
        _require(
            pattern.fullmatch(value), f"{attribute.name} {value!r} does not match {pattern.pattern}"
        )

    return check


def _one_of(choices: Sequence[str]) -> Callable[[Any, attrs.Attribute[Any], Any], None]:
    def check(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        _require(value in choices, f"{attribute.name} {value!r} is none of {', '.join(choices)}")

    return check


def _uuid(_: Any, attribute: attrs.Attribute[bytes], value: bytes) -> None:
    _require(len(value) in (0, 16), f"{attribute.name} has {len(value)} bytes, not 16 or none")


def _text(_: Any, attribute: attrs.Attribute[str], value: str) -> None:
    length = len(value.encode())
    _require(length <= MAX_TEXT, f"{attribute.name} has {length} bytes, more than {MAX_TEXT}")


U32 = _within(0, 2**32 - 1)
U64 = _within(0, 2**64 - 1)
SLOT = _within(0, MAX_BUFFERS - 1)
COUNTING = _within(1, 2**32 - 1)
NUMBER = _within(1, 2**64 - 1)


# --- Messages -----------------------------------------------------------------------------------


class _Message:
    """What all messages have in common."""

    __slots__ = ()
    TYPE: ClassVar[int]

    @property
    def fds(self) -> tuple[OwnedFd, ...]:
        """The descriptors that travel with it."""
        return ()

    def close(self) -> None:
        """Close the descriptors, once."""
        for fd in self.fds:
            fd.close()


@attrs.frozen
class Hello(_Message):
    """First word of a subscriber.

    Attributes:
        pid: Of its process, for messages to people.
        policy: ``"latest"`` or ``"every"``.
        backend: Of its manager.
        handle_type: What its manager imports, as in `ShareCapabilities`.
        device_uuid: Of its GPU, 16 bytes or none.
        driver_uuid: Of its driver, 16 bytes or none.
    """

    TYPE: ClassVar[int] = 1
    pid: int = attrs.field(validator=U32)
    policy: Policy = attrs.field(validator=_one_of(POLICIES))
    backend: str = attrs.field(validator=_matches(WORD))
    handle_type: str = attrs.field(validator=_matches(WORD))
    device_uuid: bytes = attrs.field(default=b"", validator=_uuid)
    driver_uuid: bytes = attrs.field(default=b"", validator=_uuid)


@attrs.frozen
class Welcome(_Message):
    """The publisher's answer to a `Hello`.

    Attributes:
        name: Of the stream.
        pid: Of the publisher's process.
        buffers: How many textures each generation has.
        backend: Of its manager.
    """

    TYPE: ClassVar[int] = 2
    name: str = attrs.field(validator=_matches(NAME))
    pid: int = attrs.field(validator=U32)
    buffers: int = attrs.field(validator=_within(1, MAX_BUFFERS))
    backend: str = attrs.field(validator=_matches(WORD))


@attrs.frozen(eq=False)
class Textures(_Message):
    """The textures of a generation; frames of it follow.

    Attributes:
        generation: Counts from 1 and goes up by one with each change of size or format. Who has not
            opened one is not sent the next, and may miss some.
        descriptor: What all of them are.
        handles: One for each slot, all of one kind.
        semaphore: The timeline that says when a frame is ready; None with CPU hand-over.
    """

    TYPE: ClassVar[int] = 3
    generation: int = attrs.field(validator=COUNTING)
    descriptor: TextureDescriptor
    handles: tuple[TextureHandle, ...]
    semaphore: SemaphoreHandle | None = None

    def __attrs_post_init__(self) -> None:
        _require(
            1 <= len(self.handles) <= MAX_BUFFERS,
            f"{len(self.handles)} textures, not 1 to {MAX_BUFFERS}",
        )
        kinds = {type(handle) for handle in self.handles}
        _require(
            len(kinds) == 1 and kinds <= set(HANDLES),
            "the handles are not all host or all Vulkan handles",
        )

    @property
    def fds(self) -> tuple[OwnedFd, ...]:
        """The descriptors that travel with it: of each texture in turn, then the semaphore's."""
        fds = [fd for handle in self.handles for fd in handle.fds]
        return (*fds, *(self.semaphore.fds if self.semaphore else ()))


@attrs.frozen
class Frame(_Message):
    """A frame is ready, or will be when the timeline reaches `value`.

    Attributes:
        generation: Which textures.
        slot: Which of them.
        number: Counts from 1.
        timestamp_ns: The publisher's clock when the frame was begun, ``CLOCK_MONOTONIC``.
        value: What the timeline reaches when the frame is ready; 0 when it is.
    """

    TYPE: ClassVar[int] = 4
    generation: int = attrs.field(validator=COUNTING)
    slot: int = attrs.field(validator=SLOT)
    number: int = attrs.field(validator=NUMBER)
    timestamp_ns: int = attrs.field(validator=U64)
    value: int = attrs.field(default=0, validator=U64)


@attrs.frozen
class Done(_Message):
    """A subscriber of every frame has read one.

    Attributes:
        generation: As in the `Frame`.
        slot: As in the `Frame`.
        number: As in the `Frame`.
    """

    TYPE: ClassVar[int] = 5
    generation: int = attrs.field(validator=COUNTING)
    slot: int = attrs.field(validator=SLOT)
    number: int = attrs.field(validator=NUMBER)


@attrs.frozen
class Bye(_Message):
    """Last word of a side that closes."""

    TYPE: ClassVar[int] = 6


@attrs.frozen
class Failure(_Message):
    """Why a side closes the connection.

    Attributes:
        code: ``"refused"`` (another user), ``"full"`` (too many subscribers), ``"device"`` (another
            GPU or driver), ``"backend"`` (another kind of handle), ``"protocol"``, ``"internal"``.
        text: The same for people, at most 512 bytes.
    """

    TYPE: ClassVar[int] = 7
    code: FailureCode = attrs.field(validator=_one_of(FAILURES))
    text: str = attrs.field(validator=_text)


@attrs.frozen
class Opened(_Message):
    """A subscriber has opened the textures it was sent, and may be sent newer ones.

    Attributes:
        generation: As in the `Textures`.
    """

    TYPE: ClassVar[int] = 8
    generation: int = attrs.field(validator=COUNTING)


Message: TypeAlias = Hello | Welcome | Textures | Frame | Done | Bye | Failure | Opened


# --- Writing ------------------------------------------------------------------------------------


def encode(message: Message) -> tuple[bytes, list[OwnedFd]]:
    """Return a message's bytes, and the descriptors to send beside the first one.

    The descriptors stay the message's.
    """
    out = bytearray()
    match message:
        case Hello():
            out += struct.pack("<IB", message.pid, POLICIES.index(message.policy))
            out += _short(message.backend) + _short(message.handle_type)
            out += _blob(message.device_uuid) + _blob(message.driver_uuid)
        case Welcome():
            out += struct.pack("<IB", message.pid, message.buffers)
            out += _short(message.name) + _short(message.backend)
        case Textures():
            _put_textures(out, message)
        case Frame():
            out += struct.pack("<IB", message.generation, message.slot)
            out += struct.pack("<QQQ", message.number, message.timestamp_ns, message.value)
        case Done():
            out += struct.pack("<IBQ", message.generation, message.slot, message.number)
        case Bye():
            pass
        case Failure():
            out += struct.pack("<B", FAILURES.index(message.code)) + _long(message.text)
        case Opened():
            out += struct.pack("<I", message.generation)
    fds = list(message.fds)
    header = HEADER.pack(MAGIC, VERSION, message.TYPE, len(out), len(fds), 0)
    return header + bytes(out), fds


def _blob(data: bytes) -> bytes:
    return struct.pack("<B", len(data)) + data


def _short(text: str) -> bytes:
    return _blob(text.encode(errors="replace"))


def _long(text: str) -> bytes:
    data = text.encode(errors="replace")
    return struct.pack("<H", len(data)) + data


DESCRIPTOR = struct.Struct("<IIIBBI")
HOST = struct.Struct("<Q")
VULKAN = struct.Struct("<QIIBIIII")


def _put_textures(out: bytearray, message: Textures) -> None:
    it = message.descriptor
    out += struct.pack("<I", message.generation)
    out += DESCRIPTOR.pack(
        it.width, it.height, it.layers, it.mip_levels, it.sample_count, int(it.usage)
    )
    out += _short(it.format.value) + _long(it.label[: MAX_TEXT // 4])
    out += struct.pack("<BB", HANDLES.index(type(message.handles[0])), len(message.handles))
    for handle in message.handles:
        out += _handle_bytes(handle)
    semaphore = message.semaphore
    out += struct.pack("<B", semaphore is not None)
    if semaphore is not None:
        out += struct.pack("<BB", BACKENDS.index(semaphore.backend), KINDS.index(semaphore.kind))
        out += _blob(semaphore.device_uuid) + _blob(semaphore.driver_uuid)


def _handle_bytes(handle: TextureHandle) -> bytes:
    if isinstance(handle, HostTextureHandle):
        return HOST.pack(handle.size)
    handle = cast("VulkanTextureHandle", handle)
    numbers = VULKAN.pack(
        handle.size,
        handle.memory_type,
        handle.handle_type,
        handle.dedicated,
        handle.layout,
        handle.create_flags,
        handle.image_usage,
        handle.tiling,
    )
    return numbers + _blob(handle.device_uuid) + _blob(handle.driver_uuid)


# --- Reading ------------------------------------------------------------------------------------


class _Reader:
    """Takes a payload apart, and its descriptors one after the other."""

    def __init__(self, payload: bytes, fds: Sequence[OwnedFd]) -> None:
        self._payload = payload
        self._at = 0
        self._fds = list(reversed(fds))

    def take(self, form: str | struct.Struct) -> tuple[Any, ...]:
        layout = struct.Struct(form) if isinstance(form, str) else form
        return layout.unpack(self.some(layout.size))

    def byte(self) -> int:
        value: int = self.take("<B")[0]
        return value

    def some(self, count: int) -> bytes:
        end = self._at + count
        _require(end <= len(self._payload), "the payload ends too early")
        data, self._at = self._payload[self._at : end], end
        return data

    def blob(self) -> bytes:
        return self.some(self.byte())

    def short(self) -> str:
        return _decode_text(self.blob())

    def long(self) -> str:
        (length,) = self.take("<H")
        _require(length <= MAX_TEXT, f"a text of {length} bytes, more than {MAX_TEXT}")
        return _decode_text(self.some(length))

    def choice(self, choices: Sequence[Any], what: str) -> Any:
        number = self.byte()
        _require(number < len(choices), f"{what} number {number} is not known")
        return choices[number]

    def flag(self, what: str) -> bool:
        return bool(self.choice((False, True), what))

    def fd(self) -> OwnedFd:
        _require(self._fds, "fewer file descriptors than the message needs")
        return self._fds.pop()

    def finish(self) -> None:
        left = len(self._payload) - self._at
        _require(not left, f"{left} bytes too many in the payload")
        _require(not self._fds, f"{len(self._fds)} file descriptors too many")


def _decode_text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise _wrong(f"a text of {len(data)} bytes is not UTF-8") from None


def _read_hello(reader: _Reader) -> Message:
    (pid,) = reader.take("<I")
    policy = reader.choice(POLICIES, "policy")
    return Hello(pid, policy, reader.short(), reader.short(), reader.blob(), reader.blob())


def _read_welcome(reader: _Reader) -> Message:
    pid, buffers = reader.take("<IB")
    return Welcome(name=reader.short(), pid=pid, buffers=buffers, backend=reader.short())


def _read_frame(reader: _Reader) -> Message:
    return Frame(*reader.take("<IBQQQ"))


def _read_done(reader: _Reader) -> Message:
    return Done(*reader.take("<IBQ"))


def _read_bye(reader: _Reader) -> Message:
    return Bye()


def _read_failure(reader: _Reader) -> Message:
    return Failure(reader.choice(FAILURES, "failure"), reader.long())


def _read_opened(reader: _Reader) -> Message:
    return Opened(*reader.take("<I"))


def _read_textures(reader: _Reader) -> Message:
    (generation,) = reader.take("<I")
    descriptor = _read_descriptor(reader)
    kind = reader.choice(HANDLES, "kind of handle")
    count = reader.byte()
    _require(1 <= count <= MAX_BUFFERS, f"{count} textures, not 1 to {MAX_BUFFERS}")
    read = _read_host if kind is HostTextureHandle else _read_vulkan
    handles = tuple(read(reader, descriptor) for _ in range(count))
    semaphore = _read_semaphore(reader) if reader.flag("semaphore") else None
    return Textures(generation, descriptor, handles, semaphore)


def _read_descriptor(reader: _Reader) -> TextureDescriptor:
    width, height, layers, levels, samples, usage = reader.take(DESCRIPTOR)
    name, label = reader.short(), reader.long()
    _require(usage < 2 * max(TextureUsage), f"texture usage {usage:#x} is not known")
    try:
        descriptor = TextureDescriptor(
            width=width,
            height=height,
            format=TextureFormat(name),
            usage=TextureUsage(usage),
            label=label,
            layers=layers,
            mip_levels=levels,
            sample_count=samples,
        )
    except (ValidationError, ValueError) as error:
        raise _wrong(f"the texture's description is wrong: {error}") from None
    problem = beyond_limits(descriptor)
    _require(not problem, problem)
    return descriptor


def beyond_limits(descriptor: TextureDescriptor) -> str:
    """Return why no subscriber takes such textures, or an empty string."""
    width, height, layers = descriptor.width, descriptor.height, descriptor.layers
    if max(width, height) > MAX_SIDE:
        return f"a texture of {width}x{height} is too large, sides have at most {MAX_SIDE} pixels"
    if layers > MAX_LAYERS:
        return f"{layers} layers are too many, more than {MAX_LAYERS}"
    if least_bytes(descriptor) > MAX_BYTES:
        return f"a texture of {least_bytes(descriptor)} bytes is too large, more than {MAX_BYTES}"
    return ""


def least_bytes(descriptor: TextureDescriptor) -> int:
    """Return how many bytes the pixels of a texture need at least."""
    pixels = sum(
        max(descriptor.width >> level, 1) * max(descriptor.height >> level, 1)
        for level in range(descriptor.mip_levels)
    )
    # What opaque depth formats are stored as is the driver's business; one byte is certain.
    each = 1 if descriptor.format.is_depth else descriptor.format.bytes_per_pixel
    return pixels * each * descriptor.layers * descriptor.sample_count


def _read_host(reader: _Reader, descriptor: TextureDescriptor) -> TextureHandle:
    (size,) = reader.take(HOST)
    memory = _memory(reader.fd(), size, descriptor)
    return HostTextureHandle(memory, size, _control(reader.fd()))


def _read_vulkan(reader: _Reader, descriptor: TextureDescriptor) -> TextureHandle:
    size, memory_type, handle_type, dedicated, layout, flags, usage, tiling = reader.take(VULKAN)
    device, driver = reader.blob(), reader.blob()
    _require(dedicated < 2, f"dedicated is {dedicated}, not 0 or 1")
    _require(memory_type < 32, f"there is no memory type {memory_type}")
    _require(handle_type and handle_type.bit_count() == 1, f"handle type {handle_type:#x}")
    _require(len(device) == 16 and len(driver) == 16, "the UUIDs do not have 16 bytes each")
    return VulkanTextureHandle(
        fd=_memory(reader.fd(), size, descriptor),
        size=size,
        memory_type=memory_type,
        handle_type=handle_type,
        dedicated=bool(dedicated),
        device_uuid=device,
        driver_uuid=driver,
        layout=layout,
        create_flags=flags,
        image_usage=usage,
        tiling=tiling,
        control=_control(reader.fd()),
    )


def _read_semaphore(reader: _Reader) -> SemaphoreHandle:
    backend = reader.choice(BACKENDS, "backend")
    kind = reader.choice(KINDS, "kind of semaphore")
    device, driver = reader.blob(), reader.blob()
    for uuid in (device, driver):
        wanted = 16 if backend == "vulkan" else 0
        _require(len(uuid) == wanted, f"a UUID has {len(uuid)} bytes, not {wanted}")
    return SemaphoreHandle(backend, kind, reader.fd(), device, driver)


def _memory(fd: OwnedFd, size: int, descriptor: TextureDescriptor) -> OwnedFd:
    least = least_bytes(descriptor)
    _require(
        least <= size <= MAX_BYTES,
        f"a texture of {size} bytes, where {descriptor.width}x{descriptor.height} "
        f"{descriptor.format.value} needs {least}",
    )
    _check_length(fd, size)
    return fd


def _control(fd: OwnedFd) -> OwnedFd:
    _check_length(fd, CONTROL_BYTES, only_files=True)
    return fd


def _check_length(fd: OwnedFd, size: int, *, only_files: bool = False) -> None:
    """Hold memory to its announced size. A driver's own files have no size to ask for."""
    status = os.fstat(fd.fileno())
    if stat.S_ISREG(status.st_mode):
        _require(status.st_size >= size, f"memory of {status.st_size} bytes, announced with {size}")
    else:
        _require(not only_files, "a control page that is no shared memory")


READERS: dict[int, Callable[[_Reader], Message]] = {
    Hello.TYPE: _read_hello,
    Welcome.TYPE: _read_welcome,
    Textures.TYPE: _read_textures,
    Frame.TYPE: _read_frame,
    Done.TYPE: _read_done,
    Bye.TYPE: _read_bye,
    Failure.TYPE: _read_failure,
    Opened.TYPE: _read_opened,
}


@attrs.frozen
class _Header:
    type: int
    length: int
    fds: int

    @classmethod
    def read(cls, data: bytes) -> _Header:
        magic, version, kind, length, fds, zero = HEADER.unpack(data)
        _require(magic == MAGIC, f"a message begins with {magic!r}, not {MAGIC!r}")
        _require(version == VERSION, f"version {version} of the protocol, not {VERSION}")
        _require(kind in READERS, f"message type {kind} is not known")
        _require(length <= MAX_PAYLOAD, f"a payload of {length} bytes, more than {MAX_PAYLOAD}")
        most = MAX_FDS if kind == Textures.TYPE else 0
        _require(fds <= most, f"{fds} file descriptors, more than {most}")
        _require(zero == 0, f"the header's last field is {zero}, not 0")
        return cls(kind, length, fds)


class Decoder:
    """Makes messages out of what arrives, however it is cut into pieces.

    The first thing out of place is a `ProtocolError`: every descriptor received so far and not yet
    given out is closed, and the decoder refuses all that follows.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._fds: list[OwnedFd] = []
        self._broken = False

    def feed(self, data: bytes, fds: Sequence[OwnedFd] = ()) -> list[Message]:
        """Take bytes, and the descriptors that came with them; return the messages completed.

        The descriptors become the decoder's, and then the message's.

        Raises:
            ProtocolError: Something is not as the protocol says.
        """
        self._data += data
        self._fds += fds
        messages: list[Message] = []
        try:
            _require(not self._broken, "the connection had an error before")
            while (message := self._next()) is not None:
                messages.append(message)
        except BaseException:
            for message in messages:
                message.close()
            self.close()
            raise
        return messages

    def close(self) -> None:
        """Close the descriptors of unfinished messages, and refuse what follows."""
        self._broken = True
        self._data.clear()
        for fd in self._fds:
            fd.close()
        self._fds.clear()

    @property
    def is_within(self) -> bool:
        """Whether a message has begun and not ended."""
        return bool(self._data)

    def _next(self) -> Message | None:
        if len(self._data) < HEADER.size:
            most = MAX_FDS if self._data else 0
            self._check_fds(most)
            return None
        header = _Header.read(bytes(self._data[: HEADER.size]))
        end = HEADER.size + header.length
        if len(self._data) < end:
            self._check_fds(header.fds)
            return None
        payload = bytes(self._data[HEADER.size : end])
        _require(
            len(self._fds) >= header.fds,
            f"{header.fds} file descriptors were announced, {len(self._fds)} came",
        )
        reader = _Reader(payload, self._fds[: header.fds])
        message = READERS[header.type](reader)
        reader.finish()
        del self._data[:end]
        del self._fds[: header.fds]
        return message

    def _check_fds(self, most: int) -> None:
        _require(len(self._fds) <= most, f"{len(self._fds)} file descriptors came, {most} were due")
