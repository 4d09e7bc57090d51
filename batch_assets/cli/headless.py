"""The whole chain in one process: build, submit, wait, collect, ask again, until every row is final.

It keeps nothing in memory that matters: the ledger says what is left to do, so it may be stopped at any
point and started again, and the sensor may work on the same pipeline meanwhile.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from batch_assets.cli.remedies import error_in_words, in_words
from batch_assets.cli.what_next import why_stuck
from batch_assets.core.batches.poll import poll
from batch_assets.core.batches.submit import SubmitReport, submit_batches
from batch_assets.core.dataset.partition_rows import rows_left_out
from batch_assets.core.errors import BatchAssetsError, BusyError, LeaseLostError, UnreachableError
from batch_assets.core.ledger import submissions
from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.ledger.states import BatchState, FileState
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.planning.next_step import next_step, round_of
from batch_assets.core.planning.snapshot import SEND_AGAIN_SECONDS, Snapshot
from batch_assets.core.planning.steps import (
    PARTIAL_SECONDS,
    AskTheRest,
    Collect,
    Join,
    MaterializeBatches,
    Person,
    Send,
    Step,
)
from batch_assets.core.requests.build import build_requests
from batch_assets.core.requests.report import NOTHING_AGAIN, AskAgain, RequestsReport
from batch_assets.core.results.report import ResultsReport
from batch_assets.core.results.run import collect_results
from batch_assets.core.root import Root

# The longest time between two looks at the ledger: another process may have moved things on.
_SHORTEST_NAP, _LONGEST_NAP = 0.05, 5.0
# Joining a large table again for every batch that ends would cost more than the batches: at most about a
# tenth of the time goes into it while others still run.
_PAUSE_AFTER_JOIN = 9.0
# With the API out of reach, this many first poll intervals go by before the run gives up (30 minutes with
# the real API). The batches go on meanwhile.
_PATIENCE = 180.0


class Watcher(Protocol):
    """What shows the progress of a run."""

    def rows_read(self, rows: int) -> None: ...
    def built(self, report: RequestsReport) -> None: ...
    def sending(self, file: RequestFile) -> None: ...
    def submitted(self, report: SubmitReport) -> None: ...
    def looked(self, snapshot: Snapshot) -> None: ...
    def downloaded(self, batch_id: str, byte_count: int) -> None: ...
    def joined(self, results: ResultsReport) -> None: ...
    def problem(self, text: str) -> None: ...


class RunFailedError(BatchAssetsError):
    """Rows are left without an answer and nothing is under way that could bring one."""


def run_pipeline(
    root: Root,
    pipeline: Pipeline,
    partition: str,
    watcher: Watcher,
    *,
    again: AskAgain = NOTHING_AGAIN,
    table: Any = None,
) -> ResultsReport:
    """Runs a pipeline until every row of the partition has its final result, or the limit leaves nothing to do.

    Args:
        again, table: see `build_requests`.

    Errors:
        RunFailedError: it cannot come to an end; what was sent is kept.
        BatchAssetsError: any other of the stages' own errors.
    """
    report = build_requests(root, pipeline, partition, watcher.rows_read, table=table, **asdict(again))
    watcher.built(report)
    if report.without_partition:
        watcher.problem(rows_left_out(pipeline, report.without_partition))
    run = _Run(root, pipeline, partition, watcher)
    run.send(unattended=False)
    run.look(now=True)
    while not run.is_final():
        run.send_what_is_left()
        run.nap()
        run.look()
    assert run.results is not None
    return run.results


@dataclass(frozen=True)
class _Trouble:
    """What keeps a step from its work, and since when (monotonic clock)."""

    text: str
    since: float


class _Run:
    """The loop's steps, and the little it remembers between them."""

    def __init__(self, root: Root, pipeline: Pipeline, partition: str, watcher: Watcher) -> None:
        self._root, self._place, self._watcher = root, (pipeline.name, partition), watcher
        self._retention, self._own_answers = pipeline.config.retention, pipeline.own_answers
        self.results: ResultsReport | None = None
        self._in_table: set[str] | None = None
        self._next_join = 0.0
        self._sent_at = 0.0  # by the ledger's clock
        self._troubles: dict[str, _Trouble] = {}

    def send(self, *, unattended: bool) -> None:
        self._sent_at = self._snapshot().now
        report = submit_batches(self._root, *self._place, unattended=unattended, on_file=self._watcher.sending)
        if report is not None:
            self._watcher.submitted(report)
        self._watcher.looked(self._snapshot())

    def send_what_is_left(self) -> None:
        """Files that had to wait, failed requests to ask again, uploads whose outcome is unknown."""
        snapshot = self._snapshot()
        step = round_of(next_step(snapshot))
        if not isinstance(step, Send) or (step.pause and not self._may_send_again(snapshot)):
            return
        try:
            self.send(unattended=True)
            self._note("send", [])
        except (BusyError, LeaseLostError, UnreachableError) as error:
            self._note("send", [error_in_words(error)])

    def _may_send_again(self, snapshot: Snapshot) -> bool:
        """As soon as the time is over that the API asked for; where nothing says how long, after a while."""
        if any(self._sent_at < file.not_before <= snapshot.now for file in snapshot.in_state(FileState.READY)):
            return True
        return snapshot.now >= self._sent_at + min(SEND_AGAIN_SECONDS, 10 * self._interval)

    def look(self, *, now: bool = False) -> None:
        """Asks the API about batches that are due, unless nothing of ours is open."""
        if any(batch.state is not BatchState.ENDED for batch in self._snapshot().uncollected):
            polled = poll(self._root, now=now)
            self._note("poll", [*polled.problems, *map(in_words, polled.remedies)])
            self._watcher.looked(self._snapshot())

    def is_final(self) -> bool:
        """Collects and joins what has come in; whether every row has its final result, or as many as the limit
        allows.

        Errors:
            RunFailedError: nothing is under way any more.
        """
        snapshot = self._snapshot()
        if self._should_join(snapshot):
            self._join()
        if self.results is not None and self.results.final:
            return True
        snapshot = self._snapshot()  # others may have sent or collected something since
        step = next_step(snapshot)
        if not _is_stuck(step):
            return False
        if isinstance(step, Person) and isinstance(step.remedy, AskTheRest) and self.results is not None:
            return True
        why = "; ".join(why_stuck(snapshot)) or "rows wait for answers that no request file holds"
        raise RunFailedError(f"{why}. Fix it and run again: nothing that was submitted is sent twice")

    def _should_join(self, snapshot: Snapshot) -> bool:
        step = next_step(snapshot, put_off=(Send,))
        # Another run may have joined answers, or completed the table: this one has not seen it yet.
        is_new = self._in_table != _in_table(snapshot) or snapshot.submission.final_at is not None
        if not is_new and not isinstance(step, Collect | Join):
            return False
        return not snapshot.others_run or time.monotonic() >= self._next_join

    def _join(self) -> None:
        started = time.monotonic()
        try:
            done = collect_results(
                self._root,
                *self._place,
                on_batch=self._watcher.downloaded,
                retention=self._retention,
                due_only=self.results is not None,  # at first all: a person asks
                answers=self._own_answers,
            )
        except (BusyError, LeaseLostError) as error:
            self._note("collect", [error_in_words(error)])
            return
        self._note("collect", [*done.problems, *map(in_words, done.remedies)])
        took = time.monotonic() - started
        self._next_join = started + took + min(took * _PAUSE_AFTER_JOIN, PARTIAL_SECONDS)
        after = self._snapshot()
        self._in_table = _in_table(after)
        self._watcher.looked(after)
        if done.results is not None:
            self.results = done.results
            self._watcher.joined(done.results)

    def nap(self) -> None:
        """Sleeps until something may have changed."""
        snapshot = self._snapshot()
        if _is_stuck(next_step(snapshot)):
            return  # nothing will, so it is reported at once
        until = snapshot.next_change()
        seconds = until - snapshot.now if until is not None else _LONGEST_NAP
        if isinstance(next_step(snapshot, put_off=(Send,)), Collect | Join):
            seconds = min(seconds, max(0.0, self._next_join - time.monotonic()))
        if self._troubles:
            seconds = max(seconds, self._interval)
        time.sleep(min(max(seconds, _SHORTEST_NAP), _LONGEST_NAP))

    def _note(self, step: str, problems: list[str]) -> None:
        """Report problems that were not reported yet; give up when they last.

        Errors:
            RunFailedError: for too long a step had nothing but problems.
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
                f"{text}. The run gives up waiting; what was submitted goes on. Run it again later: "
                "nothing is sent twice"
            )

    def _snapshot(self) -> Snapshot:
        with self._root.ledger.read() as tx:
            submission = submissions.newest(tx, *self._place)
            assert submission is not None, "the run has built one"
            return Snapshot.of(tx, submission)

    @property
    def _interval(self) -> float:
        return self._root.settings.first_poll


def _is_stuck(step: Step) -> bool:
    """Whether only a person can go on. What another run has built meanwhile is that run's to send."""
    return isinstance(step, Person) and not isinstance(step.remedy, MaterializeBatches)


def _in_table(snapshot: Snapshot) -> set[str]:
    """Ids of the request files whose answers the last join has seen."""
    joined = snapshot.submission.joined_seq or 0
    return {file.id for file in snapshot.in_state(FileState.COLLECTED) if (file.collected_seq or 0) <= joined}
