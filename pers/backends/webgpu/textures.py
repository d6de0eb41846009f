"""Textures on wgpu."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from wgpu.backends.wgpu_native import _api
from wgpu.backends.wgpu_native._mappings import enummap

from pers.backends.webgpu._ffi import NULL, Owned, checked, ffi, label_view, lib, new
from pers.graphics.native import NativeTexture
from pers.graphics.resources import Texture
from pers.graphics.types import TextureDescriptor
from pers.textures import TextureFormat

_DESCRIPTOR = ffi.typeof("WGPUTextureDescriptor *")
_VIEW = ffi.typeof("WGPUTextureViewDescriptor *")
_DIMENSION = lib.WGPUTextureDimension_2D
_FORMATS = {each: enummap[f"TextureFormat.{each.value}"] for each in TextureFormat}

_create_texture = checked(lib.wgpuDeviceCreateTexture, lib.wgpuTextureRelease)
_create_view = checked(lib.wgpuTextureCreateView, lib.wgpuTextureViewRelease)


class WebGPUView(Owned):
    """A `WGPUTextureView`."""

    _release = lib.wgpuTextureViewRelease


class WebGPUTexture(NativeTexture):
    """A texture, made by pers or for a window."""

    is_owned: bool
    """Whether pers made it."""

    internal: Any
    """What C functions take."""

    @abstractmethod
    def view(self) -> WebGPUView:
        """Return the whole texture as shaders see it."""

    @abstractmethod
    def layer_view(self, mip_level: int, layer: int) -> WebGPUView:
        """Return one layer of one mip level as passes see it."""


class DeviceTexture(Owned, WebGPUTexture):
    """A `WGPUTexture`; wgpu-py's object for it is made when somebody asks for it."""

    is_owned = True
    _release = lib.wgpuTextureRelease

    def __init__(self, gpu_device: Any, descriptor: TextureDescriptor) -> None:
        """Make the texture; raises wgpu's errors."""
        label = label_view(descriptor.label)
        self._size = (descriptor.width, descriptor.height, descriptor.layers)
        fields = (
            NULL, label, int(descriptor.usage), _DIMENSION, self._size,
            _FORMATS[descriptor.format], descriptor.mip_levels, descriptor.sample_count,
        )  # fmt: skip
        super().__init__(_create_texture(gpu_device._internal, new(_DESCRIPTOR, fields)))
        self._gpu = gpu_device
        self._descriptor = descriptor
        self._view: WebGPUView | None = None
        self._handle: Any = None

    @property
    def handle(self) -> Any:
        if self._handle is None:
            descriptor = self._descriptor
            info = {
                "size": self._size,
                "mip_level_count": descriptor.mip_levels,
                "sample_count": descriptor.sample_count,
                "dimension": "2d",
                "format": descriptor.format.value,
                "usage": int(descriptor.usage),
                "texture_binding_view_dimension": None,
            }
            lib.wgpuTextureAddRef(self.internal)  # which the object gives back when it dies
            self._handle = _api.GPUTexture(descriptor.label, self.internal, self._gpu, info)
        return self._handle

    def view(self) -> WebGPUView:
        if self._view is None:
            self._view = WebGPUView(_create_view(self.internal, NULL))
        return self._view

    def layer_view(self, mip_level: int, layer: int) -> WebGPUView:
        descriptor = self._descriptor
        if descriptor.mip_levels == descriptor.layers == 1:
            return self.view()
        one = new(_VIEW)
        one.format = _FORMATS[descriptor.format]
        one.dimension = lib.WGPUTextureViewDimension_2D
        one.baseMipLevel, one.mipLevelCount = mip_level, 1
        one.baseArrayLayer, one.arrayLayerCount = layer, 1
        one.aspect = lib.WGPUTextureAspect_All
        one.usage = lib.WGPUTextureUsage_RenderAttachment
        return WebGPUView(_create_view(self.internal, one))

    def destroy(self) -> None:
        self._view = None
        if self.internal is not None:
            lib.wgpuTextureDestroy(self.internal)


class WindowTexture(WebGPUTexture):
    """The `wgpu.GPUTexture` of a window's next frame. Nothing may hold on to it after that."""

    is_owned = False
    internal = None  # nothing but a view of it is ever used

    def __init__(self, texture: Any) -> None:
        self._texture = texture

    @property
    def handle(self) -> Any:
        return self._texture

    def view(self) -> WebGPUView:
        return WebGPUView(_create_view(self._texture._internal, NULL))

    def layer_view(self, mip_level: int, layer: int) -> WebGPUView:
        return self.view()  # it has one of each

    def destroy(self) -> None:
        """Nothing: the window destroys it."""


def native_texture(texture: Texture) -> WebGPUTexture:
    """Return the wgpu texture behind a texture of a webgpu device."""
    native = texture.native
    assert isinstance(native, WebGPUTexture)
    return native
