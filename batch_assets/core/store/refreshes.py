"""Refreshes, which send requests again although they have an answer.

A refresh is identified by its `fresh_after`. An answer belongs to the newest refresh that wrote its request or
found it in flight. No request is ever in two open batches, so a refresh accepts the answers of requests in flight.
"""

from __future__ import annotations

from collections.abc import Iterable

from batch_assets.core.io.names import ResponseName
from batch_assets.core.ledger import Transaction, batches, refresh_records, submissions
from batch_assets.core.ledger.records import Submission
from batch_assets.core.root import Root
from batch_assets.core.store.outcomes import NO_ATTEMPT, Outcomes, Refreshes, Untried, in_force, read_responses

# Two refreshes of a pipeline are at least this many seconds apart, even if the clock was set back.
_APART = 0.001


def outcomes_of(root: Root, pipeline: str) -> Outcomes:
    """Read the outcome in force of every request of a pipeline."""
    with root.ledger.read() as tx:
        refreshes = refreshes_of(tx, pipeline)
    files, responses = read_responses(root.storage, pipeline)
    return in_force(responses, files, refreshes)


def untried_of(tx: Transaction, submission: Submission) -> Untried:
    """Return the response files of batches that were canceled before a submission began to wait for them.

    The submission's requests in these batches are retried automatically. Batches that are canceled while the
    submission waits for them do not count.

    A chain goes on from an answer, which a submission does not send again and does not wait for. So for follow-ups
    all batches count that were canceled before the submission was made.
    """
    if submission.is_canceled:
        return {}
    untried: Untried = {}
    if submission.follow_ups is not None:
        of_chains = batches.canceled_before(tx, submission, of_all=True)
        untried = {ResponseName.of_batch(id_): NO_ATTEMPT for id_ in of_chains}
    batch_ids = batches.canceled_before(tx, submission)
    return untried | {ResponseName.of_batch(id_): submission.max_attempts - 1 for id_ in batch_ids}


def refreshes_of(tx: Transaction, pipeline: str) -> Refreshes:
    """Return `fresh_after` of the newest refresh that sent or waited for the requests of each response file."""
    refreshes: Refreshes = {}
    for file_id, batch_id, fresh_after in refresh_records.refreshed_files(tx, pipeline):
        name = ResponseName.of_refusal(file_id) if batch_id is None else ResponseName.of_batch(batch_id)
        refreshes[name] = max(fresh_after, refreshes.get(name, 0.0))
    return refreshes


def fresh_after_for(
    tx: Transaction, pipeline: str, partition: str, *, refresh: bool, begun: float | None = None
) -> float | None:
    """Return the `fresh_after` of a submission that is being built; `None` if it is not part of a refresh.

    A refresh that has begun continues with the next submission, see `goes_on`. A user who asks for a refresh in
    the meantime does not start another one.

    Args:
        tx: A transaction.
        pipeline: The name of the pipeline.
        partition: The partition key; "" without partitions.
        refresh: Whether a user asks for a refresh.
        begun: The `fresh_after` of a refresh that began with another partition of the same files.
    """
    before = submissions.newest(tx, pipeline, partition)
    if before is not None and goes_on(tx, before, asked_for=refresh):
        return before.fresh_after
    if not refresh:
        return None
    if begun is not None:
        return begun
    last = refresh_records.last_refresh(tx, pipeline)
    return max(tx.now, last + _APART) if last is not None else tx.now


def goes_on(tx: Transaction, submission: Submission, *, asked_for: bool = False) -> bool:
    """Whether the next submission continues the refresh of the submission in force.

    It does from the moment when a run of `batches` begins to send the refresh until every row has its answer or a
    user cancels it. So its answers are not paid for twice. If a limit cut every submission of the refresh short,
    the user has agreed only to that many requests. Then the refresh continues only if a user asks for a refresh
    again. Any other run keeps its answers and ends it.

    Args:
        tx: A transaction.
        submission: The submission in force.
        asked_for: Whether a user asks for a refresh.
    """
    if submission.fresh_after is None or submission.final_at is not None or submission.is_canceled:
        return False
    has_begun, was_whole = refresh_records.of_refresh(
        tx, submission.pipeline, submission.partition, submission.fresh_after
    )
    return has_begun and (was_whole or asked_for)


def waiting_for_refresh(tx: Transaction, candidates: Iterable[Submission]) -> set[str]:
    """Return the ids of the submissions whose left-out requests wait until a user asks for a refresh again."""
    refreshing = [submission for submission in candidates if submission.fresh_after is not None]
    ended = {
        submission.id for submission in refreshing if submission.final_at is not None or submission.is_canceled
    }
    progress = refresh_records.of_refreshes(tx, [submission.id for submission in refreshing])
    return ended | {id_ for id_, (has_begun, was_whole) in progress.items() if not (has_begun and was_whole)}
