"""The typed columns of moves: they are the columns of the tables, except those that a move writes itself."""

from __future__ import annotations

from batch_assets.core.ledger import tables
from batch_assets.core.ledger.columns import BatchColumns, FileColumns, SubmissionColumns
from batch_assets.core.ledger.records import RequestFileEntry, SubmissionEntry

_STATE_COLUMNS = {"state"}
_TIMES_OF_STATES = {"began_at", "canceled_at", "final_at"}  # of a submission
_IDS = {"id", "seq"}


def test_typed_columns_are_those_of_the_tables() -> None:
    typed = {
        tables.request_file: FileColumns,
        tables.batch: BatchColumns,
        tables.submission: SubmissionColumns,
    }
    for table, columns in typed.items():
        written_by_moves = _TIMES_OF_STATES if table is tables.submission else _STATE_COLUMNS
        assert columns.__optional_keys__ == {*table.c.keys()} - written_by_moves - _IDS


def test_an_entry_has_every_column_that_must_have_a_value() -> None:
    submission = SubmissionEntry("s", "p", "", 3, 1, 2, 2, {"anthropic-version": "1"}, 2, 10, 100, None, 0)
    assert _required(tables.submission) <= submission.columns.keys()
    assert submission.columns["headers"] == '{"anthropic-version": "1"}'
    file = RequestFileEntry("s/part-0000.jsonl", "p", "", "part-0000.jsonl", 2, 10, 1)
    assert _required(tables.request_file) <= file.columns_in("s").keys()
    assert file.columns_in("s")["headers"] is None


def _required(table: tables.Table) -> set[str]:
    """Return the columns that are not nullable, apart from ids and those that a move writes itself."""
    optional = {*_STATE_COLUMNS, *_TIMES_OF_STATES, *_IDS, "created_at"}
    return {column.name for column in table.c if not column.nullable} - optional
