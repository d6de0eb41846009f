"""The port to a backend: verbs without checks.

A backend implements `NativeDevice` and what it returns. `pers.graphics.device.RenderDevice` and
its companions put the rules around it once for all backends: arguments are whole numbers in
range, objects are alive and of this device, offsets are aligned. A native call may still find
something wrong; it then raises one of the exceptions in `pers.errors`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import attrs
import numpy.typing as npt

from pers._completion import Completion, ProgressSource
from pers.buffers.core import Buffer, NativeBuffer
from pers.buffers.types import BufferDesc
from pers.errors import PersError
from pers.graphics.types import (
    BindGroupLayout,
    ComputePipelineDescriptor,
    DeviceInfo,
    DeviceLimits,
    DeviceLostInfo,
    IndexFormat,
    RenderPipelineDescriptor,
    SamplerDescriptor,
    TextureDescriptor,
)
from pers.textures import TextureFormat

if TYPE_CHECKING:
    from pers.graphics.device import RenderDevice
    from pers.graphics.interfaces import ISurface
    from pers.graphics.resources import QuerySet, Sampler, Texture

Done = Callable[[PersError | None], None]
"""Called once when something has ended: with None, or with what went wrong. On any thread."""


class NativeTexture(ABC):
    """What a backend does for one texture."""

    @property
    @abstractmethod
    def handle(self) -> Any:
        """The backend's own object."""

    @abstractmethod
    def destroy(self) -> None:
        """Give the memory back. Called once."""


class NativeBindGroup(ABC):
    """Bound resources."""

    internal: Any = None
    """What the backend's own calls take for it, if that is something else."""

    @property
    @abstractmethod
    def handle(self) -> Any:
        """The backend's own object."""


@attrs.frozen
class BoundBuffer:
    """A part of a buffer in a bind group; `size` is what the shader sees."""

    buffer: Buffer
    offset: int
    size: int


Bound = "BoundBuffer | Texture | Sampler"


@attrs.frozen
class BufferPlace:
    """Checked pixels in a buffer."""

    buffer: Buffer
    offset: int
    bytes_per_row: int
    rows_per_image: int


@attrs.frozen
class TexturePlace:
    """A checked place in a texture."""

    texture: Texture
    mip_level: int = 0
    origin: tuple[int, int, int] = (0, 0, 0)

    @property
    def level_size(self) -> tuple[int, int]:
        """Width and height of the mip level."""
        texture = self.texture
        return max(texture.width >> self.mip_level, 1), max(texture.height >> self.mip_level, 1)


@attrs.define(eq=False)
class Attachments:
    """What render passes draw to; one for each frame buffer.

    Attributes:
        colors: What is drawn to, each with what it is resolved to (None for one sample). All are
            one layer of one mip level.
        depth: The depth target.
        prepared: What the backend keeps with them, for the next pass.
    """

    colors: tuple[tuple[TexturePlace, TexturePlace | None], ...]
    depth: TexturePlace | None
    prepared: Any = None


@attrs.frozen
class Targets:
    """The formats a render bundle is made for."""

    color_formats: tuple[TextureFormat, ...]
    depth_format: TextureFormat | None
    sample_count: int


