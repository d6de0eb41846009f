"""What both ends of a stream have in common: frames, figures, and how a texture is opened."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager

import attrs

from pers.errors import OperationNotSupportedError, TextureAccessError, ValidationError
from pers.sharing.control import ControlPage
from pers.sharing.interfaces import SharedTexture, SyncPoint, TextureAccess, TextureShareManager
from pers.sharing.texture import ManagedTexture

__all__ = [
    "OpenTexture",
    "PublisherStats",
    "StreamFrame",
    "SubscriberStats",
    "manager_or_default",
    "try_open",
]


@attrs.frozen(eq=False)
class StreamFrame:
    """A frame of a stream, in the ``with`` block of ``next_frame()``.

    Attributes:
        number: Counts from 1.
        timestamp_ns: When the publisher began it, on the clock of ``time.monotonic_ns()``.
        view: The access to its texture: `upload` for the publisher, `download` for subscribers.
        texture: Its texture; use it through `view`, or with other APIs through `native_handle`.
        dropped: Frames that this subscriber has missed since the one before; 0 for the publisher.
    """

    number: int
    timestamp_ns: int
    view: TextureAccess
    texture: SharedTexture
    dropped: int = 0


@attrs.frozen
class PublisherStats:
    """What a publisher has done.

    Attributes:
        frames: Frames published.
        dropped: Frames that some subscriber was not even told of, since it does not keep up.
        waits: How often `next_frame` found no texture free and waited.
        clients: Subscribers that are connected now.
        generation: How often there were new textures: 1, and one more with each `resize`.
    """

    frames: int
    dropped: int
    waits: int
    clients: int
    generation: int


@attrs.frozen
class SubscriberStats:
    """What a subscriber has done.

    Attributes:
        frames: Frames read.
        dropped: Frames missed.
        waits: How often `next_frame` had to wait.
        connections: How often it has connected.
    """

    frames: int
    dropped: int
    waits: int
    connections: int


@attrs.frozen(eq=False)
class OpenTexture:
    """A texture with an access under way.

    Attributes:
        texture: The texture.
        view: The access.
    """

    texture: SharedTexture
    view: TextureAccess
    control: ControlPage
    _context: AbstractContextManager[TextureAccess]

    def close(self) -> None:
        """End the access, by the exception that is under way if there is one."""
        self._context.__exit__(*sys.exc_info())


def try_open(
    texture: SharedTexture,
    *,
    write: bool = False,
    wait: Sequence[SyncPoint] = (),
    signal: Sequence[SyncPoint] = (),
) -> OpenTexture | None:
    """Begin an access, or return None when another process's access excludes it."""
    if not isinstance(texture, ManagedTexture):
        raise OperationNotSupportedError(
            f"streams need a texture of a ShareManager, not {texture!r}; open the manager with "
            "open_share_manager()"
        )
    control = texture.control
    context = texture.access(write=write, wait=wait, signal=signal)
    try:
        view = context.__enter__()
    except TextureAccessError:
        texture.turns.check_open()
        return None
    return OpenTexture(texture, view, control, context)


def manager_or_default(manager: TextureShareManager | None) -> TextureShareManager:
    """Return a caller's manager, or open the best one that works here."""
    if manager is None:
        from pers._open import open_share_manager  # it knows the backends, and they this package

        return open_share_manager()
    if not isinstance(manager, TextureShareManager):
        raise ValidationError(
            f"a stream takes a TextureShareManager, not {manager!r}; "
            "leave it out to take the best one that works here"
        )
    return manager
