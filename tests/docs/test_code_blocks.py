"""Every code block of the README and of docs/ runs, and does what the page says."""

from __future__ import annotations

import doctest
import functools
from pathlib import Path

import pytest
from sybil import Document, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

import pers

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

ON_NULL_TOO = ["docs/buffers.md"]
"""Pages whose code needs no shaders, so that it has to run on the null backend too."""

python_blocks = Sybil([PythonCodeBlockParser(doctest_optionflags=doctest.ELLIPSIS)])


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def run(page: Path) -> Document:
    """Run the Python blocks of a page in one namespace, from the first to the last."""
    document = python_blocks.parse(page)
    for example in document:
        example.evaluate()
    return document


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.gpu
@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_python_runs(page: Path) -> None:
    run(page)


@pytest.mark.parametrize("name", ON_NULL_TOO)
def test_python_runs_on_the_null_backend(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pers, "open_device", functools.partial(pers.open_device, "null"))
    device = run(ROOT / name).namespace["device"]
    assert device.info.backend == "null"
