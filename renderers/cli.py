"""The command line: ``pers info``, ``pers triangle``, ``pers stress``, ``pers bench``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]

CLI_PACKAGES = ("typer", "rich", "PIL")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0 done, 1 failed, 2 bad arguments.

    Args:
        arguments: What comes after ``pers``; None takes them from the command line.
    """
    try:
        from renderers.commands import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in CLI_PACKAGES:
            raise
        print(
            f"pers: error: the command line needs {error.name}; pip install 'pers[cli]'",
            file=sys.stderr,
        )
        return 1
    return run(sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    sys.exit(main())
