"""Nothing leaks: native objects, Python objects and the process's memory over thousands of cycles.

This file is also a program. It reads names of `CASES`, goes through many cycles of each on both
backends in a process of its own, so that its memory is nobody else's, and prints what has grown.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import inspect
import itertools
import os
import re
import subprocess
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import attrs
import numpy as np
import numpy.typing as npt
import pytest

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

import pers
from pers import (
    BindGroupLayout,
    BindingLayout,
    BufferDesc,
    BufferUsage,
    ColorTarget,
    ComputePipelineDescriptor,
    DeferredStagingBuffer,
    DeviceBuffer,
    DeviceLostError,
    DynamicBuffer,
    ImmediateStagingBuffer,
    IRenderDevice,
    MapMode,
    MappedViewsError,
    PersError,
    ReadbackBuffer,
    ReadbackStream,
    RenderPipelineDescriptor,
    SamplerDescriptor,
    ShaderStage,
    StagingBelt,
    TextureDescriptor,
    TextureFormat,
    TextureUsage,
)
from tests.support import (
    BACKENDS,
    COPY,
    DOUBLE,
    FULL_SCREEN,
    READBACK,
    ROOT,
    UPLOAD,
    Hold,
    open_device,
    settle,
    start_map,
)

SIZE = 16 * 1024
"""Bytes of a buffer: two thousand that leak are 32 MiB."""
RGBA = TextureFormat.RGBA8_UNORM
PIXELS = np.zeros((64, 64, 4), np.uint8)
DATA = np.arange(SIZE // 4, dtype=np.uint32)

Cycle = Callable[[bool], None]
"""Makes, uses and drops things; given whether to destroy them first."""
Case = Callable[[IRenderDevice], Cycle]
"""Makes what all cycles share, and returns the cycle."""


def render_descriptor(shader: Any) -> RenderPipelineDescriptor:
    return RenderPipelineDescriptor(shader, [ColorTarget(RGBA)], label="full screen")


STORAGE = BindGroupLayout([BindingLayout(0, "storage", ShaderStage.COMPUTE)])

# --- Buffers --------------------------------------------------------------------------------------


def plain(device: IRenderDevice) -> Cycle:
    def cycle(destroy: bool) -> None:
        buffer = device.buffer_factory.create_buffer(BufferDesc(SIZE, COPY))
        device.queue.write_buffer(buffer, 0, DATA)
        if destroy:
            buffer.destroy()

    return cycle


def with_data(device: IRenderDevice) -> Cycle:
    def cycle(destroy: bool) -> None:
        buffer = device.buffer_factory.create_buffer_with_data(BufferDesc(SIZE, COPY), DATA)
        if destroy:
            buffer.destroy()

    return cycle


def mappable(device: IRenderDevice) -> Cycle:
    """Written, and dropped after the unmap."""

    def cycle(destroy: bool) -> None:
        buffer = device.buffer_factory.create_mappable_buffer(BufferDesc(SIZE, UPLOAD))
        buffer.map().write(DATA)
        buffer.unmap()
        if destroy:
            buffer.destroy()

    return cycle


def dropped_while_mapped(device: IRenderDevice) -> Cycle:
    """With the range, a part of it and an array, which die in any order."""

    def cycle(destroy: bool) -> None:
        desc = BufferDesc(SIZE, UPLOAD, mapped_at_creation=True)
        buffer = device.buffer_factory.create_mappable_buffer(desc)
        mapped, part = buffer.mapped_data, buffer.mapped_range(8, 8)
        array = mapped.as_array(np.uint32)[3:]
        array[:] = 5
        part.write(bytes(8))
        with contextlib.suppress(MappedViewsError):
            buffer.unmap()
        if destroy:
            buffer.destroy()

    return cycle


def device_buffer(device: IRenderDevice) -> Cycle:
    def cycle(destroy: bool) -> None:
        buffer = DeviceBuffer.from_array(DATA, BufferUsage.VERTEX, device.buffer_factory)
        if destroy:
            buffer.destroy()

    return cycle


def immediate_staging(device: IRenderDevice) -> Cycle:
    target = device.buffer_factory.create_buffer(BufferDesc(SIZE, COPY))

    def cycle(destroy: bool) -> None:
        staging = ImmediateStagingBuffer(SIZE, device.buffer_factory)
        staging.write(DATA)
        encoder = device.create_command_encoder()
        staging.upload_to(encoder, target)
        device.queue.submit([encoder.finish()])
        if destroy:
            staging.destroy()

    return cycle


def deferred_staging(device: IRenderDevice) -> Cycle:
    """Also with an array that outlives the block, so that the buffer has to take new memory."""
    target = device.buffer_factory.create_buffer(BufferDesc(SIZE, COPY))

    def cycle(destroy: bool) -> None:
        staging = DeferredStagingBuffer(SIZE, device.buffer_factory)
        for keep in (False, True):
            with staging.map() as mapped:
                array = mapped.as_array(np.uint32)
                array[:] = DATA
                if not keep:
                    del array
            encoder = device.create_command_encoder()
            staging.upload_to(encoder, target)
            device.queue.submit([encoder.finish()])
        if destroy:
            staging.destroy()

    return cycle


def readback(device: IRenderDevice) -> Cycle:
    """With an array that makes the second read take a second slot."""
    source = DeviceBuffer.from_array(DATA, BufferUsage.COPY_SRC, device.buffer_factory)

    def cycle(destroy: bool) -> None:
        target = ReadbackBuffer(SIZE, device.buffer_factory)
        arrays = []
        for _ in range(2):
            encoder = device.create_command_encoder()
            target.copy_from(encoder, source)
            device.queue.submit([encoder.finish()])
            arrays.append(target.read_array_blocking(np.uint32))
        assert arrays[0][7] == arrays[1][7] == 7
        if destroy:
            target.destroy()

    return cycle


def read_into(device: IRenderDevice) -> Cycle:
    source = DeviceBuffer.from_array(DATA, BufferUsage.COPY_SRC, device.buffer_factory)
    out = np.zeros_like(DATA)

    def cycle(destroy: bool) -> None:
        target = ReadbackBuffer(SIZE, device.buffer_factory)
        encoder = device.create_command_encoder()
        target.copy_from(encoder, source)
        device.queue.submit([encoder.finish()])
        assert target.read_into_blocking(out)[7] == 7
        if destroy:
            target.destroy()

    return cycle


def readback_stream(device: IRenderDevice) -> Cycle:
    """One result is taken, one left behind, one never submitted."""
    source = DeviceBuffer.from_array(DATA, BufferUsage.COPY_SRC, device.buffer_factory)

    def cycle(destroy: bool) -> None:
        stream = ReadbackStream(SIZE, device.buffer_factory, dtype=np.uint32)
        encoder = device.create_command_encoder()
        stream.push(encoder, source, tag="taken")
        stream.push(encoder, source, tag="left")
        device.queue.submit([encoder.finish()])
        stream.push(device.create_command_encoder(), source, tag="never submitted")
        tag, array = stream.take_blocking()
        assert (tag, array[7]) == ("taken", 7)
        if destroy:
            stream.destroy()

    return cycle


def records(device: IRenderDevice) -> Cycle:
    """Packed into a ring, as offsets that outlive it."""

    def cycle(destroy: bool) -> None:
        ring = DynamicBuffer(SIZE, device.buffer_factory)
        with ring.begin_update() as update:
            offsets = update.push_many(DATA.reshape(-1, 256))
        if destroy:
            ring.destroy()
        del ring, update
        assert len(offsets) == 16

    return cycle


def dynamic(device: IRenderDevice) -> Cycle:
    """A ring that goes round and grows."""
    target = device.buffer_factory.create_buffer(BufferDesc(SIZE, COPY))

    def cycle(destroy: bool) -> None:
        usage = BufferUsage.UNIFORM | BufferUsage.COPY_SRC
        ring = DynamicBuffer(1024, device.buffer_factory, usage=usage)
        for turn in range(4):
            with ring.begin_update() as update:
                offset = update.push(DATA[: 1024 if turn == 2 else 128])
            encoder = device.create_command_encoder()
            encoder.copy_buffer_to_buffer(ring, offset, target, 0, 512)
            device.queue.submit([encoder.finish()])
        assert ring.stats.grows == 1
        if destroy:
            ring.destroy()

    return cycle


def belt(device: IRenderDevice) -> Cycle:
    """A belt of one's own: through the queue, through chunks, recorded and given up."""
    data = np.zeros(300 * 1024, np.uint8)
    target = device.buffer_factory.create_buffer(BufferDesc(data.nbytes, COPY))

    def cycle(destroy: bool) -> None:
        staging = StagingBelt(device, budget=1 << 20)
        staging.upload(DATA, target)
        staging.upload(data, target)
        staging.upload(DATA, target, encoder=device.create_command_encoder())
        if destroy:  # a belt has no end of its own; what it has recorded is submitted or dropped
            staging.flush()

    return cycle


