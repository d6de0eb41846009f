"""Textures on Vulkan, shared by processes that were started separately."""

from __future__ import annotations

import socket

import pytest

from tests.sharing.vulkan_drivers import ICDS, finish, start


def run_pair(driver: str, roles: str, *arguments: str) -> tuple[str, str]:
    """Run a producer and a consumer, and return what they print."""
    one, other = socket.socketpair()
    with one, other:
        producer = start(
            driver, "vulkan_peer", f"{roles}-producer", str(one.fileno()), fds=(one.fileno(),)
        )
        consumer = start(
            driver,
            "vulkan_peer",
            f"{roles}-consumer",
            str(other.fileno()),
            *arguments,
            fds=(other.fileno(),),
        )
    try:
        return finish(producer), finish(consumer)
    finally:
        for process in (producer, consumer):
            process.kill()
            process.communicate()


@pytest.mark.parametrize("driver", ICDS)
def test_every_format_in_both_directions(driver: str) -> None:
    """Byte by byte, with layers and mip levels, and a buffer at the end."""
    produced, _ = run_pair(driver, "formats")
    assert int(produced) >= 40


def test_semaphores_alone_order_the_gpus() -> None:
    _, consumed = run_pair("swiftshader", "frames", "ordered")
    assert "4 of 4 right" in consumed


def test_without_the_semaphore_the_pixels_are_wrong() -> None:
    """Else the test above would prove nothing."""
    _, consumed = run_pair("swiftshader", "frames", "unordered")
    assert "4 of 4 right" not in consumed
