"""`FreeList` against a plain dict of what was put in."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pers.buffers.allocators.free_list import FreeList

SIZES = st.integers(1, 64)


class FreeListRules(RuleBasedStateMachine):
    """Blocks are numbers; the oracle knows the size and the age of each free one."""

    def __init__(self) -> None:
        super().__init__()
        self.free: FreeList[int] = FreeList()
        self.known: dict[int, tuple[int, int]] = {}
        self.made = self.now = 0

    @rule(size=SIZES)
    def put(self, size: int) -> None:
        self.made += 1
        self.free.put(self.made, size, self.now)
        self.known[self.made] = (size, self.now)

    @rule(steps=st.integers(1, 5))
    def time_goes_on(self, steps: int) -> None:
        self.now += steps

    @rule(nbytes=SIZES, at_most=st.none() | SIZES, take=st.booleans())
    def find(self, nbytes: int, at_most: int | None, take: bool) -> None:
        fitting = {
            block: (size, -since)
            for block, (size, since) in self.known.items()
            if nbytes <= size <= (at_most or size)
        }
        found = self.free.find(nbytes, at_most)
        if not fitting:
            assert found is None
            return
        assert found is not None
        assert fitting[found] == min(fitting.values())  # the smallest, of these the youngest
        if take:
            assert self.free.take(found) == self.known.pop(found)[0]

    @rule(age=st.integers(0, 20))
    def take_idle(self, age: int) -> None:
        limit = self.now - age
        old = {block for block, (_, since) in self.known.items() if since <= limit}
        taken = self.free.take_idle(limit)
        assert {block for block, _ in taken} == old
        for block, size in taken:
            assert self.known.pop(block)[0] == size

    @precondition(lambda self: self.known)
    @rule(nbytes=st.integers(0, 200))
    def take_largest(self, nbytes: int) -> None:
        taken = self.free.take_largest(nbytes)
        for block, size in taken:
            assert self.known.pop(block)[0] == size
        sizes = [size for _, size in taken]
        assert sum(sizes) >= nbytes or not self.known
        assert sum(sizes[:-1]) < nbytes or not sizes  # not one more than needed
        assert all(size <= min(sizes, default=size) for size, _ in self.known.values())

    @invariant()
    def sums_are_right(self) -> None:
        assert len(self.free) == len(self.known)
        assert self.free.nbytes == sum(size for size, _ in self.known.values())


TestFreeList = FreeListRules.TestCase
