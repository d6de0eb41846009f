"""Buffers on wgpu."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from wgpu.backends.wgpu_native import _api

from pers.backends.webgpu._ffi import (
    NULL,
    Owned,
    Ticket,
    cast,
    checked,
    clean,
    ffi,
    forget,
    label_view,
    lib,
    logger,
    map_info,
    memmove,
    new,
    translate,
)
from pers.backends.webgpu._losses import suspect_losses
from pers.backends.webgpu.descriptors import buffer_usage
from pers.buffers.core import NativeBuffer
from pers.buffers.types import BufferDesc, BufferUsage, MapMode
from pers.errors import MapAbortedError, OutOfMemoryError, PersError

if TYPE_CHECKING:
    from pers.backends.webgpu.native import WebGPUNative

_GPU_WRITTEN = ~int(BufferUsage.MAP_WRITE | BufferUsage.COPY_SRC)
"""Usages with which more than a mapping writes to a buffer."""

_MODES = {MapMode.READ: lib.WGPUMapMode_Read, MapMode.WRITE: lib.WGPUMapMode_Write}
_DESCRIPTOR = ffi.typeof("WGPUBufferDescriptor *")
_NUMBER = ffi.typeof("uintptr_t")
_MAP_WRITE = buffer_usage(int(BufferUsage.MAP_WRITE))
_SMALL = 1 << 16
"""Bytes up to which a copy that holds the interpreter is faster than one that lets go of it."""

create_native = checked(lib.wgpuDeviceCreateBuffer, lib.wgpuBufferRelease)
_map = checked(lib.wgpuBufferMapAsync)
_unmap = checked(lib.wgpuBufferUnmap)
_destroy = lib.wgpuBufferDestroy


class WebGPUBuffer(Owned, NativeBuffer):
    """A `WGPUBuffer` whose mapping pers does itself.

    wgpu-py's own `map_async` loses track of the buffer when a map fails or is given up, and its
    `unmap` refuses a pending one; so the C functions are called instead. Its object is made when
    somebody asks for it.
    """

    _release = lib.wgpuBufferRelease

    # What holds for most buffers, or until something happens, is left to the class.

    written_before = 0
    """The number of the submit that carries out the last write by the queue."""
    _mapped_at_creation = _copies_at_unmap = False
    _pending_map: Ticket | None = None
    _handle: Any = None

    def __init__(
        self, device: WebGPUNative, desc: BufferDesc, mapped: bool, writes_directly: bool
    ) -> None:
        """Make the buffer; raises wgpu's errors.

        Args:
            device: The device.
            desc: What it is to be.
            mapped: Whether it starts out mapped, whatever `desc` says.
            writes_directly: Whether it can be mapped although `desc` does not ask for that.
        """
        usage = buffer_usage(desc.usage_bits)
        if writes_directly:
            usage |= _MAP_WRITE
        fields = (NULL, label_view(desc.debug_name), usage, desc.size, mapped)
        self.internal = create_native(device.gpu._internal, new(_DESCRIPTOR, fields))
        self._device = device
        self._desc = desc
        self.writes_directly = writes_directly
        if mapped:
            self._mapped_at_creation = True
            # Memory that cannot be mapped is filled by a copy that the library queues.
            self._copies_at_unmap = not usage & _MAP_WRITE

    @property
    def handle(self) -> Any:
        if self._handle is None:
            lib.wgpuBufferAddRef(self.internal)  # which the object gives back when it dies
            desc, device = self._desc, self._device
            state = "mapped" if self._mapped_at_creation else "unmapped"
            self._handle = _api.GPUBuffer(
                desc.debug_name,
                self.internal,
                device.handle,
                desc.size,
                buffer_usage(desc.usage_bits),
                state,
            )
        return self._handle

    def fill(self, data: npt.NDArray[Any]) -> None:
        """Write the first bytes of a buffer that was mapped at creation, and unmap it."""
        pointer = lib.wgpuBufferGetMappedRange(self.internal, 0, self._desc.size)
        if data.nbytes <= _SMALL:
            memmove(pointer, data, data.nbytes)
        else:
            target = np.frombuffer(ffi.buffer(pointer, data.nbytes), np.uint8)
            target[:] = data.reshape(-1).view(np.uint8)
        self.unmap()

    def map_async(
        self, mode: MapMode, offset: int, size: int, done: Callable[[PersError | None], None]
    ) -> None:
        if self._desc.usage_bits & _GPU_WRITTEN:
            self._device.flush_writes(self.written_before)

        def called_back(_: Ticket, success: bool, message: str) -> None:
            self._pending_map = None
            done(None if success else _map_error(self._desc.debug_name, message))

        info, number = map_info(called_back)
        self._pending_map = number
        try:
            _map(self.internal, _MODES[mode], offset, size, info[0])
        except Exception as error:
            if forget(number) is not None:
                done(translate(error, f"buffer {self._desc.debug_name!r}: map"))

    def address(self, offset: int, size: int) -> int:
        pointer = lib.wgpuBufferGetMappedRange(self.internal, offset, size)
        return int(cast(_NUMBER, pointer))

    def unmap(self) -> None:
        if self._pending_map is not None:
            self._forget_map()
        try:
            _unmap(self.internal)
        except Exception as error:  # the device was lost, and the mapping with it
            logger.debug("unmap: %s", error)
        if self._handle is not None:
            self._handle._map_state = "unmapped"
        self._mapped_at_creation = False
        if self._copies_at_unmap:
            self._copies_at_unmap = False
            self.written_before = self._device.write_queued()

    def destroy(self) -> None:
        if self._pending_map is not None:
            self._forget_map()
        if self.internal is not None:
            _destroy(self.internal)
        device = self._device
        device.buffers.discard(id(self))
        if device.gone:
            device.buffer_destroyed()

    def _forget_map(self) -> None:
        number, self._pending_map = self._pending_map, None
        if number is not None:
            forget(number)


def _map_error(name: str, message: str) -> PersError:
    """Return why a map failed, from the library's message."""
    text = clean(message)
    if "memory" in text.lower():
        return OutOfMemoryError(
            f"buffer {name!r}: map: {text}; free what is not needed, or map less"
        )
    is_lost = "device is lost" in text.lower()
    if is_lost:
        suspect_losses()
    remedy = "open a new device" if is_lost else "map again"
    return MapAbortedError(f"buffer {name!r}: the pending map was aborted: {text}; {remedy}")
