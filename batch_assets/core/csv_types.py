"""Types of CSV columns, decided over the whole file: a number only if every value prints back identically."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

_FLOAT_WITH_POINT = r"^-?(0|[1-9][0-9]*)\.(0|[0-9]*[1-9])$"
_FLOAT_OR_INTEGER = r"^-?(0|[1-9][0-9]*)(\.[0-9]*[1-9])?$"
_DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
_TIMESTAMP = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?"
_ZONE = r"(Z|[+-][0-9]{2}:?[0-9]{2})$"


def _matches(pattern: str) -> Callable[[pa.Array], bool]:
    return lambda values: bool(pc.all(pc.match_substring_regex(values, pattern)).as_py())


def _casts(values: pa.Array, type_: pa.DataType) -> pa.Array | None:
    try:
        return values.cast(type_)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None


def _prints_back(type_: pa.DataType) -> Callable[[pa.Array], bool]:
    def check(values: pa.Array) -> bool:
        numbers = _casts(values, type_)
        return numbers is not None and numbers.cast(pa.string()).equals(values.cast(pa.string()))

    return check


def _float(pattern: str) -> Callable[[pa.Array], bool]:
    """Plain decimals in one style whose digits a float64 holds (15 are always safe)."""
    fits = _matches(pattern)

    def check(values: pa.Array) -> bool:
        if not fits(values):
            return False
        digits = pc.utf8_length(pc.replace_substring_regex(values, r"[^0-9]", ""))
        return bool(pc.all(pc.less_equal(digits, 15)).as_py())

    return check


def _instant(type_: pa.DataType, pattern: str) -> Callable[[pa.Array], bool]:
    fits = _matches(pattern)
    return lambda values: fits(values) and _casts(values, type_) is not None


# In order of preference. "10" beside "2.5" is one style of writing floats, "10.0" beside "2.5" another;
# mixed, the text would not print back, so it stays text.
CANDIDATES: list[tuple[pa.DataType, Callable[[pa.Array], bool]]] = [
    (pa.int64(), _prints_back(pa.int64())),
    (pa.float64(), _float(_FLOAT_WITH_POINT)),
    (pa.float64(), _float(_FLOAT_OR_INTEGER)),
    (pa.bool_(), _matches("^(true|false)$")),
    (pa.bool_(), _matches("^(True|False)$")),
    (pa.date32(), _instant(pa.date32(), _DATE)),
    (pa.timestamp("us"), _instant(pa.timestamp("us"), _TIMESTAMP + "$")),
    (pa.timestamp("us", "UTC"), _instant(pa.timestamp("us", "UTC"), _TIMESTAMP + _ZONE)),
]


class ColumnType:
    """Watches one column's text go by and settles on its type."""

    def __init__(self) -> None:
        self._open = list(CANDIDATES)
        self._seen = False

    def watch(self, values: pa.Array) -> None:
        """Takes the next values (strings, nulls allowed)."""
        values = values.drop_null()
        if len(values) == 0 or not self._open:
            return
        self._seen = True
        head = values.slice(0, 100)  # most columns are settled by their first values
        self._open = [candidate for candidate in self._open if candidate[1](head)]
        self._open = [candidate for candidate in self._open if candidate[1](values)]

    def join(self, other: ColumnType) -> None:
        """Takes into account what another has watched: the same column of another file."""
        self._open = [candidate for candidate in self._open if candidate in other._open]
        self._seen = self._seen or other._seen

    @property
    def type(self) -> pa.DataType:
        """The type that holds every value seen, text when none does; null when none was seen."""
        if not self._seen:
            return pa.null()
        return self._open[0][0] if self._open else pa.string()
