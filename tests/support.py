"""What the tests share: devices, buffers, waiting without sleeping, and Python in a subprocess."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import anyio
import anyio.lowlevel
import numpy as np
import numpy.typing as npt

import pers
from pers import (
    BufferDesc,
    BufferUsage,
    DeviceLostError,
    IBuffer,
    ICommandBuffer,
    IMappableBuffer,
    IRenderDevice,
    ITexture,
    MapMode,
    MappedRange,
    PersError,
    TextureDescriptor,
    TextureFormat,
    TextureUsage,
)
from pers._completion import Completion

ROOT = Path(__file__).resolve().parent.parent
BACKENDS = ("null", "webgpu")

COPY = BufferUsage.COPY_SRC | BufferUsage.COPY_DST
UPLOAD = BufferUsage.MAP_WRITE | BufferUsage.COPY_SRC
READBACK = BufferUsage.MAP_READ | BufferUsage.COPY_DST
USAGE_FOR = {MapMode.WRITE: UPLOAD, MapMode.READ: READBACK}

JUNK_NUMBERS = (-1, 2**63, float("nan"), 1.5, "4", True, None)
"""What is no size, offset or count, except that None often means "all"."""

DOUBLE = """
@group(0) @binding(0) var<storage, read_write> data: array<u32>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
    if (id.x < arrayLength(&data)) { data[id.x] = data[id.x] * 2u; }
}
"""
"""Doubles the numbers in binding 0, 64 in a workgroup."""

FULL_SCREEN = """
@vertex fn vs_main(@builtin(vertex_index) i: u32) -> @builtin(position) vec4f {
    return vec4f(f32(i & 1u) * 4.0 - 1.0, f32(i >> 1u) * 4.0 - 1.0, 0.5, 1.0);
}
@fragment fn fs_main() -> @location(0) vec4f { return vec4f(1.0, 0.5, 0.0, 1.0); }
"""
"""Fills everything with ORANGE, by three vertices without a buffer."""
ORANGE = (255, 128, 0, 255)


# --- Devices --------------------------------------------------------------------------------------


def open_device(backend: str, features: Sequence[str] = ()) -> IRenderDevice:
    """Open a device, or fail: a machine without a driver must not pass by skipping."""
    return pers.open_device(backend, features=features)


class Hold:
    """Keeps from a device the news that work has ended, so that maps and waits stay pending.

    On the null device the clock stands still; on webgpu nobody polls. A submit lets webgpu look,
    too, so do not submit while holding what must stay pending.
    """

    def __init__(self, device: IRenderDevice) -> None:
        self._device: Any = device
        self._undo: Callable[[], None] | None = None

    def __enter__(self) -> Self:
        if self._device.info.backend == "null":
            clock = self._device.clock
            clock.auto = False

            def undo() -> None:
                clock.auto = True
                clock.advance(0)
        else:
            native = self._device.native
            watcher = native._watcher
            polls = native._poll_device, watcher._poll
            native._poll_device = watcher._poll = _nothing

            def undo() -> None:
                native._poll_device, watcher._poll = polls
                native._poll_device()

        self._undo = undo
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()

    def release(self) -> None:
        """Let the device learn of everything from now on."""
        undo, self._undo = self._undo, None
        if undo is not None:
            undo()


def _nothing() -> None: ...


def settle(device: IRenderDevice) -> None:
    """Wait until everything submitted has ended and everybody was told."""
    device.queue.on_work_done().wait()
    device.poll()


# --- Buffers --------------------------------------------------------------------------------------


class Maker:
    """Makes buffers, and destroys them in the end."""

    def __init__(self, device: IRenderDevice) -> None:
        self._factory = device.buffer_factory
        self._buffers: list[IBuffer] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for buffer in self._buffers:
            buffer.destroy()

    def plain(self, size: int = 64, usage: BufferUsage = COPY, name: str = "thing") -> IBuffer:
        """Make a buffer for the GPU."""
        return self._keep(self._factory.create_buffer(BufferDesc(size, usage, debug_name=name)))

    def mappable(
        self,
        size: int = 64,
        usage: BufferUsage = UPLOAD,
        name: str = "thing",
        *,
        mapped: bool = False,
    ) -> IMappableBuffer:
        """Make a mappable buffer."""
        desc = BufferDesc(size, usage, mapped_at_creation=mapped, debug_name=name)
        buffer = self._factory.create_mappable_buffer(desc)
        self._keep(buffer)
        return buffer

    def filled(
        self, data: npt.NDArray[Any] | bytes, usage: BufferUsage = COPY, name: str = "thing"
    ) -> IBuffer:
        """Make a buffer with contents."""
        array = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data
        buffer = self.mappable(array.nbytes, usage, name, mapped=True)
        buffer.mapped_data.write(array)
        buffer.unmap()
        return buffer

    def _keep(self, buffer: IBuffer) -> IBuffer:
        self._buffers.append(buffer)
        return buffer


def copied(device: IRenderDevice, source: IBuffer, target: IBuffer) -> ICommandBuffer:
    """Return commands that copy all of `source` to the start of `target`."""
    encoder = device.create_command_encoder("copy")
    encoder.copy_buffer_to_buffer(source, 0, target, 0)
    return encoder.finish()


def contents(device: IRenderDevice, buffer: IBuffer) -> npt.NDArray[np.uint8]:
    """Return what the GPU sees in a buffer with COPY_SRC, by the plainest way there is."""
    desc = BufferDesc(buffer.size, READBACK, debug_name="contents")
    with device.buffer_factory.create_mappable_buffer(desc) as target:
        device.queue.submit([copied(device, buffer, target)])
        data = target.map(MapMode.READ).read()
    return np.frombuffer(data, np.uint8)


def numbers(count: int, start: int = 1) -> npt.NDArray[np.uint32]:
    """Return `count` different numbers, none of them zero."""
    return np.arange(start, start + count, dtype=np.uint32)


def make_texture(
    device: IRenderDevice,
    width: int = 4,
    height: int = 4,
    texture_format: TextureFormat = TextureFormat.RGBA8_UNORM,
    usage: TextureUsage = TextureUsage.COPY_SRC | TextureUsage.COPY_DST,
    **more: Any,
) -> ITexture:
    """Make a texture that can be copied."""
    return device.create_texture(
        TextureDescriptor(width, height, texture_format, usage, "picture", **more)
    )


def random_pixels(
    texture_format: TextureFormat, height: int, width: int, layers: int = 1, seed: int = 1
) -> npt.NDArray[Any]:
    """Return pixels with all bits in use, in the shape that the format's arrays have."""
    shape = pers.TextureRows(texture_format, width, height, layers).shape
    count = int(np.prod(shape)) * texture_format.dtype.itemsize
    random = np.random.default_rng(seed).integers(0, 256, count, np.uint8)
    if texture_format.dtype.kind == "f":  # no NaN: comparisons are to hold, and GPUs may quiet it
        return (
            (random.view(f"i{texture_format.dtype.itemsize}") % 1000)
            .astype(texture_format.dtype)
            .reshape(shape)
        )
    return random.view(texture_format.dtype).reshape(shape)


