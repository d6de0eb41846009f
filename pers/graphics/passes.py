"""Render passes, compute passes and render bundles, on any backend."""

from __future__ import annotations

import operator
import sys
from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pers._checks import items_of, whole_number
from pers._tracking import Recording
from pers.buffers.core import Buffer
from pers.buffers.interfaces import IBuffer
from pers.buffers.types import COPY_ALIGNMENT, BufferUsage, usage_names
from pers.errors import BufferRangeError, BufferUsageError, ValidationError
from pers.graphics.interfaces import (
    IBindGroup,
    IComputePass,
    IPipeline,
    IRenderBundle,
    IRenderBundleEncoder,
    IRenderCommands,
    IRenderPass,
)
from pers.graphics.native import (
    NativeComputePass,
    NativeRenderCommands,
    NativeRenderPass,
    Targets,
)
from pers.graphics.resources import BindGroup, Pipeline, RenderBundle, owned, owned_buffer
from pers.graphics.types import IndexFormat

if TYPE_CHECKING:
    from pers.graphics.device import RenderDevice

_PACKAGE = str(Path(__file__).parents[1])


def call_site() -> str:
    """Return ``file:line`` of the code outside pers that is calling into it."""
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


class PassBase:
    """What passes and bundle encoders share: they are open, then ended, and note what they use."""

    def __init__(self, device: RenderDevice, recording: Recording, name: str, site: str) -> None:
        self._device = device
        self._recording = recording
        self._name = name
        self.site = site
        """Where it was begun."""
        self.is_open = True

    @property
    def name(self) -> str:
        """How error messages call the pass."""
        return self._name

    def _check_open(self, call: str) -> None:
        if not self.is_open:
            raise ValidationError(
                f"{self._name}: {call} after its end (it was begun at {self.site}); begin another"
            )

    def _bind_group(
        self, index: int, bind_group: IBindGroup, offsets: Sequence[int]
    ) -> tuple[BindGroup, tuple[int, ...]]:
        self._check_open("set_bind_group")
        group = owned(bind_group, BindGroup, self._device, self._name)
        limit = self._device.limits.max_bind_groups
        if not isinstance(index, int) or not 0 <= index < limit:
            raise ValidationError(
                f"{self._name}: set_bind_group index must be 0 to {limit - 1}, not {index!r}"
            )
        given = items_of(offsets, f"{self._name}: set_bind_group dynamic_offsets")
        checked = group.check_offsets(given, f"{self._name}: set_bind_group {index}")
        for resource in group.resources:
            self._recording.use(resource)
        return group, checked

    def _buffer(
        self, buffer: IBuffer, usage: BufferUsage, offset: int, size: int | None, call: str
    ) -> tuple[Buffer, int, int]:
        self._check_open(call)
        what = f"{self._name}: {call}"
        core = owned_buffer(buffer, self._device, what)
        if not core.usage & usage:
            raise BufferUsageError(
                f"{what}: {core.label} was created with {usage_names(core.usage)}; "
                f"it needs {usage_names(usage)}"
            )
        start = whole_number(offset, f"{what} offset")
        length = core.size - start if size is None else whole_number(size, f"{what} size")
        # An empty part is legal in WebGPU, but wgpu-native aborts the process on it.
        if start % COPY_ALIGNMENT or length < 1 or start + length > core.size:
            raise BufferRangeError(
                f"{what}: {length} bytes at offset {start} are no part of {core.label} "
                f"({core.size} bytes) that starts at a multiple of {COPY_ALIGNMENT} and is not "
                "empty"
            )
        self._recording.use(core)
        return core, start, length

    def _bad_number(self, call: str, arguments: tuple[object, ...]) -> ValidationError:
        return ValidationError(
            f"{self._name}: {call} takes whole numbers from 0 to 2**32-1, not {arguments}"
        )


