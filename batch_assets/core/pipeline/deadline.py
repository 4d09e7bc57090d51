"""The field `deadline`: a time span such as 6h, after which rows are asked in another way."""

from __future__ import annotations

import re

_SECONDS = {"m": 60.0, "h": 3600.0, "d": 86400.0}
_SPAN = re.compile(r"(?P<number>\d{1,6}(?:\.\d{1,6})?)(?P<unit>[mhd])", re.ASCII)


def seconds_of(span: str) -> float:
    """Return the seconds of a time span.

    Args:
        span: A number of minutes, hours or days: `90m`, `6h`, `1.5d`.

    Raises:
        ValueError: When it is none, or 0.
    """
    match = _SPAN.fullmatch(span)
    seconds = float(match["number"]) * _SECONDS[match["unit"]] if match is not None else 0.0
    if not seconds:
        raise ValueError(f"give a number of minutes, hours or days, such as 90m, 6h or 1d, not {span}")
    return seconds
