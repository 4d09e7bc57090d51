"""Few requests are held until there are more or the oldest is old enough; a user's run sends them at once."""

from __future__ import annotations

import re
from typing import Any

import pytest

from batch_assets.cli.what_next import waits_for
from batch_assets.core.batches.approve import approve
from batch_assets.core.batches.submit import submit_batches
from batch_assets.core.erase.run import erase
from batch_assets.core.errors import ConfigError
from batch_assets.core.ledger import holds, submissions
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.planning.next_step import next_step
from batch_assets.core.planning.snapshot import Snapshot
from batch_assets.core.planning.steps import Join, MaterializeBatches, NeedsUser, Send, SendReason, Wait, Waiting
from batch_assets.core.requests.gather import build_partitions
from batch_assets.core.requests.plan import plan_requests
from batch_assets.core.requests.report import NOTHING_AGAIN, AskAgain

from ..support import World, texts

HOUR = 3600.0


def trickle(world: World, rows: int, **fields: Any) -> Pipeline:
    batching = {"min_requests": 10, "max_wait": "6h", **fields.pop("batching", {})}
    return world.pipeline(texts(rows), batching=batching, **fields)


def warnings(world: World, pipeline: Pipeline) -> list[str]:
    """What a plan says about requests that are held."""
    return plan_requests(world.root, pipeline, "", NOTHING_AGAIN).warnings


def scheduled(world: World, pipeline: Pipeline, partition: str = "") -> None:
    """What a run does that a schedule or `watch` started."""
    world.build(pipeline, partition)
    submit_batches(world.root, pipeline.name, partition, waits_for_more=True)


def step_of(world: World, pipeline: Pipeline) -> Any:
    with world.root.ledger.read() as tx:
        newest = submissions.newest(tx, pipeline.name, "")
        assert newest is not None
        return next_step(Snapshot.of(tx, newest), put_off=(Join,))


def age(world: World, seconds: float) -> None:
    world.query("update request_file set not_before = not_before - :seconds where hold = 'more'", seconds=seconds)


def sent(world: World) -> list[int]:
    return [batch["requests"] for batch in world.accepted()]


def test_small_builds_become_one_batch_once_there_are_enough(world: World) -> None:
    for rows in (3, 7):
        pipeline = trickle(world, rows)
        (planned,) = warnings(world, pipeline)
        assert re.fullmatch(
            r"a run that starts by itself would hold the requests until there are more, for \d h( \d+ min)? at "
            rf"most: {rows} requests are there, and min_requests is 10",
            planned,
        )
        scheduled(world, pipeline)
        assert (sent(world), world.states(pipeline)) == ([], ["held"])
        (file,) = world.files(pipeline)
        assert file.error == f"{rows} requests are there, and min_requests is 10"
    pipeline = trickle(world, 12)
    assert warnings(world, pipeline) == []
    scheduled(world, pipeline)
    assert sent(world) == [12]
    world.finish(pipeline)
    assert warnings(world, pipeline) == [], "nothing would be sent"
    scheduled(world, trickle(world, 14))
    assert sent(world) == [12]


def test_the_oldest_request_waits_no_longer_than_max_wait(world: World) -> None:
    pipeline = trickle(world, 3)
    scheduled(world, pipeline)
    step = step_of(world, pipeline)
    assert isinstance(step, Wait)
    assert step.why is Waiting.MORE
    with world.root.ledger.read() as tx:
        newest = submissions.newest(tx, "asked", "")
        assert newest is not None
        waits = waits_for(Snapshot.of(tx, newest))
    assert re.fullmatch(
        r"more requests, to send them together, or for \d h \d+ min to pass: 3 requests are there, and "
        r"min_requests is 10\. To send them now: batch-assets run asked",
        waits or "",
    )
    age(world, 5 * HOUR)
    scheduled(world, trickle(world, 4))  # the next build takes over the held request, and its time
    world.submit(pipeline, unattended=True)
    assert sent(world) == []
    age(world, HOUR)
    assert step_of(world, pipeline) == Send(SendReason.ENOUGH, 1)
    world.submit(pipeline, unattended=True)
    assert sent(world) == [4]


def test_a_build_after_max_wait_is_not_held_again(world: World) -> None:
    scheduled(world, trickle(world, 3))
    age(world, 6 * HOUR)
    scheduled(world, trickle(world, 4))
    assert sent(world) == [4]


