"""Refreshes: asking again although answered. Which answers are of which refresh, and which one goes on.

A refresh is told from others by its `fresh_after`. An answer is of the newest refresh that wrote its request, or
found it in flight: no request is ever in two open batches, so a refresh takes what is on its way.
"""

from __future__ import annotations

from collections.abc import Iterable

from batch_assets.core.io.names import ResponseName
from batch_assets.core.ledger import Transaction, batches, submissions
from batch_assets.core.ledger.records import Submission
from batch_assets.core.root import Root
from batch_assets.core.store.outcomes import Outcomes, Refreshes, Untried, load_outcomes
from batch_assets.core.store.responses import ResponseFiles

# Two refreshes of a pipeline differ by this many seconds at least, also when the clock was set back.
_APART = 0.001


def outcomes_of(root: Root, pipeline: str) -> Outcomes:
    """The outcome in force of every request of a pipeline."""
    with root.ledger.read() as tx:
        refreshes = refreshes_of(tx, pipeline)
    return load_outcomes(ResponseFiles(root.storage, pipeline), refreshes)


def outcomes_for(root: Root, submission: Submission) -> Outcomes:
    """The same as far as it counts for a submission."""
    with root.ledger.read() as tx:
        refreshes, untried = refreshes_of(tx, submission.pipeline), untried_of(tx, submission)
    files = ResponseFiles(root.storage, submission.pipeline)
    return load_outcomes(files, refreshes, submission.fresh_after, untried)


def untried_of(tx: Transaction, submission: Submission) -> Untried:
    """The response files of batches that were being canceled already when a submission came to wait on them: what
    it wants of these is asked again by itself. Batches that are canceled while it waits are none of them.
    """
    if submission.is_canceled:
        return {}
    found = batches.canceled_before(tx, submission)
    return {ResponseName.of_batch(id_): submission.max_attempts - 1 for id_ in found}


def refreshes_of(tx: Transaction, pipeline: str) -> Refreshes:
    """The response files whose requests a refresh asked or waited for, with the newest one's `fresh_after`."""
    found: Refreshes = {}
    for file_id, batch_id, fresh_after in submissions.refreshed_files(tx, pipeline):
        name = ResponseName.of_refusal(file_id) if batch_id is None else ResponseName.of_batch(batch_id)
        found[name] = max(fresh_after, found.get(name, 0.0))
    return found


def fresh_after_for(tx: Transaction, pipeline: str, partition: str, *, refresh: bool) -> float | None:
    """The `fresh_after` of the submission that is being built; None when it is no refresh.

    A refresh that has begun goes on, whoever builds the next submission, see `goes_on`; a person who asks for one
    while it does gets no other.

    Args:
        refresh: a person asks for one.
    """
    before = submissions.newest(tx, pipeline, partition)
    if before is not None and goes_on(tx, before, asked_for=refresh):
        return before.fresh_after
    if not refresh:
        return None
    last = submissions.last_refresh(tx, pipeline)
    return max(tx.now, last + _APART) if last is not None else tx.now


def goes_on(tx: Transaction, submission: Submission, *, asked_for: bool = False) -> bool:
    """Whether the submission in force is of a refresh that the next one goes on with.

    It is so from when a run of `batches` has begun to send any of it until every row has its answer or a person
    cancels it: what it has been answered so far is not paid for again. One that a limit cut short each time was
    agreed to for so many requests: it goes on only when a person asks for a refresh again. Any other run keeps
    what it brought, and ends it.

    Args:
        asked_for: a person asks for a refresh.
    """
    if submission.fresh_after is None or submission.final_at is not None or submission.is_canceled:
        return False
    place = submission.pipeline, submission.partition
    has_begun, was_whole = submissions.of_refresh(tx, *place, submission.fresh_after)
    return has_begun and (was_whole or asked_for)


def waits_for_refresh(tx: Transaction, submission: Submission) -> bool:
    """Whether what a limit left out of a submission is asked only when a refresh is asked for again."""
    return submission.id in waiting_for_refresh(tx, [submission])


def waiting_for_refresh(tx: Transaction, given: Iterable[Submission]) -> set[str]:
    """The same of some submissions: ids of those of which it is true."""
    refreshing = [one for one in given if one.fresh_after is not None]
    ending = {one.id for one in refreshing if one.final_at is not None or one.is_canceled}
    found = submissions.of_refreshes(tx, [one.id for one in refreshing])
    return ending | {id_ for id_, (has_begun, was_whole) in found.items() if not (has_begun and was_whole)}
