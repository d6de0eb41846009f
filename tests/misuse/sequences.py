"""Random sequences of calls, most of them wrong, on a real device.

Run as a program: ``python sequences.py BACKEND FIRST_SEED COUNT``. Each seed makes one sequence.
The only things a call may do are to work and to raise a `PersError`; anything else, and any native
object left over at the end, is printed as a finding. That the process does not abort or hang is
for whoever started it to see.
"""

from __future__ import annotations

import contextlib
import gc
import math
import random
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import anyio
import numpy as np

import pers
from pers import BufferDesc, BufferUsage, MapMode, PersError, TextureFormat, TextureUsage

LIKELY = [0, 0, 0, 0, 1, 4, 8, 16, 64]
NUMBERS = [0, 4, 8, 16, 64, 256, 1, 2, 3, 5, 12, 100, 1024, 4096, -1, -8]
HOSTILE = [2**31, 2**32, 2**63, 2**64, math.nan, 1.5, None, "4", b"4", [], (1, 2), object(), True]
SHADER = """
@group(0) @binding(0) var<storage, read_write> data: array<u32>;
@compute @workgroup_size(1) fn main() { data[0] = data[0] + 1u; }
@vertex fn vs_main(@builtin(vertex_index) i: u32) -> @builtin(position) vec4f {
    return vec4f(f32(i % 2u) * 4.0 - 1.0, f32(i / 2u) * 4.0 - 1.0, 0.0, 1.0);
}
@fragment fn fs_main() -> @location(0) vec4f { return vec4f(1.0); }
"""


