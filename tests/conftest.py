"""Fixtures and settings that all tests share."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from pers import IRenderDevice
from tests.support import BACKENDS, Hold, Maker, open_device

# "dev" looks for new failures at every run; "ci" tries the same examples every time. No deadline:
# a software driver on a busy machine says nothing about the code.
settings.register_profile("dev", deadline=None)
settings.register_profile("ci", derandomize=True, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))

# Shells have commands in the background ignore it, and what they start; tests press Ctrl+C.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module", autouse=True)
def quick_collections() -> None:
    """Has `gc.collect` look only at what the tests of a module make: they call it often."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Runs every async test on both event loops."""
    backend: str = request.param
    return backend


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """Runs the tests on every backend. Without a driver those on webgpu fail, on purpose."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def device(backend: str) -> Iterator[IRenderDevice]:
    """A device that the tests of a module share; they neither close nor lose it."""
    with open_device(backend) as device:
        yield device


@pytest.fixture
def fresh_device(backend: str) -> Iterator[IRenderDevice]:
    """A device of a test's own, to be closed, lost, or counted."""
    with open_device(backend) as device:
        yield device


@pytest.fixture(scope="module")
def gpu() -> Iterator[IRenderDevice]:
    """A device that runs shaders."""
    with open_device("webgpu") as device:
        yield device


@pytest.fixture
def hold(device: IRenderDevice) -> Iterator[Hold]:
    """Keeps from `device` that anything has ended, until ``hold.release()``."""
    with Hold(device) as hold:
        yield hold


@pytest.fixture
def make(device: IRenderDevice) -> Iterator[Maker]:
    """Makes buffers on `device` and destroys them after the test."""
    with Maker(device) as maker:
        yield maker
