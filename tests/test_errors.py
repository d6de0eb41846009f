"""Exceptions: what they are, what they say, and that nothing else is raised.

This file is also a program: ``test_errors.py BACKEND`` makes every call of `CALLS` with every kind
of junk, and prints what was raised that is no `PersError`.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import attrs
import numpy as np
import pytest

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

import pers
from pers import (
    BackendUnavailableError,
    BindGroupLayout,
    BindingLayout,
    BufferBinding,
    BufferDesc,
    BufferRangeError,
    BufferStateError,
    BufferUsage,
    BufferUsageError,
    ColorTarget,
    ComputePipelineDescriptor,
    DeferredStagingBuffer,
    DeviceBuffer,
    DeviceLostError,
    DeviceMismatchError,
    DynamicBuffer,
    ImmediateStagingBuffer,
    InvalidTextureHandleError,
    IRenderDevice,
    MapAbortedError,
    MapMode,
    MappedViewsError,
    MetalApiError,
    MetalInitializationError,
    OperationNotSupportedError,
    OutOfMemoryError,
    PeerLostError,
    PersError,
    ProtocolError,
    ReadbackBuffer,
    RenderPipelineDescriptor,
    RingFullError,
    SamplerDescriptor,
    ShaderStage,
    ShareError,
    StagingBelt,
    TexelCopyBufferInfo,
    TexelCopyTextureInfo,
    TextureAccessError,
    TextureDescriptor,
    TextureFormat,
    TextureRows,
    TextureUsage,
    ValidationError,
    VertexAttribute,
    VertexLayout,
    VulkanApiError,
    VulkanInitializationError,
    WaitTimeoutError,
)
from tests.support import (
    BACKENDS,
    DOUBLE,
    FULL_SCREEN,
    ROOT,
    UPLOAD,
    Hold,
    Maker,
    make_texture,
    open_device,
    run_python,
    start_map,
)

# --- What they are --------------------------------------------------------------------------------

BUILT_INS: dict[str, type[Exception]] = {
    "PersError": Exception,
    "BackendUnavailableError": RuntimeError,
    "BufferRangeError": ValueError,
    "BufferStateError": RuntimeError,
    "BufferUsageError": ValueError,
    "DeviceLostError": RuntimeError,
    "DeviceMismatchError": ValueError,
    "InvalidTextureHandleError": ValueError,
    "MapAbortedError": RuntimeError,
    "MappedViewsError": RuntimeError,
    "MetalApiError": RuntimeError,
    "MetalInitializationError": RuntimeError,
    "OperationNotSupportedError": RuntimeError,
    "OutOfMemoryError": MemoryError,
    "PeerLostError": ConnectionError,
    "ProtocolError": ValueError,
    "RingFullError": RuntimeError,
    "ShareError": Exception,
    "TextureAccessError": RuntimeError,
    "ValidationError": ValueError,
    "VulkanApiError": RuntimeError,
    "VulkanInitializationError": RuntimeError,
    "WaitTimeoutError": TimeoutError,
}

WITH_A_NUMBER = {"MappedViewsError", "VulkanApiError"}
TABLE_ONLY = {"MetalApiError", "VulkanApiError"}
"""What docs/errors.md does not cause, since no driver can be asked to fail."""


def test_every_error_is_listed() -> None:
    raised = set(pers.errors.__all__) - {"PerformanceWarning"}  # a category of warnings
    assert set(BUILT_INS) == raised
    assert all(getattr(pers, name) is getattr(pers.errors, name) for name in BUILT_INS)


@pytest.mark.parametrize("name", BUILT_INS)
def test_what_an_error_is(name: str) -> None:
    """`except ValueError` and its like keep working."""
    error = getattr(pers, name)
    assert issubclass(error, PersError)
    assert issubclass(error, BUILT_INS[name])
    assert error.__doc__
    made = error("text", 3) if name in WITH_A_NUMBER else error("text")
    assert str(made) == "text"


def test_errors_of_sharing_can_be_caught_together() -> None:
    children = {name for name in BUILT_INS if issubclass(getattr(pers, name), pers.ShareError)}
    metal = {"MetalApiError", "MetalInitializationError"}
    vulkan = {"VulkanApiError", "VulkanInitializationError"}
    assert children == metal | vulkan | {
        "DeviceMismatchError", "InvalidTextureHandleError", "OperationNotSupportedError",
        "PeerLostError", "ProtocolError", "ShareError", "TextureAccessError",
    }  # fmt: skip


# --- What they say --------------------------------------------------------------------------------


@attrs.frozen
class Message:
    """A mistake, and what its message has to tell.

    Attributes:
        error: Exactly this is raised.
        call: Makes the mistake.
        who: The object, by its name.
        asked: What was asked of it.
        state: In which state it was: the numbers, the usage, who else is at it.
        remedy: What to do instead.
    """

    error: type[PersError]
    call: Callable[[], object]
    who: str
    asked: str
    state: str
    remedy: str

    def check(self) -> None:
        with pytest.raises(PersError) as caught:
            self.call()
        assert type(caught.value) is self.error, caught.value
        text = str(caught.value)
        for part in (self.who, self.asked, self.state, self.remedy):
            assert part, "every message tells all four"
            assert part in text, f"{part!r} is not in {text}"


def buffer_messages(device: IRenderDevice) -> Iterator[Message]:
    factory = device.buffer_factory
    make = Maker(device)
    mapped = make.mappable(64, UPLOAD, "particles", mapped=True)
    data = mapped.mapped_data
    view = data.as_array()
    gone = make.mappable(64, UPLOAD, "particles")
    gone.destroy()
    plain = make.plain(16, name="mesh")
    commands = device.create_command_encoder("frame 7")
    commands.copy_buffer_to_buffer(mapped, 0, make.plain(), 0)
    finished = commands.finish()

    yield Message(BufferStateError, mapped.map, "'particles'", "map:", "is mapped", "unmap it")
    yield Message(BufferStateError, gone.map, "'particles'", "map:", "destroyed", "create a new")
    yield Message(
        BufferStateError, lambda: gone.mapped_data, "'particles'", "mapped_data", "is destroyed",
        "create a new one",
    )  # fmt: skip
    yield Message(
        BufferStateError, lambda: device.queue.submit([finished]), "'particles'",
        "submit command buffer 'frame 7'", "is mapped", "unmap it",
    )  # fmt: skip
    yield Message(
        MappedViewsError, mapped.unmap, "'particles'", "cannot be unmapped", "1 array",
        "delete the arrays (and slices of them) first, or copy them",
    )  # fmt: skip
    yield Message(
        BufferRangeError, lambda: mapped.mapped_range(4, 4), "'particles'", "mapped range",
        "offset 4", "multiple of 8",
    )  # fmt: skip
    yield Message(
        BufferRangeError, lambda: mapped.mapped_range(64, 8), "'particles'", "64 to 72",
        "not all mapped", "mapped are 0 to 64",
    )  # fmt: skip
    yield Message(
        BufferRangeError, lambda: (mapped.mapped_range(0, 16), mapped.mapped_range(8, 8)),
        "'particles'", "8 to 16", "overlap the range 0 to 16", "mapped_data",
    )  # fmt: skip
    yield Message(
        BufferRangeError, lambda: data.write(bytes(100)), "'particles'", "write", "100 bytes",
        "64 bytes",
    )  # fmt: skip
    yield Message(
        BufferRangeError, lambda: data.as_array(np.float64, 9), "'particles'", "as_array",
        "float64 takes 72 bytes", "has 64",
    )  # fmt: skip
    yield Message(
        BufferRangeError, lambda: device.queue.write_buffer(plain, 8, bytes(16)), "'mesh'",
        "write_buffer", "16 bytes at offset 8", "(16 bytes)",
    )  # fmt: skip
    yield Message(
        BufferRangeError, lambda: device.upload(bytes(3), plain), "'mesh'", "upload", "0 and 3",
        "pad the data",
    )  # fmt: skip
    yield Message(
        BufferUsageError, lambda: factory.create_buffer(BufferDesc(4, UPLOAD, debug_name="mesh")),
        "'mesh'", "asks for mapping", "MAP_WRITE", "use create_mappable_buffer",
    )  # fmt: skip
    yield Message(
        BufferUsageError,
        lambda: ReadbackBuffer(BufferDesc(4, BufferUsage.MAP_WRITE, debug_name="result"), factory),
        "ReadbackBuffer 'result'", "MAP_WRITE", "is for COPY_DST | MAP_READ", "pass its size only",
    )  # fmt: skip
    yield Message(
        BufferUsageError, lambda: make.mappable(name="result").map(MapMode.READ), "'result'",
        "map for READ", "created with COPY_SRC | MAP_WRITE", "it needs MAP_READ",
    )  # fmt: skip
    del view


def other_messages(device: IRenderDevice) -> Iterator[Message]:
    make = Maker(device)
    yield Message(
        BackendUnavailableError, lambda: pers.open_device("metal"), "'metal'", "backend",
        "there is no", "choose one of webgpu, null",
    )  # fmt: skip
    yield Message(
        BackendUnavailableError,
        lambda: pers.open_device(device.info.backend, features=["laser"]), "laser", "feature",
        "lacks" if device.info.backend == "webgpu" else "has no", " it has",
    )  # fmt: skip

    done = device.create_command_encoder("frame 7")
    commands = done.finish()
    yield Message(
        ValidationError, done.finish, "encoder 'frame 7'", "finish", "after finish",
        "create a new encoder",
    )  # fmt: skip
    device.queue.submit([commands])
    yield Message(
        ValidationError, lambda: device.queue.submit([commands]), "'frame 7'", "submit",
        "submitted before", "record it again",
    )  # fmt: skip
    picture = make_texture(device)
    picture.destroy()
    yield Message(
        ValidationError, lambda: device.queue.write_texture(picture, np.zeros((4, 4, 4), np.uint8)),
        "texture 'picture'", "write_texture", "destroyed", "create a new one",
    )  # fmt: skip

    target = make.plain(1 << 16, name="mesh")
    data = np.zeros(1 << 14, np.uint32)
    belt = StagingBelt(device, budget=data.nbytes)
    encoder = device.create_command_encoder("uploads")
    belt.upload(data, target, encoder=encoder)
    yield Message(
        RingFullError, lambda: belt.upload(data, target, encoder=encoder), "staging belt",
        "budget of 65536 bytes", "recorded but not submitted", "submit their encoders",
    )  # fmt: skip
    with Hold(device):
        submission = device.queue.submit([encoder.finish()])
        encoder = device.create_command_encoder("uploads")
        yield Message(
            RingFullError, lambda: belt.try_upload(data, target, encoder=encoder), "staging belt",
            "budget of 65536 bytes", "GPU has not finished", "wait for one of them",
        )  # fmt: skip
        yield Message(
            WaitTimeoutError, lambda: submission.wait(0.01), f"submission {submission.serial}",
            "0.01 s", "was not done", "wait again or give it more time",
        )  # fmt: skip
    ring = DynamicBuffer(
        64, device.buffer_factory, frames=2, usage=BufferUsage.COPY_SRC, debug_name="objects"
    )
    encoder = device.create_command_encoder("two frames")
    for _ in range(2):
        with ring.begin_update() as update:
            offset = update.push(bytes(64))
        encoder.copy_buffer_to_buffer(ring, offset, target, 0, 64)
    yield Message(
        RingFullError, lambda: ring.begin_update().__enter__(), "DynamicBuffer 'objects'",
        "all 2 frames", "recorded but not submitted", "submit (or drop) them",
    )  # fmt: skip

    sampled = make_texture(device)
    frame = device.create_frame_buffer(4, 4, label="scene")
    yield Message(
        ValidationError,
        lambda: device.queue.write_texture(frame.color_textures[0], np.zeros((4, 4, 4), np.uint8)),
        "texture 'scene color 0'", "write_texture", "without TextureUsage.COPY_DST",
        "add it to the usage",
    )  # fmt: skip
    yield Message(
        BufferRangeError, lambda: device.queue.write_texture(sampled, np.zeros((4, 4), np.uint8)),
        "texture 'picture'", "write_texture", "not (4, 4)", "height, width, 4",
    )  # fmt: skip
    yield Message(
        BufferRangeError, lambda: device.upload(np.zeros((4, 2, 4), np.uint8), sampled),
        "texture 'picture'", "upload", "not shape (4, 2, 4)", "has shape (4, 4, 4)",
    )  # fmt: skip
    yield from aborted_maps(make)


def aborted_maps(make: Maker) -> Iterator[Message]:
    """What can be done depends on why a map ended."""
    buffer = make.mappable(name="particles")

    async def abort(end: Callable[[], None]) -> None:
        async with anyio.create_task_group() as group:
            task = await start_map(group, buffer)
            end()
        assert task.error is not None
        raise task.error

    for end, state, remedy in (
        (buffer.unmap, "aborted: unmapped", "map again"),
        (buffer.destroy, "aborted: destroyed", "create a new one"),
    ):
        yield Message(
            MapAbortedError, functools.partial(anyio.run, abort, end), "'particles'", "pending map",
            state, remedy,
        )  # fmt: skip


def last_messages(device: IRenderDevice) -> Iterator[Message]:
    """What a device says that is closed now."""
    make = Maker(device)
    buffer = make.mappable(name="particles")
    pending: Any = make.mappable(name="bones")
    with Hold(device):
        submission = device.queue.on_work_done()
        mapped = pending.start_map(MapMode.WRITE)
        device.close()
    closed = "the device was closed"
    remedy = "open a new device"
    yield Message(MapAbortedError, mapped.wait, "'bones'", "map", "lost or closed", remedy)
    yield Message(DeviceLostError, make.plain, "'thing'", "create buffer", closed, remedy)
    yield Message(DeviceLostError, buffer.map, "'particles'", "map", closed, remedy)
    yield Message(
        DeviceLostError, lambda: device.create_bind_group(BindGroupLayout([]), {}, label="objects"),
        "'objects'", "create_bind_group", closed, remedy,
    )  # fmt: skip
    yield Message(DeviceLostError, submission.wait, "device", "work", "closed", remedy)


def short_of_memory_messages(device: IRenderDevice) -> Iterator[Message]:
    """What a device says that has no memory; only the null device can be made to."""
    faults = device.faults  # type: ignore[attr-defined]
    make = Maker(device)
    buffer = make.mappable(name="particles")
    faults.memory_limit = 1000
    yield Message(
        OutOfMemoryError, lambda: make.plain(4096, name="mesh"), "'mesh'", "4096 bytes",
        "are in use", "destroy something",
    )  # fmt: skip
    faults.fail_next_maps()
    yield Message(
        OutOfMemoryError, buffer.map, "'particles'", "to map it", "no memory", "map again"
    )
    faults.memory_limit = None


def share_messages() -> Iterator[Message]:
    """What sharing says: of shared memory, which works everywhere, and of streams."""
    usage = TextureUsage.COPY_SRC | TextureUsage.COPY_DST
    camera = TextureDescriptor(64, 48, RGBA, usage, "camera")
    pixels = np.zeros((48, 64, 4), np.uint8)
    with pers.HostTextureShareManager() as here, pers.HostTextureShareManager() as there:
        texture = here.create_shareable_texture(camera)
        handle = here.export_texture(texture)
        other = there.import_texture(handle, camera)

        def write_while_reading() -> None:
            with texture.access() as view:
                view.upload(pixels)

        def read(one: pers.SharedTexture) -> None:
            with one.access():
                pass

        def write_twice() -> None:
            with texture.access(write=True), other.access(write=True):
                pass

        def use_late() -> None:
            with texture.access() as view:
                pass
            view.download()

        yield Message(
            TextureAccessError, write_while_reading, "shared texture 'camera'", "open for reading",
            "reading", "use access(write=True)",
        )  # fmt: skip
        yield Message(
            TextureAccessError, write_twice, "shared texture 'camera'", "opened for writing",
            "another process or manager uses it", "wait for it with timeout_ns",
        )  # fmt: skip
        yield Message(
            TextureAccessError, use_late, "shared texture 'camera'", "is used", "after its access",
            "open another access()",
        )  # fmt: skip
        other.close()
        yield Message(
            TextureAccessError, lambda: read(other), "shared texture 'camera'", "was closed",
            "before", "make another one",
        )  # fmt: skip
        yield Message(
            WaitTimeoutError, lambda: here.wait_for_texture(texture, 1_000_000),
            "shared texture 'camera'", "within 0.001 s", "was not signalled ready",
            "see that the other side calls signal_texture_ready, or wait longer",
        )  # fmt: skip
        yield Message(
            InvalidTextureHandleError,
            lambda: there.import_texture(handle, attrs.evolve(camera, width=65)),
            "texture 'camera'", "65x48 rgba8unorm", "the handle's memory 12288",
            "import it with the descriptor that it was made with",
        )  # fmt: skip
        handle.close()
        yield Message(
            InvalidTextureHandleError, lambda: there.import_texture(handle, camera), "the handle",
            "file descriptor", "is closed", "export the object again",
        )  # fmt: skip
        yield Message(
            OperationNotSupportedError,
            lambda: here.create_shareable_texture(attrs.evolve(camera, format="depth24plus")),
            "texture 'camera'", "cannot share", "depth24plus", "capabilities.formats",
        )  # fmt: skip
        yield Message(
            OperationNotSupportedError, lambda: there.export_texture(texture), "'camera'",
            "export_texture", "was made by another manager", "export it there, import it here",
        )  # fmt: skip
        yield Message(
            BackendUnavailableError, lambda: pers.open_share_manager(backend="opengl"), "'opengl'",
            "for sharing", "there is no", "choose auto or one of vulkan, metal, webgpu, host",
        )  # fmt: skip
        yield from stream_messages(camera, here, there)


def stream_messages(
    camera: TextureDescriptor, here: pers.TextureShareManager, there: pers.TextureShareManager
) -> Iterator[Message]:
    from pers.sharing.ipc.wire import Decoder

    with pers.TexturePublisher("errors", camera, here) as publisher:
        yield Message(
            ShareError, lambda: pers.TexturePublisher("errors", camera, here), "'errors'", "stream",
            "is being published already", "close its publisher, or choose another name",
        )  # fmt: skip
        subscriber = pers.TextureSubscriber("errors", there, timeout_ns=1_000_000_000)
        yield Message(
            WaitTimeoutError, lambda: subscriber.next_frame(timeout_ns=1_000_000).__enter__(),
            "stream 'errors'", "within 0.001 s", "no frame came",
            "see that the publisher makes frames, or wait longer",
        )  # fmt: skip
        publisher.close()
        yield Message(
            PeerLostError, lambda: subscriber.next_frame().__enter__(), "publisher of 'errors'",
            "the stream", "has closed", "reconnect() when there is another",
        )  # fmt: skip
        subscriber.close()
    yield Message(
        WaitTimeoutError, lambda: pers.TextureSubscriber("errors", there, timeout_ns=1_000_000),
        "'errors'", "within 0.001 s", "there was no stream", "start its publisher",
    )  # fmt: skip
    yield Message(
        ProtocolError, lambda: Decoder().feed(b"GET / HTTP/1.1\r\n"), "a message", "begins with",
        "b'GET '", "the other side must run the same version of pers",
    )  # fmt: skip


def driver_messages() -> Iterator[Message]:
    """What the APIs below sharing say; failures are made below pers, as no driver makes them."""
    from pers.backends.metal import manager as metal_manager
    from pers.backends.vulkan._ffi import check, vk
    from tests.sharing.fake_metal import FakeMetal

    yield Message(
        MetalInitializationError, pers.MetalTextureShareManager, "Metal", "needs macOS",
        f"this is {sys.platform}", "pip install 'pers[metal]'",
    )  # fmt: skip
    yield Message(
        VulkanInitializationError, lambda: pers.VulkanTextureShareManager(device="Voodoo 2"),
        "'Voodoo 2'", "Vulkan device", "no Vulkan device is called", "there are '",
    )  # fmt: skip
    # It ends with the name of the result, to look up: what to do is different for each.
    yield Message(
        VulkanApiError, lambda: check(vk.VK_ERROR_FRAGMENTED_POOL, "vkBindImageMemory"),
        "vkBindImageMemory", "vkBindImageMemory", "failed", "VK_ERROR_FRAGMENTED_POOL",
    )  # fmt: skip
    usage = TextureUsage.COPY_SRC | TextureUsage.COPY_DST
    camera = TextureDescriptor(64, 48, RGBA, usage, "camera")
    with pers.VulkanTextureShareManager() as gpu:
        with gpu.export_texture(gpu.create_shareable_texture(camera)) as handle:
            other = attrs.evolve(handle, device_uuid=bytes(16))
            yield Message(
                DeviceMismatchError, lambda: gpu.import_texture(other, camera), "the handle",
                "comes from the device " + bytes(16).hex(), "and this is",
                "open both sides on the same GPU and driver",
            )  # fmt: skip
    metal = FakeMetal()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metal_manager, "load_metal", lambda: metal)
        manager = pers.MetalTextureShareManager()
    metal.fail["new_event"] = None
    yield Message(
        MetalApiError, manager.create_event, "newSharedEvent", "newSharedEvent",
        "returned nothing", "close events that are not needed",
    )  # fmt: skip
    manager.close()


@pytest.fixture
def own_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


@pytest.mark.usefixtures("own_sockets")
def test_what_messages_tell_of_sharing() -> None:
    for source in (share_messages, driver_messages):
        for message in source():
            message.check()


def test_what_messages_tell(fresh_device: IRenderDevice) -> None:
    for source in (buffer_messages, other_messages, last_messages):
        for message in source(fresh_device):
            message.check()


def test_what_messages_tell_of_memory() -> None:
    with open_device("null") as device:
        for message in short_of_memory_messages(device):
            message.check()


def test_what_webgpu_tells_of_memory() -> None:
    """No test can use up the memory of every machine, so wgpu's error is made here."""
    import wgpu

    from pers.backends.webgpu._ffi import translated

    def call() -> None:
        with translated("create buffer 'mesh'"):
            raise wgpu.GPUOutOfMemoryError("Not enough memory left.")

    Message(
        OutOfMemoryError, call, "'mesh'", "create buffer", "Not enough memory left", "ask for less"
    ).check()


