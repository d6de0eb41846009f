"""wgpu-py without pers: a device of its own on the same adapter, and the best roads it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import wgpu
from wgpu.backends import wgpu_native
from wgpu.backends.wgpu_native import extras

from benchmarks.payload import Payload
from benchmarks.peers import PeerMissingError

__all__ = ["BufferReader", "RawWgpu"]

USAGES = {
    "target": wgpu.BufferUsage.STORAGE | wgpu.BufferUsage.COPY_SRC | wgpu.BufferUsage.COPY_DST,
    "mapped target": wgpu.BufferUsage.STORAGE
    | wgpu.BufferUsage.COPY_SRC
    | wgpu.BufferUsage.MAP_WRITE,
    "write": wgpu.BufferUsage.MAP_WRITE | wgpu.BufferUsage.COPY_SRC,
    "read": wgpu.BufferUsage.MAP_READ | wgpu.BufferUsage.COPY_DST,
    "uniform": wgpu.BufferUsage.UNIFORM | wgpu.BufferUsage.COPY_DST,
    "mapped uniform": wgpu.BufferUsage.UNIFORM | wgpu.BufferUsage.MAP_WRITE,
    "vertex": wgpu.BufferUsage.VERTEX | wgpu.BufferUsage.COPY_DST,
    "indirect": wgpu.BufferUsage.INDIRECT | wgpu.BufferUsage.COPY_DST,
}


class RawWgpu:
    """A `wgpu.GPUDevice` and short words for what the contenders do with it."""

    lib: Any = wgpu_native.lib
    """The C functions."""
    ffi: Any = wgpu_native.ffi

    def __init__(self, pers_gpu: Any) -> None:
        """Open a second device beside that of pers, with the same features and limits.

        Args:
            pers_gpu: The `wgpu.GPUDevice` of the pers device.

        Raises:
            PeerMissingError: The pers device is not on wgpu.
        """
        if not isinstance(pers_gpu, wgpu.GPUDevice):
            raise PeerMissingError("the pers device is not on wgpu, so there is nothing to compare")
        self.gpu: Any = pers_gpu.adapter.request_device_sync(
            required_features=sorted(pers_gpu.features)
        )
        self.queue: Any = self.gpu.queue
        self.description = f"{self.gpu.adapter.info['device']}, a device of its own"
        self._reader = BufferReader(self.gpu)

    @property
    def features(self) -> frozenset[str]:
        """The features that are on."""
        return frozenset(map(str, self.gpu.features))

    @property
    def uniform_alignment(self) -> int:
        """What dynamic offsets are multiples of (bytes)."""
        return int(self.gpu.limits["min-uniform-buffer-offset-alignment"])

    def buffer(self, size: int, usage: str, *, mapped: bool = False) -> Any:
        """Make a buffer; `usage` is a key of `USAGES`."""
        return self.gpu.create_buffer(size=size, usage=USAGES[usage], mapped_at_creation=mapped)

    def buffer_with(self, data: npt.NDArray[Any], usage: str) -> Any:
        """Make a buffer with `data` in it."""
        return self.gpu.create_buffer_with_data(data=data, usage=USAGES[usage])

    def copy(self, source: Any, target: Any, places: Sequence[tuple[int, int, int]]) -> None:
        """Submit copies of (source offset, target offset, bytes)."""
        encoder = self.gpu.create_command_encoder()
        for start, goal, nbytes in places:
            encoder.copy_buffer_to_buffer(source, start, target, goal, nbytes)
        self.queue.submit([encoder.finish()])

    def wait(self) -> None:
        """Block until everything is done, by the shortest way there is."""
        self.gpu._poll_wait()

    def flush(self) -> None:
        """Have queue writes executed, and wait."""
        self.queue.submit([])
        self.wait()

    def check(self, buffer: Any, payload: Payload) -> None:
        """Compare a buffer with what it should hold."""
        self._reader.check(buffer, payload)

    def multi_draw_indirect(self, render_pass: Any, buffer: Any, count: int) -> None:
        """Do indirect draws, 16 bytes of arguments each."""
        extras.multi_draw_indirect(render_pass, buffer, offset=0, count=count)

    def texture(self, width: int, height: int, texture_format: str) -> Any:
        """Make a texture to draw to and to read."""
        return self.gpu.create_texture(
            size=(width, height, 1),
            format=texture_format,
            usage=wgpu.TextureUsage.RENDER_ATTACHMENT | wgpu.TextureUsage.COPY_SRC,
        )

    def read_pixels(self, texture: Any, dtype: npt.DTypeLike, channels: int) -> npt.NDArray[Any]:
        """Read a texture, shape (height, width, channels)."""
        width, height, _ = texture.size
        row = width * channels * np.dtype(dtype).itemsize
        data = self.queue.read_texture(
            {"texture": texture, "origin": (0, 0, 0)},
            {"bytes_per_row": row, "rows_per_image": height},
            (width, height, 1),
        )
        return np.frombuffer(data, dtype).reshape(height, width, channels)

    def pipeline(
        self,
        code: str,
        texture_format: str,
        *,
        uniform: int = 0,
        stage: str = "VERTEX",
        dynamic: bool = False,
        attributes: int = 0,
        adds: bool = False,
    ) -> tuple[Any, Any]:
        """Make a render pipeline; return it and its bind group layout.

        Args:
            code: WGSL.
            texture_format: Of the colour target.
            uniform: Bytes of the uniform in group 0; 0 means that there is none.
            stage: The one stage that reads it.
            dynamic: Whether it has a dynamic offset.
            attributes: How many vec4f come with each instance.
            adds: Whether colours are added to what is there.
        """
        shader = self.gpu.create_shader_module(code=code)
        stages = wgpu.ShaderStage[stage]
        binding = {"type": "uniform", "has_dynamic_offset": dynamic, "min_binding_size": uniform}
        group_layout = self.gpu.create_bind_group_layout(
            entries=[{"binding": 0, "visibility": stages, "buffer": binding}] if uniform else []
        )
        layout = self.gpu.create_pipeline_layout(
            bind_group_layouts=[group_layout] if uniform else []
        )
        instances = {
            "array_stride": 16 * attributes,
            "step_mode": "instance",
            "attributes": [
                {"format": "float32x4", "offset": 16 * number, "shader_location": number}
                for number in range(attributes)
            ],
        }
        target: dict[str, Any] = {"format": texture_format}
        if adds:
            add = {"src_factor": "one", "dst_factor": "one", "operation": "add"}
            target["blend"] = {"color": add, "alpha": add}
        pipeline = self.gpu.create_render_pipeline(
            layout=layout,
            vertex={
                "module": shader,
                "entry_point": "vs_main",
                "buffers": [instances] if attributes else [],
            },
            primitive={"topology": "triangle-list"},
            fragment={"module": shader, "entry_point": "fs_main", "targets": [target]},
        )
        return pipeline, group_layout

    def group(self, layout: Any, buffer: Any, size: int, offset: int = 0) -> Any:
        """Bind a part of a buffer to binding 0."""
        resource = {"buffer": buffer, "offset": offset, "size": size}
        return self.gpu.create_bind_group(
            layout=layout, entries=[{"binding": 0, "resource": resource}]
        )

    def begin_pass(self, encoder: Any, view: Any, *, clear: bool = True) -> Any:
        """Begin a render pass that clears to opaque black, or keeps what is there."""
        return encoder.begin_render_pass(
            color_attachments=[
                {
                    "view": view,
                    "load_op": "clear" if clear else "load",
                    "store_op": "store",
                    "clear_value": (0, 0, 0, 1),
                }
            ]
        )

    def close(self) -> None:
        """Give the device back."""
        self.gpu.destroy()


class BufferReader:
    """Compares buffers of a wgpu device through one mapped buffer that is used again."""

    def __init__(self, gpu: Any) -> None:
        self._gpu = gpu
        self._staging: Any = None

    def check(self, buffer: Any, payload: Payload) -> None:
        """Raise `WrongContentError` unless a buffer starts with what `payload` holds."""
        nbytes = payload.nbytes
        if self._staging is None or not nbytes <= self._staging.size <= 4 * nbytes:
            self._staging = self._gpu.create_buffer(size=nbytes, usage=USAGES["read"])
        encoder = self._gpu.create_command_encoder()
        encoder.copy_buffer_to_buffer(buffer, 0, self._staging, 0, nbytes)
        self._gpu.queue.submit([encoder.finish()])
        self._staging.map_sync(wgpu.MapMode.READ)
        try:
            payload.check(self._staging.read_mapped(0, nbytes, copy=False))
        finally:
            self._staging.unmap()
