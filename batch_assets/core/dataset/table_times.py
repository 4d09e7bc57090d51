"""Dates and times of Parquet files and tables in memory, read by the kind on record.

Each function takes a value and returns it as one of its kind if it fits, else unchanged.
"""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta, tzinfo
from functools import cache
from typing import Any

import pyarrow as pa

_DAY = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}")
_LONG_FRACTION = re.compile("[.][0-9]{7}")  # Python would drop what follows six digits
# As Python or pandas prints it: -1 day, 2:03:04.500000 or -1 days +02:03:04.500000.
_TIMEDELTA = re.compile(r"(?:(-?[0-9]+) days?,? [+]?)?([0-9]{1,2}):([0-9]{2}):([0-9]{2}(?:\.[0-9]{1,6})?)")


def as_date(value: Any) -> Any:
    """Read a date, also if it is a timestamp at midnight."""
    if isinstance(value, str):
        instant = _instant(value)
        return instant.date() if instant is not None and _DAY.fullmatch(value) else value
    is_midnight = isinstance(value, datetime) and value.tzinfo is None and value.time() == time()
    return value.date() if is_midnight and not getattr(value, "nanosecond", 0) else value


def as_timestamp(value: Any) -> Any:
    """Read a timestamp without a time zone."""
    if isinstance(value, str):
        instant = _instant(value)
        return instant if instant is not None and not _DAY.fullmatch(value) else value
    return datetime.combine(value, time()) if type(value) is date else value


def _instant(text: str) -> datetime | None:
    """The date or time without a zone that a text is; `None` if it is none."""
    instant = _iso(text)
    return instant if instant is not None and instant.tzinfo is None else None


def _iso(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if _DAY.match(text) and not _LONG_FRACTION.search(text) else None
    except ValueError:
        return None


def in_zone(zone: tzinfo, value: Any) -> Any:
    """Read a timestamp, in the time zone on record. One without a zone stays as it is."""
    instant = _iso(value) if isinstance(value, str) else value
    if not isinstance(instant, datetime) or instant.tzinfo is None:
        return value
    try:
        return instant.astimezone(zone)
    except (OverflowError, ValueError):  # another day in that zone is beyond the years that Python has
        return value


@cache
def zone_of(name: str) -> tzinfo | None:
    """Return the time zone of an Arrow type, as Arrow gives it to values; `None` if it is unknown here."""
    try:
        zone: tzinfo | None = pa.scalar(0, pa.timestamp("us", name)).as_py().tzinfo
    except (ValueError, KeyError, pa.ArrowException):
        return None
    return zone


def as_time(value: Any) -> Any:
    """Read a time of day."""
    try:
        moment = time.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return value
    return moment if moment is not None and str(moment) == value else value


def as_duration(value: Any) -> Any:
    """Read a duration, which prints as Python prints it: 1 day, 2:00:00."""
    if hasattr(value, "to_pytimedelta"):
        return value if value.nanoseconds else value.to_pytimedelta()
    match = _TIMEDELTA.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return value
    days, hours, minutes, seconds = match.groups(default="0")
    try:
        return timedelta(days=int(days), hours=int(hours), minutes=int(minutes), seconds=float(seconds))
    except OverflowError:
        return value


def as_nanoseconds(value: Any) -> Any:
    """Read a duration, which prints as pandas prints it, and Arrow those in nanoseconds: 1 days 02:00:00."""
    import pandas as pd  # it takes long to import, and few datasets need it

    value = as_duration(value)
    try:
        return pd.Timedelta(value) if isinstance(value, timedelta) else value
    except (OverflowError, ValueError):  # longer than pandas has
        return value
