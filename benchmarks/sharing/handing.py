"""Hands a handle, with its file descriptor, to the process at the other end of a connection."""

from __future__ import annotations

from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Any

import attrs

from pers import EventHandle, FenceHandle, OwnedFd, SemaphoreHandle

__all__ = ["receive_handle", "send_handle"]

SyncHandle = SemaphoreHandle | FenceHandle | EventHandle
KINDS = {kind.__name__: kind for kind in (SemaphoreHandle, FenceHandle, EventHandle)}


def send_handle(connection: Connection, handle: SyncHandle) -> None:
    """Send a handle, and close it here."""
    facts = {field.name: getattr(handle, field.name) for field in attrs.fields(type(handle))}
    fd = facts.pop("fd")
    assert isinstance(fd, OwnedFd)
    connection.send((type(handle).__name__, facts))
    reduction.send_handle(connection, fd.fileno(), None)
    handle.close()


def receive_handle(connection: Connection) -> Any:
    """Receive what `send_handle` has sent."""
    name, facts = connection.recv()
    fd: int = reduction.recv_handle(connection)
    return KINDS[name](fd=fd, **facts)
