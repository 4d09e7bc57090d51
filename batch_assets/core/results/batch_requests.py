"""The requests of a batch, and the lines of its results that answer them.

The end of a custom_id is the digest of its request. So the answers of a batch that is certainly ours can be stored
although the request file is gone or damaged. Only if the API no longer has them are they lost.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from batch_assets.core.errors import ResultsError
from batch_assets.core.io.json_text import load_line
from batch_assets.core.ledger import lost_answers, submissions
from batch_assets.core.remedies import GiveUpAnswers
from batch_assets.core.results.download import LeasedBatch
from batch_assets.core.results.result_lines import ResultLines
from batch_assets.core.store.digests import Digests, pack
from batch_assets.core.store.erased import ErasedRecord
from batch_assets.core.store.in_flight import known_digests
from batch_assets.core.store.known_requests import GONE, KnownRequests
from batch_assets.core.store.request_files import StoredRequestFile
from batch_assets.core.store.request_lines import custom_id_of


def stored_file(leased: LeasedBatch) -> StoredRequestFile:
    """Return the request file of a batch, which may be gone."""
    return StoredRequestFile.of(leased.root.storage, leased.file)


def has_request_file(leased: LeasedBatch) -> bool:
    """Whether the request file of a batch is there."""
    return stored_file(leased).is_there()


def requests_of(leased: LeasedBatch) -> KnownRequests:
    """Return the requests of a batch, as far as they are known."""
    return KnownRequests.read(leased.root, leased.file)


def all_requests_of(leased: LeasedBatch, why: str) -> KnownRequests:
    """Return the requests of a batch whose results no longer exist, so that none of them is paid for again.

    Args:
        leased: The batch.
        why: Why there are no results.

    Raises:
        ResultsError: When the request file is gone, or damaged so that its requests are unknown.
    """
    if not has_request_file(leased):
        raise answers_lost(leased, why)
    requests = requests_of(leased)
    if not requests.are_complete:
        requests = requests.narrowed(_in_other_files(leased))
    if not requests.are_complete:
        uri = leased.root.storage.uri(*stored_file(leased).parts)
        raise ResultsError(
            f"results of {leased.batch.id}: {why}, and the request file {uri} is damaged: {requests.problem}. "
            "Which requests have no answer is unknown, because the digests beside it are lost too. Restore either "
            "from a backup, or remove the request file if there is none"
        )
    return requests


def _in_other_files(leased: LeasedBatch) -> Digests:
    """Return the requests of the batch's submission that other files in flight have: S16, shape (n,)."""
    with leased.root.ledger.read() as tx:
        in_flight = submissions.files_in_flight(tx, leased.file.pipeline, leased.file.partition)
    others = [
        known_digests(leased.root.storage, file).digests
        for file in in_flight
        if file.submission_id == leased.file.submission_id and file.id != leased.file.id
    ]
    return np.concatenate([pack([]), *others])


def damage(leased: LeasedBatch, requests: KnownRequests) -> str | None:
    """Return a text about a damaged request file; `None` if it is intact, or gone."""
    if requests.problem in (None, GONE):
        return None
    uri = leased.root.storage.uri(*stored_file(leased).parts)
    return (
        f"results of {leased.batch.id}: the request file {uri} is damaged: {requests.problem}. Its answers are "
        "matched without it. Restore it from a backup: otherwise those of its requests that fail cannot be sent "
        "again"
    )


def check_matchable(leased: LeasedBatch) -> None:
    """Check that the answers of a batch, whose request file is gone, can be matched and that someone has them.

    Raises:
        ResultsError: When they are lost, or the request file is needed.
    """
    root, batch = leased.root, leased.batch
    with root.ledger.read() as tx:
        was_deleted = lost_answers.was_deleted(tx, batch.id)
    if was_deleted:
        raise answers_lost(leased, "the API has deleted the batch")
    if ErasedRecord.read(root.storage, leased.file.pipeline) is not None:
        raise answers_lost(leased, "rows were erased since, and the API may still have their answers")
    if batch.provisional:
        requests = requests_of(leased)
        if not requests.are_complete and requests.possible() is None:
            raise _unproved(leased)


def answers_lost(leased: LeasedBatch, why: str) -> ResultsError:
    """Return the error about answers that only a backup may have."""
    batch, file = leased.batch, leased.file
    uri = leased.root.storage.uri(*stored_file(leased).parts)
    text = lost_answers.text(batch.id, f"{why}, and the request file {uri} is gone")
    return ResultsError(text, remedy=GiveUpAnswers(batch.id, file.pipeline))


def find_lines(leased: LeasedBatch, raw: Path, requests: KnownRequests) -> ResultLines | None:
    """Find the lines of a download that answer a batch's requests.

    A batch that was matched by its count alone is proved first. Another root may have sent the same questions.

    Args:
        leased: The batch.
        raw: The path of the download.
        requests: The requests of its file.

    Returns:
        `None` if the results are not ours.

    Raises:
        ResultsError: When nothing shows whether they are.
    """
    possible = None if requests.are_complete else requests.possible()
    is_provisional = leased.batch.provisional
    fill = not is_provisional or possible is not None
    certain = requests.are_certain
    lines = ResultLines.find(raw, requests.tails, fill=fill, possible=possible, are_certain=certain)
    if not lines.named or not is_provisional:
        return lines
    if not _is_proved(leased, raw, requests, lines):
        if possible is None and not requests.are_complete:
            raise _unproved(leased)
        return None
    # A readable line has proved it, so the others are answers to its damaged ones.
    if not fill and not requests.are_complete:
        lines = ResultLines.find(raw, requests.tails, fill=True, are_certain=certain)
    return lines


def _is_proved(leased: LeasedBatch, raw: Path, requests: KnownRequests, lines: ResultLines) -> bool:
    """Whether one of the results has a custom_id of ours: one that the request file has, if there is one."""
    in_file = np.flatnonzero((lines.start >= 0) & (lines.tails == requests.tails) & (requests.starts >= 0))
    for number in [*in_file[:1].tolist(), *np.flatnonzero(lines.start >= 0)[:1].tolist()]:
        start, end = int(lines.start[number]), int(lines.end[number])
        with raw.open("rb") as file:
            file.seek(start)
            line = file.read(end - start)
        custom_id = custom_id_of(line) or str(load_line(line)["custom_id"])
        if requests.proves(custom_id, leased.root.mark):
            return True
    return False


def _unproved(leased: LeasedBatch) -> ResultsError:
    uri = leased.root.storage.uri(*stored_file(leased).parts)
    return ResultsError(
        f"results of {leased.batch.id}: the request file {uri} and the index beside it are gone or damaged, and "
        "without them nothing shows whether this batch is ours. Restore one of the two from a backup"
    )
