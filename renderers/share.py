"""The two sides of ``pers share``: one publishes a moving picture, one checks it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import attrs
import numpy as np
import numpy.typing as npt

from pers import (
    StreamFrame,
    TextureDescriptor,
    TextureFormat,
    TexturePublisher,
    TextureShareManager,
    TextureSubscriber,
    TextureUsage,
    WaitTimeoutError,
)
from renderers.moving_picture import MovingPicture

__all__ = ["ConsumerReport", "Ending", "ProducerReport", "consume", "describe", "produce"]

Pixels = npt.NDArray[np.uint8]
USAGE = TextureUsage.COPY_SRC | TextureUsage.COPY_DST | TextureUsage.TEXTURE_BINDING
SECOND = 1_000_000_000
NAP = 0.02  # seconds between two looks whether it is over


class Ending:
    """Whether a stream is to end: said by whoever handles Ctrl+C, asked by what runs."""

    def __init__(self) -> None:
        self._is_said = False
        self._may_raise = False

    def say(self) -> None:
        """Have it end in order; the second time at once."""
        if self._is_said or self._may_raise:
            self._is_said = True
            raise KeyboardInterrupt
        self._is_said = True

    def is_said(self) -> bool:
        """Whether it is to end."""
        return self._is_said

    @contextmanager
    def at_once(self) -> Generator[None]:
        """Have the first time end what cannot ask, by a `KeyboardInterrupt`, within the block."""
        self._may_raise = True
        try:
            if self._is_said:
                raise KeyboardInterrupt
            yield
        finally:
            self._may_raise = False


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
    ending: Ending,
) -> ProducerReport:
    """Publish a moving picture until all frames are out, or `ending` says so.

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
        ending: Asked before each frame, and while nothing happens.
    """
    picture = MovingPicture(width, height)
    scratch = np.empty((height, width, 4), np.uint8)
    done = 0
    with TexturePublisher(name, describe(name, width, height), manager, buffers=buffers) as stream:
        while wait and not stream.stats.clients and not ending.is_said():
            time.sleep(NAP)
        start = time.monotonic()
        while frames is None or done < frames:
            if frames_per_second:
                _sleep_until(start + done / frames_per_second, ending)
            if ending.is_said():
                break
            try:
                with stream.next_frame() as frame:
                    frame.view.upload(picture.frame(frame.number, scratch))
            except WaitTimeoutError:
                if ending.is_said():
                    break
                raise
            done += 1
            on_frame(done)
        seconds = time.monotonic() - start
        stats = stream.stats
    what = manager.capabilities
    return ProducerReport(
        name, what.backend, what.device, what.zero_copy, width, height, done, seconds,
        done / seconds, done * scratch.nbytes / seconds, stats.dropped, stats.waits,
    )  # fmt: skip


def _sleep_until(end: float, ending: Ending) -> None:
    """Sleep until a time of ``time.monotonic()``, or until it is over."""
    while (left := end - time.monotonic()) > 0 and not ending.is_said():
        time.sleep(min(left, NAP))


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
    ending: Ending,
) -> tuple[ConsumerReport, Pixels | None]:
    """Read a stream until it ends, or `ending` says so; return the last frame's pixels, too.

    Args:
        name: Of the stream.
        manager: Imports the textures.
        frames: How many frames; None for all that come.
        policy: Which frames: the ``"latest"``, or ``"every"``.
        verify: Compare each byte with what `produce` draws.
        timeout: How long to wait for the stream, and for each frame (seconds).
        on_frame: Called after each frame with how many there were.
        ending: Asked after each frame, and while none comes.
    """
    latencies: list[int] = []
    picture: MovingPicture | None = None
    pixels: Pixels | None = None
    wrong = nbytes = 0
    start = end = time.monotonic_ns()
    dropped = 0
    with ExitStack() as stack:
        stream = _subscribe(name, manager, policy, timeout, ending)
        if stream is not None:
            stack.enter_context(stream)
        for frame in _frames(stream, timeout, ending) if stream is not None else ():
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
            if len(latencies) == frames:
                break
        if stream is not None:
            dropped = stream.stats.dropped
    what = manager.capabilities
    height, width = (0, 0) if pixels is None else pixels.shape[:2]
    p50, p99 = np.percentile(latencies, (50, 99)) / 1e6 if latencies else (0.0, 0.0)
    seconds = (end - start) / 1e9
    report = ConsumerReport(
        name, what.backend, what.device, what.zero_copy, policy, width, height, len(latencies),
        dropped, seconds, float(p50), float(p99), nbytes / seconds if seconds else 0.0,
        verify, wrong,
    )  # fmt: skip
    return report, pixels


def _subscribe(
    name: str,
    manager: TextureShareManager,
    policy: Literal["latest", "every"],
    timeout: float,
    ending: Ending,
) -> TextureSubscriber | None:
    """Wait for a stream; None when it is over before there is one."""
    try:
        with ending.at_once():
            return TextureSubscriber(name, manager, policy=policy, timeout_ns=int(timeout * SECOND))
    except KeyboardInterrupt:
        return None


def _frames(stream: TextureSubscriber, timeout: float, ending: Ending) -> Generator[StreamFrame]:
    """Iterate over the frames of a stream until it ends, or it is over."""
    end = time.monotonic() + timeout
    while not ending.is_said():
        left = end - time.monotonic()
        try:
            for frame in stream.frames(timeout_ns=int(min(max(left, 0), NAP) * SECOND)):
                yield frame
                if ending.is_said():
                    return
                end = time.monotonic() + timeout
        except WaitTimeoutError:
            if left > NAP:
                continue
            raise WaitTimeoutError(
                f"stream {stream.name!r}: no frame came within {timeout:g} s; "
                "see that the publisher makes frames, or wait longer"
            ) from None
        else:
            return
