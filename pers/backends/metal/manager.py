"""The share manager of macOS."""

from __future__ import annotations

from typing import Any

from pers.backends.metal._objc import load_metal
from pers.backends.metal.device import MetalShareDevice
from pers.sharing.manager import ShareManager

__all__ = ["MetalTextureShareManager"]


class MetalTextureShareManager(ShareManager):
    """Shares textures as ``IOSurface`` and events as ``MTLSharedEvent``, on macOS 12 or later.

    No Metal hardware has run it: it is tested against a stand-in for Apple's calls. The package's
    text says what a handle can and cannot do here.

    Args:
        system_wide: Whether other processes find a texture by its number; then any process of this
            machine can (``kIOSurfaceIsGlobal``).
        timeout_ns: How long the CPU waits for the GPU at most, in nanoseconds.

    Raises:
        MetalInitializationError: This is no Mac with Metal, or pyobjc is not installed; install
            it with ``pip install 'pers[metal]'``.
    """

    def __init__(self, *, system_wide: bool = True, timeout_ns: int = 10_000_000_000) -> None:
        device = MetalShareDevice(load_metal(), system_wide=system_wide, timeout_ns=timeout_ns)
        super().__init__(device)
        self._work = device.work

    @property
    def command_queue(self) -> Any:
        """The ``MTLCommandQueue`` for GPU work on its textures, between begin and end of an access.

        Waits and signals are put into this queue; work in another one does not wait for them.
        """
        return self._work.queue
