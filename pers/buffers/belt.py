"""`StagingBelt`: get these bytes to the GPU."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import numpy.typing as npt

from pers._checks import align_up, of_type, whole_number
from pers.buffers.core import MappableBuffer, core_buffer, mappable_buffer
from pers.buffers.interfaces import IBuffer
from pers.buffers.mapped_range import as_bytes_array
from pers.buffers.staging import STAGING_USAGE
from pers.buffers.types import COPY_ALIGNMENT, BufferDesc, BufferUsage, MapMode
from pers.buffers.view import check_encoder
from pers.errors import BufferRangeError, BufferUsageError, RingFullError
from pers.textures import ITexture, TextureRows

if TYPE_CHECKING:
    from pers.graphics.interfaces import ICommandEncoder, IRenderDevice
    from pers.graphics.submission import Submission

__all__ = ["BeltStats", "StagingBelt"]

SMALLEST_CHUNK = 64 * 1024
QUEUE_WRITE_LIMIT = 256 * 1024
"""Up to this many bytes the queue's own write is as fast as staging."""

SUBMIT_AT_ONCE = 8 * 1024 * 1024
"""From this many bytes on, a copy without an encoder does not wait for the next flush."""


@attrs.frozen
class BeltStats:
    """What a `StagingBelt` holds and did so far (bytes, unless it says counts).

    Attributes:
        budget: Staging memory that it may hold.
        capacity: Staging memory that it holds.
        in_flight: The part of it that recorded or submitted copies use.
        peak: Most `capacity` so far.
        uploaded: All bytes uploaded.
        uploads: How many uploads.
        queue_writes: How many of them went through the queue's own write.
        staged: How many of them went through staging memory.
        stalls: How many had to wait for the GPU.
        grows: How many chunks were made.
    """

    budget: int
    capacity: int
    in_flight: int
    peak: int
    uploaded: int
    uploads: int
    queue_writes: int
    staged: int
    stalls: int
    grows: int


