"""Memory that other processes can open, each piece dedicated to one image or buffer."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from pers.backends.vulkan._ffi import NULL, ffi, struct
from pers.backends.vulkan.device import Gpu
from pers.errors import InvalidTextureHandleError, VulkanApiError

__all__ = ["Allocation", "allocate_exportable", "import_allocation"]


class Allocation:
    """A `VkDeviceMemory`, freed when the last user of the object drops it.

    Args:
        gpu: Where it was allocated.
        handle: The `VkDeviceMemory`.
        size: Bytes allocated.
        memory_type: Index of its type.
        dedicated: Whether it belongs to one image or buffer.
    """

    def __init__(
        self, gpu: Gpu, handle: Any, size: int, memory_type: int, dedicated: bool = True
    ) -> None:
        self.gpu = gpu
        self.handle = handle
        self.size = size
        self.memory_type = memory_type
        self.dedicated = dedicated
        self._address: Any = None

    def map(self, size: int) -> npt.NDArray[np.uint8]:
        """Return the first `size` bytes; they stay mapped for as long as an array shows them."""
        if self._address is None:
            out = ffi.new("void **")
            fn = self.gpu.fn
            fn.call("vkMapMemory", self.gpu.handle, self.handle, 0, 2**64 - 1, 0, out)
            self._address = out[0]
        return np.asarray(_Mapping(self, int(ffi.cast("uintptr_t", self._address)), size))

    def __del__(self) -> None:
        # Not freed at once: the GPU may use it, and this may be any thread in any state.
        self.gpu.work.retire(_freeing(self.gpu, self.handle))


def _freeing(gpu: Gpu, handle: Any) -> Callable[[], None]:
    return lambda: gpu.fn.vkFreeMemory(gpu.handle, handle, NULL)


class _Mapping:
    """What an array of mapped memory keeps alive: the memory, and the device under it."""

    def __init__(self, allocation: Allocation, address: int, size: int) -> None:
        self._allocation: Allocation | None = allocation
        self._gpu = allocation.gpu
        self.__array_interface__ = {
            "shape": (size,),
            "typestr": "|u1",
            "data": (address, False),
            "version": 3,
        }
        self._gpu.pin()

    def __del__(self) -> None:
        self._allocation = None
        self._gpu.unpin()


def _dedication(image: Any, buffer: Any) -> Any:
    return struct("VkMemoryDedicatedAllocateInfo", image=image, buffer=buffer)


def allocate_exportable(
    gpu: Gpu, requirements: Any, preferences: tuple[int, ...], *, image: Any = 0, buffer: Any = 0
) -> Allocation:
    """Allocate memory for an image or a buffer that can be exported."""
    memory_type = gpu.memory_type(requirements.memoryTypeBits, *preferences)
    export = struct(
        "VkExportMemoryAllocateInfo",
        pNext=_dedication(image or NULL, buffer or NULL),
        handleTypes=gpu.external.memory_type,
    )
    info = struct(
        "VkMemoryAllocateInfo",
        pNext=export,
        allocationSize=requirements.size,
        memoryTypeIndex=memory_type,
    )
    out = ffi.new("VkDeviceMemory *")
    gpu.fn.call("vkAllocateMemory", gpu.handle, info, NULL, out)
    return Allocation(gpu, out[0], int(requirements.size), memory_type)


def import_allocation(
    gpu: Gpu,
    handle: int,
    size: int,
    memory_type: int,
    requirements: Any,
    *,
    dedicated: bool,
    image: Any = 0,
    buffer: Any = 0,
) -> Allocation:
    """Open somebody's memory for an image or a buffer.

    Args:
        gpu: Where.
        handle: The file descriptor or `HANDLE`, which stays the caller's.
        size: Bytes that were allocated, as the handle says.
        memory_type: The index of the memory type, as the handle says.
        requirements: `VkMemoryRequirements` of the image or buffer here.
        dedicated: Whether the memory was allocated for this image or buffer alone.
        image: The `VkImage`, if it is one.
        buffer: The `VkBuffer`, if it is one.

    Raises:
        InvalidTextureHandleError: The numbers do not fit, or the driver refuses them.
    """
    if size < requirements.size:
        raise InvalidTextureHandleError(
            f"the handle's memory has {size} bytes where {requirements.size} are needed; "
            "the descriptor must be the one that the object was made with"
        )
    if memory_type >= len(gpu.memory_types) or not requirements.memoryTypeBits >> memory_type & 1:
        raise InvalidTextureHandleError(
            f"the handle's memory type {memory_type} is none that this can be stored in "
            f"(types {requirements.memoryTypeBits:#x} of {len(gpu.memory_types)}); "
            "the other side must send the handle that it exported"
        )
    if dedicated and size != requirements.size:
        raise InvalidTextureHandleError(
            f"the handle's memory has {requirements.size} bytes, not the {size} that the handle "
            "says; the descriptor must be the one that the object was made with"
        )
    _check_file(gpu, handle, size)
    extra = _dedication(image or NULL, buffer or NULL) if dedicated else NULL
    info = struct("VkMemoryAllocateInfo", allocationSize=size, memoryTypeIndex=memory_type)
    try:
        memory = gpu.external.allocate_import(handle, info, extra)
    except VulkanApiError as error:
        raise InvalidTextureHandleError(
            f"the driver does not take the handle's memory ({error}); "
            "the other side must send the handle that it exported"
        ) from error
    return Allocation(gpu, memory, size, memory_type, dedicated)


_exported: dict[tuple[bytes, bytes], tuple[int, ...]] = {}
"""What kind of file the memory of a driver is; each has exported some before it imports any."""


def export_allocation(gpu: Gpu, allocation: Allocation) -> int:
    """Return a new file descriptor or `HANDLE` for memory; the caller owns it."""
    handle = gpu.external.export_memory(allocation.handle)
    if os.name == "posix":
        physical = gpu.physical
        _exported[physical.device_uuid, physical.driver_uuid] = _kind_of(os.fstat(handle))
    return handle


def _kind_of(status: os.stat_result) -> tuple[int, ...]:
    return stat.S_IFMT(status.st_mode), status.st_dev, status.st_rdev


def _check_file(gpu: Gpu, handle: int, size: int) -> None:
    """Refuse what is no memory of this driver before the driver sees it.

    A software driver maps any file, and dies reading it; one of a real GPU can be left unable to
    make another device.
    """
    if os.name != "posix":
        return
    try:
        status = os.fstat(handle)
    except OSError as error:
        raise InvalidTextureHandleError(
            f"the handle's file descriptor is not open ({error}); export the object again"
        ) from None
    physical = gpu.physical
    kind = _exported.get((physical.device_uuid, physical.driver_uuid))
    if kind is not None and kind != _kind_of(status):
        raise InvalidTextureHandleError(
            "the handle's file descriptor is no memory of this driver; "
            "the other side must send the handle that it exported"
        )
    if stat.S_ISREG(status.st_mode) and status.st_size < size:
        raise InvalidTextureHandleError(
            f"the handle's memory has {status.st_size} bytes, not the {size} that the handle "
            "says; the other side must send the handle that it exported"
        )
