"""The objects that a device makes, on any backend."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pers._tracking import Guard, Named, Trackable, UsageTag
from pers.buffers.core import Buffer, core_behind, core_buffer
from pers.errors import BufferRangeError, ValidationError
from pers.graphics.interfaces import (
    IBindGroup,
    IFrameBuffer,
    IPipeline,
    IQuerySet,
    IRenderBundle,
    ISampler,
    IShaderModule,
)
from pers.graphics.native import (
    Attachments,
    BoundBuffer,
    NativeBindGroup,
    NativeTexture,
    Targets,
    TexturePlace,
)
from pers.graphics.types import BindGroupLayout, TextureDescriptor
from pers.textures import ITexture, TextureFormat, TextureUsage

if TYPE_CHECKING:
    from pers._tracking import Recording
    from pers.graphics.device import RenderDevice

Owned = TypeVar("Owned", bound="DeviceObject")

_LARGEST_OFFSET = 2**32 - 1


class DeviceObject:
    """Something with a label that belongs to a device."""

    def __init__(self, device: RenderDevice, label: str, handle: Any) -> None:
        """Not called by users; the device makes its objects."""
        self.device = device
        self._label = label
        self._handle = handle

    @property
    def label(self) -> str:
        """The name used in error messages."""
        return self._label

    @property
    def native_handle(self) -> Any:
        """The backend's own object."""
        return self._handle

    @property
    def name(self) -> str:
        """How error messages call the object."""
        return f"{type(self).__name__.lower()} {self._label!r}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._label!r}>"


def owned(value: object, kind: type[Owned], device: RenderDevice, call: str) -> Owned:
    """Return `value` as a `kind` of `device`, or raise `ValidationError`."""
    if not isinstance(value, kind):
        raise ValidationError(
            f"{call} takes a {kind.__name__} of this device, not {type(value).__name__}"
        )
    if value.device is not device:
        raise ValidationError(f"{call}: {value.name} belongs to another device; make it on this")
    return value


def owned_buffer(value: object, device: RenderDevice, call: str, of: Named | None = None) -> Buffer:
    """Return the backend buffer behind `value`, or raise when it is not of `device`.

    Commands look at the two common cases themselves: `value` is a `Buffer`, or stands on one.

    Args:
        value: What a caller passed.
        device: The device that it has to belong to.
        call: What is called, for error messages.
        of: What it is called on. Its name is asked for only when something is wrong.
    """
    buffer = core_behind(value)
    if buffer is None or buffer.owner is not device:
        if of is not None:
            call = f"{of.name}: {call}"
        label = core_buffer(value, call).label
        raise ValidationError(f"{call}: {label} belongs to another device; make it on this")
    return buffer


class Sampler(DeviceObject, ISampler):
    """A sampler."""


class ShaderModule(DeviceObject, IShaderModule):
    """A compiled shader."""

    def __init__(self, device: RenderDevice, label: str, handle: Any) -> None:
        super().__init__(device, label, handle)
        self.pipelines: dict[object, Pipeline] = {}
        """What was made of it, by descriptors that leave it out; lives as long as it does."""


class Pipeline(DeviceObject, IPipeline):
    """A render or compute pipeline."""

    def __init__(
        self,
        device: RenderDevice,
        label: str,
        handle: Any,
        kind: Literal["render", "compute"],
        bind_groups: tuple[BindGroupLayout, ...],
    ) -> None:
        super().__init__(device, label, handle)
        self.kind = kind
        self._bind_groups = bind_groups

    @property
    def bind_groups(self) -> tuple[BindGroupLayout, ...]:
        return self._bind_groups


