"""The WebGPU device port: a `wgpu.GPUDevice`."""

from __future__ import annotations

import functools
import threading
import time
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy.typing as npt
import wgpu
from wgpu.backends.wgpu_native import _api

from pers._completion import Backoff, Completion
from pers.backends.webgpu import descriptors
from pers.backends.webgpu._ffi import (
    COMMAND_BUFFERS,
    NULL,
    SUBMISSION_INDEX,
    Owned,
    Ticket,
    checked,
    clean,
    forget,
    label_view,
    lib,
    memory_of,
    new,
    ticket,
    translate,
    translated,
    work_info,
)
from pers.backends.webgpu._losses import add_device, expect_loss
from pers.backends.webgpu.adapters import PRIMARY_BUFFERS, SHARED_MEMORY_KINDS, device_info
from pers.backends.webgpu.buffers import WebGPUBuffer
from pers.backends.webgpu.commands import WebGPUBundleDraws, WebGPUEncoder, WebGPUPassDraws
from pers.backends.webgpu.textures import DeviceTexture
from pers.buffers.core import Buffer, NativeBuffer
from pers.buffers.types import MAP_USAGES, BufferDesc, BufferUsage
from pers.errors import DeviceLostError, PersError
from pers.graphics.native import (
    BoundBuffer,
    Done,
    NativeBindGroup,
    NativeDevice,
    NativeEncoder,
    NativeRenderCommands,
    NativeTexture,
    Targets,
    TexturePlace,
)
from pers.graphics.resources import Sampler, Texture
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


_TARGETS = int(BufferUsage.COPY_DST | MAP_USAGES)
"""What decides whether a buffer is a target that could be mapped: COPY_DST and no MAP_*."""
_TARGET = int(BufferUsage.COPY_DST)

_create_bind_group = checked(lib.wgpuDeviceCreateBindGroup, lib.wgpuBindGroupRelease)
_write_buffer = checked(lib.wgpuQueueWriteBuffer)
_write_texture = checked(lib.wgpuQueueWriteTexture)
_submit = lib.wgpuQueueSubmitForIndex
_on_work_done = lib.wgpuQueueOnSubmittedWorkDone


class WebGPUBindGroup(Owned, NativeBindGroup):
    """A `WGPUBindGroup`."""

    _release = lib.wgpuBindGroupRelease

    def __init__(self, internal: Any, device: Any, label: str) -> None:
        super().__init__(internal)
        self._device = device
        self._label = label
        self._handle: Any = None

    @property
    def handle(self) -> Any:
        if self._handle is None:
            lib.wgpuBindGroupAddRef(self.internal)  # which the object gives back when it dies
            self._handle = _api.GPUBindGroup(self._label, self.internal, self._device)
        return self._handle


_UNFINISHED = "the device was lost or closed before the submitted work had ended"


