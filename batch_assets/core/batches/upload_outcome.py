"""What becomes of an upload: the ledger records the outcome of every reply, and of an upload without one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from batch_assets.core.api.errors import (
    TOO_LARGE,
    ApiError,
    RefusedError,
)
from batch_assets.core.api.objects import BatchObject
from batch_assets.core.batches import repeats
from batch_assets.core.batches.feeding import is_about_queue
from batch_assets.core.batches.run_answers import RunAnswers
from batch_assets.core.batches.submit_report import SubmitReport
from batch_assets.core.errors import (
    SubmissionStoppedError,
)
from batch_assets.core.ledger import Lease, Transaction, files, queue, submissions
from batch_assets.core.ledger.intents import IntentOutcome
from batch_assets.core.ledger.moves import move
from batch_assets.core.ledger.records import RequestFile, Submission
from batch_assets.core.ledger.states import FileMove
from batch_assets.core.remedies import RunStage, Stage
from batch_assets.core.root import Root

# The wait when the API asks to wait without a time.
_BACK_OFF_SECONDS = 60.0
_BAD_REQUEST = 400
# The API's error for a body that was cut or changed in transit. Every line was written as valid JSON.
_GARBLED = "not valid json"


@dataclass(frozen=True)
class UploadOutcome:
    """Records what becomes of the upload of one request file.

    Attributes:
        root: The root.
        submission: A submission that waits on the file.
        file: The file.
        report: The report to fill.
        run: The ids of all submissions that the run sends. What the API answers to every upload concerns their
            files as well.
        answers: What the API answers to every upload of the run.
    """

    root: Root
    submission: Submission
    file: RequestFile
    report: SubmitReport
    run: Sequence[str]
    answers: RunAnswers

    def refused(self, lease: Lease, intent_id: int, error: RefusedError) -> bool:
        """Record a refusal. Return whether to send the file again at once."""
        text = str(error)
        try:
            candidate = repeats.accepted_too(self.root, self.file, intent_id)
        except ApiError:
            # Its batch is looked for before the file is sent again, and for a day if it never is.
            with self.root.ledger.write(self.file.pipeline) as tx:
                lease.confirm(tx)
                files.watch(tx, self.file.id)
            if not error.stop and not error.waits:
                self._ask_list_later(lease, intent_id, text)
                return False
        else:
            if candidate is not None:
                self.in_doubt(lease, intent_id, f"{text}. {repeats.text_about(candidate)}", candidate)
                return False
        if error.stop:
            raise self.stop(lease, intent_id, error)
        if error.waits:
            self.put_off(lease, intent_id, error)
        elif error.status == TOO_LARGE:
            self.move(lease, FileMove.EXCEED, intent_id, text)
        elif error.status == _BAD_REQUEST and _GARBLED in text.lower() and not self._was_garbled():
            self.move(lease, FileMove.RESEND, intent_id, f"{text}; sent again", outcome=IntentOutcome.GARBLED)
            return True
        elif self.answers.is_repeated(error):
            raise self.stop(lease, intent_id, error)
        else:
            self.move(lease, FileMove.REFUSE, intent_id, text)
        return False

    def in_doubt(self, lease: Lease, intent_id: int, text: str, candidate: BatchObject | None = None) -> None:
        """Put the file in doubt.

        Args:
            lease: The lease on the file.
            intent_id: The intent whose outcome is unknown.
            text: Why.
            candidate: The only reason why a refusal is not certain.
        """
        with self.root.ledger.write(self.file.pipeline) as tx:
            lease.confirm(tx)
            self.doubt(tx, intent_id, text, candidate)

    def doubt(self, tx: Transaction, intent_id: int, text: str, candidate: BatchObject | None) -> None:
        """Put the file in doubt, see `in_doubt`, in a transaction that has the lease."""
        candidate_id = candidate.id if candidate is not None else None
        files.settle(tx, intent_id, IntentOutcome.UNRESOLVED, last_byte_at=tx.now, candidate_id=candidate_id)
        move(tx, FileMove.DOUBT, self.file.id, text, error=text)

    def move(
        self,
        lease: Lease,
        step: FileMove,
        intent_id: int | None,
        text: str,
        outcome: IntentOutcome = IntentOutcome.REFUSED,
    ) -> None:
        """Record a certain outcome, and move the file to the state that follows from it."""
        with self.root.ledger.write(self.file.pipeline) as tx:
            lease.confirm(tx)
            if intent_id is not None:
                files.settle(tx, intent_id, outcome, last_byte_at=tx.now)
            if step is FileMove.EXCEED:  # a gateway may have sent it twice, and the first one was accepted
                files.watch(tx, self.file.id)
            move(tx, step, self.file.id, text, error=text)
        if step is FileMove.REFUSE:
            # Its requests may be built again. Those of a stopped or too large file stay in flight.
            self.report.refused[self.file.id] = text

    def stop(
        self,
        lease: Lease,
        intent_id: int | None,
        error: RefusedError,
        outcome: IntentOutcome = IntentOutcome.REFUSED,
    ) -> SubmissionStoppedError:
        """Stop this file and those of the run, so that nothing is sent again before a user has fixed the cause."""
        self.answers.refusal = error
        text = str(error)
        with self.root.ledger.write(self.file.pipeline) as tx:
            lease.confirm(tx)
            if intent_id is not None:
                files.settle(tx, intent_id, outcome, last_byte_at=tx.now)
            move(tx, FileMove.STOP, self.file.id, text, error=text)
            for submission_id in self.run:
                files.stop_ready(tx, submissions.waited_on(tx, submission_id), text)
        return SubmissionStoppedError(
            f"{self.root.api.base_url} refused: {text}. The request files are kept: fix this, "
            "then send them again",
            remedy=RunStage(Stage.BATCHES, self.submission.pipeline, self.submission.partition),
        )

    def put_off(self, lease: Lease, intent_id: int | None, error: RefusedError) -> None:
        """Make this file and those after it wait: the API would answer every upload the same."""
        seconds = error.retry_after if error.retry_after is not None else _BACK_OFF_SECONDS
        is_full = intent_id is not None and is_about_queue(error)
        with self.root.ledger.write(self.file.pipeline, endpoint=is_full) as tx:
            until = tx.now + seconds
            self.back_to_ready(tx, lease, intent_id, str(error), until)
            for submission_id in self.run:
                files.put_off(tx, submissions.waited_on(tx, submission_id), until, str(error))
            if is_full:
                queue.learn(tx, self.file)
        self.report.waiting[self.file.id] = str(error)

    def back_to_ready(
        self, tx: Transaction, lease: Lease, intent_id: int | None, text: str, not_before: float
    ) -> None:
        """Make the file ready again: certainly nothing of it was accepted."""
        lease.confirm(tx)
        if intent_id is not None:
            files.settle(tx, intent_id, IntentOutcome.NOT_SENT, last_byte_at=tx.now)
        move(tx, FileMove.WAIT, self.file.id, text, error=text, not_before=not_before)

    def _ask_list_later(self, lease: Lease, intent_id: int, text: str) -> None:
        """Leave the file to a later run, which sends nothing before it has read the list of batches."""
        text = f"{text}. The list of batches, which could confirm that, cannot be read now"
        with self.root.ledger.write(self.file.pipeline) as tx:
            self.back_to_ready(tx, lease, intent_id, text, 0.0)
        self.report.waiting[self.file.id] = text

    def _was_garbled(self) -> bool:
        with self.root.ledger.read() as tx:
            return any(intent.outcome is IntentOutcome.GARBLED for intent in files.of_file(tx, self.file.id))
