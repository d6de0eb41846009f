"""Sharing through POSIX shared memory: no GPU needed, one copy in and one copy out."""

from pers.backends.host.device import HostShareDevice
from pers.backends.host.manager import HostTextureShareManager

__all__ = ["HostShareDevice", "HostTextureShareManager"]
