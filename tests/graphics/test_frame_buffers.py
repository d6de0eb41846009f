"""Frame buffers of textures that exist: what is drawn where, and what does not fit together."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
import pytest

from pers import (
    ColorTarget,
    DepthState,
    IFrameBuffer,
    IRenderDevice,
    ITexture,
    RenderPipelineDescriptor,
    RenderTarget,
    TexelCopyTextureInfo,
    TextureDescriptor,
    TextureFormat,
    TextureUsage,
    ValidationError,
)
from tests.support import FULL_SCREEN, ORANGE, open_device

RGBA, DEPTH = TextureFormat.RGBA8_UNORM, TextureFormat.DEPTH32_FLOAT
DRAWN = TextureUsage.RENDER_ATTACHMENT
KEPT = DRAWN | TextureUsage.COPY_SRC


def texture(device: IRenderDevice, size: int = 8, **changes: Any) -> ITexture:
    return device.create_texture(
        attrs.evolve(TextureDescriptor(size, size, RGBA, KEPT, "given"), **changes)
    )


def clear(device: IRenderDevice, frame: IFrameBuffer, color: tuple[float, ...]) -> None:
    encoder = device.create_command_encoder()
    with encoder.begin_render_pass(frame, clear_color=(color[0], color[1], color[2], color[3])):
        pass
    device.queue.submit([encoder.finish()])


def fill(device: IRenderDevice, frame: IFrameBuffer, depth: DepthState | None = None) -> None:
    """Draw ORANGE to all of it."""
    drawing = device.create_render_pipeline(
        RenderPipelineDescriptor(
            shader=device.create_shader_module(FULL_SCREEN),
            color_targets=[ColorTarget(one) for one in frame.color_formats],
            depth=depth,
            sample_count=frame.sample_count,
        )
    )
    encoder = device.create_command_encoder()
    with encoder.begin_render_pass(frame) as render_pass:
        render_pass.set_pipeline(drawing)
        render_pass.draw(3)
    device.queue.submit([encoder.finish()])


def read(device: IRenderDevice, source: ITexture, mip_level: int = 0) -> npt.NDArray[Any]:
    """Read all layers of a mip level."""
    size = source.width >> mip_level
    usage = TextureUsage.COPY_DST | TextureUsage.COPY_SRC
    level = texture(device, size, layers=source.layers, usage=usage)
    encoder = device.create_command_encoder()
    place = TexelCopyTextureInfo(source, mip_level)
    encoder.copy_texture_to_texture(place, level, (size, size, source.layers))
    device.queue.submit([encoder.finish()])
    return device.read_array_blocking(level, copy=True)


def test_each_layer_of_each_level(device: IRenderDevice) -> None:
    given = texture(device, 8, layers=6, mip_levels=3)
    for level in range(3):
        for layer in range(6):
            frame = device.create_frame_buffer_from([RenderTarget(given, level, layer)])
            assert (frame.width, frame.height) == (8 >> level, 8 >> level)
            assert frame.color_textures == (given,)
            clear(device, frame, (layer / 5, level / 2, 0.0, 1.0))
    for level in range(3):
        picture = read(device, given, level)
        assert picture.shape == (6, 8 >> level, 8 >> level, 4)
        for layer in range(6):
            assert (
                np.abs(picture[layer].astype(int) - (51 * layer, 127.5 * level, 0, 255)) <= 1
            ).all()


def test_the_rest_stays(device: IRenderDevice) -> None:
    given = texture(device, 8, layers=2)
    clear(device, device.create_frame_buffer_from([given]), (1.0, 1.0, 1.0, 1.0))
    picture = read(device, given)
    assert (picture[0] == 255).all()
    assert not picture[1].any()


def test_several_colors(device: IRenderDevice) -> None:
    one, other = texture(device), texture(device, layers=2)
    frame = device.create_frame_buffer_from([one, RenderTarget(other, 0, 1)], label="both")
    clear(device, frame, (0.0, 0.0, 1.0, 1.0))
    assert (read(device, one) == (0, 0, 255, 255)).all()
    assert (read(device, other)[1] == (0, 0, 255, 255)).all()
    assert "both" in repr(frame)


def test_samples_are_resolved(device: IRenderDevice) -> None:
    given = texture(device)
    samples = texture(device, usage=DRAWN, sample_count=4)
    frame = device.create_frame_buffer_from([given], multisampled=[samples])
    assert frame.sample_count == 4
    clear(device, frame, (0.0, 1.0, 0.0, 1.0))
    assert (read(device, given) == (0, 255, 0, 255)).all()


def test_draws(gpu: IRenderDevice) -> None:
    """With a depth target of four samples, into a level; lavapipe 22.3 resolves to layer 0 only."""
    given = texture(gpu, 16, layers=2, mip_levels=2)
    samples = texture(gpu, usage=DRAWN, sample_count=4)
    depth = texture(gpu, format=DEPTH, usage=DRAWN, sample_count=4)
    frame = gpu.create_frame_buffer_from([RenderTarget(given, 1)], depth, multisampled=[samples])
    assert frame.depth_texture is depth
    fill(gpu, frame, DepthState())
    picture = read(gpu, given, 1)
    assert (picture[0] == ORANGE).all()
    assert not picture[1].any()


def test_only_depth(device: IRenderDevice) -> None:
    depth = texture(device, format=DEPTH)
    frame = device.create_frame_buffer_from([], depth)
    encoder = device.create_command_encoder()
    with encoder.begin_render_pass(frame, clear_depth=0.25):
        pass
    device.queue.submit([encoder.finish()])
    assert frame.color_formats == ()
    assert (device.read_array_blocking(depth) == 0.25).all()


def test_textures_stay_the_callers(device: IRenderDevice) -> None:
    given = texture(device)
    frame = device.create_frame_buffer_from([given])
    frame.destroy()
    assert given.is_valid
    clear(device, frame, (1.0, 0.0, 0.0, 1.0))
    given.destroy()
    with pytest.raises(ValidationError, match="texture 'given' was destroyed"):
        clear(device, frame, (1.0, 0.0, 0.0, 1.0))
    with pytest.raises(ValidationError, match="texture 'given' was destroyed"):
        device.create_frame_buffer_from([given])


# --- What does not fit ----------------------------------------------------------------------------


def test_no_such_place(device: IRenderDevice) -> None:
    given = texture(device, layers=2, mip_levels=3)
    for level, layer in ((3, 0), (0, 2), (9, 9)):
        with pytest.raises(ValidationError, match="has 3 mip levels and 2 layers"):
            RenderTarget(given, level, layer)
    for junk in (-1, 0.5, "0", None):
        with pytest.raises(ValidationError):
            RenderTarget(given, junk)  # type: ignore[arg-type]
        with pytest.raises(ValidationError):
            RenderTarget(given, 0, junk)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="texture"):
        RenderTarget(7)  # type: ignore[arg-type]


def test_what_does_not_fit_together(device: IRenderDevice) -> None:
    make = device.create_frame_buffer_from
    one, other = texture(device), texture(device)
    small, unusable = texture(device, 4), texture(device, usage=TextureUsage.COPY_SRC)
    samples = texture(device, usage=DRAWN, sample_count=4)
    depth = texture(device, format=DEPTH)
    integers = texture(device, format=TextureFormat.RGBA8_UINT)
    layers = texture(device, layers=2, mip_levels=2)
    with pytest.raises(ValidationError, match="without TextureUsage.RENDER_ATTACHMENT"):
        make([unusable])
    with pytest.raises(ValidationError, match="4x4 there, not 8x8 as the others"):
        make([one, small])
    with pytest.raises(ValidationError, match="4x4 there, not 8x8"):
        make([one], texture(device, 4, format=DEPTH))
    with pytest.raises(ValidationError, match="4x4 there, not 8x8"):
        make([layers, RenderTarget(layers, 1, 0)])
    for twice in ([one, one], [layers, RenderTarget(layers, 0, 0)]):
        with pytest.raises(ValidationError, match="comes twice"):
            make(twice)
    with pytest.raises(ValidationError, match="has 4 samples; colors have one"):
        make([samples])
    for bad in (
        [other],
        [samples, samples],
        [texture(device, format=DEPTH, sample_count=4, usage=DRAWN)],
    ):
        with pytest.raises(ValidationError, match="multisampled takes one texture with 4 samples"):
            make([one], multisampled=bad)
    with pytest.raises(ValidationError, match="multisampled takes one"):
        make([integers], multisampled=[samples])
    with pytest.raises(ValidationError, match="has 1 samples, but 4 are drawn"):
        make([one], depth, multisampled=[samples])
    with pytest.raises(ValidationError, match="holds depths"):
        make([depth])
    with pytest.raises(ValidationError, match="depth"):
        make([one], other)
    with pytest.raises(ValidationError, match="it takes 1 to"):
        make([])
    with pytest.raises(ValidationError, match="it takes 1 to"):
        make([texture(device) for _ in range(device.limits.max_color_attachments + 1)])


def test_of_the_wrong_kind_or_device(backend: str, device: IRenderDevice) -> None:
    make: Any = device.create_frame_buffer_from
    for junk in (None, 7, [None], ["texture"], [device]):
        with pytest.raises(ValidationError):
            make(junk)
    with open_device(backend) as stranger:
        for target in (texture(stranger), RenderTarget(texture(stranger))):
            with pytest.raises(ValidationError, match="belongs to another device"):
                make([target])