def test_what_webgpu_tells_of_maps() -> None:
    """The library knows numbers; messages have names. And a failed map may be the first sign."""
    from pers.backends.webgpu._ffi import lib

    with open_device("webgpu") as device:
        make = Maker(device)
        pending: Any = make.mappable(name="bones")
        late = make.mappable(name="particles")
        with Hold(device):
            mapped = pending.start_map(MapMode.WRITE)
            lib.wgpuBufferUnmap(pending.native.internal)
        Message(
            MapAbortedError,
            mapped.wait,
            "buffer 'bones'",
            "map",
            "aborted: Buffer map",
            "map again",
        ).check()
        type(device.native_handle).destroy(device.native_handle)  # behind the back of pers
        Message(
            MapAbortedError, late.map, "buffer 'particles'", "map",
            "device is lost", "open a new device",
        ).check()  # fmt: skip
        device.poll()
        assert device.is_lost


@pytest.mark.usefixtures("own_sockets")
def test_every_error_has_a_message() -> None:
    """A new exception comes with a message that says who, what, in which state, and what then."""
    told = set()
    for source in (share_messages, driver_messages):
        for message in source():
            message.check()
            told.add(message.error.__name__)
    with open_device("null") as device:
        sources = (buffer_messages, other_messages, short_of_memory_messages, last_messages)
        for source in sources:
            for message in source(device):
                message.check()
                told.add(message.error.__name__)
    assert told == set(BUILT_INS) - {"PersError"}, "PersError itself is never raised"