def device_belt(device: IRenderDevice) -> Cycle:
    """The device's own: its chunks are used again."""
    data = np.zeros(300 * 1024, np.uint8)

    def cycle(destroy: bool) -> None:
        target = device.buffer_factory.create_buffer(BufferDesc(data.nbytes, COPY))
        device.upload(data, target)
        if destroy:
            target.destroy()
        device.belt.flush().wait()

    return cycle


def read_array(device: IRenderDevice) -> Cycle:
    """Arrays of the device's pool, of a buffer and of a texture, two alive at a time."""
    source = DeviceBuffer.from_array(DATA, BufferUsage.COPY_SRC, device.buffer_factory)
    texture = device.create_texture(
        TextureDescriptor(64, 64, RGBA, TextureUsage.COPY_SRC | TextureUsage.COPY_DST)
    )

    def cycle(destroy: bool) -> None:
        first = device.read_array_blocking(source, np.uint32)
        second = device.read_array_blocking(source, np.uint32, copy=destroy)
        assert first[9] == second[9] == 9
        assert not device.read_array_blocking(texture)[3].any()

    return cycle


def read_arrays_of_all_sizes(device: IRenderDevice) -> Cycle:
    """The pool must not keep memory for every size that was ever read."""
    sizes = itertools.cycle(range(4, SIZE, 4))

    def cycle(destroy: bool) -> None:
        data = np.ones(next(sizes), np.uint8)
        source = DeviceBuffer.from_array(data, BufferUsage.COPY_SRC, device.buffer_factory)
        assert device.read_array_blocking(source, copy=destroy).all()

    return cycle


