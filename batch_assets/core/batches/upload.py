"""Upload one request file: lease, intent with an anchor, POST, receipt, batch.

A POST that may have been accepted is never repeated here: its file is reconciled.
"""

from __future__ import annotations

import hashlib

from batch_assets.core.api.errors import (
    NotSentError,
    RefusedError,
    UnknownOutcomeError,
)
from batch_assets.core.api.objects import BatchObject
from batch_assets.core.batches import repeats, workspace
from batch_assets.core.batches.feeding import QueuePlace
from batch_assets.core.batches.receipts import accept_by_reply, adopt, write_receipt
from batch_assets.core.batches.reserve import FileReservation
from batch_assets.core.batches.run_answers import AllRefusedError
from batch_assets.core.batches.split import give_up, split
from batch_assets.core.batches.upload_outcome import UploadOutcome
from batch_assets.core.errors import (
    DamagedFileError,
    LeaseLostError,
    UnreachableError,
)
from batch_assets.core.io.pace import SLOW_LINE, GivenWayError
from batch_assets.core.io.transfers import Progress
from batch_assets.core.ledger import Lease, Transaction, batches, files, leases, stubs, submissions
from batch_assets.core.ledger.endpoint import bind_endpoint
from batch_assets.core.ledger.intents import CLOCK_MARGIN_SECONDS, IntentOutcome
from batch_assets.core.ledger.records import Intent, RequestFile
from batch_assets.core.ledger.states import FileMove, FileState
from batch_assets.core.ledger.stubs import Warmth
from batch_assets.core.remedies import ConfirmWorkspace
from batch_assets.core.store.breakpoints import Breakpoint
from batch_assets.core.store.request_files import MISSING, StoredRequestFile
from batch_assets.core.text import duration


