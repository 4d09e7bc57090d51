"""`batch-assets status`, `list` and `--help`, which change nothing."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import subprocess
import sys
import urllib.request
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import batch_assets
from batch_assets.cli.watching import cut
from batch_assets.core.text import dollars
from batch_assets.emulator import Emulator
from tests.core.support import wait_for

from .many_partitions import fill
from .support import BATCHES, DEADLINE, Project


def submit_elsewhere(url: str) -> str:
    """Submit a batch that no ledger knows, and return its id."""
    params = {"model": "claude-haiku-5-5", "max_tokens": 5, "messages": [{"role": "user", "content": "Hello"}]}
    body = json.dumps({"requests": [{"custom_id": "a", "params": params}]}).encode()
    headers = {"content-type": "application/json", "x-api-key": "none", "anthropic-version": "2023-06-01"}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url + BATCHES, body, headers)) as response:
        return str(json.load(response)["id"])


def forget_first_cost(folder: Path) -> None:
    """Make the first row of a table look as if prices.yaml did not have its model."""
    path = folder / "results.parquet"
    table = pq.ParquetFile(path).read()
    costs = [None, *table["cost_usd"].to_pylist()[1:]]
    models = ["claude-nine", *table["response_model"].to_pylist()[1:]]
    for name, column in (("cost_usd", pa.array(costs, pa.float64())), ("response_model", pa.array(models))):
        table = table.set_column(table.schema.get_field_index(name), name, column)
    pq.write_table(table, path)


def run_without(project: Project, packages: set[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a new interpreter. It fails and names them if some of the packages were imported."""
    code = (
        f"import sys; from batch_assets.cli import main; main({list(arguments)}, standalone_mode=False); "
        f"sys.exit(' '.join({packages} & set(sys.modules)) or 0)"
    )
    return subprocess.run(
        [sys.executable, "-c", code], cwd=project.folder, env=project.env, capture_output=True, text=True
    )


def test_status_needs_neither_dagster_nor_api(bare_project: Project) -> None:
    done = run_without(bare_project, {"dagster", "anthropic", "pandas"}, "status")
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        done.stdout
        == "Nothing has run yet: there is no ledger (root data/output, ledger data/output/ledger.db).\n"
    )
    assert not (bare_project.folder / "data").exists()


def test_short_commands_import_only_what_they_need(project: Project) -> None:
    project.add_pipeline("asked", ["one", "two"])
    assert project.run("run", "asked").returncode == 0
    done = run_without(project, {"dagster", "anthropic", "pandas"}, "status")
    assert (done.returncode, done.stderr) == (0, "")
    assert "cost " in done.stdout  # it is read from the table
    again = run_without(project, {"anthropic"}, "run", "asked")
    assert (again.returncode, again.stderr) == (0, "")
    assert "0 to send" in again.stdout


def test_status_and_list_after_a_run(project: Project) -> None:
    assert project.emulator is not None
    foreign = submit_elsewhere(project.emulator.url)
    parts = {"dataset": {"path": "{partition}.jsonl", "key": "id"}, "partitions": {"static": ["asked"]}}
    project.add_pipeline("asked", ["one", "two", "two", ""], max_failed=0.25, **parts)
    assert project.run("run", "asked", "--partition", "asked").returncode == 0
    ours = project.accepted()[-1]["id"]

    listed = {line.split()[0]: line for line in project.run_in_new_interpreter("list").stdout.splitlines()}
    assert "2 succeeded" in listed[ours]
    assert "  asked  " in listed[ours] and listed[ours].endswith("/part-00000.jsonl")
    assert listed[foreign].endswith("not of this root")
    assert list(listed).index(ours) < list(listed).index(foreign)

    without_api = {"BATCH_ASSETS_EMULATOR": "", "BATCH_ASSETS_ROOT": "data/emulated"}
    status = project.run("status", env=without_api)
    assert (status.returncode, status.stderr) == (0, "")
    assert "asked [asked]" in status.stdout
    assert "4 rows, 1 rejected; 2 distinct requests" in status.stdout
    assert "done        4 of 4 rows, 100 %" in status.stdout
    assert "batches     1 collected" in status.stdout
    table = pq.read_table(project.folder / "data" / "emulated" / "asked" / "results")
    cost = sum(cost for cost in table["cost_usd"].to_pylist() if cost is not None)
    assert f"cost        {dollars(cost)} by the price list; the emulator bills nothing\n" in status.stdout
    assert "nothing: complete since" in status.stdout
    assert "error" not in status.stdout
    lost = project.run("status", "other", env={"BATCH_ASSETS_EMULATOR": ""})
    assert "No run of other is recorded" in lost.stdout
    with_key = {"BATCH_ASSETS_EMULATOR": "", "ANTHROPIC_API_KEY": "sk-ant-api03-none"}
    assert "set BATCH_ASSETS_ROOT=data/emulated" in project.run("cancel", "asked", env=with_key).stderr

    with sqlite3.connect(project.folder / "data" / "emulated" / "ledger.db") as ledger:
        ledger.execute("update batch set paid_twice = 1")
        ((file,),) = ledger.execute("select file_id from batch")
    ledger.close()
    forget_first_cost(project.folder / "data" / "emulated" / "asked" / "results" / "partition=asked")
    lines = project.run_in_new_interpreter("status").stdout.splitlines()
    (error,) = [line for line in lines if line.startswith("  error")]
    assert f"{ours} of {file} is paid twice" in error
    (cost_line,) = [line for line in lines if line.startswith("  cost")]
    unknown = r" unknown: no price for claude-nine, (less than )?\$0\.\d{4} for the others$"
    assert re.search(unknown, cost_line)
    (listed_line,) = [line for line in project.run("list").stdout.splitlines() if line.startswith(ours)]
    assert listed_line.endswith(f"{file}  PAID TWICE")

    (damaged,) = (project.folder / "data" / "emulated" / "asked" / "results").rglob("*.parquet")
    damaged.write_bytes(b"no table")
    status = project.run("status")
    assert (status.returncode, status.stderr) == (0, "")
    assert re.search(r"cost        unknown: \S+results.parquet cannot be read: ", status.stdout)


