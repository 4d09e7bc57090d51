"""The work of rebuilding a lost ledger grows with the number of partitions, and not faster."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any

from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.recovery import lost_files
from batch_assets.core.store.digests import DigestOwners

from ..lost_ledger import delete_ledger, part_states
from ..support import World, write_rows


def add_partitions(world: World, pipeline: Pipeline, numbers: range) -> None:
    for number in numbers:
        write_rows(world.folder / f"k{number}.jsonl", {f"r{number}": f"text {number}"})
        world.build(pipeline, f"k{number}")


def work_of_rebuilding(world: World) -> Counter[str]:
    """Return the instructions of `core/recovery` for a rebuild, and the digests that are sorted by owner."""
    work: Counter[str] = Counter()
    folder = lost_files.__file__.rpartition("lost_files")[0]

    def see(frame: FrameType, event: str, _: Any) -> Callable[..., Any] | None:
        if event == "call" and frame.f_code is DigestOwners.__init__.__code__:
            work["digests"] += sum(map(len, frame.f_locals["owned"]))
        if not frame.f_code.co_filename.startswith(folder):
            return None
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        work["instructions"] += event == "opcode"
        return see

    delete_ledger(world)
    before = sys.gettrace()
    sys.settrace(see)
    try:
        world.reopened()
        part_states(world)
    finally:
        sys.settrace(before)
    return work


def test_twice_the_partitions_take_twice_the_work(world: World) -> None:
    dataset = {"path": "{partition}.jsonl", "key": "id"}
    pipeline = world.pipeline(dataset=dataset, partitions={"dynamic": True})
    add_partitions(world, pipeline, range(6))
    work = work_of_rebuilding(world)
    assert work["digests"] == 6
    add_partitions(world, pipeline, range(6, 12))
    twice = work_of_rebuilding(world)
    assert part_states(world) == ["unresolved"] * 12
    assert twice["digests"] == 12
    assert work["instructions"] < twice["instructions"] <= 2 * work["instructions"]
