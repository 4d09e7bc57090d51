"""Keep only the values in use in dictionaries, such as the categories of pandas.

A dictionary has the values of all rows of its table, and Parquet stores one of texts or bytes whole. A few rows of
the table, or a table without the row of a person, would still have the values of all others. Parquet stores other
dictionaries as plain values.
"""

from __future__ import annotations

from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

Rows = TypeVar("Rows", pa.RecordBatch, pa.Table)


def with_used_values(rows: Rows) -> Rows:
    """Return rows whose dictionaries have only values that the rows have. Types and the order of values stay."""
    for position, field in enumerate(rows.schema):
        if not _has_dictionaries(field.type):
            continue
        column = rows.column(position)
        if isinstance(column, pa.ChunkedArray):
            used = pa.chunked_array([_used(chunk) for chunk in column.chunks], field.type)
        else:
            used = _used(column)
        rows = rows.set_column(position, field, used)
    return rows


def _has_dictionaries(type_: pa.DataType) -> bool:
    return _is_stored_whole(type_) or any(
        _has_dictionaries(type_.field(number).type) for number in range(type_.num_fields)
    )


def _is_stored_whole(type_: pa.DataType) -> bool:
    if not pa.types.is_dictionary(type_):
        return False
    values = type_.value_type
    return bool(pa.types.is_string(values) or pa.types.is_large_string(values) or _is_bytes(values))


def _is_bytes(type_: pa.DataType) -> bool:
    return bool(pa.types.is_binary(type_) or pa.types.is_large_binary(type_))


def _used(column: pa.Array) -> pa.Array:
    type_ = column.type
    if pa.types.is_dictionary(type_):
        values = pc.unique(column.indices.drop_null()).sort()
        indices = pc.index_in(column.indices, value_set=values, skip_nulls=True).cast(type_.index_type)
        return pa.DictionaryArray.from_arrays(indices, column.dictionary.take(values), ordered=type_.ordered)
    # A copy has no values of rows before or after these.
    copied = column.take(pa.array(range(len(column)), pa.int64()))
    return copied.cast(_decoded(type_)).cast(type_)


def _decoded(type_: pa.DataType) -> pa.DataType:
    """Return a type with texts and bytes in place of dictionaries of them."""
    if _is_stored_whole(type_):
        return type_.value_type
    if pa.types.is_struct(type_):
        return pa.struct([_decoded_field(inner) for inner in type_])
    if pa.types.is_map(type_):
        return pa.map_(_decoded_field(type_.key_field), _decoded_field(type_.item_field), type_.keys_sorted)
    if pa.types.is_fixed_size_list(type_):
        return pa.list_(_decoded_field(type_.value_field), type_.list_size)
    if pa.types.is_large_list(type_):
        return pa.large_list(_decoded_field(type_.value_field))
    return pa.list_(_decoded_field(type_.value_field)) if pa.types.is_list(type_) else type_


def _decoded_field(inner: pa.Field) -> pa.Field:
    return inner.with_type(_decoded(inner.type))
