"""This machine's clock is set while work goes on: nothing is sent early, and nothing waits longer than before."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from tests.chaos.bench import Bench
from tests.chaos.faults.case import Case, Tried, rule
from tests.core.support import CREATE, LIST

_STEPS = {"20 min on": 1200.0, "a day on": 86400.0, "3 h back": -10800.0}
_GRACE = 600.0
_KILLED = 60  # in mid-upload, or after it


def cases() -> Iterator[Case]:
    for name, seconds in _STEPS.items():
        for stage in ("batches", "collection", "retry"):
            yield Case("the clock is set", f"{name}, before {stage}", partial(_set, stage=stage, seconds=seconds))
        yield Case("the clock is set", f"{name}, upload in doubt", partial(_in_doubt, seconds=seconds))
        yield Case("the clock is set", f"{name}, after a kill", partial(_killed, seconds=seconds))


def _set(bench: Bench, stage: str, seconds: float) -> Tried:
    with bench.trial(bench.prepared(stage)) as trial:
        trial.expect_success(
            trial.run("unattended", clock=seconds) if stage != "batches" else trial.run("batches")
        )
        trial.expect_success(trial.run("chain", clock=seconds))
        return trial.finish(from_dataset=True), 1


def _in_doubt(bench: Bench, seconds: float) -> Tried:
    """The list hides the batch. Before the grace period is over, it is not sent again."""
    rules = [rule(CREATE, {"drop": "after_commit"}, nth=1), rule(LIST, {"hide_from_list": 3600}, after=1)]
    with bench.trial(bench.prepared("batches"), _GRACE, one_by_one=True) as trial:
        with bench.faults(rules) as struck:
            trial.run("batches")
            before, hits = len(trial.batches()), struck()
            for _ in range(2):
                trial.expect_success(trial.run("tick", clock=seconds))
        # The second file has the same count, so it waits for the first.
        trial.expect(len(trial.batches()) == before, "something was sent before the grace period was over")
        return trial.finish(from_dataset=False), hits


def _killed(bench: Bench, seconds: float) -> Tried:
    with bench.trial(bench.prepared("batches")) as trial:
        end = trial.run("batches", kill_at=_KILLED)
        trial.expect_success(trial.run("unattended", clock=seconds))
        return trial.finish(from_dataset=False), int(end.killed)
