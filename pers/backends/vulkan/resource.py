"""What images and buffers have in common: being acquired, copied and released.

An access is recorded into one command buffer, which is submitted when the access ends, so that
begin, upload and end are one submission. Only what has to be there earlier (a download, mapped
memory, the native object for somebody else's commands) submits before that.

Between accesses a resource belongs to ``VK_QUEUE_FAMILY_EXTERNAL``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pers.backends.vulkan._exit import is_leaving
from pers.backends.vulkan._ffi import NULL, struct, vk
from pers.backends.vulkan.device import Gpu
from pers.backends.vulkan.memory import Allocation
from pers.backends.vulkan.staging import StagingBlock, StagingPool
from pers.backends.vulkan.submission import Recording, WaitPoint
from pers.backends.vulkan.sync import Payload, VulkanFence, hold, point_of
from pers.errors import TextureAccessError, WaitTimeoutError
from pers.sharing.native import NativePoint, NativeResource

__all__ = ["Sharing", "VulkanResource"]

ALL_COMMANDS = vk.VK_PIPELINE_STAGE_ALL_COMMANDS_BIT
HOST = vk.VK_PIPELINE_STAGE_HOST_BIT
ANY_ACCESS = vk.VK_ACCESS_MEMORY_READ_BIT | vk.VK_ACCESS_MEMORY_WRITE_BIT
WRITES = vk.VK_ACCESS_MEMORY_WRITE_BIT
HOST_ACCESS = vk.VK_ACCESS_HOST_READ_BIT | vk.VK_ACCESS_HOST_WRITE_BIT


class Sharing:
    """What every resource of a device is given.

    Args:
        gpu: The device.
        timeout_ns: How long the CPU waits for the GPU.
    """

    def __init__(self, gpu: Gpu, timeout_ns: int) -> None:
        self.gpu = gpu
        self.timeout_ns = timeout_ns
        self.staging = StagingPool(gpu)

    def wait(self, serial: int, what: str) -> None:
        """Block until a submission is done.

        Raises:
            WaitTimeoutError: It was not in time.
        """
        if not self.gpu.work.wait(serial, self.timeout_ns):
            raise WaitTimeoutError(
                f"{what} was not done after {self.timeout_ns / 1e9:g} s; the GPU waits for a "
                "semaphore that nobody has signalled, or is very busy (see timeout_ns)"
            )


class VulkanResource(NativeResource):
    """An image or a buffer with memory of its own.

    Args:
        sharing: What it needs of its device.
        allocation: Its memory, bound.
        name: What messages call it.
    """

    def __init__(self, sharing: Sharing, allocation: Allocation, name: str) -> None:
        self._sharing = sharing
        self._gpu = sharing.gpu
        self._allocation: Allocation | None = allocation
        self._name = name
        self._recording: Recording | None = None
        self._blocks: list[StagingBlock] = []
        self._waits: list[WaitPoint] = []
        self._held: list[Payload] = []
        """What is waited for, kept until it is submitted: it may be closed before that."""
        self._accessing = False
        self._owned = False
        self._settled = True
        """Whether the next command can go without a barrier: it follows that of `acquire`."""
        self._serial = 0
        self._created = 0
        self._destroyed = False
        external, own = vk.VK_QUEUE_FAMILY_EXTERNAL, self._gpu.family
        self._acquire_barrier = self._ownership(external, own, 0, ANY_ACCESS)
        self._release_barrier = self._ownership(own, external, WRITES, 0)
        self._between = struct("VkMemoryBarrier", srcAccessMask=WRITES, dstAccessMask=ANY_ACCESS)
        self._to_host = struct(
            "VkMemoryBarrier", srcAccessMask=WRITES, dstAccessMask=vk.VK_ACCESS_HOST_READ_BIT
        )
        self._all_stages = ALL_COMMANDS

    @abstractmethod
    def _ownership(self, source: int, target: int, before: int, after: int) -> Any:
        """Return the barrier that moves the resource from one queue family to another.

        Args:
            source: The queue family it leaves.
            target: The one it goes to.
            before: `VkAccessFlags` of what has to be done.
            after: `VkAccessFlags` of what has to wait.
        """

    @abstractmethod
    def _record_ownership(self, commands: Any, barrier: Any) -> None:
        """Record such a barrier."""

    @abstractmethod
    def _destroy_object(self) -> None:
        """Destroy the Vulkan object; the GPU is done with it."""

    # --- The port ---------------------------------------------------------------------------------

    def wait_first(self, waits: Sequence[NativePoint]) -> None:
        pass  # the GPU waits

    def give_back(self, waits: Sequence[NativePoint]) -> None:
        pass

    def acquire(self, waits: Sequence[NativePoint], *, write: bool) -> None:
        self._accessing = True
        self._wait_for(waits)

    def release(self, signals: Sequence[NativePoint]) -> None:
        if self._owned:
            self._record_ownership(self._record().commands, self._release_barrier)
        self._accessing = self._owned = False
        self._end(signals)

    def wait(self, waits: Sequence[NativePoint]) -> None:
        if waits:
            self._flush()  # what was recorded so far need not wait
            self._wait_for(waits)

    def signal(self, signals: Sequence[NativePoint]) -> None:
        self._end(signals)

    def finish(self) -> None:
        self._flush()
        self._wait(self._serial)

    def destroy(self) -> None:
        if self._destroyed or is_leaving():
            return
        self._destroyed = True
        recording, self._recording = self._recording, None
        if recording is not None:
            self._gpu.work.abandon(recording)
        for block in self._blocks:
            self._sharing.staging.retire(block)
        for payload in self._held:
            payload.let_go()
        self._blocks, self._held = [], []
        self._gpu.work.retire(self._destroy_object)
        self._allocation = None  # frees it, unless an array shows it
        self._gpu.work.collect()

    def __del__(self) -> None:
        if hasattr(self, "_all_stages"):  # made in full
            self.destroy()

    # --- Making ---------------------------------------------------------------------------------

    def _hand_over_new(self, record_clear: Callable[[Any], None]) -> None:
        """Fill the new memory with zeros and give it to the other side."""
        recording = self._recording = self._gpu.work.begin()
        record_clear(recording.commands)
        self._record_ownership(recording.commands, self._release_barrier)
        self._submit()
        self._created = self._serial

    def _memory_to_export(self) -> Allocation:
        """Return the memory, once the zeros are in it: whoever opens it may read at once."""
        self._wait(self._created)
        self._created = 0
        assert self._allocation is not None, "destroyed"
        return self._allocation

    # --- Recording --------------------------------------------------------------------------------

    def _record(self) -> Recording:
        """Return the command buffer of this access, with the resource acquired."""
        recording = self._recording
        if recording is None:
            recording = self._recording = self._gpu.work.begin()
        if not self._owned:
            self._record_ownership(recording.commands, self._acquire_barrier)
            self._owned = self._settled = True
        return recording

    def _record_copy(self) -> Any:
        """Return the commands, ordered after whatever came before in this access."""
        commands = self._record().commands
        if not self._settled:
            self._barrier(commands, self._between, ALL_COMMANDS)
        self._settled = False
        return commands

    def _barrier(self, commands: Any, barrier: Any, after: int) -> None:
        self._gpu.fn.vkCmdPipelineBarrier(
            commands, ALL_COMMANDS, after, 0, 1, barrier, 0, NULL, 0, NULL
        )

    def _wait_for(self, waits: Sequence[NativePoint]) -> None:
        self._held += hold(waits)
        self._waits += [point_of(wait) for wait in waits]

    def _submit(self, signals: Sequence[NativePoint] = ()) -> None:
        fences = [first.handle for first, _ in signals if isinstance(first, VulkanFence)]
        points = [point_of(signal) for signal in signals if not isinstance(signal[0], VulkanFence)]
        recording, self._recording = self._recording, None
        waits, self._waits = self._waits, []
        blocks, self._blocks = self._blocks, []
        held, self._held = self._held, []
        try:
            self._serial = self._gpu.work.submit(recording, waits, points, fences)
        finally:
            for payload in held:
                payload.let_go()
            for block in blocks:
                self._sharing.staging.retire(block)
        self._settled = False

    def _flush(self) -> None:
        """Submit what is recorded."""
        if self._recording is not None or self._waits:
            self._submit()

    def _staged(self, size: int) -> StagingBlock:
        """Return staging memory that is given back when this recording is submitted."""
        block = self._sharing.staging.take(size)
        self._blocks.append(block)
        return block

    def _fetch(self, block: StagingBlock, out: npt.NDArray[np.uint8]) -> None:
        """Have the copy into `block` that was recorded done, and copy that to `out`."""
        self._barrier(self._record().commands, self._to_host, HOST)
        self._blocks.remove(block)
        try:
            self._flush()
            self._wait(self._serial)
            out[:] = block.bytes[: out.nbytes]
        finally:
            self._sharing.staging.retire(block)

    def _end(self, signals: Sequence[NativePoint]) -> None:
        try:
            held = hold(signals)
        except TextureAccessError:  # one was closed in the meantime: hand over without
            self.finish()
            raise
        if signals:
            self._held += held
            self._submit(signals)
        else:
            self._flush()

    def _wait(self, serial: int) -> None:
        if serial:
            self._sharing.wait(serial, f"the work on {self._name}")

    def _open_for_others(self) -> None:
        """Have commands of others, submitted from now on, find the resource acquired.

        Only in an access: outside of one nothing is waiting to be acquired.
        """
        if self._accessing:
            self._record()
            self._settled = False
            self._flush()
