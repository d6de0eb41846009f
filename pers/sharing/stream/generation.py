"""The textures of a stream between two changes of size."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import ExitStack

import attrs

from pers.graphics.types import TextureDescriptor
from pers.sharing.handles import TextureHandle
from pers.sharing.interfaces import SharedSemaphore, SharedTexture, TextureShareManager
from pers.sharing.ipc.wire import Textures

__all__ = ["Generation", "Imported", "Slots"]


class Slots:
    """Which of a few textures to write next. Knows only numbers.

    Args:
        count: How many there are.
    """

    def __init__(self, count: int) -> None:
        self._frames = [0] * count

    def candidates(self, held: Collection[int]) -> list[int]:
        """Return the slots that may be written, the best first.

        That with the oldest frame is the best: a late reader has the most time to open the newest.
        """
        free = (slot for slot in range(len(self._frames)) if slot not in held)
        return sorted(free, key=lambda slot: self._frames[slot])

    def set_frame(self, slot: int, number: int) -> None:
        """Note which frame a slot holds."""
        self._frames[slot] = number


class Generation:
    """The publisher's textures of one size and format.

    Args:
        number: Counts from 1.
        descriptor: What they are.
        manager: Makes them.
        buffers: How many.
    """

    def __init__(
        self, number: int, descriptor: TextureDescriptor, manager: TextureShareManager, buffers: int
    ) -> None:
        self.number = number
        self.descriptor = descriptor
        self.slots = Slots(buffers)
        self._manager = manager
        self.textures: list[SharedTexture] = []
        try:
            for _ in range(buffers):
                self.textures.append(manager.create_shareable_texture(descriptor))
        except BaseException:
            self.close()
            raise

    def export(self, semaphore: SharedSemaphore | None) -> Textures:
        """Return the message that opens them to one subscriber; close it when it is sent."""
        with ExitStack() as undo:
            handles: list[TextureHandle] = []
            for texture in self.textures:
                handles.append(self._manager.export_texture(texture))
                undo.callback(handles[-1].close)
            signal = self._manager.export_semaphore(semaphore) if semaphore else None
            if signal:
                undo.callback(signal.close)
            message = Textures(self.number, self.descriptor, tuple(handles), signal)
            undo.pop_all()
            return message

    def close(self) -> None:
        """Close the textures; the memory lives on with the subscribers that have opened it."""
        for texture in self.textures:
            texture.close()


@attrs.frozen(eq=False)
class Imported:
    """A subscriber's side of a generation.

    Attributes:
        number: Of the generation.
        textures: One for each slot.
        semaphore: The publisher's timeline; None with CPU hand-over.
    """

    number: int
    textures: tuple[SharedTexture, ...]
    semaphore: SharedSemaphore | None

    @classmethod
    def open(cls, manager: TextureShareManager, message: Textures) -> Imported:
        """Import what a message holds; the message stays the caller's."""
        with ExitStack() as undo:
            textures: list[SharedTexture] = []
            for handle in message.handles:
                textures.append(manager.import_texture(handle, message.descriptor))
                undo.callback(textures[-1].close)
            semaphore = manager.import_semaphore(message.semaphore) if message.semaphore else None
            undo.pop_all()
            return cls(message.generation, tuple(textures), semaphore)

    def close(self) -> None:
        """Close all of it."""
        for texture in self.textures:
            texture.close()
        if self.semaphore is not None:
            self.semaphore.close()
