"""Retention never removes anything before the answers are safe, nor a file that may still be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batch_assets.core.batches.poll import poll
from batch_assets.core.ledger import transitions
from batch_assets.core.pipeline.blocks import RetentionConfig
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.results.run import CollectedResults, collect_results
from batch_assets.emulator import Emulator

from ..gateway import Gateway, repeated
from ..support import BATCHES, CREATE, World, params, texts

DELETE = {"method": "DELETE", "path": f"{BATCHES}/*"}
AT_ONCE = {"batches_days": 0}
FILES_AT_ONCE = {"request_files_days": 0}


def apply(world: World, pipeline: Pipeline, **retention: Any) -> CollectedResults:
    """Run the results stage with this retention."""
    return collect_results(world.root, pipeline.name, retention=RetentionConfig(**retention))


def states(world: World) -> list[str]:
    return [state for (state,) in world.query("select state from batch order by created_at, id")]


def deletes(world: World) -> int:
    return sum(count for call, count in world.calls().items() if call.startswith("DELETE"))


def parts(world: World) -> list[str]:
    return sorted(path.name for path in world.path("asked", "requests").rglob("part-*.jsonl"))


def try_again_now(world: World) -> None:
    world.query("update batch set next_delete_at = 0")


def test_by_default_everything_is_kept(world: World) -> None:
    pipeline = world.pipeline(texts(2))
    world.run(pipeline)
    assert pipeline.config.retention == RetentionConfig(batches_days=None, request_files_days=None)
    apply(world, pipeline)
    assert (states(world), deletes(world), len(parts(world))) == (["collected"], 0, 1)


def test_a_collected_batch_is_deleted_when_its_days_are_over_and_only_once(world: World) -> None:
    pipeline = world.pipeline(texts(2))
    before = world.run(pipeline)
    apply(world, pipeline, batches_days=2)
    assert deletes(world) == 0
    world.query("update history set at = at - 86400 * 2 where to_state = 'collected'")
    for _ in range(2):
        assert apply(world, pipeline, batches_days=2).problems == []
    assert (states(world), deletes(world)) == (["deleted"], 1)
    assert world.table(pipeline).equals(before)
    assert world.build(pipeline).reused == 2
    with world.root.ledger.read() as tx:
        moved = [(e.before, e.after) for e in transitions.of_pipeline(tx, pipeline.name) if e.kind == "batch"]
    assert moved[-2:] == [("collected", "deleting"), ("deleting", "deleted")]


def test_a_batch_that_is_not_collected_is_never_deleted(world: World) -> None:
    pipeline = world.pipeline(texts(2))
    world.send(pipeline)
    apply(world, pipeline, **AT_ONCE)
    poll(world.root, now=True)
    world.emulator.faults([{"match": {"path": f"{BATCHES}/*/results"}, "action": {"status": 500}}])
    assert states(world) == ["ended"]
    apply(world, pipeline, **AT_ONCE)
    assert deletes(world) == 0
    world.emulator.reset_faults()
    apply(world, pipeline, **AT_ONCE)
    assert states(world) == ["deleted"]


def _remove(path: Path) -> None:
    path.unlink()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[100:400] = bytes(300)
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [_remove, _cut, _spoil])
def test_a_batch_whose_answers_cannot_be_read_here_is_not_deleted(world: World, harm: Any) -> None:
    """The table is joined before the file is damaged, because the join would fail too."""
    from batch_assets.core.results.retention import apply_retention

    pipeline = world.pipeline(texts(2))
    world.run(pipeline)
    (stored,) = world.path("asked", "responses").iterdir()
    harm(stored)
    (problem,) = apply_retention(world.root, pipeline.name, RetentionConfig(**AT_ONCE))
    assert "is not deleted at the API" in problem
    assert str(stored) in problem
    assert (states(world), deletes(world)) == (["collected"], 0)


def test_a_batch_whose_file_holds_too_few_answers_is_not_deleted(world: World) -> None:
    pipeline = world.pipeline(texts(2))
    world.run(pipeline)
    world.query("update request_file set requests = 3")
    (problem,) = apply(world, pipeline, **AT_ONCE).problems
    assert "holds 2 answers to 3 requests" in problem
    assert states(world) == ["collected"]


@pytest.mark.parametrize(
    ("status", "left"), [(500, "deleting"), (400, "collected"), (403, "collected"), (404, "collected")]
)
def test_a_failed_delete_is_a_problem_and_tried_again_later(world: World, status: int, left: str) -> None:
    pipeline = world.pipeline(texts(2))
    world.run(pipeline)
    world.emulator.faults([{"match": DELETE, "action": {"status": status}}])
    done = apply(world, pipeline, **AT_ONCE)
    assert len(done.problems) == 1
    assert done.results is not None
    assert done.results.final
    assert states(world) == [left]
    world.emulator.reset_faults()
    world.forget_calls()
    assert apply(world, pipeline, **AT_ONCE).problems == []
    assert deletes(world) == 0, "not before some time has passed"
    try_again_now(world)
    assert apply(world, pipeline, **AT_ONCE).problems == []
    assert states(world) == ["deleted"]


def test_a_delete_whose_reply_was_lost_is_found_to_be_done(world: World) -> None:
    pipeline = world.pipeline(texts(2))
    world.run(pipeline)
    world.emulator.faults([{"match": DELETE, "action": {"drop": "after_commit"}}])
    apply(world, pipeline, **AT_ONCE)
    world.emulator.reset_faults()
    try_again_now(world)
    assert apply(world, pipeline, **AT_ONCE).problems == []
    assert states(world) == ["deleted"]


def test_without_an_api_the_table_is_joined_all_the_same(world: World) -> None:
    pipeline = world.pipeline(texts(2))
    world.run(pipeline)
    world.reopened(BATCH_ASSETS_EMULATOR="")
    done = apply(world, pipeline, **AT_ONCE)
    assert "No API to talk to" in done.problems[0]
    assert done.results is not None
    assert done.results.final


def test_a_deleted_batch_is_no_stranger_to_a_file_in_doubt(world: World) -> None:
    pipeline = world.pipeline(texts(2))
    world.run(pipeline)
    world.query("update batch set state = 'deleted'")
    world.emulator.faults([{"match": {**CREATE, "times": 1}, "action": {"drop": "before_commit"}}])
    other = world.pipeline(texts(2, "other"))
    world.run(other)
    assert states(world) == ["deleted", "collected"]
    assert len(world.accepted()) == 2


def test_request_files_go_and_receipts_index_and_answers_stay(world: World) -> None:
    pipeline = world.pipeline(texts(4), batching={"max_requests": 2})
    before = world.run(pipeline)
    apply(world, pipeline, request_files_days=1)
    assert len(parts(world)) == 2
    world.query("update submission set created_at = created_at - 86400")
    for _ in range(2):
        assert apply(world, pipeline, request_files_days=1).problems == []
    assert parts(world) == []
    (folder,) = world.path("asked", "requests").iterdir()
    kept = {"part-00000.batch.json", "part-00001.batch.json", "index.parquet", "manifest.json"}
    assert kept <= {path.name for path in folder.iterdir()}
    assert world.table(pipeline).equals(before)
    assert world.build(pipeline).reused == 4
    removed = world.query("select count(*) from history where to_state = 'removed'")
    assert removed == [(2,)]


def test_request_files_stay_while_a_submission_waits_on_them(world: World) -> None:
    world.emulator.settings(latency=3600)
    pipeline = world.pipeline(texts(4), batching={"max_requests": 2})
    first, _ = world.send(pipeline).submitted
    world.emulator.end_batches(first)
    poll(world.root, now=True)
    apply(world, pipeline, **FILES_AT_ONCE)
    assert states(world) == ["collected", "open"]
    assert len(parts(world)) == 2, "the submission waits on both"
    edited = world.pipeline(texts(4), params=params("{{ text }}!"))
    world.build(edited)
    apply(world, edited, **FILES_AT_ONCE)
    assert parts(world) == ["part-00000.jsonl", "part-00001.jsonl"], "one is running, one is ready"


def test_lines_that_a_retry_may_copy_stay(world: World) -> None:
    """The request was given up after one attempt; a later submission allows two, and its file is refused."""
    world.emulator.faults([{"match": {**CREATE, "times": 1}, "action": {"error_mix": {"expired": 1.0}}}])
    pipeline = world.pipeline(texts(2), retry={"max_attempts": 1})
    world.run(pipeline)
    apply(world, pipeline, **FILES_AT_ONCE)
    world.emulator.faults([{"match": {**CREATE, "times": 1}, "action": {"status": 400}}])
    pipeline = world.pipeline(texts(2), retry={"max_attempts": 2})
    world.build(pipeline)
    world.submit(pipeline)
    world.emulator.reset_faults()
    world.collect(pipeline)
    world.submit(pipeline)
    world.finish(pipeline)
    assert list(world.table(pipeline)["result_type"]) == ["succeeded"] * 2
    assert list(world.table(pipeline)["attempts"]) == [2, 2]


def test_a_delete_that_a_gateway_repeats_is_found_to_be_done(
    emulator: Emulator, new_world: Callable[..., World]
) -> None:
    with Gateway(emulator.url) as gateway:
        world = new_world(BATCH_ASSETS_EMULATOR=gateway.url)
        pipeline = world.pipeline(texts(2))
        world.run(pipeline)
        gateway.on("DELETE", world.accepted()[0]["id"], repeated)
        assert apply(world, pipeline, **AT_ONCE).problems == []
        assert states(world) == ["deleted"]
        world.root.close()


def test_a_batch_that_the_api_no_longer_knows_is_left_after_29_days(world: World) -> None:
    """A rebuilt ledger does not know that retention deleted it, and no other batch proves whose key it is."""
    pipeline = world.pipeline(texts(2))
    world.run(pipeline)
    apply(world, pipeline, **AT_ONCE)
    world.query("update batch set state = 'collected', next_delete_at = 0")
    world.query("delete from history where reason like '%deleted%'")
    (problem,) = apply(world, pipeline, **AT_ONCE).problems
    assert "404" in problem
    try_again_now(world)
    world.query("update batch set created_at = created_at - 29 * 86400")
    assert apply(world, pipeline, **AT_ONCE).problems == []
    assert states(world) == ["deleted"]
