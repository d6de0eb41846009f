"""The queue of a render device, on any backend."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from pers._checks import items_of, whole_number
from pers._completion import Completion
from pers._tracking import Guard, Trackable
from pers.buffers.claim import Claim
from pers.buffers.core import Buffer
from pers.buffers.interfaces import IBuffer
from pers.buffers.mapped_range import as_bytes_array, is_plain
from pers.buffers.types import COPY_ALIGNMENT, BufferUsage, usage_names
from pers.errors import BufferUsageError, PersError, ValidationError
from pers.graphics.encoder import CommandBuffer, check_bytes, texture_place
from pers.graphics.interfaces import ICommandBuffer, IRenderQueue
from pers.graphics.resources import owned_buffer
from pers.graphics.submission import Submission
from pers.textures import (
    ITexture,
    TexelCopyTextureInfo,
    TextureFormat,
    TextureUsage,
    pixel_extent,
    texture_info,
)

if TYPE_CHECKING:
    from pers.buffers.belt import StagingBelt
    from pers.graphics.device import RenderDevice

_COPY_DST = int(BufferUsage.COPY_DST)


class RenderQueue(IRenderQueue):
    """Hands work to the GPU."""

    def __init__(self, device: RenderDevice) -> None:
        """Not called by users; ``device.queue`` is it."""
        self._device = device
        self.lock = threading.RLock()
        """Held during a submit, so that the device does not go away meanwhile."""
        self.other_belts: set[StagingBelt] = set()
        """The belts, but for the device's own, that have something for the next submit. Any thread
        may add one."""
        self._serial = 0
        self._has_writes = False
        """Whether buffers that can be written directly were written since the last submit."""
        self._last_with_writes: Submission | None = None
        self._ended_writes = 0
        """The serial of the last submission with such writes that is known to have ended."""
        nothing: Completion[None] = Completion("no submission")
        nothing.resolve(None)
        self.nothing = Submission(0, nothing)
        """A submission that has ended, for work that needed none."""

    def submit(self, command_buffers: Sequence[ICommandBuffer]) -> Submission:
        device = self._device
        if device.closed:
            device.check_alive("submit")
        checked: list[CommandBuffer] = []
        for each in items_of(command_buffers, "submit"):
            if type(each) is not CommandBuffer or each.device is not device or each.submitted:
                raise self._problem(each)
            checked.append(each)
        if len(checked) > 1 and len(set(checked)) != len(checked):
            raise ValidationError("submit: a command buffer comes twice; record it twice")
        return self._hand_over(checked)

    def _hand_over(self, command_buffers: list[CommandBuffer]) -> Submission:
        """Submit command buffers, and before them what belts hold back."""
        device = self._device
        belt = device.belt
        with self.lock:
            if device.closed:
                device.check_alive("submit")
            # In the same submit, since each one costs more than a small upload.
            pending = belt.take_pending() if belt.is_waiting else None
            uploads = [] if pending is None else [cast("CommandBuffer", pending)]
            belts = self._take_others(belt, uploads) if self.other_belts else (belt,)
            if not uploads and not command_buffers:
                submission = self._submit(command_buffers)
            else:
                submission = self._submit_used(belts, uploads, command_buffers)
            for each in belts:
                each.submitted(submission)
            return submission

    def _take_others(
        self, belt: StagingBelt, uploads: list[CommandBuffer]
    ) -> tuple[StagingBelt, ...]:
        """Add what belts hold back but the device's own, `belt`; return all of them."""
        belts = [belt]
        while self.other_belts:
            other = self.other_belts.pop()
            belts.append(other)
            pending = other.take_pending()
            if pending is not None:
                uploads.append(cast("CommandBuffer", pending))
        return tuple(belts)

    def _submit_used(
        self,
        belts: tuple[StagingBelt, ...],
        uploads: list[CommandBuffer],
        command_buffers: list[CommandBuffer],
    ) -> Submission:
        """Submit both while other threads are kept away from what they use."""
        held: list[Guard] = []
        try:
            try:
                self._acquire(command_buffers, held)
            except PersError:
                if uploads:
                    self._acquire(uploads, held)
                    submission = self._submit(uploads)
                    for belt in belts:
                        belt.submitted(submission)
                raise
            self._acquire(uploads, held)
            return self._submit([*uploads, *command_buffers])
        finally:
            for guard in held:
                guard.lock.release()

    def write_buffer(self, buffer: IBuffer, offset: int, data: Any) -> None:
        device = self._device
        core = buffer if type(buffer) is Buffer else getattr(buffer, "_stands_on", None)
        if type(core) is not Buffer or core.owner is not device:
            core = owned_buffer(buffer, device, "write_buffer")
        if device.closed:
            device.check_alive(f"write_buffer to {core.label}")
        if not core.usage_bits & _COPY_DST:
            raise BufferUsageError(
                f"write_buffer to {core.label}: it was created with {usage_names(core.usage)}; "
                "it needs COPY_DST"
            )
        if not is_plain(data):
            data = as_bytes_array(data, f"write_buffer to {core.label}")
        size: int = data.nbytes
        if type(offset) is not int:
            offset = whole_number(offset, f"write_buffer to {core.label}: offset")
        if (offset | size) % COPY_ALIGNMENT or not 0 <= offset <= offset + size <= core.desc.size:
            check_bytes(core, offset, size, f"write_buffer to {core.label}")
        with self.lock:
            self.write_checked(core, offset, data, size)

    def write_checked(self, core: Buffer, offset: int, data: npt.NDArray[Any], size: int) -> None:
        """Queue a write of whole bytes that fit into a buffer of this device with COPY_DST.

        Under `lock`, so that nobody claims the buffer between the check and the write.
        """
        if not core.is_usable:
            core.check_usable(f"write_buffer to {core.label}")
        if core.usage_tag.recordings:
            self._device.submit_uploads()  # or the write would overtake an upload
        if size:
            if core.writes_directly:
                core.last_write = self._serial + 1
                self._has_writes = True
            self._device.native.write_buffer(core, offset, data)

    def write_texture(
        self, target: TexelCopyTextureInfo | ITexture, pixels: npt.NDArray[Any]
    ) -> None:
        device = self._device
        device.check_alive("write_texture")
        data = np.asarray(pixels)
        texture = texture_info(target, "write_texture").texture
        size = pixel_extent(data, texture.format, f"write_texture: texture {texture.label!r}")
        place, _ = texture_place(device, target, size, TextureUsage.COPY_DST, "write_texture")
        if texture.sample_count > 1 or texture.format is TextureFormat.DEPTH32_FLOAT:
            raise ValidationError(
                f"write_texture: {texture.label!r} ({texture.format.value}, {texture.sample_count} "
                "samples) cannot be written (WebGPU §13.5, §26.1.2); draw into it"
            )
        if place.texture.usage_tag.is_recorded:
            device.submit_uploads()
        if data.size:
            device.native.write_texture(place, np.ascontiguousarray(data), size)

    def on_work_done(self) -> Submission:
        return self._hand_over([])

    def wait_for_submit(self, belt: StagingBelt) -> None:
        """Have the next submit take what `belt` holds back. Any thread."""
        if belt is not self._device.belt:  # which is always asked
            self.other_belts.add(belt)

    def submit_others(self, belt: StagingBelt, resource: Trackable) -> None:
        """Submit what belts hold back, if others than `belt` have copies to `resource`."""
        belts = (self._device.belt, *self.other_belts)
        if any(each is not belt and each.holds_back(resource) for each in belts):
            self._hand_over([])

    def claim(self, buffer: Buffer) -> Claim | None:
        """Keep `buffer` from the GPU, or return None when the GPU has it or is to get it."""
        tag = buffer.usage_tag
        last = tag.last_submission
        if not self._is_written(buffer) or (last is not None and not last.has_ended):
            self._device.native.poll()  # before the lock: callers' callbacks may run here
        with self.lock:
            return buffer.claim() if self._is_written(buffer) and tag.is_known_free else None

    def _is_written(self, buffer: Buffer) -> bool:
        """Whether the writes by the queue to a buffer are known to have ended."""
        if buffer.last_write > self._ended_writes:
            last = self._last_with_writes
            if last is not None and last.has_ended:
                self._ended_writes = max(self._ended_writes, last.serial)
        return buffer.last_write <= self._ended_writes

    def _submit(self, command_buffers: list[CommandBuffer]) -> Submission:
        self._serial += 1
        native = self._device.native
        completion: Completion[None] = Completion(f"submission {self._serial}", native)
        for command_buffer in command_buffers:
            command_buffer.submitted = True
        handles = [command_buffer.handle for command_buffer in command_buffers]
        completion.after = native.submit(handles, completion)
        submission = Submission(self._serial, completion)
        if self._has_writes:
            self._has_writes = False
            self._last_with_writes = submission
        for command_buffer in command_buffers:
            command_buffer.recording.submitted(submission)
        return submission

    def _acquire(self, command_buffers: Sequence[CommandBuffer], held: list[Guard]) -> None:
        """Keep other threads away from what is used, and check that it may be submitted."""
        for command_buffer in command_buffers:
            if command_buffer.submitted:  # on another thread, in the meantime
                raise self._problem(command_buffer)
            command_buffer.recording.acquire(command_buffer, held)

    def _problem(self, command_buffer: object) -> ValidationError:
        """Return why something cannot be submitted."""
        if not isinstance(command_buffer, CommandBuffer):
            return ValidationError(
                f"submit takes command buffers from finish(), not {type(command_buffer).__name__}"
            )
        if command_buffer.device is not self._device:
            return ValidationError(
                f"submit: {command_buffer.name} belongs to another device; record it on this"
            )
        return ValidationError(
            f"submit: {command_buffer.name} was submitted before; record it again"
        )
