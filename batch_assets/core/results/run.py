"""Collect ended batches and join the table in one step. Dagster and the command line call this."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from batch_assets.core.answers.answers import Answers
from batch_assets.core.batches import repeats
from batch_assets.core.errors import ResultsError
from batch_assets.core.io.memory import release_memory
from batch_assets.core.io.pace import SLOW_LINE, Pace
from batch_assets.core.io.transfers import Progress, Transfers
from batch_assets.core.ledger import batches, downloads
from batch_assets.core.ledger.records import Batch
from batch_assets.core.ledger.shared_line import SharedLine
from batch_assets.core.pipeline.blocks import KEEP_EVERYTHING, RetentionConfig
from batch_assets.core.remedies import CancelBatch, GiveUpAnswers, Remedy
from batch_assets.core.results.collect import CollectReport, Downloaded, downloaded
from batch_assets.core.results.live_answers import store_live_answers
from batch_assets.core.results.parallel_lines import ParallelLines
from batch_assets.core.results.report import ResultsReport
from batch_assets.core.results.retention import apply_retention
from batch_assets.core.results.write import write_results
from batch_assets.core.root import Root
from batch_assets.core.store.missing_responses import reopen_lost, with_readable_responses


@dataclass(frozen=True)
class CollectedResults:
    """Report of one run of the results stage.

    Attributes:
        results: The report of the table; `None` if nothing was ever written for the partition.
        collected: The batches that were collected.
        problems: The problems, as text.
        remedies: What the user can do about the problems.
    """

    results: ResultsReport | None
    collected: list[CollectReport] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    remedies: list[Remedy] = field(default_factory=list)


def collect_results(
    root: Root,
    pipeline: str,
    partition: str = "",
    on_batch: Callable[[str, int], None] | None = None,
    retention: RetentionConfig = KEEP_EVERYTHING,
    *,
    partitions: Sequence[str] | None = None,
    due_only: bool = False,
    seconds: float | None = None,
    answers: Answers | None = None,
    joins: bool = True,
) -> CollectedResults:
    """Collect ended batches of a pipeline, join a partition's table again, and remove what is due.

    Args:
        root: The root.
        pipeline: The name of the pipeline.
        partition: The partition key; "" without partitions.
        on_batch: Called with (batch id, bytes downloaded so far).
        retention: The pipeline's retention; by default everything is kept.
        partitions: Collect only what these partitions need, see `downloads.to_collect`; `None` for every batch of
            the pipeline.
        due_only: Skip batches whose results failed to download until it is time to try them again.
        seconds: The time that the run has left; `None` for no limit. Batches that cannot be downloaded in it are
            left.
        answers: How the pipeline's own code makes columns of answers, see `Pipeline.own_answers`.
        joins: Whether the table is written. Otherwise answers are stored, and it stays as it is.

    Returns:
        What was collected. Batches whose results could not be fetched are listed as problems.

    Raises:
        PairingError: When the pipeline has lost its files. Its table stays as it is.
    """
    root.catch_up(pipeline, partition)
    problems = reopen_lost(root, pipeline)
    with root.ledger.read() as tx:
        ended = downloads.to_collect(tx, pipeline, partitions, due_only=due_only)
    problems += store_live_answers(root, pipeline)
    outcomes, left, repeated = _collect_all(root, pipeline, ended, seconds, on_batch)
    if problems:  # without its files, a complete table would become one of pending rows
        root.check_files(pipeline)
    results, set_aside = with_readable_responses(
        root, lambda: write_results(root, pipeline, partition, answers=answers) if joins else None
    )
    problems += [f"{batch.id} repeats a batch of {batch.file_id}: it is paid twice" for batch in repeated]
    problems += [f"results of {batch.id}: {SLOW_LINE}" for batch in left]
    problems += [problem for outcome in outcomes if (problem := _problem(outcome)) is not None]
    problems += set_aside
    problems += results.problems if results is not None else []
    problems += apply_retention(root, pipeline, retention)
    errors = [outcome for outcome in outcomes if isinstance(outcome, ResultsError)]
    return CollectedResults(
        results,
        collected=[outcome for outcome in outcomes if isinstance(outcome, CollectReport)],
        problems=problems,
        remedies=[error.remedy for error in errors if error.remedy is not None],
    )


def _collect_all(
    root: Root,
    pipeline: str,
    ended: list[Batch],
    seconds: float | None,
    on_batch: Callable[[str, int], None] | None,
) -> tuple[list[CollectReport | ResultsError], list[Batch], list[Batch]]:
    """Collect batches, and those that repeat one of them.

    Returns:
        What was collected or why it was not, the batches that were left, and those that repeat another one.
    """
    if not ended:
        return [], [], []
    root.check_endpoint()
    with SharedLine(root.ledger, pipeline).used() as line, ParallelLines(root.settings.processes) as parallel:
        pace: Pace[Batch] = Pace(seconds, lambda batch: batch.requests, line=line)
        outcomes, left = _collect(root, ended, pace, on_batch, parallel)
        repeated = _repeats_of(root, outcomes)
        outcomes += _collect(root, repeated, pace, on_batch, parallel)[0]
    return outcomes, left, repeated


def _problem(outcome: CollectReport | ResultsError) -> str | None:
    return str(outcome) if isinstance(outcome, ResultsError) else outcome.problem


def _note_failure(root: Root, batch: Batch, error: ResultsError) -> None:
    """Record that a batch's results could not be collected, and what a user can do about it."""
    refused, lost = isinstance(error.remedy, CancelBatch), isinstance(error.remedy, GiveUpAnswers)
    with root.ledger.write(batch.pipeline) as tx:
        downloads.failed(tx, batch.id, str(error), refused=refused, lost=lost)


