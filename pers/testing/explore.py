"""Running the property test for as long as one likes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Literal, cast

import attrs

from pers.testing.bench import OpenDevice

__all__ = ["Exploration", "explore"]

STEPS_PER_EXAMPLE = 50
STEPS_PER_SEED = 10_000
"""After so many steps a new seed starts: Hypothesis remembers all that it tried with one."""


@attrs.frozen
class Exploration:
    """What the property test did; it found nothing, or it would have raised.

    Attributes:
        steps: How many rules were applied, each one call or a few.
        outcomes: How the calls of each rule ended: ``succeeded``, or the name of the error that
            was due.
    """

    steps: int
    outcomes: Mapping[str, Mapping[str, int]]


def explore(
    open_device: OpenDevice,
    *,
    steps: int = STEPS_PER_SEED,
    seed: int = 0,
    event_loop: Literal["asyncio", "trio"] = "asyncio",
    shrink: bool = True,
    progress: Callable[[int], None] = lambda steps: None,
) -> Exploration:
    """Make random calls and compare state, errors and bytes with an oracle after each.

    Args:
        open_device: Makes a new device; called again when a device was lost.
        steps: About how many steps to take.
        seed: The same seed takes the same steps, on a device whose time is virtual.
        event_loop: Where the tasks run.
        shrink: Whether to look for the smallest sequence of calls that fails, which can take
            minutes; otherwise the first one is shown.
        progress: Called now and then with the number of steps taken.

    Raises:
        Exception: What differed; its notes list the smallest sequence of calls that shows it.
    """
    from hypothesis import HealthCheck, Phase, settings
    from hypothesis import seed as seeded
    from hypothesis.stateful import run_state_machine_as_test

    from pers.testing.property.machine import buffer_machine

    machine = buffer_machine(open_device, event_loop=event_loop)
    taken = 0
    try:
        while taken < steps:
            wanted = min(steps - taken, STEPS_PER_SEED)
            run_state_machine_as_test(
                seeded(seed)(machine),
                settings=settings(
                    max_examples=-(-wanted // STEPS_PER_EXAMPLE),
                    stateful_step_count=STEPS_PER_EXAMPLE,
                    deadline=None,
                    database=None,
                    derandomize=False,
                    phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
                    suppress_health_check=list(cast("Any", HealthCheck)),
                ),
            )
            seed += 1
            taken = machine.steps()
            progress(taken)
    finally:
        machine.close_device()
    outcomes: dict[str, Counter[str]] = {}
    for (rule, outcome), number in sorted(machine.counts.items()):
        if outcome != "taken":
            outcomes.setdefault(rule, Counter())[outcome] = number
    return Exploration(taken, outcomes)
