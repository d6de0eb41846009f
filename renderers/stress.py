"""Every kind of buffer in anger: thousands of solids that stream along a knot.

Meshes are uploaded once (`ImmediateStagingBuffer`), the sky arrives while frames go on
(`DeferredStagingBuffer`), the camera and all instances are new in every frame (`DynamicBuffer`),
and every few frames a result of the GPU comes back and is checked (`ReadbackBuffer`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from types import TracebackType
from typing import Any, Self, cast

import anyio
import numpy as np
import numpy.typing as npt
from anyio.abc import TaskGroup

from pers import (
    BindGroupLayout,
    BindingLayout,
    BufferBinding,
    BufferUsage,
    ColorTarget,
    DepthState,
    DynamicBuffer,
    ICommandEncoder,
    IFrameBuffer,
    IPipeline,
    IRenderDevice,
    ReadbackBuffer,
    RenderPipelineDescriptor,
    Submission,
    TextureFormat,
    TextureRows,
    VertexLayout,
)
from renderers.camera import CAMERA, camera_uniform
from renderers.checks import Check, CopyCheck, DigestCheck, PendingCheck
from renderers.geometry import Geometry
from renderers.meshes import MESH_VERTEX, solids
from renderers.motion import INSTANCE, Swarm
from renderers.report import BytesMoved, FrameTimes, StressReport, not_drawn, resident_bytes
from renderers.shaders import load
from renderers.sky import paint_sky
from renderers.streaming import TextureStream

__all__ = ["CLEAR_COLOR", "StressTestRenderer"]

CLEAR_COLOR = (0.016, 0.015, 0.042, 1.0)
"""What a frame starts with: red, green, blue (linear light) and alpha."""

DEPTH_FORMAT = TextureFormat.DEPTH32_FLOAT
SAMPLES = 4
FRAMES_PER_SECOND = 60
FRAMES_IN_FLIGHT = 3
SKY_SIZE = 1024
SKY_ROWS_PER_BAND = 32


class StressTestRenderer:
    """Draws many moving objects and checks what the GPU saw of them.

    ::

        with StressTestRenderer(device) as renderer:
            report = await renderer.run(frames=120)
            pixels = renderer.screenshot()

    Belongs to one thread. As a context manager it gives its memory back at the end.
    """

    def __init__(
        self,
        device: IRenderDevice,
        objects: int = 2000,
        width: int = 1280,
        height: int = 720,
        *,
        seed: int = 1,
        check_every: int = 4,
        check: Callable[[IRenderDevice, DynamicBuffer, int], Check] | None = None,
    ) -> None:
        """Make everything that lives longer than a frame.

        Args:
            device: What draws.
            objects: How many objects move.
            width: Width of the offscreen picture (pixels).
            height: Height of the offscreen picture (pixels).
            seed: Equal seeds give equal pictures.
            check_every: Check one frame of so many.
            check: Makes the check from the device, the buffer of the instances and the bytes of
                a frame in it; None takes `DigestCheck`, or `CopyCheck` without shaders.

        Raises:
            ValueError: A number is too small, or the device cannot take so many objects.
            ValidationError: The device has no textures of that size.
        """
        if objects < 1 or check_every < 1 or seed < 0:
            raise ValueError(
                f"objects and check_every must be at least 1 and seed at least 0, not "
                f"{objects}, {check_every} and {seed}"
            )
        _check_capacity(device, objects)
        self._rss_start = resident_bytes()
        factory = device.buffer_factory
        self._device = device
        self._objects = objects
        self._seed = seed
        self._check_every = check_every

        self.frame_buffer = device.create_frame_buffer(
            width, height, depth_format=DEPTH_FORMAT, sample_count=SAMPLES, label="stress"
        )
        """What `draw_frame` draws to when it is given nothing else."""
        picture = TextureRows(self.frame_buffer.color_formats[0], width, height)
        self._screenshot = ReadbackBuffer(picture.nbytes, factory, debug_name="screenshot")

        meshes = solids()
        self._geometry = Geometry(device, meshes)
        self._swarm = Swarm(objects, len(meshes), seed)
        self._sky = TextureStream(
            device, SKY_SIZE, SKY_SIZE, SKY_ROWS_PER_BAND, partial(paint_sky, seed=seed)
        )
        self._camera = DynamicBuffer(CAMERA.itemsize, factory, debug_name="camera")
        self._instances = DynamicBuffer(
            objects * INSTANCE.itemsize,
            factory,
            usage=BufferUsage.VERTEX | BufferUsage.STORAGE | BufferUsage.COPY_SRC,
            frames=FRAMES_IN_FLIGHT,
            debug_name="instances",
        )
        if check is None:
            check = DigestCheck if device.info.executes_shaders else CopyCheck
        self._check = check(device, self._instances, objects * INSTANCE.itemsize)

        self._layout = BindGroupLayout(
            [
                BindingLayout(0, "uniform", dynamic_offset=True),
                BindingLayout(1, "texture"),
                BindingLayout(2, "sampler"),
            ]
        )
        self._bind_group = device.create_bind_group(
            self._layout,
            {
                0: BufferBinding(self._camera.inner, size=CAMERA.itemsize),
                1: self._sky.texture,
                2: device.create_sampler(),
            },
            label="camera and sky",
        )
        self._pipelines: dict[TextureFormat, tuple[IPipeline, IPipeline]] = {}

        self._tasks: TaskGroup | None = None
        self._in_flight: deque[Submission] = deque()
        self._frames = 0
        self._frame_seconds: list[float] = []
        self._clock = 0.0
        self._seconds = 0.0
        self._screenshots = 0
        self._checks_read = 0
        self._checks_passed = 0
        self._check_failures: list[str] = []

    # --- Running ---------------------------------------------------------------------------------

    async def run(
        self, frames: int, on_frame: Callable[[int], object] | None = None
    ) -> StressReport:
        """Draw frames offscreen, as fast as the GPU takes them.

        The last frame waits until the sky is complete.

        Args:
            frames: How many, 1 or more.
            on_frame: Called after each frame with its number.
        """
        if frames < 1:
            raise ValueError(f"frames must be at least 1, not {frames}")
        async with self.running():
            for frame in range(frames):
                if frame == frames - 1:
                    await self._sky.finished.wait()
                    self._clock = time.perf_counter()
                await self.pace()
                self.draw_frame()
                if on_frame is not None:
                    on_frame(frame)
        return self.report()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Stream and check in the background for the length of a block.

        At its end the checks that are on their way are waited for; the sky is not.
        """
        with _sole_errors():
            async with anyio.create_task_group() as checks, anyio.create_task_group() as streams:
                self._tasks = checks
                streams.start_soon(self._sky.run)
                start = self._clock = time.perf_counter()
                try:
                    yield
                    while self._in_flight:
                        await self._in_flight.popleft().done()
                finally:
                    self._seconds += time.perf_counter() - start
                    self._tasks = None
                    streams.cancel_scope.cancel()

    async def pace(self) -> None:
        """Wait until the GPU is less than `FRAMES_IN_FLIGHT` frames behind."""
        while len(self._in_flight) >= FRAMES_IN_FLIGHT:
            await self._in_flight.popleft().done()
        await anyio.lowlevel.checkpoint()

    def draw_frame(self, target: IFrameBuffer | None = None) -> None:
        """Draw the next frame; only inside of `running`.

        Args:
            target: Where to; None means `frame_buffer`. With depth and `SAMPLES` samples.
        """
        if self._tasks is None:
            raise RuntimeError(
                "draw_frame outside of running(): use ``async with renderer.running()``"
            )
        target = target or self.frame_buffer
        seconds = self._frames / FRAMES_PER_SECOND
        with self._camera.begin_update() as update:
            camera_offset = update.push(camera_uniform(seconds, target.width, target.height))
        with self._instances.begin_update() as update:
            instances = update.as_array(INSTANCE, self._objects)
            self._swarm.place(seconds, instances)

        encoder = self._device.create_command_encoder("frame")
        self._draw(encoder, target, camera_offset, update.offset)
        check = None
        if self._frames % self._check_every == 0:
            check = self._check.record(encoder, self._frames, update.offset, instances)
        self._in_flight.append(self._device.queue.submit([encoder.finish()]))
        if check is not None:
            self._tasks.start_soon(self._finish_check, check)
        self._frames += 1
        now = time.perf_counter()
        self._frame_seconds.append(now - self._clock)
        self._clock = now

    def screenshot(self) -> npt.NDArray[np.uint8]:
        """Return what is in `frame_buffer`: sRGB, shape (height, width, 4)."""
        encoder = self._device.create_command_encoder("screenshot")
        self._screenshot.copy_from(encoder, self.frame_buffer.color_textures[0])
        self._device.queue.submit([encoder.finish()])
        self._screenshots += 1
        return self._screenshot.read_array_blocking()

    # --- Results ---------------------------------------------------------------------------------

    def report(self) -> StressReport:
        """Return what was measured so far."""
        camera, instances = self._camera.stats, self._instances.stats
        return StressReport(
            device=self._device.info,
            objects=self._objects,
            triangles=self._geometry.triangles(self._swarm.counts),
            width=self.frame_buffer.width,
            height=self.frame_buffer.height,
            seed=self._seed,
            frames=self._frames,
            seconds=self._seconds,
            frame_ms=FrameTimes.of(self._frame_seconds),
            objects_per_second=self._objects * self._frames / max(self._seconds, 1e-9),
            bytes_moved=BytesMoved(
                static_staging=self._geometry.bytes_moved,
                deferred_staging=self._sky.bytes_moved,
                dynamic=camera.bytes_written + instances.bytes_written,
                readback=self._screenshots * self._screenshot.size
                + self._checks_read * self._check.result_bytes,
            ),
            dynamic_stalls=camera.stalls + instances.stalls,
            dynamic_grows=camera.grows + instances.grows,
            sky_bands=(self._sky.bands_done, self._sky.bands),
            check=self._check.what,
            checks_passed=self._checks_passed,
            check_failures=tuple(self._check_failures),
            rss_start=self._rss_start,
            rss_end=resident_bytes(),
            not_drawn=not_drawn(self._device),
        )

    def close(self) -> None:
        """Give the memory back; legal any number of times."""
        self.frame_buffer.destroy()
        for part in (self._geometry, self._sky, self._check):
            part.close()
        for buffer in (self._camera, self._instances, self._screenshot):
            buffer.destroy()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # --- The parts of a frame --------------------------------------------------------------------

    def _draw(
        self, encoder: ICommandEncoder, target: IFrameBuffer, camera_offset: int, offset: int
    ) -> None:
        draw_solids, draw_sky = self._pipelines_for(target.color_formats[0])
        with encoder.begin_render_pass(target, clear_color=CLEAR_COLOR) as render_pass:
            render_pass.set_pipeline(draw_solids)
            render_pass.set_bind_group(0, self._bind_group, [camera_offset])
            render_pass.set_vertex_buffer(1, self._instances, offset)
            self._geometry.draw(render_pass, self._swarm.counts)
            render_pass.set_pipeline(draw_sky)
            render_pass.draw(3)

    async def _finish_check(self, check: PendingCheck) -> None:
        failure = await check.failure()
        self._check.recycle(check)
        self._checks_read += 1
        if failure is None:
            self._checks_passed += 1
        else:
            self._check_failures.append(failure)

    def _pipelines_for(self, target_format: TextureFormat) -> tuple[IPipeline, IPipeline]:
        if target_format not in self._pipelines:
            make = partial(self._make_pipeline, target_format)
            self._pipelines[target_format] = (
                make(
                    "solids",
                    depth=DepthState(DEPTH_FORMAT),
                    cull_mode="back",
                    vertex_buffers=[
                        VertexLayout.from_dtype(MESH_VERTEX),
                        VertexLayout.from_dtype(INSTANCE, first_location=2, step_mode="instance"),
                    ],
                ),
                # The sky goes last, where nothing is in front of it.
                make("sky", depth=DepthState(DEPTH_FORMAT, "less-equal", write=False)),
            )
        return self._pipelines[target_format]

    def _make_pipeline(self, target_format: TextureFormat, name: str, **options: Any) -> IPipeline:
        return self._device.create_render_pipeline(
            RenderPipelineDescriptor(
                self._device.create_shader_module(load("color", "light", name), label=name),
                [ColorTarget(target_format)],
                bind_groups=[self._layout],
                sample_count=SAMPLES,
                fragment_entry="fs_main" if target_format.is_srgb else "fs_encoded",
                label=name,
                **options,
            )
        )


@contextmanager
def _sole_errors() -> Generator[None]:
    """Raise an error that task groups wrapped, when it is the only one, as it was."""
    try:
        yield
    except ExceptionGroup as group:
        error = _unwrapped(group)
        raise error from error.__cause__


def _unwrapped(group: ExceptionGroup[Exception]) -> Exception:
    first, *others = group.exceptions
    if others:
        return group
    if isinstance(first, ExceptionGroup):
        return _unwrapped(cast("ExceptionGroup[Exception]", first))
    return first


def _check_capacity(device: IRenderDevice, objects: int) -> None:
    """Raise `ValueError` when the instances of a frame do not fit into a buffer of the device."""
    limits = device.limits
    frame = min(limits.max_storage_buffer_binding_size, limits.max_buffer_size // FRAMES_IN_FLIGHT)
    most = frame // INSTANCE.itemsize
    if objects > most:
        raise ValueError(f"this device takes at most {most} objects, not {objects}")
