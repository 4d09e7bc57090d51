"""Times of the day in nanoseconds, which Python's times do not have."""

from __future__ import annotations

from datetime import time
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batch_assets.core.dataset.nested_values import map_leaves

_MICROSECOND, _SECOND, _MINUTE, _HOUR = 1_000, 1_000_000_000, 60_000_000_000, 3_600_000_000_000


class NanosecondTime(time):
    """A time of the day that prints its nanoseconds: 10:00:00.123456789.

    Attributes:
        nanosecond: The nanoseconds beyond its microseconds, from 0 to 999.
    """

    nanosecond: int = 0

    @classmethod
    def at(cls, number: int) -> NanosecondTime:
        """Return the time of a number of nanoseconds since midnight."""
        microsecond = number % _SECOND // _MICROSECOND
        moment = cls(number // _HOUR, number % _HOUR // _MINUTE, number % _MINUTE // _SECOND, microsecond)
        moment.nanosecond = number % _MICROSECOND
        return moment

    def isoformat(self, timespec: str = "auto") -> str:
        if timespec != "auto" or not self.nanosecond:
            return super().isoformat(timespec)
        return f"{super().isoformat('microseconds')}{self.nanosecond:03d}"

    def __str__(self) -> str:
        return self.isoformat()


def is_clock(type_: pa.DataType) -> bool:
    """Whether a type is a time of the day in nanoseconds."""
    return bool(type_ == pa.time64("ns"))


def clock_time(value: int | time) -> time:
    """Return a time of the day, with nanoseconds if it has some.

    Args:
        value: The nanoseconds since midnight, or a time without nanoseconds.
    """
    if isinstance(value, time):
        return value
    moment = NanosecondTime.at(value)
    return moment if moment.nanosecond else without_nanoseconds(moment)


def without_nanoseconds(value: Any) -> Any:
    """Return a value without the nanoseconds of times of the day, also within lists and objects."""
    return map_leaves(_in_microseconds, value)


def _in_microseconds(value: Any) -> Any:
    if isinstance(value, NanosecondTime):
        return time(value.hour, value.minute, value.second, value.microsecond)
    return value


def in_numbers(column: pa.Array) -> pa.Array:
    """Return a column with nanoseconds since midnight in place of times of the day in nanoseconds, at any depth.

    It stays as it is where Arrow cannot cast it, such as that of a view within a list.
    """
    if pa.types.is_list_view(column.type) or pa.types.is_large_list_view(column.type):
        column = _as_list(column)
    try:
        return column.cast(_in_numbers(column.type))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return column


def _as_list(views: pa.Array) -> pa.Array:
    lengths = pc.fill_null(pc.list_value_length(views), 0)
    ends = pc.cumulative_sum(lengths.cast(pa.int64()))
    offsets = pa.concat_arrays([pa.array([0], pa.int64()), ends])
    return pa.LargeListArray.from_arrays(offsets, views.flatten(), mask=views.is_null())


def _in_numbers(type_: pa.DataType) -> pa.DataType:
    if is_clock(type_):
        return pa.int64()
    if pa.types.is_struct(type_):
        return pa.struct([field.with_type(_in_numbers(field.type)) for field in type_])
    if pa.types.is_list(type_):
        return pa.list_(_numbers_in(type_.value_field))
    if pa.types.is_large_list(type_):
        return pa.large_list(_numbers_in(type_.value_field))
    if pa.types.is_fixed_size_list(type_):
        return pa.list_(_numbers_in(type_.value_field), type_.list_size)
    if pa.types.is_map(type_):
        return pa.map_(type_.key_field, _numbers_in(type_.item_field))
    if pa.types.is_dictionary(type_) and is_clock(type_.value_type):
        return pa.int64()
    return type_


def _numbers_in(field: pa.Field) -> pa.Field:
    return field.with_type(_in_numbers(field.type))
