"""What a tick and `status` read is found by indexes: their cost follows what is going on, not the history."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from batch_assets.core.ledger import (
    Transaction,
    collected,
    deadlines,
    estimates,
    examinations,
    history_retention,
    holds,
    known_files,
    overview,
    refresh_records,
    reservations,
    rounds,
    sent,
    submissions,
)
from batch_assets.core.ledger.connection import Ledger
from batch_assets.core.ledger.states import FileState, HoldReason
from batch_assets.core.ledger.tables import request_file, submission, wait
from batch_assets.core.planning.snapshot import read_snapshots
from batch_assets.core.prices.budget import Budget, Period

_MONTH = Budget(1, Period.MONTH)
READS: dict[str, Callable[[Transaction], Any]] = {
    "submissions in motion": lambda tx: overview.in_motion(tx, tx.now),
    "batches that are paid twice": submissions.paid_twice,
    "partitions that are watched": overview.watched_partitions,
    "open intents": overview.files_with_open_intent,
    "snapshots": lambda tx: read_snapshots(tx, submissions.all_newest(tx)),
    "rounds": lambda tx: rounds.current_of(tx, ["s"]),
    "rounds of a run": lambda tx: rounds.close_run(tx, "s", 1),
    "batches whose results are soon lost": lambda tx: deadlines.ending_soon(tx, "p"),
    "batches whose answers are stored": lambda tx: known_files.stored_batches(tx, ["s"]),
    "tables of other partitions": lambda tx: examinations.known_tables(tx, "p", ["a"]),
    "newest submissions": lambda tx: known_files.newest_submissions(tx, 20, pipeline="p"),
    "newest answers": lambda tx: known_files.newest_answers(tx, "p", 20, 0.0),
    "files whose answers are stored": lambda tx: estimates.answered_files(tx, "p", 50),
    "the last collection": lambda tx: collected.last_collection(tx, "p"),
    "what was collected since": lambda tx: collected.batches_since(tx, "p", 1),
    "partitions": lambda tx: known_files.partitions_of(tx, "p"),
    "refreshed files": lambda tx: refresh_records.refreshed_files(tx, "p"),
    "what counts in the budget of a month": lambda tx: reservations.totals(tx, _MONTH, "p", []),
    "what counts in the root's budget": lambda tx: reservations.totals(tx, _MONTH, None, []),
    "what counts in the budget of a run": lambda tx: reservations.totals(tx, Budget(1, Period.RUN), "p", ["s"]),
    "what newest batches did cost": lambda tx: reservations.mean_cost(tx, "p"),
    "what was sent": sent.sent_version,
    "history to remove": lambda tx: history_retention.remove_old(tx, "p", 2.0, 10),
}


@contextmanager
def noting(statements: list[tuple[str, Any]]) -> Iterator[None]:
    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        statements.append((statement, parameters))

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        yield
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    with opened.write() as tx:
        numbers = dict.fromkeys(("rows", "rejected", "requests", "written", "max_attempts", "max_requests"), 1)
        row = {"id": "s", "pipeline": "p", "partition": "", "created_at": 1.0, "headers": "{}", "max_bytes": 1}
        columns = "id, pipeline, partition, created_at, headers, max_bytes, ask_again, " + ", ".join(numbers)
        values = ":id, :pipeline, :partition, :created_at, :headers, :max_bytes, 0, " + ", ".join(
            f":{name}" for name in numbers
        )
        tx.connection.execute(sa.text(f"insert into submission ({columns}) values ({values})"), row | numbers)
    yield opened
    opened.close()


@pytest.mark.parametrize("what", READS)
def test_no_table_that_grows_with_the_history_is_read_in_full(ledger: Ledger, what: str) -> None:
    statements: list[tuple[str, Any]] = []
    with ledger.write() as tx:
        with noting(statements):
            READS[what](tx)
        plans = [
            str(step[-1])
            for statement, parameters in statements
            for step in tx.connection.exec_driver_sql(f"explain query plan {statement}", parameters)
        ]
    assert plans
    if "answers are stored" in what:  # nearly all batches are in these states, and nearly none is paid twice
        assert not any("batch_by_state" in step or "batch_by_paid_twice" in step for step in plans)
    if "collect" in what or "files whose answers" in what:  # no more than the newest of this pipeline
        assert any("request_file_by_collection (pipeline=?" in step for step in plans)
    # The submissions in force are found from an index that has all of them in the order of their partitions.
    # Of live calls, the ledger has only groups whose answers are not stored yet.
    allowed = (
        "SCAN CONSTANT ROW",
        "SCAN live_group",
        "SCAN submission",
        "SCAN clock",
        "SCAN pairing",
        "SCAN lease",
    )
    full = [step for step in plans if step.startswith("SCAN ") and not step.startswith(allowed)]
    assert [step for step in full if "SUBQUERY" not in step and "anon" not in step and "last" not in step] == []


def hold_files(tx: Transaction, number: int) -> None:
    """Register partitions, each with a file that is held until a user approves it."""
    counts = dict.fromkeys(("rows", "rejected", "requests", "written", "max_attempts", "max_requests"), 1)
    shared = {"pipeline": "held", "created_at": 1.0, "headers": "{}", "max_bytes": 1, "ask_again": 0, **counts}
    of_file = {"name": "f", "requests": 1, "bytes": 1, "attempt": 1, "state": FileState.HELD}
    keys = [f"{number}-{key}" for key in range(number)]
    rows = [{**shared, "id": key, "partition": key} for key in keys]
    files = [
        {**of_file, "id": f"{key}/f", "submission_id": key, "partition": key, "pipeline": "held"} for key in keys
    ]
    tx.connection.execute(sa.insert(submission), rows)
    tx.connection.execute(sa.insert(request_file), [{**file, "hold": HoldReason.CONFIRM} for file in files])
    tx.connection.execute(sa.insert(wait), [{"submission_id": key, "file_id": f"{key}/f"} for key in keys])


def steps_of(tx: Transaction, read: Callable[[Transaction], Any]) -> int:
    """How many hundreds of its instructions SQLite runs."""
    steps: list[None] = []
    database: Any = tx.connection.connection.dbapi_connection
    database.set_progress_handler(lambda: steps.append(None), 100)
    read(tx)
    database.set_progress_handler(None, 0)
    return len(steps)


@pytest.mark.parametrize("read", [holds.held_by_submission, holds.to_approve])
def test_held_files_are_not_looked_at_for_each_partition(ledger: Ledger, read: Callable[..., Any]) -> None:
    steps = {}
    for number in (100, 900):  # 1,000 in all
        with ledger.write() as tx:
            hold_files(tx, number)
            assert len(read(tx, "held")) == sum((*steps, number))
            steps[number] = steps_of(tx, lambda tx: read(tx, "held"))
    assert steps[900] < 20 * steps[100], "ten times as many take ten times as long"
