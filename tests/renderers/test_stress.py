"""The stress test: what it draws, what it checks and what it reports."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import numpy.typing as npt
import pytest

from pers import (
    DeviceLostError,
    DynamicBuffer,
    IRenderDevice,
    ValidationError,
    open_device,
)
from renderers.checks import Check, CopyCheck, DigestCheck, digest_of
from renderers.motion import INSTANCE
from renderers.scene import CLEAR_COLOR
from renderers.stress import StressTestRenderer

OBJECTS, WIDTH, HEIGHT = 40, 96, 64


@pytest.fixture(autouse=True)
def small_sky(monkeypatch: pytest.MonkeyPatch) -> None:
    """Painting the whole sky takes longer than all the rest; tests/test_cli.py does it."""
    monkeypatch.setattr("renderers.stress.SKY_SIZE", 128)


def clear_pixel() -> list[int]:
    linear = np.array(CLEAR_COLOR[:3])
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return [*np.rint(255 * encoded).astype(int).tolist(), 255]


async def run_once(device: IRenderDevice, seed: int = 1, frames: int = 3) -> npt.NDArray[np.uint8]:
    with StressTestRenderer(device, OBJECTS, WIDTH, HEIGHT, seed=seed) as renderer:
        await renderer.run(frames)
        return renderer.screenshot()


@pytest.mark.anyio
async def test_run_draws_checks_and_measures(device: IRenderDevice) -> None:
    seen: list[int] = []
    with StressTestRenderer(device, OBJECTS, WIDTH, HEIGHT, check_every=2) as renderer:
        report = await renderer.run(7, seen.append)
        picture = renderer.screenshot()
        assert renderer.report().bytes_moved.readback > report.bytes_moved.readback

    assert seen == list(range(7))
    assert (report.frames, report.objects, report.width, report.height) == (7, OBJECTS, 96, 64)
    assert report.checks_passed == 4  # frames 0, 2, 4 and 6
    assert report.check_failures == ()
    assert report.sky_bands == (4, 4)
    assert report.triangles > OBJECTS * 8
    assert report.bytes_moved.deferred_staging == 128 * 128 * 4
    assert report.bytes_moved.dynamic > 7 * OBJECTS * INSTANCE.itemsize
    assert report.bytes_moved.static_staging > 1000
    assert (report.dynamic_stalls, report.dynamic_grows) == (0, 0)
    assert 0 < report.frame_ms.p50 <= report.frame_ms.p95 <= report.frame_ms.p99
    assert report.seconds > 0
    assert report.objects_per_second == pytest.approx(7 * OBJECTS / report.seconds)
    assert json.loads(json.dumps(report.to_json()))["frame_ms"]["p50"] == report.frame_ms.p50

    assert picture.shape == (HEIGHT, WIDTH, 4)
    assert (picture[..., 3] == 255).all()
    if device.info.executes_shaders:
        assert report.not_drawn is None
        assert "compute shader" in report.check
        colors = np.unique(picture[..., :3].reshape(-1, 3), axis=0)
        assert len(colors) > 500
        assert picture[HEIGHT // 2].max() > 150
        assert picture[0, 0].max(initial=0, where=[True, True, True, False]) < 90
    else:
        assert report.not_drawn is not None
        assert "not executed" in report.not_drawn
        assert "copied back" in report.check
        assert (picture == clear_pixel()).all()


@pytest.mark.anyio
async def test_equal_seeds_give_equal_pictures(device: IRenderDevice) -> None:
    first, again, other = [await run_once(device, seed) for seed in (1, 1, 2)]
    assert np.array_equal(first, again)
    assert np.array_equal(first, other) is not device.info.executes_shaders


@pytest.mark.anyio
async def test_a_check_that_fails_is_reported(device: IRenderDevice) -> None:
    """What the check expects is corrupted by one bit, in one frame."""

    def make(device: IRenderDevice, source: DynamicBuffer, nbytes: int) -> Check:
        with_shaders = device.info.executes_shaders
        calls = iter(range(100))

        def expect(words: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
            expected = digest_of(words) if with_shaders else words.copy()
            expected[2] ^= np.uint32((next(calls) == 1) << 7)
            return expected

        kind = DigestCheck if with_shaders else CopyCheck
        return kind(device, source, nbytes, expect)

    with StressTestRenderer(device, OBJECTS, WIDTH, HEIGHT, check_every=2, check=make) as renderer:
        report = await renderer.run(6)
    assert report.checks_passed == 2
    assert len(report.check_failures) == 1
    assert report.check_failures[0].startswith("frame 2: word 2 of ")


@pytest.mark.anyio
async def test_one_object_one_frame(device: IRenderDevice) -> None:
    with StressTestRenderer(device, 1, 16, 16) as renderer:
        report = await renderer.run(1)
    assert (report.frames, report.checks_passed) == (1, 1)


@pytest.mark.anyio
async def test_goes_on_where_it_stopped(null_device: IRenderDevice) -> None:
    with StressTestRenderer(null_device, 5, 16, 16, check_every=1) as renderer:
        await renderer.run(2)
        report = await renderer.run(3)
    assert (report.frames, report.checks_passed) == (5, 5)


@pytest.mark.anyio
async def test_an_error_in_a_frame_comes_out_as_it_is(null_device: IRenderDevice) -> None:
    def fail(frame: int) -> None:
        raise OSError("disk full")

    with StressTestRenderer(null_device, 5, 16, 16) as renderer:
        with pytest.raises(OSError, match="disk full"):
            await renderer.run(3, fail)
        assert (await renderer.run(1)).frames == 2


@pytest.mark.anyio
@pytest.mark.parametrize("backend", [pytest.param("webgpu", marks=pytest.mark.gpu), "null"])
async def test_a_lost_device_ends_the_run(backend: str) -> None:
    """Frames, checks and the sky all fail then; the reason comes out."""
    device = open_device(backend)

    def lose(frame: int) -> None:
        if frame == 3:
            device.close()

    with (
        StressTestRenderer(device, 5, 16, 16, check_every=1) as renderer,
        pytest.raises(DeviceLostError, match="lost or closed"),
    ):
        await renderer.run(30, lose)


@pytest.mark.anyio
async def test_draw_frame_needs_running(null_device: IRenderDevice) -> None:
    with StressTestRenderer(null_device, 5, 16, 16) as renderer:
        with pytest.raises(RuntimeError, match="running"):
            renderer.draw_frame()
        with pytest.raises(ValueError, match="frames"):
            await renderer.run(0)


@pytest.mark.parametrize("options", [{"objects": 0}, {"seed": -1}, {"check_every": 0}])
def test_bad_numbers_are_refused(null_device: IRenderDevice, options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least"):
        StressTestRenderer(null_device, **options)


def test_too_much_for_the_device_is_refused(device: IRenderDevice) -> None:
    make = partial(StressTestRenderer, device)
    with pytest.raises(ValueError, match=r"takes at most \d+ objects, not 1000000000000"):
        make(10**12)
    with pytest.raises(ValidationError, match="above the device's limit"):
        make(10, 10**6, 10)


def test_close_may_be_repeated(null_device: IRenderDevice) -> None:
    renderer = StressTestRenderer(null_device, 5, 16, 16)
    renderer.close()
    renderer.close()
