"""Named streams of frames: one process publishes textures, others subscribe to them."""

from pers.sharing.ipc.address import list_streams
from pers.sharing.stream.frames import PublisherStats, StreamFrame, SubscriberStats
from pers.sharing.stream.publisher import TexturePublisher
from pers.sharing.stream.subscriber import TextureSubscriber

__all__ = [
    "PublisherStats",
    "StreamFrame",
    "SubscriberStats",
    "TexturePublisher",
    "TextureSubscriber",
    "list_streams",
]
