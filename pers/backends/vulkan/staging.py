"""Memory that the CPU sees, for copies to and from images and buffers."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from pers.backends.vulkan._ffi import NULL, ffi, struct, vk
from pers.backends.vulkan.device import Gpu

__all__ = ["StagingBlock", "StagingPool"]

SMALLEST = 1 << 16
KEPT = 1 << 27
"""Bytes of unused blocks that are kept for the next copies."""


class StagingBlock:
    """A mapped buffer.

    Args:
        gpu: Where to make it.
        size: Its length in bytes.
    """

    def __init__(self, gpu: Gpu, size: int) -> None:
        self._gpu = gpu
        self.size = size
        fn, device = gpu.fn, gpu.handle
        usage = vk.VK_BUFFER_USAGE_TRANSFER_SRC_BIT | vk.VK_BUFFER_USAGE_TRANSFER_DST_BIT
        info = struct("VkBufferCreateInfo", size=size, usage=usage)
        out = ffi.new("VkBuffer *")
        fn.call("vkCreateBuffer", device, info, NULL, out)
        self.buffer: Any = out[0]
        self._memory: Any = NULL
        try:
            self.bytes = self._allocate()
        except BaseException:
            self.destroy()
            raise

    def _allocate(self) -> npt.NDArray[np.uint8]:
        gpu, fn, device = self._gpu, self._gpu.fn, self._gpu.handle
        requirements = ffi.new("VkMemoryRequirements *")
        fn.vkGetBufferMemoryRequirements(device, self.buffer, requirements)
        visible = vk.VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | vk.VK_MEMORY_PROPERTY_HOST_COHERENT_BIT
        # Cached, because a CPU reads other memory many times slower.
        cached = visible | vk.VK_MEMORY_PROPERTY_HOST_CACHED_BIT
        memory_type = gpu.memory_type(requirements.memoryTypeBits, cached, visible)
        allocate = struct(
            "VkMemoryAllocateInfo", allocationSize=requirements.size, memoryTypeIndex=memory_type
        )
        memory = ffi.new("VkDeviceMemory *")
        fn.call("vkAllocateMemory", device, allocate, NULL, memory)
        self._memory = memory[0]
        fn.call("vkBindBufferMemory", device, self.buffer, self._memory, 0)
        address = ffi.new("void **")
        fn.call("vkMapMemory", device, self._memory, 0, 2**64 - 1, 0, address)
        return np.frombuffer(ffi.buffer(address[0], self.size), np.uint8)

    def destroy(self) -> None:
        """Free it; the GPU is done with it."""
        self._gpu.fn.vkDestroyBuffer(self._gpu.handle, self.buffer, NULL)
        self._gpu.fn.vkFreeMemory(self._gpu.handle, self._memory, NULL)


class StagingPool:
    """Blocks that are used again. It is thread-safe.

    Args:
        gpu: Where to make them.
    """

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        # Reentrant, since a finalizer may give blocks back while this thread holds it.
        self._lock = threading.RLock()
        self._idle: dict[int, list[StagingBlock]] = {}
        self._idle_bytes = 0
        self._closed = False

    def take(self, size: int) -> StagingBlock:
        """Return a block of at least `size` bytes, which is the caller's until `retire`."""
        rounded = max(SMALLEST, 1 << (size - 1).bit_length())
        with self._lock:
            blocks = self._idle.get(rounded)
            if blocks:
                self._idle_bytes -= rounded
                return blocks.pop()
        return StagingBlock(self._gpu, rounded)

    def retire(self, block: StagingBlock) -> None:
        """Give a block back, to be used again when all that is submitted by now is done."""
        self._gpu.work.retire(lambda: self.put_back(block))

    def put_back(self, block: StagingBlock) -> None:
        """Give a block back that the GPU is done with."""
        with self._lock:
            if not self._closed and self._idle_bytes + block.size <= KEPT:
                self._idle.setdefault(block.size, []).append(block)
                self._idle_bytes += block.size
                return
        block.destroy()

    def destroy(self) -> None:
        """Free the blocks that are not in use, and from now on every one that comes back."""
        with self._lock:
            self._closed = True
            blocks = [block for blocks in self._idle.values() for block in blocks]
            self._idle.clear()
        for block in blocks:
            block.destroy()
