"""The rules of the architecture: who may import whom, and what the façade offers.

Every rule is a checker over the text of one module, and every checker is also shown a module that
breaks its rule: a check that cannot fail protects nothing.
"""

from __future__ import annotations

import ast
import enum
import functools
import importlib
import importlib.util
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

import pers

ROOT = Path(__file__).resolve().parent.parent

WEBGPU_BACKEND = "pers.backends.webgpu"
# The one place for Apple's frameworks: their objects have no types, and go no further.
METAL_BOUNDARY = "pers.backends.metal._objc"
APPLE = ("objc", "Metal", "IOSurface", "Quartz", "Foundation", "Cocoa", "CoreFoundation")
VULKAN_BACKEND = "pers.backends.vulkan"
# The one other place for wgpu: the wgpu-py that pers is measured beside.
RAW_PEER = "benchmarks.peers.raw_wgpu"
INTERFACES = ("pers.buffers", "pers.graphics", "pers.sharing")
# The façade, which opens devices, may know the backends; so may the kit that tests them.
KNOWS_THE_BACKENDS = ("pers._open", "pers.backends", "pers.testing")
APPLICATION_LAYER = ("renderers", "examples", "benchmarks", "tests")


# --- Reading modules ------------------------------------------------------------------------------


class Module(NamedTuple):
    """One Python file: its dotted name, its text, and whether it is a package's `__init__`."""

    name: str
    text: str
    is_package: bool = False

    @property
    def package(self) -> str:
        """The package that relative imports start from."""
        return self.name if self.is_package else self.name.rpartition(".")[0]


def modules(*folders: str) -> list[Module]:
    """Every module in these folders of the repository."""
    return [
        read_module(path) for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))
    ]


def read_module(path: Path) -> Module:
    parts = path.relative_to(ROOT).with_suffix("").parts
    is_package = parts[-1] == "__init__"
    name = ".".join(parts[:-1] if is_package else parts)
    return Module(name, path.read_text(encoding="utf-8"), is_package)