def read_array_async(device: IRenderDevice) -> Cycle:
    """In many event loops, each with waiting tasks."""
    source = DeviceBuffer.from_array(DATA, BufferUsage.COPY_SRC, device.buffer_factory)

    async def read() -> None:
        assert (await device.read_array(source, np.uint32))[9] == 9

    async def read_some() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(read)

    def cycle(destroy: bool) -> None:
        anyio.run(read_some, backend="trio" if destroy else "asyncio")

    return cycle


# --- What goes wrong ------------------------------------------------------------------------------


def aborted_map(device: IRenderDevice) -> Cycle:
    """Pending when its buffer is destroyed, or dropped."""

    async def abort(destroy: bool) -> None:
        buffer = device.buffer_factory.create_mappable_buffer(BufferDesc(SIZE, UPLOAD))
        with Hold(device):
            async with anyio.create_task_group() as group:
                await start_map(group, buffer)
                buffer.destroy() if destroy else buffer.unmap()

    return lambda destroy: anyio.run(abort, destroy)


def dropped_map(device: IRenderDevice) -> Cycle:
    """Nobody waits for it any more, and nobody has its buffer."""

    def cycle(destroy: bool) -> None:
        buffer: Any = device.buffer_factory.create_mappable_buffer(BufferDesc(SIZE, UPLOAD))
        coroutine = buffer.map_async()
        with Hold(device):
            with contextlib.suppress(StopIteration):
                buffer._begin_map(MapMode.WRITE, 0, None)
            coroutine.close()
            if destroy:
                buffer.destroy()
            del buffer

    return cycle


def cancelled_map(device: IRenderDevice) -> Cycle:
    async def cancel(destroy: bool) -> None:
        buffer = device.buffer_factory.create_mappable_buffer(BufferDesc(SIZE, READBACK))
        with Hold(device):
            async with anyio.create_task_group() as group:
                await start_map(group, buffer, MapMode.READ)
                group.cancel_scope.cancel()
        if destroy:
            buffer.destroy()

    return lambda destroy: anyio.run(cancel, destroy)


def refused_calls(device: IRenderDevice) -> Cycle:
    """Maps, commands and submits that raise, on a buffer that is used all the time."""
    factory = device.buffer_factory
    buffer = factory.create_mappable_buffer(BufferDesc(SIZE, UPLOAD))
    target = factory.create_buffer(BufferDesc(SIZE, COPY))

    encoder = device.create_command_encoder()
    encoder.copy_buffer_to_buffer(buffer, 0, target, 0)
    commands = encoder.finish()

    def cycle(destroy: bool) -> None:
        mapped = buffer.map()
        for call in (
            buffer.map,
            lambda: buffer.mapped_range(1),
            lambda: mapped.as_array(np.uint8, 2 * SIZE),
            lambda: device.queue.submit([commands]),
            lambda: device.queue.write_buffer(buffer, 0, DATA),
            encoder.finish,
        ):
            with pytest.raises(PersError):
                call()
        buffer.unmap()
        with pytest.raises(PersError):
            buffer.map(MapMode.READ)

    return cycle


def failed_maps(device: IRenderDevice) -> Cycle:
    """Maps that the device fails (on null), or that come to nothing otherwise."""
    buffer = device.buffer_factory.create_mappable_buffer(BufferDesc(SIZE, UPLOAD))
    native: Any = device

    def cycle(destroy: bool) -> None:
        if device.info.backend == "null":
            native.faults.fail_next_maps()
            with pytest.raises(PersError):
                buffer.map()
        else:
            core: Any = buffer
            pending = core._begin_map(MapMode.WRITE, 0, None)
            buffer.unmap()
            with pytest.raises(PersError):
                pending.wait()

    return cycle


