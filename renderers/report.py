"""What a run measured, as values, as JSON and with units."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, cast

import attrs
import numpy as np

from pers import DeviceInfo, IRenderDevice

__all__ = ["BytesMoved", "FrameTimes", "StressReport", "not_drawn", "resident_bytes"]


@attrs.frozen
class FrameTimes:
    """Times from frame to frame (milliseconds).

    Attributes:
        p50: Half of the frames took at most this.
        p95: 95 % of the frames did.
        p99: 99 % of the frames did.
        mean: All frames together, divided by their number.
        slowest: The longest.
    """

    p50: float
    p95: float
    p99: float
    mean: float
    slowest: float

    @classmethod
    def of(cls, seconds: list[float]) -> FrameTimes:
        """Sum up the times of single frames; all zero when there were none."""
        times = 1000.0 * np.array(seconds or [0.0])
        p50, p95, p99 = (float(value) for value in np.percentile(times, [50, 95, 99]))
        return cls(p50, p95, p99, float(times.mean()), float(times.max()))


@attrs.frozen
class BytesMoved:
    """What went through each kind of buffer (bytes).

    Attributes:
        static_staging: Meshes, through `ImmediateStagingBuffer`.
        deferred_staging: The sky, through `DeferredStagingBuffer`.
        dynamic: Cameras and instances, through `DynamicBuffer`.
        readback: Results and pictures, through `ReadbackBuffer`.
    """

    static_staging: int
    deferred_staging: int
    dynamic: int
    readback: int


def json_ready(values: Any) -> dict[str, Any]:
    """Return an attrs object as JSON has it; sets become sorted lists."""

    def serialize(_: object, __: object, value: Any) -> Any:
        return sorted(cast(frozenset[str], value)) if isinstance(value, frozenset) else value

    return attrs.asdict(values, value_serializer=serialize)


@attrs.frozen
class StressReport:
    """What a run of the stress test measured.

    Attributes:
        device: What drew.
        objects: How many objects moved.
        triangles: Triangles drawn in a frame.
        width: Width of the picture (pixels).
        height: Height of the picture (pixels).
        seed: What the scene was made from.
        frames: Frames drawn.
        seconds: How long they took, from the first to the end of the GPU's work.
        frame_ms: Times from frame to frame (milliseconds).
        objects_per_second: Objects times frames, divided by the seconds.
        bytes_moved: What went through each kind of buffer (bytes).
        dynamic_stalls: Updates of the dynamic buffers that had to wait for the GPU.
        dynamic_grows: How often a dynamic buffer needed more room.
        sky_bands: Bands of the sky that were streamed in, and how many there are.
        check: What the readback checks compared.
        checks_passed: Readback checks that came out right.
        check_failures: What did not, one line each.
        rss_start: Resident memory of the process when the renderer was made (bytes), if known.
        rss_end: The same at the end of the run.
        not_drawn: What the device did not draw, or None.
    """

    device: DeviceInfo
    objects: int
    triangles: int
    width: int
    height: int
    seed: int
    frames: int
    seconds: float
    frame_ms: FrameTimes
    objects_per_second: float
    bytes_moved: BytesMoved
    dynamic_stalls: int
    dynamic_grows: int
    sky_bands: tuple[int, int]
    check: str
    checks_passed: int
    check_failures: tuple[str, ...]
    rss_start: int | None
    rss_end: int | None
    not_drawn: str | None

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON has it: the attributes by name, nested values as objects."""
        return json_ready(self)


def not_drawn(device: IRenderDevice) -> str | None:
    """Say what a device that runs no shaders leaves out, or None when it draws everything."""
    if device.info.executes_shaders:
        return None
    return (
        f"the {device.info.backend} backend runs no shaders: draws and dispatches were checked "
        "and counted, but not executed, and the picture is the clear colour"
    )


def resident_bytes() -> int | None:
    """Return the memory of this process that is in RAM (bytes), or None where that is unknown."""
    if sys.platform == "linux":
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * resource.getpagesize()
    return None
