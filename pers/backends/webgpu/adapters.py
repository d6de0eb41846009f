"""Finding GPUs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import wgpu
from wgpu.backends.wgpu_native.extras import set_instance_extras

from pers._checks import whole_number
from pers.errors import BackendUnavailableError
from pers.graphics.types import DeviceInfo

PowerPreference = Literal["high-performance", "low-power"]
Dx12Compiler = Literal["fxc", "dynamic-dxc", "static-dxc"]

_APIS = {"vulkan": "Vulkan", "metal": "Metal", "d3d12": "DX12", "opengl": "GL"}
_KINDS = {
    "DiscreteGPU": "discrete",
    "IntegratedGPU": "integrated",
    "VirtualGPU": "virtual",
    "CPU": "cpu",
}
_RANKS: Mapping[PowerPreference, Sequence[str]] = {
    "high-performance": ("discrete", "integrated", "virtual", "cpu", "unknown"),
    "low-power": ("integrated", "discrete", "virtual", "cpu", "unknown"),
}
PRIMARY_BUFFERS = "mappable-primary-buffers"
SHARED_MEMORY_KINDS = ("cpu", "integrated")
"""Where the GPU has no memory of its own, so that a mapped buffer is as fast for it as any."""
NO_DRIVER = (
    "no GPU driver was found; install a Vulkan driver (on Debian and Ubuntu, "
    "`apt install libvulkan1 mesa-vulkan-drivers` gives a software one)"
)


def device_info(adapter: Any) -> DeviceInfo:
    """Describe an adapter."""
    info = adapter.info
    return DeviceInfo(
        backend="webgpu",
        api=str(info["backend_type"]),
        name=str(info["device"]),
        driver=str(info["description"]) or str(info["vendor"]),
        kind=_KINDS.get(str(info["adapter_type"]), "unknown"),
        executes_shaders=True,
        features=frozenset(map(str, adapter.features)),
    )


def configure_instance(api: str | None, dx12_compiler: Dx12Compiler | None) -> None:
    """Choose what wgpu loads; possible only before it has been used in this process.

    OpenGL is left out unless asked for: it lacks features that pers needs, and its driver writes
    to the standard error stream of programs that run without a display.
    """
    api = api or os.environ.get("PERS_GPU_API") or None
    compiler = dx12_compiler or os.environ.get("PERS_DX12_COMPILER") or "fxc"
    if api is not None and api not in _APIS:
        raise BackendUnavailableError(
            f"{api!r} is no graphics API; choose one of {', '.join(_APIS)} "
            "(argument `api` or environment variable PERS_GPU_API)"
        )
    if compiler not in ("fxc", "dynamic-dxc", "static-dxc"):
        raise BackendUnavailableError(
            f"{compiler!r} is no DX12 shader compiler; choose fxc, dynamic-dxc or static-dxc "
            "(argument `dx12_compiler` or environment variable PERS_DX12_COMPILER)"
        )
    backends = [_APIS[api]] if api is not None else ["Vulkan", "Metal", "DX12"]
    try:
        set_instance_extras(backends=backends, dx12_compiler="Fxc" if compiler == "fxc" else "Dxc")
    except RuntimeError:  # wgpu is in use already, and stays as it is
        if api is not None or dx12_compiler is not None:
            raise BackendUnavailableError(
                "wgpu is in use in this process, so `api` and `dx12_compiler` come too late; open "
                "the pers device first, or leave them out"
            ) from None


def find_adapters(power_preference: PowerPreference = "high-performance") -> list[Any]:
    """Return the adapters that pers can use, the best first."""
    rank = _RANKS.get(power_preference)
    if rank is None:
        raise BackendUnavailableError(
            f"power_preference must be one of {', '.join(_RANKS)}, not {power_preference!r}"
        )
    adapters = wgpu.gpu.enumerate_adapters_sync()
    return sorted(adapters, key=lambda adapter: rank.index(device_info(adapter).kind))


def list_adapters() -> list[DeviceInfo]:
    """Describe the GPUs (and software drivers) that the webgpu backend finds, the best first."""
    _configure_once()
    return [device_info(adapter) for adapter in find_adapters()]


def _configure_once() -> None:
    configure_instance(None, None)


def useful_features(adapter: Any, wanted: Sequence[str]) -> list[str]:
    """Return the features beyond the `wanted` ones that pers itself makes use of."""
    shared = device_info(adapter).kind in SHARED_MEMORY_KINDS
    has = PRIMARY_BUFFERS in adapter.features
    return [PRIMARY_BUFFERS] if shared and has and PRIMARY_BUFFERS not in wanted else []


def request_device(adapter: Any, features: Sequence[str], limits: Mapping[str, int]) -> Any:
    """Open a device with all limits that the adapter has.

    Raises:
        BackendUnavailableError: The adapter lacks a feature or a limit.
    """
    name = device_info(adapter).name
    missing = sorted(set(features) - set(adapter.features))
    if missing:
        raise BackendUnavailableError(
            f"{name} lacks the feature{'s' if len(missing) > 1 else ''} {', '.join(missing)}; "
            "`pers info` lists what it has"
        )
    for limit, value in limits.items():
        has = adapter.limits.get(limit.replace("_", "-"))
        if has is None:
            raise BackendUnavailableError(
                f"there is no limit {limit!r} on {name}; `pers info` lists what there is"
            )
        wanted = whole_number(value, f"the limit {limit}", error=BackendUnavailableError)
        enough = wanted >= has if limit.startswith("min_") else wanted <= has
        if not enough:
            raise BackendUnavailableError(
                f"{name} has {limit} {has}, not {value}; ask for that, or leave it out"
            )
    try:
        return adapter.request_device_sync(required_features=list(features))
    except Exception as error:
        raise BackendUnavailableError(
            f"{name} gave no device: {error}; close other programs that use it, or choose another "
            "adapter (PERS_ADAPTER)"
        ) from error
