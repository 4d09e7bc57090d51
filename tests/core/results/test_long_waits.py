"""Ended batches that wait: a lost file, cut downloads, a manual deletion. None of these costs an answer."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner

from batch_assets.cli.status import status
from batch_assets.core.batches.poll import poll
from batch_assets.core.errors import MissingFileError
from batch_assets.core.pipeline.blocks import RetentionConfig
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.remedies import CancelBatch
from batch_assets.core.requests.build import build_requests
from batch_assets.core.results.run import CollectedResults, collect_results

from ..support import BATCHES, CREATE, RESULTS, World, texts

LOST = {"match": {**CREATE, "times": 1}, "action": {"drop": "after_commit"}}
DELETE_BATCHES = RetentionConfig(batches_days=0)
REMOVE_FILES = RetentionConfig(request_files_days=0)


def collect(world: World, pipeline: Pipeline, **days: RetentionConfig) -> CollectedResults:
    return collect_results(world.root, pipeline.name, **days)


def later(world: World, seconds: float) -> None:
    """Let time pass for batches that wait for the next poll, download or delete."""
    for since in ("missing_since", "failing_since"):
        world.query(f"update batch set {since} = {since} - :s", s=seconds)
    world.query("update batch set next_poll_at = 0, next_download_at = 0, next_delete_at = 0")


def batch_states(world: World) -> list[str]:
    return [state for (state,) in world.query("select state from batch order by created_at, id")]


def part(world: World, pipeline: Pipeline) -> Path:
    """Return the path of the first request file of the submission in force."""
    file = world.files(pipeline)[0]
    return world.path(pipeline.name, "requests", file.submission_id, file.name)


def delete_in_the_console(world: World, batch_id: str) -> None:
    call = urllib.request.Request(
        f"{world.emulator.url}{BATCHES}/{batch_id}", method="DELETE", headers={"x-api-key": "any"}
    )
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(call).close()


def without_ledger(world: World) -> None:
    """Lose the ledger, and rebuild it from the files under the root."""
    world.root.close()
    for path in world.path().glob("ledger.db*"):
        path.unlink()
    world.reopened()


def test_a_lost_request_file_holds_nothing_up(world: World) -> None:
    """The results name the requests, and a receipt shows whose batch it is."""
    pipeline = world.pipeline(texts(6), batching={"max_requests": 3})
    world.send(pipeline)
    part(world, pipeline).unlink()
    poll(world.root, now=True)
    done = collect(world, pipeline)
    assert (len(done.collected), done.problems) == (2, [])
    table = world.table(pipeline)
    assert list(table["result_type"]) == ["succeeded"] * 6
    assert all(custom_id.startswith(key) for key, custom_id in zip(table["id"], table["custom_id"], strict=True))
    assert len(world.accepted()) == 2


def test_a_batch_whose_files_and_index_are_gone_waits_for_one_of_them(world: World) -> None:
    """It was adopted on its count alone, so without them nothing shows whose it is."""
    pipeline = adopted(world)
    lost, index = part(world, pipeline), part(world, pipeline).with_name("index.parquet")
    kept = index.read_bytes()
    for path in (lost, lost.with_suffix(".digests"), index):
        path.unlink()
    with pytest.raises(MissingFileError):
        collect(world, pipeline)
    assert world.query("select state, provisional from batch") == [("ended", 1)]
    assert "are gone or damaged, and without them" in str(
        world.query("select reason from history order by seq desc limit 1")
    )
    index.write_bytes(kept)
    assert collect(world, pipeline).problems == []
    assert list(world.table(pipeline)["result_type"]) == ["succeeded"] * 3


def adopted(world: World) -> Pipeline:
    """Make an ended batch that was adopted on its count alone after its reply was lost."""
    world.emulator.settings(latency=3600)
    world.emulator.faults([LOST])
    pipeline = world.pipeline(texts(3))
    world.send(pipeline)
    assert world.query("select provisional from batch") == [(1,)]
    world.emulator.end_batches()
    poll(world.root, now=True)
    return pipeline


def test_a_batch_that_its_results_prove_gets_a_receipt(world: World) -> None:
    pipeline = adopted(world)
    receipt = part(world, pipeline).with_name("part-00000.batch.json")
    assert not receipt.exists()
    assert collect(world, pipeline, retention=REMOVE_FILES).problems == []
    assert receipt.exists()
    ((batch_id, file_id),) = world.query("select id, file_id from batch")
    assert batch_id in receipt.read_text()
    without_ledger(world)
    assert world.query("select id, file_id, requests, state from batch") == [(batch_id, file_id, 3, "collected")]
    (problem,) = collect(world, pipeline, retention=DELETE_BATCHES).problems
    assert "the reply to its create was lost, so it was found by its results" in problem
    assert batch_states(world) == ["collected"]


def test_a_batch_that_only_a_user_can_delete_is_reported_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later runs have nothing to say about it. It stays in `status`."""
    pipeline = adopted(world)
    (problem,) = collect(world, pipeline, retention=DELETE_BATCHES).problems
    assert "is not deleted at the API" in problem
    world.query("update history set at = at - 86400 * 2")
    world.query("update batch set next_delete_at = next_delete_at - 86400 * 2 where next_delete_at < 1e11")
    assert collect(world, pipeline, retention=DELETE_BATCHES).problems == []
    assert batch_states(world) == ["collected"]
    monkeypatch.setenv("BATCH_ASSETS_ROOT", world.root.settings.root)
    shown = CliRunner().invoke(status, ["asked"])
    assert "is kept at the API: the reply to its create was lost" in shown.output


