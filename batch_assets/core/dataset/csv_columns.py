"""The type of a CSV column, found block by block, and the few values that keep a column from having another."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from batch_assets.core.dataset.csv_types import CANDIDATES, PATTERNS, fitting

# One value in so many is a small share.
_FEW = 10
_SAMPLE = 20


class ColumnType:
    """Finds the type of one column from its text, block by block.

    Attributes:
        almost: Finds the types that almost all values have.
    """

    def __init__(self) -> None:
        self._candidates = list(CANDIDATES)
        self._has_values = False
        self.almost = AlmostTypes()

    def watch(self, values: pa.Array) -> None:
        """Take the next values into account.

        Args:
            values: string, shape (n,). Nulls are ignored.
        """
        present = values.drop_null()
        if len(present) > 0:
            self._has_values = True
            first, head = present[0].as_py(), present.slice(0, 100)  # the first values decide most columns
            self._candidates = [candidate for candidate in self._candidates if PATTERNS[candidate[0]].match(first)]
            self._candidates = [candidate for candidate in self._candidates if candidate[1](head)]
            if len(present) > len(head):
                self._candidates = [candidate for candidate in self._candidates if candidate[1](present)]
        self.almost.watch(values, present, {type_ for type_, _ in self._candidates})

    def join(self, other: ColumnType, file: str) -> None:
        """Take into account the values of the same column in another file.

        Args:
            other: The type in the other file.
            file: The other file.
        """
        self._candidates = [candidate for candidate in self._candidates if candidate in other._candidates]
        self._has_values = self._has_values or other._has_values
        self.almost.join(other.almost, file)

    @property
    def type(self) -> pa.DataType:
        """The type of all values so far: text if no other type fits, null if there were no values."""
        if not self._has_values:
            return pa.null()
        return self._candidates[0][0] if self._candidates else pa.string()


@dataclass
class OddValues:
    """The values of a column that do not have a type, which almost all others have.

    Attributes:
        count: Their number.
        row: The row of the first, from 0.
        text: The first.
        file: The file that has it; "" if there is only one.
    """

    count: int = 0
    row: int = -1
    text: str = ""
    file: str = ""


class AlmostTypes:
    """Finds the types that all but a few values of a column have.

    Attributes:
        values: The number of values so far.
    """

    def __init__(self) -> None:
        self.values = self._rows = 0
        self._odd = {type_: OddValues() for type_, _ in CANDIDATES}

    def watch(self, values: pa.Array, present: pa.Array, candidates: Set[pa.DataType]) -> None:
        """Take the next values into account.

        Args:
            values: string, shape (n,).
            present: The values that are not null, shape (m,).
            candidates: The types that all values so far have.
        """
        self.values += len(present)
        others = [type_ for type_ in self._odd if type_ not in candidates] if len(present) else []
        head = present.slice(0, _SAMPLE).to_pylist() if others else []
        for type_ in others:
            looks = sum(PATTERNS[type_].match(value) is not None for value in head)
            if looks * 2 < len(head) or not self._is_most(values, type_):
                del self._odd[type_]  # so that it costs no more time, as most types for most columns
        self._rows += len(values)

    def _is_most(self, values: pa.Array, type_: pa.DataType) -> bool:
        """Count the odd values. Returns whether most values so far fit."""
        wrong, odd = _is_odd(values, type_), self._odd[type_]
        if wrong.true_count and not odd.count:
            row = wrong.index(True).as_py()
            odd.row, odd.text = self._rows + row, values[row].as_py()
        odd.count += wrong.true_count
        return odd.count * 2 <= self.values

    def join(self, other: AlmostTypes, file: str) -> None:
        """Take into account the values of the same column in another file, see `ColumnType.join`."""
        self.values += other.values
        for type_ in list(self._odd):
            if type_ not in other._odd:
                del self._odd[type_]
                continue
            mine, others = self._odd[type_], other._odd[type_]
            if others.count:
                first = mine if mine.count else replace(others, file=file)
                self._odd[type_] = replace(first, count=mine.count + others.count)

    @property
    def nearest(self) -> tuple[pa.DataType, OddValues] | None:
        """The type that most values have, with the others, if these are only a small share."""
        least = min(self._odd.items(), key=lambda item: item[1].count, default=None)
        if least is None or not least[1].count:
            return None
        few = max(1, self.values // _FEW)
        return least if least[1].count <= few and self.values > 2 else None


def _is_odd(values: pa.Array, type_: pa.DataType) -> pa.Array:
    """Whether each value does not have a type: bool, shape (n,)."""
    return pc.invert(pc.fill_null(fitting(values, type_), True))
