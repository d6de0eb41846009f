"""Shared textures: images in memory that other processes can open."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from pers.backends.vulkan._ffi import NULL, check, ffi, struct, vk
from pers.backends.vulkan.device import Gpu
from pers.backends.vulkan.formats import aspects_of, image_usage, to_vk_format
from pers.backends.vulkan.memory import (
    Allocation,
    allocate_exportable,
    export_allocation,
    import_allocation,
)
from pers.backends.vulkan.resource import ALL_COMMANDS, Sharing, VulkanResource
from pers.errors import InvalidTextureHandleError, OperationNotSupportedError
from pers.graphics.types import TextureDescriptor
from pers.sharing.handles import OwnedFd, TextureHandle, VulkanTextureHandle, Win32TextureHandle
from pers.sharing.native import NativeTexture

__all__ = ["ImageFacts", "VulkanImage", "create_image", "facts_of", "import_image", "why_not"]

GENERAL = vk.VK_IMAGE_LAYOUT_GENERAL
TRANSFERS = vk.VK_IMAGE_USAGE_TRANSFER_SRC_BIT | vk.VK_IMAGE_USAGE_TRANSFER_DST_BIT
KNOWN_USAGES = (
    TRANSFERS
    | vk.VK_IMAGE_USAGE_SAMPLED_BIT
    | vk.VK_IMAGE_USAGE_STORAGE_BIT
    | vk.VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT
    | vk.VK_IMAGE_USAGE_DEPTH_STENCIL_ATTACHMENT_BIT
    | vk.VK_IMAGE_USAGE_INPUT_ATTACHMENT_BIT
)
# The package `vulkan` has these two as None.
EXTENDED_USAGE, ALIAS = 0x100, 0x400
KNOWN_FLAGS = (
    vk.VK_IMAGE_CREATE_MUTABLE_FORMAT_BIT
    | vk.VK_IMAGE_CREATE_CUBE_COMPATIBLE_BIT
    | EXTENDED_USAGE
    | ALIAS
)


@attrs.frozen
class ImageFacts:
    """What an image is made with; both sides need the same.

    Attributes:
        format: `VkFormat`.
        usage: `VkImageUsageFlags`.
        flags: `VkImageCreateFlags`.
        tiling: `VkImageTiling`.
    """

    format: int
    usage: int
    flags: int
    tiling: int = vk.VK_IMAGE_TILING_OPTIMAL


def facts_of(descriptor: TextureDescriptor) -> ImageFacts:
    """Return what an image for a descriptor is made with."""
    # So that a view without the conversion is possible. Not for all: it can cost compression.
    flags = vk.VK_IMAGE_CREATE_MUTABLE_FORMAT_BIT if descriptor.format.is_srgb else 0
    return ImageFacts(
        to_vk_format(descriptor.format), image_usage(descriptor.format, descriptor.usage), flags
    )


def why_not(gpu: Gpu, facts: ImageFacts, descriptor: TextureDescriptor) -> str | None:
    """Return why the driver cannot share an image like this, or None if it can."""
    handle_type = gpu.external.memory_type
    external = struct("VkPhysicalDeviceExternalImageFormatInfo", handleType=handle_type)
    info = struct(
        "VkPhysicalDeviceImageFormatInfo2",
        pNext=external,
        format=facts.format,
        type=vk.VK_IMAGE_TYPE_2D,
        tiling=facts.tiling,
        usage=facts.usage,
        flags=facts.flags,
    )
    answer = struct("VkExternalImageFormatProperties")
    out = struct("VkImageFormatProperties2", pNext=answer)
    ask = gpu.instance_fn.vkGetPhysicalDeviceImageFormatProperties2
    result = ask(gpu.physical.handle, info, out)
    if result == vk.VK_ERROR_FORMAT_NOT_SUPPORTED:
        return "the driver has no image of this format and usage that can be shared"
    check(result, "vkGetPhysicalDeviceImageFormatProperties2")
    features = answer.externalMemoryProperties.externalMemoryFeatures
    needed = (
        vk.VK_EXTERNAL_MEMORY_FEATURE_EXPORTABLE_BIT | vk.VK_EXTERNAL_MEMORY_FEATURE_IMPORTABLE_BIT
    )
    if features & needed != needed:
        return "the driver cannot both export and import images of this format and usage"
    limits = out.imageFormatProperties
    size = limits.maxExtent
    if (
        max(descriptor.width / size.width, descriptor.height / size.height) > 1
        or descriptor.layers > limits.maxArrayLayers
        or descriptor.mip_levels > limits.maxMipLevels
    ):
        return (
            f"the driver shares at most {size.width}x{size.height} pixels, {limits.maxArrayLayers} "
            f"layers and {limits.maxMipLevels} mip levels of this format and usage"
        )
    return None


def _check_possible(gpu: Gpu, facts: ImageFacts, descriptor: TextureDescriptor) -> None:
    name = f"texture {descriptor.label!r} ({descriptor.format.value}, {descriptor.usage!r})"
    if not descriptor.format.is_copyable:
        raise OperationNotSupportedError(
            f"{name} cannot be shared: its pixels cannot be copied as a whole (WebGPU §26.1.2); "
            "use depth32float"
        )
    if descriptor.sample_count != 1:
        raise OperationNotSupportedError(
            f"{name} cannot be shared with {descriptor.sample_count} samples a pixel; resolve it "
            "into one with one sample"
        )
    reason = why_not(gpu, facts, descriptor)
    if reason is not None:
        raise OperationNotSupportedError(f"{name} cannot be shared: {reason}")


def _create(gpu: Gpu, facts: ImageFacts, descriptor: TextureDescriptor) -> Any:
    """Return a new `VkImage`, without memory."""
    external = struct("VkExternalMemoryImageCreateInfo", handleTypes=gpu.external.memory_type)
    info = struct(
        "VkImageCreateInfo",
        pNext=external,
        flags=facts.flags,
        imageType=vk.VK_IMAGE_TYPE_2D,
        format=facts.format,
        extent=struct("VkExtent3D", width=descriptor.width, height=descriptor.height, depth=1),
        mipLevels=descriptor.mip_levels,
        arrayLayers=descriptor.layers,
        samples=vk.VK_SAMPLE_COUNT_1_BIT,
        tiling=facts.tiling,
        usage=facts.usage,
        sharingMode=vk.VK_SHARING_MODE_EXCLUSIVE,
        initialLayout=vk.VK_IMAGE_LAYOUT_UNDEFINED,
    )
    out = ffi.new("VkImage *")
    gpu.fn.call("vkCreateImage", gpu.handle, info, NULL, out)
    return out[0]


def _requirements(gpu: Gpu, image: Any) -> Any:
    out = ffi.new("VkMemoryRequirements *")
    gpu.fn.vkGetImageMemoryRequirements(gpu.handle, image, out)
    return out


def create_image(sharing: Sharing, descriptor: TextureDescriptor) -> VulkanImage:
    """Make a texture, all zeros, that can be exported.

    Raises:
        OperationNotSupportedError: The driver cannot share such a texture.
        OutOfMemoryError: There is no memory for it.
    """
    gpu, facts = sharing.gpu, facts_of(descriptor)
    _check_possible(gpu, facts, descriptor)
    image = _create(gpu, facts, descriptor)
    try:
        preferences = (vk.VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT, 0)
        allocation = allocate_exportable(gpu, _requirements(gpu, image), preferences, image=image)
        gpu.fn.call("vkBindImageMemory", gpu.handle, image, allocation.handle, 0)
    except BaseException:
        gpu.fn.vkDestroyImage(gpu.handle, image, NULL)
        raise
    texture = VulkanImage(sharing, allocation, image, facts, descriptor)
    del allocation  # so that it ends with the texture, whatever keeps this frame
    texture.clear_new()
    gpu.register(texture)
    return texture


def import_image(
    sharing: Sharing, handle: TextureHandle, descriptor: TextureDescriptor
) -> VulkanImage:
    """Open the texture that a handle stands for; the handle stays the caller's.

    Raises:
        InvalidTextureHandleError: The handle does not fit this backend or the descriptor.
        DeviceMismatchError: It comes from another GPU or driver.
        OperationNotSupportedError: The driver cannot share such a texture.
    """
    gpu = sharing.gpu
    if not isinstance(handle, (VulkanTextureHandle, Win32TextureHandle)):
        raise InvalidTextureHandleError(
            f"a {type(handle).__name__} is no handle of the vulkan backend; import it with the "
            "manager of the backend that exported it"
        )
    gpu.check_origin(handle.device_uuid, handle.driver_uuid)
    facts = _checked_facts(gpu, handle, descriptor)
    _check_possible(gpu, facts, descriptor)
    image = _create(gpu, facts, descriptor)
    try:
        allocation = import_allocation(
            gpu,
            handle.fd.fileno() if isinstance(handle, VulkanTextureHandle) else handle.handle,
            handle.size,
            handle.memory_type,
            _requirements(gpu, image),
            dedicated=handle.dedicated,
            image=image,
        )
        gpu.fn.call("vkBindImageMemory", gpu.handle, image, allocation.handle, 0)
    except BaseException:
        gpu.fn.vkDestroyImage(gpu.handle, image, NULL)
        raise
    texture = VulkanImage(sharing, allocation, image, facts, descriptor)
    del allocation  # so that it ends with the texture, whatever keeps this frame
    gpu.register(texture)
    return texture


def _checked_facts(
    gpu: Gpu, handle: VulkanTextureHandle | Win32TextureHandle, descriptor: TextureDescriptor
) -> ImageFacts:
    """Return how the image was made, if the handle says something possible."""
    wrong = None
    if handle.handle_type != gpu.external.memory_type:
        wrong = f"a handle of type {handle.handle_type:#x}, not {gpu.external.memory_type:#x}"
    elif handle.layout != GENERAL:
        wrong = f"an image in layout {handle.layout}, not VK_IMAGE_LAYOUT_GENERAL"
    elif handle.tiling not in (vk.VK_IMAGE_TILING_OPTIMAL, vk.VK_IMAGE_TILING_LINEAR):
        wrong = f"an unknown tiling {handle.tiling}"
    elif handle.create_flags & ~KNOWN_FLAGS:
        wrong = f"unknown create flags {handle.create_flags & ~KNOWN_FLAGS:#x}"
    elif handle.image_usage & ~KNOWN_USAGES:
        wrong = f"unknown usages {handle.image_usage & ~KNOWN_USAGES:#x}"
    elif handle.image_usage & TRANSFERS != TRANSFERS:
        wrong = "an image that cannot be copied"
    elif facts_of(descriptor).usage & ~handle.image_usage:
        wrong = f"an image without the usage {descriptor.usage!r} of the descriptor"
    if wrong is not None:
        raise InvalidTextureHandleError(
            f"texture {descriptor.label!r}: the handle says {wrong}; "
            "the other side must send the handle that it exported"
        )
    number = to_vk_format(descriptor.format)
    return ImageFacts(number, handle.image_usage, handle.create_flags, handle.tiling)


class VulkanImage(VulkanResource, NativeTexture):
    """An image in memory of its own.

    Args:
        sharing: What it needs of its device.
        allocation: Its memory, bound.
        image: The `VkImage`, which this object destroys.
        facts: What it was made with.
        descriptor: What it was asked for as.
    """

    def __init__(
        self,
        sharing: Sharing,
        allocation: Allocation,
        image: Any,
        facts: ImageFacts,
        descriptor: TextureDescriptor,
    ) -> None:
        self._image = image
        self._facts = facts
        self._descriptor = descriptor
        self._aspects = aspects_of(descriptor.format)
        self._regions: dict[tuple[int, int], Any] = {}
        super().__init__(sharing, allocation, f"texture {descriptor.label!r}")

    @property
    def native_handle(self) -> Any:
        """The `VkImage`, in layout GENERAL for what is submitted after this."""
        self._open_for_others()
        return self._image

    def export(self, control: OwnedFd) -> TextureHandle:
        memory, own, facts = self._memory_to_export(), self._gpu.physical, self._facts
        number = export_allocation(self._gpu, memory)
        numbers = (
            memory.size,
            memory.memory_type,
            self._gpu.external.memory_type,
            memory.dedicated,
            own.device_uuid,
            own.driver_uuid,
            GENERAL,
            facts.flags,
            facts.usage,
            facts.tiling,
        )
        if self._gpu.external.name == "opaque_win32":
            control.close()  # a Windows handle has no control page
            return Win32TextureHandle(number, *numbers)
        return VulkanTextureHandle(OwnedFd(number), *numbers, control)

    def upload(self, pixels: npt.NDArray[np.uint8], layer: int, mip_level: int) -> None:
        block = self._staged(pixels.nbytes)
        block.bytes[: pixels.nbytes] = pixels
        commands = self._record_copy()
        region = self._region(layer, mip_level)
        self._gpu.fn.vkCmdCopyBufferToImage(commands, block.buffer, self._image, GENERAL, 1, region)

    def download(self, out: npt.NDArray[np.uint8], layer: int, mip_level: int) -> None:
        block = self._staged(out.nbytes)
        commands = self._record_copy()
        region = self._region(layer, mip_level)
        self._gpu.fn.vkCmdCopyImageToBuffer(commands, self._image, GENERAL, block.buffer, 1, region)
        self._fetch(block, out)

    def clear_new(self) -> None:
        """Fill the new image with zeros and give it to the other side."""
        self._hand_over_new(self._record_clear)

    def _record_clear(self, commands: Any) -> None:
        fn, ranges = self._gpu.fn, self._whole()
        ignored = vk.VK_QUEUE_FAMILY_IGNORED
        barrier = self._image_barrier(ignored, ignored, 0, vk.VK_ACCESS_TRANSFER_WRITE_BIT)
        barrier.oldLayout = vk.VK_IMAGE_LAYOUT_UNDEFINED
        self._record_ownership(commands, barrier)
        if self._descriptor.format.is_depth:
            zero = ffi.new("VkClearDepthStencilValue *")
            fn.vkCmdClearDepthStencilImage(commands, self._image, GENERAL, zero, 1, ranges)
        else:
            zero = ffi.new("VkClearColorValue *")
            fn.vkCmdClearColorImage(commands, self._image, GENERAL, zero, 1, ranges)

    def _whole(self) -> Any:
        return struct(
            "VkImageSubresourceRange",
            aspectMask=self._aspects,
            levelCount=self._descriptor.mip_levels,
            layerCount=self._descriptor.layers,
        )

    def _region(self, layer: int, mip_level: int) -> Any:
        region = self._regions.get((layer, mip_level))
        if region is None:
            region = self._regions[layer, mip_level] = self._make_region(layer, mip_level)
        return region

    def _make_region(self, layer: int, mip_level: int) -> Any:
        descriptor = self._descriptor
        return struct(
            "VkBufferImageCopy",
            imageSubresource=struct(
                "VkImageSubresourceLayers",
                aspectMask=self._aspects,
                mipLevel=mip_level,
                baseArrayLayer=layer,
                layerCount=1,
            ),
            imageExtent=struct(
                "VkExtent3D",
                width=max(descriptor.width >> mip_level, 1),
                height=max(descriptor.height >> mip_level, 1),
                depth=1,
            ),
        )

    def _image_barrier(self, source: int, target: int, before: int, after: int) -> Any:
        return struct(
            "VkImageMemoryBarrier",
            srcAccessMask=before,
            dstAccessMask=after,
            oldLayout=GENERAL,
            newLayout=GENERAL,
            srcQueueFamilyIndex=source,
            dstQueueFamilyIndex=target,
            image=self._image,
            subresourceRange=self._whole(),
        )

    def _ownership(self, source: int, target: int, before: int, after: int) -> Any:
        return self._image_barrier(source, target, before, after)

    def _record_ownership(self, commands: Any, barrier: Any) -> None:
        self._gpu.fn.vkCmdPipelineBarrier(
            commands, ALL_COMMANDS, ALL_COMMANDS, 0, 0, NULL, 0, NULL, 1, barrier
        )

    def _destroy_object(self) -> None:
        self._gpu.fn.vkDestroyImage(self._gpu.handle, self._image, NULL)
