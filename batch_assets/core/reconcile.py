"""Files in doubt: was the batch accepted, or not? Found out from the API's own list, never by sending again.

A batch the ledger does not know, created after the anchor and of the same count, is a candidate. An ended
one is proved or ruled out by one line of its results; a running one that is the only candidate is adopted
until its results prove it. Only when there is none for the grace period is the file sent again.
"""

from __future__ import annotations

import orjson

from batch_assets.core.client import ApiError
from batch_assets.core.digests import DIGEST_CHARACTERS
from batch_assets.core.errors import BusyError
from batch_assets.core.ledger import batches, files, leases
from batch_assets.core.ledger.records import Intent, RequestFile
from batch_assets.core.request_files import StoredRequestFile
from batch_assets.core.root import Root
from batch_assets.core.wire import BatchObject

# The list may show a batch a little before the anchor: several clocks make it.
_MARGIN_SECONDS = 300.0
# A first line longer than this proves nothing: no answer is that long.
_FIRST_LINE_BYTES = 64 << 20


def reconcile(root: Root) -> list[str]:
    """Settles what can be settled of all files in doubt.

    Returns:
        Ids of the batches that were found to be ours.
    """
    with root.ledger.read() as tx:
        doubtful, watched = files.in_doubt(tx), files.watched(tx)
    if not doubtful and not watched:
        return []
    try:
        with leases.hold(root.ledger, "reconcile"):
            return _Reconciler(root).run()
    except BusyError:
        return []  # somebody else is at it
    except ApiError:
        return []  # the list is not to be had now: the files stay in doubt


class _Reconciler:
    def __init__(self, root: Root) -> None:
        self._root = root
        self._found: list[str] = []

    def run(self) -> list[str]:
        with self._root.ledger.read() as tx:
            doubtful, watched, known = files.in_doubt(tx), files.watched(tx), batches.known_ids(tx)
        doubtful = [(intent, file) for intent, file in doubtful if not self._by_receipt(intent, file)]
        anchors = [intent.anchor_created_at for intent, _ in doubtful]
        anchors += [intent.anchor_created_at for intent in watched]
        if not anchors:
            return self._found
        back_to = None if None in anchors else min(a for a in anchors if a is not None) - _MARGIN_SECONDS
        counts = {intent.requests for intent, _ in doubtful} | {intent.requests for intent in watched}
        strangers = [
            batch
            for batch in self._root.api.batches_back_to(back_to)
            if batch.id not in known and batch.total in counts
        ]
        for intent, file in doubtful:
            self._settle(intent, file, strangers)
        for intent in watched:
            self._watch(intent, strangers)
        return self._found

    def _by_receipt(self, intent: Intent, file: RequestFile) -> bool:
        """A killed process may have left the receipt: then nothing is in doubt."""
        seen = StoredRequestFile.of(self._root, file).receipt()
        return seen is not None and self._adopt(
            intent, file, seen, provisional=False, reason="its receipt names the batch"
        )

    def _settle(self, intent: Intent, file: RequestFile, strangers: list[BatchObject]) -> None:
        earliest = (intent.anchor_created_at or 0.0) - _MARGIN_SECONDS
        candidates = [b for b in strangers if b.total == intent.requests and b.created_at >= earliest]
        tails = {tail.decode() for tail in StoredRequestFile.of(self._root, file).tails().tolist()}
        running, unproved = [], 0
        for batch in candidates:
            if not batch.ended:
                running.append(batch)
                continue
            proof = self._is_ours(batch, tails)
            if proof is None:
                unproved += 1
                continue
            strangers.remove(batch)
            if proof:
                self._adopt(intent, file, batch, provisional=False, reason="its results are ours")
                return
            self._note_foreign(batch)
        if len(running) == 1 and not unproved:
            reason = "the only new batch with its count"
            if self._adopt(intent, file, running[0], provisional=True, reason=reason):
                strangers.remove(running[0])
        elif not running and not unproved:
            self._send_again_after_grace(intent, file)

    def _is_ours(self, batch: BatchObject, tails: set[str]) -> bool | None:
        """Whether the first line of the results carries one of the custom_ids; None when it cannot be read."""
        received = b""
        try:
            with self._root.api.results(batch.id) as chunks:
                for chunk in chunks:
                    received += chunk
                    if b"\n" in received or len(received) > _FIRST_LINE_BYTES:
                        break
            custom_id = orjson.loads(received.split(b"\n", 1)[0])["custom_id"]
        except (ApiError, orjson.JSONDecodeError, KeyError, TypeError):
            return None
        return str(custom_id)[-DIGEST_CHARACTERS:] in tails

    def _adopt(
        self, intent: Intent, file: RequestFile, seen: BatchObject, *, provisional: bool, reason: str
    ) -> bool:
        stored = StoredRequestFile.of(self._root, file)
        if not provisional:
            stored.write_receipt(seen, file.attempt, self._root.api.base_url, self._root.api.organization)
        with self._root.ledger.write() as tx:
            if files.by_id(tx, file.id).state not in ("sending", "unresolved"):
                return True
            if leases.is_held(tx, files.lease_name(file.id)) or batches.by_id(tx, seen.id) is not None:
                return False
            batches.accept(tx, file.id, intent.id, seen, provisional=provisional, reason=reason)
        self._found.append(seen.id)
        return True

    def _note_foreign(self, batch: BatchObject) -> None:
        with self._root.ledger.write() as tx:
            if batches.by_id(tx, batch.id) is None:
                batches.note_foreign(tx, batch, "its results carry none of our custom_ids")

    def _send_again_after_grace(self, intent: Intent, file: RequestFile) -> None:
        grace = self._root.settings.reconcile_grace
        with self._root.ledger.write() as tx:
            current = files.by_id(tx, file.id)
            if current.state not in ("sending", "unresolved") or leases.is_held(tx, files.lease_name(file.id)):
                return
            # A killed upload has no last byte on record: the lease outlived the last chunk at most.
            last_byte_at = intent.last_byte_at or intent.started_at + leases.LEASE_SECONDS
            if tx.now < last_byte_at + grace:
                if current.state == "sending":
                    files.move(tx, file.id, ("sending",), "unresolved", "its process is gone")
                    files.settle(tx, intent.id, "unresolved")
                return
            reason = f"the API shows no such batch after {grace:.0f} s: it is sent again"
            files.settle(tx, intent.id, "resent", watch_until=tx.now + files.WATCH_SECONDS)
            files.move(tx, file.id, ("sending", "unresolved"), "ready", reason, not_before=0.0)

    def _watch(self, intent: Intent, strangers: list[BatchObject]) -> None:
        """The file was sent again; the first batch may still turn up. It is never cancelled on its count."""
        earliest = (intent.anchor_created_at or 0.0) - _MARGIN_SECONDS
        candidates = [b for b in strangers if b.total == intent.requests and b.created_at >= earliest and b.ended]
        if not candidates:
            return
        with self._root.ledger.read() as tx:
            file = files.by_id(tx, intent.file_id)
        tails = {tail.decode() for tail in StoredRequestFile.of(self._root, file).tails().tolist()}
        for batch in candidates:
            if not self._is_ours(batch, tails):
                continue
            strangers.remove(batch)
            with self._root.ledger.write() as tx:
                if batches.by_id(tx, batch.id) is None:
                    reason = "it had been hidden beyond the grace period: these requests are paid twice"
                    batches.note_paid_twice(tx, batch, file.id, reason)
                    files.settle(tx, intent.id, "adopted")
            self._found.append(batch.id)
