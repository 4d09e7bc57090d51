"""Numbers and lists as text for users: durations, times, counts, sizes, amounts of money, and names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches

# USD. A smaller amount would be shown as $0.0000.
_SMALLEST_SHOWN = 0.0001
_SHOWN = 60  # characters of a text that may be long
_NAMED = 10  # pipelines in an error


def duration(seconds: float) -> str:
    """Format a duration: "5 s", "12 min", "3 h 20 min", "2 d 4 h". A negative one is "0 s"."""
    seconds = max(0.0, seconds)
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


def day(seconds: float) -> str:
    """Format the date of a time in seconds since 1970: "2026-11-20"."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def moment(seconds: float) -> str:
    """Format a time in seconds since 1970 to the minute: "2026-11-20 14:05 UTC"."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def exact_moment(seconds: float) -> str:
    """Format a time in seconds since 1970 to the second: "2026-11-20 14:05:11 UTC"."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Format a number of things: "1,234 rows", "1 row".

    Args:
        number: How many.
        noun: What one of them is called, with its verb where it has one: "request file is".
        plural: What several are called, where that is not `noun` and an s: "request files are".
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def counts(values: Mapping[str, int], nothing: str = "none") -> str:
    """Format numbers by kind: "3 succeeded, 1 errored".

    Args:
        values: The numbers. Those that are 0 are left out.
        nothing: The text if all are left out.
    """
    return ", ".join(f"{value:,} {name}" for name, value in values.items() if value) or nothing


def listed(names: Sequence[str], most: int) -> str:
    """Return the first names and the number of the others: "a, b and 1,234 more".

    Args:
        names: The names.
        most: At most this many are shown.
    """
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def size(number: float) -> str:
    """Format a number of bytes in powers of ten, as the API's limits are: "12 kB", "3.4 MB"."""
    for unit in ("B", "kB", "MB"):
        if number < 999.5:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 10 else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"


def percent(share: float) -> str:
    """Format a share with two decimals at most: "33.33%", "20%", "less than 0.01%", "more than 99.99%"."""
    if 0 < share < 0.0001:
        return "less than 0.01%"
    if 0.9999 < share < 1:
        return "more than 99.99%"
    return f"{100 * share:.2f}".rstrip("0").rstrip(".") + "%"


def dollars(usd: float) -> str:
    """Format an amount in USD: "$0.0078", or "less than $0.0001" if it would be shown as zero."""
    return f"less than ${_SMALLEST_SHOWN}" if 0 < usd < _SMALLEST_SHOWN else f"${usd:,.4f}"


def exact_dollars(usd: float) -> str:
    """Format an amount in USD that is compared with others: with four decimals, and at least three digits."""
    if usd <= 0 or usd >= 1:
        return f"${usd:,.4f}"
    digits = f"{usd:.{2 - math.floor(math.log10(usd))}f}".rstrip("0")
    return f"${max(digits, f'{usd:.4f}', key=len)}"


def about_dollars(usd: float) -> str:
    """Format an estimated amount in USD: "about $0.0078", or "less than $0.0001"."""
    amount = dollars(usd)
    return amount if amount.startswith("less") else f"about {amount}"


def beginning(text: str) -> str:
    """Return the first characters of a text that may be long, such as a row key, with `…` for the rest."""
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def nothing_submitted(name: str, root: str, known: Iterable[str]) -> str:
    """Say that nothing was submitted for a pipeline, and which pipelines there are.

    Args:
        name: The name that a user gave.
        root: The URL of the root.
        known: The names of the pipelines that submitted something there.
    """
    names = sorted(set(known))
    pipelines = listed(names, _NAMED) or "none"
    hint = meant(name, names)
    return f"nothing was submitted for a pipeline {name!r} in {root}{hint}; pipelines there: {pipelines}"


def meant(name: str, known: Iterable[str]) -> str:
    """Return " (did you mean …?)" with the known name that is most like a misspelled one; "" if none is."""
    name_meant = nearest(name, known)
    return f" (did you mean {name_meant!r}?)" if name_meant is not None else ""


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the name that is most like a misspelled one, in any case; `None` if none is like it."""
    by_lower_case = {each.lower(): each for each in names}
    close = get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.7)
    return by_lower_case[close[0]] if close else None
