"""Numbers of JSON lines that are read as doubles, and how they are written."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from batch_assets.core.io.json_text import FLOATS_SKIP
from batch_assets.core.template.written_numbers import written_number


def whole_numbers(values: Sequence[Any]) -> tuple[list[Any], set[int]]:
    """Make integers of whole numbers: 1.0 becomes 1 at any depth.

    Args:
        values: JSON values.

    Returns:
        The values, and the positions of those that may print otherwise than they are written: they have a number
        in which a double lacks digits, or -0.0.
    """
    unsure: list[float] = []

    def whole(value: Any) -> Any:
        if isinstance(value, float):
            if not value.is_integer():
                return value
            if not -FLOATS_SKIP < value < FLOATS_SKIP:
                unsure.append(value)
                return value
            if value == 0 and math.copysign(1, value) < 0:
                unsure.append(value)
            return int(value)
        if isinstance(value, list):
            return [whole(item) for item in value]
        return {key: whole(item) for key, item in value.items()} if isinstance(value, dict) else value

    whole_values, positions = [], set()
    for position, value in enumerate(values):
        whole_values.append(whole(value))
        if unsure:
            positions.add(position)
            unsure.clear()
    return whole_values, positions


def as_written(line: bytes) -> dict[str, Any]:
    """Parse a line such that each number prints what is written, see `written_number`.

    Args:
        line: A line that is valid.
    """
    entry: dict[str, Any] = json.loads(line, parse_float=written_number)
    return entry
