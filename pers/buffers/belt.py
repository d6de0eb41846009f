"""`StagingBelt`: get these bytes to the GPU."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from pers._checks import whole_number
from pers._tracking import Trackable
from pers.buffers.belt_chunk import StagingChunk
from pers.buffers.belt_jobs import BufferJob, Job, TextureJob
from pers.buffers.belt_memory import SMALLEST_CHUNK, MapWait, Others, Place, StagingMemory, Waits
from pers.buffers.belt_stats import BeltStats, Tally
from pers.buffers.core import Buffer
from pers.buffers.interfaces import IBuffer
from pers.buffers.mapped_range import is_plain
from pers.buffers.types import COPY_ALIGNMENT, BufferUsage
from pers.buffers.view import check_encoder
from pers.errors import BufferRangeError, RingFullError
from pers.textures import ITexture, TexelCopyTextureInfo

if TYPE_CHECKING:
    from pers.graphics.device import RenderDevice
    from pers.graphics.encoder import CommandEncoder
    from pers.graphics.interfaces import ICommandBuffer, ICommandEncoder, IRenderDevice
    from pers.graphics.submission import Submission

__all__ = ["BeltStats", "StagingBelt"]

QUEUE_WRITE_LIMIT = 1024 * 1024
"""Up to this many bytes the queue's own write is faster than a copy out of staging memory."""

SUBMIT_AT_ONCE = 8 * 1024 * 1024
"""From this many bytes on, a copy without an encoder does not wait for the next flush."""

PART = 256 * 1024 * 1024
"""Staged uploads without an encoder go in parts of this many bytes, so that the GPU copies one
while the next is written. Smaller parts lose more to maps and submits than they gain."""


_COPY_DST = int(BufferUsage.COPY_DST)

DIRECT_FROM = 128 * 1024
"""From this many bytes on, writing the target's own memory is always the fastest way. A smaller
upload takes it when it is the only one, because that saves a submit; for several, the queue's own
write is cheaper."""


