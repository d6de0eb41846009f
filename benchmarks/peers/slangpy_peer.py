"""slangpy, on Vulkan."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.peers import PeerMissingError, same_gpu

__all__ = ["SlangPy"]


class SlangPy:
    """A slangpy device on the GPU that pers uses, without its validation and ray tracing."""

    def __init__(self, gpu_name: str) -> None:
        """Open a device.

        Raises:
            PeerMissingError: It is not installed, or does not run on that GPU.
        """
        try:
            slangpy: Any = importlib.import_module("slangpy")
        except ImportError as error:
            raise PeerMissingError(f"not installed ({error})") from error
        self.module: Any = slangpy
        usage = slangpy.BufferUsage
        self._usage = usage.unordered_access | usage.copy_source | usage.copy_destination
        try:
            with _quiet():
                self.device: Any = _open(slangpy, gpu_name)
        except RuntimeError as error:
            lines = str(error).splitlines()
            raise PeerMissingError(
                f"slangpy gives no Vulkan device on {gpu_name}: {lines[0] if lines else error}"
            ) from error
        self.description = f"{self.device.info.adapter_name}, {self.device.info.api_name}"

    def buffer(self, size: int) -> Any:
        """Make a buffer on the GPU."""
        return self.device.create_buffer(size=size, usage=self._usage)

    def buffer_with(self, contents: npt.NDArray[Any]) -> Any:
        """Make a buffer on the GPU with contents."""
        return self.device.create_buffer(data=contents, usage=self._usage)

    def upload(self, buffer: Any, offset: int, data: npt.NDArray[np.uint8]) -> None:
        """Record and submit an upload."""
        encoder = self.device.create_command_encoder()
        encoder.upload_buffer_data(buffer, offset, data)
        self.device.submit_command_buffer(encoder.finish())

    def wait(self) -> None:
        """Block until everything is done."""
        self.device.wait_for_idle()

    def close(self) -> None:
        """Give the device back."""
        self.device.close()


def _open(slangpy: Any, gpu_name: str) -> Any:
    kind = slangpy.DeviceType.vulkan
    adapters = slangpy.Device.enumerate_adapters(kind)
    fitting = [adapter for adapter in adapters if same_gpu(gpu_name, adapter.name)]
    if not fitting:
        names = ", ".join(adapter.name for adapter in adapters) or "nothing"
        raise PeerMissingError(f"its Vulkan offers {names}, and not {gpu_name}")
    try:
        return slangpy.Device(
            type=kind,
            adapter_luid=fitting[0].luid,
            enable_rhi_validation=False,
            enable_hot_reload=False,
            enable_ray_tracing=False,
            enable_cuda_interop=False,
        )
    except TypeError:  # before 0.40 there is nothing to turn off
        return slangpy.Device(type=kind, adapter_luid=fitting[0].luid)


@contextmanager
def _quiet() -> Generator[None]:
    """Keep what the library writes to the terminal while it fails to open away from it."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(1), os.dup(2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        yield
    finally:
        for number, copy in enumerate(saved, 1):
            os.dup2(copy, number)
            os.close(copy)
        os.close(nowhere)
