"""Fixtures and settings that all tests share."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# "dev" looks for new failures at every run; "ci" tries the same examples every time. No deadline:
# a software driver on a busy machine says nothing about the code.
settings.register_profile("dev", deadline=None)
settings.register_profile("ci", derandomize=True, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Runs every async test on both event loops."""
    backend: str = request.param
    return backend
