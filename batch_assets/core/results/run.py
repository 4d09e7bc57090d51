"""What Dagster and the command line call: collect and join in one step, and what is left to do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from batch_assets.core.answers.answers import Answers
from batch_assets.core.errors import ResultsError
from batch_assets.core.io.memory import release_memory
from batch_assets.core.io.transfers import Progress, Transfers
from batch_assets.core.ledger import batches, downloads
from batch_assets.core.ledger.records import Batch
from batch_assets.core.ledger.states import BatchState
from batch_assets.core.pipeline.blocks import KEEP_EVERYTHING, RetentionConfig
from batch_assets.core.results.collect import CollectReport, Downloaded, downloaded
from batch_assets.core.results.report import ResultsReport
from batch_assets.core.results.retention import apply_retention
from batch_assets.core.results.write import write_results
from batch_assets.core.root import Root
from batch_assets.core.store.missing_responses import reopen_lost


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
        ended = batches.in_state(tx, BatchState.ENDED, pipeline=pipeline)
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
                downloads.failed(tx, batch.id, str(error))

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
