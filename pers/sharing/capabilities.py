"""What a share manager can do on this machine."""

from __future__ import annotations

import attrs

from pers.sharing.handles import SemaphoreKind
from pers.textures import TextureFormat

__all__ = ["ShareCapabilities"]


@attrs.frozen
class ShareCapabilities:
    """What a manager can share here, found by asking the driver and by doing it once.

    Attributes:
        backend: ``"vulkan"``, ``"webgpu"``, ``"metal"`` or ``"host"``.
        device: Name of the GPU, or of the memory that stands in for one.
        zero_copy: Whether both sides use the same memory, without an upload or a readback.
        handle_type: What a texture is exported as: ``"opaque_fd"``, ``"opaque_win32"``,
            ``"io_surface"`` or ``"shared_memory"``.
        formats: The formats in which textures can be shared.
        semaphores: The kinds of semaphores that can be exported and imported.
        fences: Whether fences can be.
        hand_over: How one process tells the other that a texture is ready: ``"gpu"`` when a
            semaphore can do it, ``"cpu"`` when the releasing side has to wait for its GPU first.
        device_uuid: Which GPU, 16 bytes; empty where there is none.
        driver_uuid: Which driver, 16 bytes; empty where there is none.
        reasons: Why something is not possible, one sentence each.
    """

    backend: str
    device: str
    zero_copy: bool
    handle_type: str
    formats: frozenset[TextureFormat]
    semaphores: frozenset[SemaphoreKind] = frozenset()
    fences: bool = False
    hand_over: str = "cpu"
    device_uuid: bytes = b""
    driver_uuid: bytes = b""
    reasons: tuple[str, ...] = ()
