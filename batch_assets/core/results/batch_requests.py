"""The requests of a batch: from its request file or, without it, from the lines of its results.

The end of a custom_id is the digest of its request. So the answers of a batch that is certainly ours can be stored
although the request file is gone. Only if the API no longer has them are they lost.
"""

from __future__ import annotations

import numpy as np

from batch_assets.core.errors import ResultsError
from batch_assets.core.ledger import lost_answers
from batch_assets.core.remedies import GiveUpAnswers
from batch_assets.core.results.download import LeasedBatch
from batch_assets.core.store.digests import DIGEST_CHARACTERS, Digests, decode_tails, has_mark
from batch_assets.core.store.erased import ErasedRecord
from batch_assets.core.store.in_flight import digests_of_submission
from batch_assets.core.store.request_files import StoredRequestFile
from batch_assets.core.store.request_lines import Scan


def stored_file(leased: LeasedBatch) -> StoredRequestFile:
    """Return the request file of a batch, which may be gone."""
    return StoredRequestFile.of(leased.root.storage, leased.file)


def has_request_file(leased: LeasedBatch) -> bool:
    """Whether the request file of a batch is there."""
    return stored_file(leased).is_there()


def requests_of(leased: LeasedBatch) -> Scan:
    """Find the requests of a batch. Those whose lines are damaged, cut off or gone have a tail of zeros."""
    try:
        requests = stored_file(leased).scan()
    except FileNotFoundError:
        requests = Scan(np.empty(0, np.int64), np.empty(0, f"S{DIGEST_CHARACTERS}"), b"")
    lost = leased.file.requests - len(requests.tails)
    if lost <= 0:
        return requests
    end = requests.ends[-1] if len(requests.ends) else 0
    ends = np.append(requests.ends, np.full(lost, end, dtype=np.int64))
    return Scan(ends, np.append(requests.tails, np.zeros(lost, dtype=requests.tails.dtype)), requests.remainder)


def check_matchable(leased: LeasedBatch) -> None:
    """Check that the answers of a batch can be matched to rows, and that someone has them.

    Raises:
        ResultsError: When they are lost, or the request file is needed.
    """
    if has_request_file(leased):
        return
    root, batch = leased.root, leased.batch
    with root.ledger.read() as tx:
        was_deleted = lost_answers.was_deleted(tx, batch.id)
    if was_deleted:
        raise answers_lost(leased, "the API has deleted the batch")
    if ErasedRecord.read(root.storage, leased.file.pipeline) is not None:
        raise answers_lost(leased, "rows were erased since, and the API may still have their answers")
    if batch.provisional and _own_digests(leased) is None:
        uri = root.storage.uri(*stored_file(leased).parts)
        raise ResultsError(
            f"results of {batch.id}: the request file {uri} and the index beside it are gone, and without them "
            "nothing shows whether this batch is ours. Restore one of the two from a backup"
        )


def answers_lost(leased: LeasedBatch, why: str) -> ResultsError:
    """Return the error about answers that only a backup may have."""
    batch, file = leased.batch, leased.file
    uri = leased.root.storage.uri(*stored_file(leased).parts)
    text = lost_answers.text(batch.id, f"{why}, and the request file {uri} is gone")
    return ResultsError(text, remedy=GiveUpAnswers(batch.id, file.pipeline))


def is_own_custom_id(leased: LeasedBatch, custom_id: str, requests: Scan) -> bool:
    """Whether a result has the custom_id of a request of the file. Another root may have sent the same question.

    Without the file, the index beside it names the requests, and the mark shows which root sent them.
    """
    if has_request_file(leased):
        return stored_file(leased).has(custom_id, requests)
    own = _own_digests(leased)
    digest, is_tail = decode_tails(np.array([custom_id[-DIGEST_CHARACTERS:].encode()], f"S{DIGEST_CHARACTERS}"))
    return own is not None and has_mark(custom_id, leased.root.mark) and bool(is_tail[0] and digest[0] in own)


def _own_digests(leased: LeasedBatch) -> Digests | None:
    return digests_of_submission(leased.root.storage, leased.file)
