"""Pattern 3: data that changes every frame, through a ring that the GPU never waits for.

python examples/per_frame_updates.py [--backend webgpu|null]
"""

import argparse

import numpy as np

import pers
from pers import BindGroupLayout, BindingLayout, BufferBinding, BufferUsage, ColorTarget

SHADER = """
@group(0) @binding(0) var<uniform> color: vec4f;

@vertex fn vs_main(@builtin(vertex_index) i: u32) -> @builtin(position) vec4f {
    return vec4f(f32((i << 1u) & 2u) * 2.0 - 1.0, f32(i & 2u) * 2.0 - 1.0, 0.0, 1.0);
}

@fragment fn fs_main() -> @location(0) vec4f { return color; }
"""
FRAMES = 10
COLOR_BYTES = 16


def main(backend: str) -> None:
    with pers.open_device(backend) as device:
        uniforms = pers.DynamicBuffer(
            COLOR_BYTES, device.buffer_factory, usage=BufferUsage.UNIFORM | BufferUsage.COPY_SRC
        )
        target = device.create_frame_buffer(4, 4, [pers.TextureFormat.RGBA8_UNORM])
        layout = BindGroupLayout([BindingLayout(0, "uniform", dynamic_offset=True)])
        group = device.create_bind_group(
            layout, {0: BufferBinding(uniforms.inner, size=COLOR_BYTES)}
        )
        pipeline = device.create_render_pipeline(
            pers.RenderPipelineDescriptor(
                device.create_shader_module(SHADER),
                [ColorTarget(target.color_formats[0])],
                bind_groups=[layout],
            )
        )
        sent = pers.ReadbackBuffer(COLOR_BYTES, device.buffer_factory)

        for frame in range(FRAMES):
            color = np.array([frame / FRAMES, 0.25, 1.0 - frame / FRAMES, 1.0], np.float32)
            with uniforms.begin_update() as update:
                offset = update.push(color)

            encoder = device.create_command_encoder(f"frame {frame}")
            with encoder.begin_render_pass(target) as render_pass:
                render_pass.set_pipeline(pipeline)
                render_pass.set_bind_group(0, group, [offset])
                render_pass.draw(3)
            sent.copy_from(encoder, update.buffer, offset, size=COLOR_BYTES)
            device.queue.submit([encoder.finish()])

            assert np.array_equal(sent.read_array_blocking(np.float32), color)
            if device.info.executes_shaders:
                pixel = device.read_array_blocking(target.color_textures[0])[2, 2]
                assert np.abs(pixel / 255 - color).max() < 0.003

        what = "pixels and bytes" if device.info.executes_shaders else "bytes (no shaders here)"
        print(f"verified: {what} of {FRAMES} frames; {uniforms.stats}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="webgpu", choices=["webgpu", "null"])
    main(parser.parse_args().backend)
