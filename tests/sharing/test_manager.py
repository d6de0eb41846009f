"""The rules of sharing, the same for every manager."""

from __future__ import annotations

import contextlib
import copy
import gc
import os
import pickle
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import attrs
import numpy as np
import pytest

from pers import (
    BackendUnavailableError,
    BufferRangeError,
    BufferUsageError,
    HostTextureHandle,
    HostTextureShareManager,
    InvalidTextureHandleError,
    IRenderDevice,
    OperationNotSupportedError,
    OwnedFd,
    PersError,
    RenderTarget,
    SharedFence,
    TextureAccessError,
    TextureFormat,
    TextureShareManager,
    TextureUsage,
    ValidationError,
    WaitTimeoutError,
    open_device,
    open_share_manager,
)
from pers.backends.host.device import HostTexture
from pers.backends.host.sync import HostTimeline
from pers.sharing.control import poll_time
from tests.sharing.support import MANAGERS, describe, linux, mappings, open_fds, picture


@pytest.fixture(params=MANAGERS)
def two(request: pytest.FixtureRequest) -> Iterator[tuple[Any, Any]]:
    """Two managers of one kind: the two sides."""
    with MANAGERS[request.param]() as one, MANAGERS[request.param]() as other:
        yield one, other


def shared(one: Any, other: Any, **changes: Any) -> tuple[Any, Any]:
    """A texture, and the same as the other side has it."""
    descriptor = describe(**changes)
    texture = one.create_shareable_texture(descriptor)
    with one.export_texture(texture) as handle:
        return texture, other.import_texture(handle, descriptor)


# --- Pixels ---------------------------------------------------------------------------------------


def test_a_new_texture_is_zeros(two: Any) -> None:
    with two[0].create_shareable_texture(describe()).access() as view:
        assert not view.download().any()


def test_pixels_travel_both_ways(two: Any) -> None:
    here, there = shared(*two)
    for number, (writer, reader) in enumerate([(here, there), (there, here), (here, there)]):
        pixels = picture(here.descriptor, number)
        with writer.access(write=True) as view:
            view.upload(pixels)
            np.testing.assert_array_equal(view.download(), pixels)
        with reader.access() as view:
            np.testing.assert_array_equal(view.download(), pixels)


def test_every_format(two: Any) -> None:
    assert TextureFormat.RGBA8_UNORM in two[0].capabilities.formats
    for number, texture_format in enumerate(sorted(two[0].capabilities.formats, key=str)):
        here, there = shared(*two, texture_format=texture_format)
        pixels = picture(here.descriptor, number)
        with here.access(write=True) as view:
            view.upload(pixels)
        with there.access() as view:
            found = view.download()
        assert found.dtype == texture_format.dtype
        np.testing.assert_array_equal(found, pixels, texture_format.value)


def test_layers_and_mip_levels(two: Any) -> None:
    here, there = shared(*two, layers=3, mip_levels=3)
    places = [(layer, level) for level in range(3) for layer in range(3)]
    with here.access(write=True) as view:
        for layer, level in places:
            pixels = picture(here.descriptor, 10 * layer + level, level)
            view.upload(pixels, layer=layer, mip_level=level)
    with there.access() as view:
        for layer, level in places:
            np.testing.assert_array_equal(
                view.download(layer=layer, mip_level=level),
                picture(here.descriptor, 10 * layer + level, level),
            )


def test_a_part_can_be_written(two: Any) -> None:
    here, there = shared(*two, layers=2)
    first, second = picture(here.descriptor, 1), picture(here.descriptor, 2)
    with here.access(write=True) as view:
        view.upload(first, layer=0)
    with there.access(write=True) as view:
        view.upload(second, layer=1)
    with here.access() as view:
        np.testing.assert_array_equal(view.download(layer=0), first)
        np.testing.assert_array_equal(view.download(layer=1), second)


def test_an_import_outlives_the_handle_and_the_exporter(two: Any) -> None:
    here, there = shared(*two)
    with here.access(write=True) as view:
        view.upload(picture(here.descriptor, 5))
    here.close()
    with there.access() as view:
        np.testing.assert_array_equal(view.download(), picture(there.descriptor, 5))


def test_a_handle_can_be_imported_twice(two: Any) -> None:
    one, other = two
    texture = one.create_shareable_texture(describe())
    handle = one.export_texture(texture)
    first = other.import_texture(handle, describe())
    second = other.import_texture(handle, describe())
    one.release_texture_handle(handle)
    with first.access(write=True) as view:
        view.upload(picture(describe(), 1))
    with second.access() as view:
        np.testing.assert_array_equal(view.download(), picture(describe(), 1))


