"""Pattern 1: load a mesh once. Small ones are written in place, large ones go through staging.

python examples/static_mesh.py [--backend webgpu|null]
"""

import argparse

import numpy as np
import numpy.typing as npt

import pers
from pers import BufferDesc, BufferUsage

VERTEX = np.dtype([("position", "f4", 3), ("height", "f4")])
USAGE = BufferUsage.VERTEX | BufferUsage.COPY_SRC


def terrain(points: int) -> npt.NDArray[np.void]:
    """Make a grid of `points` x `points` vertices."""
    x, y = np.meshgrid(np.linspace(-1, 1, points), np.linspace(-1, 1, points))
    vertices = np.zeros(points * points, VERTEX)
    vertices["height"] = (np.sin(7 * x) * np.cos(5 * y)).ravel()
    vertices["position"] = np.stack([x.ravel(), y.ravel(), vertices["height"]], -1)
    return vertices


def load_small(device: pers.IRenderDevice, vertices: npt.NDArray[np.void]) -> pers.IBuffer:
    """Write straight into the buffer, which is mapped when it is made."""
    desc = BufferDesc(vertices.nbytes, USAGE, mapped_at_creation=True, debug_name="small mesh")
    buffer = device.buffer_factory.create_mappable_buffer(desc)
    buffer.mapped_data.write(vertices)
    buffer.unmap()
    return buffer  # DeviceBuffer.from_array does the same in one line


def load_large(device: pers.IRenderDevice, vertices: npt.NDArray[np.void]) -> pers.IBuffer:
    """Fill a staging buffer, and let the GPU copy it into its own memory."""
    mesh = pers.DeviceBuffer(
        vertices.nbytes, device.buffer_factory, usage=USAGE, debug_name="large mesh"
    )
    staging = pers.ImmediateStagingBuffer(vertices.nbytes, device.buffer_factory)
    staging.write(vertices)
    encoder = device.create_command_encoder("load mesh")
    staging.upload_to(encoder, mesh)
    device.queue.submit([encoder.finish()])
    return mesh


def main(backend: str) -> None:
    with pers.open_device(backend) as device:
        for load, points in ((load_small, 32), (load_large, 512)):
            vertices = terrain(points)
            mesh = load(device, vertices)
            found = device.read_array_blocking(mesh, VERTEX)
            assert np.array_equal(found, vertices)
            print(f"verified: {mesh.debug_name}, {len(vertices)} vertices, {mesh.size} bytes")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="webgpu", choices=["webgpu", "null"])
    main(parser.parse_args().backend)
