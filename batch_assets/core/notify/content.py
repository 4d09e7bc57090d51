"""The content of a notification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from batch_assets.core.answers.result_types import ResultType, failed_share, results_as_text
from batch_assets.core.errors import DamagedFileError
from batch_assets.core.ledger.near_caps import BudgetUse
from batch_assets.core.ledger.records import Batch, RequestFile, Submission
from batch_assets.core.quoting import printable
from batch_assets.core.root import Root
from batch_assets.core.store.table_cost import table_cost
from batch_assets.core.text import count, dollars, duration, percent

_BATCHES_SHOWN = 5
_COLLECT = "Run the pipeline to collect them. If its sensor should have done so, check that it runs."
_EVENTS = {
    "complete": "complete",
    "failed": "failed",
    "expires": "deadline",
    "uncollected": "deadline",
    "held": "held",
    "budget": "budget",
}


def event_of(kind: str) -> str:
    """Return the event, as the pipeline file names it, of a kind of notice."""
    return _EVENTS[kind]


def content_of(
    root: Root,
    submission: Submission,
    kind: str,
    *,
    max_failed: float,
    asset: Sequence[str],
    ending: Sequence[tuple[Batch, float]] = (),
    held: Sequence[RequestFile] = (),
    near: BudgetUse | None = None,
) -> dict[str, Any]:
    """Make the JSON content of a notification. The text for people is under the key `message`.

    Args:
        root: The root.
        submission: The submission that the notification is about.
        kind: `complete`, `failed`, `expires`, `uncollected`, `held` or `budget`.
        max_failed: The pipeline's `max_failed`.
        asset: The path of the asset key of results.
        ending: The batches that are near a deadline, each with the seconds left.
        held: The request files that are held.
        near: The budget of which most is spent. It may be that of several submissions, or of the root.
    """
    rows_by_type = submission.count_map or {ResultType.PENDING.value: submission.rows}
    ordered: dict[str, int] = {result_type: rows_by_type.get(result_type, 0) for result_type in ResultType}
    cost, why_unknown = _cost(root, submission)
    name = (
        f"{submission.pipeline} [{printable(submission.partition)}]"
        if submission.partition
        else submission.pipeline
    )
    link = _link(root.settings.ui_url, asset, submission.partition)
    cost_text = f"cost {dollars(cost)}" if cost is not None else why_unknown
    note = " (by the price list; the emulator bills nothing)" if root.settings.emulator_url else ""
    if near is not None:
        lines = [printable(str(near)), "Request files that do not fit into the rest are held."]
    else:
        results = results_as_text(ordered, submission.unusable or 0)
        lines = [
            f"{name}: {_headline(kind, submission, max_failed, ending, held)}",
            f"{count(submission.rows, 'row')}: {results}; {cost_text}{note}",
            *_batch_lines(kind, ending),
        ]
    lines += [link] if link else []
    return {
        "event": event_of(kind),
        "pipeline": submission.pipeline,
        "partition": submission.partition or None,
        "submission": submission.id,
        "rows": submission.rows,
        "counts": rows_by_type,
        "cost_usd": cost,
        "cost_known": cost is not None,
        "batches": [batch.id for batch, _ in ending],
        "link": link,
        "message": "\n".join(lines),
    }


def _headline(
    kind: str,
    submission: Submission,
    max_failed: float,
    ending: Sequence[tuple[Batch, float]],
    held: Sequence[RequestFile],
) -> str:
    if kind == "complete":
        return "results are complete"
    if kind == "failed":
        share = failed_share(submission.count_map)
        return f"{percent(share)} of the rows have no answer, and max_failed is {percent(max_failed)}"
    if kind == "held":
        requests = count(sum(file.requests for file in held), "request is held", "requests are held")
        return f"{requests}: {held[0].error}"
    if kind == "expires":
        return f"{count(len(ending), 'batch expires', 'batches expire')} soon"
    return f"the results of {count(len(ending), 'batch', 'batches')} will soon be gone"


def _batch_lines(kind: str, ending: Sequence[tuple[Batch, float]]) -> list[str]:
    if not ending:
        return []
    lines = [f"{batch.id} ({batch.state}): {duration(seconds)} left" for batch, seconds in ending[:_BATCHES_SHOWN]]
    if len(ending) > _BATCHES_SHOWN:
        lines.append(f"and {len(ending) - _BATCHES_SHOWN:,} more")
    if kind == "expires":
        return [*lines, "Requests not answered by then expire, and are sent again if they have attempts left."]
    return [*lines, f"Answers not collected by then are lost. {_COLLECT}"]


def _cost(root: Root, submission: Submission) -> tuple[float | None, str]:
    """The cost of the submission's table in USD and ""; or `None` and why the cost is unknown."""
    try:
        cost = table_cost(root, submission)
    except DamagedFileError:  # the asset checks report it; the notification is sent anyway
        return None, "cost unknown: the table cannot be read"
    if cost is None and submission.final_at is not None:  # another submission replaced the table
        return None, "cost unknown: a newer submission replaced the table"
    if cost is None:
        return None, "cost not known yet"
    if cost.unpriced_models:
        reason = root.settings.prices.why_unknown(cost.unpriced_models)
        return None, f"cost unknown: {reason} (other models: {dollars(cost.usd)})"
    return cost.usd, ""


def _link(ui_url: str | None, asset: Sequence[str], partition: str) -> str | None:
    """The URL of the asset's page in Dagster's UI."""
    if ui_url is None:
        return None
    page = f"{ui_url}/assets/{'/'.join(quote(part, safe='') for part in asset)}"
    return f"{page}?view=partitions&partition={quote(partition, safe='')}" if partition else page
