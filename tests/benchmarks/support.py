"""Series, contenders and scales for the tests of the benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.core import Contender, Point, Scale, Series, Status

ONCE = Scale(quick=True, least=1, most=1, seconds=0.0, minutes=0.0)
POINT = Point("1 KiB", 1024)


def nothing() -> None:
    pass


def contender(
    library: str = "pers", road: str = "road", run: Callable[[], object] = nothing, **others: object
) -> Contender:
    options = {"check": nothing, **others}
    return Contender(library, road, run, **options)  # type: ignore[arg-type]


def series(
    benchmark: str,
    point: str,
    library: str,
    road: str,
    samples: Sequence[float],
    status: Status = "measured",
    **extra: float,
) -> Series:
    return Series(benchmark, Point(point), library, road, status, list(samples), extra=extra)