# --- Maps in tasks --------------------------------------------------------------------------------


class MapTask:
    """One call of `map_async` in a task of its own, and how it ended."""

    def __init__(self, buffer: IMappableBuffer, mode: MapMode) -> None:
        self._buffer = buffer
        self._mode = mode
        self.mapped: MappedRange | None = None
        self.error: PersError | None = None
        self.cancelled = False
        self.ended = anyio.Event()

    async def run(self) -> None:
        try:
            self.mapped = await self._buffer.map_async(self._mode)
        except PersError as error:
            self.error = error
        except BaseException:
            self.cancelled = True
            raise
        finally:
            self.ended.set()


async def start_map(
    group: anyio.abc.TaskGroup, buffer: IMappableBuffer, mode: MapMode = MapMode.WRITE
) -> MapTask:
    """Start `map_async` in a task and return when the buffer is pending."""
    task = MapTask(buffer, mode)
    group.start_soon(task.run)
    while not (buffer.is_map_pending or task.ended.is_set()):
        await anyio.lowlevel.checkpoint()
    assert buffer.is_map_pending
    return task


# --- Memory ---------------------------------------------------------------------------------------


def address_of(array: npt.NDArray[Any]) -> int:
    """Return where an array's first item is."""
    address: int = array.__array_interface__["data"][0]
    return address


def told(done: Callable[[object], object]) -> Completion[None]:
    """Return a completion that calls `done` with its error, or with None."""

    class Told(Completion[None]):
        def settle(self, error: BaseException | None) -> None:
            done(error)

    return Told("told")


def live(device: IRenderDevice, kind: str = "Buffer") -> int:
    """Count the native objects of a kind that are alive, on webgpu those of the whole process."""
    gc.collect()
    native: Any = device
    if device.info.backend == "null":
        count: int = native.live_objects()[f"Null{kind}"]
        return count
    return native_counts(kind)


def native_counts(kind: str) -> int:
    """Count wgpu's native objects of one kind."""
    import wgpu

    gc.collect()
    counts = wgpu.diagnostics.get_dict().get("wgpu_native_counts")
    return int(counts[kind]["count"]) if counts else 0


# --- Subprocesses ---------------------------------------------------------------------------------


def run_python(*arguments: str, timeout: float = 100) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments; what aborts there leaves the tests alive."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | {"RUST_BACKTRACE": "0"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@contextmanager
def lost(device: IRenderDevice, call: str) -> Iterator[None]:
    """Expect that a call finds the device gone."""
    try:
        yield
    except DeviceLostError as error:
        assert "device" in str(error)
    else:
        raise AssertionError(f"{call} did not notice that the device is gone")
