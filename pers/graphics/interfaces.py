"""The render-device boundary: what a renderer sees of a graphics API.

Names, argument order and units follow WebGPU (https://www.w3.org/TR/webgpu/). Objects come from
`IRenderDevice`; each belongs to the device that made it and is released by garbage collection.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

import numpy.typing as npt

from pers.buffers.belt import StagingBelt
from pers.buffers.interfaces import IBuffer, IBufferFactory
from pers.errors import PersError
from pers.graphics.submission import Submission
from pers.graphics.types import (
    BindGroupLayout,
    BufferBinding,
    ComputePipelineDescriptor,
    DeviceInfo,
    DeviceLimits,
    DeviceLostInfo,
    IndexFormat,
    PresentMode,
    RenderPipelineDescriptor,
    RenderTarget,
    SamplerDescriptor,
    TextureDescriptor,
)
from pers.textures import ITexture, TexelCopyBufferInfo, TexelCopyTextureInfo, TextureFormat

__all__ = [
    "ErrorFilter",
    "ErrorScope",
    "IBindGroup",
    "ICommandBuffer",
    "ICommandEncoder",
    "IComputePass",
    "IFrameBuffer",
    "IPipeline",
    "IQuerySet",
    "IRenderBundle",
    "IRenderBundleEncoder",
    "IRenderCommands",
    "IRenderDevice",
    "IRenderPass",
    "IRenderQueue",
    "ISampler",
    "IShaderModule",
    "ISurface",
]

Color: TypeAlias = tuple[float, float, float, float]
ErrorFilter: TypeAlias = Literal["validation", "out-of-memory", "internal"]
Extent: TypeAlias = tuple[int, int, int]
Resource: TypeAlias = "BufferBinding | IBuffer | ITexture | ISampler"


class _Named(ABC):
    @property
    @abstractmethod
    def label(self) -> str:
        """The name used in error messages."""

    @property
    @abstractmethod
    def native_handle(self) -> Any:
        """The backend's own object."""


class ISampler(_Named):
    """How shaders read between pixels and beyond edges."""


class IShaderModule(_Named):
    """Compiled WGSL."""


class IPipeline(_Named):
    """A shader with everything fixed about its draws or dispatches."""

    @property
    @abstractmethod
    def bind_groups(self) -> tuple[BindGroupLayout, ...]:
        """The layouts of its bind groups, by ``@group`` number."""


class IBindGroup(_Named):
    """Buffers, textures and samplers for one ``@group`` of a shader."""

    @property
    @abstractmethod
    def layout(self) -> BindGroupLayout:
        """What its bindings are."""


class IRenderBundle(_Named):
    """Draw commands recorded once, to be executed in many passes."""


class IQuerySet(_Named):
    """A row of queries: occlusion or timestamps (64-bit results)."""

    @property
    @abstractmethod
    def count(self) -> int:
        """How many queries it has."""

    @property
    @abstractmethod
    def kind(self) -> Literal["occlusion", "timestamp"]:
        """What it measures."""

    @abstractmethod
    def destroy(self) -> None:
        """Give the memory back. Always legal, any number of times."""


