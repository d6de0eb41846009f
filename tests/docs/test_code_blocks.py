"""Every code block of the README and of docs/ runs, and does what the page says."""

from __future__ import annotations

import contextlib
import doctest
import functools
import importlib.util
import io
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sybil import Document, Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser
from typer.main import get_command

import pers
from pers.testing import command
from renderers.commands import app
from tests.support import BACKENDS

ROOT = Path(__file__).resolve().parents[2]
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WITH_SHELL = [*DOCS, ROOT / "CONTRIBUTING.md"]

ON_NULL_TOO = ["docs/buffers.md"]
"""Pages whose code needs no shaders, so that it has to run on the null backend too."""


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


# --- Python ---------------------------------------------------------------------------------------

python_blocks = Sybil([PythonCodeBlockParser(doctest_optionflags=doctest.ELLIPSIS)])


def run(page: Path) -> Document:
    """Run the Python blocks of a page in one namespace, from the first to the last."""
    document = python_blocks.parse(page)
    for example in document:
        example.evaluate()
    return document


@pytest.fixture
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))  # streams keep their sockets there


@pytest.mark.gpu
@pytest.mark.usefixtures("in_a_folder_of_its_own")
@pytest.mark.parametrize("page", DOCS, ids=page_id)
def test_python_runs(page: Path) -> None:
    run(page)


@pytest.mark.usefixtures("in_a_folder_of_its_own")
@pytest.mark.parametrize("name", ON_NULL_TOO)
def test_python_runs_on_the_null_backend(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pers, "open_device", functools.partial(pers.open_device, "null"))
    device = run(ROOT / name).namespace["device"]
    assert device.info.backend == "null"


@pytest.mark.parametrize(
    "block",
    ["raise ValueError", ">>> 1 + 1\n3", "assert False", "import no_such_module"],
)
def test_a_block_that_fails_is_noticed(block: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"Text.\n\n```python\n{block}\n```\n", encoding="utf-8")
    with pytest.raises(Exception):  # noqa: B017, PT011
        run(page)


# --- Shell ----------------------------------------------------------------------------------------

NOT_OURS = {"git", "sudo", "apt-get", "pip"}
"""Commands of other people, which are taken as they are."""


def ignore(example: Example) -> None:
    pass


def commands(page: Path) -> Iterator[list[str]]:
    """Every command in the shell blocks of a page, in words, without the variables it sets."""
    for example in Sybil([CodeBlockParser("sh", ignore)]).parse(page):
        for line in example.parsed.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and "=" in words[0]:
                del words[0]
            if words:
                yield words


def problem(words: list[str]) -> str | None:
    """Say what is wrong with a command, or return None."""
    program, *arguments = words
    match program.removeprefix(".venv/bin/"):
        case "script/run":
            return problem(["pers", "stress", *arguments])
        case "script/setup":
            return f"script/setup takes no {arguments}" if arguments else None
        case "script/test" | "pytest":
            paths = [argument for argument in arguments if "/" in argument]
            return next((f"no {path}" for path in paths if not (ROOT / path).exists()), None)
        case "pers":
            return problem_of_pers(arguments)
        case "python" if arguments[:2] == ["-m", "pers.testing"]:
            return problem_of_pers_testing(arguments[2:])
        case "python" if arguments[:1] == ["-m"] and arguments[1:2] != ["pers.testing"]:
            name = "".join(arguments[1:2])
            is_ours = name.partition(".")[0] in ("benchmarks", "tests")
            return None if is_ours and importlib.util.find_spec(name) else f"no module {name}"
        case "python":
            exists = bool(arguments) and (ROOT / arguments[0]).exists()
            return None if exists else f"no {arguments}"
        case "sphinx-build":
            return None if (ROOT / arguments[0] / "conf.py").exists() else f"no {arguments[0]}"
        case name:
            return None if name in NOT_OURS else f"{name} is unknown here"


def problem_of_pers(arguments: list[str]) -> str | None:
    """Let the command line itself read the arguments, without running anything."""
    group: Any = get_command(app)
    context = group.context_class(group, info_name="pers")
    try:
        name, subcommand, rest = group.resolve_command(context, arguments)
        while hasattr(subcommand, "resolve_command"):  # `pers share` has commands of its own
            context = subcommand.context_class(subcommand, info_name=name, parent=context)
            name, subcommand, rest = subcommand.resolve_command(context, list(rest))
        subcommand.make_context(name, list(rest), parent=context)
    except Exception as error:
        return str(error) or type(error).__name__
    return None


def problem_of_pers_testing(arguments: list[str]) -> str | None:
    """Let the parser read the arguments, and find the device."""
    message = io.StringIO()
    try:
        with contextlib.redirect_stderr(message):
            options = command.parser().parse_args(arguments)
        command.device_opener(options.device)
    except SystemExit:
        return message.getvalue()
    except (ImportError, AttributeError) as error:
        return str(error)
    return None if ":" in options.device or options.device in BACKENDS else options.device


@pytest.mark.parametrize("page", WITH_SHELL, ids=page_id)
def test_shell_commands_exist(page: Path) -> None:
    problems = {" ".join(words): problem(words) for words in commands(page)}
    assert {line: wrong for line, wrong in problems.items() if wrong} == {}


@pytest.mark.parametrize(
    "line",
    [
        "pers nonsense",
        "pers stress --nonsense",
        "pers triangle --size 12",
        "script/run --nonsense",
        "script/setup now",
        "script/test tests/nonsense.py",
        "python nonsense.py",
        "python -m nonsense",
        "python -m benchmarks.nonsense",
        "python -m pers.testing",
        "python -m pers.testing nonsense null",
        "python -m pers.testing explore nonsense",
        "python -m pers.testing explore nonsense:open",
        "python -m pers.testing explore null --nonsense",
        "python -m pers.testing cases null --steps 5",
        "pers bench --nonsense",
        "pers share nonsense",
        "pers share produce --nonsense",
        "nonsense",
    ],
)
def test_a_command_that_is_wrong_is_noticed(line: str) -> None:
    assert problem(line.split()) is not None


def test_every_block_is_of_a_language_that_is_tested() -> None:
    known = {"python", "sh", "text", "{eval-rst}", "{toctree}"}
    lines = [line for page in DOCS for line in page.read_text(encoding="utf-8").splitlines()]
    fences = [line.strip() for line in lines if line.strip().startswith("```")]
    assert {fence.removeprefix("```") for fence in fences[::2]} <= known
