"""`dagster dev` as a process, and queries to its GraphQL API."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

_READY_SECONDS = 240.0
_FORKED_RUNS = (str(Path(__file__).with_name("forked_runs")), str(Path(__file__).parents[2]))
_LOCATION = {"repositoryName": "__repository__", "repositoryLocationName": "batch_assets"}

_LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchPipelineExecution(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on InvalidSubsetError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""
_BACKFILL = """
mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message }
} }
"""
_PROGRESS = """
query($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill {
  status error { message } assetBackfillData { assetBackfillStatuses { ... on AssetPartitionsStatusCounts {
    assetKey { path } numPartitionsTargeted numPartitionsMaterialized numPartitionsFailed
  } } }
} } }
"""
_PARTITIONS = """
query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
  latestMaterializationByPartition { partition } partitionStats { numFailed }
} } }
"""
_ASSET = """
query Asset($key: AssetKeyInput!) {
  assetOrError(assetKey: $key) {
    ... on Asset {
      assetMaterializations(limit: 20) {
        runId
        metadataEntries { label ... on IntMetadataEntry { intValue } ... on MarkdownMetadataEntry { mdStr } }
      }
      assetObservations(limit: 20) {
        runId
        metadataEntries { label ... on IntMetadataEntry { intValue } }
      }
    }
  }
}
"""
_RUNS = "{ runsOrError(limit: 50) { ... on Runs { results { runId status tags { key value } } } } }"
_CHECKS = """
query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode { assetChecksOrError {
  ... on AssetChecks { checks { name executionForLatestMaterialization { status } } } } } } }
"""
_LOCATIONS = """
{ workspaceOrError { ... on Workspace { locationEntries {
  loadStatus locationOrLoadError { __typename ... on PythonError { message } }
} } } }
"""


class Deployment:
    """Webserver, daemon and code server of a project, as `dagster dev` starts them.

    Args:
        project: The folder of workspace.yaml and dagster.yaml.
        home: An empty folder. It becomes DAGSTER_HOME and holds the root and the log.
    """

    def __init__(self, project: Path, home: Path, emulator: str) -> None:
        self.project, self.home = project, home
        self.root = home / "root"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._emulator = emulator
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Deployment:
        (self.home / "dagster").mkdir()
        shutil.copy(self.project / "dagster.yaml", self.home / "dagster")
        env = {name: value for name, value in os.environ.items() if not name.startswith("ANTHROPIC_")}
        env |= {
            "DAGSTER_HOME": str(self.home / "dagster"),
            "BATCH_ASSETS_ROOT": str(self.root),
            "BATCH_ASSETS_EMULATOR": self._emulator,
            "PYTHONPATH": os.pathsep.join(filter(None, [*_FORKED_RUNS, os.environ.get("PYTHONPATH")])),
        }
        with (self.home / "dagster.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "dagster", "dev", "-h", "127.0.0.1", "-p", str(self.port)],
                cwd=self.project,
                env=env,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self.wait(self._is_loaded, _READY_SECONDS)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGINT)  # like Ctrl-C: it stops its children in order
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # a session of its own, so no other process is killed
            process.wait()

    def log(self) -> str:
        return (self.home / "dagster.log").read_text(errors="replace")

    def query(self, text: str, **variables: Any) -> Any:
        body = json.dumps({"query": text, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"content-type": "application/json"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=120) as response:
            answer = json.load(response)
        assert "errors" not in answer, answer["errors"]
        return answer["data"]

    def launch(self, *keys: list[str]) -> str:
        """Launch a run that materializes assets, like the UI, and return its id."""
        params = {
            "selector": {
                **_LOCATION,
                "pipelineName": "__ASSET_JOB",
                "assetSelection": [{"path": k} for k in keys],
            },
            "mode": "default",
            "runConfigData": {},
        }
        launched = self.query(_LAUNCH, params=params)["launchPipelineExecution"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return str(launched["run"]["runId"])

    def backfill(self, partitions: list[str], *keys: list[str]) -> str:
        """Launch a backfill as *Materialize all* does in the UI, and return its id."""
        params = {"assetSelection": [{"path": key} for key in keys], "partitionNames": partitions, "tags": []}
        launched = self.query(_BACKFILL, params=params)["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        return str(launched["backfillId"])

    def backfill_error(self, backfill_id: str) -> str | None:
        """The text that the page of a backfill shows with *View error*."""
        error = self.query(_PROGRESS, id=backfill_id)["partitionBackfillOrError"]["error"]
        return None if error is None else str(error["message"])

    def backfill_progress(self, backfill_id: str) -> tuple[str, dict[str, tuple[int, int, int]]]:
        """The status of a backfill, and by stage how many partitions it has, succeeded and failed."""
        progress = self.query(_PROGRESS, id=backfill_id)["partitionBackfillOrError"]
        stages = {
            entry["assetKey"]["path"][-1]: (
                entry["numPartitionsTargeted"],
                entry["numPartitionsMaterialized"],
                entry["numPartitionsFailed"],
            )
            for entry in progress["assetBackfillData"]["assetBackfillStatuses"]
        }
        return str(progress["status"]), stages

    def partitions(self, *key: str) -> tuple[list[str], int]:
        """The materialized partitions of an asset in order, and the number of failed ones."""
        node = self.query(_PARTITIONS, key={"path": list(key)})["assetNodeOrError"]
        newest = [event["partition"] for event in node["latestMaterializationByPartition"] if event]
        return sorted(newest), int(node["partitionStats"]["numFailed"])

    def runs(self) -> list[dict[str, Any]]:
        return list(self.query(_RUNS)["runsOrError"]["results"])

    def status(self, run_id: str) -> str:
        return str(next(run["status"] for run in self.runs() if run["runId"] == run_id))

    def events(self, kind: str, *key: str) -> list[dict[str, Any]]:
        """Materializations or observations of an asset, newest first: metadata by label."""
        asset = self.query(_ASSET, key={"path": list(key)})["assetOrError"]
        return [
            {
                "runId": event["runId"],
                **{
                    entry["label"]: entry.get("intValue", entry.get("mdStr")) for entry in event["metadataEntries"]
                },
            }
            for event in asset.get(f"asset{kind}", [])
        ]

    def checks(self, *key: str) -> dict[str, str]:
        """The status of each check of an asset for its newest materialization, by name."""
        asset_checks = self.query(_CHECKS, key={"path": list(key)})["assetNodeOrError"]["assetChecksOrError"][
            "checks"
        ]
        runs = {check["name"]: check["executionForLatestMaterialization"] for check in asset_checks}
        return {name: run["status"] for name, run in runs.items() if run is not None}

    def wait(self, condition: Callable[[], Any], seconds: float) -> Any:
        """Repeat until the condition holds. Fail with the end of the log."""
        deadline = time.monotonic() + seconds
        while not (result := condition()):
            assert time.monotonic() < deadline, f"not within {seconds} s; the log ends:\n{self.log()[-4000:]}"
            assert self._process is not None and self._process.poll() is None, self.log()[-4000:]
            time.sleep(0.5)
        return result

    def _is_loaded(self) -> bool:
        try:
            entries = self.query(_LOCATIONS)["workspaceOrError"]["locationEntries"]
        except (urllib.error.URLError, OSError):
            return False
        for entry in entries:
            problem = (entry["locationOrLoadError"] or {}).get("message")
            assert problem is None, problem
        return bool(entries) and all(entry["loadStatus"] == "LOADED" for entry in entries)
