"""What tests of a lost ledger share: losing it, going on without it, and looking from outside."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from batch_assets.core.pipeline.pipeline import Pipeline

from .support import CREATE, LIST, World

LOST = {"match": {**CREATE, "times": 1}, "action": {"drop": "after_commit"}}
HIDDEN = {"match": LIST, "action": {"status": 500}}


def lose_ledger(world: World, **more: str) -> None:
    """Deletes the ledger; the next look at it finds the root alone."""
    world.root.close()
    path = world.root.settings.ledger_url.removeprefix("sqlite:///")
    for ending in ("", "-wal", "-shm"):
        Path(path + ending).unlink(missing_ok=True)
    world.reopened(**more)


def finish(world: World, pipeline: Pipeline, partition: str = "") -> None:
    """A person runs `batches`, the sensor the rest."""
    world.submit(pipeline, partition)
    world.emulator.end_batches()
    world.finish(pipeline, partition)


def check(world: World, pipeline: Pipeline, count: int, twice: int = 0) -> None:
    """Every row has its own answer, and no more than these requests were accepted more than once."""
    table = world.table(pipeline)
    assert list(table["result_type"]) == ["succeeded"] * count
    for row in table.itertuples():
        assert row.text[:40] in row.response_text
    assert sum(number > 1 for number in Counter(world.asked()).values()) == twice


def nothing_left(world: World, pipeline: Pipeline) -> None:
    """A rerun of everything sends nothing."""
    before = len(world.accepted())
    world.build(pipeline)
    world.submit(pipeline)
    world.finish(pipeline)
    assert len(world.accepted()) == before


def part_states(world: World) -> list[str]:
    """In the order in which they were written: ids of one second sort by chance."""
    ordered = (
        "select f.state from request_file f join submission s on s.id = f.submission_id order by s.seq, f.name"
    )
    return [state for (state,) in world.query(ordered)]


def in_doubt_over(world: World) -> None:
    """The grace period of every file in doubt passes."""
    world.query("update intent set started_at = started_at - 100000, last_byte_at = last_byte_at - 100000")
