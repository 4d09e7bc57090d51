"""Some rows of the dataset, brought to the columns and types that were asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson
import pyarrow as pa

from batch_assets.core.errors import DatasetError
from batch_assets.core.io.json_text import FLOATS_SKIP

ROWS_AT_ONCE = 4096


@dataclass
class Rows:
    """Some rows of the dataset, in order.

    Attributes:
        table: the columns asked for, the row key among them.
        rejects: row position in `table` -> (reason, message) of rows that cannot become a request whatever the
            template: text that is not valid Unicode, which stands in the table with U+FFFD in place of what is
            broken, or content that is too large to be read, which is null there.
        has_json_numbers: the numbers are JSON's, where 1 and 1.0 are the same.
    """

    table: pa.RecordBatch
    rejects: dict[int, tuple[str, str]] = field(default_factory=dict)
    has_json_numbers: bool = False

    def values(self, name: str) -> list[Any]:
        """A column as templates see it: a map is an object, like a struct.

        Rows whose value is more than Python holds, such as a time in the year 12026, become rejects.
        """
        column = self.table.column(name)
        try:
            values = _python_values(column)
        except (OverflowError, ValueError):
            values = [self._value(name, column, position) for position in range(len(column))]
        if self.has_json_numbers and _holds(column.type, pa.types.is_floating):
            return [whole_number(value) for value in values]
        return values

    def _value(self, name: str, column: pa.Array, position: int) -> Any:
        try:
            return _python_values(column.slice(position, 1))[0]
        except (OverflowError, ValueError) as error:
            problem = f"column {name!r} holds a value that Python does not: {error}; cast the column to text"
            self.rejects.setdefault(position, ("template_error", problem))
            return None


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
    return by_value(column, type_) if goes_by_value(column.type) else column.cast(type_)


def goes_by_value(type_: pa.DataType) -> bool:
    """Whether `cast` does not read a type rightly, or one nested in it: list views, extensions such as UUIDs."""
    return _holds(
        type_,
        lambda inner: pa.types.is_list_view(inner) or pa.types.is_large_list_view(inner) or _is_extension(inner),
    )


def by_value(column: pa.Array | pa.ChunkedArray, type_: pa.DataType) -> pa.Array:
    """A column in another type, value by value."""
    return pa.array([_without_uuids(value) for value in column.to_pylist()], type_)


def _without_uuids(value: Any) -> Any:
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, list):
        return [_without_uuids(item) for item in value]
    return {key: _without_uuids(item) for key, item in value.items()} if isinstance(value, dict) else value


def _is_extension(type_: pa.DataType) -> bool:
    return isinstance(type_, pa.BaseExtensionType)


def _holds(type_: pa.DataType, is_it: Callable[[pa.DataType], bool]) -> bool:
    """Whether a type, or one nested in it, is of a kind."""
    inner = (type_.field(position).type for position in range(type_.num_fields))
    return is_it(type_) or any(_holds(one, is_it) for one in inner)


def is_storable(type_: pa.DataType) -> bool:
    """Whether Parquet has the type: objects that never hold anything it has not."""
    return not _holds(type_, lambda inner: pa.types.is_struct(inner) and inner.num_fields == 0)


def _python_values(column: pa.Array) -> list[Any]:
    if _holds(column.type, pa.types.is_map):
        values: list[Any] = column.to_pylist(maps_as_pydicts="lossy")
    else:
        values = column.to_pylist()
    return values


def whole_number(value: Any) -> Any:
    """A value of JSON with its whole numbers as such: 1.0 is 1, wherever it stands."""
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < FLOATS_SKIP else value
    if isinstance(value, list):
        return [whole_number(item) for item in value]
    return {key: whole_number(item) for key, item in value.items()} if isinstance(value, dict) else value


def plain_type(type_: pa.DataType) -> pa.DataType:
    """The type to read a column as: views, which few of Arrow's functions take, become what they view, UUIDs text,
    and other types that Arrow does not have itself what they are stored as.
    """
    if _is_extension(type_):
        return pa.string() if type_.extension_name == "arrow.uuid" else plain_type(type_.storage_type)
    if pa.types.is_string_view(type_):
        return pa.string()
    if pa.types.is_binary_view(type_):
        return pa.binary()
    if pa.types.is_dictionary(type_):
        return pa.dictionary(type_.index_type, plain_type(type_.value_type), type_.ordered)
    if pa.types.is_list(type_) or pa.types.is_list_view(type_):
        return pa.list_(_plain_field(type_.value_field))
    if pa.types.is_large_list(type_) or pa.types.is_large_list_view(type_):
        return pa.large_list(_plain_field(type_.value_field))
    if pa.types.is_fixed_size_list(type_):
        return pa.list_(_plain_field(type_.value_field), type_.list_size)
    if pa.types.is_map(type_):
        return pa.map_(_plain_field(type_.key_field), _plain_field(type_.item_field), type_.keys_sorted)
    if pa.types.is_struct(type_):
        return pa.struct([_plain_field(inner) for inner in type_])
    return type_


def _plain_field(inner: pa.Field) -> pa.Field:
    return inner.with_type(plain_type(inner.type))


def json_text(value: Any) -> Any:
    """A value for a text column: text as it is, anything else as its JSON."""
    if value is None or isinstance(value, str):
        return value
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # whole numbers beyond 64 bits
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def text_array(values: Sequence[str | None]) -> pa.Array:
    """A text column; lone surrogates in it become bytes that `valid_text` finds."""
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        encoded = [None if value is None else value.encode("utf-8", "surrogatepass") for value in values]
        return pa.array(encoded, pa.binary()).view(pa.string())


def invalid_text(problem: str) -> tuple[str, str]:
    """The rejection of a row for text that is not valid Unicode."""
    return "invalid_unicode", problem


def no_twins(names: Sequence[str], place: str) -> None:
    """Raises a DatasetError when two columns have one name."""
    twins = sorted({name for name in names if names.count(name) > 1})
    if twins:
        raise DatasetError(f"{place}: the header names {twins[0]!r} twice: every column needs a name of its own")


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
            column = _mend(name, column, rows.rejects)
        columns.append(column)
    rows.table = pa.RecordBatch.from_arrays(columns, schema=batch.schema)
    return rows


def _mend(name: str, column: pa.Array, rejects: dict[int, tuple[str, str]]) -> pa.Array:
    binary = column.view(pa.binary() if pa.types.is_string(column.type) else pa.large_binary())
    values: list[str | None] = []
    for row, value in enumerate(binary.to_pylist()):
        try:
            values.append(value if value is None else value.decode())
        except UnicodeDecodeError as error:
            rejects.setdefault(row, invalid_text(f"column {name!r} is not valid Unicode at byte {error.start}"))
            values.append(value.decode(errors="replace"))
    return pa.array(values, column.type)