def test_the_table_of_the_docs() -> None:
    """One row for each exception, with its built-in, a cause and a remedy."""
    text = (ROOT / "docs" / "errors.md").read_text()
    rows = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 4:
            rows[cells[0].strip("`")] = cells[1:]
    assert rows.pop("PerformanceWarning")[0] == "`UserWarning`"
    assert sorted(rows) == sorted(set(BUILT_INS) - {"PersError"})
    for name, (also, cause, remedy) in rows.items():
        assert also == f"`{BUILT_INS[name].__name__}`"
        assert cause.endswith(".")
        assert remedy.endswith(".")
        shown = re.search(rf"\n`{name}`[^`\n]*:\n\n```python\n", text) is not None
        assert shown is (name not in TABLE_ONLY), f"{name} is not shown on purpose"


def test_missing_driver_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from pers.backends.webgpu import WebGPUDevice

    monkeypatch.setattr("pers.backends.webgpu.find_adapters", lambda _: [])
    with pytest.raises(pers.BackendUnavailableError, match="apt install .*mesa-vulkan-drivers"):
        WebGPUDevice.open()


# --- That nothing else is raised ------------------------------------------------------------------

JUNK: list[Any] = [
    -1, 2**31, 2**63, 2**64, float("nan"), 1.5, "4", "", True, None, object(), [4], (), {},
    np.float32(4), np.array([1.5]), b"4", print,
]  # fmt: skip
RGBA = TextureFormat.RGBA8_UNORM
GPU = BufferUsage(0b1100111111)  # all but mapping


