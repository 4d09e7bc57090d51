"""Cells of CSV columns whose kind is on record: each is read by that kind if it fits, and is text if not."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batch_assets.core.dataset.csv_types import fitting, with_timestamps

TEXT, NUMBER, BOOLEAN, DATE = "text", "number", "boolean", "date"
_TYPES: dict[str, list[pa.DataType]] = {
    TEXT: [],
    NUMBER: [pa.int64(), pa.float64()],
    BOOLEAN: [pa.bool_()],
    DATE: [pa.date32()],
}


def csv_kind(type_: pa.DataType) -> str | None:
    """Return the kind of a column of a type; `None` for one without values.

    Timestamps are text, because a template sees each timestamp in a text column as such.
    """
    if pa.types.is_null(type_):
        return None
    return next((kind for kind, types in _TYPES.items() if type_ in types), TEXT)


def cells_of(values: pa.Array, kind: str) -> list[Any]:
    """Return the values of a column as templates see them.

    Args:
        values: string, shape (n,).
        kind: The kind on record.
    """
    cells = with_timestamps(values)
    for type_ in _TYPES[kind]:
        positions = pc.indices_nonzero(pc.fill_null(fitting(values, type_), False))
        typed = values.take(positions).cast(type_).to_pylist()
        for position, cell in zip(positions.to_pylist(), typed, strict=True):
            cells[position] = cell
    return cells


def is_known(kind: Any) -> bool:
    """Whether this version knows a kind on record."""
    return isinstance(kind, str) and kind in _TYPES
