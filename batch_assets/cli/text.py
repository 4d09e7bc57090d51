"""Ages, paths and options as the terminal shows them."""

from __future__ import annotations

import os
from pathlib import Path

from batch_assets.core.quoting import printable, shell_quoted
from batch_assets.core.text import duration


def ago(now: float, then: float | None) -> str:
    """Return "3 min ago", or "never" if `then` is None."""
    return f"{duration(now - then)} ago" if then is not None else "never"


def short_path(uri: str) -> str:
    """Return a local path relative to the current folder if it is inside it, any other URI unchanged."""
    if "://" in uri:
        return uri
    relative = os.path.relpath(uri)
    return uri if relative.startswith("..") else str(Path(relative))


def partition_option(partition: str) -> str:
    """Return the command line option for a partition, quoted for the shell; "" without one."""
    return f" --partition {shell_quoted(partition)}" if partition else ""


def partition_name(pipeline: str, partition: str) -> str:
    """Return "pipeline [partition]", or the pipeline alone without a partition."""
    return f"{pipeline} [{printable(partition)}]" if partition else pipeline


def resource_hint(resource: str | None) -> str:
    """Return how to find a pipeline that is not under the environment's root; "" if a resource was named."""
    return "" if resource is not None else "; add --resource KEY for a pipeline that has a `resource_key`"
