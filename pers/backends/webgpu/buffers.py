"""Buffers on wgpu."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pers.backends.webgpu._ffi import ffi, forget, lib, libf, logger, map_info, translate
from pers.buffers.core import NativeBuffer
from pers.buffers.types import BufferDesc, BufferUsage, MapMode
from pers.errors import MapAbortedError, OutOfMemoryError, PersError

if TYPE_CHECKING:
    from pers.backends.webgpu.native import WebGPUNative

_GPU_WRITTEN = ~int(BufferUsage.MAP_WRITE | BufferUsage.COPY_SRC)
"""Usages with which more than a mapping writes to a buffer."""

_MODES = {MapMode.READ: lib.WGPUMapMode_Read, MapMode.WRITE: lib.WGPUMapMode_Write}


class WebGPUBuffer(NativeBuffer):
    """A `wgpu.GPUBuffer` whose mapping pers does itself.

    wgpu-py's own `map_async` loses track of the buffer when a map fails or is given up, and its
    `unmap` refuses a pending one; so the C functions are called instead.
    """

    def __init__(
        self, device: WebGPUNative, buffer: Any, desc: BufferDesc, *, writes_directly: bool
    ) -> None:
        self._device = device
        self._buffer = buffer
        self.internal = buffer._internal
        """What the C functions take."""
        self.writes_directly = writes_directly
        # Memory that cannot be mapped is filled by a copy that the library queues.
        directly = writes_directly or bool(desc.usage & BufferUsage.MAP_WRITE)
        self._mapped_at_creation = desc.mapped_at_creation and not directly
        self._is_gpu_written = bool(int(desc.usage) & _GPU_WRITTEN)
        self.written_before = 0
        """The number of the submit that carries out the last write by the queue."""
        self._pending_map = 0

    @property
    def handle(self) -> Any:
        return self._buffer

    def map_async(
        self, mode: MapMode, offset: int, size: int, done: Callable[[PersError | None], None]
    ) -> None:
        if self._is_gpu_written:
            self._device.flush_writes(self.written_before)

        def called_back(success: bool, message: str) -> None:
            self._pending_map = 0
            done(None if success else _map_error(message))

        info, number = map_info(called_back)
        self._pending_map = number
        try:
            libf.wgpuBufferMapAsync(self.internal, _MODES[mode], offset, size, info[0])
        except Exception as error:
            if forget(number) is not None:
                done(translate(error, "map"))

    def address(self, offset: int, size: int) -> int:
        pointer = lib.wgpuBufferGetMappedRange(self.internal, offset, size)
        return int(ffi.cast("uintptr_t", pointer))

    def unmap(self) -> None:
        forget(self._pending_map)
        self._pending_map = 0
        try:
            libf.wgpuBufferUnmap(self.internal)
        except Exception as error:  # the device was lost, and the mapping with it
            logger.debug("unmap: %s", error)
        self._buffer._map_state = "unmapped"
        if self._mapped_at_creation:
            self._mapped_at_creation = False
            self.written_before = self._device.write_queued()

    def destroy(self) -> None:
        forget(self._pending_map)
        self._buffer.destroy()
        self._device.buffer_destroyed()


def _map_error(message: str) -> PersError:
    if "memory" in message.lower():
        return OutOfMemoryError(f"map: {message}; free what is not needed, or map less")
    return MapAbortedError(f"map: {' '.join(message.split())}")
