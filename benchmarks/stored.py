"""Results that were stored: a JSON file for each machine, as ``--json`` wrote it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.core import Point, Scale, Series, Summary
from benchmarks.report import SCHEMA, Report
from benchmarks.run import BENCHMARKS
from benchmarks.targets import Target

__all__ = [
    "RESULTS",
    "StoredResultsError",
    "digest",
    "read_report",
    "read_results",
    "read_sharing",
]

RESULTS = Path(__file__).parent / "results"


class StoredResultsError(Exception):
    """A file does not hold the results of a run."""


def read_results(folder: Path = RESULTS) -> dict[str, Report]:
    """Return all reports of a folder by the name of their file, in the order of the names.

    Those of sharing, which have other contenders, are left to `read_sharing`.

    Raises:
        StoredResultsError: There is none, or one cannot be read.
    """
    return _read(folder, lambda path: not _is_of_sharing(path))


def read_sharing(folder: Path = RESULTS) -> dict[str, Report]:
    """Return the reports of sharing: those of the files with ``sharing`` in their name.

    Raises:
        StoredResultsError: There is none, or one cannot be read.
    """
    return _read(folder, _is_of_sharing)


def _is_of_sharing(path: Path) -> bool:
    return "sharing" in path.stem


def _read(folder: Path, choice: Callable[[Path], bool]) -> dict[str, Report]:
    paths = filter(choice, sorted(folder.glob("*.json")))
    found = {path.stem: read_report(path) for path in paths}
    if not found:
        raise StoredResultsError(f"there are no results in {folder}; pers bench --json makes them")
    return found


def read_report(path: Path) -> Report:
    """Read a report; its series have their distributions, but no samples.

    Raises:
        StoredResultsError: The file cannot be read, or is no report.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["schema"] != SCHEMA:
            raise StoredResultsError(f"{path} has schema {data['schema']}, not {SCHEMA}")
        return Report(
            machine=data["machine"],
            scale=Scale(**data["scale"]),
            benchmarks=[each for each in BENCHMARKS if each.name in data["benchmarks"]],
            series=[_series(each) for each in data["results"]],
            targets=[_target(each) for each in data["targets"]],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = f"{type(error).__name__}: {error}"
        raise StoredResultsError(f"{path} holds no results of a run ({problem})") from error


def digest(path: Path) -> str:
    """Return what tells one file of results from another."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _series(data: dict[str, Any]) -> Series:
    point = Point(data["point"], data["x"])
    return Series(
        data["benchmark"], point, data["library"], data["road"], data["status"],
        problem=data["problem"], extra=data["extra"], stored=_summary(data["summary"]),
    )  # fmt: skip


def _target(data: dict[str, Any]) -> Target:
    fields: dict[str, Any] = {**data, "measured": _summary(data["measured"])}
    return Target(**fields)


def _summary(data: dict[str, Any] | None) -> Summary | None:
    return None if data is None else Summary(**data)
