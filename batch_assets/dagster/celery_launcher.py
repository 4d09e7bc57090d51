"""Dagster's Celery run launcher, which also notices that a worker is gone. `dagster.yaml` names it."""

from __future__ import annotations

import time
from typing import Any

import dagster as dg
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus
from dagster_celery.launcher import CeleryRunLauncher
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG

# How long no worker may work on a run before the run counts as lost. Run monitoring looks every two minutes.
_ABSENT_SECONDS = 60.0
_REPLY_SECONDS = 5.0


class WatchingCeleryRunLauncher(CeleryRunLauncher):
    """Gives runs to Celery workers, and asks the worker of each whether it still works on it.

    Celery itself records that a task began, and nothing more when its worker is killed. Such a run would remain
    started, and keep its slot in the pool, until its time limit. Here run monitoring marks it as failed when its
    worker has not answered, or has not known the run, for a minute. If the worker was only cut off, both it and
    the run that takes over stay correct: leases in the ledger decide between them.
    """

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._absent_since: dict[str, float] = {}

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Return whether a worker works on a run. Run monitoring asks for runs that are started."""
        health = super().check_run_worker_health(run)
        if health.status != WorkerStatus.RUNNING:
            return health
        task = self.celery.AsyncResult(run.tags[DAGSTER_CELERY_TASK_ID_TAG])
        if self._is_active(task):
            self._absent_since.pop(run.run_id, None)
            return health
        since = self._absent_since.setdefault(run.run_id, time.monotonic())
        if time.monotonic() - since < _ABSENT_SECONDS:
            return health
        del self._absent_since[run.run_id]
        text = (
            f"The Celery worker {_worker_of(task)} was killed or cannot be reached. If the run had begun "
            "`batches`, the sensor goes on; otherwise start it again"
        )
        return CheckRunHealthResult(WorkerStatus.FAILED, text)

    def _is_active(self, task: Any) -> bool:
        """Ask the worker that began a task whether it works on it."""
        worker = _worker_of(task)
        if worker is None:  # the task has ended meanwhile
            return True
        replies = self.celery.control.inspect(destination=[worker], timeout=_REPLY_SECONDS).active() or {}
        return any(active["id"] == task.id for active in replies.get(worker, []))


def _worker_of(task: Any) -> str | None:
    """Return the name of the worker that began a task."""
    return task.info.get("hostname") if isinstance(task.info, dict) else None