class Toys:
    """Things to make mistakes with."""

    def __init__(self, device: IRenderDevice) -> None:
        self.device = device
        self.queue, self.factory, self.belt = device.queue, device.buffer_factory, device.belt
        self.make = Maker(device)
        self.buffer = self.make.plain(1024, GPU, "toy")
        self.other = self.make.plain(1024, GPU, "toy 2")
        usage = TextureUsage.COPY_SRC | TextureUsage.COPY_DST | TextureUsage.TEXTURE_BINDING
        self.texture = device.create_texture(TextureDescriptor(4, 4, RGBA, usage, "picture"))
        self.frame = device.create_frame_buffer(4, 4, [RGBA])
        self.queries = device.create_query_set("occlusion", 4)
        self.shader = device.create_shader_module(FULL_SCREEN + DOUBLE)
        self.layout = BindGroupLayout(
            [BindingLayout(0, "uniform", dynamic_offset=True, min_size=16)]
        )
        self.group = device.create_bind_group(self.layout, {0: self.buffer})

    @property
    def encoder(self) -> Any:
        return self.device.create_command_encoder("toy")

    @property
    def mapped(self) -> Any:
        return self.make.mappable(64, mapped=True)

    @property
    def mappable(self) -> Any:
        return self.make.mappable(64)

    def drawing(self, call: Callable[[Any], object]) -> None:
        encoder = self.encoder
        with encoder.begin_render_pass(self.frame, occlusion_queries=self.queries) as render_pass:
            call(render_pass)
        encoder.finish()

    def updating(self, call: Callable[[Any], object]) -> None:
        with DynamicBuffer(64, self.factory).begin_update() as update:
            call(update)

    def mapping(self, **more: Any) -> None:
        with DeferredStagingBuffer(64, self.factory).map(**more):
            pass