class BindGroup(DeviceObject, IBindGroup):
    """Bound resources, and what has to be known of them when they are used."""

    def __init__(
        self,
        device: RenderDevice,
        label: str,
        native: NativeBindGroup,
        layout: BindGroupLayout,
        resources: tuple[Trackable, ...],
        dynamic: tuple[tuple[BoundBuffer, int], ...],
    ) -> None:
        super().__init__(device, label, None)
        self.native = native
        self._layout = layout
        self.resources = resources
        self._dynamic = dynamic
        self.offset_limits = tuple(
            (alignment, min(bound.buffer.size - bound.offset - bound.size, _LARGEST_OFFSET))
            for bound, alignment in dynamic
        )
        """For each dynamic binding, what its offset is a multiple of, and the largest (bytes)."""

    @property
    def native_handle(self) -> Any:
        return self.native.handle

    @property
    def layout(self) -> BindGroupLayout:
        return self._layout

    def check_offsets(self, offsets: Sequence[int], call: str) -> tuple[int, ...]:
        """Return the offsets if one fits each dynamic binding (WebGPU §14.1), or raise."""
        try:
            checked = tuple(map(operator.index, offsets))
        except TypeError:
            raise BufferRangeError(
                f"{call}: dynamic offsets are whole numbers of bytes, not {offsets!r}"
            ) from None
        self.check_offset_count(len(checked), call)
        for place, (offset, (alignment, largest)) in enumerate(
            zip(checked, self.offset_limits, strict=True)
        ):
            if offset % alignment or not 0 <= offset <= largest:
                raise self.offset_error(place, offset, call)
        return checked

    def check_offset_count(self, count: int, call: str) -> None:
        """Raise unless there are so many dynamic bindings."""
        if count != len(self._dynamic):
            raise ValidationError(
                f"{call}: {self.name} takes {len(self._dynamic)} dynamic offsets, not {count}"
            )

    def offset_error(self, place: int, offset: int, call: str) -> BufferRangeError:
        """Return what is wrong with an offset for the dynamic binding at `place`."""
        bound, alignment = self._dynamic[place]
        if offset < 0 or offset % alignment:
            return BufferRangeError(
                f"{call}: dynamic offsets into {bound.buffer.label} are multiples of "
                f"{alignment} bytes on this device, not {offset}"
            )
        if bound.offset + offset + bound.size <= bound.buffer.size:
            return BufferRangeError(
                f"{call}: dynamic offsets have 32 bits, so {offset} is too far into "
                f"{bound.buffer.label}; bind it with an offset of its own"
            )
        return BufferRangeError(
            f"{call}: dynamic offset {offset} puts a record of {bound.size} bytes beyond "
            f"the end of {bound.buffer.label} ({bound.buffer.size} bytes)"
        )


class RenderBundle(DeviceObject, IRenderBundle):
    """Recorded draws."""

    def __init__(
        self, device: RenderDevice, label: str, handle: Any, recording: Recording, targets: Targets
    ) -> None:
        super().__init__(device, label, handle)
        self.recording = recording
        self.targets = targets


class QuerySet(DeviceObject, IQuerySet):
    """A query set."""

    def __init__(
        self,
        device: RenderDevice,
        label: str,
        handle: Any,
        kind: Literal["occlusion", "timestamp"],
        count: int,
        destroy: Callable[[Any], None],
    ) -> None:
        super().__init__(device, label, handle)
        self.usage_tag = UsageTag()
        self.guard = Guard(self.name)
        self._kind: Literal["occlusion", "timestamp"] = kind
        self._count = count
        self._destroy = destroy
        self._destroyed = False

    @property
    def count(self) -> int:
        return self._count

    @property
    def kind(self) -> Literal["occlusion", "timestamp"]:
        return self._kind

    def destroy(self) -> None:
        with self.guard:
            if not self._destroyed:
                self._destroyed = True
                self._destroy(self._handle)

    @property
    def is_usable(self) -> bool:
        """Whether it was not destroyed."""
        return not self._destroyed

    def check_usable(self, call: str) -> None:
        """Raise when it was destroyed."""
        if self._destroyed:
            raise ValidationError(f"{call}: {self.name} was destroyed; create a new one")


class Texture(DeviceObject, ITexture):
    """A texture."""

    def __init__(
        self, device: RenderDevice, descriptor: TextureDescriptor, native: NativeTexture
    ) -> None:
        super().__init__(device, descriptor.label, None)
        self.descriptor = descriptor
        self.native = native
        self.usage_tag = UsageTag()
        self.guard = Guard(self.name)
        self._destroyed = False

    @property
    def width(self) -> int:
        return self.descriptor.width

    @property
    def height(self) -> int:
        return self.descriptor.height

    @property
    def layers(self) -> int:
        return self.descriptor.layers

    @property
    def mip_levels(self) -> int:
        return self.descriptor.mip_levels

    @property
    def sample_count(self) -> int:
        return self.descriptor.sample_count

    @property
    def format(self) -> TextureFormat:
        return self.descriptor.format

    @property
    def usage(self) -> TextureUsage:
        return self.descriptor.usage

    @property
    def native_handle(self) -> Any:
        return self.native.handle

    @property
    def is_valid(self) -> bool:
        return not self._destroyed and not self.device.is_lost

    def destroy(self) -> None:
        try:
            if self.usage_tag.is_recorded:
                self.device.submit_uploads()
        finally:
            with self.guard:
                if not self._destroyed:
                    self._destroyed = True
                    self.native.destroy()

    @property
    def is_usable(self) -> bool:
        """Whether it was not destroyed."""
        return not self._destroyed

    def check_usable(self, call: str) -> None:
        """Raise when it was destroyed."""
        if self._destroyed:
            raise ValidationError(f"{call}: {self.name} was destroyed; create a new one")

    def check_usage(self, usage: TextureUsage, call: str) -> None:
        """Raise unless it may be used so."""
        if not int(self.descriptor.usage) & int(usage):
            raise ValidationError(
                f"{call}: {self.name} was created without TextureUsage.{usage.name}; "
                "add it to the usage of its TextureDescriptor"
            )

    def __repr__(self) -> str:
        return f"<Texture {self.label!r}: {self.width}x{self.height} {self.format.value}>"


