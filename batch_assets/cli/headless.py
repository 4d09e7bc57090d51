"""A whole run in one process: build, submit, wait, collect and ask again, until every row is final.

The ledger determines what is left to do, nothing in memory does. So a run may be stopped at any point and
started again, and the sensor may work on the same pipeline at the same time.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from batch_assets.cli.remedies import as_texts, error_as_text
from batch_assets.cli.what_next import why_stuck
from batch_assets.core.batches.caps import record_caps
from batch_assets.core.batches.feeding import ask_account, note_turns
from batch_assets.core.batches.poll import poll
from batch_assets.core.batches.submit import submit_batches
from batch_assets.core.batches.submit_report import SubmitReport
from batch_assets.core.dataset.partition_rows import rows_left_out
from batch_assets.core.erase.later import collect_and_erase
from batch_assets.core.errors import BatchAssetsError, BusyError, LeaseLostError, UnreachableError
from batch_assets.core.ledger import submissions
from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.ledger.states import BatchState, FileState
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.planning.next_step import next_step, round_of
from batch_assets.core.planning.snapshot import SEND_AGAIN_SECONDS, Snapshot
from batch_assets.core.planning.steps import (
    PARTIAL_SECONDS,
    ApproveFiles,
    AskTheRest,
    Collect,
    Join,
    MaterializeBatches,
    NeedsUser,
    RaiseBudget,
    Send,
    Step,
    Wait,
    Waiting,
)
from batch_assets.core.requests.build import build_requests
from batch_assets.core.requests.confirmation import Confirmation
from batch_assets.core.requests.report import NOTHING_AGAIN, AskAgain, RequestsReport
from batch_assets.core.results.report import ResultsReport
from batch_assets.core.root import Root

# Bounds of the time between two reads of the ledger, in seconds. Another process may have changed it meanwhile.
_SHORTEST_NAP, _LONGEST_NAP = 0.05, 5.0
# Pause after a join, in multiples of its duration. Joining a large table for every batch that ends would take
# longer than the batches: while others still run, at most about a tenth of the time goes into joins.
_PAUSE_AFTER_JOIN = 9.0
# The run gives up when the API was unreachable for this many first poll intervals (30 minutes with the real API).
# The batches continue meanwhile.
_PATIENCE = 180.0


class Watcher(Protocol):
    """A display for the progress of a run."""

    def rows_read(self, rows: int) -> None:
        """Show how many rows of the dataset were read so far."""

    def built(self, report: RequestsReport) -> None:
        """Show what the first stage built."""

    def sending(self, file: RequestFile) -> None:
        """Show that the upload of a request file begins."""

    def submitted(self, report: SubmitReport) -> None:
        """Show what a run of the second stage did."""

    def polled(self, snapshot: Snapshot) -> None:
        """Show the batches of the submission, as they were last polled."""

    def downloaded(self, batch_id: str, byte_count: int) -> None:
        """Show how many bytes of a batch's results were downloaded so far."""

    def joined(self, results: ResultsReport) -> None:
        """Show what the results table contains."""

    def problem(self, text: str) -> None:
        """Show a problem that the run continues with."""


class RunFailedError(BatchAssetsError):
    """Rows have no answer, and nothing is in flight that could bring one."""


def run_pipeline(
    root: Root,
    pipeline: Pipeline,
    partition: str,
    watcher: Watcher,
    *,
    again: AskAgain = NOTHING_AGAIN,
    is_approved: bool = False,
    table: Any = None,
) -> ResultsReport:
    """Run a pipeline until every row of the partition has its final result, or all that the limit allows.

    Args:
        root: The root.
        pipeline: The pipeline.
        partition: The partition key, "" if the pipeline has no partitions.
        watcher: The display for its progress.
        again: See `build_requests`.
        is_approved: The user has agreed to whatever the run costs.
        table: See `build_requests`.

    Returns:
        The report of the last join.

    Raises:
        RunFailedError: When the run cannot finish. Batches that were submitted continue.
        BatchAssetsError: When a stage fails.
    """
    confirmation = Confirmation(pipeline, is_approved=is_approved)
    report = build_requests(
        root, pipeline, partition, watcher.rows_read, confirmation=confirmation, table=table, **asdict(again)
    )
    watcher.built(report)
    if report.without_partition:
        left_out = rows_left_out(pipeline, report.without_partition, report.without_partition_examples)
        watcher.problem(left_out)
    for column in report.mixed_columns:
        watcher.problem(column.as_text)
    record_caps(root, [pipeline])
    ask_account(root)
    run = _Run(root, pipeline, partition, watcher)
    run.send(unattended=False)
    run.poll(now=True)
    while not run.is_final():
        run.send_remaining()
        run.nap()
        run.poll()
    assert run.results is not None
    return run.results


