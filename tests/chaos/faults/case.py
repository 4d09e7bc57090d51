"""A fault of the campaign: a line of the table, a position, and a trial that it affects."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import orjson

from tests.chaos.bench import Bench, Rules
from tests.chaos.judge import Verdict
from tests.chaos.trial import Trial
from tests.core.support import BATCHES, params

RETRIEVE = {"method": "GET", "path": f"{BATCHES}/msgbatch_{'?' * 24}"}
# Both ways of polling batches.
LOOKS = {"method": "GET", "path": f"{BATCHES}*"}

Tried = tuple[Verdict, int]
"""The verdict, and how often the fault struck."""


@dataclass(frozen=True)
class Case:
    """One fault at one position.

    Attributes:
        fault: The line of the table.
        where: Its position, as text.
        trial: Runs the trial.
    """

    fault: str
    where: str
    trial: Callable[[Bench], Tried]


def run_case(bench: Bench, case: Case) -> tuple[Verdict, str, int]:
    """Run a trial and return the verdict, the fault's position, and how often it struck."""
    verdict, struck = case.trial(bench)
    return verdict, case.where, struck


def rule(call: Mapping[str, Any], action: Mapping[str, Any], **which: Any) -> dict[str, Any]:
    """A rule of the emulator: which calls go wrong, and how."""
    return {"match": {**call, **which}, "action": action}


def error(kind: str, message: str, **more: Any) -> dict[str, Any]:
    """The body of an error, as the API formats it."""
    return {"type": "error", "error": {"type": kind, "message": message, **more}}


def through(
    rules: Rules, stage: str = "requests", grace: float = 0.0, *, one_by_one: bool = False, **judged: Any
) -> Callable[[Bench], Tried]:
    """A trial from a stage to the end while rules are in force. The hits of the first rule count.

    Args:
        one_by_one: Upload one file at a time, so that calls come in the order of the files.
        judged: See `Trial.verdict`.
    """

    def trial(bench: Bench) -> Tried:
        prepared = bench.prepared(stage)
        with bench.trial(prepared, grace, one_by_one=one_by_one) as trial, bench.faults(rules) as struck:
            verdict = trial.finish(from_dataset=stage == "requests", **judged)
            return verdict, struck()

    return trial


def key_of(custom_id: str) -> str:
    """The row key of a request of the campaign's datasets."""
    return custom_id[:-30]


def digest_of(custom_id: str) -> str:
    return custom_id[-22:]


def submit_as_someone_else(bench: Bench, trial: Trial, count: int) -> None:
    """Submit a batch with a number of requests to the trial's workspace, as someone else."""
    requests = [{"custom_id": f"theirs-{number}", "params": params("theirs")} for number in range(count)]
    trial.foreign.append(post(bench, trial, json.dumps({"requests": requests}).encode()))


def post(bench: Bench, trial: Trial, body: bytes) -> str:
    """Submit a batch behind the ledger's back, and return its id."""
    # The API also accepts the path with a slash at its end, which rules that match creates do not.
    return str(orjson.loads(call(f"{bench.emulator.url}{BATCHES}/", trial.key, body))["id"])


def result_lines(bench: Bench, trial: Trial, batch_id: str) -> list[dict[str, Any]]:
    """The result lines of a batch, as anyone with the key gets them now, without lines that are not JSON."""
    content = call(f"{bench.emulator.url}{BATCHES}/{batch_id}/results", trial.key)
    lines = []
    for line in content.split(b"\n"):
        with suppress(orjson.JSONDecodeError):
            lines.append(orjson.loads(line))
    return lines


def failed_in(bench: Bench, trial: Trial) -> set[str]:
    """The digests of the trial's requests that never succeeded."""
    return {
        digest_of(line["custom_id"])
        for batch_id in ended(bench, trial)
        for line in result_lines(bench, trial, batch_id)
        if line["result"]["type"] != "succeeded"
    }


def ended(bench: Bench, trial: Trial) -> list[str]:
    """End the trial's batches now, and return their ids."""
    ids = list(trial.batches())
    bench.emulator.end_batches(*ids)
    return ids


def call(url: str, key: str, body: bytes | None = None) -> bytes:
    """Call the API as someone else with this key; with a body, it is a POST."""
    headers = {"x-api-key": key, "anthropic-version": "2023-06-01", "content-type": "application/json"}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, body, headers)) as response:
        return bytes(response.read())
