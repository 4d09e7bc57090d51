"""Batches deleted at the API before they were collected: only a user gives them up, and only with proof."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from click.testing import CliRunner

from batch_assets.cli.cancel import cancel as cancel_in_terminal
from batch_assets.cli.status import status
from batch_assets.cli.what_next import waits_for
from batch_assets.core.batches.cancel import CancelReport
from batch_assets.core.batches.poll import PollReport, poll
from batch_assets.core.batches.targets import UnknownTargetError
from batch_assets.core.cancel import cancel
from batch_assets.core.ledger import batches, submissions
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.planning.snapshot import Snapshot
from batch_assets.core.remedies import CancelBatch, ConfirmWorkspace
from batch_assets.core.results.give_up import give_up
from batch_assets.core.results.run import CollectedResults
from batch_assets.dagster.sensors.situation import situation
from batch_assets.dagster.sensors.situation import what_next as what_next_in_dagster

from ..batches.test_reconcile import LOST, ours, submit_as_someone_else
from ..support import BATCHES, LIST, World, environment, texts
from .test_long_waits import batch_states, delete_in_the_console, later, without_ledger

# What a key of another workspace gets: 404, and a list without the batch.
ANOTHER_WORKSPACE = [
    {"match": {"path": f"{BATCHES}/*"}, "action": {"status": 404}},
    {"match": LIST, "action": {"hide_from_list": 99999}},
]


def sent(world: World) -> tuple[Pipeline, str]:
    """A pipeline of two rows and its only batch, which runs until the test ends it."""
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(2))
    (batch_id,) = world.send(pipeline).submitted
    return pipeline, batch_id


def is_unreachable(world: World) -> PollReport:
    """Return what the last poll reports, when the API has not known a batch for minutes."""
    poll(world.root, now=True)
    later(world, 400)
    return poll(world.root, now=True)


def deleted(world: World, batch_id: str) -> None:
    world.emulator.end_batches(batch_id)
    delete_in_the_console(world, batch_id)


def newest(world: World, pipeline: Pipeline) -> Snapshot:
    with world.root.ledger.read() as tx:
        submission = submissions.newest(tx, pipeline.name, "")
        assert submission is not None
        return Snapshot.of(tx, submission)


def ask_again(world: World, pipeline: Pipeline) -> None:
    """Check that the next run sends only the given-up requests."""
    world.emulator.settings(latency=0)
    world.run(pipeline)
    assert set(world.table(pipeline)["result_type"]) == {"succeeded"}
    assert list(world.table(pipeline)["attempts"]) == [2, 2]
    assert len(ours(world)) == 2 * len(set(ours(world))) == 4


@pytest.mark.parametrize("seen", ["open", "ended"])
def test_a_deleted_batch_is_given_up_by_its_id(
    new_world: Callable[..., World], ledger_url: str, seen: str
) -> None:
    world = new_world(ledger=ledger_url)
    submit_as_someone_else(world, 1)
    pipeline, batch_id = sent(world)
    world.emulator.end_batches(batch_id)
    if seen == "ended":
        poll(world.root, now=True)
    delete_in_the_console(world, batch_id)
    if seen == "ended":
        report: CollectedResults | PollReport = world.collect(pipeline)
        later(world, 400)
    else:
        report = is_unreachable(world)
        assert batch_states(world) == ["unreachable"]
    (problem,) = report.problems
    assert report.remedies == [CancelBatch(batch_id, pipeline.name)]
    assert "the API key belong to the workspace" in problem

    assert cancel(world.root, batch_id) == CancelReport(given_up=[batch_id])
    assert (batch_states(world), world.states(pipeline)) == (["deleted"], ["collected"])
    done = world.collect(pipeline)
    assert done.results is not None and done.results.final
    table = world.table(pipeline)
    assert set(table["result_type"]) == {"canceled"}
    assert table["error_message"].str.startswith(f"{batch_id} was deleted at the API").all()
    assert cancel(world.root, batch_id) == CancelReport(ended=[batch_id])
    assert world.submit(pipeline).submitted == [], "only the next submission asks again"
    ask_again(world, pipeline)


def test_a_key_of_another_workspace_gives_nothing_up(world: World) -> None:
    submit_as_someone_else(world, 1)
    pipeline, batch_id = sent(world)
    world.emulator.faults(ANOTHER_WORKSPACE)
    is_unreachable(world)
    report = cancel(world.root, batch_id)
    (problem,) = report.problems
    assert "shows no batch that certainly belongs to the same workspace" in problem
    assert report == CancelReport(problems=[problem])
    assert batch_states(world) == ["unreachable"]
    world.emulator.reset_faults()
    world.emulator.end_batches()
    world.finish(pipeline)
    assert set(world.table(pipeline)["result_type"]) == {"succeeded"}
    assert len(world.accepted()) == 2


def test_a_batch_of_ours_from_after_a_change_of_keys_proves_nothing(world: World) -> None:
    """It is not connected to the lost batch by an anchor, so it may be in another workspace."""
    pipeline, batch_id = sent(world)
    world.emulator.faults(ANOTHER_WORKSPACE)
    is_unreachable(world)
    world.emulator.reset_faults()
    deleted(world, batch_id)  # as with a key of another workspace neither list nor call shows it any more
    other = world.pipeline(texts(2, "other"), name="other")
    world.send(other)
    assert len(cancel(world.root, batch_id).problems) == 1
    assert "unreachable" in batch_states(world)
    assert set(world.states(pipeline)) == {"submitted"}


def two_of_three_deleted(world: World) -> tuple[Pipeline, list[str]]:
    """Send three batches, of which the API no longer has the first two. Returns the ids of all three."""
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(6), batching={"max_requests": 2})
    submitted = world.send(pipeline).submitted
    for batch_id in submitted[:2]:
        deleted(world, batch_id)
    is_unreachable(world)
    return pipeline, submitted


@pytest.mark.parametrize("listed", [True, False])
def test_neighbors_of_neighbors_prove_whose_key_it_is(world: World, listed: bool) -> None:
    """When batches are sent one after the other, each is the anchor of the next."""
    pipeline, (first, second, _) = two_of_three_deleted(world)
    if not listed:
        world.emulator.faults([{"match": LIST, "action": {"hide_from_list": 99999}}])
    assert cancel(world.root, first).given_up == [first]
    assert cancel(world.root, second).given_up == [second]
    world.emulator.reset_faults()
    world.emulator.end_batches()
    world.finish(pipeline)
    assert list(world.table(pipeline)["result_type"]) == ["canceled"] * 4 + ["succeeded"] * 2


def test_a_running_batch_that_the_api_no_longer_shows_is_named(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it counts as unreachable too: it may be a new batch, and it may have been deleted."""
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(4), batching={"max_requests": 2})
    first, second = world.send(pipeline).submitted
    world.collect(pipeline)
    deleted(world, first)
    poll(world.root, now=True)
    world.query("update batch set missing_since = missing_since - 20 where missing_since is not null")
    monkeypatch.setenv("BATCH_ASSETS_ROOT", world.root.settings.root)
    hint = "as it may for a new batch. If it was deleted there, you can give it up after 5 min of this answer"
    shown = CliRunner().invoke(status, [pipeline.name]).output
    assert f"waits for   the API to end its batches and to show {first}: it has answered 404 for 2" in shown
    assert hint in shown
    assert f"{first}  2 requests, the API has answered 404 for 2" in shown
    assert f"{second}  2 requests, in_progress, sent " in shown
    progress, waiting = situation([newest(world, pipeline)], {})
    assert progress.startswith("1 of 2 batches in progress") and hint in waiting

    deleted(world, second)
    poll(world.root, now=True)
    shown = CliRunner().invoke(status, [pipeline.name]).output
    assert "waits for   the API to show 2 batches: it has answered 404 for 2" in shown
    (waiting,) = situation([newest(world, pipeline)], {})
    assert waiting.startswith(f"{pipeline.name} waits for the API to show 2 batches")
    assert what_next_in_dagster(newest(world, pipeline)).startswith("It waits for the API to show 2 batches")
    is_unreachable(world)
    assert not newest(world, pipeline).not_shown
    shown = CliRunner().invoke(status, [pipeline.name]).output
    assert "waits for   you: the API does not know 2 batches, see the errors" in shown


