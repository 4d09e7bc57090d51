"""Send the request files that are ready, of one submission or of several, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
        on_file: Called with each file before it is sent.
        answers: What the API answers to every upload of the run.
    """
    sending = _Sending(root, [work for work in works if work.failure is None], on_file, answers)
    sending.run(seconds)


class _Sending:
    """The transfers of one run."""

    def __init__(
        self,
        root: Root,
        works: Sequence[SubmissionWork],
        on_file: Callable[[RequestFile], None],
        answers: RunAnswers,
    ) -> None:
        self._root, self._works, self._on_file, self._answers = root, works, on_file, answers
        self._run = [work.submission.id for work in works]
        self._reports: dict[str, SubmitReport] = {}
        self._files: dict[str, RequestFile] = {}
        self._owners: dict[str, list[SubmissionWork]] = {}
        waiting = self._not_awaiting_stubs()
        if hold_without_room(root, waiting):
            waiting = waited_on(root, works)
        released = held_that_fit(root, distinct(waiting)) | held_with_room(root, distinct(waiting))
        for work in works:
            for file in waiting[work.submission.id]:
                if file.state.sendable or file.id in released:
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

    def run(self, seconds: float | None) -> None:
        if not self._files:
            return
        with SharedLine(self._root.ledger, self._works[0].submission.pipeline).used() as line:
            transfers = Transfers(
                self._root.settings.transfers,
                self._send,
                before=self._announce,
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

    def _announce(self, file: RequestFile) -> None:
        if not self._has_failed(file):
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
