"""A disk that is full after a number of bytes of a file, wherever a stage is writing."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from tests.chaos.bench import LARGE_ROWS, Bench
from tests.chaos.faults.case import Case, Tried

# Bytes. With a few rows, all other files are smaller than the ledger, so the ledger hits the limit.
_OF_THE_LEDGER = {
    "requests": (20, 600, 1_500, 60_000),
    "batches": (50, 10_000),
    "retry": (300, 10_000),
    "collection": (1_000, 30_000),
    "results": (1_000, 10_000),
}
# With many rows and more than the ledger has, a request file, a download, or a table hits the limit.
_OF_DATA = {
    "requests": (350_000, 500_000),
    "collection": (300_000, 400_000),
    "results": (250_000, 350_000),
}
_BEFORE = {"requests": (), "collection": ("requests", "batches"), "results": ("requests", "batches", "collection")}
_FAULT = "full disk during writes"


def cases() -> Iterator[Case]:
    for stage, limits in _OF_THE_LEDGER.items():
        for limit in limits:
            where = f"{stage}, {limit:,} bytes"
            yield Case(_FAULT, where, partial(_full, prepared=stage, stage=stage, largest_file=limit))
    for stage, limits in _OF_DATA.items():
        for limit in limits:
            where = f"{stage} of many rows, {limit:,} bytes"
            yield Case(_FAULT, where, partial(_full, prepared=LARGE_ROWS, stage=stage, largest_file=limit))


def _full(bench: Bench, prepared: str, stage: str, largest_file: int) -> Tried:
    """The stage ends with an error, and continues when there is space again."""
    with bench.trial(bench.prepared(prepared)) as trial:
        for before in _BEFORE[stage] if prepared == LARGE_ROWS else ():
            trial.expect_success(trial.run(before))
            bench.emulator.end_batches()
        end = trial.run(stage, largest_file=largest_file)
        trial.expect(end.failed, "it went on as if nothing had happened")
        return trial.finish(from_dataset=stage == "requests"), int(end.failed)