class WebGPUNative(NativeDevice):
    """Drives one `wgpu.GPUDevice`. Thread-safe."""

    def __init__(
        self, gpu_device: Any, *, owned: bool, hidden_features: Collection[str] = ()
    ) -> None:
        """Take over a device.

        Args:
            gpu_device: The `wgpu.GPUDevice`.
            owned: Whether `destroy` may destroy it; not when an application lent it.
            hidden_features: Features of the device that the user did not ask for.
        """
        # What C functions take is asked for each time: when all is garbage, a finalizer may have
        # released it by the time another one calls.
        self.gpu = gpu_device
        """The `wgpu.GPUDevice`."""
        self._owned = owned
        self._queue = gpu_device.queue
        self._lock = threading.RLock()
        self.gone = False
        """Whether it was closed."""
        self.buffers: set[int] = set()
        """The buffers that are not destroyed, by `id`: adding and discarding takes no lock."""
        self._submits = 0
        self._features = frozenset(gpu_device.features) - frozenset(hidden_features)
        # On a discrete GPU the memory that can be mapped is the slow one for it; and an application
        # that lends its device may write to buffers on its own, which pers would not know of.
        self._maps_targets = (
            owned
            and PRIMARY_BUFFERS in gpu_device.features
            and device_info(gpu_device.adapter).kind in SHARED_MEMORY_KINDS
        )
        self._on_lost: Callable[[DeviceLostInfo], None] | None = None
        self._in_flight: dict[Ticket, Done] = {}
        self._last: weakref.ref[Completion[None]] | None = None
        self._is_shared = not owned  # with an application that submits to the same queue
        self._work_done = _work_done(weakref.ref(self))
        self._work_info = work_info()
        self._watcher = _Watcher(self._poll_device)
        self._layout = functools.lru_cache(maxsize=None)(self._make_layout)
        self._maybe_lost = False
        add_device(self)
        _redirect_destroy(gpu_device, self)

    @property
    def handle(self) -> Any:
        return self.gpu

    @property
    def info(self) -> DeviceInfo:
        return device_info(self.gpu.adapter)

    @property
    def limits(self) -> DeviceLimits:
        given = self.gpu.limits
        names = DeviceLimits.__annotations__
        return DeviceLimits(**{name: int(given[name.replace("_", "-")]) for name in names})

    @property
    def features(self) -> frozenset[str]:
        return self._features

    def on_lost(self, callback: Callable[[DeviceLostInfo], None]) -> None:
        self._on_lost = callback

    # Progress

    def poll(self) -> None:
        if self._last is not None:
            with self._lock:
                self._watch_last()
        self._poll_device()
        if self._maybe_lost:
            self._look_for_loss()

    def watch(self, completion: Completion[Any]) -> None:
        with self._lock:
            self._watch_last()
        self._watcher.watch(completion)

    def drive(self, completion: Completion[Any]) -> None:
        if completion.after:
            self._block_until(completion)
        else:
            self.poll()  # a map of what the GPU does not use is there at once
        if completion.done:
            return
        backoff = Backoff()
        while not completion.done:  # another thread delivers it, or nothing submitted is to end
            backoff.nap()
            self.poll()

    def _block_until(self, completion: Completion[Any]) -> None:
        """Wait for the submission that ends what is awaited, and deliver that."""
        with self._lock:
            # Who waits for the last submission need not be called back: the wait is the answer.
            is_last = self._last is not None and self._last() is completion
            if is_last:
                self._last = None
            else:
                self._watch_last()
        start = time.monotonic()
        try:
            lib.wgpuDevicePoll(self.gpu._internal, True, new(SUBMISSION_INDEX, completion.after))
        finally:
            if is_last:
                self._settle_last(completion, time.monotonic() - start)

    def _settle_last(self, completion: Completion[Any], waited: float) -> None:
        """Deliver the end of a submission that a blocking wait has seen."""
        if self.gone:
            completion.settle(DeviceLostError(f"{_UNFINISHED}; open a new device"))
        elif self._maybe_lost or waited > 1:
            # A lost device does not say so there, nor does the library when it gives up waiting.
            with self._lock:
                self._call_back(completion)
        else:
            completion.settle(None)

    def _poll_device(self) -> None:
        internal = self.gpu._internal
        if internal is not None:
            lib.wgpuDevicePoll(internal, False, NULL)

    # Making things

    def create_buffer(self, desc: BufferDesc) -> NativeBuffer:
        return self._create_buffer(desc, desc.mapped_at_creation)

    def create_buffer_with_data(self, desc: BufferDesc, data: npt.NDArray[Any]) -> NativeBuffer:
        buffer = self._create_buffer(desc, True)
        buffer.fill(data)
        return buffer

    def _create_buffer(self, desc: BufferDesc, mapped: bool) -> WebGPUBuffer:
        directly = self._maps_targets and desc.usage_bits & _TARGETS == _TARGET
        try:
            buffer = WebGPUBuffer(self, desc, mapped, directly)
        except Exception as error:
            raise translate(error, f"create buffer {desc.debug_name!r}") from None
        self.buffers.add(id(buffer))
        return buffer

    def create_texture(self, descriptor: TextureDescriptor) -> NativeTexture:
        try:
            return DeviceTexture(self.gpu, descriptor)
        except Exception as error:
            raise translate(error, f"create texture {descriptor.label!r}") from None

    def create_sampler(self, descriptor: SamplerDescriptor) -> Any:
        with translated(f"create sampler {descriptor.label!r}"):
            return self.gpu.create_sampler(**descriptors.sampler(descriptor))

    def create_shader_module(self, code: str, label: str) -> Any:
        with translated(f"create shader module {label!r}"):
            return self.gpu.create_shader_module(label=label, code=code)

    def create_bind_group(
        self,
        layout: BindGroupLayout,
        resources: Mapping[int, BoundBuffer | Texture | Sampler],
        label: str,
    ) -> NativeBindGroup:
        try:
            view = label_view(label)
            struct, _kept = descriptors.bind_group(resources, self._layout(layout), view)
            internal = _create_bind_group(self.gpu._internal, struct)
        except Exception as error:
            raise translate(error, f"create bind group {label!r}") from None
        return WebGPUBindGroup(internal, self.gpu, label)

    def create_render_pipeline(self, descriptor: RenderPipelineDescriptor, shader: Any) -> Any:
        with translated(f"create render pipeline {descriptor.label!r}"):
            layout = self._pipeline_layout(descriptor.bind_groups)
            return self.gpu.create_render_pipeline(
                **descriptors.render_pipeline(descriptor, shader, layout)
            )

    def create_compute_pipeline(self, descriptor: ComputePipelineDescriptor, shader: Any) -> Any:
        with translated(f"create compute pipeline {descriptor.label!r}"):
            return self.gpu.create_compute_pipeline(
                label=descriptor.label,
                layout=self._pipeline_layout(descriptor.bind_groups),
                compute={"module": shader, "entry_point": descriptor.entry},
            )

    def create_query_set(
        self, kind: Literal["occlusion", "timestamp"], count: int, label: str
    ) -> Any:
        with translated(f"create query set {label!r}"):
            queries = self.gpu.create_query_set(label=label, type=kind, count=count)
            if kind == "occlusion":
                self._zero_queries(queries, count)
            return queries

    def destroy_query_set(self, handle: Any) -> None:
        handle.destroy()

    def create_encoder(self, label: str) -> NativeEncoder:
        try:
            return WebGPUEncoder(self.gpu._internal, label)
        except Exception as error:
            raise translate(error, f"create encoder {label!r}") from None

    def create_render_bundle(
        self, targets: Targets, record: Callable[[NativeRenderCommands], None], label: str
    ) -> Any:
        self._rehearse(targets, record, label)
        depth = None if targets.depth_format is None else targets.depth_format.value
        with translated(f"render bundle {label!r}"):
            encoder = self.gpu.create_render_bundle_encoder(
                label=label,
                color_formats=[texture_format.value for texture_format in targets.color_formats],
                depth_stencil_format=depth,
                sample_count=targets.sample_count,
            )
            record(WebGPUBundleDraws(encoder._internal))
            return encoder.finish(label=label)

    def create_surface(self, canvas: Any, device: RenderDevice) -> ISurface:
        from pers.backends.webgpu.surface import WebGPUSurface

        return WebGPUSurface(canvas, device, self.gpu)

    # Work

    def submit(self, command_buffers: Sequence[Any], completion: Completion[None]) -> int:
        count = len(command_buffers)
        handles = NULL
        if count:
            handles = new(COMMAND_BUFFERS, [each.internal for each in command_buffers])
        if self._maybe_lost:
            self._look_for_loss()
        with self._lock:
            if self.gone:
                self._check_there("submit")
            self._submits += 1
            self._watch_last()
            index: int = _submit(self._queue._internal, count, handles)
            self._last = weakref.ref(completion)
            if self._is_shared:
                self._watch_last()
        return index

    def _watch_last(self) -> None:
        """Have the library call back at the end of the last submission. Under the lock.

        The call back costs as much as a small submit. So it is asked for only when somebody looks
        whether the work has ended, or at the next submit, after which it would come too late; and
        not at all when nobody has the `Submission` any more.
        """
        last, self._last = self._last, None
        completion = None if last is None else last()
        if completion is not None:
            self._call_back(completion)

    def _call_back(self, completion: Completion[Any]) -> None:
        """Have the library call back at the end of all that is submitted. Under the lock."""
        number = ticket(self._work_done)
        self._in_flight[number] = completion.settle
        self._work_info.userdata1 = number
        _on_work_done(self._queue._internal, self._work_info[0])

    def write_buffer(self, buffer: Buffer, offset: int, data: npt.NDArray[Any]) -> None:
        native: Any = buffer.native
        try:
            internal = native.internal
            _write_buffer(self._queue._internal, internal, offset, memory_of(data), data.nbytes)
        except Exception as error:
            raise translate(error, f"write_buffer to {buffer.label}") from None
        native.written_before = self._submits + 1

    def write_texture(
        self, target: TexturePlace, data: npt.NDArray[Any], size: tuple[int, int, int]
    ) -> None:
        width, height, _ = size
        row = width * target.texture.format.bytes_per_pixel
        try:
            _write_texture(
                self._queue._internal,
                descriptors.texel_texture(target),
                memory_of(data),
                data.nbytes,
                descriptors.texel_layout(0, row, height),
                descriptors.extent(size),
            )
        except Exception as error:
            raise translate(error, f"write_texture to {target.texture.name}") from None

    def write_queued(self) -> int:
        """Return the number of the submit that executes what is written now."""
        return self._submits + 1

    def flush_writes(self, until: int) -> None:
        """Have queue writes executed now: a map does not wait for those that nothing follows.

        Args:
            until: The number of the submit that would execute them.
        """
        if until > self._submits:
            with self._lock:
                if not self.gone:
                    self._submits += 1
                    self._watch_last()
                    lib.wgpuQueueSubmit(self._queue._internal, 0, NULL)

    # The end

    def destroy(self) -> None:
        with self._lock:
            self.gone = True
            self._watch_last()
            self._destroy_when_unused()
            unfinished = list(self._in_flight.items())
        for number, done in unfinished:
            if forget(number) is not None:  # or another thread is about to call back
                self._in_flight.pop(number, None)
                done(DeviceLostError(f"{_UNFINISHED}; open a new device"))

    def __del__(self) -> None:
        for number in self._in_flight:
            forget(number)

    def buffer_destroyed(self) -> None:
        """Let the last buffer take a closed device with it."""
        with self._lock:
            self._destroy_when_unused()

    def destroy_outside(self) -> None:
        """Destroy the wgpu device for the application, which called its `destroy`."""
        with self._lock:
            self._owned = True
        self._tell_loss("destroyed", "the application destroyed the wgpu device")
        with self._lock:
            if not self.gone:  # nobody listens any more
                self.destroy()
            self._destroy_when_unused()

    def suspect_loss(self) -> None:
        """Look for a loss at the next chance. Any thread, also within a callback."""
        self._maybe_lost = True

    def _look_for_loss(self) -> None:
        """Ask the device for something small; a lost one says so."""
        self._maybe_lost = False
        if self.gone:
            return
        try:
            self.create_encoder("is the device there?").finish()
        except PersError as error:
            self._tell_loss("unknown", str(error))

    def _tell_loss(self, reason: Literal["destroyed", "unknown"], message: str) -> None:
        if self._on_lost is not None:
            self._on_lost(DeviceLostInfo(reason, message))

    def _destroy_when_unused(self) -> None:
        """Destroy the wgpu device, unless arrays still look at its memory."""
        if self._owned and not self.buffers:
            self._owned = False
            expect_loss()
            type(self.gpu).destroy(self.gpu)
            self._poll_device()

    def _check_there(self, call: str) -> None:
        if self.gone:
            raise DeviceLostError(f"{call}: the device was lost or closed; open a new one")

    def _pipeline_layout(self, layouts: Sequence[BindGroupLayout]) -> Any:
        return self.gpu.create_pipeline_layout(
            bind_group_layouts=[self._layout(layout) for layout in layouts]
        )

    def _make_layout(self, layout: BindGroupLayout) -> Any:
        return self.gpu.create_bind_group_layout(entries=descriptors.bind_group_layout(layout))

    def _zero_queries(self, queries: Any, count: int) -> None:
        """Count nothing with each query, since one that never counted resolves to old memory."""
        texture = self.gpu.create_texture(
            size=(1, 1, 1), format="rgba8unorm", usage=wgpu.TextureUsage.RENDER_ATTACHMENT
        )
        encoder = self.gpu.create_command_encoder(label="zero queries")
        render_pass = encoder.begin_render_pass(
            color_attachments=[
                {"view": texture.create_view(), "load_op": "clear", "store_op": "discard"}
            ],
            occlusion_query_set=queries,
        )
        for index in range(count):
            render_pass.begin_occlusion_query(index)
            render_pass.end_occlusion_query()
        render_pass.end()
        with self._lock:
            self._check_there("create query set")
            self._watch_last()
            self.gpu.queue.submit([encoder.finish()])

    def _rehearse(
        self, targets: Targets, record: Callable[[NativeRenderCommands], None], label: str
    ) -> None:
        """Record the draws of a bundle into a render pass that is thrown away.

        What is wrong with them raises there; in a bundle it would abort the process.
        """

        def view(texture_format: str) -> Any:
            return self.gpu.create_texture(
                size=(1, 1, 1),
                format=texture_format,
                usage=wgpu.TextureUsage.RENDER_ATTACHMENT,
                sample_count=targets.sample_count,
            ).create_view()

        with translated(f"render bundle {label!r}"):
            depth = None
            if targets.depth_format is not None:
                depth = {"view": view(targets.depth_format.value)}
                if targets.depth_format.value != "stencil8":
                    depth |= {"depth_load_op": "clear", "depth_store_op": "discard"}
                    depth["depth_clear_value"] = 1.0
                if "stencil" in targets.depth_format.value:
                    depth |= {"stencil_load_op": "clear", "stencil_store_op": "discard"}
            encoder = self.gpu.create_command_encoder(label=f"rehearsal of {label}")
            render_pass = encoder.begin_render_pass(
                color_attachments=[
                    {
                        "view": view(texture_format.value),
                        "load_op": "clear",
                        "store_op": "discard",
                    }
                    for texture_format in targets.color_formats
                ],
                depth_stencil_attachment=depth,
            )
            record(WebGPUPassDraws(render_pass._internal))
            render_pass.end()
            encoder.finish()


