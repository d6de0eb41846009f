"""The share managers that take part, on the GPU that the lab measures."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager

import attrs

from benchmarks.core import PERS, Missing
from benchmarks.lab import Lab
from pers import (
    HostTextureShareManager,
    PersError,
    TextureDescriptor,
    TextureFormat,
    TextureShareManager,
    TextureUsage,
    VulkanTextureShareManager,
)

__all__ = [
    "HOST",
    "SHARED_MEMORY",
    "TIMEOUT_NS",
    "VULKAN",
    "Place",
    "describe",
    "find_vulkan",
    "open_managers",
    "open_vulkan",
]

VULKAN, HOST = "vulkan", "host"
SHARED_MEMORY = "shared_memory"
"""The peer: multiprocessing.shared_memory of Python's standard library."""

TIMEOUT_NS = 20_000_000_000
USAGE = TextureUsage.COPY_SRC | TextureUsage.COPY_DST | TextureUsage.TEXTURE_BINDING


def describe(width: int, height: int) -> TextureDescriptor:
    """Return what all textures here are: four bytes a pixel, for copies and shaders."""
    return TextureDescriptor(width, height, TextureFormat.RGBA8_UNORM, USAGE, "benchmark")


def find_vulkan(lab: Lab) -> VulkanTextureShareManager | Missing:
    """Open the manager on the lab's GPU, or say why there is none."""
    wanted = lab.device.info.name if lab.draws else None
    try:
        return VulkanTextureShareManager(device=wanted, timeout_ns=TIMEOUT_NS)
    except PersError as error:
        return Missing(PERS, str(error), VULKAN)


@attrs.frozen
class Place:
    """Where another process is to open its manager; it can be sent to it.

    Attributes:
        backend: `VULKAN` or `HOST`.
        device: The GPU's UUID in hexadecimal.
    """

    backend: str
    device: str = ""

    @classmethod
    def of(cls, manager: TextureShareManager) -> Place:
        """Return where a manager is."""
        can = manager.capabilities
        return cls(can.backend, can.device_uuid.hex())

    @contextmanager
    def open(self) -> Generator[TextureShareManager]:
        """Open a manager there."""
        if self.backend == VULKAN:
            with open_vulkan(self) as manager:
                yield manager
        else:
            with HostTextureShareManager(timeout_ns=TIMEOUT_NS) as manager:
                yield manager


@contextmanager
def open_vulkan(place: Place) -> Generator[VulkanTextureShareManager]:
    """Open the manager of a GPU."""
    with VulkanTextureShareManager(device=place.device, timeout_ns=TIMEOUT_NS) as manager:
        yield manager


@contextmanager
def open_managers(lab: Lab) -> Generator[dict[str, TextureShareManager | Missing]]:
    """Yield the managers by name; where there is none, the reason."""
    with ExitStack() as stack:
        vulkan = find_vulkan(lab)
        if not isinstance(vulkan, Missing):
            stack.enter_context(vulkan)
        host = stack.enter_context(HostTextureShareManager(timeout_ns=TIMEOUT_NS))
        yield {VULKAN: vulkan, HOST: host}
