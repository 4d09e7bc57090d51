"""Hashes that occur more than once are found in bounded memory, with and without a file."""

from __future__ import annotations

import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_assets.core.dataset import repeated_hashes
from batch_assets.core.dataset.repeated_hashes import RepeatedHashes

HASHES = st.lists(st.integers(-5, 5) | st.integers(-(2**63), 2**63 - 1), max_size=30)


@pytest.mark.parametrize("block", [4, 1 << 18])
@given(added=st.lists(HASHES, max_size=8))
@settings(max_examples=60)
def test_they_are_those_that_a_counter_finds(block: int, added: list[list[int]]) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(repeated_hashes, "_BLOCK", block)
        found = RepeatedHashes()
        for hashes in added:
            found.add(np.array(hashes, np.int64))
    counts = Counter(hash_ for hashes in added for hash_ in hashes)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(repeated_hashes, "_BLOCK", block)
        assert found.repeated() == {hash_ for hash_, count in counts.items() if count > 1}


def test_memory_does_not_grow_with_numbers_in_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeated_hashes, "_BLOCK", 10_000)
    tracemalloc.start()
    try:
        found = RepeatedHashes()
        for start in range(0, 1_000_000, 4000):
            found.add(np.arange(start, start + 4000))
        found.add(np.array([7, 999_999]))
        repeated = found.repeated()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert repeated == {7, 999_999}
    assert peak < 1_500_000  # the hashes alone are 8,000,000 bytes
