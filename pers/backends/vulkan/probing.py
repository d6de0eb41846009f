"""What a device can share: asked of the driver, then tried once."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from pers.backends.vulkan.buffer import why_no_buffers
from pers.backends.vulkan.image import create_image, facts_of, import_image, why_not
from pers.backends.vulkan.resource import Sharing
from pers.backends.vulkan.sync import (
    VulkanFence,
    VulkanSemaphore,
    VulkanTimeline,
    fences_can_be_shared,
    semaphores_can_be_shared,
)
from pers.errors import PersError, VulkanApiError
from pers.graphics.types import TextureDescriptor
from pers.sharing.capabilities import ShareCapabilities
from pers.sharing.control import create_memory
from pers.sharing.handles import SemaphoreKind
from pers.textures import TextureFormat, TextureUsage

__all__ = ["probe"]

_found: dict[tuple[bytes, bytes], ShareCapabilities] = {}
_probing = threading.Lock()
_TRY_NS = 5_000_000_000


def probe(sharing: Sharing) -> ShareCapabilities:
    """Return what the device can share; a GPU is probed once a process."""
    physical = sharing.gpu.physical
    key = (physical.device_uuid, physical.driver_uuid)
    with _probing:
        if key not in _found:
            # A manager of little patience would learn, and all after it, that nothing works.
            patience, sharing.timeout_ns = sharing.timeout_ns, max(sharing.timeout_ns, _TRY_NS)
            try:
                _found[key] = _probe(sharing)
            finally:
                sharing.timeout_ns = patience
        return _found[key]


def _probe(sharing: Sharing) -> ShareCapabilities:
    gpu, reasons = sharing.gpu, list[str]()

    def works(what: str, advertised: bool, attempt: Callable[[Sharing], None]) -> bool:
        if not advertised:
            reasons.append(f"{what} cannot be exported and imported by {gpu.physical.name}")
            return False
        try:
            attempt(sharing)
        except (PersError, OSError, AssertionError) as error:
            reasons.append(f"{what} cannot be shared, although the driver says so: {error}")
            return False
        return True

    formats = frozenset(
        texture_format
        for texture_format in TextureFormat
        if texture_format.is_copyable and _why_not(sharing, texture_format) is None
    )
    if not works("textures", TextureFormat.RGBA8_UNORM in formats, _try_texture):
        formats = frozenset()
    semaphores: frozenset[SemaphoreKind] = frozenset(
        kind
        for kind, attempt in _SEMAPHORES
        if works(f"{kind} semaphores", semaphores_can_be_shared(gpu, kind), attempt)
    )
    fences = works("fences", fences_can_be_shared(gpu), _try_fence)
    no_buffers = why_no_buffers(gpu)
    reasons += [no_buffers] if no_buffers else []
    reasons += _left_out(gpu.physical.name, formats)
    if not semaphores:
        reasons.append(
            "without semaphores a texture is handed over by the CPU: the end of an access waits "
            "for the GPU"
        )
    return ShareCapabilities(
        backend="vulkan",
        device=gpu.physical.name,
        zero_copy=bool(formats),
        handle_type=gpu.external.name,
        formats=formats,
        semaphores=semaphores,
        fences=fences,
        hand_over="gpu" if semaphores else "cpu",
        device_uuid=gpu.physical.device_uuid,
        driver_uuid=gpu.physical.driver_uuid,
        reasons=tuple(reasons),
    )


def _left_out(device: str, formats: frozenset[TextureFormat]) -> list[str]:
    opaque = [entry.value for entry in TextureFormat if not entry.is_copyable]
    missing = [entry.value for entry in TextureFormat if entry.is_copyable and entry not in formats]
    reasons = [
        f"{', '.join(opaque)}: their pixels cannot be copied as a whole (WebGPU §26.1.2)",
    ]
    if missing:
        reasons.append(f"{', '.join(missing)}: {device} cannot share images of these formats")
    return reasons


def _why_not(sharing: Sharing, texture_format: TextureFormat) -> str | None:
    usage = TextureUsage.COPY_SRC | TextureUsage.COPY_DST | TextureUsage.TEXTURE_BINDING
    descriptor = TextureDescriptor(4, 4, texture_format, usage)
    try:
        return why_not(sharing.gpu, facts_of(descriptor), descriptor)
    except VulkanApiError as error:
        return str(error)


def _try_texture(sharing: Sharing) -> None:
    """Write to a texture, and read what was written in the memory that its handle opens."""
    descriptor = TextureDescriptor(4, 4, TextureFormat.RGBA8_UNORM, TextureUsage.COPY_SRC, "probe")
    wanted = np.arange(64, dtype=np.uint8)
    got = np.empty_like(wanted)
    made = create_image(sharing, descriptor)
    try:
        with made.export(create_memory(1, "pers-probe")) as handle:
            opened = import_image(sharing, handle, descriptor)
        try:
            made.acquire((), write=True)
            made.upload(wanted, 0, 0)
            made.release(())
            made.finish()
            opened.acquire((), write=False)
            opened.download(got, 0, 0)
            opened.release(())
            opened.finish()
        finally:
            opened.destroy()
    finally:
        made.destroy()
    assert np.array_equal(got, wanted), "the memory that its handle opens holds something else"


def _try_semaphore(sharing: Sharing) -> None:
    """Signal a semaphore, and have the GPU wait for the one that its handle opens."""
    work = sharing.gpu.work
    made = VulkanSemaphore(sharing.gpu)
    try:
        with made.export() as handle:
            opened = VulkanSemaphore(sharing.gpu, handle)
        try:
            work.submit(None, signals=[(made.handle, 0)])
            serial = work.submit(None, waits=[(opened.handle, 0)])
            assert work.wait(serial, _TRY_NS), "one that is signalled is waited for in vain"
        finally:
            opened.destroy()
    finally:
        made.destroy()


def _try_timeline(sharing: Sharing) -> None:
    made = VulkanTimeline(sharing.gpu)
    try:
        with made.export() as handle:
            opened = VulkanTimeline(sharing.gpu, handle)
        try:
            sharing.gpu.work.submit(None, signals=[(made.handle, 2)])
            assert opened.wait(2, _TRY_NS), "one that is signalled is waited for in vain"
            assert opened.value == 2, "the imported one has another value"
        finally:
            opened.destroy()
    finally:
        made.destroy()


def _try_fence(sharing: Sharing) -> None:
    made = VulkanFence(sharing.gpu)
    try:
        with made.export() as handle:
            opened = VulkanFence(sharing.gpu, handle)
        try:
            sharing.gpu.work.submit(None, fences=[made.handle])
            assert opened.wait(_TRY_NS), "one that is signalled is waited for in vain"
        finally:
            opened.destroy()
    finally:
        made.destroy()


_SEMAPHORES: tuple[tuple[SemaphoreKind, Callable[[Sharing], None]], ...] = (
    ("binary", _try_semaphore),
    ("timeline", _try_timeline),
)