def check_fit(
    colors: Sequence[TexturePlace],
    multisampled: Sequence[TexturePlace],
    depths: Sequence[TexturePlace],
    call: str,
) -> None:
    """Raise `ValidationError` unless a pass can draw to all of them (WebGPU §17.1.1)."""
    for color in colors:
        if color.texture.sample_count != 1:
            raise ValidationError(
                f"{call}: {color.texture.name} has {color.texture.sample_count} samples; colors "
                "have one, so pass it as multisampled and a single-sampled one as color"
            )
    if multisampled and [
        (place.texture.format, place.texture.sample_count > 1) for place in multisampled
    ] != [(place.texture.format, True) for place in colors]:
        raise ValidationError(
            f"{call}: multisampled takes one texture with 4 samples for each color, of its format"
        )
    drawn = multisampled or colors or depths
    for depth in depths:
        if depth.texture.sample_count != drawn[0].texture.sample_count:
            raise ValidationError(
                f"{call}: {depth.texture.name} has {depth.texture.sample_count} samples, but "
                f"{drawn[0].texture.sample_count} are drawn; both must be the same"
            )
    places = [*colors, *multisampled, *depths]
    for place in places:
        if place.level_size != places[0].level_size:
            width, height = place.level_size
            raise ValidationError(
                f"{call}: {place.texture.name} is {width}x{height} there, not "
                f"{'x'.join(map(str, places[0].level_size))} as the others; draw in two passes"
            )
    if len(set(places)) != len(places):
        raise ValidationError(
            f"{call}: a layer of a texture comes twice; draw to another, or in two passes"
        )


class FrameBuffer(IFrameBuffer):
    """Colour and depth targets."""

    def __init__(
        self,
        colors: tuple[TexturePlace, ...],
        depth: TexturePlace | None = None,
        multisampled: tuple[TexturePlace, ...] = (),
        label: str = "",
        *,
        owns_textures: bool = False,
    ) -> None:
        """Not called by users.

        Args:
            colors: Single-sampled colours. Each place is one layer of one mip level.
            depth: The depth target, with as many samples as are drawn.
            multisampled: What is drawn to and resolved into `colors`; empty for one sample.
            label: A name for error messages.
            owns_textures: Whether `destroy` destroys them.
        """
        places = (*colors, *multisampled, *(() if depth is None else (depth,)))
        self._colors = tuple(place.texture for place in colors)
        self._depth = None if depth is None else depth.texture
        self._size: tuple[int, int] = places[0].level_size
        self._sample_count: int = places[-1].texture.sample_count
        self._owns_textures = owns_textures
        self.label = label
        self.textures: tuple[Texture, ...] = tuple(place.texture for place in places)
        """All textures that a pass touches."""
        self.targets = Targets(self.color_formats, self.depth_format, self._sample_count)
        """The formats a bundle has to be made for."""
        drawn = multisampled or colors
        resolved = colors if multisampled else (None,) * len(colors)
        self.attachments = Attachments(tuple(zip(drawn, resolved, strict=True)), depth)
        """What passes draw to."""

    @property
    def width(self) -> int:
        return self._size[0]

    @property
    def height(self) -> int:
        return self._size[1]

    @property
    def sample_count(self) -> int:
        return self._sample_count

    @property
    def color_textures(self) -> tuple[ITexture, ...]:
        return self._colors

    @property
    def depth_texture(self) -> ITexture | None:
        return self._depth

    def destroy(self) -> None:
        if self._owns_textures:
            for texture in self.textures:
                texture.destroy()

    def __repr__(self) -> str:
        formats = ", ".join(texture_format.value for texture_format in self.color_formats)
        return f"<FrameBuffer {self.label!r}: {self.width}x{self.height}, {formats}>"
