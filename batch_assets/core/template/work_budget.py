"""The work that the templates of one row may do, in counts: the same row always ends in the same way.

Two counts are kept. Steps are rounds of loops and calls. Units are, roughly, characters: a text that is made costs
its length, and one that is only read an eighth of it, more if a filter reads slowly. A larger row has more units.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

STEPS = 1_000_000
"""The most rounds of loops and calls for one row: about one second."""
UNITS = 1 << 30
"""The most units for a small row: some seconds, and as many bytes of memory if all texts are kept."""
UNITS_OF_ROW = 16
"""The additional units for each character of the row."""
_READ_SHIFT = 3
# What an item costs: in a new list, in a list that is read, and if the item itself is new.
_ITEM_MADE, _ITEM_READ, _ITEM_NEW = 8, 512, 256
_SCALAR = 16
_SMALL = 1 << 16
SCALARS = frozenset((bool, int, float, type(None)))
"""Types of values that take no time to read."""
_CONTAINERS = frozenset((list, tuple, dict, set))
_KNOWN = SCALARS | _CONTAINERS | {str}


class WorkBudget:
    """Counts the work of one row.

    Raises:
        OverflowError: From every method but `begin`, when the row has no steps or units left.
    """

    def __init__(self) -> None:
        self.begin(None)

    def begin(self, row: Mapping[str, Any] | None) -> None:
        """Start counting for a new row.

        Args:
            row: The values of the columns; `None` for work that is done for all rows.
        """
        self._steps, self._units, self._row = STEPS, UNITS, row

    def step(self, steps: int = 1) -> None:
        """Count rounds of loops or calls."""
        self._steps -= steps
        if self._steps < 0:
            raise OverflowError(f"more than {STEPS:,} loop rounds and calls for one row")

    def spend(self, units: int) -> None:
        """Count units."""
        self._units -= units
        if self._units < 0:
            self._extend()

    def check(self, units: int) -> None:
        """Check that a value of this size can still be made, without counting it."""
        if units > self._units:
            self.spend(units)
            self._units += units

    def read(self, value: Any, eighths: int = 1) -> None:
        """Count that all of a value is read.

        Args:
            value: The value.
            eighths: The units for each character, in eighths.
        """
        kind = type(value)
        if kind in SCALARS:
            return
        if kind is str:
            self.spend((len(value) * eighths) >> _READ_SHIFT)
        else:
            size = weigh(value, _SMALL)
            if size > _SMALL:
                size = weigh(value, most := self._left(eighths))
                is_too_much = size > most
            else:
                is_too_much = size * eighths > self._units << _READ_SHIFT
            if is_too_much and self._row is not None:
                self._extend()
                size = weigh(value, self._left(eighths))
            self.spend((size * eighths) >> _READ_SHIFT)

    def made(self, value: Any) -> Any:
        """Count a new value, and return it. The items of an iterator are counted as they come."""
        kind = type(value)
        if kind is str:
            units = len(value) if value.isascii() else 4 * len(value)
        elif kind in SCALARS:
            return value
        elif kind in _CONTAINERS:
            units = len(value) * _ITEM_MADE
        elif isinstance(value, str | bytes | bytearray):
            units = len(value)
        else:
            return self._filtered(value) if isinstance(value, Iterator) else value
        self._units -= units
        if self._units < 0:
            self._extend()
        return value

    def called(self, value: Any) -> Any:
        """Count what a call returned, and return it. The items of a list are new, such as those of `split`."""
        if type(value) is list:
            self.spend(len(value) * (_ITEM_NEW >> 2))
        return self.made(value)

    def in_turn(self, value: Any) -> Any:
        """Return the items of a sequence, to be counted as they are taken. Any other value stays."""
        return self._filtered(iter(value)) if isinstance(value, list | tuple | range | Iterator) else value

    @staticmethod
    def listed(value: Any) -> Any:
        """Return an iterator as a list, which can be counted before it is used. Any other value stays."""
        return list(value) if type(value) not in _KNOWN and isinstance(value, Iterator) else value

    def looped(self, items: Iterable[Any], units: int) -> Iterator[Any]:
        """Yield the items of a loop and count each as a step.

        Args:
            items: The items.
            units: The units of each: the text that a round prints whatever the row.
        """
        for item in items:
            self.step()
            if units:
                self.spend(units)
            yield item

    def _filtered(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            self.spend(_ITEM_NEW + (len(item) * _ITEM_MADE if type(item) is list else 0))
            yield item

    def _left(self, eighths: int) -> int:
        """The size of a value from which on reading it takes more units than are left."""
        return ((self._units + 1) << _READ_SHIFT) // eighths + 1

    def _extend(self) -> None:
        """Add the units of the row, once."""
        if self._row is not None:
            self._units += UNITS_OF_ROW * sum(weigh(value, UNITS) for value in self._row.values())
            self._row = None
        if self._units < 0:
            raise OverflowError(
                f"too much work for one row: more than {UNITS // 1_000_000:,} million characters made, or eight "
                "times as many read. Do this work in the dataset, before"
            )


def weigh(value: Any, most: int) -> int:
    """Return the units to read a value with all that is in it, also several times if it is in it several times.

    Args:
        value: The value.
        most: The number at which counting may stop.
    """
    total = 0
    stack = [value]
    while stack and total <= most:
        item = stack.pop()
        kind = type(item)
        if kind is str:
            total += _SCALAR + _size(item)
        elif kind in SCALARS:
            total += _SCALAR
        elif kind is list or kind is tuple:
            total += len(item) * _ITEM_READ
            if total <= most:
                for entry in item:
                    inner = type(entry)
                    if inner is str:
                        total += len(entry) if entry.isascii() else 4 * len(entry)
                    elif inner not in SCALARS:
                        stack.append(entry)
        elif kind is dict:
            total += len(item) * 2 * _ITEM_READ
            stack += item
            stack += item.values()
        elif isinstance(item, str | bytes | bytearray):
            total += _SCALAR + len(item)
        elif isinstance(item, list | tuple | set | frozenset):
            total += len(item) * _ITEM_READ
            stack.extend(item)
        elif isinstance(item, Mapping):
            total += len(item) * 2 * _ITEM_READ
            stack.extend(item.keys())
            stack.extend(item.values())
        elif isinstance(item, range):
            total += len(item) * _ITEM_READ
        else:
            total += _SCALAR
    return total


def _size(text: str) -> int:
    """The bytes of a text in memory, at most."""
    return len(text) if text.isascii() else 4 * len(text)
