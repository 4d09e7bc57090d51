"""Durations as text, in any of the forms in which Python, pandas and ISO 8601 write them."""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta

_DAY, _HOUR, _MINUTE, _SECOND = 86_400_000_000_000, 3_600_000_000_000, 60_000_000_000, 1_000_000_000
_MICROSECOND = 1_000
NANOSECONDS = {"s": _SECOND, "ms": 1_000_000, "us": _MICROSECOND, "ns": 1}
"""The nanoseconds of each unit of Arrow's durations."""
_FRACTION = r"(?:\.(?P<fraction>\d{1,9}))?"
# 1 day, 2:00:00 or -1 days +02:00:00 or 26:00:00
_CLOCK = re.compile(
    rf"(?:(?P<days>-?\d{{1,9}}) days?(?:,? [+]?(?=\d)|$))?"
    rf"(?:(?P<hours>\d{{1,9}}):(?P<minutes>\d\d):(?P<seconds>\d\d){_FRACTION})?",
    re.ASCII,
)
# P1DT2H or -PT26H0M0.5S
_ISO = re.compile(
    rf"(?P<sign>-)?P(?:(?P<days>-?\d{{1,9}})D)?"
    rf"(?:T(?:(?P<hours>\d{{1,9}})H)?(?:(?P<minutes>\d{{1,9}})M)?(?:(?P<seconds>\d{{1,12}}){_FRACTION}S)?)?",
    re.ASCII,
)


def nanoseconds_of(text: str) -> int | None:
    """Return the nanoseconds of a duration; `None` if the text is none.

    Args:
        text: The text. A time of the day counts as the duration since midnight.
    """
    match = _CLOCK.fullmatch(text) or _ISO.fullmatch(text)
    if match is None:
        return None
    parts = match.groupdict()
    sign = -1 if parts.pop("sign", None) else 1
    if not any(parts.values()):
        return None
    fraction = int((parts["fraction"] or "").ljust(9, "0"))
    units = {"days": _DAY, "hours": _HOUR, "minutes": _MINUTE, "seconds": _SECOND}
    return sign * (sum(int(parts[name] or 0) * unit for name, unit in units.items()) + fraction)


def duration_text(nanoseconds: int) -> str:
    """Return the same text for all texts of one duration. That of less than a day is a time of the day."""
    if 0 <= nanoseconds < _DAY and nanoseconds % _MICROSECOND == 0:
        moment = datetime.combine(datetime.min, time()) + timedelta(microseconds=nanoseconds // _MICROSECOND)
        return moment.time().isoformat()
    return f"{nanoseconds}ns"
