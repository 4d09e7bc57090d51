"""Columns of Python objects in the value of an asset, as Arrow arrays.

A column becomes text, JSON as in JSON Lines, if Arrow has no type for it because its values are of several kinds,
or if its objects have too many different keys. Templates see the objects.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from itertools import chain
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
import pyarrow as pa

from batch_assets.core.dataset.bounds import JSON_DEPTH
from batch_assets.core.dataset.column_texts import json_text, text_array
from batch_assets.core.dataset.column_types import holds
from batch_assets.core.dataset.one_kind import are_of_one_kind, without_nan
from batch_assets.core.dataset.shown_values import plain_decimal
from batch_assets.core.dataset.wide_objects import are_wide
from batch_assets.core.errors import DatasetError

ARROW_ERRORS = (pa.ArrowException, ValueError, TypeError, OverflowError, AttributeError)
"""What Arrow raises for Python objects that it cannot convert."""
_NESTED = (dict, list, tuple, np.ndarray, set, frozenset)
_MOST_REPEATED = 100_000
_SHORT_FLOATS = (np.float16, np.float32)
_PLAIN = {bool, int, str, type(None)}


class ObjectColumn(NamedTuple):
    """A column of Python objects.

    Attributes:
        array: The values, shape (n,).
        is_text: Whether values of other kinds than text became text.
        type_before: The type that templates saw it with in rendering 1, without pandas' nanoseconds; `None` if it
            is the same.
    """

    array: pa.Array
    is_text: bool = False
    type_before: pa.DataType | None = None


def object_column(values: Sequence[Any], subject: str) -> ObjectColumn:
    """Convert a column of Python objects.

    Args:
        values: The values.
        subject: The column, for errors.

    Raises:
        DatasetError: When values are of several kinds and one has no JSON form, a number is too long, an object
            has two keys that are one as text, or lists and objects are nested too deeply.
    """
    if _are_deep(values):  # Arrow would end the process
        raise DatasetError(f"{subject} has a value that is nested more than {JSON_DEPTH} levels deep")
    try:
        if are_of_one_kind(values) and not are_wide(values):
            present = without_nan(values)  # some of which Arrow refuses beside other values
            array = pa.array(present, from_pandas=True)
            type_ = _with_nanoseconds(array.type, present)
            if type_ == array.type:
                return ObjectColumn(array)
            return ObjectColumn(pa.array(present, type_, from_pandas=True), type_before=array.type)
    except ARROW_ERRORS:
        pass  # several kinds, a number beyond 64 bits, or text that is not Unicode
    try:
        plain = [plain_object(value) for value in values]
    except _EqualKeysError as error:
        raise DatasetError(f"{subject} {error}") from None
    except ARROW_ERRORS as error:
        raise DatasetError(f"{subject} has a value that cannot be converted: {error}") from None
    kinds = {kind for value in plain for kind in _kinds_without_json(value)}
    if kinds:
        raise DatasetError(
            f"{subject} holds Python objects of the type {', '.join(sorted(kinds))}, for which or with "
            "whose other values there is no type of a column: make them all of one kind in the asset, such as text"
        )
    try:
        return ObjectColumn(text_array([_text(value) for value in plain]), is_text=True)
    except ValueError:
        digits = sys.get_int_max_str_digits()
        raise DatasetError(
            f"{subject} has a whole number of more than {digits} digits: make it text in the asset"
        ) from None


class _EqualKeysError(Exception):
    """An object has two keys that are one as text."""


def _with_nanoseconds(type_: pa.DataType, values: Iterable[Any]) -> pa.DataType:
    """Return the type of some values with the nanoseconds of pandas' times, which Arrow leaves out of objects."""
    if not holds(type_, _may_lack_nanoseconds):
        return type_
    if pa.types.is_timestamp(type_):
        return pa.timestamp("ns", type_.tz) if _have(values, "nanosecond") else type_
    if pa.types.is_duration(type_):
        return pa.duration("ns") if _have(values, "nanoseconds") else type_
    if pa.types.is_struct(type_):
        objects = [value for value in values if isinstance(value, Mapping)]
        items = {field: [value.get(field.name) for value in objects] for field in type_}
        return pa.struct([field.with_type(_with_nanoseconds(field.type, of)) for field, of in items.items()])
    lists = [value for value in values if isinstance(value, _NESTED) and not _has_dtype(value)]
    items_of_all = list(chain.from_iterable(lists))
    return pa.list_(type_.value_field.with_type(_with_nanoseconds(type_.value_type, items_of_all)))


