"""Pattern 6: what a device draws, in another process, frame by frame.

python examples/share_texture.py [--backend webgpu|null]
"""

import argparse
import os
import subprocess
import sys
import time

import numpy as np

import pers
from pers import TextureDescriptor, TextureUsage

FRAMES = 12
USAGE = TextureUsage.RENDER_ATTACHMENT | TextureUsage.TEXTURE_BINDING
PICTURE = TextureDescriptor(320, 240, "rgba8unorm", USAGE, label="picture")


def color_of(number: int) -> tuple[int, int, int, int]:
    """The colour of a frame, 0 to 255, which both sides know."""
    return number * 20, 255 - number * 20, 77, 255


def produce(name: str, backend: str) -> None:
    with (
        pers.open_device(backend) as device,
        pers.open_share_manager(device) as manager,
        pers.TexturePublisher(name, PICTURE, manager) as publisher,
    ):
        other = subprocess.Popen([sys.executable, __file__, "--consume", name])
        while publisher.stats.clients == 0 and other.poll() is None:
            time.sleep(0.01)
        for number in range(1, FRAMES + 1):
            red, green, blue, alpha = (value / 255 for value in color_of(number))
            # The texture is ours in the block; at its end the frame is published.
            with publisher.next_frame(timeout_ns=10_000_000_000) as frame:
                target = device.create_frame_buffer_from([frame.view.native_handle])
                encoder = device.create_command_encoder(f"frame {number}")
                with encoder.begin_render_pass(target, clear_color=(red, green, blue, alpha)):
                    pass
                device.queue.submit([encoder.finish()])
        publisher.close()  # ends the other side's loop, after the last frame
        if other.wait(timeout=60) != 0:
            raise SystemExit("the other process failed")


def consume(name: str) -> None:
    numbers = []
    # The host's manager reads what a device shares; one on a device would sample it.
    with (
        pers.open_share_manager(backend="host") as manager,
        pers.TextureSubscriber(name, manager, policy="every", timeout_ns=30_000_000_000) as stream,
    ):
        for frame in stream.frames():
            assert np.all(frame.view.as_array() == color_of(frame.number))
            numbers.append(frame.number)
    assert numbers == list(range(1, FRAMES + 1))
    print(f"verified: every pixel of {len(numbers)} frames, in process {os.getpid()}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="webgpu", choices=["webgpu", "null"])
    parser.add_argument("--consume", metavar="NAME", help="be the other process")
    options = parser.parse_args()
    if options.consume:
        consume(options.consume)
    else:
        produce(f"example-{os.getpid()}", options.backend)