def _of_classes() -> dict[str, Callable[[Toys, Any], object]]:
    calls: dict[str, Callable[[Toys, Any], object]] = {}
    for kind in (
        DeviceBuffer, ImmediateStagingBuffer, DeferredStagingBuffer, ReadbackBuffer, DynamicBuffer,
    ):  # fmt: skip
        usage: Any = {"usage": BufferUsage.VERTEX} if kind is DeviceBuffer else {}
        name = kind.__name__
        calls[f"{name}(size)"] = lambda t, x, k=kind, u=usage: k(x, t.factory, **u)
        calls[f"{name}(factory)"] = lambda t, x, k=kind, u=usage: k(4, x, **u)
        calls[f"{name}(name)"] = lambda t, x, k=kind, u=usage: k(4, t.factory, debug_name=x, **u)
    return calls


def _of_fields() -> dict[str, Callable[[Toys, Any], object]]:
    """Descriptors, each field in turn."""
    calls: dict[str, Callable[[Toys, Any], object]] = {}

    def field(
        kind: type, name: str, good: Callable[[Toys], dict[str, Any]], use: str | None
    ) -> Callable[[Toys, Any], object]:
        def call(toys: Toys, junk: Any) -> None:
            made = kind(**(good(toys) | {name: junk}))
            if use is not None:
                getattr(toys.device, use)(made)

        return call

    texture = {"width": 4, "height": 4, "format": RGBA, "usage": TextureUsage.COPY_DST}
    kinds: list[tuple[type, Callable[[Toys], dict[str, Any]], str | None]] = [
        (TextureDescriptor, lambda t: texture, "create_texture"),
        (SamplerDescriptor, lambda t: {}, "create_sampler"),
        (ComputePipelineDescriptor, lambda t: {"shader": t.shader}, "create_compute_pipeline"),
        (
            RenderPipelineDescriptor,
            lambda t: {"shader": t.shader, "color_targets": [ColorTarget(RGBA)]},
            "create_render_pipeline",
        ),
        (BufferDesc, lambda t: {"size": 4, "usage": BufferUsage.VERTEX}, None),
        (BindingLayout, lambda t: {"binding": 0, "kind": "uniform"}, None),
        (VertexAttribute, lambda t: {"location": 0, "format": "float32"}, None),
        (VertexLayout, lambda t: {"stride": 4, "attributes": []}, None),
        (TexelCopyTextureInfo, lambda t: {"texture": t.texture}, None),
        (pers.BlendState, lambda t: {}, None),
        (pers.DepthState, lambda t: {}, None),
        (ColorTarget, lambda t: {"format": RGBA}, None),
    ]
    for kind, good, use in kinds:
        for attribute in kind.__attrs_attrs__:  # type: ignore[attr-defined]
            if attribute.init:
                name = attribute.name
                calls[f"{kind.__name__}.{name}"] = field(kind, name, good, use)
    return calls


