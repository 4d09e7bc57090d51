"""Names of timezones."""

from __future__ import annotations

from zoneinfo import ZoneInfo, ZoneInfoNotFoundError


def check_timezone(name: str) -> str:
    """The name of a timezone as it was given.

    Errors:
        ValueError: there is no such timezone.
    """
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"there is no timezone {name!r}; give a name such as Europe/Berlin or UTC") from None
    return name
