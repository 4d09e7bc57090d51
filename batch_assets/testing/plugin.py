"""The pytest plugin. Nothing of this package is imported before a test asks for a fixture."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from batch_assets.testing.emulator import BatchEmulator
    from batch_assets.testing.prompts import PromptSnapshot
    from batch_assets.testing.runs import Pipelines, RunPipeline

# Variables by which a test could reach another root, another API or another key begin so.
_FOREIGN = ("ANTHROPIC_", "BATCH_ASSETS_")
_HARMLESS = ("BATCH_ASSETS_PRICES",)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that writes the snapshots of prompts."""
    group = parser.getgroup("batch_assets", "pipelines of batch_assets")
    group.addoption("--update-prompts", action="store_true", help="write what prompt_snapshot compares")


@pytest.fixture(scope="session")
def _batch_projects() -> dict[Path, Pipelines]:
    """The projects whose definitions are loaded, by folder: they are loaded once."""
    return {}


@pytest.fixture
def _batch_pipelines(request: pytest.FixtureRequest, _batch_projects: dict[Path, Pipelines]) -> Pipelines:
    """The pipelines of the project that the test's file is in. Its root may be another one than that of pytest."""
    from batch_assets.core.settings import find_project
    from batch_assets.testing.runs import Pipelines

    project = find_project(request.path.parent)
    return _batch_projects.setdefault(project, Pipelines(project))


@pytest.fixture
def _batch_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Hide every root, API and key of the developer, and name a root of the test."""
    for name in [name for name in os.environ if name.startswith(_FOREIGN) and name not in _HARMLESS]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("BATCH_ASSETS_ROOT", str(tmp_path / "batch_assets"))
    return monkeypatch


@pytest.fixture
def batch_emulator(
    request: pytest.FixtureRequest, _batch_environment: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[BatchEmulator]:
    """An emulator of the Message Batches API for this test alone, in place of every other API.

    At the end it fails the test if a script has an answer for a row key that no request was sent for.
    """
    from batch_assets.testing.emulator import BatchEmulator

    failed_before = request.session.testsfailed
    with BatchEmulator(tmp_path / "batch_emulator") as emulator:
        _batch_environment.setenv("BATCH_ASSETS_EMULATOR", emulator.url)
        yield emulator
        if request.session.testsfailed > failed_before:
            return  # a test that has failed may have stopped before its requests
        emulator.check()
        if unused := emulator.unused:
            pytest.fail(f"no request was sent for the row keys {', '.join(map(repr, unused))} of the answers")


@pytest.fixture
def run_pipeline(batch_emulator: BatchEmulator, _batch_pipelines: Pipelines) -> RunPipeline:
    """A function that runs a pipeline on the emulator, and returns its table: `run_pipeline("my_pipeline")`."""
    from batch_assets.testing.runs import RunPipeline

    return RunPipeline(batch_emulator, _batch_pipelines)


@pytest.fixture
def prompt_snapshot(
    request: pytest.FixtureRequest, _batch_environment: pytest.MonkeyPatch, _batch_pipelines: Pipelines
) -> PromptSnapshot:
    """A function that compares requests with a file beside the test: `prompt_snapshot("my_pipeline")`."""
    from batch_assets.testing.prompts import FOLDER, PromptSnapshot

    folder = request.path.parent / FOLDER
    return PromptSnapshot(folder, _batch_pipelines, update=request.config.getoption("--update-prompts"))
