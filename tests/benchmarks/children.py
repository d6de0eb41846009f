"""What the children of the tests do; imported by processes that are being started."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.core import WrongContentError


@contextmanager
def obedient(connection: Any) -> Iterator[Callable[[str], Any]]:
    def answer(message: str) -> Any:
        match message:
            case "pid":
                return os.getpid()
            case "die":
                os._exit(7)
            case "fail":
                raise ValueError("no such order")
            case "wrong":
                raise WrongContentError("3 values are wrong")
            case "hang":
                time.sleep(1000)

    yield answer


@contextmanager
def unable(connection: Any) -> Iterator[Callable[[str], Any]]:
    raise OSError("nothing to open")
    yield lambda message: None