def _of_passes() -> dict[str, Callable[[Toys, Any], object]]:
    """Commands of a render pass, each argument in turn."""
    calls: dict[str, Callable[[Toys, Any], object]] = {}

    def argument(method: str, position: int, *good: Any) -> Callable[[Toys, Any], object]:
        def call(toys: Toys, junk: Any) -> None:
            arguments = [toys.buffer if item is Toys else item for item in good]
            arguments[position] = junk
            toys.drawing(lambda render_pass: getattr(render_pass, method)(*arguments))

        return call

    for method, good in {
        "draw": (1, 1, 0, 0),
        "draw_indexed": (1, 1, 0, 0, 0),
        "draw_indirect": (Toys, 0),
        "draw_indexed_indirect": (Toys, 0),
        "multi_draw_indirect": (Toys, 0, 1),
        "multi_draw_indexed_indirect": (Toys, 0, 1),
        "set_viewport": (0, 0, 1, 1, 0, 1),
        "set_scissor_rect": (0, 0, 1, 1),
        "set_vertex_buffer": (0, Toys, 0, 4),
        "set_index_buffer": (Toys, "uint32", 0, 4),
        "set_pipeline": (None,),
        "execute_bundles": ([],),
        "begin_occlusion_query": (0,),
    }.items():
        for position in range(len(good)):
            calls[f"pass.{method}({position})"] = argument(method, position, *good)
    return calls


