"""Numbers of metadata as people read them. Dagster plots each of them."""

from __future__ import annotations

from collections.abc import Mapping

_DECIMALS, _SMALL = 6, 0.001


def without_zeros(numbers: Mapping[str, float]) -> dict[str, float]:
    """Return the numbers that are not 0. One that is always 0 would be a row and a plot that say nothing."""
    return {key: number for key, number in numbers.items() if number}


def rounded(usd: float) -> float:
    """Return an amount in USD to the millionth; a small one with four digits.

    What is added up over events, `spent_usd`, is not rounded.
    """
    return round(usd, _DECIMALS) if abs(usd) >= _SMALL else float(f"{usd:.3e}")
