"""A cross-section of all that the vulkan backend does, to be watched by the validation layer.

``clean`` does nothing wrong; ``hazard`` copies twice to the same pixels without a barrier between,
and ``invalid`` makes a buffer of no bytes: what watches has to report both.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from pers import TextureFormat, TextureUsage, VulkanTextureShareManager
from pers.backends.vulkan._ffi import NULL, ffi, struct
from tests.sharing.support import describe, picture

PLACES = [(layer, level) for layer in range(2) for level in range(3)]


def textures(one: VulkanTextureShareManager, other: VulkanTextureShareManager) -> None:
    for number, texture_format in enumerate(sorted(one.capabilities.formats, key=str)):
        descriptor = describe(13, 7, texture_format, layers=2, mip_levels=3)
        here = one.create_shareable_texture(descriptor)
        with one.export_texture(here) as handle:
            there = other.import_texture(handle, descriptor)
        for writer, reader in ((here, there), (there, here)):
            with writer.access(write=True) as view:
                for layer, level in PLACES:
                    pixels = picture(descriptor, number + layer, level)
                    view.upload(pixels, layer=layer, mip_level=level)
                assert view.native_handle
                view.upload(picture(descriptor, number))
                view.download()
            with reader.access() as view, reader.access() as second:
                np.testing.assert_array_equal(view.download(), picture(descriptor, number))
                second.download(layer=1, mip_level=2)
        with there.access(write=True):
            pass
        if number % 2:
            here.close()


def usages(manager: VulkanTextureShareManager) -> None:
    from pers import OperationNotSupportedError, TextureDescriptor

    for texture_format in manager.capabilities.formats:
        for usage in TextureUsage:
            try:
                manager.create_shareable_texture(TextureDescriptor(9, 9, texture_format, usage))
            except OperationNotSupportedError:
                continue


def buffers(one: VulkanTextureShareManager, other: VulkanTextureShareManager) -> None:
    here = one.create_shareable_buffer(1001)
    mapped = not one._gpu.physical.is_discrete
    with one.export_buffer(here) as handle:
        there = other.import_buffer(handle)
    for writer, reader in ((here, there), (there, here)):
        with writer.access(write=True) as view:
            view.upload(np.ones(100, np.uint8), offset=3)
            view.upload(np.zeros(100, np.uint8), offset=3)
            if mapped:
                view.as_array()[:10] = 5
                assert view.download(size=10).sum() == 50
        with reader.access() as view:
            view.download(offset=1, size=7)
            if mapped:
                assert view.as_array()[0] == 5


def semaphores(one: VulkanTextureShareManager, other: VulkanTextureShareManager) -> None:
    here = one.create_shareable_texture(describe())
    with one.export_texture(here) as handle:
        there = other.import_texture(handle, describe())
    for kind in one.capabilities.semaphores:
        ready = one.create_semaphore(kind)
        with one.export_semaphore(ready) as handle:
            seen = other.import_semaphore(handle)
        signal: Any = ready if kind == "binary" else (ready, 3)
        wait: Any = seen if kind == "binary" else (seen, 3)
        for number in range(3):
            if kind == "timeline":
                signal, wait = (ready, number + 1), (seen, number + 1)
            with here.access(write=True, signal=[signal]) as view:
                view.upload(picture(describe(), number))
            with there.access(wait=[wait]) as view:
                np.testing.assert_array_equal(view.download(), picture(describe(), number))
    if one.capabilities.fences:
        fence = one.create_fence()
        with here.access(signal=[fence]):
            pass
        fence.wait(10_000_000_000)


def mistake(manager: VulkanTextureShareManager, kind: str) -> None:
    if kind == "hazard":
        texture: Any = manager.create_shareable_texture(describe())
        with texture.access(write=True) as view:
            view.upload(picture(describe(), 1))
            texture.native._settled = True  # leaves the barrier out
            view.upload(picture(describe(), 2))
    if kind == "invalid":
        objects = manager.vulkan
        info = struct("VkBufferCreateInfo", size=0, usage=1)
        out = ffi.new("VkBuffer *")
        manager._gpu.fn.vkCreateBuffer(objects.device, info, NULL, out)
        manager._gpu.fn.vkDestroyBuffer(objects.device, out[0], NULL)


def main() -> None:
    with VulkanTextureShareManager() as one, VulkanTextureShareManager() as other:
        assert TextureFormat.RGBA8_UNORM in one.capabilities.formats
        if sys.argv[1] != "clean":
            mistake(one, sys.argv[1])
            return
        textures(one, other)
        usages(one)
        buffers(one, other)
        semaphores(one, other)
    print("tour done")


if __name__ == "__main__":
    main()
