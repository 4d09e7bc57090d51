"""A key of another workspace: our batches are unreachable, nothing is sent again, and the right key fixes it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from tests.chaos.bench import Bench
from tests.chaos.faults.case import Case, Tried, rule
from tests.core.support import CREATE, LIST

# Longer than a batch may answer 404 before it counts as unreachable.
_LATER = 400  # seconds
_TICKS = 3
_DROPS = ("after_commit", "before_commit")


def cases() -> Iterator[Case]:
    fault = "key of another workspace"
    yield Case(fault, "all batches are open", partial(_another_key, nth=None))
    for nth in (1, 2, 3):
        for drop in _DROPS:
            where = f"create {nth} in doubt, {drop}"
            yield Case(fault, where, partial(_another_key, nth=nth, drop=drop))
    for nth in (1, 2, 3):
        for drop in _DROPS:
            where = f"create {nth} in doubt, {drop}"
            yield Case("another key of the same workspace", where, partial(_second_key, nth=nth, drop=drop))


def _another_key(bench: Bench, nth: int | None, drop: str = "") -> Tried:
    with bench.trial(bench.prepared("batches"), one_by_one=True) as trial:
        with bench.settings(latency=3600), bench.faults(_lost(nth, drop)):
            trial.run("batches")
        before = len(bench.emulator.log())
        other = bench.other_key()
        for _ in range(_TICKS):
            trial.run("tick", key=other)
            trial.ledger(f"update batch set missing_since = missing_since - {_LATER}")
        trial.expect(len(bench.emulator.log()) == before, "something was sent with the other key")
        states = {state for (state,) in trial.ledger("select state from batch")}
        trial.expect(states == {"unreachable"}, f"batches out of reach are {states}")
        bench.emulator.end_batches()
        return trial.finish(from_dataset=False), _TICKS


def _second_key(bench: Bench, nth: int, drop: str) -> Tried:
    """A batch of ours proves that the new key is of the same workspace, so the work goes on."""
    with bench.trial(bench.prepared("batches"), one_by_one=True) as trial:
        with bench.faults(_lost(nth, drop)) as struck:
            trial.run("batches")
            hits = struck()
        trial.expect_success(trial.run("unattended", key=bench.second_key(trial.key)))
        return trial.finish(from_dataset=False), hits


def _lost(nth: int | None, drop: str) -> list[dict[str, Any]]:
    """One create is lost, and the list is unavailable as soon as every file that may be sent was sent."""
    if nth is None:
        return []
    # While the first file is in doubt, the second one, of equal count, is not sent and asks for no anchor.
    anchors = 2 if nth == 1 else 3
    return [rule(CREATE, {"drop": drop}, nth=nth), rule(LIST, {"status": 429}, after=anchors)]
