"""The render device, on any backend."""

from __future__ import annotations

import contextlib
import logging
import threading
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar

import attrs
import numpy.typing as npt

from pers._checks import MAX_INT, items_of, of_type, whole_number
from pers._completion import Completion, ProgressSource
from pers._tracking import Trackable
from pers.buffers.belt import StagingBelt
from pers.buffers.claim import Claim
from pers.buffers.contents import check_layout, mapped_size
from pers.buffers.core import Buffer, MappableBuffer, check_creation
from pers.buffers.interfaces import IBuffer, IBufferFactory, IMappableBuffer
from pers.buffers.mapped_range import as_bytes_array, is_plain
from pers.buffers.readback_slots import ReadbackSlots, size_class
from pers.buffers.result import Result, Source
from pers.buffers.types import (
    COPY_ALIGNMENT,
    MAP_USAGES,
    BufferDesc,
    BufferLimits,
    BufferUsage,
    usage_names,
)
from pers.errors import (
    BufferRangeError,
    BufferStateError,
    BufferUsageError,
    DeviceLostError,
    OutOfMemoryError,
    PersError,
    ValidationError,
)
from pers.graphics.encoder import CommandEncoder
from pers.graphics.interfaces import (
    ErrorFilter,
    ErrorScope,
    IBindGroup,
    ICommandEncoder,
    IFrameBuffer,
    IPipeline,
    IQuerySet,
    IRenderBundleEncoder,
    IRenderDevice,
    ISampler,
    IShaderModule,
    ISurface,
)
from pers.graphics.native import BoundBuffer, NativeDevice, Targets, TexturePlace
from pers.graphics.passes import RenderBundleEncoder
from pers.graphics.queue import RenderQueue
from pers.graphics.resources import (
    BindGroup,
    FrameBuffer,
    Pipeline,
    QuerySet,
    Sampler,
    ShaderModule,
    Texture,
    check_fit,
    owned,
    owned_buffer,
)
from pers.graphics.submission import Submission
from pers.graphics.types import (
    BUFFER_KINDS,
    BindGroupLayout,
    BindingLayout,
    BufferBinding,
    ComputePipelineDescriptor,
    DeviceInfo,
    DeviceLimits,
    DeviceLostInfo,
    RenderPipelineDescriptor,
    RenderTarget,
    SamplerDescriptor,
    TextureDescriptor,
    check_sample_count,
    to_color_format,
    to_depth_format,
)
from pers.textures import (
    ITexture,
    TexelCopyTextureInfo,
    TextureFormat,
    TextureUsage,
    texture_info,
)

logger = logging.getLogger("pers.graphics")

_DEFAULT_SAMPLER = SamplerDescriptor()

Made = TypeVar("Made", bound=Buffer)

_UNIFORM = int(BufferUsage.UNIFORM)
_STORAGE = int(BufferUsage.STORAGE)
_MAP_BITS = int(MAP_USAGES)

_SCOPES: dict[ErrorFilter, tuple[type[PersError], ...]] = {
    "validation": (ValidationError, BufferStateError, BufferUsageError, BufferRangeError),
    "out-of-memory": (OutOfMemoryError,),
    "internal": (PersError,),
}