def failed_creations(device: IRenderDevice) -> Cycle:
    """What the device refuses: too large, not compiling, not fitting, out of memory."""
    native: Any = device
    shader = device.create_shader_module(FULL_SCREEN + DOUBLE)
    buffer = device.buffer_factory.create_buffer(BufferDesc(64, BufferUsage.STORAGE))

    def cycle(destroy: bool) -> None:
        if device.info.backend == "null":
            native.faults.fail_next_allocations(2)
            for call in (
                lambda: device.buffer_factory.create_buffer(BufferDesc(SIZE, COPY)),
                lambda: device.create_frame_buffer(4, 4, depth_format=TextureFormat.DEPTH32_FLOAT),
            ):
                with pytest.raises(PersError):
                    call()
        for call in (
            lambda: device.buffer_factory.create_buffer(BufferDesc(2**62, COPY)),
            lambda: device.create_shader_module("nothing"),
            lambda: device.create_compute_pipeline(
                ComputePipelineDescriptor(shader, [STORAGE], entry="not there")
            ),
            lambda: device.create_render_pipeline(
                RenderPipelineDescriptor(shader, [ColorTarget(RGBA)], vertex_entry="not there")
            ),
            lambda: device.create_bind_group(STORAGE, {0: pers.BufferBinding(buffer, 0, 128)}),
            lambda: device.create_bind_group(STORAGE, {1: buffer}),
            lambda: device.create_texture(
                TextureDescriptor(
                    8, 8, RGBA, TextureUsage.STORAGE_BINDING, sample_count=4, mip_levels=3
                )
            ),
        ):
            with pytest.raises(PersError):
                call()

    return cycle


# --- Textures and descriptions --------------------------------------------------------------------


def texture(device: IRenderDevice) -> Cycle:
    def cycle(destroy: bool) -> None:
        usage = TextureUsage.COPY_DST | TextureUsage.TEXTURE_BINDING
        picture = device.create_texture(TextureDescriptor(64, 64, RGBA, usage, mip_levels=3))
        device.queue.write_texture(picture, PIXELS)
        if destroy:
            picture.destroy()

    return cycle


def sampler(device: IRenderDevice) -> Cycle:
    def cycle(destroy: bool) -> None:
        device.create_sampler()
        device.create_sampler(SamplerDescriptor(mag_filter="nearest"))

    return cycle


def bind_group(device: IRenderDevice) -> Cycle:
    """Buffer, texture and sampler, which die with it or before it."""
    layout = BindGroupLayout(
        [
            BindingLayout(0, "uniform", dynamic_offset=True, min_size=16),
            BindingLayout(1, "texture"),
            BindingLayout(2, "sampler"),
        ]
    )

    def cycle(destroy: bool) -> None:
        buffer = DeviceBuffer(SIZE, device.buffer_factory, usage=BufferUsage.UNIFORM)
        picture = device.create_texture(TextureDescriptor(8, 8, RGBA, TextureUsage.TEXTURE_BINDING))
        group = device.create_bind_group(
            layout, {0: buffer, 1: picture, 2: device.create_sampler()}
        )
        if destroy:
            buffer.destroy()
            picture.destroy()
        del buffer, picture
        assert group.layout is layout

    return cycle


def shader_module(device: IRenderDevice) -> Cycle:
    def cycle(destroy: bool) -> None:
        device.create_shader_module(FULL_SCREEN)

    return cycle


def same_pipeline(device: IRenderDevice) -> Cycle:
    """Equal descriptors give the same pipeline, which the device keeps."""
    shader = device.create_shader_module(FULL_SCREEN + DOUBLE)

    def cycle(destroy: bool) -> None:
        if destroy:
            device.create_compute_pipeline(ComputePipelineDescriptor(shader, [STORAGE]))
        else:
            device.create_render_pipeline(render_descriptor(shader))

    return cycle


def pipelines(device: IRenderDevice) -> Cycle:
    """Pipelines of shaders that are dropped."""

    def cycle(destroy: bool) -> None:
        shader = device.create_shader_module(FULL_SCREEN + DOUBLE)
        if destroy:
            device.create_compute_pipeline(ComputePipelineDescriptor(shader, [STORAGE]))
        else:
            device.create_render_pipeline(render_descriptor(shader))

    return cycle


def frame_buffer(device: IRenderDevice) -> Cycle:
    """Cleared by a pass, multisampled and not."""

    def cycle(destroy: bool) -> None:
        for samples in (1, 4):
            target = device.create_frame_buffer(
                32, 32, [RGBA], depth_format=TextureFormat.DEPTH32_FLOAT, sample_count=samples
            )
            encoder = device.create_command_encoder()
            encoder.begin_render_pass(target).end()
            device.queue.submit([encoder.finish()])
            if destroy:
                target.destroy()

    return cycle