class RenderCommands(PassBase, IRenderCommands):
    """The draw commands of passes and bundles."""

    def __init__(
        self,
        device: RenderDevice,
        recording: Recording,
        native: NativeRenderCommands,
        name: str,
        site: str,
    ) -> None:
        super().__init__(device, recording, name, site)
        self._draws = native

    def set_pipeline(self, pipeline: IPipeline) -> None:
        self._check_open("set_pipeline")
        checked = owned(pipeline, Pipeline, self._device, self._name)
        if checked.kind != "render":
            raise ValidationError(f"{self._name}: {checked.name} is a compute pipeline")
        self._draws.set_pipeline(checked.native_handle)

    def set_bind_group(
        self, index: int, bind_group: IBindGroup, dynamic_offsets: Sequence[int] = ()
    ) -> None:
        group, offsets = self._bind_group(index, bind_group, dynamic_offsets)
        self._draws.set_bind_group(index, group.native_handle, offsets)

    def set_vertex_buffer(
        self, slot: int, buffer: IBuffer, offset: int = 0, size: int | None = None
    ) -> None:
        limit = self._device.limits.max_vertex_buffers
        if not isinstance(slot, int) or not 0 <= slot < limit:
            raise ValidationError(
                f"{self._name}: set_vertex_buffer slot must be 0 to {limit - 1}, not {slot!r}"
            )
        core, start, length = self._buffer(
            buffer, BufferUsage.VERTEX, offset, size, "set_vertex_buffer"
        )
        self._draws.set_vertex_buffer(slot, core.native_handle, start, length)

    def set_index_buffer(
        self,
        buffer: IBuffer,
        index_format: IndexFormat = "uint32",
        offset: int = 0,
        size: int | None = None,
    ) -> None:
        if index_format not in ("uint16", "uint32"):
            raise ValidationError(
                f"{self._name}: index_format must be 'uint16' or 'uint32', not {index_format!r}"
            )
        core, start, length = self._buffer(
            buffer, BufferUsage.INDEX, offset, size, "set_index_buffer"
        )
        self._draws.set_index_buffer(core.native_handle, index_format, start, length)

    def draw(
        self,
        vertex_count: int,
        instance_count: int = 1,
        first_vertex: int = 0,
        first_instance: int = 0,
    ) -> None:
        self._check_open("draw")
        try:
            self._draws.draw(vertex_count, instance_count, first_vertex, first_instance)
        except (OverflowError, TypeError):
            numbers = (vertex_count, instance_count, first_vertex, first_instance)
            raise self._bad_number("draw", numbers) from None

    def draw_indexed(
        self,
        index_count: int,
        instance_count: int = 1,
        first_index: int = 0,
        base_vertex: int = 0,
        first_instance: int = 0,
    ) -> None:
        self._check_open("draw_indexed")
        try:
            self._draws.draw_indexed(
                index_count, instance_count, first_index, base_vertex, first_instance
            )
        except (OverflowError, TypeError):
            numbers = (index_count, instance_count, first_index, base_vertex, first_instance)
            raise self._bad_number("draw_indexed", numbers) from None

    def draw_indirect(self, buffer: IBuffer, offset: int = 0) -> None:
        core, start, _ = self._buffer(buffer, BufferUsage.INDIRECT, offset, 16, "draw_indirect")
        self._draws.draw_indirect(core.native_handle, start)

    def draw_indexed_indirect(self, buffer: IBuffer, offset: int = 0) -> None:
        core, start, _ = self._buffer(
            buffer, BufferUsage.INDIRECT, offset, 20, "draw_indexed_indirect"
        )
        self._draws.draw_indexed_indirect(core.native_handle, start)


