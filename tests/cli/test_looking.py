"""`batch-assets status`, `list` and `--help`: looking, without changing anything."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import urllib.request

import pytest

import batch_assets

from .support import BATCHES, Project


def submit_elsewhere(url: str) -> str:
    """Submits a batch that no ledger knows of; returns its id."""
    params = {"model": "claude-haiku-5-5", "max_tokens": 5, "messages": [{"role": "user", "content": "Hello"}]}
    body = json.dumps({"requests": [{"custom_id": "a", "params": params}]}).encode()
    headers = {"content-type": "application/json", "x-api-key": "none", "anthropic-version": "2023-06-01"}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url + BATCHES, body, headers)) as response:
        return str(json.load(response)["id"])


def test_status_needs_neither_dagster_nor_api(bare_project: Project) -> None:
    code = (
        "import sys; from batch_assets.cli import main; main(['status'], standalone_mode=False); "
        "sys.exit(' '.join({'dagster', 'anthropic', 'pandas'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=bare_project.folder, env=bare_project.env, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "Nothing was run yet: root data/output, ledger data/output/ledger.db is not there.\n"
    assert not (bare_project.folder / "data").exists()


def test_status_and_list_after_a_run(project: Project) -> None:
    assert project.emulator is not None
    foreign = submit_elsewhere(project.emulator.url)
    project.add_pipeline("asked", ["one", "two", "two", ""], max_failed=0.25)
    assert project.run("run", "asked", "--partition", "2026-11-20").returncode == 0
    ours = project.accepted()[-1]["id"]

    listed = {line.split()[0]: line for line in project.run_anew("list").stdout.splitlines()}
    assert "2 succeeded" in listed[ours]
    assert "  asked  " in listed[ours] and listed[ours].endswith("/part-00000.jsonl")
    assert listed[foreign].endswith("not of this root")
    assert list(listed).index(ours) < list(listed).index(foreign)

    without_api = {"BATCH_ASSETS_EMULATOR": "", "BATCH_ASSETS_ROOT": "data/emulated"}
    shown = project.run("status", env=without_api)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "asked [2026-11-20]" in shown.stdout
    assert "4 rows, 1 rejected; 2 distinct requests" in shown.stdout
    assert "batches     1 collected" in shown.stdout
    assert "nothing: complete since" in shown.stdout
    assert "error" not in shown.stdout
    lost = project.run("status", "other", env={"BATCH_ASSETS_EMULATOR": ""})
    assert "set BATCH_ASSETS_ROOT=data/emulated" in lost.stdout

    with sqlite3.connect(project.folder / "data" / "emulated" / "ledger.db") as ledger:
        ledger.execute("update batch set paid_twice = 1")
        ((file,),) = ledger.execute("select file_id from batch")
    ledger.close()
    (error,) = [line for line in project.run_anew("status").stdout.splitlines() if line.startswith("  error")]
    assert f"{ours} of {file} is paid twice" in error
    (listed_line,) = [line for line in project.run("list").stdout.splitlines() if line.startswith(ours)]
    assert listed_line.endswith(f"{file}  PAID TWICE")


@pytest.mark.parametrize("command", [[], ["run"], ["status"], ["list"], ["emulator"]])
def test_help_with_examples(bare_project: Project, command: list[str]) -> None:
    done = bare_project.run(*command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"batch-assets {command[0] if command else 'run'}" in done.stdout.partition("\n")[2]


def test_version(bare_project: Project) -> None:
    assert bare_project.run("--version").stdout == f"batch-assets, version {batch_assets.__version__}\n"
