"""What every case works with: a device, and short words for what cases do all the time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar, get_args

import anyio
import numpy as np
import numpy.typing as npt

from pers.backends.null import NullDevice
from pers.buffers import (
    BufferDesc,
    BufferUsage,
    DeviceBuffer,
    IBuffer,
    IMappableBuffer,
    MapMode,
)
from pers.errors import PersError
from pers.graphics import (
    BindGroupLayout,
    BindingLayout,
    ComputePipelineDescriptor,
    ShaderStage,
)
from pers.testing.started_map import StartedMap
from pers.textures import TextureFormat

if TYPE_CHECKING:
    from collections.abc import Generator

    from anyio.abc import TaskGroup, TaskStatus

    from pers.graphics import ICommandBuffer, ICommandEncoder, IRenderDevice, Submission

T = TypeVar("T")

OpenDevice = Callable[[], "IRenderDevice"]

MAP_READ = BufferUsage.MAP_READ | BufferUsage.COPY_DST
MAP_WRITE = BufferUsage.MAP_WRITE | BufferUsage.COPY_SRC
COPY = BufferUsage.COPY_SRC | BufferUsage.COPY_DST
MAP_USAGES = {MapMode.READ: MAP_READ, MapMode.WRITE: MAP_WRITE}

MAX_SAFE = 2**53 - 8
"""The suite's huge number: the largest multiple of 8 that JavaScript knows exactly."""

PassKind: TypeAlias = Literal["compute pass", "render pass", "render bundle"]
PASS_KINDS: tuple[PassKind, ...] = get_args(PassKind)


class Bench:
    """A device under test. A context manager that closes what it opened."""

    def __init__(self, open_device: OpenDevice) -> None:
        """Open the device.

        Args:
            open_device: Makes a new device; called more than once by some cases.
        """
        self._open_device = open_device
        self._opened: list[IRenderDevice] = []
        self._maps: list[StartedMap] = []
        self.device = self.open_another()

    def open_another(self) -> IRenderDevice:
        """Open one more device."""
        device = self._open_device()
        self._opened.append(device)
        return device

    def close(self) -> None:
        """Close all devices."""
        while self._maps:
            self._maps.pop().close()
        while self._opened:
            self._opened.pop().close()

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Buffers

    def buffer(self, size: int = 64, usage: BufferUsage = COPY, name: str = "buffer") -> IBuffer:
        """Make a buffer without CPU access."""
        return self.device.buffer_factory.create_buffer(BufferDesc(size, usage, debug_name=name))

    def mappable(
        self,
        size: int = 64,
        usage: BufferUsage = MAP_WRITE,
        *,
        mapped: bool = False,
        name: str = "mappable",
    ) -> IMappableBuffer:
        """Make a buffer with CPU access."""
        return self.device.buffer_factory.create_mappable_buffer(
            BufferDesc(size, usage, mapped_at_creation=mapped, debug_name=name)
        )

    def any_buffer(
        self, size: int, usage: BufferUsage, *, mapped: bool = False, name: str = "buffer"
    ) -> IBuffer:
        """Make a buffer by the method of the factory that its usage asks for."""
        if mapped or usage & (BufferUsage.MAP_READ | BufferUsage.MAP_WRITE):
            return self.mappable(size, usage, mapped=mapped, name=name)
        return self.buffer(size, usage, name)

    def invalid_buffer(self, size: int, usage: BufferUsage, name: str = "invalid") -> IBuffer:
        """Make a buffer that is not valid: its device was closed.

        The nearest there is to the suite's error buffers: pers refuses what they are made from,
        so there is no object to use.
        """
        device = self.open_another()
        buffer = device.buffer_factory.create_buffer(BufferDesc(size, usage, debug_name=name))
        device.close()
        assert not buffer.is_valid
        return buffer

    def filled(
        self, data: npt.NDArray[Any], usage: BufferUsage = COPY, name: str = "filled"
    ) -> DeviceBuffer:
        """Make a buffer with `data` in it."""
        return DeviceBuffer.from_array(
            data, usage | COPY, self.device.buffer_factory, debug_name=name
        )

    def read(self, buffer: IBuffer, dtype: npt.DTypeLike = np.uint8) -> npt.NDArray[Any]:
        """Read a whole buffer with usage COPY_SRC, blocking."""
        return self.device.read_array_blocking(buffer, dtype, copy=True)

    # Work

    def submit(self, record: Callable[[ICommandEncoder], None]) -> Submission:
        """Record commands and submit them."""
        encoder = self.device.create_command_encoder("case")
        record(encoder)
        return self.device.queue.submit([encoder.finish()])

    def copy(self, source: IBuffer, target: IBuffer, size: int | None = None) -> Submission:
        """Submit a copy between the starts of two buffers."""
        return self.submit(lambda e: e.copy_buffer_to_buffer(source, 0, target, 0, size))

    def record_in(self, kind: PassKind, record: Callable[[Any], object]) -> ICommandBuffer:
        """Record a pass (or a bundle in a pass) with the commands that `record` gives it."""
        encoder = self.device.create_command_encoder(kind)
        if kind == "compute pass":
            with encoder.begin_compute_pass() as compute_pass:
                record(compute_pass)
            return encoder.finish()
        frame = self.device.create_frame_buffer(4, 4, (TextureFormat.RGBA8_UNORM,))
        with encoder.begin_render_pass(frame) as render_pass:
            if kind == "render pass":
                record(render_pass)
            else:
                bundle = self.device.create_render_bundle_encoder(frame.color_formats)
                record(bundle)
                render_pass.execute_bundles([bundle.finish()])
        return encoder.finish()

    def start_map(
        self, buffer: IMappableBuffer, mode: MapMode, offset: int = 0, size: int | None = None
    ) -> StartedMap:
        """Ask for a map and return while it is pending; await what is returned for its end.

        Raises what `map_async` raises at once.
        """
        started = StartedMap(buffer, buffer.map_async(mode, offset, size))
        self._maps.append(started)
        return started

    @contextmanager
    def occupied(self, record: Callable[[ICommandEncoder], None]) -> Generator[Submission]:
        """Submit what `record` records behind work that keeps the GPU busy during the block.

        In the block, if it is short, the submission is not done, and maps of buffers that it uses
        stay pending. Blocking waits in the block may never end.

        Raises:
            Skip: Nothing can keep this device busy.
        """
        if isinstance(self.device, NullDevice):
            clock = self.device.clock
            was_auto, clock.auto = clock.auto, False
            try:
                yield self.submit(record)
            finally:
                clock.auto = was_auto
                clock.advance(10**12)  # whatever the latencies are
        else:

            def busy(encoder: ICommandEncoder) -> None:
                self._be_busy(encoder)
                record(encoder)

            yield self.submit(busy)

    def _be_busy(self, encoder: ICommandEncoder) -> None:
        """Record dispatches that each need the result of the one before."""
        from pers.testing.case import Skip

        if not self.device.info.executes_shaders:
            raise Skip("the device runs no shaders, so nothing can keep it busy")
        layout = BindGroupLayout([BindingLayout(0, "storage", ShaderStage.COMPUTE)])
        shader = self.device.create_shader_module(_BUSY, label="busy")
        pipeline = self.device.create_compute_pipeline(ComputePipelineDescriptor(shader, (layout,)))
        results = self.buffer(4 * _BUSY_GROUPS, BufferUsage.STORAGE, "busy")
        with encoder.begin_compute_pass() as compute_pass:
            compute_pass.set_pipeline(pipeline)
            compute_pass.set_bind_group(0, self.device.create_bind_group(layout, {0: results}))
            for _ in range(_BUSY_DISPATCHES):
                compute_pass.dispatch_workgroups(_BUSY_GROUPS)

    # Expectations

    def refuses(
        self, *kinds: type[PersError], words: tuple[str, ...] = ()
    ) -> AbstractContextManager[None]:
        """Return a block that must raise one of `kinds`, with all `words` in its message."""
        return _refuses(kinds, words)

    def refuses_map(
        self,
        buffer: IMappableBuffer,
        *kinds: type[PersError],
        mode: MapMode,
        offset: int = 0,
        size: int | None = None,
    ) -> None:
        """Expect that a map is refused at once, by the buffer's name, and changes nothing."""
        state, words = buffer.state, (repr(buffer.debug_name),)
        with self.refuses(*kinds, words=words):
            self.start_map(buffer, mode, offset, size)
        with self.refuses(*kinds, words=words):
            buffer.map(mode, offset, size)
        assert buffer.state is state, f"{buffer} was {state.value} before the map was refused"

    def refuses_range(
        self,
        buffer: IMappableBuffer,
        *kinds: type[PersError],
        offset: int = 0,
        size: int | None = None,
    ) -> None:
        """Expect that a mapped range is refused, by the buffer's name, and changes nothing."""
        state = buffer.state
        with self.refuses(*kinds, words=(repr(buffer.debug_name),)):
            buffer.mapped_range(offset, size)
        assert buffer.state is state, f"{buffer} was {state.value} before the range was refused"


