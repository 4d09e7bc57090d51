"""One open root for the steps and checks of a run, as far as they share a process.

To open a root takes calls to its object store, one after the other, and a connection to its ledger.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
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

# A root that was idle for longer is opened again: its files or its ledger may have been replaced meanwhile.
_IDLE_SECONDS = 10.0

_log = logging.getLogger("batch_assets")
_lock = threading.Lock()


@dataclass(frozen=True)
class _Idle:
    """A root that a step has left open."""

    run_id: str
    root: Root
    process: int = field(default_factory=os.getpid)
    since: float = field(default_factory=time.monotonic)

    def serves(self, run_id: str, settings: Settings, *, sends: bool) -> bool:
        """Whether a step of a run can use it. One that sends nothing needs no settings of the API's client."""
        is_recent = self.process == os.getpid() and time.monotonic() - self.since < _IDLE_SECONDS
        own = self.root.settings
        same = own == settings or (not sends and replace(own, client=settings.client) == settings)
        return is_recent and self.run_id == run_id and same


_idle: _Idle | None = None


@contextmanager
def root_of_run(run_id: str, settings: Settings, *, sends: bool = True) -> Iterator[Root]:
    """Use the root of the step before, or open it. It stays open for the next step, unless this one fails.

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
        _close(_exchange(mine) if is_done else mine)


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
    """Put a root in the place of the idle one, which is returned."""
    global _idle
    with _lock:
        idle, _idle = _idle, new
    return idle


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
