"""Asking again: failed requests of the newest submission, copied into further parts of it.

Neither dataset nor template is read: a half-edited prompt is never bought unattended.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.errors import MissingFileError
from batch_assets.core.io.layout import submission_parts
from batch_assets.core.io.names import REQUEST_FILES, PartName, ResponseName, SubmissionId
from batch_assets.core.ledger import batches, leases, standstills, submissions
from batch_assets.core.ledger import files as ledger_files
from batch_assets.core.ledger.records import RequestFile, Submission
from batch_assets.core.root import Root
from batch_assets.core.store.digests import DigestSet
from batch_assets.core.store.fate import RequestFate, request_fates
from batch_assets.core.store.in_flight import RequestsInFlight
from batch_assets.core.store.part_writer import PartWriters
from batch_assets.core.store.refreshes import outcomes_for
from batch_assets.core.store.request_files import StoredRequestFile
from batch_assets.core.store.request_index import DIGEST, LEFT_OUT, RequestIndex
from batch_assets.core.store.responses import ResponseFiles, digest_array


def plan_again(root: Root, submission: Submission) -> int:
    """Writes the submission's requests that failed for a passing reason into new request files.

    Returns:
        How many requests were written.

    Errors:
        MissingFileError: nobody can tell which of them are on their way, or what their text was; nothing is
            written.
        BusyError: another run is at the pipeline's requests.
    """
    if submission.ask_again == 0:
        return 0
    with leases.hold(root.ledger, f"requests:{submission.pipeline}", wait=leases.PATIENCE) as lease:
        with root.ledger.read() as tx:
            current = submissions.by_id(tx, submission.id)
            holding = submissions.holding(tx, submission.pipeline)
            own = [file.name for file in submissions.waited_on(tx, submission.id)]
        if current.ask_again == 0:
            return 0
        held = RequestsInFlight(root, holding)
        folder = submission_parts(submission.pipeline, submission.partition, submission.id)
        root.storage.remove_leftovers(*folder, name=REQUEST_FILES)  # a receipt may be on its way
        taken = {*own, *root.storage.names(*folder)}
        names = (name for name in map(PartName, itertools.count()) if str(name) not in taken)
        limits = submission.max_requests, submission.max_bytes
        parts = PartWriters(root.storage, folder, limits, names.__next__)
        try:
            with parts:
                for attempt, headers, text in _failed_lines(root, submission, held):
                    lease.check()
                    parts.add(attempt, headers, [text])
        except MissingFileError:  # tried again and again, it would leave parts that nobody knows each time
            for entry in parts.written:
                root.storage.remove(*folder, entry.name)
            raise
        place = {"pipeline": submission.pipeline, "partition": submission.partition}
        own_id = SubmissionId(submission.id)
        files = [{"id": str(own_id.file(entry.part)), **place, **entry.model_dump()} for entry in parts.written]
        with root.ledger.write() as tx:
            lease.confirm(tx)
            submissions.add_files(tx, submission.id, files)
            submissions.add_waits(tx, submission.id, held.waited_on)
            if not submissions.let_go(tx, held.waited_on):  # otherwise the next run plans again
                submissions.planned_again(tx, submission.id)
                standstills.end(tx, submission.id)
        return sum(entry.requests for entry in parts.written)


def _failed_lines(
    root: Root, submission: Submission, held: RequestsInFlight
) -> Iterator[tuple[int, dict[str, str] | None, bytes]]:
    """(next attempt, headers, line) of every request to ask again.

    Responses are in the order of their request file. Headers are None where they are the submission's.
    """
    outcomes = outcomes_for(root, submission)
    index = RequestIndex(root.storage, submission.pipeline, submission.partition, submission.id)
    seen = DigestSet()
    places: list[NDArray[np.int64]] = []
    attempts: list[NDArray[np.int32]] = []
    for rows in index.slices([DIGEST, LEFT_OUT] if index.is_limited else [DIGEST]):
        digests = np.unique(digest_array(rows.column(0).drop_null()))
        digests = digests[~seen.contains(digests)]
        seen.add(digests)
        left_out = None
        if index.is_limited:
            left_out = np.isin(digests, digest_array(rows.column(0).filter(rows.column(1))))
        place, outcome, attempt = outcomes.of(digests)
        fates = request_fates(
            place >= 0, outcome, attempt, max_attempts=submission.attempts_allowed, left_out=left_out
        )
        due = np.flatnonzero(fates == RequestFate.RETRY.value)
        free = due[~held.contains(digests[due])]  # asked for these alone: the submission waits on what holds them
        places.append(place[free])
        attempts.append(attempt[free])
    place = np.concatenate([np.empty(0, np.int64), *places])
    attempt = np.concatenate([np.empty(0, np.int32), *attempts])
    order = np.argsort(place)
    yield from _lines_at(root, submission, outcomes.files, place[order], attempt[order])


def _lines_at(
    root: Root, submission: Submission, files: ResponseFiles, place: NDArray[np.int64], attempt: NDArray[np.int32]
) -> Iterator[tuple[int, dict[str, str] | None, bytes]]:
    """(next attempt, headers, line) for sorted places."""
    for number, which, rows in files.by_file(place):
        file, headers = _file_of(root, submission, files.names[number])
        if file is None:
            continue  # the ledger does not know the batch
        lines = enumerate(_lines_of(root, file))
        for wanted, tries in zip(rows.tolist(), attempt[which].tolist(), strict=True):
            text = next((text for at, text in lines if at == wanted), None)
            if text is None:
                break  # the file is shorter than it was
            yield tries + 1, headers, text


def _file_of(
    root: Root, submission: Submission, responses: ResponseName
) -> tuple[RequestFile | None, dict[str, str] | None]:
    """The request file that responses are to, and its headers where they are not the submission's."""
    with root.ledger.read() as tx:
        file_id = str(refused) if (refused := responses.refused) is not None else None
        if responses.batch_id is not None:
            batch = batches.by_id(tx, responses.batch_id)
            file_id = batch.file_id if batch is not None else None
        if file_id is None:
            return None, None
        file = ledger_files.by_id(tx, file_id)
        headers = ledger_files.headers_of(tx, file)
    return file, None if headers == json.loads(submission.headers) else headers


def _lines_of(root: Root, file: RequestFile) -> Iterator[bytes]:
    try:
        yield from StoredRequestFile.of(root.storage, file).lines()
    except FileNotFoundError:
        raise MissingFileError(
            f"the request file {file.id} is gone from {root.storage.url}, and with it the text of requests that "
            f"failed and are to be asked again. Restore it from a backup, or materialize {file.pipeline}/requests"
        ) from None
