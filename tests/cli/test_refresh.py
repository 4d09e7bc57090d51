"""`batch-assets run` with --refresh and --limit: the cost is shown first, and a limit is not a failure of rows."""

from __future__ import annotations

import os
import pty
import subprocess

import pandas as pd
import pytest

from batch_assets.cli.run import how_to_go_on
from batch_assets.core.open_root import open_root
from batch_assets.core.requests.report import AskAgain
from batch_assets.core.settings import Settings
from tests.core.support import World, environment, texts

from .support import BATCHES, Project

CREATE = {"method": "POST", "path": BATCHES}
# What a shell in a terminal gives to the command: its standard input.
ON_TERMINAL = """
import os, sys
os.dup2(os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY), 0)
sys.stdin = os.fdopen(0, closefd=False)
from batch_assets.cli import main
main(sys.argv[2:])
"""


def answer(project: Project, typed: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command with a user at its terminal who types this."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, typed.encode() + b"\n")
        return project.run_python("-c", ON_TERMINAL, os.ttyname(theirs), *arguments)
    finally:
        os.close(ours)
        os.close(theirs)


def results(project: Project) -> pd.DataFrame:
    table: pd.DataFrame = pd.read_parquet(project.folder / "data" / "emulated" / "asked" / "results")
    return table


def test_the_cost_is_shown_and_never_spent_without_consent(project: Project) -> None:
    project.add_pipeline("asked", ["one", "two", "three"])
    assert project.run("run", "asked").returncode == 0

    without_terminal = project.run("run", "asked", "--refresh")
    assert without_terminal.returncode == 1
    assert "refresh: 3 requests, less than $0.0001" in without_terminal.stdout
    assert "nothing was sent" in without_terminal.stderr and "--yes" in without_terminal.stderr
    no = answer(project, "n", "run", "asked", "--refresh")
    assert (no.returncode, len(project.accepted())) == (1, 1)
    assert "Send these requests again? [y/N]" in no.stdout

    yes = answer(project, "y", "run", "asked", "--refresh")
    assert yes.returncode == 0, yes.stderr
    assert project.run("run", "asked", "--refresh", "--yes").returncode == 0
    assert [batch["requests"] for batch in project.accepted()] == [3, 3, 3]
    assert set(results(project)["batch_id"]) == {project.accepted()[2]["id"]}


def test_rows_whose_refresh_fails_are_reported(project: Project) -> None:
    assert project.emulator is not None
    project.add_pipeline("asked", ["one", "two"])
    project.run("run", "asked")
    project.emulator.faults([{"match": CREATE, "action": {"error_mix": {"permission_error": 1.0}}}])
    done = project.run("run", "asked", "--refresh", "--yes")
    assert done.returncode == 0, done.stderr
    assert "kept" in done.stdout and "older answers" in done.stdout
    assert set(results(project)["result_type"]) == {"succeeded"}


def test_a_limit_ends_with_a_sentence(project: Project) -> None:
    project.add_pipeline("asked", [f"text {number}" for number in range(5)])
    first = project.run("run", "asked", "--limit", "2")
    assert first.returncode == 0, first.stderr
    assert "3 left out by the limit" in first.stdout
    assert first.stdout.rstrip().endswith("2 of 5 requests sent; run without --limit for the rest")
    assert list(results(project)["result_type"]) == ["succeeded"] * 2 + ["pending"] * 3
    assert "3 requests left out by a limit" in project.run("status", "asked").stdout
    second = project.run("run", "asked")
    assert second.returncode == 0, second.stderr
    assert "sent;" not in second.stdout
    assert [batch["requests"] for batch in project.accepted()] == [2, 3]


def test_a_limited_refresh_sends_no_more_requests_without_consent(project: Project) -> None:
    project.add_pipeline("asked", [f"text {number}" for number in range(3)])
    project.run("run", "asked")
    limited = project.run("run", "asked", "--refresh", "--limit", "1", "--yes")
    assert limited.returncode == 0, limited.stderr
    assert "2 left out by the limit, part of a refresh" in limited.stdout
    remedy = "--refresh continues with the rest, a run without it keeps these answers and ends the refresh"
    assert f"1 of 3 requests sent; {remedy}" in limited.stdout
    assert remedy in project.run("status", "asked").stdout
    plain = project.run("run", "asked")
    assert plain.returncode == 0, plain.stderr
    assert "0 to send, 3 reused\n" in plain.stdout
    first, second = [batch["id"] for batch in project.accepted()]
    assert list(results(project)["batch_id"]) == [second, first, first]


def test_a_limited_run_can_be_canceled(project: Project) -> None:
    project.add_pipeline("asked", ["one", "two"])
    project.run("run", "asked", "--limit", "1")
    done = project.run("cancel", "asked")
    assert "nothing more of this submission will be sent" in done.stdout
    assert "Nothing had to be canceled" not in done.stdout
    assert "its table was not written since it was canceled" in project.run("status", "asked").stdout


def test_the_command_to_continue_with_has_the_options_agreed_to(project: Project) -> None:
    assert project.emulator is not None
    project.emulator.settings(latency=3600.0)
    settings = Settings.from_env(environment(project.emulator.url, project.folder / "output"))
    with open_root(settings) as root:
        world = World(project.emulator, project.folder, root)
        pipeline = world.pipeline(texts(5))

        def interrupted(before: set[str] | None, again: AskAgain) -> str:
            return how_to_go_on(settings, "asked", "", again, before).partition("batch-assets run asked")[2]

        limited = AskAgain(limit=2)
        for nothing_built in (set[str](), None):
            assert interrupted(nothing_built, limited) == " --limit 2"
        first = world.build(pipeline, limit=2).submission_id
        assert interrupted(set(), limited) == " --limit 2"
        world.submit(pipeline)
        assert interrupted(set(), limited) == "\nIt also sends the 3 requests beyond the limit."
        more = AskAgain(retry_failed=True, limit=3)
        assert interrupted({first}, more) == " --retry-failed --limit 3", "it was stopped before it built anything"
        world.emulator.end_batches()
        world.emulator.settings(latency=0.0)
        world.run(pipeline)

        world.emulator.settings(latency=3600.0)
        refresh = AskAgain(refresh=True, limit=4)
        world.build(pipeline, refresh=True, limit=4)
        assert interrupted(set(), refresh) == " --refresh --limit 4"
        world.submit(pipeline)
        assert interrupted(set(), refresh) == " --refresh\nIt also sends the 1 request beyond the limit."


def test_failures_within_the_limit_count(project: Project) -> None:
    assert project.emulator is not None
    project.add_pipeline("asked", ["one", "two", "three"])
    project.emulator.faults([{"match": CREATE, "action": {"error_mix": {"permission_error": 1.0}}}])
    assert project.run("run", "asked", "--limit", "1").returncode == 3


def test_a_limited_run_that_was_refused_is_still_stuck(project: Project) -> None:
    assert project.emulator is not None
    project.add_pipeline("asked", ["one", "two", "three"])
    project.emulator.faults([{"match": CREATE, "action": {"status": 400}}])
    done = project.run("run", "asked", "--limit", "1")
    assert done.returncode == 1
    assert "the API refused" in done.stderr


@pytest.mark.parametrize("limit", ["0", "-1", "many"])
def test_a_limit_is_a_number_of_requests(bare_project: Project, limit: str) -> None:
    done = bare_project.run("run", "asked", "--limit", limit)
    assert done.returncode == 2
    assert "--limit" in done.stderr


def test_pending_answers_of_an_ended_refresh_are_reported(project: Project) -> None:
    """They are paid for, and nothing else would report them."""
    assert project.emulator is not None
    settings = Settings.from_env(environment(project.emulator.url, project.folder / "data" / "emulated"))
    with open_root(settings) as root:
        world = World(project.emulator, project.folder, root)
        pipeline = world.pipeline(texts(3))
        world.run(pipeline)
        project.emulator.settings(latency=3600.0)
        world.build(pipeline, refresh=True, limit=2)
        world.submit(pipeline)
        world.send(pipeline)
        done = world.collect(pipeline).results
        assert done is not None and done.final
        status = project.run("status", "asked").stdout
        assert "Newer answers of 1 batch come with the sensor or a later run" in status
        project.emulator.end_batches()
        world.collect(pipeline)
        assert "Newer answers" not in project.run("status", "asked").stdout
