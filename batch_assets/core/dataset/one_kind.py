"""Whether Python objects are of one kind, so that a column of one type holds them as they are.

Arrow changes values of other kinds without a word to fit the first one: true becomes 1.0 beside a number with a
fraction, 5 a day in 1970 beside a date, and a time loses its zone beside one that has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import cache
from itertools import chain
from typing import Any

import numpy as np

_MISSING, _LIST, _OBJECT, _DATETIME, _TIME = "missing", "list", "object", "datetime", "time"
# Types and their kinds. Subclasses come before their base classes. Every other type is a kind of its own.
_KINDS: list[tuple[type | tuple[type, ...], str]] = [
    (type(None), _MISSING),
    ((bool, np.bool_), "boolean"),
    ((int, float, Decimal, np.number), "number"),
    ((str, bytes, bytearray, memoryview), "text"),
    (datetime, _DATETIME),
    (date, "date"),
    (time, _TIME),
    (timedelta, "duration"),
    ((list, tuple, set, frozenset, np.ndarray), _LIST),
    (Mapping, _OBJECT),
]
# Kinds of which the type does not say all.
_DECIDED_BY_VALUES = frozenset({_DATETIME, _TIME, _LIST, _OBJECT})
_WITH_NAN = (float, Decimal, np.floating, np.datetime64, np.timedelta64)


@cache
def _kind(type_: type) -> str:
    if type_.__name__ in ("NaTType", "NAType"):  # NaT is a datetime to Python
        return _MISSING
    if issubclass(type_, np.timedelta64):  # numpy's durations are its numbers
        return type_.__name__
    return next((kind for types, kind in _KINDS if issubclass(type_, types)), type_.__name__)


def are_of_one_kind(values: Iterable[Any]) -> bool:
    """Return whether all values that are not missing are of one kind, and so are those within them.

    NaN is missing. All numbers but booleans are of one kind.

    Args:
        values: Python objects.
    """
    present = without_nan(list(values))
    kinds = _kinds(present)
    if len(kinds) > 1:
        return False
    if kinds == {_DATETIME}:
        return len({value.tzinfo is None for value in present if _is(value, _DATETIME)}) == 1
    if kinds == {_TIME}:  # Arrow's times have no zone
        return all(value.tzinfo is None for value in present if _is(value, _TIME))
    if kinds == {_LIST}:
        lists = [_item_of_dtype(value) for value in present if _is(value, _LIST)]
        kinds_within = _kinds(chain.from_iterable(lists))
        if len(kinds_within) < 2 and not kinds_within & _DECIDED_BY_VALUES:
            return True  # without a list of all items, which may be many numbers
        return are_of_one_kind(chain.from_iterable(lists))
    if kinds == {_OBJECT}:
        columns: dict[Any, list[Any]] = {}
        for value in present:
            if _is(value, _OBJECT):
                for name, item in value.items():
                    columns.setdefault(name, []).append(item)
        return all(map(are_of_one_kind, columns.values()))
    return True


def without_nan(values: Sequence[Any]) -> Sequence[Any]:
    """Return values with null for NaN and NaT where these are beside values of another kind.

    Args:
        values: Python objects.
    """
    if len(_kinds(values)) < 2:
        return values
    return [None if isinstance(value, _WITH_NAN) and value != value else value for value in values]


def _kinds(values: Iterable[Any]) -> set[str]:
    return set(map(_kind, set(map(type, values)))) - {_MISSING}


def _is(value: Any, kind: str) -> bool:
    type_: type = type(value)
    return _kind(type_) == kind


def _item_of_dtype(value: Any) -> Any:
    """Return a list; for an array whose items are all of one type, one such item that is not missing."""
    is_of_one_type = isinstance(value, np.ndarray) and value.dtype != object
    return np.ones(1, value.dtype) if is_of_one_type else value
