"""The Metal backend over a stand-in for Apple's calls: no Mac has run it."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from pers import TextureDescriptor, TextureFormat, TextureUsage
from pers.backends.metal import MetalShareDevice, MetalTextureShareManager
from pers.backends.metal import _objc as boundary
from pers.backends.metal import event as metal_event
from pers.backends.metal import manager as metal_manager
from pers.backends.metal.surfaces import SURFACE_FORMATS
from pers.errors import (
    InvalidTextureHandleError,
    MetalApiError,
    MetalInitializationError,
    OperationNotSupportedError,
    OutOfMemoryError,
    ShareError,
    TextureAccessError,
    WaitTimeoutError,
)
from pers.sharing.control import create_memory
from pers.sharing.formats import metal_pixel_format
from pers.sharing.handles import (
    EventHandle,
    FenceHandle,
    HostBufferHandle,
    HostTextureHandle,
    MetalEventHandle,
    MetalTextureHandle,
    SemaphoreHandle,
)
from tests.sharing.fake_metal import FakeMetal
from tests.support import random_pixels

F = TextureFormat
U = TextureUsage
FORMATS = pytest.mark.parametrize("texture_format", SURFACE_FORMATS, ids=lambda f: f.value)
SECOND = 1_000_000_000


def describe(width: int = 5, height: int = 3, **rest: Any) -> TextureDescriptor:
    values: dict[str, Any] = {"format": F.RGBA8_UNORM, "usage": U.TEXTURE_BINDING, "label": "shown"}
    return TextureDescriptor(width, height, **(values | rest))


def pixels_of(descriptor: TextureDescriptor) -> Any:
    return random_pixels(descriptor.format, descriptor.height, descriptor.width)


@pytest.fixture
def open_manager(monkeypatch: pytest.MonkeyPatch) -> Callable[..., MetalTextureShareManager]:
    """Opens managers as separate processes would, each with its own `FakeMetal`."""

    def open_one(metal: FakeMetal, **options: Any) -> MetalTextureShareManager:
        monkeypatch.setattr(metal_manager, "load_metal", lambda: metal)
        return MetalTextureShareManager(**options)

    return open_one


@pytest.fixture
def metal() -> FakeMetal:
    return FakeMetal()


@pytest.fixture
def manager(
    metal: FakeMetal, open_manager: Callable[..., MetalTextureShareManager]
) -> Iterator[MetalTextureShareManager]:
    with open_manager(metal, timeout_ns=SECOND // 20) as manager:
        metal.calls.clear()
        yield manager


# --- Opening --------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "darwin", reason="there is Metal here, perhaps")
def test_elsewhere_it_says_that_it_needs_macos() -> None:
    with pytest.raises(MetalInitializationError, match=r"macOS.*pip install 'pers\[metal\]'"):
        MetalTextureShareManager()


def test_an_old_macos_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(boundary.platform, "mac_ver", lambda: ("11.7.10", ("", "", ""), "arm64"))
    with pytest.raises(MetalInitializationError, match=r"macOS 12 or later.*11\.7\.10"):
        MetalTextureShareManager()


@pytest.mark.skipif(sys.platform == "darwin", reason="pyobjc may be installed")
def test_without_pyobjc_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(boundary.platform, "mac_ver", lambda: ("14.2", ("", "", ""), "arm64"))
    with pytest.raises(MetalInitializationError, match=r"pip install 'pers\[metal\]'"):
        MetalTextureShareManager()


@pytest.mark.parametrize(
    ("call", "result", "message"),
    [
        ("system_device", None, "no GPU with Metal"),
        ("new_queue", None, "no command queue"),
        ("new_event", None, "no shared event"),
        ("new_texture", None, "does not share textures"),
        ("new_commands", None, "does not share textures"),
        ("find_surface", None, "does not share textures"),
        ("create_surface", None, "does not share textures"),
        ("wait_event", False, "does not share textures"),
        ("lock", 0x10000003, "does not share textures.*0x10000003"),
        ("error_of", "page fault", "does not share textures.*page fault"),
    ],
)
def test_a_gpu_that_does_not_work_is_refused(
    open_manager: Callable[..., MetalTextureShareManager], call: str, result: Any, message: str
) -> None:
    with pytest.raises(MetalInitializationError, match=f"{message}.*HostTextureShareManager"):
        open_manager(FakeMetal(fail={call: result}))


def test_a_gpu_that_returns_other_pixels_is_refused(
    open_manager: Callable[..., MetalTextureShareManager],
) -> None:
    """Another surface of the right kind comes back for the number: only the pixels tell."""
    other = FakeMetal()
    properties = {
        "kIOSurfaceWidth": 3,
        "kIOSurfaceHeight": 2,
        "kIOSurfaceBytesPerElement": 4,
        "kIOSurfaceBytesPerRow": 64,
        "kIOSurfaceAllocSize": 128,
        "kIOSurfacePixelFormat": int.from_bytes(b"RGBA", "big"),
    }
    surface = other.create_surface(properties)
    with pytest.raises(MetalInitializationError, match="other pixels come back"):
        open_manager(FakeMetal(fail={"find_surface": surface}))


def test_capabilities_say_what_is_possible(manager: MetalTextureShareManager) -> None:
    found = manager.capabilities
    assert (found.backend, found.device, found.zero_copy) == ("metal", "Fake M9", True)
    assert (found.handle_type, found.hand_over) == ("io_surface", "cpu")
    assert found.formats == set(SURFACE_FORMATS)
    assert not found.semaphores
    assert not found.fences
    assert "no Metal hardware has run this backend" in " ".join(found.reasons)


# --- Textures -------------------------------------------------------------------------------------


@FORMATS
@pytest.mark.parametrize("width", [1, 5, 16, 33])
def test_pixels_arrive_in_another_process(
    metal: FakeMetal,
    open_manager: Callable[..., MetalTextureShareManager],
    texture_format: TextureFormat,
    width: int,
) -> None:
    descriptor = describe(width, format=texture_format)
    sent = pixels_of(descriptor)
    with open_manager(metal) as ours, open_manager(FakeMetal(metal.gpu)) as theirs:
        texture = ours.create_shareable_texture(descriptor)
        with texture.access(write=True) as view:
            view.upload(sent)
        with ours.export_texture(texture) as handle:
            assert isinstance(handle, MetalTextureHandle)
            imported = theirs.import_texture(handle, descriptor)
        with imported.access() as view:
            assert view.download().tobytes() == sent.tobytes()
        with imported.access(write=True) as view:
            view.upload(sent[::-1])
        with texture.access() as view:
            assert view.download().tobytes() == sent[::-1].tobytes()


@FORMATS
def test_the_gpu_sees_what_the_cpu_wrote(
    manager: MetalTextureShareManager, texture_format: TextureFormat
) -> None:
    descriptor = describe(format=texture_format)
    sent = pixels_of(descriptor)
    texture = manager.create_shareable_texture(descriptor)
    with texture.access(write=True) as view:
        view.upload(sent)
        assert view.native_handle.pixels.tobytes() == sent.tobytes()
        assert view.native_handle.pixel_format == metal_pixel_format(texture_format)


def test_a_new_texture_is_all_zeros(manager: MetalTextureShareManager) -> None:
    texture = manager.create_shareable_texture(describe())
    with texture.access() as view:
        assert not view.download().any()
        assert not view.native_handle.pixels.any()


@FORMATS
def test_the_surface_is_described_as_core_video_does(
    manager: MetalTextureShareManager, metal: FakeMetal, texture_format: TextureFormat
) -> None:
    """By the numbers of CVPixelBuffer.h."""
    texture = manager.create_shareable_texture(describe(7, 2, format=texture_format))
    properties = texture.native_handle.surface.properties
    assert properties["kIOSurfacePixelFormat"] == CORE_VIDEO[texture_format]
    assert properties["kIOSurfaceBytesPerElement"] == texture_format.bytes_per_pixel
    assert (properties["kIOSurfaceWidth"], properties["kIOSurfaceHeight"]) == (7, 2)


CORE_VIDEO = {
    F.R8_UNORM: 1278226488,  # kCVPixelFormatType_OneComponent8
    F.RG8_UNORM: 843264056,  # kCVPixelFormatType_TwoComponent8
    F.RGBA8_UNORM: 1380401729,  # kCVPixelFormatType_32RGBA
    F.RGBA8_UNORM_SRGB: 1380401729,
    F.BGRA8_UNORM: 1111970369,  # kCVPixelFormatType_32BGRA
    F.BGRA8_UNORM_SRGB: 1111970369,
    F.R16_UNORM: 1278226742,  # kCVPixelFormatType_OneComponent16
    F.RG16_UNORM: 843264310,  # kCVPixelFormatType_TwoComponent16
    F.RGBA16_UNORM: 1815491698,  # kCVPixelFormatType_64RGBALE
    F.R16_FLOAT: 1278226536,  # kCVPixelFormatType_OneComponent16Half
    F.RG16_FLOAT: 843264104,  # kCVPixelFormatType_TwoComponent16Half
    F.RGBA16_FLOAT: 1380411457,  # kCVPixelFormatType_64RGBAHalf
    F.R32_FLOAT: 1278226534,  # kCVPixelFormatType_OneComponent32Float
    F.RG32_FLOAT: 843264102,  # kCVPixelFormatType_TwoComponent32Float
    F.RGBA32_FLOAT: 1380410945,  # kCVPixelFormatType_128RGBAFloat
}


@pytest.mark.parametrize("alignment", [4, 16, 64, 256])
def test_rows_are_aligned_for_gpu_and_surface(
    open_manager: Callable[..., MetalTextureShareManager], alignment: int
) -> None:
    with open_manager(FakeMetal(row_alignment=alignment)) as manager:
        texture = manager.create_shareable_texture(describe(9))
        row = texture.native_handle.surface.properties["kIOSurfaceBytesPerRow"]
    assert row == {4: 48, 16: 48, 64: 64, 256: 256}[alignment]


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (U.COPY_SRC | U.COPY_DST, 1),
        (U.TEXTURE_BINDING, 1),
        (U.STORAGE_BINDING, 3),
        (U.RENDER_ATTACHMENT, 4),
        (U.TEXTURE_BINDING | U.RENDER_ATTACHMENT | U.COPY_SRC, 5),
        (U.STORAGE_BINDING | U.RENDER_ATTACHMENT, 7),
    ],
)
def test_usage_becomes_metals(
    manager: MetalTextureShareManager, usage: TextureUsage, expected: int
) -> None:
    assert manager.create_shareable_texture(describe(usage=usage)).native_handle.usage == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 2}, "one layer and one mip level, not 2 and 1; share one texture"),
        ({"mip_levels": 2}, "one layer and one mip level, not 1 and 2; share one texture"),
        ({"width": 16385}, "16385x3 .* share it in parts"),
        ({"height": 16385}, "5x16385 .* share it in parts"),
        (
            {"format": F.RGBA8_UNORM_SRGB, "usage": U.STORAGE_BINDING},
            "cannot write rgba8unorm-srgb; leave STORAGE_BINDING out",
        ),
        ({"format": F.DEPTH32_FLOAT}, "cannot share depth32float; capabilities.formats"),
        ({"format": F.RGBA8_UINT}, "cannot share rgba8uint; capabilities.formats"),
    ],
)
def test_what_a_surface_cannot_hold_is_refused(
    manager: MetalTextureShareManager, metal: FakeMetal, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(OperationNotSupportedError, match=f"'shown'.*{message}"):
        manager.create_shareable_texture(describe(**change))
    with pytest.raises(OperationNotSupportedError, match=f"'shown'.*{message}"):
        manager.import_texture(MetalTextureHandle(17), describe(**change))
    assert metal.calls == []


@pytest.mark.parametrize(
    "change",
    [
        {"width": 4},
        {"width": 6},
        {"height": 2},
        {"height": 4},
        {"format": F.BGRA8_UNORM},
        {"format": F.RG16_FLOAT},
        {"format": F.R32_FLOAT},
        {"format": F.R8_UNORM},
        {"width": 1, "height": 15},
    ],
)
def test_a_surface_of_something_else_is_refused(
    manager: MetalTextureShareManager, change: dict[str, Any]
) -> None:
    texture = manager.create_shareable_texture(describe())
    handle = manager.export_texture(texture)
    with pytest.raises(InvalidTextureHandleError, match="'shown'.*5x3 pixels of 4 bytes.*b'RGBA'"):
        manager.import_texture(handle, describe(**change))


@pytest.mark.parametrize("lie", ["kIOSurfaceBytesPerRow", "kIOSurfaceHeight"])
def test_a_surface_with_too_little_memory_is_refused(
    manager: MetalTextureShareManager, lie: str
) -> None:
    """Whoever made a global surface may have made it wrong."""
    texture = manager.create_shareable_texture(describe())
    properties = texture.native_handle.surface.properties
    properties[lie] = 4 if lie == "kIOSurfaceBytesPerRow" else 4096
    height = properties["kIOSurfaceHeight"]
    with pytest.raises(InvalidTextureHandleError, match="import it with the descriptor"):
        manager.import_texture(manager.export_texture(texture), describe(height=height))


@pytest.mark.parametrize("number", [0, -1, 999, 2**32, 2**70])
def test_a_number_without_a_surface_is_refused(
    manager: MetalTextureShareManager, number: int
) -> None:
    with pytest.raises(InvalidTextureHandleError, match=f"no IOSurface {number};.*keep it open"):
        manager.import_texture(MetalTextureHandle(number), describe())


def test_other_processes_find_only_system_wide_surfaces(
    metal: FakeMetal, open_manager: Callable[..., MetalTextureShareManager]
) -> None:
    with (
        open_manager(metal, system_wide=False) as ours,
        open_manager(FakeMetal(metal.gpu)) as theirs,
    ):
        handle = ours.export_texture(ours.create_shareable_texture(describe()))
        ours.import_texture(handle, describe()).close()
        with pytest.raises(InvalidTextureHandleError, match="system_wide=True"):
            theirs.import_texture(handle, describe())


def test_handles_of_other_backends_are_refused(manager: MetalTextureShareManager) -> None:
    memory = create_memory(4096, "test")
    host = HostTextureHandle(memory.duplicate(), 4096, memory.duplicate())
    with pytest.raises(InvalidTextureHandleError):
        manager.import_texture(host, describe())
    native = MetalShareDevice(FakeMetal(), system_wide=True, timeout_ns=SECOND)
    with pytest.raises(InvalidTextureHandleError, match="takes a MetalTextureHandle"):
        native.import_texture(host, describe())
    with pytest.raises(InvalidTextureHandleError, match="takes a MetalEventHandle"):
        manager.import_event(EventHandle(memory.duplicate()))


def test_exporting_leaves_no_descriptor_open(manager: MetalTextureShareManager) -> None:
    texture = manager.create_shareable_texture(describe())
    native = MetalShareDevice(FakeMetal(), system_wide=True, timeout_ns=SECOND)
    control = create_memory(4096, "test")
    native.create_texture(describe()).export(control)
    assert not control.is_open
    assert manager.export_texture(texture).fds == ()


def test_memory_without_copies_is_refused(manager: MetalTextureShareManager) -> None:
    texture = manager.create_shareable_texture(describe())
    with texture.access() as view, pytest.raises(OperationNotSupportedError, match="download"):
        view.as_array()


@pytest.mark.parametrize(
    ("call", "result", "error", "message"),
    [
        ("create_surface", None, OutOfMemoryError, "no IOSurface of 192 bytes"),
        ("new_texture", None, MetalApiError, "newTextureWithDescriptor"),
        ("lock", 5, MetalApiError, "IOSurfaceLock returned 0x5"),
        ("unlock", 5, MetalApiError, "IOSurfaceUnlock returned 0x5"),
    ],
)
def test_a_failing_call_is_an_error(
    manager: MetalTextureShareManager,
    metal: FakeMetal,
    call: str,
    result: Any,
    error: type[Exception],
    message: str,
) -> None:
    metal.fail[call] = result
    with pytest.raises(error, match=f"'shown'.*{message}"):
        manager.create_shareable_texture(describe())
    metal.fail.clear()
    manager.create_shareable_texture(describe()).close()


def test_a_failing_gpu_is_an_error(manager: MetalTextureShareManager, metal: FakeMetal) -> None:
    texture = manager.create_shareable_texture(describe())
    with texture.access(write=True) as view:
        metal.fail["error_of"] = "out of addresses"
        with pytest.raises(MetalApiError, match="'shown'.*out of addresses"):
            view.upload(pixels_of(describe()))
        metal.fail = {"new_commands": None}
        with pytest.raises(MetalApiError, match="commandBuffer returned nothing"):
            view.download()
        metal.fail = {}


# --- Order ----------------------------------------------------------------------------------------


def test_an_upload_locks_after_the_gpu_and_unlocks(
    manager: MetalTextureShareManager, metal: FakeMetal
) -> None:
    texture = manager.create_shareable_texture(describe())
    metal.calls.clear()
    with texture.access(write=True) as view:
        assert metal.calls == []
        view.upload(pixels_of(describe()))
        assert metal.calls == [
            "new_commands",
            "encode_signal",
            "commit",
            "wait_event",
            "lock",
            "unlock",
        ]
        view.download()
        assert metal.locks[-2:] == [0, 1]  # kIOSurfaceLockReadOnly
        metal.calls.clear()
    assert metal.calls == ["new_commands", "encode_signal", "commit", "wait_event"]


def test_an_error_in_a_copy_unlocks(manager: MetalTextureShareManager, metal: FakeMetal) -> None:
    native = MetalShareDevice(metal, system_wide=True, timeout_ns=SECOND)
    texture = native.create_texture(describe())
    with pytest.raises(ValueError, match="reshape"):
        texture.upload(np.zeros(7, np.uint8), 0, 0)
    texture.upload(np.zeros(60, np.uint8), 0, 0)  # asserts that it is not locked


def gpu_fill(metal: FakeMetal, queue: Any, texture: Any, value: int) -> None:
    """GPU work of an application: fills a texture when its turn comes."""

    def fill() -> bool:
        texture.pixels[:] = value
        return True

    commands = metal.new_commands(queue)
    metal.encode(commands, fill)
    metal.commit(commands)


def test_gpu_work_comes_after_the_waits_and_before_the_signals(
    manager: MetalTextureShareManager, metal: FakeMetal
) -> None:
    texture = manager.create_shareable_texture(describe())
    start, done = manager.create_event(), manager.create_event()
    native = texture.native_handle
    with texture.access(write=True, wait=[(start, 3)], signal=[(done, 9)]) as view:
        gpu_fill(metal, manager.command_queue, view.native_handle, 7)
    assert not native.pixels.any()
    assert done.value == 0
    start.signal(2)
    assert not native.pixels.any()
    start.signal(3)
    assert (native.pixels == 7).all()
    assert done.value == 9


def test_a_download_waits_for_gpu_work_and_for_what_that_waits_for(
    manager: MetalTextureShareManager, metal: FakeMetal
) -> None:
    texture = manager.create_shareable_texture(describe())
    start = manager.create_event()
    signaller = threading.Timer(0.01, start.signal, [1])
    with texture.access(write=True, wait=[(start, 1)]) as view:
        gpu_fill(metal, manager.command_queue, view.native_handle, 7)
        signaller.start()
        assert (view.download() == 7).all()
    signaller.join()


def test_readers_that_join_and_leave_wait_and_signal(
    manager: MetalTextureShareManager, metal: FakeMetal
) -> None:
    texture = manager.create_shareable_texture(describe())
    start, first_done, second_done = (manager.create_event() for _ in range(3))
    with texture.access(signal=[(first_done, 1)]):
        with texture.access(wait=[(start, 1)], signal=[(second_done, 1)]):
            pass
        assert second_done.value == 0
        start.signal(1)
        assert (second_done.value, first_done.value) == (1, 0)
    assert first_done.value == 1


def test_a_peer_that_never_signals_blocks_nobody_for_ever(
    manager: MetalTextureShareManager,
) -> None:
    texture = manager.create_shareable_texture(describe())
    never = manager.create_event()
    with pytest.raises(WaitTimeoutError, match="'shown'.*not signalled.*signal the event yourself"):
        with texture.access(write=True, wait=[(never, 1)]) as view:
            with pytest.raises(WaitTimeoutError):
                view.upload(pixels_of(describe()))
    never.signal(1)
    with texture.access(write=True) as view:
        view.upload(pixels_of(describe()))


def test_a_dead_peer_does_not_fill_the_queue(
    open_manager: Callable[..., MetalTextureShareManager],
) -> None:
    """Metal would block without a time limit."""
    with open_manager(FakeMetal(), timeout_ns=1_000_000) as manager:
        texture = manager.create_shareable_texture(describe())
        never = manager.create_event()
        with pytest.raises(WaitTimeoutError):
            with texture.access(wait=[(never, 1)]):
                pass
        for _ in range(100):
            with pytest.raises(WaitTimeoutError):
                manager.signal_texture_ready(texture)
        never.signal(1)
        for _ in range(100):
            manager.signal_texture_ready(texture)


def test_signal_texture_ready_waits_for_the_gpu(
    manager: MetalTextureShareManager, metal: FakeMetal
) -> None:
    texture = manager.create_shareable_texture(describe())
    start, done = manager.create_event(), manager.create_event()
    with texture.access(write=True, wait=[(start, 1)], signal=[(done, 1)]):
        pass
    with pytest.raises(WaitTimeoutError):
        manager.signal_texture_ready(texture)
    start.signal(1)
    manager.signal_texture_ready(texture)
    manager.wait_for_texture(texture, 0)


# --- Events ---------------------------------------------------------------------------------------


def test_an_event_counts_and_waits(manager: MetalTextureShareManager, metal: FakeMetal) -> None:
    event = manager.create_event()
    assert event.value == 0
    with pytest.raises(WaitTimeoutError, match="did not reach 1"):
        event.wait(1, 1_500_000)
    assert metal.timeouts[-1] == 2  # milliseconds, never less than asked for
    event.signal(5)
    event.wait(4, 0)
    assert event.value == 5


def test_an_event_reaches_another_manager_of_this_process(
    metal: FakeMetal, open_manager: Callable[..., MetalTextureShareManager]
) -> None:
    with open_manager(metal) as ours, open_manager(metal) as theirs:
        event = ours.create_event()
        handle = ours.export_event(event)
        assert isinstance(handle, MetalEventHandle)
        imported = theirs.import_event(handle)
        again = theirs.import_event(ours.export_event(event))
        event.signal(2)
        assert imported.value == again.value == 2
        imported.signal(3)
        event.wait(3, 0)


def test_an_event_hands_gpu_work_to_another_manager(
    metal: FakeMetal, open_manager: Callable[..., MetalTextureShareManager]
) -> None:
    with open_manager(metal) as ours, open_manager(metal) as theirs:
        texture = ours.create_shareable_texture(describe())
        imported = theirs.import_texture(ours.export_texture(texture), describe())
        begin, drawn = ours.create_event(), ours.create_event()
        seen = theirs.import_event(ours.export_event(drawn))
        with texture.access(write=True, wait=[(begin, 1)], signal=[(drawn, 1)]) as view:
            gpu_fill(metal, ours.command_queue, view.native_handle, 7)
        signaller = threading.Timer(0.01, begin.signal, [1])
        signaller.start()
        with imported.access(wait=[(seen, 1)]) as view:
            assert (view.download() == 7).all()
        signaller.join()


@pytest.mark.parametrize("name", [b"", b"\0" * 16, b"somebody else's"])
def test_an_event_of_another_process_is_refused(
    manager: MetalTextureShareManager, name: bytes
) -> None:
    with pytest.raises(InvalidTextureHandleError, match="XPC connection only.*send a message"):
        manager.import_event(MetalEventHandle(name))


def test_a_closed_event_is_forgotten(manager: MetalTextureShareManager, metal: FakeMetal) -> None:
    before = len(metal_event._exported)
    event = manager.create_event()
    handles = [manager.export_event(event) for _ in range(3)]
    assert len(metal_event._exported) == before + 1
    assert metal.calls.count("event_handle") == 1
    event.close()
    assert len(metal_event._exported) == before
    with pytest.raises(InvalidTextureHandleError, match="open in this process"):
        manager.import_event(handles[0])
    manager.export_event(manager.create_event())  # and dies
    gc.collect()
    assert len(metal_event._exported) == before


@pytest.mark.parametrize(
    ("call", "message"),
    [("new_event", "newSharedEvent returned"), ("event_of_handle", "newSharedEventWithHandle:")],
)
def test_a_failing_event_is_an_error(
    manager: MetalTextureShareManager, metal: FakeMetal, call: str, message: str
) -> None:
    handle = manager.export_event(kept := manager.create_event())
    metal.fail[call] = None
    with pytest.raises(MetalApiError, match=message):
        if call == "new_event":
            manager.create_event()
        else:
            manager.import_event(handle)
    kept.close()


# --- What Metal cannot share, and the end ---------------------------------------------------------


def test_what_metal_cannot_share_is_refused_with_a_remedy(
    manager: MetalTextureShareManager,
) -> None:
    fd = create_memory(4096, "test")
    native = MetalShareDevice(FakeMetal(), system_wide=True, timeout_ns=SECOND)
    semaphore = SemaphoreHandle("vulkan", "timeline", fd.duplicate())
    fence = FenceHandle("vulkan", fd.duplicate())
    buffer = HostBufferHandle(fd.duplicate(), 4096, fd.duplicate())
    calls: list[tuple[Callable[[], object], str]] = [
        (lambda: native.create_buffer(16, ""), "HostTextureShareManager"),
        (lambda: native.import_buffer(buffer, ""), "HostTextureShareManager"),
        (lambda: native.create_semaphore("timeline"), "create_event"),
        (lambda: native.import_semaphore(semaphore), "create_event"),
        (lambda: native.create_fence(), "waits for the GPU"),
        (lambda: native.import_fence(fence), "waits for the GPU"),
        (lambda: manager.create_shareable_buffer(16), "HostTextureShareManager"),
        (lambda: manager.create_semaphore(), ""),
        (lambda: manager.create_semaphore("binary"), ""),
        (lambda: manager.create_fence(), ""),
    ]
    for call, remedy in calls:
        with pytest.raises(OperationNotSupportedError, match=f"cannot share .*; .*{remedy}"):
            call()


def test_an_import_outlives_the_exporter(
    metal: FakeMetal, open_manager: Callable[..., MetalTextureShareManager]
) -> None:
    sent = pixels_of(describe())
    theirs = open_manager(FakeMetal(metal.gpu))
    with open_manager(metal) as ours, ours.create_shareable_texture(describe()) as texture:
        with texture.access(write=True) as view:
            view.upload(sent)
        imported = theirs.import_texture(ours.export_texture(texture), describe())
    with imported.access() as view:
        assert (view.download() == sent).all()
    theirs.close()
    with pytest.raises(TextureAccessError, match="closed"):
        imported.access().__enter__()


def test_nothing_works_after_the_end(manager: MetalTextureShareManager) -> None:
    texture, event = manager.create_shareable_texture(describe()), manager.create_event()
    manager.close()
    manager.close()
    calls: list[Callable[[], object]] = [
        lambda: manager.create_shareable_texture(describe()),
        lambda: manager.export_texture(texture),
        lambda: manager.create_event(),
        lambda: event.value,
        lambda: texture.native_handle,
    ]
    for call in calls:
        with pytest.raises(ShareError, match="closed"):
            call()


def test_several_threads_share_one_queue(
    metal: FakeMetal, open_manager: Callable[..., MetalTextureShareManager]
) -> None:
    problems: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            descriptor = describe(8 + seed)
            texture = manager.create_shareable_texture(descriptor)
            for turn in range(20):
                sent = np.full((3, 8 + seed, 4), 20 * seed + turn, np.uint8)
                with texture.access(write=True) as view:
                    view.upload(sent)
                with texture.access() as view:
                    assert (view.download() == sent).all()
        except BaseException as problem:
            problems.append(problem)

    with open_manager(metal) as manager:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert problems == []
