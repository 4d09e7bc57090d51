"""Refuse what a template could only get from the machine that renders it: the time, and its time zone.

A row must give the same request in every run and on every machine. Otherwise it would be sent and paid for again,
or an old request would be taken for the current one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from typing import Any

_CLOCK = frozenset(("now", "today", "utcnow"))
_TO_ZONE = frozenset(("astimezone", "tz_convert", "tz_localize"))
# What follows `%` in a format of a time, without the flags, the width and the modifiers of the C library.
_DIRECTIVE = re.compile(r"%[-_0^#]*\d*[EO]?(.)", re.DOTALL)
_REMEDY = "give the column of the dataset a time zone, such as UTC"


def check_call(function: Any, owner: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Check a call of a method of a time, or of its class.

    Args:
        function: The method.
        owner: The value or the class.
        args: The arguments by position.
        kwargs: The arguments by name.

    Raises:
        ValueError: When its value depends on the machine.
    """
    name = getattr(function, "__name__", "")
    if isinstance(owner, type):
        if issubclass(owner, date) or owner.__module__.startswith("pandas"):  # a period of pandas is no date
            _check_class_method(name, [*args[1:], kwargs.get("tz")])
    elif isinstance(owner, date | time):
        values = [*args, *kwargs.values()]
        if name == "strftime":
            for value in values:
                check_format(owner, value)
        # A time of pandas counts as UTC if it has no zone.
        is_local = type(owner) is datetime and (
            (owner.tzinfo is None and name in ("astimezone", "timestamp"))
            or (name == "astimezone" and all(value is None for value in values))
        )
        if is_local or (name in _TO_ZONE and any(map(_is_local, values))):
            raise ValueError(
                f"{name}() depends here on the time zone of the machine that renders the row: {_REMEDY}, and "
                "convert it to no zone but one that the template names"
            )


def check_format(value: Any, pattern: Any) -> None:
    """Check the format of a value: `%s` of a time counts seconds in the time zone of the machine.

    Raises:
        ValueError: When the text depends on the machine.
    """
    if isinstance(value, date | time) and isinstance(pattern, str) and "s" in _DIRECTIVE.findall(pattern):
        has_zone = isinstance(value, datetime)
        remedy = f"{_REMEDY}, and use .timestamp()" if has_zone else "leave it out of the format"
        raise ValueError(f"%s depends on the time zone of the machine that renders the row: {remedy}")


def _check_class_method(name: str, zones: Sequence[Any]) -> None:
    if name in _CLOCK:
        raise ValueError(
            f"{name}() is the time of rendering, so the row would be another request in every run: read the time "
            "from a column of the dataset"
        )
    zone = next((zone for zone in zones if zone is not None), None)
    if _is_local(zone) or (zone is None and name == "fromtimestamp"):
        raise ValueError(
            f"{name}() without a time zone of its own depends on that of the machine that renders the row: use "
            "utcfromtimestamp(), or turn the number into a time with a time zone in the dataset"
        )


def _is_local(zone: Any) -> bool:
    """Whether a text names the time zone of the machine, as pandas takes it: `tzlocal()`, `localtime`."""
    return isinstance(zone, str) and "local" in zone.lower()
