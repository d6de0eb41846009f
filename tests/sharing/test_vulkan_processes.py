"""Textures on Vulkan, shared by processes that were started separately."""

from __future__ import annotations

import socket

import pytest

from tests.sharing.vulkan_drivers import ICDS, finish, start

WITH_SEMAPHORES = [driver for driver in ICDS if driver != "lavapipe"]


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


@pytest.mark.parametrize("driver", WITH_SEMAPHORES)
def test_semaphores_alone_order_the_gpus(driver: str) -> None:
    _, consumed = run_pair(driver, "frames", "ordered")
    assert "4 of 4 right" in consumed


@pytest.mark.parametrize("driver", WITH_SEMAPHORES)
def test_without_the_semaphore_the_pixels_are_wrong(driver: str) -> None:
    """Else the test above would prove nothing."""
    _, consumed = run_pair(driver, "frames", "unordered")
    assert "4 of 4 right" not in consumed
