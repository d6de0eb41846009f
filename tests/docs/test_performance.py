"""The figures in docs/performance.md are those of the stored results."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_figures_are_the_stored_ones() -> None:
    stored = json.loads((ROOT / "benchmarks" / "results" / "h200.json").read_text())
    targets = {target["what"]: target for target in stored["targets"]}
    lines = (ROOT / "docs" / "performance.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "| " in line]
    figures = [row for row in rows if row[0] in targets]
    assert len(figures) == len(rows) - 1 >= 15, "a row is of no target"
    for what, wanted, measured in figures:
        target = targets[what]
        sign = "≥" if target["at_least"] else "≤"
        assert wanted == f"{sign} {target['wanted']:.2f}", what
        assert measured == f"{target['measured']['median']:.2f}", what
