"""Hold a backend against the contract from the command line: ``python -m pers.testing --help``."""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pers
from pers.backends.null import NullClock, NullDevice
from pers.testing import CaseResult, run_conformance
from pers.testing.bench import OpenDevice
from pers.testing.explore import STEPS_PER_SEED, Exploration, explore


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0 nothing found, 1 something found."""
    options = parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    return run(options)


def device_opener(name: str) -> OpenDevice:
    """Return what opens a device: of a backend of pers, or ``module:callable``."""
    module, colon, function = name.partition(":")
    if colon:
        opener: OpenDevice = getattr(importlib.import_module(module), function)
        return opener
    if name == "null":  # its time stands still until the test moves it, and it can be made to fail
        return lambda: NullDevice(clock=NullClock(auto=False))
    return lambda: pers.open_device(name)


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    root = argparse.ArgumentParser("python -m pers.testing", description=__doc__)
    commands = root.add_subparsers(required=True, metavar="COMMAND")
    cases = commands.add_parser("cases", help="run the conformance cases")
    cases.set_defaults(run=_cases)
    random_calls = commands.add_parser("explore", help="compare random calls with an oracle")
    random_calls.set_defaults(run=_explore)
    for command in (cases, random_calls):
        command.add_argument("device", help="null, webgpu, or MODULE:CALLABLE that opens a device")
        command.add_argument("--event-loop", choices=["asyncio", "trio"], default="asyncio")
        command.add_argument("--json", metavar="FILE", help="write the results there")
    random_calls.add_argument("--steps", type=int, default=STEPS_PER_SEED)
    random_calls.add_argument("--seed", type=int, default=0)
    random_calls.add_argument("--jobs", type=int, default=1, help="processes at a time")
    return root


def _cases(options: argparse.Namespace) -> int:
    def show(result: CaseResult) -> None:
        print(f"{result.outcome:8}{result.name}")
        if result.outcome == "failed":
            print(result.detail)

    report = run_conformance(
        device_opener(options.device), event_loop=options.event_loop, progress=show
    )
    passed, failed = report.count("passed"), report.count("failed")
    print(
        f"{report.device.name}: {passed} passed, {failed} failed, {report.count('skipped')} skipped"
    )
    _write(
        options.json,
        {
            "device": report.device.name,
            "event_loop": options.event_loop,
            "results": {result.name: result.outcome for result in report.results},
        },
    )
    return 0 if report.passed else 1


def _explore(options: argparse.Namespace) -> int:
    began = time.monotonic()
    chunks = -(-options.steps // STEPS_PER_SEED)
    steps = 0
    outcomes: dict[str, Counter[str]] = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=context, max_tasks_per_child=1) as pool:
        running: dict[Future[Exploration | str], int] = {}
        for chunk in range(chunks):
            seed = options.seed + chunk
            wanted = min(options.steps - chunk * STEPS_PER_SEED, STEPS_PER_SEED)
            job = pool.submit(_explore_one, options.device, options.event_loop, wanted, seed)
            running[job] = seed
        for job in as_completed(running):
            try:
                found = job.result()
            except BrokenProcessPool:
                found = "the process died; run the seeds that did not end with --jobs 1"
            if isinstance(found, str):
                pool.shutdown(wait=False, cancel_futures=True)
                print(f"\nseed {running[job]}: {found}", file=sys.stderr)
                return 1
            steps += found.steps
            for rule, ended in found.outcomes.items():
                outcomes.setdefault(rule, Counter()).update(ended)
            rate = steps / (time.monotonic() - began)
            print(f"\r{steps} steps, {rate:.0f} a second", end="", file=sys.stderr, flush=True)
    print(f"\r{steps} steps in {time.monotonic() - began:.0f} s, nothing found")
    _write(
        options.json,
        {
            "device": options.device,
            "event_loop": options.event_loop,
            "seed": options.seed,
            "steps": steps,
            "outcomes": outcomes,
        },
    )
    return 0


def _explore_one(device: str, event_loop: Any, steps: int, seed: int) -> Exploration | str:
    """Explore in a process of its own; return what was found as text."""
    try:
        return explore(device_opener(device), steps=steps, seed=seed, event_loop=event_loop)
    except Exception:
        return traceback.format_exc()


def _write(file: str | None, results: dict[str, Any]) -> None:
    if file is not None:
        Path(file).write_text(json.dumps(results, indent=2) + "\n")
