"""What the tests of sharing have in common: the managers that work here, pictures, counting."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pers import (
    HostTextureShareManager,
    TextureDescriptor,
    TextureFormat,
    TextureShareManager,
    TextureUsage,
    WebGPUTextureShareManager,
)
from tests.support import open_device

USAGE = TextureUsage.COPY_SRC | TextureUsage.COPY_DST | TextureUsage.TEXTURE_BINDING


@contextmanager
def host() -> Iterator[TextureShareManager]:
    with HostTextureShareManager(timeout_ns=200_000_000) as manager:
        yield manager


@contextmanager
def on_device(backend: str) -> Iterator[TextureShareManager]:
    with (
        open_device(backend) as device,
        WebGPUTextureShareManager(device, timeout_ns=200_000_000) as manager,
    ):
        yield manager


@contextmanager
def vulkan() -> Iterator[TextureShareManager]:
    from pers.backends.vulkan import VulkanTextureShareManager

    with VulkanTextureShareManager(timeout_ns=200_000_000) as manager:
        yield manager


MANAGERS: dict[str, Callable[[], Any]] = {
    "host": host,
    "webgpu": lambda: on_device("webgpu"),
    "null": lambda: on_device("null"),
}
if importlib.util.find_spec("pers.backends.vulkan"):
    MANAGERS["vulkan"] = vulkan


def describe(
    width: int = 13,
    height: int = 7,
    texture_format: TextureFormat = TextureFormat.RGBA8_UNORM,
    label: str = "picture",
    **others: Any,
) -> TextureDescriptor:
    return TextureDescriptor(width, height, texture_format, USAGE, label, **others)


def picture(descriptor: TextureDescriptor, seed: int, mip_level: int = 0) -> npt.NDArray[Any]:
    """Pixels that are different in every byte from what other seeds give, and never NaN."""
    width, height = (max(side >> mip_level, 1) for side in (descriptor.width, descriptor.height))
    made = descriptor.format
    shape = (height, width, made.channels) if made.channels > 1 else (height, width)
    values = np.random.default_rng(seed).integers(0, 120, (*shape, made.dtype.itemsize), np.uint8)
    if made.is_depth and made.dtype.kind == "f":  # depths are between 0 and 1
        return (values[..., 0] / 128).astype(made.dtype)
    return np.ascontiguousarray(values).view(made.dtype).reshape(shape)


def open_fds() -> int:
    """How many file descriptors this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


def mappings() -> int:
    """How many mappings of shared memory this process has."""
    return Path("/proc/self/maps").read_text().count("memfd:pers")


linux = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts in /proc")
