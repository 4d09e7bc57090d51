"""What is left to do for a submission, and when."""

from __future__ import annotations

from dataclasses import dataclass

from batch_assets.core.batches.cancel import has_batches_to_cancel
from batch_assets.core.ledger import Transaction, leases, standstills, submissions
from batch_assets.core.ledger.downloads import collecting_name
from batch_assets.core.ledger.overview import Overview
from batch_assets.core.ledger.records import Submission
from batch_assets.core.ledger.standstills import Standstill

# While batches still run, the table is refreshed at most this often.
PARTIAL_SECONDS = 900.0
# Files that could not be sent or found are tried at most this often.
SEND_AGAIN_SECONDS = 60.0
# So is what a lost request file keeps from being asked again, more and more rarely, down to once in this long.
STANDSTILL_LAST_SECONDS = 3600.0
# A batch hidden beyond the grace period is looked for this often.
WATCH_SECONDS = 3600.0


@dataclass(frozen=True)
class Work:
    """What an unattended run could do for a submission.

    Attributes:
        send: `batches` has something to do, otherwise only `results`.
        pause: seconds that should have passed since the last round was opened.
        reason: in words.
    """

    send: bool
    pause: float
    reason: str


def work_for(tx: Transaction, submission: Submission, overview: Overview | None = None) -> Work | None:
    """What is left to do for a submission in force, None when nothing is or everything must wait.

    Requests that no run of `batches` has begun to send are a person's business: they cost money. What one
    is sending just now is its own.

    Args:
        overview: of this submission and others, when it is asked of many; read in the same transaction.
    """
    overview = overview or Overview.of(tx, [submission])
    if (work := _to_send(tx, submission, overview)) is not None and _is_unattended(tx, submission):
        return work
    if (work := _to_collect(tx, submission, overview)) is not None:
        return work if not leases.is_held(tx, collecting_name(submission.pipeline)) else None
    is_watched = (submission.pipeline, submission.partition) in overview.watched
    if is_watched and _is_unattended(tx, submission):
        return Work(True, WATCH_SECONDS, "the batch of an upload that got no answer may still turn up")
    return None


def _to_collect(tx: Transaction, submission: Submission, overview: Overview) -> Work | None:
    """What is left to collect of it, to join, or to make known."""
    waited, ended = overview.waited[submission.id], overview.ended_for(submission)
    running = sum(file.state.in_flight for file in waited) - len({batch.file_id for batch in ended})
    pause = PARTIAL_SECONDS if running > 0 else 0.0
    if ended:
        return Work(False, pause, f"{len(ended)} batches have ended")
    if submission.joined_seq is None and _is_unattended(tx, submission):
        missing = "not written since it was canceled" if submission.is_canceled else "never written"
        return Work(False, pause, f"its table was {missing}")
    if any((file.collected_seq or 0) > (submission.joined_seq or 0) for file in waited):
        return Work(False, pause, "answers have come in since the last join")
    if submission.final_at is not None and submission.announced_at is None:
        return Work(False, 0.0, "the complete results are not announced yet")
    return None


def _is_unattended(tx: Transaction, submission: Submission) -> bool:
    """Whether a run of `batches` has begun to send it, and none is at it just now."""
    name = submissions.sending_name(submission.id)
    return submission.began_at is not None and not leases.is_held(tx, name)


def next_try(standstill: Standstill) -> float:
    """When failed requests that a lost file keeps from being asked again are tried unattended."""
    return standstill.next_try(SEND_AGAIN_SECONDS, STANDSTILL_LAST_SECONDS)


def _stands_still(tx: Transaction, submission: Submission) -> bool:
    standstill = standstills.current(tx, submission.id)
    return standstill is not None and tx.now < next_try(standstill)


def _to_send(tx: Transaction, submission: Submission, overview: Overview) -> Work | None:
    """What is left to send of it, or to cancel, if that may be done unattended."""
    if submission.began_at is None:
        return None
    waited = overview.waited[submission.id]
    if submission.is_canceled and has_batches_to_cancel(tx, submission):
        return Work(True, SEND_AGAIN_SECONDS, "batches of it run on although it was canceled")
    if submission.ask_again and not _stands_still(tx, submission):
        return Work(True, 0.0, f"{submission.ask_again} failed requests are asked again")
    ready = [file for file in waited if file.state.sendable and file.not_before <= tx.now]
    if ready:
        return Work(True, SEND_AGAIN_SECONDS, f"{len(ready)} request files are left to send")
    in_doubt = sum(file.id in overview.in_doubt for file in waited)
    if in_doubt:
        return Work(True, SEND_AGAIN_SECONDS, f"{in_doubt} request files are in doubt")
    return None