def query_set(device: IRenderDevice) -> Cycle:
    """Used by a pass, resolved, read."""
    target = device.create_frame_buffer(4, 4, [RGBA])
    usage = BufferUsage.QUERY_RESOLVE | BufferUsage.COPY_SRC
    results = DeviceBuffer(256, device.buffer_factory, usage=usage)

    def cycle(destroy: bool) -> None:
        queries = device.create_query_set("occlusion", 2)
        encoder = device.create_command_encoder()
        with encoder.begin_render_pass(target, occlusion_queries=queries) as render_pass:
            render_pass.begin_occlusion_query(1)
            render_pass.end_occlusion_query()
        encoder.resolve_query_set(queries, 0, 2, results)
        device.queue.submit([encoder.finish()])
        if destroy:
            queries.destroy()

    return cycle


def render_bundle(device: IRenderDevice) -> Cycle:
    """Executed, never executed, and never finished."""
    pipeline = device.create_render_pipeline(
        render_descriptor(device.create_shader_module(FULL_SCREEN))
    )
    target = device.create_frame_buffer(4, 4, [RGBA])

    def cycle(destroy: bool) -> None:
        device.create_render_bundle_encoder([RGBA]).set_pipeline(pipeline)
        bundle_encoder = device.create_render_bundle_encoder([RGBA])
        bundle_encoder.set_pipeline(pipeline)
        bundle_encoder.draw(3)
        bundle = bundle_encoder.finish()
        if destroy:
            encoder = device.create_command_encoder()
            with encoder.begin_render_pass(target) as render_pass:
                render_pass.execute_bundles([bundle])
            device.queue.submit([encoder.finish()])

    return cycle


# --- Commands -------------------------------------------------------------------------------------


def encoder(device: IRenderDevice) -> Cycle:
    """Dropped with commands in it, and with the buffers that they use."""

    def cycle(destroy: bool) -> None:
        make = [device.buffer_factory.create_buffer(BufferDesc(SIZE, COPY)) for _ in range(2)]
        commands = device.create_command_encoder()
        commands.copy_buffer_to_buffer(make[0], 0, make[1], 0)
        commands.clear_buffer(make[0])
        if destroy:
            make[0].destroy()

    return cycle


def never_submitted(device: IRenderDevice) -> Cycle:
    """Commands that were finished, and then dropped."""
    buffer = device.buffer_factory.create_buffer(BufferDesc(SIZE, COPY))

    def cycle(destroy: bool) -> None:
        commands = device.create_command_encoder()
        commands.clear_buffer(buffer)
        commands.finish()

    return cycle


def command_buffer(device: IRenderDevice) -> Cycle:
    """Submitted, several at once, with buffers that die when the GPU has done with them."""

    def cycle(destroy: bool) -> None:
        make = [device.buffer_factory.create_buffer(BufferDesc(SIZE, COPY)) for _ in range(2)]
        finished = []
        for _ in range(2):
            commands = device.create_command_encoder()
            commands.copy_buffer_to_buffer(make[0], 0, make[1], 0)
            finished.append(commands.finish())
        device.queue.submit(finished)
        if destroy:
            make[0].destroy()

    return cycle


def passes(device: IRenderDevice) -> Cycle:
    """With draws and dispatches, ended or left open and dropped with their encoder."""
    shader = device.create_shader_module(FULL_SCREEN + DOUBLE)
    drawing = device.create_render_pipeline(render_descriptor(shader))
    doubling = device.create_compute_pipeline(ComputePipelineDescriptor(shader, [STORAGE]))
    buffer = DeviceBuffer(SIZE, device.buffer_factory, usage=BufferUsage.STORAGE)
    group = device.create_bind_group(STORAGE, {0: buffer})
    target = device.create_frame_buffer(4, 4, [RGBA])

    def cycle(destroy: bool) -> None:
        commands = device.create_command_encoder()
        compute_pass = commands.begin_compute_pass()
        compute_pass.set_pipeline(doubling)
        compute_pass.set_bind_group(0, group)
        compute_pass.dispatch_workgroups(1)
        compute_pass.end()
        render_pass = commands.begin_render_pass(target)
        render_pass.set_pipeline(drawing)
        render_pass.draw(3)
        if destroy:
            render_pass.end()
            device.queue.submit([commands.finish()])

    return cycle


def submission(device: IRenderDevice) -> Cycle:
    """Waited for, asked, or forgotten."""

    def cycle(destroy: bool) -> None:
        device.queue.submit([])
        device.queue.on_work_done().is_done  # noqa: B018
        last = device.queue.on_work_done()
        if destroy:
            last.wait()

    return cycle


