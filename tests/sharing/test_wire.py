"""The protocol as bytes."""

from __future__ import annotations

import os
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pers import ProtocolError, TextureDescriptor, TextureFormat, TextureUsage
from pers.sharing.control import create_memory
from pers.sharing.handles import HostTextureHandle, OwnedFd
from pers.sharing.ipc.wire import (
    HEADER,
    MAX_FDS,
    MAX_PAYLOAD,
    Bye,
    Decoder,
    Failure,
    Hello,
    Textures,
    Welcome,
    encode,
    least_bytes,
)
from tests.sharing.fuzz import fuzz_decoder
from tests.sharing.messages import (
    DESCRIPTOR,
    DONE,
    FRAME,
    HELLO,
    OPENED,
    UUID,
    WELCOME,
    again,
    host_handle,
    messages,
    plain,
    same,
    textures,
    timeline,
    vulkan_handle,
)
from tests.sharing.support import linux, open_fds


def header(**changes: int | bytes) -> bytes:
    values: dict[str, Any] = {
        "magic": b"PERS", "version": 1, "type": 6, "length": 0, "fds": 0, "zero": 0,
    }  # fmt: skip
    return HEADER.pack(*(values | changes).values())


def refused(data: bytes, fds: list[OwnedFd] | None = None) -> str:
    """Return why a decoder refuses this; every descriptor must be closed then."""
    fds = fds or []
    with pytest.raises(ProtocolError) as info:
        Decoder().feed(data, fds)
    assert not any(fd.is_open for fd in fds)
    assert "same version" in str(info.value)
    return str(info.value)


# --- What is sent is what arrives -----------------------------------------------------------------


@given(st.lists(messages, min_size=1, max_size=4), st.data())
def test_messages_arrive_as_they_were_sent(sent: list[Any], data: st.DataObject) -> None:
    """However the bytes are cut; the descriptors come with the first piece of their message."""
    decoder = Decoder()
    got: list[Any] = []
    for message in sent:
        encoded, fds = encode(message)
        cuts = sorted(data.draw(st.sets(st.integers(1, len(encoded) - 1), max_size=6)))
        pieces = [encoded[a:b] for a, b in zip([0, *cuts], [*cuts, len(encoded)], strict=True)]
        for number, piece in enumerate(pieces):
            got += decoder.feed(piece, [] if number else again(fds))
    assert [same(*pair) for pair in zip(sent, got, strict=True)] == [True] * len(sent)
    assert not decoder.is_within
    for message in [*sent, *got]:
        message.close()


@given(st.lists(messages, max_size=5))
def test_messages_may_arrive_together(sent: list[Any]) -> None:
    """Several in one piece, as the kernel hands them over: its descriptors are the last one's."""
    data, fds = b"", list[OwnedFd]()
    got: list[Any] = []
    decoder = Decoder()
    for message in sent:
        encoded, own = encode(message)
        data += encoded
        fds += again(own)
        if own:
            got += decoder.feed(data, fds)
            data, fds = b"", []
    got += decoder.feed(data, fds)
    assert all(same(*pair) for pair in zip(sent, got, strict=True))
    for message in [*sent, *got]:
        message.close()


@pytest.mark.parametrize("vulkan", [False, True])
def test_received_handles_stand_for_what_was_sent(vulkan: bool) -> None:
    with_fds = textures(vulkan=vulkan)
    os.pwrite(with_fds.handles[0].fds[0].fileno(), b"pixels", 0)
    data, fds = encode(with_fds)
    (got,) = Decoder().feed(data, again(fds))
    with_fds.close()
    assert isinstance(got, Textures)
    assert os.pread(got.handles[0].fds[0].fileno(), 6, 0) == b"pixels"
    assert not any(os.get_inheritable(fd.fileno()) for fd in got.fds)
    got.close()


# --- What is refused ------------------------------------------------------------------------------


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_an_error(data: bytes) -> None:
    decoder = Decoder()
    try:
        for message in decoder.feed(data):
            message.close()
    except ProtocolError:
        with pytest.raises(ProtocolError):
            decoder.feed(b"")


@given(messages, st.data())
def test_mutated_messages_are_messages_or_errors(message: Any, data: st.DataObject) -> None:
    encoded, fds = encode(message)
    place = data.draw(st.integers(0, len(encoded) - 1))
    changed = bytearray(encoded)
    changed[place] ^= data.draw(st.integers(1, 255))
    received = again(fds)
    decoder = Decoder()
    try:
        for got in decoder.feed(bytes(changed), received):
            got.close()
    except ProtocolError:
        assert not any(fd.is_open for fd in received)
    decoder.close()
    message.close()
    assert not any(fd.is_open for fd in received)


