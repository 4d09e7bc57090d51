"""Commands in a project that has only used the emulator, as after `make demo`: no variable has to be set."""

from __future__ import annotations

import sys

import pytest

from .support import COMMAND, Project

STARTED = "No API is set, and this project has only used the emulator, so the command starts it: "


@pytest.fixture
def after_demo(bare_project: Project) -> Project:
    bare_project.add_pipeline("asked", ["one", "two"])
    command = ["emulator", "--port", "0", "--latency", "0", "--", sys.executable, *COMMAND, "run", "asked"]
    done = bare_project.run(*command)
    assert done.returncode == 0, done.stderr
    assert (bare_project.folder / "data" / "emulated" / "ledger.db").is_file()
    return bare_project


def test_status_list_and_run_work(after_demo: Project) -> None:
    for env in ({}, {"ANTHROPIC_API_KEY": "sk-ant-api03-none"}):
        status = after_demo.run("status", env=env)
        assert (status.returncode, status.stderr) == (0, "")
        assert "asked\n" in status.stdout and "2 succeeded" in status.stdout
        assert "data/emulated" in status.stdout
        assert "by the price list; the emulator bills nothing" in status.stdout
    assert after_demo.run("spend").stdout.endswith("the emulator bills nothing.\n")
    listed = after_demo.run("list")
    assert (listed.returncode, listed.stderr.startswith(STARTED)) == (0, True)
    assert listed.stdout.splitlines()[-1].endswith(", 1 of this root")
    again = after_demo.run("run", "asked")
    assert (again.returncode, again.stderr.startswith(STARTED)) == (0, True), again.stderr
    assert after_demo.run("list").stdout.splitlines()[-1].startswith("1 batch at http://127.0.0.1:")
    # Each has stopped the emulator that it started.
    url = listed.stdout.split()[-5].rstrip(",")
    failed = after_demo.run("list", env={"BATCH_ASSETS_EMULATOR": url})
    assert failed.returncode == 1
    assert not (after_demo.folder / "data" / "output").exists()


def test_a_provider_that_cannot_be_called_is_not_replaced(after_demo: Project) -> None:
    done = after_demo.run("run", "asked", env={"BATCH_ASSETS_PROVIDER": "aws"})
    assert done.returncode == 1
    assert "for the provider aws, set BATCH_ASSETS_WORKSPACE" in done.stderr


def test_another_root_is_left_alone(after_demo: Project) -> None:
    env = {"BATCH_ASSETS_ROOT": str(after_demo.folder / "elsewhere")}
    assert "Nothing has run yet" in after_demo.run("status", env=env).stdout
    for command in (["run", "asked"], ["list"]):
        done = after_demo.run(*command, env=env)
        assert done.returncode == 1
        assert "No API to talk to: set ANTHROPIC_API_KEY" in done.stderr
