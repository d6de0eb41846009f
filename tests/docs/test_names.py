"""The pages name what exists, and what exists is on the pages."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

import pers
import pers.backends.null
import pers.errors
from pers.backends.null import NullDevice

ROOT = Path(__file__).resolve().parents[2]
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

API = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")

# What the pages call the objects of their examples.
OBJECTS: dict[str, type] = {
    "device": pers.IRenderDevice,
    "queue": pers.IRenderQueue,
    "encoder": pers.ICommandEncoder,
    "render_pass": pers.IRenderPass,
    "compute": pers.IComputePass,
    "surface": pers.ISurface,
    "submission": pers.Submission,
    "belt": pers.StagingBelt,
    "update": pers.DynamicUpdate,
    "target": pers.IFrameBuffer,
    "readback": pers.ReadbackBuffer,
    "staging": pers.DeferredStagingBuffer,
    "buffer": pers.IMappableBuffer,
}


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


# --- The API page ---------------------------------------------------------------------------------


def documented() -> list[str]:
    return re.findall(r"^\.\. (?:auto\w+|py:data):: (\S+)$", API, re.MULTILINE)


def test_every_public_name_is_on_the_api_page() -> None:
    expected = {f"pers.{name}" for name in pers.__all__}
    expected |= {f"pers.backends.null.{name}" for name in pers.backends.null.__all__}
    expected |= {"pers.backends.webgpu.WebGPUDevice"}
    assert expected - set(documented()) == set()


def test_the_api_page_has_nothing_twice() -> None:
    assert len(documented()) == len(set(documented()))


def test_everything_on_the_api_page_exists() -> None:
    for name in documented():
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


# --- Errors ---------------------------------------------------------------------------------------

ERRORS = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")


def error_rows() -> dict[str, list[str]]:
    """The rows of the table of errors, by the name of the error."""
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", ERRORS, re.MULTILINE)
    return {name: [cell.strip() for cell in rest.split(" | ")] for name, rest in rows}


@pytest.mark.parametrize("name", sorted(set(pers.errors.__all__) - {"PersError"}))
def test_error_is_explained(name: str) -> None:
    builtin, cause, remedy = error_rows()[name]
    error = getattr(pers.errors, name)
    native = [it for it in error.__mro__ if it.__module__ == "builtins" and it is not UserWarning]
    assert builtin == f"`{native[0].__name__}`"
    assert cause.endswith(".")
    assert remedy.endswith(".")
    assert re.search(rf"pers\.{name}\b|errors\.{name}\b", ERRORS), "it is not caused on purpose"


def test_only_errors_are_explained() -> None:
    assert set(error_rows()) <= set(pers.errors.__all__)


# --- Names in running text ------------------------------------------------------------------------


def code_spans(text: str) -> set[str]:
    """Everything that is written as code in running text."""
    without_blocks = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return {span.replace("\n", " ") for span in re.findall(r"`([^`]+)`", without_blocks)}


def unknown(span: str) -> bool:
    """Whether a span looks like a name of pers, and is none."""
    name = re.match(r"(?:await |with |async with )?([A-Za-z_][\w.]*)", span)
    if name is None:
        return False
    root, *members = name[1].removeprefix("pers.").split(".")
    if root in OBJECTS:
        value: object = OBJECTS[root]
        if root == "device" and members and hasattr(NullDevice, members[0]):
            return False
    elif hasattr(pers, root) and root in pers.__all__:
        value = getattr(pers, root)
    else:
        # A class of pers that does not exist, or a member of the façade that does not.
        return span.startswith("pers.") and not is_module(name[1])
    return bool(members) and not hasattr(value, members[0])


def is_module(name: str) -> bool:
    while name:
        try:
            importlib.import_module(name)
        except ImportError:
            name = name.rpartition(".")[0]
            if name == "pers":
                return False
        else:
            return True
    return False


@pytest.mark.parametrize("page", DOCS, ids=page_id)
def test_names_in_text_exist(page: Path) -> None:
    spans = code_spans(page.read_text(encoding="utf-8"))
    assert [span for span in sorted(spans) if unknown(span)] == []


@pytest.mark.parametrize(
    "span", ["pers.NoSuchName", "BufferDesc.colour", "device.reed_array(x)", "await belt.uplod()"]
)
def test_a_name_that_is_wrong_is_noticed(span: str) -> None:
    assert unknown(span)


CAMEL_CASE = re.compile(r"^[A-Z][a-z]+(?:[A-Z][a-z]*)+\w*$|^I[A-Z][a-z]\w+$|^\w+Error$")
NOT_OF_PERS = {"ValueError", "RuntimeError", "MemoryError", "TimeoutError", "ConnectionError"}


@pytest.mark.parametrize("page", DOCS, ids=page_id)
def test_classes_in_text_exist(page: Path) -> None:
    spans = code_spans(page.read_text(encoding="utf-8"))
    classes = {span for span in spans if CAMEL_CASE.match(span)} - NOT_OF_PERS
    on_the_api_page = {name.rpartition(".")[2] for name in documented()}
    inside = {"MappableBuffer"}  # what architecture.md tells backends of
    assert classes - on_the_api_page - inside == set()


# --- The environment, the examples, the links -----------------------------------------------------


def test_environment_variables_are_explained() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "pers").rglob("*.py")]
    read = set(re.findall(r"\bPERS_[A-Z0-9_]+\b", "\n".join(sources)))
    table = re.findall(r"^\| `(PERS_\w+)`", (ROOT / "docs/device.md").read_text("utf-8"), re.M)
    assert read == set(table)


def test_every_example_is_listed() -> None:
    page = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"\(\.\./examples/(\w+\.py)\)", page))
    assert listed == {path.name for path in (ROOT / "examples").glob("[!_]*.py")}


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_somewhere(name: str) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", (ROOT / name).read_text(encoding="utf-8"))
    local = [target.partition("#")[0] for target in targets if "://" not in target]
    assert [target for target in local if not (ROOT / target).exists()] == []


def test_pictures_are_small() -> None:
    pictures = list((ROOT / "docs" / "images").iterdir())
    assert pictures
    assert [path.name for path in pictures if path.stat().st_size > 300_000] == []
