"""A dataset from a table in memory, the value of another asset: pandas, polars, pyarrow, or any Arrow data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from batch_assets.core.dataset.bounds import check_columns
from batch_assets.core.dataset.column_kinds import TABLE, Kinds
from batch_assets.core.dataset.column_types import goes_by_value, plain_type
from batch_assets.core.dataset.misfits import row_locations, typed_rows
from batch_assets.core.dataset.mixed_columns import MixedColumn
from batch_assets.core.dataset.object_columns import ARROW_ERRORS, object_array, plain_object
from batch_assets.core.dataset.object_keys import ObjectKeys
from batch_assets.core.dataset.rows import (
    ROWS_AT_ONCE,
    OwnColumn,
    Rows,
    by_value,
    decoded,
    own_columns,
)
from batch_assets.core.dataset.shown_values import is_stored_otherwise
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

_SUPPORTED = "a table of pandas, polars or pyarrow, or a list of dicts"


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
        (table, self._texts), self._objects = _arrow(value, origin), _objects(value)
        check_columns(table.num_columns, origin)
        twice = sorted(name for name, count in Counter(table.column_names).items() if count > 1)
        if twice:
            raise DatasetError(f"{origin} has two columns {twice[0]!r}")
        table = pa.table([decoded(column) for column in table.columns], names=table.column_names)
        columns = [_as_read(table.column(name), f"{origin}: column {name!r}") for name in table.column_names]
        self._table = pa.table(columns, names=table.column_names)
        self.schema: pa.Schema = self._table.schema
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
            rows = typed_rows(batch, target, self._config, row_locations(self._origin, start))
            part = slice(start, start + len(batch))
            rows.own = own_columns(batch, self.schema, target) | self._own_columns(target, part)
            read_by(rows, self._readers)
            if self._dicts is not None:
                rows.present = self._dicts[part]
            yield rows
            start = part.stop

    def _own_columns(self, target: pa.Schema, part: slice) -> dict[str, list[Any] | OwnColumn]:
        own: dict[str, list[Any] | OwnColumn] = {}
        given = frozenset(self._given.column_names)
        for field in target:
            if field.name in given:
                column = self._given.column(field.name).slice(part.start, part.stop - part.start)
                own[field.name] = OwnColumn.of(column.combine_chunks(), self._given.schema.field(field.name))
            elif field.name in self._objects and self._may_differ(field.name):
                own[field.name] = [plain_object(value) for value in self._objects[field.name](part)]
        return own

    def _may_differ(self, name: str) -> bool:
        """Whether the objects of a column may be something else than its values in the table."""
        return name in self._texts or not pa.types.is_string(self.schema.field(name).type)

    def read_file(self, name: str) -> bytes:
        """Refuse: a table has no folder for files."""
        raise ValueError(f"{self._origin} has no folder: read the file {name!r} into a column of bytes instead")

    def close(self) -> None:
        """Do nothing: the table belongs to the caller."""


def _arrow(value: Any, origin: str) -> tuple[pa.Table, frozenset[str]]:
    """Convert the value of an asset.

    Returns:
        The table, and the columns whose values became JSON text because there is no type for all of them.
    """
    if hasattr(value, "collect") and hasattr(value, "collect_schema"):  # a polars LazyFrame
        value = value.collect()
    if hasattr(value, "collect_schema"):  # a polars DataFrame
        _no_objects(value.schema, origin)
    try:
        if hasattr(value, "reset_index"):  # a pandas DataFrame
            return _of_frame(_with_index(value), origin)
        if isinstance(value, list):
            # pyarrow would take the names from the first row and lose what only later ones have.
            names = dict.fromkeys(name for row in value for name in row)
            return _of_columns({name: [row.get(name) for row in value] for name in names}, origin)
        if isinstance(value, Mapping):
            return _of_columns(value, origin)
        if hasattr(value, "__arrow_c_stream__"):
            return pa.table(value), frozenset()
    except ARROW_ERRORS as error:
        subject = f"{origin}{_refused_column(value)}"
        raise DatasetError(f"{subject} cannot be converted to a table: {error}") from None
    raise DatasetError(f"{origin} has a value of the type {type(value).__name__}: it must be {_SUPPORTED}")


def _refused_column(value: Any) -> str:
    """Name the first column of a polars DataFrame that Arrow refuses, as the end of a subject; "" if unknown."""
    for name, type_ in value.schema.items() if hasattr(value, "collect_schema") else ():
        try:
            pa.table(value.select(name))
        except ARROW_ERRORS:
            return f": column {name!r} of the type {type_}"
    return ""


def _with_index(frame: Any) -> Any:
    """A pandas DataFrame whose index, if it has a name, is a column."""
    return frame.reset_index() if any(name is not None for name in frame.index.names) else frame


def _of_frame(frame: Any, origin: str) -> tuple[pa.Table, frozenset[str]]:
    objects = [position for position, dtype in enumerate(frame.dtypes) if dtype == np.dtype(object)]
    rest = frame.copy(deep=False)
    arrays = {}
    for position in objects:
        subject = f"{origin}: column {frame.columns[position]!r}"
        arrays[position] = object_array(frame.iloc[:, position], subject)
        rest.isetitem(position, None)
    table = pa.Table.from_pandas(rest, preserve_index=False)
    for position, (array, _) in arrays.items():
        table = table.set_column(position, table.column_names[position], array)
    return table, frozenset(table.column_names[position] for position in objects if arrays[position][1])


def _of_columns(columns: Mapping[Any, Any], origin: str) -> tuple[pa.Table, frozenset[str]]:
    arrays, texts = {}, set()
    for name, values in columns.items():
        arrays[name] = values
        if isinstance(values, list | tuple) or getattr(values, "dtype", None) == np.dtype(object):
            arrays[name], is_text = object_array(values, f"{origin}: column {name!r}")
            texts |= {str(name)} if is_text else set()
    return pa.table(arrays), frozenset(texts)


def _objects(value: Any) -> dict[str, Callable[[slice], Sequence[Any]]]:
    """The columns that hold Python objects, each of its own kind: a function that returns some of their values.

    Arrow gives all values of a column the same type, and all objects in it the same keys.
    """
    if isinstance(value, list):
        names = dict.fromkeys(name for row in value for name in row)
        return {name: partial(_of_dicts, value, name) for name in names}
    if hasattr(value, "reset_index"):
        frame = _with_index(value)
        objects = [name for name in frame.columns if frame[name].dtype == object]
        return {str(name): partial(_of_array, frame[name].to_numpy()) for name in objects}
    if isinstance(value, Mapping):
        # Series and arrays of another dtype hold values of one type.
        lists = {
            str(name): values if isinstance(values, list | tuple) else np.asarray(values)
            for name, values in value.items()
            if isinstance(values, list | tuple) or getattr(values, "dtype", None) == np.dtype(object)
        }
        return {name: partial(_of_array, values) for name, values in lists.items()}
    return {}


def _of_dicts(rows: list[dict[str, Any]], name: str, part: slice) -> list[Any]:
    return [row.get(name) for row in rows[part]]


def _of_array(values: Any, part: slice) -> Any:
    return values[part]


def _no_objects(schema: Mapping[str, Any], origin: str) -> None:
    """Refuse columns of Python objects, which polars would export as memory addresses."""
    for name, dtype in schema.items():
        if str(dtype) == "Object":
            raise DatasetError(
                f"{origin}: column {name!r} holds Python objects (polars calls the type Object): give it a data "
                "type such as String, or leave it out"
            )


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
