"""Who is on the other side of a Unix domain socket; the kernel says."""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Callable, Iterable
from typing import TypeAlias

import attrs

from pers.errors import ShareError, ValidationError

if sys.platform != "win32":
    import pwd

__all__ = ["Credentials", "CredentialsReader", "check_peer", "read_credentials", "user_number"]


@attrs.frozen
class Credentials:
    """A process as the kernel knows it.

    Attributes:
        pid: Its number; 0 when the system does not tell.
        uid: Its user.
    """

    pid: int
    uid: int


CredentialsReader: TypeAlias = Callable[[socket.socket], Credentials]


def read_credentials(connection: socket.socket) -> Credentials:
    """Return who has made the other end of a connected socket."""
    if sys.platform == "linux":
        data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid, uid, _ = struct.unpack("=iII", data)
        return Credentials(pid, uid)
    # macOS: struct xucred is a version, the user, and his groups.
    local, peer_credentials, peer_pid = 0, 1, 2
    data = connection.getsockopt(local, peer_credentials, 76)
    _, uid = struct.unpack_from("=II", data)
    return Credentials(connection.getsockopt(local, peer_pid), uid)


def user_number(user: str | int) -> int:
    """Return the number of a user given by name or number.

    Raises:
        ValidationError: There is no such user.
    """
    if isinstance(user, bool) or not isinstance(user, str | int):
        raise ValidationError(f"a user is a name or a number, not {user!r}")
    if isinstance(user, int):
        return user
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise ValidationError(f"there is no user named {user!r} on this machine") from None


def check_peer(peer: Credentials, allowed: Iterable[int] = ()) -> None:
    """Refuse a peer of another user.

    Args:
        peer: Who is there.
        allowed: Users who may be there besides oneself.

    Raises:
        ShareError: It is another user.
    """
    if peer.uid != os.geteuid() and peer.uid not in set(allowed):
        raise ShareError(
            f"process {peer.pid} belongs to user {peer.uid}, not {os.geteuid()}; "
            "name the users that may connect in allow_users"
        )
