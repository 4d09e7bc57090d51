"""A dataset that somebody else has made: a table of pandas, polars, pyarrow or anything that gives Arrow data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from batch_assets.core.dataset.rows import Rows, by_value, conform, goes_by_value, plain_type, valid_text
from batch_assets.core.errors import DatasetError

_ROWS_AT_ONCE = 4096
_TAKEN = "a table of pandas, polars or pyarrow, or a list of dicts"


class TableRows:
    """`dataset: {asset: …}`: the rows of a table that is in memory.

    Args:
        value: the table. A named index of pandas becomes columns, an unnamed one is left out.
        place: where it comes from, for people.

    Errors:
        DatasetError: it is no table, two columns have one name, a column mixes types or holds objects of Python.
    """

    field = "asset"
    columns: list[str] | None = None

    def __init__(self, value: Any, place: str) -> None:
        self._place = place
        table = _arrow(value, place)
        twice = {name for name in table.column_names if table.column_names.count(name) > 1}
        if twice:
            raise DatasetError(f"{place} has two columns {min(twice)!r}")
        columns = [_as_read(table.column(name), f"{place}: column {name!r}") for name in table.column_names]
        self._table = pa.table(columns, names=table.column_names)
        self.schema: pa.Schema = self._table.schema
        self.blank = not table.column_names

    def rows(self, target: pa.Schema) -> Iterator[Rows]:
        """The rows in order."""
        present = self._table.select([name for name in target.names if name in self.schema.names])
        for batch in present.to_batches(_ROWS_AT_ONCE):
            yield valid_text(conform(batch, target, self._place))

    def read_file(self, name: str) -> bytes:
        """There is no folder that files could be in."""
        raise ValueError(f"{self._place} has no folder: read the file {name!r} into a column of bytes instead")

    def close(self) -> None:
        """The table is not ours."""


def _arrow(value: Any, place: str) -> pa.Table:
    if hasattr(value, "collect") and hasattr(value, "collect_schema"):  # a lazy frame of polars
        value = value.collect()
    if hasattr(value, "collect_schema"):  # a frame of polars
        _no_objects(value.schema, place)
    try:
        if hasattr(value, "reset_index"):  # a frame of pandas
            named = any(name is not None for name in value.index.names)
            return pa.Table.from_pandas(value.reset_index() if named else value, preserve_index=False)
        if isinstance(value, list):
            return pa.Table.from_pylist(value)
        if isinstance(value, Mapping) or hasattr(value, "__arrow_c_stream__"):
            return pa.table(value)
    except (pa.ArrowException, ValueError, TypeError, AttributeError) as error:
        raise DatasetError(f"{place} has no form as a table: {error}") from None
    raise DatasetError(f"{place} is a {type(value).__name__}: it must give {_TAKEN}")


def _no_objects(schema: Mapping[str, Any], place: str) -> None:
    """Refuses what polars gives as the addresses of objects in memory."""
    for name, dtype in schema.items():
        if str(dtype) == "Object":
            raise DatasetError(
                f"{place}: column {name!r} holds objects of Python (polars calls the type Object): give it a type "
                "of data, such as String, or leave it out"
            )


def _as_read(column: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    try:
        if goes_by_value(column.type):
            column = pa.chunked_array([by_value(column, plain_type(column.type))])
        # In two steps: Arrow takes nothing out of a dictionary of views, and categories of polars are such.
        return column.cast(plain_type(column.type)).cast(_read_as(column.type))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DatasetError(f"{where} has a type that cannot be read, {column.type}: {error}") from None


def _read_as(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(type_):
        return _read_as(type_.value_type)
    if pa.types.is_null(type_) or pa.types.is_large_string(type_):
        return pa.string()
    if pa.types.is_large_binary(type_):
        return pa.binary()
    return plain_type(type_)
