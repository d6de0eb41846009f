"""The boundary to pyobjc, over modules that look like pyobjc's and do what `FakeMetal` does.

The names and the shapes of results are those of pyobjc's own metadata (its ``_metadata.py``): the
result of a function comes with what it returns through pointers, memory comes as a list without a
length, and constants are looked up by name.
"""

from __future__ import annotations

import contextlib
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from pers import TextureDescriptor, TextureFormat, TextureUsage
from pers.backends.metal import MetalTextureShareManager, _objc
from pers.errors import MetalApiError, WaitTimeoutError
from tests.sharing.fake_metal import FakeMetal
from tests.support import random_pixels

KEYS = """kIOSurfaceWidth kIOSurfaceHeight kIOSurfaceBytesPerElement kIOSurfaceBytesPerRow
    kIOSurfaceAllocSize kIOSurfacePixelFormat kIOSurfaceIsGlobal"""


class Varlist:
    """``objc.varlist``: memory of unknown length."""

    def __init__(self, metal: FakeMetal, surface: Any) -> None:
        self.metal, self.surface = metal, surface

    def as_buffer(self, size: int) -> Any:
        return self.metal.surface_memory(self.surface, size)


class Proxy:
    """An Objective-C object: what it is for `FakeMetal`, with selectors as methods."""

    def __init__(self, inner: Any, **methods: Any) -> None:
        self.inner = inner
        self.__dict__.update(methods)


class Descriptor:
    """``MTLTextureDescriptor``."""

    @classmethod
    def texture2DDescriptorWithPixelFormat_width_height_mipmapped_(
        cls, pixel_format: int, width: int, height: int, mipmapped: bool
    ) -> Descriptor:
        assert mipmapped is False
        made = cls()
        made.pixel_format, made.size = pixel_format, (width, height)
        return made

    def setUsage_(self, usage: int) -> None:
        self.usage = usage

    def setStorageMode_(self, mode: int) -> None:
        assert mode == 1  # MTLStorageModeManaged


def event_proxy(metal: FakeMetal, event: Any) -> Proxy:
    return Proxy(
        event,
        signaledValue=lambda: metal.event_value(event),
        setSignaledValue_=lambda value: metal.set_event_value(event, value),
        newSharedEventHandle=lambda: metal.event_handle(event),
        waitUntilSignaledValue_timeoutMS_=lambda value, ms: metal.wait_event(event, value, ms),
    )


def commands_proxy(metal: FakeMetal, commands: Any) -> Proxy:
    def error() -> Any:
        return SimpleNamespace(localizedDescription=lambda: metal.fail["error_of"])

    return Proxy(
        commands,
        encodeWaitForEvent_value_=lambda e, v: metal.encode_wait(commands, e.inner, v),
        encodeSignalEvent_value_=lambda e, v: metal.encode_signal(commands, e.inner, v),
        commit=lambda: metal.commit(commands),
        status=lambda: 5 if "error_of" in metal.fail else 4,
        error=error,
    )


def device_proxy(metal: FakeMetal) -> Proxy:
    device = metal.device

    def new_texture(descriptor: Descriptor, surface: Any, plane: int) -> Any:
        assert plane == 0
        kind = descriptor.pixel_format
        return metal.new_texture(device, surface, descriptor.size, kind, descriptor.usage)

    def new_queue() -> Proxy:
        queue = metal.new_queue(device)
        return Proxy(queue, commandBuffer=lambda: commands_proxy(metal, metal.new_commands(queue)))

    return Proxy(
        device,
        name=lambda: metal.device_name(device),
        newCommandQueue=new_queue,
        minimumLinearTextureAlignmentForPixelFormat_=lambda f: metal.linear_alignment(device, f),
        newTextureWithDescriptor_iosurface_plane_=new_texture,
        newSharedEvent=lambda: event_proxy(metal, metal.new_event(device)),
        newSharedEventWithHandle_=lambda h: event_proxy(metal, metal.event_of_handle(device, h)),
    )


