"""A small pipeline, a real emulator, and one real Dagster deployment shared by the slow tests."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster_deployment import Deployment

from batch_assets import build_message_batch_assets
from batch_assets.emulator import Emulator
from tests import quick_dagster as quick_dagster  # for its effect
from tests import quick_ledger as quick_ledger
from tests.core.postgres import PostgresServer, find_server
from tests.projects import Project, importable

REPOSITORY = Path(__file__).parents[2]


class SharedEmulator(Emulator):
    """One server for the tests of a module. Each test sees only what was sent since it began."""

    def begin(self) -> None:
        """Reset to the initial state: it runs, without faults, and its batches end when the test ends them."""
        try:
            _ = self.pid
        except RuntimeError:  # the last test stopped it
            self.start()
        self.reset_faults()
        self.settings(latency=3600.0)
        self._accepted, self._calls = len(super().log()), Counter(super().requests())

    def log(self, *, custom_ids: bool = False) -> list[dict[str, Any]]:
        return super().log(custom_ids=custom_ids)[self._accepted :]

    def requests(self) -> dict[str, int]:
        return dict(Counter(super().requests()) - self._calls)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep tests from seeing a real key or a real root."""
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL", "BATCH_ASSETS_LEDGER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BATCH_ASSETS_ROOT", str(tmp_path / "root"))
    monkeypatch.delenv("BATCH_ASSETS_EMULATOR", raising=False)


@pytest.fixture(scope="module")
def shared_emulator() -> Iterator[SharedEmulator]:
    with SharedEmulator() as running:
        yield running


@pytest.fixture
def emulator(shared_emulator: SharedEmulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """The module's emulator, reset to its initial state. Its batches end when the test ends them."""
    shared_emulator.begin()
    monkeypatch.setenv("BATCH_ASSETS_EMULATOR", shared_emulator.url)
    return shared_emulator


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as opened:
        yield opened


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("home"))) as opened:
        yield opened


@pytest.fixture
def kept(home: dg.DagsterInstance) -> Iterator[dg.DagsterInstance]:
    """An instance that another process can open, like the daemon's: dynamic partitions need this."""
    yield home
    for key in home.get_dynamic_partitions("greetings"):
        home.delete_dynamic_partition("greetings", key)


@pytest.fixture(scope="module")
def storage_server() -> Iterator[PostgresServer]:
    """A server for Dagster's own records."""
    programs, why = find_server()
    if programs is not None and importlib.util.find_spec("dagster_postgres") is None:
        programs, why = None, "the package dagster-postgres is not installed"
    if programs is None:
        pytest.skip(f"NO POSTGRESQL: {why}")
    with PostgresServer(programs) as running:
        yield running


@pytest.fixture
def make_assets(tmp_path: Path) -> Callable[..., list[dg.AssetsDefinition]]:
    """A function that makes the assets of a pipeline over a few rows, one of which is rejected."""

    def make(name: str = "greetings", rows: int = 4, **fields: object) -> list[dg.AssetsDefinition]:
        dataset = tmp_path / f"{name}.csv"
        lines = [f'{number},"hello {name} {number}"' for number in range(rows)]
        dataset.write_text("\n".join(["id,text", *lines, '99,""']) + "\n")
        defaults = {
            "name": name,
            "dataset": {"path": dataset.name, "key": "id"},
            "params": {
                "model": "claude-haiku-5-5",
                "max_tokens": 50,
                "messages": [{"role": "user", "content": "{{ text }}"}],
            },
            "folder": tmp_path,
            "project": tmp_path,
        }
        return build_message_batch_assets(**(defaults | fields))  # type: ignore[arg-type]

    return make


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    made = Project(tmp_path)
    with importable(made, monkeypatch):
        yield made


@pytest.fixture(scope="module")
def patient_emulator() -> Iterator[Emulator]:
    """The emulator of the deployment. Its batches end when a test ends them."""
    with Emulator(latency=3600.0) as running:
        yield running


@pytest.fixture(scope="module")
def deployment(patient_emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Webserver, daemon and code server over this repository."""
    home = tmp_path_factory.mktemp("deployment")
    with Deployment(REPOSITORY, home, patient_emulator.url) as deployed:
        yield deployed
