"""Reconcile request files in doubt: find out from the API's list, not by sending again, whether it took them.

A batch is a candidate if the ledger does not know it, it was not there before the upload, it was created after the
anchor, and it has the file's request count. One line of its results proves or rules out an ended candidate. A
running one is adopted provisionally if it is the only candidate, until its results prove it. The file is sent
again only when no candidate shows up for the grace period, or, if it was refused, when no candidate is left. An
ended batch whose results cannot be read is a candidate for as long as the API keeps them.
"""

from __future__ import annotations

from batch_assets.core.api.errors import ApiError
from batch_assets.core.api.objects import BatchObject
from batch_assets.core.api.sdk_client import CREATE_SECONDS
from batch_assets.core.batches import repeats, workspace
from batch_assets.core.batches.first_line import first_custom_id
from batch_assets.core.batches.receipts import intent_of_receipt, note_other, write_receipt
from batch_assets.core.batches.strangers import Strangers, is_beyond_proof, text_about
from batch_assets.core.errors import BusyError, DamagedFileError, LeaseLostError
from batch_assets.core.io.names import RequestFileId
from batch_assets.core.ledger import Lease, Transaction, batches, files, leases, restore, submissions
from batch_assets.core.ledger.intents import CLOCK_MARGIN_SECONDS, IntentOutcome
from batch_assets.core.ledger.moves import move
from batch_assets.core.ledger.records import Intent, RequestFile
from batch_assets.core.ledger.states import FileMove, FileState
from batch_assets.core.root import Root
from batch_assets.core.store.digests import DIGEST_CHARACTERS, Digests, has_mark, tails_of
from batch_assets.core.store.in_flight import digests_of_submission, known_digests
from batch_assets.core.store.known_requests import KnownRequests
from batch_assets.core.store.request_files import StoredRequestFile
from batch_assets.core.store.resent import ResentTrace, ResentUpload
from batch_assets.core.text import duration

_GONE = "its process is gone"
# Our own clock may be wrong by this much.
_CLOCK_SECONDS = 86400.0

Doubt = tuple[Intent, RequestFile]


def reconcile(root: Root) -> list[str]:
    """Settle all files in doubt that can be settled now.

    Returns:
        The ids of the batches that were found to be ours.
    """
    with root.ledger.read() as tx:
        doubtful, watched = files.to_reconcile(tx), files.watched(tx)
    if not doubtful and not watched:
        return []
    try:
        with leases.hold(root.ledger, "reconcile", work="the files in doubt") as lease:
            return _Reconciler(root, lease).run()
    except (BusyError, LeaseLostError):
        return []  # another process reconciles, with a newer list
    except ApiError:
        return []  # the list is unavailable: the files stay in doubt


def _earliest(intent: Intent) -> float:
    """Return the server time before which no batch can be the intent's.

    Without an anchor (an empty list, a rebuilt ledger) the submission's own name shows when it was built. That is
    by our clock, so a day is taken off. This rules out a workspace's old batches, whose results are archived.
    """
    if intent.anchor_created_at is not None:
        return intent.anchor_created_at - CLOCK_MARGIN_SECONDS
    return (RequestFileId.parse(intent.file_id).submission.built_at or 0.0) - _CLOCK_SECONDS


def _is_answered_by_refusal(intent: Intent, file: RequestFile) -> bool:
    """Whether a refusal, and no other file, answered the only request of a file."""
    return intent.outcome is IntentOutcome.REFUSED and file.requests == 1


