"""Pattern 5: have the picture of every frame on the CPU, while later frames are drawn.

python examples/streaming_readback.py [--backend webgpu|null]
"""

import argparse

import anyio
import numpy as np

import pers

FRAMES = 30
SIZE = 64


def color_of(frame: int) -> tuple[float, float, float, float]:
    return (frame / FRAMES, 0.5, 1.0 - frame / FRAMES, 1.0)


async def draw(
    device: pers.IRenderDevice, target: pers.IFrameBuffer, stream: pers.ReadbackStream
) -> None:
    for frame in range(FRAMES):
        await stream.room()  # waits only when the consumer is three frames behind
        encoder = device.create_command_encoder(f"frame {frame}")
        with encoder.begin_render_pass(target, clear_color=color_of(frame)):
            pass  # a real program draws here
        stream.push(encoder, target.color_textures[0], tag=frame)
        device.queue.submit([encoder.finish()])
    stream.close()


async def consume(stream: pers.ReadbackStream) -> list[int]:
    seen = []
    async for frame, picture in stream:
        # The mapped memory itself: no copy, and right for as long as it is kept.
        assert picture.shape == (SIZE, SIZE, 4)
        assert np.abs(picture / 255 - color_of(frame)).max() < 0.003
        seen.append(frame)
    return seen


async def main(backend: str) -> None:
    with pers.open_device(backend) as device:
        target = device.create_frame_buffer(SIZE, SIZE, [pers.TextureFormat.RGBA8_UNORM])
        rows = pers.TextureRows(target.color_formats[0], SIZE, SIZE)
        with pers.ReadbackStream(rows.nbytes, device.buffer_factory) as stream:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(draw, device, target, stream)
                seen = await consume(stream)
            assert seen == list(range(FRAMES))
            print(f"verified: {FRAMES} pictures, in order; {stream.stats}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="webgpu", choices=["webgpu", "null"])
    anyio.run(main, parser.parse_args().backend)
