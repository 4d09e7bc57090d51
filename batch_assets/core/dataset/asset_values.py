"""The value of an asset as an Arrow table: from pandas, polars, pyarrow, or Python's lists and dicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from batch_assets.core.dataset.object_columns import ARROW_ERRORS, ObjectColumn, object_column
from batch_assets.core.errors import DatasetError

_SUPPORTED = "a table of pandas, polars or pyarrow, or a list of dicts"


class AssetTable(NamedTuple):
    """The value of an asset.

    Attributes:
        table: The table.
        texts: The columns whose values became JSON text because there is no type for all of them.
        types_before: See `ObjectColumn.type_before`.
    """

    table: pa.Table
    texts: frozenset[str] = frozenset()
    types_before: Mapping[str, pa.DataType] = {}


def arrow_table(value: Any, origin: str) -> AssetTable:
    """Convert the value of an asset.

    Args:
        value: The value. A named pandas index becomes columns; an unnamed index is left out.
        origin: Where it comes from, for errors.

    Raises:
        DatasetError: When the value is not a table, or a column mixes types or holds Python objects.
    """
    if hasattr(value, "collect") and hasattr(value, "collect_schema"):  # a polars LazyFrame
        value = value.collect()
    if hasattr(value, "collect_schema"):  # a polars DataFrame
        _no_objects(value.schema, origin)
    try:
        if hasattr(value, "reset_index"):  # a pandas DataFrame
            return _of_frame(_with_index(value), origin)
        if isinstance(value, list):
            _check_rows(value, origin)
            # pyarrow would take the names from the first row and lose what only later ones have.
            names = dict.fromkeys(name for row in value for name in row)
            return _of_columns({name: [row.get(name) for row in value] for name in names}, origin)
        if isinstance(value, Mapping):
            _check_lists(value, origin)
            return _of_columns(value, origin)
        if hasattr(value, "__arrow_c_stream__"):
            return AssetTable(pa.table(value))
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


def _check_rows(rows: list[Any], origin: str) -> None:
    """Check that the rows of a list are objects with text as keys."""
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise DatasetError(
                f"{origin}, row {number} (from 0) is of the type {type(row).__name__}: make it a dict"
            )
        for name in row:
            if not isinstance(name, str):
                raise DatasetError(f"{origin}, row {number} (from 0) has the key {name!r}: make it text")
    if rows and not any(rows):
        raise DatasetError(f"{origin} has rows, but none of them has a key: give each at least one")


def _check_lists(columns: Mapping[Any, Any], origin: str) -> None:
    """Check that columns have one value for each row. Of a text, Arrow would make a row for each character."""
    for name, values in columns.items():
        if not isinstance(name, str):
            raise DatasetError(f"{origin} is a dict with the column name {name!r}: make it text")
        if isinstance(values, str | bytes | bytearray | Mapping | Set):
            raise DatasetError(
                f"{origin} is a dict whose column {name!r} is of the type {type(values).__name__}: make it a "
                "list, with a value for each row. A single row is a list of one dict"
            )


def _with_index(frame: Any) -> Any:
    """A pandas DataFrame whose index, if it has a name, is a column. Where it is one already, it is left out."""
    for name in {*frame.index.names} & {*frame.columns} - {None}:
        if not frame.index.get_level_values(name).equals(frame.set_index(name).index):
            raise ValueError(f"its index and a column have the name {name!r}, but different values: rename one")
        frame = frame.reset_index(name, drop=True)
    return frame.reset_index() if any(name is not None for name in frame.index.names) else frame


def _of_frame(frame: Any, origin: str) -> AssetTable:
    objects = [position for position, dtype in enumerate(frame.dtypes) if dtype == np.dtype(object)]
    rest = frame.copy(deep=False)
    columns = {}
    for position in objects:
        subject = f"{origin}: column {frame.columns[position]!r}"
        columns[position] = object_column(frame.iloc[:, position], subject)
        rest.isetitem(position, None)
    table = pa.Table.from_pandas(rest, preserve_index=False)
    for position, column in columns.items():
        table = table.set_column(position, table.column_names[position], column.array)
    return _table(table, {table.column_names[position]: column for position, column in columns.items()})


def _of_columns(columns: Mapping[Any, Any], origin: str) -> AssetTable:
    arrays, of_objects = {}, {}
    for name, values in columns.items():
        arrays[name] = values
        if isinstance(values, list | tuple) or getattr(values, "dtype", None) == np.dtype(object):
            of_objects[str(name)] = column = object_column(values, f"{origin}: column {name!r}")
            arrays[name] = column.array
    return _table(pa.table(arrays), of_objects)


def _table(table: pa.Table, of_objects: Mapping[str, ObjectColumn]) -> AssetTable:
    texts = frozenset(name for name, column in of_objects.items() if column.is_text)
    before = {name: column.type_before for name, column in of_objects.items() if column.type_before is not None}
    return AssetTable(table, texts, before)


def python_objects(value: Any) -> dict[str, Callable[[slice], Sequence[Any]]]:
    """Return what gives the values of the columns that hold Python objects, each of its own kind.

    Arrow gives all values of a column the same type, and all objects in it the same keys.

    Args:
        value: The value of an asset.

    Returns:
        For each column a function that returns some of its values.
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
