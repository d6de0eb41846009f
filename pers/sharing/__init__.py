"""Textures, buffers and signals that several processes and APIs use, without a copy where they can.

The managers are in `pers.backends`; `pers.open_share_manager` takes the best that works here.
"""

from pers.graphics.types import TextureDescriptor
from pers.sharing.capabilities import ShareCapabilities
from pers.sharing.handles import (
    BufferHandle,
    EventHandle,
    FenceHandle,
    HostBufferHandle,
    HostTextureHandle,
    MetalEventHandle,
    MetalTextureHandle,
    OwnedFd,
    SemaphoreHandle,
    SemaphoreKind,
    TextureHandle,
    VulkanBufferHandle,
    VulkanTextureHandle,
    Win32TextureHandle,
)
from pers.sharing.interfaces import (
    BufferAccess,
    SharedBuffer,
    SharedEvent,
    SharedFence,
    SharedSemaphore,
    SharedTexture,
    SyncPoint,
    TextureAccess,
    TextureShareManager,
)
from pers.sharing.ipc.address import list_streams
from pers.sharing.stream import (
    PublisherStats,
    StreamFrame,
    SubscriberStats,
    TexturePublisher,
    TextureSubscriber,
)
from pers.textures import TextureFormat, TextureUsage

__all__ = [
    "BufferAccess",
    "BufferHandle",
    "EventHandle",
    "FenceHandle",
    "HostBufferHandle",
    "HostTextureHandle",
    "MetalEventHandle",
    "MetalTextureHandle",
    "OwnedFd",
    "PublisherStats",
    "SemaphoreHandle",
    "SemaphoreKind",
    "ShareCapabilities",
    "SharedBuffer",
    "SharedEvent",
    "SharedFence",
    "SharedSemaphore",
    "SharedTexture",
    "StreamFrame",
    "SubscriberStats",
    "SyncPoint",
    "TextureAccess",
    "TextureDescriptor",
    "TextureFormat",
    "TextureHandle",
    "TexturePublisher",
    "TextureShareManager",
    "TextureSubscriber",
    "TextureUsage",
    "VulkanBufferHandle",
    "VulkanTextureHandle",
    "Win32TextureHandle",
    "list_streams",
]
