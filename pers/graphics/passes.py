"""Render passes, compute passes and render bundles, on any backend."""

from __future__ import annotations

import operator
import sys
from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from types import CodeType, TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pers._checks import items_of, whole_number
from pers._tracking import Recording, UsageTag
from pers.buffers.core import Buffer, NativeBuffer
from pers.buffers.interfaces import IBuffer
from pers.buffers.types import COPY_ALIGNMENT, BufferUsage, usage_names
from pers.errors import BufferRangeError, BufferUsageError, ValidationError
from pers.graphics.draw_rows import DRAW, DRAW_INDEXED, rows_of_draws, table_of_integers
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
    NativeBindGroup,
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
_VERTEX = int(BufferUsage.VERTEX)
_INDEX = int(BufferUsage.INDEX)
_INDIRECT = int(BufferUsage.INDIRECT)
_NO_OFFSETS: tuple[int, ...] = ()

_LISTS = (list, tuple)

Names: TypeAlias = tuple[tuple[str, str], ...]
"""A pass and what it is in, from the outside in: what each is, and its label."""

Site: TypeAlias = tuple[CodeType, int]
"""Where in the code something was called: what `site_name` makes a text of."""


def call_site() -> Site:
    """Return where the code outside pers is that is calling into it."""
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    return frame.f_code, frame.f_lasti


def site_name(site: Site) -> str:
    """Return ``file:line``."""
    code, place = site
    lines = (line for start, end, line in code.co_lines() if start <= place < end)
    return f"{code.co_filename}:{next(lines, None) or code.co_firstlineno}"


class PassBase:
    """What passes and bundle encoders share: they are open, then ended, and note what they use."""

    def __init__(
        self, device: RenderDevice, recording: Recording, names: Names, site: Site
    ) -> None:
        self._device = device
        self._recording = recording
        self._noted_groups = recording.groups
        self._group_limit = device.limits.max_bind_groups
        self._names = names
        self._site = site
        self.is_open = True

    @property
    def name(self) -> str:
        """How error messages call the pass."""
        return ": ".join(f"{what} {label!r}" for what, label in self._names)

    @property
    def site(self) -> str:
        """Where it was begun."""
        return site_name(self._site)

    # Whether a call is legal is asked in as few steps as possible; what exactly is wrong with one
    # that is not, and what to say about it, is worked out afterwards.

    def _closed(self, call: str) -> ValidationError:
        return ValidationError(
            f"{self.name}: {call} after its end (it was begun at {self.site}); begin another"
        )

    def _bind_group(
        self, index: int, bind_group: IBindGroup, offsets: Sequence[int]
    ) -> tuple[int, BindGroup, Sequence[int]]:
        if not self.is_open:
            raise self._closed("set_bind_group")
        if type(bind_group) is not BindGroup or bind_group.device is not self._device:
            bind_group = owned(bind_group, BindGroup, self._device, self.name)
        if type(index) is not int or not 0 <= index < self._group_limit:
            index = self._number(index, self._group_limit, "set_bind_group index")
        limits = bind_group.offset_limits
        if limits or offsets is not _NO_OFFSETS:
            fits = False
            if len(limits) == 1 and type(offsets) in _LISTS and len(offsets) == 1:
                offset = offsets[0]
                alignment, largest = limits[0]
                fits = type(offset) is int and 0 <= offset <= largest and not offset % alignment
            if not fits:
                what = f"{self.name}: set_bind_group"
                given = items_of(offsets, f"{what} dynamic_offsets")
                offsets = bind_group.check_offsets(given, f"{what} {index}")
        if self._noted_groups.get(bind_group) is not UsageTag.epoch:
            self._recording.use_group(bind_group)
        return index, bind_group, offsets

    def _number(self, number: object, limit: int, what: str) -> int:
        """Return a number below `limit`, or raise `ValidationError`."""
        return whole_number(
            number, f"{self.name}: {what}", maximum=limit - 1, error=ValidationError
        )

    def _buffer(
        self, buffer: IBuffer, usage: int, offset: int, size: int | None, call: str
    ) -> tuple[NativeBuffer, int, int]:
        if not self.is_open:
            raise self._closed(call)
        core = buffer if type(buffer) is Buffer else getattr(buffer, "_stands_on", None)
        if type(core) is not Buffer or core.owner is not self._device:
            core = owned_buffer(buffer, self._device, call, self)
        desc = core.desc
        if not core.usage_bits & usage:
            raise BufferUsageError(
                f"{self.name}: {call}: {core.label} was created with {usage_names(desc.usage)}; "
                f"it needs {usage_names(usage)}"
            )
        if type(offset) is not int or offset < 0:
            offset = whole_number(offset, f"{self.name}: {call} offset")
        if size is None:
            size = desc.size - offset
        elif type(size) is not int or size < 0:
            size = whole_number(size, f"{self.name}: {call} size")
        # An empty part is legal in WebGPU, but wgpu-native aborts the process on it.
        if offset % COPY_ALIGNMENT or size < 1 or offset + size > desc.size:
            raise BufferRangeError(
                f"{self.name}: {call}: {size} bytes at offset {offset} are no part of {core.label} "
                f"({desc.size} bytes) that starts at a multiple of {COPY_ALIGNMENT} and is not "
                "empty"
            )
        self._recording.use(core)
        return core.native, offset, size

    def _bad_number(self, call: str, arguments: tuple[object, ...]) -> ValidationError:
        return ValidationError(
            f"{self.name}: {call} takes whole numbers of 32 bits, of which only base_vertex may "
            f"be negative; not {arguments}"
        )


