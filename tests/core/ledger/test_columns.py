"""The typed columns of moves: they are the columns of the tables, except those that a move writes itself."""

from __future__ import annotations

from batch_assets.core.ledger import tables
from batch_assets.core.ledger.columns import BatchColumns, FileColumns, SubmissionColumns
from batch_assets.core.ledger.records import RequestFileEntry, SubmissionEntry

_WRITTEN_BY_MOVES = {
    "request_file": {"id", "state"},
    "batch": {"id", "state"},
    "submission": {"id", "began_at", "canceled_at", "final_at"},
}


def test_typed_columns_are_those_of_the_tables() -> None:
    typed = {
        tables.request_file: FileColumns,
        tables.batch: BatchColumns,
        tables.submission: SubmissionColumns,
    }
    for table, columns in typed.items():
        assert columns.__optional_keys__ == {*table.c.keys()} - _WRITTEN_BY_MOVES[table.name]


def test_an_entry_has_every_column_that_must_have_a_value() -> None:
    submission = SubmissionEntry("s", "p", "", 3, 1, 2, 2, {"anthropic-version": "1"}, 2, 10, 100, None, 0, None)
    assert _required(tables.submission) <= submission.columns.keys()
    assert submission.columns["headers"] == '{"anthropic-version": "1"}'
    file = RequestFileEntry("s/part-0000.jsonl", "p", "", "part-0000.jsonl", 2, 10, 1, None, "00")
    assert _required(tables.request_file) <= file.columns_in("s").keys()
    assert file.columns_in("s")["headers"] is None


def _required(table: tables.Table) -> set[str]:
    """Return the columns that are not nullable and have no default, apart from those that a move writes itself."""
    optional = {*_WRITTEN_BY_MOVES[table.name], "seq", "created_at"}
    return {column.name for column in table.c if not column.nullable and column.default is None} - optional
