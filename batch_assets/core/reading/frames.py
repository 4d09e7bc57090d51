"""Turn an Arrow table into the frames of other libraries, which are imported only then."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import pyarrow as pa

from batch_assets.core.errors import SettingsError
from batch_assets.core.text import nearest

_INSTALL = {"polars": "pip install polars", "duckdb": "pip install 'batch-assets[duckdb]'"}


def converter(kind: str) -> Callable[[pa.Table], Any]:
    """Return what converts a table.

    Args:
        kind: `pandas`, `polars`, `arrow` or `duckdb`.

    Returns:
        A function of the table. It raises a `SettingsError` when the other library cannot name its columns.

    Raises:
        SettingsError: When there is no such kind, or its package is not installed.
    """
    match kind:
        case "arrow":
            return lambda table: table
        case "pandas":
            return _to_pandas
        case "polars":
            polars = _imported(kind)
            return lambda table: polars.from_arrow(table)
        case "duckdb":
            duckdb = _imported(kind)
            return lambda table: _to_duckdb(duckdb, table)
    kinds = ["pandas", "polars", "arrow", "duckdb"]
    meant = nearest(kind, kinds)
    hint = f" (did you mean {meant!r}?)" if meant is not None else ""
    raise SettingsError(f"as_ is {kind!r}{hint}: use one of {', '.join(kinds)}")


def _to_pandas(table: pa.Table) -> Any:
    """Return a DataFrame in which integers and booleans stay what they are beside nulls, in lists and structs too.

    A nested value is a list or a dict, with the same values in it as of `to_pylist()`. What Arrow makes of it has
    floats for integers as soon as one of them is null, in any row: above 2^53 these are other numbers.
    """
    pd = import_module("pandas")
    signed = {pa.int8(): pd.Int8Dtype(), pa.int16(): pd.Int16Dtype(), pa.int32(): pd.Int32Dtype()}
    unsigned = {pa.uint8(): pd.UInt8Dtype(), pa.uint16(): pd.UInt16Dtype(), pa.uint32(): pd.UInt32Dtype()}
    long = {pa.int64(): pd.Int64Dtype(), pa.uint64(): pd.UInt64Dtype(), pa.bool_(): pd.BooleanDtype()}
    nested = [number for number, field in enumerate(table.schema) if pa.types.is_nested(field.type)]
    flat = table
    for number in nested:
        flat = flat.set_column(number, table.field(number).name, pa.nulls(len(table)))
    frame = flat.to_pandas(types_mapper=(signed | unsigned | long).get)
    for number in nested:
        values = table.column(number).to_pylist()
        frame.isetitem(number, pd.Series(values, frame.index, dtype=object))
    return frame


def _to_duckdb(duckdb: Any, table: pa.Table) -> Any:
    """Return a relation whose columns have the names of the table's columns.

    DuckDB renames the second of two columns whose names differ in case only, and a query with its name would get
    the first.
    """
    relation = duckdb.from_arrow(table)
    for name, given in zip(table.column_names, relation.columns, strict=True):
        if name == given:
            continue
        alike = [repr(other) for other in table.column_names if other.lower() == name.lower()]
        raise SettingsError(
            f"as_ is 'duckdb', which does not tell the columns {' and '.join(alike)} apart: name those that you "
            "need with `columns`, use as_='arrow' or 'polars', or give one of them another name in the pipeline "
            "file, in `dataset.columns` or the output schema"
        )
    return relation


def _imported(package: str) -> Any:
    try:
        return import_module(package)
    except ModuleNotFoundError:
        raise SettingsError(f"as_ is {package!r}, which is not installed: {_INSTALL[package]}") from None
