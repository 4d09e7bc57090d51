"""The state of pipelines as one JSON object, as `status --json` prints it. docs/command-line.md describes it.

Fields may be added. Those that are here keep their names and their meaning while `version` is 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from batch_assets.cli.status_errors import errors_of
from batch_assets.cli.status_text import EACH, by_pipeline
from batch_assets.cli.what_next import waits_for
from batch_assets.core.planning.status import PartitionStatus, StatusTotal

if TYPE_CHECKING:
    from batch_assets.core.ledger import Transaction
    from batch_assets.core.ledger.records import Batch
    from batch_assets.core.planning.snapshot import Snapshot

VERSION = 1


def status_document(
    tx: Transaction | None, snapshots: Sequence[Snapshot], notes: dict[str, Any], *, everything: bool
) -> dict[str, Any]:
    """Return the document.

    Args:
        tx: A transaction of the ledger; None if there is no ledger.
        snapshots: The submissions.
        notes: What concerns the whole root: `root`, `ledger`, `budgets`, `permissions` and `broken_files`.
        everything: Show each partition also of pipelines with many.
    """
    pipelines = [
        _pipeline(tx, name, its, everything=everything) for name, its in by_pipeline(snapshots).items() if tx
    ]
    now = tx.now if tx is not None else datetime.now(UTC).timestamp()
    total = StatusTotal.of([PartitionStatus.of(snapshot) for snapshot in snapshots])
    summary = {"pipelines": len(pipelines)} | _total(total)
    return {"version": VERSION, "at": _time(now)} | notes | {"summary": summary, "pipelines": pipelines}


def _pipeline(tx: Transaction, name: str, snapshots: Sequence[Snapshot], *, everything: bool) -> dict[str, Any]:
    statuses = [PartitionStatus.of(snapshot) for snapshot in snapshots]
    each = list(zip(snapshots, statuses, strict=True)) if everything or len(snapshots) <= EACH else []
    return {
        "name": name,
        "summary": _total(StatusTotal.of(statuses)),
        "partitions": [_partition(tx, snapshot, status) for snapshot, status in each],
    }


def _total(total: StatusTotal) -> dict[str, Any]:
    return {
        "partitions": total.partitions,
        "states": dict(total.states),
        "rows": total.rows,
        "rejected": total.rejected,
        "done": total.done,
        "requests": total.requests,
        "answered": total.answered,
        "results": dict(total.results),
        "unusable": total.unusable,
        "batches_running": total.running,
        "ends_by": _time(total.ends_by),
    }


def _partition(tx: Transaction, snapshot: Snapshot, status: PartitionStatus) -> dict[str, Any]:
    return {
        "partition": status.partition or None,
        "submission": status.submission,
        "state": status.state,
        "created_at": _time(status.created_at),
        "began_at": _time(status.began_at),
        "complete_at": _time(status.complete_at),
        "rows": status.rows,
        "rejected": status.rejected,
        "done": status.done,
        "requests": status.requests,
        "answered": status.answered,
        "results": dict(status.results),
        "unusable": status.unusable,
        "files": dict(status.files),
        "batches": dict(status.batches),
        "running": [_batch(batch) for batch in status.running],
        "ends_by": _time(status.ends_by),
        "waits_for": waits_for(snapshot),
        "errors": list(errors_of(tx, snapshot)),
    }


def _batch(batch: Batch) -> dict[str, Any]:
    return {
        "id": batch.id,
        "state": batch.state,
        "requests": batch.requests,
        "counts": batch.count_map,
        "submitted_at": _time(batch.submitted_at),
        "expires_at": _time(batch.expires_at),
    }


def _time(seconds: float | None) -> str | None:
    """Return a time of the ledger as ISO 8601 in UTC, to the second."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if seconds is not None else None
