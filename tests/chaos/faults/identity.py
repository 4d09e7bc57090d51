"""A root and a ledger that do not belong together, a ledger from a backup, and another root in the workspace."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

from tests.chaos.bench import Bench
from tests.chaos.faults.case import Case, Tried, post, rule
from tests.chaos.trial import Trial
from tests.core.support import CREATE, LIST

_STAGES = ("batches", "collection", "retry")
_PAIRING = "batch_assets.core.errors.PairingError"
_KILLED = (5, 25, 35, 42, 47, 64, 81, 90)


def cases() -> Iterator[Case]:
    for stage in _STAGES:
        for missing in ("root", "ledger", "files"):
            yield Case(
                f"{missing} not of the pair",
                f"before {stage}",
                partial(_not_a_pair, stage=stage, missing=missing),
            )
        for at in (None, *_KILLED) if stage == "batches" else (None,):
            where = f"{stage} is forgotten" if at is None else f"{stage} is forgotten, killed at position {at}"
            yield Case("ledger restored from a backup", where, partial(_restored, stage=stage, at=at))
    for nth in (1, 2, 3):
        for drop in ("after_commit", "before_commit"):
            where = f"create {nth} is lost, {drop}"
            yield Case("another root sends the same requests", where, partial(_two_roots, nth=nth, drop=drop))
    for nth in (1, 2, 3):
        yield Case("create: upload broken off", f"create {nth}", partial(_broken_off, nth=nth))


def _not_a_pair(bench: Bench, stage: str, missing: str) -> Tried:
    """Nothing may be sent, and with the right pair everything goes on."""
    with bench.trial(bench.prepared(stage)) as trial:
        before, kept = len(bench.emulator.log()), trial.folder / "kept"
        shutil.copytree(trial.root, kept)
        if missing == "root":  # a volume that is not mounted, the ledger elsewhere
            for path in trial.root.iterdir():
                if not path.name.startswith("ledger.db"):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        elif missing == "files":
            shutil.rmtree(trial.root / "asked")
        else:  # another ledger
            with closing(sqlite3.connect(trial.root / "ledger.db")) as database, database:
                database.execute("update pairing set ledger_id = 'other', root_id = 'other', replaces = null")
        for task in ("chain", "tick", "requests"):
            end = trial.run(task)
            trial.expect(end.failed and _PAIRING in end.log, f"{task} was not refused:\n{end.log}")
        trial.expect(len(bench.emulator.log()) == before, "something was sent without the pair")
        shutil.rmtree(trial.root)
        kept.rename(trial.root)
        return trial.finish(from_dataset=stage != "retry"), 1


def _restored(bench: Bench, stage: str, at: int | None) -> Tried:
    with bench.trial(bench.prepared(stage), one_by_one=True) as trial:
        backup = trial.folder / "backup.db"
        _copy(trial.root / "ledger.db", backup)
        end = trial.run(stage, kill_at=at) if at is not None else trial.run(stage)
        sent = len(list(trial.root.rglob("*.batch.json")))
        trial.lose_ledger()
        _copy(backup, trial.root / "ledger.db")
        # A file that was sent without a receipt, and that is all that happened since, cannot be known. Neither can
        # what it cost.
        unknown = len(trial.batches()) - sent
        verdict = trial.finish(from_dataset=stage != "retry")
        if unknown > 0 and sent == 0:
            verdict.twice = verdict.orphaned = 0
            verdict.audit.differences.clear()
        return verdict, int(at is None or end.killed)


def _copy(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as from_, closing(sqlite3.connect(target)) as to:
        from_.backup(to)


def _two_roots(bench: Bench, nth: int, drop: str) -> Tried:
    """Equal, older batches of the other root are in the list, and one of ours has the same requests."""
    with bench.trial(bench.prepared("batches"), one_by_one=True) as trial:
        for body in _bodies_of_another_root(trial):
            trial.foreign.append(post(bench, trial, body))
        bench.emulator.end_batches(*trial.foreign)
        with bench.faults(
            [rule(CREATE, {"drop": drop}, nth=nth), rule(LIST, {"status": 500}, after=nth)]
        ) as struck:
            trial.run("batches")
            hits = struck()
        for body in _bodies_of_another_root(trial):  # and newer ones
            trial.foreign.append(post(bench, trial, body))
        return trial.finish(from_dataset=False), hits


def _bodies_of_another_root(trial: Trial) -> list[bytes]:
    mark = trial.ledger("select substr(root_id, 1, 6) from pairing")[0][0].encode()
    files = sorted(trial.root.glob("*/requests/*/*.jsonl"))
    lines = [path.read_bytes().replace(b"-" + mark + b"-", b"-222222-").splitlines() for path in files]
    return [b'{"requests":[' + b",".join(file) + b"]}" for file in lines]


def _broken_off(bench: Bench, nth: int) -> Tried:
    rules = [rule(CREATE, {"drop": "before_body", "reset": True}, nth=nth)]
    with bench.trial(bench.prepared("requests"), one_by_one=True) as trial, bench.faults(rules) as struck:
        verdict = trial.finish(from_dataset=True)
        return verdict, struck()
