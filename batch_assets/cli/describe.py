"""Descriptions of request files and batches, for the terminal."""

from __future__ import annotations

from batch_assets.cli import text
from batch_assets.core.ledger.deadlines import results_end
from batch_assets.core.ledger.records import Batch, RequestFile
from batch_assets.core.ledger.states import BatchState
from batch_assets.core.text import count, counts, day, duration, size


def describe_file(file: RequestFile) -> str:
    """Return the file's name, requests and size, and the attempt from the second on."""
    attempt = f", attempt {file.attempt}" if file.attempt > 1 else ""
    return f"{file.name}: {count(file.requests, 'request')}, {size(file.bytes)}{attempt}"


def describe_batch(batch: Batch, now: float) -> str:
    """Return the state of a batch, with its age, its counts, and how long its results are available."""
    end = results_end(batch)
    until = f", results until {day(end)}" if end is not None else ""
    if batch.state is BatchState.UNREACHABLE:
        return f"unreachable: the API answers 404{until}"
    finished = {outcome: number for outcome, number in batch.count_map.items() if outcome != "processing"}
    outcomes = f", {counts(finished)}" if any(finished.values()) else ""
    if batch.state is BatchState.OPEN and batch.missing_since is not None:
        since = duration(now - batch.missing_since)
        return f"the API has answered 404 for {since}, sent {text.ago(now, batch.submitted_at)}{until}"
    if batch.state is BatchState.OPEN:
        return f"{batch.processing_status}, sent {text.ago(now, batch.submitted_at)}{outcomes}{until}"
    return f"ended{outcomes}{until}"
