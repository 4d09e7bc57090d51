"""Batches in the API's list that the ledger does not know and that have the count of a file in doubt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from batch_assets.core.answers.result_types import FAILED
from batch_assets.core.api.objects import BatchObject
from batch_assets.core.ledger.deadlines import KEPT_SECONDS

# No one pays for a batch without answers, so it is waited for no longer than this.
_UNPAID_SECONDS = 86400.0


@dataclass
class Strangers:
    """The batches, by what their results show.

    Attributes:
        running: Batches that have not ended. Only their count is known.
        proved: Ended batches, each with the first custom_id in its results.
        unproved: Ended batches whose results cannot be read now.
        unassigned: Ended batches whose results may belong to a file that is missing or damaged here.
        beyond_proof: Ended batches whose results need not be waited for any longer.
    """

    running: list[BatchObject] = field(default_factory=list)
    proved: list[tuple[str, BatchObject]] = field(default_factory=list)
    unproved: list[BatchObject] = field(default_factory=list)
    unassigned: list[BatchObject] = field(default_factory=list)
    beyond_proof: list[BatchObject] = field(default_factory=list)


def is_beyond_proof(batch: BatchObject, now: float | None) -> bool:
    """Whether an ended batch whose results cannot be read need not be waited for any longer.

    The API has archived them, so its answers are lost to everyone. Or it ended a day ago without a single answer.

    Args:
        batch: The batch.
        now: The time by the API's clock; `None` if it is unknown.
    """
    if batch.archived_at is not None or now is None:
        return batch.archived_at is not None
    unpaid = sum(batch.request_counts.get(result_type, 0) for result_type in FAILED)
    ended_at = batch.ended_at or batch.created_at
    return now > batch.created_at + KEPT_SECONDS or (unpaid == batch.total and now > ended_at + _UNPAID_SECONDS)


def text_about(others: Sequence[BatchObject], unproved: Sequence[BatchObject]) -> str:
    """Explain what a file waits for whose batch may be one of these, and what to do.

    Args:
        others: Batches that run, or whose results show too little.
        unproved: Ended batches whose results cannot be read now.
    """
    names = _names([*others, *unproved])
    text = f"the API's reply was lost, and its batch may be {names}: waiting until its results can be read"
    if not unproved:
        return text
    return (
        f"{text}. The API has ended {_names(unproved)}, and does not show its results. Give the key access to "
        "them. If the batch is another program's, delete it at the API once that program has its answers. "
        "Otherwise the file waits until the API archives the results, 29 days after the batch was created, and is "
        "then sent again"
    )


def _names(batches: Sequence[BatchObject]) -> str:
    return ", ".join(batch.id for batch in batches)