def imports(module: Module) -> Iterator[tuple[int, str]]:
    """Every line and dotted name that a module imports, wherever in it and under whichever `if`.

    `from a import b` counts as `a` and as `a.b`, since `b` may be a module. An import by name
    (`importlib.import_module("a")`) counts when the name is written out.
    """
    for node in ast.walk(ast.parse(module.text)):
        match node:
            case ast.Import(names=aliases):
                yield from ((node.lineno, alias.name) for alias in aliases)
            case ast.ImportFrom(module=source, names=aliases, level=level):
                base = importlib.util.resolve_name("." * level + (source or ""), module.package)
                yield node.lineno, base
                yield from ((node.lineno, f"{base}.{alias.name}") for alias in aliases)
            case ast.Call(
                func=ast.Attribute(attr="import_module" | "__import__")
                | ast.Name(id="import_module" | "__import__"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield node.lineno, importlib.util.resolve_name(name, module.package)


def is_within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def forbidden_imports(module: Module, *packages: str) -> list[str]:
    found = {(line, name) for line, name in imports(module) if is_within(name, *packages)}
    return [f"{module.name}:{line} imports {name}" for line, name in sorted(found)]


# --- The rules ------------------------------------------------------------------------------------
# Each takes a module and returns what in it breaks the rule.


def wgpu_outside_its_backend(module: Module) -> list[str]:
    if is_within(module.name, WEBGPU_BACKEND, RAW_PEER):
        return []
    return forbidden_imports(module, "wgpu")


def vulkan_outside_its_backend(module: Module) -> list[str]:
    if is_within(module.name, VULKAN_BACKEND):
        return []
    return forbidden_imports(module, "vulkan")


def peer_outside_its_module(module: Module) -> list[str]:
    """Peers may be missing, so each is imported in one place that says so."""
    peers = {
        "moderngl": "benchmarks.peers.moderngl_peer",
        "slangpy": "benchmarks.peers.slangpy_peer",
    }
    return [
        violation
        for peer, home in peers.items()
        if not is_within(module.name, home)
        for violation in forbidden_imports(module, peer)
    ]


def apple_outside_its_boundary(module: Module) -> list[str]:
    return [] if module.name == METAL_BOUNDARY else forbidden_imports(module, *APPLE)


def event_loop_in_pers(module: Module) -> list[str]:
    return forbidden_imports(module, "asyncio", "trio")


def application_layer_in_pers(module: Module) -> list[str]:
    return forbidden_imports(module, *APPLICATION_LAYER)


def backend_behind_the_facade(module: Module) -> list[str]:
    if module.name == "pers" or is_within(module.name, *KNOWS_THE_BACKENDS):
        return []
    return forbidden_imports(module, "pers.backends")


def renderer_past_the_facade(module: Module) -> list[str]:
    behind_it = [f"pers.{info.name}" for info in pkgutil.iter_modules(pers.__path__)]
    return forbidden_imports(module, "wgpu", *behind_it)


def print_in_pers(module: Module) -> list[str]:
    if module.name == "pers.testing.command":  # a program, not a library
        return []
    return [
        f"{module.name}:{node.lineno} calls print"
        for node in ast.walk(ast.parse(module.text))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]


Rule = Callable[[Module], list[str]]

# Each rule with the folders that it holds in.
RULES: list[tuple[Rule, tuple[str, ...]]] = [
    (wgpu_outside_its_backend, ("pers", "renderers", "examples", "benchmarks")),
    (vulkan_outside_its_backend, ("pers", "renderers", "examples", "benchmarks")),
    (peer_outside_its_module, ("pers", "renderers", "examples", "benchmarks")),
    (apple_outside_its_boundary, ("pers", "renderers", "examples", "benchmarks")),
    (event_loop_in_pers, ("pers",)),
    (application_layer_in_pers, ("pers",)),
    (backend_behind_the_facade, ("pers",)),
    (renderer_past_the_facade, ("renderers",)),
    (print_in_pers, ("pers",)),
]


@pytest.mark.parametrize(("rule", "folders"), RULES, ids=[rule.__name__ for rule, _ in RULES])
def test_rule_holds(rule: Rule, folders: tuple[str, ...]) -> None:
    checked = modules(*folders)
    assert checked, f"no module in {folders}"
    assert [violation for module in checked for violation in rule(module)] == []


@pytest.mark.parametrize(
    "folder",
    [
        "pers",
        "pers/buffers",
        "pers/graphics",
        "pers/backends",
        "renderers",
        "examples",
        "benchmarks",
        "benchmarks/peers",
    ],
)
def test_modules_are_found(folder: str) -> None:
    """A rule over a folder that has moved would hold for ever."""
    assert modules(folder)


# Modules that break a rule, one for every way to break it.
VIOLATIONS: list[tuple[Rule, Module]] = [
    (wgpu_outside_its_backend, Module("renderers.stress", "import wgpu")),
    (wgpu_outside_its_backend, Module("examples.streaming", "import wgpu.utils as u")),
    (wgpu_outside_its_backend, Module("pers.backends.null.device", "from wgpu import gpu")),
    (wgpu_outside_its_backend, Module("pers.backends.webgpu_extra", "import wgpu")),
    (
        wgpu_outside_its_backend,
        Module("pers.graphics", "def f():\n    from wgpu.backends import x"),
    ),
    (wgpu_outside_its_backend, Module("pers", "import importlib\nimportlib.import_module('wgpu')")),
    (wgpu_outside_its_backend, Module("pers", "__import__('wgpu')")),
    (wgpu_outside_its_backend, Module("benchmarks.upload", "import wgpu")),
    (vulkan_outside_its_backend, Module("pers.sharing.vulkan", "import vulkan")),
    (vulkan_outside_its_backend, Module("pers.backends.webgpu.sharing", "from vulkan import ffi")),
    (peer_outside_its_module, Module("benchmarks.draws", "import moderngl")),
    (peer_outside_its_module, Module("benchmarks.peers.moderngl_peer", "import slangpy")),
    (
        peer_outside_its_module,
        Module("pers", "import importlib\nimportlib.import_module('slangpy')"),
    ),
    (apple_outside_its_boundary, Module("pers.backends.metal.texture", "import Metal")),
    (apple_outside_its_boundary, Module("pers.sharing.manager", "from IOSurface import x")),
    (apple_outside_its_boundary, Module("renderers.window", "import objc")),
    (
        apple_outside_its_boundary,
        Module("pers", "import importlib\nimportlib.import_module('Quartz.CoreVideo')"),
    ),
    (event_loop_in_pers, Module("pers.buffers.ring", "import asyncio")),
    (event_loop_in_pers, Module("pers.buffers.ring", "from asyncio import Lock")),
    (event_loop_in_pers, Module("pers.backends.webgpu.poll", "import trio.lowlevel")),
    (application_layer_in_pers, Module("pers.testing", "from renderers import TriangleRenderer")),
    (application_layer_in_pers, Module("pers.testing", "import tests.helpers")),
    (backend_behind_the_facade, Module("pers.buffers.device", "from pers.backends.null import x")),
    (backend_behind_the_facade, Module("pers.buffers.device", "from pers import backends")),
    (backend_behind_the_facade, Module("pers.buffers.device", "from ..backends import webgpu")),
    (backend_behind_the_facade, Module("pers.buffers.device", "from .. import backends")),
    (backend_behind_the_facade, Module("pers.graphics", "from ..backends.null import x", True)),
    (
        backend_behind_the_facade,
        Module(
            "pers.sharing.handles",
            "from typing import TYPE_CHECKING\n"
            "if TYPE_CHECKING:\n"
            "    from pers.backends.webgpu import WebGPUDevice",
        ),
    ),
    (backend_behind_the_facade, Module("pers._checks", "import pers.backends.null")),
    (renderer_past_the_facade, Module("renderers.triangle", "import wgpu")),
    (renderer_past_the_facade, Module("renderers.triangle", "import pers.backends.webgpu")),
    (renderer_past_the_facade, Module("renderers.triangle", "from pers.buffers import BufferDesc")),
    (renderer_past_the_facade, Module("renderers.triangle", "from pers import backends")),
    (print_in_pers, Module("pers.buffers.belt", "def f():\n    print('full')")),
]


@pytest.mark.parametrize(
    ("rule", "module"),
    VIOLATIONS,
    ids=[f"{rule.__name__}-{number}" for number, (rule, _) in enumerate(VIOLATIONS)],
)
def test_rule_finds_violation(rule: Rule, module: Module) -> None:
    (violation, *_) = rule(module)
    assert violation.startswith(f"{module.name}:")


def test_every_rule_is_seen_to_fail() -> None:
    assert {rule for rule, _ in RULES} == {rule for rule, _ in VIOLATIONS}


@pytest.mark.parametrize(
    ("rule", "module"),
    [
        (wgpu_outside_its_backend, Module("pers.backends.webgpu.device", "import wgpu")),
        (wgpu_outside_its_backend, Module("benchmarks.peers.raw_wgpu", "import wgpu")),
        (vulkan_outside_its_backend, Module("pers.backends.vulkan._ffi", "import vulkan")),
        (vulkan_outside_its_backend, Module("pers._open", "import pers.backends.vulkan")),
        (peer_outside_its_module, Module("benchmarks.peers.moderngl_peer", "import moderngl")),
        (apple_outside_its_boundary, Module("pers.backends.metal._objc", "import objc, Metal")),
        (
            apple_outside_its_boundary,
            Module("pers.backends.metal.texture", "from pers.backends.metal._objc import Metal"),
        ),
        (wgpu_outside_its_backend, Module("renderers.text", "import wgpu_like\nname = 'wgpu'")),
        (event_loop_in_pers, Module("pers.buffers.ring", "import anyio\nfrom anyio import Lock")),
        (backend_behind_the_facade, Module("pers.buffers.device", "from .types import BufferDesc")),
        (backend_behind_the_facade, Module("pers", "from .backends import null", True)),
        (backend_behind_the_facade, Module("pers._open", "from pers.backends import null")),
        (renderer_past_the_facade, Module("renderers.triangle", "from pers import BufferDesc")),
        (renderer_past_the_facade, Module("renderers.stress", "from .scene import Scene")),
        (print_in_pers, Module("pers.buffers.belt", "self.print()\npprint(1)")),
    ],
)
def test_rule_accepts_what_is_allowed(rule: Rule, module: Module) -> None:
    assert rule(module) == []


# --- The façade -----------------------------------------------------------------------------------


def lacks_docstring(thing: object) -> bool:
    """Whether a class, function or module has no docstring of its own.

    Constants and type aliases cannot have one. What Python writes by itself does not count.
    """
    if not isinstance(thing, type | ModuleType) and not inspect.isroutine(thing):
        return False
    text = (thing.__doc__ or "").strip()
    made_up = isinstance(thing, type) and text.startswith(f"{thing.__name__}(")
    return not text or made_up or text == enum.Enum.__doc__


def undocumented_methods(kind: type) -> list[str]:
    """The public methods and properties that neither the class nor a base of it documents."""
    descriptors = property | functools.cached_property | classmethod | staticmethod
    return [
        name
        for name, member in vars(kind).items()
        if not name.startswith("_")
        and (inspect.isroutine(member) or isinstance(member, descriptors))
        and not any(vars(base)[name].__doc__ for base in kind.__mro__ if name in vars(base))
    ]


def missing_from(facade: ModuleType, package: ModuleType) -> list[str]:
    """The public names of a package that the façade lacks, or has as something else."""
    return [
        name
        for name in package.__all__
        if name not in facade.__all__ or getattr(facade, name, None) is not getattr(package, name)
    ]


@pytest.mark.parametrize("name", pers.__all__)
def test_public_name_is_there_and_documented(name: str) -> None:
    thing = getattr(pers, name)
    assert not lacks_docstring(thing), f"pers.{name} has no docstring"
    if isinstance(thing, type):
        assert undocumented_methods(thing) == []


@pytest.mark.parametrize("name", [name for name in INTERFACES if importlib.util.find_spec(name)])
def test_facade_offers_every_interface_name(name: str) -> None:
    package = importlib.import_module(name)
    assert package.__all__
    assert missing_from(pers, package) == []


def test_facade_offers_every_error() -> None:
    errors = importlib.import_module("pers.errors")
    raised = {
        name
        for name, thing in vars(errors).items()
        if isinstance(thing, type) and issubclass(thing, errors.PersError) and name[0] != "_"
    }
    assert "PersError" in raised
    assert raised <= set(pers.__all__)


def test_lacks_docstring_finds_what_python_wrote_itself() -> None:
    class Plain:
        pass

    class Documented:
        """Says what it is."""

    class Point(NamedTuple):
        x: int

    class Colour(enum.Enum):
        RED = 1

    def undocumented() -> None:
        pass

    assert lacks_docstring(Plain)
    assert lacks_docstring(Point)
    assert lacks_docstring(Colour)
    assert lacks_docstring(undocumented)
    assert lacks_docstring(ModuleType("empty"))
    assert not lacks_docstring(Documented)
    assert not lacks_docstring("1.0")


def test_undocumented_methods_looks_at_bases_too() -> None:
    class Interface:
        def documented(self) -> None:
            """Says what it does."""

        @property
        def described(self) -> int:
            """Says what it is."""
            return 0

        def bare(self) -> None: ...

    class Implementation(Interface):
        def documented(self) -> None: ...

        @property
        def described(self) -> int:
            return 1

        def bare(self) -> None: ...

        @property
        def bare_property(self) -> int:
            return 1

        @classmethod
        def bare_class_method(cls) -> None: ...

        def _private(self) -> None: ...

    assert undocumented_methods(Interface) == ["bare"]
    assert undocumented_methods(Implementation) == ["bare", "bare_property", "bare_class_method"]


def test_missing_from_finds_an_absent_and_a_different_name() -> None:
    package = ModuleType("package")
    package.__dict__.update(
        __all__=["same", "different", "absent"], same=[], different=[], absent=[]
    )
    facade = ModuleType("facade")
    facade.__dict__.update(__all__=["same", "different"], same=package.same, different=[])

    assert missing_from(facade, package) == ["different", "absent"]
