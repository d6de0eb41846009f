"""The draws of moderngl."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.peers.moderngl_peer import ModernGL
from benchmarks.scene import (
    FLOATS,
    GLSL_FRAGMENT,
    GLSL_INSTANCED,
    GLSL_UNIFORM,
    RECORD_BYTES,
    Scene,
)

__all__ = ["ModernGLDraws"]


class ModernGLDraws:
    """A scene in an OpenGL context, in every mode."""

    def __init__(self, peer: ModernGL, scene: Scene) -> None:
        self._scene, self._context = scene, peer.context
        context = self._context
        texture = context.texture((scene.width, scene.height), 4)
        self._frame = context.framebuffer(color_attachments=[texture])
        uniform = context.program(vertex_shader=GLSL_UNIFORM, fragment_shader=GLSL_FRAGMENT)
        instanced = context.program(vertex_shader=GLSL_INSTANCED, fragment_shader=GLSL_FRAGMENT)
        self._packed = np.zeros((scene.objects, FLOATS), np.float32)
        self._instances = context.buffer(reserve=self._packed.nbytes, dynamic=True)
        self._object = uniform["object"]
        self._one = context.vertex_array(uniform, [])
        self._many = context.vertex_array(
            instanced, [(self._instances, "4f 4f /i", "place", "color")]
        )
        arguments = np.zeros((scene.objects, 5), np.uint32)
        arguments[:, :2] = 3, 1
        arguments[:, 3] = np.arange(scene.objects)
        self._arguments = context.buffer(arguments.tobytes())

    def frames(self) -> dict[str, Callable[[], None]]:
        """Return what draws a whole frame, by the mode's name."""
        found = {"uniform + render": self._by_loop, "instancing": self._by_instances}
        if self._context.version_code >= 430:
            found["render_indirect"] = self._by_indirect_draws
        return found

    def check(self) -> None:
        """Compare the picture."""
        pixels = np.frombuffer(self._frame.read(components=4), np.uint8)
        self._scene.check(pixels.reshape(self._scene.height, self._scene.width, 4)[::-1])

    def _by_loop(self) -> None:
        self._clear()
        self._scene.fill(self._packed)
        data = memoryview(self._packed.view(np.uint8).data).cast("B")
        write, render = self._object.write, self._one.render
        for start in range(0, RECORD_BYTES * self._scene.objects, RECORD_BYTES):
            write(data[start : start + RECORD_BYTES])
            render(vertices=3)
        self._context.finish()

    def _by_instances(self) -> None:
        self._clear()
        self._write_instances()
        self._many.render(vertices=3, instances=self._scene.objects)
        self._context.finish()

    def _by_indirect_draws(self) -> None:
        self._clear()
        self._write_instances()
        self._many.render_indirect(self._arguments, count=self._scene.objects)
        self._context.finish()

    def _write_instances(self) -> None:
        self._scene.fill(self._packed)
        self._instances.write(self._packed)

    def _clear(self) -> None:
        self._frame.use()
        self._frame.clear(0.0, 0.0, 0.0, 1.0)
