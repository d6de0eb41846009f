"""Shared buffers: bytes in memory that other processes can open."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pers._checks import align_up
from pers.backends.vulkan._ffi import NULL, ffi, struct, vk
from pers.backends.vulkan.device import Gpu
from pers.backends.vulkan.memory import (
    Allocation,
    allocate_exportable,
    export_allocation,
    import_allocation,
)
from pers.backends.vulkan.resource import (
    ALL_COMMANDS,
    ANY_ACCESS,
    HOST,
    HOST_ACCESS,
    Sharing,
    VulkanResource,
)
from pers.errors import InvalidTextureHandleError, OperationNotSupportedError
from pers.sharing.handles import BufferHandle, OwnedFd, VulkanBufferHandle
from pers.sharing.native import NativeBuffer

__all__ = ["VulkanBuffer", "create_buffer", "import_buffer", "why_no_buffers"]

TRANSFERS = vk.VK_BUFFER_USAGE_TRANSFER_SRC_BIT | vk.VK_BUFFER_USAGE_TRANSFER_DST_BIT
USAGE = (
    TRANSFERS
    | vk.VK_BUFFER_USAGE_UNIFORM_BUFFER_BIT
    | vk.VK_BUFFER_USAGE_STORAGE_BUFFER_BIT
    | vk.VK_BUFFER_USAGE_INDEX_BUFFER_BIT
    | vk.VK_BUFFER_USAGE_VERTEX_BUFFER_BIT
    | vk.VK_BUFFER_USAGE_INDIRECT_BUFFER_BIT
)
KNOWN_USAGES = (
    USAGE
    | vk.VK_BUFFER_USAGE_UNIFORM_TEXEL_BUFFER_BIT
    | vk.VK_BUFFER_USAGE_STORAGE_TEXEL_BUFFER_BIT
)
LOCAL: int = vk.VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT
MAPPABLE: int = vk.VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | vk.VK_MEMORY_PROPERTY_HOST_COHERENT_BIT
CACHED: int = vk.VK_MEMORY_PROPERTY_HOST_CACHED_BIT


def why_no_buffers(gpu: Gpu, usage: int = USAGE) -> str | None:
    """Return why the driver cannot share buffers, or None if it can."""
    if gpu.external.name != "opaque_fd":
        return "buffers are shared as file descriptors, and this system has none"
    info = struct(
        "VkPhysicalDeviceExternalBufferInfo", usage=usage, handleType=gpu.external.memory_type
    )
    out = struct("VkExternalBufferProperties")
    gpu.instance_fn.vkGetPhysicalDeviceExternalBufferProperties(gpu.physical.handle, info, out)
    features = out.externalMemoryProperties.externalMemoryFeatures
    needed = (
        vk.VK_EXTERNAL_MEMORY_FEATURE_EXPORTABLE_BIT | vk.VK_EXTERNAL_MEMORY_FEATURE_IMPORTABLE_BIT
    )
    if features & needed != needed:
        return "the driver cannot both export and import buffers"
    return None


def _create(gpu: Gpu, size: int, usage: int) -> Any:
    reason = why_no_buffers(gpu, usage)
    if reason is not None:
        raise OperationNotSupportedError(f"buffers cannot be shared: {reason}")
    external = struct("VkExternalMemoryBufferCreateInfo", handleTypes=gpu.external.memory_type)
    # Fills work on whole words, so the last one has to be there.
    info = struct("VkBufferCreateInfo", pNext=external, size=align_up(size, 4), usage=usage)
    out = ffi.new("VkBuffer *")
    gpu.fn.call("vkCreateBuffer", gpu.handle, info, NULL, out)
    return out[0]


def _requirements(gpu: Gpu, buffer: Any) -> Any:
    out = ffi.new("VkMemoryRequirements *")
    gpu.fn.vkGetBufferMemoryRequirements(gpu.handle, buffer, out)
    return out


def create_buffer(sharing: Sharing, size: int, label: str) -> VulkanBuffer:
    """Make a buffer, all zeros, that can be exported.

    Raises:
        OperationNotSupportedError: The driver cannot share buffers.
        OutOfMemoryError: There is no memory for it.
    """
    gpu = sharing.gpu
    buffer = _create(gpu, size, USAGE)
    try:
        # Where the GPU has memory of its own, that; else memory that the CPU sees as well.
        preferences: tuple[int, ...] = (LOCAL, 0)
        if not gpu.physical.is_discrete:
            preferences = (LOCAL | MAPPABLE | CACHED, LOCAL | MAPPABLE, MAPPABLE, LOCAL, 0)
        requirements = _requirements(gpu, buffer)
        allocation = allocate_exportable(gpu, requirements, preferences, buffer=buffer)
        gpu.fn.call("vkBindBufferMemory", gpu.handle, buffer, allocation.handle, 0)
    except BaseException:
        gpu.fn.vkDestroyBuffer(gpu.handle, buffer, NULL)
        raise
    made = VulkanBuffer(sharing, allocation, buffer, size, USAGE, label)
    del allocation  # so that it ends with the buffer, whatever keeps this frame
    made.clear_new()
    gpu.register(made)
    return made


def import_buffer(sharing: Sharing, handle: BufferHandle, label: str) -> VulkanBuffer:
    """Open the buffer that a handle stands for; the handle stays the caller's.

    Raises:
        InvalidTextureHandleError: The handle does not fit this backend, or says what cannot be.
        DeviceMismatchError: It comes from another GPU or driver.
    """
    gpu = sharing.gpu
    if not isinstance(handle, VulkanBufferHandle):
        raise InvalidTextureHandleError(
            f"a {type(handle).__name__} is no handle of the vulkan backend; import it with the "
            "manager of the backend that exported it"
        )
    gpu.check_origin(handle.device_uuid, handle.driver_uuid)
    _check_numbers(gpu, handle, label)
    buffer = _create(gpu, handle.buffer_size, handle.buffer_usage)
    try:
        allocation = import_allocation(
            gpu,
            handle.fd.fileno(),
            handle.size,
            handle.memory_type,
            _requirements(gpu, buffer),
            dedicated=handle.dedicated,
            buffer=buffer,
        )
        gpu.fn.call("vkBindBufferMemory", gpu.handle, buffer, allocation.handle, 0)
    except BaseException:
        gpu.fn.vkDestroyBuffer(gpu.handle, buffer, NULL)
        raise
    opened = VulkanBuffer(
        sharing, allocation, buffer, handle.buffer_size, handle.buffer_usage, label
    )
    del allocation
    gpu.register(opened)
    return opened


def _check_numbers(gpu: Gpu, handle: VulkanBufferHandle, label: str) -> None:
    wrong = None
    if handle.handle_type != gpu.external.memory_type:
        wrong = f"a handle of type {handle.handle_type:#x}, not {gpu.external.memory_type:#x}"
    elif handle.buffer_usage & ~KNOWN_USAGES or handle.buffer_usage & TRANSFERS != TRANSFERS:
        wrong = f"usages {handle.buffer_usage:#x}"
    elif not 0 < handle.buffer_size <= handle.size:
        wrong = f"a buffer of {handle.buffer_size} bytes in memory of {handle.size}"
    if wrong is not None:
        raise InvalidTextureHandleError(
            f"buffer {label!r}: the handle says {wrong}; "
            "the other side must send the handle that it exported"
        )


class VulkanBuffer(VulkanResource, NativeBuffer):
    """A buffer in memory of its own.

    Args:
        sharing: What it needs of its device.
        allocation: Its memory, bound.
        buffer: The `VkBuffer`, which this object destroys.
        size: Its length in bytes.
        usage: `VkBufferUsageFlags` that it was made with.
        label: Its name in messages.
    """

    def __init__(
        self,
        sharing: Sharing,
        allocation: Allocation,
        buffer: Any,
        size: int,
        usage: int,
        label: str,
    ) -> None:
        self._buffer = buffer
        self._size = size
        self._usage = usage
        flags = sharing.gpu.memory_types[allocation.memory_type]
        self._mappable = flags & MAPPABLE == MAPPABLE and not sharing.gpu.physical.is_discrete
        super().__init__(sharing, allocation, f"buffer {label!r}")

    @property
    def native_handle(self) -> Any:
        """The `VkBuffer`, owned by this side for what is submitted after this."""
        self._open_for_others()
        return self._buffer

    @property
    def size(self) -> int:
        return self._size

    def export(self, control: OwnedFd) -> VulkanBufferHandle:
        memory, own = self._memory_to_export(), self._gpu.physical
        return VulkanBufferHandle(
            OwnedFd(export_allocation(self._gpu, memory)),
            memory.size,
            self._size,
            self._usage,
            memory.memory_type,
            self._gpu.external.memory_type,
            memory.dedicated,
            own.device_uuid,
            own.driver_uuid,
            control,
        )

    def upload(self, data: npt.NDArray[np.uint8], offset: int) -> None:
        if not data.nbytes:
            return
        block = self._staged(data.nbytes)
        block.bytes[: data.nbytes] = data
        region = struct("VkBufferCopy", dstOffset=offset, size=data.nbytes)
        commands = self._record_copy()
        self._gpu.fn.vkCmdCopyBuffer(commands, block.buffer, self._buffer, 1, region)

    def download(self, out: npt.NDArray[np.uint8], offset: int) -> None:
        if not out.nbytes:
            return
        block = self._staged(out.nbytes)
        region = struct("VkBufferCopy", srcOffset=offset, size=out.nbytes)
        commands = self._record_copy()
        self._gpu.fn.vkCmdCopyBuffer(commands, self._buffer, block.buffer, 1, region)
        self._fetch(block, out)

    def memory(self) -> npt.NDArray[np.uint8]:
        if not self._mappable or self._allocation is None:
            raise OperationNotSupportedError(
                f"the CPU does not see the memory of {self._name} on {self._gpu.physical.name!r}; "
                "call download() for a copy"
            )
        self._open_for_others()
        self._wait(self._serial)
        return self._allocation.map(self._size)

    def clear_new(self) -> None:
        """Fill the new buffer with zeros and give it to the other side."""
        self._hand_over_new(self._record_clear)

    def _record_clear(self, commands: Any) -> None:
        whole = 2**64 - 1
        self._gpu.fn.vkCmdFillBuffer(commands, self._buffer, 0, whole, 0)

    def _ownership(self, source: int, target: int, before: int, after: int) -> Any:
        host = HOST_ACCESS if self._mappable else 0
        return struct(
            "VkBufferMemoryBarrier",
            srcAccessMask=before and before | host & ~vk.VK_ACCESS_HOST_READ_BIT,
            dstAccessMask=after and ANY_ACCESS | host,
            srcQueueFamilyIndex=source,
            dstQueueFamilyIndex=target,
            buffer=self._buffer,
            size=2**64 - 1,
        )

    def _record_ownership(self, commands: Any, barrier: Any) -> None:
        stages = ALL_COMMANDS | (HOST if self._mappable else 0)
        self._gpu.fn.vkCmdPipelineBarrier(commands, stages, stages, 0, 0, NULL, 1, barrier, 0, NULL)

    def _destroy_object(self) -> None:
        self._gpu.fn.vkDestroyBuffer(self._gpu.handle, self._buffer, NULL)
