"""Submitted work and how to wait for its end."""

from __future__ import annotations

from numbers import Real

from pers._completion import Completion
from pers.errors import ValidationError

__all__ = ["Submission"]


class Submission:
    """Work that was handed to the GPU with one `IRenderQueue.submit`. Thread-safe."""

    __slots__ = ("_completion", "serial")

    def __init__(self, serial: int, completion: Completion[None]) -> None:
        """Not called by users; `IRenderQueue.submit` returns submissions."""
        self.serial = serial
        """Counts up from 1 with every submit of the device."""
        self._completion = completion

    @property
    def native_index(self) -> int:
        """The backend's own number of the submission."""
        return self._completion.after

    @property
    def is_done(self) -> bool:
        """Whether the GPU has finished; never waits."""
        return self._completion.poll()

    @property
    def has_ended(self) -> bool:
        """Whether the news that the GPU has finished came already; asks nobody."""
        return self._completion.done

    async def done(self) -> None:
        """Wait until the GPU has finished. Cancelling ends the waiting, not the work.

        Raises:
            DeviceLostError: The device was lost before that.
        """
        await self._completion.wait_async()

    def wait(self, timeout: float | None = None) -> None:
        """Block until the GPU has finished.

        Args:
            timeout: Seconds to wait at most; None waits for as long as it takes.

        Raises:
            WaitTimeoutError: The time is up; the work goes on.
            DeviceLostError: The device was lost before the end.
            ValidationError: `timeout` is no number.
        """
        if timeout is not None and (not isinstance(timeout, Real) or timeout != timeout):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValidationError(f"{self!r}: wait takes seconds or None, not {timeout!r}")
        self._completion.wait(timeout)

    def __repr__(self) -> str:
        return f"<Submission {self.serial}{': done' if self._completion.done else ''}>"
