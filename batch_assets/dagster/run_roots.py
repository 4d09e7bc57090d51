"""One open root for the steps and checks of a run, as far as they share a process.

To open a root takes calls to its object store, one after the other, and a connection to its ledger.
"""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from batch_assets.core.open_root import open_root
from batch_assets.core.pipeline.client import settings_for_pipeline
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.root import Root
from batch_assets.core.settings import Settings
from batch_assets.dagster.resource import settings_for

# An unused root is closed after this time: a worker may wait days for its next run, and its files be replaced.
_IDLE_SECONDS = 10.0

_log = logging.getLogger("batch_assets")
_lock = threading.Lock()


@dataclass(frozen=True)
class _Idle:
    """A root that a step has left open."""

    run_id: str
    root: Root
    process: int = field(default_factory=os.getpid)

    def serves(self, run_id: str, settings: Settings, *, sends: bool) -> bool:
        """Whether a step of a run can use it. One that sends nothing needs no settings of the API's client."""
        own = self.root.settings
        same = own == settings or (not sends and replace(own, client=settings.client) == settings)
        return (self.process, self.run_id) == (os.getpid(), run_id) and same


_idle: _Idle | None = None
_timer: threading.Timer | None = None


@contextmanager
def root_of_run(run_id: str, settings: Settings, *, sends: bool = True) -> Iterator[Root]:
    """Use the root of the step before, or open it. It stays open for the next step, unless this one fails.

    A process that executes a single step, as those of Dagster's multiprocess executor do, keeps none.

    Args:
        run_id: The id of the run.
        settings: Where files, ledger and API are.
        sends: Whether the step may send something.
    """
    idle = _exchange(None)
    if idle is not None and idle.serves(run_id, settings, sends=sends):
        root = idle.root
        root.look_again()
    else:
        _close(idle)
        root = open_root(settings)
    is_done = False
    try:
        yield root
        is_done = True
    finally:
        mine = _Idle(run_id, root)
        is_kept = is_done and multiprocessing.parent_process() is None
        _close(_exchange(mine) if is_kept else mine)


def root_for(run_id: str, pipeline: Pipeline, resources: Any) -> AbstractContextManager[Root]:
    """Use the root of a pipeline, with its own `client`, in a `with` statement. See `root_of_run`.

    Args:
        run_id: The id of the run.
        pipeline: The pipeline.
        resources: `context.resources` of the step.

    Raises:
        ConfigError: When the pipeline belongs to another provider or workspace.
    """
    settings = settings_for(pipeline.config.resource_key, resources)
    return root_of_run(run_id, settings_for_pipeline(settings, pipeline))


def _exchange(new: _Idle | None) -> _Idle | None:
    """Put a root in the place of the idle one, which is returned. It is closed if nothing uses it soon."""
    global _idle, _timer
    with _lock:
        idle, _idle = _idle, new
        if _timer is not None:
            _timer.cancel()
            _timer = None
        if new is not None:
            _timer = threading.Timer(_IDLE_SECONDS, _close_unused, (new,))
            _timer.daemon = True
            _timer.start()
    return idle


def _close_unused(unused: _Idle) -> None:
    global _idle
    with _lock:
        if _idle is not unused:
            return
        _idle = None
    _close(unused)


@atexit.register
def close_idle() -> None:
    """Close the root that the last step of this process has left open."""
    _close(_exchange(None))


def _close(idle: _Idle | None) -> None:
    if idle is None or idle.process != os.getpid():  # a connection of the process that this one was forked from
        return
    try:
        idle.root.close()
    except Exception as error:  # no step fails because of a root that it no longer needs
        _log.warning(f"a root could not be closed: {error}")