class IFrameBuffer(ABC):
    """Colour targets and a depth target that are drawn to together.

    With more than one sample the pass draws into multisampled textures and resolves into
    `color_textures` at its end.
    """

    @property
    @abstractmethod
    def width(self) -> int:
        """Pixels in a row."""

    @property
    @abstractmethod
    def height(self) -> int:
        """Rows."""

    @property
    @abstractmethod
    def sample_count(self) -> int:
        """Samples of a pixel while drawing."""

    @property
    @abstractmethod
    def color_textures(self) -> tuple[ITexture, ...]:
        """The textures that hold the colours after a pass (always single-sampled)."""

    @property
    @abstractmethod
    def depth_texture(self) -> ITexture | None:
        """The depth target (with `sample_count` samples), if there is one."""

    @property
    def color_formats(self) -> tuple[TextureFormat, ...]:
        """The formats of the colour targets."""
        return tuple(texture.format for texture in self.color_textures)

    @property
    def depth_format(self) -> TextureFormat | None:
        """The format of the depth target."""
        return None if self.depth_texture is None else self.depth_texture.format

    @abstractmethod
    def destroy(self) -> None:
        """Destroy the textures that were made for it. Always legal."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.destroy()


class ICommandBuffer(ABC):
    """Recorded commands, ready for one submit."""

    @property
    @abstractmethod
    def label(self) -> str:
        """The name used in error messages."""


class IRenderCommands(ABC):
    """The draw commands that render passes and render bundles share (WebGPU §17.2)."""

    @abstractmethod
    def set_pipeline(self, pipeline: IPipeline) -> None:
        """Choose how the following draws work."""

    @abstractmethod
    def set_bind_group(
        self, index: int, bind_group: IBindGroup, dynamic_offsets: Sequence[int] = ()
    ) -> None:
        """Bind resources for the following draws.

        Args:
            index: The ``@group`` number.
            bind_group: The resources.
            dynamic_offsets: One offset (bytes) for each dynamic binding of the layout, in the
                order of the binding numbers; multiples of the device's offset alignment.

        Raises:
            BufferRangeError: An offset is misaligned or its record reaches beyond the buffer.
            ValidationError: Too many or too few offsets, or no such group.
        """

    @abstractmethod
    def set_vertex_buffer(
        self, slot: int, buffer: IBuffer, offset: int = 0, size: int | None = None
    ) -> None:
        """Take vertices (or instances) from `buffer` (usage VERTEX); bytes."""

    @abstractmethod
    def set_index_buffer(
        self,
        buffer: IBuffer,
        index_format: IndexFormat = "uint32",
        offset: int = 0,
        size: int | None = None,
    ) -> None:
        """Take indices from `buffer` (usage INDEX); bytes."""

    @abstractmethod
    def draw(
        self,
        vertex_count: int,
        instance_count: int = 1,
        first_vertex: int = 0,
        first_instance: int = 0,
    ) -> None:
        """Draw vertices in order."""

    @abstractmethod
    def draw_indexed(
        self,
        index_count: int,
        instance_count: int = 1,
        first_index: int = 0,
        base_vertex: int = 0,
        first_instance: int = 0,
    ) -> None:
        """Draw vertices by index."""

    @abstractmethod
    def draw_many(
        self,
        draws: npt.ArrayLike,
        *,
        bind_group: IBindGroup | None = None,
        dynamic_offsets: npt.ArrayLike | None = None,
        group_index: int = 0,
    ) -> None:
        """Call `draw` for each row of an array, in one go.

        ::

            counts = np.full(len(offsets), 3)
            render_pass.draw_many(counts, bind_group=group, dynamic_offsets=offsets)

        Everything is checked before the first draw is recorded, so an error records none.

        Args:
            draws: Whole numbers, shape (n, 4): ``vertex_count``, ``instance_count``,
                ``first_vertex`` and ``first_instance`` of each draw. Columns on the right may be
                missing, (n,) is enough; they are 1, 0 and 0 then.
            bind_group: Set before each draw, with that draw's offsets. It stays set as for the
                last one.
            dynamic_offsets: The offsets (bytes), shape (n, number of dynamic bindings); (n,) for
                one binding.
            group_index: The ``@group`` number.

        Raises:
            BufferRangeError: An offset is misaligned or its record reaches beyond the buffer.
            ValidationError: The arrays have other shapes or types, a number is out of range, or
                there is no such group.
        """

    @abstractmethod
    def draw_indexed_many(
        self,
        draws: npt.ArrayLike,
        *,
        bind_group: IBindGroup | None = None,
        dynamic_offsets: npt.ArrayLike | None = None,
        group_index: int = 0,
    ) -> None:
        """Call `draw_indexed` for each row of an array, in one go; see `draw_many`.

        Args:
            draws: Whole numbers, shape (n, 5): ``index_count``, ``instance_count``,
                ``first_index``, ``base_vertex`` and ``first_instance`` of each draw. Columns on
                the right may be missing; they are 1, 0, 0 and 0 then.
            bind_group: Set before each draw.
            dynamic_offsets: Its offsets for each draw (bytes).
            group_index: The ``@group`` number.
        """

    @abstractmethod
    def draw_indirect(self, buffer: IBuffer, offset: int = 0) -> None:
        """Draw with the arguments of `draw` read from `buffer` (usage INDIRECT, 16 bytes)."""

    @abstractmethod
    def draw_indexed_indirect(self, buffer: IBuffer, offset: int = 0) -> None:
        """Draw with the arguments of `draw_indexed` from `buffer` (usage INDIRECT, 20 bytes)."""


class IRenderPass(IRenderCommands):
    """Draws into a frame buffer. A context manager that ends itself."""

    @abstractmethod
    def set_viewport(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        min_depth: float = 0.0,
        max_depth: float = 1.0,
    ) -> None:
        """Draw into a part of the frame buffer (pixels)."""

    @abstractmethod
    def set_scissor_rect(self, x: int, y: int, width: int, height: int) -> None:
        """Leave pixels outside the rectangle as they are."""

    @abstractmethod
    def execute_bundles(self, bundles: Sequence[IRenderBundle]) -> None:
        """Execute recorded draws; afterwards no pipeline, groups or buffers are set."""

    @abstractmethod
    def multi_draw_indirect(self, buffer: IBuffer, offset: int, count: int) -> None:
        """Do `count` indirect draws whose arguments follow one another (16 bytes each).

        One native call, however many draws there are.
        """

    @abstractmethod
    def multi_draw_indexed_indirect(self, buffer: IBuffer, offset: int, count: int) -> None:
        """Do `count` indexed indirect draws whose arguments follow one another (20 bytes each)."""

    @abstractmethod
    def begin_occlusion_query(self, index: int) -> None:
        """Count whether any sample passes, into the pass's query set."""

    @abstractmethod
    def end_occlusion_query(self) -> None:
        """End the query begun last."""

    @abstractmethod
    def end(self) -> None:
        """End the pass. Legal once."""

    def __enter__(self) -> Self:
        return self

    @abstractmethod
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class IRenderBundleEncoder(IRenderCommands):
    """Records draws for `IRenderPass.execute_bundles`."""

    @abstractmethod
    def finish(self) -> IRenderBundle:
        """Return what was recorded. Legal once.

        Raises:
            ValidationError: The draws are not valid for the formats of the bundle.
        """


