"""Learning of lost devices from wgpu-py, which only writes them to its log."""

from __future__ import annotations

import logging
import weakref
from typing import Protocol

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
    _filter.expected += 1


class _LossFilter(logging.Filter):
    """Reads wgpu's log for losses; drops those that were announced."""

    def __init__(self) -> None:
        super().__init__()
        self.expected = 0
        self._mute = False

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if text.startswith("DEVICE LOST"):
            self._mute = self.expected > 0
            if self._mute:
                self.expected -= 1
            else:
                suspect_losses()
            return not self._mute
        return not (self._mute and text.startswith("The WGPU device was lost"))


_filter = _LossFilter()
logging.getLogger("wgpu").addFilter(_filter)
