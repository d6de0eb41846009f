"""The share manager over shared memory."""

from __future__ import annotations

from pers.backends.host.device import HostShareDevice
from pers.sharing.manager import ShareManager

__all__ = ["HostTextureShareManager"]


class HostTextureShareManager(ShareManager):
    """Shares textures and buffers in POSIX shared memory.

    It works wherever there is shared memory, and is what the other managers are measured against.
    Every format that can be copied is shared; semaphores, fences and events work between
    processes, on the CPU.

    Args:
        timeout_ns: How long an access waits for a semaphore at most, in nanoseconds.
    """

    def __init__(self, *, timeout_ns: int = 10_000_000_000) -> None:
        super().__init__(HostShareDevice(timeout_ns))
