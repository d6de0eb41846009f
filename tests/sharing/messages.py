"""Messages of the protocol for tests: examples of each kind, and Hypothesis strategies for them."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import strategies as st

from pers import TextureDescriptor, TextureFormat, TextureUsage
from pers.sharing.control import create_memory
from pers.sharing.handles import HostTextureHandle, OwnedFd, SemaphoreHandle, VulkanTextureHandle
from pers.sharing.ipc.wire import (
    FAILURES,
    MAX_BUFFERS,
    POLICIES,
    Bye,
    Done,
    Failure,
    Frame,
    Hello,
    Opened,
    Textures,
    Welcome,
    least_bytes,
)

UUID = bytes(range(16))
DESCRIPTOR = TextureDescriptor(8, 4, TextureFormat.RGBA8_UNORM, TextureUsage.COPY_SRC, "frame")


def host_handle(descriptor: TextureDescriptor = DESCRIPTOR) -> HostTextureHandle:
    size = least_bytes(descriptor)
    return HostTextureHandle(
        create_memory(size, "pers-test"), size, create_memory(4096, "pers-test")
    )


def vulkan_handle(
    descriptor: TextureDescriptor = DESCRIPTOR, **changes: Any
) -> VulkanTextureHandle:
    size = least_bytes(descriptor)
    values: dict[str, Any] = {
        "fd": create_memory(size, "pers-test"),
        "size": size,
        "memory_type": 1,
        "handle_type": 1,
        "dedicated": True,
        "device_uuid": UUID,
        "driver_uuid": UUID[::-1],
        "layout": 1,
        "create_flags": 0,
        "image_usage": 7,
        "tiling": 0,
        "control": create_memory(4096, "pers-test"),
    }
    return VulkanTextureHandle(**(values | changes))


def timeline(backend: str = "host") -> SemaphoreHandle:
    uuids = (UUID, UUID) if backend == "vulkan" else (b"", b"")
    return SemaphoreHandle(backend, "timeline", create_memory(4096, "pers-test"), *uuids)


def textures(generation: int = 1, count: int = 2, *, vulkan: bool = False) -> Textures:
    make = vulkan_handle if vulkan else host_handle
    handles = tuple(make() for _ in range(count))
    return Textures(generation, DESCRIPTOR, handles, timeline("vulkan" if vulkan else "host"))


HELLO = Hello(pid=7, policy="latest", backend="host", handle_type="shared_memory")
EVERY = Hello(pid=7, policy="every", backend="host", handle_type="shared_memory")
WELCOME = Welcome(name="stream", pid=8, buffers=2, backend="host")
FRAME = Frame(generation=1, slot=1, number=5, timestamp_ns=123, value=5)
DONE = Done(generation=1, slot=1, number=5)
OPENED = Opened(generation=1)


def plain() -> list[Any]:
    """One of each kind that carries no descriptors."""
    return [
        HELLO,
        EVERY,
        WELCOME,
        FRAME,
        DONE,
        Bye(),
        Failure("full", "there are 3 – enough"),
        OPENED,
    ]


def again(fds: list[OwnedFd]) -> list[OwnedFd]:
    """Descriptors as the other side gets them."""
    return [fd.duplicate() for fd in fds]


def same(one: Any, other: Any) -> bool:
    """Whether two messages say the same; descriptors are compared by what they stand for."""
    if type(one) is not type(other):
        return False
    if not isinstance(one, Textures):
        return bool(one == other)
    return facts(one) == facts(other)


def facts(value: Any) -> Any:
    if isinstance(value, OwnedFd):
        return os.fstat(value.fileno()).st_ino
    if isinstance(value, tuple):
        return tuple(facts(item) for item in value)
    if isinstance(value, Textures | HostTextureHandle | VulkanTextureHandle | SemaphoreHandle):
        fields = [name for name in type(value).__slots__ if name != "__weakref__"]
        return tuple((name, facts(getattr(value, name))) for name in fields)
    return value


# --- Strategies -----------------------------------------------------------------------------------

u32 = st.integers(0, 2**32 - 1)
counting = st.integers(1, 2**32 - 1)
number = st.integers(1, 2**64 - 1)
slot = st.integers(0, MAX_BUFFERS - 1)
word = st.from_regex(r"[a-z0-9_]{1,32}", fullmatch=True)
uuid = st.one_of(st.just(b""), st.binary(min_size=16, max_size=16))
stream_name = st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=120)

descriptors = st.builds(
    TextureDescriptor,
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    format=st.sampled_from(TextureFormat),
    usage=st.integers(1, 31).map(TextureUsage),
    label=text,
    layers=st.integers(1, 3),
    sample_count=st.sampled_from([1, 4]),
)


@st.composite
def texture_messages(draw: st.DrawFn) -> Textures:
    descriptor = draw(descriptors)
    make = draw(st.sampled_from([host_handle, vulkan_handle]))
    handles = tuple(make(descriptor) for _ in range(draw(st.integers(1, MAX_BUFFERS))))
    semaphore = draw(st.sampled_from([None, "host", "vulkan"]))
    return Textures(draw(counting), descriptor, handles, timeline(semaphore) if semaphore else None)


messages = st.one_of(
    st.builds(Hello, u32, st.sampled_from(POLICIES), word, word, uuid, uuid),
    st.builds(Welcome, stream_name, u32, st.integers(1, MAX_BUFFERS), word),
    st.builds(Frame, counting, slot, number, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)),
    st.builds(Done, counting, slot, number),
    st.builds(Failure, st.sampled_from(FAILURES), text),
    st.just(Bye()),
    st.builds(Opened, counting),
    texture_messages(),
)
