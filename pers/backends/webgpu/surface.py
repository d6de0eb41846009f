"""Drawing to windows of rendercanvas."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, get_args

import wgpu

from pers._checks import whole_number
from pers.backends.webgpu._ffi import ffi, lib, logger
from pers.errors import BackendUnavailableError, ValidationError
from pers.graphics.interfaces import IFrameBuffer, ISurface
from pers.graphics.native import TexturePlace
from pers.graphics.resources import FrameBuffer, Texture
from pers.graphics.types import PresentMode, TextureDescriptor
from pers.textures import TextureFormat, TextureUsage

if TYPE_CHECKING:
    from pers.graphics.device import RenderDevice


_PRESENT_MODES = {
    "fifo": lib.WGPUPresentMode_Fifo,
    "fifo-relaxed": lib.WGPUPresentMode_FifoRelaxed,
    "immediate": lib.WGPUPresentMode_Immediate,
    "mailbox": lib.WGPUPresentMode_Mailbox,
}
_DEFAULT_LATENCY = 2


class WebGPUSurface(ISurface):
    """The wgpu context of a canvas; the canvas presents after its draw function."""

    def __init__(self, canvas: Any, device: RenderDevice, gpu_device: Any) -> None:
        self._device = device
        self._gpu = gpu_device
        try:
            self._context = canvas.get_wgpu_context()
        except Exception as error:
            raise BackendUnavailableError(
                f"create_surface takes a rendercanvas canvas that shows wgpu, not {canvas!r}: "
                f"{error}"
            ) from error
        preferred = str(self._context.get_preferred_format(gpu_device.adapter))
        self._format = TextureFormat(preferred)
        self._canvas = canvas
        self._depth_format: TextureFormat | None = None
        self._sample_count = 1
        self._extra: FrameBuffer | None = None
        self._configured = False
        self._wanted: dict[str, Any] = {}  # what `configure` was given, to do it again
        self._extras: Any = None  # the C struct, which has to live as long as the configuration

    @property
    def format(self) -> TextureFormat:
        return self._format

    def configure(
        self,
        *,
        depth_format: TextureFormat | None = None,
        sample_count: int = 1,
        present_mode: PresentMode | None = None,
        frame_latency: int | None = None,
    ) -> None:
        self._device.check_alive("surface configure")
        latency = whole_number(
            _frame_latency(frame_latency),
            "frame_latency",
            minimum=1,
            maximum=16,
            error=ValidationError,
        )
        mode = present_mode or os.environ.get("PERS_PRESENT_MODE") or "fifo"
        if mode not in get_args(PresentMode):
            raise ValidationError(
                f"{mode!r} is no present mode; choose one of {', '.join(get_args(PresentMode))}"
            )
        self._depth_format = depth_format
        self._sample_count = sample_count
        self._extra = None
        self._context.configure(device=self._gpu, format=self._format.value)
        self._tune(mode, latency, asked_for=present_mode is not None)
        self._wanted = {
            "depth_format": depth_format,
            "sample_count": sample_count,
            "present_mode": present_mode,
            "frame_latency": frame_latency,
        }
        self._configured = True

    def acquire(self) -> IFrameBuffer | None:
        self._device.check_alive("surface acquire")
        if not self._configured:
            self.configure(**self._wanted)
        if self._canvas.get_closed() or min(self._canvas.get_physical_size()) < 1:
            return None
        try:
            texture = self._context.get_current_texture()
        except (RuntimeError, wgpu.GPUError, wgpu.classes.DrawCancelled) as error:
            logger.info("no frame to draw to: %s", error)
            self._configured = False  # made again with the next frame
            return None
        return self._frame(texture)

    def present(self) -> None:
        """Nothing is left to do: rendercanvas presents at the end of its draw function."""

    def _tune(self, mode: str, latency: int, *, asked_for: bool) -> None:
        """Set what rendercanvas has no words for; canvases that show bitmaps have neither."""
        inner = getattr(self._context, "_wgpu_context", None)
        if inner is None or getattr(inner, "_wgpu_config", None) is None:
            return
        available = inner._get_capabilities(self._gpu.adapter)["present_modes"]
        if mode.replace("-", "") in available:
            inner._wgpu_config.presentMode = _PRESENT_MODES[mode]
        elif asked_for:
            raise ValidationError(
                f"this window cannot present with {mode!r}; it can with {', '.join(available)}"
            )
        self._extras = ffi.new("WGPUSurfaceConfigurationExtras *")
        self._extras.chain.sType = lib.WGPUSType_SurfaceConfigurationExtras
        self._extras.desiredMaximumFrameLatency = latency
        inner._wgpu_config.nextInChain = ffi.cast("WGPUChainedStruct *", self._extras)
        inner._configure_screen_real()

    def _frame(self, texture: Any) -> FrameBuffer:
        from pers.backends.webgpu.textures import WindowTexture

        width, height = texture.size[:2]
        descriptor = TextureDescriptor(
            width, height, self._format, TextureUsage.RENDER_ATTACHMENT, "window"
        )
        color = Texture(self._device, descriptor, WindowTexture(texture))
        extra = self._sized_extra(width, height)
        colors = (TexturePlace(color),)
        if extra is None:
            return FrameBuffer(colors, label="window")
        depth = TexturePlace(extra.textures[-1]) if self._depth_format is not None else None
        samples = (TexturePlace(extra.textures[0]),) if self._sample_count > 1 else ()
        return FrameBuffer(colors, depth, samples, "window")

    def _sized_extra(self, width: int, height: int) -> FrameBuffer | None:
        """Return depth and multisampled textures of the window's size, if there are to be any."""
        if self._depth_format is None and self._sample_count == 1:
            return None
        if self._extra is None or (self._extra.width, self._extra.height) != (width, height):

            def make(texture_format: TextureFormat, part: str) -> TexturePlace:
                texture = self._device.create_texture(
                    TextureDescriptor(
                        width,
                        height,
                        texture_format,
                        TextureUsage.RENDER_ATTACHMENT,
                        f"window {part}",
                        sample_count=self._sample_count,
                    )
                )
                assert isinstance(texture, Texture)
                return TexturePlace(texture)

            colors = (make(self._format, "samples"),) if self._sample_count > 1 else ()
            depth = None if self._depth_format is None else make(self._depth_format, "depth")
            self._extra = FrameBuffer(colors, depth)
        return self._extra


def _frame_latency(asked_for: int | None) -> object:
    if asked_for is not None:
        return asked_for
    text = os.environ.get("PERS_FRAME_LATENCY") or str(_DEFAULT_LATENCY)
    return int(text) if text.isdecimal() else text
