"""Some rows of a request index with what becomes of each, between the survey and the table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


@dataclass(frozen=True)
class Slice:
    """Some rows of the index, with the fate of each. All arrays have the shape (n,).

    Attributes:
        rows: The rows of the index.
        response_row: The row number of the response in force, -1 without one; int64.
        fates: A `RowFate` for each row; int8.
        hidden: Whether the table hides the response in force: a pending row of a refresh whose response is from
            before it; bool.
        lost: Whether the row's answer was stored and is lost; bool.
        first: The number of the first row that has the same response, -1 without one; int32.
        is_first: Whether that is the row itself, or the row has no response; bool.
    """

    rows: pa.RecordBatch
    response_row: NDArray[np.int64]
    fates: NDArray[np.int8]
    hidden: NDArray[np.bool_]
    lost: NDArray[np.bool_]
    first: NDArray[np.int32]
    is_first: NDArray[np.bool_]

    def part(self, start: int, end: int) -> Slice:
        """Return the rows from `start` to before `end`, without copying them."""
        return Slice(
            self.rows.slice(start, end - start),
            self.response_row[start:end],
            self.fates[start:end],
            self.hidden[start:end],
            self.lost[start:end],
            self.first[start:end],
            self.is_first[start:end],
        )