@given(messages, st.data())
def test_a_truncated_message_is_none(message: Any, data: st.DataObject) -> None:
    encoded, fds = encode(message)
    decoder = Decoder()
    received = again(fds)
    assert decoder.feed(encoded[: data.draw(st.integers(1, len(encoded) - 1))], received) == []
    assert decoder.is_within
    decoder.close()
    message.close()
    assert not any(fd.is_open for fd in received)


@given(messages, st.integers(-3, 3).filter(bool))
def test_descriptors_are_as_many_as_announced(message: Any, more: int) -> None:
    encoded, fds = encode(message)
    received = again(fds)
    if more > 0:
        received += [create_memory(4096, "pers-test") for _ in range(more)]
    else:
        for fd in received[more:]:
            fd.close()
        del received[more:]
    if len(received) != len(fds):
        with pytest.raises(ProtocolError, match="file descriptors"):
            Decoder().feed(encoded, received)
        assert not any(fd.is_open for fd in received)
    for fd in received:
        fd.close()
    message.close()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"magic": b"GEYS"}, "begins with b'GEYS'"),
        ({"version": 2}, "version 2 of the protocol, not 1"),
        ({"type": 99}, "type 99 is not known"),
        ({"type": 0}, "type 0 is not known"),
        ({"length": MAX_PAYLOAD + 1}, "more than 16384"),
        ({"fds": 1}, "1 file descriptors, more than 0"),
        ({"type": 3, "fds": MAX_FDS + 1}, f"more than {MAX_FDS}"),
        ({"zero": 1}, "last field is 1"),
    ],
)
def test_a_wrong_header_is_refused_before_its_payload(changes: dict[str, Any], why: str) -> None:
    assert why in refused(header(**changes))


def test_a_payload_too_long_is_refused() -> None:
    data, _ = encode(FRAME)
    longer = header(type=4, length=len(data) - HEADER.size + 1) + data[HEADER.size :] + b"x"
    assert "1 bytes too many" in refused(longer)


def test_a_payload_too_short_is_refused() -> None:
    data, _ = encode(FRAME)
    assert "ends too early" in refused(header(type=4, length=10) + data[HEADER.size :][:10])


def test_an_error_is_for_good() -> None:
    decoder = Decoder()
    with pytest.raises(ProtocolError):
        decoder.feed(header(zero=1))
    fd = create_memory(16, "pers-test")
    with pytest.raises(ProtocolError, match="had an error before"):
        decoder.feed(encode(DONE)[0], [fd])
    assert not fd.is_open


def test_an_error_closes_the_messages_before_it() -> None:
    message = textures()
    data, fds = encode(message)
    received = again(fds)
    refused(data + header(zero=1), received)
    message.close()


def encoded_textures(**changes: Any) -> tuple[bytes, list[OwnedFd]]:
    values: dict[str, Any] = {
        "generation": 1, "descriptor": DESCRIPTOR, "handles": (host_handle(),), "semaphore": None,
    }  # fmt: skip
    message = Textures(**(values | changes))
    data, fds = encode(message)
    received = again(fds)
    message.close()
    return data, received


def wrong_memory(size: int, real: int) -> tuple[bytes, list[OwnedFd]]:
    memory, control = create_memory(real, "pers-test"), create_memory(4096, "pers-test")
    return encoded_textures(handles=(HostTextureHandle(memory, size, control),))


def test_memory_is_held_to_its_size() -> None:
    size = least_bytes(DESCRIPTOR)
    assert f"memory of {size - 1} bytes" in refused(*wrong_memory(size, size - 1))
    assert f"needs {size}" in refused(*wrong_memory(size - 1, size))
    assert "needs" in refused(*wrong_memory(2**63, size))


def test_a_control_page_is_memory() -> None:
    size = least_bytes(DESCRIPTOR)
    memory, short = create_memory(size, "pers-test"), create_memory(100, "pers-test")
    assert "memory of 100 bytes" in refused(
        *encoded_textures(handles=(HostTextureHandle(memory, size, short),))
    )
    read, write = os.pipe()
    os.close(write)
    assert "no shared memory" in refused(
        *encoded_textures(
            handles=(HostTextureHandle(create_memory(size, "pers-test"), size, read),)
        )
    )


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"width": 1 << 17}, "too large"),
        ({"layers": 1 << 13}, "layers are too many"),
    ],
)
def test_textures_are_of_sensible_size(changes: dict[str, int], why: str) -> None:
    values: dict[str, Any] = {"width": 8, "height": 4, "layers": 1}
    descriptor = TextureDescriptor(
        **(values | changes), format=TextureFormat.R8_UNORM, usage=TextureUsage.COPY_SRC
    )
    assert why in refused(*encoded_textures(descriptor=descriptor))


