"""Request files and batches in words."""

from __future__ import annotations

from batch_assets.cli import text
from batch_assets.core.ledger.deadlines import results_end
from batch_assets.core.ledger.records import Batch, RequestFile
from batch_assets.core.ledger.states import BatchState
from batch_assets.core.text import count, counts, size


def describe_file(file: RequestFile) -> str:
    again = f", attempt {file.attempt}" if file.attempt > 1 else ""
    return f"{file.name}: {count(file.requests, 'request')}, {size(file.bytes)}{again}"


def describe_batch(batch: Batch, now: float) -> str:
    """The state of a batch, with its age and its counts."""
    end = results_end(batch)
    until = f", results until {text.day(end)}" if end is not None else ""
    if batch.state is BatchState.UNREACHABLE:
        return f"unreachable: the API answers 404{until}"
    done = {name: count for name, count in batch.count_map.items() if name != "processing"}
    shown = f", {counts(done)}" if any(done.values()) else ""
    if batch.state is BatchState.OPEN:
        return f"{batch.processing_status}, sent {text.ago(now, batch.submitted_at)}{shown}{until}"
    return f"ended{shown}{until}"
