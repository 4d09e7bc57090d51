"""Benchmarks run rarely, so a module that the code has outgrown would be noticed late."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import pytest

import benchmarks
from batch_assets.emulator import Emulator
from benchmarks import changes, commands, dashboard, references

NAMES = sorted(module.name for module in pkgutil.walk_packages(benchmarks.__path__, "benchmarks."))
MODULES = [name for name in NAMES if name != "benchmarks.__main__"]


@pytest.mark.parametrize("name", MODULES)
def test_a_benchmark_can_be_imported(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__, "it says what it measures"


def test_what_a_command_costs_is_measured(tmp_path: Path) -> None:
    (command, limit), *_ = commands.LIMITS.items()
    commands.make_project(tmp_path)
    with Emulator(latency=0.0) as emulator:
        cost = commands.measure(tmp_path, emulator.url, *command)
        assert [batch["requests"] for batch in emulator.log()] == [2]
    assert cost.cpu > 0
    assert 0 < cost.modules <= limit.modules


def test_all_questions_of_the_dashboard_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    references.make_dataset(tmp_path / "rows.parquet", 3)
    with Emulator(latency=0.0) as emulator:
        changes.run(tmp_path, emulator, output_schema=dashboard.SCHEMA)
    dashboard.ask(tmp_path, 3)
    assert len(capsys.readouterr().out.splitlines()) == 7, "six questions, and the memory"