CALLS: dict[str, Callable[[Toys, Any], object]] = {
    # Mapping
    "map(mode)": lambda t, x: t.mappable.map(x),
    "map(offset)": lambda t, x: t.mappable.map(MapMode.WRITE, x),
    "map(size)": lambda t, x: t.mappable.map(MapMode.WRITE, 0, x),
    "mapped_range(offset)": lambda t, x: t.mapped.mapped_range(x),
    "mapped_range(size)": lambda t, x: t.mapped.mapped_range(0, x),
    "as_array(dtype)": lambda t, x: t.mapped.mapped_data.as_array(x),
    "as_array(shape)": lambda t, x: t.mapped.mapped_data.as_array(np.uint8, x),
    "as_array(shape[1])": lambda t, x: t.mapped.mapped_data.as_array(np.uint8, (2, x)),
    "write(data)": lambda t, x: t.mapped.mapped_data.write(x),
    "write(offset)": lambda t, x: t.mapped.mapped_data.write(b"1234", x),
    "read(offset)": lambda t, x: t.mapped.mapped_data.read(x),
    "read(size)": lambda t, x: t.mapped.mapped_data.read(0, x),
    "create_buffer": lambda t, x: t.factory.create_buffer(x),
    "create_mappable_buffer": lambda t, x: t.factory.create_mappable_buffer(x),
    # The five buffers and the belt
    **_of_classes(),
    "DeviceBuffer(usage)": lambda t, x: DeviceBuffer(4, t.factory, usage=x),
    "from_array(data)": lambda t, x: DeviceBuffer.from_array(x, BufferUsage.VERTEX, t.factory),
    "from_array(usage)": lambda t, x: DeviceBuffer.from_array(b"1234", x, t.factory),
    "from_array(factory)": lambda t, x: DeviceBuffer.from_array(b"1234", BufferUsage.VERTEX, x),
    "DynamicBuffer(usage)": lambda t, x: DynamicBuffer(4, t.factory, usage=x),
    "DynamicBuffer(frames)": lambda t, x: DynamicBuffer(4, t.factory, frames=x),
    "update.as_array(dtype)": lambda t, x: t.updating(lambda u: u.as_array(x)),
    "update.as_array(shape)": lambda t, x: t.updating(lambda u: u.as_array(np.uint8, x)),
    "update.push": lambda t, x: t.updating(lambda u: u.push(x)),
    "staging.write(data)": lambda t, x: ImmediateStagingBuffer(64, t.factory).write(x),
    "staging.write(offset)": lambda t, x: ImmediateStagingBuffer(64, t.factory).write(b"1234", x),
    "staging.as_array(dtype)": lambda t, x: ImmediateStagingBuffer(64, t.factory).as_array(x),
    "write_pixels(pixels)": lambda t, x: ImmediateStagingBuffer(1024, t.factory).write_pixels(
        x, t.texture
    ),
    "write_pixels(texture)": lambda t, x: ImmediateStagingBuffer(1024, t.factory).write_pixels(
        np.zeros((4, 4, 4), np.uint8), x
    ),
    "write_pixels(offset)": lambda t, x: ImmediateStagingBuffer(2048, t.factory).write_pixels(
        np.zeros((4, 4, 4), np.uint8), t.texture, x
    ),
    "upload_to(encoder)": lambda t, x: ImmediateStagingBuffer(64, t.factory).upload_to(x, t.buffer),
    "upload_to(target)": lambda t, x: ImmediateStagingBuffer(64, t.factory).upload_to(t.encoder, x),
    "upload_to(offset)": lambda t, x: ImmediateStagingBuffer(64, t.factory).upload_to(
        t.encoder, t.buffer, x
    ),
    "upload_to(source_offset)": lambda t, x: ImmediateStagingBuffer(64, t.factory).upload_to(
        t.encoder, t.buffer, source_offset=x
    ),
    "upload_to(size)": lambda t, x: ImmediateStagingBuffer(64, t.factory).upload_to(
        t.encoder, t.buffer, size=x
    ),
    "upload_to(pixels)": lambda t, x: ImmediateStagingBuffer(1024, t.factory).upload_to(
        t.encoder, t.texture, size=x
    ),
    "deferred.map(offset)": lambda t, x: t.mapping(offset=x),
    "deferred.map(size)": lambda t, x: t.mapping(size=x),
    "copy_from(encoder)": lambda t, x: ReadbackBuffer(64, t.factory).copy_from(x, t.buffer),
    "copy_from(source)": lambda t, x: ReadbackBuffer(64, t.factory).copy_from(t.encoder, x),
    "copy_from(offset)": lambda t, x: ReadbackBuffer(64, t.factory).copy_from(
        t.encoder, t.buffer, x
    ),
    "copy_from(size)": lambda t, x: ReadbackBuffer(64, t.factory).copy_from(
        t.encoder, t.buffer, size=x
    ),
    "copy_from(pixels)": lambda t, x: ReadbackBuffer(1024, t.factory).copy_from(
        t.encoder, t.texture, size=x
    ),
    "copy_from(width)": lambda t, x: ReadbackBuffer(1024, t.factory).copy_from(
        t.encoder, t.texture, size=(x, 4, 1)
    ),
    "readback(dtype)": lambda t, x: ReadbackBuffer(64, t.factory).read_array_blocking(x),
    "readback(shape)": lambda t, x: ReadbackBuffer(64, t.factory).read_array_blocking(np.uint8, x),
    "read_array(source)": lambda t, x: t.device.read_array_blocking(x),
    "read_array(dtype)": lambda t, x: t.device.read_array_blocking(t.buffer, x),
    "read_array(shape)": lambda t, x: t.device.read_array_blocking(t.buffer, np.uint8, x),
    "read_array(pixels, dtype)": lambda t, x: t.device.read_array_blocking(t.texture, x),
    "read_array(pixels, shape)": lambda t, x: t.device.read_array_blocking(t.texture, None, x),
    "read_array(pixels, shape[1])": lambda t, x: t.device.read_array_blocking(
        t.texture, None, (16, x)
    ),
    "upload(data)": lambda t, x: t.device.upload(x, t.buffer),
    "upload(target)": lambda t, x: t.device.upload(b"1234", x),
    "upload(offset)": lambda t, x: t.device.upload(b"1234", t.buffer, x),
    "upload(pixels)": lambda t, x: t.device.upload(x, t.texture),
    "belt.upload(encoder)": lambda t, x: t.belt.upload(b"1234", t.buffer, encoder=x),
    "StagingBelt(budget)": lambda t, x: StagingBelt(t.device, budget=x),
    # Encoders and queue
    "copy b2b(source)": lambda t, x: t.encoder.copy_buffer_to_buffer(x, 0, t.buffer, 0, 4),
    "copy b2b(source_offset)": lambda t, x: t.encoder.copy_buffer_to_buffer(
        t.buffer, x, t.other, 0, 4
    ),
    "copy b2b(target)": lambda t, x: t.encoder.copy_buffer_to_buffer(t.buffer, 0, x, 0, 4),
    "copy b2b(target_offset)": lambda t, x: t.encoder.copy_buffer_to_buffer(
        t.buffer, 0, t.other, x, 4
    ),
    "copy b2b(size)": lambda t, x: t.encoder.copy_buffer_to_buffer(t.buffer, 0, t.other, 0, x),
    "copy b2t(source)": lambda t, x: t.encoder.copy_buffer_to_texture(x, t.texture),
    "copy b2t(target)": lambda t, x: t.encoder.copy_buffer_to_texture(t.buffer, x),
    "copy b2t(size)": lambda t, x: t.encoder.copy_buffer_to_texture(t.buffer, t.texture, x),
    "copy b2t(offset)": lambda t, x: t.encoder.copy_buffer_to_texture(
        TexelCopyBufferInfo(t.buffer, x), t.texture
    ),
    "copy b2t(row)": lambda t, x: t.encoder.copy_buffer_to_texture(
        TexelCopyBufferInfo(t.buffer, 0, x), t.texture
    ),
    "copy b2t(rows)": lambda t, x: t.encoder.copy_buffer_to_texture(
        TexelCopyBufferInfo(t.buffer, 0, 256, x), t.texture
    ),
    "copy t2b(source)": lambda t, x: t.encoder.copy_texture_to_buffer(x, t.buffer),
    "copy t2b(place)": lambda t, x: t.encoder.copy_texture_to_buffer(
        TexelCopyTextureInfo(x), t.buffer
    ),
    "copy t2t(source)": lambda t, x: t.encoder.copy_texture_to_texture(x, t.texture),
    "clear(buffer)": lambda t, x: t.encoder.clear_buffer(x),
    "clear(offset)": lambda t, x: t.encoder.clear_buffer(t.buffer, x),
    "clear(size)": lambda t, x: t.encoder.clear_buffer(t.buffer, 0, x),
    "resolve(queries)": lambda t, x: t.encoder.resolve_query_set(x, 0, 1, t.buffer),
    "resolve(first)": lambda t, x: t.encoder.resolve_query_set(t.queries, x, 1, t.buffer),
    "resolve(count)": lambda t, x: t.encoder.resolve_query_set(t.queries, 0, x, t.buffer),
    "resolve(target)": lambda t, x: t.encoder.resolve_query_set(t.queries, 0, 1, x),
    "resolve(offset)": lambda t, x: t.encoder.resolve_query_set(t.queries, 0, 1, t.buffer, x),
    "submit": lambda t, x: t.queue.submit(x),
    "submit([])": lambda t, x: t.queue.submit([x]),
    "write_buffer(buffer)": lambda t, x: t.queue.write_buffer(x, 0, b"1234"),
    "write_buffer(offset)": lambda t, x: t.queue.write_buffer(t.buffer, x, b"1234"),
    "write_buffer(data)": lambda t, x: t.queue.write_buffer(t.buffer, 0, x),
    "write_texture(texture)": lambda t, x: t.queue.write_texture(x, np.zeros((4, 4, 4), np.uint8)),
    "write_texture(pixels)": lambda t, x: t.queue.write_texture(t.texture, x),
    # Passes
    **_of_passes(),
    "set_bind_group(index)": lambda t, x: t.drawing(lambda p: p.set_bind_group(x, t.group, [0])),
    "set_bind_group(group)": lambda t, x: t.drawing(lambda p: p.set_bind_group(0, x)),
    "set_bind_group(offsets)": lambda t, x: t.drawing(lambda p: p.set_bind_group(0, t.group, x)),
    "set_bind_group([offset])": lambda t, x: t.drawing(lambda p: p.set_bind_group(0, t.group, [x])),
    "dispatch(x)": lambda t, x: t.encoder.begin_compute_pass().dispatch_workgroups(x),
    "dispatch(z)": lambda t, x: t.encoder.begin_compute_pass().dispatch_workgroups(1, 1, x),
    "begin_render_pass(frame)": lambda t, x: t.encoder.begin_render_pass(x),
    "begin_render_pass(color)": lambda t, x: t.encoder.begin_render_pass(t.frame, clear_color=x),
    "begin_render_pass(alpha)": lambda t, x: t.encoder.begin_render_pass(
        t.frame, clear_color=(0, 0, 0, x)
    ),
    "begin_render_pass(depth)": lambda t, x: t.encoder.begin_render_pass(t.frame, clear_depth=x),
    "begin_render_pass(queries)": lambda t, x: t.encoder.begin_render_pass(
        t.frame, occlusion_queries=x
    ),
    # Making things
    **_of_fields(),
    "TextureRows(width)": lambda t, x: TextureRows(RGBA, x, 4),
    "create_texture": lambda t, x: t.device.create_texture(x),
    "create_sampler": lambda t, x: t.device.create_sampler(x),
    "create_shader_module": lambda t, x: t.device.create_shader_module(x),
    "create_render_pipeline": lambda t, x: t.device.create_render_pipeline(x),
    "create_compute_pipeline": lambda t, x: t.device.create_compute_pipeline(x),
    "create_bind_group(layout)": lambda t, x: t.device.create_bind_group(x, {0: t.buffer}),
    "create_bind_group(resources)": lambda t, x: t.device.create_bind_group(t.layout, x),
    "create_bind_group({0:})": lambda t, x: t.device.create_bind_group(t.layout, {0: x}),
    "BufferBinding(buffer)": lambda t, x: t.device.create_bind_group(
        t.layout, {0: BufferBinding(x)}
    ),
    "BufferBinding(offset)": lambda t, x: t.device.create_bind_group(
        t.layout, {0: BufferBinding(t.buffer, x, 16)}
    ),
    "BufferBinding(size)": lambda t, x: t.device.create_bind_group(
        t.layout, {0: BufferBinding(t.buffer, 0, x)}
    ),
    "BindGroupLayout": lambda t, x: BindGroupLayout(x),
    "ShaderStage": lambda t, x: BindingLayout(0, "uniform", ShaderStage.VERTEX | 1 << 9),
    "VertexLayout.from_dtype": lambda t, x: VertexLayout.from_dtype(x),
    "create_frame_buffer(width)": lambda t, x: t.device.create_frame_buffer(x, 4),
    "create_frame_buffer(formats)": lambda t, x: t.device.create_frame_buffer(4, 4, x),
    "create_frame_buffer([format])": lambda t, x: t.device.create_frame_buffer(4, 4, [x]),
    "create_frame_buffer(depth)": lambda t, x: t.device.create_frame_buffer(4, 4, depth_format=x),
    "create_frame_buffer(samples)": lambda t, x: t.device.create_frame_buffer(4, 4, sample_count=x),
    "create_query_set(kind)": lambda t, x: t.device.create_query_set(x, 1),
    "create_query_set(count)": lambda t, x: t.device.create_query_set("occlusion", x),
    "bundle(formats)": lambda t, x: t.device.create_render_bundle_encoder(x).finish(),
    "bundle([format])": lambda t, x: t.device.create_render_bundle_encoder([x]).finish(),
    "bundle(depth)": lambda t, x: t.device.create_render_bundle_encoder(
        [RGBA], depth_format=x
    ).finish(),
    "bundle(samples)": lambda t, x: t.device.create_render_bundle_encoder(
        [RGBA], sample_count=x
    ).finish(),
    "error_scope": lambda t, x: t.device.error_scope(x).__enter__(),  # type: ignore[attr-defined]
    "wait(timeout)": lambda t, x: t.queue.on_work_done().wait(x),
    "open_device(backend)": lambda t, x: pers.open_device(x),
    "open_device(features)": lambda t, x: pers.open_device(t.device.info.backend, features=x),
    "open_device(limits)": lambda t, x: pers.open_device(t.device.info.backend, limits=x),
    "open_device(limit)": lambda t, x: pers.open_device(
        t.device.info.backend, limits={"max_buffer_size": x}
    ),
}


