"""What each upload counts in budgets: open until its cost is known, and nothing if the API took nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from batch_assets.core.batches.caps import record_caps
from batch_assets.core.erase.run import erase
from batch_assets.core.errors import SubmissionStoppedError, UnreachableError
from batch_assets.core.prices.budget import day_of
from batch_assets.core.prune import prune

from ..lost_ledger import LOST, end_grace_period, lose_ledger
from ..support import CREATE, LIST, World, texts


def counted(world: World) -> list[tuple[str, str | None, int | None]]:
    """(state, batch, picodollars) of each reservation, oldest first."""
    rows = world.query("select state, batch_id, worst from reservation order by id")
    return [(row.state, row.batch_id, row.worst) for row in rows]


def cost_of(world: World, batch_id: str | None) -> int:
    ((picodollars,),) = world.query("select picodollars from spend where batch_id = :id", id=batch_id)
    return int(picodollars)


def test_a_batch_counts_what_it_did_cost_once_it_is_collected(world: World) -> None:
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(3))
    world.send(pipeline)
    ((state, batch_id, worst),) = counted(world)
    assert (state, worst) == ("open", None)
    ((day, created_at),) = world.query("select day, created_at from reservation join batch on batch.id = batch_id")
    assert day == day_of(created_at)
    world.emulator.end_batches()
    world.finish(pipeline)
    assert counted(world) == [("settled", batch_id, cost_of(world, batch_id))]
    assert cost_of(world, batch_id) > 0


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"status": 400}, None),
        ({"status": 401}, SubmissionStoppedError),
        ({"status": 429}, None),
        ({"drop": "before_commit"}, UnreachableError),
    ],
    ids=["refused", "stopped", "busy", "dropped"],
)
def test_what_the_api_did_not_take_counts_as_nothing(
    world: World, fault: dict[str, object], error: type[Exception] | None
) -> None:
    world.emulator.faults([{"match": {**CREATE, "times": 1}, "action": fault}])
    pipeline = world.pipeline(texts(2))
    world.build(pipeline)
    try:
        world.submit(pipeline)
    except (SubmissionStoppedError, UnreachableError) as caught:
        assert error is not None
        assert isinstance(caught, error)
    states = [state for state, _, _ in counted(world)]
    assert states in (["released"], ["open"])  # a connection that broke may have taken the file
    assert (states == ["open"]) == bool(world.accepted() or fault == {"drop": "before_commit"})


def test_a_lost_reply_stays_open_until_the_batch_is_found(world: World) -> None:
    world.emulator.settings(latency=3600)
    world.emulator.faults([LOST, {"match": {**LIST, "after": 1}, "action": {"status": 500}}])
    pipeline = world.pipeline(texts(2))
    world.send(pipeline)
    assert [state for state, _, _ in counted(world)] == ["open"]
    world.emulator.reset_faults()
    world.submit(pipeline)
    ((_, batch_id, _),) = counted(world)
    assert batch_id == world.accepted()[0]["id"]
    world.emulator.end_batches()
    world.finish(pipeline)
    assert counted(world) == [("settled", batch_id, cost_of(world, batch_id))]


def test_a_file_that_is_sent_again_counts_twice(world: World) -> None:
    """The API hides the first batch for longer than the grace period, and shows it then."""
    world.emulator.settings(latency=3600)
    world.emulator.faults([LOST, {"match": LIST, "action": {"hide_from_list": 3600}}])
    pipeline = world.pipeline(texts(2))
    world.send(pipeline)
    end_grace_period(world)
    world.submit(pipeline)
    first, second = (batch["id"] for batch in world.accepted())
    assert [(state, batch_id) for state, batch_id, _ in counted(world)] == [("open", None), ("open", second)]
    world.emulator.reset_faults()
    world.emulator.end_batches()
    world.submit(pipeline)
    world.finish(pipeline)
    world.collect(pipeline)
    assert counted(world) == [("settled", id_, cost_of(world, id_)) for id_ in (first, second)]


def test_answers_that_were_never_seen_may_have_been_paid(world: World) -> None:
    pipeline = world.pipeline(texts(2))
    world.send(pipeline)
    world.emulator.end_batches()
    world.emulator.clock(advance=30 * 86400)
    world.collect(pipeline)
    assert set(world.table(pipeline)["error_type"]) == {"results_archived"}
    assert [state for state, _, _ in counted(world)] == ["open"]


def test_a_rebuilt_ledger_reserves_for_what_it_finds(new_world: Callable[..., World]) -> None:
    world = new_world()
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(6), batching={"max_requests": 2})
    report = world.send(pipeline)
    assert len(report.submitted) == 3
    lose_ledger(world)
    sent = {batch["id"] for batch in world.accepted()}
    assert {(state, batch_id) for state, batch_id, _ in counted(world)} == {("open", id_) for id_ in sent}
    world.emulator.end_batches()
    world.finish(pipeline)
    assert {state for state, _, _ in counted(world)} == {"settled"}
    lose_ledger(world)
    assert [state for state, _, _ in counted(world)] == ["open"] * 3  # until their response files are read


@pytest.mark.parametrize("keeps_files", [True, False])
@pytest.mark.parametrize("change", ["nothing", "prune", "erase"])
def test_a_rebuilt_ledger_counts_what_stored_answers_did_cost(
    world: World, change: str, keeps_files: bool
) -> None:
    """Pruned and erased answers keep their cost. Without request files, nothing else says what they may cost."""
    world.run(world.pipeline(texts(3)))
    before = counted(world)
    if change == "prune":
        assert prune(world.root, "asked", -3600.0, in_force=True, is_dry=False).answers == 3
    elif change == "erase":
        erase(world.root, "asked", ["row-0"])
    if not keeps_files:
        for file in world.path("asked", "requests").rglob("part-*.jsonl"):
            file.unlink()
    lose_ledger(world)
    pipeline = world.pipeline(texts(2, "new"), budget={"max_usd": 1, "per": "month"})
    record_caps(world.root, [pipeline])
    assert len(world.send(pipeline).submitted) == 1
    assert counted(world)[0] == before[0]


def test_a_process_killed_after_it_has_stored_the_answers_leaves_their_cost_to_the_next(world: World) -> None:
    pipeline = world.pipeline(texts(3))
    world.run(pipeline)
    before = counted(world)
    for change in (
        "update batch set state = 'ended', next_download_at = 0",
        "update request_file set state = 'submitted', collected_seq = null",
        "update reservation set state = 'open', worst = null, expected = null",
        "delete from spend",
    ):
        world.query(change)
    world.collect(pipeline)
    assert counted(world) == before
    assert before[0][2] == cost_of(world, before[0][1])
