"""The port of the null backend: queue, memory and end of a device."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import attrs
import numpy as np
import numpy.typing as npt

from pers._completion import Completion
from pers.backends.null.buffers import NullBuffer, native_buffer
from pers.backends.null.clock import NullClock
from pers.backends.null.commands import NullCommandBuffer, NullEncoder
from pers.backends.null.events import DeviceEvent, MapRequest, Work, lost_error
from pers.backends.null.faults import NullFaults
from pers.backends.null.limits import FEATURES
from pers.backends.null.live import LiveObjects
from pers.backends.null.objects import (
    NullBindGroup,
    NullComputePipeline,
    NullQuerySet,
    NullRenderPipeline,
    NullSampler,
    NullShader,
)
from pers.backends.null.passes import NullBundle, NullDraws
from pers.backends.null.tape import Command, NullCounters, Tape
from pers.backends.null.textures import (
    NullTexture,
    check_descriptor,
    texels,
    texture_nbytes,
)
from pers.backends.null.timeline import Moment
from pers.buffers.core import Buffer
from pers.buffers.types import BufferDesc
from pers.errors import BackendUnavailableError
from pers.graphics.native import (
    BoundBuffer,
    Done,
    NativeDevice,
    NativeRenderCommands,
    Targets,
    TexturePlace,
)
from pers.graphics.types import (
    BindGroupLayout,
    ComputePipelineDescriptor,
    DeviceInfo,
    DeviceLimits,
    DeviceLostInfo,
    RenderPipelineDescriptor,
    SamplerDescriptor,
    TextureDescriptor,
)

if TYPE_CHECKING:
    from pers.graphics.device import RenderDevice
    from pers.graphics.interfaces import ISurface
    from pers.graphics.resources import Sampler, Texture


class NullNative(NativeDevice):
    """The port of the null backend. Thread-safe, under the lock of the clock's timeline."""

    def __init__(
        self, clock: NullClock, faults: NullFaults, features: frozenset[str], limits: DeviceLimits
    ) -> None:
        self.clock = clock
        self.faults = faults
        self.live = LiveObjects()
        self.hangs = False
        """Whether the GPU does nothing any more."""
        self._features = features
        self._limits = limits
        self._timeline = clock.timeline
        self._lock = clock.timeline.lock
        self._counters = NullCounters()
        self._queue_end: Moment = (0, False)
        self._backlog: deque[tuple[Moment, Work]] = deque()
        self._ended: str | None = None
        self._on_lost: Callable[[DeviceLostInfo], None] | None = None
        faults.attach(self)

    @property
    def handle(self) -> Any:
        return self

    @property
    def info(self) -> DeviceInfo:
        return DeviceInfo(
            backend="null",
            api="NumPy",
            name="null device",
            driver=f"NumPy {np.__version__}",
            kind="cpu",
            executes_shaders=False,
            features=FEATURES,
        )

    @property
    def limits(self) -> DeviceLimits:
        return self._limits

    @property
    def features(self) -> frozenset[str]:
        return self._features

    @property
    def counters(self) -> NullCounters:
        """What was done so far; a copy."""
        with self._lock:
            self._work_off()
            return attrs.evolve(self._counters)

    def live_objects(self) -> Counter[str]:
        """Count the native objects that are alive, by class."""
        return self.live.count()

    # Time.

    def poll(self) -> None:
        self._timeline.run_due()

    def watch(self, completion: Completion[Any]) -> None:
        if self.clock.auto:
            self._timeline.run_until_done(completion)

    def drive(self, completion: Completion[Any]) -> None:
        self.poll()
        if not completion.done:
            self.watch(completion)
        if completion.done:
            return
        arrived = threading.Event()
        completion.add_callback(arrived.set)
        # On an automatic clock, another thread may yet submit what this one waits for.
        while not arrived.wait(_PATIENCE if self.clock.auto else None):
            self.watch(completion)

    # The end.

    def on_lost(self, callback: Callable[[DeviceLostInfo], None]) -> None:
        self._on_lost = callback

    def lose(self, message: str) -> None:
        """Be lost: tell the device, then who waits for work."""
        if not self._end(message):
            return
        if self._on_lost is not None:
            self._on_lost(DeviceLostInfo("unknown", message))
        self._fail_pending(message)

    def hang(self) -> None:
        """Do nothing any more."""
        self.hangs = True

    def destroy(self) -> None:
        self._end("the device was closed")
        self._fail_pending(self._ended or "")

    def _end(self, why: str) -> bool:
        with self._lock:
            if self._ended is not None:
                return False
            self._ended = why
            self.hang()
            self._backlog.clear()
            return True

    def _fail_pending(self, why: str) -> None:
        for event in self._timeline.remove(self):
            assert isinstance(event, DeviceEvent)
            event.lose(why)

    def _check_alive(self) -> None:
        if self._ended is not None:
            raise lost_error(self._ended)

    # Memory.

    def create_buffer(self, desc: BufferDesc) -> NullBuffer:
        with self._lock:
            self._check_alive()
            self._check_allocation(f"buffer {desc.debug_name!r}", desc.size)
            return NullBuffer(self, desc)

    def create_buffer_with_data(self, desc: BufferDesc, data: npt.NDArray[Any]) -> NullBuffer:
        buffer = self.create_buffer(desc)
        buffer.memory[: data.nbytes] = data.reshape(-1).view(np.uint8)
        return buffer

    def create_texture(self, descriptor: TextureDescriptor) -> NullTexture:
        check_descriptor(descriptor)
        with self._lock:
            self._check_alive()
            nbytes = texture_nbytes(descriptor)
            self._check_allocation(f"texture {descriptor.label!r}", nbytes)
            return NullTexture(self.live, descriptor)

    def request_map(self, buffer: NullBuffer, done: Done) -> MapRequest:
        """Map a buffer when the GPU is done with it."""
        error = self.faults.take_map_failure(buffer.label)
        request = MapRequest(self, buffer.label, done, error)
        with self._lock:
            ended = self._ended
            if ended is None:
                self._timeline.schedule(self.clock.map_end(buffer.in_use_until), request)
        if ended is not None:
            request.lose(ended)
        return request

    def _check_allocation(self, what: str, nbytes: int) -> None:
        self.faults.check_allocation(what, nbytes, self.live)

    # Descriptions.

    def create_sampler(self, descriptor: SamplerDescriptor) -> NullSampler:
        return NullSampler(self.live, descriptor)

    def create_shader_module(self, code: str, label: str) -> NullShader:
        return NullShader(self.live, code, label)

    def create_bind_group(
        self,
        layout: BindGroupLayout,
        resources: Mapping[int, BoundBuffer | Texture | Sampler],
        label: str,
    ) -> NullBindGroup:
        return NullBindGroup(self.live, layout, resources)

    def create_render_pipeline(
        self, descriptor: RenderPipelineDescriptor, shader: NullShader
    ) -> NullRenderPipeline:
        return NullRenderPipeline(self.live, descriptor, shader, self._limits)

    def create_compute_pipeline(
        self, descriptor: ComputePipelineDescriptor, shader: NullShader
    ) -> NullComputePipeline:
        return NullComputePipeline(self.live, descriptor, shader, self._limits)

    def create_query_set(
        self, kind: Literal["occlusion", "timestamp"], count: int, label: str
    ) -> NullQuerySet:
        return NullQuerySet(self.live)

    def destroy_query_set(self, handle: NullQuerySet) -> None:
        handle.release()

    def create_surface(self, canvas: Any, device: RenderDevice) -> ISurface:
        raise BackendUnavailableError(
            "the null backend shows no windows; draw into a frame buffer, or open the device with "
            "backend='webgpu'"
        )

    # Commands.

    def create_encoder(self, label: str) -> NullEncoder:
        return NullEncoder(self.live, self._limits.max_compute_workgroups_per_dimension, label)

    def create_render_bundle(
        self, targets: Targets, record: Callable[[NativeRenderCommands], None], label: str
    ) -> NullBundle:
        tape = Tape()
        record(NullDraws(tape, targets, f"render bundle {label!r}"))
        tape.check()
        return NullBundle(self.live, tape)

    def submit(
        self, command_buffers: Sequence[NullCommandBuffer], completion: Completion[None]
    ) -> int:
        tapes = [command_buffer.tape for command_buffer in command_buffers]
        buffers = set[NullBuffer]().union(*(tape.buffers for tape in tapes))
        commands: list[Command] = []
        for tape in tapes:
            commands += tape.commands
            commands.append(self._count(tape.counters))
        with self._lock:
            self._check_alive()
            self._counters.submits += 1
            end = self.clock.submission_end(self._queue_end)
            self._enqueue(
                end, Work(self, commands, completion.settle, self.faults.take_loss()), buffers
            )
        return 0

    def write_buffer(self, buffer: Buffer, offset: int, data: npt.NDArray[Any]) -> None:
        native = native_buffer(buffer)
        copy = np.frombuffer(data.tobytes(), np.uint8)
        self._write(native.memory[offset : offset + copy.size], copy, {native})

    def write_texture(
        self, target: TexturePlace, data: npt.NDArray[Any], size: tuple[int, int, int]
    ) -> None:
        goal = texels(target, size)
        self._write(goal, np.frombuffer(data.tobytes(), np.uint8).reshape(goal.shape), set())

    def _write(
        self,
        target: npt.NDArray[np.uint8],
        data: npt.NDArray[np.uint8],
        buffers: set[NullBuffer],
    ) -> None:
        def write() -> None:
            target[...] = data

        counters = NullCounters(writes=1, written_bytes=data.size)
        with self._lock:
            self._check_alive()
            # In queue order: when all that was submitted before has ended, and at once then.
            now = (self.clock.now, False)
            work = Work(self, [write, self._count(counters)])
            self._enqueue(max(now, self._queue_end), work, buffers)

    def _enqueue(self, end: Moment, work: Work, buffers: set[NullBuffer]) -> None:
        self._work_off()
        self._queue_end = end
        for buffer in buffers:
            buffer.in_use_until = end
        self._timeline.schedule(end, work)
        self._backlog.append((end, work))

    def _work_off(self) -> None:
        """Do what is due by now, so that commands nobody waits for do not pile up with their data.

        Who waits is told later, by `poll`: here, callers may hold locks.
        """
        now = (self.clock.now, False)
        while self._backlog and self._backlog[0][0] <= now:
            self._backlog.popleft()[1].happen()

    def _count(self, counters: NullCounters) -> Command:
        return lambda: self._counters.add(counters)


_PATIENCE = 0.001
"""Seconds between two looks at whether another thread gave the clock something to run to."""
