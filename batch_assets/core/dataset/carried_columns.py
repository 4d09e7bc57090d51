"""Columns that results carry otherwise than they are stored: pandas' periods, which are numbers, as they print.

Also what earlier versions of the rendering made of columns that results or templates have otherwise now.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

import pyarrow as pa

from batch_assets.core.dataset.casts import cast_column, decimals_as_texts
from batch_assets.core.dataset.clock_times import without_nanoseconds
from batch_assets.core.dataset.column_types import is_extension, plain_type
from batch_assets.core.dataset.rows import OwnColumn, Rows, python_values
from batch_assets.core.dataset.shown_values import has_clock, has_periods, is_period, shown_values


def carried_type(field: pa.Field) -> pa.DataType:
    """Return the type with which results carry a column: text for pandas' periods, also within lists and objects.

    Args:
        field: The column, with its metadata.
    """
    type_ = field.type
    if is_period(field):
        return pa.string()
    if not has_periods(field) or is_extension(type_):
        return plain_type(type_)
    if pa.types.is_struct(type_):
        return pa.struct([_carried(inner) for inner in type_])
    if pa.types.is_map(type_):
        return pa.map_(plain_type(type_.key_type), _carried(type_.item_field))
    return pa.list_(_carried(type_.value_field))


def _carried(field: pa.Field) -> pa.Field:
    return pa.field(field.name, carried_type(field), field.nullable)


def as_carried(
    batch: pa.RecordBatch, fields: pa.Schema, target: pa.Schema, declared: Collection[str]
) -> tuple[pa.RecordBatch, dict[str, OwnColumn]]:
    """Return rows in which pandas' periods are text, and columns as results carried them until rendering 2.

    These are the periods, and decimals that become floats. Periods keep their numbers if another type than text is
    declared for them.

    Args:
        batch: The rows.
        fields: The types of the columns, with their metadata.
        target: The columns and types that are needed.
        declared: The columns whose type the pipeline declares.
    """
    before: dict[str, OwnColumn] = {}
    for position, name in enumerate(batch.schema.names):
        field = fields.field(name)
        wanted = target.field(name).type
        if decimals_as_texts(plain_type(field.type), wanted) != plain_type(field.type):
            before[name] = OwnColumn(batch.column(position), partial(_cast_by_arrow, wanted))
        if not has_periods(field) or (name in declared and not pa.types.is_string(wanted)):
            continue
        column, type_ = batch.column(position), carried_type(field)
        before[name] = OwnColumn(column, partial(_as_stored, wanted) if name in declared else python_values)
        printed = pa.array(shown_values(column, field), type_)
        batch = batch.set_column(position, pa.field(name, type_), printed)
    return batch, before


def add_times_before(rows: Rows) -> None:
    """Add to the columns of times of the day what templates saw until rendering 2: times without nanoseconds.

    Args:
        rows: The rows, whose `before` changes.
    """
    for field in rows.table.schema:
        own = rows.own.get(field.name)
        if has_clock(own.array.type if isinstance(own, OwnColumn) else field.type):
            values = rows.values(field.name)
            before = [without_nanoseconds(value) for value in values]
            if any(str(old) != str(value) for old, value in zip(before, values, strict=True)):
                rows.before[field.name] = before


def _as_stored(declared: pa.DataType, column: pa.Array) -> list[Any]:
    """Return a column as its declared type was read before: from what is stored."""
    stored = column.storage if is_extension(column.type) else column
    return python_values(cast_column(stored, declared))


def _cast_by_arrow(wanted: pa.DataType, column: pa.Array) -> list[Any]:
    """Return decimals as floats, many of which are not the nearest ones."""
    return python_values(column.cast(wanted))


def in_type_before(type_: pa.DataType, wanted: pa.DataType, column: pa.Array) -> list[Any]:
    """Return a column as results carried it until rendering 2, when it had another type.

    Args:
        type_: The type that it had.
        wanted: The type that results need; text if it is declared, or if nothing else can store the column.
        column: The values, shape (n,).
    """
    before = pa.array(column.to_pylist(), type_)
    return python_values(cast_column(before, wanted) if pa.types.is_string(wanted) else before)
