"""The bench for the tests of this folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # the module name of the zygote, no matter who starts pytest

from tests.chaos.bench import Bench


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """An emulator, and a process that forks the ones to be killed."""
    with Bench(tmp_path_factory.mktemp("bench")) as opened:
        yield opened
