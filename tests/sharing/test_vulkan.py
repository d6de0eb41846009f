"""The Vulkan share manager, on every software driver that is installed."""

from __future__ import annotations

import ast
import gc
import importlib.util
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from pers import (
    DeviceLostError,
    DeviceMismatchError,
    InvalidTextureHandleError,
    OperationNotSupportedError,
    OutOfMemoryError,
    TextureAccessError,
    TextureDescriptor,
    TextureFormat,
    TextureUsage,
    VulkanApiError,
    VulkanInitializationError,
    VulkanTextureShareManager,
    open_share_manager,
)
from pers.backends.vulkan import _ffi, device, external, formats, image
from pers.backends.vulkan._ffi import NULL, check, ffi, struct, vk
from pers.backends.vulkan.instance import PhysicalDevice
from pers.sharing.control import create_memory
from pers.sharing.handles import OwnedFd
from tests.sharing.support import describe, linux, open_fds, picture
from tests.sharing.vulkan_drivers import ROOT, assert_holds, open_on, shared, write

# --- The seam -------------------------------------------------------------------------------------


def test_results_have_names() -> None:
    with pytest.raises(VulkanApiError, match="vkThing failed with VK_ERROR_FEATURE_NOT") as caught:
        check(vk.VK_ERROR_FEATURE_NOT_PRESENT, "vkThing")
    assert caught.value.result == vk.VK_ERROR_FEATURE_NOT_PRESENT
    with pytest.raises(VulkanApiError, match="VK_ERROR_INVALID_EXTERNAL_HANDLE"):
        check(-1000072003, "vkAllocateMemory")  # the package's wrappers raise KeyError
    with pytest.raises(VulkanApiError, match="VkResult -123456"):
        check(-123456, "vkThing")
    for result in (vk.VK_ERROR_OUT_OF_DEVICE_MEMORY, vk.VK_ERROR_OUT_OF_HOST_MEMORY):
        with pytest.raises(OutOfMemoryError, match="close what is not needed"):
            check(result, "vkAllocateMemory")
    with pytest.raises(DeviceLostError, match="open a new share manager"):
        check(vk.VK_ERROR_DEVICE_LOST, "vkQueueSubmit")
    assert check(vk.VK_TIMEOUT, "vkWaitSemaphores") == vk.VK_TIMEOUT


def test_structs_keep_what_they_point_to() -> None:
    made = struct(
        "VkDeviceCreateInfo",
        pNext=struct("VkPhysicalDeviceTimelineSemaphoreFeatures", timelineSemaphore=1),
        pQueueCreateInfos=[struct("VkDeviceQueueCreateInfo", pQueuePriorities=[0.25])],
        ppEnabledExtensionNames=[b"first", b"second"],
    )
    gc.collect()
    junk = [ffi.new("char[]", 64) for _ in range(1000)]
    assert made.sType == vk.VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO
    assert _ffi.text(made.ppEnabledExtensionNames[1]) == "second"
    assert made.pQueueCreateInfos[0].pQueuePriorities[0] == 0.25
    features = ffi.cast("VkPhysicalDeviceTimelineSemaphoreFeatures *", made.pNext)
    assert features.timelineSemaphore == 1
    assert junk


def test_the_package_has_every_constant_that_is_used() -> None:
    """It lacks some, and has others as None."""
    used = set()
    for path in (ROOT / "pers/backends/vulkan").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr.startswith("VK_"):
                used.add(node.attr)
    assert len(used) > 50
    assert [name for name in used if getattr(vk, name, None) is None] == []


def test_formats_map_both_ways() -> None:
    numbers = {formats.to_vk_format(entry) for entry in TextureFormat}
    assert len(numbers) == len(TextureFormat)
    for entry in TextureFormat:
        assert formats.from_vk_format(formats.to_vk_format(entry)) is entry
    assert formats.from_vk_format(vk.VK_FORMAT_UNDEFINED) is None
    assert formats.to_vk_format(TextureFormat.BGRA8_UNORM_SRGB) == vk.VK_FORMAT_B8G8R8A8_SRGB
    assert formats.to_vk_format(TextureFormat.RGBA16_FLOAT) == vk.VK_FORMAT_R16G16B16A16_SFLOAT
    both = vk.VK_IMAGE_ASPECT_DEPTH_BIT | vk.VK_IMAGE_ASPECT_STENCIL_BIT
    assert formats.aspects_of(TextureFormat.DEPTH24_PLUS_STENCIL8) == both
    assert formats.aspects_of(TextureFormat.STENCIL8) == vk.VK_IMAGE_ASPECT_STENCIL_BIT
    assert formats.aspects_of(TextureFormat.DEPTH16_UNORM) == vk.VK_IMAGE_ASPECT_DEPTH_BIT
    assert formats.aspects_of(TextureFormat.R8_UINT) == vk.VK_IMAGE_ASPECT_COLOR_BIT


