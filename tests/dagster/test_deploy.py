"""The deployment of docs/deploy.md: PostgreSQL for Dagster and ledger, and a process for every program."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
import sqlalchemy as sa
from dagster_deployment import Deployment

from batch_assets.emulator import Emulator
from tests.core.postgres import PostgresServer
from tests.documentation import page

REPOSITORY = Path(__file__).parents[2]
PATIENCE = 240.0
_STOP_SECONDS = 15.0


class SeparateProcesses(Deployment):
    """Code server, webserver and daemon as the page starts them.

    Args:
        storage: URL of the database for Dagster's own records.
        ledger: URL of the ledger. Only the code server, which starts the runs, gets this and the API.
    """

    def __init__(self, home: Path, emulator: str, storage: str, ledger: str) -> None:
        super().__init__(REPOSITORY, home, emulator)
        self._storage, self._ledger = storage, ledger
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> SeparateProcesses:
        instance, code_port = self.home / "dagster", _free_port()
        instance.mkdir()
        (storage,) = (block.text for block in page("docs/deploy.md").blocks() if "postgres_url:" in block.text)
        (instance / "dagster.yaml").write_text((REPOSITORY / "dagster.yaml").read_text() + storage)
        workspace = self.home / "workspace.yaml"
        server = f"{{host: 127.0.0.1, port: {code_port}, location_name: batch_assets}}"
        workspace.write_text(f"load_from:\n  - grpc_server: {server}\n")
        env = {name: value for name, value in os.environ.items() if not name.startswith(("ANTHROPIC_", "BATCH_"))}
        env |= {"DAGSTER_HOME": str(instance), "DAGSTER_POSTGRES_URL": self._storage}
        of_code = {
            "BATCH_ASSETS_ROOT": str(self.root),
            "BATCH_ASSETS_LEDGER": self._ledger,
            "BATCH_ASSETS_EMULATOR": self._emulator,
        }
        code = ["dagster", "code-server", "start", "-m", "batch_assets.definitions"]
        self._start([*code, "--location-name", "batch_assets", "-p", str(code_port)], env | of_code)
        self.wait(lambda: _answers(code_port), PATIENCE)
        self._start(["dagster._daemon", "run", "-w", str(workspace)], env)
        self._start(["dagster_webserver", "-p", str(self.port), "-w", str(workspace)], env)
        self.wait(self._is_loaded, PATIENCE)
        return self

    def _start(self, command: list[str], env: dict[str, str]) -> None:
        with (self.home / "dagster.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=self.project,
                env=env,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started.append(self._process)

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._started):
            process.send_signal(signal.SIGINT)
        for process in self._started:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_SECONDS)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # a session of its own, so no other process is killed
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@pytest.mark.timeout(900)
def test_separate_processes_on_postgresql(storage_server: PostgresServer, tmp_path: Path) -> None:
    storage, ledger = storage_server.new_database(), storage_server.new_database()
    with Emulator(latency=4.0) as api, SeparateProcesses(tmp_path, api.url, storage, ledger) as deployed:
        run = deployed.launch(*(["review_triage", stage] for stage in ("requests", "batches", "results")))
        (result, *_) = deployed.wait(
            lambda: deployed.events("Materializations", "review_triage", "results"), PATIENCE
        )
        assert deployed.status(run) == "SUCCESS", deployed.log()[-4000:]
        assert result["batch_assets/succeeded"] == 238
        assert len(api.log()) == 1
    table = pd.read_parquet(deployed.root / "review_triage" / "results")
    assert table["result_type"].value_counts().to_dict() == {"succeeded": 238, "rejected": 2}
    assert not list(tmp_path.rglob("*.db")), "nothing is kept in SQLite"
    for url, counted in ((storage, "runs"), (ledger, "batch")):
        engine = sa.create_engine(url)
        with engine.connect() as connection:
            assert connection.execute(sa.text(f"select count(*) from {counted}")).scalar_one() >= 1
        engine.dispose()
