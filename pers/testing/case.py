"""Conformance cases: what they are called, and where they are found."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Awaitable, Callable

import attrs

from pers.testing.bench import Bench

CaseFunction = Callable[[Bench], Awaitable[None]]


@attrs.frozen
class Case:
    """One case of the contract.

    Attributes:
        name: Suite, file and test as WebGPU's conformance suite (or Dawn) calls them, for
            example ``validation/buffer/create:size``.
        run: Raises `AssertionError` when the device does not conform.
    """

    name: str
    run: CaseFunction


@attrs.frozen
class NotApplicable:
    """A case of the suites that means nothing here.

    Attributes:
        name: What the suite calls it.
        reason: Why it means nothing.
    """

    name: str
    reason: str


class Skip(Exception):
    """Raised by a case that a device cannot run, with the reason."""


_cases: dict[str, Case] = {}
_not_applicable: dict[str, NotApplicable] = {}


def case(name: str) -> Callable[[CaseFunction], CaseFunction]:
    """Register the decorated function as the case `name`."""

    def register(function: CaseFunction) -> CaseFunction:
        assert name not in _cases, f"{name} is registered twice"
        _cases[name] = Case(name, function)
        return function

    return register


def not_applicable(name: str, reason: str) -> None:
    """Register `name` as a case that means nothing here."""
    _not_applicable[name] = NotApplicable(name, reason)


def all_cases() -> tuple[list[Case], list[NotApplicable]]:
    """Return every case, and every case of the suites that means nothing here with the reason."""
    from pers.testing import cases

    for module in pkgutil.iter_modules(cases.__path__):
        importlib.import_module(f"{cases.__name__}.{module.name}")
    return (
        sorted(_cases.values(), key=lambda each: each.name),
        sorted(_not_applicable.values(), key=lambda each: each.name),
    )
