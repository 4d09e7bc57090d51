"""All stages on both kinds of ledger: from the dataset through batches to the table that users read."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import pandas as pd
import pytest
import sqlalchemy as sa

from batch_assets.core.ledger import id_chunks, joins, overview, submissions
from batch_assets.core.ledger.overview import in_motion
from batch_assets.core.planning.next_step import next_step, round_of
from batch_assets.core.planning.snapshot import Snapshot, read_snapshots
from batch_assets.core.planning.steps import Round
from batch_assets.core.planning.texts import reason
from batch_assets.core.store.digests import DIGEST_CHARACTERS
from batch_assets.emulator import emulated_answer

from ..support import World, params, texts, write_rows

_OF_B = "in (select id from {} where partition = 'b')"
_FILE, _SUBMISSION = _OF_B.format("request_file"), _OF_B.format("submission")
# Changes that may happen to the complete and announced partition b.
_CANCELED = "update submission set canceled_at = 1 where partition = 'b'"
_NOT_WAITED_ON = f"delete from wait where submission_id {_SUBMISSION}"
_WAITED_ON_BY_C = (
    "insert into wait select submission.id, request_file.id from submission, request_file "
    "where submission.partition = 'c' and request_file.partition = 'b'"
)
_UNRESOLVED = f"update intent set outcome = 'unresolved' where file_id {_FILE}"
# The effect of the other changes depends on these.
_DECISIVE = (_CANCELED, _NOT_WAITED_ON, _WAITED_ON_BY_C, _UNRESOLVED)
_CHANGES = (
    *_DECISIVE,
    *(
        f"update submission set {change} where partition = 'b'"
        for change in (
            "final_at = null",
            "announced_at = null",
            "joined_seq = null",
            "ask_again = 2",
            "began_at = null",
            "left_out = 3, final_at = null",
        )
    ),
    *(
        f"update request_file set {change} where partition = 'b'"
        for change in (
            *(
                f"state = '{state}'"
                for state in ("ready", "sending", "unresolved", "submitted", "refused", "stopped", "too_large")
            ),
            "state = 'canceled'",
            "collected_seq = 1000000",
            "not_before = 9e12",
        )
    ),
    *(
        f"update batch set {change} where file_id {_FILE}"
        for change in (
            *(f"state = '{state}'" for state in ("ended", "unreachable", "deleted")),
            "state = 'open', processing_status = 'in_progress'",
            "paid_twice = true",
            "next_poll_at = 9e12, next_download_at = 9e12",
        )
    ),
    f"update intent set outcome = 'resent', watch_until = 9e12 where file_id {_FILE}",
    "insert into lease select 'sending:' || id, 'someone', 9e12 from submission where partition = 'b'",
)


def test_every_row_gets_the_answer_to_its_own_request(new_world: Callable[..., World], ledger_url: str) -> None:
    world = new_world(ledger=ledger_url)
    rows = texts(25)
    pipeline = world.pipeline(rows, batching={"max_requests": 10})
    table = world.run(pipeline)
    assert list(table["id"]) == list(rows)
    for row in table.itertuples():
        expected = emulated_answer(params(content=rows[row.id]))["content"][0]["text"]
        assert row.response_text == expected
    assert set(table["result_type"]) == {"succeeded"}
    assert set(table["attempts"]) == {1}
    assert sorted(batch["requests"] for batch in world.accepted()) == [5, 10, 10]
    assert sorted(table["custom_id"]) == sorted(world.accepted_custom_ids())


def test_repeating_every_stage_changes_and_costs_nothing(new_world: Callable[..., World], ledger_url: str) -> None:
    world = new_world(ledger=ledger_url)
    pipeline = world.pipeline(texts(7))
    first = world.run(pipeline)
    for _ in range(2):
        world.submit(pipeline)
        world.collect(pipeline)
    pd.testing.assert_frame_equal(world.table(pipeline), first)
    assert len(world.accepted()) == 1


def test_only_new_and_changed_rows_are_sent(new_world: Callable[..., World], ledger_url: str) -> None:
    world = new_world(ledger=ledger_url)
    rows = texts(4)
    world.run(world.pipeline(rows))
    changed = {**rows, "row-1": "another text", "row-9": "a new row"}
    table = world.run(world.pipeline(changed))
    first, second = world.accepted(custom_ids=True)
    assert len(first["custom_ids"]) == 4
    slugs = [
        custom_id[: -DIGEST_CHARACTERS - 1].removesuffix(f"-{world.root.mark}")
        for custom_id in second["custom_ids"]
    ]
    assert slugs == ["row-1", "row-9"]
    assert list(table["result_type"]) == ["succeeded"] * 5
    for row in table.itertuples():
        assert changed[row.id][:100] in row.response_text


def test_requests_that_failed_for_a_passing_reason_are_retried(
    new_world: Callable[..., World], ledger_url: str
) -> None:
    world = new_world(ledger=ledger_url)
    mix = {"overloaded_error": 0.3, "expired": 0.3, "first": 1}
    world.emulator.faults([{"match": {"method": "POST"}, "action": {"error_mix": mix}}])
    pipeline = world.pipeline(texts(40))
    table = world.run(pipeline)
    assert set(table["result_type"]) == {"succeeded"}
    first, second = world.accepted()
    assert first["requests"] == 40
    assert list(table["attempts"]).count(2) == second["requests"] > 5
    assert table["error_type"].isna().all()


@pytest.fixture
def announced(new_world: Callable[..., World], ledger_url: str) -> World:
    """A world of three partitions, complete and announced."""
    world = new_world(ledger=ledger_url)
    for partition in ("a", "b", "c"):
        write_rows(world.folder / f"{partition}.jsonl", texts(2, partition))
        dataset = {"path": "{partition}.jsonl", "key": "id"}
        pipeline = world.pipeline(dataset=dataset, partitions={"static": ["a", "b", "c"]})
        world.send(pipeline, partition)
        world.finish(pipeline, partition)
    with world.root.ledger.write() as tx:
        for submission in submissions.all_newest(tx):
            joins.announced(tx, submission.id)
    return world


def _left(snapshots: dict[str, Snapshot]) -> dict[str, Round]:
    """The work that there is, by submission."""
    steps = {name: round_of(next_step(snapshot)) for name, snapshot in snapshots.items()}
    return {name: step for name, step in steps.items() if step is not None}


def test_only_submissions_in_motion_have_work_or_something_to_report(announced: World, ledger_url: str) -> None:
    from batch_assets.dagster.sensors.situation import situation

    pairs = [pair for pair in combinations(_CHANGES, 2) if set(pair) & set(_DECISIVE)]
    moved, reported, worked = set(), set(), set()
    with announced.root.ledger.write() as tx:
        assert in_motion(tx, tx.now) == []
        assert [submission.partition for submission in in_motion(tx, 0.0)] == ["a", "b", "c"]
        for changes in [*combinations(_CHANGES, 1), *pairs]:
            with tx.connection.begin_nested() as undone:
                for change in changes:
                    tx.execute(sa.text(change))
                everything, moving = submissions.all_newest(tx), in_motion(tx, tx.now)
                every, some = read_snapshots(tx, everything), read_snapshots(tx, moving)
                left = _left(every)
                assert _left(some) == left, changes
                twice = submissions.paid_twice(tx)
                words = situation(every.values(), twice)
                assert situation(some.values(), twice) == words, changes
                undone.rollback()
            moved |= {submission.partition for submission in moving}
            reported |= set(words)
            worked |= {reason(step) for step in left.values()}
    assert moved == {"b", "c"}
    assert len(worked) == 10  # every reason that exists
    assert len(reported) > 6


def test_an_overview_of_many_submissions_equals_that_of_each(
    announced: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(id_chunks, "_AT_ONCE", 2)
    with announced.root.ledger.read() as tx:
        every = submissions.all_newest(tx)
        ids = [submission.id for submission in every]
        files_of, batches_of = overview.files_of(tx, ids), overview.batches_of(tx, ids)
        assert (
            [len(files_of[submission]) for submission in ids]
            == [len(batches_of[submission]) for submission in ids]
            == [1, 1, 1]
        )
        for submission in every:
            assert files_of[submission.id] == submissions.waited_on(tx, submission.id)
            assert [batch.file_id for batch in batches_of[submission.id]] == [
                file.id for file in files_of[submission.id]
            ]
