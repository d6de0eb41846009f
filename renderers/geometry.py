"""Meshes on the GPU."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import numpy as np

from pers import (
    BufferUsage,
    DeviceBuffer,
    ImmediateStagingBuffer,
    IRenderCommands,
    IRenderDevice,
)
from renderers.meshes import Mesh

__all__ = ["Geometry"]


@attrs.frozen
class _Part:
    """Where a mesh is in the buffers."""

    index_count: int
    first_index: int
    base_vertex: int


class Geometry:
    """Several meshes in one vertex and one index buffer, uploaded once."""

    def __init__(self, device: IRenderDevice, meshes: Sequence[Mesh]) -> None:
        """Upload the meshes through one staging buffer, which is dropped afterwards.

        Args:
            device: Where to upload to.
            meshes: What to upload.
        """
        vertices = np.concatenate([mesh.vertices for mesh in meshes])
        indices = np.concatenate([mesh.indices for mesh in meshes])
        self.bytes_moved = vertices.nbytes + indices.nbytes
        """Bytes that went through the staging buffer."""

        factory = device.buffer_factory
        self._vertices = DeviceBuffer(
            vertices.nbytes, factory, usage=BufferUsage.VERTEX, debug_name="mesh vertices"
        )
        self._indices = DeviceBuffer(
            indices.nbytes, factory, usage=BufferUsage.INDEX, debug_name="mesh indices"
        )
        encoder = device.create_command_encoder("upload meshes")
        with ImmediateStagingBuffer(self.bytes_moved, factory, debug_name="meshes") as staging:
            staging.write(vertices)
            staging.write(indices, vertices.nbytes)
            staging.upload_to(encoder, self._vertices, size=vertices.nbytes)
            staging.upload_to(encoder, self._indices, source_offset=vertices.nbytes)
            device.queue.submit([encoder.finish()])

        self._parts: list[_Part] = []
        first_index = base_vertex = 0
        for mesh in meshes:
            self._parts.append(_Part(len(mesh.indices), first_index, base_vertex))
            first_index += len(mesh.indices)
            base_vertex += len(mesh.vertices)

    def triangles(self, counts: Sequence[int]) -> int:
        """Return how many triangles `draw` draws."""
        parts = zip(self._parts, counts, strict=True)
        return sum(part.index_count // 3 * count for part, count in parts)

    def draw(self, commands: IRenderCommands, counts: Sequence[int]) -> None:
        """Draw many instances of every mesh, with one call for each.

        Args:
            commands: A render pass with a pipeline and the instances (slot 1) set.
            counts: How many instances of each mesh; they follow one another in the buffer.
        """
        commands.set_vertex_buffer(0, self._vertices)
        commands.set_index_buffer(self._indices)
        first_instance = 0
        for part, count in zip(self._parts, counts, strict=True):
            if count:
                commands.draw_indexed(
                    part.index_count, count, part.first_index, part.base_vertex, first_instance
                )
            first_instance += count

    def close(self) -> None:
        """Give the memory back; legal any number of times."""
        self._vertices.destroy()
        self._indices.destroy()
