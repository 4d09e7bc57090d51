"""What a message says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from batch_assets.core.errors import DamagedFileError
from batch_assets.core.ledger.records import Batch, Submission
from batch_assets.core.prices import dollars, no_price_for
from batch_assets.core.root import Root
from batch_assets.core.store.table_cost import table_cost

_ORDER = ("succeeded", "errored", "expired", "canceled", "rejected", "pending")
_BATCHES_SHOWN = 5
_EVENTS = {"complete": "complete", "failed": "failed", "expires": "deadline", "uncollected": "deadline"}


def event_of(kind: str) -> str:
    """What a pipeline file calls that kind of notice."""
    return _EVENTS[kind]


def failed_share(submission: Submission) -> float:
    """Rows without an answer, the rejected ones among them, as a share of all; of a complete table."""
    failed = submission.rows - submission.count_map.get("succeeded", 0)
    return failed / submission.rows if submission.rows else 0.0


def content_of(
    root: Root,
    submission: Submission,
    kind: str,
    *,
    max_failed: float,
    asset: Sequence[str],
    ending: Sequence[tuple[Batch, float]] = (),
) -> dict[str, Any]:
    """The message for programs, with the same for people under `message`.

    Args:
        kind: complete | failed | expires | uncollected.
        asset: path of the asset key of results.
        ending: the batches that are near their end, with the seconds left.
    """
    counts = submission.count_map or {"pending": submission.rows}
    cost, unknown = _cost(root, submission)
    name = f"{submission.pipeline} [{submission.partition}]" if submission.partition else submission.pipeline
    link = _link(root.settings.ui_url, asset, submission.partition)
    said = _in_words(counts)
    paid = f"cost {dollars(cost)}" if cost is not None else unknown
    note = " (by the price list; the emulator bills nothing)" if root.settings.emulator_url else ""
    lines = [
        f"{name}: {_happened(kind, submission, max_failed, ending)}",
        f"{submission.rows:,} rows: {said}; {paid}{note}",
        *_batches(kind, ending),
        *([link] if link else []),
    ]
    return {
        "event": event_of(kind),
        "pipeline": submission.pipeline,
        "partition": submission.partition or None,
        "submission": submission.id,
        "rows": submission.rows,
        "counts": counts,
        "cost_usd": cost,
        "cost_known": cost is not None,
        "batches": [batch.id for batch, _ in ending],
        "link": link,
        "message": "\n".join(lines),
    }


def _happened(kind: str, submission: Submission, max_failed: float, ending: Sequence[tuple[Batch, float]]) -> str:
    if kind == "complete":
        return "results are complete"
    if kind == "failed":
        share = failed_share(submission)
        return f"{share:.2%} of the rows have no answer, and max_failed is {max_failed:.2%}"
    are = "1 batch is" if len(ending) == 1 else f"{len(ending):,} batches are"
    return f"{are} near the end of {'the 24 hours' if kind == 'expires' else 'their results'}"


def _batches(kind: str, ending: Sequence[tuple[Batch, float]]) -> list[str]:
    if not ending:
        return []
    lines = [f"{batch.id} ({batch.state}): {_left(seconds)} left" for batch, seconds in ending[:_BATCHES_SHOWN]]
    if len(ending) > _BATCHES_SHOWN:
        lines.append(f"and {len(ending) - _BATCHES_SHOWN:,} more")
    if kind == "expires":
        return [*lines, "What is not answered by then expires, and is asked again while it has attempts left."]
    return [*lines, "Answers that are not collected by then are lost. Materialize results; does the sensor run?"]


def _left(seconds: float) -> str:
    minutes = int(seconds) // 60
    return f"{minutes // 60} h" if minutes >= 48 * 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _in_words(counts: dict[str, int]) -> str:
    return ", ".join(f"{counts[kind]:,} {kind}" for kind in _ORDER if counts.get(kind)) or "none"


def _cost(root: Root, submission: Submission) -> tuple[float | None, str]:
    """What the submission's table cost, USD; None and why when that is not known."""
    try:
        found = table_cost(root, submission)
    except DamagedFileError:  # that is for the checks to say; nobody is to wait for the message
        return None, "cost unknown: the table cannot be read"
    if found is None and submission.final_at is not None:  # it was replaced before this was written
        return None, "cost unknown: its table is there no more"
    if found is None:
        return None, "cost not known yet"
    if found.unpriced_models:
        return None, f"cost unknown: {no_price_for(found.unpriced_models)} (the others: {dollars(found.usd)})"
    return found.usd, ""


def _link(ui_url: str | None, asset: Sequence[str], partition: str) -> str | None:
    """The asset's page in Dagster's UI."""
    if ui_url is None:
        return None
    page = f"{ui_url}/assets/{'/'.join(quote(part, safe='') for part in asset)}"
    return f"{page}?view=partitions&partition={quote(partition, safe='')}" if partition else page
