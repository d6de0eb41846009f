"""What the vulkan backend holds, for how long, and what it leaves behind."""

from __future__ import annotations

import gc
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pers import OperationNotSupportedError, PersError, TextureAccessError, WaitTimeoutError
from pers.backends.vulkan import buffer as buffer_module
from pers.backends.vulkan import sync
from pers.backends.vulkan._ffi import vk
from pers.backends.vulkan.instance import PhysicalDevice
from pers.backends.vulkan.submission import wait_in_slices
from tests.sharing.support import describe, linux, open_fds, picture
from tests.sharing.vulkan_drivers import (
    ICDS,
    VALIDATION,
    assert_holds,
    need,
    open_on,
    run,
    shared,
    write,
)

VALIDATING = {
    "VK_INSTANCE_LAYERS": "VK_LAYER_KHRONOS_validation",
    "VK_LAYER_ENABLES": "VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT",
}


# --- Buffers --------------------------------------------------------------------------------------


def test_the_memory_of_buffers_is_shared_with_the_cpu(vulkan: Any, vulkan_peer: Any) -> None:
    if vulkan._gpu.physical.is_discrete:
        pytest.skip("a discrete GPU keeps its memory to itself")
    here = vulkan.create_shareable_buffer(1001)
    with vulkan.export_buffer(here) as handle:
        there = vulkan_peer.import_buffer(handle)
    with here.access(write=True) as view:
        view.upload(np.full(1001, 9, np.uint8))
        assert view.as_array()[1000] == 9  # what was uploaded before is there
        view.as_array()[:500] = 4
        view.upload(np.full(10, 5, np.uint8), offset=400)
    with there.access() as view:
        found = view.download()
        np.testing.assert_array_equal(found, view.as_array())
    with there.access(write=True) as view:
        np.testing.assert_array_equal(found, np.from_dlpack(view))
    expected = np.full(1001, 9)
    expected[:500], expected[400:410] = 4, 5
    np.testing.assert_array_equal(found, expected)


def test_an_array_of_memory_outlives_buffer_and_manager(driver: str) -> None:
    manager = open_on(driver)
    if manager._gpu.physical.is_discrete:
        pytest.skip("a discrete GPU keeps its memory to itself")
    made = manager.create_shareable_buffer(1 << 16)
    with made.access(write=True) as view:
        array = view.as_array()
        array[:] = 3
    del view
    made.close()
    manager.close()
    gpu = manager._gpu
    del made, manager
    gc.collect()
    assert not gpu._torn_down
    array[0] = 4
    assert int(array.sum()) == 3 * (1 << 16) + 1
    del array
    gc.collect()
    assert gpu._torn_down  # and not before


def test_a_discrete_gpu_keeps_buffers_to_itself(
    driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PhysicalDevice, "is_discrete", True)
    with open_on(driver) as manager, open_on(driver) as other:
        made = manager.create_shareable_buffer(100)
        flags = manager._gpu.memory_types[made.native._allocation.memory_type]
        assert flags & buffer_module.LOCAL
        with manager.export_buffer(made) as handle:
            opened = other.import_buffer(handle)
        with made.access(write=True) as view:
            with pytest.raises(OperationNotSupportedError, match=r"call download\(\)"):
                view.as_array()
            view.upload(np.arange(100, dtype=np.uint8))
        with opened.access() as view:
            np.testing.assert_array_equal(view.download(), np.arange(100))


# --- Waiting --------------------------------------------------------------------------------------


def test_a_semaphore_that_nobody_signals_blocks_nobody() -> None:
    """Neither a download, nor the end of an access, nor close, nor the end of the process."""
    out = run("swiftshader", "vulkan_end", "stuck")
    assert out.count("was not done after 1 s; the GPU waits for a semaphore") == 2
    assert "no error" not in out
    assert "so the memory it uses is not freed" in out


def test_ctrl_c_ends_a_wait_for_the_gpu() -> None:
    """And the end of the access, which would wait for the same."""
    assert run("swiftshader", "vulkan_end", "interrupted") == "interrupted\n"


def test_waits_in_the_driver_are_short() -> None:
    slices: list[int] = []

    def wait(slice_ns: int) -> int:
        slices.append(slice_ns)
        if len(slices) == 3:
            signal.raise_signal(signal.SIGINT)
        return int(vk.VK_TIMEOUT)

    with pytest.raises(KeyboardInterrupt):
        wait_in_slices(wait, 2**70)
    assert slices == [50_000_000] * 3
    assert not wait_in_slices(wait, 0)
    assert slices[3:] == [0]
    assert wait_in_slices(lambda _: int(vk.VK_SUCCESS), 0)