def awaited_submission(device: IRenderDevice) -> Cycle:
    """By a task that is cancelled, or not."""

    async def wait(destroy: bool) -> None:
        with anyio.move_on_after(0 if destroy else None):
            await device.queue.on_work_done().done()

    return lambda destroy: anyio.run(wait, destroy)


def waits_for_lost_work(device: IRenderDevice) -> Cycle:
    """Somebody asks a submission again and again that will never be done."""
    other = open_device(device.info.backend)
    with Hold(other):
        lost = other.queue.on_work_done()
        other.close()

    async def wait() -> None:
        await lost.done()

    def cycle(destroy: bool) -> None:
        with pytest.raises(DeviceLostError):
            anyio.run(wait) if destroy else lost.wait()

    return cycle


def callbacks_and_scopes(device: IRenderDevice) -> Cycle:
    """What is asked of a device again and again without making anything."""

    def cycle(destroy: bool) -> None:
        with device.error_scope() as scope:
            device.create_shader_module(5)  # type: ignore[arg-type]
        assert scope.error is not None
        device.poll()
        assert device.limits.max_buffer_size
        assert device.info.name
        assert device.belt.stats.budget

    return cycle


def devices(device: IRenderDevice) -> Cycle:
    """Opened, used, and closed or dropped."""

    def cycle(destroy: bool) -> None:
        other = open_device(device.info.backend)
        buffer = DeviceBuffer.from_array(DATA, COPY, other.buffer_factory)
        shader = other.create_shader_module(FULL_SCREEN)
        other.create_render_pipeline(render_descriptor(shader))
        array = other.read_array_blocking(buffer, np.uint32)
        if destroy:
            other.close()
        assert array[5] == 5
        del other, buffer, shader, array
        gc.collect()  # a device and its parts refer to each other

    return cycle


@attrs.frozen
class Allowed:
    """How often a case is tried, and what may grow meanwhile.

    Attributes:
        cycles: How many count; half as many come before, since pools and allocators fill up.
        growth: Memory of the process (MiB). What was measured is below 0.5, most of it 0.
        native: Native objects that each cycle leaves behind on webgpu, below pers.
    """

    cycles: int = 400
    growth: float = 2
    native: dict[str, int] = attrs.field(factory=dict)


# wgpu-native 29 never frees a command buffer that was not submitted (about 100 KiB each). A render
# bundle costs one, too: it is rehearsed in a pass that nobody submits.
UNSUBMITTED = Allowed(60, 30, {"CommandBuffer": 1})
# wgpu-py raises before anybody has the handle of what failed (less than 1 KiB each).
FAILED = Allowed(200, 2, {"ComputePipeline": 1, "RenderPipeline": 1, "ShaderModule": 1})

CASES: dict[Case, Allowed] = {
    plain: Allowed(),
    with_data: Allowed(),
    mappable: Allowed(),
    dropped_while_mapped: Allowed(),
    device_buffer: Allowed(),
    immediate_staging: Allowed(),
    deferred_staging: Allowed(300),
    readback: Allowed(300),
    read_into: Allowed(300),
    readback_stream: Allowed(200),
    records: Allowed(200),
    dynamic: Allowed(200),
    belt: Allowed(200),
    device_belt: Allowed(300),
    read_array: Allowed(150),
    read_arrays_of_all_sizes: Allowed(300),
    read_array_async: Allowed(80),
    aborted_map: Allowed(200),
    dropped_map: Allowed(),
    cancelled_map: Allowed(200),
    refused_calls: Allowed(),
    failed_maps: Allowed(),
    failed_creations: FAILED,
    texture: Allowed(),
    sampler: Allowed(),
    bind_group: Allowed(),
    shader_module: Allowed(),
    same_pipeline: Allowed(),
    pipelines: Allowed(150, 12),  # llvmpipe's compiler fills its heap up slowly
    frame_buffer: Allowed(120),
    query_set: Allowed(250),
    render_bundle: UNSUBMITTED,
    encoder: Allowed(),
    never_submitted: UNSUBMITTED,
    command_buffer: Allowed(),
    passes: Allowed(),
    submission: Allowed(),
    awaited_submission: Allowed(300),
    waits_for_lost_work: Allowed(200),
    callbacks_and_scopes: Allowed(),
    devices: Allowed(20, 4),
}

# --- Measuring ------------------------------------------------------------------------------------


@attrs.frozen
class Usage:
    """What a process takes at a moment."""

    native: Counter[str]
    objects: int
    rss: int


def measure(device: IRenderDevice) -> Usage:
    """Count what is alive when nothing is going on."""
    settle(device)
    join_watchers()
    gc.collect()
    settle(device)
    return Usage(native_objects(device), len(gc.get_objects()), resident())


