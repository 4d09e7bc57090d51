"""What a user has rewritten: a pipeline is renamed, a row is erased, and both are killed half way."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

from tests.chaos import work
from tests.chaos.bench import Bench
from tests.chaos.faults.case import Case, Tried

_STAGES = ("batches", "collection", "results")
_UNFINISHED = "UnfinishedRenamingError"
_IN_RENAMING = (12, 24, 33, 42, 52)
# What comes before a stage whose prepared root has batches that its trials share.
_BEFORE = {"collection": ("requests", "batches"), "results": ("requests", "batches", "collection")}
_IN_ERASING = (30, 91, 150, 211, 255)


def cases() -> Iterator[Case]:
    for number, at in enumerate(_IN_RENAMING):
        stage = _STAGES[number % len(_STAGES)]
        for back in (False, True):
            where = f"before {stage}, {'back, ' if back else ''}position {at}"
            yield Case("a renaming is killed", where, partial(_renamed, stage=stage, at=at, back=back))
    for number, at in enumerate(_IN_ERASING):
        stage = ("results", "retry")[number % 2]
        yield Case("an erasure is killed", f"before {stage}, position {at}", partial(_erased, stage=stage, at=at))
    for stage in ("batches", "collection"):
        yield Case("an erasure waits for answers", f"before {stage}", partial(_erased, stage=stage, at=None))


def _renamed(bench: Bench, stage: str, at: int, *, back: bool) -> Tried:
    """The pipeline gets another name and its own again. Runs in between send nothing that was sent."""
    with bench.trial(bench.prepared(stage)) as trial:
        tasks = ["rename", "rename back"]
        if back:
            trial.expect_success(trial.run(tasks.pop(0)))
        end = trial.run(tasks[0], kill_at=at)
        is_known = bool(trial.ledger(f"select 1 from submission where pipeline = '{work.NAME}'"))
        if is_known is not (trial.root / work.NAME).exists():  # half way: neither name may be run
            refused = trial.run("requests")
            trial.expect(_UNFINISHED in refused.log, f"it was not refused:\n{refused.log}")
        for task in tasks:
            trial.expect_success(trial.run(task))
        return trial.finish(from_dataset=stage != "batches", by_user=stage == "batches"), int(end.killed)


def _erased(bench: Bench, stage: str, at: int | None) -> Tried:
    """The erasure is finished by running it again or, if no one does, by the run that stores the answers.

    It deletes batches at the API. So they are batches of its own, not those that other trials collect, too.
    """
    before = _BEFORE.get(stage, ())
    with bench.trial(bench.prepared("requests" if before else stage)) as trial:
        for task in before:
            trial.expect_success(trial.run(task))
            time.sleep(bench.emulator.settings()["latency"])
        if at is None:
            trial.expect_success(trial.run("erase"))
        killed = at is not None and trial.run("erase", kill_at=at).killed
        if at is not None and at % 2:
            trial.expect_success(trial.run("erase"))
        # The row leaves the table with the erasure; the next build rejects it.
        trial.expect_success(trial.run("chain"))
        verdict = trial.finish(from_dataset=True, ends={work.ERASED: "rejected/erased"})
        trial.run("erase")
        text = trial.rows[work.ERASED].encode() + b'"'
        left = [path.name for path in trial.root.rglob("*.jsonl") if text in path.read_bytes()]
        trial.expect(not left, f"the erased row is in {left}")
        return verdict, int(killed or at is None)
