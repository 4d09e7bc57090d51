"""For whom a process loads the definitions, which decides what it reports."""

from __future__ import annotations

import os
import sys


def is_code_server() -> bool:
    """Whether this process serves the definitions to the UI and the daemon. A run loads them, too."""
    return sys.argv[1:3] == ["api", "grpc"]


def is_validation() -> bool:
    """Whether the definitions are checked: `dg check defs` and `dagster definitions validate` set the variable."""
    return bool(os.environ.get("DAGSTER_IS_DEFS_VALIDATION_CLI"))
