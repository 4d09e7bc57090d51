"""A judge outside the program: it checks what the API accepted against the tables and the ledger.

It trusts nothing that the program reports about itself. It computes what a row must hold from the dataset and the
prompt, and reads what was paid for from the emulator's own log.
"""

from __future__ import annotations

import itertools
import json
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson
import pandas as pd

from batch_assets.emulator.answers import emulated_answer

from .support import BATCHES, World, params

# Failures that another attempt may fix. A canceled request may be sent again too.
PASSING = {"api_error", "overloaded_error", "timeout_error", "rate_limit_error"}
MAX_ATTEMPTS = 3
STRANGER = "theirs-"
# The moves that may occur in a run of the state machine. The judge has its own list: the ledger's table has more.
FILE_MOVES = {
    (None, "ready"),
    ("ready", "sending"),
    ("ready", "superseded"),
    ("ready", "stopped"),
    ("ready", "canceled"),
    ("ready", "unresolved"),
    ("sending", "submitted"),
    ("sending", "unresolved"),
    ("sending", "refused"),
    ("sending", "stopped"),
    ("sending", "ready"),
    ("sending", "too_large"),
    ("too_large", "superseded"),
    ("too_large", "collected"),
    ("too_large", "canceled"),
    ("unresolved", "submitted"),
    ("unresolved", "ready"),
    ("unresolved", "superseded"),
    ("sending", "superseded"),
    ("stopped", "ready"),
    ("stopped", "canceled"),
    ("submitted", "collected"),
    ("submitted", "unresolved"),
}
BATCH_MOVES = {
    (None, "open"),
    (None, "ended"),
    (None, "foreign"),
    ("open", "ended"),
    ("open", "unreachable"),
    ("open", "disproved"),
    ("unreachable", "open"),
    ("unreachable", "ended"),
    ("ended", "collected"),
    ("ended", "disproved"),
    ("disproved", "open"),
    ("disproved", "ended"),
    ("disproved", "foreign"),
}
ROUND_MOVES = {(None, "open"), ("open", "closed")}
_MOVES = {"file": FILE_MOVES, "batch": BATCH_MOVES, "round": ROUND_MOVES}


def call(world: World, path: str, method: str = "GET", body: Any = None) -> bytes | None:
    """Call the API as someone else in the same workspace. Return None if it answers 4xx."""
    request = urllib.request.Request(
        world.emulator.url + path,
        data=json.dumps(body).encode() if body is not None else None,
        method=method,
        headers={"x-api-key": "any", "content-type": "application/json", "anthropic-version": "2023-06-01"},
    )
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        error.close()
        if error.code >= 500:
            raise
        return None


@dataclass(frozen=True)
class Source:
    """What a submission was built from: the rows, and the prompt with `{{ text }}` in it."""

    rows: Mapping[str, str]
    prompt: str

    def request_key(self, text: str) -> str | None:
        """The key of the request for a row, or None if the row must be rejected."""
        content = self.prompt.replace("{{ text }}", text)
        return _key(params(content)) if content.strip() else None


def _key(body: Mapping[str, Any]) -> str:
    return orjson.dumps(body, option=orjson.OPT_SORT_KEYS).decode()


def answer_to(request_key: str) -> str:
    """The only right answer to a request."""
    text: str = emulated_answer(json.loads(request_key))["content"][0]["text"]
    return text


@dataclass(frozen=True)
class Paid:
    """One request that the API accepted once.

    Attributes:
        tail: The last 22 characters of its custom_id.
        outcome: `succeeded`, `expired`, `canceled`, or the type of its error.
    """

    batch_id: str
    tail: str
    created_at: datetime
    ended_at: datetime
    outcome: str