def join_watchers() -> None:
    """Wait until nobody polls webgpu any more."""
    for thread in threading.enumerate():
        if thread.name == "pers-webgpu-poll":
            thread.join()


def native_objects(device: IRenderDevice) -> Counter[str]:
    """Count native objects by kind, on webgpu those of the whole process."""
    native: Any = device
    if device.info.backend == "null":
        counts: Counter[str] = native.live_objects()
        return counts
    import wgpu

    kinds = wgpu.diagnostics.wgpu_native_counts.get_dict()
    kinds.pop("total")
    return Counter({kind: row["count"] for kind, row in kinds.items() if row["count"]})


def resident() -> int:
    """Return the process's memory (bytes)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def grown(case: Case, device: IRenderDevice, *, destroy: bool) -> list[str]:
    """Go through the cycles of a case; describe what has grown that should not."""
    allowed = CASES[case]
    cycle = case(device)

    def cycles(count: int) -> None:
        for turn in range(count):
            cycle(destroy)
            if turn % 50 == 49:
                settle(device)

    cycles(allowed.cycles // 2)
    before = measure(device)
    cycles(allowed.cycles)
    after = measure(device)

    what = f"{device.info.backend}, {'destroyed' if destroy else 'dropped'}: "
    expected: Counter[str] = Counter()
    if device.info.backend == "webgpu":
        expected.update({kind: n * allowed.cycles for kind, n in allowed.native.items()})
    native = Counter(after.native)
    native.subtract(before.native)
    found = []
    if +native != expected or -native:
        found.append(f"{what}native objects: {dict(native)}, not {dict(expected)}")
    if after.objects - before.objects > 20:  # the measuring makes some, too
        found.append(f"{what}{after.objects - before.objects} Python objects")
    if after.rss - before.rss > allowed.growth * 2**20:
        found.append(f"{what}{(after.rss - before.rss) / 2**20:.1f} MiB of memory")
    return found


def grown_anyhow(case: Case) -> list[str]:
    """The same on both backends, dropped and destroyed."""
    found = []
    for backend in BACKENDS:
        for destroy in (False, True):
            with open_device(backend) as device:
                found += grown(case, device, destroy=destroy)
    return found


# --- Views that outlive their buffers -------------------------------------------------------------

LARGE = 64 * 2**20
"""Bytes of a buffer that drivers give memory of its own, which must come and go."""


def large_numbers() -> npt.NDArray[np.uint32]:
    return np.arange(LARGE // 4, dtype=np.uint32)


Outliving = Callable[[IRenderDevice], tuple[Any, npt.NDArray[np.uint32]]]
"""Makes something with a mapping, and an array that looks at `large_numbers` in it."""


def created_mapped(device: IRenderDevice) -> tuple[Any, npt.NDArray[np.uint32]]:
    desc = BufferDesc(LARGE, BufferUsage.STORAGE, mapped_at_creation=True)
    buffer = device.buffer_factory.create_mappable_buffer(desc)
    array = buffer.mapped_data.as_array(np.uint32)
    array[:] = large_numbers()
    return buffer, array


def mapped(device: IRenderDevice) -> tuple[Any, npt.NDArray[np.uint32]]:
    buffer = device.buffer_factory.create_mappable_buffer(BufferDesc(LARGE, UPLOAD))
    array = buffer.map().as_array(np.uint32)
    array[:] = large_numbers()
    return buffer, array


def staged(device: IRenderDevice) -> tuple[Any, npt.NDArray[np.uint32]]:
    staging = ImmediateStagingBuffer(LARGE, device.buffer_factory)
    array = staging.as_array(np.uint32)
    array[:] = large_numbers()
    return staging, array


def read_back(device: IRenderDevice) -> tuple[Any, npt.NDArray[np.uint32]]:
    target = ReadbackBuffer(LARGE, device.buffer_factory)
    usage = BufferUsage.COPY_SRC
    with DeviceBuffer.from_array(large_numbers(), usage, device.buffer_factory) as source:
        encoder = device.create_command_encoder()
        target.copy_from(encoder, source)
        device.queue.submit([encoder.finish()])
        return target, target.read_array_blocking(np.uint32)


def read_from_device(device: IRenderDevice) -> tuple[Any, npt.NDArray[np.uint32]]:
    """Its owner is the device's pool, so only the device can end it."""
    usage = BufferUsage.COPY_SRC
    with DeviceBuffer.from_array(large_numbers(), usage, device.buffer_factory) as source:
        return None, device.read_array_blocking(source, np.uint32)


