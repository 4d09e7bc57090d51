"""Times, paths and options as the terminal shows them."""

from __future__ import annotations

import os
import shlex
from datetime import UTC, datetime
from pathlib import Path

from batch_assets.core.text import duration


def ago(now: float, then: float | None) -> str:
    return f"{duration(now - then)} ago" if then is not None else "never"


def day(then: float) -> str:
    """2026-11-20, in UTC."""
    return datetime.fromtimestamp(then, UTC).strftime("%Y-%m-%d")


def moment(then: float) -> str:
    """2026-11-20 14:05 UTC."""
    return datetime.fromtimestamp(then, UTC).strftime("%Y-%m-%d %H:%M UTC")


def place(uri: str) -> str:
    """A local path, relative to the current folder if it is inside; anything else unchanged."""
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
