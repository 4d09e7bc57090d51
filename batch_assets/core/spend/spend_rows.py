"""Group what each batch cost into the rows of the table of what was spent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date

from batch_assets.core.io.names import ResponseName
from batch_assets.core.ledger.sent import SentBatch
from batch_assets.core.spend.by_batch import BatchRow, sum_of_bounds
from batch_assets.core.spend.spend_table import BATCH_TIER, ESTIMATED, LIVE_TIER, NO_LABELS, Labels, SpendRow
from batch_assets.core.spend.tables import TableUse

_Key = tuple[date | None, str, str | None, str, str, str | None, str]


def _estimate_in(recorded: str) -> dict[str, int]:
    """Return the range of an estimate as the ledger keeps it; nothing if none is known."""
    estimate = json.loads(recorded)["batch"]
    ends = (estimate["low"], estimate["high"]) if estimate is not None else ()
    return dict(zip(ESTIMATED, ends, strict=False))


def spend_rows(
    rows: list[BatchRow], batches: list[SentBatch], use: TableUse, labels: Mapping[str, Labels]
) -> list[SpendRow]:
    """Group the rows of batches into those of the table.

    Args:
        rows: The rows of the batches.
        batches: What was sent.
        use: What the results tables make of the answers.
        labels: The labels by pipeline.
    """
    by_id = {batch.id: batch for batch in batches}
    groups: dict[_Key, SpendRow] = {}
    used: set[str] = set()
    estimated: set[str] = set()
    for row in rows:
        batch = by_id.get(row.batch_id)
        partition, key = (batch.partition, batch.key) if batch is not None else (None, None)
        tier = LIVE_TIER if ResponseName(row.batch_id).is_live else BATCH_TIER
        group = (row.day, row.pipeline, partition, row.model, tier, key, row.kind)
        into = groups.get(group)
        if into is None:
            into = groups[group] = SpendRow(
                row.day,
                row.pipeline,
                partition,
                row.model,
                key,
                row.kind,
                labels.get(row.pipeline, NO_LABELS),
                tier,
            )
        into.amounts.update(row.amounts)
        into.high = sum_of_bounds(into.high, row.high)
        # The answers of a batch are of one model, but for rare exceptions: its rows count with the first.
        if row.model and row.batch_id not in used:
            used.add(row.batch_id)
            into.rows += use.rows[row.batch_id]
            into.amounts["invalid_usd"] += use.invalid[row.batch_id]
            into.amounts["truncated_usd"] += use.unfinished[row.batch_id]
            into.amounts["saved_reuse_usd"] += use.reused[row.batch_id]
            # Live calls have none: the estimate is of batches.
            if batch is not None and batch.estimate is not None and batch.submission_id not in estimated:
                estimated.add(batch.submission_id)
                into.amounts.update(_estimate_in(batch.estimate))
    return [groups[group] for group in sorted(groups, key=lambda group: tuple(map(str, group)))]
