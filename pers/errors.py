"""Every exception that pers raises.

`PersError` is the root. Where a built-in exception says the same thing, the pers exception is
also that built-in, so ``except ValueError`` keeps working. Each message names the object by its
debug name, says what was asked for and what the state was, and ends with what to do instead.
"""

from __future__ import annotations

__all__ = [
    "BackendUnavailableError",
    "BufferRangeError",
    "BufferStateError",
    "BufferUsageError",
    "DeviceLostError",
    "DeviceMismatchError",
    "InvalidTextureHandleError",
    "MapAbortedError",
    "MappedViewsError",
    "MetalApiError",
    "MetalInitializationError",
    "OperationNotSupportedError",
    "OutOfMemoryError",
    "PeerLostError",
    "PerformanceWarning",
    "PersError",
    "ProtocolError",
    "RingFullError",
    "ShareError",
    "TextureAccessError",
    "ValidationError",
    "VulkanApiError",
    "VulkanInitializationError",
    "WaitTimeoutError",
]


class PersError(Exception):
    """The root of all pers errors."""


class BufferStateError(PersError, RuntimeError):
    """The call is not possible in the state that the buffer is in."""


class BufferUsageError(PersError, ValueError):
    """The buffer was not created for this use, or was asked for a use that is not possible."""


class BufferRangeError(PersError, ValueError):
    """An offset or a size is misaligned, out of bounds, or no whole number of bytes."""


class MapAbortedError(PersError, RuntimeError):
    """A pending map ended without a mapping: unmapped, destroyed, or its device was lost."""


class MappedViewsError(PersError, RuntimeError):
    """Memory cannot be unmapped, because arrays that look at it are still alive.

    Attributes:
        count: How many views are alive.
    """

    def __init__(self, message: str, count: int) -> None:
        super().__init__(message)
        self.count = count


class OutOfMemoryError(PersError, MemoryError):
    """The device or the host could not give the memory that was asked for."""


class ValidationError(PersError, ValueError):
    """The device refused a call or a description as invalid."""


class DeviceLostError(PersError, RuntimeError):
    """The device was lost or closed; nothing created from it can be used any more."""


class BackendUnavailableError(PersError, RuntimeError):
    """A backend cannot run here; the message says what is missing and how to install it."""


class RingFullError(PersError, RuntimeError):
    """A ring or pool has no free space and the caller asked not to wait."""


class WaitTimeoutError(PersError, TimeoutError):
    """A blocking wait reached its time limit before the work was done."""


class PerformanceWarning(UserWarning):
    """The program is right but waits where it need not; the message says what to set."""


class ShareError(PersError):
    """The root of the errors of `pers.sharing`."""


class TextureAccessError(ShareError, RuntimeError):
    """A shared texture or buffer is used outside an access, or two accesses exclude each other."""


class InvalidTextureHandleError(ShareError, ValueError):
    """A handle is closed, of another kind, or does not hold what its numbers say."""


class OperationNotSupportedError(ShareError, RuntimeError):
    """The driver, system or backend cannot share this; `capabilities` lists what it can."""


class DeviceMismatchError(ShareError, ValueError):
    """A handle comes from another GPU or driver than the one that imports it."""


class VulkanInitializationError(ShareError, RuntimeError):
    """Vulkan, or what sharing needs of it, is not there; the message says what to install."""


class VulkanApiError(ShareError, RuntimeError):
    """A Vulkan call failed.

    Attributes:
        result: What it returned, a ``VkResult``.
    """

    def __init__(self, message: str, result: int) -> None:
        super().__init__(message)
        self.result = result


class MetalInitializationError(ShareError, RuntimeError):
    """Metal, or the Python packages that reach it, are not there."""


class MetalApiError(ShareError, RuntimeError):
    """A Metal call failed."""


class PeerLostError(ShareError, ConnectionError):
    """The process on the other side is gone, or does not answer in time."""


class ProtocolError(ShareError, ValueError):
    """The other side sent what the protocol does not allow; the connection is closed."""
