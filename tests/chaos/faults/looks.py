"""Polling batches: no answer, errors, garbage, and a poll that is not finished when the next one begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from tests.chaos.bench import Bench
from tests.chaos.faults.case import LOOKS, RETRIEVE, Case, Tried, rule
from tests.core.support import LIST

_LONG = 30.0  # seconds, longer than a poll waits
_BODIES = ("<html>", "", "[]", '{"id": 5}', '{"data": [{"id": 5}], "has_more": false}')
_HIDDEN = {"hide_from_list": 3600}


def cases() -> Iterator[Case]:
    for name, call in (("list", LIST), ("retrieve", RETRIEVE)):
        yield Case("polling: timeouts", name, _look_through(call, {"delay": _LONG}))
        for status in (429, 500, 504, 529):
            yield Case("polling: 429, 5xx", f"{status}, {name}", _look_through(call, {"status": status}))
        for status in (400, 401, 403):
            yield Case("polling: 400, 401, 403", f"{status}, {name}", _look_through(call, {"status": status}))
        for body in _BODIES:
            yield Case("polling: garbage", f"{body!r}, {name}", _look_through(call, {"status": 200, "body": body}))
        for reset in (False, True):
            action = {"drop": "after_commit", "reset": reset}
            yield Case("polling: connection lost", f"{action}, {name}", _look_through(call, action))
    for seconds in (0.5, 1.0):
        fault = "polling: two polls overlap"
        yield Case(fault, f"{seconds} s", partial(_side_by_side, seconds=seconds))


def _look_through(call: dict[str, str], action: dict[str, Any]) -> Callable[[Bench], Tried]:
    """A poll of three open batches, by the list or one by one. It fails, changes nothing, and may be repeated."""

    def trial(bench: Bench) -> Tried:
        with bench.trial(bench.prepared("batches")) as trial:
            trial.run("batches")
            before = trial.ledger("select id, state, processing_status from batch order by id")
            rules = [rule(call, action), *([rule(LIST, _HIDDEN)] if call is RETRIEVE else [])]
            with bench.faults(rules) as struck:
                end = trial.run("look")
                hits = struck()
            trial.expect_success(end)
            trial.expect(bool(end.log), "it reported nothing")
            after = trial.ledger("select id, state, processing_status from batch order by id")
            trial.expect(after == before, f"{before} became {after}")
            return trial.finish(from_dataset=False), hits

    return trial


def _side_by_side(bench: Bench, seconds: float) -> Tried:
    """Every change is recorded once."""
    with bench.trial(bench.prepared("batches")) as trial:
        trial.run("batches")
        bench.emulator.end_batches()
        with bench.faults([rule(LOOKS, {"delay": seconds})]) as struck:
            for child in [trial.start("look") for _ in range(2)]:
                trial.expect_success(child.wait())
            hits = struck()
        ended = trial.ledger("select entity from history where kind = 'batch' and to_state = 'ended'")
        trial.expect(len(ended) == len(set(ended)) == 3, f"{ended} have ended")
        return trial.finish(from_dataset=False), hits
