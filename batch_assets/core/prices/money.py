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


def picodollars_in(column: pa.Array | pa.ChunkedArray) -> int:
    """Add up a column of amounts in USD (float64) exactly; nulls count as nothing.

    Returns:
        The sum in picodollars.
    """
    high, low = _parts(column)
    return int(high.sum()) * _PART + int(low.sum())


def picodollars_by(keys: pa.ChunkedArray, column: pa.ChunkedArray) -> dict[str, int]:
    """Add up a column of amounts in USD (float64) exactly for each key; nulls count as nothing.

    Args:
        keys: Texts, none of them null; of the same length as `column`.
        column: The amounts.

    Returns:
        The sums in picodollars.
    """
    encoded = keys.combine_chunks().dictionary_encode()
    codes, names = encoded.indices.to_numpy(), encoded.dictionary.to_pylist()
    high, low = (np.bincount(codes, part, len(names)) for part in _parts(column.fill_null(0.0)))
    return {
        name: int(more) * _PART + int(less)
        for name, more, less in zip(names, high.tolist(), low.tolist(), strict=True)
    }


def _parts(column: pa.Array | pa.ChunkedArray) -> tuple[NDArray[Any], NDArray[Any]]:
    """Split amounts in USD into millions of picodollars and the rest; whole numbers, each float64, shape (n,)."""
    amounts = np.rint(column.drop_null().to_numpy() * PICODOLLARS)
    high = np.floor(amounts / _PART)
    return high, amounts - high * _PART
