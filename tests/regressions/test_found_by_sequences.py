"""Mistakes that aborted the process until `tests/misuse` found them."""

from __future__ import annotations

import pytest

import pers
from pers import BufferDesc, BufferRangeError, BufferUsage, TextureFormat


@pytest.mark.parametrize("backend", ["null", "webgpu"])
@pytest.mark.parametrize("call", ["set_index_buffer", "set_vertex_buffer"])
@pytest.mark.parametrize("where", ["pass", "bundle"])
def test_binding_an_empty_part_of_a_buffer(backend: str, call: str, where: str) -> None:
    """wgpu-native takes the size as a NonZero and panics: "invalid size"."""
    with pers.open_device(backend) as device:
        usage = BufferUsage.INDEX | BufferUsage.VERTEX
        buffer = device.buffer_factory.create_buffer(BufferDesc(64, usage, debug_name="empty"))
        if where == "pass":
            frame = device.create_frame_buffer(4, 4, [TextureFormat.RGBA8_UNORM])
            commands = device.create_command_encoder().begin_render_pass(frame)
        else:
            commands = device.create_render_bundle_encoder([TextureFormat.RGBA8_UNORM])
        arguments = (buffer, "uint32", 0, 0) if call == "set_index_buffer" else (0, buffer, 0, 0)
        with pytest.raises(BufferRangeError, match="'empty'"):
            getattr(commands, call)(*arguments)
