"""The machine with everything that takes part: a pers device and its peers on the same GPU."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import attrs
import numpy as np
import numpy.typing as npt

import pers
from benchmarks.core import MODERNGL, SLANGPY, WGPU, Missing
from benchmarks.payload import Payload
from benchmarks.peers import PeerMissingError
from benchmarks.peers.moderngl_peer import ModernGL
from benchmarks.peers.raw_wgpu import BufferReader, RawWgpu
from benchmarks.peers.slangpy_peer import SlangPy
from pers import IBuffer, IRenderDevice, ITexture
from pers.backends.webgpu import WebGPUDevice

__all__ = ["SLANGPY_DRAWS", "Lab"]

PACKAGES = ("pers", "wgpu", "numpy", "anyio", "trio", "moderngl", "slangpy")
PeerT = TypeVar("PeerT", RawWgpu, ModernGL, SlangPy)

DRAW_FEATURE = "indirect-first-instance"
"""Lets indirect draws number their instances."""
SLANGPY_DRAWS = "its pipelines and passes are not measured: only buffers, copies and submits are"
"""Why slangpy takes no part where something is drawn."""
MAP_FEATURE = "mappable-primary-buffers"
"""Lets buffers that the GPU uses be mapped: no copy where CPU and GPU share memory."""


class Lab:
    """Opens the devices; peers that cannot run are known by the reason. A context manager."""

    def __init__(self, backend: str = "webgpu", adapter: str | None = None) -> None:
        """Open a pers device, and its peers on the same GPU.

        Args:
            backend: ``webgpu``, or ``null``, which has no peers.
            adapter: Part of the name of the GPU; None takes the best there is.
        """
        self._stack = ExitStack()
        self.threads = os.cpu_count() or 1
        self.device = self._open(backend, adapter)
        self._missing: dict[str, str] = {}
        self.wgpu = self._peer(WGPU, lambda: RawWgpu(self.device.native_handle))
        self.moderngl = self._peer(MODERNGL, lambda: ModernGL(self.device.info.name))
        self.slangpy = self._peer(SLANGPY, lambda: SlangPy(self.device.info.name))
        self._reader = None if self.wgpu is None else BufferReader(self.device.native_handle)

    def missing(self, library: str, why: str = "it has no such operation") -> Missing:
        """Say why a library does not take part: it is not there, or `why`."""
        return Missing(library, self._missing.get(library, why))

    def check_buffer(self, buffer: IBuffer, payload: Payload) -> None:
        """Compare a buffer of the pers device; by wgpu-py alone, so that pers cannot hide a bug."""
        if self._reader is not None:
            self._reader.check(buffer.native_handle, payload)
        else:
            payload.check(self.device.read_array_blocking(buffer, np.uint8))

    def read_pixels(self, texture: ITexture) -> npt.NDArray[np.uint8]:
        """Read an rgba8unorm texture of the pers device, shape (height, width, 4)."""
        return self.device.read_array_blocking(texture, copy=True)

    @property
    def draws(self) -> bool:
        """Whether draws leave pixels."""
        return self.device.info.executes_shaders

    @property
    def shares_memory(self) -> bool:
        """Whether CPU and GPU use the same memory, so that a mapped target is as good as any."""
        return self.device.info.kind in ("cpu", "integrated")

    def describe(self) -> dict[str, Any]:
        """Return what is measured on, for the report."""
        info = self.device.info
        return {
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "cpu": _cpu(),
            "cores": self.threads,
            "memory_bytes": _memory(),
            "device": {
                **attrs.asdict(info, filter=lambda field, _: field.name != "features"),
                "features": sorted(self.device.features),
            },
            "packages": {name: _version(name) for name in PACKAGES},
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "peers": {
                WGPU: self.wgpu.description if self.wgpu else self._absent(WGPU),
                MODERNGL: self.moderngl.description if self.moderngl else self._absent(MODERNGL),
                SLANGPY: self.slangpy.description if self.slangpy else self._absent(SLANGPY),
            },
        }

    def close(self) -> None:
        """Give everything back."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _open(self, backend: str, adapter: str | None) -> IRenderDevice:
        if backend != "webgpu":
            return self._stack.enter_context(pers.open_device(backend))
        with WebGPUDevice.open(adapter_name=adapter) as first:
            info = first.info
        wanted = [DRAW_FEATURE]
        if info.kind in ("cpu", "integrated"):
            wanted.append(MAP_FEATURE)
        features = [name for name in wanted if name in info.features]
        device = WebGPUDevice.open(features=features, adapter_name=adapter)
        return self._stack.enter_context(device)

    def _peer(self, library: str, make: Callable[[], PeerT]) -> PeerT | None:
        try:
            peer = make()
        except PeerMissingError as error:
            self._missing[library] = str(error)
            return None
        self._stack.callback(peer.close)
        return peer

    def _absent(self, library: str) -> str:
        return f"not available: {self._missing[library]}"


def _version(package: str) -> str | None:
    if package == "pers":
        return pers.__version__
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
