"""Buffers with one clear purpose each."""

from pers.buffers.belt import BeltStats, StagingBelt
from pers.buffers.deferred_staging import DeferredStagingBuffer
from pers.buffers.device_buffer import DeviceBuffer
from pers.buffers.dynamic import DynamicBuffer, DynamicBufferStats, DynamicUpdate
from pers.buffers.immediate_staging import ImmediateStagingBuffer
from pers.buffers.interfaces import IBuffer, IBufferFactory, IMappableBuffer
from pers.buffers.mapped_range import MappedRange
from pers.buffers.readback import ReadbackBuffer, ReadbackStats
from pers.buffers.readback_stream import ReadbackStream, ReadbackStreamStats
from pers.buffers.types import BufferDesc, BufferLimits, BufferState, BufferUsage, MapMode

__all__ = [
    "BeltStats",
    "BufferDesc",
    "BufferLimits",
    "BufferState",
    "BufferUsage",
    "DeferredStagingBuffer",
    "DeviceBuffer",
    "DynamicBuffer",
    "DynamicBufferStats",
    "DynamicUpdate",
    "IBuffer",
    "IBufferFactory",
    "IMappableBuffer",
    "ImmediateStagingBuffer",
    "MapMode",
    "MappedRange",
    "ReadbackBuffer",
    "ReadbackStats",
    "ReadbackStream",
    "ReadbackStreamStats",
    "StagingBelt",
]