def test_a_run_of_a_user_sends_at_once_and_building_alone_sends_nothing(world: World) -> None:
    pipeline = trickle(world, 3)
    world.build(pipeline)
    step = step_of(world, pipeline)
    assert isinstance(step, NeedsUser)
    assert isinstance(step.remedy, MaterializeBatches)
    world.submit(pipeline, unattended=True)
    age(world, 9 * HOUR)
    world.submit(pipeline, unattended=True)
    assert sent(world) == []
    world.submit(pipeline)
    assert sent(world) == [3]


def test_what_was_let_go_is_not_held_again(world: World) -> None:
    pipeline = trickle(world, 3)
    scheduled(world, pipeline)
    assert [file.hold for file in approve(world.root, "asked")] == ["more"]
    assert world.states(pipeline) == ["ready"]
    scheduled(world, trickle(world, 4))
    assert sent(world) == [4]


def test_a_user_who_approves_the_cost_has_it_sent_at_once(world: World) -> None:
    pipeline = trickle(world, 3, confirm_above=0)
    scheduled(world, pipeline)
    assert [file.hold for file in world.files(pipeline)] == ["confirm"]
    approve(world.root, "asked")
    world.submit(pipeline, unattended=True)
    assert sent(world) == [3]


def test_a_pilot_waits_with_the_rest(world: World) -> None:
    pipeline = trickle(world, 6, pilot=2)
    scheduled(world, pipeline)
    assert sorted(file.hold or "" for file in world.files(pipeline)) == ["more", "pilot"]
    scheduled(world, trickle(world, 7, pilot=2))
    assert sent(world) == []
    scheduled(world, trickle(world, 11, pilot=2))
    assert sent(world) == [2]


def test_each_partition_counts_for_itself_and_one_run_over_several_as_one(world: World) -> None:
    for key in "ab":
        (world.folder / f"{key}.csv").write_text("id,text\n" + "".join(f"{n},{key} {n}\n" for n in range(6)))
    dataset, batching = {"path": "{partition}.csv", "key": "id"}, {"min_requests": 10, "max_wait": "6h"}
    partitions = {"static": ["a", "b"]}
    apart = world.pipeline(dataset=dataset, partitions=partitions, batching=batching)
    for key in "ab":
        scheduled(world, apart, key)
        assert world.states(apart, key) == ["held"]
    gathering = {**batching, "across_partitions": True}
    gathered = world.pipeline(dataset=dataset, partitions=partitions, batching=gathering, name="gathered")
    build_partitions(world.root, gathered, ["a", "b"], AskAgain())
    for key in "ab":
        submit_batches(world.root, "gathered", key, waits_for_more=True)
    assert sent(world) == [12]


def test_held_for_more_is_no_notice_and_a_lost_ledger_sends_it(world: World) -> None:
    pipeline = trickle(world, 3)
    scheduled(world, pipeline)
    with world.root.ledger.read() as tx:
        assert holds.held_by_submission(tx, "asked") == []
    world.root.close()
    world.path("ledger.db").unlink()
    for suffix in ("-wal", "-shm"):
        world.path(f"ledger.db{suffix}").unlink(missing_ok=True)
    world.reopened()
    submit_batches(world.root, "asked", waits_for_more=True)  # finds out that it was not sent
    assert step_of(world, pipeline) == Send(SendReason.ENOUGH, 1)
    world.submit(pipeline, unattended=True)
    assert sent(world) == [3]


def test_an_erased_row_does_not_let_the_others_go(world: World) -> None:
    pipeline = trickle(world, 3)
    scheduled(world, pipeline)
    until = world.files(pipeline)[0].not_before
    assert until > 0
    erase(world.root, "asked", ["row-1"], pipeline)
    held = [file for file in world.files(pipeline) if file.is_held_for_more]
    assert [(file.requests, file.not_before) for file in held] == [(2, until)]


def test_another_min_requests_renders_nothing_again(world: World) -> None:
    scheduled(world, trickle(world, 12))
    report = world.build(trickle(world, 12, batching={"min_requests": 500, "max_wait": "1d"}))
    assert report.rendered == 0


@pytest.mark.parametrize(
    ("batching", "problem"),
    [
        ({"min_requests": 5}, "min_requests needs max_wait, such as 6h"),
        ({"max_wait": "6h"}, "max_wait needs min_requests"),
        ({"min_requests": 5, "max_wait": "6"}, r"batching\.max_wait: give a number of minutes, hours or days"),
        ({"min_requests": 0, "max_wait": "6h"}, r"batching\.min_requests"),
    ],
)
def test_both_fields_are_needed(world: World, batching: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        world.pipeline({}, batching=batching)
