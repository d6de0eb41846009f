"""A map that was asked for and is not awaited yet."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any

from pers.buffers import IMappableBuffer, MappedRange


class StartedMap:
    """A call of `map_async` up to where it waits; await it for the rest.

    What JavaScript does with a promise. `map_async` gives others a turn before it looks for the
    end of the map, so the map is pending on any backend, however fast.
    """

    def __init__(self, buffer: IMappableBuffer, call: Coroutine[Any, Any, MappedRange]) -> None:
        """Start the call. Raises what it raises at once.

        Args:
            buffer: The buffer that is mapped.
            call: A call of its `map_async`.
        """
        self._call = call
        try:
            self._wait = call.send(None)
        except StopIteration:
            raise AssertionError(f"{buffer}: map_async gave nobody else a turn") from None
        assert buffer.is_map_pending, f"{buffer}: not pending after map_async has begun"

    def __await__(self) -> Generator[Any, Any, MappedRange]:
        try:
            while True:
                try:
                    answer = yield self._wait
                except BaseException as error:
                    self._wait = self._call.throw(error)
                else:
                    self._wait = self._call.send(answer)
        except StopIteration as end:
            mapped: MappedRange = end.value
            return mapped

    def close(self) -> None:
        """Give up the map, if it has not ended."""
        self._call.close()