class RenderPass(RenderCommands, IRenderPass):
    """A render pass."""

    def __init__(
        self,
        device: RenderDevice,
        recording: Recording,
        native: NativeRenderPass,
        targets: Targets,
        occlusion_count: int,
        name: str,
        site: str,
    ) -> None:
        """Not called by users; `ICommandEncoder.begin_render_pass` makes passes."""
        super().__init__(device, recording, native, name, site)
        self._native = native
        self._targets = targets
        self._occlusion_count = occlusion_count
        self._query_open = False

    def set_viewport(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        min_depth: float = 0.0,
        max_depth: float = 1.0,
    ) -> None:
        self._check_open("set_viewport")
        given = (x, y, width, height, min_depth, max_depth)
        if not all(isinstance(number, Real) and abs(number) < 1e6 for number in given):
            raise ValidationError(f"{self._name}: set_viewport takes finite numbers, not {given}")
        self._native.set_viewport(x, y, width, height, min_depth, max_depth)

    def set_scissor_rect(self, x: int, y: int, width: int, height: int) -> None:
        self._check_open("set_scissor_rect")
        try:
            self._native.set_scissor_rect(x, y, width, height)
        except (OverflowError, TypeError):
            raise self._bad_number("set_scissor_rect", (x, y, width, height)) from None

    def execute_bundles(self, bundles: Sequence[IRenderBundle]) -> None:
        self._check_open("execute_bundles")
        given = items_of(bundles, f"{self._name}: execute_bundles")
        checked = [owned(bundle, RenderBundle, self._device, self._name) for bundle in given]
        for bundle in checked:
            if bundle.targets != self._targets:
                raise ValidationError(
                    f"{self._name}: {bundle.name} was recorded for {bundle.targets}, but the pass "
                    f"draws to {self._targets}"
                )
            self._recording.use_all_of(bundle.recording)
        self._native.execute_bundles([bundle.native_handle for bundle in checked])

    def multi_draw_indirect(self, buffer: IBuffer, offset: int, count: int) -> None:
        draws = whole_number(
            count,
            f"{self._name}: multi_draw_indirect count",
            maximum=2**32 - 1,
            error=ValidationError,
        )
        if draws == 0:
            return
        core, start, _ = self._buffer(
            buffer, BufferUsage.INDIRECT, offset, 16 * draws, "multi_draw_indirect"
        )
        self._native.multi_draw_indirect(core.native_handle, start, draws)

    def begin_occlusion_query(self, index: int) -> None:
        self._check_open("begin_occlusion_query")
        if self._query_open or not isinstance(index, int) or not 0 <= index < self._occlusion_count:
            raise ValidationError(
                f"{self._name}: begin_occlusion_query({index!r}) needs a pass with an occlusion "
                f"query set (this one has {self._occlusion_count} queries) and no open query"
            )
        self._query_open = True
        self._native.begin_occlusion_query(index)

    def end_occlusion_query(self) -> None:
        self._check_open("end_occlusion_query")
        if not self._query_open:
            raise ValidationError(f"{self._name}: end_occlusion_query without an open query")
        self._query_open = False
        self._native.end_occlusion_query()

    def end(self) -> None:
        self._check_open("end")
        if self._query_open:
            self.end_occlusion_query()
        self.is_open = False
        self._native.end()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.is_open:
            self.end()


class ComputePass(PassBase, IComputePass):
    """A compute pass."""

    def __init__(
        self,
        device: RenderDevice,
        recording: Recording,
        native: NativeComputePass,
        name: str,
        site: str,
    ) -> None:
        """Not called by users; `ICommandEncoder.begin_compute_pass` makes passes."""
        super().__init__(device, recording, name, site)
        self._native = native

    def set_pipeline(self, pipeline: IPipeline) -> None:
        self._check_open("set_pipeline")
        checked = owned(pipeline, Pipeline, self._device, self._name)
        if checked.kind != "compute":
            raise ValidationError(f"{self._name}: {checked.name} is a render pipeline")
        self._native.set_pipeline(checked.native_handle)

    def set_bind_group(
        self, index: int, bind_group: IBindGroup, dynamic_offsets: Sequence[int] = ()
    ) -> None:
        group, offsets = self._bind_group(index, bind_group, dynamic_offsets)
        self._native.set_bind_group(index, group.native_handle, offsets)

    def dispatch_workgroups(self, x: int, y: int = 1, z: int = 1) -> None:
        self._check_open("dispatch_workgroups")
        try:
            self._native.dispatch_workgroups(x, y, z)
        except (OverflowError, TypeError):
            raise self._bad_number("dispatch_workgroups", (x, y, z)) from None

    def dispatch_workgroups_indirect(self, buffer: IBuffer, offset: int = 0) -> None:
        core, start, _ = self._buffer(
            buffer, BufferUsage.INDIRECT, offset, 12, "dispatch_workgroups_indirect"
        )
        self._native.dispatch_workgroups_indirect(core.native_handle, start)

    def end(self) -> None:
        self._check_open("end")
        self.is_open = False
        self._native.end()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.is_open:
            self.end()


