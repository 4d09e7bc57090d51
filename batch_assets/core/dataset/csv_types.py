"""Types of CSV columns, decided over the whole file. A column has a type only if every value prints unchanged.

A prompt shows what the file shows. So a column becomes integers, floats, booleans (`True` and `False`) or dates
only if Python prints every value as it is written in the file. Then a value late in the file cannot change what
earlier rows print. A column with `10` and `2.5`, with `1.50` or with `true` stays text.

ISO timestamps are the exception. A column of them, all with a time zone or all without, becomes timestamps, and a
prompt shows them as Python prints them: `2024-01-02T03:04:05` as `2024-01-02 03:04:05`. Timestamps with a zone are
shown in UTC: `2024-01-02T03:04:05Z` as `2024-01-02 03:04:05+00:00`. `dataset.types: {at: string}` keeps the text.
In a column that has other values too, and so stays text, prompts show each timestamp in the same way.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_FLOAT = r"^-?(0|[1-9][0-9]*)\.(0|[0-9]*[1-9])$|^-?[1-9](\.[0-9]*[1-9])?e[+-][0-9]{2,3}$"
_SURE_LENGTH = 16  # a point and 15 digits, which a double always stores exactly
_NOT_PLAIN = r"e|^-?0\.0000"  # numbers that Python prints with an exponent
_BOOLEAN = r"^(True|False)$"
_DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
_TIMESTAMP = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?"
_ZONE = r"(Z|[+-][0-9]{2}:?[0-9]{2})$"
# Years 1 to 9999, the range of Python's dates.
_DAYS = (-719_162, 2_932_896)
_AT_ONCE = 64
_MICROSECONDS = (_DAYS[0] * 86_400_000_000, (_DAYS[1] + 1) * 86_400_000_000 - 1)


def _matches(pattern: str) -> Callable[[pa.Array], bool]:
    return lambda values: bool(pc.all(pc.match_substring_regex(values, pattern)).as_py())


def _casts(values: pa.Array, type_: pa.DataType) -> pa.Array | None:
    try:
        return values.cast(type_)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None


def _is_integer(values: pa.Array) -> bool:
    numbers = _casts(values, pa.int64())
    return numbers is not None and numbers.cast(pa.string()).equals(values.cast(pa.string()))


def _is_float(values: pa.Array) -> bool:
    return _matches(_FLOAT)(values) and bool(pc.all(_prints_unchanged(values)).as_py())


def _prints_unchanged(values: pa.Array) -> pa.Array:
    """Whether Python prints each number as it is written: bool, shape (n,).

    That is certain for short plain decimals and for those that Arrow prints unchanged. Python prints the others.

    Args:
        values: Texts that match `_FLOAT`, shape (n,).
    """
    unsure = pc.greater(pc.binary_length(values), _SURE_LENGTH)
    if pc.any(unsure).as_py():
        printed = values.cast(pa.float64()).cast(pa.string())
        unsure = pc.and_(unsure, pc.not_equal(printed, values.cast(pa.string())))
    unsure = pc.or_(unsure, pc.match_substring_regex(values, _NOT_PLAIN))
    printed_by_python = [repr(float(text)) == text for text in values.filter(unsure).to_pylist()]
    return pc.replace_with_mask(pc.invert(unsure), unsure, pa.array(printed_by_python, pa.bool_()))


def _is_instant(type_: pa.DataType, pattern: str) -> Callable[[pa.Array], bool]:
    fits = _matches(pattern)
    integer, (first, last) = (pa.int32(), _DAYS) if pa.types.is_date(type_) else (pa.int64(), _MICROSECONDS)

    def check(values: pa.Array) -> bool:
        instants = _casts(values, type_) if fits(values) else None
        if instants is None:
            return False
        extremes = pc.min_max(instants.cast(integer))
        return bool(first <= extremes["min"].as_py() and extremes["max"].as_py() <= last)

    return check


# In order of preference.
CANDIDATES: list[tuple[pa.DataType, Callable[[pa.Array], bool]]] = [
    (pa.int64(), _is_integer),
    (pa.float64(), _is_float),
    (pa.bool_(), _matches(_BOOLEAN)),
    (pa.date32(), _is_instant(pa.date32(), _DATE)),
    (pa.timestamp("us"), _is_instant(pa.timestamp("us"), _TIMESTAMP + "$")),
    (pa.timestamp("us", "UTC"), _is_instant(pa.timestamp("us", "UTC"), _TIMESTAMP + _ZONE)),
]


# What a value of a type looks like; more has to be checked.
PATTERNS = {
    pa.int64(): re.compile(r"^(0|-?[1-9][0-9]*)$"),
    pa.float64(): re.compile(_FLOAT),
    pa.bool_(): re.compile(_BOOLEAN),
    pa.date32(): re.compile(_DATE),
    pa.timestamp("us"): re.compile(_TIMESTAMP + "$"),
    pa.timestamp("us", "UTC"): re.compile(_TIMESTAMP + _ZONE),
}


def fitting(values: pa.Array, type_: pa.DataType) -> pa.Array:
    """Return which values fit a type, each by itself: bool, shape (n,). Null where the value is null.

    Args:
        values: string, shape (n,).
        type_: The type of one of CANDIDATES.
    """
    matches = pc.match_substring_regex(values, PATTERNS[type_].pattern)
    positions = pc.indices_nonzero(pc.fill_null(matches, False))
    matching = values.take(positions)
    if pa.types.is_float64(type_):
        return pc.replace_with_mask(matches, pc.fill_null(matches, False), _prints_unchanged(matching))
    is_fit = dict(CANDIDATES)[type_]
    if len(matching) == 0 or is_fit(matching):
        return matches
    fits = matches.to_pylist()
    for start in range(0, len(matching), _AT_ONCE):  # most slices of a few values fit
        part = matching.slice(start, _AT_ONCE)
        if not is_fit(part):
            for offset, position in enumerate(positions.slice(start, _AT_ONCE).to_pylist()):
                fits[position] = is_fit(part.slice(offset, 1))
    return pa.array(fits, pa.bool_())


def with_timestamps(values: pa.Array) -> list[Any]:
    """Return the values of a text column for templates: ISO timestamps as such, as in a column of nothing else.

    Args:
        values: string, shape (n,).
    """
    python: list[Any] = values.to_pylist()
    if not pc.any(pc.match_substring_regex(values, _TIMESTAMP)).as_py():
        return python
    for type_, is_instant in CANDIDATES[-2:]:
        matches = pc.match_substring_regex(values, _TIMESTAMP + (_ZONE if type_.tz else "$"))
        positions = pc.indices_nonzero(pc.fill_null(matches, False))
        matching = values.take(positions)
        if len(matching) and not is_instant(matching):  # some may be a 30th of February
            fits = pa.array([is_instant(matching.slice(position, 1)) for position in range(len(matching))])
            positions, matching = positions.filter(fits), matching.filter(fits)
        for position, instant in zip(positions.to_pylist(), matching.cast(type_).to_pylist(), strict=True):
            python[position] = instant
    return python
