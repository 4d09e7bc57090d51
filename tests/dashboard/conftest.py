"""The emulator that the tests of the dashboard share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from batch_assets.emulator import Emulator


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with Emulator(state=tmp_path_factory.mktemp("emulator")) as running:
        yield running
