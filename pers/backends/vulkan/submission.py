"""Command buffers on their way through the queue, and what waits for them to be done."""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from pers.backends.vulkan._ffi import NULL, Functions, check, ffi, struct, vk
from pers.errors import DeviceLostError

__all__ = ["NEVER", "Recording", "SignalPoint", "Submitter", "WaitPoint", "wait_in_slices"]

WaitPoint = tuple[Any, int]
"""A `VkSemaphore` and its value, 0 for a binary one."""
SignalPoint = WaitPoint
NEVER = 2**64 - 1

SLICE_NS = 50_000_000
"""How long one wait in the driver takes at most."""

_HANDLES = ffi.typeof("VkSemaphore[]")
_VALUES = ffi.typeof("uint64_t[]")
_STAGES = ffi.typeof("VkPipelineStageFlags[]")
_SUBMIT = ffi.typeof("VkSubmitInfo *")
_WAIT = ffi.typeof("VkSemaphoreWaitInfo *")
_TIMELINE = ffi.typeof("VkTimelineSemaphoreSubmitInfo *")


def wait_in_slices(wait: Callable[[int], int], timeout_ns: int) -> bool:
    """Wait for the GPU and return True, or False when that takes too long.

    Signal handlers of Python run between the slices, so that Ctrl+C ends the wait.

    Args:
        wait: Waits in the driver for some nanoseconds, and returns a `VkResult`.
        timeout_ns: How long to wait at most.
    """
    end = time.monotonic_ns() + timeout_ns
    left = timeout_ns
    while wait(max(0, min(left, SLICE_NS))) != vk.VK_SUCCESS:
        left = end - time.monotonic_ns()
        if left <= 0:
            return False
    return True


class Recording:
    """A command buffer with a pool of its own, so that one thread can fill it without a lock."""

    def __init__(self, fn: Functions, device: Any, family: int) -> None:
        flags = vk.VK_COMMAND_POOL_CREATE_TRANSIENT_BIT
        info = struct("VkCommandPoolCreateInfo", flags=flags, queueFamilyIndex=family)
        pool = ffi.new("VkCommandPool *")
        fn.call("vkCreateCommandPool", device, info, NULL, pool)
        self.pool: Any = pool[0]
        allocate = struct(
            "VkCommandBufferAllocateInfo",
            commandPool=self.pool,
            level=vk.VK_COMMAND_BUFFER_LEVEL_PRIMARY,
            commandBufferCount=1,
        )
        self.pointer: Any = ffi.new("VkCommandBuffer *")
        fn.call("vkAllocateCommandBuffers", device, allocate, self.pointer)
        self.commands: Any = self.pointer[0]
        self.serial = 0


