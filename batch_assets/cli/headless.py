"""The whole chain in one process: build, submit, wait, collect, ask again, until every row is final.

It keeps nothing in memory that matters: the ledger says what is left to do, so it may be stopped at any
point and started again, and the sensor may work on the same pipeline meanwhile.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from batch_assets.cli.standing import LONGEST_NAP, Standing
from batch_assets.core.batches.poll import poll
from batch_assets.core.batches.submit import SubmitReport, submit_batches
from batch_assets.core.batches.workspace import unreachable
from batch_assets.core.dataset.partition_rows import rows_left_out
from batch_assets.core.errors import BatchAssetsError, BusyError, LeaseLostError, UnreachableError
from batch_assets.core.ledger.records import RequestFile
from batch_assets.core.ledger.states import BatchState, FileState
from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.planning.next_step import PARTIAL_SECONDS, SEND_AGAIN_SECONDS, work_for
from batch_assets.core.requests.build import build_requests
from batch_assets.core.requests.report import NOTHING_AGAIN, AskAgain, RequestsReport
from batch_assets.core.results.report import ResultsReport
from batch_assets.core.results.run import collect_results
from batch_assets.core.root import Root

_SHORTEST_NAP = 0.05
# Joining a large table anew for every batch that ends would cost more than the batches: at most about a
# tenth of the time goes into it while others still run.
_PAUSE_AFTER_JOIN = 9.0
# With the API out of reach, this many first poll intervals go by before the run gives up (30 minutes with
# the real API). The batches go on meanwhile.
_PATIENCE = 180.0


class Watcher(Protocol):
    """Who is told how the run goes on."""

    def rows_read(self, rows: int) -> None: ...
    def built(self, report: RequestsReport) -> None: ...
    def sending(self, file: RequestFile) -> None: ...
    def submitted(self, report: SubmitReport) -> None: ...
    def standing(self, standing: Standing) -> None: ...
    def downloaded(self, batch_id: str, size: int) -> None: ...
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
        self._joined_files: set[str] | None = None
        self._next_join = 0.0
        self._sent_at = 0.0  # by the ledger's clock
        self._troubles: dict[str, _Trouble] = {}

    def send(self, *, unattended: bool) -> None:
        self._sent_at = self._standing().now
        report = submit_batches(self._root, *self._place, unattended=unattended, on_file=self._watcher.sending)
        if report is not None:
            self._watcher.submitted(report)
        self._watcher.standing(self._standing())

    def send_what_is_left(self) -> None:
        """Files that had to wait, failed requests to ask again, uploads whose outcome is unknown."""
        standing = self._standing()
        with self._root.ledger.read() as tx:
            work = work_for(tx, standing.submission)
        if work is None or not work.send or (work.pause and not self._may_send_again(standing)):
            return
        try:
            self.send(unattended=True)
            self._note("send", [])
        except (BusyError, LeaseLostError, UnreachableError) as error:
            self._note("send", [str(error)])

    def _may_send_again(self, standing: Standing) -> bool:
        """As soon as the time is over that the API asked for; where nothing says how long, after a while."""
        if any(
            file.state is FileState.READY and self._sent_at < file.not_before <= standing.now
            for file in standing.files
        ):
            return True
        return standing.now >= self._sent_at + min(SEND_AGAIN_SECONDS, 10 * self._interval)

    def look(self, *, now: bool = False) -> None:
        """Asks the API about batches that are due, unless nothing of ours is open."""
        standing = self._standing()
        if any(batch.state is not BatchState.ENDED for batch in standing.batches):
            self._note("poll", poll(self._root, now=now).problems)
            self._watcher.standing(self._standing())

    def is_final(self) -> bool:
        """Collects and joins what has come in; whether every row has its final result, or as many as the limit
        allows.

        Errors:
            RunFailedError: nothing is under way any more.
        """
        standing = self._standing()
        if self._should_join(standing):
            self._join(standing)
        if self.results is not None and self.results.final:
            return True
        standing = self._standing()  # others may have sent or collected something since
        if standing.is_stuck:
            reasons = _why_stuck(standing)
            if self.results is not None and standing.submission.left_out and not reasons:
                return True
            why = "; ".join(reasons) or "rows wait for answers that no request file holds"
            raise RunFailedError(f"{why}. Mend it and run again: nothing that was submitted is sent twice")
        return False

    def _should_join(self, standing: Standing) -> bool:
        arrived = {file.id for file in standing.files if file.state is FileState.COLLECTED}
        never_joined = standing.submission.joined_seq is None  # or not since it was canceled
        # Another run's join may have made the table complete: this one has not seen it yet.
        complete = standing.submission.final_at is not None
        if self._joined_files == arrived and not standing.ended and not never_joined and not complete:
            return False
        running = len(standing.pending_files) > len(standing.ended)
        return not running or time.monotonic() >= self._next_join

    def _join(self, standing: Standing) -> None:
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
            self._note("collect", [str(error)])
            return
        self._note("collect", done.problems)
        took = time.monotonic() - started
        self._next_join = started + took + min(took * _PAUSE_AFTER_JOIN, PARTIAL_SECONDS)
        after = self._standing()
        arrived = {file.id for file in after.files if file.state is FileState.COLLECTED}
        self._joined_files = arrived - {file.id for file in after.unjoined}
        self._watcher.standing(after)
        if done.results is not None:
            self.results = done.results
            self._watcher.joined(done.results)

    def nap(self) -> None:
        """Sleeps until something may have changed."""
        standing = self._standing()
        if standing.is_stuck:
            return  # nothing will: that is to be said at once
        seconds = standing.next_look() - standing.now
        if standing.ended:
            seconds = min(seconds, max(0.0, self._next_join - time.monotonic()))
        if self._troubles:
            seconds = max(seconds, self._interval)
        time.sleep(min(max(seconds, _SHORTEST_NAP), LONGEST_NAP))

    def _note(self, step: str, problems: list[str]) -> None:
        """Tells of problems that were not told yet; gives up when they last.

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

    def _standing(self) -> Standing:
        return Standing.read(self._root, *self._place)

    @property
    def _interval(self) -> float:
        return self._root.settings.first_poll


def _why_stuck(standing: Standing) -> list[str]:
    refused = [file for file in standing.files if file.state.needs_person]
    reasons = [f"the API refused {file.id}: {file.error}" for file in refused]
    reasons += [unreachable(batch.id) for batch in standing.batches if batch.state is BatchState.UNREACHABLE]
    if standing.standstill is not None:
        reasons.append(standing.standstill.why)
    return reasons