@dataclass(frozen=True)
class _Trouble:
    """The problem that a step has, and since when.

    Attributes:
        text: The problem, for the user.
        since: Time of its first occurrence, by the monotonic clock.
    """

    text: str
    since: float


class _Run:
    """The steps of the loop, and the state that it keeps between them.

    Attributes:
        results: Report of the last join, None before the first.
    """

    def __init__(self, root: Root, pipeline: Pipeline, partition: str, watcher: Watcher) -> None:
        self._root, self._pipeline_partition, self._watcher = root, (pipeline.name, partition), watcher
        self._pipeline = pipeline
        self.results: ResultsReport | None = None
        self._in_table: set[str] | None = None
        self._next_join = 0.0
        self._sent_at = 0.0  # by the ledger's clock
        self._troubles: dict[str, _Trouble] = {}

    def send(self, *, unattended: bool) -> None:
        """Run the batches stage once."""
        self._sent_at = self._snapshot().now
        report = submit_batches(
            self._root,
            *self._pipeline_partition,
            unattended=unattended,
            on_file=self._watcher.sending,
            own_answers=self._pipeline.own_answers,
            tools=self._pipeline.hooks.tool_functions,
        )
        if report is not None:
            self._watcher.submitted(report)
        self._watcher.polled(self._snapshot())

    def send_remaining(self) -> None:
        """Send files that had to wait and failed requests again, and look for uploads whose outcome is unknown."""
        snapshot = self._snapshot()
        if snapshot.until_room:
            note_turns(self._root)
        step = round_of(next_step(snapshot))
        if not isinstance(step, Send) or (step.pause and not self._may_send_again(snapshot)):
            return
        try:
            self.send(unattended=True)
            self._note("send", [])
        except (BusyError, LeaseLostError, UnreachableError) as error:
            self._note("send", [error_as_text(error)])

    def _may_send_again(self, snapshot: Snapshot) -> bool:
        """Return whether the `retry-after` is over or, without one, enough time has passed since the last try."""
        if snapshot.to_release:  # a stub was answered since
            return True
        deadlines = snapshot.rescue.due_times.values()
        if any(self._sent_at < due_at <= snapshot.now for due_at in deadlines):  # one has passed since
            return True
        if any(self._sent_at < file.not_before <= snapshot.now for file in snapshot.in_state(FileState.READY)):
            return True
        return snapshot.now >= self._sent_at + min(SEND_AGAIN_SECONDS, 10 * self._interval)

    def poll(self, *, now: bool = False) -> None:
        """Poll the API for batches that are due, if this submission waits for any, or for room that they take.

        Args:
            now: Poll all batches at once, whether they are due or not.
        """
        snapshot = self._snapshot()
        if snapshot.until_room or any(batch.state is not BatchState.ENDED for batch in snapshot.uncollected):
            polled = poll(self._root, now=now)
            self._note("poll", [*polled.problems, *as_texts(polled.remedies)])
            self._watcher.polled(self._snapshot())

    def is_final(self) -> bool:
        """Collect and join new answers, and return whether every row, up to the limit, has its final result.

        Raises:
            RunFailedError: When only the user can continue.
        """
        snapshot = self._snapshot()
        if self._should_join(snapshot):
            self._join()
        if self.results is not None and self.results.final:
            return True
        snapshot = self._snapshot()  # another process may have sent or collected something since
        step = next_step(snapshot)
        if isinstance(step, Wait) and step.why in (Waiting.BUDGET, Waiting.PILOT) and self.results is not None:
            return True  # none of its batches runs: others free money for it or judge its pilot
        if not _is_stuck(step):
            return False
        is_rest = isinstance(step, NeedsUser) and isinstance(step.remedy, ApproveFiles | RaiseBudget | AskTheRest)
        if is_rest and self.results is not None:
            return True
        reasons = "; ".join(why_stuck(snapshot)) or "no request file has the requests that rows wait for"
        raise RunFailedError(f"{reasons}. Fix it and run again: nothing that was submitted is sent twice")

    def _should_join(self, snapshot: Snapshot) -> bool:
        step = next_step(snapshot, put_off=(Send,))
        # Another run may have joined answers or completed the table, and this one has no report of it yet.
        is_new = self._in_table != _in_table(snapshot) or snapshot.submission.final_at is not None
        if not is_new and not isinstance(step, Collect | Join):
            return False
        return not snapshot.others_run or time.monotonic() >= self._next_join

    def _join(self) -> None:
        started = time.monotonic()
        try:
            report = collect_and_erase(
                self._root,
                *self._pipeline_partition,
                pipeline=self._pipeline,
                on_batch=self._watcher.downloaded,
                retention=self._pipeline.config.retention,
                due_only=self.results is not None,  # the first time all, because the user waits
                answers=self._pipeline.own_answers,
            )
        except (BusyError, LeaseLostError) as error:
            self._note("collect", [error_as_text(error)])
            return
        self._note("collect", [*report.problems, *as_texts(report.remedies)])
        elapsed = time.monotonic() - started
        self._next_join = started + elapsed + min(elapsed * _PAUSE_AFTER_JOIN, PARTIAL_SECONDS)
        snapshot = self._snapshot()
        self._in_table = _in_table(snapshot)
        self._watcher.polled(snapshot)
        if report.results is not None:
            self.results = report.results
            self._watcher.joined(report.results)

    def nap(self) -> None:
        """Sleep until something may have changed."""
        snapshot = self._snapshot()
        if _is_stuck(next_step(snapshot)):
            return  # nothing will change, so the next step reports it at once
        until = snapshot.next_change()
        seconds = until - snapshot.now if until is not None else _LONGEST_NAP
        if isinstance(next_step(snapshot, put_off=(Send,)), Collect | Join):
            seconds = min(seconds, max(0.0, self._next_join - time.monotonic()))
        if self._troubles:
            seconds = max(seconds, self._interval)
        time.sleep(min(max(seconds, _SHORTEST_NAP), _LONGEST_NAP))

    def _note(self, step: str, problems: list[str]) -> None:
        """Report problems that were not reported yet; give up when they last.

        Raises:
            RunFailedError: When a step has failed for too long.
        """
        if not problems:
            self._troubles.pop(step, None)
            return
        text = "; ".join(problems)
        before = self._troubles.get(step)
        if before is None or before.text != text:
            self._watcher.problem(text)
        since = before.since if before is not None else time.monotonic()
        self._troubles[step] = _Trouble(text, since)
        if time.monotonic() - since > _PATIENCE * self._interval:
            raise RunFailedError(
                f"{text}. The run gives up waiting; submitted batches continue. Run it again later: "
                "nothing is sent twice"
            )

    def _snapshot(self) -> Snapshot:
        with self._root.ledger.read() as tx:
            submission = submissions.newest(tx, *self._pipeline_partition)
            assert submission is not None, "the run has built one"
            return Snapshot.of(tx, submission)

    @property
    def _interval(self) -> float:
        return self._root.settings.first_poll


def _is_stuck(step: Step) -> bool:
    """Return whether only the user can continue. Files that another run has built are sent by that run."""
    return isinstance(step, NeedsUser) and not isinstance(step.remedy, MaterializeBatches)


def _in_table(snapshot: Snapshot) -> set[str]:
    """Return the ids of the request files whose answers the last join has read."""
    joined = snapshot.submission.joined_seq or 0
    return {file.id for file in snapshot.in_state(FileState.COLLECTED) if (file.collected_seq or 0) <= joined}
