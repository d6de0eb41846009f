"""Textures on wgpu."""

from __future__ import annotations

from typing import Any

from pers.backends.webgpu._ffi import NULL, Owned, checked, lib
from pers.graphics.native import NativeTexture
from pers.graphics.resources import Texture

_create_view = checked(lib.wgpuTextureCreateView)


class WebGPUView(Owned):
    """A `WGPUTextureView` of a whole texture."""

    _release = lib.wgpuTextureViewRelease


class WebGPUTexture(NativeTexture):
    """A `wgpu.GPUTexture`."""

    def __init__(self, texture: Any, *, owned: bool = True) -> None:
        self._texture = texture
        self.is_owned = owned
        self._view: WebGPUView | None = None

    @property
    def handle(self) -> Any:
        return self._texture

    @property
    def internal(self) -> Any:
        """What C functions take."""
        return self._texture._internal

    def view(self) -> WebGPUView:
        """Return the texture as passes and shaders see it.

        Made once, but for a window's texture: nothing may hold that one after its frame.
        """
        if self._view is not None:
            return self._view
        view = WebGPUView(_create_view(self.internal, NULL))
        if self.is_owned:
            self._view = view
        return view

    def destroy(self) -> None:
        self._view = None
        if self.is_owned:
            self._texture.destroy()


def native_texture(texture: Texture) -> WebGPUTexture:
    """Return the wgpu texture behind a texture of a webgpu device."""
    native = texture.native
    assert isinstance(native, WebGPUTexture)
    return native
