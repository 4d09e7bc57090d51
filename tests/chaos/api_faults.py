"""Faults of the API, each at several places, through the same judge as the kills."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.chaos.bench import Bench, Trial
from tests.chaos.judge import Verdict
from tests.core.support import BATCHES, CREATE, LIST, RESULTS, params

Rules = list[dict[str, Any]]
_ENDINGS = ("abort", "reset", "content_length", "clean", "chunked")
# An upload that may have come through is given up for lost after this long; a batch is hidden for less.
_GRACE, _HIDDEN = 2.0, 0.7


@dataclass(frozen=True)
class Case:
    """One fault at one place.

    Attributes:
        fault: the line of the table.
        where: its place, in words.
        stage: from where on the trial runs.
        grace: as BATCH_ASSETS_RECONCILE_GRACE.
        before: done before the trial begins; returns ids of batches that are somebody else's.
    """

    fault: str
    where: str
    rules: Rules
    stage: str = "requests"
    grace: float = 0.0
    before: Callable[[Bench, Trial], list[str]] | None = None


def cases() -> Iterator[Case]:
    """All of them."""
    yield from _on_create()
    yield from _on_list()
    yield from _on_results()


def _on_create() -> Iterator[Case]:
    for nth in (1, 2, 3):
        for reset in (False, True):
            lost = {"drop": "after_commit", "reset": reset}
            how = f"create {nth}, by {'a reset' if reset else 'a close'}"
            yield Case("create: reply lost after acceptance", how, [_rule(CREATE, lost, nth=nth)])
            for drop in ("before_body", "before_commit"):
                action = {"drop": drop, "reset": reset}
                yield Case("create: connection dropped before", f"{how}, {drop}", [_rule(CREATE, action, nth=nth)])
        two = _rule(CREATE, {"drop": "after_commit"}, after=nth - 1, times=2)
        yield Case("create: reply lost after acceptance", f"create {nth} and the next", [two])
    for status in (408, 409, 500, 504, 529):
        for times in (1, 6):
            fault = "create: 408, 409, 500, 504, 529, once and for a while"
            yield Case(fault, f"{status}, {times} times", [_rule(CREATE, {"status": status}, times=times)])
    for times in (1, 4):
        limited = {"status": 429, "headers": {"retry-after": "0.2"}}
        yield Case("create: 429 with retry-after", f"{times} times", [_rule(CREATE, limited, times=times)])


def _on_list() -> Iterator[Case]:
    for nth in (1, 2, 3):
        lost = _rule(CREATE, {"drop": "after_commit"}, nth=nth)
        hidden = _rule(LIST, {"hide_from_list": _HIDDEN})
        fault = "reply lost, and list shows the batch only after a while"
        yield Case(fault, f"create {nth}", [lost, hidden], grace=_GRACE)
        fault = "reply lost, and others submit batches of the same size"
        for drop in ("after_commit", "before_commit"):
            rules = [_rule(CREATE, {"drop": drop}, nth=nth)]
            yield Case(fault, f"create {nth}, {drop}", rules, before=_foreign_batches)


def _on_results() -> Iterator[Case]:
    for tenth in range(10):
        for ending in _ENDINGS:
            cut = {"truncate": {"fraction": tenth / 10}, "ending": ending}
            fault = "results: reset" if ending == "reset" else "results: cut short"
            where = f"after {tenth} tenths, ending by {ending}"
            yield Case(f"{fault} at every tenth", where, [_rule(RESULTS, cut, times=2)], "collection")
        at_end = {"truncate": {"fraction": tenth / 10, "at_line_end": True}, "ending": "chunked"}
        where = f"after {tenth} tenths, a proper end"
        yield Case("results: cut at a line end", where, [_rule(RESULTS, at_end, times=2)], "collection")
    for kind in ("duplicate", "missing", "foreign", "garbage"):
        for count in (1, 7, 120):
            spoiled = [_rule(RESULTS, {"lines": {kind: count}}, times=2)]
            yield Case("results: lines too many, missing or spoiled", f"{count} {kind}", spoiled, "collection")


def _rule(call: dict[str, Any], action: dict[str, Any], **which: Any) -> dict[str, Any]:
    return {"match": {**call, **which}, "action": action}


def _foreign_batches(bench: Bench, trial: Trial) -> list[str]:
    """Two batches of each size that ours have, in the same workspace."""
    ids = []
    for size in (1, 2, 1, 2):
        requests = [{"custom_id": f"theirs-{number}", "params": params("theirs")} for number in range(size)]
        body = json.dumps({"requests": requests}).encode()
        ids.append(post(bench.emulator.url, trial.key, body))
    return ids


def post(url: str, key: str, body: bytes) -> str:
    """Submits a batch as somebody else in the workspace of a key would; returns its id."""
    headers = {"x-api-key": key, "anthropic-version": "2023-06-01", "content-type": "application/json"}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(f"{url}{BATCHES}", body, headers)) as response:
        return str(json.load(response)["id"])


def run_case(bench: Bench, case: Case) -> tuple[Verdict, str, int]:
    """Runs the chain through a fault.

    Returns:
        The verdict, the fault's place, and how many calls it struck.
    """
    with bench.trial(bench.prepared(case.stage), case.grace) as trial:
        foreign = case.before(bench, trial) if case.before is not None else []
        bench.emulator.faults(case.rules)
        try:
            verdict = trial.finish(from_dataset=case.stage == "requests", foreign=foreign)
            struck = bench.emulator.control("faults")[0]["hits"]
        finally:
            bench.emulator.reset_faults()
        return verdict, case.where, struck
