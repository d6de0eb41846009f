"""The calls of moderngl and slangpy that do the same as a call of WebGPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from benchmarks.core import MODERNGL, SLANGPY, Contender, Entrant, Missing, WrongContentError
from benchmarks.lab import SLANGPY_DRAWS
from benchmarks.payload import Payload, expect_equal
from benchmarks.peers.moderngl_peer import ModernGL
from benchmarks.peers.slangpy_peer import SlangPy

__all__ = ["ModernGLCalls", "SlangPyCalls"]

Work = Callable[[], None]


def _nothing() -> None:
    pass


class ModernGLCalls:
    """moderngl: OpenGL carries out at once what WebGPU records."""

    WITHOUT: ClassVar[dict[str, str]] = {
        "empty encoder + submit": "OpenGL has no command buffers",
        "submit + wait": "OpenGL has no command buffers",
        "compute pass": "OpenGL has no compute passes",
    }

    def __init__(self, peer: ModernGL, calls: int, small: int, contents: int, side: int) -> None:
        self._context, self._calls, self._small, self._side = peer.context, calls, small, side
        self._payload = Payload(contents)
        self._source = peer.context.buffer(self._payload.words)
        self._target = peer.context.buffer(reserve=contents, dynamic=True)
        self._texture = peer.context.texture((side, side), 4)
        self._frame = peer.context.framebuffer(color_attachments=[self._texture])
        self._made: list[Any] = []
        self._shade = 0

    def entrant(self, call: str) -> Entrant:
        """Return what takes part in a call."""
        reserve = lambda: self._context.buffer(reserve=self._small)  # noqa: E731
        filled = lambda: self._context.buffer(self._payload.words)  # noqa: E731
        match call:
            case "create_buffer" | "DeviceBuffer":
                return self._make("context.buffer", reserve, self._small)
            case "from_array 4 KiB":
                return self._make("context.buffer with data", filled, self._payload.nbytes)
            case "write_buffer 256 B":
                return self._contender("buffer.write", self._write, self._check)
            case "copy 256 B":
                return self._contender("copy_buffer", self._copy, self._check, self._fill_source)
            case "render pass":
                return self._contender("use, clear", self._clear, self._check_shade, self._darken)
            case _:
                return Missing(MODERNGL, self.WITHOUT[call])

    def close(self) -> None:
        """Give everything back."""
        for thing in (self._source, self._target, self._frame, self._texture):
            thing.release()

    def _contender(
        self, road: str, run: Work, check: Work, prepare: Work | None = None
    ) -> Contender:
        prepare = prepare or self._payload.change_pages
        return Contender(MODERNGL, road, run, check, prepare, per=self._calls)

    def _make(self, road: str, make: Callable[[], Any], size: int) -> Contender:
        def run() -> None:
            for _ in range(self._calls):
                self._made.append(make())

        def check() -> None:
            _check_made(self._made, self._calls, size)
            if size == self._payload.nbytes:
                for buffer in self._made[:: max(1, self._calls // 4)]:
                    self._payload.check(buffer.read())

        def release() -> None:
            for buffer in self._made:
                buffer.release()
            self._made.clear()

        return Contender(MODERNGL, road, run, check, self._payload.change_pages, release,
                         per=self._calls)  # fmt: skip

    def _write(self) -> None:
        write, small, data = self._target.write, self._small, self._payload.words.view(np.uint8)
        for number in range(self._calls):
            start = number * small % len(data)
            write(data[start : start + small], offset=start)

    def _fill_source(self) -> None:
        self._payload.change_pages()
        self._source.write(self._payload.words)

    def _copy(self) -> None:
        copy, target, source = self._context.copy_buffer, self._target, self._source
        small, size = self._small, self._payload.nbytes
        for number in range(self._calls):
            start = number * small % size
            copy(target, source, small, read_offset=start, write_offset=start)

    def _check(self) -> None:
        if self._calls * self._small >= self._payload.nbytes:
            self._payload.check(self._target.read())

    def _darken(self) -> None:
        self._shade = (self._shade + 1) % 256

    def _clear(self) -> None:
        frame, shade = self._frame, self._shade / 255
        for _ in range(self._calls):
            frame.use()
            frame.clear(shade, 0.0, 0.0, 1.0)

    def _check_shade(self) -> None:
        wanted = np.empty((self._side, self._side, 4), np.uint8)
        wanted[:] = (self._shade, 0, 0, 255)
        found = np.frombuffer(self._frame.read(components=4), np.uint8)
        expect_equal(found.reshape(wanted.shape), wanted)


class SlangPyCalls:
    """slangpy, whose encoders and submits are like those of WebGPU."""

    WITHOUT: ClassVar[dict[str, str]] = {
        "write_buffer 256 B": "its queue writes nothing by itself; upload-packs has its uploads",
        "render pass": SLANGPY_DRAWS,
        "compute pass": SLANGPY_DRAWS,
    }

    def __init__(self, peer: SlangPy, calls: int, small: int, contents: int) -> None:
        self._peer, self._device, self._calls, self._small = peer, peer.device, calls, small
        self._payload = Payload(contents)
        self._source, self._target = peer.buffer(contents), peer.buffer(contents)
        self._made: list[Any] = []
        self._encoder: Any = None

    def entrant(self, call: str) -> Entrant:
        """Return what takes part in a call."""
        calls = self._calls
        match call:
            case "create_buffer" | "DeviceBuffer":
                return self._make("create_buffer", lambda: self._peer.buffer(self._small))
            case "from_array 4 KiB":
                return self._make("create_buffer with data", self._filled)
            case "copy 256 B":
                return Contender(SLANGPY, "copy_buffer", self._copy, self._check_copies,
                                 self._fill_source, per=calls)  # fmt: skip
            case "empty encoder + submit":
                return Contender(SLANGPY, "encoder, submit_command_buffer", self._submit,
                                 self._peer.wait, per=calls)  # fmt: skip
            case "submit + wait":
                return Contender(SLANGPY, "encoder, submit_command_buffer, wait_for_idle",
                                 self._submit_and_wait, _nothing, per=calls)  # fmt: skip
            case _:
                return Missing(SLANGPY, self.WITHOUT[call])

    def _filled(self) -> Any:
        return self._peer.buffer_with(self._payload.words)

    def _make(self, road: str, make: Callable[[], Any]) -> Contender:
        has_contents = make == self._filled
        size = self._payload.nbytes if has_contents else self._small

        def run() -> None:
            for _ in range(self._calls):
                self._made.append(make())

        def check() -> None:
            _check_made(self._made, self._calls, size)
            if has_contents:
                for buffer in self._made[:: max(1, self._calls // 4)]:
                    self._payload.check(buffer.to_numpy())

        return Contender(SLANGPY, road, run, check, self._payload.change_pages, self._made.clear,
                         per=self._calls)  # fmt: skip

    def _fill_source(self) -> None:
        self._payload.change_pages()
        self._peer.upload(self._source, 0, self._payload.words.view(np.uint8))
        self._peer.wait()
        self._encoder = self._device.create_command_encoder()

    def _copy(self) -> None:
        copy, target, source = self._encoder.copy_buffer, self._target, self._source
        small, size = self._small, self._payload.nbytes
        for number in range(self._calls):
            start = number * small % size
            copy(target, start, source, start, small)

    def _check_copies(self) -> None:
        self._device.submit_command_buffer(self._encoder.finish())
        self._peer.wait()
        if self._calls * self._small >= self._payload.nbytes:
            self._payload.check(self._target.to_numpy())

    def _submit(self) -> None:
        device = self._device
        for _ in range(self._calls):
            device.submit_command_buffer(device.create_command_encoder().finish())

    def _submit_and_wait(self) -> None:
        device, wait = self._device, self._peer.wait
        for _ in range(self._calls):
            device.submit_command_buffer(device.create_command_encoder().finish())
            wait()


def _check_made(made: list[Any], count: int, size: int) -> None:
    if [buffer.size for buffer in made] != [size] * count:
        raise WrongContentError(f"{len(made)} buffers, not all of {size} bytes")