def _has_dtype(value: Any) -> bool:
    """Whether a value is an array of another type than Python objects."""
    return isinstance(value, np.ndarray) and not value.dtype.hasobject


def _may_lack_nanoseconds(type_: pa.DataType) -> bool:
    return bool((pa.types.is_timestamp(type_) or pa.types.is_duration(type_)) and type_.unit != "ns")


def _have(values: Iterable[Any], part: str) -> bool:
    parts: Iterable[float] = (getattr(value, part, 0) for value in values)
    return any(number > 0 for number in parts)  # that of NaT is NaN


def _are_deep(values: Sequence[Any]) -> bool:
    groups: list[Iterable[Any]] = [values]  # never one list of all items, of which there may be millions
    for _ in range(JSON_DEPTH + 1):
        all_types = set(map(type, chain.from_iterable(groups)))
        types = tuple(type_ for type_ in all_types if issubclass(type_, _NESTED))
        if not types:
            return False
        nested = [value for value in chain.from_iterable(groups) if isinstance(value, types)]
        if len(nested) > _MOST_REPEATED:  # an object that is within itself would be there ever more often
            nested = list({id(value): value for value in nested}.values())
        groups = [
            value.values() if isinstance(value, dict) else value for value in nested if not _has_dtype(value)
        ]
    return True


def _kinds_without_json(value: Any) -> set[str]:
    if isinstance(value, list | dict):
        items = value.values() if isinstance(value, dict) else value
        return {kind for item in items for kind in _kinds_without_json(item)}
    has_json = value is None or isinstance(value, bool | int | float | Decimal | str | date | time | timedelta)
    return set() if has_json else {type(value).__name__}


def _text(value: Any) -> str | None:
    return str(value) if isinstance(value, date | time | timedelta) else json_text(value)


def plain_object(value: Any, *, shortest: bool = True) -> Any:
    """Return a Python object in the types that Arrow returns: numpy's become Python's, NaN and NaT null.

    Args:
        value: The object.
        shortest: Whether a float16 or float32 becomes the shortest decimal that reads back as the same number, as
            it does since rendering 3, or the number with all its digits.
    """
    if isinstance(value, dict):
        plain = {str(key): plain_object(item, shortest=shortest) for key, item in value.items()}
        if len(plain) < len(value):
            raise _EqualKeysError(
                f"has an object with two keys that are one as text, such as 1 and '1', among {', '.join(plain)}: "
                "rename one"
            )
        return plain
    if isinstance(value, np.ndarray | list | tuple):
        return [plain_object(item, shortest=shortest) for item in value]
    if isinstance(value, set | frozenset):  # its order differs from process to process
        return sorted((plain_object(item, shortest=shortest) for item in value), key=repr)
    if isinstance(value, _SHORT_FLOATS) and shortest:
        value = float(str(value))
    elif isinstance(value, np.datetime64 | np.timedelta64) and (
        np.isnat(value) or isinstance(value.item(), date | timedelta)
    ):
        value = value.item()  # Arrow refuses days, and NaT without a unit
    elif isinstance(value, np.generic):
        value = pa.scalar(value).as_py()
    if isinstance(value, Decimal):
        return plain_decimal(value) if value == value else None
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if isinstance(value, UUID):
        return str(value)
    is_missing = value is None or type(value).__name__ == "NAType" or value != value  # NaN differs from itself
    return None if is_missing else value


def plain_objects(values: Sequence[Any]) -> list[Any]:
    """Return Python objects in the types that Arrow returns. See `plain_object`.

    Args:
        values: The objects.
    """
    if set(map(type, values)) <= _PLAIN:
        return list(values)
    return [plain_object(value) for value in values]


def objects_before(values: Sequence[Any]) -> list[Any] | None:
    """Return Python objects as templates saw them until rendering 2: short floats with all digits of a double.

    Args:
        values: The objects.

    Returns:
        The objects; `None` if there are no short floats among them.
    """
    types = set(map(type, values))
    may_have_some = any(issubclass(type_, _NESTED + _SHORT_FLOATS) for type_ in types)
    if not (may_have_some and any(map(_has_short_floats, values))):
        return None
    return [plain_object(value, shortest=False) for value in values]


def _has_short_floats(value: Any) -> bool:
    """Whether a Python object is a float16 or float32, or has one in it."""
    if _has_dtype(value):
        return value.dtype in _SHORT_FLOATS
    if isinstance(value, _NESTED):
        return any(map(_has_short_floats, value.values() if isinstance(value, dict) else value))
    return isinstance(value, _SHORT_FLOATS)
