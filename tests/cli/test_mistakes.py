"""Invalid settings and files: every command reports what, where and what to do, in one sentence."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from .support import Project

HOOK = {"url_env": "HOOK_URL", "secret_env": "HOOK_SECRET"}
LETTER = {"to": ["a@b.c"], "sender": "us@b.c", "url_env": "SMTP_URL"}
# Content of a pipeline file -> the field that is named, and the remedy.
MISTAKES: list[tuple[dict[str, Any], str, str]] = [
    ({"partitions": "daily"}, "partitions", "give a map of its fields, not daily; fields here: hourly, daily"),
    ({"partitions": {"daily": "2026-01-01"}}, "partitions.daily", "give a map of its fields, not 2026-01-01"),
    ({"partitions": {"daily": {"start": "soon"}}}, "partitions.daily.start", "'soon' is not a date like"),
    ({"partitions": {"daily": {"start": "{{ 'so' }}on"}}}, "partitions.daily.start", "'soon' is not a date like"),
    (
        {"partitions": {"dayly": {"start": "2026-01-01"}}},
        "partitions.dayly",
        "there is no such field: did you mean `daily`?",
    ),
    ({"partitions": {"static": ["de", False]}}, "partitions.static.1", "false (no and off mean false too)"),
    ({"partitions": {"static": [2024]}}, "partitions.static.0", "give a text, not 2024; put it in quotes"),
    ({"partitions": {"static": "de"}}, "partitions.static", "give a list, as in [one, two], not de"),
    ({"partitions": {"dynamic": False}}, "partitions", "give exactly one of"),
    ({"notify": {"webhook": HOOK}}, "notify", "give a list, as in [one, two], not a map"),
    ({"notify": "me"}, "notify", "give a list"),
    (
        {"notify": [{"webhook": HOOK, "events": ["done"]}]},
        "notify.0.events.0",
        "'complete', 'failed', 'deadline', 'held' or 'budget'",
    ),
    ({"notify": [{"email": LETTER | {"to": "a@b.c"}}]}, "notify.0.email.to", "give a list"),
    ({"schedule": {"crn": "0 2 * * *"}}, "schedule.crn", "there is no such field: did you mean `cron`?"),
    ({"dataset": {"pth": "a.csv"}}, "dataset.pth", "there is no such field: did you mean `path`?"),
    ({"retry": 3}, "retry", "give a map of its fields, not 3; fields here: max_attempts"),
    ({"retry": {"max_attempts": "{{ 0 }}"}}, "retry.max_attempts", "give at least 1, not 0"),
    ({"batching": {"max_mb": "much"}}, "batching.max_mb", "give a number, not much"),
    ({"color": "red"}, "color", "there is no such field; fields here: name, dataset"),
    ({"outputschema": "a.json"}, "outputschema", "there is no such field: did you mean `output_schema`?"),
]


def assert_sentence(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    for word in words:
        assert word in line
    assert "pass-word" not in done.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BATCH_ASSETS_LEDGER", "nothing://user:pass-word@host/name"),
        ("BATCH_ASSETS_LEDGER", "oracle://user:pass-word@host"),
        ("BATCH_ASSETS_LEDGER", "sqlite://"),
        ("BATCH_ASSETS_LEDGER", "user:pass-word@host"),
        ("BATCH_ASSETS_LEASE_SECONDS", "abc"),
    ],
)
def test_an_invalid_variable_is_reported(project: Project, name: str, value: str) -> None:
    project.add_pipeline("asked", ["one"])
    commands = [["status"], ["list"]] if name == "BATCH_ASSETS_LEDGER" else []
    if value in ("sqlite://", "abc"):  # it has to load the pipelines first, which takes longer
        commands.append(["run", "asked"])
    for command in commands:
        assert_sentence(project.run(*command, env={name: value}), name)
    assert project.accepted() == []


@pytest.mark.parametrize("name", ["BATCH_ASSETS_BUDGET", "BATCH_ASSETS_MAX_IN_FLIGHT"])
def test_a_variable_that_cannot_be_read_is_all_that_is_wrong(project: Project, name: str) -> None:
    """Commands name it once and blame no file, also those that load the pipelines."""
    project.add_pipeline("one", ["one"])
    project.add_pipeline("two", ["two"])
    wrong = {name: "fifty"}
    printed = {
        command: project.run(*command, env=wrong)
        for command in (("status",), ("check",), ("check", "one"), ("preview", "one"), ("run", "one"))
    }
    for done in printed.values():
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"Error: {name} is 'fifty': set it to ") and done.stderr.count("\n") == 1
    assert len({done.stderr for done in printed.values()}) == 1
    found = [line.split() for line in project.run("doctor", env=wrong).stdout.splitlines() if name in line]
    assert [words[:2] for words in found] == [["wrong", "environment"]]


def test_a_key_that_the_api_refuses(project: Project) -> None:
    """The core's text is followed by the command that goes on, with the partition quoted for the shell."""
    assert project.emulator is not None
    project.add_pipeline("asked", ["d e"], partitions={"static": ["d e"], "column": "text"})
    project.emulator.faults([{"match": {"method": "POST"}, "action": {"status": 401}}])
    done = project.run("run", "asked", "--partition", "d e")
    assert_sentence(
        done,
        "The request files are kept: fix this, then send them again. "
        "To send the request files: batch-assets run asked --partition 'd e'",
    )


@pytest.mark.parametrize(("attributes", "field", "problem"), MISTAKES)
def test_an_invalid_field_is_reported(
    project: Project, attributes: dict[str, Any], field: str, problem: str
) -> None:
    project.add_pipeline("asked", ["one"], **attributes)
    done = project.run("run", "asked")
    assert_sentence(done, f"batch_assets/defs/asked/defs.yaml:1: {field}: ", problem)
    for name in ("BlockModel", "validation error", "Input should be a valid string", "pydantic"):
        assert name not in done.stderr
    assert project.accepted() == []


def test_a_damaged_ledger_is_reported(project: Project) -> None:
    project.add_pipeline("asked", ["one"])
    assert project.run("run", "asked").returncode == 0
    path = project.folder / "data/emulated/ledger.db"
    path.write_bytes(b"no database " * 500)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    assert_sentence(project.run("status"), str(path), "move it")
    assert_sentence(project.run("run", "asked"), str(path))
    path.unlink()  # as the error advises
    again = project.run("run", "asked")
    assert again.returncode == 0, again.stderr
    assert len(project.accepted()) == 1


def test_a_damaged_response_file_is_reported(project: Project) -> None:
    project.add_pipeline("asked", ["one"])
    assert project.run("run", "asked").returncode == 0
    (stored,) = (project.folder / "data/emulated/asked/responses").glob("*.parquet")
    stored.write_bytes(stored.read_bytes()[:100])
    again = project.run("run", "asked")
    assert again.returncode == 0, again.stderr
    assert f"{stored.name} is damaged" in again.stderr
    assert "downloaded again" in again.stderr
    assert len(project.accepted()) == 1