def module(name: str, **content: Any) -> ModuleType:
    made = ModuleType(name)
    made.__dict__.update(content)
    return made


@pytest.fixture
def metal(monkeypatch: pytest.MonkeyPatch) -> FakeMetal:
    """The stand-in, installed as macOS 14 with pyobjc."""
    metal = FakeMetal()
    named = {key: f"CFString {key}" for key in KEYS.split()}
    back = {value: key for key, value in named.items()}

    def create(properties: dict[str, Any]) -> Any:
        return metal.create_surface({back[key]: value for key, value in properties.items()})

    def align(key: str, value: int) -> int:
        assert key == named["kIOSurfaceBytesPerRow"]
        return metal.align_bytes_per_row(value)

    modules = [
        module("objc", autorelease_pool=contextlib.nullcontext),
        module(
            "Metal",
            MTLCreateSystemDefaultDevice=lambda: device_proxy(metal),
            MTLTextureDescriptor=Descriptor,
        ),
        module(
            "IOSurface",
            **named,
            IOSurfaceCreate=create,
            IOSurfaceLookup=metal.find_surface,
            IOSurfaceAlignProperty=align,
            IOSurfaceGetID=metal.surface_id,
            IOSurfaceGetWidth=lambda surface: metal.surface_size(surface)[0],
            IOSurfaceGetHeight=lambda surface: metal.surface_size(surface)[1],
            IOSurfaceGetPixelFormat=metal.surface_format,
            IOSurfaceGetBytesPerElement=metal.surface_bytes_per_element,
            IOSurfaceGetBytesPerRow=metal.surface_bytes_per_row,
            IOSurfaceGetAllocSize=metal.surface_nbytes,
            IOSurfaceLock=lambda surface, options, seed: (metal.lock(surface, options), 1),
            IOSurfaceUnlock=lambda surface, options, seed: (metal.unlock(surface, options), 2),
            IOSurfaceGetBaseAddress=lambda surface: Varlist(metal, surface),
        ),
    ]
    for one in modules:
        monkeypatch.setitem(sys.modules, one.__name__, one)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(_objc.platform, "mac_ver", lambda: ("14.2", ("", "", ""), "arm64"))
    return metal


DESCRIPTOR = TextureDescriptor(5, 3, TextureFormat.RGBA16_FLOAT, TextureUsage.STORAGE_BINDING, "x")


def test_pixels_go_through_pyobjc_and_come_back(metal: FakeMetal) -> None:
    sent = random_pixels(TextureFormat.RGBA16_FLOAT, 3, 5)
    with MetalTextureShareManager() as ours, MetalTextureShareManager() as theirs:
        assert ours.capabilities.device == "Fake M9"
        texture = ours.create_shareable_texture(DESCRIPTOR)
        assert texture.native_handle.usage == 3
        with texture.access(write=True) as view:
            view.upload(sent)
        imported = theirs.import_texture(ours.export_texture(texture), DESCRIPTOR)
        with imported.access() as view:
            assert (view.download() == sent).all()


def test_events_go_through_pyobjc(metal: FakeMetal) -> None:
    with (
        MetalTextureShareManager(timeout_ns=10_000_000) as ours,
        MetalTextureShareManager() as other,
    ):
        texture = ours.create_shareable_texture(DESCRIPTOR)
        start, done = ours.create_event(), ours.create_event()
        seen = other.import_event(ours.export_event(done))
        with texture.access(write=True, wait=[(start, 4)], signal=[(done, 6)]):
            pass
        with pytest.raises(WaitTimeoutError):
            seen.wait(6, 1)
        start.signal(4)
        seen.wait(6, 1)
        assert (start.value, done.value, seen.value) == (4, 6, 6)


def test_the_gpus_errors_go_through_pyobjc(metal: FakeMetal) -> None:
    with MetalTextureShareManager() as manager:
        texture = manager.create_shareable_texture(DESCRIPTOR)
        metal.fail["error_of"] = "Caused GPU Timeout Error"
        with pytest.raises(MetalApiError, match="Caused GPU Timeout Error"):
            manager.signal_texture_ready(texture)
