"""Fixtures of the core's tests. Nothing is mocked: there is a real HTTP server, real databases, real files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from batch_assets.core.open_root import open_root
from batch_assets.core.settings import Settings
from batch_assets.emulator import Emulator
from tests import quick_ledger as quick_ledger  # for its effect
from tests.receivers import Receiver, receiver

from .mariadb import MariadbServer, find_mariadb
from .noticing import PATH, SECRET
from .postgres import PostgresServer, find_server
from .support import World, as_new, environment

# Variables that a developer's shell may have and the tests must not see.
_VARIABLES = (
    "ANTHROPIC_ADMIN_KEY",
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "ANTHROPIC_BASE_URL",
    "ANTHROPIC_CUSTOM_HEADERS",
    "ANTHROPIC_LOG",
    "ANTHROPIC_PROFILE",
    "BATCH_ASSETS_EMULATOR",
    "BATCH_ASSETS_LEDGER",
    "BATCH_ASSETS_PARTITIONS_PER_RUN",
    "BATCH_ASSETS_PRICES",
    "BATCH_ASSETS_PROCESSES",
    "BATCH_ASSETS_RECONCILE_GRACE",
    "BATCH_ASSETS_ROOT",
    "BATCH_ASSETS_SHARED",
    "BATCH_ASSETS_STORAGE_OPTIONS",
    "BATCH_ASSETS_TRANSFERS",
    "BATCH_ASSETS_UI_URL",
)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def shared_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with Emulator(state=tmp_path_factory.mktemp("emulator")) as running:
        yield running
        assert running.errors() == ""


@pytest.fixture
def emulator(shared_emulator: Emulator) -> Emulator:
    """The module's emulator, reset to its initial state."""
    return as_new(shared_emulator)


@pytest.fixture
def new_world(emulator: Emulator, tmp_path: Path) -> Iterator[Callable[..., World]]:
    """A function that makes worlds: `new_world(ledger=…, name=…, BATCH_ASSETS_…=…)`.

    By default files are uploaded one at a time, so a fault for the next call affects the first file.
    """
    made: list[World] = []

    def make(*, ledger: str | None = None, name: str = "output", **more: str) -> World:
        variables = {"BATCH_ASSETS_TRANSFERS": "1"} | more
        settings = Settings.from_env(environment(emulator.url, tmp_path / name, ledger, **variables))
        made.append(World(emulator, tmp_path, open_root(settings)))
        return made[-1]

    yield make
    for world in made:
        world.root.close()


@pytest.fixture
def prompt_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK repeats reads as often as always, but without the seconds that it sleeps in between."""
    monkeypatch.setattr("anthropic._base_client.INITIAL_RETRY_DELAY", 0.001)


@pytest.fixture
def world(new_world: Callable[..., World]) -> World:
    """A world with a root of its own, on SQLite."""
    return new_world()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    programs, problem = find_server()
    if programs is None:
        pytest.skip(f"NO POSTGRESQL: {problem}")
    with PostgresServer(programs) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariadbServer]:
    programs, problem = find_mariadb()
    if programs is None:
        pytest.skip(f"NO MARIADB: {problem}")
    with MariadbServer(programs) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a new, empty ledger on each kind of database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/a ledger.db"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.new_database()


@pytest.fixture(params=["sqlite", "postgresql", "duckdb", "mariadb"])
def sink_url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a new database of each kind, which is also in the environment variable WAREHOUSE_URL."""
    if request.param in ("postgresql", "mariadb"):
        server = request.getfixturevalue("postgres_server" if request.param == "postgresql" else "mariadb_server")
        new_url: str = server.new_database()
    else:
        new_url = f"{request.param}:///{tmp_path}/warehouse.db"
    monkeypatch.setenv("WAREHOUSE_URL", new_url)
    return new_url


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """A server that receives the notices sent to a webhook."""
    with receiver() as running:
        monkeypatch.setenv("HOOK_URL", running.url + PATH)
        monkeypatch.setenv("HOOK_SECRET", SECRET)
        yield running
