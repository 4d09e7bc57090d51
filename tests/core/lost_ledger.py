"""Shared by tests of a lost ledger: lose it, continue without it, and check the outcome from outside."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from batch_assets.core.pipeline.pipeline import Pipeline

from .support import CREATE, LIST, World

LOST = {"match": {**CREATE, "times": 1}, "action": {"drop": "after_commit"}}
HIDDEN = {"match": LIST, "action": {"status": 500}}


def lose_ledger(world: World, **more: str) -> None:
    """Delete the ledger; the next use of it has only the root."""
    delete_ledger(world)
    world.reopened(**more)


def delete_ledger(world: World) -> None:
    """Close the root, and delete the ledger."""
    world.root.close()
    path = world.root.settings.ledger_url.removeprefix("sqlite:///")
    for ending in ("", "-wal", "-shm"):
        Path(path + ending).unlink(missing_ok=True)


def finish(world: World, pipeline: Pipeline, partition: str = "") -> None:
    """Run `batches` like a user, and the rest like the sensor."""
    world.submit(pipeline, partition)
    world.emulator.end_batches()
    world.finish(pipeline, partition)


def check(world: World, pipeline: Pipeline, count: int, twice: int = 0) -> None:
    """Check that every row has its own answer, and that `twice` requests were accepted more than once."""
    table = world.table(pipeline)
    assert list(table["result_type"]) == ["succeeded"] * count
    for row in table.itertuples():
        assert row.text[:40] in row.response_text
    assert sum(number > 1 for number in Counter(world.accepted_custom_ids()).values()) == twice


def nothing_left(world: World, pipeline: Pipeline) -> None:
    """Check that a rerun of all stages sends nothing."""
    before = len(world.accepted())
    world.build(pipeline)
    world.submit(pipeline)
    world.finish(pipeline)
    assert len(world.accepted()) == before


def part_states(world: World) -> list[str]:
    """The states of the request files in the order of writing: ids of the same second are in random order."""
    ordered = (
        "select f.state from request_file f join submission s on s.id = f.submission_id order by s.seq, f.name"
    )
    return [state for (state,) in world.query(ordered)]


def end_grace_period(world: World) -> None:
    """Let the grace period of every file in doubt pass."""
    world.query("update intent set started_at = started_at - 100000, last_byte_at = last_byte_at - 100000")


def add_refused_intent(world: World, anchor_id: str = "msgbatch_later") -> None:
    """Add a second upload of the only file to the ledger. It was refused, and had a later anchor."""
    world.query(
        "insert into intent (file_id, requests, bytes, anchor_id, anchor_created_at, body_complete, started_at, "
        "last_byte_at, latest_created_at, outcome) select file_id, requests, bytes, :anchor, started_at + 60, "
        "true, started_at, started_at, started_at, 'not_sent' from intent",
        anchor=anchor_id,
    )
