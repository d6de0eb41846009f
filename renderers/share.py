"""The two sides of ``pers share``: one publishes a moving picture, one checks it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal

import attrs
import numpy as np
import numpy.typing as npt

from pers import (
    TextureDescriptor,
    TextureFormat,
    TexturePublisher,
    TextureShareManager,
    TextureSubscriber,
    TextureUsage,
)
from renderers.moving_picture import MovingPicture

__all__ = ["ConsumerReport", "ProducerReport", "consume", "describe", "produce"]

Pixels = npt.NDArray[np.uint8]
USAGE = TextureUsage.COPY_SRC | TextureUsage.COPY_DST | TextureUsage.TEXTURE_BINDING
SECOND = 1_000_000_000


def describe(name: str, width: int, height: int) -> TextureDescriptor:
    """Return what the textures of the stream are."""
    return TextureDescriptor(width, height, TextureFormat.RGBA8_UNORM, USAGE, f"stream {name}")


@attrs.frozen
class ProducerReport:
    """What a producer did.

    Attributes:
        name: Of the stream.
        backend: Of the manager that shared the textures.
        device: Whose textures they were.
        zero_copy: Whether the other side uses the same memory.
        width: Pixels in a row.
        height: Rows.
        frames: Frames published.
        seconds: How long that took.
        frames_per_second: Over the whole run.
        bytes_per_second: Pixels written.
        dropped: Frames that some consumer was not told of.
        waits: How often no texture was free.
    """

    name: str
    backend: str
    device: str
    zero_copy: bool
    width: int
    height: int
    frames: int
    seconds: float
    frames_per_second: float
    bytes_per_second: float
    dropped: int
    waits: int

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON knows it."""
        return attrs.asdict(self)


def produce(
    name: str,
    width: int,
    height: int,
    manager: TextureShareManager,
    *,
    frames: int | None,
    frames_per_second: float,
    buffers: int,
    wait: bool,
    on_frame: Callable[[int], None],
    is_over: Callable[[], bool],
) -> ProducerReport:
    """Publish a moving picture until all frames are out, or `is_over` says so.

    Args:
        name: Of the stream.
        width: Pixels in a row.
        height: Rows.
        manager: Makes the textures.
        frames: How many frames; None for no end.
        frames_per_second: How fast; 0 for as fast as it goes.
        buffers: How many textures take turns.
        wait: Whether to publish nothing before somebody reads.
        on_frame: Called after each frame with its number.
        is_over: Asked before each frame.
    """
    picture = MovingPicture(width, height)
    scratch = np.empty((height, width, 4), np.uint8)
    done = 0
    with TexturePublisher(name, describe(name, width, height), manager, buffers=buffers) as stream:
        while wait and not stream.stats.clients and not is_over():
            time.sleep(0.01)
        start = time.monotonic()
        while (frames is None or done < frames) and not is_over():
            if frames_per_second:
                time.sleep(max(start + done / frames_per_second - time.monotonic(), 0))
            with stream.next_frame() as frame:
                frame.view.upload(picture.frame(frame.number, scratch))
            done += 1
            on_frame(done)
        seconds = time.monotonic() - start
        stats = stream.stats
    what = manager.capabilities
    return ProducerReport(
        name, what.backend, what.device, what.zero_copy, width, height, done, seconds,
        done / seconds, done * scratch.nbytes / seconds, stats.dropped, stats.waits,
    )  # fmt: skip


@attrs.frozen
class ConsumerReport:
    """What a consumer saw.

    Attributes:
        name: Of the stream.
        backend: Of the manager that imported the textures.
        device: Whose textures they became.
        zero_copy: Whether the other side uses the same memory.
        policy: Which frames it asked for.
        width: Pixels in a row, of the last frame.
        height: Rows.
        frames: Frames read.
        dropped: Frames missed.
        seconds: From the first frame to the last.
        latency_ms_p50: From the begin of a frame in the producer to its pixels here: half of the
            frames took less (milliseconds).
        latency_ms_p99: All but one in a hundred took less.
        bytes_per_second: Pixels read.
        verified: Whether every byte was compared.
        wrong_frames: Frames with a wrong byte.
    """

    name: str
    backend: str
    device: str
    zero_copy: bool
    policy: str
    width: int
    height: int
    frames: int
    dropped: int
    seconds: float
    latency_ms_p50: float
    latency_ms_p99: float
    bytes_per_second: float
    verified: bool
    wrong_frames: int

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON knows it."""
        return attrs.asdict(self)


def consume(
    name: str,
    manager: TextureShareManager,
    *,
    frames: int | None,
    policy: Literal["latest", "every"],
    verify: bool,
    timeout: float,
    on_frame: Callable[[int], None],
    is_over: Callable[[], bool],
) -> tuple[ConsumerReport, Pixels | None]:
    """Read a stream until it ends, or `is_over` says so; return the last frame's pixels, too.

    Args:
        name: Of the stream.
        manager: Imports the textures.
        frames: How many frames; None for all that come.
        policy: Which frames: the ``"latest"``, or ``"every"``.
        verify: Compare each byte with what `produce` draws.
        timeout: How long to wait for the stream, and for each frame (seconds).
        on_frame: Called after each frame with how many there were.
        is_over: Asked after each frame.
    """
    latencies: list[int] = []
    picture: MovingPicture | None = None
    pixels: Pixels | None = None
    wrong = nbytes = 0
    start = end = time.monotonic_ns()
    with TextureSubscriber(
        name, manager, policy=policy, timeout_ns=int(timeout * SECOND)
    ) as stream:
        for frame in stream.frames():
            pixels = frame.view.download()
            end = time.monotonic_ns()
            if not latencies:
                start = end
            latencies.append(end - frame.timestamp_ns)
            nbytes += pixels.nbytes
            if verify:
                height, width = pixels.shape[:2]
                if picture is None or (picture.width, picture.height) != (width, height):
                    picture = MovingPicture(width, height)
                wrong += picture.wrong_bytes(frame.number, pixels) > 0
            on_frame(len(latencies))
            if is_over() or len(latencies) == frames:
                break
        stats = stream.stats
    what = manager.capabilities
    height, width = (0, 0) if pixels is None else pixels.shape[:2]
    p50, p99 = np.percentile(latencies, (50, 99)) / 1e6 if latencies else (0.0, 0.0)
    seconds = (end - start) / 1e9
    report = ConsumerReport(
        name, what.backend, what.device, what.zero_copy, policy, width, height, len(latencies),
        stats.dropped, seconds, float(p50), float(p99), nbytes / seconds if seconds else 0.0,
        verify, wrong,
    )  # fmt: skip
    return report, pixels
