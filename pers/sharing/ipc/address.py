"""Where streams are found: a socket and a lock file for each name, in a folder of the user's own.

Who publishes holds the lock file with ``flock``, which the kernel takes back from a process that
dies. So whether a socket is stale is never guessed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import attrs

from pers.errors import OperationNotSupportedError, ShareError, ValidationError
from pers.sharing.ipc.credentials import user_number
from pers.sharing.ipc.forks import abandon_in_children, no_forks
from pers.sharing.ipc.wire import NAME
from pers.sharing.shortage import shortage

if sys.platform != "win32":
    import fcntl

__all__ = ["Address", "Claim", "check_system", "list_streams"]

LONGEST_PATH = 107 if sys.platform == "linux" else 103
"""Bytes of a socket's path (``sun_path``), the final zero not counted."""

CLAIM_NS = 200_000_000
"""How long to try for a lock that another may hold for a moment, to look."""


def check_system() -> None:
    """Raise `OperationNotSupportedError` where there are no Unix domain sockets."""
    if sys.platform == "win32":
        raise OperationNotSupportedError(
            "streams between processes need Unix domain sockets that carry file descriptors, "
            "which Windows does not have; run the publisher and its subscribers on Linux or macOS"
        )


def socket_folder(uid: int | None = None) -> Path:
    """Return the folder of a user's sockets, by default one's own; it may not exist yet."""
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    return Path(base).absolute() / f"pers-{os.geteuid() if uid is None else uid}"


def _why(error: OSError) -> str:
    return shortage(error) or f"{error.strerror}; set XDG_RUNTIME_DIR to a folder of your own"


@contextlib.contextmanager
def within(folder: Path) -> Generator[None]:
    """Have an `OSError` say what it means for the streams of a folder; a missing file passes."""
    try:
        yield
    except (ShareError, FileNotFoundError):
        raise
    except OSError as error:
        raise ShareError(f"{folder} cannot be used for streams: {_why(error)}") from None


def _make_folder(folder: Path) -> None:
    try:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise ShareError(
            f"{folder}, the folder for streams, cannot be made: {_why(error)}"
        ) from None


def open_folder(folder: Path, uid: int) -> int:
    """Return a descriptor of a socket folder, made where it is missing, after a look at it.

    Raises:
        ShareError: It is a link, of another user, or open to others; or it cannot be made.
        FileNotFoundError: It is another user's, and missing.
    """
    if uid == os.geteuid():
        _make_folder(folder)
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise ShareError(
                f"{folder} is a link or no folder, so streams cannot be kept there safely; "
                "remove it, or set XDG_RUNTIME_DIR to a folder of your own"
            ) from None
        if error.errno in (errno.EACCES, errno.EPERM):
            raise ShareError(
                f"{folder} cannot be entered ({error.strerror}); its user must let you in"
            ) from None
        raise
    status = os.fstat(fd)
    problem = ""
    if status.st_uid != uid:
        problem = f"belongs to user {status.st_uid}, not {uid}"
    elif stat.S_IMODE(status.st_mode) & 0o077:
        problem = f"is open to other users (mode {stat.S_IMODE(status.st_mode):o}, not 700)"
    if problem:
        os.close(fd)
        raise ShareError(
            f"{folder} {problem}, so streams cannot be kept there safely; "
            "remove it, or set XDG_RUNTIME_DIR to a folder of your own"
        )
    return fd


def _check_name(_: object, attribute: attrs.Attribute[str], name: str) -> None:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValidationError(
            f"a stream cannot be named {name!r}; use 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'"
        )


def _to_uid(user: str | int | None) -> int:
    return os.geteuid() if user is None else user_number(user)


def _to_folder(address: Address) -> Path:
    return socket_folder(address.uid)


@attrs.frozen
class Address:
    """The name of a stream and the user who publishes it.

    Attributes:
        name: 1 to 64 letters, digits, dots, dashes and underscores.
        uid: The user, by number or name; None is who asks.
        folder: That of the socket, as it was when the address was made: whoever has bound a socket
            removes it from there, even when the environment names another folder by then.
    """

    name: str = attrs.field(validator=_check_name)
    uid: int = attrs.field(default=None, converter=_to_uid)
    folder: Path = attrs.field(init=False, default=attrs.Factory(_to_folder, takes_self=True))

    @property
    def socket_path(self) -> Path:
        """The socket."""
        return self.folder / f"{self.name}.sock"

    @property
    def lock_path(self) -> Path:
        """The file whose lock the publisher holds."""
        return self.folder / f"{self.name}.lock"

    def connect(self) -> socket.socket | None:
        """Return a connection to the publisher, or None when there is none at the moment.

        Raises:
            ShareError: The folder is not safe, or the system refuses.
        """
        check_system()
        with within(self.folder):
            return self._connect()

    def _connect(self) -> socket.socket | None:
        try:
            folder = open_folder(self.folder, self.uid)
        except FileNotFoundError:
            return None
        try:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.setblocking(False)
                connection.connect(_short_path(folder, self.socket_path))
            except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
                connection.close()
                return None
            except BaseException:
                connection.close()
                raise
        finally:
            os.close(folder)
        return connection

    def remove_stale(self) -> bool:
        """Remove what a publisher that died has left; return whether nobody publishes."""
        if self.uid != os.geteuid():
            return False
        try:
            claim = Claim.try_now(self)
        except FileNotFoundError:
            return True
        if claim is None:
            return False
        claim.close()
        return True


