"""Settings and files that are wrong: every command says what, where and what to do, in one sentence."""

from __future__ import annotations

import subprocess

import pytest

from .support import Project


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
def test_a_variable_that_is_wrong(project: Project, name: str, value: str) -> None:
    project.add_pipeline("asked", ["one"])
    commands = [["status"], ["list"]] if name == "BATCH_ASSETS_LEDGER" else []
    if value in ("sqlite://", "abc"):  # it has to load the pipelines first, which takes longer
        commands.append(["run", "asked"])
    for command in commands:
        assert_sentence(project.run(*command, env={name: value}), name)
    assert project.accepted() == []


def test_a_damaged_ledger(project: Project) -> None:
    project.add_pipeline("asked", ["one"])
    assert project.run("run", "asked").returncode == 0
    path = project.folder / "data/emulated/ledger.db"
    path.write_bytes(b"no database " * 500)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    assert_sentence(project.run("status"), str(path), "move it")
    assert_sentence(project.run("run", "asked"), str(path))
    path.unlink()  # as the error says
    again = project.run("run", "asked")
    assert again.returncode == 0, again.stderr
    assert len(project.accepted()) == 1


def test_a_damaged_response_file(project: Project) -> None:
    project.add_pipeline("asked", ["one"])
    assert project.run("run", "asked").returncode == 0
    (stored,) = (project.folder / "data/emulated/asked/responses").glob("*.parquet")
    stored.write_bytes(stored.read_bytes()[:100])
    assert_sentence(project.run("run", "asked"), stored.name, "downloaded again")
    stored.unlink()  # as the error says
    again = project.run("run", "asked")
    assert again.returncode == 0, again.stderr
    assert len(project.accepted()) == 1
