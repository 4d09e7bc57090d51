"""docs/from-elsewhere.md as a user follows it: the script, the import of its answers, and the exit codes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import anthropic
import pandas as pd
import pytest
import yaml

from tests.documentation import Block, page

from .support import Project

PAGE = page("docs/from-elsewhere.md")
TICKETS = "id,text\n1,The parcel came two days late.\n2,I want my money back.\n3,Best rucksack I ever had.\n"


def _block(language: str, part: str) -> Block:
    """The block of a language that contains a text."""
    (block,) = [block for block in PAGE.blocks() if block.language == language and part in block.text]
    return block


@pytest.fixture
def tickets(project: Project) -> Project:
    """The pipeline of the page, and its dataset."""
    folder = project.folder / "batch_assets" / "defs" / "tickets"
    folder.mkdir()
    (folder / "defs.yaml").write_text(_block("yaml", "name: tickets").text)
    (project.folder / "data").mkdir(exist_ok=True)
    (project.folder / "data/tickets.csv").write_text(TICKETS)
    return project


def _run_script(project: Project, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the script of the page on the emulator. Return its batch."""
    assert project.emulator is not None
    monkeypatch.chdir(project.folder)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", project.emulator.url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-of-the-script")
    names: dict[str, Any] = {}
    exec(compile(_block("python", "client = anthropic.Anthropic()").text, "script", "exec"), names)
    return names["batch"]


def _commands(text: str, **placeholders: str) -> list[list[str]]:
    """The arguments of the `batch-assets` commands of a block."""
    for placeholder, value in placeholders.items():
        text = text.replace(placeholder, value)
    return [line.split()[1:] for line in text.splitlines() if line.startswith("batch-assets ")]


def test_answers_of_the_script_are_not_paid_for_again(tickets: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = _run_script(tickets, monkeypatch)
    block = _block("sh", "--requests requests.jsonl")
    shown = re.findall(r"msgbatch_\w+", block.text)[0]
    for arguments in _commands(block.text, **{shown: batch.id}):
        done = tickets.run(*arguments)
        assert done.returncode == 0, done.stderr
    assert len(tickets.accepted()) == 1  # that of the script
    table = pd.read_parquet(tickets.folder / "data/emulated/tickets/results")
    assert (table["result_type"] == "succeeded").all()
    assert set(table["batch_id"]) == {batch.id}


def test_answers_of_curator_are_imported(tickets: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = _run_script(tickets, monkeypatch)
    client = anthropic.Anthropic()
    results = list(client.messages.batches.results(batch.id))
    rows = {row["id"]: row for row in pd.read_csv(tickets.folder / "data/tickets.csv").to_dict("records")}
    cache = tickets.folder / "cache"
    cache.mkdir()
    lines = [
        {
            "response_message": "…",
            "raw_response": {"custom_id": str(number), "result": result.model_dump(mode="json")["result"]},
            "generic_request": {"original_row": rows[int(result.custom_id)], "original_row_idx": number},
        }
        for number, result in enumerate(results)
    ]
    (cache / "responses_0.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    script = _block("python", "responses_*.jsonl").text
    done = subprocess.run([sys.executable, "-c", script, str(cache)], capture_output=True, text=True, check=True)
    (tickets.folder / "results.jsonl").write_text(done.stdout)
    (arguments,) = _commands(_block("sh", "--by-key").text)
    imported = tickets.run(*arguments)
    assert "imported by its row key, which you vouch for: 3" in imported.stdout, imported.stderr


def test_the_exit_codes_are_those_of_the_command(tickets: Project) -> None:
    help_text = tickets.run("run", "--help").stdout
    codes = re.findall(r"^    (\d+) ", help_text, re.M)
    assert sorted(row[0] for row in PAGE.table("One command")) == sorted(codes)
    done = tickets.run("run", "tickets")
    assert done.returncode == 0, done.stderr
    file = tickets.folder / "batch_assets/defs/tickets/defs.yaml"
    document = yaml.safe_load(file.read_text())
    document["attributes"] |= {"confirm_above": 0}
    document["attributes"]["params"]["max_tokens"] = 101
    file.write_text(json.dumps(document))
    assert tickets.run("run", "tickets").returncode == 4
