"""Explore: ``python tests/property BACKEND STEPS [SEED] [asyncio|trio]``.

Prints the smallest sequence of calls that pers and the oracle do not agree on, if there is one.
"""

from __future__ import annotations

import sys
import time

from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test

import pers
from tests.property.machine import buffer_machine

STEPS_PER_EXAMPLE = 50


def main(backend: str, steps: str, first_seed: str = "0", event_loop: str = "asyncio") -> None:
    """Run about so many steps."""
    machine = buffer_machine(lambda: pers.open_device(backend), event_loop=event_loop)  # type: ignore[arg-type]
    began = time.perf_counter()
    run_state_machine_as_test(
        seed(int(first_seed))(machine),
        settings=settings(
            max_examples=max(int(steps) // STEPS_PER_EXAMPLE, 1),
            stateful_step_count=STEPS_PER_EXAMPLE,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    taken = sum(number for (_, what), number in machine.counts.items() if what == "taken")
    print(f"{taken} steps in {time.perf_counter() - began:.0f} s, nothing found")


if __name__ == "__main__":
    main(*sys.argv[1:])
