"""Opening a device on the backend of one's choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import anyio.to_thread

from pers._checks import items_of, of_type
from pers.errors import BackendUnavailableError, ValidationError
from pers.graphics.interfaces import IRenderDevice
from pers.graphics.types import DeviceInfo

__all__ = ["list_adapters", "open_device", "open_device_async"]

BACKENDS = ("webgpu", "null")


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