class NativeRenderCommands(ABC):
    """Draws into something.

    `pipeline` is a backend handle, `bind_group` a `NativeBindGroup` and `buffer` a `NativeBuffer`,
    all of the same backend. Numbers of draws may be out of range: that raises `OverflowError`, and
    what is no number `TypeError`.
    """

    @abstractmethod
    def set_pipeline(self, pipeline: Any) -> None: ...

    @abstractmethod
    def set_bind_group(self, index: int, bind_group: Any, offsets: Sequence[int]) -> None: ...

    @abstractmethod
    def set_vertex_buffer(self, slot: int, buffer: Any, offset: int, size: int) -> None: ...

    @abstractmethod
    def set_index_buffer(
        self, buffer: Any, index_format: IndexFormat, offset: int, size: int
    ) -> None: ...

    @abstractmethod
    def draw(
        self, vertex_count: int, instance_count: int, first_vertex: int, first_instance: int
    ) -> None: ...

    @abstractmethod
    def draw_indexed(
        self,
        index_count: int,
        instance_count: int,
        first_index: int,
        base_vertex: int,
        first_instance: int,
    ) -> None: ...

    def draw_many(
        self,
        draws: npt.NDArray[Any],
        index: int,
        bind_group: Any,
        offsets: npt.NDArray[Any],
    ) -> None:
        """Call `draw` for each row of `draws`, all of them in range.

        Args:
            draws: Arguments of `draw`, shape (n, 4).
            index: Number of the bind group.
            bind_group: Set before each draw; None leaves what is set.
            offsets: Its offsets, C-contiguous uint32, shape (n, number of offsets).
        """
        self._many(self.draw, draws, index, bind_group, offsets)

    def draw_indexed_many(
        self,
        draws: npt.NDArray[Any],
        index: int,
        bind_group: Any,
        offsets: npt.NDArray[Any],
    ) -> None:
        """The same with `draw_indexed`: shape (n, 5)."""
        self._many(self.draw_indexed, draws, index, bind_group, offsets)

    @abstractmethod
    def draw_indirect(self, buffer: Any, offset: int) -> None: ...

    @abstractmethod
    def draw_indexed_indirect(self, buffer: Any, offset: int) -> None: ...

    def _many(
        self,
        draw: Callable[..., None],
        draws: npt.NDArray[Any],
        index: int,
        bind_group: Any,
        offsets: npt.NDArray[Any],
    ) -> None:
        for numbers, row in zip(draws.tolist(), offsets.tolist(), strict=True):
            if bind_group is not None:
                self.set_bind_group(index, bind_group, row)
            draw(*numbers)


class NativeRenderPass(NativeRenderCommands):
    """Draws into attachments."""

    @abstractmethod
    def set_viewport(
        self, x: float, y: float, width: float, height: float, min_depth: float, max_depth: float
    ) -> None: ...

    @abstractmethod
    def set_scissor_rect(self, x: int, y: int, width: int, height: int) -> None: ...

    @abstractmethod
    def execute_bundles(self, bundles: Sequence[Any]) -> None: ...

    @abstractmethod
    def multi_draw_indirect(self, buffer: Any, offset: int, count: int) -> None: ...

    @abstractmethod
    def multi_draw_indexed_indirect(self, buffer: Any, offset: int, count: int) -> None: ...

    @abstractmethod
    def begin_occlusion_query(self, index: int) -> None: ...

    @abstractmethod
    def end_occlusion_query(self) -> None: ...

    @abstractmethod
    def end(self) -> None: ...


class NativeComputePass(ABC):
    """Dispatches; out-of-range numbers as in `NativeRenderCommands`."""

    @abstractmethod
    def set_pipeline(self, pipeline: Any) -> None: ...

    @abstractmethod
    def set_bind_group(self, index: int, bind_group: Any, offsets: Sequence[int]) -> None: ...

    @abstractmethod
    def dispatch_workgroups(self, x: int, y: int, z: int) -> None: ...

    @abstractmethod
    def dispatch_workgroups_indirect(self, buffer: Any, offset: int) -> None: ...

    @abstractmethod
    def end(self) -> None: ...


class NativeEncoder(ABC):
    """Records commands."""

    @abstractmethod
    def copy_buffer_to_buffer(
        self, source: Buffer, source_offset: int, target: Buffer, target_offset: int, size: int
    ) -> None: ...

    @abstractmethod
    def copy_buffer_to_texture(
        self, source: BufferPlace, target: TexturePlace, size: tuple[int, int, int]
    ) -> None: ...

    @abstractmethod
    def copy_texture_to_buffer(
        self, source: TexturePlace, target: BufferPlace, size: tuple[int, int, int]
    ) -> None: ...

    @abstractmethod
    def copy_texture_to_texture(
        self, source: TexturePlace, target: TexturePlace, size: tuple[int, int, int]
    ) -> None: ...

    @abstractmethod
    def clear_buffer(self, buffer: Buffer, offset: int, size: int) -> None: ...

    @abstractmethod
    def resolve_query_set(
        self, query_set: QuerySet, first: int, count: int, target: Buffer, offset: int
    ) -> None: ...

    @abstractmethod
    def begin_render_pass(
        self,
        attachments: Attachments,
        clear_color: tuple[float, float, float, float] | None,
        clear_depth: float | None,
        occlusion_queries: QuerySet | None,
        label: str,
    ) -> NativeRenderPass:
        """Begin a pass; clears that are None keep the contents."""

    @abstractmethod
    def begin_compute_pass(self, label: str) -> NativeComputePass: ...

    @abstractmethod
    def finish(self) -> Any:
        """Return the backend's command buffer, or raise for a command that was not valid."""


