"""The share manager on Vulkan."""

from __future__ import annotations

import threading
from typing import Any

import attrs

from pers.sharing.manager import ShareManager

__all__ = ["VulkanObjects", "VulkanTextureShareManager"]


@attrs.frozen
class VulkanObjects:
    """The Vulkan objects of a manager, for commands of one's own; cffi handles of `vulkan`.

    An image or a buffer, from `native_handle` within an access, may be used by commands that are
    submitted to `queue` before the access ends. Images are in ``VK_IMAGE_LAYOUT_GENERAL``, and
    have to be left in it.

    Attributes:
        instance: The `VkInstance`, for Vulkan 1.2.
        physical_device: The `VkPhysicalDevice`.
        device: The `VkDevice`.
        queue: Its only `VkQueue`.
        queue_family: The index of the queue's family.
        queue_lock: To be held for every call that takes the queue.
    """

    instance: Any
    physical_device: Any
    device: Any
    queue: Any
    queue_family: int
    queue_lock: threading.Lock


class VulkanTextureShareManager(ShareManager):
    """Shares textures and buffers in GPU memory, on a Vulkan device of its own.

    What the driver can do is found out by asking it and then trying once; see `capabilities`.
    Memory leaves the process as opaque file descriptors, semaphores and fences as well where the
    driver exports them.

    Args:
        device: Part of the GPU's name, or its device UUID in hexadecimal; None takes the best:
            a discrete GPU before an integrated one before a driver without a GPU.
        timeout_ns: How long the CPU waits for the GPU at most, in nanoseconds. What the GPU does
            not finish in that time is a `WaitTimeoutError`; memory that it may still use is then
            leaked by `close` rather than freed.

    Raises:
        VulkanInitializationError: There is no Vulkan, no such GPU, or it cannot share memory.
    """

    def __init__(self, *, device: str | None = None, timeout_ns: int = 10_000_000_000) -> None:
        # Not before it is needed: it loads Vulkan.
        from pers.backends.vulkan.share_device import VulkanShareDevice

        native = VulkanShareDevice(device, timeout_ns)
        super().__init__(native)
        self._gpu = native.gpu

    @property
    def vulkan(self) -> VulkanObjects:
        """The Vulkan objects, for commands of one's own."""
        gpu = self._gpu
        return VulkanObjects(
            gpu.instance, gpu.physical.handle, gpu.handle, gpu.queue, gpu.family, gpu.work.lock
        )