class RenderDevice(IRenderDevice):
    """A device: a `NativeDevice` with all the rules around it."""

    def __init__(self, native: NativeDevice) -> None:
        """Take over a native device."""
        self.native = native
        self._limits = native.limits
        self._features = native.features
        self._lost: Completion[DeviceLostInfo] = Completion("the loss of the device")
        self.closed = False
        """Whether it was lost or closed; `check_alive` raises then."""
        self._closed_why = ""
        self._buffers: set[weakref.ref[Buffer]] = set()  # much faster than a `WeakSet`
        self._forget_buffer = self._buffers.discard
        self._largest_buffer = self._limits.max_buffer_size
        self._lock = threading.RLock()
        self._factory = BufferFactory(self)
        self._queue = RenderQueue(self)
        self._belt = StagingBelt(self)
        self._readbacks = ReadbackSlots(
            self._factory,
            "read_array",
            max_idle=_IDLE_READBACKS,
            max_idle_bytes=_IDLE_READBACK_BYTES,
        )
        native.on_lost(_weak_loss(self))

    @property
    def info(self) -> DeviceInfo:
        return self.native.info

    @property
    def limits(self) -> DeviceLimits:
        return self._limits

    @property
    def features(self) -> frozenset[str]:
        return self._features

    @property
    def queue(self) -> RenderQueue:
        return self._queue

    @property
    def buffer_factory(self) -> IBufferFactory:
        return self._factory

    @property
    def belt(self) -> StagingBelt:
        return self._belt

    @property
    def native_handle(self) -> Any:
        return self.native.handle

    @property
    def is_lost(self) -> bool:
        return self.closed

    @property
    def lost(self) -> Completion[DeviceLostInfo]:
        return self._lost

    @property
    def progress(self) -> ProgressSource:
        """Who delivers maps and submissions."""
        return self.native

    def on_lost(self, callback: Callable[[DeviceLostInfo], None]) -> None:
        def call() -> None:
            try:
                callback(self._lost.result())
            except Exception:
                logger.exception("a callback of on_lost failed")

        self._lost.add_callback(call)

    @contextlib.contextmanager
    def error_scope(self, kind: ErrorFilter = "validation") -> Generator[ErrorScope]:
        if not isinstance(kind, str) or kind not in _SCOPES:
            raise ValidationError(
                f"an error scope is for one of {', '.join(_SCOPES)}, not {kind!r}"
            )
        scope = ErrorScope()
        try:
            yield scope
        except _SCOPES[kind] as error:
            scope.error = error

    def create_texture(self, descriptor: TextureDescriptor) -> ITexture:
        return self._texture(descriptor)

    def create_sampler(self, descriptor: SamplerDescriptor | None = None) -> ISampler:
        self.check_alive("create_sampler")
        if descriptor is None:
            descriptor = _DEFAULT_SAMPLER
        of_type(descriptor, SamplerDescriptor, "create_sampler")
        return Sampler(self, descriptor.label, self.native.create_sampler(descriptor))

    def create_shader_module(self, code: str, *, label: str = "") -> IShaderModule:
        self.check_alive("create_shader_module")
        if not isinstance(code, str):
            raise ValidationError(
                f"create_shader_module {label!r} takes WGSL as a string, not {type(code).__name__}"
            )
        return ShaderModule(self, label, self.native.create_shader_module(code, label))

    def create_bind_group(
        self,
        layout: BindGroupLayout,
        resources: Mapping[int, BufferBinding | IBuffer | ITexture | ISampler],
        *,
        label: str = "",
    ) -> IBindGroup:
        call = f"create_bind_group {label!r}"
        self.check_alive(call)
        of_type(layout, BindGroupLayout, call)
        if not isinstance(resources, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValidationError(
                f"{call} takes a dict from binding numbers to resources, not {resources!r}"
            )
        entries = layout.entries
        if len(resources) != len(entries) or any(each.binding not in resources for each in entries):
            raise ValidationError(
                f"{call}: the layout has bindings {sorted(each.binding for each in entries)}, but "
                f"{sorted(resources)} were given"
            )
        bound: dict[int, BoundBuffer | Texture | Sampler] = {}
        used: list[Trackable] = []
        dynamic: dict[int, tuple[BoundBuffer, int]] = {}
        for entry in entries:
            number = entry.binding
            resource = bound[number] = self._bind(entry, resources[number], call)
            if isinstance(resource, BoundBuffer):
                used.append(resource.buffer)
                if entry.dynamic_offset:
                    dynamic[number] = (resource, self._alignment(entry))
            elif isinstance(resource, Texture):
                used.append(resource)
        native = self.native.create_bind_group(layout, bound, label)
        in_order = tuple(dynamic[number] for number in sorted(dynamic))
        return BindGroup(self, label, native, layout, tuple(used), in_order)

    def create_render_pipeline(self, descriptor: RenderPipelineDescriptor) -> IPipeline:
        of_type(descriptor, RenderPipelineDescriptor, "create_render_pipeline")
        call = f"create_render_pipeline {descriptor.label!r}"
        check_sample_count(descriptor.sample_count, f"{call}: sample_count")
        shader = owned(descriptor.shader, ShaderModule, self, call)
        return self._pipeline(
            descriptor,
            "render",
            lambda: self.native.create_render_pipeline(descriptor, shader.native_handle),
        )

    def create_compute_pipeline(self, descriptor: ComputePipelineDescriptor) -> IPipeline:
        of_type(descriptor, ComputePipelineDescriptor, "create_compute_pipeline")
        call = f"create_compute_pipeline {descriptor.label!r}"
        shader = owned(descriptor.shader, ShaderModule, self, call)
        return self._pipeline(
            descriptor,
            "compute",
            lambda: self.native.create_compute_pipeline(descriptor, shader.native_handle),
        )

    def create_frame_buffer(
        self,
        width: int,
        height: int,
        color_formats: Sequence[TextureFormat] = (TextureFormat.RGBA8_UNORM_SRGB,),
        *,
        depth_format: TextureFormat | None = None,
        sample_count: int = 1,
        label: str = "",
    ) -> IFrameBuffer:
        call = f"create_frame_buffer {label!r}"
        targets = self._targets(call, color_formats, depth_format, sample_count)
        readable = (
            TextureUsage.RENDER_ATTACHMENT | TextureUsage.COPY_SRC | TextureUsage.TEXTURE_BINDING
        )

        def make(
            texture_format: TextureFormat, part: str, usage: TextureUsage, samples: int
        ) -> TexturePlace:
            name = f"{label} {part}".strip()
            return TexturePlace(
                self._texture(
                    TextureDescriptor(
                        width, height, texture_format, usage, name, sample_count=samples
                    )
                )
            )

        formats = targets.color_formats
        colors = tuple(make(f, f"color {i}", readable, 1) for i, f in enumerate(formats))
        multisampled: tuple[TexturePlace, ...] = ()
        if sample_count != 1:
            multisampled = tuple(
                make(f, f"samples {i}", TextureUsage.RENDER_ATTACHMENT, sample_count)
                for i, f in enumerate(formats)
            )
        depth = None
        if targets.depth_format is not None:
            usage = TextureUsage.RENDER_ATTACHMENT | TextureUsage.TEXTURE_BINDING
            if sample_count == 1:
                usage |= TextureUsage.COPY_SRC
            depth = make(targets.depth_format, "depth", usage, sample_count)
        return FrameBuffer(colors, depth, multisampled, label, owns_textures=True)

    def create_frame_buffer_from(
        self,
        colors: Sequence[ITexture | RenderTarget],
        depth: ITexture | RenderTarget | None = None,
        *,
        multisampled: Sequence[ITexture | RenderTarget] = (),
        label: str = "",
    ) -> IFrameBuffer:
        call = f"create_frame_buffer_from {label!r}"
        self.check_alive(call)
        kept = tuple(self._render_targets(colors, f"{call}: colors"))
        drawn = tuple(self._render_targets(multisampled, f"{call}: multisampled"))
        depths = () if depth is None else tuple(self._render_targets([depth], f"{call}: depth"))
        depth_format = depths[0].texture.format if depths else None
        self._targets(call, [place.texture.format for place in kept], depth_format, 1)
        check_fit(kept, drawn, depths, call)
        return FrameBuffer(kept, depths[0] if depths else None, drawn, label)

    def _render_targets(
        self, targets: Sequence[ITexture | RenderTarget], call: str
    ) -> Iterator[TexturePlace]:
        """Check things to draw to, each for itself."""
        for target in items_of(targets, call):
            one = target if isinstance(target, RenderTarget) else RenderTarget(target)
            texture = owned(one.texture, Texture, self, call)
            texture.check_usable(call)
            texture.check_usage(TextureUsage.RENDER_ATTACHMENT, call)
            yield TexturePlace(texture, one.mip_level, (0, 0, one.layer))

    def create_query_set(
        self, kind: Literal["occlusion", "timestamp"], count: int, *, label: str = ""
    ) -> IQuerySet:
        call = f"create_query_set {label!r}"
        self.check_alive(call)
        if kind not in ("occlusion", "timestamp"):
            raise ValidationError(f"{call}: kind must be 'occlusion' or 'timestamp', not {kind!r}")
        if kind == "timestamp" and "timestamp-query" not in self._features:
            raise ValidationError(
                f"{call}: timestamps need the feature 'timestamp-query'; open the device with it "
                "where `pers info` lists it"
            )
        number = whole_number(
            count, f"{call}: count", minimum=1, maximum=4096, error=ValidationError
        )
        handle = self.native.create_query_set(kind, number, label)
        return QuerySet(self, label, handle, kind, number, self.native.destroy_query_set)

    def create_command_encoder(self, label: str = "") -> ICommandEncoder:
        if self.closed:
            self.check_alive("create_command_encoder")
        return CommandEncoder(self, self.native.create_encoder(label), label)

    def create_render_bundle_encoder(
        self,
        color_formats: Sequence[TextureFormat],
        *,
        depth_format: TextureFormat | None = None,
        sample_count: int = 1,
        label: str = "",
    ) -> IRenderBundleEncoder:
        self.check_alive("create_render_bundle_encoder")
        call = f"create_render_bundle_encoder {label!r}"
        targets = self._targets(call, color_formats, depth_format, sample_count)
        return RenderBundleEncoder(self, targets, label)

    def create_surface(self, canvas: Any) -> ISurface:
        self.check_alive("create_surface")
        return self.native.create_surface(canvas, self)

    def upload(
        self, data: Any, target: IBuffer | ITexture | TexelCopyTextureInfo, offset: int = 0
    ) -> None:
        self._belt.upload(data, target, offset)

    async def read_array(
        self,
        source: IBuffer | ITexture | TexelCopyTextureInfo,
        dtype: npt.DTypeLike | None = None,
        shape: int | tuple[int, ...] | None = None,
        *,
        copy: bool = False,
    ) -> npt.NDArray[Any]:
        result = self._start_read(source, dtype, shape)
        return await result.array_async(dtype, shape, copy=copy)

    def read_array_blocking(
        self,
        source: IBuffer | ITexture | TexelCopyTextureInfo,
        dtype: npt.DTypeLike | None = None,
        shape: int | tuple[int, ...] | None = None,
        *,
        copy: bool = False,
    ) -> npt.NDArray[Any]:
        result = self._start_read(source, dtype, shape)
        return result.array_blocking(dtype, shape, copy=copy)

    def poll(self) -> None:
        if not self.is_lost:
            self.native.poll()

    def close(self) -> None:
        self.lose(DeviceLostInfo("destroyed", "the device was closed"))

    # What follows is for the parts of pers that the device is made of.

    def check_alive(self, call: str) -> None:
        """Raise `DeviceLostError` when the device was lost or closed."""
        if self.closed:
            raise DeviceLostError(f"{call}: {self._closed_why}; open a new device")

    def write_buffer(self, buffer: IBuffer, offset: int, data: Any) -> None:
        """Queue a write; see `IRenderQueue.write_buffer`."""
        self._queue.write_buffer(buffer, offset, data)

    def submit_uploads(self) -> None:
        """Submit what belts hold back, if the device is still there."""
        if not self.closed and (self._belt.has_pending or self._queue.other_belts):
            self._queue.on_work_done()  # every submit takes it

    def claim(self, buffer: Buffer) -> Claim | None:
        """Keep `buffer` from the GPU, or return None when the GPU has it or is to get it."""
        return None if self.closed else self._queue.claim(buffer)

    def ended_submission(self) -> Submission:
        """Return a submission that has ended, for work that needed none."""
        return self._queue.nothing

    def lose(self, info: DeviceLostInfo) -> None:
        """End the device: abort maps, destroy buffers, tell who waits."""
        with self._queue.lock, self._lock:
            if self.closed:
                return
            self.closed = True
            self._closed_why = info.message or f"the device was lost ({info.reason})"
            for reference in list(self._buffers):
                buffer = reference()
                if buffer is not None:
                    buffer.lose()
            self._readbacks.forget()
            self._queue.other_belts.clear()
        # Callers' callbacks run from here on, so no lock is held.
        self.native.destroy()
        self._lost.resolve(info)

    def make_buffer(self, desc: BufferDesc) -> Buffer:
        """Make a buffer without CPU access; see `IBufferFactory`."""
        if (
            type(desc) is not BufferDesc
            or desc.usage_bits & _MAP_BITS
            or desc.mapped_at_creation
            or desc.size > self._largest_buffer
            or self.closed
        ):
            self._check_buffer(desc, mappable=False)
        return self._keep(Buffer(desc, self.native.create_buffer(desc), self))

    def make_mappable_buffer(self, desc: BufferDesc) -> MappableBuffer:
        """Make a buffer that can be mapped; see `IBufferFactory`."""
        self._check_buffer(desc, mappable=True)
        return self._keep(MappableBuffer(desc, self.native.create_buffer(desc), self))

    def make_filled_buffer(self, desc: BufferDesc, data: npt.NDArray[Any]) -> Buffer:
        """Make a buffer with data in it; see `IBufferFactory`."""
        self._check_buffer(desc, mappable=False)
        if data.nbytes > desc.size or desc.size % COPY_ALIGNMENT:
            raise BufferRangeError(
                f"create buffer {desc.debug_name!r} with data: {desc.size} bytes are no multiple "
                f"of {COPY_ALIGNMENT}, or less than the {data.nbytes} bytes of the data"
            )
        if not data.nbytes:
            return self.make_buffer(desc)
        return self._keep(Buffer(desc, self.native.create_buffer_with_data(desc, data), self))

    def _check_buffer(self, desc: BufferDesc, *, mappable: bool) -> None:
        if type(desc) is not BufferDesc:
            of_type(desc, BufferDesc, "create a buffer")
        if self.closed:
            self.check_alive(f"create buffer {desc.debug_name!r}")
        check_creation(desc, self._factory.limits, mappable=mappable)

    def _keep(self, buffer: Made) -> Made:
        """Keep track of a new buffer for as long as it lives, for when the device is lost."""
        self._buffers.add(weakref.ref(buffer, self._forget_buffer))
        if self.closed:  # lost while the buffer was being made
            buffer.lose()
            self.check_alive(f"create buffer {buffer.debug_name!r}")
        return buffer

    def _texture(self, descriptor: TextureDescriptor) -> Texture:
        of_type(descriptor, TextureDescriptor, "create_texture")
        call = f"create texture {descriptor.label!r}"
        self.check_alive(call)
        limits = self._limits
        largest = max(descriptor.width, descriptor.height)
        if largest > limits.max_texture_dimension_2d:
            raise ValidationError(
                f"{call}: {descriptor.width}x{descriptor.height} is above the device's limit of "
                f"{limits.max_texture_dimension_2d} pixels; draw it in parts"
            )
        if descriptor.layers > limits.max_texture_array_layers:
            raise ValidationError(
                f"{call}: {descriptor.layers} layers are above the device's limit of "
                f"{limits.max_texture_array_layers}; use several textures"
            )
        return Texture(self, descriptor, self.native.create_texture(descriptor))

    def _targets(
        self,
        call: str,
        color_formats: Sequence[TextureFormat],
        depth_format: TextureFormat | None,
        sample_count: int,
    ) -> Targets:
        """Check what is to be drawn to."""
        colors = tuple(map(to_color_format, items_of(color_formats, f"{call}: color_formats")))
        depth = None if depth_format is None else to_depth_format(depth_format)
        check_sample_count(sample_count, f"{call}: sample_count")
        limit = self._limits.max_color_attachments
        if len(colors) > limit or (not colors and depth is None):
            raise ValidationError(
                f"{call}: it takes 1 to {limit} colour formats, or none and a depth format; not "
                f"{len(colors)}"
            )
        return Targets(colors, depth, sample_count)

    def _pipeline(
        self,
        descriptor: RenderPipelineDescriptor | ComputePipelineDescriptor,
        kind: Literal["render", "compute"],
        make: Callable[[], Any],
    ) -> Pipeline:
        self.check_alive(f"create_{kind}_pipeline {descriptor.label!r}")
        pipelines: dict[object, Pipeline] = descriptor.shader.pipelines
        key = attrs.evolve(descriptor, shader=None)
        with self._lock:
            known = pipelines.get(key)
        if known is not None:
            return known
        pipeline = Pipeline(self, descriptor.label, make(), kind, descriptor.bind_groups)
        with self._lock:
            return pipelines.setdefault(key, pipeline)

    def _bind(
        self,
        entry: BindingLayout,
        resource: BufferBinding | IBuffer | ITexture | ISampler,
        call: str,
    ) -> BoundBuffer | Texture | Sampler:
        if entry.kind in BUFFER_KINDS:
            if not isinstance(resource, BufferBinding):
                if not isinstance(resource, IBuffer):
                    raise ValidationError(
                        f"{_at(call, entry)} takes a buffer or BufferBinding, not "
                        f"{type(resource).__name__}"
                    )
                resource = BufferBinding(resource)
            return self._bind_buffer(entry, resource, call)
        what = _at(call, entry)
        if "sampler" in entry.kind:
            return owned(resource, Sampler, self, what)
        texture = owned(resource, Texture, self, what)
        texture.check_usable(what)
        storage = entry.kind == "storage-texture"
        texture.check_usage(
            TextureUsage.STORAGE_BINDING if storage else TextureUsage.TEXTURE_BINDING, what
        )
        return texture

    def _bind_buffer(self, entry: BindingLayout, binding: BufferBinding, call: str) -> BoundBuffer:
        given = binding.buffer
        core = given if type(given) is Buffer else getattr(given, "_stands_on", None)
        if type(core) is not Buffer or core.owner is not self:
            core = owned_buffer(given, self, _at(call, entry))
        uniform = entry.kind == "uniform"
        usage = _UNIFORM if uniform else _STORAGE
        if not core.usage_bits & usage:
            raise BufferUsageError(
                f"{_at(call, entry)}: {core.label} was created with {usage_names(core.usage)}; "
                f"it needs {usage_names(usage)}"
            )
        offset = binding.offset
        alignment = self._alignment(entry)
        if offset % alignment:
            raise BufferRangeError(
                f"{_at(call, entry)}: the offset must be a multiple of {alignment} bytes on this "
                f"device, not {offset}"
            )
        size = binding.size
        if size is not None:
            if type(size) is not int or size < 1:
                size = whole_number(size, f"{_at(call, entry)}: size", minimum=1)
        elif entry.dynamic_offset:
            if not entry.min_size:
                raise BufferRangeError(
                    f"{_at(call, entry)} has a dynamic offset, so the size of one record must be "
                    "known; pass BufferBinding(buffer, size=...)"
                )
            size = entry.min_size
        else:
            size = core.size - offset
        limit = (
            self._limits.max_uniform_buffer_binding_size
            if uniform
            else self._limits.max_storage_buffer_binding_size
        )
        if size <= 0 or offset + size > core.desc.size or size > limit:
            raise BufferRangeError(
                f"{_at(call, entry)}: {size} bytes at offset {offset} of {core.label} "
                f"({core.size} bytes); at most {limit} bytes inside the buffer can be bound"
            )
        if not uniform and size % 4:
            raise BufferRangeError(
                f"{_at(call, entry)}: the size must be a multiple of 4 bytes, not {size}"
            )
        if size < entry.min_size:
            raise BufferRangeError(
                f"{_at(call, entry)}: {size} bytes are below min_size {entry.min_size}"
            )
        return BoundBuffer(core, offset, size)

    def _alignment(self, entry: BindingLayout) -> int:
        if entry.kind == "uniform":
            return self._limits.min_uniform_buffer_offset_alignment
        return self._limits.min_storage_buffer_offset_alignment

    def _start_read(
        self,
        source: IBuffer | ITexture | TexelCopyTextureInfo,
        dtype: npt.DTypeLike | None,
        shape: int | tuple[int, ...] | None,
    ) -> Result:
        """Submit the copy of `source` into memory of the pool."""
        if not isinstance(source, IBuffer):
            owned(texture_info(source, "read_array").texture, Texture, self, "read_array")
        what = Source.of(source, 0, None, MAX_INT, "read_array")
        check_layout(what.contents, dtype, shape, "read_array")
        nbytes = mapped_size(what.contents, MAX_INT)
        self.check_alive("read_array")
        hold = self._readbacks.take(nbytes, size_class(nbytes, self._limits.max_buffer_size))
        encoder = self.create_command_encoder("read_array")
        what.record(encoder, hold.slot.buffer)
        self._queue.submit([encoder.finish()])
        return Result(self._readbacks, hold, what.contents, "read_array")


def _at(call: str, entry: BindingLayout) -> str:
    """Return how messages call a binding."""
    return f"{call}: binding {entry.binding} ({entry.kind})"


_IDLE_READBACKS = 32
_IDLE_READBACK_BYTES = 512 * 1024 * 1024
"""How much memory for results a device keeps while nobody looks at it."""


class BufferFactory(IBufferFactory):
    """Makes buffers on a device."""

    def __init__(self, device: RenderDevice) -> None:
        """Not called by users; ``device.buffer_factory`` is it."""
        self._device = device
        limits = device.limits
        self._limits = BufferLimits(
            max_buffer_size=limits.max_buffer_size,
            min_uniform_buffer_offset_alignment=limits.min_uniform_buffer_offset_alignment,
            min_storage_buffer_offset_alignment=limits.min_storage_buffer_offset_alignment,
            max_uniform_buffer_binding_size=limits.max_uniform_buffer_binding_size,
            max_storage_buffer_binding_size=limits.max_storage_buffer_binding_size,
            map_primary_buffers="mappable-primary-buffers" in device.features,
        )

    @property
    def limits(self) -> BufferLimits:
        return self._limits

    @property
    def lost(self) -> Completion[Any]:
        return self._device.lost

    def create_buffer(self, desc: BufferDesc) -> IBuffer:
        return self._device.make_buffer(desc)

    def create_mappable_buffer(self, desc: BufferDesc) -> IMappableBuffer:
        return self._device.make_mappable_buffer(desc)

    def create_buffer_with_data(self, desc: BufferDesc, data: Any) -> IBuffer:
        if not is_plain(data):
            data = as_bytes_array(data, "create_buffer_with_data")
        return self._device.make_filled_buffer(desc, data)


def _weak_loss(device: RenderDevice) -> Callable[[DeviceLostInfo], None]:
    """Tell `device` of its loss without keeping it alive."""
    reference = weakref.ref(device)

    def lost(info: DeviceLostInfo) -> None:
        alive = reference()
        if alive is not None:
            logger.error("device lost (%s): %s", info.reason, info.message)
            alive.lose(info)

    return lost
