"""``python -m benchmarks``: the same as ``pers bench``, without the command line's packages."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.command import CannotRunError, Request, carry_out, list_benchmarks


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="which benchmarks; none means all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write plots as a PNG file")
    parser.add_argument("--quick", action="store_true", help="a few small points, in seconds")
    parser.add_argument("--list", action="store_true", help="list the benchmarks and stop")
    parser.add_argument("--minutes", type=float, help="how long to watch the memory")
    parser.add_argument("--backend", choices=("webgpu", "null"), default="webgpu")
    parser.add_argument("--adapter", help="part of the name of the GPU to use")
    given = parser.parse_args(arguments)
    if given.list:
        list_benchmarks()
        return 0
    request = Request(
        given.names, given.json, given.plot, given.quick, given.minutes, given.backend,
        given.adapter,
    )  # fmt: skip
    try:
        report = carry_out(request)
    except CannotRunError as error:
        print(f"benchmarks: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("benchmarks: error: interrupted", file=sys.stderr)
        return 130
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
