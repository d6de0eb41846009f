"""Fixtures of the tests of sharing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.sharing.vulkan_drivers import ICDS, need, open_on


@pytest.fixture(params=ICDS)
def driver(request: pytest.FixtureRequest) -> str:
    """A Vulkan driver that is installed."""
    need(request.param)
    name: str = request.param
    return name


@pytest.fixture
def vulkan(driver: str) -> Iterator[Any]:
    """A Vulkan share manager on it."""
    with open_on(driver) as manager:
        yield manager


@pytest.fixture
def vulkan_peer(driver: str) -> Iterator[Any]:
    """The other side."""
    with open_on(driver) as manager:
        yield manager