def test_usages_are_vulkans_and_copies_are_always_possible() -> None:
    transfers = image.TRANSFERS
    color, depth = TextureFormat.RGBA8_UNORM, TextureFormat.DEPTH32_FLOAT
    expected = {
        TextureUsage.COPY_SRC: 0,
        TextureUsage.TEXTURE_BINDING: vk.VK_IMAGE_USAGE_SAMPLED_BIT,
        TextureUsage.STORAGE_BINDING: vk.VK_IMAGE_USAGE_STORAGE_BIT,
        TextureUsage.RENDER_ATTACHMENT: vk.VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT,
    }
    for usage, flag in expected.items():
        assert formats.image_usage(color, usage) == transfers | flag
    attachment = vk.VK_IMAGE_USAGE_DEPTH_STENCIL_ATTACHMENT_BIT
    assert formats.image_usage(depth, TextureUsage.RENDER_ATTACHMENT) == transfers | attachment


# --- Opening --------------------------------------------------------------------------------------


def test_capabilities_say_what_works_and_why_not(vulkan: Any, driver: str) -> None:
    found = vulkan.capabilities
    assert (found.backend, found.zero_copy, found.handle_type) == ("vulkan", True, "opaque_fd")
    assert len(found.device_uuid) == len(found.driver_uuid) == 16
    assert found.formats
    assert all(entry.is_copyable for entry in found.formats)
    assert {TextureFormat.DEPTH32_FLOAT, TextureFormat.RGBA8_UNORM_SRGB} <= found.formats
    assert any("depth24plus-stencil8" in reason for reason in found.reasons)
    assert found.hand_over == ("gpu" if found.semaphores else "cpu")
    for kind in {"binary", "timeline"} - found.semaphores:
        assert any(reason.startswith(f"{kind} semaphores cannot") for reason in found.reasons)
        with pytest.raises(OperationNotSupportedError, match=kind):
            vulkan.create_semaphore(kind)
        with pytest.raises(OperationNotSupportedError, match=kind):
            vulkan._native.create_semaphore(kind)  # SwiftShader would crash
    if driver == "swiftshader":
        assert found.semaphores == {"binary"}