class StagingBelt:
    """Carries bytes from the CPU to buffers and textures. Thread-safe.

    Staging memory comes from a pool of chunks; a chunk is used again when the GPU has finished
    the copy out of it. Small uploads without an encoder take the queue's own write.

    Uploads without an encoder are submitted by `flush`, and by the device's queue before
    anything else that it submits, so they are seen by whatever is submitted later.
    """

    def __init__(self, device: IRenderDevice, *, budget: int = 512 * 1024 * 1024) -> None:
        """Make a belt; every device has one as ``device.belt``.

        Args:
            device: Where to upload to.
            budget: How many bytes of staging memory to hold at most.
        """
        self._device = device
        self._budget = whole_number(budget, "StagingBelt: budget", minimum=SMALLEST_CHUNK)
        self._lock = threading.RLock()
        self._chunks: list[MappableBuffer] = []
        self._encoder: ICommandEncoder | None = None
        self._last_flush: Submission | None = None
        self._peak = self._uploaded = self._stalls = self._grows = 0
        self._queue_writes = self._staged = 0

    @property
    def stats(self) -> BeltStats:
        """What it holds and did so far."""
        with self._lock:
            return BeltStats(
                budget=self._budget,
                capacity=self._capacity,
                in_flight=sum(c.size for c in self._chunks if not c.usage_tag.is_free),
                peak=self._peak,
                uploaded=self._uploaded,
                uploads=self._queue_writes + self._staged,
                queue_writes=self._queue_writes,
                staged=self._staged,
                stalls=self._stalls,
                grows=self._grows,
            )

    def upload(
        self,
        data: Any,
        target: IBuffer | ITexture,
        offset: int = 0,
        *,
        encoder: ICommandEncoder | None = None,
    ) -> Submission | None:
        """Get `data` to `target`; blocks while the budget is used up.

        Args:
            data: A NumPy array or anything with the buffer protocol (a multiple of 4 bytes for a
                buffer); pixels of shape ``([layers,] height, width[, channels])`` for a texture.
            target: A buffer or a texture with usage COPY_DST.
            offset: Where in a target buffer (bytes, a multiple of 4).
            encoder: Records the copy; None leaves that to the next `flush`.

        Returns:
            The submission of a large upload (8 MiB or more) without an encoder, which is
            submitted at once; None for others, which `flush` or the encoder's submit brings.

        Raises:
            BufferRangeError: Misaligned, or it does not fit into the target.
            BufferUsageError: The target lacks COPY_DST, or `data` holds no plain bytes.
            RingFullError: The budget is used up by copies that were recorded but not submitted,
                which no waiting can change.
        """
        job = self._prepare(data, target, offset, encoder)
        while (chunk := self._upload(job, encoder)) is not None:
            chunk.wait()
        return self._submit_if_large(job, encoder)

    async def upload_async(
        self,
        data: Any,
        target: IBuffer | ITexture,
        offset: int = 0,
        *,
        encoder: ICommandEncoder | None = None,
    ) -> Submission | None:
        """The same as `upload`, but only the task waits while the budget is used up."""
        job = self._prepare(data, target, offset, encoder)
        while (chunk := self._upload(job, encoder)) is not None:
            await chunk.done()
        return self._submit_if_large(job, encoder)

    def try_upload(
        self,
        data: Any,
        target: IBuffer | ITexture,
        offset: int = 0,
        *,
        encoder: ICommandEncoder | None = None,
    ) -> Submission | None:
        """The same as `upload`, but raises `RingFullError` instead of waiting."""
        job = self._prepare(data, target, offset, encoder)
        if self._upload(job, encoder) is not None:
            raise RingFullError(
                f"the staging belt's budget of {self._budget} bytes is used up by uploads that "
                "the GPU has not finished; wait for one of them, or raise the budget"
            )
        return self._submit_if_large(job, encoder)

    def flush(self) -> Submission:
        """Submit the uploads that were made without an encoder.

        Returns:
            The submission to wait for; done when all uploads without an encoder are.
        """
        with self._lock:
            pending = self._encoder is not None
            self.submit_pending()
            if not pending or self._last_flush is None:
                return self._device.queue.on_work_done()
            return self._last_flush

    def submit_pending(self) -> None:
        """Submit recorded copies, if there are any; the queue calls this before it submits."""
        with self._lock:
            encoder, self._encoder = self._encoder, None
            if encoder is not None:
                self._last_flush = self._device.queue.submit([encoder.finish()])

    def _submit_if_large(self, job: _Job, encoder: ICommandEncoder | None) -> Submission | None:
        if encoder is None and job.nbytes >= SUBMIT_AT_ONCE:
            return self.flush()
        return None

    @property
    def _capacity(self) -> int:
        return sum(chunk.size for chunk in self._chunks)

    def _prepare(
        self,
        data: Any,
        target: IBuffer | ITexture,
        offset: int,
        encoder: ICommandEncoder | None,
    ) -> _Job:
        if encoder is not None:
            check_encoder("upload", encoder)
        if isinstance(target, IBuffer):
            return _BufferJob(data, target, offset)
        return _TextureJob(data, of_type(target, ITexture, "upload"))  # type: ignore[type-abstract]

    def _upload(self, job: _Job, encoder: ICommandEncoder | None) -> Submission | None:
        """Do the job, or return a submission to wait for before the next try."""
        with self._lock:
            # A queue write overtakes copies that are recorded and not submitted.
            if encoder is None and self._encoder is None and job.nbytes <= QUEUE_WRITE_LIMIT:
                job.write(self._device)
                self._queue_writes += 1
            else:
                chunk = self._take_chunk(job.nbytes)
                if not isinstance(chunk, MappableBuffer):
                    return chunk
                chunk.map(MapMode.WRITE)
                job.stage(chunk.mapped_data.as_array(np.uint8, job.nbytes))
                chunk.unmap()
                if encoder is None:
                    if self._encoder is None:
                        self._encoder = self._device.create_command_encoder("staging belt")
                    encoder = self._encoder
                job.record(encoder, chunk)
                self._staged += 1
            self._uploaded += job.nbytes
            return None

    def _take_chunk(self, nbytes: int) -> MappableBuffer | Submission:
        size = max(1 << max(nbytes - 1, 1).bit_length(), SMALLEST_CHUNK)
        if nbytes > self._budget:
            raise BufferRangeError(
                f"an upload of {nbytes} bytes is above the staging belt's budget of "
                f"{self._budget}; split it, or raise the budget"
            )
        size = min(size, align_up(self._budget, COPY_ALIGNMENT))
        fitting = [chunk for chunk in self._chunks if chunk.size >= nbytes]
        for chunk in sorted(fitting, key=lambda chunk: chunk.size):
            if chunk.usage_tag.is_free:
                return chunk
        self._drop_free_chunks(until=self._budget - size)
        if self._capacity + size <= self._budget:
            return self._new_chunk(size)
        if self._encoder is not None:
            self.submit_pending()
        for chunk in self._chunks:
            submission = chunk.usage_tag.last_submission
            if submission is not None and not chunk.usage_tag.is_recorded:
                self._stalls += 1
                return submission
        raise RingFullError(
            f"the staging belt's budget of {self._budget} bytes is used up by uploads that were "
            "recorded but not submitted; submit their encoders, or raise the budget"
        )

    def _drop_free_chunks(self, until: int) -> None:
        """Destroy free chunks, the largest first, until the rest fits into `until` bytes."""
        for chunk in sorted(self._chunks, key=lambda chunk: -chunk.size):
            if self._capacity <= until:
                return
            if chunk.usage_tag.is_free:
                self._chunks.remove(chunk)
                chunk.destroy()

    def _new_chunk(self, size: int) -> MappableBuffer:
        desc = BufferDesc(size, STAGING_USAGE, debug_name=f"staging chunk {self._grows}")
        chunk = mappable_buffer(self._device.buffer_factory.create_mappable_buffer(desc), "belt")
        self._chunks.append(chunk)
        self._grows += 1
        self._peak = max(self._peak, self._capacity)
        return chunk


