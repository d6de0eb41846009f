"""Uses everything from a finalizer, when all of it is garbage already.

Run as a program: ``python finalizers.py BACKEND``. The finalizers of a garbage cycle run in any
order, so native objects may be gone by the time somebody else's finalizer uses them. What is said
then does not matter much; that the process does not abort is for whoever started it to see.
"""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Callable
from typing import Any

import pers
from pers import BufferDesc, BufferUsage, PersError, TextureFormat, TextureUsage

RGBA = TextureFormat.RGBA8_UNORM
SHADER = """
@vertex fn vs_main() -> @builtin(position) vec4f { return vec4f(0.0); }
@fragment fn fs_main() -> @location(0) vec4f { return vec4f(1.0); }
"""
LAYOUT = pers.BindGroupLayout(
    [
        pers.BindingLayout(0, "uniform", dynamic_offset=True, min_size=16),
        pers.BindingLayout(1, "texture"),
    ]
)


class Late:
    """Calls everything when it is collected."""

    def __init__(self, things: dict[str, Any], called: list[str]) -> None:
        self.things = things
        self.called = called

    def __del__(self) -> None:
        for name, call in calls(self.things).items():
            with contextlib.suppress(PersError, TypeError):
                call()
            self.called.append(name)


def calls(t: dict[str, Any]) -> dict[str, Callable[[], object]]:
    device, drawing, encoder = t["device"], t["pass"], t["encoder"]
    return {
        "draw": lambda: drawing.draw(3),
        "draw_indexed": lambda: drawing.draw_indexed(3),
        "draw_many": lambda: drawing.draw_many([3], bind_group=t["group"], dynamic_offsets=[0]),
        "set_bind_group": lambda: drawing.set_bind_group(0, t["group"], [0]),
        "set_pipeline": lambda: drawing.set_pipeline(t["pipeline"]),
        "set_vertex_buffer": lambda: drawing.set_vertex_buffer(0, t["buffer"]),
        "set_index_buffer": lambda: drawing.set_index_buffer(t["buffer"]),
        "set_scissor_rect": lambda: drawing.set_scissor_rect(0, 0, 1, 1),
        "execute_bundles": lambda: drawing.execute_bundles([t["bundle"]]),
        "multi_draw_indirect": lambda: drawing.multi_draw_indirect(t["buffer"], 0, 1),
        "multi_draw_indexed_indirect": lambda: drawing.multi_draw_indexed_indirect(
            t["buffer"], 0, 1
        ),
        "end": drawing.end,
        "copy_buffer": lambda: encoder.copy_buffer_to_buffer(t["buffer"], 0, t["other"], 0, 4),
        "clear_buffer": lambda: encoder.clear_buffer(t["buffer"]),
        "copy_texture": lambda: encoder.copy_texture_to_buffer(t["texture"], t["other"]),
        "render": lambda: encoder.begin_render_pass(t["frame"]).end(),
        "compute": lambda: encoder.begin_compute_pass().end(),
        "finish": encoder.finish,
        "submit": lambda: device.queue.submit([t["commands"]]),
        "write": lambda: device.queue.write_buffer(t["buffer"], 0, b"1234"),
        "bind": lambda: device.create_bind_group(LAYOUT, {0: t["buffer"], 1: t["texture"]}),
        "map": lambda: t["mappable"].map(),
        "unmap": lambda: t["mappable"].unmap(),
        "read": lambda: device.read_array_blocking(t["other"]),
        "make": lambda: device.buffer_factory.create_buffer(BufferDesc(4, BufferUsage.VERTEX)),
        "encode": lambda: device.create_command_encoder().finish(),
        "destroy": lambda: [t[name].destroy() for name in ("buffer", "texture", "mappable")],
        "close": device.close,
    }


def make_things(backend: str) -> dict[str, Any]:
    device = pers.open_device(backend)
    factory = device.buffer_factory
    usage = BufferUsage((1 << 10) - 1) & ~(BufferUsage.MAP_READ | BufferUsage.MAP_WRITE)
    staging = BufferUsage.MAP_WRITE | BufferUsage.COPY_SRC
    t: dict[str, Any] = {"device": device}
    t["buffer"] = factory.create_buffer(BufferDesc(1024, usage))
    t["other"] = factory.create_buffer(BufferDesc(1024, usage))
    t["mappable"] = factory.create_mappable_buffer(BufferDesc(64, staging))
    t["texture"] = device.create_texture(pers.TextureDescriptor(4, 4, RGBA, TextureUsage(31)))
    t["group"] = device.create_bind_group(LAYOUT, {0: t["buffer"], 1: t["texture"]})
    shader = device.create_shader_module(SHADER)
    t["pipeline"] = device.create_render_pipeline(
        pers.RenderPipelineDescriptor(shader, [pers.ColorTarget(RGBA)])
    )
    t["frame"] = device.create_frame_buffer(4, 4, [RGBA])
    t["bundle"] = device.create_render_bundle_encoder([RGBA]).finish()
    encoder = device.create_command_encoder()
    encoder.begin_render_pass(t["frame"]).end()
    t["commands"] = encoder.finish()
    t["encoder"] = device.create_command_encoder()
    t["pass"] = t["encoder"].begin_render_pass(t["frame"])
    return t


def main() -> None:
    for late_first in (True, False):
        called: list[str] = []
        gc.disable()
        things: dict[str, Any] = {}
        if late_first:
            things["late"] = Late(things, called)
        things.update(make_things(sys.argv[1]))
        if not late_first:
            things["late"] = Late(things, called)
        for thing in list(things.values()):
            thing.cycle = things
        expected = len(calls(things))
        del things, thing
        gc.collect()
        print(f"{len(called)} of {expected} calls")


if __name__ == "__main__":
    main()