def test_what_is_advertised_but_does_not_work_is_left_out(
    driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pers.backends.vulkan import probing

    monkeypatch.setattr(probing, "_found", {})

    def broken(*_: Any) -> Any:
        raise VulkanApiError("vkAllocateMemory failed with VK_ERROR_UNKNOWN", -13)

    monkeypatch.setattr(probing, "import_image", broken)
    monkeypatch.setattr(probing, "semaphores_can_be_shared", lambda *_: True)
    monkeypatch.setattr(probing, "VulkanSemaphore", broken)
    monkeypatch.setattr(probing, "VulkanTimeline", broken)
    with open_on(driver) as vulkan:
        found = vulkan.capabilities
    assert not found.formats
    assert not found.zero_copy
    assert not found.semaphores
    assert found.hand_over == "cpu"
    assert any("although the driver says so: vkAllocateMemory failed" in r for r in found.reasons)


def test_a_manager_without_patience_learns_the_same(
    driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was found out counts for all managers of the process."""
    from pers.backends.vulkan import probing

    with open_on(driver) as vulkan:
        found = vulkan.capabilities
    monkeypatch.setattr(probing, "_found", {})
    with open_on(driver, timeout_ns=0) as vulkan:
        assert vulkan.capabilities == found


def test_a_device_can_be_chosen(driver: str) -> None:
    with open_on(driver) as first:
        name, uuid = first.capabilities.device, first.capabilities.device_uuid.hex()
    for wanted in (name, name[:5].upper(), uuid, f"{uuid[:8]}-{uuid[8:]}"):
        with open_on(driver, device=wanted) as vulkan:
            assert vulkan.capabilities.device == name
    with pytest.raises(VulkanInitializationError, match="called 'no such'; there are '"):
        open_on(driver, device="no such")


def test_the_best_device_is_chosen() -> None:
    def fake(name: str, kind: int, *extensions: str) -> PhysicalDevice:
        return PhysicalDevice(NULL, name, kind, 0, b"", b"", frozenset(extensions))

    needed = external.platform_handles().memory_extension
    cpu = fake("cpu", vk.VK_PHYSICAL_DEVICE_TYPE_CPU, needed)
    integrated = fake("integrated", vk.VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU, needed)
    discrete = fake("discrete", vk.VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU)
    assert device.choose_device([cpu, discrete, integrated], None) is integrated
    assert device.choose_device([cpu, integrated], "CPU") is cpu
    with pytest.raises(VulkanInitializationError, match=f"has the extension {needed}"):
        device.choose_device([discrete], None)
    with pytest.raises(VulkanInitializationError, match="apt-get install mesa-vulkan-drivers"):
        device.choose_device([], None)


def test_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VK_DRIVER_FILES", "/nowhere.json")
    monkeypatch.setenv("VK_ICD_FILENAMES", "/nowhere.json")
    with pytest.raises(VulkanInitializationError, match="apt-get install mesa-vulkan-drivers"):
        VulkanTextureShareManager()
    if importlib.util.find_spec("pers.backends.metal"):
        with open_share_manager() as found:
            assert "not vulkan: no Vulkan driver" in found.choice


@pytest.mark.parametrize(
    ("setup", "hint"),
    [
        ("sys.modules['vulkan'] = None", "pip install 'pers[vulkan]'"),
        (
            "import _cffi_backend\n"
            "class Gone:\n"
            "    def find_spec(self, name, *_):\n"
            "        if name == 'vulkan': raise OSError('Cannot find Vulkan SDK')\n"
            "sys.meta_path.insert(0, Gone())",
            "apt-get install libvulkan1",
        ),
    ],
    ids=["package", "loader"],
)
def test_without_the_package_or_the_loader(setup: str, hint: str) -> None:
    code = (
        f"import sys\n{setup}\nimport pers\n"
        "try:\n    pers.VulkanTextureShareManager()\n"
        "except pers.VulkanInitializationError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    assert hint in done.stdout, done.stderr


# --- Textures -------------------------------------------------------------------------------------


def test_begin_upload_and_end_are_one_submission(vulkan: Any) -> None:
    texture = vulkan.create_shareable_texture(describe(layers=2))
    texture.native.finish()
    work = vulkan._gpu.work
    before = work.submitted
    with texture.access(write=True) as view:
        view.upload(picture(describe(), 1), layer=0)
        view.upload(picture(describe(), 2), layer=1)
    assert work.submitted == before + 1
    with texture.access():
        pass
    assert work.submitted == before + 1  # nothing to do is no submission


def test_the_memory_is_the_same(vulkan: Any, vulkan_peer: Any) -> None:
    here, there = shared(vulkan, vulkan_peer)
    again = None
    with vulkan.export_texture(here) as handle:
        again = vulkan.import_texture(handle, describe())
    for seed, writer in enumerate((here, there, again, here)):
        write(writer, seed)
        for reader in (here, there, again):
            assert_holds(reader, seed)


def test_the_native_image_is_acquired_for_commands_of_others(vulkan: Any, vulkan_peer: Any) -> None:
    """A clear that the test submits by itself, between two uploads."""
    here, there = shared(vulkan, vulkan_peer)
    objects, fn = vulkan.vulkan, vulkan._gpu.fn
    with here.access(write=True) as view:
        view.upload(picture(describe(), 1))
        native = view.native_handle
        recording = vulkan._gpu.work.begin()
        whole = struct("VkImageSubresourceRange", aspectMask=1, levelCount=1, layerCount=1)
        color = ffi.new("VkClearColorValue *", {"float32": [1, 0, 1, 0]})
        layout = vk.VK_IMAGE_LAYOUT_GENERAL
        barrier = struct("VkMemoryBarrier", srcAccessMask=0x10000, dstAccessMask=0x18000)
        fn.vkCmdPipelineBarrier(recording.commands, 65536, 65536, 0, 1, barrier, 0, NULL, 0, NULL)
        fn.vkCmdClearColorImage(recording.commands, native, layout, color, 1, whole)
        vulkan._gpu.work.submit(recording)
    assert objects.queue_family == vulkan._gpu.family
    with there.access() as view:
        assert (view.download() == [255, 0, 255, 0]).all()


def test_textures_that_cannot_be_shared(vulkan: Any) -> None:
    for descriptor in (
        describe(texture_format=TextureFormat.DEPTH24_PLUS_STENCIL8),
        TextureDescriptor(
            4, 4, TextureFormat.RGBA8_UNORM, TextureUsage.RENDER_ATTACHMENT, sample_count=4
        ),
        describe(width=1 << 20),
    ):
        with pytest.raises(OperationNotSupportedError, match="share"):
            vulkan.create_shareable_texture(descriptor)
        with pytest.raises(OperationNotSupportedError, match="cannot be shared"):
            vulkan._native.create_texture(descriptor)


# --- Handles --------------------------------------------------------------------------------------


def test_a_handle_of_another_driver_is_refused_before_the_driver_sees_it() -> None:
    with open_on("lavapipe") as here, open_on("swiftshader") as there:
        texture = here.create_shareable_texture(describe())
        buffer = here.create_shareable_buffer(8)
        with (
            here.export_texture(texture) as handle,
            here.export_buffer(buffer) as second,
        ):
            with pytest.raises(DeviceMismatchError, match="SwiftShader.*same GPU and driver"):
                there.import_texture(handle, describe())
            with pytest.raises(DeviceMismatchError, match="SwiftShader.*same GPU and driver"):
                there.import_buffer(second)


@pytest.mark.parametrize("field", ["device_uuid", "driver_uuid"])
def test_both_uuids_count(vulkan: Any, field: str) -> None:
    texture = vulkan.create_shareable_texture(describe())
    with changed(vulkan.export_texture(texture), **{field: bytes(16)}) as handle:
        with pytest.raises(DeviceMismatchError):
            vulkan.import_texture(handle, describe())


def changed(handle: Any, **changes: Any) -> Any:
    """Return a handle that says something else."""
    copy = type(handle)(
        **{field.name: getattr(handle, field.name) for field in attrs.fields(type(handle))}
    )
    for name, value in changes.items():
        object.__setattr__(copy, name, value)
    return copy


@linux
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 16}, "16 bytes where"),
        ({"size": 1 << 40}, "not the 1099511627776 that the handle"),
        ({"memory_type": 31}, "memory type 31 is none"),
        ({"memory_type": 4_000_000_000}, "memory type 4000000000 is none"),
        ({"handle_type": 2}, "handle of type 0x2"),
        ({"layout": 0}, "layout 0, not VK_IMAGE_LAYOUT_GENERAL"),
        ({"tiling": 77}, "unknown tiling 77"),
        ({"create_flags": 1 << 30}, "unknown create flags 0x40000000"),
        ({"image_usage": 1 << 20}, "unknown usages 0x100000"),
        ({"image_usage": vk.VK_IMAGE_USAGE_SAMPLED_BIT}, "cannot be copied"),
        ({"image_usage": image.TRANSFERS}, "without the usage"),
    ],
    ids=str,
)
def test_wrong_numbers_are_refused(vulkan: Any, changes: dict[str, Any], message: str) -> None:
    texture = vulkan.create_shareable_texture(describe())
    before = open_fds()
    with changed(vulkan.export_texture(texture), **changes) as handle:
        with pytest.raises(InvalidTextureHandleError, match=message):
            vulkan.import_texture(handle, describe())
        handle.fd.fileno()
        os.fstat(handle.fd.fileno())  # still the caller's
    assert open_fds() == before
    write(texture, 1)
    assert_holds(texture, 1)


def a_socket() -> OwnedFd:
    with socket.socket() as made:
        return OwnedFd(made.detach())


@linux
@pytest.mark.parametrize(
    "make",
    [
        a_socket,
        lambda: OwnedFd(os.open("/dev/null", os.O_RDWR)),
        lambda: OwnedFd(os.open("/", os.O_RDONLY)),
        lambda: OwnedFd(os.pipe()[0]),
        lambda: create_memory(100, "pers-short"),
        lambda: OwnedFd(os.memfd_create("pers-empty")),
    ],
    ids=["socket", "null", "folder", "pipe", "short", "empty"],
)
def test_what_is_no_memory_is_refused(vulkan: Any, make: Callable[[], OwnedFd]) -> None:
    texture = vulkan.create_shareable_texture(describe(64, 64))
    good, fd = vulkan.export_texture(texture), make()
    with changed(good, fd=fd) as handle, good:
        number = fd.fileno()
        before = open_fds()
        with pytest.raises(InvalidTextureHandleError, match="memory|driver"):
            vulkan.import_texture(handle, describe(64, 64))
        assert open_fds() == before
        os.fstat(number)


def test_closed_managers_and_handles(vulkan: Any) -> None:
    handle = vulkan.export_texture(vulkan.create_shareable_texture(describe()))
    handle.close()
    with pytest.raises(InvalidTextureHandleError):
        vulkan.import_texture(handle, describe())
    native = vulkan._native
    vulkan.close()
    vulkan.close()
    with pytest.raises(TextureAccessError, match="closed"):
        vulkan.create_shareable_texture(describe())
    with pytest.raises(DeviceLostError, match="closed"):
        native.create_texture(describe())