class _Reconciler:
    def __init__(self, root: Root, lease: Lease) -> None:
        self._root, self._lease = root, lease
        self._found_ids: list[str] = []
        self._tails: dict[str, set[str] | None] = {}
        self._lost: set[str] = set()
        self._accepted: dict[str, str] = {}
        self._listed: set[str | None] = set()
        # By the API's clock: when the list was first read, and when its newest batch was created.
        self._listed_at: float | None = None
        self._newest = 0.0
        self._latest: dict[int, float] = {}

    def run(self) -> list[str]:
        with self._root.ledger.read() as tx:
            doubtful, watched = files.to_reconcile(tx), files.watched(tx)
            known_ids = batches.known_ids(tx) if doubtful or watched else set()
        doubtful = [doubt for doubt in doubtful if not (self._by_receipt(*doubt) or self._not_sent(*doubt))]
        if not doubtful and not watched:
            return self._found_ids
        strangers = self._strangers([*doubtful, *watched], known_ids)
        self._limit(doubtful)
        for custom_id, batch in strangers.proved:
            if not self._assign(custom_id, batch, watched):
                strangers.unassigned.append(batch)
        self._settle_all(doubtful, strangers)
        return self._found_ids

    def _by_receipt(self, intent: Intent, file: RequestFile) -> bool:
        """Settle the file by a receipt that a killed process left, if there is one."""
        stored = StoredRequestFile.of(self._root.storage, file)
        stored.remove_leftovers()
        try:
            receipt = stored.receipt()
        except DamagedFileError as error:
            # It was written because the API accepted the file. Which batch it named is unknown until it is found.
            self._accepted[file.id] = str(error)
            return False
        if receipt is None:
            return False
        with self._root.ledger.read() as tx:
            problem = restore.contradiction(tx, file.id, receipt.batch_id)
        if problem is not None:
            self._accepted[file.id] = problem
            return False
        return self._adopt(
            intent_of_receipt(self._root, file, intent, self._lease),
            file,
            receipt.batch,
            provisional=False,
            reason=batches.BY_RECEIPT,
            replied=receipt.replied is True,
        )

    def _not_sent(self, intent: Intent, file: RequestFile) -> bool:
        """Settle a file whose process was gone before the body was complete: no server accepts such a body."""
        if intent.body_complete is not False or file.state is not FileState.SENDING:
            return False
        with self._root.ledger.write() as tx:
            self._lease.confirm(tx)
            if leases.is_held(tx, files.lease_name(file.id)) or not files.is_incomplete(tx, intent.id):
                return False
            files.settle(tx, intent.id, IntentOutcome.NOT_SENT)
            move(tx, FileMove.WAIT, file.id, "its process was gone before the upload was complete", not_before=0.0)
        return True

    def _limit(self, doubtful: list[Doubt]) -> None:
        """Limit the time at which the batches of uploads in doubt can have been created, by the API's clock.

        Nothing is sent any more when the list is read, so the API accepts an upload within its time-out from then
        on, or never. Without a limit, other people's batches could keep a file in doubt without end.
        """
        unlimited = [intent for intent, _ in doubtful if intent.latest_created_at is None]
        if not unlimited:
            return
        with self._root.ledger.write() as tx:
            self._lease.confirm(tx)
            listed_at = self._listed_at if self._listed_at is not None else tx.now + _CLOCK_SECONDS
            latest = max(listed_at, self._newest) + CREATE_SECONDS + repeats.LATE_SECONDS
            for intent in unlimited:
                files.limit_creation(tx, intent.id, latest)
                self._latest[intent.id] = latest

    def _strangers(self, doubts: list[Doubt], known_ids: set[str]) -> Strangers:
        back_to = min(_earliest(intent) for intent, _ in doubts)
        strangers = Strangers()
        for batch in self._root.api.batches_back_to(back_to):
            if not self._listed:
                self._listed_at, self._newest = self._root.api.server_time, batch.created_at
            self._listed.add(batch.id)
            if batch.id in known_ids or not any(self._may_be(intent, batch) for intent, _ in doubts):
                continue
            if not batch.ended:
                strangers.running.append(batch)
            elif (custom_id := first_custom_id(self._root, batch)) is None:
                is_beyond = is_beyond_proof(batch, self._root.api.server_time)
                (strangers.beyond_proof if is_beyond else strangers.unproved).append(batch)
            else:
                strangers.proved.append((custom_id, batch))
        if not self._listed:
            self._listed_at = self._root.api.server_time
        return strangers

    def _assign(self, custom_id: str, batch: BatchObject, watched: list[Doubt]) -> bool:
        """Assign an ended batch to the file whose request is in its results; without one it is foreign.

        Returns:
            False if that is unknown because a file that it may belong to is lost: a lost file proves nothing.
        """
        with self._root.ledger.read() as tx:
            claimants = [
                (files.current_of(intents, file), file)
                for intents, file in files.claimants(tx, batch.total)
                if any(self._may_be(intent, batch) for intent in intents)
            ]
        watched = [doubt for doubt in watched if self._may_be(doubt[0], batch)]
        for are_lost in (False, True):  # the index of a lost file names requests of other files as well
            for intent, file in claimants:
                if self._has(file, custom_id, is_lost=are_lost):
                    self._adopt(intent, file, batch, provisional=False, reason="its results are ours")
                    return True
            for intent, file in watched:
                if self._has(file, custom_id, is_lost=are_lost):
                    self._note_late(intent, file, batch)
                    return True
        near = repeats.near_files(self._root, batch)
        for file in near:
            if self._has(file, custom_id, is_lost=False):
                repeats.record(self._root, batch, file)
                self._found_ids.append(batch.id)
                return True
        if any(self._tails_of(file) is None for file in [*(file for _, file in [*claimants, *watched]), *near]):
            return False
        with self._root.ledger.write() as tx:
            self._lease.confirm(tx)
            if batches.by_id(tx, batch.id) is None:
                batches.note_foreign(tx, batch, "its results carry none of our custom_ids")
        return True

    def _may_be(self, intent: Intent, batch: BatchObject) -> bool:
        return (
            batch.total == intent.requests
            and batch.created_at >= _earliest(intent)
            and batch.id not in intent.excluded
        )

    def _may_still_be(self, intent: Intent, batch: BatchObject) -> bool:
        """Whether a batch that nothing proves or rules out can be an intent's."""
        latest = self._latest.get(intent.id, intent.latest_created_at)
        return self._may_be(intent, batch) and (latest is None or batch.created_at <= latest)

    def _has(self, file: RequestFile, custom_id: str, *, is_lost: bool) -> bool:
        """Whether a file has a request with exactly this custom_id, whose mark shows that this root sent it.

        The index of a lost file has digests only, so there the mark itself is compared.
        """
        tail = custom_id[-DIGEST_CHARACTERS:]
        if tail not in (self._tails_of(file) or ()) or (file.id in self._lost) is not is_lost:
            return False
        if is_lost:
            return has_mark(custom_id, self._root.mark)
        return KnownRequests.read(self._root, file).proves(custom_id, self._root.mark)

    def _tails_of(self, file: RequestFile) -> set[str] | None:
        """Return the ends of a file's custom_ids; `None` if they are unknown.

        Of a file that is gone or damaged, as are the digests beside it, they are among those of its submission's
        index.
        """
        if file.id not in self._tails:
            stored = known_digests(self._root.storage, file)
            digests: Digests | None = stored.digests
            if stored.problem is not None:
                self._lost.add(file.id)
                digests = digests_of_submission(self._root, file)
            self._tails[file.id] = (
                None if digests is None else {tail.decode() for tail in tails_of(digests).tolist()}
            )
        return self._tails[file.id]

    def _settle_all(self, doubtful: list[Doubt], strangers: Strangers) -> None:
        with self._root.ledger.read() as tx:
            unsettled = [(intent, file) for intent, file in doubtful if files.by_id(tx, file.id).state.in_doubt]
        for intent, file in unsettled:
            self._settle(intent, file, strangers)

    def _settle(self, intent: Intent, file: RequestFile, strangers: Strangers) -> None:
        """Adopt the only running candidate, wait while there are several, or send again after the grace period.

        Args:
            intent: The intent whose outcome is unknown.
            file: Its request file.
            strangers: The batches that the ledger does not know.
        """

        def candidates(strange: list[BatchObject]) -> list[BatchObject]:
            return [batch for batch in strange if self._may_still_be(intent, batch)]

        running, unproved = candidates(strangers.running), candidates(strangers.unproved)
        unassigned = candidates(strangers.unassigned)
        is_only_one = len(running) == 1 and not unproved and not unassigned
        reason = "the only new batch with its count"
        if is_only_one and self._adopt(intent, file, running[0], provisional=True, reason=reason):
            strangers.running.remove(running[0])
        elif running or unproved or unassigned:
            self._explain(file, text_about([*running, *unassigned], unproved))
        elif file.id in self._accepted:
            text = "The API accepted the file, so it is not sent again, unless you remove the receipt"
            self._explain(file, f"{self._accepted[file.id]}. {text}")
        else:
            lost_ids = [batch.id for batch in candidates(strangers.beyond_proof)]
            self._send_again_after_grace(intent, file, lost_ids)

    def _explain(self, file: RequestFile, text: str) -> None:
        """Record what a file in doubt waits for. That of a killed process still counts as being sent."""
        with self._root.ledger.write() as tx:
            self._lease.confirm(tx)
            is_sending = files.by_id(tx, file.id).state is FileState.SENDING
            if is_sending and not leases.is_held(tx, files.lease_name(file.id)):
                move(tx, FileMove.DOUBT, file.id, _GONE, error=text)
            files.explain(tx, file.id, text)

    def _adopt(
        self,
        intent: Intent,
        file: RequestFile,
        reported: BatchObject,
        *,
        provisional: bool,
        reason: str,
        replied: bool = False,
    ) -> bool:
        receipt = None
        if not provisional:
            receipt = write_receipt(self._root, file, reported, replied=replied)
        with self._root.ledger.write() as tx:
            self._lease.confirm(tx)
            current = files.by_id(tx, file.id)
            if leases.is_held(tx, files.lease_name(file.id)):
                return False  # its sender is still working on it, and knows the outcome first
            if provisional and not current.state.in_doubt:
                return True
            if provisional and (batches.by_id(tx, reported.id) or self._is_shared(tx, current, reported)):
                return False
            recorded = batches.by_id(tx, reported.id)
            if recorded is not None and recorded.file_id == file.id and not recorded.provisional:
                return True
            batches.accept(
                tx, file.id, intent.id, reported, provisional=provisional, replied=replied, reason=reason
            )
            note_other(tx, file, receipt, reported.id)
        self._found_ids.append(reported.id)
        return True

    def _is_shared(self, tx: Transaction, file: RequestFile, reported: BatchObject) -> bool:
        """Whether a running batch may as well be another file's. Then its results have to show whose it is."""
        twins = files.twins_in_doubt(tx, file, reported.created_at)
        return any(self._may_still_be(twin, reported) for twin in twins)

    def _note_late(self, intent: Intent, file: RequestFile, batch: BatchObject) -> None:
        """Note a file's first batch that turned up after the grace period. Its answers are kept."""
        with self._root.ledger.write() as tx:
            self._lease.confirm(tx)
            if batches.by_id(tx, batch.id) is not None:
                return
            if intent.outcome is not IntentOutcome.RESENT:
                is_repeated = file.state is not FileState.CANCELED or files.was_sent_again(tx, intent)
                is_paid_twice = is_repeated and not _is_answered_by_refusal(intent, file)
                repeats.record_in(tx, batch, file, paid_twice=is_paid_twice)
                self._found_ids.append(batch.id)
                return
            twice = files.was_sent_again(tx, intent)
            reason = "the API hid it for longer than the grace period"
            reason += ": these requests are paid twice" if twice else ", and its file was not sent again"
            batches.note_late(tx, batch, file.id, reason, paid_twice=twice)
            files.settle(tx, intent.id, IntentOutcome.ADOPTED)
        self._found_ids.append(batch.id)

    def _send_again_after_grace(self, intent: Intent, file: RequestFile, lost_ids: list[str]) -> None:
        if intent.anchor_id not in self._listed and not workspace.is_ours(self._root, intent):
            self._explain(file, workspace.question(self._root))
            return
        with self._root.ledger.write() as tx:
            self._lease.confirm(tx)
            reason, is_refused = (
                self._why_again(tx, intent, file, lost_ids),
                repeats.is_refused_after_all(tx, intent),
            )
            intent, watch_until = files.intent_of(tx, file.id, intent.id), tx.now + files.WATCH_SECONDS
        if reason is None:
            return
        if not is_refused:  # a ledger that is lost from here on does not forget what may have to be paid
            trace = ResentTrace(StoredRequestFile.of(self._root.storage, file))
            trace.add(ResentUpload.of(intent, watch_until))
        with self._root.ledger.write() as tx:
            self._lease.confirm(tx)
            if self._why_again(tx, intent, file, lost_ids) is None:
                return
            files.settle(tx, intent.id, IntentOutcome.RESENT, watch_until=watch_until)
            if submissions.is_wanted(tx, file):
                files.send_again(tx, files.by_id(tx, file.id), f"{reason}: it is sent again")
            else:
                reason = f"{reason}, and no submission in force waits on it"
                move(tx, FileMove.DROP, file.id, reason, not_before=0.0)

    def _why_again(self, tx: Transaction, intent: Intent, file: RequestFile, lost_ids: list[str]) -> str | None:
        """Return why a file without candidates may be sent again; `None` if it may not, or not yet."""
        grace, current = self._root.settings.reconcile_grace, files.by_id(tx, file.id)
        if not current.state.in_doubt or leases.is_held(tx, files.lease_name(file.id)):
            return None
        last_byte_at = intent.last_byte_at
        if last_byte_at is None:
            # A killed upload has no last byte on record. Its lease ended after the last byte.
            last_byte_at = leases.ended_at(tx, files.lease_name(file.id)) or tx.now
            files.settle(tx, intent.id, IntentOutcome.UNRESOLVED, last_byte_at=last_byte_at)
        if repeats.is_refused_after_all(tx, intent):
            return f"it was refused, and {intent.candidate_id} belongs to another"
        if tx.now < last_byte_at + grace:
            if current.state is FileState.SENDING:
                move(tx, FileMove.DOUBT, file.id, _GONE)
            return None
        if lost_ids:
            return f"the results of {', '.join(lost_ids)}, which may be its batch, can no longer be read"
        return f"the API shows no such batch after {duration(grace)}"
