"""Rules for textures and passes, as far as they move bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from pers.buffers import BufferState, BufferUsage, IBuffer, MapMode
from pers.graphics import IComputePass, IQuerySet, IRenderPass, TextureDescriptor
from pers.testing.property.loop import Outcome
from pers.testing.property.oracle import (
    INVALID,
    LOST,
    MEMORY,
    NO_ERRORS,
    RANGE,
    ROW_PITCH,
    STATE,
    TEXTURE_ROW,
    BufferModel,
    CommandsModel,
    Errors,
    Fill,
    TextureModel,
    row_copies,
    whole,
)
from pers.testing.property.rules.base import step, unpadded
from pers.testing.property.rules.belts import Upload
from pers.testing.property.rules.dynamic import DynamicRules
from pers.testing.property.rules.values import FAULT, OFFSETS, WHICH
from pers.testing.property.rules.work import READBACK
from pers.textures import ITexture, TexelCopyBufferInfo, TextureFormat, TextureUsage

WIDTH = TEXTURE_ROW // 4
COPY = TextureUsage.COPY_SRC | TextureUsage.COPY_DST
PITCHES: st.SearchStrategy[Any] = st.sampled_from(
    [None] * 10 + [ROW_PITCH] * 4 + [2 * ROW_PITCH, 0, 128, -256, "256"]
)
QUERIES = 4
QUERY_TARGET = BufferUsage.QUERY_RESOLVE | BufferUsage.COPY_SRC
BIG_ENOUGH = 2 * ROW_PITCH


@attrs.define(eq=False)
class Image:
    """A texture that the test holds."""

    handle: ITexture
    model: TextureModel
    frame: Any = None
    """The frame buffer it belongs to, if it does."""


@attrs.define(eq=False)
class Pass:
    """A pass that the test holds."""

    handle: IRenderPass | IComputePass
    commands: CommandsModel
    ended: bool = False


class TextureRules(DynamicRules):
    """Every call that moves bytes from or to textures."""

    def __init__(self) -> None:
        self.images: list[Image] = []
        self.passes: list[Pass] = []
        self.queries: tuple[IQuerySet, object] | None = None
        super().__init__()

    @step(
        rows=st.sampled_from([1, 1, 2]),
        usage=st.sampled_from([COPY] * 6 + [TextureUsage.COPY_DST, TextureUsage.TEXTURE_BINDING]),
        fault=FAULT,
    )
    def create_texture(self, rows: int, usage: TextureUsage, fault: bool) -> None:
        self._create_texture(rows, usage, fault)

    def _create_texture(self, rows: int, usage: TextureUsage, fault: bool) -> None:
        name = self.name("texture")
        descriptor = TextureDescriptor(WIDTH, rows, TextureFormat.RGBA8_UNORM, usage, name)
        self._create_image(
            name, rows, lambda: self.device.create_texture(descriptor), lambda made: made, fault
        )

    @step(rows=st.sampled_from([1, 1, 2]), fault=FAULT)
    def create_frame_buffer(self, rows: int, fault: bool) -> None:
        self._create_frame_buffer(rows, fault)

    def _create_frame_buffer(self, rows: int, fault: bool) -> None:
        name = self.name("frame")
        formats = (TextureFormat.RGBA8_UNORM,)
        self._create_image(
            name,
            rows,
            lambda: self.device.create_frame_buffer(WIDTH, rows, formats, label=name),
            lambda made: made.color_textures[0],
            fault,
        )

    def _create_image(
        self,
        name: str,
        rows: int,
        make: Callable[[], Any],
        texture_of: Callable[[Any], ITexture],
        fault: bool,
    ) -> None:
        errors = self.lost_errors()
        fault = fault and not errors and self.faults is not None
        if fault and self.faults is not None:
            self.faults.fail_next_allocations()
        outcome = self.call_keeping(make)
        if self.expect(f"create {name}", outcome, MEMORY if fault else errors):
            made, self.kept = self.kept, None
            texture = texture_of(made)
            model = self.oracle.create_texture(name, rows, texture.usage)
            self.hold(self.images, Image(texture, model, None if made is texture else made), 4)

    def _image(self, which: int, usage: TextureUsage = COPY) -> Image | None:
        """Return a texture, mostly one with the usage; makes one where none is alive."""

        def fits(image: Image) -> bool:
            alive = image.model.state is BufferState.READY
            return alive and bool(image.model.texture_usage & usage)

        if not self.oracle.lost and not any(map(fits, self.images)):
            self._create_texture(1 + which % 2, COPY, fault=False)
        return self.choose(self.images, which, fits)

    def _roomy(self, which: int, usage: BufferUsage) -> Any:
        """Return a buffer that a texture fits into; makes one where there is none."""
        both = BufferUsage.COPY_SRC | BufferUsage.COPY_DST

        def fits(held: Any) -> bool:
            model = held.model
            return (
                bool(model.usage & usage)
                and model.state is BufferState.READY
                and model.size >= BIG_ENOUGH
            )

        if not any(map(fits, self.buffers)):
            self._create(BIG_ENOUGH, both, mapped=False, mappable=False, fault=False)
        return self.choose(self.buffers, which, fits)

    # Copies

    @step(which=WHICH, image=WHICH, buffer=WHICH, offset=OFFSETS, pitch=PITCHES, back=st.booleans())
    def copy_pixels(
        self, which: int, image: int, buffer: int, offset: Any, pitch: Any, back: bool
    ) -> None:
        needed = BufferUsage.COPY_DST if back else BufferUsage.COPY_SRC
        texture_usage = TextureUsage.COPY_SRC if back else TextureUsage.COPY_DST
        held, chosen = self._image(image, texture_usage), self.encoder(which)
        other = self._roomy(buffer, needed)
        if held is None or chosen is None or other is None:
            return
        encoder, commands = chosen
        texture, goal, handle, model = held.handle, held.model, other.handle, other.model
        errors = self.recording_errors(commands)
        errors |= commands.home.texture_errors(goal, texture_usage)
        errors |= commands.home.pixels_errors(model, needed, offset, pitch, goal.rows)

        def record() -> None:
            place = TexelCopyBufferInfo(handle, offset, pitch)
            if back:
                encoder.copy_texture_to_buffer(texture, place)
            else:
                encoder.copy_buffer_to_texture(place, texture)

        outcome = self.call(record)
        if self.expect(f"copy pixels of {goal.name} and {model.name}", outcome, errors):
            there = (model, offset, ROW_PITCH if pitch is None else pitch)
            here = (goal, 0, TEXTURE_ROW)
            steps = (here, there) if back else (there, here)
            for copy in row_copies(goal.rows, *steps[0], *steps[1]):
                commands.record(copy, model, goal)

    @step(which=WHICH, source=WHICH, into=WHICH)
    def copy_textures(self, which: int, source: int, into: int) -> None:
        origin = self._image(source, TextureUsage.COPY_SRC)
        end = self._image(into, TextureUsage.COPY_DST)
        chosen = self.encoder(which)
        if origin is None or end is None or chosen is None:
            return
        encoder, commands = chosen
        a, b = origin.model, end.model
        if a is b:
            return
        errors = self.recording_errors(commands)
        errors |= commands.home.texture_errors(a, TextureUsage.COPY_SRC)
        errors |= commands.home.texture_errors(b, TextureUsage.COPY_DST)
        errors |= RANGE if a.rows > b.rows else NO_ERRORS
        first, second = origin.handle, end.handle
        outcome = self.call(lambda: encoder.copy_texture_to_texture(first, second))
        if self.expect(f"copy {a.name} to {b.name}", outcome, errors):
            for copy in row_copies(a.rows, a, 0, TEXTURE_ROW, b, 0, TEXTURE_ROW):
                commands.record(copy, a, b)

    @step(image=WHICH, form=st.sampled_from(["right"] * 8 + ["flat", "words"]))
    def write_texture(self, image: int, form: str) -> None:
        held = self._image(image, TextureUsage.COPY_DST)
        if held is None:
            return
        texture, model = held.handle, held.model
        data, value, errors = self._pixels(model, form)
        errors |= self.oracle.texture_errors(model, TextureUsage.COPY_DST)
        outcome = self.call(lambda: self.device.queue.write_texture(texture, value))
        if self.expect(f"write_texture to {model.name}", outcome, errors):
            self.uploads_go_first(submits=False)
            self.oracle.write(model, 0, data)

    def _pixels(self, model: TextureModel, form: str) -> tuple[bytes, npt.NDArray[Any], Errors]:
        data = self.fresh(model.size)
        value = np.frombuffer(data, np.uint8).reshape(model.rows, WIDTH, 4)
        if form == "flat":
            return data, value.reshape(-1, 4), RANGE
        if form == "words":
            return data, value.view(np.uint32), RANGE
        return data, value, NO_ERRORS

    @step(
        which=WHICH,
        image=WHICH,
        form=st.sampled_from(["right"] * 8 + ["flat", "words"]),
        way=st.sampled_from(["upload", "try", "async", "async", "device", "gives up"]),
        recorded=st.booleans(),
    )
    def upload_pixels(self, which: int, image: int, form: str, way: str, recorded: bool) -> None:
        held = self._image(image, TextureUsage.COPY_DST)
        if held is None:
            return
        chosen = self.encoder(which) if recorded and way != "device" else None
        encoder, commands = chosen or (None, None)
        data, value, errors = self._pixels(held.model, form)
        belt = self.device.belt
        upload = Upload(belt, way, value, data, held.model, 0, encoder, commands)
        self._upload(upload, held.handle, errors | self._upload_errors(upload))

    # Staging and reading back

    @step(which=WHICH, encoder=WHICH, image=WHICH, start=OFFSETS)
    def upload_staging_to_texture(self, which: int, encoder: int, image: int, start: Any) -> None:
        staging = self._held(which, lambda held: held.model.size >= BIG_ENOUGH)
        held, chosen = self._image(image, TextureUsage.COPY_DST), self.encoder(encoder)
        if staging is None or held is None or chosen is None:
            return
        recorder, commands = chosen
        handle, texture, goal = staging.handle, held.handle, held.model
        if staging.model.mapping is not None and whole(start) is not None:
            self._write_pixels(staging.handle, staging.model, texture, goal, start)
        outcome = self.call(lambda: handle.upload_to(recorder, texture, source_offset=start))
        if outcome.error is None or handle.state is BufferState.READY:
            self._unmap_staging(staging)
        errors = self.recording_errors(commands)
        errors |= commands.home.texture_errors(goal, TextureUsage.COPY_DST)
        source = staging.model
        errors |= commands.home.pixels_errors(source, BufferUsage.COPY_SRC, start, None, goal.rows)
        if self.expect(f"upload {source.name} to {goal.name}", outcome, errors):
            for copy in row_copies(goal.rows, source, start, ROW_PITCH, goal, 0, TEXTURE_ROW):
                commands.record(copy, source, goal)

    def _write_pixels(
        self, handle: Any, source: BufferModel, texture: ITexture, goal: TextureModel, start: int
    ) -> None:
        data, value, _ = self._pixels(goal, "right")
        errors = LOST | STATE if source.home.lost else NO_ERRORS
        if start + goal.rows * ROW_PITCH > source.size:
            errors |= RANGE
        outcome = self.call(lambda: handle.write_pixels(value, texture, start))
        if self.expect(f"write_pixels to {source.name}", outcome, errors):
            assert source.mapping is not None
            for row in range(goal.rows):
                part = data[row * TEXTURE_ROW : (row + 1) * TEXTURE_ROW]
                source.mapping.whole_range().write(start + row * ROW_PITCH, part)

    @step(which=WHICH, encoder=WHICH, image=WHICH)
    def copy_texture_to_readback(self, which: int, encoder: int, image: int) -> None:
        held, chosen = self._image(image, TextureUsage.COPY_SRC), self.encoder(encoder)
        if not self.oracle.lost and not any(
            each.model.size >= BIG_ENOUGH for each in self.readbacks
        ):
            self._create_readback(BIG_ENOUGH, fault=False)
        readback = self.choose(self.readbacks, which, lambda each: each.model.size >= BIG_ENOUGH)
        if held is None or chosen is None or readback is None:
            return
        handle, recorder, commands = readback.handle, chosen[0], chosen[1]
        texture, source, old, before = held.handle, held.model, readback.model, handle.inner
        busy = old.pending is not None or old.mapping is not None
        outcome = self.call(lambda: handle.copy_from(recorder, texture))
        inner = handle.inner
        if all(buffer is not inner for buffer, _ in readback.slots):
            readback.slots.append((inner, self.oracle.create(old.name, old.size, READBACK)))
        target = readback.model
        errors = self.recording_errors(commands)
        errors |= commands.home.texture_errors(source, TextureUsage.COPY_SRC)
        errors |= commands.home.pixels_errors(target, BufferUsage.COPY_DST, 0, None, source.rows)
        errors |= RANGE if source.rows * ROW_PITCH > old.size else NO_ERRORS
        if busy and self.oracle.lost:
            errors |= self.lost_errors()
        if self.expect(f"copy {source.name} to {old.name}", outcome, errors):
            for copy in row_copies(source.rows, source, 0, TEXTURE_ROW, target, 0, ROW_PITCH):
                commands.record(copy, source, target)
            readback.length, readback.rows = source.size, source.rows
        else:
            self.check(inner is before, handle, "reads from other memory after", outcome)

    @step(image=WHICH, how=st.sampled_from(["block", "await", "await", "timeout", "fault"]))
    def read_texture(self, image: int, how: str) -> None:
        held = self._image(image, TextureUsage.COPY_SRC)
        if held is None:
            return
        texture, model = held.handle, held.model
        errors = self.oracle.texture_errors(model, TextureUsage.COPY_SRC)
        what = f"read_array of {model.name}"
        if errors:
            refused = self.call(lambda: self.device.read_array_blocking(texture))
            self.expect(what, refused, errors)
            self.after_refused_submit()
            return
        if how == "block":
            outcome = self.call_blocking(lambda: self.device.read_array_blocking(texture))
            array, outcome.value = outcome.value, None
            pending = self._texture_read_begun(model)
            self.waited(pending)
            if self.expect(what, outcome, NO_ERRORS):
                self.compare_bytes(what, array, model.contents)
            self.oracle.forget(pending.buffer)
            return
        fails = how == "fault" and self.faults is not None
        gives_up = how == "timeout"
        if self.faults is not None and fails:
            self.faults.fail_next_maps()
        pending = self._texture_read_begun(model, fails=fails)
        self.start(
            what,
            lambda: self.device.read_array(texture),
            lambda outcome: self._texture_read_ended(what, pending, model.rows, outcome),
            cancelled=gives_up,
            must_end=lambda: gives_up or pending.ended,
            may_end=lambda: True if self.clock is None else gives_up or pending.ended,
        )

    def _texture_read_begun(self, model: TextureModel, *, fails: bool = False) -> Any:
        self.uploads_go_first()
        slot = self.oracle.create("slot", model.rows * ROW_PITCH, READBACK)
        commands = CommandsModel(self.oracle)
        for copy in row_copies(model.rows, model, 0, TEXTURE_ROW, slot, 0, ROW_PITCH):
            commands.record(copy, model, slot)
        self.submitted(None, self.oracle.submit([commands]))
        return self.oracle.begin_map(slot, MapMode.READ, 0, None, fails=fails)

    def _texture_read_ended(self, what: str, pending: Any, rows: int, outcome: Outcome) -> None:
        slot = pending.buffer
        if not outcome.cancelled:
            if self.clock is None:
                self.oracle.ended([pending])
            errors = NO_ERRORS if pending.error is None else frozenset({pending.error})
            if self.expect(what, outcome, errors, LOST if slot.home.lost else NO_ERRORS):
                array, outcome.value = outcome.value, None
                self.compare_bytes(what, array, unpadded(pending.mapping.memory, rows))
                window = pending.mapping.whole_range().open_window(slot.size)
                self.hold_view(array, window, 0, rows)
        slot.home.forget(slot)

    # Passes

    @step(which=WHICH, frame=WHICH, color=st.sampled_from([None, 0, 0, 17, 200, 255]))
    def clear_in_a_pass(self, which: int, frame: int, color: int | None) -> None:
        held = self._frame(frame)
        chosen = self.encoder(which)
        if held is None or chosen is None:
            return
        encoder, commands = chosen
        value = None if color is None else (color / 255, 0.0, 1.0, color / 255)
        errors = self.recording_errors(commands)
        errors |= commands.home.texture_errors(held.model, TextureUsage.RENDER_ATTACHMENT)
        target = held.frame
        outcome = self.call_keeping(lambda: encoder.begin_render_pass(target, clear_color=value))
        if self.expect(f"begin_render_pass to {held.model.name}", outcome, errors):
            self._begun(commands)
            commands.used.add(held.model)
            if color is not None:
                data = bytes([color, 0, 255, color]) * (held.model.size // 4)
                commands.record(Fill(held.model, 0, data), held.model)

    @step(which=WHICH)
    def begin_compute_pass(self, which: int) -> None:
        chosen = self.encoder(which)
        if chosen is None:
            return
        encoder, commands = chosen
        outcome = self.call_keeping(encoder.begin_compute_pass)
        if self.expect("begin_compute_pass", outcome, self.recording_errors(commands)):
            self._begun(commands)

    def _begun(self, commands: CommandsModel) -> None:
        commands.open_pass = True
        self.hold(self.passes, Pass(self.kept, commands), 4)
        self.kept = None

    @step(which=WHICH)
    def end_pass(self, which: int) -> None:
        held = self.choose(self.passes, which, lambda each: not each.ended)
        if held is None:
            return
        handle = held.handle
        lost = LOST if held.commands.home.lost else NO_ERRORS
        errors = INVALID if held.ended else NO_ERRORS
        if self.expect("end a pass", self.call(handle.end), errors, lost | INVALID):
            self.check(not held.ended, "a pass ended twice")
        if not held.ended:
            held.ended, held.commands.open_pass = True, False

    def _frame(self, which: int) -> Image | None:
        def fits(image: Image) -> bool:
            return image.frame is not None and image.model.state is BufferState.READY

        if not self.oracle.lost and not any(map(fits, self.images)):
            self._create_frame_buffer(1 + which % 2, fault=False)
        frames = [image for image in self.images if image.frame is not None]
        return self.choose(frames, which, fits)

    @step(
        which=WHICH,
        buffer=WHICH,
        first=st.sampled_from([0, 0, 1, 3, 4, -1]),
        count=st.sampled_from([0, 1, 2, 4, 5, None]),
        offset=st.sampled_from([0, 0, 0, 256, 8, 512, -256, None]),
    )
    def resolve_queries(self, which: int, buffer: int, first: int, count: Any, offset: Any) -> None:
        chosen = self.encoder(which)
        target = self._query_target(buffer)
        queries = self._query_set()
        if chosen is None or target is None or queries is None:
            return
        encoder, commands = chosen
        handle, model = target.handle, target.model
        errors = self.recording_errors(commands)
        if queries[1] is not commands.home:
            errors |= INVALID
        errors |= commands.home.use_errors(model, BufferUsage.QUERY_RESOLVE)
        begin, number, start = whole(first), whole(count), whole(offset)
        if begin is None or number is None or begin + number > QUERIES:
            errors |= INVALID
        if start is None or start % 256 or start + 8 * (number or 0) > model.size:
            errors |= RANGE
        outcome = self.call(
            lambda: encoder.resolve_query_set(queries[0], first, count, handle, offset)
        )
        if self.expect(f"resolve queries to {model.name}", outcome, errors):
            data = bytes(8 * count)
            commands.record(Fill(model, offset, data), model, idle=not count)

    def _query_set(self) -> tuple[IQuerySet, object] | None:
        if not self.oracle.lost and (self.queries is None or self.queries[1] is not self.oracle):
            queries = self.call(lambda: self.device.create_query_set("occlusion", QUERIES)).value
            self.queries = None if queries is None else (queries, self.oracle)
            self._zeroed()
        return self.queries

    def _zeroed(self) -> None:
        """Making a query set may submit work of its own, which takes time on no clock."""

    def _query_target(self, which: int) -> Any:
        def fits(held: Any) -> bool:
            usable = bool(held.model.usage & BufferUsage.QUERY_RESOLVE)
            return usable and held.model.state is BufferState.READY

        if not any(map(fits, self.buffers)):
            self._create(512, QUERY_TARGET, mapped=False, mappable=False, fault=False)
        return self.choose(self.buffers, which, fits)

    # The end

    def destroyables(self, kind: str, which: int) -> list[tuple[IBuffer, list[BufferModel]]]:
        held = self.choose(self.images, which) if kind == "texture" else None
        if held is None:
            return super().destroyables(kind, which)
        destroyed: Any = held.frame or held.handle
        return [(destroyed, [held.model])]

    def drop_one(self, kind: str, which: int) -> None:
        super().drop_one(kind, which)
        held = self.choose(self.images, which)
        if kind == "texture" and held is not None:
            self.images.remove(held)

    def compare_more(self) -> None:
        super().compare_more()
        for image in self.images:
            alive = image.model.state is not BufferState.DESTROYED
            self.check(image.handle.is_valid is alive, "is_valid of", image.handle)

    def drop_everything(self) -> None:
        self.images.clear()
        self.passes.clear()
        self.queries = None
        super().drop_everything()
