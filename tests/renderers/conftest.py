"""Devices for the renderers' tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pers import IRenderDevice, open_device


@pytest.fixture(scope="module", params=[pytest.param("webgpu", marks=pytest.mark.gpu), "null"])
def device(request: pytest.FixtureRequest) -> Iterator[IRenderDevice]:
    """Each backend in turn."""
    with open_device(request.param) as opened:
        yield opened


@pytest.fixture(scope="module")
def null_device() -> Iterator[IRenderDevice]:
    with open_device("null") as opened:
        yield opened


@pytest.fixture(scope="module")
def gpu_device() -> Iterator[IRenderDevice]:
    with open_device("webgpu") as opened:
        yield opened