class Sequence:
    """One random sequence of calls."""

    def __init__(self, backend: str, seed: int) -> None:
        self.random = random.Random(seed)
        self.hostility = self.random.choice([0.0, 0.02, 0.1])
        self.backend = backend
        self.things: dict[str, list[Any]] = {}
        self.calls: list[str] = []
        self.device = self.keep("device", pers.open_device(backend))
        self.make_fixtures(self.device)

    # What there is

    def keep(self, kind: str, thing: Any) -> Any:
        """Remember a thing, to be used (and misused) later."""
        self.things.setdefault(kind, []).append(thing)
        return thing

    def any_of(self, kind: str) -> Any:
        """Return a remembered thing of a kind, rarely of another kind or none at all."""
        if self.random.random() < self.hostility / 3:
            kind = self.random.choice(list(self.things))
        things = self.things.get(kind)
        if not things or self.random.random() < self.hostility / 10:
            return self.random.choice(HOSTILE)
        return self.random.choice(things)

    def number(self) -> Any:
        """Return a number, rarely something that is none."""
        if self.random.random() < self.hostility / 2:
            return self.random.choice(HOSTILE)
        return self.random.choice(NUMBERS if self.random.random() < 4 * self.hostility else LIKELY)

    def some_number(self) -> Any:
        """Return a number or None."""
        return None if self.random.random() < 0.7 else self.number()

    def data(self) -> Any:
        """Return something to write."""
        size = self.random.choice([0, 4, 8, 16, 64, 256, 3])
        return self.random.choice(
            [bytes(size), np.arange(size, dtype=np.uint8), np.ones(size // 4, np.float32)]
            + ([None, "text", np.array([object()])] if self.random.random() < 0.1 else [])
        )

    def make_fixtures(self, device: Any) -> None:
        """Make valid objects of every kind."""
        shader = self.keep("shader", device.create_shader_module(SHADER))
        layout = self.keep(
            "layout",
            pers.BindGroupLayout([pers.BindingLayout(0, "storage", pers.ShaderStage.COMPUTE)]),
        )
        self.keep(
            "pipeline",
            device.create_compute_pipeline(pers.ComputePipelineDescriptor(shader, [layout])),
        )
        self.keep(
            "pipeline",
            device.create_render_pipeline(
                pers.RenderPipelineDescriptor(shader, [pers.ColorTarget(TextureFormat.RGBA8_UNORM)])
            ),
        )
        self.keep(
            "frame", device.create_frame_buffer(4, 4, [TextureFormat.RGBA8_UNORM], label="frame")
        )
        self.keep(
            "frame", device.create_frame_buffer(4, 4, depth_format=TextureFormat.DEPTH16_UNORM)
        )
        self.keep("queries", device.create_query_set("occlusion", 2))
        usage = BufferUsage((1 << 10) - 1) & ~(BufferUsage.MAP_READ | BufferUsage.MAP_WRITE)
        factory = device.buffer_factory
        self.keep("buffer", factory.create_buffer(BufferDesc(256, usage, debug_name="all")))
        for flags in (
            BufferUsage.MAP_READ | BufferUsage.COPY_DST,
            BufferUsage.MAP_WRITE | BufferUsage.COPY_SRC,
        ):
            mappable = factory.create_mappable_buffer(BufferDesc(256, flags, debug_name="map"))
            self.keep("mappable", self.keep("buffer", mappable))
        self.keep("texture", device.create_texture(self.texture_descriptor()))

    def texture_descriptor(self) -> Any:
        return pers.TextureDescriptor(
            4,
            self.random.choice([1, 4, 5]),
            TextureFormat.RGBA8_UNORM,
            TextureUsage.COPY_SRC | TextureUsage.COPY_DST | TextureUsage.TEXTURE_BINDING,
        )

    # Calls

    def call(self, name: str, function: Callable[[], Any]) -> Any:
        """Make a call, which may work or raise a PersError."""
        self.calls.append(name)
        try:
            return function()
        except PersError as error:
            self.calls[-1] += f" -> {type(error).__name__}"
            return None

    def step(self) -> None:
        """Make one random call."""
        name = self.random.choice(STEPS)
        getattr(self, name)()

    def create_buffer(self) -> None:
        def make() -> Any:
            usage = BufferUsage(self.random.getrandbits(10) & ~self.random.choice([0, 0xC0]))
            desc = BufferDesc(self.number(), usage, mapped_at_creation=self.random.random() < 0.3)
            factory = self.any_of("device").buffer_factory
            if self.random.random() < 0.5:
                return factory.create_buffer(desc)
            return self.keep("mappable", factory.create_mappable_buffer(desc))

        buffer = self.call("create_buffer", lambda: self.on(pers.IRenderDevice, make))
        if buffer is not None:
            self.keep("buffer", buffer)

    def on(self, kind: type, make: Callable[[], Any]) -> Any:
        """Call `make`, taking it as a refusal when it picked a thing that has no such method."""
        try:
            return make()
        except AttributeError as error:
            if isinstance(error.obj, kind):
                raise
            return None

    def method(self, kind: str, name: str, *arguments: Callable[[], Any], keep: str = "") -> None:
        """Call a method of a remembered thing; nothing happens when there is none."""
        things = self.things.get(kind)
        if not things:
            return
        thing = self.random.choice(things)
        given = [argument() for argument in arguments]
        result = self.call(f"{kind}.{name}", lambda: getattr(thing, name)(*given))
        if keep and result is not None:
            self.keep(keep, result)

    def map_blocking(self) -> None:
        mode = self.random.choice([*MapMode, MapMode(3), 7, "READ", None])
        self.method("mappable", "map", lambda: mode, self.number, self.some_number, keep="range")

    def map_with_timeout(self) -> None:
        things = self.things["mappable"]
        buffer = self.random.choice(things)
        mode = self.random.choice([MapMode.READ, MapMode.WRITE, MapMode.NONE])
        seconds = self.random.choice([0, 0, 0.0005, 1])

        async def go() -> Any:
            with anyio.move_on_after(seconds):
                return await buffer.map_async(mode, 0, None)

        loop = self.random.choice(["asyncio", "trio"])
        mapped = self.call("mappable.map_async", lambda: anyio.run(go, backend=loop))
        if mapped is not None:
            self.keep("range", mapped)

    def unmap(self) -> None:
        self.method("mappable", "unmap")

    def mapped_range(self) -> None:
        self.method("mappable", "mapped_range", self.number, self.some_number, keep="range")

    def mapped_data(self) -> None:
        buffer = self.random.choice(self.things["mappable"])
        self.call("mappable.mapped_data", lambda: self.keep("range", buffer.mapped_data))

    def as_array(self) -> None:
        dtype = self.random.choice([np.uint8, np.float32, np.float64, object, "nonsense"])
        self.method("range", "as_array", lambda: dtype, self.some_number, keep="array")

    def use_array(self) -> None:
        for array in self.things.get("array", []):
            array.sum()
            if array.flags.writeable:
                array[...] = 7

    def drop_arrays(self) -> None:
        self.things.pop("array", None)

    def range_write(self) -> None:
        self.method("range", "write", self.data, self.number)

    def range_read(self) -> None:
        self.method("range", "read", self.number, self.some_number)

    def destroy(self) -> None:
        if self.random.random() < 0.3:
            self.method(self.random.choice(["buffer", "texture", "queries", "frame"]), "destroy")

    def drop(self) -> None:
        if self.random.random() < 0.3:
            kind = self.random.choice(list(self.things))
            if kind not in ("device", "layout", "mappable") and self.things[kind]:
                self.things[kind].pop(self.random.randrange(len(self.things[kind])))
            if self.random.random() < 0.2:
                gc.collect()

    def encoder(self) -> None:
        self.method("device", "create_command_encoder", keep="encoder")

    def copy(self) -> None:
        self.method(
            "encoder",
            "copy_buffer_to_buffer",
            lambda: self.any_of("buffer"),
            self.number,
            lambda: self.any_of("buffer"),
            self.number,
            self.some_number,
        )

    def copy_texture(self) -> None:
        places = [lambda: self.any_of("texture"), lambda: self.any_of("buffer")]
        name = self.random.choice(["copy_texture_to_buffer", "copy_texture_to_texture"])
        self.method("encoder", name, *places)
        self.method("encoder", "copy_buffer_to_texture", *reversed(places))

    def clear(self) -> None:
        self.method(
            "encoder", "clear_buffer", lambda: self.any_of("buffer"), self.number, self.some_number
        )

    def resolve(self) -> None:
        self.method(
            "encoder",
            "resolve_query_set",
            lambda: self.any_of("queries"),
            self.number,
            self.number,
            lambda: self.any_of("buffer"),
            self.number,
        )

    def render_pass(self) -> None:
        things = self.things.get("encoder")
        if not things:
            return
        encoder = self.random.choice(things)
        queries = self.random.choice([None, self.any_of("queries")])
        began = self.call(
            "encoder.begin_render_pass",
            lambda: encoder.begin_render_pass(self.any_of("frame"), occlusion_queries=queries),
        )
        if began is not None:
            self.keep("pass", began)

    def bundle_encoder(self) -> None:
        formats = self.random.choice([[TextureFormat.RGBA8_UNORM], [], ["nope"], None])
        self.method(
            "device", "create_render_bundle_encoder", lambda: formats, keep="bundle_encoder"
        )

    def bundle_finish(self) -> None:
        self.method("bundle_encoder", "finish", keep="bundle")

    def execute_bundles(self) -> None:
        self.method("pass", "execute_bundles", lambda: [self.any_of("bundle")])

    def compute_pass(self) -> None:
        self.method("encoder", "begin_compute_pass", keep="compute")

    def dispatch(self) -> None:
        self.method("compute", "set_pipeline", lambda: self.any_of("pipeline"))
        self.set_bind_group("compute")
        self.method("compute", "dispatch_workgroups", self.number)
        self.method(
            "compute",
            "dispatch_workgroups_indirect",
            lambda: self.any_of("buffer"),
            self.number,
        )

    def bind_group(self) -> None:
        layout = self.random.choice(self.things["layout"])
        resource = self.random.choice([self.any_of("buffer"), self.any_of("texture")])
        self.method(
            "device", "create_bind_group", lambda: layout, lambda: {0: resource}, keep="group"
        )

    def set_bind_group(self, kind: str) -> None:
        wrong = self.random.random() < 5 * self.hostility
        index = self.random.choice([0, 1, 7, -1, 99, None] if wrong else [0])
        offsets = self.random.choice([(), (0,), (256,), (3,), 5, ("x",)] if wrong else [()])
        self.method(
            kind, "set_bind_group", lambda: index, lambda: self.any_of("group"), lambda: offsets
        )

    def draw(self) -> None:
        kind = self.random.choice(["pass", "bundle_encoder"])
        self.method(kind, "set_pipeline", lambda: self.any_of("pipeline"))
        if self.random.random() < 0.3:
            self.set_bind_group(kind)
        buffer = lambda: self.any_of("buffer")  # noqa: E731
        self.method(kind, "set_vertex_buffer", self.number, buffer, self.number, self.some_number)
        self.method(kind, "draw", self.number, self.number, self.number, self.number)
        if self.random.random() < 0.3:
            index_format = self.random.choice(["uint16", "uint32", "uint8", None])
            self.method(kind, "set_index_buffer", buffer, lambda: index_format, self.number)
            self.method(kind, "draw_indexed", self.number)
            self.method(kind, "draw_indirect", buffer, self.number)
            self.method(kind, "draw_indexed_indirect", buffer, self.number)
            self.method("pass", "multi_draw_indirect", buffer, self.number, self.number)
            self.method("pass", "multi_draw_indexed_indirect", buffer, self.number, self.number)

    def draw_many(self) -> None:
        things = self.things.get(self.random.choice(["pass", "bundle_encoder"]))
        if not things:
            return
        call = getattr(things[-1], self.random.choice(["draw_many", "draw_indexed_many"]))
        draws = self.table(self.random.choice([1, 2, 3, 4, 5, 6]))
        options = {
            "bind_group": self.random.choice([None, self.any_of("group")]),
            "dynamic_offsets": self.random.choice([None, self.table(1), self.table(2)]),
            "group_index": self.random.choice([0, 0, 0, self.number()]),
        }
        self.call(call.__name__, lambda: call(draws, **options))

    def table(self, columns: int) -> Any:
        """Return rows of numbers, rarely ones that are none."""
        rows = [
            [self.number() for _ in range(columns)] for _ in range(self.random.choice([0, 1, 2]))
        ]
        return self.random.choice([rows, [row[0] for row in rows], self.number()])

    def pass_state(self) -> None:
        self.method("pass", "set_viewport", *[self.number] * 6)
        self.method("pass", "set_scissor_rect", *[self.number] * 4)
        self.method("pass", "begin_occlusion_query", self.number)
        self.method("pass", "end_occlusion_query")

    def end_pass(self) -> None:
        self.method(self.random.choice(["pass", "compute"]), "end")

    def finish(self) -> None:
        self.method("encoder", "finish", keep="commands")

    def submit(self) -> None:
        commands = [self.any_of("commands") for _ in range(self.random.choice([0, 1, 1, 2]))]
        device = self.random.choice(self.things["device"])
        submission = self.call("queue.submit", lambda: device.queue.submit(commands))
        if submission is not None:
            self.keep("submission", submission)

    def wait(self) -> None:
        self.method("submission", "wait", lambda: self.random.choice([None, 0, 0.001, 5]))

    def write_buffer(self) -> None:
        device = self.random.choice(self.things["device"])
        buffer, offset, data = self.any_of("buffer"), self.number(), self.data()
        self.call("queue.write_buffer", lambda: device.queue.write_buffer(buffer, offset, data))

    def write_texture(self) -> None:
        device = self.random.choice(self.things["device"])
        shape = self.random.choice(
            [(4, 4, 4), (1, 4, 4), (9, 9, 4), (4, 4), (0, 4, 4), (2, 4, 4, 4)]
        )
        texture = self.any_of("texture")
        self.call(
            "queue.write_texture",
            lambda: device.queue.write_texture(texture, np.zeros(shape, np.uint8)),
        )

    def upload(self) -> None:
        target = self.random.choice([self.any_of("buffer"), self.any_of("texture")])
        self.method("device", "upload", self.data, lambda: target, self.number)

    def read_array(self) -> None:
        source = self.random.choice([self.any_of("buffer"), self.any_of("texture")])
        dtype = self.random.choice([None, np.uint8, np.float32, object])
        self.method(
            "device", "read_array_blocking", lambda: source, lambda: dtype, self.some_number,
            keep="array",
        )  # fmt: skip

    def five_buffers(self) -> None:
        classes = {
            "dynamic": pers.DynamicBuffer,
            "readback": pers.ReadbackBuffer,
            "immediate": pers.ImmediateStagingBuffer,
            "deferred": pers.DeferredStagingBuffer,
        }
        kind = self.random.choice(list(classes))
        factory = self.random.choice(self.things["device"]).buffer_factory
        size = self.number()
        made = self.call(f"{kind}()", lambda: classes[kind](size, factory))
        if made is not None:
            self.keep("buffer", self.keep(kind, made))

    def use_dynamic(self) -> None:
        if rings := self.things.get("dynamic"):
            ring = self.random.choice(rings)

            def update() -> None:
                with ring.begin_update() as frame:
                    frame.push(self.data())
                    frame.as_array(np.uint8, self.number())

            self.call("dynamic.begin_update", update)

    def use_staging(self) -> None:
        if stagings := self.things.get("deferred"):
            staging = self.random.choice(stagings)

            def fill() -> None:
                with staging.map(self.number()) as mapped:
                    self.keep("range", mapped)
                    mapped.write(self.data())

            self.call("deferred.map", fill)
        target = self.random.choice([self.any_of("buffer"), self.any_of("texture")])
        kind = self.random.choice(["immediate", "deferred"])
        self.method(kind, "write", self.data, self.number)
        self.method(kind, "as_array", keep="array")
        self.method(kind, "upload_to", lambda: self.any_of("encoder"), lambda: target, self.number)

    def use_readback(self) -> None:
        source = self.random.choice([self.any_of("buffer"), self.any_of("texture")])
        self.method(
            "readback", "copy_from", lambda: self.any_of("encoder"), lambda: source, self.number
        )
        self.method("readback", "read_array_blocking", lambda: np.uint8, keep="array")

    def another_device(self) -> None:
        if self.random.random() < 0.03 and len(self.things["device"]) < 3:
            self.make_fixtures(self.keep("device", pers.open_device(self.backend)))

    def lose_device(self) -> None:
        if self.random.random() < 0.015:
            device = self.random.choice(self.things["device"])
            if self.backend == "webgpu" and self.random.random() < 0.5:
                self.call("native destroy", device.native_handle.destroy)
            else:
                self.call("close", device.close)

    def end(self) -> None:
        """Close the devices, then drop everything else."""
        for device in self.things["device"]:
            device.close()
        self.use_array()
        for things in self.things.values():
            things.clear()


STEPS = [
    name
    for name, value in vars(Sequence).items()
    if not name.startswith("_")
    and callable(value)
    and name
    not in {
        "keep", "any_of", "number", "some_number", "data", "make_fixtures", "texture_descriptor",
        "call", "step", "on", "method", "set_bind_group", "end", "table",
    }
]  # fmt: skip


LEAKED_BY_THE_LIBRARY = ("CommandBuffer", "ShaderModule", "total")
"""wgpu-native keeps command buffers that are never submitted, and shaders that do not compile."""


def leftovers(backend: str) -> dict[str, int]:
    """Count the native objects that nothing should hold any more."""
    if backend != "webgpu":
        return {}
    import wgpu

    for _ in range(30):  # the polling thread lets go of its device after a second of idleness
        gc.collect()
        left = {
            name: each["count"]
            for name, each in wgpu.diagnostics.object_counts.get_dict().items()
            if each.get("count")
        }
        # pers holds most native objects without an object of wgpu-py.
        native = wgpu.diagnostics.get_dict().get("wgpu_native_counts", {})
        left |= {
            f"native {name}": each["count"]
            for name, each in native.items()
            if each["count"] and name not in LEAKED_BY_THE_LIBRARY
        }
        if not left:
            break
        time.sleep(0.1)
    return left


def main() -> int:
    """Run the sequences; return how many findings there were."""
    backend, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    findings = 0
    calls = 0
    for seed in range(first, first + count):
        print(f"seed {seed}", flush=True)
        sequence = Sequence(backend, seed)
        try:
            for _ in range(sequence.random.randrange(40, 160)):
                sequence.step()
            sequence.end()
        except Exception:
            findings += 1
            print(f"FINDING in seed {seed} after {sequence.calls[-5:]}")
            traceback.print_exc(file=sys.stdout)
            with contextlib.suppress(PersError):
                sequence.end()
        calls += len(sequence.calls)
        del sequence
        gc.collect()
    left = leftovers(backend)
    if left:
        findings += 1
        print(f"FINDING: native objects left over: {left}")
    print(f"{count} sequences, {calls} calls, {findings} findings")
    return min(findings, 1)


if __name__ == "__main__":
    sys.exit(main())
