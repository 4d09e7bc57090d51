"""What Dagster and the command line call: collect and join in one step, and what is left to do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from batch_assets.core.answers.answers import Answers
from batch_assets.core.cancel import has_batches_to_cancel
from batch_assets.core.errors import ResultsError
from batch_assets.core.io.memory import release_memory
from batch_assets.core.io.transfers import Progress, Transfers
from batch_assets.core.ledger import Transaction, batches, downloads, leases, standstills, submissions
from batch_assets.core.ledger.overview import Overview
from batch_assets.core.ledger.records import HOLDING, Batch, Submission
from batch_assets.core.ledger.standstills import Standstill
from batch_assets.core.pipeline.blocks import KEEP_EVERYTHING, RetentionConfig
from batch_assets.core.results.collect import CollectReport, Downloaded, downloaded
from batch_assets.core.results.report import ResultsReport
from batch_assets.core.results.retention import apply_retention
from batch_assets.core.results.write import write_results
from batch_assets.core.root import Root
from batch_assets.core.store.missing_responses import reopen_lost

# While batches still run, the table is refreshed at most this often.
PARTIAL_SECONDS = 900.0
# Files that could not be sent or found, and results that could not be had, are tried at most this often.
SEND_AGAIN_SECONDS = 60.0
COLLECT_AGAIN_SECONDS = 60.0
# So is what a lost request file keeps from being asked again, more and more rarely, down to once in this long.
STANDSTILL_LAST_SECONDS = 3600.0
# Results that have failed for long are tried more and more rarely, down to once in this long.
COLLECT_LAST_SECONDS = 3600.0
# A batch hidden beyond the grace period is looked for this often.
WATCH_SECONDS = 3600.0


@dataclass
class CollectedResults:
    """What one run of the results stage did."""

    results: ResultsReport | None
    collected: list[CollectReport] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def collect_results(
    root: Root,
    pipeline: str,
    partition: str = "",
    on_batch: Callable[[str, int], None] | None = None,
    retention: RetentionConfig = KEEP_EVERYTHING,
    *,
    due_only: bool = False,
    answers: Answers | None = None,
) -> CollectedResults:
    """Collects every ended batch of a pipeline, joins a partition's table anew, and removes what is due.

    Args:
        on_batch: told (batch id, bytes downloaded so far).
        retention: of the pipeline; by default everything is kept.
        answers: of a pipeline whose own code makes columns of them, see `Pipeline.own_answers`.
        due_only: leave results that were not to be had for later, when it is their time again.

    Returns:
        What was collected; batches whose results were not to be had are named as problems.
    """
    done = CollectedResults(None, problems=reopen_lost(root, pipeline))
    with root.ledger.read() as tx:
        ended = batches.in_state(tx, "ended", pipeline=pipeline)
        ended = [batch for batch in ended if not due_only or batch.next_poll_at <= tx.now]
    ended.sort(key=lambda batch: batch.file_id or "")
    if ended:
        root.check_endpoint()
    _collect(root, ended, done, on_batch)
    done.results = write_results(root, pipeline, partition, answers=answers)
    done.problems += done.results.problems if done.results is not None else []
    done.problems += apply_retention(root, pipeline, retention)
    return done


def _collect(
    root: Root, ended: list[Batch], done: CollectedResults, on_batch: Callable[[str, int], None] | None
) -> None:
    """Downloads several batches at a time. Their lines are parsed one batch at a time, in this thread: that takes
    the memory, and no two threads of Python would do it sooner.
    """
    ready: dict[str, tuple[Downloaded, ExitStack]] = {}
    found: dict[str, CollectReport | ResultsError | None] = {}
    filing, is_over = threading.Lock(), threading.Event()

    @contextmanager
    def noting(batch: Batch) -> Iterator[None]:
        try:
            yield
        except ResultsError as error:
            found[batch.id] = error
            with root.ledger.write() as tx:
                downloads.failed(tx, batch.id, str(error), COLLECT_AGAIN_SECONDS, COLLECT_LAST_SECONDS)

    def download(batch: Batch, progress: Progress) -> tuple[Batch, ...]:
        with noting(batch), ExitStack() as stack:
            results = stack.enter_context(downloaded(root, batch, progress))
            with filing:
                if results is not None and not is_over.is_set():  # afterwards nobody would ever let go of it
                    ready[batch.id] = results, stack.pop_all()
        return ()

    def store(batch: Batch) -> None:
        if batch.id in ready:
            results, stack = ready.pop(batch.id)
            with noting(batch), stack:
                found[batch.id] = results.store()
            del results, stack
            release_memory()

    def progress(batch: Batch, size: int) -> None:
        if on_batch is not None:
            on_batch(batch.id, size)

    try:
        Transfers(root.settings.transfers, download, after=store, progress=progress, breaks_off=True).run(ended)
    finally:
        with filing:
            is_over.set()
        with ExitStack() as rest:
            for _, stack in ready.values():
                rest.enter_context(stack)
    for report in [found.get(batch.id) for batch in ended]:
        if isinstance(report, ResultsError):
            done.problems.append(str(report))
        elif report is not None:
            done.collected.append(report)
            done.problems += [report.problem] if report.problem else []


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
    running = sum(file.state in HOLDING for file in waited) - len({batch.file_id for batch in ended})
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


def collecting_name(pipeline: str) -> str:
    """The lease that a person's run marks while it brings results back: nobody is sent to do it beside it."""
    return f"collecting:{pipeline}"


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
    ready = [file for file in waited if file.state in ("ready", "too_large") and file.not_before <= tx.now]
    if ready:
        return Work(True, SEND_AGAIN_SECONDS, f"{len(ready)} request files are left to send")
    in_doubt = sum(file.id in overview.in_doubt for file in waited)
    if in_doubt:
        return Work(True, SEND_AGAIN_SECONDS, f"{in_doubt} request files are in doubt")
    return None