def _repeats_of(root: Root, outcomes: list[CollectReport | ResultsError]) -> list[Batch]:
    """Return the batches that something between us and the API made in addition to those just collected."""
    collected = [outcome.batch_id for outcome in outcomes if isinstance(outcome, CollectReport)]
    repeated_ids = repeats.look_for(root, collected)
    if not repeated_ids:
        return []
    with root.ledger.read() as tx:
        return batches.by_ids(tx, repeated_ids)


def _collect(
    root: Root,
    ended: list[Batch],
    pace: Pace[Batch],
    on_batch: Callable[[str, int], None] | None,
    parallel: ParallelLines,
) -> tuple[list[CollectReport | ResultsError], list[Batch]]:
    """Download several batches at a time, and store one batch at a time in this thread.

    Parsing takes the memory, and two Python threads would not be faster; several processes may be.

    Returns:
        What was collected, or why it was not, in the order of the batches, and the batches that were left because
        they could not be downloaded before the run's end. Batches that other processes collect are left out.
    """
    ready: dict[str, tuple[Downloaded, ExitStack]] = {}
    outcomes: dict[str, CollectReport | ResultsError | None] = {}
    filing, is_over = threading.Lock(), threading.Event()

    @contextmanager
    def noting(batch: Batch) -> Iterator[None]:
        try:
            yield
        except ResultsError as error:
            outcomes[batch.id] = error
            _note_failure(root, batch, error)

    def download(batch: Batch, progress: Progress) -> tuple[Batch, ...]:
        with noting(batch), ExitStack() as stack:
            results = stack.enter_context(downloaded(root, batch, progress))
            with filing:
                if results is not None and not is_over.is_set():  # later its lease would never be released
                    ready[batch.id] = results, stack.pop_all()
        return ()

    def store(batch: Batch) -> None:
        if batch.id in ready:
            results, stack = ready.pop(batch.id)
            with noting(batch), stack:
                outcomes[batch.id] = results.store(parallel)
            del results, stack
            release_memory()

    def progress(batch: Batch, size: int) -> None:
        if on_batch is not None:
            on_batch(batch.id, size)

    transfers = Transfers(
        root.settings.transfers, download, after=store, progress=progress, breaks_off=True, pace=pace
    )
    try:
        transfers.run(ended)
    finally:
        with filing:
            is_over.set()
        with ExitStack() as unstored:
            for _, stack in ready.values():
                unstored.enter_context(stack)
    done = [outcome for batch in ended if (outcome := outcomes.get(batch.id)) is not None]
    return done, transfers.left