class IComputePass(ABC):
    """Runs compute shaders. A context manager that ends itself."""

    @abstractmethod
    def set_pipeline(self, pipeline: IPipeline) -> None:
        """Choose what the following dispatches run."""

    @abstractmethod
    def set_bind_group(
        self, index: int, bind_group: IBindGroup, dynamic_offsets: Sequence[int] = ()
    ) -> None:
        """Bind resources for the following dispatches; see `IRenderCommands.set_bind_group`."""

    @abstractmethod
    def dispatch_workgroups(self, x: int, y: int = 1, z: int = 1) -> None:
        """Run that many workgroups."""

    @abstractmethod
    def dispatch_workgroups_indirect(self, buffer: IBuffer, offset: int = 0) -> None:
        """Run as many workgroups as `buffer` says (usage INDIRECT, 12 bytes)."""

    @abstractmethod
    def end(self) -> None:
        """End the pass. Legal once."""

    def __enter__(self) -> Self:
        return self

    @abstractmethod
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class ICommandEncoder(ABC):
    """Records commands for the GPU. Belongs to one thread at a time.

    Checks arguments when called and notes what the commands use, so that `IRenderQueue.submit`
    can refuse what the GPU must not see.
    """

    @abstractmethod
    def copy_buffer_to_buffer(
        self,
        source: IBuffer,
        source_offset: int,
        target: IBuffer,
        target_offset: int,
        size: int | None = None,
    ) -> None:
        """Copy bytes between two different buffers (WebGPU §13.3).

        Args:
            source: Has usage COPY_SRC.
            source_offset: Bytes, a multiple of 4.
            target: Has usage COPY_DST.
            target_offset: Bytes, a multiple of 4.
            size: Bytes, a multiple of 4; None means what is left of the source.

        Raises:
            BufferRangeError: Misaligned or out of bounds.
            BufferUsageError: A usage is missing, or it is the same buffer.
            BufferStateError: A buffer was destroyed.
        """

    @abstractmethod
    def copy_buffer_to_texture(
        self,
        source: TexelCopyBufferInfo | IBuffer,
        target: TexelCopyTextureInfo | ITexture,
        size: Extent | None = None,
    ) -> None:
        """Copy pixels from a buffer to a texture.

        Args:
            source: Where the pixels are; has usage COPY_SRC.
            target: Where they go; has usage COPY_DST.
            size: Width, height and layers; None means what is left of the mip level.

        Raises:
            BufferRangeError: Misaligned or out of bounds.
            BufferUsageError: The buffer lacks the usage.
            ValidationError: The texture lacks the usage.
        """

    @abstractmethod
    def copy_texture_to_buffer(
        self,
        source: TexelCopyTextureInfo | ITexture,
        target: TexelCopyBufferInfo | IBuffer,
        size: Extent | None = None,
    ) -> None:
        """Copy pixels from a texture to a buffer; see `copy_buffer_to_texture`."""

    @abstractmethod
    def copy_texture_to_texture(
        self,
        source: TexelCopyTextureInfo | ITexture,
        target: TexelCopyTextureInfo | ITexture,
        size: Extent | None = None,
    ) -> None:
        """Copy pixels between textures of the same format."""

    @abstractmethod
    def clear_buffer(self, buffer: IBuffer, offset: int = 0, size: int | None = None) -> None:
        """Fill with zeros (usage COPY_DST; bytes, multiples of 4; None means to the end)."""

    @abstractmethod
    def begin_render_pass(
        self,
        frame_buffer: IFrameBuffer,
        *,
        clear_color: Color | None = (0.0, 0.0, 0.0, 1.0),
        clear_depth: float | None = 1.0,
        occlusion_queries: IQuerySet | None = None,
        label: str = "",
    ) -> IRenderPass:
        """Start drawing.

        Args:
            frame_buffer: What is drawn to.
            clear_color: What the colour targets are filled with first; None keeps what is there.
            clear_depth: The same for the depth target.
            occlusion_queries: Where `begin_occlusion_query` counts.
            label: A name for error messages and graphics debuggers.
        """

    @abstractmethod
    def begin_compute_pass(self, *, label: str = "") -> IComputePass:
        """Start computing."""

    @abstractmethod
    def resolve_query_set(
        self,
        query_set: IQuerySet,
        first_query: int,
        query_count: int,
        target: IBuffer,
        target_offset: int = 0,
    ) -> None:
        """Write query results (uint64) to a buffer (usage QUERY_RESOLVE, offset % 256 == 0)."""

    @abstractmethod
    def finish(self) -> ICommandBuffer:
        """Return what was recorded. Legal once; the encoder cannot be used afterwards.

        Raises:
            ValidationError: A pass is still open, or the device refuses a command.
        """


