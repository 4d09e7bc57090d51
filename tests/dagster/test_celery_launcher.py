"""A Celery worker that is killed: run monitoring learns that no worker works on the run any more."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from celery import Celery
from dagster._core.launcher import WorkerStatus
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG

from batch_assets.dagster import celery_launcher
from batch_assets.dagster.celery_launcher import WatchingCeleryRunLauncher
from tests.core.support import wait_for

_APP = """
import json, os, sys, time
from pathlib import Path

from celery import Celery

app = Celery("app")
app.conf.update(json.loads(os.environ["SETTINGS"]))

@app.task(track_started=True, name="work")
def work(end):
    while not Path(end).exists():
        time.sleep(0.05)
"""


class Workers:
    """Celery workers whose broker and backend are folders, and a launcher that knows them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in ("queue", "control", "backend"):
            (folder / name).mkdir()
        (folder / "app.py").write_text(_APP)
        folders = {
            "data_folder_in": str(folder / "queue"),
            "data_folder_out": str(folder / "queue"),
            "control_folder": str(folder / "control"),
        }
        self._settings: dict[str, Any] = {
            "broker_url": "filesystem://",
            "result_backend": f"file://{folder}/backend",
            "broker_transport_options": folders,
        }
        self.launcher = WatchingCeleryRunLauncher(
            "dagster", self._settings["broker_url"], self._settings["result_backend"], config_source=self._settings
        )
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "celery", "-A", "app", "worker", "--concurrency", "1", "-n", "one@here"]
        env = os.environ | {"SETTINGS": json.dumps(self._settings)}
        with (self._folder / "log").open("ab") as log:
            process = subprocess.Popen(
                command, cwd=self._folder, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        self._processes.append(process)
        return process

    def kill(self) -> None:
        for process in self._processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def launch(self, end: Path) -> dg.DagsterRun:
        """Start a task that works until a file exists, as that of a run."""
        app = Celery("app")
        app.conf.update(self._settings)
        task = app.send_task("work", [str(end)])
        return dg.DagsterRun("job", run_id=task.id, tags={DAGSTER_CELERY_TASK_ID_TAG: task.id})

    def status(self, run: dg.DagsterRun) -> WorkerStatus:
        return self.launcher.check_run_worker_health(run).status


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    running = Workers(tmp_path)
    yield running
    running.kill()


def test_a_run_whose_worker_was_killed_is_failed(
    workers: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers.start()
    run = workers.launch(tmp_path / "end")
    wait_for(lambda: workers.status(run) is WorkerStatus.RUNNING, "the run", 60)
    monkeypatch.setattr(celery_launcher, "_ABSENT_SECONDS", 0.0)
    assert workers.status(run) is WorkerStatus.RUNNING
    workers.kill()
    monkeypatch.setattr(celery_launcher, "_ABSENT_SECONDS", 3600.0)
    monkeypatch.setattr(celery_launcher, "_REPLY_SECONDS", 1.0)
    assert workers.status(run) is WorkerStatus.RUNNING, "it may only be cut off"
    monkeypatch.setattr(celery_launcher, "_ABSENT_SECONDS", 0.0)
    assert workers.status(run) is WorkerStatus.FAILED
