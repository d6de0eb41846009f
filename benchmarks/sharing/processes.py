"""The other side of a benchmark: a process of its own that does what it is asked."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, suppress
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

from benchmarks.core import WrongContentError

__all__ = ["SPAWN", "Answers", "Child", "ChildError", "Opener"]

SPAWN = multiprocessing.get_context("spawn")
"""A forked process would have the GPU's state of its parent, which no driver can use."""

START_S, ANSWER_S, END_S = 60.0, 60.0, 10.0
GRACE_S = 2.0

Answers = Callable[[Any], Any]
"""What the child does with a message; what it returns is the answer."""
Opener = Callable[..., AbstractContextManager[Answers]]
"""Runs in the child: opens what it needs, and takes it away in the end."""


class ChildError(RuntimeError):
    """The other process failed, died, or did not answer in time."""


class Child:
    """A process that answers. A context manager: it ends with the block, whatever happens.

    Args:
        opener: A function of a module, called in the child with `arguments`.
        arguments: Anything that can be sent to a process that is being started.
    """

    def __init__(self, opener: Opener, *arguments: Any) -> None:
        self.connection, theirs = SPAWN.Pipe()
        self._process = SPAWN.Process(
            target=_serve, args=(theirs, opener, arguments), daemon=True, name=opener.__qualname__
        )
        self._process.start()
        theirs.close()
        self._is_ready = False

    def wait_ready(self) -> None:
        """Wait until it has opened what it needs.

        Raises:
            ChildError: It cannot.
        """
        if not self._is_ready:
            self.answer(START_S)
            self._is_ready = True

    def ask(self, message: Any) -> None:
        """Send a message; `answer` has what comes of it."""
        self.wait_ready()
        self.connection.send(message)

    def answer(self, timeout_s: float = ANSWER_S) -> Any:
        """Return the answer to the oldest message.

        Raises:
            ChildError: There is none.
            WrongContentError: It has found wrong content.
        """
        try:
            if not self.connection.poll(timeout_s):
                raise ChildError(f"{self._process.name} did not answer within {timeout_s:g} s")
            done, result = self.connection.recv()
        except (EOFError, OSError) as error:
            self._process.join(END_S)
            raise ChildError(
                f"{self._process.name} has died with status {self._process.exitcode}"
            ) from error
        if not done:
            is_wrong, problem = result
            raise (WrongContentError if is_wrong else ChildError)(problem)
        return result

    @contextmanager
    def explaining(self) -> Generator[None]:
        """Raise what the child says, in the place of an error that only comes of its end."""
        try:
            yield
        except Exception:
            if self.connection.poll(GRACE_S):
                self.answer()
            raise

    def close(self) -> None:
        """End it: by asking, and if that does not help by force."""
        self.connection.close()
        self._process.join(END_S)
        for end in (self._process.terminate, self._process.kill):
            if self._process.exitcode is None:
                end()
                self._process.join(END_S)
        self._process.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _serve(connection: Connection, opener: Opener, arguments: tuple[Any, ...]) -> None:
    """Answer until the other side has closed the connection, or something is wrong."""
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            with opener(connection, *arguments) as answers:
                connection.send((True, None))
                _answer_all(connection, answers)
        except Exception as error:
            _tell(connection, error)


def _answer_all(connection: Connection, answers: Answers) -> None:
    while True:
        try:
            message = connection.recv()
        except (EOFError, ConnectionResetError):
            return
        try:
            result = answers(message)
        except Exception as error:
            # Now, before what was opened is closed, of which the other side would hear first.
            _tell(connection, error)
            return
        connection.send((True, result))


def _tell(connection: Connection, error: Exception) -> None:
    place = traceback.extract_tb(error.__traceback__)[-1]
    problem = f"{type(error).__name__}: {error} ({place.name}, line {place.lineno})"
    connection.send((False, (isinstance(error, WrongContentError), problem)))
