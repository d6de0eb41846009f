"""Pattern 2: stream textures in through one staging buffer that is used again and again.

python examples/texture_streaming.py [--backend webgpu|null]
"""

import argparse

import anyio
import anyio.to_thread
import numpy as np
import numpy.typing as npt

import pers
from pers import TextureDescriptor, TextureFormat, TextureRows, TextureUsage

SIZE = 300  # rows of 1200 bytes: the GPU wants them padded to 1280
TEXTURES = 6


def load_image(number: int) -> npt.NDArray[np.uint8]:
    """Stand in for a file or a download: an image of shape (SIZE, SIZE, 4)."""
    y, x = np.mgrid[:SIZE, :SIZE]
    return np.stack([x + number, y, x ^ y, np.full_like(x, 255)], -1).astype(np.uint8)


async def main(backend: str) -> None:
    with pers.open_device(backend) as device:
        usage = TextureUsage.TEXTURE_BINDING | TextureUsage.COPY_DST | TextureUsage.COPY_SRC
        textures = [
            device.create_texture(
                TextureDescriptor(SIZE, SIZE, TextureFormat.RGBA8_UNORM, usage, f"texture {i}")
            )
            for i in range(TEXTURES)
        ]
        rows = TextureRows(TextureFormat.RGBA8_UNORM, SIZE, SIZE)
        staging = pers.DeferredStagingBuffer(rows.nbytes, device.buffer_factory)
        frames = 0

        async def stream() -> None:
            for number, texture in enumerate(textures):
                # Waits until the GPU has copied the texture before; nothing else has to.
                async with staging.map_async() as mapped:
                    pixels = await anyio.to_thread.run_sync(load_image, number)
                    rows.view(mapped.as_array())[...] = pixels
                encoder = device.create_command_encoder("stream")
                staging.upload_to(encoder, texture)
                device.queue.submit([encoder.finish()])
            streaming.cancel_scope.cancel()

        async with anyio.create_task_group() as streaming:
            streaming.start_soon(stream)
            while True:  # what a renderer does meanwhile
                frames += 1
                await anyio.sleep(0.001)

        for number, texture in enumerate(textures):
            assert np.array_equal(await device.read_array(texture), load_image(number))
        print(f"verified: {TEXTURES} textures of {SIZE}x{SIZE} through {staging.size} bytes")
        print(f"meanwhile the frame loop went round {frames} times")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="webgpu", choices=["webgpu", "null"])
    anyio.run(main, parser.parse_args().backend)
