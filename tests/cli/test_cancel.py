"""`batch-assets cancel`, `run --retry-failed` and `status --history`, as a user types them."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pandas as pd
import pytest

from tests.child import Child

from .support import BATCHES, DEADLINE, Project

CREATE = {"method": "POST", "path": BATCHES}


@pytest.fixture(autouse=True)
def quick_cancel(project: Project) -> None:
    assert project.emulator is not None
    project.emulator.settings(cancel_delay=0.0)


@contextmanager
def running(project: Project, *options: str) -> Iterator[Child]:
    """Start `batch-assets run asked` and wait until its batch runs at the API."""
    assert project.emulator is not None
    project.emulator.settings(latency=3600.0)
    process = project.start("run", "asked", *options)
    try:
        before, end = len(project.accepted()), time.monotonic() + DEADLINE
        while len(project.accepted()) == before or "1 open" not in project.run("status", "asked").stdout:
            assert process.poll() is None
            assert time.monotonic() < end, "no batch"
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.communicate()


def ledger(project: Project, statement: str) -> None:
    with closing(sqlite3.connect(project.folder / "data" / "emulated" / "ledger.db")) as opened, opened:
        opened.execute(statement)


def table(project: Project) -> pd.DataFrame:
    return pd.read_parquet(project.folder / "data" / "emulated" / "asked" / "results")


def test_cancel_a_run_in_another_terminal_and_run_again(project: Project) -> None:
    assert project.emulator is not None
    project.add_pipeline("asked", ["one", "two"])
    with running(project) as process:
        (batch,) = project.accepted()
        done = project.run("cancel", "asked")
        assert (done.returncode, done.stderr) == (0, "")
        assert f"{batch['id']}: the API is ending it" in done.stdout
        assert "1 batch canceled, 0 request files not sent" in done.stdout
        out, _ = process.communicate(timeout=DEADLINE)
        assert process.returncode == 3, "rows are without an answer"
        assert "canceled" in out
    assert "nothing: canceled, complete since" in project.run("status", "asked").stdout
    again = project.run("cancel", "asked")
    assert (again.returncode, again.stdout) == (0, "Nothing had to be canceled.\n")

    project.emulator.settings(latency=0.0)
    assert project.run("run", "asked").returncode == 0
    assert list(table(project)["attempts"]) == [2, 2]
    assert len(project.accepted()) == 2


def test_an_unknown_target_of_cancel_is_refused_with_a_remedy(project: Project) -> None:
    nothing = project.run("cancel", "asked")
    assert nothing.returncode == 1
    assert "Nothing has run yet" in nothing.stderr
    project.add_pipeline("asked", ["one"])
    assert project.run("run", "asked").returncode == 0
    unknown = project.run("cancel", "msgbatch_elsewhere")
    assert unknown.returncode == 1
    assert unknown.stderr.startswith("Error: the ledger of ")
    assert "`batch-assets list` shows" in unknown.stderr
    assert "pipelines there: asked" in project.run("cancel", "other").stderr


def test_a_cancel_that_the_api_refuses_ends_with_1(project: Project) -> None:
    assert project.emulator is not None
    project.add_pipeline("asked", ["one"])
    with running(project):
        cancel = {"method": "POST", "path": f"{BATCHES}/*/cancel"}
        project.emulator.faults([{"match": cancel, "action": {"status": 403}}])
        done = project.run_in_new_interpreter("cancel", "asked")
        assert done.returncode == 1
        assert "problem: msgbatch_" in done.stderr


def test_retry_failed_sends_given_up_requests_once_more(project: Project) -> None:
    assert project.emulator is not None
    project.add_pipeline("asked", ["one", "two"])
    project.emulator.faults(
        [{"match": {**CREATE, "times": 1}, "action": {"error_mix": {"permission_error": 1.0}}}]
    )
    assert project.run("run", "asked").returncode == 3
    assert project.run("run", "asked").returncode == 3, "nothing is retried automatically"
    assert len(project.accepted()) == 1
    done = project.run("run", "asked", "--retry-failed")
    assert (done.returncode, done.stderr) == (0, "")
    assert list(table(project)["attempts"]) == [2, 2]


def test_the_history_is_whole_in_a_pipe_and_fits_a_terminal(project: Project) -> None:
    project.add_pipeline("asked", ["one"])
    project.add_pipeline("other", ["two"])
    assert project.run("run", "asked").returncode == 0
    assert project.run("run", "other").returncode == 0
    done = project.run("status", "asked", "--history")
    lines = done.stdout.splitlines()
    parsed = [
        re.fullmatch(r"(\S+ \S+ UTC)  (\w+) +(\S+) +(\S+) -> (\w+) +(.+)  \[(\S+:\d+)\]", line) for line in lines
    ]
    assert all(parsed), lines
    entries = [match.groups() for match in parsed if match]
    assert [entry[1:2] + entry[3:5] for entry in entries] == [
        ("submission", "-", "registered"),
        ("file", "-", "ready"),
        ("submission", "registered", "began"),
        ("file", "ready", "sending"),
        ("file", "sending", "submitted"),
        ("batch", "-", "open"),
        ("batch", "open", "ended"),
        ("batch", "ended", "collected"),
        ("file", "submitted", "collected"),
        ("submission", "began", "final"),
    ]
    assert [entry[0] for entry in entries] == sorted(entry[0] for entry in entries)
    assert {entry[2] for entry in entries if entry[1] == "batch"} == {project.accepted()[0]["id"]}

    code, screen = project.run_in_terminal("status", "asked", "--history")
    assert code == 0
    short = screen.replace("\r", "").splitlines()
    assert len(short) == len(lines)
    assert max(map(len, short)) <= 120
    assert any("/part-00000.jsonl" in line for line in short)
    assert "--history needs a pipeline" in project.run("status", "--history").stderr


def test_status_shows_how_long_results_are_available(project: Project) -> None:
    project.add_pipeline("asked", ["one"])
    with running(project):
        output = project.run("status", "asked").stdout
        assert re.search(r"in_progress, sent .* ago, results until \d{4}-\d\d-\d\d\n", output)
        assert "its results will be deleted" not in output
    (batch,) = project.accepted()
    ledger(project, "update batch set created_at = created_at - 86400 * 27 - 600")
    assert f"{batch['id']}: its results will be deleted in 47 h " in project.run("status", "asked").stdout
    ledger(project, "update batch set created_at = created_at - 86400 * 2")
    assert (
        f"{batch['id']}: its results are deleted, and they are not collected"
        in project.run("status", "asked").stdout
    )