@contextmanager
def _refuses(kinds: tuple[type[PersError], ...], words: tuple[str, ...]) -> Generator[None]:
    caught: PersError | None = None
    try:
        yield
    except kinds as error:
        caught = error
    names = " or ".join(kind.__name__ for kind in kinds)
    assert caught is not None, f"nothing was raised where {names} is due"
    missing = [word for word in words if word not in str(caught)]
    assert not missing, f"{type(caught).__name__} does not say {missing}: {caught}"


_BUSY_GROUPS, _BUSY_DISPATCHES = 8, 100
"""A tenth of a second or more: on a CPU by the groups, on a GPU by the dispatches."""

_BUSY = """
@group(0) @binding(0) var<storage, read_write> results: array<u32>;

@compute @workgroup_size(1) fn main(@builtin(workgroup_id) group: vec3u) {
    var value = results[group.x] + 1u;
    for (var i = 0u; i < 50000u; i++) {  // llvmpipe ends loops at 65535
        value = value * 1664525u + 1013904223u;
    }
    results[group.x] = value;
}
"""


class Attempt(Generic[T]):
    """A call in a task of its own, and what came of it.

    Attributes:
        done: Whether the call has ended.
        error: The pers error it ended with, if it did.
    """

    def __init__(self) -> None:
        self.done = False
        self.error: PersError | None = None
        self._results: list[T] = []
        self._scope = anyio.CancelScope()

    async def start(
        self, tasks: TaskGroup, call: Callable[..., Awaitable[T]], *arguments: Any
    ) -> None:
        """Call in a new task; return when it waits for the first time (or has ended)."""
        await tasks.start(self._run, call, arguments)

    @property
    def result(self) -> T:
        """What the call returned; `AssertionError` when it did not."""
        assert self.done, "the call has not ended"
        assert self.error is None, f"the call failed: {self.error!r}"
        assert self._results, "the call was cancelled"
        return self._results[0]

    def cancel(self) -> None:
        """Cancel the task."""
        self._scope.cancel()

    async def _run(
        self,
        call: Callable[..., Awaitable[T]],
        arguments: tuple[Any, ...],
        *,
        task_status: TaskStatus[None],
    ) -> None:
        with self._scope:
            task_status.started()
            try:
                self._results.append(await call(*arguments))
            except PersError as error:
                self.error = error
        self.done = True