class _BufferJob:
    """Bytes for a buffer."""

    def __init__(self, data: Any, target: IBuffer, offset: int) -> None:
        call = f"upload to buffer {target.debug_name!r}"
        self.data = as_bytes_array(data, call)
        self.nbytes = self.data.nbytes
        self.target = core_buffer(target, call)
        self.offset = whole_number(offset, f"{call}: offset")
        if self.offset % COPY_ALIGNMENT or self.nbytes % COPY_ALIGNMENT:
            raise BufferRangeError(
                f"{call}: offset and size must be multiples of {COPY_ALIGNMENT} bytes, not "
                f"{self.offset} and {self.nbytes}; pad the data"
            )
        if self.offset + self.nbytes > target.size:
            raise BufferRangeError(
                f"{call}: {self.nbytes} bytes at offset {self.offset} reach beyond its end "
                f"({target.size} bytes)"
            )
        if not target.usage & BufferUsage.COPY_DST:
            raise BufferUsageError(f"{call}: it was created without COPY_DST")
        self.target.owner.check_alive(call)  # it says more than that the buffer went with it
        self.target.check_usable(call)

    def write(self, device: IRenderDevice) -> None:
        device.queue.write_buffer(self.target, self.offset, self.data)

    def stage(self, memory: npt.NDArray[np.uint8]) -> None:
        memory[:] = self.data

    def record(self, encoder: ICommandEncoder, chunk: IBuffer) -> None:
        encoder.copy_buffer_to_buffer(chunk, 0, self.target, self.offset, self.nbytes)


class _TextureJob:
    """Pixels for a texture."""

    def __init__(self, data: Any, target: ITexture) -> None:

        self.pixels = np.asarray(data)
        self.target = target
        self.rows = TextureRows(target.format, target.width, target.height, target.layers)
        self.rows.check(self.pixels)
        self.nbytes = self.rows.nbytes

    def write(self, device: IRenderDevice) -> None:
        device.queue.write_texture(self.target, self.pixels)

    def stage(self, memory: npt.NDArray[np.uint8]) -> None:
        self.rows.view(memory)[...] = self.pixels.view(self.rows.format.dtype)

    def record(self, encoder: ICommandEncoder, chunk: IBuffer) -> None:
        encoder.copy_buffer_to_texture(chunk, self.target)


_Job = _BufferJob | _TextureJob
