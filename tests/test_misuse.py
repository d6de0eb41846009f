"""Mistakes that abort the process in wgpu-py: with pers each is an exception.

Each mistake is made with pers in a subprocess, which has to survive and report the typed error.
Those that wgpu-py is known to die of are made with wgpu-py as well, and have to end the process by
a signal: so the test shows that it tests something, and when wgpu-py changes, this says so.

This file is the program that the subprocesses run, too: ``test_misuse.py pers`` makes all mistakes
with pers, ``test_misuse.py wgpu NAME`` makes one with wgpu-py.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

import pers
from pers import (
    BindGroupLayout,
    BindingLayout,
    BufferBinding,
    BufferDesc,
    BufferRangeError,
    BufferStateError,
    BufferUsage,
    BufferUsageError,
    ColorTarget,
    DepthState,
    DeviceLostError,
    IRenderDevice,
    MapMode,
    PersError,
    RenderPipelineDescriptor,
    SamplerDescriptor,
    ShaderStage,
    TextureDescriptor,
    TextureFormat,
    TextureUsage,
    ValidationError,
    VertexAttribute,
    VertexLayout,
)
from tests.support import FULL_SCREEN, Maker, copied, make_texture, run_python

RGBA = TextureFormat.RGBA8_UNORM
THIS = str(Path(__file__))

PERS: dict[str, tuple[Callable[[IRenderDevice], object], type[PersError] | None]] = {}
WGPU: dict[str, Callable[[Any], object]] = {}


def with_pers(error: type[PersError] | None) -> Any:
    """Register a mistake, and the error it ends with (None: it is no mistake for pers)."""

    def register(function: Callable[[IRenderDevice], object]) -> Callable[[IRenderDevice], object]:
        PERS[function.__name__] = function, error
        return function

    return register


def with_wgpu(function: Callable[[Any], object]) -> Callable[[Any], object]:
    """Register a mistake that wgpu-py 0.32 (wgpu-native 29) dies of."""
    WGPU[function.__name__] = function
    return function


# --- Buffers --------------------------------------------------------------------------------------


@with_pers(BufferUsageError)
def map_with_mode_0(device: IRenderDevice) -> None:
    Maker(device).mappable().map(MapMode.NONE)


@with_pers(BufferUsageError)
def map_with_both_modes(device: IRenderDevice) -> None:
    Maker(device).mappable().map(MapMode.READ | MapMode.WRITE)


@with_pers(BufferStateError)
def submit_with_a_mapped_buffer(device: IRenderDevice) -> None:
    make = Maker(device)
    device.queue.submit([copied(device, make.mappable(mapped=True), make.plain())])


@with_pers(BufferStateError)
def submit_with_a_pending_buffer(device: IRenderDevice) -> None:
    make = Maker(device)
    buffer = make.mappable()
    commands = copied(device, buffer, make.plain())
    native: Any = device
    native.native._poll_device = lambda: None  # nobody looks, so the map stays pending
    buffer._begin_map(MapMode.WRITE, 0, None)  # type: ignore[attr-defined]
    assert buffer.is_map_pending
    device.queue.submit([commands])


@with_pers(BufferStateError)
def submit_with_a_destroyed_buffer(device: IRenderDevice) -> None:
    make = Maker(device)
    buffer = make.plain()
    commands = copied(device, buffer, make.plain())
    buffer.destroy()
    device.queue.submit([commands])


@with_pers(BufferStateError)
def read_after_destroy(device: IRenderDevice) -> None:
    buffer = Maker(device).mappable(mapped=True)
    mapped = buffer.mapped_data
    buffer.destroy()
    mapped.read()


@with_pers(BufferStateError)
def mapped_range_after_destroy(device: IRenderDevice) -> None:
    buffer = Maker(device).mappable(mapped=True)
    buffer.destroy()
    buffer.mapped_range()


@with_pers(BufferUsageError)
def unknown_buffer_usage(device: IRenderDevice) -> None:
    device.buffer_factory.create_buffer(BufferDesc(16, BufferUsage(1 << 20)))


@with_pers(ValidationError)
def unknown_texture_usage(device: IRenderDevice) -> None:
    make_texture(device, usage=TextureUsage(1 << 20))


@with_pers(None)
def unmap_twice(device: IRenderDevice) -> None:
    buffer = Maker(device).mappable(mapped=True)
    buffer.unmap()
    buffer.unmap()


@with_pers(None)
def map_nothing(device: IRenderDevice) -> None:
    buffer = Maker(device).mappable()
    buffer.map(MapMode.WRITE, 64, 0).as_array()
    buffer.unmap()


# --- Submits --------------------------------------------------------------------------------------


@with_pers(ValidationError)
def the_same_commands_twice(device: IRenderDevice) -> None:
    commands = device.create_command_encoder().finish()
    device.queue.submit([commands, commands])


@with_pers(ValidationError)
def commands_submitted_before(device: IRenderDevice) -> None:
    commands = device.create_command_encoder().finish()
    device.queue.submit([commands])
    device.queue.submit([commands])


@with_pers(ValidationError)
def commands_of_another_device(device: IRenderDevice) -> None:
    with pers.open_device() as other:
        device.queue.submit([other.create_command_encoder().finish()])


@with_pers(ValidationError)
def buffer_of_another_device(device: IRenderDevice) -> None:
    with pers.open_device() as other:
        copied(device, Maker(other).plain(), Maker(device).plain())


@with_pers(ValidationError)
def submit_with_a_destroyed_texture(device: IRenderDevice) -> None:
    frame = device.create_frame_buffer(4, 4)
    encoder = device.create_command_encoder()
    encoder.begin_render_pass(frame).end()
    commands = encoder.finish()
    frame.destroy()
    device.queue.submit([commands])


@with_pers(ValidationError)
def submit_with_a_destroyed_texture_in_a_group(device: IRenderDevice) -> None:
    texture = make_texture(device, usage=TextureUsage.TEXTURE_BINDING)
    group = device.create_bind_group(
        BindGroupLayout([BindingLayout(0, "texture", ShaderStage.COMPUTE)]), {0: texture}
    )
    encoder = device.create_command_encoder()
    with encoder.begin_compute_pass() as compute_pass:
        compute_pass.set_bind_group(0, group)
    texture.destroy()
    device.queue.submit([encoder.finish()])


@with_pers(ValidationError)
def submit_with_a_destroyed_query_set(device: IRenderDevice) -> None:
    queries = device.create_query_set("occlusion", 1)
    encoder = device.create_command_encoder()
    encoder.resolve_query_set(queries, 0, 1, Maker(device).plain(256, BufferUsage.QUERY_RESOLVE))
    commands = encoder.finish()
    queries.destroy()
    device.queue.submit([commands])


@with_pers(DeviceLostError)
def submit_after_close(device: IRenderDevice) -> None:
    commands = device.create_command_encoder().finish()
    device.close()
    device.queue.submit([commands])


@with_pers(DeviceLostError)
def submit_after_the_handle_was_destroyed(device: IRenderDevice) -> None:
    commands = device.create_command_encoder().finish()
    device.native_handle.destroy()
    device.queue.submit([commands])


@with_pers(DeviceLostError)
def submit_after_the_wrapped_device_was_destroyed(_: IRenderDevice) -> None:
    import wgpu

    from pers.backends.webgpu import WebGPUDevice

    gpu_device = wgpu.gpu.request_adapter_sync().request_device_sync()
    device = WebGPUDevice.wrap(gpu_device)
    commands = device.create_command_encoder().finish()
    gpu_device.destroy()
    device.queue.submit([commands])


@with_pers(DeviceLostError)
def mapped_memory_after_the_handle_was_destroyed(device: IRenderDevice) -> None:
    buffer = Maker(device).mappable(mapped=True)
    view = buffer.mapped_data.as_array()
    device.native_handle.destroy()
    view[:] = 7
    assert view.sum() == 7 * 64
    buffer.mapped_data.read()


@with_pers(DeviceLostError)
def map_after_the_wrapped_device_was_destroyed(_: IRenderDevice) -> None:
    import wgpu

    from pers.backends.webgpu import WebGPUDevice

    gpu_device = wgpu.gpu.request_adapter_sync().request_device_sync()
    device = WebGPUDevice.wrap(gpu_device)
    buffer = Maker(device).mappable()
    gpu_device.destroy()
    buffer.map()


# --- Passes and bundles ---------------------------------------------------------------------------


def pipeline(device: IRenderDevice, **changes: Any) -> Any:
    arguments: dict[str, Any] = {
        "shader": device.create_shader_module(FULL_SCREEN),
        "color_targets": [ColorTarget(RGBA)],
    }
    return device.create_render_pipeline(RenderPipelineDescriptor(**(arguments | changes)))


@with_pers(ValidationError)
def invalid_bundle(device: IRenderDevice) -> None:
    bundle = device.create_render_bundle_encoder([RGBA])
    bundle.draw(3)
    bundle.finish()


@with_pers(ValidationError)
def bundle_for_another_format(device: IRenderDevice) -> None:
    bundle = device.create_render_bundle_encoder([TextureFormat.R8_UNORM])
    bundle.set_pipeline(pipeline(device))
    bundle.finish()


@with_pers(ValidationError)
def bundle_finished_twice(device: IRenderDevice) -> None:
    bundle = device.create_render_bundle_encoder([RGBA])
    bundle.finish()
    bundle.finish()


@with_pers(ValidationError)
def bundle_with_no_samples(device: IRenderDevice) -> None:
    device.create_render_bundle_encoder([RGBA], sample_count=0)


@with_pers(DeviceLostError)
def bundle_of_a_closed_device(device: IRenderDevice) -> None:
    bundle = device.create_render_bundle_encoder([RGBA])
    bundle.set_pipeline(pipeline(device))
    bundle.draw(3)
    device.close()
    bundle.finish()


@with_pers(ValidationError)
def draw_a_negative_number(device: IRenderDevice) -> None:
    render_pass = device.create_command_encoder().begin_render_pass(
        device.create_frame_buffer(4, 4)
    )
    render_pass.draw(-1)


@with_pers(ValidationError)
def draw_without_a_pipeline(device: IRenderDevice) -> None:
    encoder = device.create_command_encoder()
    with encoder.begin_render_pass(device.create_frame_buffer(4, 4)) as render_pass:
        render_pass.draw(3)
    encoder.finish()


@with_pers(BufferRangeError)
def empty_vertex_buffer(device: IRenderDevice) -> None:
    render_pass = device.create_command_encoder().begin_render_pass(
        device.create_frame_buffer(4, 4)
    )
    render_pass.set_vertex_buffer(0, Maker(device).plain(64, BufferUsage.VERTEX), 64)


@with_pers(BufferRangeError)
def misaligned_dynamic_offset(device: IRenderDevice) -> None:
    layout = BindGroupLayout([BindingLayout(0, "uniform", dynamic_offset=True, min_size=16)])
    buffer = BufferBinding(Maker(device).plain(1024, BufferUsage.UNIFORM), size=16)
    group = device.create_bind_group(layout, {0: buffer})
    render_pass = device.create_command_encoder().begin_render_pass(
        device.create_frame_buffer(4, 4)
    )
    render_pass.set_bind_group(0, group, [3])


@with_pers(None)
def open_pass_dropped(device: IRenderDevice) -> None:
    encoder = device.create_command_encoder()
    render_pass = encoder.begin_render_pass(device.create_frame_buffer(4, 4))
    del encoder
    gc.collect()
    del render_pass
    gc.collect()
    device.queue.submit([]).wait()


@with_pers(DeviceLostError)
def open_pass_of_a_closed_device(device: IRenderDevice) -> None:
    drawing = pipeline(device)
    encoder = device.create_command_encoder()
    with encoder.begin_render_pass(device.create_frame_buffer(4, 4)) as render_pass:
        device.close()
        render_pass.set_pipeline(drawing)
        render_pass.draw(3)
        render_pass.set_viewport(0, 0, 1, 1)
        render_pass.execute_bundles([])
    encoder.finish()


@with_pers(None)
def empty_copies(device: IRenderDevice) -> None:
    texture, buffer = make_texture(device), Maker(device).plain(4096)
    encoder = device.create_command_encoder()
    for size in ((0, 4, 1), (4, 0, 1), (4, 4, 0)):
        encoder.copy_buffer_to_texture(buffer, texture, size)
        encoder.copy_texture_to_buffer(texture, buffer, size)
    device.queue.submit([encoder.finish()]).wait()


# --- Descriptions ---------------------------------------------------------------------------------


@with_pers(ValidationError)
def sampler_filter_by_number(device: IRenderDevice) -> None:
    device.create_sampler(SamplerDescriptor(mag_filter=7))  # type: ignore[arg-type]


@with_pers(ValidationError)
def unknown_shader_stage(device: IRenderDevice) -> None:
    layout = BindGroupLayout([BindingLayout(0, "uniform", ShaderStage(1 << 20))])
    device.create_bind_group(layout, {0: Maker(device).plain(64, BufferUsage.UNIFORM)})


@with_pers(ValidationError)
def cull_mode_by_number(device: IRenderDevice) -> None:
    pipeline(device, cull_mode=99)


@with_pers(ValidationError)
def depth_state_of_colors(device: IRenderDevice) -> None:
    pipeline(device, depth=DepthState(RGBA))


@with_pers(ValidationError)
def vertex_format_by_number(device: IRenderDevice) -> None:
    pipeline(device, vertex_buffers=[VertexLayout(8, [VertexAttribute(0, 999)])])  # type: ignore[arg-type]


@with_pers(ValidationError)
def storage_texture_without_a_format(device: IRenderDevice) -> None:
    layout = BindGroupLayout([BindingLayout(0, "storage-texture", ShaderStage.COMPUTE)])
    device.create_bind_group(layout, {0: make_texture(device, usage=TextureUsage.STORAGE_BINDING)})


@with_pers(ValidationError)
def frame_buffer_of_depths(device: IRenderDevice) -> None:
    frame = device.create_frame_buffer(4, 4, [TextureFormat.DEPTH32_FLOAT])
    encoder = device.create_command_encoder()
    encoder.begin_render_pass(frame).end()
    encoder.finish()


@with_pers(ValidationError)
def multisampled_texture_with_levels(device: IRenderDevice) -> None:
    usage = TextureUsage.RENDER_ATTACHMENT
    device.create_texture(TextureDescriptor(8, 8, RGBA, usage, mip_levels=2, sample_count=4))


# --- The same with wgpu-py ------------------------------------------------------------------------


def _gpu() -> Any:
    import wgpu

    return wgpu.gpu.request_adapter_sync().request_device_sync()


def _buffer(gpu: Any, *usages: str, **more: Any) -> Any:
    import wgpu

    flags = sum(getattr(wgpu.BufferUsage, usage) for usage in usages)
    return gpu.create_buffer(size=16, usage=flags, **more)


def _copy(gpu: Any, source: Any) -> Any:
    encoder = gpu.create_command_encoder()
    encoder.copy_buffer_to_buffer(source, 0, _buffer(gpu, "COPY_DST"), 0, 16)
    return encoder.finish()


def _texture(gpu: Any) -> Any:
    import wgpu

    usage = wgpu.TextureUsage.RENDER_ATTACHMENT | wgpu.TextureUsage.COPY_DST
    return gpu.create_texture(size=(4, 4, 1), format="rgba8unorm", usage=usage)


@with_wgpu
def wgpu_map_with_mode_0(gpu: Any) -> None:
    _buffer(gpu, "MAP_READ", "COPY_DST").map_sync(0)


@with_wgpu
def wgpu_submit_with_a_mapped_buffer(gpu: Any) -> None:
    source = _buffer(gpu, "MAP_WRITE", "COPY_SRC", mapped_at_creation=True)
    gpu.queue.submit([_copy(gpu, source)])


@with_wgpu
def wgpu_submit_with_a_pending_buffer(gpu: Any) -> None:
    source = _buffer(gpu, "MAP_WRITE", "COPY_SRC")
    commands = _copy(gpu, source)
    source.map_async("WRITE")
    gpu.queue.submit([commands])


@with_wgpu
def wgpu_submit_with_a_destroyed_buffer(gpu: Any) -> None:
    source = _buffer(gpu, "COPY_SRC")
    commands = _copy(gpu, source)
    source.destroy()
    gpu.queue.submit([commands])


@with_wgpu
def wgpu_read_after_destroy(gpu: Any) -> None:
    buffer = _buffer(gpu, "MAP_READ", "COPY_DST")
    buffer.map_sync("READ")
    buffer.destroy()
    buffer.read_mapped()


@with_wgpu
def wgpu_unknown_buffer_usage(gpu: Any) -> None:
    gpu.create_buffer(size=16, usage=1 << 20)


@with_wgpu
def wgpu_the_same_commands_twice(gpu: Any) -> None:
    commands = gpu.create_command_encoder().finish()
    gpu.queue.submit([commands, commands])


@with_wgpu
def wgpu_commands_of_another_device(gpu: Any) -> None:
    gpu.queue.submit([_gpu().create_command_encoder().finish()])


@with_wgpu
def wgpu_submit_with_a_destroyed_texture(gpu: Any) -> None:
    texture = _texture(gpu)
    encoder = gpu.create_command_encoder()
    attachment = {"view": texture.create_view(), "load_op": "clear", "store_op": "store"}
    encoder.begin_render_pass(color_attachments=[attachment]).end()
    commands = encoder.finish()
    texture.destroy()
    gpu.queue.submit([commands])


@with_wgpu
def wgpu_invalid_bundle(gpu: Any) -> None:
    bundle = gpu.create_render_bundle_encoder(color_formats=["rgba8unorm"])
    bundle.draw(3)
    bundle.finish()


@with_wgpu
def wgpu_bundle_finished_twice(gpu: Any) -> None:
    bundle = gpu.create_render_bundle_encoder(color_formats=["rgba8unorm"])
    bundle.finish()
    bundle.finish()


@with_wgpu
def wgpu_submit_after_close(gpu: Any) -> None:
    commands = gpu.create_command_encoder().finish()
    gpu.destroy()
    gpu.queue.submit([commands])


@with_wgpu
def wgpu_empty_copies(gpu: Any) -> None:
    source = {"buffer": _buffer(gpu, "COPY_SRC"), "bytes_per_row": 256, "rows_per_image": 0}
    encoder = gpu.create_command_encoder()
    encoder.copy_buffer_to_texture(source, {"texture": _texture(gpu)}, (4, 0, 1))


@with_wgpu
def wgpu_sampler_filter_by_number(gpu: Any) -> None:
    gpu.create_sampler(mag_filter=7)


@with_wgpu
def wgpu_bundle_with_no_samples(gpu: Any) -> None:
    gpu.create_render_bundle_encoder(color_formats=["rgba8unorm"], sample_count=0)


# --- The tests ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made_with_pers() -> dict[str, str]:
    """What came of each mistake, all made in one process."""
    result = run_python(THIS, "pers")
    outcomes = dict(line.split(": ", 1) for line in result.stdout.splitlines())
    last = list(outcomes)[-1] if outcomes else "nothing"
    assert result.returncode == 0, f"after {last}: {result.returncode}\n{result.stderr[-3000:]}"
    return outcomes


@pytest.mark.parametrize("name", PERS)
def test_with_pers(name: str, made_with_pers: dict[str, str]) -> None:
    error = PERS[name][1]
    assert made_with_pers[name].split(":")[0] == ("nothing" if error is None else error.__name__)


@pytest.fixture(scope="module")
def made_with_wgpu() -> dict[str, int]:
    """The exit status of a process for each mistake."""

    def run(name: str) -> int:
        return run_python(THIS, "wgpu", name).returncode

    with ThreadPoolExecutor(max_workers=2) as pool:
        return dict(zip(WGPU, pool.map(run, WGPU), strict=True))


@pytest.mark.parametrize("name", WGPU)
def test_with_wgpu(name: str, made_with_wgpu: dict[str, int]) -> None:
    """When one of these fails, wgpu-py has become safer: take the mistake out of the list."""
    assert name.removeprefix("wgpu_") in PERS
    assert made_with_wgpu[name] < 0, f"wgpu-py survives {name} now"


def test_the_program_notices_an_abort() -> None:
    """The runner can tell: a process that dies is not taken for one that reports."""
    result = run_python("-c", "import os; print('x: nothing', flush=True); os.abort()")
    assert result.returncode < 0
    assert result.stdout == "x: nothing\n"


def main(library: str, *names: str) -> None:
    if library == "wgpu":
        WGPU[names[0]](_gpu())
        return
    for name, (make_mistake, _) in PERS.items():
        with pers.open_device() as device:
            try:
                make_mistake(device)
            except PersError as error:
                outcome = f"{type(error).__name__}: {' '.join(str(error).split())}"
            else:
                outcome = "nothing"
        print(f"{name}: {outcome}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
