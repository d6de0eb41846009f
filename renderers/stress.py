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
from typing import Self, cast

import anyio
import anyio.lowlevel
import numpy as np
import numpy.typing as npt
from anyio.abc import TaskGroup

from pers import (
    DeviceLostError,
    DynamicBuffer,
    ICommandEncoder,
    IFrameBuffer,
    IRenderDevice,
    ReadbackBuffer,
    Submission,
    TextureRows,
)
from renderers.checks import Check, CopyCheck, DigestCheck, PendingCheck
from renderers.report import BytesMoved, FrameTimes, StressReport, not_drawn, resident_bytes
from renderers.scene import DEPTH_FORMAT, FRAMES_IN_FLIGHT, SAMPLES, Scene
from renderers.sky import paint_sky
from renderers.streaming import TextureStream

__all__ = ["StressTestRenderer"]

FRAMES_PER_SECOND = 60
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
        self._rss_start = resident_bytes()
        self._device = device
        self._objects = objects
        self._seed = seed
        self._check_every = check_every

        self.frame_buffer = device.create_frame_buffer(
            width, height, depth_format=DEPTH_FORMAT, sample_count=SAMPLES, label="stress"
        )
        """What `draw_frame` draws to when it is given nothing else."""
        picture = TextureRows(self.frame_buffer.color_formats[0], width, height)
        self._screenshot = ReadbackBuffer(
            picture.nbytes, device.buffer_factory, debug_name="screenshot"
        )
        self._sky = TextureStream(
            device, SKY_SIZE, SKY_SIZE, SKY_ROWS_PER_BAND, partial(paint_sky, seed=seed)
        )
        self._scene = Scene(device, objects, seed, self._sky.texture)
        if check is None:
            check = DigestCheck if device.info.executes_shaders else CopyCheck
        self._check = check(device, self._scene.instances, self._scene.instance_bytes)

        self._tasks: TaskGroup | None = None
        self._in_flight: deque[Submission] = deque()
        self._clock = 0.0
        self._seconds = 0.0
        self._frame_seconds: list[float] = []
        self._screenshots = 0
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
            on_frame: Called after each frame with its number, counted from 0.
        """
        if frames < 1:
            raise ValueError(f"frames must be at least 1, not {frames}")
        async with self.running():
            for frame in range(frames):
                if frame == frames - 1:
                    await self._sky.finished.wait()
                    self._clock = time.perf_counter()
                await self._pace()
                self.draw_frame()
                if on_frame is not None:
                    on_frame(frame)
        return self.report()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Stream and check in the background for the length of a block.

        At its end the checks that are on their way are waited for; the sky is not.
        """
        with _plain_errors(self._device):
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
        frame = len(self._frame_seconds)
        data = self._scene.update(
            frame / FRAMES_PER_SECOND,
            target.width,
            target.height,
            keep_words=frame % self._check_every == 0,
        )
        encoder = self._device.create_command_encoder(f"frame {frame}")
        self._scene.draw(encoder, target, data)
        check = None
        if data.words is not None:
            check = self._check.record(encoder, frame, data.instances, data.words)
        self._submit(encoder)
        if check is not None:
            self._tasks.start_soon(self._finish_check, check)

    async def _pace(self) -> None:
        """Wait until the GPU is less than `FRAMES_IN_FLIGHT` frames behind."""
        while len(self._in_flight) >= FRAMES_IN_FLIGHT:
            await self._in_flight.popleft().done()
        await anyio.lowlevel.checkpoint()

    def _submit(self, encoder: ICommandEncoder) -> None:
        self._in_flight.append(self._device.queue.submit([encoder.finish()]))
        while self._in_flight and self._in_flight[0].is_done:
            self._in_flight.popleft()
        now = time.perf_counter()
        self._frame_seconds.append(now - self._clock)
        self._clock = now

    async def _finish_check(self, check: PendingCheck) -> None:
        failure = await check.failure()
        self._check.recycle(check)
        if failure is None:
            self._checks_passed += 1
        else:
            self._check_failures.append(failure)

    # --- Results ---------------------------------------------------------------------------------

    def screenshot(self) -> npt.NDArray[np.uint8]:
        """Return what is in `frame_buffer`: sRGB, shape (height, width, 4)."""
        encoder = self._device.create_command_encoder("screenshot")
        self._screenshot.copy_from(encoder, self.frame_buffer.color_textures[0])
        self._device.queue.submit([encoder.finish()])
        self._screenshots += 1
        return self._screenshot.read_array_blocking()

    def report(self) -> StressReport:
        """Return what was measured so far."""
        frames = len(self._frame_seconds)
        rings = (self._scene.camera.stats, self._scene.instances.stats)
        return StressReport(
            device=self._device.info,
            objects=self._objects,
            triangles=self._scene.triangles,
            width=self.frame_buffer.width,
            height=self.frame_buffer.height,
            seed=self._seed,
            frames=frames,
            seconds=self._seconds,
            frame_ms=FrameTimes.of(self._frame_seconds),
            objects_per_second=self._objects * frames / max(self._seconds, 1e-9),
            bytes_moved=self._bytes_moved(),
            dynamic_stalls=sum(ring.stalls for ring in rings),
            dynamic_grows=sum(ring.grows for ring in rings),
            sky_bands=(self._sky.bands_done, self._sky.bands),
            check=self._check.what,
            checks_passed=self._checks_passed,
            check_failures=tuple(self._check_failures),
            rss_start=self._rss_start,
            rss_end=resident_bytes(),
            not_drawn=not_drawn(self._device),
        )

    def _bytes_moved(self) -> BytesMoved:
        checks = self._checks_passed + len(self._check_failures)
        rings = (self._scene.camera.stats, self._scene.instances.stats)
        return BytesMoved(
            static_staging=self._scene.geometry.bytes_moved,
            deferred_staging=self._sky.bytes_moved,
            dynamic=sum(ring.bytes_written for ring in rings),
            readback=self._screenshots * self._screenshot.size + checks * self._check.result_bytes,
        )

    def close(self) -> None:
        """Give the memory back; legal any number of times."""
        self.frame_buffer.destroy()
        self._screenshot.destroy()
        for part in (self._check, self._scene, self._sky):
            part.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


@contextmanager
def _plain_errors(device: IRenderDevice) -> Generator[None]:
    """Raise the first error that task groups wrapped as it was, with the group as its cause."""
    try:
        yield
    except ExceptionGroup as group:
        if device.is_lost:  # which makes all tasks fail, each in its own way
            raise DeviceLostError(
                "the device was lost or closed while frames were drawn; open a new one"
            ) from group
        raise _first_error(group) from group


def _first_error(group: ExceptionGroup[Exception]) -> Exception:
    first = group.exceptions[0]
    if isinstance(first, ExceptionGroup):
        return _first_error(cast("ExceptionGroup[Exception]", first))
    return first
