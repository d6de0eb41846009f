"""Opening a device on the backend of one's choice."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Literal

import anyio.to_thread

from pers._checks import items_of, of_type
from pers.errors import BackendUnavailableError, ShareError, ValidationError
from pers.graphics.interfaces import IRenderDevice
from pers.graphics.types import DeviceInfo
from pers.sharing.manager import ShareManager

__all__ = ["list_adapters", "open_device", "open_device_async", "open_share_manager"]

BACKENDS = ("webgpu", "null")
SHARE_BACKENDS = ("vulkan", "metal", "webgpu", "host")

_log = logging.getLogger(__name__)


def list_adapters() -> list[DeviceInfo]:
    """Describe the GPUs and software drivers that the webgpu backend finds, the best first."""
    from pers.backends import webgpu

    return webgpu.list_adapters()


def open_device(
    backend: str = "webgpu",
    *,
    power_preference: Literal["high-performance", "low-power"] = "high-performance",
    features: Sequence[str] = (),
    limits: Mapping[str, int] | None = None,
) -> IRenderDevice:
    """Open a device.

    Args:
        backend: ``webgpu`` for a GPU (or a software driver) through wgpu, ``null`` for a
            deterministic one in NumPy that copies and clears but runs no shaders.
        power_preference: Which GPU to take when there are several.
        features: WebGPU features that must be there (``timestamp-query``, say).
        limits: Limits that must be reached, by their names in `DeviceLimits`; None takes all
            that the GPU has.

    Raises:
        BackendUnavailableError: No such backend, no driver, or the GPU lacks a feature or limit.
    """
    features, limits = _names(features), _mapping(limits)
    if backend == "webgpu":
        from pers.backends.webgpu import WebGPUDevice

        return WebGPUDevice.open(
            power_preference=power_preference, features=features, limits=limits
        )
    if backend == "null":
        from pers.backends.null import NullDevice

        return NullDevice(features=features, limits=limits)
    raise BackendUnavailableError(
        f"there is no backend {backend!r}; choose one of {', '.join(BACKENDS)}"
    )


async def open_device_async(
    backend: str = "webgpu",
    *,
    power_preference: Literal["high-performance", "low-power"] = "high-performance",
    features: Sequence[str] = (),
    limits: Mapping[str, int] | None = None,
) -> IRenderDevice:
    """The same as `open_device`, but does not block the event loop while drivers load."""

    def open_now() -> IRenderDevice:
        return open_device(
            backend, power_preference=power_preference, features=features, limits=limits
        )

    return await anyio.to_thread.run_sync(open_now)


def _names(features: Sequence[str]) -> list[str]:
    names = [features] if isinstance(features, str) else items_of(features, "open_device features")
    for name in names:
        of_type(name, str, "open_device features: each of them")
    return names


def _mapping(limits: Mapping[str, int] | None) -> Mapping[str, int]:
    if limits is None:
        return {}
    if not isinstance(limits, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValidationError(f"open_device takes limits as a dict, not {limits!r}")
    return limits


def open_share_manager(device: IRenderDevice | None = None, backend: str = "auto") -> ShareManager:
    """Open the best manager of shared textures that works here; its `choice` says why that one.

    ``auto`` takes ``webgpu`` for a device, else ``vulkan`` where it works and ``host`` where not.
    It leaves ``metal`` to those who ask for it: no machine with Metal has run that backend yet.

    Args:
        device: The render device whose textures are to be shared; None when there is none.
        backend: ``auto``, or one of ``vulkan``, ``metal``, ``webgpu`` (needs `device`), ``host``.

    Raises:
        BackendUnavailableError: There is no such backend.
        ShareError: The backend that was asked for cannot run here.
        ValidationError: The backend needs a device, or takes none.
    """
    if backend == "auto":
        return _best_share_manager(device)
    if backend not in SHARE_BACKENDS:
        raise BackendUnavailableError(
            f"there is no backend {backend!r} for sharing; "
            f"choose auto or one of {', '.join(SHARE_BACKENDS)}"
        )
    if (device is None) is (backend == "webgpu"):
        raise ValidationError(
            "the webgpu backend shares the textures of a device; pass one, or choose another "
            "backend"
            if device is None
            else f"the {backend} backend has a device of its own; pass none, or choose webgpu"
        )
    manager = _share_manager(device, backend)
    manager.choice = f"{backend} was asked for"
    return manager


def _best_share_manager(device: IRenderDevice | None) -> ShareManager:
    if device is not None:
        manager = _share_manager(device, "webgpu")
        manager.choice = "webgpu, since it shares the textures of the device that was given"
        return manager
    try:
        manager = _share_manager(None, "vulkan")
        manager.choice = "vulkan, which shares without a copy and works here"
    except ShareError as error:
        manager = _share_manager(None, "host")
        manager.choice = f"host, which works everywhere; not vulkan: {error}"
    _log.info("sharing through %s", manager.choice)
    return manager


def _share_manager(device: IRenderDevice | None, backend: str) -> ShareManager:
    if backend == "vulkan":
        from pers.backends.vulkan import VulkanTextureShareManager

        return VulkanTextureShareManager()
    if backend == "metal":
        from pers.backends.metal import MetalTextureShareManager

        return MetalTextureShareManager()
    if backend == "host":
        from pers.backends.host import HostTextureShareManager

        return HostTextureShareManager()
    from pers.backends.webgpu.sharing import WebGPUTextureShareManager

    assert device is not None
    return WebGPUTextureShareManager(device)