class IRenderQueue(ABC):
    """Hands work to the GPU, in order. Thread-safe."""

    @abstractmethod
    def submit(self, command_buffers: Sequence[ICommandBuffer]) -> Submission:
        """Hand over recorded commands (and, before them, pending uploads of the belt).

        Raises:
            BufferStateError: A buffer is mapped, pending or destroyed now. Nothing is submitted.
            ValidationError: A texture was destroyed, a command buffer was submitted before or
                comes twice, or belongs to another device. Nothing is submitted.
            DeviceLostError: The device was lost or closed.
        """

    @abstractmethod
    def write_buffer(self, buffer: IBuffer, offset: int, data: Any) -> None:
        """Write bytes before anything that is submitted later.

        Args:
            buffer: Has usage COPY_DST and is not mapped.
            offset: Bytes, a multiple of 4.
            data: A NumPy array, or anything with the buffer protocol; a multiple of 4 bytes.
        """

    @abstractmethod
    def write_texture(
        self,
        target: TexelCopyTextureInfo | ITexture,
        pixels: npt.NDArray[Any],
    ) -> None:
        """Write pixels before anything that is submitted later.

        Args:
            target: Has usage COPY_DST.
            pixels: Shape ``([layers,] height, width[, channels])``, any part of the texture that
                starts at the target's origin.
        """

    @abstractmethod
    def on_work_done(self) -> Submission:
        """Return a submission that is done when everything submitted so far is."""


