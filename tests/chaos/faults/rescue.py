"""Live calls for rows whose batch runs: no call is repeated, and what may have been paid for is in the range."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from tests.chaos.bench import Bench, Rules
from tests.chaos.faults.case import Case, Tried, ended, rule
from tests.chaos.judge import Verdict
from tests.chaos.trial import Trial

_CALL = {"method": "POST", "path": "/v1/messages"}
# Positions all over the run at which a process is killed.
_POSITIONS = (30, 60, 90, 130, 180, 240, 300)
_FAULTS = {
    "reply lost": {"drop": "after_commit"},
    "call lost": {"drop": "before_commit"},
    "HTTP 500": {"status": 500},
    "HTTP 429": {"status": 429, "headers": {"retry-after": "0"}},
    "HTTP 529": {"status": 529, "headers": {"retry-after": "0"}},
    "HTTP 400": {"status": 400},
    "answered, and a gateway shows an error": {"status": 502, "late": True, "body": "Bad Gateway"},
}


def cases() -> Iterator[Case]:
    for name, action in _FAULTS.items():
        for nth in (1, 3):
            rules = [rule(_CALL, action, nth=nth)]
            yield Case(
                "live calls: replies lost, and errors", f"{name}, call {nth}", partial(_rescued, rules=rules)
            )
    for position in _POSITIONS:
        where = f"killed at position {position}"
        yield Case("live calls: killed", where, partial(_rescued, kill_at=position))
        yield Case(
            "live calls: killed, and the ledger lost", where, partial(_rescued, kill_at=position, lost=True)
        )
    for processes in (2, 3):
        where = f"{processes} processes"
        yield Case("live calls: several processes at once", where, partial(_together, processes=processes))


def _rescued(bench: Bench, *, rules: Rules = (), kill_at: int | None = None, lost: bool = False) -> Tried:
    with bench.trial(bench.prepared("batches")) as trial, bench.settings(latency=3600):
        trial.run("batches")
        with bench.faults(rules) as struck:
            end = trial.run("rescue", kill_at=kill_at)
            count = struck() if rules else int(end.killed)
        if lost:
            trial.lose_ledger()
        return _finished(bench, trial, by_user=lost), count


def _together(bench: Bench, processes: int) -> Tried:
    with bench.trial(bench.prepared("batches")) as trial, bench.settings(latency=3600):
        trial.run("batches")
        children = [trial.start("rescue") for _ in range(processes)]
        for child in children:
            trial.expect_given_up(child.wait())
        return _finished(bench, trial), processes


def _finished(bench: Bench, trial: Trial, *, by_user: bool = False) -> Verdict:
    trial.run("rescue")
    ended(bench, trial)
    return trial.finish(from_dataset=False, by_user=by_user)
