"""The command encoder, on any backend: checks, and notes what the commands use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pers._checks import whole_number
from pers._tracking import Recording
from pers.buffers.core import Buffer
from pers.buffers.interfaces import IBuffer
from pers.buffers.types import COPY_ALIGNMENT, BufferUsage, usage_names
from pers.errors import (
    BufferRangeError,
    BufferStateError,
    BufferUsageError,
    ValidationError,
)
from pers.graphics.interfaces import (
    Color,
    ICommandBuffer,
    ICommandEncoder,
    IComputePass,
    IFrameBuffer,
    IQuerySet,
    IRenderPass,
)
from pers.graphics.native import BufferPlace, NativeEncoder, TexturePlace
from pers.graphics.passes import ComputePass, PassBase, RenderPass, call_site
from pers.graphics.resources import FrameBuffer, QuerySet, Texture, owned, owned_buffer
from pers.textures import (
    ROW_ALIGNMENT,
    ITexture,
    TexelCopyBufferInfo,
    TexelCopyTextureInfo,
    TextureFormat,
    TextureRows,
    TextureUsage,
    mip_extent,
    three_numbers,
)

if TYPE_CHECKING:
    from pers.graphics.device import RenderDevice

_COPY_SRC = int(BufferUsage.COPY_SRC)
_COPY_DST = int(BufferUsage.COPY_DST)
_QUERY_RESOLVE = int(BufferUsage.QUERY_RESOLVE)

QUERY_RESOLVE_ALIGNMENT = 256
"""Query results start at multiples of this many bytes (WebGPU §13.6)."""


class CommandBuffer(ICommandBuffer):
    """Recorded commands and what they use."""

    def __init__(self, device: RenderDevice, label: str, handle: Any, recording: Recording) -> None:
        """Not called by users; `ICommandEncoder.finish` makes command buffers."""
        self.device = device
        self._label = label
        self.handle = handle
        self.recording = recording
        self.submitted = False

    @property
    def label(self) -> str:
        return self._label

    @property
    def name(self) -> str:
        """How error messages call it."""
        return f"command buffer {self._label!r}"

    def __repr__(self) -> str:
        return f"<CommandBuffer {self._label!r}{': submitted' if self.submitted else ''}>"


class CommandEncoder(ICommandEncoder):
    """Records commands."""

    def __init__(self, device: RenderDevice, native: NativeEncoder, label: str) -> None:
        """Not called by users; `IRenderDevice.create_command_encoder` makes encoders."""
        self._device = device
        self._native = native
        self._label = label
        self._recording = Recording()
        self._open_pass: PassBase | None = None
        self._finished = False

    @property
    def recording(self) -> Recording:
        """What the commands use."""
        return self._recording

    def copy_buffer_to_buffer(
        self,
        source: IBuffer,
        source_offset: int,
        target: IBuffer,
        target_offset: int,
        size: int | None = None,
    ) -> None:
        if self._finished or self._open_pass is not None or self._device.closed:
            self._check_idle("copy_buffer_to_buffer")
        origin = self._buffer(source, _COPY_SRC, "copy_buffer_to_buffer: source")
        goal = self._buffer(target, _COPY_DST, "copy_buffer_to_buffer: target")
        if origin is goal:
            raise BufferUsageError(
                f"{self.name}: copy_buffer_to_buffer: source and target are both {origin.label}; "
                "copy through a third buffer (WebGPU §13.3)"
            )
        if size is None or not (type(source_offset) is type(target_offset) is type(size) is int):
            call = f"{self.name}: copy_buffer_to_buffer"
            source_offset = whole_number(source_offset, f"{call}: source_offset")
            target_offset = whole_number(target_offset, f"{call}: target_offset")
            if size is None:
                size = max(origin.desc.size - source_offset, 0)
            else:
                size = whole_number(size, f"{call}: size")
        if (
            (source_offset | target_offset | size) % COPY_ALIGNMENT
            or not 0 <= source_offset <= source_offset + size <= origin.desc.size
            or not 0 <= target_offset <= target_offset + size <= goal.desc.size
        ):
            call = f"{self.name}: copy_buffer_to_buffer"
            check_bytes(origin, source_offset, size, f"{call}: source")
            check_bytes(goal, target_offset, size, f"{call}: target")
        self._recording.use(origin)
        self._recording.use(goal)
        self._native.copy_buffer_to_buffer(origin, source_offset, goal, target_offset, size)

    def copy_buffer_to_texture(
        self,
        source: TexelCopyBufferInfo | IBuffer,
        target: TexelCopyTextureInfo | ITexture,
        size: tuple[int, int, int] | None = None,
    ) -> None:
        self._begin("copy_buffer_to_texture")
        call = f"{self.name}: copy_buffer_to_texture"
        goal, extent = texture_place(self._device, target, size, TextureUsage.COPY_DST, call)
        if goal.texture.format is TextureFormat.DEPTH32_FLOAT:
            raise ValidationError(
                f"{call}: {goal.texture.name} (depth32float) takes no pixels from buffers (WebGPU "
                "§26.1.2); draw into it"
            )
        origin = self._pixels(source, _COPY_SRC, goal, extent, "copy_buffer_to_texture")
        self._recording.use(origin.buffer)
        self._recording.use(goal.texture)
        if all(extent):  # wgpu-native aborts the process on some empty copies
            self._native.copy_buffer_to_texture(origin, goal, extent)

    def copy_texture_to_buffer(
        self,
        source: TexelCopyTextureInfo | ITexture,
        target: TexelCopyBufferInfo | IBuffer,
        size: tuple[int, int, int] | None = None,
    ) -> None:
        self._begin("copy_texture_to_buffer")
        call = f"{self.name}: copy_texture_to_buffer"
        origin, extent = texture_place(self._device, source, size, TextureUsage.COPY_SRC, call)
        goal = self._pixels(target, _COPY_DST, origin, extent, "copy_texture_to_buffer")
        self._recording.use(origin.texture)
        self._recording.use(goal.buffer)
        if all(extent):
            self._native.copy_texture_to_buffer(origin, goal, extent)

    def copy_texture_to_texture(
        self,
        source: TexelCopyTextureInfo | ITexture,
        target: TexelCopyTextureInfo | ITexture,
        size: tuple[int, int, int] | None = None,
    ) -> None:
        self._begin("copy_texture_to_texture")
        call = f"{self.name}: copy_texture_to_texture"
        origin, extent = texture_place(self._device, source, size, TextureUsage.COPY_SRC, call)
        goal, _ = texture_place(self._device, target, extent, TextureUsage.COPY_DST, call)
        if origin.texture.format is not goal.texture.format:
            raise ValidationError(
                f"{call}: {origin.texture.name} is {origin.texture.format.value}, but "
                f"{goal.texture.name} is {goal.texture.format.value}; draw or compute to convert"
            )
        self._recording.use(origin.texture)
        self._recording.use(goal.texture)
        if all(extent):
            self._native.copy_texture_to_texture(origin, goal, extent)

    def clear_buffer(self, buffer: IBuffer, offset: int = 0, size: int | None = None) -> None:
        if self._finished or self._open_pass is not None or self._device.closed:
            self._check_idle("clear_buffer")
        core = self._buffer(buffer, _COPY_DST, "clear_buffer")
        if size is None or not (type(offset) is type(size) is int):
            call = f"{self.name}: clear_buffer"
            offset = whole_number(offset, f"{call}: offset")
            if size is None:
                size = max(core.desc.size - offset, 0)
            else:
                size = whole_number(size, f"{call}: size")
        if (offset | size) % COPY_ALIGNMENT or not 0 <= offset <= offset + size <= core.desc.size:
            check_bytes(core, offset, size, f"{self.name}: clear_buffer")
        self._recording.use(core)
        if size:
            self._native.clear_buffer(core, offset, size)

    def begin_render_pass(
        self,
        frame_buffer: IFrameBuffer,
        *,
        clear_color: Color | None = (0.0, 0.0, 0.0, 1.0),
        clear_depth: float | None = 1.0,
        occlusion_queries: IQuerySet | None = None,
        label: str = "",
    ) -> IRenderPass:
        self._begin("begin_render_pass")
        if not isinstance(frame_buffer, FrameBuffer):
            raise ValidationError(
                f"{self.name}: begin_render_pass takes a frame buffer of this device, not "
                f"{type(frame_buffer).__name__}"
            )
        device = self._device
        for texture in frame_buffer.textures:
            if texture.device is not device or not texture.is_usable:
                call = f"{self.name}: begin_render_pass"
                owned(texture, Texture, device, call).check_usable(call)
            self._recording.use(texture)
        color = None if clear_color is None else self._color(clear_color)
        if clear_depth is not None and not (
            isinstance(clear_depth, int | float) and 0.0 <= clear_depth <= 1.0
        ):
            raise ValidationError(
                f"{self.name}: begin_render_pass: clear_depth must be 0.0 to 1.0, not "
                f"{clear_depth!r}"
            )
        queries = None
        if occlusion_queries is not None:
            call = f"{self.name}: begin_render_pass"
            queries = owned(occlusion_queries, QuerySet, device, call)
            if queries.kind != "occlusion":
                raise ValidationError(
                    f"{call}: {queries.name} counts {queries.kind}s, not occlusion"
                )
            self._recording.use(queries)
        render_pass = RenderPass(
            device,
            self._recording,
            self._native.begin_render_pass(
                frame_buffer.attachments, color, clear_depth, queries, label
            ),
            frame_buffer.targets,
            0 if queries is None else queries.count,
            (("encoder", self._label), ("render pass", label)),
            call_site(),
        )
        self._open_pass = render_pass
        return render_pass

    def begin_compute_pass(self, *, label: str = "") -> IComputePass:
        self._begin("begin_compute_pass")
        compute_pass = ComputePass(
            self._device,
            self._recording,
            self._native.begin_compute_pass(label),
            (("encoder", self._label), ("compute pass", label)),
            call_site(),
        )
        self._open_pass = compute_pass
        return compute_pass

    def resolve_query_set(
        self,
        query_set: IQuerySet,
        first_query: int,
        query_count: int,
        target: IBuffer,
        target_offset: int = 0,
    ) -> None:
        self._begin("resolve_query_set")
        call = f"{self.name}: resolve_query_set"
        queries = owned(query_set, QuerySet, self._device, call)
        queries.check_usable(call)
        core = self._buffer(target, _QUERY_RESOLVE, "resolve_query_set")
        first = whole_number(first_query, f"{call}: first_query", error=ValidationError)
        count = whole_number(query_count, f"{call}: query_count", error=ValidationError)
        if first + count > queries.count:
            raise ValidationError(
                f"{call}: queries {first} to {first + count} are not all in {queries.name}, "
                f"which has {queries.count}"
            )
        start = whole_number(target_offset, f"{call}: target_offset")
        if start % QUERY_RESOLVE_ALIGNMENT:
            raise BufferRangeError(
                f"{call}: target_offset must be a multiple of {QUERY_RESOLVE_ALIGNMENT} bytes, "
                f"not {start}"
            )
        check_bytes(core, start, 8 * count, call)
        self._recording.use(queries)
        self._recording.use(core)
        if count:
            self._native.resolve_query_set(queries, first, count, core, start)

    def finish(self) -> ICommandBuffer:
        self._begin("finish")
        self._finished = True
        return CommandBuffer(self._device, self._label, self._native.finish(), self._recording)

    @property
    def name(self) -> str:
        """How error messages call it."""
        return f"encoder {self._label!r}"

    def _begin(self, call: str) -> None:
        """Check that the encoder takes commands now."""
        if self._finished or self._open_pass is not None or self._device.closed:
            self._check_idle(call)

    def _check_idle(self, call: str) -> None:
        what = f"{self.name}: {call}"
        if self._finished:
            raise ValidationError(f"{what} after finish; create a new encoder")
        if self._open_pass is not None:
            if self._open_pass.is_open:
                raise ValidationError(
                    f"{what} while {self._open_pass.name} is open (begun at "
                    f"{self._open_pass.site}); end it first, best with a ``with`` block"
                )
            self._open_pass = None
        self._device.check_alive(what)

    # The text of a message is made when it is needed, since that costs as much as some commands.

    def _buffer(self, buffer: IBuffer, usage: int, what: str) -> Buffer:
        core = buffer if type(buffer) is Buffer else getattr(buffer, "_stands_on", None)
        if type(core) is not Buffer or core.owner is not self._device:
            core = owned_buffer(buffer, self._device, what, self)
        if not core.usage_bits & usage:
            raise BufferUsageError(
                f"{self.name}: {what}: {core.label} was created with {usage_names(core.usage)}; "
                f"it needs {usage_names(usage)}"
            )
        if core.native_gone:
            raise BufferStateError(
                f"{self.name}: {what}: {core.label} is destroyed; create a new one"
            )
        return core

    def _color(self, value: tuple[float, float, float, float]) -> Color:
        try:
            r, g, b, a = value
            return float(r), float(g), float(b), float(a)
        except (TypeError, ValueError):
            raise ValidationError(
                f"{self.name}: begin_render_pass: clear_color takes four numbers (red, green, "
                f"blue, alpha), not {value!r}"
            ) from None

    def _pixels(
        self,
        place: TexelCopyBufferInfo | IBuffer,
        usage: int,
        texture: TexturePlace,
        size: tuple[int, int, int],
        command: str,
    ) -> BufferPlace:
        """Check pixels in a buffer (WebGPU §13.5)."""
        info = place if isinstance(place, TexelCopyBufferInfo) else TexelCopyBufferInfo(place)
        core = self._buffer(info.buffer, usage, command)
        call = f"{self.name}: {command}"
        samples = texture.texture.sample_count
        if samples != 1:
            raise ValidationError(
                f"{call}: {texture.texture.name} has {samples} samples of each pixel, which cannot "
                "be copied to or from a buffer (WebGPU §13.5); draw into it, or copy from what it "
                "is resolved to"
            )
        width, height, layers = size
        rows = TextureRows(texture.texture.format, width, height, layers)
        offset = whole_number(info.offset, f"{call}: offset")
        pixel = rows.format.bytes_per_pixel
        if offset % pixel or (rows.format.is_depth and offset % COPY_ALIGNMENT):
            raise BufferRangeError(
                f"{call}: the offset must be a multiple of {pixel} bytes for "
                f"{rows.format.value}, not {offset}"
            )
        per_row = rows.bytes_per_row
        if info.bytes_per_row is not None:
            per_row = whole_number(info.bytes_per_row, f"{call}: bytes_per_row")
        per_image = height
        if info.rows_per_image is not None:
            per_image = whole_number(info.rows_per_image, f"{call}: rows_per_image")
        if per_row % ROW_ALIGNMENT or per_row < width * pixel or per_image < height:
            raise BufferRangeError(
                f"{call}: bytes_per_row must be a multiple of {ROW_ALIGNMENT} and at least "
                f"{width * pixel}, rows_per_image at least {height}; not {per_row} and {per_image}"
            )
        if width and height and layers:
            last_image = per_row * (height - 1) + width * pixel
            needed = per_row * per_image * (layers - 1) + last_image
            if offset + needed > core.size:
                raise BufferRangeError(
                    f"{call}: {width}x{height} pixels of {rows.format.value} with rows of "
                    f"{per_row} bytes take {needed} bytes at offset {offset}, but {core.label} "
                    f"has {core.size}"
                )
        return BufferPlace(core, offset, per_row, per_image)


def check_bytes(buffer: Buffer, offset: int, size: int, call: str) -> None:
    """Raise unless a part of a buffer is aligned to 4 bytes and in bounds."""
    offset = whole_number(offset, f"{call} offset")
    size = whole_number(size, f"{call} size")
    if offset % COPY_ALIGNMENT or size % COPY_ALIGNMENT:
        raise BufferRangeError(
            f"{call}: offset and size must be multiples of {COPY_ALIGNMENT} bytes, not "
            f"{offset} and {size}"
        )
    if offset + size > buffer.size:
        raise BufferRangeError(
            f"{call}: {size} bytes at offset {offset} reach beyond the end of {buffer.label} "
            f"({buffer.size} bytes)"
        )


def texture_place(
    device: RenderDevice,
    place: TexelCopyTextureInfo | ITexture,
    size: tuple[int, int, int] | None,
    usage: TextureUsage,
    call: str,
) -> tuple[TexturePlace, tuple[int, int, int]]:
    """Check a part of a texture; return it and its size."""
    if not isinstance(place, TexelCopyTextureInfo):
        place = TexelCopyTextureInfo(place)
    texture = owned(place.texture, Texture, device, call)
    texture.check_usage(usage, call)
    texture.check_usable(call)
    level = whole_number(
        place.mip_level, f"{call}: mip_level", maximum=texture.mip_levels - 1, error=ValidationError
    )
    origin = place.origin
    checked = TexturePlace(texture, level, origin)
    available = mip_extent(place)
    extent = available if size is None else three_numbers(size, f"{call}: size")
    if any(wanted > there for wanted, there in zip(extent, available, strict=True)):
        raise BufferRangeError(
            f"{call}: {extent} (width, height, layers) at {origin} reach beyond {texture.name}, "
            f"where {available} are left in mip level {level}"
        )
    return checked, extent
