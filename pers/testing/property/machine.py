"""The property test: every public call of the buffer layer, in any order, against an oracle."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar, Literal

from pers.graphics import IRenderDevice
from pers.testing.bench import OpenDevice
from pers.testing.property.rules.base import MachineBase
from pers.testing.property.rules.textures import TextureRules


class BufferMachine(TextureRules):
    """All rules together."""


def buffer_machine(
    open_device: OpenDevice, *, event_loop: Literal["asyncio", "trio"] = "asyncio"
) -> type[MachineBase]:
    """Make a Hypothesis state machine that compares a device with an oracle.

    In a test file, with the settings of Hypothesis that the project has::

        TestBuffers = buffer_machine(MyDevice).TestCase

    Args:
        open_device: Makes a new device (a device class will do); called again after a loss.
        event_loop: Where the tasks run.
    """

    class TestBuffers(BufferMachine):
        counts: ClassVar[Counter[tuple[str, str]]] = Counter()

        @classmethod
        def open_device(cls) -> IRenderDevice:
            return open_device()

    TestBuffers.event_loop = event_loop
    return TestBuffers