class RenderCommands(PassBase, IRenderCommands):
    """The draw commands of passes and bundles."""

    def __init__(
        self,
        device: RenderDevice,
        recording: Recording,
        native: NativeRenderCommands,
        names: Names,
        site: Site,
    ) -> None:
        super().__init__(device, recording, names, site)
        self._draws = native

    def set_pipeline(self, pipeline: IPipeline) -> None:
        if not self.is_open:
            raise self._closed("set_pipeline")
        if type(pipeline) is not Pipeline or pipeline.device is not self._device:
            pipeline = owned(pipeline, Pipeline, self._device, self.name)
        if pipeline.kind != "render":
            raise ValidationError(
                f"{self.name}: {pipeline.name} is a compute pipeline; set one that draws"
            )
        self._draws.set_pipeline(pipeline.native_handle)

    def set_bind_group(
        self, index: int, bind_group: IBindGroup, dynamic_offsets: Sequence[int] = ()
    ) -> None:
        place, group, offsets = self._bind_group(index, bind_group, dynamic_offsets)
        self._draws.set_bind_group(place, group.native, offsets)

    def set_vertex_buffer(
        self, slot: int, buffer: IBuffer, offset: int = 0, size: int | None = None
    ) -> None:
        limit = self._device.limits.max_vertex_buffers
        if type(slot) is not int or not 0 <= slot < limit:
            slot = self._number(slot, limit, "set_vertex_buffer slot")
        native, start, length = self._buffer(buffer, _VERTEX, offset, size, "set_vertex_buffer")
        self._draws.set_vertex_buffer(slot, native, start, length)

    def set_index_buffer(
        self,
        buffer: IBuffer,
        index_format: IndexFormat = "uint32",
        offset: int = 0,
        size: int | None = None,
    ) -> None:
        if index_format not in ("uint16", "uint32"):
            raise ValidationError(
                f"{self.name}: index_format must be 'uint16' or 'uint32', not {index_format!r}"
            )
        native, start, length = self._buffer(buffer, _INDEX, offset, size, "set_index_buffer")
        self._draws.set_index_buffer(native, index_format, start, length)

    def draw(
        self,
        vertex_count: int,
        instance_count: int = 1,
        first_vertex: int = 0,
        first_instance: int = 0,
    ) -> None:
        if not self.is_open:
            raise self._closed("draw")
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
        if not self.is_open:
            raise self._closed("draw_indexed")
        try:
            self._draws.draw_indexed(
                index_count, instance_count, first_index, base_vertex, first_instance
            )
        except (OverflowError, TypeError):
            numbers = (index_count, instance_count, first_index, base_vertex, first_instance)
            raise self._bad_number("draw_indexed", numbers) from None

    def draw_many(
        self,
        draws: npt.ArrayLike,
        *,
        bind_group: IBindGroup | None = None,
        dynamic_offsets: npt.ArrayLike | None = None,
        group_index: int = 0,
    ) -> None:
        if not self.is_open:
            raise self._closed("draw_many")
        rows = rows_of_draws(draws, DRAW, f"{self.name}: draw_many")
        index = self._number(group_index, self._group_limit, "draw_many group_index")
        group, offsets = self._group_rows(
            "draw_many", len(rows), index, bind_group, dynamic_offsets
        )
        self._draws.draw_many(rows, index, group, offsets)

    def draw_indexed_many(
        self,
        draws: npt.ArrayLike,
        *,
        bind_group: IBindGroup | None = None,
        dynamic_offsets: npt.ArrayLike | None = None,
        group_index: int = 0,
    ) -> None:
        if not self.is_open:
            raise self._closed("draw_indexed_many")
        rows = rows_of_draws(draws, DRAW_INDEXED, f"{self.name}: draw_indexed_many")
        index = self._number(group_index, self._group_limit, "draw_indexed_many group_index")
        group, offsets = self._group_rows(
            "draw_indexed_many", len(rows), index, bind_group, dynamic_offsets
        )
        self._draws.draw_indexed_many(rows, index, group, offsets)

    def draw_indirect(self, buffer: IBuffer, offset: int = 0) -> None:
        native, start, _ = self._buffer(buffer, _INDIRECT, offset, 16, "draw_indirect")
        self._draws.draw_indirect(native, start)

    def draw_indexed_indirect(self, buffer: IBuffer, offset: int = 0) -> None:
        native, start, _ = self._buffer(buffer, _INDIRECT, offset, 20, "draw_indexed_indirect")
        self._draws.draw_indexed_indirect(native, start)

    def _group_rows(
        self,
        call: str,
        count: int,
        index: int,
        bind_group: IBindGroup | None,
        dynamic_offsets: npt.ArrayLike | None,
    ) -> tuple[NativeBindGroup | None, npt.NDArray[np.uint32]]:
        """Return what is to be set before each of many draws: a bind group, if any, and offsets."""
        what = f"{self.name}: {call}"
        none = np.empty((count, 0), np.uint32)
        if bind_group is None:
            if dynamic_offsets is not None:
                raise ValidationError(
                    f"{what}: dynamic_offsets need the group that they are for; pass bind_group"
                )
            return None, none
        group = owned(bind_group, BindGroup, self._device, what)
        given = table_of_integers(
            none if dynamic_offsets is None else dynamic_offsets, f"{what}: dynamic_offsets"
        )
        if len(given) != count:
            raise ValidationError(
                f"{what}: dynamic_offsets have a row for each draw; {len(given)} rows were given "
                f"for {count} draws"
            )
        group.check_offset_count(given.shape[1], what)
        for place, (alignment, largest) in enumerate(group.offset_limits):
            column = given[:, place]
            bad = (column % alignment != 0) | (column < 0) | (column > largest)
            if bad.any():
                row = int(bad.argmax())
                raise group.offset_error(place, int(column[row]), f"{what}: draw {row}")
        self._recording.use_group(group)
        if not group.offset_limits:
            if count:
                self._draws.set_bind_group(index, group.native, ())  # once is enough
            return None, none
        return group.native, given.astype(np.uint32, order="C")