@pytest.mark.parametrize("kind", ["timeline", "fence"])
def test_semaphores_and_fences_are_waited_for_in_slices(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_on("lavapipe") as manager:
        gpu = manager._gpu
        made = {"timeline": sync.VulkanTimeline, "fence": sync.VulkanFence}[kind]
        # Neither can be shared here, which is not what this is about.
        monkeypatch.setattr(sync, "SEMAPHORE_FD", 0)
        monkeypatch.setattr(sync, "FENCE_FD", 0)
        one: Any = made(gpu)
        called: list[int] = []

        def call(name: str, *arguments: Any) -> int:
            called.append(arguments[-1])
            if len(called) == 2:
                signal.raise_signal(signal.SIGINT)
            return int(vk.VK_TIMEOUT)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(gpu.fn, "call", call)
            one.wait(*([1] if kind == "timeline" else []), 2**70)
        assert called == [50_000_000] * 2


def test_a_wait_that_was_given_up_is_not_begun_again(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[int] = []
    with open_on("swiftshader", timeout_ns=100_000_000) as manager:
        texture = manager.create_shareable_texture(describe())
        never = manager.create_semaphore("binary")
        work = manager._gpu.work
        wait = work.wait
        monkeypatch.setattr(
            work, "wait", lambda serial, limit: (waits.append(serial), wait(serial, limit))[1]
        )
        with pytest.raises(WaitTimeoutError), texture.access(wait=[never]) as view:
            view.download()
        assert len(waits) == 1
        with pytest.raises(WaitTimeoutError), texture.access() as view:
            with suppress(WaitTimeoutError):
                view.download()
        assert len(waits) == 3  # who goes on all the same is told again


def test_binary_semaphores_within_a_process() -> None:
    with open_on("swiftshader") as here, open_on("swiftshader") as there:
        texture, opened = shared(here, there)
        ready = here.create_semaphore("binary")
        with here.export_semaphore(ready) as handle:
            seen = there.import_semaphore(handle)
        for seed in range(5):
            with texture.access(write=True, signal=[ready]) as view:
                view.upload(picture(describe(), seed))
            with opened.access(wait=[seen]) as view:
                np.testing.assert_array_equal(view.download(), picture(describe(), seed))


def test_semaphores_may_be_closed_in_the_access_that_uses_them() -> None:
    with open_on("swiftshader") as manager:
        texture = manager.create_shareable_texture(describe())
        first, second = (manager.create_semaphore("binary") for _ in range(2))
        manager._gpu.work.submit(None, signals=[(first.native.handle, 0)])
        destroyed: list[Any] = []
        functions = manager._gpu.fn
        destroy = functions.vkDestroySemaphore
        functions.vkDestroySemaphore = lambda *a: (destroyed.append(a[1]), destroy(*a))
        with texture.access(write=True, wait=[first], signal=[second]) as view:
            view.upload(picture(describe(), 1))
            first.close()
            manager._gpu.work.collect()
            assert destroyed == []  # the submission is still to come
        texture.native.finish()
        manager._gpu.work.collect()
        assert destroyed == [first.native.handle]
        assert_holds(texture, 1)
        with pytest.raises(TextureAccessError, match="closed"):
            with texture.access(write=True, signal=[second]) as view:
                view.upload(picture(describe(), 2))
                second.close()
        assert_holds(texture, 2)  # the access ended all the same


def test_readers_that_join_wait_for_their_own_semaphores() -> None:
    with open_on("swiftshader", timeout_ns=500_000_000) as manager:
        texture = manager.create_shareable_texture(describe())
        write(texture, 1)
        first, second, done = (manager.create_semaphore("binary") for _ in range(3))
        work = manager._gpu.work
        work.submit(None, signals=[(first.native.handle, 0), (second.native.handle, 0)])
        with texture.access(wait=[first], signal=[done]) as view:
            view.download()
            with texture.access(wait=[second]) as other:
                np.testing.assert_array_equal(other.download(), picture(describe(), 1))
        serial = work.submit(None, waits=[(done.native.handle, 0)])
        assert work.wait(serial, 2_000_000_000)
        with pytest.raises(WaitTimeoutError, match="nobody has signalled"):
            with texture.access(wait=[first]):  # both were waited for: they are unsignalled again
                pass


@pytest.mark.parametrize("driver", ICDS)
@pytest.mark.parametrize("kind", ["unclosed", "threads", "garbage"])
def test_a_program_may_end_without_closing(driver: str, kind: str) -> None:
    assert run(driver, "vulkan_end", kind) == "end\n"


# --- Leaks ----------------------------------------------------------------------------------------


def resident() -> int:
    """Bytes of memory this process occupies."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


@linux
def test_a_thousand_textures_leave_nothing_behind(vulkan: Any, vulkan_peer: Any) -> None:
    def cycle(times: int) -> None:
        for seed in range(times):
            here, there = shared(vulkan, vulkan_peer, width=64, height=64)
            if seed % 50 == 0:
                write(here, seed)
                assert_holds(there, seed)
            here.close()
            there.close()

    def count() -> tuple[int, int]:
        vulkan._gpu.work.wait(vulkan._gpu.work.submitted, 10**10)
        vulkan._gpu.work.collect()
        return open_fds(), len(Path("/proc/self/maps").read_text().splitlines())

    cycle(200)
    gc.collect()
    (fds, maps), memory = count(), resident()
    cycle(1000)
    gc.collect()
    after_fds, after_maps = count()
    assert after_fds == fds
    # The allocator of C may map a few regions more or less; a leak would be a thousand.
    assert abs(after_maps - maps) < 20
    assert resident() - memory < 8 << 20  # a thousand textures have 16 MiB of pixels


@linux
def test_closed_managers_leave_nothing_behind(driver: str) -> None:
    def cycle(times: int) -> None:
        for seed in range(times):
            with open_on(driver) as one, open_on(driver) as other:
                here, there = shared(one, other)
                write(here, seed)
                assert_holds(there, seed)

    cycle(3)
    gc.collect()
    fds, threads = open_fds(), threads_of_the_system()
    cycle(5)
    gc.collect()
    assert (open_fds(), threads_of_the_system()) == (fds, threads)


def threads_of_the_system() -> int:
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def test_staging_memory_is_used_again(vulkan: Any) -> None:
    texture = vulkan.create_shareable_texture(describe(64, 64))
    made = []
    pool = vulkan._native._sharing.staging
    take = pool.take
    pool.take = lambda size: made.append(take(size)) or made[-1]
    for seed in range(20):
        write(texture, seed)
        assert_holds(texture, seed)
    assert len(made) == 40
    assert len({id(block) for block in made}) <= 3


# --- Threads --------------------------------------------------------------------------------------


def test_eight_threads_share_two_managers(vulkan: Any, vulkan_peer: Any) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            one, other = (vulkan, vulkan_peer) if number % 2 else (vulkan_peer, vulkan)
            for seed in range(number * 100, number * 100 + 15):
                here, there = shared(one, other, width=20 + number)
                write(here, seed)
                assert_holds(there, seed)
                made = one.create_shareable_buffer(1000 + number)
                with made.access(write=True) as view:
                    view.upload(np.full(1000 + number, number, np.uint8))
                    assert (view.download() == number).all()
                there.close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_threads_destroy_the_same_things(vulkan: Any) -> None:
    things = [vulkan._native.create_texture(describe()) for _ in range(30)]
    start = threading.Barrier(8)

    def destroy() -> None:
        start.wait()
        for thing in things:
            thing.destroy()

    threads = [threading.Thread(target=destroy) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    write(vulkan.create_shareable_texture(describe()), 1)


def test_a_manager_that_is_closed_under_threads_stops_them(driver: str) -> None:
    manager = open_on(driver)
    unexpected: list[BaseException] = []

    def work() -> None:
        try:
            while True:
                manager.export_texture(manager.create_shareable_texture(describe())).close()
        except PersError:
            pass
        except BaseException as error:
            unexpected.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    manager.close()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert unexpected == []


# --- Validation -----------------------------------------------------------------------------------


def need_validation(driver: str) -> None:
    need(driver)
    if VALIDATION is None:
        pytest.skip("the layer is not installed (Debian: vulkan-validationlayers)")


@pytest.mark.parametrize("driver", ICDS)
def test_the_validation_layer_finds_nothing(driver: str) -> None:
    need_validation(driver)
    out = run(driver, "vulkan_tour", "clean", timeout=110, **VALIDATING)
    assert out == "tour done\n"


@pytest.mark.parametrize(
    ("mistake", "message"),
    [("hazard", "SYNC-HAZARD-WRITE-AFTER-WRITE"), ("invalid", "VUID-VkBufferCreateInfo-size")],
)
def test_the_validation_layer_would_find_it(mistake: str, message: str) -> None:
    need_validation("lavapipe")
    assert message in run("lavapipe", "vulkan_tour", mistake, timeout=110, **VALIDATING)
