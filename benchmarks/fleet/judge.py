"""What a trial came to, seen from outside: the API's own log, the tables, and the calls of each worker."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import unquote

import pyarrow.parquet as pq

from batch_assets.emulator import text_digest
from benchmarks.fleet.definitions import PIPELINE
from benchmarks.fleet.machines import ROOT, Machines
from benchmarks.workload import USER_TEMPLATE
from tests.chaos.judge import accepted_by

_DIGEST_CHARACTERS = 22
# What each stage writes last for a partition.
_WRITTEN = {
    "requests": re.compile(r"requests/partition=([^/]+)/[^/]+/manifest\.json$"),
    "batches": re.compile(r"requests/partition=([^/]+)/[^/]+/[^/]+\.batch\.json$"),
    "results": re.compile(r"results/partition=([^/]+)/results\.parquet$"),
}


@dataclass
class Work:
    """What the workers did.

    Attributes:
        calls: The calls of each worker to the object store and the API.
        partitions: By stage: how many partitions each worker wrote.
        others: The calls of all other processes.
    """

    calls: Counter[str] = field(default_factory=Counter)
    partitions: dict[str, Counter[str]] = field(default_factory=dict)
    others: int = 0

    def shares(self) -> dict[str, float]:
        """Return the least share that a worker had of the calls, and of the partitions over all stages."""
        partitions: Counter[str] = sum(self.partitions.values(), Counter())
        return {
            what: min(counts[worker] for worker in self.calls) / max(counts.total(), 1)
            for what, counts in (("calls", self.calls), ("partitions", partitions))
        }


def work_of(machines: Machines) -> Work:
    """Count who made the calls, and who wrote what each stage writes of a partition."""
    workers = {machines.address(worker): worker for worker in machines.workers()}
    work = Work(Counter(dict.fromkeys(workers.values(), 0)))
    writers: dict[str, dict[str, str]] = {stage: {} for stage in _WRITTEN}
    for call in [*machines.store.calls, *machines.api.calls]:
        worker = workers.get(call.caller)
        if worker is None:
            work.others += 1
            continue
        work.calls[worker] += 1
        for stage, pattern in _WRITTEN.items():
            if call.method in ("PUT", "POST") and (match := pattern.search(unquote(call.path))):
                writers[stage][match[1]] = worker
    work.partitions = {stage: Counter(by_key.values()) for stage, by_key in writers.items()}
    return work


def problems_of(machines: Machines) -> list[str]:
    """Return everything that was lost or sent twice, as text."""
    accepted = [id_ for ids in accepted_by(machines.emulator, "default").values() for id_ in ids]
    digests = Counter(id_[-_DIGEST_CHARACTERS:] for id_ in accepted)
    twice = [digest for digest, times in digests.items() if times > 1]
    wanted = sum(len(machines.row_texts(key)) for key in machines.keys)
    problems = []
    if twice or len(accepted) != wanted:
        problems.append(f"{len(accepted):,} of {wanted:,} requests were accepted, {len(twice):,} more than once")
    files = machines.files()
    for key in machines.keys:
        path = f"{ROOT}/{PIPELINE}/results/partition={key}/results.parquet"
        if not files.exists(path):
            problems.append(f"{key} has no table")
            continue
        with files.open(path, "rb") as file:
            table = pq.read_table(file, columns=["id", "result_type", "response_text"]).to_pydict()
        texts = machines.row_texts(key)
        answers = {
            id_: f" {text_digest(USER_TEMPLATE.replace('{{ text }}', text))}:" for id_, text in texts.items()
        }
        is_whole = table["id"] == list(texts) and set(table["result_type"]) == {"succeeded"}
        if not is_whole or not all(answers[id_] in text for id_, text in zip(*_of(table), strict=True)):
            problems.append(f"the table of {key} has not each row once with its own answer")
    return problems


def _of(table: dict[str, list[str]]) -> tuple[list[str], list[str]]:
    return table["id"], table["response_text"]
