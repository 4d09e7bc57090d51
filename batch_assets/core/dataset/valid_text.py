"""Text of Arrow columns that is not valid UTF-8: replaced, and its rows rejected before anything is sent."""

from __future__ import annotations

import pyarrow as pa

from batch_assets.core.dataset.rows import Rows, invalid_text


def valid_text(batch: pa.RecordBatch) -> Rows:
    """Replace text that is not valid UTF-8 by text with U+FFFD, and record its rows as rejects."""
    rows = Rows(batch)
    try:
        batch.validate(full=True)
        return rows
    except pa.ArrowInvalid:
        pass
    columns = []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            column = _repaired(name, column, rows.rejects)
        elif pa.types.is_nested(column.type):
            column = _without_invalid(name, column, rows.rejects)
        columns.append(column)
    rows.table = pa.RecordBatch.from_arrays(columns, schema=batch.schema)
    return rows


def _repaired(name: str, column: pa.Array, rejects: dict[int, tuple[str, str]]) -> pa.Array:
    binary = column.view(pa.binary() if pa.types.is_string(column.type) else pa.large_binary())
    values: list[str | None] = []
    for row, value in enumerate(binary.to_pylist()):
        try:
            values.append(value if value is None else value.decode())
        except UnicodeDecodeError as error:
            rejects.setdefault(row, invalid_text(f"column {name!r} is not valid Unicode at byte {error.start}"))
            values.append(value.decode(errors="replace"))
    return pa.array(values, column.type)


def _without_invalid(name: str, column: pa.Array, rejects: dict[int, tuple[str, str]]) -> pa.Array:
    """Replace nested values with text that is not valid UTF-8 by null, and record their rows as rejects."""
    invalid: set[int] = set()
    for row in range(len(column)):
        try:
            column.take(pa.array([row])).validate(full=True)  # unlike a slice, which keeps the values of all rows
        except pa.ArrowInvalid as error:
            invalid.add(row)
            rejects.setdefault(row, invalid_text(f"column {name!r}: {error}"))
    if not invalid:
        return column
    return column.take(pa.array([None if row in invalid else row for row in range(len(column))], pa.int64()))
