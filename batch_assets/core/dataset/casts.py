"""Conversions of columns to other types, in which no value changes."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.compute

from batch_assets.core.dataset.clock_times import in_numbers
from batch_assets.core.dataset.column_texts import json_text
from batch_assets.core.dataset.column_types import goes_by_value, in_utc, is_extension
from batch_assets.core.dataset.nested_values import map_leaves
from batch_assets.core.dataset.shown_values import has_clock, shown_values
from batch_assets.core.io.parquet import unknown_zone, unstorable

CAST_ERRORS = (pa.ArrowException, ValueError, OverflowError, KeyError)
"""What `cast_column` raises when a value does not fit."""
_DIGITS_OF_DOUBLES = 15  # that every decimal keeps


def cast_column(column: pa.Array, type_: pa.DataType, *, may_round: bool = False) -> pa.Array:
    """Return a column with another type. Only a type into which all values fit unchanged will do.

    Args:
        column: The values, shape (n,).
        type_: The type.
        may_round: Whether a decimal may become the nearest float.

    Raises:
        CAST_ERRORS: When a value does not fit.
    """
    if pa.types.is_string(type_):
        column = _as_text(column)
    if goes_by_value(column.type):
        return by_value(column, type_)
    if (texts := decimals_as_texts(column.type, type_)) != column.type:
        floats = column.cast(texts).cast(type_)  # from a decimal itself, Arrow casts to a float that is near by
        if not may_round:
            _check_decimals(column, floats)
        return floats
    try:
        return column.cast(type_)
    except pa.ArrowInvalid:
        if (exact := _exact_floats(column, type_)) is None:
            raise
        return exact


def decimals_as_texts(type_: pa.DataType, wanted: pa.DataType) -> pa.DataType:
    """Return a type with text in place of each decimal that becomes a float, also within lists and objects.

    Args:
        type_: The type.
        wanted: The type into which it is cast.
    """
    if pa.types.is_decimal(type_) and pa.types.is_floating(wanted):
        return pa.string()
    if pa.types.is_list(type_) and pa.types.is_list(wanted):
        return pa.list_(type_.value_field.with_type(decimals_as_texts(type_.value_type, wanted.value_type)))
    if pa.types.is_struct(type_) and pa.types.is_struct(wanted):
        types = {field.name: field.type for field in wanted}
        return pa.struct(
            [field.with_type(decimals_as_texts(field.type, types.get(field.name, field.type))) for field in type_]
        )
    return type_


def _check_decimals(column: pa.Array, floats: pa.Array) -> None:
    """Check that no decimal has lost digits.

    Raises:
        pyarrow.ArrowInvalid: When one has.
    """
    if pa.types.is_decimal(column.type):
        if pa.types.is_floating(floats.type) and column.type.precision > _DIGITS_OF_DOUBLES:
            for value, number in zip(column.to_pylist(), floats.to_pylist(), strict=True):
                if value is not None and Decimal(repr(number)) != value:
                    raise pa.ArrowInvalid(f"{value} has more digits than a double")
    elif pa.types.is_struct(column.type):
        for field in column.type:
            _check_decimals(
                pa.compute.struct_field(column, field.name), pa.compute.struct_field(floats, field.name)
            )
    elif pa.types.is_list(column.type):
        _check_decimals(column.flatten(), floats.flatten())


def _as_text(column: pa.Array) -> pa.Array:
    """Return a column as text where Arrow's text is another than a person would write, else as it is.

    Lists and objects become JSON, NaN null.
    """
    if unknown_zone(column.type) is not None:
        column = column.cast(in_utc(column.type))  # the same instants
    if pa.types.is_nested(column.type) or unstorable(column.type) is not None:
        return pa.array([json_text(value) for value in _shown(column)], pa.string())
    if pa.types.is_duration(column.type) or pa.types.is_float16(column.type):
        return pa.array([None if value is None else str(value) for value in _shown(column)], pa.string())
    if pa.types.is_floating(column.type):
        return pa.compute.if_else(pa.compute.is_nan(column), None, column)
    return column


def _shown(column: pa.Array) -> list[Any]:
    try:
        return shown_values(column, pa.field("", column.type))
    except KeyError:  # a map with one key twice, whose row is rejected: its entries as pairs
        parts = [column.slice(position, 1) for position in range(len(column))] if len(column) > 1 else []
        return [value for part in parts for value in _shown(part)] or column.to_pylist()


def _exact_floats(column: pa.Array, type_: pa.DataType) -> pa.Array | None:
    """Return integers as floats; `None` if one would change. Arrow casts none beyond 2^53, also powers of two."""
    if not (pa.types.is_integer(column.type) and pa.types.is_floating(type_)):
        return None
    floats = column.cast(type_, safe=False)
    end = 2.0**64 if column.type == pa.uint64() else 2.0**63
    are_in_range = pa.compute.less(floats.cast(pa.float64()), end)
    is_exact = pa.compute.and_(are_in_range, pa.compute.equal(floats.cast(column.type, safe=False), column))
    return floats if pa.compute.all(is_exact).as_py() is not False else None


def decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column without runs, and without categories that are objects or of an extension type."""
    type_ = column.type
    if pa.types.is_run_end_encoded(type_):
        chunks = [pa.compute.run_end_decode(chunk) for chunk in column.chunks]
        return decoded(pa.chunked_array(chunks, type_.value_type))
    if pa.types.is_dictionary(type_) and (pa.types.is_nested(type_.value_type) or is_extension(type_.value_type)):
        chunks = [chunk.dictionary.take(chunk.indices) for chunk in column.chunks]
        return pa.chunked_array(chunks, type_.value_type)
    return column


def by_value(column: pa.Array | pa.ChunkedArray, type_: pa.DataType) -> pa.Array:
    """Convert a column to another type value by value."""
    if has_clock(column.type) and has_clock(type_):
        chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
        values = [value for chunk in chunks for value in in_numbers(chunk).to_pylist()]
    else:
        values = column.to_pylist()
    return pa.array([map_leaves(_without_uuid, value) for value in values], type_)


def _without_uuid(value: Any) -> Any:
    return str(value) if isinstance(value, UUID) else value