class ISurface(ABC):
    """What a window shows. Belongs to the thread of the window."""

    @property
    @abstractmethod
    def format(self) -> TextureFormat:
        """Format of the colour target."""

    @abstractmethod
    def configure(
        self,
        *,
        depth_format: TextureFormat | None = None,
        sample_count: int = 1,
        present_mode: PresentMode | None = None,
        frame_latency: int | None = None,
    ) -> None:
        """Choose how frames are drawn and presented.

        Args:
            depth_format: None draws without a depth target.
            sample_count: 1 or 4.
            present_mode: None takes ``PERS_PRESENT_MODE`` or ``fifo``.
            frame_latency: How many frames may wait to be shown, 1 to 16; None takes
                ``PERS_FRAME_LATENCY`` or 2.

        Raises:
            ValidationError: The window cannot do it, or a number is out of range.
        """

    @abstractmethod
    def acquire(self) -> IFrameBuffer | None:
        """Return the frame to draw to, sized as the window is now.

        None while there is nothing to draw to: the window is minimised or closed, or the surface
        was lost and is being made again. Skip the frame then.
        """

    @abstractmethod
    def present(self) -> None:
        """Show the frame; does nothing when there was none."""


class ErrorScope:
    """Catches errors of one kind; see `IRenderDevice.error_scope`."""

    def __init__(self) -> None:
        """Not called by users."""
        self.error: PersError | None = None
        """The first error that the scope caught."""