class RenderPass(RenderCommands, IRenderPass):
    """A render pass."""

    def __init__(
        self,
        device: RenderDevice,
        recording: Recording,
        native: NativeRenderPass,
        targets: Targets,
        occlusion_count: int,
        names: Names,
        site: Site,
    ) -> None:
        """Not called by users; `ICommandEncoder.begin_render_pass` makes passes."""
        super().__init__(device, recording, native, names, site)
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
        if not self.is_open:
            raise self._closed("set_viewport")
        given = (x, y, width, height, min_depth, max_depth)
        if not all(isinstance(number, Real) and abs(number) < 1e6 for number in given):
            raise ValidationError(f"{self.name}: set_viewport takes finite numbers, not {given}")
        self._native.set_viewport(x, y, width, height, min_depth, max_depth)

    def set_scissor_rect(self, x: int, y: int, width: int, height: int) -> None:
        if not self.is_open:
            raise self._closed("set_scissor_rect")
        try:
            self._native.set_scissor_rect(x, y, width, height)
        except (OverflowError, TypeError):
            raise self._bad_number("set_scissor_rect", (x, y, width, height)) from None

    def execute_bundles(self, bundles: Sequence[IRenderBundle]) -> None:
        if not self.is_open:
            raise self._closed("execute_bundles")
        given = items_of(bundles, f"{self.name}: execute_bundles")
        checked = [owned(bundle, RenderBundle, self._device, self.name) for bundle in given]
        for bundle in checked:
            if bundle.targets != self._targets:
                raise ValidationError(
                    f"{self.name}: {bundle.name} was recorded for {bundle.targets}, but the pass "
                    f"draws to {self._targets}; record one for these"
                )
            self._recording.use_all_of(bundle.recording)
        self._native.execute_bundles([bundle.native_handle for bundle in checked])

    def multi_draw_indirect(self, buffer: IBuffer, offset: int, count: int) -> None:
        native, start, draws = self._many(buffer, offset, count, 16, "multi_draw_indirect")
        if draws:
            self._native.multi_draw_indirect(native, start, draws)

    def multi_draw_indexed_indirect(self, buffer: IBuffer, offset: int, count: int) -> None:
        native, start, draws = self._many(buffer, offset, count, 20, "multi_draw_indexed_indirect")
        if draws:
            self._native.multi_draw_indexed_indirect(native, start, draws)

    def _many(
        self, buffer: IBuffer, offset: int, count: int, nbytes: int, call: str
    ) -> tuple[NativeBuffer, int, int]:
        """Return the buffer, the offset and the number of draws of `nbytes` arguments each."""
        draws = self._number(count, 2**32, f"{call} count")
        # Even no draws are checked as one, so that what is wrong does not depend on the data.
        native, start, _ = self._buffer(buffer, _INDIRECT, offset, nbytes * max(draws, 1), call)
        return native, start, draws

    def begin_occlusion_query(self, index: int) -> None:
        if not self.is_open:
            raise self._closed("begin_occlusion_query")
        if self._query_open or not self._occlusion_count:
            raise ValidationError(
                f"{self.name}: begin_occlusion_query({index!r}) needs a pass with an occlusion "
                f"query set (this one has {self._occlusion_count} queries) and no open query"
            )
        number = self._number(index, self._occlusion_count, "begin_occlusion_query")
        self._query_open = True
        self._native.begin_occlusion_query(number)

    def end_occlusion_query(self) -> None:
        if not self.is_open:
            raise self._closed("end_occlusion_query")
        if not self._query_open:
            raise ValidationError(
                f"{self.name}: end_occlusion_query without an open query; begin one"
            )
        self._query_open = False
        self._native.end_occlusion_query()

    def end(self) -> None:
        if not self.is_open:
            raise self._closed("end")
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
        names: Names,
        site: Site,
    ) -> None:
        """Not called by users; `ICommandEncoder.begin_compute_pass` makes passes."""
        super().__init__(device, recording, names, site)
        self._native = native

    def set_pipeline(self, pipeline: IPipeline) -> None:
        if not self.is_open:
            raise self._closed("set_pipeline")
        checked = owned(pipeline, Pipeline, self._device, self.name)
        if checked.kind != "compute":
            raise ValidationError(
                f"{self.name}: {checked.name} is a render pipeline; set one that computes"
            )
        self._native.set_pipeline(checked.native_handle)

    def set_bind_group(
        self, index: int, bind_group: IBindGroup, dynamic_offsets: Sequence[int] = ()
    ) -> None:
        place, group, offsets = self._bind_group(index, bind_group, dynamic_offsets)
        self._native.set_bind_group(place, group.native, offsets)

    def dispatch_workgroups(self, x: int, y: int = 1, z: int = 1) -> None:
        if not self.is_open:
            raise self._closed("dispatch_workgroups")
        try:
            self._native.dispatch_workgroups(x, y, z)
        except (OverflowError, TypeError):
            raise self._bad_number("dispatch_workgroups", (x, y, z)) from None

    def dispatch_workgroups_indirect(self, buffer: IBuffer, offset: int = 0) -> None:
        native, start, _ = self._buffer(
            buffer, _INDIRECT, offset, 12, "dispatch_workgroups_indirect"
        )
        self._native.dispatch_workgroups_indirect(native, start)

    def end(self) -> None:
        if not self.is_open:
            raise self._closed("end")
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

    def draw_many(
        self,
        draws: npt.NDArray[Any],
        index: int,
        bind_group: NativeBindGroup | None,
        offsets: npt.NDArray[Any],
    ) -> None:
        self._calls.append(("draw_many", (draws, index, bind_group, offsets)))

    def draw_indexed_many(
        self,
        draws: npt.NDArray[Any],
        index: int,
        bind_group: NativeBindGroup | None,
        offsets: npt.NDArray[Any],
    ) -> None:
        self._calls.append(("draw_indexed_many", (draws, index, bind_group, offsets)))

    def draw_indirect(self, buffer: Any, offset: int) -> None:
        self._calls.append(("draw_indirect", (buffer, offset)))

    def draw_indexed_indirect(self, buffer: Any, offset: int) -> None:
        self._calls.append(("draw_indexed_indirect", (buffer, offset)))


class RenderBundleEncoder(RenderCommands, IRenderBundleEncoder):
    """Records a render bundle."""

    def __init__(self, device: RenderDevice, targets: Targets, label: str) -> None:
        """Not called by users; `IRenderDevice.create_render_bundle_encoder` makes encoders."""
        self._commands = RecordedCommands()
        names = (("render bundle", label),)
        super().__init__(
            device, Recording(waits_for_submit=False), self._commands, names, call_site()
        )
        self._targets = targets
        self._label = label

    def finish(self) -> IRenderBundle:
        if not self.is_open:
            raise self._closed("finish")
        self._device.check_alive(f"{self.name}: finish")
        self.is_open = False
        handle = self._device.native.create_render_bundle(
            self._targets, self._commands.replay, self._label
        )
        return RenderBundle(self._device, self._label, handle, self._recording, self._targets)