# --- Turns ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("first_writes", [True, False])
@pytest.mark.parametrize("second_writes", [True, False])
@pytest.mark.parametrize("sides", ["same", "other"])
def test_accesses_exclude_each_other(
    two: Any, first_writes: bool, second_writes: bool, sides: str
) -> None:
    here, there = shared(*two)
    second = here if sides == "same" else there
    with here.access(write=first_writes):
        if not first_writes and not second_writes:
            with second.access() as view:
                assert not view.download().any()
        else:
            with (
                pytest.raises(TextureAccessError, match=r"picture.*cannot be opened.*timeout_ns"),
                second.access(write=second_writes),
            ):
                pytest.fail("two accesses at once")
    with second.access(write=True):  # it is free again
        pass


def test_an_access_can_wait_for_another(two: Any) -> None:
    here, there = shared(*two)
    begun, go_on = threading.Event(), threading.Event()

    def write() -> None:
        with here.access(write=True) as view:
            begun.set()
            go_on.wait(10)
            view.upload(picture(here.descriptor, 3))

    thread = threading.Thread(target=write)
    thread.start()
    assert begun.wait(10)
    threading.Timer(0.05, go_on.set).start()
    with there.access(timeout_ns=10_000_000_000) as view:
        np.testing.assert_array_equal(view.download(), picture(here.descriptor, 3))
    thread.join()


@linux
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_is_another_process() -> None:
    with HostTextureShareManager() as here, HostTextureShareManager() as there:
        texture, other = shared(here, there)
        ours, childs = socket.socketpair()
        with texture.access(write=True):
            child = os.fork()
            if child == 0:
                act_as_child(texture, other, childs)
            childs.close()
            assert ours.recv(1) == b"y", "the child got in while this process writes"
        ours.send(b"!")
        assert ours.recv(1) == b"w"
        assert is_refused(texture)
        assert is_refused(other)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert not is_refused(texture)
        ours.close()


def act_as_child(texture: Any, other: Any, parent: socket.socket) -> None:
    signal.alarm(10)  # in case that the test has failed
    try:
        texture.turns.end(())  # its copy of the access ends, and the parent's goes on
        parent.send(b"y" if is_refused(other) else b"n")
        parent.recv(1)
        with other.access(write=True):
            parent.send(b"w")
            parent.recv(1)
    finally:
        os._exit(0)


def is_refused(texture: Any) -> bool:
    try:
        with texture.access(write=True):
            return False
    except TextureAccessError:
        return True


def test_a_view_ends_with_its_block(two: Any) -> None:
    texture = two[0].create_shareable_texture(describe())
    with texture.access(write=True) as view:
        view.upload(picture(describe(), 1))
    uses = [
        lambda: view.upload(picture(describe(), 1)),
        view.download,
        view.as_array,
        lambda: view.native_handle,
    ]
    for use in uses:
        with pytest.raises(TextureAccessError, match="used after its access"):
            use()


def test_a_read_access_does_not_write(two: Any) -> None:
    texture = two[0].create_shareable_texture(describe())
    with texture.access() as view:
        assert not view.writable
        with pytest.raises(TextureAccessError, match="open for reading; use access"):
            view.upload(picture(describe(), 1))


def test_an_access_is_for_one_block(two: Any) -> None:
    texture = two[0].create_shareable_texture(describe())
    access = texture.access()
    with access:
        with pytest.raises(TextureAccessError, match="'picture'.*call access\\(\\) again"), access:
            pass
    with pytest.raises(TextureAccessError, match="for one with block"), access:
        pass
    with texture.access(write=True):
        pass


def test_a_handle_is_released_after_its_manager() -> None:
    manager = HostTextureShareManager()
    handle = manager.export_texture(manager.create_shareable_texture(describe()))
    manager.close()
    manager.release_texture_handle(handle)
    assert not handle.fds[0].is_open


def test_an_error_in_the_block_ends_the_access(two: Any) -> None:
    texture = two[0].create_shareable_texture(describe())
    with pytest.raises(KeyError), texture.access(write=True):
        raise KeyError
    with texture.access(write=True):
        pass


