"""``MTLSharedEvent``: a counter that GPU and CPU signal and wait for."""

from __future__ import annotations

import uuid
from typing import Any

from pers.backends.metal._objc import Metal
from pers.errors import InvalidTextureHandleError, MetalApiError
from pers.sharing.handles import MetalEventHandle
from pers.sharing.native import NativeCounter

__all__ = ["MetalEvent", "import_event"]


_exported: dict[bytes, Any] = {}
"""The ``MTLSharedEventHandle`` objects of open events of this process, by the names given out."""


class MetalEvent(NativeCounter[MetalEventHandle]):
    """A shared event.

    Its handle is good in this process, for as long as the event is open: Apple's
    ``MTLSharedEventHandle`` can be coded by an XPC connection only, which `pers` has none of. To
    reach another process, send ``native_handle.newSharedEventHandle()`` over yours.

    Args:
        metal: Apple's calls.
        event: The ``MTLSharedEvent``.
    """

    def __init__(self, metal: Metal, event: Any) -> None:
        self._metal = metal
        self._event = event
        self._name = uuid.uuid4().bytes

    @property
    def native_handle(self) -> Any:
        return self._event

    def export(self) -> MetalEventHandle:
        if self._name not in _exported:
            _exported[self._name] = self._metal.event_handle(self._event)
        return MetalEventHandle(self._name)

    @property
    def value(self) -> int:
        return self._metal.event_value(self._event)

    def signal(self, value: int) -> None:
        self._metal.set_event_value(self._event, value)

    def wait(self, value: int, timeout_ns: int) -> bool:
        return self._metal.wait_event(self._event, value, -(-timeout_ns // 1_000_000))

    def destroy(self) -> None:
        _exported.pop(self._name, None)


def import_event(metal: Metal, device: Any, handle: MetalEventHandle) -> MetalEvent:
    """Open the event that a handle of this process stands for."""
    kept = _exported.get(handle.shared_event_handle)
    if kept is None:
        raise InvalidTextureHandleError(
            "the handle is of no event that is open in this process; a Metal event reaches another "
            "process through an XPC connection only: between processes, end the access without a "
            "signal and send a message"
        )
    event = metal.event_of_handle(device, kept)
    if event is None:
        raise MetalApiError(
            "newSharedEventWithHandle: returned nothing; import the event on the GPU it is of"
        )
    return MetalEvent(metal, event)
