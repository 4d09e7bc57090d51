"""Refreshes: asking again although answered. Which answers are of which refresh, and which one goes on.

A refresh is told from others by its `fresh_after`. An answer is of the newest refresh that wrote its request, or
found it in flight: no request is ever in two open batches, so a refresh takes what is on its way.
"""

from __future__ import annotations

from batch_assets.core.ledger import Transaction, submissions
from batch_assets.core.ledger.records import Submission
from batch_assets.core.response_store import Refreshes
from batch_assets.core.root import refusal_parts, response_parts

# Two refreshes of a pipeline differ by this many seconds at least, also when the clock was set back.
_APART = 0.001


def refreshes_of(tx: Transaction, pipeline: str) -> Refreshes:
    """The response files whose requests a refresh asked or waited for, with the newest one's `fresh_after`."""
    found: Refreshes = {}
    for file_id, batch_id, fresh_after in submissions.refreshed_files(tx, pipeline):
        parts = refusal_parts(pipeline, file_id) if batch_id is None else response_parts(pipeline, batch_id)
        found[parts[-1]] = max(fresh_after, found.get(parts[-1], 0.0))
    return found


def fresh_after_for(tx: Transaction, pipeline: str, partition: str, *, refresh: bool) -> float | None:
    """The `fresh_after` of the submission that is being built; None when it is no refresh.

    A refresh that a run of `batches` has begun to send goes on, whoever builds the next submission, until every
    row has its answer or a person cancels it: what it has been answered so far is not paid for again. One that a
    limit cut short was agreed to for so many requests: it goes on only when a person asks for a refresh again. Any
    other run keeps what it brought, and ends it.

    Args:
        refresh: a person asks for one.
    """
    before = submissions.newest(tx, pipeline, partition)
    if before is not None and is_going_on(before) and (refresh or not before.left_out):
        return before.fresh_after
    if not refresh:
        return None
    last = submissions.last_refresh(tx, pipeline)
    return max(tx.now, last + _APART) if last is not None else tx.now


def is_going_on(submission: Submission) -> bool:
    """Whether a submission in force is a refresh that has begun and is not over."""
    is_over = submission.final_at is not None or submission.is_canceled
    return submission.fresh_after is not None and submission.began_at is not None and not is_over