def untyped_errors(toys: Toys, call: str) -> list[str]:
    """Make a call with all the junk; describe what was raised that is no `PersError`."""
    found = []
    for junk in JUNK:
        try:
            CALLS[call](toys, junk)
        except PersError:
            pass
        except Exception as error:
            found.append(f"{call} with {junk!r}: {type(error).__name__}: {error}")
    return found


@pytest.fixture(scope="module")
def toys() -> Iterator[Toys]:
    with open_device("null") as device:
        yield Toys(device)


@pytest.mark.parametrize("call", CALLS)
def test_only_pers_errors(call: str, toys: Toys) -> None:
    assert untyped_errors(toys, call) == []


def test_only_pers_errors_on_webgpu() -> None:
    """In a subprocess, because wgpu-native aborts on some of these when they reach it."""
    result = run_python(__file__, "webgpu")
    assert result.returncode == 0, f"{result.stdout[-500:]}\n{result.stderr[-3000:]}"
    assert result.stdout.splitlines()[-1] == f"{len(CALLS)} calls, 0 untyped errors", result.stdout


def test_untyped_errors_are_found(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CALLS, "a bad one", lambda t, x: 1 / 0)
    assert len(untyped_errors(toys, "a bad one")) == len(JUNK)


def main(backend: str) -> None:
    assert backend in BACKENDS
    found: list[str] = []
    with open_device(backend) as device:
        toys = Toys(device)
        for call in CALLS:
            print(f"making {call}", flush=True)  # the last line says where it aborted
            found += untyped_errors(toys, call)
    print("\n".join(found))
    print(f"{len(CALLS)} calls, {len(found)} untyped errors")


if __name__ == "__main__":
    main(sys.argv[1])
