"""Kills of the Dagster daemon, the code server and run workers. The answers must come without further action."""

from __future__ import annotations

import json
import os
import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq

from batch_assets.core.open_root import open_root
from batch_assets.core.settings import Settings
from batch_assets.core.spend.build import build_spend
from batch_assets.emulator import Emulator
from tests.chaos.auditor import audit
from tests.chaos.judge import Accepted, Verdict, accepted_by, judge
from tests.core.support import environment, params, texts, write_rows
from tests.dagster.dagster_deployment import Deployment

REPOSITORY = Path(__file__).parents[2]
TIMES = 3
"""Each of them is killed this often."""
_ROWS, _LATENCY = 6, 3.0
_STAGES = ("requests", "batches", "results")
# A killed run keeps its slot in the pool until run monitoring frees it. The shipped settings wait for five
# minutes, and check every two.
_QUICKER = {
    "free_slots_after_run_end_seconds: 300": "free_slots_after_run_end_seconds: 5\n  poll_interval_seconds: 5"
}
_PID = re.compile(r"\(pid: (\d+)\)")
_LOGS = """
query Logs($run: ID!) { logsForRun(runId: $run) {
  ... on EventConnection { events { ... on MessageEvent { message } } }
} }
"""
_PROJECT = """
import json
from pathlib import Path

import dagster as dg

from batch_assets import build_message_batch_assets, build_message_batch_sensor

here = Path(__file__).parent
assets = [
    asset
    for given in json.loads((here / "pipelines.json").read_text())
    for asset in build_message_batch_assets(**given, folder=here, project=here)
]
sensors = [build_message_batch_sensor()]
defs = dg.Definitions(assets=assets, sensors=sensors, executor=dg.in_process_executor)
"""

Outcome = tuple[Verdict, str, int]
Struck = tuple[str, int]
"""When it was killed, and 1, or 0 when there was nothing left to kill."""


