"""What a null device has to come: the ends of work and of maps."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from pers.backends.null.tape import Command
from pers.backends.null.timeline import Event
from pers.errors import DeviceLostError, MapAbortedError, PersError
from pers.graphics.native import Done

if TYPE_CHECKING:
    from pers.backends.null.native import NullNative


class DeviceEvent(Event):
    """An event that somebody may wait for."""

    def __init__(self, device: NullNative, done: Done | None) -> None:
        self.owner = device
        self._done = done

    @abstractmethod
    def lose(self, why: str) -> None:
        """Tell who waits that it will never happen. Called without locks."""

    def _end(self, error: PersError | None) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(error)


class Work(DeviceEvent):
    """Commands on the queue, and their end."""

    def __init__(
        self,
        device: NullNative,
        commands: list[Command],
        done: Done | None = None,
        loss: str | None = None,
    ) -> None:
        """Describe work.

        Args:
            device: Whose queue.
            commands: What to do.
            done: Called at the end.
            loss: The message of the device's loss, when that comes instead of the end.
        """
        super().__init__(device, done)
        self._device = device
        self._commands = commands
        self._loss = loss

    def happen(self) -> None:
        commands, self._commands = self._commands, []
        if self._loss is not None:
            self._device.hang()
        if not self._device.hangs:
            for command in commands:
                command()

    def tell(self) -> None:
        if self._loss is None:
            self._end(None)
        else:
            self._device.lose(self._loss)
            self.lose(self._loss)

    def lose(self, why: str) -> None:
        self._commands = []
        self._end(lost_error(why))


class MapRequest(DeviceEvent):
    """The end of a map."""

    def __init__(self, device: NullNative, name: str, done: Done, error: PersError | None) -> None:
        """Describe a map.

        Args:
            device: Whose buffer.
            name: How error messages call the buffer.
            done: Called at the end.
            error: What the map fails with, if it does.
        """
        super().__init__(device, done)
        self._name = name
        self._error = error

    def happen(self) -> None:
        """Nothing: the memory of a null buffer is always there."""

    def tell(self) -> None:
        # The buffer may keep this event, which must not keep the frames of the error's traceback.
        error, self._error = self._error, None
        self._end(error)

    def lose(self, why: str) -> None:
        self._end(
            MapAbortedError(f"{self._name}: the pending map was aborted: {why}; open a new device")
        )

    def cancel(self) -> None:
        """Tell nobody when it ends. Takes no lock."""
        self._done = None


def lost_error(why: str) -> DeviceLostError:
    """Return the error for work that a lost device does not end."""
    return DeviceLostError(f"the work did not end: {why}; open a new device")
