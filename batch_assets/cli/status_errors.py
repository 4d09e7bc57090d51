"""What is wrong with a submission, as `status` shows it, and what the user can do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from batch_assets.cli import text
from batch_assets.core.text import duration

if TYPE_CHECKING:
    from batch_assets.core.ledger import Transaction
    from batch_assets.core.ledger.records import Batch, RequestFile
    from batch_assets.core.planning.snapshot import Snapshot


def errors_of(tx: Transaction, snapshot: Snapshot) -> Iterator[str]:
    """Yield the problems of request files and batches, and what the user can do about them."""
    from batch_assets.cli.remedies import with_remedy
    from batch_assets.core.ledger import downloads
    from batch_assets.core.ledger.batches import NEVER, NOT_CERTAIN
    from batch_assets.core.ledger.states import BatchState
    from batch_assets.core.planning.next_step import remedies
    from batch_assets.core.planning.steps import RestoreFile
    from batch_assets.core.planning.texts import lost_answers, maybe_deleted
    from batch_assets.core.remedies import CancelBatch, GiveUpAnswers, RunStage, Stage

    yield from _refusals(snapshot.files)
    needed = remedies(snapshot)
    cancels = {remedy.batch_id: remedy for remedy in needed if isinstance(remedy, CancelBatch | GiveUpAnswers)}
    for batch in snapshot.failing:
        failing = duration(tx.now - (batch.failing_since or tx.now))
        next_try = duration(max(0.0, batch.next_download_at - tx.now))
        tries = f"It has failed for {failing}, the next try is in {next_try}"
        yield with_remedy(f"{downloads.why_failed(tx, batch.id)}. {tries}", cancels.pop(batch.id, None))
    for batch_id, cancel in cancels.items():
        problem = maybe_deleted if isinstance(cancel, CancelBatch) else lost_answers
        yield with_remedy(problem(snapshot, batch_id), cancel)
    for batch in snapshot.batches:
        if batch.state is BatchState.COLLECTED and batch.next_delete_at >= NEVER:
            why = "its answers here are incomplete" if batch.replied else NOT_CERTAIN
            yield f"{batch.id} is kept at the API: {why}"
        if batch.paid_twice:
            yield f"{batch.id} of {batch.file_id} is paid twice: the API listed it after the file was sent again"
    for file_id, why in snapshot.rescue.held.items():
        yield f"requests of {file_id} are not asked by live calls: {why}"
    for remedy in needed:
        if isinstance(remedy, RestoreFile):
            last = text.ago(snapshot.now, remedy.last_try)
            tries = f"The last try was {last}, the next is in {duration(remedy.next_try - snapshot.now)}"
            build = RunStage(Stage.REQUESTS, snapshot.submission.pipeline, snapshot.submission.partition)
            yield with_remedy(f"{remedy.why}. {tries}", build)
    yield from _deadlines(tx, snapshot.batches)


def _deadlines(tx: Transaction, batches: Sequence[Batch]) -> Iterator[str]:
    """Yield the batches whose results the API soon deletes, or has deleted, before they are collected."""
    from batch_assets.core.ledger.deadlines import SOON_SECONDS, results_end

    for batch in batches:
        end = results_end(batch)
        if not batch.state.uncollected or end is None or end - tx.now >= SOON_SECONDS:
            continue
        deletion = f"will be deleted in {duration(end - tx.now)}" if end > tx.now else "are deleted"
        yield f"{batch.id}: its results {deletion}, and they are not collected"


def _refusals(files: Sequence[RequestFile]) -> Iterator[str]:
    """Yield the errors of request files that the API does not have."""
    from batch_assets.core.ledger.states import FileState

    shown = (FileState.UNRESOLVED, FileState.REFUSED)
    errors = Counter(
        (file.state, file.error) for file in files if file.error and (file.state.unsent or file.state in shown)
    )
    for (state, error), times in errors.items():
        name = next(file.name for file in files if (file.state, file.error) == (state, error))
        yield f"{name}{f' and {times - 1} more are' if times > 1 else ' is'} {state}: {error}"
