"""Records come back part by part in the order in which they were added, from memory and from the scratch file."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_assets.core.io import parted_records
from batch_assets.core.io.parted_records import PartedRecords

_RECORD = np.dtype([("number", np.int32), ("flag", np.bool_)])


def records_of(numbers: list[int]) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    records = np.zeros(len(numbers), _RECORD)
    records["number"] = numbers
    return records


@pytest.mark.parametrize("block", [1, 30, 1 << 20])
@given(added=st.lists(st.lists(st.integers(0, 5), max_size=20), max_size=8))
@settings(max_examples=60)
def test_a_part_has_its_records_in_order(block: int, added: list[list[int]]) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(parted_records, "_BLOCK_BYTES", block)
        parted, expected, count = PartedRecords(_RECORD, 6), dict[int, list[int]](), 0
        for parts in added:
            parted.add(records_of([count + at for at in range(len(parts))]), np.array(parts, np.uint16))
            for at, part in enumerate(parts):
                expected.setdefault(part, []).append(count + at)
            count += len(parts)
        for _ in range(2):
            for part in range(6):
                assert parted.of_part(part)["number"].tolist() == expected.get(part, [])


def test_memory_does_not_grow_with_the_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parted_records, "_BLOCK_BYTES", 50_000)
    random, total = np.random.default_rng(0), 0
    tracemalloc.start()
    try:
        parted = PartedRecords(_RECORD, 100)
        for start in range(0, 400_000, 4000):
            part_of = random.integers(0, 100, 4000).astype(np.uint16)
            parted.add(records_of([*range(start, start + 4000)]), part_of)
        for part in range(100):
            total += int(parted.of_part(part)["number"].sum(dtype=np.int64))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == sum(range(400_000))
    assert peak < 700_000  # the records have 2,000,000 bytes
