"""Send the request files that are ready, of one submission or of several, side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field

from batch_assets.core.answers.answers import Answers
from batch_assets.core.batches.feeding import held_with_room, hold_without_room
from batch_assets.core.batches.reserve import held_that_fit
from batch_assets.core.batches.run_answers import RunAnswers
from batch_assets.core.batches.submit_report import SubmitReport
from batch_assets.core.batches.upload import Upload
from batch_assets.core.batches.upload_outcome import UploadOutcome
from batch_assets.core.errors import FAILURES, Failure, SubmissionStoppedError, UnreachableError
from batch_assets.core.io.pace import SLOW_LINE, Pace
from batch_assets.core.io.transfers import Progress, Transfers
from batch_assets.core.ledger import overview, stubs
from batch_assets.core.ledger.records import RequestFile, Submission
from batch_assets.core.ledger.shared_line import SharedLine
from batch_assets.core.ledger.states import FileState
from batch_assets.core.pipeline.hooks import ToolFunctions
from batch_assets.core.remedies import RunStage, Stage
from batch_assets.core.root import Root


@dataclass
class SubmissionWork:
    """A submission that a run sends, and what has become of it.

    Attributes:
        submission: The submission.
        report: The report, which is filled.
        own_answers: See `Pipeline.own_answers`.
        tools: The pipeline's functions that give the results of tools.
        failure: Why its partition has failed; `None` as long as it has not. The partitions beside it go on.
    """

    submission: Submission
    report: SubmitReport
    own_answers: Answers | None = None
    tools: ToolFunctions = field(default_factory=dict)
    failure: Failure | None = None

    def fails(self, error: Failure) -> None:
        """Record a failure. The first one counts."""
        self.failure = self.failure or error


def waited_on(root: Root, works: Sequence[SubmissionWork]) -> dict[str, list[RequestFile]]:
    """Return by submission the request files that its rows wait on, as they are now."""
    with root.ledger.read() as tx:
        return overview.files_of(tx, [work.submission.id for work in works])


def distinct(waiting: Mapping[str, Sequence[RequestFile]]) -> list[RequestFile]:
    """Return the files that some submissions wait on, each once: several may wait on the same file."""
    return list({file.id: file for some in waiting.values() for file in some}.values())


def send_ready(
    root: Root,
    works: Sequence[SubmissionWork],
    seconds: float | None,
    on_file: Callable[[RequestFile], None],
    answers: RunAnswers,
) -> None:
    """Send the files that are ready, several at a time.

    Two files with the same request count are never sent at once, so that lost batches can be distinguished. A file
    that several of the submissions wait on is in the reports of all of them.

    Args:
        root: The root.
        works: The submissions, with the reports to fill. A submission that has failed is left out.
        seconds: The time that the run has left; `None` for no limit.
        on_file: Called with each file when its upload begins.
        answers: What the API answers to every upload of the run.
    """
    begun, tried = time.monotonic(), set[str]()
    while True:
        going = [work for work in works if work.failure is None]
        sending = _Sending(root, going, on_file, answers, tried)
        sending.run(None if seconds is None else seconds - (time.monotonic() - begun))
        tried |= sending.ids
        if not sending.left_room():
            return


class _Sending:
    """Transfers of one run.

    Args:
        root: The root.
        works: The submissions.
        on_file: See `send_ready`.
        answers: See `send_ready`.
        tried: The ids of files that are left out, because the run has tried them.
    """

    def __init__(
        self,
        root: Root,
        works: Sequence[SubmissionWork],
        on_file: Callable[[RequestFile], None],
        answers: RunAnswers,
        tried: Set[str],
    ) -> None:
        self._root, self._works, self._on_file, self._answers = root, works, on_file, answers
        self._run = [work.submission.id for work in works]
        self._announced: set[str] = set()
        self._reports: dict[str, SubmitReport] = {}
        self._files: dict[str, RequestFile] = {}
        self._owners: dict[str, list[SubmissionWork]] = {}
        waiting = self._not_awaiting_stubs()
        if hold_without_room(root, waiting):
            waiting = waited_on(root, works)
        released = held_that_fit(root, distinct(waiting)) | held_with_room(root, distinct(waiting))
        self._leaves_held = any(
            (file.is_held_by_budget or file.is_held_by_queue) and file.id not in released
            for file in distinct(waiting)
        )
        for work in works:
            for file in waiting[work.submission.id]:
                if (file.state.sendable or file.id in released) and file.id not in tried:
                    work.report.waiting.pop(file.id, None)  # why it was not sent before is over
                    self._files[file.id] = file
                    self._owners.setdefault(file.id, []).append(work)

    def _not_awaiting_stubs(self) -> dict[str, list[RequestFile]]:
        """Hold the files whose stub is awaited, let the others go, and return all files as they are then."""
        current = waited_on(self._root, self._works)
        if waiting := [file for file in distinct(current) if stubs.waits_for_stub(file)]:
            with self._root.ledger.write(waiting[0].pipeline) as tx:
                has_changed = stubs.hold_or_release(tx, waiting)
            if has_changed:
                return waited_on(self._root, self._works)
        return current

    @property
    def ids(self) -> set[str]:
        """The ids of its files."""
        return set(self._files)

    def left_room(self) -> bool:
        """Whether files are held that may have room now: one that would have taken it turned out to be damaged."""
        if not (self._leaves_held and self._files):
            return False
        now = distinct(waited_on(self._root, self._works))
        return any(file.id in self._files and file.state is FileState.REFUSED for file in now)

    def run(self, seconds: float | None) -> None:
        """Send the files, for so many seconds at most."""
        if not self._files:
            return
        with SharedLine(self._root.ledger, self._works[0].submission.pipeline).used() as line:
            transfers = Transfers(
                self._root.settings.transfers,
                self._send,
                progress=self._announce,
                apart=lambda file: file.requests,
                pace=Pace(seconds, lambda file: file.bytes, bytes_per_weight=1.0, line=line),
            )
            try:
                transfers.run(self._files.values())
            except (SubmissionStoppedError, UnreachableError) as error:  # the next upload would meet the same
                self._fail_unsent(error)
        for file_id, file_report in sorted(self._reports.items()):
            for work in self._owners[file_id]:
                work.report.add(file_report)
        for file in transfers.left:
            for work in self._owners[file.id]:
                work.report.waiting[file.id] = SLOW_LINE

    def _announce(self, file: RequestFile, done: int) -> None:
        """Announce a file at the start of its body: nothing holds it any more then."""
        if done == 0 and file.id not in self._announced:
            self._announced.add(file.id)
            self._on_file(file)

    def _has_failed(self, file: RequestFile) -> bool:
        return all(work.failure is not None for work in self._owners[file.id])

    def _send(self, file: RequestFile, progress: Progress) -> list[RequestFile]:
        """Send a file. A failure that concerns only its submissions is recorded there, and the others go on."""
        if self._has_failed(file):
            return []
        owners = self._owners[file.id]
        report = self._reports[file.id] = SubmitReport(owners[0].submission.id)
        try:
            outcome = UploadOutcome(self._root, owners[0].submission, file, report, self._run, self._answers)
            parts = Upload(outcome).run(progress)
        except (SubmissionStoppedError, UnreachableError):
            raise
        except FAILURES as error:
            for work in owners:
                work.fails(error)
            return []
        self._owners |= {part.id: owners for part in parts}
        return parts

    def _fail_unsent(self, error: SubmissionStoppedError | UnreachableError) -> None:
        """Fail the submissions with files that were not sent because the API refuses all, or is unreachable."""
        waiting = waited_on(self._root, self._works)
        for work in self._works:
            if not any(file.state.unsent for file in waiting[work.submission.id]):
                continue
            if isinstance(error, SubmissionStoppedError):
                submission = work.submission
                remedy = RunStage(Stage.BATCHES, submission.pipeline, submission.partition)
                work.fails(SubmissionStoppedError(str(error), remedy=remedy))
            else:
                work.fails(error)
