"""Read single environment variables. An error names the variable and what to set it to."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal

from batch_assets.core.errors import SettingsError
from batch_assets.core.prices.budget import MOST_USD, Budget, Hold, Period, picodollars_of

BUDGET = "BATCH_ASSETS_BUDGET"
"""The variable with the budget of the root."""
_BUDGET = re.compile(r"\$?(?P<usd>\d+(\.\d+)?) per (?P<per>day|month)(, hold (?P<hold>worst|expected))?")


def seconds(env: Mapping[str, str], name: str, default: float, *, may_be_zero: bool = True) -> float:
    """Read a number of seconds.

    Raises:
        SettingsError: When it is not a number, below 0, or 0 where it may not be.
    """
    text = env.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf or (value == 0 and not may_be_zero):
        least = "0 or more" if may_be_zero else "above 0"
        raise SettingsError(f"{name} is {text!r}: set it to a number of seconds, {least}")
    return value


def lease_seconds(env: Mapping[str, str]) -> float:
    """Read how many seconds a lease lasts without being renewed.

    Raises:
        SettingsError: When it is not a number above 0.
    """
    return seconds(env, "BATCH_ASSETS_LEASE_SECONDS", 60.0, may_be_zero=False)


def whole_number(env: Mapping[str, str], name: str, default: int, most: int, what: str) -> int:
    """Read a whole number from 1 to `most`.

    Args:
        env: Environment variables.
        name: The variable.
        default: Its value if it is not set.
        most: The largest number.
        what: What it counts, for the error.

    Raises:
        SettingsError: When it is not a number in this range.
    """
    text = env.get(name) or str(default)
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise SettingsError(f"{name} is {text!r}: set it to the {what}, from 1 to {most}")
    return int(text)


def optional_number(env: Mapping[str, str], name: str, most: int, what: str) -> int | None:
    """Read a whole number from 1 to `most`; `None` if the variable is not set. See `whole_number`."""
    return whole_number(env, name, 1, most, what) if env.get(name) else None


def budget(env: Mapping[str, str]) -> Budget | None:
    """Read the budget of the root.

    Args:
        env: Environment variables.

    Raises:
        SettingsError: When it is not an amount in dollars per day or month.
    """
    text = env.get(BUDGET)
    if not text:
        return None
    match = _BUDGET.fullmatch(text.strip())
    usd = Decimal(match["usd"]) if match is not None else Decimal(0)
    if match is None or not 0 < usd <= MOST_USD:
        raise SettingsError(
            f"{BUDGET} is {text!r}: set it to dollars per day or month, such as `50 per month`, or `50 per month, "
            "hold expected`"
        )
    return Budget(picodollars_of(usd), Period(match["per"]), Hold(match["hold"] or Hold.WORST))
