"""What the sensor says when there is nothing to do: the line people read on the Automation page."""

from __future__ import annotations

from collections import Counter

from batch_assets.core.ledger import Transaction, batches, standstills, submissions
from batch_assets.core.ledger.records import Submission
from batch_assets.core.rebuild import is_there
from batch_assets.core.settings import Settings
from batch_assets.core.workspace import unreachable


def has_ledger(settings: Settings) -> bool:
    """Whether there is a ledger to read, or one that was lost and can be rebuilt."""
    return is_there(settings)


def situation(tx: Transaction, in_force: list[Submission]) -> list[str]:
    """How things stand, in words: "4 of 12 batches in progress, oldest 03:12 h"."""
    ours = {s.pipeline for s in in_force}
    open_batches = {b.file_id: b for b in batches.in_state(tx, "open") if b.pipeline in ours}
    said = [unreachable(b.id) for b in batches.in_state(tx, "unreachable") if b.pipeline in ours]
    total = 0
    for submission in in_force:
        waited = submissions.waited_on(tx, submission.id)
        if any(file.id in open_batches for file in waited):
            total += sum(file.batch_id is not None for file in waited)
        said += _left(submission, Counter(file.state for file in waited))
        said += _standstill(tx, submission)
        said += _paid_twice(submission, submissions.paid_twice(tx, submission.id))
    if open_batches:
        submitted = [batch.submitted_at for batch in open_batches.values() if batch.submitted_at is not None]
        oldest = tx.now - min(submitted, default=tx.now)
        said.insert(0, f"{len(open_batches)} of {total} batches in progress, oldest {_hours(oldest)} h")
    return said


def _left(submission: Submission, states: Counter[str]) -> list[str]:
    """Files that are on no way to an answer."""
    said = []
    if states["ready"] and submission.began_at is None:
        said.append(
            f"{states['ready']} request files are ready: materialize {submission.pipeline}/batches to send them"
        )
    if refused := states["refused"] + states["stopped"]:
        said.append(f"{refused} request files were refused: see the last run of {submission.pipeline}/batches")
    if states["sending"] + states["unresolved"]:
        said.append(f"{states['sending'] + states['unresolved']} request files are on their way or in doubt")
    return said


def _standstill(tx: Transaction, submission: Submission) -> list[str]:
    """What keeps failed requests from being asked again."""
    found = standstills.current(tx, submission.id) if submission.ask_again else None
    return [f"{submission.pipeline}: {found.why}"] if found is not None else []


def _paid_twice(submission: Submission, ids: list[str]) -> list[str]:
    if not ids:
        return []
    are = "batch is" if len(ids) == 1 else "batches are"
    return [f"{len(ids)} {are} paid twice, see batch-assets status {submission.pipeline}: {', '.join(ids)}"]


def _hours(seconds: float) -> str:
    minutes = int(seconds) // 60
    return f"{minutes // 60:02d}:{minutes % 60:02d}"