class IRenderDevice(ABC):
    """A GPU, and everything that can be made on it. A context manager that closes itself.

    Thread-safe, as are `queue`, `buffer_factory` and `belt`; encoders and passes are not.
    """

    @property
    @abstractmethod
    def info(self) -> DeviceInfo:
        """What the device is."""

    @property
    @abstractmethod
    def limits(self) -> DeviceLimits:
        """The device's limits, read from it."""

    @property
    @abstractmethod
    def features(self) -> frozenset[str]:
        """The WebGPU features that are on."""

    @property
    @abstractmethod
    def queue(self) -> IRenderQueue:
        """Where work is submitted."""

    @property
    @abstractmethod
    def buffer_factory(self) -> IBufferFactory:
        """Makes buffers."""

    @property
    @abstractmethod
    def belt(self) -> StagingBelt:
        """Gets bytes to the GPU."""

    @property
    @abstractmethod
    def native_handle(self) -> Any:
        """The backend's own object."""

    @property
    @abstractmethod
    def is_lost(self) -> bool:
        """Whether the device was lost or closed."""

    @property
    @abstractmethod
    def lost(self) -> Awaitable[DeviceLostInfo]:
        """Await it to learn when and why the device is lost: ``info = await device.lost``."""

    @abstractmethod
    def on_lost(self, callback: Callable[[DeviceLostInfo], None]) -> None:
        """Call `callback` once when the device is lost (at once when it is already).

        It runs on the thread that notices the loss.
        """

    @abstractmethod
    def error_scope(self, kind: ErrorFilter = "validation") -> AbstractContextManager[ErrorScope]:
        """Catch errors of one kind instead of raising them out of the block (WebGPU §22.3).

        The first error of the kind ends the block and is kept in the scope's `error`.
        """

    @abstractmethod
    def create_texture(self, descriptor: TextureDescriptor) -> ITexture:
        """Make a texture; its contents are zero."""

    @abstractmethod
    def create_sampler(self, descriptor: SamplerDescriptor | None = None) -> ISampler:
        """Make a sampler; without a descriptor it interpolates and clamps."""

    @abstractmethod
    def create_shader_module(self, code: str, *, label: str = "") -> IShaderModule:
        """Compile WGSL.

        Raises:
            ValidationError: The compiler's message, with line and column.
        """

    @abstractmethod
    def create_bind_group(
        self, layout: BindGroupLayout, resources: Mapping[int, Resource], *, label: str = ""
    ) -> IBindGroup:
        """Bind resources to the binding numbers of a layout.

        Raises:
            ValidationError: A binding is missing, unknown, or of the wrong kind.
            BufferUsageError: A buffer lacks the usage for its kind of binding.
            BufferRangeError: A buffer part is misaligned, out of bounds or too large.
        """

    @abstractmethod
    def create_render_pipeline(self, descriptor: RenderPipelineDescriptor) -> IPipeline:
        """Make a pipeline for draws. Equal descriptors give the same pipeline."""

    @abstractmethod
    def create_compute_pipeline(self, descriptor: ComputePipelineDescriptor) -> IPipeline:
        """Make a pipeline for dispatches. Equal descriptors give the same pipeline."""

    @abstractmethod
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
        """Make textures to draw to. The colours can be copied and bound to shaders."""

    @abstractmethod
    def create_frame_buffer_from(
        self,
        colors: Sequence[ITexture | RenderTarget],
        depth: ITexture | RenderTarget | None = None,
        *,
        multisampled: Sequence[ITexture | RenderTarget] = (),
        label: str = "",
    ) -> IFrameBuffer:
        """Draw to textures that exist: shared ones, a cube's faces, mip levels.

        They stay the caller's, so the frame buffer's `destroy` does nothing. All have the same
        size, each the usage RENDER_ATTACHMENT, and none comes twice (WebGPU §17.1.1).

        Args:
            colors: The colour targets, single-sampled. A texture stands for its first layer and
                mip level.
            depth: The depth target, with as many samples as are drawn.
            multisampled: One for each colour, of its format: what passes draw to, and resolve into
                `colors` at their end.
            label: A name for error messages.

        Raises:
            ValidationError: They do not fit together, or one cannot be drawn to.
        """

    @abstractmethod
    def create_query_set(
        self, kind: Literal["occlusion", "timestamp"], count: int, *, label: str = ""
    ) -> IQuerySet:
        """Make `count` queries; timestamps need the feature ``timestamp-query``."""

    @abstractmethod
    def create_command_encoder(self, label: str = "") -> ICommandEncoder:
        """Start recording."""

    @abstractmethod
    def create_render_bundle_encoder(
        self,
        color_formats: Sequence[TextureFormat],
        *,
        depth_format: TextureFormat | None = None,
        sample_count: int = 1,
        label: str = "",
    ) -> IRenderBundleEncoder:
        """Start recording a render bundle for passes with these targets."""

    @abstractmethod
    def create_surface(self, canvas: Any) -> ISurface:
        """Draw to a rendercanvas window.

        Raises:
            BackendUnavailableError: The backend cannot show windows.
        """

    @abstractmethod
    def upload(
        self, data: Any, target: IBuffer | ITexture | TexelCopyTextureInfo, offset: int = 0
    ) -> None:
        """Get bytes to the GPU, before anything that is submitted later.

        Args:
            data: A NumPy array or anything with the buffer protocol; pixels for a texture.
            target: A buffer or a texture with usage COPY_DST: all of the texture, or the pixels
                from a place on that a `TexelCopyTextureInfo` names.
            offset: Where in the buffer (bytes, a multiple of 4).
        """

    @abstractmethod
    async def read_array(
        self,
        source: IBuffer | ITexture | TexelCopyTextureInfo,
        dtype: npt.DTypeLike | None = None,
        shape: int | tuple[int, ...] | None = None,
        *,
        copy: bool = False,
    ) -> npt.NDArray[Any]:
        """Read a buffer or texture (usage COPY_SRC) after everything submitted so far.

        Args:
            source: What to read: of a texture its first mip level, or what lies from a place on
                that a `TexelCopyTextureInfo` names.
            dtype: Item type; None means uint8 for a buffer and the format's type for a texture.
            shape: Shape of the array; None means one dimension for a buffer and
                ``([layers,] height, width[, channels])`` for a texture.
            copy: Whether to return an independent, writable array. Otherwise the array is
                read-only and is the mapped memory itself, which goes back to the device's pool
                when the last reference to the array dies.
        """

    @abstractmethod
    def read_array_blocking(
        self,
        source: IBuffer | ITexture | TexelCopyTextureInfo,
        dtype: npt.DTypeLike | None = None,
        shape: int | tuple[int, ...] | None = None,
        *,
        copy: bool = False,
    ) -> npt.NDArray[Any]:
        """The same as `read_array`, but blocks the calling thread."""

    @abstractmethod
    def poll(self) -> None:
        """Deliver what has finished (maps, submissions, losses). Never blocks."""

    @abstractmethod
    def close(self) -> None:
        """Give the device back; legal any number of times.

        Pending maps end with `MapAbortedError`, its buffers are destroyed (arrays that look at
        their memory stay readable), and later calls raise `DeviceLostError`.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