class Services(Deployment):
    """Webserver, daemon and code server as three processes. The caller restarts them, like an init system.

    Args:
        home: Empty; it gets the project, DAGSTER_HOME, the root and the log.
        names: The names of the pipelines.
    """

    def __init__(self, home: Path, emulator: str, names: list[str]) -> None:
        super().__init__(home / "project", home, emulator)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._grpc = str(probe.getsockname()[1])
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._names = names

    def __enter__(self) -> Services:
        (self.home / "dagster").mkdir()
        self.project.mkdir()
        settings = (REPOSITORY / "dagster.yaml").read_text()
        for shipped, quicker in _QUICKER.items():
            assert shipped in settings
            settings = settings.replace(shipped, quicker)
        (self.home / "dagster" / "dagster.yaml").write_text(settings)
        (self.project / "definitions.py").write_text(_PROJECT)
        (self.project / "pipelines.json").write_text(json.dumps([self._pipeline(name) for name in self._names]))
        server = {"host": "127.0.0.1", "port": int(self._grpc), "location_name": "batch_assets"}
        (self.project / "workspace.yaml").write_text(json.dumps({"load_from": [{"grpc_server": server}]}))
        try:
            self.start("code server")
            self.start("daemon")
            self._process = self.start("webserver")
            self.wait(lambda: _quietly(self._is_loaded), 240)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process = None
        for process in self._running.values():
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
            process.wait()
        self._running.clear()

    def _pipeline(self, name: str) -> dict[str, Any]:
        rows = texts(_ROWS, name)
        write_rows(self.project / f"{name}.jsonl", rows)
        return {
            "name": name,
            "dataset": {"path": f"{name}.jsonl", "key": "id"},
            "params": params(),
            "batching": {"max_requests": 1},
        }

    def start(self, service: str) -> subprocess.Popen[bytes]:
        """Start one of the three processes."""
        code = ["code-server", "start", "-h", "127.0.0.1", "-p", self._grpc, "-f", "definitions.py"]
        command = {
            "code server": ["-m", "dagster", *code, "--location-name", "batch_assets"],
            "daemon": ["-m", "dagster._daemon", "run", "-w", "workspace.yaml"],
            "webserver": [
                "-m",
                "dagster_webserver",
                "-h",
                "127.0.0.1",
                "-p",
                str(self.port),
                "-w",
                "workspace.yaml",
            ],
        }[service]
        env = {name: value for name, value in os.environ.items() if not name.startswith("ANTHROPIC_")}
        env |= {
            "DAGSTER_HOME": str(self.home / "dagster"),
            "BATCH_ASSETS_ROOT": str(self.root),
            "BATCH_ASSETS_EMULATOR": self._emulator,
            "BATCH_ASSETS_RECONCILE_GRACE": "5",
            "BATCH_ASSETS_LEASE_SECONDS": "5",
            "PYTHONPATH": str(REPOSITORY),
        }
        with (self.home / "dagster.log").open("ab") as log:
            self._running[service] = subprocess.Popen(
                [sys.executable, *command],
                cwd=self.project,
                env=env,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
        return self._running[service]

    def kill(self, service: str) -> None:
        """Kill one of the three. The code server is two processes, without the run workers that it started."""
        server = self._running.pop(service)
        own = psutil.Process(server.pid).children()
        victims = [child for child in own if "grpc" in child.cmdline()] if service == "code server" else []
        for victim in victims:
            victim.kill()
        server.kill()
        server.wait()

    def worker_of(self, run: str) -> psutil.Process | None:
        """The process that works on a run, or None."""
        events = self.query(_LOGS, run=run)["logsForRun"].get("events", [])
        pids = {int(pid) for event in events for pid in _PID.findall(event.get("message") or "")}
        own = psutil.Process(self._running["code server"].pid).children(recursive=True)
        return next((process for process in own if process.pid in pids), None)

    def launch_pipeline(self, name: str) -> str:
        return self.launch(*[[name, stage] for stage in _STAGES])

    def table(self, name: str) -> Path:
        return self.root / name / "results" / "results.parquet"

    def is_complete(self, name: str) -> bool:
        """Whether the materialization of the whole table was logged."""
        return bool(self.events("Materializations", name, "results"))


def run_deployment_kills(folder: Path, times: int = TIMES, seed: int = 1) -> Iterator[tuple[str, Outcome]]:
    """Kill each of the three, each time in the middle of another pipeline, and wait for all answers.

    Args:
        folder: Must not exist yet.
    """
    folder.mkdir(parents=True)
    kinds = {"run worker": _kill_worker, "daemon": _kill_daemon, "code server": _kill_code_server}
    plan = [(kind, f"asked_{kind.replace(' ', '_')}_{n}") for n in range(times) for kind in kinds]
    names = [name for _, name in plan]
    chosen = random.Random(seed)
    with (
        Emulator(latency=_LATENCY, state=folder / "emulator") as emulator,
        Services(folder, emulator.url, names) as services,
    ):
        struck = {}
        for kind, name in plan:
            run = _launched(services, partial(services.launch_pipeline, name))
            # Before a run of `batches` has begun, nothing may be sent without a user.
            services.wait(partial(_accepted, emulator, name), 300)
            struck[name] = kinds[kind](services, run, chosen)
            print(f"killing the {kind}: {struck[name][0]}", file=sys.stderr, flush=True)
        for name in names:
            _wait_for_answers(services, name)
        verdicts = _judged_twice(services, emulator, names)
    for kind, name in plan:
        yield f"kill -9 of the {kind}", (verdicts[name], *struck[name])


def _launched(services: Services, launch: Callable[[], str]) -> str:
    """Launch a run as soon as the webserver can reach the code server again."""
    run: str = services.wait(lambda: _quietly(launch), 120)
    return run


def _kill_worker(services: Services, run: str, chosen: random.Random) -> Struck:
    worker = services.worker_of(run)
    time.sleep(after := chosen.uniform(0, 0.2))
    if worker is None or not worker.is_running():
        return "it was done already", 0
    worker.kill()
    return f"{after:.2f} s after its first batch", 1


def _kill_daemon(services: Services, run: str, chosen: random.Random) -> Struck:
    return _restarted(services, "daemon", chosen)


def _kill_code_server(services: Services, run: str, chosen: random.Random) -> Struck:
    return _restarted(services, "code server", chosen)


def _restarted(services: Services, service: str, chosen: random.Random) -> Struck:
    time.sleep(after := chosen.uniform(0, 2 * _LATENCY))
    services.kill(service)
    time.sleep(1.0)
    services.start(service)
    return f"{after:.1f} s after the first batch", 1


def _accepted(emulator: Emulator, name: str) -> dict[str, list[str]]:
    """The batches of a pipeline: its row keys begin with its name, and so do its custom_ids."""
    everything = accepted_by(emulator, "default")
    return {batch: ids for batch, ids in everything.items() if ids[0].startswith(f"{name}-")}


def _wait_for_answers(services: Services, name: str) -> None:
    services.wait(lambda: _quietly(lambda: services.is_complete(name)), 400)


def _quietly(ask: Callable[[], Any]) -> Any:
    """Return an answer, or None while a service is down."""
    try:
        return ask()
    except (AssertionError, OSError):
        return None


def _judged_twice(services: Services, emulator: Emulator, names: list[str]) -> dict[str, Verdict]:
    """Judge, materialize everything once more, and judge again: nothing may have changed."""
    before: dict[str, Accepted] = {name: _accepted(emulator, name) for name in names}
    tables = {name: pq.read_table(services.table(name)) for name in names}
    everything = [[name, stage] for name in names for stage in _STAGES]
    run = _launched(services, lambda: services.launch(*everything))
    services.wait(lambda: services.status(run) in ("SUCCESS", "FAILURE", "CANCELED"), 240)
    with open_root(Settings.from_env(environment(emulator.url, services.root))) as root:
        build_spend(root)
    verdicts = {}
    for name in names:
        rows = texts(_ROWS, name)
        verdicts[name] = verdict = judge(services.root, name, rows, _accepted(emulator, name))
        verdict.audit = audit(services.root, emulator, _accepted(emulator, name))
        if services.status(run) != "SUCCESS":
            verdict.problems.append("the rerun failed")
        if not pq.read_table(services.table(name)).equals(tables[name]) or before[name] != _accepted(
            emulator, name
        ):
            verdict.problems.append("a rerun changed something")
    return verdicts
