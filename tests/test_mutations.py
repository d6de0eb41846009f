"""Bugs are seeded one by one, and the conformance kit has to find each."""

from __future__ import annotations

import inspect
import sys
import textwrap
from typing import Any

import attrs
import pytest

from pers.backends.null import NullClock, NullDevice
from pers.backends.null.commands import NullEncoder
from pers.buffers import core as core_module
from pers.buffers.core import Buffer, MappableBuffer
from pers.buffers.dynamic import DynamicBuffer, DynamicUpdate
from pers.buffers.mapped_range import Mapping
from pers.graphics import encoder as encoder_module
from pers.graphics.device import RenderDevice, RenderQueue
from pers.graphics.encoder import CommandEncoder
from pers.graphics.resources import BindGroup
from pers.testing import all_cases, report
from pers.testing.report import run_case


@attrs.frozen
class Mutation:
    """A bug: in the source of `owner`'s function, `old` (there once) becomes `new`."""

    name: str
    owner: Any
    function: str
    old: str
    new: str

    def seed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        function = inspect.getattr_static(self.owner, self.function)
        function = getattr(function, "fget", function)
        source = textwrap.dedent(inspect.getsource(function))
        assert source.count(self.old) == 1, f"{self.function} has changed; mend this mutation"
        namespace: dict[str, Any] = {}
        module = sys.modules[function.__module__]
        exec(source.replace(self.old, self.new), module.__dict__, namespace)
        monkeypatch.setattr(self.owner, self.function, namespace[self.function])


MUTATIONS = [
    Mutation(
        "overlapping ranges are handed out",
        Mapping,
        "take",
        "if offset < other_end and offset + size > other_start:",
        "if False:",
    ),
    Mutation(
        "destroy forgets a pending map",
        MappableBuffer,
        "_destroy",
        "self._abort_map(BufferState.DESTROYED, reason)",
        "pass",
    ),
    Mutation(
        "unmap forgets a pending map",
        MappableBuffer,
        "unmap",
        'self._abort_map(BufferState.READY, "unmapped; map again") or self._mapping is None',
        "self._mapping is None",
    ),
    Mutation(
        "a cancelled map goes on",
        MappableBuffer,
        "_cancel_map",
        "if self._pending is pending and",
        "if True or",
    ),
    Mutation(
        "unmap ignores living arrays",
        MappableBuffer,
        "unmap",
        "if count:",
        "if False:",
    ),
    Mutation(
        "misaligned maps are taken",
        core_module,
        "check_map_range",
        "if start % MAP_OFFSET_ALIGNMENT or length % COPY_ALIGNMENT:",
        "if False:",
    ),
    Mutation(
        "maps reach beyond the buffer",
        core_module,
        "check_map_range",
        "if start + length > total:",
        "if False:",
    ),
    Mutation(
        "memory mapped for reading can be written",
        Mapping,
        "window",
        "writable=self.mode is MapMode.WRITE",
        "writable=True",
    ),
    Mutation(
        "mapped buffers are submitted",
        Buffer,
        "check_usable",
        "if self._state is not BufferState.READY:",
        "if False:",
    ),
    Mutation(
        "a command buffer is submitted twice",
        RenderQueue,
        "_submit",
        "command_buffer.submitted = True",
        "pass",
    ),
    Mutation(
        "copies reach beyond the buffer",
        encoder_module,
        "check_bytes",
        "if offset + size > buffer.size:",
        "if False:",
    ),
    Mutation(
        "copies ignore usages",
        CommandEncoder,
        "_buffer",
        "if not core.usage_bits & usage:",
        "if False:",
    ),
    Mutation(
        "misaligned dynamic offsets are taken",
        BindGroup,
        "check_offsets",
        "% alignment",
        "% 1",
    ),
    Mutation(
        "a ring's frame is used again too early",
        DynamicUpdate,
        "__aenter__",
        "if user is not None:",
        "if False:",
    ),
    Mutation(
        "a ring's frames all lie at its start",
        DynamicBuffer,
        "_lay_out",
        "_Frame(first_base + index * frame_size)",
        "_Frame(first_base)",
    ),
    Mutation(
        "closing the device forgets its buffers",
        RenderDevice,
        "lose",
        "buffer.lose()",
        "pass",
    ),
    Mutation(
        "the backend clears too little",
        NullEncoder,
        "clear_buffer",
        "offset, size)",
        "offset, size // 2)",
    ),
]


def slow_device() -> NullDevice:
    """Make a device that ends nothing unless it is waited for."""
    return NullDevice(clock=NullClock(submission_latency=1_000_000, map_latency=1_000))


def first_failure() -> str | None:
    """Run the cases until one fails; return its name."""
    for case in all_cases()[0]:
        if run_case(case, slow_device).outcome == "failed":
            return case.name
    return None


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_the_kit_finds_it(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "CASE_LIMIT", 2)
    mutation.seed(monkeypatch)
    assert first_failure() is not None, f"no case notices that {mutation.name}"


def test_without_a_bug_it_finds_nothing() -> None:
    assert first_failure() is None