def test_several_batches_are_given_up_with_one_command(world: World) -> None:
    submit_as_someone_else(world, 1)
    pipeline, (first, second, third) = two_of_three_deleted(world)
    world.emulator.end_batches()
    poll(world.root, now=True)
    world.collect(pipeline)
    shown = waits_for(newest(world, pipeline))
    assert "the API does not know 2 batches" in shown
    command = f"batch-assets cancel {first} {second}"
    assert command in shown or f"batch-assets cancel {second} {first}" in shown

    env = environment(world.emulator.url, world.root.settings.root)
    unknown = CliRunner().invoke(cancel_in_terminal, [first, "msgbatch_elsewhere"], env=env)
    assert isinstance(unknown.exception, UnknownTargetError)
    assert str(unknown.exception).count("msgbatch_") == 1
    assert batch_states(world).count("unreachable") == 2, "nothing was given up"
    mixed = CliRunner().invoke(cancel_in_terminal, [first, pipeline.name], env=env)
    assert mixed.exit_code == 2 and f"{pipeline.name} is not a batch id" in mixed.output
    both = CliRunner().invoke(cancel_in_terminal, [first, second, third, first], env=env)
    assert both.exit_code == 0
    assert f"{first}: it was deleted at the API" in both.output
    assert f"{second}: it was deleted at the API" in both.output
    assert f"{third}: it had already ended" in both.output
    world.finish(pipeline)
    assert list(world.table(pipeline)["result_type"]) == ["canceled"] * 4 + ["succeeded"] * 2


