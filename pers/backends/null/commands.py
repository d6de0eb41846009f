"""The null backend's encoder: records what the copies do, for when they are due."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pers.backends.null.buffers import native_buffer
from pers.backends.null.live import LiveObjects, NullObject
from pers.backends.null.passes import NullComputePass, NullRenderPass
from pers.backends.null.tape import Tape
from pers.backends.null.textures import Bytes, native_texture, rows, texels
from pers.buffers.core import Buffer
from pers.graphics.native import Attachments, BufferPlace, NativeEncoder, TexturePlace

if TYPE_CHECKING:
    from pers.graphics.resources import QuerySet

Extent = tuple[int, int, int]


class NullCommandBuffer(NullObject):
    """Recorded commands, ready for one submit."""

    def __init__(self, live: LiveObjects, tape: Tape) -> None:
        super().__init__(live)
        self.tape = tape


class NullEncoder(NullObject, NativeEncoder):
    """Records commands. They hold on to the memory they work on."""

    def __init__(self, live: LiveObjects, max_workgroups: int, label: str) -> None:
        super().__init__(live)
        self._max_workgroups = max_workgroups
        self._name = f"encoder {label!r}"
        self._tape = Tape()

    def copy_buffer_to_buffer(
        self, source: Buffer, source_offset: int, target: Buffer, target_offset: int, size: int
    ) -> None:
        self._copy(
            native_buffer(source).memory[source_offset : source_offset + size],
            native_buffer(target).memory[target_offset : target_offset + size],
        )
        self._use(source, target)

    def copy_buffer_to_texture(
        self, source: BufferPlace, target: TexturePlace, size: Extent
    ) -> None:
        self._check_whole("copy_buffer_to_texture", target, size)
        if math.prod(size):
            pixel = target.texture.format.bytes_per_pixel
            self._copy(rows(source, pixel, size), texels(target, size))
            self._use(source.buffer)

    def copy_texture_to_buffer(
        self, source: TexturePlace, target: BufferPlace, size: Extent
    ) -> None:
        self._check_whole("copy_texture_to_buffer", source, size)
        if math.prod(size):
            pixel = source.texture.format.bytes_per_pixel
            self._copy(texels(source, size), rows(target, pixel, size))
            self._use(target.buffer)

    def copy_texture_to_texture(
        self, source: TexturePlace, target: TexturePlace, size: Extent
    ) -> None:
        call = "copy_texture_to_texture"
        self._check_whole(call, source, size)
        self._check_whole(call, target, size)
        if source.texture.sample_count != target.texture.sample_count:
            self._fail(
                call,
                f"{source.texture.name} has {source.texture.sample_count} samples, "
                f"{target.texture.name} {target.texture.sample_count}; resolve in a render pass",
            )
        same = source.texture is target.texture and source.mip_level == target.mip_level
        if same and abs(source.origin[2] - target.origin[2]) < size[2]:
            self._fail(
                call,
                f"{source.texture.name} cannot be copied to the same layer and mip level of "
                "itself; copy through another texture",
            )
        self._copy(texels(source, size), texels(target, size))

    def clear_buffer(self, buffer: Buffer, offset: int, size: int) -> None:
        self._zero(buffer, offset, size)

    def resolve_query_set(
        self, query_set: QuerySet, first: int, count: int, target: Buffer, offset: int
    ) -> None:
        self._zero(target, offset, 8 * count)

    def begin_render_pass(
        self,
        attachments: Attachments,
        clear_color: tuple[float, float, float, float] | None,
        clear_depth: float | None,
        occlusion_queries: QuerySet | None,
        label: str,
    ) -> NullRenderPass:
        name = f"{self._name}: render pass {label!r}"
        return NullRenderPass(self._tape, attachments, clear_color, clear_depth, name)

    def begin_compute_pass(self, label: str) -> NullComputePass:
        name = f"{self._name}: compute pass {label!r}"
        return NullComputePass(self._tape, self._max_workgroups, name)

    def finish(self) -> NullCommandBuffer:
        self._tape.check()
        self.release()
        return NullCommandBuffer(self._live, self._tape)

    def _check_whole(self, call: str, place: TexturePlace, size: Extent) -> None:
        """Check that depths and samples are copied with all pixels of a layer (WebGPU §13.5)."""
        texture = place.texture
        if not texture.format.is_depth and texture.sample_count == 1:
            return
        height, width = native_texture(texture).level(place.mip_level).shape[1:3]
        if place.origin[:2] != (0, 0) or size[:2] != (width, height):
            self._fail(
                call,
                f"{texture.name} can only be copied as a whole ({width}x{height}), not {size} at "
                f"{place.origin}, since it has depths or several samples",
            )

    def _fail(self, call: str, why: str) -> None:
        self._tape.fail(f"{self._name}: {call}: {why}")

    def _copy(self, source: Bytes, target: Bytes) -> None:
        def copy() -> None:
            target[...] = source

        self._tape.commands.append(copy)
        self._tape.counters.copies += 1
        self._tape.counters.copied_bytes += source.size

    def _zero(self, buffer: Buffer, offset: int, size: int) -> None:
        memory = native_buffer(buffer).memory[offset : offset + size]

        def zero() -> None:
            memory[...] = 0

        self._tape.commands.append(zero)
        self._use(buffer)

    def _use(self, *buffers: Buffer) -> None:
        self._tape.buffers.update(map(native_buffer, buffers))
