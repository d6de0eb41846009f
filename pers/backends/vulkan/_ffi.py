"""The seam to Vulkan: the cffi layer of the package `vulkan`, and its results as pers errors.

Only the package's types, constants and loader are used. Its wrappers lose the owners of nested
structs, know no `VkResult` that came after them (they raise a `KeyError` with its number), and
take five times as long as the raw calls.

Importing this module raises `VulkanInitializationError` where there is no package or no loader.
"""

from __future__ import annotations

import functools
import re
import weakref
from typing import Any

from pers.errors import (
    DeviceLostError,
    OutOfMemoryError,
    VulkanApiError,
    VulkanInitializationError,
)

try:
    import vulkan
except ImportError as error:
    raise VulkanInitializationError(
        f"sharing on Vulkan needs the Python package vulkan ({error}): pip install 'pers[vulkan]'"
    ) from None
except OSError:
    raise VulkanInitializationError(
        "the Vulkan loader is not installed: on Debian and Ubuntu apt-get install libvulkan1, "
        "elsewhere the driver of the GPU brings it"
    ) from None

__all__ = [
    "NULL",
    "Functions",
    "check",
    "ffi",
    "global_functions",
    "number_of",
    "result_name",
    "struct",
    "text",
    "vk",
]

vk: Any = vulkan
"""The constants."""
ffi: Any = vulkan.ffi
NULL: Any = ffi.NULL

_owners: weakref.WeakKeyDictionary[Any, tuple[Any, ...]] = weakref.WeakKeyDictionary()
"""What the pointers in a struct point to, for as long as the struct lives."""


@functools.cache
def _structure_type(name: str) -> int | None:
    """Return the `sType` of a struct, or None if it has none."""
    fields = dict(ffi.typeof(name).fields)
    if "sType" not in fields:
        return None
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z0-9])(?=[A-Z][a-z])", "_", name[2:])
    words = re.sub(r"(?<=[a-z])2$", "_2", words)
    return int(getattr(vk, f"VK_STRUCTURE_TYPE_{words.upper()}"))


@functools.cache
def _field_types(name: str) -> dict[str, Any]:
    return {field: info.type for field, info in ffi.typeof(name).fields}


def struct(name: str, **fields: Any) -> Any:
    """Return a pointer to a new struct, `sType` filled in, that keeps alive what it points to.

    A list becomes an array, bytes a string, and where a struct belongs a pointer to one will do.
    """
    pointer = ffi.new(f"{name} *")
    structure_type = _structure_type(name)
    if structure_type is not None:
        pointer.sType = structure_type
    types = _field_types(name)
    owners: list[Any] = []
    for field, value in fields.items():
        setattr(pointer, field, _converted(types[field], value, owners))
    if owners:
        _owners[pointer] = tuple(owners)
    return pointer


def _converted(wanted: Any, value: Any, owners: list[Any]) -> Any:
    if isinstance(value, bytes) and wanted.kind == "pointer":
        value = ffi.new("char[]", value)
    elif isinstance(value, (list, tuple)) and wanted.kind == "pointer":
        items = [_converted(wanted.item, item, owners) for item in value]  # pyright: ignore
        value = ffi.new(ffi.getctype(wanted.item, "[]"), items)
    if isinstance(value, ffi.CData):
        owners.append(value)
        if wanted.kind in ("struct", "union") and ffi.typeof(value).kind == "pointer":
            return value[0]
    return value


def text(characters: Any) -> str:
    """Return a C string."""
    return str(ffi.string(characters).decode(errors="replace"))


def number_of(handle: Any) -> int:
    """Return a handle as a number, for messages and to compare."""
    return int(ffi.cast("uintptr_t", handle))


# What the package's constants lack.
_MORE_RESULTS = {
    -1000069000: "VK_ERROR_OUT_OF_POOL_MEMORY",
    -1000072003: "VK_ERROR_INVALID_EXTERNAL_HANDLE",
    -1000161000: "VK_ERROR_FRAGMENTATION",
}


@functools.cache
def _result_names() -> dict[int, str]:
    return _MORE_RESULTS | {
        value: name
        for name, value in vars(vk).items()
        if isinstance(value, int)
        and name.startswith(("VK_ERROR_", "VK_SUCCESS", "VK_NOT_READY", "VK_TIMEOUT", "VK_EVENT_"))
        and "_RANGE" not in name
    }


def result_name(result: int) -> str:
    """Return the name of a `VkResult`, or its number when it is newer than the package."""
    return _result_names().get(result, f"VkResult {result}")


def check(result: int, what: str) -> int:
    """Return what a Vulkan call returned.

    Args:
        result: Its `VkResult`.
        what: The call, and for what, for the message.

    Raises:
        OutOfMemoryError: There is no memory left.
        DeviceLostError: The GPU has stopped working for this process.
        VulkanApiError: It failed otherwise.
    """
    if result >= 0:
        return result
    if result in (
        vk.VK_ERROR_OUT_OF_DEVICE_MEMORY,
        vk.VK_ERROR_OUT_OF_HOST_MEMORY,
        vk.VK_ERROR_OUT_OF_POOL_MEMORY,
    ):
        raise OutOfMemoryError(
            f"{what}: no memory left ({result_name(result)}); close what is not needed"
        )
    if result == vk.VK_ERROR_DEVICE_LOST:
        raise DeviceLostError(f"{what}: the device was lost; open a new share manager")
    raise VulkanApiError(f"{what} failed with {result_name(result)}", result)


class Functions:
    """The functions of an instance or a device, by name, looked up once each.

    Args:
        get: `vkGetInstanceProcAddr` or `vkGetDeviceProcAddr`.
        owner: The instance or device.
    """

    def __init__(self, get: Any, owner: Any) -> None:
        self._get = get
        self._owner = owner

    def __getattr__(self, name: str) -> Any:
        pointer = self._get(self._owner, name.encode())
        if pointer == NULL:
            raise VulkanInitializationError(
                f"the Vulkan driver has no {name}; a newer driver is needed"
            )
        function = ffi.cast(f"PFN_{name}", pointer)
        setattr(self, name, function)
        return function

    def call(self, name: str, *arguments: Any) -> int:
        """Call one that returns a `VkResult`, and check that."""
        result: int = getattr(self, name)(*arguments)
        return result if result >= 0 else check(result, name)


@functools.cache
def global_functions() -> Functions:
    """Return the functions that need no instance."""
    return Functions(vk.lib.vkGetInstanceProcAddr, NULL)
