"""Some rows of the dataset, brought to the columns and types that were asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson
import pyarrow as pa

from batch_assets.core.errors import DatasetError


@dataclass
class Rows:
    """Some rows of the dataset, in order.

    Attributes:
        table: the columns asked for, the row key among them.
        invalid: row position in `table` -> why its text is not valid Unicode. Such text stands in the
            table with U+FFFD in place of what is broken.
    """

    table: pa.RecordBatch
    invalid: dict[int, str] = field(default_factory=dict)


def conform(batch: pa.RecordBatch, target: pa.Schema, name: str) -> pa.RecordBatch:
    """The columns and types of `target`, in its order; an error names the file and the column."""
    arrays = []
    for wanted in target:
        if wanted.name not in batch.schema.names:
            arrays.append(pa.nulls(len(batch), wanted.type))
            continue
        column = batch.column(wanted.name)
        try:
            arrays.append(column if column.type == wanted.type else _cast(column, wanted.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
            raise DatasetError(
                f"{name}: column {wanted.name!r} is not {wanted.type} throughout: {error}"
            ) from None
    return pa.RecordBatch.from_arrays(arrays, schema=target)


def _cast(column: pa.Array, type_: pa.DataType) -> pa.Array:
    if pa.types.is_string(type_) and pa.types.is_nested(column.type):
        return pa.array([json_text(value) for value in column.to_pylist()], type_)
    if _has_list_view(column.type):  # pyarrow 26 makes broken lists of them
        return pa.array(column.to_pylist(), type_)
    return column.cast(type_)


def _has_list_view(type_: pa.DataType) -> bool:
    inner = [type_.field(position).type for position in range(type_.num_fields)]
    return pa.types.is_list_view(type_) or pa.types.is_large_list_view(type_) or any(map(_has_list_view, inner))


def plain_type(type_: pa.DataType) -> pa.DataType:
    """The type to read a column as: views, which few of Arrow's functions take, become what they view."""
    if pa.types.is_string_view(type_):
        return pa.string()
    if pa.types.is_binary_view(type_):
        return pa.binary()
    if pa.types.is_list(type_) or pa.types.is_list_view(type_):
        return pa.list_(_plain_field(type_.value_field))
    if pa.types.is_large_list(type_) or pa.types.is_large_list_view(type_):
        return pa.large_list(_plain_field(type_.value_field))
    if pa.types.is_struct(type_):
        return pa.struct([_plain_field(inner) for inner in type_])
    return type_


def _plain_field(inner: pa.Field) -> pa.Field:
    return inner.with_type(plain_type(inner.type))


def json_text(value: Any) -> Any:
    """A value for a text column: text as it is, anything else as its JSON."""
    return value if value is None or isinstance(value, str) else orjson.dumps(value).decode()


def valid_text(batch: pa.RecordBatch) -> Rows:
    """Finds text that is not valid UTF-8 and mends it for the table; its rows are named."""
    rows = Rows(batch)
    try:
        batch.validate(full=True)
        return rows
    except pa.ArrowInvalid:
        pass
    columns = []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            column = _mend(name, column, rows.invalid)
        columns.append(column)
    rows.table = pa.RecordBatch.from_arrays(columns, schema=batch.schema)
    return rows


def _mend(name: str, column: pa.Array, invalid: dict[int, str]) -> pa.Array:
    binary = column.view(pa.binary() if pa.types.is_string(column.type) else pa.large_binary())
    values: list[str | None] = []
    for row, value in enumerate(binary.to_pylist()):
        try:
            values.append(value if value is None else value.decode())
        except UnicodeDecodeError as error:
            invalid.setdefault(row, f"column {name!r} is not valid Unicode at byte {error.start}")
            values.append(value.decode(errors="replace"))
    return pa.array(values, column.type)