def _work_done(reference: weakref.ref[WebGPUNative]) -> Callable[[Ticket, bool, str], None]:
    """Return what is called back when work ends; it does not keep a device that nobody has."""

    def called_back(number: Ticket, success: bool, message: str) -> None:
        alive = reference()
        done = None if alive is None else alive._in_flight.pop(number, None)
        if done is not None:
            text = f"submitted work did not end: {clean(message)}; open a new device"
            done(None if success else DeviceLostError(text))

    return called_back


class _Watcher:
    """Polls from a thread while a task waits, with naps that grow with the wait.

    The library's blocking poll would keep every other thread from submitting for as long as it
    waits, so this one never blocks in it.
    """

    _LINGER = 1.0  # seconds that the idle thread waits for more to do

    def __init__(self, poll: Callable[[], None]) -> None:
        self._poll = poll
        self._lock = threading.Lock()
        self._watched: list[Completion[Any]] = []
        self._more = threading.Event()
        self._running = False

    def watch(self, completion: Completion[Any]) -> None:
        """Poll until `completion` is done."""
        with self._lock:
            self._watched.append(completion)
            self._more.set()
            if not self._running:
                self._running = True
                thread = threading.Thread(target=self._run, name="pers-webgpu-poll", daemon=True)
                thread.start()

    def _run(self) -> None:
        while self._more.wait(self._LINGER) or not self._stop():
            self._more.clear()
            backoff = Backoff()
            while self._busy() and not self._more.is_set():
                self._poll()
                if self._busy():
                    backoff.nap()

    def _busy(self) -> bool:
        with self._lock:
            self._watched = [each for each in self._watched if not each.done]
            return bool(self._watched)

    def _stop(self) -> bool:
        with self._lock:
            self._running = bool(self._watched)
            return not self._running


def _redirect_destroy(gpu_device: Any, native: WebGPUNative) -> None:
    """Let pers abort its maps and keep its arrays before an application destroys its device."""
    reference, gpu_reference = weakref.ref(native), weakref.ref(gpu_device)

    def destroy() -> None:
        alive, gpu_alive = reference(), gpu_reference()
        if alive is not None:
            alive.destroy_outside()
        elif gpu_alive is not None:
            type(gpu_alive).destroy(gpu_alive)

    gpu_device.destroy = destroy