class Submitter:
    """A queue, and its progress as one number: the serial of the last submission that is done.

    It is thread-safe. The number is a timeline semaphore of the device's own.

    Args:
        fn: The functions of the device.
        device: The `VkDevice`.
        queue: Its `VkQueue`.
        family: Of which family that is.
    """

    def __init__(self, fn: Functions, device: Any, queue: Any, family: int) -> None:
        self._fn = fn
        self._device = device
        self._queue = queue
        self._family = family
        self.lock = threading.Lock()
        """Held for every call that takes the queue."""
        self.submitted = 0
        self._idle: collections.deque[Recording] = collections.deque()
        self._busy: collections.deque[Recording] = collections.deque()
        self._retired: collections.deque[tuple[int, Callable[[], None]]] = collections.deque()
        self._collecting = threading.Lock()
        self._closed = False
        self._begin_info = struct(
            "VkCommandBufferBeginInfo", flags=vk.VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT
        )
        kind = struct("VkSemaphoreTypeCreateInfo", semaphoreType=vk.VK_SEMAPHORE_TYPE_TIMELINE)
        out = ffi.new("VkSemaphore *")
        fn.call("vkCreateSemaphore", device, struct("VkSemaphoreCreateInfo", pNext=kind), NULL, out)
        self._progress: Any = out[0]
        self._progress_array = ffi.new("VkSemaphore[]", [self._progress])

    def begin(self) -> Recording:
        """Return an empty command buffer to record into; `submit` or `abandon` it."""
        self.collect()
        try:
            recording = self._idle.popleft()
            self._fn.call("vkResetCommandPool", self._device, recording.pool, 0)
        except IndexError:
            recording = Recording(self._fn, self._device, self._family)
        self._fn.call("vkBeginCommandBuffer", recording.commands, self._begin_info)
        return recording

    def abandon(self, recording: Recording) -> None:
        """Take back what was recorded."""
        self._idle.append(recording)

    def submit(
        self,
        recording: Recording | None,
        waits: Sequence[WaitPoint] = (),
        signals: Sequence[SignalPoint] = (),
        fences: Sequence[Any] = (),
    ) -> int:
        """Submit a recording, between waits and signals, and return its serial."""
        if recording is not None:
            self._fn.call("vkEndCommandBuffer", recording.commands)
        with self.lock:
            serial = self.submitted + 1
            info, owners = self._info(recording, waits, [*signals, (self._progress, serial)])
            result = self._fn.vkQueueSubmit(self._queue, 1, info, NULL)
            del owners
            if result >= 0:
                self.submitted = serial
                if recording is not None:
                    recording.serial = serial
                    self._busy.append(recording)
                # A fence that is submitted alone is signalled after all that came before it.
                for fence in fences:
                    self._fn.call("vkQueueSubmit", self._queue, 0, NULL, fence)
        if result < 0 and recording is not None:
            self.abandon(recording)
        check(result, "vkQueueSubmit")
        return serial

    def _info(
        self, recording: Recording | None, waits: Sequence[WaitPoint], signals: list[SignalPoint]
    ) -> tuple[Any, list[Any]]:
        """Return the struct for a submission, and what has to live as long."""
        wait_values = ffi.new(_VALUES, [value for _, value in waits])
        signal_values = ffi.new(_VALUES, [value for _, value in signals])
        wait_handles = ffi.new(_HANDLES, [handle for handle, _ in waits])
        signal_handles = ffi.new(_HANDLES, [handle for handle, _ in signals])
        stages = ffi.new(_STAGES, [vk.VK_PIPELINE_STAGE_ALL_COMMANDS_BIT] * len(waits))
        timeline = ffi.new(
            _TIMELINE,
            {
                "sType": vk.VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO,
                "waitSemaphoreValueCount": len(waits),
                "pWaitSemaphoreValues": wait_values,
                "signalSemaphoreValueCount": len(signals),
                "pSignalSemaphoreValues": signal_values,
            },
        )
        info = ffi.new(
            _SUBMIT,
            {
                "sType": vk.VK_STRUCTURE_TYPE_SUBMIT_INFO,
                "pNext": timeline,
                "waitSemaphoreCount": len(waits),
                "pWaitSemaphores": wait_handles,
                "pWaitDstStageMask": stages,
                "commandBufferCount": 0 if recording is None else 1,
                "pCommandBuffers": NULL if recording is None else recording.pointer,
                "signalSemaphoreCount": len(signals),
                "pSignalSemaphores": signal_handles,
            },
        )
        owners = [wait_values, signal_values, wait_handles, signal_handles, stages, timeline]
        return info, owners

    @property
    def completed(self) -> int:
        """The serial up to which everything is done."""
        out = ffi.new("uint64_t *")
        self._fn.call("vkGetSemaphoreCounterValue", self._device, self._progress, out)
        return int(out[0])

    def wait(self, serial: int, timeout_ns: int) -> bool:
        """Block until a submission is done and return True, or False when that takes too long."""
        value = ffi.new("uint64_t *", serial)
        info = ffi.new(
            _WAIT,
            {
                "sType": vk.VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO,
                "semaphoreCount": 1,
                "pSemaphores": self._progress_array,
                "pValues": value,
            },
        )
        return wait_in_slices(
            lambda slice_ns: self._fn.call("vkWaitSemaphores", self._device, info, slice_ns),
            timeout_ns,
        )

    def retire(self, free: Callable[[], None]) -> None:
        """Call `free` when all that is submitted by now is done; may be called anywhere."""
        # Finalizers call this, in any thread, holding any lock: so it takes none.
        self._retired.append((self.submitted, free))

    def collect(self) -> None:
        """Free what is done with; any thread may call it at any time."""
        if not (self._busy or self._retired) or not self._collecting.acquire(blocking=False):
            return
        try:
            if not self._closed:
                self._collect(self.completed)
        finally:
            self._collecting.release()

    def _collect(self, completed: int) -> None:
        while self._busy and self._busy[0].serial <= completed:
            self._idle.append(self._busy.popleft())
        for _ in range(len(self._retired)):
            serial, free = self._retired.popleft()
            if serial <= completed:
                free()
            else:
                self._retired.append((serial, free))

    def close(self, timeout_ns: int) -> bool:
        """Wait for the GPU and free everything; False, and nothing is freed, if it takes too long.

        What the GPU may still use is leaked rather than freed under it.
        """
        try:
            if not self.wait(self.submitted, timeout_ns):
                return False
        except DeviceLostError:
            pass  # A lost device uses nothing any more.
        with self._collecting:
            self._closed = True
            while self._retired:  # what is freed may retire more
                self._retired.popleft()[1]()
        for recording in (*self._idle, *self._busy):
            self._fn.vkDestroyCommandPool(self._device, recording.pool, NULL)
        self._fn.vkDestroySemaphore(self._device, self._progress, NULL)
        return True
