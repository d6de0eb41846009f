"""The property test: every public call of the buffer layer, in any order, against an oracle."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar, Literal

from pers.testing.bench import OpenDevice
from tests.property.rules.base import MachineBase
from tests.property.rules.dynamic import DynamicRules


class BufferMachine(DynamicRules):
    """All rules together."""


def buffer_machine(
    open_device: OpenDevice, *, event_loop: Literal["asyncio", "trio"] = "asyncio"
) -> type[MachineBase]:
    """Make a state machine."""

    class TestBuffers(BufferMachine):
        counts: ClassVar[Counter[tuple[str, str]]] = Counter()

    TestBuffers.open_device = staticmethod(open_device)
    TestBuffers.event_loop = event_loop
    return TestBuffers
