"""`retention.history_days`: the history of replaced submissions goes, and what is read of it again stays."""

from __future__ import annotations

from batch_assets.core.ledger import history_retention, known_files, lost_answers, submissions
from batch_assets.core.ledger.states import EntityKind
from batch_assets.core.pipeline.blocks import RetentionConfig
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.results.run import collect_results

from ..support import World, texts

_DAY = 86400.0


def apply(world: World, pipeline: Pipeline, **days: float) -> None:
    assert collect_results(world.root, pipeline.name, retention=RetentionConfig(**days)).problems == []


def replaced(world: World) -> tuple[Pipeline, str, str]:
    """Run a pipeline twice, with another row. Return it, and the ids of both submissions."""
    world.run(world.pipeline(texts(2)))
    pipeline = world.pipeline(texts(3))
    world.run(pipeline)
    first, second = (row.id for row in world.query("select id from submission order by seq"))
    return pipeline, first, second


def long_ago(world: World) -> None:
    world.query(f"update submission set superseded_at = superseded_at - {2 * _DAY}")


def lines(world: World) -> list[tuple[str, str]]:
    """Return entity and state of all lines of the history."""
    return [(row.entity, row.to_state) for row in world.query("select entity, to_state from history order by seq")]


def test_the_history_of_a_replaced_submission_goes_when_its_days_are_over(world: World) -> None:
    pipeline, first, second = replaced(world)
    before = lines(world)
    apply(world, pipeline)
    apply(world, pipeline, history_days=1)
    assert lines(world) == before
    long_ago(world)
    apply(world, pipeline, history_days=1)
    batch_of = dict(world.query("select file_id, id from batch"))
    of_first = {first, f"{first}/part-00000.jsonl", batch_of[f"{first}/part-00000.jsonl"]}
    left = lines(world)
    assert [line for line in left if line[0] in of_first] == [(batch_of[f"{first}/part-00000.jsonl"], "collected")]
    assert [line for line in left if line[0] not in of_first] == [
        line for line in before if line[0] not in of_first
    ]
    assert (second, "final") in left
    table = world.table(pipeline)
    apply(world, pipeline, history_days=1)
    assert lines(world) == left
    assert world.table(pipeline).equals(table)


def test_batches_and_request_files_are_still_deleted_and_known_as_deleted(world: World) -> None:
    pipeline, first, _ = replaced(world)
    long_ago(world)
    apply(world, pipeline, history_days=0)
    apply(world, pipeline, batches_days=0)
    assert [row.state for row in world.query("select state from batch")] == ["deleted", "deleted"]
    apply(world, pipeline, request_files_days=0)
    world.query("update submission set history_removed_at = null")
    apply(world, pipeline, history_days=0)
    file_id = f"{first}/part-00000.jsonl"
    (batch,) = world.query(f"select id from batch where file_id = '{file_id}'")
    left = [line for line in lines(world) if line[0] in (file_id, batch.id)]
    assert left == [(batch.id, "collected"), (batch.id, "deleted"), (file_id, "removed")]
    with world.root.ledger.read() as tx:
        assert lost_answers.was_deleted(tx, batch.id)
        assert known_files.request_files(tx, [first]) == []
        assert submissions.old_files(tx, pipeline.name, tx.now) == []


def test_nothing_goes_while_a_batch_is_not_collected(world: World) -> None:
    world.emulator.settings(latency=3600)
    world.send(world.pipeline(texts(2)))
    pipeline = world.pipeline(texts(3))
    world.send(pipeline)
    long_ago(world)
    before = lines(world)
    apply(world, pipeline, history_days=0)
    assert lines(world) == before
    world.emulator.settings(latency=0)
    world.emulator.end_batches()
    world.finish(pipeline)
    apply(world, pipeline, history_days=0)
    assert len(lines(world)) < len(before)


def test_numbers_are_not_given_again(world: World) -> None:
    """What was joined and collected is compared by the numbers of lines."""
    pipeline, first, _ = replaced(world)
    long_ago(world)
    with world.root.ledger.write() as tx:
        newest = tx.record(EntityKind.SUBMISSION, first, "final", "final", "the newest line")
        assert history_retention.remove_old(tx, pipeline.name, tx.now, 10) == 1
        assert tx.last_seq() == newest
        assert history_retention.remove_old(tx, pipeline.name, tx.now, 10) == 0
