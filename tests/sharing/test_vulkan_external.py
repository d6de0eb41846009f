"""How handles are imported: whose they are afterwards, on file descriptors and on Windows.

The drivers here are functions that do what the specification says, or what drivers do instead. No
Windows machine has run the other half: these tests hold it to the calls that Vulkan documents.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from pers import VulkanApiError
from pers.backends.vulkan._ffi import NULL, Functions, ffi, struct, vk
from pers.backends.vulkan.external import FdHandles, Win32Handles
from tests.sharing.support import linux, open_fds

INVALID = -1000072003
DEVICE = ffi.cast("VkDevice", 1)
MEMORY = ffi.cast("VkDeviceMemory", 7)


class Recorded(Functions):
    """A driver that writes down how it is called."""

    def __init__(self, **functions: Callable[..., int]) -> None:
        super().__init__(None, None)
        self.__dict__.update(functions)


def allocate_info() -> Any:
    return struct("VkMemoryAllocateInfo", allocationSize=4096, memoryTypeIndex=1)


def importing(behaviour: Callable[[int], int]) -> FdHandles:
    def allocate(device: Any, info: Any, _: Any, out: Any) -> int:
        chain = ffi.cast("VkImportMemoryFdInfoKHR *", info.pNext)
        assert chain.sType == vk.VK_STRUCTURE_TYPE_IMPORT_MEMORY_FD_INFO_KHR
        assert chain.handleType == vk.VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD_BIT
        out[0] = MEMORY
        return behaviour(chain.fd)

    return FdHandles(Recorded(vkAllocateMemory=allocate), DEVICE)


def takes(fd: int) -> int:
    os.close(fd)  # the driver owns it, and is done with it
    return 0


def refuses(fd: int) -> int:
    return INVALID


def refuses_and_closes(fd: int) -> int:
    os.close(fd)
    return INVALID


@linux
@pytest.mark.parametrize("behaviour", [takes, refuses, refuses_and_closes])
def test_every_descriptor_is_closed_once(behaviour: Callable[[int], int]) -> None:
    fd = os.memfd_create("pers-test")
    before = open_fds()
    handles = importing(behaviour)
    if behaviour is takes:
        assert handles.allocate_import(fd, allocate_info(), NULL) == MEMORY
    else:
        with pytest.raises(VulkanApiError, match="VK_ERROR_INVALID_EXTERNAL_HANDLE"):
            handles.allocate_import(fd, allocate_info(), NULL)
    assert open_fds() == before
    os.close(fd)  # it is still the caller's


@linux
def test_a_number_that_is_somebody_elses_by_now_is_not_closed() -> None:
    fd = os.memfd_create("pers-test")
    taken: list[int] = []

    def refuses_closes_and_another_thread_opens(number: int) -> int:
        os.close(number)
        other = os.open("/dev/null", os.O_RDONLY)
        os.dup2(other, number)
        os.close(other)
        taken.append(number)
        return INVALID

    with pytest.raises(VulkanApiError):
        importing(refuses_closes_and_another_thread_opens).allocate_import(
            fd, allocate_info(), NULL
        )
    os.fstat(taken[0])
    os.close(taken[0])
    os.close(fd)


@linux
def test_the_copy_has_a_number_that_nothing_else_gets() -> None:
    fd = os.memfd_create("pers-test")
    numbers: list[int] = []

    def look(number: int) -> int:
        numbers.append(number)
        assert not os.get_inheritable(number)
        return takes(number)

    importing(look).allocate_import(fd, allocate_info(), NULL)
    assert numbers[0] > 100
    os.close(fd)


# --- Windows --------------------------------------------------------------------------------------


def test_windows_handles_are_exported() -> None:
    def get(device: Any, info: Any, out: Any) -> int:
        assert device == DEVICE
        assert info.sType == vk.VK_STRUCTURE_TYPE_MEMORY_GET_WIN32_HANDLE_INFO_KHR
        assert info.memory == MEMORY
        assert info.handleType == vk.VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_WIN32_BIT
        out[0] = ffi.cast("HANDLE", 0xABC)
        return 0

    handles = Win32Handles(Recorded(vkGetMemoryWin32HandleKHR=get), DEVICE)
    assert handles.export_memory(MEMORY) == 0xABC


@pytest.mark.parametrize("result", [0, INVALID])
def test_windows_handles_are_imported_and_stay_their_owners(result: int) -> None:
    dedicated = struct("VkMemoryDedicatedAllocateInfo")

    def allocate(device: Any, info: Any, _: Any, out: Any) -> int:
        chain = ffi.cast("VkImportMemoryWin32HandleInfoKHR *", info.pNext)
        assert chain.sType == vk.VK_STRUCTURE_TYPE_IMPORT_MEMORY_WIN32_HANDLE_INFO_KHR
        assert chain.handleType == vk.VK_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_WIN32_BIT
        assert int(ffi.cast("uintptr_t", chain.handle)) == 0xABC
        assert chain.name == NULL
        assert chain.pNext == ffi.cast("void *", dedicated)
        assert (info.allocationSize, info.memoryTypeIndex) == (4096, 1)
        out[0] = MEMORY
        return result

    handles = Win32Handles(Recorded(vkAllocateMemory=allocate), DEVICE)
    if result == 0:
        assert handles.allocate_import(0xABC, allocate_info(), dedicated) == MEMORY
    else:
        with pytest.raises(VulkanApiError, match="importing a Windows handle failed"):
            handles.allocate_import(0xABC, allocate_info(), dedicated)


def test_windows_shares_memory_alone() -> None:
    assert Win32Handles.memory_extension == "VK_KHR_external_memory_win32"
    assert Win32Handles.semaphore_extension is None
    assert Win32Handles.fence_extension is None
