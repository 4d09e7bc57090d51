"""Any state of a ledger, likely or not, for property tests of snapshots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import hypothesis.strategies as st
import sqlalchemy as sa

from batch_assets.core.ledger import Transaction, files, leases, standstills, submissions, tables
from batch_assets.core.ledger.downloads import collecting_name

PARTITIONS = ("a", "b")
FILE_STATES = (
    "ready",
    "held",
    "sending",
    "unresolved",
    "submitted",
    "collected",
    "refused",
    "stopped",
    "too_large",
    "superseded",
    "canceled",
)
BATCH_STATES = ("open", "unreachable", "ended", "collected", "deleted")


def fill(tx: Transaction, data: st.DataObject) -> None:
    """Write two submissions in force of one pipeline, with files that they may share."""
    for partition in PARTITIONS:
        tx.execute(sa.insert(tables.submission).values(_submission(tx, data, partition)))
    for number in range(data.draw(st.integers(0, 3), label="files")):
        _write_file(tx, data, number)
    for partition in PARTITIONS:
        if data.draw(st.booleans(), label="standstill"):
            age = data.draw(st.sampled_from([0.0, 100.0]), label="age")
            standstills.note(tx, f"s-{partition}", "part-00000.jsonl is gone")
            tx.execute(sa.update(tables.history).values(at=tables.history.c.at - age))
    names = [submissions.sending_name(f"s-{partition}") for partition in PARTITIONS] + [collecting_name("asked")]
    for name in names:
        _lease(tx, data, name)


def _lease(tx: Transaction, data: st.DataObject, name: str) -> None:
    until = data.draw(st.sampled_from([None, None, None, -5.0, 60.0]), label=name)
    if until is not None:
        stored = leases._stored(name)
        tx.execute(sa.insert(tables.lease).values(name=stored, owner="x", until=tx.now + until))


def _submission(tx: Transaction, data: st.DataObject, partition: str) -> dict[str, Any]:
    def sometimes(value: Any, label: str) -> Any:
        return data.draw(st.sampled_from([None, value]), label=label)

    canceled_at = data.draw(st.sampled_from([None, None, tx.now - 25]), label="canceled_at")
    return {
        "id": f"s-{partition}",
        "pipeline": "asked",
        "partition": partition,
        "created_at": tx.now - 50,
        "rows": 10,
        "rejected": 0,
        "requests": 10,
        "written": 10,
        "headers": "{}",
        "max_attempts": 3,
        "canceled_at": canceled_at,
        "max_requests": 5,
        "max_bytes": 1000,
        "began_at": data.draw(st.sampled_from([None, tx.now - 40, tx.now - 40]), label="began_at"),
        "joined_seq": data.draw(st.sampled_from([None, 10, 10]), label="joined_seq"),
        "joined_at": tx.now - 20,
        "counts": None,
        "ask_again": data.draw(st.sampled_from([0, 0, 2]), label="ask_again") if canceled_at is None else 0,
        "final_at": data.draw(st.sampled_from([None, None, tx.now - 10]), label="final_at"),
        "announced_at": sometimes(tx.now - 5, "announced_at"),
        "fresh_after": sometimes(tx.now - 60, "fresh_after"),
        "left_out": data.draw(st.sampled_from([0, 0, 3]), label="left_out"),
    }


def _write_file(tx: Transaction, data: st.DataObject, number: int) -> None:
    of = data.draw(st.sampled_from(PARTITIONS), label="partition")
    file_id = f"s-{of}/part-{number}.jsonl"
    state = data.draw(st.sampled_from(FILE_STATES), label="state")
    became = (
        data.draw(st.integers(int(state == "submitted"), 2), label="batches")
        if state not in ("ready", "held", "sending")
        else 0
    )
    values = {
        "id": file_id,
        "submission_id": f"s-{of}",
        "pipeline": "asked",
        "partition": of,
        "name": f"part-{number}.jsonl",
        "requests": 2,
        "bytes": 10,
        "attempt": 1,
        "state": state,
        "not_before": data.draw(st.sampled_from([0.0, tx.now + 100]), label="not_before"),
        "error": data.draw(st.sampled_from([None, "the API's words"]), label="error"),
        "batch_id": f"b-{number}-{became - 1}" if became and state != "unresolved" else None,
        "collected_seq": data.draw(st.sampled_from([None, 5, 20]), label="collected_seq"),
        "headers": None,
        "hold": data.draw(st.sampled_from(["confirm", "cache"]), label="hold") if state == "held" else None,
        "stub": data.draw(st.sampled_from([None, f"s-{of}/part-0.jsonl"]), label="stub"),
    }
    tx.execute(sa.insert(tables.request_file).values(values))
    for partition in PARTITIONS:
        if data.draw(st.sampled_from([True, True, False]), label=f"{partition} waits"):
            tx.execute(sa.insert(tables.wait).values(submission_id=f"s-{partition}", file_id=file_id))
    for position in range(became):
        is_waited_for = state == "submitted" and position == became - 1
        states = BATCH_STATES[:3] if is_waited_for else BATCH_STATES
        _write_batch(tx, data, f"b-{number}-{position}", file_id, states)
    if state in ("sending", "unresolved") or data.draw(st.booleans(), label="sent again"):
        open_ = state in ("sending", "unresolved")
        intent = {
            "file_id": file_id,
            "requests": 2,
            "bytes": 10,
            "started_at": tx.now - 30,
            "outcome": "open" if open_ else "resent",
            "watch_until": None if open_ else tx.now + data.draw(st.sampled_from([-1.0, 100.0])),
        }
        tx.execute(sa.insert(tables.intent).values(intent))
    _lease(tx, data, files.lease_name(file_id))


def _write_batch(tx: Transaction, data: st.DataObject, batch_id: str, file_id: str, states: Sequence[str]) -> None:
    values = {
        "id": batch_id,
        "file_id": file_id,
        "pipeline": "asked",
        "state": data.draw(st.sampled_from(states), label=batch_id),
        "provisional": data.draw(st.booleans(), label="provisional"),
        "paid_twice": data.draw(st.booleans(), label="paid_twice"),
        "processing_status": data.draw(st.sampled_from(["in_progress", "canceling", "ended"])),
        "requests": 2,
        "counts": '{"processing": 1, "succeeded": 1}',
        "created_at": tx.now - 30,
        "submitted_at": tx.now - 30,
        "next_poll_at": tx.now + data.draw(st.sampled_from([-1.0, 0.0, 60.0]), label="next_poll_at"),
        "next_download_at": tx.now + data.draw(st.sampled_from([-1.0, 0.0, 60.0]), label="next_download_at"),
        "downloads": 0,
        "failing_since": data.draw(st.sampled_from([None, tx.now - 10]), label="failing_since"),
        "results_refused": data.draw(st.booleans(), label="results_refused"),
    }
    tx.execute(sa.insert(tables.batch).values(values))
