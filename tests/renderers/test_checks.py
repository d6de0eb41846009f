"""The readback checks: right data passes, and any wrong bit is noticed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pers import BufferUsage, DynamicBuffer, IRenderDevice
from renderers.checks import CopyCheck, DigestCheck, digest_of, words_of

WORD = st.integers(0, 2**32 - 1)


@given(st.lists(WORD, min_size=1, max_size=200))
def test_digest_is_what_exact_integers_say(numbers: list[int]) -> None:
    digest = digest_of(np.array(numbers, np.uint32))
    parity = 0
    for number in numbers:
        parity ^= number
    weighted = sum(number * (2 * i + 1) for i, number in enumerate(numbers))
    assert digest.tolist() == [sum(numbers) % 2**32, parity, weighted % 2**32, len(numbers)]


@given(st.lists(WORD, min_size=2, max_size=50), st.data())
def test_digest_notices_a_changed_bit_and_swapped_words(
    numbers: list[int], data: st.DataObject
) -> None:
    words = np.array(numbers, np.uint32)
    i = data.draw(st.integers(0, len(words) - 1))
    changed = words.copy()
    changed[i] ^= np.uint32(1 << data.draw(st.integers(0, 31)))
    assert not np.array_equal(digest_of(words), digest_of(changed))
    if words[0] != words[1]:
        swapped = words.copy()
        swapped[:2] = words[1], words[0]
        if (2 * (int(words[0]) - int(words[1]))) % 2**32:
            assert not np.array_equal(digest_of(words), digest_of(swapped))


def test_words_are_a_copy() -> None:
    data = np.arange(4, dtype=np.uint32)
    words = words_of(data)
    data[0] = 99
    assert words.tolist() == [0, 1, 2, 3]


@pytest.mark.anyio
@pytest.mark.parametrize("count", [1, 63, 64, 65, 5000, 100_000])
async def test_check_passes_and_finds_a_flipped_bit(device: IRenderDevice, count: int) -> None:
    source = DynamicBuffer(
        4 * count,
        device.buffer_factory,
        usage=BufferUsage.STORAGE | BufferUsage.COPY_SRC,
        debug_name="words",
    )
    kind = DigestCheck if device.info.executes_shaders else CopyCheck
    check = kind(device, source, 4 * count)
    random = np.random.default_rng(count)
    for frame in range(3):
        words = random.integers(0, 2**32, count, dtype=np.uint32)
        sent = words.copy()
        sent[-1] ^= np.uint32(frame == 1)  # what is sent in frame 1 is not what is checked
        with source.begin_update() as update:
            offset = update.push(sent)
        encoder = device.create_command_encoder()
        pending = check.record(encoder, frame, offset, words)
        device.queue.submit([encoder.finish()])
        failure = await pending.failure()
        check.recycle(pending)
        if frame == 1:
            assert failure is not None
            assert "frame 1" in failure
        else:
            assert failure is None
    check.close()
    source.destroy()
