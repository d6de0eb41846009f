"""Vulkan: textures and buffers that other processes and APIs can open, on a device of its own."""

from pers.backends.vulkan.manager import VulkanObjects, VulkanTextureShareManager

__all__ = ["VulkanObjects", "VulkanTextureShareManager"]