class StagingBelt:
    """Carries bytes from the CPU to buffers and textures. Thread-safe.

    The way is chosen by size, by what the device can do, and by whether the GPU has the target:

    - *Direct.* On devices that share the CPU's memory, a buffer that the GPU does not use is
      written itself: no copy, no submit. So are small uploads, unless there are several before the
      next submit.
    - *Queue write.* Up to 1 MiB take the queue's own write.
    - *Staged.* Everything else, and all that is recorded with an encoder, is written to staging
      memory, by several threads when it is large, and copied from there by the GPU. Small uploads
      share a chunk of it, large ones have one of their own. A chunk is used again when the GPU
      has finished the copies out of it, and given back when nobody has used it for a few hundred
      submits.

    Uploads without an encoder are submitted by `flush`, and by the device's queue together with
    the next submit, so they are seen by whatever is submitted later and by nothing earlier.
    """

    def __init__(self, device: IRenderDevice, *, budget: int = 512 * 1024 * 1024) -> None:
        """Make a belt; every device has one as ``device.belt``.

        Args:
            device: Where to upload to.
            budget: How many bytes of staging memory to hold at most.
        """
        self._device = cast("RenderDevice", device)
        self._queue = self._device.queue
        self._budget = whole_number(budget, "StagingBelt: budget", minimum=SMALLEST_CHUNK)
        # Nothing that is done under the lock polls the device or submits: submits take the lock.
        self._lock = threading.RLock()
        self._memory = StagingMemory(device.buffer_factory, self._budget, self._lock)
        self._encoder: CommandEncoder | None = None
        self._pending = 0
        self._last: Submission | None = None
        self._has_queue_writes = self._is_submitting = False
        self._is_alone = True
        """Whether nothing was uploaded since the last submit."""
        self._staged, self._direct = Tally(), Tally()
        self._queue_writes = Tally()
        """Counted under the queue's lock, which is held for a write anyway."""
        self._stalls = 0
        _lose_with(self, device)

    @property
    def stats(self) -> BeltStats:
        """What it holds and did so far."""
        self._device.poll()
        with self._queue.lock, self._lock:
            memory = self._memory
            memory.recycle()
            roads = (self._queue_writes, self._staged, self._direct)
            return BeltStats(
                budget=self._budget,
                capacity=memory.capacity,
                used=memory.used,
                in_flight=memory.in_use,
                pending=self._pending,
                peak=memory.peak,
                uploaded=sum(road.nbytes for road in roads),
                uploads=sum(road.count for road in roads),
                queue_writes=self._queue_writes.count,
                queue_written=self._queue_writes.nbytes,
                staged=self._staged.count,
                staged_bytes=self._staged.nbytes,
                direct=self._direct.count,
                direct_bytes=self._direct.nbytes,
                stalls=self._stalls,
                grows=memory.grows,
                shrinks=memory.shrinks,
            )

    def upload(
        self,
        data: Any,
        target: IBuffer | ITexture | TexelCopyTextureInfo,
        offset: int = 0,
        *,
        encoder: ICommandEncoder | None = None,
    ) -> Submission | None:
        """Get `data` to `target`; blocks while the budget is used up.

        Without an encoder, data larger than the budget goes in parts.

        Args:
            data: A NumPy array or anything with the buffer protocol (a multiple of 4 bytes for a
                buffer); pixels of shape ``([layers,] height, width[, channels])`` for a texture.
            target: A buffer or a texture with usage COPY_DST: all of the texture, or the pixels
                from a place on that a `TexelCopyTextureInfo` names.
            offset: Where in a target buffer (bytes, a multiple of 4).
            encoder: Records the copy; None leaves that to the next `flush`.

        Returns:
            The submission of a large upload (8 MiB or more) without an encoder, which is
            submitted at once; None for others, which `flush` or the encoder's submit brings.

        Raises:
            BufferRangeError: Misaligned, or it does not fit into the target; with an encoder, it
                is larger than the budget.
            BufferUsageError: The target lacks COPY_DST, or `data` holds no plain bytes.
            RingFullError: The budget is used up by copies that this thread recorded but did not
                submit, which no waiting can change. What other threads recorded is waited for.
        """
        if encoder is None and self._at_once(data, target, offset):
            return None
        job = self._job(data, target, offset, encoder)
        if not self._quickly(job, encoder):
            for part in self._parts(job, encoder):
                waits = self._stage(part, encoder)
                while waits is not None:
                    waits.wait()
                    waits = self._stage(part, encoder, waits)
        return self._submit_if_large(job, encoder)

    async def upload_async(
        self,
        data: Any,
        target: IBuffer | ITexture | TexelCopyTextureInfo,
        offset: int = 0,
        *,
        encoder: ICommandEncoder | None = None,
    ) -> Submission | None:
        """The same as `upload`, but only the task waits while the budget is used up.

        Cancelled while it waits, it leaves the target as it was, or, when it is larger than 256
        MiB and has no encoder, with the first parts of the data in it.
        """
        if encoder is None and self._at_once(data, target, offset):
            return None
        job = self._job(data, target, offset, encoder)
        if not self._quickly(job, encoder):
            for part in self._parts(job, encoder):
                waits = self._stage(part, encoder)
                while waits is not None:
                    await waits.done()
                    waits = self._stage(part, encoder, waits)
        return self._submit_if_large(job, encoder)

    def try_upload(
        self,
        data: Any,
        target: IBuffer | ITexture | TexelCopyTextureInfo,
        offset: int = 0,
        *,
        encoder: ICommandEncoder | None = None,
    ) -> Submission | None:
        """The same as `upload`, but raises `RingFullError` instead of waiting.

        Raises:
            RingFullError: The budget is used up for now.
            BufferRangeError: The data is larger than the budget.
        """
        if encoder is None and self._at_once(data, target, offset):
            return None
        job = self._job(data, target, offset, encoder)
        if not self._quickly(job, encoder):
            self._check_budget(job)
            waits = self._stage(job, encoder)
            while isinstance(waits, MapWait):  # the GPU is through with it; this is quickly over
                waits.wait()
                waits = self._stage(job, encoder, waits)
            if waits is not None:
                raise RingFullError(
                    f"the staging belt's budget of {self._budget} bytes is used up by uploads "
                    "that the GPU has not finished; wait for one of them, or raise the budget"
                )
        return self._submit_if_large(job, encoder)

    def flush(self) -> Submission:
        """Submit the uploads that were made without an encoder.

        Returns:
            The submission to wait for; done when all uploads without an encoder are.
        """
        self._device.check_alive("flush")
        with self._lock:
            is_pending = self._encoder is not None or self._has_queue_writes or self._is_submitting
            last = self._last
            self._is_alone = True
        if is_pending:
            return self._submit()
        return self._device.ended_submission() if last is None else last

    def trim(self) -> None:
        """Give back the staging memory that nothing uses now.

        It is done little by little while the device is in use; call this before a long pause.
        """
        self._device.poll()
        with self._lock:
            self._memory.trim()

    # What follows is for the device and its queue.

    @property
    def has_pending(self) -> bool:
        """Whether copies wait for a submit."""
        return self._encoder is not None

    def holds_back(self, resource: Trackable) -> bool:
        """Whether a copy to `resource` waits for a submit."""
        pending = self._encoder
        return pending is not None and pending.recording.uses(resource)

    @property
    def is_waiting(self) -> bool:
        """Whether the next submit concerns the belt: `take_pending` and `submitted` are due."""
        return self._encoder is not None or self._has_queue_writes or not self._is_alone

    def take_pending(self) -> ICommandBuffer | None:
        """Return the copies that wait for a submit; `submitted` is to be called after it."""
        with self._lock:
            encoder, self._encoder = self._encoder, None
            self._is_submitting |= encoder is not None or self._has_queue_writes
            self._has_queue_writes = False
            self._is_alone = True
            self._pending = 0
            if encoder is None:
                return None
            return encoder.finish()

    def submitted(self, submission: Submission) -> None:
        """Note that what `take_pending` returned was submitted, and what was written before."""
        with self._lock:
            if self._is_submitting:
                self._is_submitting = False
                self._last = submission
            self._memory.submitted()

    def lose(self) -> None:
        """Let go of the memory when the device has ended."""
        with self._lock:
            self._encoder = None
            self._pending = 0
            self._memory.lose()

    def _submit_pending(self) -> None:
        """Submit copies that wait for that, if there are any."""
        if self._encoder is not None:
            self._submit()

    def _submit(self) -> Submission:
        self._queue.wait_for_submit(self)
        return self._queue.on_work_done()

    # One upload.

    def _at_once(
        self, data: Any, target: IBuffer | ITexture | TexelCopyTextureInfo, offset: int
    ) -> bool:
        """Have the queue write small data, in as few steps as possible; False if it may not.

        Whatever is unusual or wrong is left to `_job` and `_quickly`, which find out what it is:
        this is for frames with hundreds of uploads, where each step counts.
        """
        if type(data) is bytes or type(data) is bytearray:
            data = np.frombuffer(data, np.uint8)
        core = target if type(target) is Buffer else getattr(target, "_stands_on", None)
        if type(core) is not Buffer or type(offset) is not int or not is_plain(data):
            return False
        nbytes: int = data.nbytes
        if (
            nbytes > QUEUE_WRITE_LIMIT
            or (offset | nbytes) % COPY_ALIGNMENT
            or not 0 <= offset <= core.desc.size - nbytes
            or core.owner is not self._device
            or not core.usage_bits & _COPY_DST
            or not core.is_usable
            or self._encoder is not None
            or (core.writes_directly and (self._is_alone or nbytes >= DIRECT_FROM))
        ):
            return False
        self._is_alone = False
        queue = self._queue
        with queue.lock:
            queue.write_checked(core, offset, data, nbytes)
            self._queue_writes.add(nbytes)
        self._has_queue_writes = True
        return True

    def _job(
        self,
        data: Any,
        target: IBuffer | ITexture | TexelCopyTextureInfo,
        offset: int,
        encoder: ICommandEncoder | None,
    ) -> Job:
        if encoder is not None:
            check_encoder("upload", encoder)
        if not isinstance(target, IBuffer):
            return TextureJob.checked(data, target, offset)
        return BufferJob.checked(data, target, offset, self._device)

    def _quickly(self, job: Job, encoder: ICommandEncoder | None) -> bool:
        """Do the job if it needs no new staging memory, or return False."""
        nbytes = job.nbytes
        if encoder is None:
            is_faster = self._is_alone or nbytes >= DIRECT_FROM
            self._is_alone = False
            if is_faster and job.goes_direct and job.write_directly():
                with self._lock:
                    self._direct.add(nbytes)
                return True
            # A write by the queue would overtake a copy to the same target that waits.
            if nbytes <= QUEUE_WRITE_LIMIT and not self.holds_back(job.resource):
                job.write(self._queue)
                self._has_queue_writes = True
                with self._queue.lock:
                    self._queue_writes.add(nbytes)
                return True
            if job.resource.usage_tag.is_recorded:
                self._queue.submit_others(self, job.resource)
        with self._lock:
            part = self._memory.quick(nbytes, job.alignment)
            if part is None:
                return False
            self._fill_here(job, *part, encoder)
            return True

    def _parts(self, job: Job, encoder: ICommandEncoder | None) -> Iterator[Job]:
        """Cut a job into what is staged at a time."""
        limit = min(PART, self._memory.budget)
        for part in job.parts(limit) if encoder is None else (job,):
            self._check_budget(part)
            yield part
            if part is not job:
                self._submit_pending()  # the GPU copies it while the next one is written

    def _check_budget(self, job: Job) -> None:
        if job.nbytes > self._budget:
            raise BufferRangeError(
                f"an upload of {job.nbytes} bytes is above the staging belt's budget of "
                f"{self._budget}; upload it without an encoder by `upload` or `upload_async`, "
                "split it, or raise the budget"
            )

    def _stage(
        self, job: Job, encoder: ICommandEncoder | None, waited: Waits | None = None
    ) -> Waits | None:
        """Bring the job on its way, or return what to wait for before the next try."""
        self._device.poll()
        self._device.check_alive("upload")
        with self._lock:
            found = self._memory.place(job.nbytes, job.alignment)
            if isinstance(found, Place):
                if found.is_shared:
                    self._fill_here(job, found.chunk, found.at, encoder)
                    return None
                found.chunk.writers += 1
        if isinstance(found, Place):
            self._fill_aside(job, found.chunk, encoder)
            return None
        if found is None and self._encoder is not None:
            self._submit_pending()  # may be all that is in the way
            return self._stage(job, encoder, waited)
        return self._wait_for(found, waited)

    def _wait_for(self, found: Waits | None, waited: Waits | None) -> Waits:
        with self._lock:
            self._stalls += waited is None and not isinstance(found, MapWait)
            waits = found or self._memory.in_the_way()
        if isinstance(waits, Others) and isinstance(waited, Others):
            waits = None if waited.is_over else waited
        if waits is None:
            raise RingFullError(
                f"the staging belt's budget of {self._budget} bytes is used up by uploads that "
                "were recorded but not submitted; submit their encoders, or raise the budget"
            )
        return waits

    def _fill_here(
        self, job: Job, chunk: StagingChunk, at: int, encoder: ICommandEncoder | None
    ) -> None:
        """Write a small job under the lock, which keeps others from closing a chunk they share."""
        job.fill(chunk.memory[at:])
        self._record(job, chunk, at, encoder)

    def _fill_aside(self, job: Job, chunk: StagingChunk, encoder: ICommandEncoder | None) -> None:
        """Write a job to a chunk of its own, while other threads use the belt."""
        try:
            job.fill(chunk.memory)
            with self._lock:
                self._record(job, chunk, 0, encoder)
        finally:
            with self._lock:
                chunk.writers -= 1

    def _record(
        self, job: Job, chunk: StagingChunk, at: int, encoder: ICommandEncoder | None
    ) -> None:
        recorder = self._own_encoder() if encoder is None else cast("CommandEncoder", encoder)
        job.record(recorder, chunk.buffer, at)
        recorder.recording.close_before_submit(chunk)
        if encoder is None:
            self._pending += job.nbytes
        self._staged.add(job.nbytes)

    def _own_encoder(self) -> CommandEncoder:
        if self._encoder is None:
            encoder = self._device.create_command_encoder("staging belt")
            self._encoder = cast("CommandEncoder", encoder)
            self._encoder.recording.thread = None
            self._queue.wait_for_submit(self)
        return self._encoder

    def _submit_if_large(self, job: Job, encoder: ICommandEncoder | None) -> Submission | None:
        return self.flush() if encoder is None and job.nbytes >= SUBMIT_AT_ONCE else None


_belts: weakref.WeakKeyDictionary[IRenderDevice, set[weakref.ref[StagingBelt]]] = (
    weakref.WeakKeyDictionary()
)
"""The belts of each device. One callback serves them all: a device keeps its callbacks, so one for
each belt would outlive the belt."""


def _lose_with(belt: StagingBelt, device: IRenderDevice) -> None:
    """Let `belt` know of the end of its device without keeping either alive."""
    belts = _belts.get(device)
    if belts is None:  # the device's own, so no other thread is here with the same device
        belts = _belts[device] = set()
        device.on_lost(_loss_of(belts))
    belts.add(weakref.ref(belt, belts.discard))


def _loss_of(belts: set[weakref.ref[StagingBelt]]) -> Callable[[object], None]:
    def lost(_: object) -> None:
        for reference in list(belts):
            alive = reference()
            if alive is not None:
                alive.lose()

    return lost