def test_a_batch_with_unknown_requests_is_kept_and_does_not_stop_others(world: World) -> None:
    pipeline = adopted(world)
    collect(world, pipeline, retention=REMOVE_FILES)
    world.path(pipeline.name, "requests").joinpath(
        part(world, pipeline).parent.name, "part-00000.batch.json"
    ).unlink()
    without_ledger(world)
    assert world.query("select file_id, state from batch") == [(None, "collected")]
    world.emulator.settings(latency=0)
    other = world.pipeline(texts(2, "other"))
    world.run(other)
    done = collect(world, other, retention=DELETE_BATCHES)
    assert done.problems == []
    assert batch_states(world) == ["collected", "deleted"]


def test_answers_missing_from_cut_downloads_are_not_paid_again_within_the_hour(world: World) -> None:
    world.emulator.faults([{"match": RESULTS, "action": {"truncate": {"lines": 4}, "ending": "clean"}}])
    pipeline = world.pipeline(texts(6))
    world.send(pipeline)
    poll(world.root, now=True)
    for _ in range(5):
        (problem,) = collect(world, pipeline, retention=DELETE_BATCHES).problems
        later(world, 600)
    assert "download 5" in problem
    assert "2 of ours missing" in problem
    assert batch_states(world) == ["ended"]
    world.emulator.reset_faults()
    assert collect(world, pipeline).problems == []
    world.submit(pipeline, unattended=True)
    assert set(world.table(pipeline)["result_type"]) == {"succeeded"}
    assert len(world.accepted()) == 1


def test_a_line_that_cannot_be_read_is_not_missing_within_the_hour(world: World) -> None:
    world.emulator.faults([{"match": RESULTS, "action": {"lines": {"broken": 1}}}])
    pipeline = world.pipeline(texts(3))
    world.send(pipeline)
    poll(world.root, now=True)
    for _ in range(4):
        assert len(collect(world, pipeline).problems) == 1
        assert batch_states(world) == ["ended"]
    later(world, 4000)
    collect(world, pipeline)
    assert batch_states(world) == ["collected"]


def test_a_batch_with_missing_answers_is_never_deleted(world: World) -> None:
    world.emulator.faults([{"match": {**RESULTS, "times": 3}, "action": {"lines": {"missing": 2}}}])
    pipeline = world.pipeline(texts(6))
    world.send(pipeline)
    for _ in range(3):
        world.collect(pipeline)
        later(world, 4000)
    assert batch_states(world) == ["collected"]
    (problem,) = collect(world, pipeline, retention=DELETE_BATCHES).problems
    assert "2 of its answers were in no download" in problem
    assert batch_states(world) == ["collected"]
    world.finish(pipeline)
    later(world, 4000)
    collect(world, pipeline, retention=DELETE_BATCHES)
    assert batch_states(world) == ["collected", "deleted"]


def test_a_batch_collected_again_gets_its_downloads_again(world: World) -> None:
    world.emulator.faults([{"match": {**RESULTS, "times": 2}, "action": {"lines": {"missing": 1}}}])
    pipeline = world.pipeline(texts(3))
    world.send(pipeline)
    for _ in range(2):
        world.collect(pipeline)
    later(world, 4000)
    assert world.collect(pipeline).problems == []
    (stored,) = world.path(pipeline.name, "responses").iterdir()
    stored.unlink()
    world.emulator.reset_faults()
    world.emulator.faults([{"match": {**RESULTS, "times": 1}, "action": {"lines": {"missing": 1}}}])
    gone, incomplete = world.collect(pipeline).problems
    assert str(stored) in gone
    assert "download 1 of 3" in incomplete
    world.finish(pipeline)
    assert len(world.accepted()) == 1


@pytest.mark.parametrize("known", [True, False])
def test_a_batch_deleted_before_it_was_collected_is_given_up_after_29_days_only(world: World, known: bool) -> None:
    """Before that a 404 may mean a key of another workspace, also for the results of a batch that exists."""
    pipeline = world.pipeline(texts(3))
    (batch_id,) = world.send(pipeline).submitted
    poll(world.root, now=True)
    if known:
        world.emulator.faults([{"match": RESULTS, "action": {"status": 404}}])
    else:
        delete_in_the_console(world, batch_id)
    done = collect(world, pipeline)
    (problem,) = done.problems
    assert "the API key belong to the workspace" in problem
    assert done.remedies == [CancelBatch(batch_id, pipeline.name)]
    assert batch_states(world) == ["ended"]
    world.query("update batch set created_at = created_at - 86400 * 30")
    done = collect(world, pipeline)
    if known:
        assert (done.collected, batch_states(world)) == ([], ["ended"])
        return
    assert f"the API no longer has the batch {batch_id}" in done.problems[0]
    assert done.results is not None
    assert done.results.final
    table = world.table(pipeline)
    assert set(table["error_type"]) == {"results_archived"}
    assert table["error_message"].str.contains("no longer has the batch").all()
    assert build_requests(world.root, pipeline).written == 0
    assert build_requests(world.root, pipeline, retry_failed=True).written == 3
    assert len(world.accepted()) == 1


def test_an_adopted_batch_that_was_deleted_gives_up_no_row(world: World) -> None:
    pipeline = adopted(world)
    delete_in_the_console(world, world.accepted()[0]["id"])
    world.query("update batch set created_at = created_at - 86400 * 30")
    assert collect(world, pipeline).collected == []
    assert set(world.table(pipeline)["result_type"]) == {"pending"}
