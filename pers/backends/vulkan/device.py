"""The logical device: a GPU, its queue, and all that lives on it."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Protocol

from pers.backends.vulkan._exit import is_leaving
from pers.backends.vulkan._ffi import NULL, Functions, ffi, struct, vk
from pers.backends.vulkan.external import ExternalHandles, platform_handles
from pers.backends.vulkan.instance import NO_DRIVER, Instance, PhysicalDevice
from pers.backends.vulkan.submission import Submitter
from pers.errors import (
    DeviceLostError,
    DeviceMismatchError,
    OutOfMemoryError,
    VulkanInitializationError,
)

logger = logging.getLogger("pers.backends.vulkan")

__all__ = ["Gpu", "Resource", "choose_device"]

_PREFERENCE = (
    vk.VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU,
    vk.VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU,
    vk.VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU,
    vk.VK_PHYSICAL_DEVICE_TYPE_OTHER,
    vk.VK_PHYSICAL_DEVICE_TYPE_CPU,
)


class Resource(Protocol):
    """Something that the device destroys when it is closed."""

    def destroy(self) -> None:
        """Free it; the second time does nothing."""


def choose_device(devices: list[PhysicalDevice], wanted: str | None) -> PhysicalDevice:
    """Return the best GPU that can share memory, or the one that is wanted.

    Raises:
        VulkanInitializationError: There is none.
    """
    if not devices:
        raise VulkanInitializationError(f"{NO_DRIVER} (pers needs Vulkan 1.2)")
    names = ", ".join(repr(device.name) for device in devices)
    called = [device for device in devices if wanted is None or device.is_called(wanted)]
    if not called:
        raise VulkanInitializationError(f"no Vulkan device is called {wanted!r}; there are {names}")
    extension = platform_handles().memory_extension
    able = [device for device in called if extension in device.extensions]
    if not able:
        raise VulkanInitializationError(
            f"none of the Vulkan devices {names} has the extension {extension}, which sharing "
            "needs; a newer driver may have it"
        )
    return min(able, key=lambda device: _PREFERENCE.index(device.kind))


class Gpu:
    """A device with one queue. It is thread-safe.

    Args:
        wanted: Part of the GPU's name, or its device UUID; None takes the best.
        timeout_ns: How long `close` waits for the GPU.

    Raises:
        VulkanInitializationError: There is no such GPU, or it cannot share memory.
    """

    def __init__(self, wanted: str | None, timeout_ns: int) -> None:
        self._timeout_ns = timeout_ns
        self._instance = Instance()
        try:
            self.physical = choose_device(self._instance.devices(), wanted)
            kind = platform_handles()
            optional = (kind.semaphore_extension, kind.fence_extension)
            self.extensions = {
                name for name in optional if name is not None and name in self.physical.extensions
            } | {kind.memory_extension}
            self.family = self._choose_family()
            self.handle: Any = self._open()
        except BaseException:
            self._instance.destroy()
            raise
        self.fn = Functions(vk.lib.vkGetDeviceProcAddr, self.handle)
        queue = ffi.new("VkQueue *")
        self.fn.vkGetDeviceQueue(self.handle, self.family, 0, queue)
        self.queue: Any = queue[0]
        self.work = Submitter(self.fn, self.handle, self.queue, self.family)
        self.external: ExternalHandles = kind(self.fn, self.handle)
        self.memory_types = self._memory_types()
        self._live: weakref.WeakSet[Resource] = weakref.WeakSet()
        self._lock = threading.RLock()
        self._closed = False
        self._pins = 0
        self._torn_down = False

    @property
    def instance_fn(self) -> Functions:
        """The functions of the instance."""
        return self._instance.fn

    @property
    def instance(self) -> Any:
        """The `VkInstance`."""
        return self._instance.handle

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be made from it any more."""
        return self._closed

    def _choose_family(self) -> int:
        """Return a family of queues that copies depths too, so with graphics where possible."""
        count = ffi.new("uint32_t *")
        name = "vkGetPhysicalDeviceQueueFamilyProperties"
        get = getattr(self._instance.fn, name)
        get(self.physical.handle, count, NULL)
        families = ffi.new("VkQueueFamilyProperties[]", max(count[0], 1))
        get(self.physical.handle, count, families)
        for wanted in (vk.VK_QUEUE_GRAPHICS_BIT, vk.VK_QUEUE_COMPUTE_BIT):
            for index in range(count[0]):
                if families[index].queueFlags & wanted:
                    return index
        raise VulkanInitializationError(f"{self.physical.name!r} has no queue that can copy images")

    def _open(self) -> Any:
        queue = struct(
            "VkDeviceQueueCreateInfo",
            queueFamilyIndex=self.family,
            queueCount=1,
            pQueuePriorities=[1.0],
        )
        timelines = struct("VkPhysicalDeviceTimelineSemaphoreFeatures", timelineSemaphore=1)
        names = [name.encode() for name in sorted(self.extensions)]
        info = struct(
            "VkDeviceCreateInfo",
            pNext=timelines,
            queueCreateInfoCount=1,
            pQueueCreateInfos=queue,
            enabledExtensionCount=len(names),
            ppEnabledExtensionNames=names,
        )
        out = ffi.new("VkDevice *")
        self._instance.fn.call("vkCreateDevice", self.physical.handle, info, NULL, out)
        return out[0]

    def _memory_types(self) -> tuple[int, ...]:
        properties = ffi.new("VkPhysicalDeviceMemoryProperties *")
        self._instance.fn.vkGetPhysicalDeviceMemoryProperties(self.physical.handle, properties)
        return tuple(
            int(properties.memoryTypes[index].propertyFlags)
            for index in range(properties.memoryTypeCount)
        )

    def memory_type(self, allowed: int, *preferences: int) -> int:
        """Return the first allowed memory type with the first flags that one of them has.

        Args:
            allowed: `VkMemoryRequirements.memoryTypeBits`.
            preferences: `VkMemoryPropertyFlags`, the most wanted first.

        Raises:
            OutOfMemoryError: There is no such type.
        """
        for flags in preferences:
            for index, has in enumerate(self.memory_types):
                if allowed >> index & 1 and has & flags == flags:
                    return index
        raise OutOfMemoryError(
            f"{self.physical.name!r} has no memory of a type that is possible here "
            f"(types {allowed:#x}, flags {preferences})"
        )

    def register(self, resource: Resource) -> None:
        """Have something destroyed when the device is closed, or now if it has been.

        Raises:
            DeviceLostError: It has been.
        """
        with self._lock:
            if not self._closed:
                self._live.add(resource)
                return
        resource.destroy()
        self.check_open()

    def check_open(self) -> None:
        """Raise `DeviceLostError` after `close`."""
        if self._closed:
            raise DeviceLostError("the share manager is closed; open a new one")

    def check_origin(self, device_uuid: bytes, driver_uuid: bytes) -> None:
        """Refuse what another GPU or driver has exported, before a driver sees it.

        Some drivers take each other's handles, and read something else in them.

        Raises:
            DeviceMismatchError: The UUIDs are not those of this device.
        """
        own = self.physical
        if (device_uuid, driver_uuid) != (own.device_uuid, own.driver_uuid):
            raise DeviceMismatchError(
                f"the handle comes from the device {device_uuid.hex()} with the driver "
                f"{driver_uuid.hex()}, and this is {own.name!r}, device {own.device_uuid.hex()} "
                f"with the driver {own.driver_uuid.hex()}; open both sides on the same GPU and "
                "driver (VulkanTextureShareManager(device=...) chooses one)"
            )

    @contextmanager
    def in_use(self) -> Generator[None]:
        """Keep the device for the length of a call, although another thread may close it.

        Raises:
            DeviceLostError: It has been closed before.
        """
        with self._lock:
            self.check_open()
            self._pins += 1
        try:
            yield
        finally:
            self.unpin()

    def pin(self) -> None:
        """Keep the device until `unpin`, although it may be closed: an array shows its memory."""
        with self._lock:
            self._pins += 1

    def unpin(self) -> None:
        """Take one `pin` back."""
        with self._lock:
            self._pins -= 1
        self._tear_down()

    def close(self) -> None:
        """Destroy all that is left, then the device; the second time does nothing.

        What the GPU does not finish in time is leaked, not freed while it may be used.
        """
        with self._lock:
            if self._closed or is_leaving():
                return
            self._closed = True
            left = list(self._live)
        for resource in left:
            resource.destroy()
        self._tear_down()

    def _tear_down(self) -> None:
        with self._lock:
            if not self._closed or self._pins or self._torn_down:
                return
            self._torn_down = True
        if not self.work.close(self._timeout_ns):
            logger.warning(
                "%s did not finish its work in %.1f s, so the memory it uses is not freed; was a "
                "semaphore that it waits for never signalled?",
                self.physical.name,
                self._timeout_ns / 1e9,
            )
            return
        self.fn.vkDestroyDevice(self.handle, NULL)
        self._instance.destroy()
