"""Batches of others whose results can never be read: a file in doubt does not wait for them without end."""

from __future__ import annotations

import pytest

from batch_assets.core.api.objects import BatchObject
from batch_assets.core.batches.reconcile import reconcile
from batch_assets.core.batches.strangers import is_beyond_proof

from ..support import BATCHES, World, texts
from .test_reconcile import LATE, NEVER_ARRIVED, ours, submit_as_someone_else

DAY = 86400.0
REFUSED = {"status": 403}


def in_doubt(world: World, theirs: str) -> None:
    """Send a file whose upload never arrives, while the results of someone else's batch cannot be read."""
    unreadable = {"match": {"path": f"{BATCHES}/{theirs}/results"}, "action": REFUSED}
    world.emulator.faults([NEVER_ARRIVED, LATE, unreadable])
    world.send(world.pipeline(texts(3)))


@pytest.mark.parametrize("way", ["archived", "by its age", "deleted"])
def test_a_batch_whose_results_no_one_can_read_any_more_keeps_no_file_in_doubt(world: World, way: str) -> None:
    pipeline = world.pipeline(texts(3))
    theirs = submit_as_someone_else(world, 3)
    in_doubt(world, theirs)
    (reason,) = world.submit(pipeline, unattended=True).waiting.values()
    assert f"The API has ended {theirs}, and does not show its results" in reason
    assert "delete it at the API" in reason
    assert world.query("select error from request_file") == [(reason,)]
    if way == "archived":
        world.emulator.archive_batches(theirs)
    elif way == "deleted":
        world.root.api.delete(theirs)
    else:
        world.emulator.clock(advance=30 * DAY)
    world.submit(pipeline, unattended=True)
    world.finish(pipeline)
    assert len(ours(world)) == 3
    (sent_again,) = world.query("select reason from history where to_state = 'ready' and reason like '%again'")
    assert (theirs in sent_again[0]) is (way != "deleted")


def test_a_batch_without_answers_keeps_a_file_in_doubt_for_a_day(world: World) -> None:
    """No one paid for it, so nothing is paid twice."""
    pipeline = world.pipeline(texts(3))
    world.emulator.settings(latency=99 * 3600)
    theirs = submit_as_someone_else(world, 3)
    world.emulator.expire_batches(theirs)
    in_doubt(world, theirs)
    for hours, accepted in ((0, 0), (20, 0), (5, 3)):
        world.emulator.clock(advance=hours * 3600)
        world.submit(pipeline, unattended=True)
        assert len(ours(world)) == accepted


@pytest.mark.parametrize(
    ("counts", "archived_at", "days", "expected"),
    [
        ({"succeeded": 3}, None, 28.9, False),
        ({"succeeded": 3}, None, 29.1, True),
        ({"succeeded": 3}, 5.0, 0, True),
        ({"succeeded": 1, "errored": 2}, None, 2, False),
        ({"errored": 1, "canceled": 1, "expired": 1}, None, 0.9, False),
        ({"errored": 1, "canceled": 1, "expired": 1}, None, 1.1, True),
        ({"errored": 2, "unheard_of": 1}, None, 2, False),
        ({"succeeded": 3}, 5.0, None, True),
        ({"errored": 3}, None, None, False),
    ],
)
def test_when_a_batch_is_beyond_proof(
    counts: dict[str, int], archived_at: float | None, days: float | None, expected: bool
) -> None:
    all_counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0) | counts
    batch = BatchObject("msgbatch_x", "ended", all_counts, 1000.0, None, 1000.0, archived_at)
    assert is_beyond_proof(batch, None if days is None else 1000.0 + days * DAY) is expected


def test_a_batch_that_may_belong_to_a_lost_file_is_waited_for_without_blaming_the_api(world: World) -> None:
    pipeline = world.pipeline(texts(3))
    theirs = submit_as_someone_else(world, 3)
    report = world.build(pipeline)
    hidden = {"match": {"method": "GET", "nth": [2, 3, 4]}, "action": {"status": 500}}
    world.emulator.faults([NEVER_ARRIVED, LATE, hidden])
    world.submit(pipeline)
    kept = {
        path: path.read_bytes()
        for path in world.submission_folder(pipeline, report).iterdir()
        if path.name.startswith(("part-", "index"))
    }
    for path in kept:
        path.unlink()
    world.emulator.reset_faults()
    reconcile(world.root)
    ((reason,),) = world.query("select error from request_file")
    assert theirs in reason and "does not show its results" not in reason
    for path, content in kept.items():
        path.write_bytes(content)
    world.submit(pipeline, unattended=True)
    world.finish(pipeline)
    assert len(ours(world)) == 3