@dataclass
class Observer:
    """Observes one world.

    Attributes:
        spoiled: Batches whose result lines the test spoiled. Their answers may count as lost.
        hidden: Whether a fault hid accepted batches from the list for longer than the grace period.
    """

    world: World
    spoiled: set[str] = field(default_factory=set)
    hidden: bool = False
    _states: dict[tuple[str, str], str | None] = field(default_factory=dict)
    _seq: int = 0

    def watch_moves(self) -> None:
        """Check that the new history of the ledger holds only allowed moves, each from the state before."""
        rows = self.world.query(
            "select seq, kind, entity, from_state, to_state from history where seq > :seq order by seq",
            seq=self._seq,
        )
        for seq, kind, entity, before, after in rows:
            self._seq = seq
            # For the judge, a batch that is being canceled is still open.
            before, after = ("open" if state == "canceling" else state for state in (before, after))
            if kind not in _MOVES or before == after:
                continue
            assert (before, after) in _MOVES[kind] or self._is_new_again(kind, entity, before, after), (
                f"{kind} {entity}: {before} -> {after}"
            )
            if before is not None:
                assert self._states.get((kind, entity)) == before, f"{kind} {entity} was not {before}"
            self._states[kind, entity] = after

    def _is_new_again(self, kind: str, entity: str, before: str | None, after: str) -> bool:
        """A disproved batch belongs to someone else, and may be recorded as a new one."""
        return kind == "batch" and before is None and self._states.get((kind, entity)) == "disproved"

    def check_ledger(self) -> None:
        """Check what must hold between any two steps."""
        query = self.world.query
        assert not query(
            "select f.id, f.state, count(*) from intent i join request_file f on f.id = i.file_id"
            " where i.outcome in ('open', 'unresolved') group by f.id, f.state"
            " having count(*) > 1 or f.state not in ('sending', 'unresolved')"
        ), "a file has two open intents, or an open intent and is not in doubt"
        assert not query(
            "select requests from intent where outcome in ('open', 'unresolved')"
            " group by requests having count(*) > 1"
        ), "two files of equal count are in doubt at once"
        assert not query(
            "select submission_id from round where state = 'open' group by submission_id having count(*) > 1"
        ), "two rounds of a submission are open"
        for final_at, counts in query("select final_at, counts from submission where counts is not null"):
            pending = json.loads(counts).get("pending", 0)
            assert (final_at is None) == (pending > 0), "final with rows pending, or complete and not final"

    def check_table(self, table: pd.DataFrame, source: Source) -> None:
        """Check that the table has every row exactly once, in the dataset's order, each with its own answer."""
        assert list(table["id"]) == list(source.rows)
        assert list(table["text"]) == list(source.rows.values())
        for row in table.itertuples():
            request_key = source.request_key(row.text)
            assert (row.result_type == "rejected") == (request_key is None), row
            if row.result_type == "succeeded":
                assert request_key is not None
                assert row.response_text == answer_to(request_key), row
            else:
                assert pd.isna(row.response_text), row

    def paid(self) -> dict[str, list[Paid]]:
        """All our requests that the API accepted, by request key, oldest first. Every batch must have ended."""
        payments: dict[str, list[Paid]] = defaultdict(list)
        for entry in self.world.accepted():
            lines = call(self.world, f"/_emulator/batches/{entry['id']}/requests")
            assert lines is not None
            requests = [orjson.loads(line) for line in lines.splitlines()]
            if requests[0]["custom_id"].startswith(STRANGER):
                continue
            batch, outcomes = self._outcomes(entry["id"])
            for request in requests:
                custom_id = request["custom_id"]
                payment = Paid(
                    entry["id"],
                    custom_id[-22:],
                    datetime.fromisoformat(batch["created_at"]),
                    datetime.fromisoformat(batch["ended_at"]),
                    outcomes[custom_id],
                )
                payments[_key(request["params"])].append(payment)
        return payments

    def _outcomes(self, batch_id: str) -> tuple[dict[str, Any], dict[str, str]]:
        batch, lines = call(self.world, f"{BATCHES}/{batch_id}"), call(self.world, f"{BATCHES}/{batch_id}/results")
        assert batch is not None
        assert lines is not None
        outcomes = {}
        for line in lines.split(b"\n")[:-1]:
            entry = orjson.loads(line)
            kind = entry["result"]["type"]
            outcomes[entry["custom_id"]] = entry["result"]["error"]["error"]["type"] if kind == "errored" else kind
        return orjson.loads(batch), outcomes

    def check_paid(self, paid: Mapping[str, list[Paid]]) -> None:
        """Check that nothing was sent again without a reason, and that the ledger reports double payments."""
        known = {
            batch_id: (state, bool(twice))
            for batch_id, state, twice in self.world.query("select id, state, paid_twice from batch")
        }
        reported = {batch_id for batch_id, (_, twice) in known.items() if twice}
        assert self.hidden or not reported
        tails: dict[str, str] = {}
        for request_key, payments in paid.items():
            for payment in payments:
                assert known.get(payment.batch_id, ("unknown", False))[0] == "collected", (
                    f"{payment.batch_id} is {known.get(payment.batch_id)}"
                )
                assert tails.setdefault(payment.tail, request_key) == request_key, "two requests under one digest"
            assert len({payment.tail for payment in payments}) == 1, "one request under two digests"
            unreported = [payment for payment in payments if payment.batch_id not in reported]
            for first, second in itertools.pairwise(unreported):
                assert first.ended_at <= second.created_at, f"in two open batches: {payments}"
                failed = first.outcome in PASSING | {"expired", "canceled"}
                assert failed or first.batch_id in self.spoiled, f"paid twice and not reported: {payments}"
        strangers = set(known) - {payment.batch_id for payments in paid.values() for payment in payments}
        assert {known[batch_id][0] for batch_id in strangers} <= {"foreign"}

    def check_complete(self, table: pd.DataFrame, source: Source, paid: Mapping[str, list[Paid]]) -> None:
        """Check that every row has its final type, and that the table has every answer that was paid for."""
        self.check_table(table, source)
        for row in table.itertuples():
            request_key = source.request_key(row.text)
            if request_key is None:
                continue
            payments = paid.get(request_key, [])
            assert payments, f"never sent: {row}"
            safe = [
                payment
                for payment in payments
                if payment.outcome == "succeeded" and payment.batch_id not in self.spoiled
            ]
            if safe:
                assert row.result_type == "succeeded", row
            elif row.result_type != "succeeded":
                assert row.result_type in ("errored", "expired"), row
                spent = row.attempts >= MAX_ATTEMPTS
                passing = row.result_type == "expired" or row.error_type in PASSING | {"missing_result"}
                assert spent or not passing, f"given up too early: {row}"


def newest_submissions(world: World, pipeline: str) -> dict[str, str]:
    """The id of the submission in force by partition."""
    rows = world.query("select partition, id from submission where pipeline = :name order by seq", name=pipeline)
    return dict(rows)
