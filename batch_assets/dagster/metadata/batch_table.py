"""A Markdown table of batches."""

from __future__ import annotations

import dagster as dg

from batch_assets.core.ledger.deadlines import results_end
from batch_assets.core.ledger.records import Batch
from batch_assets.core.ledger.states import BatchState
from batch_assets.core.text import count, counts, moment
from batch_assets.dagster.metadata import markdown

# Batches that are not collected come first, and the others are of little interest.
_SHOWN = 50
_COLUMNS = ["batch", "state", "requests", "counts", "created", "ends by", "results until"]
# Of these, what does not change any more, for events that stay on the page after the batches have ended.
_LASTING = ["batch", "requests", "created", "ends by", "results until"]


def batch_table(batches: list[Batch], now: float, *, lasting: bool = False) -> dg.MarkdownMetadataValue:
    """Return id, state, counts and deadlines of batches as a table: uncollected batches first, then the newest.

    Times are UTC. `ends by` is when the API expires the unanswered requests of an open batch. `results until` is
    when it deletes the answers of an uncollected batch.

    Args:
        batches: The batches.
        now: The ledger's clock.
        lasting: Leave out what changes later, such as the state.
    """
    newest = sorted(batches, key=lambda batch: (not batch.state.uncollected, -(batch.created_at or now)))
    rows = [_row(batch) for batch in newest[:_SHOWN]]
    hidden = len(batches) - len(rows)
    note = f"… and {count(hidden, 'more batch', 'more batches')}." if hidden else ""
    return markdown.table(_LASTING if lasting else _COLUMNS, rows, note=note)


def _row(batch: Batch) -> dict[str, str]:
    return {
        "batch": batch.id,
        "state": batch.processing_status if batch.state is BatchState.OPEN else batch.state,
        "requests": f"{batch.requests:,}",
        "counts": counts(batch.count_map),
        "created": _time(batch.created_at),
        "ends by": _time(batch.expires_at) if batch.state.unended else "",
        "results until": _time(results_end(batch)) if batch.state.uncollected else "",
    }


def _time(seconds: float | None) -> str:
    return moment(seconds) if seconds is not None else ""
