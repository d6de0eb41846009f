"""Vulkan: textures and buffers that other processes and APIs can open, on a device of its own."""
