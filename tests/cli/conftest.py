"""Fixtures of the command line's tests: one emulator for all, a project for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from batch_assets.emulator import Emulator
from tests.forked import PACKAGES, ForkServer

from .support import Project

_OURS = tuple(
    f"batch_assets.{name}"
    for name in (
        "dagster.component",
        "cli.confirm",
        "cli.describe",
        "cli.headless",
        "cli.ledger_view",
        "cli.permissions",
        "cli.progress",
        "cli.progress_lines",
        "cli.run",
        "cli.summary",
        "core.api.bodies",
    )
)
# What Dagster imports when it loads a project.
_DAGSTER = (
    "dagster._core.definitions.external_asset",
    "dagster._core.definitions.repository_definition.repository_data_builder",
    "dagster._core.remote_representation.external_data",
    "tests.quick_dagster",
)


@pytest.fixture(scope="session")
def shared_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with Emulator(state=tmp_path_factory.mktemp("emulator")) as running:
        yield running
        assert running.errors() == ""


@pytest.fixture
def emulator(shared_emulator: Emulator) -> Emulator:
    """The shared emulator, reset to its initial state except for the batches of earlier tests."""
    shared_emulator.reset_faults()
    shared_emulator.settings(latency=0.0)
    return shared_emulator


@pytest.fixture(scope="session")
def interpreters() -> Iterator[ForkServer]:
    """Interpreters that have imported what the command line imports, except for a project's definitions."""
    with ForkServer(*PACKAGES, *_OURS, *_DAGSTER) as server:
        yield server


@pytest.fixture
def project(tmp_path: Path, emulator: Emulator, interpreters: ForkServer) -> Project:
    return Project(tmp_path, emulator, interpreters)


@pytest.fixture
def bare_project(tmp_path: Path, interpreters: ForkServer) -> Project:
    """A project without an API."""
    return Project(tmp_path, None, interpreters)
