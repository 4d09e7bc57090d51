"""Fixtures of the command line's tests: one emulator for all, a project for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from batch_assets.emulator import Emulator
from tests.forked import ForkServer

from .support import Project


@pytest.fixture(scope="session")
def shared_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with Emulator(state=tmp_path_factory.mktemp("emulator")) as running:
        yield running
        assert running.errors() == ""


@pytest.fixture
def emulator(shared_emulator: Emulator) -> Emulator:
    """The shared emulator as at its start, but for the batches of earlier tests."""
    shared_emulator.reset_faults()
    shared_emulator.settings(latency=0.0)
    return shared_emulator


@pytest.fixture
def project(tmp_path: Path, emulator: Emulator, python: ForkServer) -> Project:
    return Project(tmp_path, emulator, python)


@pytest.fixture
def bare_project(tmp_path: Path, python: ForkServer) -> Project:
    """A project that no API was named to."""
    return Project(tmp_path, None, python)