class NativeDevice(ProgressSource):
    """What a backend does for one device. Thread-safe."""

    @property
    @abstractmethod
    def handle(self) -> Any:
        """The backend's own object."""

    @property
    @abstractmethod
    def info(self) -> DeviceInfo: ...

    @property
    @abstractmethod
    def limits(self) -> DeviceLimits: ...

    @property
    @abstractmethod
    def features(self) -> frozenset[str]: ...

    @abstractmethod
    def on_lost(self, callback: Callable[[DeviceLostInfo], None]) -> None:
        """Call `callback` when the device is lost other than by `destroy`; asked for once."""

    @abstractmethod
    def create_buffer(self, desc: BufferDesc) -> NativeBuffer: ...

    @abstractmethod
    def create_buffer_with_data(self, desc: BufferDesc, data: npt.NDArray[Any]) -> NativeBuffer:
        """Make a buffer that starts with the bytes of `data` (C order, not empty), then zeros."""

    @abstractmethod
    def create_texture(self, descriptor: TextureDescriptor) -> NativeTexture: ...

    @abstractmethod
    def create_sampler(self, descriptor: SamplerDescriptor) -> Any: ...

    @abstractmethod
    def create_shader_module(self, code: str, label: str) -> Any: ...

    @abstractmethod
    def create_bind_group(
        self,
        layout: BindGroupLayout,
        resources: Mapping[int, BoundBuffer | Texture | Sampler],
        label: str,
    ) -> NativeBindGroup: ...

    @abstractmethod
    def create_render_pipeline(self, descriptor: RenderPipelineDescriptor, shader: Any) -> Any: ...

    @abstractmethod
    def create_compute_pipeline(
        self, descriptor: ComputePipelineDescriptor, shader: Any
    ) -> Any: ...

    @abstractmethod
    def create_query_set(
        self, kind: Literal["occlusion", "timestamp"], count: int, label: str
    ) -> Any: ...

    @abstractmethod
    def destroy_query_set(self, handle: Any) -> None: ...

    @abstractmethod
    def create_encoder(self, label: str) -> NativeEncoder: ...

    @abstractmethod
    def create_render_bundle(
        self, targets: Targets, record: Callable[[NativeRenderCommands], None], label: str
    ) -> Any:
        """Make a bundle of the commands that `record` gives; it may be called several times."""

    @abstractmethod
    def create_surface(self, canvas: Any, device: RenderDevice) -> ISurface: ...

    @abstractmethod
    def submit(self, command_buffers: Sequence[Any], completion: Completion[None]) -> int:
        """Hand over command buffers; `completion` is settled when all submitted so far has ended.

        Nobody is left to be told when it has no reference any more.

        Returns:
            A number that `drive` finds in `Completion.after`; 0 where it has no use for one.
        """

    @abstractmethod
    def write_buffer(self, buffer: Buffer, offset: int, data: npt.NDArray[Any]) -> None:
        """Write the bytes of `data` (C order, not empty)."""

    @abstractmethod
    def write_texture(
        self, target: TexturePlace, data: npt.NDArray[Any], size: tuple[int, int, int]
    ) -> None:
        """Write `data` (C order, rows without padding)."""

    @abstractmethod
    def destroy(self) -> None:
        """Give the device back. Called once, when no array looks at mapped memory any more."""
