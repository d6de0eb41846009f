"""How memory and signals leave the process: as file descriptors, or as Windows handles."""

from __future__ import annotations

import os
import sys
import threading
from abc import ABC, abstractmethod
from typing import Any

from pers.backends.vulkan._ffi import Functions, check, ffi, struct, vk
from pers.errors import OutOfMemoryError
from pers.sharing.shortage import TOO_MANY_FILES, report_shortage

__all__ = ["ExternalHandles", "FdHandles", "Win32Handles", "platform_handles"]

_importing = threading.Lock()


class ExternalHandles(ABC):
    """The calls that differ between systems.

    Args:
        fn: The functions of the device.
        device: The `VkDevice`.
    """

    memory_type: int
    """`VkExternalMemoryHandleTypeFlagBits` that is used."""
    name: str
    """What `ShareCapabilities.handle_type` calls it."""
    memory_extension: str
    semaphore_extension: str | None
    """The device extensions that are needed."""
    fence_extension: str | None

    def __init__(self, fn: Functions, device: Any) -> None:
        self._fn = fn
        self._device = device

    @abstractmethod
    def export_memory(self, memory: Any) -> int:
        """Return a new handle for exportable memory; the caller owns it."""

    @abstractmethod
    def allocate_import(self, handle: int, info: Any, extra: Any) -> Any:
        """Allocate memory from somebody's handle, which stays the caller's.

        Args:
            handle: The file descriptor or `HANDLE`.
            info: The `VkMemoryAllocateInfo`; its `pNext` is set here.
            extra: What goes into that chain as well, or NULL.
        """

    def _allocate(self, info: Any) -> tuple[int, Any]:
        out = ffi.new("VkDeviceMemory *")
        result: int = self._fn.vkAllocateMemory(self._device, info, ffi.NULL, out)
        return result, out[0]


class FdHandles(ExternalHandles):
    """Opaque file descriptors (``VK_KHR_external_memory_fd`` and its siblings)."""

    memory_type = vk.VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT
    name = "opaque_fd"
    memory_extension = "VK_KHR_external_memory_fd"
    semaphore_extension = "VK_KHR_external_semaphore_fd"
    fence_extension = "VK_KHR_external_fence_fd"

    def export_memory(self, memory: Any) -> int:
        info = struct("VkMemoryGetFdInfoKHR", memory=memory, handleType=self.memory_type)
        return self._get("vkGetMemoryFdKHR", info)

    def export_semaphore(self, semaphore: Any) -> int:
        """Return a new file descriptor for an exportable semaphore."""
        kind = vk.VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_OPAQUE_FD_BIT
        info = struct("VkSemaphoreGetFdInfoKHR", semaphore=semaphore, handleType=kind)
        return self._get("vkGetSemaphoreFdKHR", info)

    def export_fence(self, fence: Any) -> int:
        """Return a new file descriptor for an exportable fence."""
        kind = vk.VK_EXTERNAL_FENCE_HANDLE_TYPE_OPAQUE_FD_BIT
        info = struct("VkFenceGetFdInfoKHR", fence=fence, handleType=kind)
        return self._get("vkGetFenceFdKHR", info)

    def _get(self, name: str, info: Any) -> int:
        out = ffi.new("int *")
        self._fn.call(name, self._device, info, out)
        if out[0] < 0:  # which lavapipe says is a success
            raise OutOfMemoryError(f"{name} returns no file descriptor: {TOO_MANY_FILES}")
        return int(out[0])

    def allocate_import(self, handle: int, info: Any, extra: Any) -> Any:
        with _importing:
            fd = _private_copy(handle)
            chain = struct(
                "VkImportMemoryFdInfoKHR", pNext=extra, handleType=self.memory_type, fd=fd
            )
            info.pNext = chain
            result, memory = self._allocate(info)
            _settle(result, fd, handle)
        check(result, "vkAllocateMemory, importing a file descriptor")
        return memory

    def import_semaphore(self, semaphore: Any, handle: int) -> None:
        """Have a semaphore take the payload of a file descriptor, which stays the caller's."""
        kind = vk.VK_EXTERNAL_SEMAPHORE_HANDLE_TYPE_OPAQUE_FD_BIT
        with _importing:
            fd = _private_copy(handle)
            info = struct("VkImportSemaphoreFdInfoKHR", semaphore=semaphore, handleType=kind, fd=fd)
            result = self._fn.vkImportSemaphoreFdKHR(self._device, info)
            _settle(result, fd, handle)
        check(result, "vkImportSemaphoreFdKHR")

    def import_fence(self, fence: Any, handle: int) -> None:
        """Have a fence take the payload of a file descriptor, which stays the caller's."""
        kind = vk.VK_EXTERNAL_FENCE_HANDLE_TYPE_OPAQUE_FD_BIT
        with _importing:
            fd = _private_copy(handle)
            info = struct("VkImportFenceFdInfoKHR", fence=fence, handleType=kind, fd=fd)
            result = self._fn.vkImportFenceFdKHR(self._device, info)
            _settle(result, fd, handle)
        check(result, "vkImportFenceFdKHR")


# A successful import gives the descriptor to the driver. After one that failed it still belongs to
# the caller (Vulkan 1.3, VkImportMemoryFdInfoKHR), but lavapipe has closed it all the same: closing
# it again could close what another thread has opened under the same number since. So imports get
# a copy with a number so high that nothing else is given it (the kernel hands out the lowest that
# is free), one import at a time, and after a failure the copy is closed only if that number still
# is the same file.
_HIGH = 900


def _private_copy(fd: int) -> int:
    if sys.platform == "win32":
        return os.dup(fd)
    import fcntl
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        return int(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, min(_HIGH, max(limit // 2, 3))))
    except OSError:  # that high there is no room
        with report_shortage("a file descriptor cannot be copied"):
            return os.dup(fd)


def _settle(result: int, copy: int, original: int) -> None:
    if result >= 0:
        return
    try:
        still_open = os.path.sameopenfile(copy, original)
    except OSError:
        return
    if still_open:
        os.close(copy)


class Win32Handles(ExternalHandles):
    """Windows ``HANDLE``s (``VK_KHR_external_memory_win32``). No Windows machine has run this."""

    memory_type = vk.VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_WIN32_BIT
    name = "opaque_win32"
    memory_extension = "VK_KHR_external_memory_win32"
    semaphore_extension = None
    fence_extension = None

    def export_memory(self, memory: Any) -> int:
        info = struct("VkMemoryGetWin32HandleInfoKHR", memory=memory, handleType=self.memory_type)
        out = ffi.new("HANDLE *")
        self._fn.call("vkGetMemoryWin32HandleKHR", self._device, info, out)
        return int(ffi.cast("uintptr_t", out[0]))

    def allocate_import(self, handle: int, info: Any, extra: Any) -> Any:
        # An opaque HANDLE stays its owner's, who closes it (VkImportMemoryWin32HandleInfoKHR).
        chain = struct(
            "VkImportMemoryWin32HandleInfoKHR",
            pNext=extra,
            handleType=self.memory_type,
            handle=ffi.cast("HANDLE", handle),
        )
        info.pNext = chain
        result, memory = self._allocate(info)
        check(result, "vkAllocateMemory, importing a Windows handle")
        return memory


def platform_handles() -> type[FdHandles] | type[Win32Handles]:
    """Return the kind of handles that this system has."""
    return Win32Handles if sys.platform == "win32" else FdHandles