OUTLIVING: dict[Outliving, tuple[str, ...]] = {
    created_mapped: ("destroyed", "dropped", "closed"),
    mapped: ("destroyed", "dropped", "closed"),
    staged: ("destroyed", "dropped", "closed"),
    read_back: ("destroyed", "dropped", "closed"),
    read_from_device: ("closed",),
}
"""How buffers end before their arrays."""


def outlived(make: Outliving, end: str, backend: str) -> list[str]:
    """End a buffer that an array looks at, then the array; describe what is wrong then."""
    other: Any = open_device(backend)  # to count with, and to use freed memory again
    device: Any = open_device(backend)
    null = device if backend == "null" else None
    create_and_drop(other)

    def held() -> tuple[int, int]:
        counts = native_objects(null or other)
        return counts["NullBuffer"] + counts["Buffer"], resident()

    buffers, memory = held()
    owner, array = make(device)
    part = array[1000:]
    if end == "destroyed":
        owner.destroy()
    elif end == "closed":
        device.close()
    del owner, array
    gc.collect()
    create_and_drop(other)  # writes on what was freed too early

    found = []
    if not (part == large_numbers()[1000:]).all():
        found.append("the array has lost its contents")
    now, taken = held()
    if now - buffers != 1 and not null:  # a null buffer is not its memory
        found.append(f"{now - buffers} native buffers while the array is alive, not 1")
    if taken - memory < 0.9 * LARGE:
        found.append(f"the process holds {taken - memory} bytes for the array")

    del part
    if end != "closed":
        settle(device)
    del device
    join_watchers()
    gc.collect()
    now, taken = held()
    if now != buffers:
        found.append(f"{now - buffers} native buffers after the array's death")
    if taken - memory > 0.5 * LARGE:
        found.append(f"the process holds {taken - memory} bytes after the array's death")
    return [f"{backend}, {end}: {text}" for text in found]


def create_and_drop(device: IRenderDevice) -> None:
    """Take as much memory as a large buffer does, write to it, and give it back."""
    desc = BufferDesc(LARGE, UPLOAD, mapped_at_creation=True)
    with device.buffer_factory.create_mappable_buffer(desc) as buffer:
        buffer.mapped_data.as_array()[:] = 0xFF
    settle(device)


def outlived_anyhow(make: Outliving) -> list[str]:
    """The same on both backends, for every end."""
    return [
        text
        for backend in BACKENDS
        for end in OUTLIVING[make]
        for text in outlived(make, end, backend)
    ]


# --- The program ----------------------------------------------------------------------------------

NAMES: dict[str, Callable[[], list[str]]] = {
    **{case.__name__: functools.partial(grown_anyhow, case) for case in CASES},
    **{make.__name__: functools.partial(outlived_anyhow, make) for make in OUTLIVING},
}


def main() -> None:
    """Answer names of cases with what has grown, until there are no more."""
    import trio  # noqa: F401
    from wgpu.backends.wgpu_native import _api, _helpers

    from pers.backends.webgpu.native import _Watcher

    _Watcher._LINGER = 0  # its threads end at once when there is nothing to wait for
    # cffi parses the name of a C type at its first use, which would take most of a case's time.
    source = inspect.getsource(_api) + inspect.getsource(_helpers)
    names = {name + (array or " *") for name, array in re.findall(r'"(WGPU\w+)(\[\])?', source)}
    names.update(re.findall(r'"(void\(WGPU.+\))"', source))
    for name in (*names, "void *", "char []", "uint8_t *", "uint8_t []", "uintptr_t"):
        with contextlib.suppress(Exception):
            _api.ffi.typeof(name)
    gc.collect()
    gc.freeze()  # what is there already need not be looked at again and again
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                for text in NAMES[line.strip()]():
                    print(text)
                status = 0
            except BaseException:
                traceback.print_exc(file=sys.stdout)
            finally:
                sys.stdout.flush()
                os._exit(status)
        print(f"end {os.waitpid(child, 0)[1]}", flush=True)


if __name__ == "__main__":
    main()


# --- Tests ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def program() -> Iterator[subprocess.Popen[str]]:
    """The program below, which has imported everything and opened no device yet."""
    program = subprocess.Popen(
        [sys.executable, __file__],
        cwd=ROOT,
        env=os.environ | {"RUST_BACKTRACE": "0", "OPENBLAS_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with program:
        yield program


@pytest.mark.parametrize("name", NAMES)
def test_memory(name: str, program: subprocess.Popen[str]) -> None:
    """Whatever the case, on both backends; what is found is what has gone wrong."""
    assert program.stdin is not None
    assert program.stdout is not None
    program.stdin.write(f"{name}\n")
    program.stdin.flush()
    answer = []
    for line in program.stdout:
        if line == "end 0\n":
            break
        answer.append(line)
        if line.startswith("end"):  # by a signal, or an exception that was printed
            break
    assert answer == []
