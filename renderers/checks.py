"""Readback checks: what the GPU made of a frame's data, compared with what NumPy says.

A check is recorded with its frame and compared frames later, so that nothing waits for it.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from pers import (
    BindGroupLayout,
    BindingLayout,
    BufferBinding,
    BufferUsage,
    ComputePipelineDescriptor,
    DeviceBuffer,
    DynamicBuffer,
    ICommandEncoder,
    IRenderDevice,
    ReadbackBuffer,
    ShaderStage,
)
from renderers.shaders import load

__all__ = ["Check", "CopyCheck", "DigestCheck", "PendingCheck", "Words", "digest_of", "words_of"]

Words = npt.NDArray[np.uint32]
Expect = Callable[[Words], Words]
"""What the GPU should find, given the words it was sent."""

DIGEST_NAMES = ("sum", "parity", "weighted sum", "count")
DIGEST_BYTES = 4 * len(DIGEST_NAMES)


def words_of(data: npt.NDArray[Any]) -> Words:
    """Return a copy of the bytes of `data` as 32-bit words, one dimension."""
    return np.frombuffer(data.tobytes(), np.uint32)


def digest_of(words: Words) -> Words:
    """Return what ``digest.wgsl`` makes of `words`: sum, parity, weighted sum and count."""
    odd_numbers = _odd_numbers(len(words))
    return np.array(
        [
            np.sum(words, dtype=np.uint32),
            np.bitwise_xor.reduce(words),
            np.sum(words * odd_numbers, dtype=np.uint32),
            len(words),
        ],
        np.uint32,
    )


@functools.lru_cache(maxsize=1)
def _odd_numbers(count: int) -> Words:
    return 2 * np.arange(count, dtype=np.uint32) + np.uint32(1)


@attrs.frozen(eq=False)
class PendingCheck:
    """A check on its way through the GPU.

    Attributes:
        frame: The frame it was recorded with.
        expected: What should come out, dtype uint32.
        readback: Where it comes out.
    """

    frame: int
    expected: Words
    readback: ReadbackBuffer

    async def failure(self) -> str | None:
        """Wait for the GPU's result and compare it; return what is wrong with it, or None."""
        found = await self.readback.read_array(np.uint32)
        if np.array_equal(found, self.expected):
            return None
        where = int(np.flatnonzero(found != self.expected)[0])
        return (
            f"frame {self.frame}: word {where} of {len(found)} that came back is "
            f"{found[where]:#010x}, but should be {self.expected[where]:#010x}"
        )


class Check(ABC):
    """Records checks of the data that a frame was drawn from. Belongs to one thread."""

    def __init__(self, device: IRenderDevice, result_bytes: int, expect: Expect) -> None:
        """Not called by users; `DigestCheck` and `CopyCheck` are the checks."""
        self._factory = device.buffer_factory
        self._result_bytes = result_bytes
        self._expect = expect
        self._readbacks: list[ReadbackBuffer] = []
        self._idle: list[ReadbackBuffer] = []

    @property
    @abstractmethod
    def what(self) -> str:
        """What is compared."""

    @property
    def result_bytes(self) -> int:
        """Bytes that each check reads back."""
        return self._result_bytes

    def record(
        self, encoder: ICommandEncoder, frame: int, offset: int, words: Words
    ) -> PendingCheck:
        """Record the check of a frame.

        Args:
            encoder: Records the commands of the frame.
            frame: Number of the frame.
            offset: Where its data starts in the dynamic buffer (bytes).
            words: The same data on the CPU.
        """
        if not self._idle:
            readback = ReadbackBuffer(self._result_bytes, self._factory, debug_name="check")
            self._readbacks.append(readback)
            self._idle.append(readback)
        readback = self._idle.pop()
        self._record(encoder, offset, readback)
        return PendingCheck(frame, self._expect(words), readback)

    def recycle(self, check: PendingCheck) -> None:
        """Take back the memory of a check that is over."""
        self._idle.append(check.readback)

    def close(self) -> None:
        """Give the memory back; legal any number of times."""
        for readback in self._readbacks:
            readback.destroy()

    @abstractmethod
    def _record(self, encoder: ICommandEncoder, offset: int, readback: ReadbackBuffer) -> None: ...


class DigestCheck(Check):
    """The GPU reduces the data to a few words in a compute shader; they have to come out exact."""

    def __init__(
        self, device: IRenderDevice, source: DynamicBuffer, nbytes: int, expect: Expect = digest_of
    ) -> None:
        """Make the compute pipeline.

        Args:
            device: What computes.
            source: Where the data is; usage STORAGE.
            nbytes: Bytes of a frame's data, a multiple of 4.
            expect: What should come out.
        """
        super().__init__(device, DIGEST_BYTES, expect)
        self._digest = DeviceBuffer(
            DIGEST_BYTES,
            device.buffer_factory,
            usage=BufferUsage.STORAGE | BufferUsage.COPY_SRC,
            debug_name="digest",
        )
        layout = BindGroupLayout(
            [
                BindingLayout(0, "read-only-storage", ShaderStage.COMPUTE, dynamic_offset=True),
                BindingLayout(1, "storage", ShaderStage.COMPUTE),
            ]
        )
        self._bind_group = device.create_bind_group(
            layout, {0: BufferBinding(source.inner, size=nbytes), 1: self._digest}, label="digest"
        )
        shader = device.create_shader_module(load("digest"), label="digest")
        self._pipeline = device.create_compute_pipeline(
            ComputePipelineDescriptor(shader, [layout], label="digest")
        )
        self._workgroups = min(max(nbytes // 4 // 256, 1), 64)

    @property
    def what(self) -> str:
        return "digest of the instances, reduced by a compute shader"

    def close(self) -> None:
        super().close()
        self._digest.destroy()

    def _record(self, encoder: ICommandEncoder, offset: int, readback: ReadbackBuffer) -> None:
        encoder.clear_buffer(self._digest)
        with encoder.begin_compute_pass(label="digest") as compute_pass:
            compute_pass.set_pipeline(self._pipeline)
            compute_pass.set_bind_group(0, self._bind_group, [offset])
            compute_pass.dispatch_workgroups(self._workgroups)
        readback.copy_from(encoder, self._digest)


class CopyCheck(Check):
    """The data itself is copied back, for devices that run no shaders."""

    def __init__(
        self,
        device: IRenderDevice,
        source: DynamicBuffer,
        nbytes: int,
        expect: Expect = lambda words: words,
    ) -> None:
        """Make the check.

        Args:
            device: What copies.
            source: Where the data is; usage COPY_SRC.
            nbytes: Bytes of a frame's data, a multiple of 4.
            expect: What should come out.
        """
        super().__init__(device, nbytes, expect)
        self._source = source

    @property
    def what(self) -> str:
        return "bytes of the instances, copied back (this device runs no shaders)"

    def _record(self, encoder: ICommandEncoder, offset: int, readback: ReadbackBuffer) -> None:
        readback.copy_from(encoder, self._source, offset, size=self._result_bytes)
