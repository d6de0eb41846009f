"""What a `StagingBelt` tells about itself."""

from __future__ import annotations

import attrs

__all__ = ["BeltStats"]


@attrs.frozen
class BeltStats:
    """What a `StagingBelt` holds and did so far (bytes, unless it says counts).

    Three roads lead to the GPU: the queue's own write, staging memory that the GPU copies from,
    and the target's own memory. The bytes of all uploads are the sum of the bytes of the roads,
    and so are their counts.

    Attributes:
        budget: Staging memory that it may hold.
        capacity: Staging memory that it holds.
        used: The bytes of it that uploads take, until the GPU has finished with them.
        in_flight: The chunks of it that recorded or submitted copies use.
        pending: The bytes that wait for the next flush or submit.
        peak: Most `capacity` so far.
        uploaded: All bytes uploaded.
        uploads: How many uploads.
        queue_writes: How many of them went through the queue's own write.
        queue_written: Their bytes.
        staged: How many of them went through staging memory.
        staged_bytes: Their bytes.
        direct: How many of them were written to the target's own memory.
        direct_bytes: Their bytes.
        stalls: How many times one had to wait for the GPU, or for another thread's submit.
        grows: How many chunks were made.
        shrinks: How many chunks were given back.
    """

    budget: int
    capacity: int
    used: int
    in_flight: int
    pending: int
    peak: int
    uploaded: int
    uploads: int
    queue_writes: int
    queue_written: int
    staged: int
    staged_bytes: int
    direct: int
    direct_bytes: int
    stalls: int
    grows: int
    shrinks: int


class Tally:
    """Counts uploads by road."""

    def __init__(self) -> None:
        self.count = 0
        self.nbytes = 0

    def add(self, nbytes: int) -> None:
        """Count an upload."""
        self.count += 1
        self.nbytes += nbytes