def test_a_batch_that_just_became_unknown_is_not_given_up(world: World) -> None:
    submit_as_someone_else(world, 1)
    pipeline, batch_id = sent(world)
    world.emulator.end_batches(batch_id)
    poll(world.root, now=True)
    deleted(world, batch_id)
    world.collect(pipeline)
    (problem,) = cancel(world.root, batch_id).problems
    assert "cancel again later" in problem
    assert batch_states(world) == ["ended"]


def test_a_batch_that_is_known_again_is_canceled_as_any_other(world: World) -> None:
    submit_as_someone_else(world, 1)
    _, batch_id = sent(world)
    world.emulator.faults(ANOTHER_WORKSPACE)
    is_unreachable(world)
    world.emulator.reset_faults()
    assert cancel(world.root, batch_id) == CancelReport(canceled=[batch_id])


def test_a_pipeline_is_not_given_up_by_its_name(world: World) -> None:
    submit_as_someone_else(world, 1)
    pipeline, batch_id = sent(world)
    deleted(world, batch_id)
    is_unreachable(world)
    report = cancel(world.root, pipeline.name)
    assert report.given_up == []
    assert "cancel again" in report.problems[0]
    assert report.remedies == [CancelBatch(batch_id, pipeline.name)]
    assert cancel(world.root, batch_id).given_up == [batch_id]


def test_a_batch_adopted_on_its_count_alone_is_not_given_up(new_world: Callable[..., World]) -> None:
    world = new_world(BATCH_ASSETS_RECONCILE_GRACE="900")
    submit_as_someone_else(world, 1)
    world.emulator.settings(latency=3600)
    world.emulator.faults([LOST])
    pipeline = world.pipeline(texts(2))
    world.send(pipeline)
    ((batch_id, provisional),) = world.query("select id, provisional from batch")
    assert provisional
    world.emulator.faults(ANOTHER_WORKSPACE)
    is_unreachable(world)
    assert batch_states(world) == ["unreachable"]
    with world.root.ledger.read() as tx:
        batch = batches.by_id(tx, batch_id)
    assert batch is not None
    env = environment(world.emulator.url, world.root.settings.root)
    canceled = CliRunner().invoke(cancel_in_terminal, [batch_id], env=env)
    assert (canceled.exit_code, canceled.stderr) == (0, "")
    assert f"{batch_id}: it was adopted on its count alone, and is given up" in canceled.output
    assert "Nothing had to be canceled" not in canceled.output
    late = CancelReport()
    give_up(world.root, batch, late)  # of a process that read the batch before
    assert late == CancelReport(problems=[f"{batch_id}: another run just changed it; cancel again"])
    world.query("update intent set last_byte_at = last_byte_at - 2000")
    report = world.submit(pipeline, unattended=True)  # nothing proves the workspace of the key
    assert (report.submitted, report.remedies) == ([], [ConfirmWorkspace(pipeline.name)])
    assert world.states(pipeline) == ["unresolved"]
    world.emulator.reset_faults()
    assert world.submit(pipeline, unattended=True).submitted == [batch_id]
    assert len(world.accepted()) == 2


def test_given_up_batches_stay_given_up_when_the_ledger_is_rebuilt(world: World) -> None:
    submit_as_someone_else(world, 1)
    pipeline, batch_id = sent(world)
    deleted(world, batch_id)
    is_unreachable(world)
    cancel(world.root, batch_id)
    without_ledger(world)
    world.finish(pipeline)
    assert set(world.table(pipeline)["result_type"]) == {"canceled"}
    ask_again(world, pipeline)


def test_a_batch_that_the_api_never_knows_again_ends_with_its_29_days(world: World) -> None:
    """By then no workspace has its results."""
    pipeline, batch_id = sent(world)
    deleted(world, batch_id)
    assert is_unreachable(world).problems
    world.query("update batch set created_at = created_at - 86400 * 30")
    assert poll(world.root, now=True).changed == {pipeline.name: [batch_id]}
    done = world.collect(pipeline)
    assert done.results is not None and done.results.final
    assert set(world.table(pipeline)["error_type"]) == {"results_archived"}
    assert len(world.accepted()) == 1