class Upload:
    """The upload of one request file.

    Args:
        outcome: The file, the run that sends it, and where to record what becomes of it.
    """

    def __init__(self, outcome: UploadOutcome) -> None:
        self._outcome = outcome
        self._root, self._submission, self._file = outcome.root, outcome.submission, outcome.file
        self._report, self._answers = outcome.report, outcome.answers
        self._reservation = FileReservation(self._root, self._file)
        self._place = QueuePlace(self._root, self._file)
        self._stored = StoredRequestFile.of(self._root.storage, self._file)

    def run(self, progress: Progress) -> list[RequestFile]:
        """Send the file, and send it again at once if its body was garbled in transit.

        Args:
            progress: Called before each chunk with the bytes sent so far. It may raise; the body then stays
                unfinished.

        Returns:
            The files to send instead, if this one is too large.
        """
        lease = leases.try_take(
            self._root.ledger,
            files.lease_name(self._file.id),
            work=f"the request file {self._file.id}",
            pipeline=self._file.pipeline,
        )
        if lease is None:
            self._report.waiting[self._file.id] = "another process is sending it"
            return []
        try:
            if self._file.state is FileState.HELD and not self._has_receipt(lease):
                self._file = self._reservation.let_go(lease)
            send = self._file.state is FileState.READY and not self._has_receipt(lease) and self._may_go(lease)
            while send:
                intent_id = self._intend(lease)
                send = intent_id is not None and self._send(lease, intent_id, progress)
            return self._relieve(lease)
        except (LeaseLostError, DamagedFileError) as error:
            self._report.waiting[self._file.id] = str(error)
            return []
        finally:
            lease.release()

    def _has_receipt(self, lease: Lease) -> bool:
        """Whether the file was sent already, which an older ledger does not know. Records the batch if so."""
        batch_id = adopt(self._root, self._file, lease)
        if batch_id is not None:
            self._report.submitted.append(batch_id)
        return batch_id is not None

    def _may_go(self, lease: Lease) -> bool:
        """Whether the file need not wait, and is as it was written."""
        with self._root.ledger.read() as tx:
            if self._has_to_wait(tx):
                return False
        # With a checksum, the file is checked while it is sent.
        return self._file.checksum is not None or not self._is_lost(lease)

    def _is_lost(self, lease: Lease, intent_id: int | None = None, otherwise: str | None = None) -> bool:
        """Set the file aside if it is gone or was damaged: nothing is sent that no row asked for.

        Args:
            lease: The lease on the file.
            intent_id: The intent of the upload that broke off for it.
            otherwise: What is wrong if every line is as it was written; `None` if nothing is.
        """
        with self._root.ledger.read() as tx:
            headers = files.headers_of(tx, self._file)
        try:
            damage = self._stored.damage(self._file.requests, self._file.bytes, headers) or otherwise
        except FileNotFoundError:
            problem = "the request file is missing"
        else:
            if damage is None:
                return False
            problem = f"the request file is damaged, {damage}"
        text = f"{problem}: its requests have to be built again"
        self._outcome.move(lease, FileMove.REFUSE, intent_id, text, outcome=IntentOutcome.NOT_SENT)
        return True

    def _relieve(self, lease: Lease) -> list[RequestFile]:
        """Split the file if it is too large. A single request that is too large gets the refusal as its answer."""
        with self._root.ledger.read() as tx:
            file = files.by_id(tx, self._file.id)
        if (self._reservation.is_cut or self._place.is_cut) and file.state is FileState.HELD:
            return split(self._root, file, lease)
        if file.state is not FileState.TOO_LARGE or self._is_lost(lease):
            return []
        if file.requests > 1:
            return split(self._root, file, lease)
        give_up(self._root, file, lease)
        self._report.given_up[file.id] = file.error or ""
        return []

    def _intend(self, lease: Lease) -> int | None:
        """Write the intent, unless the file has to wait.

        Returns:
            The id of the intent; `None` if the file has to wait.
        """
        with self._root.ledger.read() as tx:
            if self._has_to_wait(tx):
                return None
        if (refusal := self._answers.refusal) is not None:
            raise self._outcome.stop(lease, None, refusal)
        if not self._fits(lease):
            return None
        try:
            if not workspace.shows_refused(self._root, self._file.id):
                self._ask_for_key(f"an earlier upload may have been accepted: {workspace.question(self._root)}")
                return None
            if (earlier := repeats.of_refused_intents(self._root, self._file)) is not None:
                self._doubt_earlier(lease, *earlier)
                return None
            listed = self._root.api.page().batches
            if (other := workspace.other_in_doubt(self._root, {batch.id for batch in listed})) is not None:
                text = f"waiting for {other.file_id}, whose outcome is unknown: {workspace.question(self._root)}"
                self._ask_for_key(text)
                return None
        except RefusedError as error:
            if error.waits:
                self._outcome.put_off(lease, None, error)
                return None
            raise self._outcome.stop(lease, None, error) from None
        except (NotSentError, UnknownOutcomeError) as error:
            raise UnreachableError(f"{self._root.api.base_url} cannot be reached: {error}") from None
        self._root.note_key()
        with self._root.ledger.write(self._file.pipeline, endpoint=True) as tx:
            lease.confirm(tx)
            bind_endpoint(tx, self._root.endpoint)
            file = files.by_id(tx, self._file.id)
            if self._has_to_wait(tx) or not self._is_allowed(tx):
                return None
            breakpoint = Breakpoint.of(file) if stubs.warmth_for(tx, file) is Warmth.WARM else None
            added = breakpoint.bytes_added * file.requests if breakpoint is not None else 0
            amounts = self._reservation.amounts(tx, file)
            return files.intend(tx, file, listed, self._root.key_hash, amounts, bytes_added=added)

    def _fits(self, lease: Lease) -> bool:
        """Whether the file fits into budgets and queue. If not, it is held, or set aside if it is lost."""
        try:
            self._reservation.compute()
        except (FileNotFoundError, DamagedFileError) as error:
            self._is_lost(lease, otherwise=str(error))
            return False
        with self._root.ledger.read() as tx:
            if self._reservation.may_go(tx) and self._place.is_free(tx):
                return True
        with self._root.ledger.write(self._file.pipeline, endpoint=True) as tx:
            lease.confirm(tx)
            return not self._has_to_wait(tx) and self._is_allowed(tx)

    def _is_allowed(self, tx: Transaction) -> bool:
        return self._reservation.goes(tx) and self._place.take(tx)

    def _ask_for_key(self, text: str) -> None:
        """Report that the file waits until the right key is back, or a user confirms this one."""
        self._report.waiting[self._file.id] = text
        self._report.remedies.append(ConfirmWorkspace(self._submission.pipeline, self._submission.partition))

    def _has_to_wait(self, tx: Transaction) -> bool:
        file = files.by_id(tx, self._file.id)
        if file.state is not FileState.READY or submissions.by_id(tx, self._submission.id).is_canceled:
            return True
        if file.not_before > tx.now:
            reason = f"the API asked to wait {duration(file.not_before - tx.now)} more: {file.error}"
        elif twins := files.twins_in_doubt(tx, file, self._earliest_creation()):
            reason = f"waiting for {twins[0].file_id}: same request count, outcome still unknown"
        elif stubs.warmth_for(tx, file) is Warmth.AWAITED:
            reason = stubs.WHY_HELD
        else:
            return False
        self._report.waiting[file.id] = reason
        return True

    def _earliest_creation(self) -> float | None:
        """Return the time before which no batch of this upload can be created, by the API's clock."""
        now = self._root.api.server_time
        return None if now is None else now - CLOCK_MARGIN_SECONDS - repeats.LATE_SECONDS

    def _send(self, lease: Lease, intent_id: int, progress: Progress) -> bool:
        """Send the body once. Return whether to send it again at once."""

        def before_chunk(sent: int) -> None:
            lease.check()
            self._answers.check()
            progress(sent)

        def before_last() -> None:
            """Record that the upload may be accepted from now on. A process without its lease never gets here."""
            with self._root.ledger.write(self._file.pipeline) as tx:
                lease.confirm(tx)
                files.complete_body(tx, intent_id)

        with self._root.ledger.read() as tx:
            headers = files.headers_of(tx, self._file)
            intent = files.intent_of(tx, self._file.id, intent_id)
        breakpoint = Breakpoint.of(self._file) if intent.with_breakpoint else None
        size, checksum = self._file.bytes, self._file.checksum
        try:
            body_hash = self._body_hash(lease, breakpoint) if self._root.api.signs_bodies else None
            body = self._stored.body(size, checksum, before_chunk, before_last, breakpoint)
            accepted = self._root.api.create(body, intent.bytes, headers, body_hash)
        except RefusedError as error:
            return self._outcome.refused(lease, intent_id, error)
        except AllRefusedError:  # the body was never complete
            assert self._answers.refusal is not None
            raise self._outcome.stop(lease, intent_id, self._answers.refusal, IntentOutcome.NOT_SENT) from None
        except NotSentError as error:
            with self._root.ledger.write(self._file.pipeline) as tx:
                self._outcome.back_to_ready(tx, lease, intent_id, str(error), 0.0)
            raise UnreachableError(f"{self._root.api.base_url} cannot be reached: {error}") from None
        except UnknownOutcomeError as error:
            self._outcome.in_doubt(lease, intent_id, str(error))
        except FileNotFoundError:
            self._outcome.move(lease, FileMove.REFUSE, intent_id, MISSING)
        except GivenWayError:  # the body was never complete
            with self._root.ledger.write(self._file.pipeline) as tx:
                self._outcome.back_to_ready(tx, lease, intent_id, SLOW_LINE, 0.0)
            self._report.waiting[self._file.id] = SLOW_LINE
        except DamagedFileError as error:  # the body was never complete
            self._is_lost(lease, intent_id, otherwise=str(error))
        else:
            self._accepted(lease, intent_id, accepted)
        return False

    def _body_hash(self, lease: Lease, breakpoint: Breakpoint | None) -> str:
        """Return the SHA-256 of the body. A signature needs it before the first byte is sent."""
        chunks = self._stored.body(
            self._file.bytes, self._file.checksum, lambda _: lease.check(), breakpoint=breakpoint
        )
        hash_ = hashlib.sha256()
        for chunk in chunks:
            hash_.update(chunk)
        return hash_.hexdigest()

    def _accepted(self, lease: Lease, intent_id: int, accepted: BatchObject) -> None:
        with self._root.ledger.read() as tx:
            contradiction = repeats.contradiction(tx, self._file, intent_id, accepted)
        if contradiction is not None:
            self._outcome.in_doubt(lease, intent_id, contradiction)
            return
        problem, receipt = None, None
        try:
            receipt = write_receipt(self._root, self._file, accepted, replied=True)
        except Exception as error:  # a full disk, an unavailable object store: the ledger may still record the id
            problem = error
        accept_by_reply(self._root, self._file, lease, intent_id, accepted, receipt)
        self._report.submitted.append(accepted.id)
        if problem is not None:
            raise problem

    def _doubt_earlier(self, lease: Lease, intent: Intent, candidate: BatchObject) -> None:
        """Put a file that was refused before in doubt: a gateway on the way may have sent it twice.

        If another process is sending a file of the same count, or has just recorded the batch, it is probably that
        file's: a later run finds out.
        """
        text = repeats.text_about(candidate)
        with self._root.ledger.write(self._file.pipeline, endpoint=True) as tx:
            lease.confirm(tx)
            if self._has_to_wait(tx):
                return
            if batches.by_id(tx, candidate.id) is not None:
                self._report.waiting[self._file.id] = f"another process has just recorded {candidate.id}"
                return
            self._outcome.doubt(tx, intent.id, text, candidate)
