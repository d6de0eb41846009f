"""Hello, buffers: bytes to the GPU, a copy there, and back. Needs no GPU.

python examples/hello_buffers.py                     # the null backend: NumPy
python examples/hello_buffers.py --backend webgpu    # a GPU, or a software driver
"""

import argparse

import numpy as np

import pers
from pers import BufferUsage


def main(backend: str) -> None:
    numbers = np.arange(1000, dtype=np.float32)

    with pers.open_device(backend) as device:
        print(f"device: {device.info.name} ({device.info.api})")

        # The GPU's own memory, once with contents and once empty.
        source = pers.DeviceBuffer.from_array(
            numbers, BufferUsage.STORAGE | BufferUsage.COPY_SRC, device.buffer_factory
        )
        target = pers.DeviceBuffer(
            source.size,
            device.buffer_factory,
            usage=BufferUsage.STORAGE | BufferUsage.COPY_SRC,
            debug_name="target",
        )

        # Record a copy of the second half, hand it over, and wait for it.
        encoder = device.create_command_encoder("hello")
        encoder.copy_buffer_to_buffer(source, 2000, target, 0, 2000)
        submission = device.queue.submit([encoder.finish()])
        submission.wait()

        # Everyday reads and writes need no encoder.
        device.upload(np.array([-1.0, -2.0], np.float32), target, offset=2000)
        result = device.read_array_blocking(target, np.float32)

        expected = np.concatenate([numbers[500:], [-1.0, -2.0], np.zeros(498)])
        assert np.array_equal(result, expected)
        print(f"verified: {result.nbytes} bytes came back as expected")

        # A mistake is an exception that says what to do.
        try:
            encoder = device.create_command_encoder()
            encoder.copy_buffer_to_buffer(source, 0, target, 3000, 2000)
        except pers.BufferRangeError as error:
            print(f"refused: {error}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="null", choices=["webgpu", "null"])
    main(parser.parse_args().backend)
