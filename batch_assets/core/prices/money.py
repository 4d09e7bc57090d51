"""Sums of money without rounding: whole picodollars, 10^12 of which are a dollar.

A price of one cent for a million tokens, halved for a batch and with every multiplier, is a whole number of
picodollars a token. Columns keep USD as float64, with 15 digits: up to 1,000 dollars, each value is that
of exactly one number of picodollars.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

PICODOLLARS = 10**12
"""Picodollars in a dollar."""
# Sums of a column are made of two parts, so that float64 holds each exactly, up to a billion dollars.
_PART = 10**6


def usd(picodollars: int) -> float:
    """Return an amount in USD, as the nearest float64."""
    return picodollars / PICODOLLARS


def picodollars_of(column: pa.Array | pa.ChunkedArray) -> NDArray[np.int64]:
    """Return n amounts in USD (float64) as whole picodollars, 0 for null: int64, shape (n,)."""
    amounts: NDArray[np.int64] = np.rint(column.fill_null(0.0).to_numpy() * PICODOLLARS).astype(np.int64)
    return amounts


def picodollars_in(column: pa.Array | pa.ChunkedArray) -> int:
    """Add up a column of amounts in USD (float64) exactly; nulls count as nothing.

    Returns:
        The sum in picodollars.
    """
    high, low = _parts(column)
    return int(high.sum()) * _PART + int(low.sum())


def picodollars_by(groups: NDArray[np.intp], count: int, column: pa.ChunkedArray) -> list[int]:
    """Add up a column of amounts in USD (float64) exactly for each group; nulls count as nothing.

    Args:
        groups: The number of each amount's group; intp, shape (n,).
        count: The number of groups.
        column: The n amounts.

    Returns:
        The sum of each group in picodollars.
    """
    if column.null_count:
        groups = groups[column.is_valid().to_numpy()]
    high, low = (np.bincount(groups, part, count).tolist() for part in _parts(column))
    return [int(more) * _PART + int(less) for more, less in zip(high, low, strict=True)]


def _parts(column: pa.Array | pa.ChunkedArray) -> tuple[NDArray[Any], NDArray[Any]]:
    """Split the amounts in USD that are not null into millions of picodollars and the rest.

    Returns:
        Whole numbers, each float64, shape (n,).
    """
    known = column.drop_null()
    chunks = known.chunks if isinstance(known, pa.ChunkedArray) else [known]
    # Not `to_numpy`, which imports pandas: most commands do not need it.
    values = [
        np.frombuffer(chunk.buffers()[1], np.float64, len(chunk), 8 * chunk.offset)
        for chunk in chunks
        if len(chunk)
    ]
    amounts = np.rint(np.concatenate([np.empty(0), *values]) * PICODOLLARS)
    high = np.floor(amounts / _PART)
    return high, amounts - high * _PART
