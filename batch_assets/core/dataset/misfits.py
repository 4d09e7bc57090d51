"""Values that do not fit the type of their column: each is an error with its location, or rejects its row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from textwrap import shorten

import pyarrow as pa

from batch_assets.core.dataset.casts import CAST_ERRORS, cast_column
from batch_assets.core.dataset.rows import Rows, conform
from batch_assets.core.dataset.valid_text import valid_text
from batch_assets.core.errors import DatasetError, ErrorType
from batch_assets.core.pipeline.dataset import DatasetConfig

_SHOWN = 60


class Misfits:
    """Casts the columns of a slice of rows of which some values do not fit.

    Args:
        config: The `dataset` of the pipeline file.
        location: Returns where a row of the slice is, for texts: the file and the line, or the row.

    Attributes:
        rejects: If rows are rejected, the (error type, text) of each by its position in the slice.
    """

    def __init__(self, config: DatasetConfig, location: Callable[[int], str]) -> None:
        self._config, self._location = config, location
        self.rejects: dict[int, tuple[str, str]] = {}

    def __call__(self, column: pa.Array, wanted: pa.Field) -> pa.Array:
        """Cast a column that does not fit as a whole. A value that does not fit becomes null.

        Raises:
            DatasetError: When rows are not rejected, or no value of the column's type can be cast.
        """
        unfit: set[int] = set()
        cast = partial(cast_column, type_=wanted.type, may_round=wanted.name in self._config.types)
        for position in _unfit(column, cast):
            problem = (
                f"{self._location(position)}: column {wanted.name!r} is not {wanted.type} throughout: it has "
                f"{_shown(column[position])}"
            )
            if self._config.bad_rows != "reject":
                raise DatasetError(f"{problem}. {self._remedy(wanted.name)}")
            unfit.add(position)
            self.rejects.setdefault(position, (ErrorType.UNREADABLE_ROW, problem))
        kept = [None if position in unfit else position for position in range(len(column))]
        try:
            return cast(column.take(pa.array(kept, pa.int64())))
        except CAST_ERRORS as error:
            problem = f"column {wanted.name!r} is {column.type}, which cannot become {wanted.type}: {error}"
            raise DatasetError(f"{self._location(0)}: {problem}. Correct dataset.types") from None

    def _remedy(self, name: str) -> str:
        types = ", its type in dataset.types" if name in self._config.types else ""
        return f"Correct the value{types}, or set dataset.bad_rows: reject"


def _unfit(column: pa.Array, cast: Callable[[pa.Array], pa.Array]) -> Iterator[int]:
    """Yield the positions of the values that cannot be cast, in order."""
    parts = [(0, len(column))]
    while parts:
        start, stop = parts.pop()
        part = pa.array(range(start, stop), pa.int64())
        try:
            cast(column.take(part))  # unlike a slice, which casts the nested values of all rows
        except CAST_ERRORS:
            middle = (start + stop) // 2
            if stop - start > 1:
                parts += [(middle, stop), (start, middle)]
            elif column[start].is_valid:
                yield start


def _shown(value: pa.Scalar) -> str:
    try:
        text = repr(value.as_py())
    except (OverflowError, ValueError, KeyError):  # what Python cannot represent
        text = str(value)
    return shorten(text, _SHOWN, placeholder="…") if len(text) > _SHOWN else text


def typed_rows(
    batch: pa.RecordBatch, target: pa.Schema, config: DatasetConfig, location: Callable[[int], str]
) -> Rows:
    """Return rows with the columns and types of `target`, and with valid text.

    Args:
        batch: The rows.
        target: The columns and their types.
        config: See `Misfits`.
        location: See `Misfits`.

    Raises:
        DatasetError: When a value does not fit its type and rows are not rejected.
    """
    misfits = Misfits(config, location)
    rows = valid_text(conform(batch, target, "", misfits, config.types))
    rows.rejects |= misfits.rejects
    return rows


def row_locations(origin: str, first: int) -> Callable[[int], str]:
    """Return the `location` of `Misfits` for rows without lines.

    Args:
        origin: The file or other origin of the rows.
        first: The number of the first row of the slice, from 0.
    """
    return lambda position: f"{origin}, row {first + position} (from 0)"
