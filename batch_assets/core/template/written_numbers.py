"""Numbers in JSON text, such that they print what is written."""

from __future__ import annotations

import math
from decimal import Decimal

FLOATS_SKIP = 2**53
"""From here on floats skip integers."""
_MOST_EXACT = 40  # numbers with more digits before the point are those of an exponent


class NumberTooLargeError(ValueError):
    """A JSON number is beyond what a double can hold."""


def written_number(digits: str) -> int | float | Decimal:
    """Return the value of a JSON number with a fraction or an exponent, such that it prints what is written.

    A whole number is an integer, so 1.0 is 1. Where no double has the digits of a large number, it keeps them.

    Args:
        digits: The number as it is written.

    Raises:
        NumberTooLargeError: When it is beyond a double.
    """
    number = float(digits)
    if not math.isfinite(number):
        raise NumberTooLargeError(f"the number {digits} is too large for a double")
    if not number.is_integer():
        return number
    if abs(number) < FLOATS_SKIP:
        return number if number == 0 and digits.startswith("-") else int(number)
    exact = Decimal(digits)
    if exact == Decimal(repr(number)) or exact.adjusted() > _MOST_EXACT:
        return number
    return int(exact) if exact == exact.to_integral_value() else exact
