"""Learning of lost devices from wgpu-py, which only logs them."""

from __future__ import annotations

import logging
import weakref
from typing import Protocol

from wgpu.backends.wgpu_native import _api

__all__ = ["add_device", "expect_loss", "suspect_losses"]


class Suspect(Protocol):
    """A device that can look whether it is still there."""

    def suspect_loss(self) -> None:
        """Look at the next chance."""
        ...


_devices: weakref.WeakSet[Suspect] = weakref.WeakSet()


def add_device(device: Suspect) -> None:
    """Tell `device` of losses from now on."""
    _devices.add(device)


def suspect_losses() -> None:
    """Have all devices look whether they are still there."""
    for device in list(_devices):
        device.suspect_loss()


def expect_loss() -> None:
    """Announce that pers is about to destroy a device, which is not worth a word in the log."""
    _listener.expected += 1


class _Listener(logging.Filter):
    """Hears what wgpu-py says of a loss: a line for its logger, and one for its error handler.

    The second one comes whatever the level of the logger is, so that is the one to learn from.
    """

    def __init__(self) -> None:
        super().__init__()
        self.expected = 0
        self._log_error = _api.error_handler.log_error

    def filter(self, record: logging.LogRecord) -> bool:
        """Drop the line about a device that pers destroys."""
        return not (self.expected and record.getMessage().startswith("DEVICE LOST"))

    def log_error(self, message: str) -> None:
        """Do the work of the error handler's method, which this replaces."""
        if message.startswith("The WGPU device was lost"):
            if self.expected and message.startswith("The WGPU device was lost (Destroyed)"):
                self.expected -= 1
                return
            suspect_losses()
        self._log_error(message)


_listener = _Listener()
_api.error_handler.log_error = _listener.log_error
logging.getLogger("wgpu").addFilter(_listener)