DESCRIPTOR_AT = HEADER.size + 4


@pytest.mark.parametrize(
    ("place", "value", "why"),
    [
        (0, 0, "width"),
        (4, 0, "height"),
        (8, 0, "layers"),
        (14, 0, "usage"),
        (14, 1 << 10, "usage"),
    ],
)
def test_a_wrong_description_is_refused(place: int, value: int, why: str) -> None:
    data, fds = encoded_textures()
    changed = bytearray(data)
    struct.pack_into("<I", changed, DESCRIPTOR_AT + place, value)
    assert why in refused(bytes(changed), fds)


def test_an_unknown_format_is_refused() -> None:
    data, fds = encoded_textures()
    assert "rgba9" in refused(data.replace(b"rgba8unorm", b"rgba9unorm"), fds)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"device_uuid": b""}, "16 bytes each"),
        ({"driver_uuid": UUID[:4]}, "16 bytes each"),
        ({"memory_type": 32}, "memory type 32"),
        ({"handle_type": 3}, "handle type 0x3"),
        ({"handle_type": 0}, "handle type 0x0"),
    ],
)
def test_a_wrong_vulkan_handle_is_refused(changes: dict[str, Any], why: str) -> None:
    assert why in refused(*encoded_textures(handles=(vulkan_handle(**changes),)))


def test_semaphores_have_the_uuids_of_their_backend() -> None:
    wrong = timeline("vulkan")
    object.__setattr__(wrong, "driver_uuid", b"")
    assert "a UUID has 0 bytes, not 16" in refused(*encoded_textures(semaphore=wrong))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x07\0\0\0\x05" + b"\x01a\x01a\0\0", "policy number 5"),
        (b"\x07\0\0\0\0" + b"\x01A\x01a\0\0", "backend 'A'"),
        (b"\x07\0\0\0\0" + b"\x01\xff\x01a\0\0", "not UTF-8"),
        (b"\x07\0\0\0\0" + b"\x01a\x01a\x04abcd\0", "device_uuid has 4 bytes"),
    ],
)
def test_a_wrong_hello_is_refused(data: bytes, why: str) -> None:
    assert why in refused(header(type=1, length=len(data)) + data)


def test_values_are_checked_where_they_are_made() -> None:
    with pytest.raises(ProtocolError, match="name"):
        Welcome(name="../up", pid=1, buffers=3, backend="host")
    with pytest.raises(ProtocolError, match="not 1 to 16"):
        Textures(1, DESCRIPTOR, ())
    with pytest.raises(ProtocolError, match="all host or all Vulkan"):
        Textures(1, DESCRIPTOR, (host_handle(), vulkan_handle()))
    with pytest.raises(ProtocolError, match="none of latest, every"):
        Hello(1, "newest", "host", "x")  # type: ignore[arg-type]
    with pytest.raises(ProtocolError, match="more than 512"):
        Failure("full", "–" * 200)


def test_the_format_on_the_wire_is_fixed() -> None:
    """Another version of pers must be able to rely on these bytes."""
    assert encode(Bye()) == (b"PERS" + bytes([1, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0]), [])
    assert encode(DONE)[0][16:] == struct.pack("<IBQ", 1, 1, 5)
    assert encode(OPENED)[0][16:] == struct.pack("<I", 1)
    assert encode(FRAME)[0][16:] == struct.pack("<IBQQQ", 1, 1, 5, 123, 5)
    assert encode(WELCOME)[0][16:] == struct.pack("<IB", 8, 2) + b"\x06stream\x04host"
    assert encode(HELLO)[0][16:] == struct.pack("<IB", 7, 0) + b"\x04host\x0dshared_memory\0\0"


def test_every_kind_is_among_the_examples() -> None:
    assert len({type(message) for message in [*plain(), textures()]}) == 8


@linux
def test_the_fuzzer_finds_nothing() -> None:
    before = open_fds()
    outcome = fuzz_decoder(4000, seed=1)
    assert outcome.messages == 4000
    assert outcome.accepted > 400
    assert outcome.refused > 400
    assert open_fds() == before
