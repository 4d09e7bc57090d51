"""The examples of docs/analysts.md run on the table of the demo."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from batch_assets.core.answers.result_types import ResultType
from tests.documentation import PROJECT, page

PAGE = page("docs/analysts.md")


@pytest.fixture
def after_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder has the demo's dataset and the table of `review_triage`."""
    batch_assets = [sys.executable, "-m", "batch_assets.cli"]
    emulator = [*batch_assets, "emulator", "--port", "0", "--latency", "0", "--state", str(tmp_path / "emulator")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BATCH_ASSETS_")}
    environment["BATCH_ASSETS_ROOT"] = str(tmp_path / "data" / "emulated")
    command = [*emulator, "--", *batch_assets, "run", "review_triage"]
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shutil.copy(PROJECT / "data" / "reviews.csv", tmp_path / "data")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("after_demo")
def test_the_examples_run() -> None:
    names: dict[str, Any] = {}
    for block in PAGE.blocks():
        assert block.language == "python"
        exec(compile(block.text, block.location, "exec"), names)
    assert names["table"].dtypes["urgency"].kind == "i"
    assert names["frame"].height == len(names["table"]) == len(names["joined"])
    assert 0 < len(names["answered"]) < len(names["table"])
    assert names["joined"]["sentiment"].notna().sum() == len(names["answered"])


def test_every_result_type_is_on_the_page() -> None:
    rows = PAGE.table("Count what failed before you count answers")
    described = [name.strip("` ") for row in rows for name in row[0].split(",")]
    assert sorted(described) == sorted(ResultType)
