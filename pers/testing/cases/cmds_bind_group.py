"""``validation/cmds/setBindGroup``: which dynamic offsets are taken (WebGPU §14.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pers.buffers import BufferUsage
from pers.errors import BufferRangeError, PersError, ValidationError
from pers.graphics import (
    BindGroupLayout,
    BindingLayout,
    BufferBinding,
    IBindGroup,
    ShaderStage,
)
from pers.graphics.types import BindingKind
from pers.testing.bench import PASS_KINDS, Bench, PassKind
from pers.testing.case import case

RECORD = 12
"""Bytes that a shader sees."""


@case("validation/cmds/setBindGroup:dynamic_offsets_passed_but_not_expected")
async def dynamic_offsets_passed_but_not_expected(bench: Bench) -> None:
    group = bench.device.create_bind_group(BindGroupLayout([]), {}, label="static")
    for kind in PASS_KINDS:
        _set(bench, kind, group, [])
        _refuses(bench, kind, group, [0], ValidationError)


@case("validation/cmds/setBindGroup:dynamic_offsets_match_expectations_in_pass_encoder")
async def dynamic_offsets_match_expectations_in_pass_encoder(bench: Bench) -> None:
    uniform, storage = _alignment(bench, "uniform"), _alignment(bench, "storage")
    group = bench.device.create_bind_group(
        BindGroupLayout([_dynamic(0, "uniform"), _dynamic(1, "storage")]),
        {
            0: BufferBinding(bench.buffer(2 * uniform + 8, BufferUsage.UNIFORM, "u"), size=RECORD),
            1: BufferBinding(bench.buffer(2 * storage + 8, BufferUsage.STORAGE, "s"), size=RECORD),
        },
        label="dynamic",
    )
    for kind in PASS_KINDS:
        for accepted in ([0, 0], [uniform, 0], [0, storage], [uniform, storage]):
            _set(bench, kind, group, accepted)
        for wrong_count in ([uniform, 0, 0], [uniform], []):
            _refuses(bench, kind, group, wrong_count, ValidationError)
        for misaligned in ([1, 2], [uniform // 2, 0], [0, storage // 2], [-uniform, 0]):
            _refuses(bench, kind, group, misaligned, BufferRangeError)
        _refuses(bench, kind, group, [0.5, 0], BufferRangeError)
        for beyond in (2, 4, 2**32):
            _refuses(bench, kind, group, [beyond * uniform, 0], BufferRangeError)
            _refuses(bench, kind, group, [0, beyond * storage], BufferRangeError)
        for offsets in ([0xFFFF_FFFF, 0], [0, 0xFFFF_FFFF]):
            _refuses(bench, kind, group, offsets, BufferRangeError)


@case("validation/cmds/setBindGroup:buffer_dynamic_offsets")
async def buffer_dynamic_offsets(bench: Bench) -> None:
    kinds: tuple[BindingKind, ...] = ("uniform", "storage", "read-only-storage")
    for binding in kinds:
        alignment = _alignment(bench, binding)
        usage = BufferUsage.UNIFORM if binding == "uniform" else BufferUsage.STORAGE
        buffer = bench.buffer(3 * alignment, usage, "records")
        group = bench.device.create_bind_group(
            BindGroupLayout([_dynamic(0, binding)]), {0: BufferBinding(buffer, size=RECORD)}
        )
        for kind in PASS_KINDS:
            for offset in (alignment, 2 * alignment):
                _set(bench, kind, group, [offset])
            for offset in (alignment // 2, alignment + alignment // 2, alignment + 2):
                _refuses(bench, kind, group, [offset], BufferRangeError)


def _dynamic(binding: int, kind: BindingKind) -> BindingLayout:
    stages = ShaderStage.COMPUTE | ShaderStage.FRAGMENT
    return BindingLayout(binding, kind, stages, dynamic_offset=True)


def _alignment(bench: Bench, kind: BindingKind) -> int:
    limits = bench.device.limits
    if kind == "uniform":
        return limits.min_uniform_buffer_offset_alignment
    return limits.min_storage_buffer_offset_alignment


def _set(bench: Bench, kind: PassKind, group: IBindGroup, offsets: Sequence[int]) -> None:
    for given in (offsets, tuple(offsets), np.array(offsets, np.uint32)):

        def record(commands: Any, given: Any = given) -> None:
            commands.set_bind_group(0, group, given)

        bench.device.queue.submit([bench.record_in(kind, record)]).wait()


def _refuses(
    bench: Bench, kind: PassKind, group: IBindGroup, offsets: list[Any], error: type[PersError]
) -> None:
    for given in (offsets, np.array(offsets)):

        def record(commands: Any, given: Any = given) -> None:
            with bench.refuses(error, words=("set_bind_group",)):
                commands.set_bind_group(0, group, given)

        bench.device.queue.submit([bench.record_in(kind, record)]).wait()