def uint32(number: int) -> int:
    """Return `number`, or raise `OverflowError` or `TypeError` as a native call would."""
    value = operator.index(number)
    if not 0 <= value < 2**32:
        raise OverflowError(number)
    return value


class RecordedCommands(NativeRenderCommands):
    """Draw commands kept to be given to a backend later, as often as it likes."""

    def __init__(self) -> None:
        self._calls: list[tuple[str, tuple[Any, ...]]] = []

    def replay(self, target: NativeRenderCommands) -> None:
        """Give all commands to `target`."""
        for method, arguments in self._calls:
            getattr(target, method)(*arguments)

    def set_pipeline(self, pipeline: Any) -> None:
        self._calls.append(("set_pipeline", (pipeline,)))

    def set_bind_group(self, index: int, bind_group: Any, offsets: Sequence[int]) -> None:
        self._calls.append(("set_bind_group", (index, bind_group, offsets)))

    def set_vertex_buffer(self, slot: int, buffer: Any, offset: int, size: int) -> None:
        self._calls.append(("set_vertex_buffer", (slot, buffer, offset, size)))

    def set_index_buffer(
        self, buffer: Any, index_format: IndexFormat, offset: int, size: int
    ) -> None:
        arguments = (buffer, index_format, offset, size)
        self._calls.append(("set_index_buffer", arguments))

    def draw(
        self, vertex_count: int, instance_count: int, first_vertex: int, first_instance: int
    ) -> None:
        numbers = (vertex_count, instance_count, first_vertex, first_instance)
        self._calls.append(("draw", tuple(map(uint32, numbers))))

    def draw_indexed(
        self,
        index_count: int,
        instance_count: int,
        first_index: int,
        base_vertex: int,
        first_instance: int,
    ) -> None:
        for number in (index_count, instance_count, first_index, first_instance):
            uint32(number)
        if not -(2**31) <= operator.index(base_vertex) < 2**31:
            raise OverflowError(base_vertex)
        numbers = (index_count, instance_count, first_index, base_vertex, first_instance)
        self._calls.append(("draw_indexed", numbers))

    def draw_indirect(self, buffer: Any, offset: int) -> None:
        self._calls.append(("draw_indirect", (buffer, offset)))

    def draw_indexed_indirect(self, buffer: Any, offset: int) -> None:
        self._calls.append(("draw_indexed_indirect", (buffer, offset)))


class RenderBundleEncoder(RenderCommands, IRenderBundleEncoder):
    """Records a render bundle."""

    def __init__(self, device: RenderDevice, targets: Targets, label: str) -> None:
        """Not called by users; `IRenderDevice.create_render_bundle_encoder` makes encoders."""
        self._commands = RecordedCommands()
        name = f"render bundle {label!r}"
        super().__init__(
            device, Recording(waits_for_submit=False), self._commands, name, call_site()
        )
        self._targets = targets
        self._label = label

    def finish(self) -> IRenderBundle:
        self._check_open("finish")
        self._device.check_alive(f"{self._name}: finish")
        self.is_open = False
        handle = self._device.native.create_render_bundle(
            self._targets, self._commands.replay, self._label
        )
        return RenderBundle(self._device, self._label, handle, self._recording, self._targets)
