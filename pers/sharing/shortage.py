"""What the system says when it has run out: the errors of pers that stand for it."""

from __future__ import annotations

import errno
from collections.abc import Generator
from contextlib import contextmanager

from pers.errors import OutOfMemoryError, PersError

__all__ = ["TOO_MANY_FILES", "report_shortage", "shortage"]

TOO_MANY_FILES = (
    "this process has too many files open; close what is not needed, or raise its limit (ulimit -n)"
)

SHORTAGES = {
    errno.EMFILE: TOO_MANY_FILES,
    errno.ENFILE: "the system has too many files open; end what is not needed",
    errno.ENOMEM: "there is no memory for it; free some, or ask for less",
    errno.ENOBUFS: "there is no memory for it; free some, or ask for less",
    errno.ENOSPC: "there is no room for it; free some, or ask for less",
    errno.EFBIG: "there is no room for it; free some, or ask for less",
}


def shortage(error: OSError) -> str:
    """Return what is short and what to do, or an empty string when it is something else."""
    return SHORTAGES.get(error.errno or 0, "")


@contextmanager
def report_shortage(what: str, kind: type[PersError] = OutOfMemoryError) -> Generator[None]:
    """Have an `OSError` that stands for a shortage be a pers error; all others pass.

    Args:
        what: What could not be done.
        kind: Which error.
    """
    try:
        yield
    except OSError as error:
        why = shortage(error)
        if not why:
            raise
        raise kind(f"{what}: {why}") from None
