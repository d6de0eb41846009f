"""One of two processes that share textures on Vulkan: ``ROLE FD``, FD being their socket.

``formats-producer`` and ``formats-consumer`` show each other a texture of every format; the
consumer's answer is written to the same texture. ``frames-producer`` and ``frames-consumer`` pass
frames with semaphores only; with ``unordered`` the consumer looks before it waits.
"""

from __future__ import annotations

import array
import json
import socket
import sys
from typing import Any

import attrs
import numpy as np

from pers import (
    OperationNotSupportedError,
    SemaphoreHandle,
    SharedTexture,
    TextureDescriptor,
    VulkanBufferHandle,
    VulkanTextureHandle,
    VulkanTextureShareManager,
)
from pers.sharing.handles import OwnedFd
from tests.sharing.support import describe, picture

KINDS = {kind.__name__: kind for kind in (VulkanTextureHandle, VulkanBufferHandle, SemaphoreHandle)}
FRAMES = 4
SLOW = 128
PLACES = [(layer, level) for layer in range(2) for level in range(2)]


def send_handle(to: socket.socket, handle: Any) -> None:
    facts = {field.name: getattr(handle, field.name) for field in attrs.fields(type(handle))}
    fds = [value.fileno() for value in facts.values() if isinstance(value, OwnedFd)]
    text = {
        name: "fd" if isinstance(value, OwnedFd) else value.hex() if type(value) is bytes else value
        for name, value in facts.items()
    }
    message = json.dumps([type(handle).__name__, text]).encode()
    socket.send_fds(to, [len(message).to_bytes(4, "little") + message], fds)
    handle.close()


def receive_handle(link: socket.socket) -> Any:
    data, fds, _, _ = socket.recv_fds(link, 4096, 4)
    assert len(data) == int.from_bytes(data[:4], "little") + 4
    name, facts = json.loads(data[4:])
    numbers = iter(array.array("i", fds))
    for field, value in facts.items():
        if value == "fd":
            facts[field] = next(numbers)
        elif field.endswith("uuid"):
            facts[field] = bytes.fromhex(value)
    return KINDS[name](**facts)


def say(link: socket.socket) -> None:
    link.sendall(b".")


def listen(link: socket.socket) -> None:
    assert link.recv(1) == b".", "the other process is gone"


def described(texture_format: Any) -> TextureDescriptor:
    return describe(17, 9, texture_format, layers=2, mip_levels=2)


def fill(texture: SharedTexture, seed: int) -> None:
    with texture.access(write=True) as view:
        for layer, level in PLACES:
            pixels = picture(texture.descriptor, seed + 10 * layer + level, level)
            view.upload(pixels, layer=layer, mip_level=level)


def check(texture: SharedTexture, seed: int) -> None:
    with texture.access() as view:
        for layer, level in PLACES:
            found = view.download(layer=layer, mip_level=level)
            pixels = picture(texture.descriptor, seed + 10 * layer + level, level)
            assert found.tobytes() == pixels.tobytes(), (texture.format, layer, level)


def formats_producer(link: socket.socket, manager: VulkanTextureShareManager) -> None:
    for number, texture_format in enumerate(sorted(manager.capabilities.formats, key=str)):
        with manager.create_shareable_texture(described(texture_format)) as texture:
            fill(texture, number)
            send_handle(link, manager.export_texture(texture))
            listen(link)
            check(texture, number + 1000)  # what the other wrote, without another export
            fill(texture, number + 2000)
            say(link)
            listen(link)
    with manager.create_shareable_buffer(1001) as buffer:
        with buffer.access(write=True) as view:
            view.upload(np.arange(1001).astype(np.uint8))
        send_handle(link, manager.export_buffer(buffer))
        listen(link)
        with buffer.access() as view:
            assert (view.download() == 7).all()
    print(len(manager.capabilities.formats))


def formats_consumer(link: socket.socket, manager: VulkanTextureShareManager) -> None:
    for number, texture_format in enumerate(sorted(manager.capabilities.formats, key=str)):
        with receive_handle(link) as handle:
            texture = manager.import_texture(handle, described(texture_format))
        with texture:
            check(texture, number)
            fill(texture, number + 1000)
            say(link)
            listen(link)
            check(texture, number + 2000)
            say(link)
    with receive_handle(link) as handle:
        buffer = manager.import_buffer(handle)
    with buffer, buffer.access(write=True) as view:
        assert (view.download() == np.arange(1001).astype(np.uint8)).all()
        try:
            view.as_array()[:] = 7
        except OperationNotSupportedError:  # a discrete GPU
            view.upload(np.full(1001, 7, np.uint8))
    say(link)


def frames_producer(link: socket.socket, manager: VulkanTextureShareManager) -> None:
    descriptor = describe(512, 512)
    texture = manager.create_shareable_texture(descriptor)
    ready, done = manager.create_semaphore("binary"), manager.create_semaphore("binary")
    send_handle(link, manager.export_texture(texture))
    for semaphore in (ready, done):
        listen(link)
        send_handle(link, manager.export_semaphore(semaphore))
    listen(link)
    noise = picture(descriptor, 999)
    for frame in range(FRAMES):
        with texture.access(write=True, wait=[done] if frame else [], signal=[ready]) as view:
            for _ in range(SLOW):  # so that the GPU is still busy when the other looks
                view.upload(noise)
            view.upload(picture(descriptor, frame))
        say(link)
        listen(link)


def frames_consumer(link: socket.socket, manager: VulkanTextureShareManager, order: str) -> None:
    descriptor = describe(512, 512)
    with receive_handle(link) as handle:
        texture = manager.import_texture(handle, descriptor)
    semaphores = []
    for _ in range(2):
        say(link)
        with receive_handle(link) as handle:
            semaphores.append(manager.import_semaphore(handle))
    ready, done = semaphores
    say(link)
    right = 0
    for frame in range(FRAMES):
        listen(link)
        if order == "ordered":
            with texture.access(wait=[ready], signal=[done]) as view:
                found = view.download()
        else:
            with texture.access() as view:
                found = view.download()
            with texture.access(wait=[ready], signal=[done]):
                pass
        right += np.array_equal(found, picture(descriptor, frame))
        say(link)
    print(right, "of", FRAMES, "right")


def main() -> None:
    role, number, *rest = sys.argv[1:]
    with socket.socket(fileno=int(number)) as link, VulkanTextureShareManager() as manager:
        {
            "formats-producer": formats_producer,
            "formats-consumer": formats_consumer,
            "frames-producer": frames_producer,
            "frames-consumer": frames_consumer,
        }[role](link, manager, *rest)  # type: ignore[operator]


if __name__ == "__main__":
    main()
