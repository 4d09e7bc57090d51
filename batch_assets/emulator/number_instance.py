"""Make numbers that satisfy a JSON schema: bounds and multiples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil, floor
from typing import Any

from batch_assets.emulator.draws import Draws
from batch_assets.emulator.schema_merge import UnsatisfiableSchemaError

# Without an upper bound, whole numbers stay where most programs can read them.
_INT64_MAX = 2**63 - 1


def compile_number(schema: Mapping[str, Any], *, integral: bool) -> Callable[[Draws, int], int | float]:
    """Make a function that makes numbers for a schema.

    Args:
        schema: The schema, with a type of numbers.
        integral: Whether only whole numbers are allowed.
    """
    low, high = schema.get("minimum"), schema.get("maximum")
    above, under = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    step = schema.get("multipleOf") or (1 if integral else 0.01)
    if integral and step != int(step):
        step = 1 if (1 / step).is_integer() else int(step * 1000)
    bounds = [bound for bound in (low, above) if bound is not None]
    tops = [bound for bound in (high, under) if bound is not None]
    floor_at: float = max(bounds) if bounds else (min(tops) - 1000 * step if tops else 0)
    top_at: float = min(tops) if tops else floor_at + 1000 * step
    if not tops and integral and floor_at <= _INT64_MAX:
        top_at = min(top_at, _INT64_MAX)
    if "multipleOf" not in schema and not integral:
        return _real(float(floor_at), float(top_at), open_low=floor_at == above, open_high=top_at == under)
    # Whole numbers are divided exactly: as floats, large ones would be rounded beyond the bounds.
    first = -int(-floor_at // step) if isinstance(floor_at, int) else ceil(floor_at / step)
    last = int(top_at // step) if isinstance(top_at, int) else floor(top_at / step)
    first += first * step == above
    last -= last * step == under
    if first > last:
        return _no_number
    return lambda draws, depth: draws.between(first, last) * step


def _real(low: float, high: float, *, open_low: bool, open_high: bool) -> Callable[[Draws, int], float]:
    if low > high or (low == high and (open_low or open_high)):
        return _no_number

    def make(draws: Draws, depth: int) -> float:
        share = draws.between(1, 9999) / 10000
        value = low + (high - low) * share
        rounded = round(value, 2)
        return rounded if low < rounded < high else value

    return make


def _no_number(draws: Draws, depth: int) -> float:
    raise UnsatisfiableSchemaError("the schema excludes every number")
