"""For the processes of a deployment, by its PYTHONPATH: the code server forks its runs.

Each run is a process of its own all the same, but a fork of one that has imported everything. A new interpreter
needs seconds for that.

All these processes, and those that fork the runs, look for garbage less often: while Dagster is imported there is
none, and looking for it takes a quarter of the time.
"""

from __future__ import annotations

import gc
import multiprocessing
from multiprocessing.context import BaseContext

from tests.forked_packages import PACKAGES

_context_of = multiprocessing.get_context
_IMPORTED = ("tests.quick_dagster", "dagster._grpc.server", "batch_assets.dagster.component", *PACKAGES)


def _get_context(method: str | None = None) -> BaseContext:
    if method != "spawn":
        return _context_of(method)
    forking = _context_of("forkserver")
    forking.set_forkserver_preload(list(_IMPORTED))
    return forking


gc.set_threshold(50_000, 20, 20)
multiprocessing.get_context = _get_context  # type: ignore[assignment]