def test_status_while_batches_run(project: Project, emulator: Emulator) -> None:
    """Rows, requests, the oldest batch, the next poll and the deadline; progress bars in a terminal."""
    emulator.settings(latency=3600.0)
    project.add_pipeline("asked", ["one", "two", "three", "four", ""], batching={"max_requests": 2})
    running = project.start("run", "asked")
    try:
        first, _ = wait_for(lambda: project.accepted()[1:] and project.accepted(), "two batches")
        emulator.end_batches(first["id"])
        status = wait_for(
            lambda: output if "1 open" in (output := project.run("status", "asked").stdout) else None, "its end"
        )
    finally:
        running.send_signal(signal.SIGINT)
        running.communicate(DEADLINE)
    lines = {line[2:13].strip(): line[14:] for line in status.splitlines() if line.startswith("  ")}
    assert lines["answered"] == "2 of 4 requests, 50 %"
    assert re.fullmatch(
        r"(?:1 \w+, )?1 open(?:, 1 \w+)?; oldest \d+ s, next look in \d+ s, "
        r"will end by \d{4}-\d\d-\d\d \d\d:\d\d UTC",
        lines["batches"],
    )
    code, terminal = project.run_in_terminal("status", "asked")
    assert code == 0
    assert "━" * 12 + "\x1b[0m\x1b[2m" + "╌" * 12 + "\x1b[0m  2 of 4 requests, 50 %" in terminal
    project.env["NO_COLOR"] = "1"
    assert "━" * 12 + "╌" * 12 + "  2 of 4 requests, 50 %" in project.run_in_terminal("status", "asked")[1]
    emulator.end_batches()
    assert project.run("run", "asked").returncode == 3
    assert "answered" not in project.run("status", "asked").stdout


def test_lines_are_cut_to_the_width_of_a_terminal_with_and_without_colors() -> None:
    colored = "\x1b[32m━━━━\x1b[0m\x1b[2m╌╌╌╌\x1b[0m  2 of 4"
    assert cut(colored, 16) == colored
    assert cut(colored, 7) == "\x1b[32m━━━━\x1b[0m\x1b[2m╌╌\x1b[0m…"
    assert (cut("in plain", 8), cut("in plain", 7)) == ("in plain", "in pla…")


def test_watching_shows_what_changes_until_it_is_interrupted(
    bare_project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    watching = bare_project.start("status", "--watch", "--json")
    assert watching.stdout is not None
    first = json.loads(watching.stdout.readline())
    assert (first["ledger"], first["summary"]["partitions"]) == (None, 0)
    monkeypatch.setenv("BATCH_ASSETS_ROOT", str(bare_project.folder / "data" / "output"))
    fill("asked", running=1)
    second = next(look for look in map(json.loads, watching.stdout) if look["summary"]["partitions"])
    assert second["pipelines"][0]["partitions"][0]["state"] == "waiting"
    watching.send_signal(signal.SIGINT)
    _, errors = watching.communicate(DEADLINE)
    assert (watching.returncode, errors) == (0, "")


@pytest.mark.parametrize("command", [[], ["run"], ["status"], ["list"], ["emulator"]])
def test_help_with_examples(bare_project: Project, command: list[str]) -> None:
    done = bare_project.run(*command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"batch-assets {command[0] if command else 'run'}" in done.stdout.partition("\n")[2]


def test_a_command_ends_without_looking_for_garbage() -> None:
    code = (
        "import sys\nfrom batch_assets.cli import main\nif sys.argv[1:]: main(standalone_mode=False)\n"
        "class Garbage:\n    def __init__(self): self.itself = self\n    def __del__(self): print('found')\n"
        "Garbage()"
    )
    command = [sys.executable, "-c", code]
    outputs = [subprocess.check_output([*command, *more], text=True) for more in ([], ["--version"])]
    assert outputs == ["found\n", f"batch-assets, version {batch_assets.__version__}\n"]


def test_version(bare_project: Project) -> None:
    assert bare_project.run("--version").stdout == f"batch-assets, version {batch_assets.__version__}\n"
