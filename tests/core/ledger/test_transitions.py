"""The history of one pipeline among others: all of it, or its newest lines."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from batch_assets.core.ledger import Ledger, Transaction, rounds, submissions, transitions
from batch_assets.core.ledger.records import RequestFileEntry, SubmissionEntry
from batch_assets.core.ledger.rounds import RoundEntry
from batch_assets.core.ledger.submissions import Registration
from batch_assets.core.ledger.tables import submission, wait


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    opened = Ledger(ledger_url)
    yield opened
    opened.close()


def add(tx: Transaction, pipeline: str, number: int, partition: str = "") -> None:
    id_ = f"{pipeline}-{number}"
    file = RequestFileEntry(f"{id_}/part-0000.jsonl", pipeline, partition, "part-0000.jsonl", 1, 10, 1, None, "00")
    new = SubmissionEntry(id_, pipeline, partition, 1, 0, 1, 1, {}, 3, 10, 100, None, 0, None)
    assert submissions.register(tx, [Registration(new, [file], [])], [])
    (leader,) = rounds.open_runs(tx, [[RoundEntry(id_, "due")]], {})
    rounds.close_run(tx, leader.leader, leader.leader_number)


@pytest.mark.parametrize("few", [1000, 0])
def test_the_newest_lines_of_a_pipeline_are_the_end_of_all_its_lines(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(transitions, "_FEW", few)
    with ledger.write() as tx:
        for number in range(3):
            for pipeline in ("p", "other"):
                add(tx, pipeline, number)
        lines = transitions.of_pipeline(tx, "p")
        assert {line.entity[:2] for line in lines} == {"p-"}
        assert {line.kind for line in lines} == {"submission", "file", "round"}
        assert [line.seq for line in lines] == sorted(line.seq for line in lines)
        for most in (1, 5, 100):
            assert transitions.newest_of_pipeline(tx, "p", most) == lines[-most:]


def test_the_lines_of_a_partition_have_the_files_that_it_waited_on(ledger: Ledger) -> None:
    with ledger.write() as tx:
        for number, partition in enumerate(("a", "b", "c")):
            add(tx, "q", number, partition)
        tx.execute(sa.insert(wait).values(submission_id="q-1", file_id="q-0/part-0000.jsonl"))
        lines = transitions.of_pipeline(tx, "q", "b")
        expected = {"q-1", "q-1/part-0000.jsonl", "q-1:1", "q-0/part-0000.jsonl"}
        assert {line.entity for line in lines} == expected
        assert transitions.newest_of_pipeline(tx, "q", 2, "b") == lines[-2:]
        assert transitions.of_pipeline(tx, "q", "d") == []


def test_a_new_submission_supersedes_those_of_its_partition(ledger: Ledger) -> None:
    with ledger.write() as tx:
        for number in range(3):
            add(tx, "p", number)
            add(tx, "other", number)
            assert [known.id for known in submissions.all_newest(tx, "p")] == [f"p-{number}"]
        superseded = sa.select(submission.c.id).where(submission.c.superseded_at.is_not(None))
        assert set(tx.execute(superseded).scalars()) == {
            f"{name}-{n}" for name in ("p", "other") for n in range(2)
        }