def _short_path(folder: int, path: Path) -> str:
    """Return a path that fits in a socket's address; `folder` must stay open while it is used."""
    if len(os.fsencode(path)) <= LONGEST_PATH:
        return str(path)
    if sys.platform == "linux":
        return f"/proc/self/fd/{folder}/{path.name}"
    raise ShareError(
        f"the path of the socket {path} is longer than the {LONGEST_PATH} bytes that the system "
        "allows; set XDG_RUNTIME_DIR to a shorter folder, or choose a shorter name"
    )


class Claim:
    """The right to publish under a name, until it is closed or the process dies."""

    def __init__(self, address: Address) -> None:
        """Take the name, and remove what a publisher that died has left.

        Raises:
            ShareError: Another publisher has it, the folder is not safe, or the system refuses.
        """
        check_system()
        self.address = address
        end = time.monotonic_ns() + CLAIM_NS
        while not self._try_take(create=True):
            if time.monotonic_ns() > end:
                raise ShareError(
                    f"a stream named {address.name!r} is being published already; "
                    "close its publisher, or choose another name"
                )
            time.sleep(0.001)

    def _try_take(self, *, create: bool) -> bool:
        with within(self.address.folder):
            with no_forks:
                lock = _try_lock(self.address, create=create)
                if lock is None:
                    return False
                self._lock = lock
                self._socket: socket.socket | None = None
                abandon_in_children(self)
            try:
                self._remove(self.address.socket_path)
            except BaseException:
                self.abandon()
                raise
        return True

    @classmethod
    def try_now(cls, address: Address) -> Claim | None:
        """Take a name that somebody has used before, or return None when he is still there.

        Raises:
            FileNotFoundError: Nobody has.
        """
        claim = cls.__new__(cls)
        claim.address = address
        return claim if claim._try_take(create=False) else None

    def listen(self, backlog: int) -> socket.socket:
        """Return the listening socket, non-blocking; it is closed with the claim.

        Raises:
            ShareError: The system refuses.
        """
        with within(self.address.folder):
            return self._listen(backlog)

    def _listen(self, backlog: int) -> socket.socket:
        folder = open_folder(self.address.folder, self.address.uid)
        try:
            with no_forks:
                self._socket = listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listener.setblocking(False)
            listener.bind(_short_path(folder, self.address.socket_path))
            listener.listen(backlog)
        except BaseException:
            if self._socket is not None:
                self._socket.close()
            raise
        finally:
            os.close(folder)
        return listener

    def close(self) -> None:
        """Remove the socket and give up the name; the second time does nothing."""
        if self._lock < 0:
            return
        if self._socket is not None:
            self._socket.close()
        self._remove(self.address.socket_path)
        # While the lock is held: whoever takes it next sees that the file is gone, and starts anew.
        self._remove(self.address.lock_path)
        os.close(self._lock)
        self._lock = -1

    def abandon(self) -> None:
        """Close this process's descriptors only; the name is its parent's."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        if self._socket is not None and self._socket.fileno() >= 0:
            os.close(self._socket.detach())

    def _remove(self, path: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def _try_lock(address: Address, *, create: bool) -> int | None:
    """Return the locked lock file, or None when another process has it."""
    folder = open_folder(address.folder, address.uid)
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
    name = address.lock_path.name
    try:
        while True:
            lock = os.open(name, flags, 0o600, dir_fd=folder)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Its owner may have removed the file between the two calls.
                if _is_same(os.fstat(lock), os.stat(name, dir_fd=folder)):
                    return lock
            except BlockingIOError:
                os.close(lock)
                return None
            except FileNotFoundError:
                pass
            except BaseException:
                os.close(lock)
                raise
            os.close(lock)
    finally:
        os.close(folder)


def _is_same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def list_streams() -> list[str]:
    """Return the names of the streams that this user publishes now, in any process.

    What publishers that died have left behind is removed.

    Raises:
        OperationNotSupportedError: The system is Windows.
        ShareError: The folder of the sockets is not safe, or the system refuses.
    """
    check_system()
    return sorted(address.name for address in _seen() if not address.remove_stale())


def _seen() -> Iterator[Address]:
    path = socket_folder()
    with within(path):
        folder = open_folder(path, os.geteuid())
        try:
            names = os.listdir(folder)  # noqa: PTH208 - the folder that was looked at, not its name
        finally:
            os.close(folder)
    for name in names:
        if name.endswith(".lock") and NAME.fullmatch(name.removesuffix(".lock")):
            yield Address(name.removesuffix(".lock"))
