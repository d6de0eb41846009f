"""The rules of sharing, held once for every backend."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

from pers._checks import of_type, whole_number
from pers.errors import (
    InvalidTextureHandleError,
    OperationNotSupportedError,
    TextureAccessError,
    ValidationError,
    WaitTimeoutError,
)
from pers.graphics.types import TextureDescriptor
from pers.sharing.buffer import ManagedBuffer
from pers.sharing.capabilities import ShareCapabilities
from pers.sharing.control import ControlPage, Naps
from pers.sharing.handles import (
    BufferHandle,
    EventHandle,
    FenceHandle,
    HostBufferHandle,
    HostTextureHandle,
    MetalEventHandle,
    MetalTextureHandle,
    OwnedFd,
    SemaphoreHandle,
    SemaphoreKind,
    TextureHandle,
    VulkanBufferHandle,
    VulkanTextureHandle,
    Win32TextureHandle,
)
from pers.sharing.interfaces import (
    SharedBuffer,
    SharedEvent,
    SharedFence,
    SharedSemaphore,
    SharedTexture,
    TextureShareManager,
)
from pers.sharing.native import NativePoint, NativeShareDevice, NativeTexture
from pers.sharing.sync import ManagedEvent, ManagedFence, ManagedSemaphore, to_points
from pers.sharing.texture import ManagedTexture

__all__ = ["ShareManager"]

Managed = ManagedTexture | ManagedBuffer | ManagedSemaphore | ManagedFence | ManagedEvent
T = TypeVar("T", ManagedTexture, ManagedBuffer, ManagedSemaphore, ManagedFence, ManagedEvent)

TEXTURE_HANDLES = (HostTextureHandle, VulkanTextureHandle, Win32TextureHandle, MetalTextureHandle)
BUFFER_HANDLES = (HostBufferHandle, VulkanBufferHandle)


class ShareManager(TextureShareManager):
    """A manager over a backend's device; checks everything before the device sees it.

    Args:
        native: The device; closed with the manager.
    """

    def __init__(self, native: NativeShareDevice) -> None:
        self._native = native
        self._lock = threading.RLock()
        self._made: weakref.WeakSet[Managed] = weakref.WeakSet()
        self._is_open = True
        self._choice = ""
        self._end = weakref.finalize(self, native.close)
        self._end.atexit = False  # other threads may still use it; the system frees all

    @property
    def capabilities(self) -> ShareCapabilities:
        return self._native.capabilities

    @property
    def choice(self) -> str:
        return self._choice

    @choice.setter
    def choice(self, reason: str) -> None:
        self._choice = reason

    # --- Textures ---------------------------------------------------------------------------------

    def create_shareable_texture(self, descriptor: TextureDescriptor) -> SharedTexture:
        self._check_texture(descriptor)
        with _kept_or_closed(ControlPage()) as control:
            native = self._native.create_texture(descriptor)
        return self._texture(descriptor, native, control)

    def export_texture(self, texture: SharedTexture) -> TextureHandle:
        return self._own(texture, ManagedTexture, "export_texture").export()

    def import_texture(self, handle: TextureHandle, descriptor: TextureDescriptor) -> SharedTexture:
        self._check_texture(descriptor)
        self._check_handle(handle, TEXTURE_HANDLES, "import_texture")
        with _kept_or_closed(_control_of(handle)) as control:
            native = self._native.import_texture(handle, descriptor)
        return self._texture(descriptor, native, control)

    def release_texture_handle(self, handle: TextureHandle) -> None:
        _check_kind_of_handle(handle, TEXTURE_HANDLES, "release_texture_handle")
        handle.close()  # also after the manager, whose end leaves handles open

    def signal_texture_ready(self, texture: SharedTexture) -> None:
        own = self._own(texture, ManagedTexture, "signal_texture_ready")
        with own.turns.lock:
            own.turns.check_open()
            if own.turns.is_writing:
                own.turns.check_idle()
            own.native.finish()
            own.control.add_ready()

    def wait_for_texture(self, texture: SharedTexture, timeout_ns: int) -> None:
        own = self._own(texture, ManagedTexture, "wait_for_texture")
        if self._take_ready(own):
            return
        for _ in Naps(whole_number(timeout_ns, "timeout_ns")):
            if self._take_ready(own):
                return
        raise WaitTimeoutError(
            f"{own.turns.what} was not signalled ready within {timeout_ns / 1e9:g} s; see that the "
            "other side calls signal_texture_ready, or wait longer"
        )

    def _take_ready(self, texture: ManagedTexture) -> bool:
        with texture.turns.lock:
            if texture.control.ready <= texture.seen_ready:
                return False
            texture.seen_ready += 1
            return True

    # --- Buffers ----------------------------------------------------------------------------------

    def create_shareable_buffer(self, size: int, label: str = "") -> SharedBuffer:
        self._check_open()
        size = whole_number(size, f"shared buffer {label!r}: size", minimum=1)
        of_type(label, str, "create_shareable_buffer's label")
        with _kept_or_closed(ControlPage()) as control:
            native = self._native.create_buffer(size, label)
        return self._keep(ManagedBuffer(self, label, native, control, self._to_points))

    def export_buffer(self, buffer: SharedBuffer) -> BufferHandle:
        return self._own(buffer, ManagedBuffer, "export_buffer").export()

    def import_buffer(self, handle: BufferHandle, label: str = "") -> SharedBuffer:
        self._check_open()
        of_type(label, str, "import_buffer's label")
        self._check_handle(handle, BUFFER_HANDLES, "import_buffer")
        with _kept_or_closed(_control_of(handle)) as control:
            native = self._native.import_buffer(handle, label)
        return self._keep(ManagedBuffer(self, label, native, control, self._to_points))

    # --- Synchronisation --------------------------------------------------------------------------

    def create_semaphore(self, kind: SemaphoreKind = "timeline") -> SharedSemaphore:
        self._check_kind(kind)
        return self._keep(ManagedSemaphore(self, self._native.create_semaphore(kind)))

    def export_semaphore(self, semaphore: SharedSemaphore) -> SemaphoreHandle:
        return self._own(semaphore, ManagedSemaphore, "export_semaphore").native.export()

    def import_semaphore(self, handle: SemaphoreHandle) -> SharedSemaphore:
        self._check_handle(handle, (SemaphoreHandle,), "import_semaphore")
        self._check_kind(handle.kind)
        return self._keep(ManagedSemaphore(self, self._native.import_semaphore(handle)))

    def create_fence(self) -> SharedFence:
        self._check_fences()
        return self._keep(ManagedFence(self, self._native.create_fence()))

    def export_fence(self, fence: SharedFence) -> FenceHandle:
        return self._own(fence, ManagedFence, "export_fence").native.export()

    def import_fence(self, handle: FenceHandle) -> SharedFence:
        self._check_handle(handle, (FenceHandle,), "import_fence")
        self._check_fences()
        return self._keep(ManagedFence(self, self._native.import_fence(handle)))

    def create_event(self) -> SharedEvent:
        self._check_open()
        return self._keep(ManagedEvent(self, self._native.create_event()))

    def export_event(self, event: SharedEvent) -> EventHandle | MetalEventHandle:
        own = self._own(event, ManagedEvent, "export_event")
        handle: EventHandle | MetalEventHandle = own.native.export()
        return handle

    def import_event(self, handle: EventHandle | MetalEventHandle) -> SharedEvent:
        self._check_handle(handle, (EventHandle, MetalEventHandle), "import_event")
        return self._keep(ManagedEvent(self, self._native.import_event(handle)))

    # --- The end ----------------------------------------------------------------------------------

    def close(self) -> None:
        """End all that it made, then the device; the second time does nothing.

        Raises:
            TextureAccessError: An access is under way.
        """
        with ExitStack() as held:
            held.enter_context(self._lock)
            if not self._is_open:
                return
            made = list(self._made)
            turns = [one.turns for one in made if isinstance(one, ManagedTexture | ManagedBuffer)]
            for one in turns:  # no access begins between the look and the end
                held.enter_context(one.lock)
                one.check_idle()
            self._is_open = False
            for one in turns:
                one.close(" with its manager")
        for thing in made:
            thing.close()
        self._end()

    # --- Checks -----------------------------------------------------------------------------------

    def _texture(
        self, descriptor: TextureDescriptor, native: NativeTexture, control: ControlPage
    ) -> ManagedTexture:
        return self._keep(ManagedTexture(self, descriptor, native, control, self._to_points))

    def _keep(self, thing: T) -> T:
        """Remember what was made, so that it ends with the manager."""
        with self._lock:
            if self._is_open:
                self._made.add(thing)
                return thing
        thing.close()
        raise _closed()

    def _to_points(self, points: Any, role: str) -> list[NativePoint]:
        return to_points(self, points, role)

    def _check_open(self) -> None:
        if not self._is_open:
            raise _closed()

    def _check_texture(self, descriptor: TextureDescriptor) -> None:
        self._check_open()
        of_type(descriptor, TextureDescriptor, "a shared texture")
        if descriptor.format not in self.capabilities.formats:
            raise OperationNotSupportedError(
                f"texture {descriptor.label!r}: {self.capabilities.device} cannot share "
                f"{descriptor.format.value}; capabilities.formats lists what it can"
            )
        if descriptor.sample_count != 1:
            raise OperationNotSupportedError(
                f"texture {descriptor.label!r}: textures with {descriptor.sample_count} samples "
                "cannot be shared; resolve them into one with a single sample"
            )

    def _check_handle(self, handle: object, kinds: tuple[type[Any], ...], call: str) -> None:
        self._check_open()
        _check_kind_of_handle(handle, kinds, call)

    def _check_kind(self, kind: str) -> None:
        self._check_open()
        if kind not in ("binary", "timeline"):
            raise ValidationError(f"a semaphore is 'binary' or 'timeline', not {kind!r}")
        if kind not in self.capabilities.semaphores:
            raise OperationNotSupportedError(
                f"{self.capabilities.device} cannot share {kind} semaphores; without a signal, "
                "the end of an access waits for the GPU, which always works"
            )

    def _check_fences(self) -> None:
        self._check_open()
        if not self.capabilities.fences:
            raise OperationNotSupportedError(
                f"{self.capabilities.device} cannot share fences; use signal_texture_ready and "
                "wait_for_texture, which always work"
            )

    def _own(self, thing: object, kind: type[T], call: str) -> T:
        self._check_open()
        if not isinstance(thing, kind):
            raise ValidationError(f"{call} takes what a share manager has made, not {thing!r}")
        if thing.manager is not self:
            raise OperationNotSupportedError(
                f"{call}: {thing!r} was made by another manager; export it there, import it here"
            )
        if not isinstance(thing, ManagedTexture | ManagedBuffer):
            thing.check_open()
        return thing


def _check_kind_of_handle(handle: object, kinds: tuple[type[Any], ...], call: str) -> None:
    if not isinstance(handle, kinds):
        names = " or ".join(kind.__name__ for kind in kinds)
        what = type(handle).__name__
        raise InvalidTextureHandleError(
            f"{call} takes a {names}, not a {what}; export_texture and its like return them"
        )


def _control_of(handle: object) -> ControlPage:
    """Open the control page of a handle; one without gets a page that nobody else sees."""
    fd = getattr(handle, "control", None)
    return ControlPage(fd) if isinstance(fd, OwnedFd) else ControlPage()


@contextmanager
def _kept_or_closed(control: ControlPage) -> Generator[ControlPage]:
    """Close a control page when what it is for cannot be made."""
    try:
        yield control
    except BaseException:
        control.close()
        raise


def _closed() -> TextureAccessError:
    return TextureAccessError("the share manager was closed; open another one")