@pytest.mark.parametrize("error", [WaitTimeoutError, KeyboardInterrupt, BufferRangeError])
def test_a_wait_that_is_given_up_is_not_begun_again(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the end of the access, that is; after any other error the end waits as ever."""
    ends: list[Any] = []

    def refuse(*_: Any) -> None:
        raise error

    with HostTextureShareManager() as manager:
        texture = manager.create_shareable_texture(describe())
        with monkeypatch.context() as patch:
            patch.setattr(HostTexture, "download", refuse)
            patch.setattr(HostTexture, "finish", lambda texture: ends.append(texture))
            with pytest.raises(error), texture.access() as view:
                view.download()
            assert len(ends) == (error is BufferRangeError)
            with texture.access() as view, contextlib.suppress(error):
                view.download()
            assert len(ends) == 1 + (error is BufferRangeError)
        with texture.access(write=True):
            pass


def test_an_access_that_is_never_ended_ends_when_it_is_forgotten(two: Any) -> None:
    here, there = shared(*two)
    access = here.access(write=True)
    access.__enter__()
    with pytest.raises(TextureAccessError, match=r"open for writing; leave the with block"):
        here.close()
    with pytest.raises(TextureAccessError, match=r"open for writing; leave the with block"):
        two[0].close()
    del access
    gc.collect()
    with there.access(write=True):
        pass
    here.close()


# --- Wrong arguments ------------------------------------------------------------------------------


def test_wrong_pixels(two: Any) -> None:
    with two[0].create_shareable_texture(describe()).access(write=True) as view:
        for wrong in (np.zeros((7, 13), np.uint8), np.zeros((7, 13, 4), np.float32), b"abc", None):
            with pytest.raises(BufferRangeError, match=r"shape \(7, 13, 4\)"):
                view.upload(wrong)
        for place in ({"layer": 1}, {"layer": -1}, {"mip_level": 1}, {"layer": "0"}):
            with pytest.raises(BufferRangeError, match="picture"):
                view.download(**place)


def test_pixels_of_another_byte_order_are_refused(two: Any) -> None:
    texture = two[0].create_shareable_texture(describe(texture_format=TextureFormat.R32_FLOAT))
    pixels = np.ones((7, 13), np.dtype("f4").newbyteorder("S"))
    with texture.access(write=True) as view:
        with pytest.raises(BufferRangeError, match="reverse order"):
            view.upload(pixels)
        view.upload(pixels.astype(pixels.dtype.newbyteorder("=")))
        assert (view.download() == 1).all()


def test_wrong_handles(two: Any) -> None:
    one, other = two
    texture = one.create_shareable_texture(describe())
    handle = one.export_texture(texture)
    with pytest.raises(InvalidTextureHandleError):
        other.import_texture(handle, describe(width=400, height=400))
    one.release_texture_handle(handle)
    one.release_texture_handle(handle)  # the second time does nothing
    for wrong in (handle, None, 3, "handle", object()):
        with pytest.raises(InvalidTextureHandleError):
            other.import_texture(wrong, describe())
    with pytest.raises(InvalidTextureHandleError):
        other.import_buffer(handle)


def test_descriptors_are_not_copied() -> None:
    with HostTextureShareManager() as manager:
        texture = manager.create_shareable_texture(describe())
        with manager.export_texture(texture) as handle:
            for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
                with pytest.raises(OperationNotSupportedError, match="duplicate"):
                    attempt(handle.fds[0])
            with pytest.raises(OperationNotSupportedError, match="send_fds"):
                pickle.dumps(handle)


@pytest.mark.parametrize("number", [-1, 99_999, 2**70, "3", None])
def test_what_is_no_descriptor_is_refused(number: Any) -> None:
    with pytest.raises(InvalidTextureHandleError, match="no open file descriptor"):
        OwnedFd(number)


def test_things_of_another_manager(two: Any) -> None:
    one, other = two
    texture = one.create_shareable_texture(describe())
    mine = other.create_shareable_texture(describe())
    calls = [
        lambda: other.export_texture(texture),
        lambda: other.signal_texture_ready(texture),
        lambda: other.wait_for_texture(texture, 0),
    ]
    for call in calls:
        with pytest.raises(OperationNotSupportedError, match="another manager"):
            call()
    kinds = one.capabilities.semaphores & other.capabilities.semaphores
    if "timeline" in kinds:
        semaphore = one.create_semaphore("timeline")
        with (
            pytest.raises(OperationNotSupportedError, match="another manager"),
            mine.access(wait=[(semaphore, 1)]),
        ):
            pytest.fail("waited for another manager's semaphore")


def test_junk_is_refused(two: Any) -> None:
    manager = two[0]
    texture = manager.create_shareable_texture(describe())
    calls: list[Any] = [
        manager.create_shareable_texture,
        manager.export_texture,
        manager.release_texture_handle,
        manager.create_semaphore,
        manager.export_semaphore,
        manager.import_semaphore,
        manager.export_fence,
        manager.import_fence,
        manager.export_event,
        manager.import_event,
        manager.export_buffer,
        manager.import_buffer,
        manager.signal_texture_ready,
        lambda junk: manager.import_texture(junk, describe()),
        lambda junk: manager.wait_for_texture(texture, junk),
        lambda junk: texture.access(wait=[junk]).__enter__(),
        lambda junk: texture.access(wait=junk).__enter__(),
        lambda junk: texture.access(signal=[(junk, 1)]).__enter__(),
        lambda junk: manager.create_shareable_buffer(junk),
    ]
    for call in calls:
        for junk in (-1, None, 1.5, "junk", object(), [4], np.float32(2)):
            with pytest.raises(PersError):
                call(junk)
    with texture.access(write=True):
        pass


def test_a_closed_manager_says_so(two: Any) -> None:
    manager = two[0]
    texture = manager.create_shareable_texture(describe())
    buffer = manager.create_shareable_buffer(16)
    manager.close()
    manager.close()
    assert not texture.is_valid
    assert not buffer.is_valid
    with pytest.raises(TextureAccessError, match="closed with its manager"), texture.access():
        pass
    with pytest.raises(TextureAccessError, match="closed with its manager"), buffer.access():
        pass
    for call in (
        lambda: manager.create_shareable_texture(describe()),
        lambda: manager.export_texture(texture),
        lambda: manager.create_semaphore("timeline"),
        lambda: manager.create_shareable_buffer(4),
    ):
        with pytest.raises(TextureAccessError, match="manager was closed; open another"):
            call()


def test_closing_while_others_begin_accesses() -> None:
    """Either an access is under way and nothing is closed, or everything is."""
    for _ in range(30):
        manager = HostTextureShareManager()
        textures = [manager.create_shareable_texture(describe()) for _ in range(5)]
        over = threading.Event()
        thread = threading.Thread(target=use_until, args=(over, textures))
        thread.start()
        deadline = time.monotonic() + 5
        while any(texture.is_valid for texture in textures) and time.monotonic() < deadline:
            with contextlib.suppress(TextureAccessError):
                manager.close()
        over.set()
        thread.join()
        assert not any(texture.is_valid for texture in textures)


def use_until(over: threading.Event, textures: list[Any]) -> None:
    while not over.is_set():
        for texture in textures:
            with contextlib.suppress(TextureAccessError), texture.access(write=True):
                pass


@pytest.mark.parametrize("timeout_ns", ["1", None, -1, 1.5, 2**63])
def test_times_that_are_none(timeout_ns: Any) -> None:
    with pytest.raises(BufferRangeError, match="timeout_ns"):
        HostTextureShareManager(timeout_ns=timeout_ns)


def test_a_closed_texture_says_so(two: Any) -> None:
    texture = two[0].create_shareable_texture(describe())
    with texture:
        assert texture.is_valid
    texture.close()
    assert "closed" in repr(texture)
    for call in (
        lambda: texture.native_handle,
        lambda: texture.access().__enter__(),
        lambda: two[0].export_texture(texture),
        lambda: two[0].signal_texture_ready(texture),
    ):
        with pytest.raises(TextureAccessError, match="picture.*was closed"):
            call()


def test_formats_that_cannot_be_shared(two: Any) -> None:
    with pytest.raises(OperationNotSupportedError, match=r"cannot share depth24plus.*formats"):
        two[0].create_shareable_texture(describe(texture_format=TextureFormat.DEPTH24_PLUS))
    with pytest.raises(OperationNotSupportedError, match="4 samples"):
        two[0].create_shareable_texture(describe(sample_count=4))


@pytest.mark.gpu
def test_textures_that_the_device_has_not() -> None:
    with MANAGERS["webgpu"]() as manager:
        drawn = attrs.evolve(
            describe(texture_format=TextureFormat.RGBA8_SNORM),
            usage=TextureUsage.RENDER_ATTACHMENT,
        )
        for descriptor in (drawn, describe(width=40_000)):
            with pytest.raises(OperationNotSupportedError, match="no such texture.*'picture'"):
                manager.create_shareable_texture(descriptor)
        with HostTextureShareManager() as other:
            texture = other.create_shareable_texture(drawn)
            with (
                other.export_texture(texture) as handle,
                pytest.raises(OperationNotSupportedError, match="no such texture.*'picture'"),
            ):
                manager.import_texture(handle, drawn)


# --- Signals --------------------------------------------------------------------------------------


def test_ready_is_seen_once_for_each_signal(two: Any) -> None:
    here, there = shared(*two)
    with pytest.raises(WaitTimeoutError, match=r"picture.*0.001 s.*signal_texture_ready"):
        two[1].wait_for_texture(there, 1_000_000)
    two[0].signal_texture_ready(here)
    two[0].signal_texture_ready(here)
    two[1].wait_for_texture(there, 0)
    two[1].wait_for_texture(there, 0)
    with pytest.raises(WaitTimeoutError):
        two[1].wait_for_texture(there, 0)


def test_waiting_for_a_texture_ends_with_the_signal(two: Any) -> None:
    here, there = shared(*two)
    timer = threading.Timer(0.05, two[0].signal_texture_ready, [here])
    timer.start()
    two[1].wait_for_texture(there, 10_000_000_000)
    timer.join()


def test_ready_is_not_signalled_while_it_is_written(two: Any) -> None:
    texture = two[0].create_shareable_texture(describe())
    with texture.access(write=True), pytest.raises(TextureAccessError, match="open for writing"):
        two[0].signal_texture_ready(texture)


def timeline(manager: TextureShareManager) -> Any:
    if "timeline" not in manager.capabilities.semaphores:
        with pytest.raises(OperationNotSupportedError, match="cannot share timeline semaphores"):
            manager.create_semaphore("timeline")
        pytest.skip(f"{manager.capabilities.device} shares no timeline semaphores")
    return manager.create_semaphore("timeline")


def test_timelines(two: Any) -> None:
    one, other = two
    here = timeline(one)
    assert here.kind == "timeline"
    with one.export_semaphore(here) as handle:
        there = other.import_semaphore(handle)
    assert here.value == there.value == 0
    here.signal(3)
    there.wait(2, 0)
    there.wait(3, 0)
    assert there.value == 3
    with pytest.raises(WaitTimeoutError, match=r"did not reach 4 within 0.001 s, it is at 3"):
        there.wait(4, 1_000_000)
    with pytest.raises(ValidationError, match="at 3 already"):
        there.signal(3)
    there.signal(9)
    assert here.value == 9
    here.close()
    with pytest.raises(TextureAccessError, match="was closed"):
        here.signal(10)


def test_timelines_order_accesses(two: Any) -> None:
    one, other = two
    made = timeline(one)
    known = other.import_semaphore(one.export_semaphore(made))
    here, there = shared(*two)
    for frame in range(1, 6):
        with here.access(write=True, signal=[(made, frame)]) as view:
            view.upload(picture(here.descriptor, frame))
        with there.access(wait=[(known, frame)]) as view:
            np.testing.assert_array_equal(view.download(), picture(here.descriptor, frame))
    with pytest.raises(ValidationError, match="at 5 already"), here.access(signal=[(made, 5)]):
        pass
    with pytest.raises(ValidationError, match="takes binary semaphores"), here.access(wait=[made]):
        pass


def test_a_signal_that_does_not_come(two: Any) -> None:
    other = two[1]
    made = timeline(other)
    texture = other.create_shareable_texture(describe())
    start = time.monotonic()
    with (
        pytest.raises(WaitTimeoutError, match="picture"),
        texture.access(wait=[(made, 1)]) as view,
    ):
        view.download()
    assert time.monotonic() - start < 60
    made.signal(1)
    with texture.access(wait=[(made, 1)]) as view:
        assert not view.download().any()


def test_binary_semaphores(two: Any) -> None:
    one, other = two
    if "binary" not in one.capabilities.semaphores:
        with pytest.raises(OperationNotSupportedError, match="cannot share binary semaphores"):
            one.create_semaphore("binary")
        pytest.skip(f"{one.capabilities.device} shares no binary semaphores")
    here, there = shared(*two)
    made = one.create_semaphore("binary")
    known = other.import_semaphore(one.export_semaphore(made))
    for frame in range(3):
        with here.access(write=True, signal=[made]) as view:
            view.upload(picture(here.descriptor, frame))
        with there.access(wait=[known]) as view:
            np.testing.assert_array_equal(view.download(), picture(here.descriptor, frame))
    for call in (lambda: made.value, lambda: made.signal(1), lambda: made.wait(1, 0)):
        with pytest.raises(OperationNotSupportedError, match="binary semaphore has no value"):
            call()


def test_a_signal_is_not_lost_when_the_access_does_not_come_about(two: Any) -> None:
    other = two[1]
    if "binary" not in other.capabilities.semaphores:
        pytest.skip(f"{other.capabilities.device} shares no binary semaphores")
    here, there = shared(*two)
    signalled, never = (other.create_semaphore("binary") for _ in range(2))
    with there.access(signal=[signalled]):
        pass
    with here.access(write=True), pytest.raises(TextureAccessError, match="writes it"):
        there.access(wait=[signalled]).__enter__()
    if other.capabilities.hand_over == "cpu":  # a GPU's queue would wait for ever
        with pytest.raises(WaitTimeoutError):
            there.access(wait=[signalled, never]).__enter__()
    with there.access(wait=[signalled]) as view:
        view.download()


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set when somebody waits for a timeline of the host."""
    event = threading.Event()
    wait = HostTimeline.wait

    def notice(timeline: HostTimeline, value: int, timeout_ns: int) -> bool:
        event.set()
        return wait(timeline, value, timeout_ns)

    monkeypatch.setattr(HostTimeline, "wait", notice)
    return event


def test_who_waits_for_a_signal_keeps_no_thread_out(waiting: threading.Event) -> None:
    with HostTextureShareManager(timeout_ns=20_000_000_000) as manager:
        texture = manager.create_shareable_texture(describe())
        made = manager.create_semaphore("timeline")
        with ThreadPoolExecutor(1) as pool:
            with texture.access(signal=[(made, 1)]):
                late = pool.submit(read_when, texture, made)
                assert waiting.wait(20)
                manager.export_texture(texture).close()
                assert not late.done()
            assert not late.result(20).any()


def test_who_waits_for_a_signal_keeps_no_process_out(waiting: threading.Event) -> None:
    """The other side begins first, and this one can still write what that waits for."""
    with (
        HostTextureShareManager(timeout_ns=20_000_000_000) as one,
        HostTextureShareManager(timeout_ns=20_000_000_000) as other,
        ThreadPoolExecutor(1) as pool,
    ):
        here, there = shared(one, other)
        made = one.create_semaphore("timeline")
        early = pool.submit(read_when, there, other.import_semaphore(one.export_semaphore(made)))
        assert waiting.wait(20)
        with here.access(write=True, signal=[(made, 1)]) as view:
            view.upload(picture(here.descriptor, 4))
        np.testing.assert_array_equal(early.result(20), picture(here.descriptor, 4))


def read_when(texture: Any, semaphore: Any) -> Any:
    """Read a texture when a timeline is at 1."""
    with texture.access(wait=[(semaphore, 1)], timeout_ns=20_000_000_000) as view:
        return view.download()


@linux
def test_a_semaphore_may_be_closed_while_an_access_waits_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits = threading.Event()
    with HostTextureShareManager(timeout_ns=20_000_000_000) as manager:
        texture, free = (manager.create_shareable_texture(describe()) for _ in range(2))
        made = manager.create_semaphore("binary")
        same = manager.import_semaphore(manager.export_semaphore(made))
        monkeypatch.setattr(
            "pers.backends.host.sync.poll_time", lambda end: (waits.set(), poll_time(end))[1]
        )
        with ThreadPoolExecutor(1) as pool:
            access = pool.submit(texture.access(wait=[made]).__enter__)
            assert waits.wait(20)
            made.close()
            texture.close()
            with free.access(signal=[same]):
                pass
            with pytest.raises(TextureAccessError, match="was closed"):
                access.result(20)


@linux
@pytest.mark.parametrize("timeout_ns", [0, 2**63 - 1])
def test_binary_semaphores_with_odd_times(timeout_ns: int) -> None:
    with HostTextureShareManager(timeout_ns=timeout_ns) as manager:
        semaphore = manager.create_semaphore("binary")
        texture = manager.create_shareable_texture(describe())
        with texture.access(signal=[semaphore]):
            pass
        with texture.access(wait=[semaphore]):
            pass


def points(manager: TextureShareManager) -> Iterator[tuple[Any, Any]]:
    """Something to signal of each kind that there is, and how it is passed."""
    can = manager.capabilities
    for kind in sorted(can.semaphores):
        semaphore = manager.create_semaphore(kind)
        yield semaphore, semaphore if kind == "binary" else (semaphore, 3)
    if can.fences:
        fence = manager.create_fence()
        yield fence, fence


def test_a_signal_that_is_closed_in_the_block(two: Any) -> None:
    one, _ = two
    texture = one.create_shareable_texture(describe())
    for made, point in points(one):
        with (
            pytest.raises(TextureAccessError, match="closed; make another"),
            texture.access(write=True, signal=[point]),
        ):
            made.close()
        with texture.access(write=True):
            pass


def test_what_is_named_twice_is_refused(two: Any) -> None:
    one, _ = two
    texture = one.create_shareable_texture(describe())
    for made, point in points(one):
        other = (made, 2) if isinstance(point, tuple) else point
        for role in ("signal",) if isinstance(made, SharedFence) else ("wait", "signal"):
            with (
                pytest.raises(ValidationError, match=f"{role}=.*twice; pass it once"),
                texture.access(**{role: [point, other]}),
            ):
                pass
        if point is not made:
            assert made.value == 0, "nothing was signalled"


def test_fences(two: Any) -> None:
    one, other = two
    if not one.capabilities.fences:
        with pytest.raises(OperationNotSupportedError, match="cannot share fences"):
            one.create_fence()
        pytest.skip(f"{one.capabilities.device} shares no fences")
    fence = one.create_fence()
    known = other.import_fence(one.export_fence(fence))
    assert not known.is_signaled
    with pytest.raises(WaitTimeoutError, match="fence was not signalled"):
        known.wait(1_000_000)
    texture = one.create_shareable_texture(describe())
    with texture.access(write=True, signal=[fence]):
        pass
    known.wait(10_000_000_000)
    assert known.is_signaled
    fence.reset()
    assert not fence.is_signaled
    with pytest.raises(ValidationError, match="cannot wait for a fence"):
        texture.access(wait=[fence]).__enter__()


def test_events_of_the_host() -> None:
    with HostTextureShareManager() as one, HostTextureShareManager() as other:
        event = one.create_event()
        known = other.import_event(one.export_event(event))
        event.signal(2)
        known.wait(2, 0)
        texture = one.create_shareable_texture(describe())
        with texture.access(write=True, wait=[(event, 2)], signal=[(event, 7)]):
            pass
        assert known.value == 7


# --- Buffers --------------------------------------------------------------------------------------


def test_buffers(two: Any) -> None:
    one, other = two
    here = one.create_shareable_buffer(1000, "numbers")
    with one.export_buffer(here) as handle:
        there = other.import_buffer(handle, "numbers too")
    assert there.size == 1000
    data = np.arange(250, dtype=np.uint32)
    with here.access(write=True) as view:
        assert not view.download().any()
        view.upload(data)
    with there.access() as view:
        np.testing.assert_array_equal(view.download().view(np.uint32), data)
        assert view.download(offset=4, size=4).tolist() == [1, 0, 0, 0]
        with pytest.raises(BufferRangeError, match=r"numbers too.*beyond its 1000 bytes"):
            view.download(offset=999, size=2)
        with pytest.raises(TextureAccessError, match="open for reading"):
            view.upload(data)
    with pytest.raises(TextureAccessError, match="used after its access"):
        view.download()


def test_what_is_no_bytes_is_refused(two: Any) -> None:
    with two[0].create_shareable_buffer(64, "numbers").access(write=True) as view:
        for junk in (None, object(), "text", [object()], np.array([None])):
            with pytest.raises(BufferUsageError, match="shared buffer 'numbers': upload"):
                view.upload(junk)
        assert not view.download().any()


def test_dlpack() -> None:
    with HostTextureShareManager() as manager:
        buffer = manager.create_shareable_buffer(64)
        with buffer.access(write=True) as view:
            array = np.from_dlpack(view)
            array[:] = 7
        with buffer.access() as view:
            assert view.download().tolist() == [7] * 64
            with pytest.raises(TextureAccessError, match="DLPack knows no read-only memory"):
                np.from_dlpack(view)


# --- Nothing stays behind -------------------------------------------------------------------------


@linux
def test_a_thousand_cycles_leave_nothing(two: Any) -> None:
    one, other = two

    def cycle() -> None:
        texture = one.create_shareable_texture(describe())
        handle = one.export_texture(texture)
        imported = other.import_texture(handle, describe())
        other.release_texture_handle(handle)
        imported.close()
        texture.close()

    for _ in range(20):
        cycle()
    before = open_fds(), mappings()
    for _ in range(1000):
        cycle()
    gc.collect()
    assert (open_fds(), mappings()) == before


@linux
def test_what_is_dropped_is_freed(two: Any) -> None:
    one, other = two
    before = open_fds(), mappings()
    for _ in range(50):
        texture, imported = shared(one, other)
        one.create_shareable_buffer(100)
        with texture.access(write=True) as view:
            view.upload(picture(describe(), 1))
        del texture, imported, view
    gc.collect()
    assert (open_fds(), mappings()) == before


def test_threads(two: Any) -> None:
    """Eight threads make, share, fill and read textures of two managers."""
    one, other = two
    problems: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for turn in range(5):
                here, there = shared(one, other, width=5 + seed)
                pixels = picture(here.descriptor, 100 * seed + turn)
                with here.access(write=True) as view:
                    view.upload(pixels)
                with there.access() as view:
                    np.testing.assert_array_equal(view.download(), pixels)
                here.close()
                there.close()
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


# --- A render device's own textures ---------------------------------------------------------------


def test_a_pass_draws_to_a_shared_texture(device: IRenderDevice) -> None:
    """To each layer of each level, and the other side sees just what was drawn in the access."""
    descriptor = attrs.evolve(
        describe(8, 8, layers=2, mip_levels=2),
        usage=TextureUsage.RENDER_ATTACHMENT | TextureUsage.COPY_SRC,
    )
    with open_share_manager(device) as here, HostTextureShareManager() as there:
        texture = here.create_shareable_texture(descriptor)
        with here.export_texture(texture) as handle:
            other = there.import_texture(handle, descriptor)
        with texture.access(write=True) as view:
            encoder = device.create_command_encoder("shades")
            for level, layer in ((0, 0), (0, 1), (1, 1)):
                place = RenderTarget(view.native_handle, level, layer)
                frame = device.create_frame_buffer_from([place])
                with encoder.begin_render_pass(frame, clear_color=(layer, level, 1.0, 1.0)):
                    pass
            device.queue.submit([encoder.finish()])
        with other.access() as view:
            assert (view.download() == (0, 0, 255, 255)).all()
            assert (view.download(layer=1) == (255, 0, 255, 255)).all()
            assert (view.download(layer=1, mip_level=1) == (255, 255, 255, 255)).all()
            assert not view.download(mip_level=1).any()


# --- Which manager --------------------------------------------------------------------------------


def test_the_best_manager_is_taken() -> None:
    with open_share_manager() as manager:
        assert manager.capabilities.backend == "vulkan"
        assert manager.choice.startswith("vulkan, which shares without a copy")
    with open_device("null") as device, open_share_manager(device) as manager:
        assert manager.capabilities.backend == "webgpu"
    with open_share_manager(backend="host") as manager:
        assert manager.capabilities.backend == "host"
        assert manager.choice == "host was asked for"


def test_wrong_choices_of_a_manager() -> None:
    with pytest.raises(BackendUnavailableError, match="choose auto or one of vulkan"):
        open_share_manager(backend="opengl")
    with pytest.raises(ValidationError, match="pass one"):
        open_share_manager(backend="webgpu")
    with open_device("null") as device, pytest.raises(ValidationError, match="pass none"):
        open_share_manager(device, "host")


# --- Memory that somebody sent --------------------------------------------------------------------


def test_memory_that_could_be_cut_off_is_refused() -> None:
    import os

    with HostTextureShareManager() as manager:
        texture = manager.create_shareable_texture(describe())
        good = manager.export_texture(texture)
        assert isinstance(good, HostTextureHandle)
        soft = os.memfd_create("soft")
        os.ftruncate(soft, good.size)
        handle = HostTextureHandle(soft, good.size, good.control)
        with pytest.raises(InvalidTextureHandleError, match="could be cut off"):
            manager.import_texture(handle, describe())


def test_memory_that_is_too_small_is_refused() -> None:
    with HostTextureShareManager() as manager:
        small = manager.create_shareable_buffer(16)
        large = manager.export_texture(manager.create_shareable_texture(describe()))
        assert isinstance(large, HostTextureHandle)
        memory: Any = manager.export_buffer(small)
        handle = HostTextureHandle(memory.fd, large.size, large.control)
        with pytest.raises(InvalidTextureHandleError, match="16 bytes where"):
            manager.import_texture(handle, describe())
        pipe, end = __import__("os").pipe()
        for wrong in (pipe, end):
            handle = HostTextureHandle(wrong, large.size, large.control)
            with pytest.raises(InvalidTextureHandleError):
                manager.import_texture(handle, describe())
