"""A ledger that is deleted at any moment: it is rebuilt from the files under the root."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from tests.chaos.bench import Bench, Rules
from tests.chaos.faults.case import Case, Tried, rule
from tests.core.support import CREATE, LIST

_AFTER = {
    "requests": "batches",
    "batches": "collection",
    "collection": "results",
    "results and a failed attempt": "retry",
}
"""Stages that are done -> the prepared root where they are."""
_KILLED = {
    "requests": (80, 110),
    "batches": (25, 35, 42, 44, 47, 51, 64, 90, 147),
    "retry": (34, 44, 51),
    "collection": (45, 70, 100),
    "results": (20,),
}


def cases() -> Iterator[Case]:
    for done, stage in _AFTER.items():
        for from_dataset in (False, True):
            where = f"after {done}, {'then a new run' if from_dataset else 'then unattended'}"
            yield Case("ledger lost", where, partial(_lost, stage=stage, from_dataset=from_dataset))
    for drop in ("after_commit", "before_commit"):
        for nth in (1, 2, 3):
            rules = [rule(CREATE, {"drop": drop}, nth=nth), rule(LIST, {"status": 500}, after=nth)]
            where = f"create {nth} is in doubt, {drop}"
            yield Case("ledger lost", where, partial(_lost, stage="batches", rules=rules))
    for pattern in ("manifest.json", "part-*.jsonl", "part-*.batch.json", "index.parquet", "*.parquet"):
        for stage in ("collection", "results"):
            if pattern != "*.parquet" or stage == "results":
                where = f"one {pattern} before {stage}"
                damaged = partial(_damaged, stage=stage, pattern=pattern)
                yield Case("ledger lost, and a file is damaged", where, damaged)
    for stage, positions in _KILLED.items():
        for at in positions:
            where = f"killed in {stage}, position {at}"
            yield Case("ledger lost, and a kill before", where, partial(_killed, stage=stage, at=at))


def _lost(bench: Bench, stage: str, rules: Rules = (), *, from_dataset: bool = False) -> Tried:
    with bench.trial(bench.prepared(stage)) as trial:
        if rules:
            with bench.faults(rules):
                trial.run(stage)
        trial.lose_ledger()
        return trial.finish(from_dataset=from_dataset), 1


def _damaged(bench: Bench, stage: str, pattern: str) -> Tried:
    """The ledger is rebuilt without the file, which is restored from a backup later."""
    with bench.trial(bench.prepared(stage)) as trial:
        folder = trial.root / "asked" / ("responses" if pattern == "*.parquet" else "requests")
        path = min(folder.rglob(pattern))
        kept = path.read_bytes()
        path.write_bytes(kept[: len(kept) // 2])
        trial.lose_ledger()
        trial.run("tick")
        path.write_bytes(kept)
        return trial.finish(from_dataset=True), 1


def _killed(bench: Bench, stage: str, at: int) -> Tried:
    with bench.trial(bench.prepared(stage)) as trial:
        end = trial.run(stage, kill_at=at)
        if (trial.root / "ledger.db").exists():
            trial.lose_ledger()
        # Without a manifest nothing was submitted, so there is nothing to do unattended.
        return trial.finish(from_dataset=stage == "requests" or at % 2 == 0), int(end.killed)
