"""Refusals that only a user can fix: everything stops, nothing is sent meanwhile, and a rerun continues."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from tests.chaos.bench import Bench
from tests.chaos.faults.case import Case, Tried, error, rule
from tests.core.support import BATCHES, CREATE, LIST

_SPENT = {"details": {"error_code": "enforced_spend_limit_reached"}}
_REFUSALS = {
    "400 credit balance": (400, error("invalid_request_error", "Your credit balance is too low to go on.")),
    "429 enforced_spend_limit_reached": (429, error("rate_limit_error", "You have reached your limit", **_SPENT)),
    "402": (402, error("billing_error", "There is an issue with your billing")),
    "401": (401, error("authentication_error", "invalid x-api-key")),
    "403": (403, error("permission_error", "Your key may not use this")),
}
_TICKS = 2


def cases() -> Iterator[Case]:
    for name, (status, body) in _REFUSALS.items():
        action = {"status": status, "body": body}
        fault = "create: 401 or 403" if name in ("401", "403") else "create: out of credit or over a spend limit"
        for call, nth in ((CREATE, 1), (CREATE, 2), (CREATE, 3), (LIST, 2)):
            refused = rule(call, action, after=nth - 1)
            where = f"{name}, {'create' if call is CREATE else 'list'} {nth}"
            yield Case(fault, where, partial(_stopped, refused=refused))


def _stopped(bench: Bench, refused: dict[str, Any]) -> Tried:
    """The API refuses from that call on, until a user has fixed the reason and runs it again."""
    text = refused["action"]["body"]["error"]["message"]
    with bench.trial(bench.prepared("batches")) as trial:
        with bench.faults([refused]) as struck:
            end = trial.run("batches")
            trial.expect(end.failed and text in end.log, f"it did not stop saying why:\n{end.log}")
            hits, creates = struck(), _creates(bench)
            for _ in range(_TICKS):
                trial.run("tick")
            # Whether a batch that is collected was repeated is looked up in the list all the same.
            trial.expect(_creates(bench) == creates, "it was sent again without a user")
        before = len(trial.accepted())
        trial.run("tick")
        trial.expect(len(trial.accepted()) == before, "it went on without a user")
        return trial.finish(from_dataset=False, by_user=True), hits


def _creates(bench: Bench) -> int:
    """The number of create calls that the emulator has received."""
    return bench.emulator.requests().get(f"POST {BATCHES}", 0)
