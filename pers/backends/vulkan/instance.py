"""The Vulkan instance, and which GPUs it finds."""

from __future__ import annotations

import os
from typing import Any

import attrs

from pers.backends.vulkan._ffi import (
    NULL,
    Functions,
    ffi,
    global_functions,
    result_name,
    struct,
    vk,
)
from pers.backends.vulkan._ffi import text as text_of
from pers.errors import VulkanInitializationError

__all__ = ["API_VERSION", "Instance", "PhysicalDevice"]

API_VERSION = (1 << 22) | (2 << 12)
"""Vulkan 1.2: external memory is part of 1.1, timeline semaphores of 1.2."""

NO_DRIVER = (
    "no Vulkan driver offers a device; on Debian and Ubuntu apt-get install mesa-vulkan-drivers, "
    "elsewhere install the GPU's driver"
)


@attrs.frozen
class PhysicalDevice:
    """A GPU, or a driver that stands in for one.

    Attributes:
        handle: The `VkPhysicalDevice`.
        name: As the driver calls it.
        kind: `VkPhysicalDeviceType`.
        api_version: The newest Vulkan that it knows.
        device_uuid: Which GPU, 16 bytes; the same in every process.
        driver_uuid: Which driver, 16 bytes.
        extensions: Names of its device extensions.
    """

    handle: Any
    name: str
    kind: int
    api_version: int
    device_uuid: bytes
    driver_uuid: bytes
    extensions: frozenset[str]

    @property
    def is_discrete(self) -> bool:
        """Whether it has memory of its own, which the CPU reaches over a bus."""
        return bool(self.kind == vk.VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU)

    def is_called(self, wanted: str) -> bool:
        """Whether `wanted` is part of its name, or its device UUID."""
        uuid = wanted.replace("-", "").lower()
        return wanted.lower() in self.name.lower() or uuid == self.device_uuid.hex()


class Instance:
    """A connection to the Vulkan loader.

    Raises:
        VulkanInitializationError: There is no driver.
    """

    def __init__(self) -> None:
        _keep_drivers()
        self.handle: Any = _create()
        self.fn = Functions(vk.lib.vkGetInstanceProcAddr, self.handle)

    def devices(self) -> list[PhysicalDevice]:
        """Return the devices of all drivers that know Vulkan 1.2, in the loader's order."""
        count = ffi.new("uint32_t *")
        self.fn.call("vkEnumeratePhysicalDevices", self.handle, count, NULL)
        handles = ffi.new("VkPhysicalDevice[]", max(count[0], 1))
        self.fn.call("vkEnumeratePhysicalDevices", self.handle, count, handles)
        found = [self._describe(handles[index]) for index in range(count[0])]
        return [device for device in found if device.api_version >= API_VERSION]

    def _describe(self, handle: Any) -> PhysicalDevice:
        identity = struct("VkPhysicalDeviceIDProperties")
        properties = struct("VkPhysicalDeviceProperties2", pNext=identity)
        self.fn.vkGetPhysicalDeviceProperties2(handle, properties)
        plain = properties.properties
        return PhysicalDevice(
            handle=handle,
            name=text_of(plain.deviceName),
            kind=int(plain.deviceType),
            api_version=int(plain.apiVersion),
            device_uuid=bytes(ffi.buffer(identity.deviceUUID)),
            driver_uuid=bytes(ffi.buffer(identity.driverUUID)),
            extensions=self._extensions(handle),
        )

    def _extensions(self, handle: Any) -> frozenset[str]:
        count = ffi.new("uint32_t *")
        name = "vkEnumerateDeviceExtensionProperties"
        self.fn.call(name, handle, NULL, count, NULL)
        properties = ffi.new("VkExtensionProperties[]", max(count[0], 1))
        self.fn.call(name, handle, NULL, count, properties)
        return frozenset(text_of(properties[index].extensionName) for index in range(count[0]))

    def destroy(self) -> None:
        """Let the drivers go; everything made from it is gone before."""
        self.fn.vkDestroyInstance(self.handle, NULL)


_kept: dict[tuple[str | None, ...], Any] = {}
CHOICE_OF_DRIVERS = ("VK_DRIVER_FILES", "VK_ADD_DRIVER_FILES", "VK_ICD_FILENAMES")


def _keep_drivers() -> None:
    """Make an instance that is never destroyed, once for each choice of drivers.

    With the last instance the loader unloads the drivers, and NVIDIA's (580) can be loaded only
    some sixty times in a process; after that there is no device any more.
    """
    choice = tuple(os.environ.get(name) for name in CHOICE_OF_DRIVERS)
    if choice not in _kept:
        _kept[choice] = _create()


def _create() -> Any:
    application = struct(
        "VkApplicationInfo", pApplicationName=b"pers", pEngineName=b"pers", apiVersion=API_VERSION
    )
    info = struct("VkInstanceCreateInfo", pApplicationInfo=application)
    out = ffi.new("VkInstance *")
    result = global_functions().vkCreateInstance(info, NULL, out)
    if result < 0:
        raise VulkanInitializationError(f"{NO_DRIVER} ({result_name(result)})")
    return out[0]
