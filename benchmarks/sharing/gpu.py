"""Makes and takes frames on the GPU, with Vulkan commands of its own.

The commands are those of a program that has its pictures on the GPU already: copies from one image
to another. For a way that goes over the CPU the picture is copied to mapped memory and from there
to the way's memory, and at the other end the same in reverse: one copy by the GPU and one by the
CPU on each side, which is the least that such a way can do.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np

from benchmarks.payload import expect_equal
from benchmarks.sharing.managers import TIMEOUT_NS, describe
from benchmarks.sharing.pictures import (
    NOISES,
    Pictures,
    Pixels,
    Target,
    expect_stamps,
    stamp_places,
)
from pers import TextureAccess, VulkanTextureShareManager
from pers.backends.vulkan._ffi import NULL, Functions, ffi, struct, vk

__all__ = ["GpuPictures"]

GENERAL = vk.VK_IMAGE_LAYOUT_GENERAL
ALL_COMMANDS = vk.VK_PIPELINE_STAGE_ALL_COMMANDS_BIT
STAMPS = 3


class Mapped:
    """A buffer in memory that the CPU sees, cached where there is such memory."""

    def __init__(self, manager: VulkanTextureShareManager, fn: Functions, size: int) -> None:
        objects = manager.vulkan
        self._fn, self._device = fn, objects.device
        usage = vk.VK_BUFFER_USAGE_TRANSFER_SRC_BIT | vk.VK_BUFFER_USAGE_TRANSFER_DST_BIT
        buffer, memory = ffi.new("VkBuffer *"), ffi.new("VkDeviceMemory *")
        info = struct("VkBufferCreateInfo", size=size, usage=usage)
        fn.call("vkCreateBuffer", self._device, info, NULL, buffer)
        self.buffer: Any = buffer[0]
        needs = ffi.new("VkMemoryRequirements *")
        fn.vkGetBufferMemoryRequirements(self._device, self.buffer, needs)
        instance = Functions(vk.lib.vkGetInstanceProcAddr, objects.instance)
        allocate = struct(
            "VkMemoryAllocateInfo",
            allocationSize=needs.size,
            memoryTypeIndex=_memory_type(instance, objects.physical_device, needs.memoryTypeBits),
        )
        fn.call("vkAllocateMemory", self._device, allocate, NULL, memory)
        self._memory = memory[0]
        fn.call("vkBindBufferMemory", self._device, self.buffer, self._memory, 0)
        address = ffi.new("void **")
        fn.call("vkMapMemory", self._device, self._memory, 0, 2**64 - 1, 0, address)
        self.bytes: Pixels = np.frombuffer(ffi.buffer(address[0], size), np.uint8)

    def close(self) -> None:
        """Free it; the GPU is done with it."""
        self._fn.vkDestroyBuffer(self._device, self.buffer, NULL)
        self._fn.vkFreeMemory(self._device, self._memory, NULL)


def _memory_type(instance: Functions, physical_device: Any, allowed: int) -> int:
    found = ffi.new("VkPhysicalDeviceMemoryProperties *")
    instance.vkGetPhysicalDeviceMemoryProperties(physical_device, found)
    coherent = vk.VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | vk.VK_MEMORY_PROPERTY_HOST_COHERENT_BIT
    for wanted in (coherent | vk.VK_MEMORY_PROPERTY_HOST_CACHED_BIT, coherent):
        for index in range(found.memoryTypeCount):
            if allowed >> index & 1 and found.memoryTypes[index].propertyFlags & wanted == wanted:
                return index
    raise OSError("this GPU has no memory that the CPU sees")


class GpuPictures:
    """Makes frames from pictures that are on the GPU, or takes them to an image there.

    Args:
        manager: Whose device and queue it uses; the frames' textures have to be of it, too.
        width: Pixels in a row.
        height: Rows.
    """

    def __init__(self, manager: VulkanTextureShareManager, width: int, height: int) -> None:
        self._pictures = Pictures(width, height)
        self._objects = manager.vulkan
        self._fn = Functions(vk.lib.vkGetDeviceProcAddr, self._objects.device)
        self._size = width, height
        self._stack = ExitStack()
        self._begin = self._barrier_of(vk.VK_ACCESS_MEMORY_WRITE_BIT, vk.VK_ACCESS_MEMORY_READ_BIT
                                       | vk.VK_ACCESS_MEMORY_WRITE_BIT)  # fmt: skip
        self._to_host = self._barrier_of(
            vk.VK_ACCESS_TRANSFER_WRITE_BIT, vk.VK_ACCESS_HOST_READ_BIT
        )
        self._whole_copy = struct(
            "VkImageCopy",
            srcSubresource=_layers(),
            dstSubresource=_layers(),
            extent=struct("VkExtent3D", width=width, height=height, depth=1),
        )
        self._whole = _buffer_copies([(0, 0, width, height)])
        self._points = _buffer_copies([(x, y, 1, 1) for x, y in stamp_places(width, height)])
        try:
            self._make_commands()
            self._stamps = self._mapped(manager, 4 * STAMPS)
            self._staging = self._mapped(manager, width * height * 4)
            self.staged: Pixels = self._staging.bytes.reshape(height, width, 4)
            self._noises = [
                self._image(manager, self._pictures.of(number)) for number in range(NOISES)
            ]
            self._own = self._image(manager, np.zeros((height, width, 4), np.uint8))
        except BaseException:
            self._stack.close()
            raise

    # --- Making -----------------------------------------------------------------------------------

    def make(self, target: Target, number: int) -> None:
        """Copy a picture to the frame on the GPU, and its number; by way of the CPU if need be."""
        if isinstance(target, TextureAccess):
            self._run(lambda commands: self._paint(commands, target.native_handle, number), number)
            return

        def paint_and_read(commands: Any) -> None:
            self._paint(commands, self._own, number)
            self._wait_for_all(commands)
            self._fn.vkCmdCopyImageToBuffer(
                commands, self._own, GENERAL, self._staging.buffer, 1, self._whole
            )
            self._show_host(commands)

        self._run(paint_and_read, number)
        self.finish()
        np.copyto(target, self.staged)

    def _paint(self, commands: Any, image: Any, number: int) -> None:
        fn = self._fn
        noise = self._noises[number % NOISES]
        fn.vkCmdCopyImage(commands, noise, GENERAL, image, GENERAL, 1, self._whole_copy)
        self._wait_for_all(commands)
        fn.vkCmdCopyBufferToImage(
            commands, self._stamps.buffer, image, GENERAL, STAMPS, self._points
        )

    # --- Taking -----------------------------------------------------------------------------------

    def take(self, source: Target) -> None:
        """Copy a frame to an image of one's own; by way of the CPU if need be."""
        if isinstance(source, TextureAccess):
            image = source.native_handle

            def copy(commands: Any) -> None:
                self._fn.vkCmdCopyImage(
                    commands, image, GENERAL, self._own, GENERAL, 1, self._whole_copy
                )
                self._read_stamps(commands)

            self._run(copy)
            return
        np.copyto(self.staged, source)

        def upload(commands: Any) -> None:
            self._fn.vkCmdCopyBufferToImage(
                commands, self._staging.buffer, self._own, GENERAL, 1, self._whole
            )
            self._read_stamps(commands)

        self._run(upload)

    def _read_stamps(self, commands: Any) -> None:
        self._wait_for_all(commands)
        self._fn.vkCmdCopyImageToBuffer(
            commands, self._own, GENERAL, self._stamps.buffer, STAMPS, self._points
        )
        self._show_host(commands)

    def check_stamps(self, number: int) -> None:
        """Compare three pixels of one's own image."""
        found = [int(each) for each in self._stamps.bytes.view(np.uint32)]
        expect_stamps(found, number)

    def check_whole(self, number: int) -> None:
        """Compare every pixel of one's own image."""

        def read(commands: Any) -> None:
            self._fn.vkCmdCopyImageToBuffer(
                commands, self._own, GENERAL, self._staging.buffer, 1, self._whole
            )
            self._show_host(commands)

        self._run(read)
        self.finish()
        expect_equal(self.staged, self._pictures.of(number))

    # --- Commands ---------------------------------------------------------------------------------

    def _run(self, record: Callable[[Any], None], number: int | None = None) -> None:
        """Submit commands, once those before are done; with the number of a frame to be made."""
        self.finish()
        if number is not None:
            self._stamps.bytes.view(np.uint32)[:] = number
        fn, commands = self._fn, self._commands
        once = struct(
            "VkCommandBufferBeginInfo", flags=vk.VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT
        )
        fn.call("vkResetCommandPool", self._objects.device, self._pool, 0)
        fn.call("vkBeginCommandBuffer", commands, once)
        self._wait_for_all(commands)
        record(commands)
        fn.call("vkEndCommandBuffer", commands)
        fn.call("vkResetFences", self._objects.device, 1, self._fence)
        with self._objects.queue_lock:
            fn.call("vkQueueSubmit", self._objects.queue, 1, self._submission, self._fence[0])
        self._is_busy = True

    def finish(self) -> None:
        """Wait for what was submitted."""
        if self._is_busy:
            result = self._fn.call(
                "vkWaitForFences", self._objects.device, 1, self._fence, 1, TIMEOUT_NS
            )
            if result != vk.VK_SUCCESS:
                raise TimeoutError("the GPU is not done")
            self._is_busy = False

    def _wait_for_all(self, commands: Any) -> None:
        self._fn.vkCmdPipelineBarrier(
            commands, ALL_COMMANDS, ALL_COMMANDS, 0, 1, self._begin, 0, NULL, 0, NULL
        )

    def _show_host(self, commands: Any) -> None:
        self._fn.vkCmdPipelineBarrier(
            commands, ALL_COMMANDS, vk.VK_PIPELINE_STAGE_HOST_BIT,
            0, 1, self._to_host, 0, NULL, 0, NULL,
        )  # fmt: skip

    # --- Making and freeing -----------------------------------------------------------------------

    def _barrier_of(self, before: int, after: int) -> Any:
        return struct("VkMemoryBarrier", srcAccessMask=before, dstAccessMask=after)

    def _make_commands(self) -> None:
        fn, device = self._fn, self._objects.device
        pool, fence, commands = (
            ffi.new(f"{name} *") for name in ("VkCommandPool", "VkFence", "VkCommandBuffer")
        )
        info = struct("VkCommandPoolCreateInfo", queueFamilyIndex=self._objects.queue_family)
        fn.call("vkCreateCommandPool", device, info, NULL, pool)
        self._pool = pool[0]
        self._stack.callback(lambda: fn.vkDestroyCommandPool(device, pool[0], NULL))
        info = struct(
            "VkCommandBufferAllocateInfo", commandPool=pool[0], commandBufferCount=1,
            level=vk.VK_COMMAND_BUFFER_LEVEL_PRIMARY,
        )  # fmt: skip
        fn.call("vkAllocateCommandBuffers", device, info, commands)
        self._commands = commands[0]
        fn.call("vkCreateFence", device, struct("VkFenceCreateInfo"), NULL, fence)
        self._fence = fence
        self._stack.callback(lambda: fn.vkDestroyFence(device, fence[0], NULL))
        self._submission = struct("VkSubmitInfo", commandBufferCount=1, pCommandBuffers=commands)
        self._is_busy = False

    def _mapped(self, manager: VulkanTextureShareManager, size: int) -> Mapped:
        mapped = Mapped(manager, self._fn, size)
        self._stack.callback(mapped.close)
        return mapped

    def _image(self, manager: VulkanTextureShareManager, pixels: Pixels) -> Any:
        """Return an image with these pixels, which stays this device's own until `close`."""
        texture = self._stack.enter_context(manager.create_shareable_texture(describe(*self._size)))
        view = self._stack.enter_context(texture.access(write=True))
        view.upload(pixels)
        return view.native_handle

    def close(self) -> None:
        """Free everything, once the GPU is done."""
        self.finish()
        self._stack.close()


def _layers() -> Any:
    return struct("VkImageSubresourceLayers", aspectMask=vk.VK_IMAGE_ASPECT_COLOR_BIT, layerCount=1)


def _buffer_copies(places: list[tuple[int, int, int, int]]) -> Any:
    """Return the regions of a copy between a buffer, without gaps, and rectangles of an image."""
    found = ffi.new("VkBufferImageCopy[]", len(places))
    start = 0
    for region, (x, y, width, height) in zip(found, places, strict=True):
        region.bufferOffset = start
        region.imageSubresource = _layers()[0]
        region.imageOffset.x, region.imageOffset.y = x, y
        region.imageExtent.width, region.imageExtent.height = width, height
        region.imageExtent.depth = 1
        start += width * height * 4
    return found
