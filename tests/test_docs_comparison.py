"""docs/comparison.md is about the versions that its script installs."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.peers.__main__ import compare
from benchmarks.peers.tools import RUNNERS, TOOLS, Tool
from tests.documentation import page

PAGE = page("docs/comparison.md")


def test_the_figures_are_those_of_the_pinned_versions() -> None:
    rows = PAGE.table("When something breaks")
    expected = [
        tool.name if not tool.packages else f"{tool.name} {tool.packages[0].rpartition('==')[2]}" for tool in TOOLS
    ]
    assert [row[0] for row in rows] == expected
    assert all((RUNNERS / tool.runner).is_file() for tool in TOOLS if tool.runner)
    assert all("==" in package or "<" in package for tool in TOOLS for package in tool.packages)


def test_what_is_only_read_has_its_version() -> None:
    versions = [name for name in expected_columns() if name]
    assert len(versions) == 7
    assert all(name[-1].isdecimal() for name in versions)


def expected_columns() -> list[str]:
    """The heads of the columns of the other tools."""
    (head,) = [line for line in PAGE.text.splitlines() if line.startswith("| | batch-assets |")]
    return [cell.strip() for cell in head.strip("|").split("|")][2:]


def test_a_tool_that_cannot_be_installed_stops_no_other(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tools = [
        Tool("no-python", ("nothing==1",), "run_nothing.py", python=str(tmp_path / "no-python")),
        Tool("no-package", (f"nothing @ file://{tmp_path}/not-a-wheel",), "run_nothing.py"),
    ]
    assert not compare(tools, tmp_path / "environments")
    printed = capfd.readouterr().out
    for tool, reason in zip(tools, ("no-python", "not-a-wheel"), strict=True):
        assert reason in printed.partition(f"{tool.name} is not installed, so it did not run:\n    error: ")[2]
    assert not (tmp_path / "environments" / "no-package" / "complete").exists()
