"""What was found for each row of a request index, in the dataset's order, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.io.parted_records import PartedRecords

# What was found for this many consecutive rows is in memory at a time.
_RANGE_ROWS = 1 << 18

MATCH = np.dtype(
    [
        ("response", np.int32),
        ("kind", np.int8),
        ("attempt", np.uint16),
        ("counting", np.int32),
        ("counting_kind", np.int8),
        ("counting_attempt", np.uint16),
        ("first", np.int32),
        ("left_out", np.bool_),
    ]
)
"""What was found for a row.

| field | of |
|---|---|
| `response` | the row number of the response in force, -1 without one |
| `kind`, `attempt` | its outcome, see `UnpackedOutcomes` |
| `counting`, `counting_kind`, `counting_attempt` | the same of the response that counts for the submission |
| `first` | the number of the first row that has the same response in force, -1 without one |
| `left_out` | whether a limit left the request out of the submission |
"""
_RECORD = np.dtype([("row", np.int32), ("match", MATCH)])
_NO_MATCH = np.zeros((), MATCH)
_NO_MATCH["response"] = _NO_MATCH["counting"] = _NO_MATCH["first"] = -1


class Matches:
    """What was found for each row. It is added in any order and read in the order of the rows.

    Args:
        rows: The number of rows.

    Raises:
        StorageError: From `add`, when the folder for scratch files is full.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._records = PartedRecords(_RECORD, -(-rows // _RANGE_ROWS))

    def add(self, row: NDArray[np.int32], match: NDArray[Any]) -> None:
        """Add what was found for some rows. Nothing is found for rows that are never added.

        Args:
            row: The numbers of the rows: int32, shape (n,).
            match: MATCH, shape (n,).
        """
        records = np.empty(len(row), _RECORD)
        records["row"], records["match"] = row, match
        self._records.add(records, (row // _RANGE_ROWS).astype(np.uint16))

    def ranges(self) -> Iterator[NDArray[Any]]:
        """Yield what was found for consecutive rows: MATCH, shape (n,)."""
        for number, start in enumerate(range(0, self._rows, _RANGE_ROWS)):
            matches = np.full(min(_RANGE_ROWS, self._rows - start), _NO_MATCH, MATCH)
            records = self._records.of_part(number)
            matches[records["row"] - start] = records["match"]
            yield matches

    def slices(self) -> MatchSlices:
        """Return what was found, to be taken in slices."""
        return MatchSlices(self.ranges())


class MatchSlices:
    """Takes slices of any length from consecutive ranges.

    Args:
        ranges: See `Matches.ranges`.
    """

    def __init__(self, ranges: Iterator[NDArray[Any]]) -> None:
        self._ranges, self._range = ranges, np.empty(0, MATCH)

    def take(self, count: int) -> NDArray[Any]:
        """Return what was found for the next rows: MATCH, shape (count,)."""
        pieces = []
        while count:
            if not len(self._range):
                self._range = next(self._ranges)
            pieces.append(self._range[:count])
            self._range = self._range[count:]
            count -= len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else np.concatenate([np.empty(0, MATCH), *pieces])
