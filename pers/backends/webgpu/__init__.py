"""The WebGPU backend, on wgpu-py. The only part of pers that imports wgpu."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import wgpu

from pers.backends.webgpu.adapters import (
    NO_DRIVER,
    configure_instance,
    device_info,
    find_adapters,
    list_adapters,
    request_device,
    useful_features,
)
from pers.backends.webgpu.native import WebGPUNative
from pers.errors import BackendUnavailableError
from pers.graphics.device import RenderDevice

__all__ = ["WebGPUDevice", "list_adapters"]


class WebGPUDevice(RenderDevice):
    """A render device on wgpu; `native_handle` is its `wgpu.GPUDevice`."""

    @classmethod
    def open(
        cls,
        *,
        power_preference: Literal["high-performance", "low-power"] = "high-performance",
        features: Sequence[str] = (),
        limits: Mapping[str, int] | None = None,
        api: Literal["vulkan", "metal", "d3d12", "opengl"] | None = None,
        dx12_compiler: Literal["fxc", "dynamic-dxc", "static-dxc"] | None = None,
        adapter_name: str | None = None,
    ) -> Self:
        """Open a device; see `pers.open_device`.

        Args:
            power_preference: Which GPU to take when there are several.
            features: WebGPU features that must be there.
            limits: Limits that must be reached.
            api: Which graphics API to use; None takes ``PERS_GPU_API`` or the best there is.
            dx12_compiler: How D3D12 compiles shaders; None takes ``PERS_DX12_COMPILER`` or fxc.
            adapter_name: Take the first adapter whose name or driver contains this; None takes
                ``PERS_ADAPTER`` or the best there is.

        Raises:
            BackendUnavailableError: No driver, or the GPU lacks a feature or a limit.
        """
        import os

        configure_instance(api, dx12_compiler)
        adapters = find_adapters(power_preference)
        if not adapters:
            raise BackendUnavailableError(NO_DRIVER)
        wanted = adapter_name or os.environ.get("PERS_ADAPTER") or ""
        for adapter in adapters:
            info = device_info(adapter)
            if wanted.lower() in f"{info.name} {info.driver} {info.api}".lower():
                extra = useful_features(adapter, features)
                gpu_device = request_device(adapter, [*features, *extra], limits or {})
                return cls(WebGPUNative(gpu_device, owned=True, hidden_features=extra))
        names = ", ".join(device_info(adapter).name for adapter in adapters)
        raise BackendUnavailableError(f"no adapter is called {wanted!r}; there are: {names}")

    @classmethod
    def wrap(cls, gpu_device: Any) -> Self:
        """Adopt the device of an application that uses wgpu already (a pygfx scene, say).

        Closing the pers device leaves the wgpu device alone. When the application destroys it,
        pers follows: maps are aborted, and `lost` resolves.

        Args:
            gpu_device: A `wgpu.GPUDevice`.

        Raises:
            BackendUnavailableError: It is none.
        """
        if not isinstance(gpu_device, wgpu.GPUDevice):
            raise BackendUnavailableError(
                f"WebGPUDevice.wrap takes a wgpu.GPUDevice, not {type(gpu_device).__name__}"
            )
        return cls(WebGPUNative(gpu_device, owned=False))
