"""The machines of the trial: all services of deploy/compose.yaml, each in a network namespace of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import fsspec
import psutil
import sqlalchemy as sa

from batch_assets.core.ledger import tables
from batch_assets.emulator import Emulator
from benchmarks.fleet.calls import SlowServer
from benchmarks.fleet.definitions import DATASET, PARTITIONS_VARIABLE, PIPELINE, STAGES, partition_keys
from deploy.networks import Namespaces
from deploy.run_processes import Deployment

ROOT = "s3://batch-assets/root"
DELAY_SECONDS = 0.2
_LATENCY_SECONDS = 5.0
_READY_SECONDS, _PAUSE_SECONDS = 300.0, 1.0
_S3_PORT, _WEB_PORT = 9000, 3000
_DEFINITIONS = "benchmarks.fleet.definitions"
# As many as 200 partitions have with the default of 25 a run.
_RUNS_OF_A_BACKFILL = 8
# Dagster's own retries of the backfill's runs: of one that is killed before it sends, the ledger knows nothing.
_RETRIES = 10
# Run monitoring waits for minutes, so that a trial with 18 kills would take hours.
_SETTINGS = {
    "max_concurrent_runs: 4": "max_concurrent_runs: {slots}",
    "free_slots_after_run_end_seconds: 300": "free_slots_after_run_end_seconds: 5\n  poll_interval_seconds: 5",
}
_BACKFILL = """
mutation Backfill($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""
_LOCATIONS = """
{ workspaceOrError { ... on Workspace { locationEntries {
  loadStatus locationOrLoadError { __typename ... on PythonError { message } }
} } } }
"""
_RUNS = "{ runsOrError(limit: 1000) { ... on Runs { results { runId status } } } }"


class Machines:
    """A deployment with an object store and an API that are far away. Used as a context manager.

    Args:
        workers: The number of workers, each with one slot.
        partitions: The number of partitions of the pipeline.
        rows: The number of rows of each.

    Attributes:
        deployment: The processes.
        emulator: The API.
        store, api: What records the calls to the object store and to the API.
    """

    def __init__(self, workers: int, partitions: int, rows: int) -> None:
        self._workers, self._rows = workers, rows
        self.keys = partition_keys(partitions)
        self._stack = ExitStack()

    def __enter__(self) -> Machines:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="batch-assets-fleet-")))
            self.emulator = stack.enter_context(Emulator(latency=_LATENCY_SECONDS))
            self._network = Namespaces(os.getpid() % 256)
            stack.callback(self._network.close)
            self.store, self.api = (
                stack.enter_context(SlowServer(self._network.outside, DELAY_SECONDS)) for _ in range(2)
            )
            self.api.target = self.emulator.url.removeprefix("http://")
            self.deployment = stack.enter_context(self._deployment(folder))
            self._start()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _deployment(self, folder: Path) -> Deployment:
        """The services of compose.yaml with the pipeline of the trial, and its number of workers."""
        more = {
            "BATCH_ASSETS_EMULATOR": self.api.url,
            "AWS_ENDPOINT_URL": self.store.url,
            "AWS_EC2_METADATA_DISABLED": "true",
            PARTITIONS_VARIABLE: str(len(self.keys)),
            "BATCH_ASSETS_PARTITIONS_PER_RUN": str(max(len(self.keys) // _RUNS_OF_A_BACKFILL, 1)),
        }
        deployment = Deployment(folder, self._network, {"ANTHROPIC_API_KEY": "unused"}, more)
        code, worker = deployment.services["code"], deployment.services["worker"]
        command = tuple(_DEFINITIONS if word == "batch_assets.definitions" else word for word in code.command)
        deployment.services["code"] = replace(code, command=command)
        one_slot = (*worker.command[: worker.command.index("--concurrency")], "--concurrency", "1")
        deployment.services["worker"] = replace(worker, command=one_slot, replicas=self._workers)
        return deployment

    def _start(self) -> None:
        settings = self.deployment.home / "dagster.yaml"
        text = settings.read_text()
        for shipped, here in _SETTINGS.items():
            assert shipped in text, shipped
            text = text.replace(shipped, here.format(slots=self._workers))
        settings.write_text(text)
        self.deployment.start(["s3"])
        self.store.target = f"{self._network.address('s3')}:{_S3_PORT}"
        self._write_dataset()
        self.deployment.start([name for name in self.deployment.services if name != "s3"])
        self.wait(self._is_loaded, _READY_SECONDS, "the code location is loaded")

    def workers(self) -> list[str]:
        """Return the names of the workers' processes."""
        return [f"worker-{number + 1}" for number in range(self._workers)] if self._workers > 1 else ["worker"]

    def address(self, process: str) -> str:
        """Return the address from which a process calls."""
        return self._network.address(process)

    def row_texts(self, key: str) -> dict[str, str]:
        """Return the text of each row of a partition, by row key."""
        return {f"{key}-{number}": f"Message {number} of {key}." for number in range(self._rows)}

    def _write_dataset(self) -> None:
        self.wait(self._has_store, _READY_SECONDS, "the object store answers")
        files = self.files()
        files.makedirs(DATASET.removeprefix("s3://").partition("/")[0], exist_ok=True)
        for key in self.keys:
            lines = [json.dumps({"id": id_, "text": text}) for id_, text in self.row_texts(key).items()]
            files.pipe_file(f"{DATASET}/{key}.jsonl", "\n".join([*lines, ""]).encode())

    def _has_store(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((self.address("s3"), _S3_PORT)) == 0

    def files(self) -> Any:
        """Return the object store as a file system, without the delay and without a record of the calls."""
        environment = self.deployment.services["worker"].environment
        return fsspec.filesystem(
            "s3",
            key=environment["AWS_ACCESS_KEY_ID"],
            secret=environment["AWS_SECRET_ACCESS_KEY"],
            endpoint_url=f"http://{self.store.target}",
            use_listings_cache=False,
            skip_instance_cache=True,
        )

    def launch(self) -> None:
        """Start the backfill of all stages and partitions, as the UI does."""
        params = {
            "assetSelection": [{"path": [PIPELINE, stage]} for stage in STAGES],
            "partitionNames": self.keys,
            "tags": [{"key": "dagster/max_retries", "value": str(_RETRIES)}],
        }
        launched = self._query(_BACKFILL, params=params)["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched

    def final(self) -> int | None:
        """Return how many partitions have all their answers; None while the ledger cannot be reached."""
        url = sa.make_url(self.deployment.services["worker"].environment["BATCH_ASSETS_LEDGER"])
        engine = sa.create_engine(url.set(host=self.address("postgres")), poolclass=sa.NullPool)
        submission = tables.submission.c
        is_final = sa.and_(submission.final_at.is_not(None), submission.superseded_at.is_(None))
        try:
            with engine.connect() as connection:
                return int(connection.execute(sa.select(sa.func.count()).where(is_final)).scalar_one())
        except sa.exc.DBAPIError:
            return None

    def is_done(self) -> bool:
        """Return whether all partitions have all their answers."""
        return self.final() == len(self.keys)

    def runs(self) -> dict[str, int]:
        """Return the number of runs in each status."""
        statuses: Counter[str] = Counter()

        def is_read() -> bool:
            try:
                runs = self._query(_RUNS)["runsOrError"]["results"]
            except OSError:  # each of the webserver's connections that a kill of PostgreSQL cut fails once
                return False
            statuses.update(run["status"] for run in runs)
            return True

        self.wait(is_read, _READY_SECONDS, "the webserver says which runs there are")
        return dict(statuses)

    def wait(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Wait until a condition holds.

        Raises:
            RuntimeError: When it does not within the time.
        """
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise RuntimeError(f"not within {seconds:.0f} s: {what}")
            time.sleep(_PAUSE_SECONDS)

    def kill(self, process: str) -> None:
        """Kill a process and its children."""
        leader = self.deployment.processes[process]
        os.killpg(leader.pid, signal.SIGKILL)  # each has a session of its own
        leader.wait()

    def kill_pool_process(self, worker: str) -> None:
        """Kill the child of a worker that executes its runs."""
        for child in psutil.Process(self.deployment.processes[worker].pid).children():
            child.kill()

    def start_again(self, process: str) -> None:
        """Start a process that was killed, as an init system would."""
        name, _, number = process.rpartition("-")
        self.deployment.start_one(*((name, int(number)) if name else (process,)))

    def _query(self, text: str, **variables: Any) -> Any:
        body = json.dumps({"query": text, "variables": variables}).encode()
        url = f"http://{self.address('web')}:{_WEB_PORT}/graphql"
        request = urllib.request.Request(url, body, {"content-type": "application/json"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=120) as response:
            answer = json.load(response)
        assert "errors" not in answer, answer["errors"]
        return answer["data"]

    def _is_loaded(self) -> bool:
        try:
            entries = self._query(_LOCATIONS)["workspaceOrError"]["locationEntries"]
        except OSError:
            return False
        problems = [entry["locationOrLoadError"]["message"] for entry in entries if _has_failed(entry)]
        assert not problems, problems[0]
        return bool(entries) and all(entry["loadStatus"] == "LOADED" for entry in entries)


def _has_failed(entry: dict[str, Any]) -> bool:
    return (entry["locationOrLoadError"] or {}).get("__typename") == "PythonError"
