"""Pattern 4: read the GPU's results while it works on the next ones.

python examples/gpu_readback.py [--backend webgpu|null]
"""

import argparse

import anyio
import numpy as np

import pers
from pers import BindGroupLayout, BindingLayout, BufferUsage, ShaderStage

SHADER = """
@group(0) @binding(0) var<storage, read_write> numbers: array<u32>;

@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
    if id.x < arrayLength(&numbers) { numbers[id.x] = numbers[id.x] * 3u + id.x; }
}
"""
COUNT = 10_000
STEPS = 5


async def main(backend: str) -> None:
    with pers.open_device(backend) as device:
        expected = np.arange(COUNT, dtype=np.uint32)
        numbers = pers.DeviceBuffer.from_array(
            expected, BufferUsage.STORAGE | BufferUsage.COPY_SRC, device.buffer_factory
        )
        layout = BindGroupLayout([BindingLayout(0, "storage", ShaderStage.COMPUTE)])
        group = device.create_bind_group(layout, {0: numbers})
        pipeline = device.create_compute_pipeline(
            pers.ComputePipelineDescriptor(device.create_shader_module(SHADER), [layout])
        )
        readback = pers.ReadbackBuffer(numbers.size, device.buffer_factory)

        results = []
        for _ in range(STEPS):
            encoder = device.create_command_encoder("step")
            with encoder.begin_compute_pass() as compute_pass:
                compute_pass.set_pipeline(pipeline)
                compute_pass.set_bind_group(0, group)
                compute_pass.dispatch_workgroups((COUNT + 63) // 64)
            readback.copy_from(encoder, numbers)
            device.queue.submit([encoder.finish()])
            # The array is the mapped memory itself; it stays right for as long as it is kept.
            results.append(await readback.read_array(np.uint32))

        for result in results:
            if device.info.executes_shaders:
                expected = expected * np.uint32(3) + np.arange(COUNT, dtype=np.uint32)
            assert np.array_equal(result, expected)
        what = "results" if device.info.executes_shaders else "copies (no shaders here)"
        print(f"verified: {STEPS} {what} of {COUNT} numbers, kept in {readback.slots} buffers")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="webgpu", choices=["webgpu", "null"])
    anyio.run(main, parser.parse_args().backend)
