"""A dataset from a table in memory, the value of another asset: pandas, polars, pyarrow, or any Arrow data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import pyarrow as pa

from batch_assets.core.dataset.asset_values import arrow_table, python_objects
from batch_assets.core.dataset.bounds import check_columns
from batch_assets.core.dataset.carried_columns import as_carried, carried_type, in_type_before
from batch_assets.core.dataset.casts import by_value, decoded
from batch_assets.core.dataset.column_kinds import TABLE, Kinds
from batch_assets.core.dataset.column_types import goes_by_value, plain_type
from batch_assets.core.dataset.misfits import row_locations, typed_rows
from batch_assets.core.dataset.mixed_columns import MixedColumn
from batch_assets.core.dataset.object_columns import objects_before, plain_objects
from batch_assets.core.dataset.object_keys import ObjectKeys
from batch_assets.core.dataset.rows import (
    ROWS_AT_ONCE,
    OwnColumn,
    Rows,
    own_columns,
)
from batch_assets.core.dataset.shown_values import has_periods, is_stored_otherwise
from batch_assets.core.dataset.table_kinds import (
    MIXED,
    applies_to_objects,
    bytes_in,
    kind_of_objects,
    kinds_of,
    read_by,
    readers,
)
from batch_assets.core.errors import DatasetError
from batch_assets.core.io.slices import cut
from batch_assets.core.pipeline.dataset import DatasetConfig


class TableRows:
    """`dataset: {asset: …}`: the rows of a table in memory.

    Args:
        value: The table. A named pandas index becomes columns; an unnamed index is left out.
        origin: Where the table comes from, for errors.
        config: The `dataset` of the pipeline file.
        recorded: The kinds of its columns on record.

    Raises:
        DatasetError: When the value is not a table, two columns have the same name, or a column mixes types or
            holds Python objects.
    """

    field = "asset"
    columns: list[str] | None = None
    mixed_columns: list[MixedColumn] = []  # noqa: RUF012  never changed

    def __init__(
        self, value: Any, origin: str, config: DatasetConfig, recorded: Mapping[str, Any] | None = None
    ) -> None:
        self._origin, self._config = origin, config
        table, self._texts, self._types_before = arrow_table(value, origin)
        self._objects = python_objects(value)
        check_columns(table.num_columns, origin)
        twice = sorted(name for name, count in Counter(table.column_names).items() if count > 1)
        if twice:
            raise DatasetError(f"{origin} has two columns {twice[0]!r}")
        columns = {field: decoded(column) for field, column in zip(table.schema, table.columns, strict=True)}
        stored = pa.schema([field.with_type(column.type) for field, column in columns.items()])
        table = pa.table(list(columns.values()), schema=stored)
        self._stored = stored
        self._table = pa.table(
            [
                column if has_periods(field) else _as_read(column, f"{origin}: column {field.name!r}")
                for field, column in zip(stored, table.columns, strict=True)
            ],
            names=stored.names,
        )
        self.schema = pa.schema(
            [
                pa.field(field.name, carried_type(field) if has_periods(field) else column.type)
                for field, column in zip(stored, self._table.columns, strict=True)
            ]
        )
        self.blank = not table.column_names
        self.object_keys = ObjectKeys()
        self.object_keys.add_schema(self.schema)
        self._given = table.select([field.name for field in table.schema if is_stored_otherwise(field)])
        self._dicts = value if isinstance(value, list) else None
        columns_now = self._kinds_now(value, recorded or {})
        self.kinds: Kinds = {TABLE: {name: kind for name, kind in columns_now.items() if kind != MIXED}}
        self._readers = readers(recorded or {}, columns_now | bytes_in(self.schema))

    def _kinds_now(self, value: Any, recorded: Mapping[str, Any]) -> dict[str, Any]:
        kinds = kinds_of(self.schema)
        is_frame = hasattr(value, "reset_index")  # pandas decides by all values whether a column has objects
        for name in {*self._given.column_names, *self._objects} & kinds.keys():
            if not is_frame or name in self._given.column_names or self._may_differ(name):
                del kinds[name]  # each object has a kind by itself
        if is_frame:
            of_objects = {name: kind_of_objects(values(slice(None))) for name, values in self._objects.items()}
            kinds |= {name: kind for name, kind in of_objects.items() if kind is not None}
            kinds |= {name: MIXED for name in self._objects if applies_to_objects(recorded.get(name))}
        return kinds

    def rows(self, target: pa.Schema) -> Iterator[Rows]:
        """Yield the rows in order."""
        names = frozenset(self.schema.names)
        present = self._table.select([name for name in target.names if name in names])
        start = 0
        for batch in (part for whole in present.to_batches(ROWS_AT_ONCE) for part in cut(whole)):
            carried, before = as_carried(batch, self._stored, target, self._config.types)
            rows = typed_rows(carried, target, self._config, row_locations(self._origin, start))
            part = slice(start, start + len(batch))
            rows.own = own_columns(batch, self.schema, target)
            rows.carried_before = before | self._without_nanoseconds(batch, target)
            self._add_own_values(rows, target, part)
            read_by(rows, self._readers)
            if self._dicts is not None:
                rows.present = self._dicts[part]
            yield rows
            start = part.stop

    def _without_nanoseconds(self, batch: pa.RecordBatch, target: pa.Schema) -> dict[str, OwnColumn]:
        """The columns of objects with pandas' times, as results carried them until rendering 2."""
        names = self._types_before.keys() & set(batch.schema.names)
        return {
            name: OwnColumn(
                batch.column(name), partial(in_type_before, self._types_before[name], target.field(name).type)
            )
            for name in names
        }

    def _add_own_values(self, rows: Rows, target: pa.Schema, part: slice) -> None:
        given = frozenset(self._given.column_names)
        for field in target:
            if field.name in given:
                column = self._given.column(field.name).slice(part.start, part.stop - part.start)
                rows.own[field.name] = OwnColumn.of(column.combine_chunks(), self._given.schema.field(field.name))
            elif field.name in self._objects and self._may_differ(field.name):
                values = self._objects[field.name](part)
                rows.own[field.name] = plain_objects(values)
                if (before := objects_before(values)) is not None:
                    rows.before[field.name] = before

    def _may_differ(self, name: str) -> bool:
        """Whether the objects of a column may be something else than its values in the table."""
        return name in self._texts or not pa.types.is_string(self.schema.field(name).type)

    def read_file(self, name: str) -> bytes:
        """Refuse: a table has no folder for files."""
        raise ValueError(f"{self._origin} has no folder: read the file {name!r} into a column of bytes instead")

    def close(self) -> None:
        """Do nothing: the table belongs to the caller."""


def _as_read(column: pa.ChunkedArray, subject: str) -> pa.ChunkedArray:
    try:
        if pa.types.is_timestamp(column.type) and column.type.unit == "s":
            column.cast(pa.timestamp("ms", column.type.tz))  # Parquet has no seconds: fails for a time too far off
        if goes_by_value(column.type):
            column = pa.chunked_array([by_value(column, plain_type(column.type))])
        # In two steps, because Arrow cannot cast a dictionary of views to its values. Polars' categories are that.
        return column.cast(plain_type(column.type)).cast(_read_as(column.type))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DatasetError(f"{subject} has a type that cannot be read, {column.type}: {error}") from None


def _read_as(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(type_):
        return _read_as(type_.value_type)
    if pa.types.is_null(type_) or pa.types.is_large_string(type_):
        return pa.string()
    if pa.types.is_large_binary(type_):
        return pa.binary()
    return plain_type(type_)
