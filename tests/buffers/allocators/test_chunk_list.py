"""`ChunkList` against a plain list of who has which bytes."""

from __future__ import annotations

import attrs
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pers.buffers.allocators.chunk_list import ChunkList

SIZES = st.integers(0, 40)
ALIGNMENTS = st.sampled_from([1, 2, 4, 16])


@attrs.define(eq=False)
class Block:
    """A chunk of the oracle: what of it is in use, as (start, end)."""

    size: int
    users: list[tuple[int, int]] = attrs.field(factory=list)


class ChunkListRules(RuleBasedStateMachine):
    """Takes, ends uses in any order, recycles, drops."""

    def __init__(self) -> None:
        super().__init__()
        self.chunks: ChunkList[Block] = ChunkList(lambda block: not block.users)
        self.blocks: list[Block] = []
        self.free_since: dict[int, int] = {}
        self.now = 0

    def use(self, block: Block, start: int, nbytes: int) -> None:
        """Note a use, after checking that nobody else has the bytes."""
        end = start + nbytes
        assert 0 <= start <= end <= block.size
        assert all(end <= other or start >= other_end for other, other_end in block.users)
        block.users.append((start, end))

    @rule(size=st.integers(1, 64))
    def add(self, size: int) -> None:
        block = Block(size)
        self.blocks.append(block)
        self.chunks.add(block, size, self.now)

    @rule(nbytes=SIZES, alignment=ALIGNMENTS)
    def take_part(self, nbytes: int, alignment: int) -> None:
        block = self.chunks.open_block
        used = self.chunks.open_used
        part = self.chunks.take_part(nbytes, alignment)
        if part is None:
            assert block is None or -(-used // alignment) * alignment + nbytes > block.size
            assert self.chunks.open_used == used
            return
        assert part[0] is block
        assert part[1] % alignment == 0
        self.use(part[0], part[1], nbytes)

    @rule(nbytes=SIZES, at_most=st.none() | st.integers(1, 64), whole=st.booleans())
    def take_free(self, nbytes: int, at_most: int | None, whole: bool) -> None:
        block = self.chunks.find_free(nbytes, at_most)
        if block is None:
            return
        assert not block.users  # all that was in it has come back
        assert nbytes <= block.size <= (at_most or block.size)
        if whole:
            self.chunks.take_whole(block, nbytes)
            self.use(block, 0, nbytes)
        else:
            self.chunks.open(block)
            assert self.chunks.open_block is block
            assert self.chunks.open_used == 0

    @precondition(lambda self: any(block.users for block in self.blocks))
    @rule(data=st.data())
    def end_a_use(self, data: st.DataObject) -> None:
        used = [block for block in self.blocks if block.users]
        block = data.draw(st.sampled_from(used))
        block.users.remove(data.draw(st.sampled_from(block.users)))

    @rule()
    def close(self) -> None:
        block = self.chunks.open_block
        self.chunks.close()
        assert self.chunks.open_block is None
        assert block is None or block in self.chunks.busy_blocks

    @rule()
    def recycle(self) -> None:
        self.now += 1
        for block in self.chunks.recycle(self.now):
            assert not block.users
        assert all(block.users for block in self.chunks.busy_blocks)
        block = self.chunks.open_block
        assert block is None or block.users or not self.chunks.open_used

    @rule(nbytes=st.integers(0, 100))
    def drop_free(self, nbytes: int) -> None:
        free = self.chunks.free
        self.dropped(self.chunks.drop_free(nbytes))
        assert self.chunks.free <= max(free - nbytes, 0)

    @rule(age=st.integers(0, 5))
    def drop_idle(self, age: int) -> None:
        self.dropped(self.chunks.drop_idle(self.now - age))

    def dropped(self, blocks: list[Block]) -> None:
        """Forget blocks, which nobody may use."""
        for block in blocks:
            assert not block.users
            self.blocks.remove(block)

    @invariant()
    def nothing_is_lost(self) -> None:
        chunks = self.chunks
        assert chunks.capacity == sum(block.size for block in self.blocks)
        assert chunks.free <= chunks.capacity
        assert chunks.used >= sum(
            end - start for block in self.blocks for start, end in block.users
        )

    def teardown(self) -> None:
        """Everything comes back in the end."""
        for block in self.blocks:
            block.users.clear()
        self.chunks.close()
        self.chunks.recycle(self.now)
        assert self.chunks.free == self.chunks.capacity
        assert self.chunks.used == 0
        dropped = self.chunks.drop_all()
        assert len(dropped) == len(self.blocks)
        assert self.chunks.capacity == 0


TestChunkList = ChunkListRules.TestCase


def test_drop_all_takes_what_is_in_use() -> None:
    chunks: ChunkList[Block] = ChunkList(lambda block: not block.users)
    used, free, opened = Block(8), Block(16), Block(32)
    for block in (used, free, opened):
        chunks.add(block, block.size)
    chunks.take_whole(used, 8)
    used.users.append((0, 8))
    chunks.open(opened)
    assert {id(block) for block in chunks.drop_all()} == {id(used), id(free), id(opened)}
    assert chunks.capacity == chunks.used == 0
