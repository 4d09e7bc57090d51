"""Numbers and times as people read them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path


def duration(seconds: float) -> str:
    """5 s, 12 min, 3 h 20 min, 2 d 4 h."""
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


def ago(now: float, then: float | None) -> str:
    return f"{duration(now - then)} ago" if then is not None else "never"


def day(then: float) -> str:
    """2026-11-20, in UTC."""
    return datetime.fromtimestamp(then, UTC).strftime("%Y-%m-%d")


def moment(then: float) -> str:
    """2026-11-20 14:05 UTC."""
    return datetime.fromtimestamp(then, UTC).strftime("%Y-%m-%d %H:%M UTC")


def number(count: int, what: str, many: str | None = None) -> str:
    """1,234 rows, 1 row; `many` where the plural is not the word and an s."""
    return f"{count:,} {what if count == 1 else many or what + 's'}"


def counts(values: Mapping[str, int], nothing: str = "none") -> str:
    """3 succeeded, 1 errored; zeros left out, `nothing` where all are."""
    return ", ".join(f"{value:,} {name}" for name, value in values.items() if value) or nothing


def size(count: float) -> str:
    """12 kB, 3.4 MB; powers of ten, as the API's limits are."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def place(uri: str) -> str:
    """A local path as short as it can be said from here; anything else as it is."""
    if "://" in uri:
        return uri
    relative = os.path.relpath(uri)
    return uri if relative.startswith("..") else str(Path(relative))


def partition_option(partition: str) -> str:
    """What a command takes to be of a partition, for the shell; nothing for none."""
    return f" --partition {shlex.quote(partition)}" if partition else ""


def partition_name(pipeline: str, partition: str) -> str:
    return f"{pipeline} [{partition}]" if partition else pipeline


def elsewhere(resource: str | None) -> str:
    """Where else to look for a pipeline that is not under the environment's root; "" beside a resource."""
    return "" if resource is not None else "; add --resource KEY for a pipeline that has a `resource_key`"
