"""Retries: copy failed requests of the newest submission into further request files of it.

Neither the dataset nor the template is read, so a half-edited prompt is never paid for unattended.
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
from batch_assets.core.remedies import RunStage, Stage
from batch_assets.core.root import Root
from batch_assets.core.store.digests import DigestSet, with_mark
from batch_assets.core.store.fate import RequestFate, request_fates
from batch_assets.core.store.in_flight import RequestsInFlight
from batch_assets.core.store.part_writer import PartWriters
from batch_assets.core.store.refreshes import outcomes_for
from batch_assets.core.store.request_files import StoredRequestFile
from batch_assets.core.store.request_index import DIGEST, LEFT_OUT, RequestIndex
from batch_assets.core.store.request_lines import custom_id_of, with_custom_id
from batch_assets.core.store.responses import ResponseFiles, digest_array


def plan_again(root: Root, submission: Submission) -> int:
    """Write the submission's requests that failed for a passing reason into new request files.

    Returns:
        The number of requests written.

    Raises:
        MissingFileError: When a lost file leaves unknown which of them are in flight, or what their text was.
            Nothing is written.
        BusyError: When another run works on the pipeline's requests.
    """
    if submission.ask_again == 0:
        return 0
    with leases.hold_requests(root.ledger, submission.pipeline, wait=leases.PATIENCE) as lease:
        with root.ledger.read() as tx:
            current = submissions.by_id(tx, submission.id)
            files_in_flight = submissions.files_in_flight(tx, submission.pipeline)
            waited_on_names = [file.name for file in submissions.waited_on(tx, submission.id)]
        if current.ask_again == 0:
            return 0
        in_flight = RequestsInFlight(root, files_in_flight)
        folder = submission_parts(submission.pipeline, submission.partition, submission.id)
        # Request files only: another process may be writing a receipt.
        root.storage.remove_leftovers(*folder, name=REQUEST_FILES)
        used_names = {*waited_on_names, *root.storage.names(*folder)}
        names = (name for name in map(PartName, itertools.count()) if str(name) not in used_names)
        limits = submission.max_requests, submission.max_bytes
        parts = PartWriters(root.storage, folder, limits, names.__next__)
        try:
            with parts:
                for attempt, headers, text in _failed_lines(root, submission, in_flight):
                    lease.check()
                    custom_id = with_mark(custom_id_of(text), root.mark)
                    parts.add(attempt, headers, [with_custom_id(text, custom_id)])
        except MissingFileError:  # it is retried, and would leave files unknown to the ledger each time
            for entry in parts.written:
                root.storage.remove(*folder, entry.name)
            raise
        submission_id = SubmissionId(submission.id)
        files = [
            entry.ledger_entry(submission_id, submission.pipeline, submission.partition) for entry in parts.written
        ]
        with root.ledger.write() as tx:
            lease.confirm(tx)
            submissions.add_files(tx, submission.id, files)
            submissions.add_waits(tx, submission.id, in_flight.waited_on)
            if not submissions.let_go(tx, in_flight.waited_on):  # otherwise the next run plans again
                submissions.planned_again(tx, submission.id)
                standstills.end(tx, submission.id)
        return sum(entry.requests for entry in parts.written)


def _failed_lines(
    root: Root, submission: Submission, in_flight: RequestsInFlight
) -> Iterator[tuple[int, dict[str, str] | None, bytes]]:
    """Yield (next attempt, headers, line) of every request to retry.

    Responses are in the order of their request file. The headers are `None` if they are the submission's.
    """
    outcomes = outcomes_for(root, submission)
    index = RequestIndex(root.storage, submission.pipeline, submission.partition, submission.id)
    read_before = DigestSet()
    all_rows: list[NDArray[np.int64]] = []
    all_attempts: list[NDArray[np.int32]] = []
    for rows in index.slices([DIGEST, LEFT_OUT] if index.is_limited else [DIGEST]):
        digests = np.unique(digest_array(rows.column(0).drop_null()))
        digests = digests[~read_before.contains(digests)]
        read_before.add(digests)
        left_out = None
        if index.is_limited:
            left_out = np.isin(digests, digest_array(rows.column(0).filter(rows.column(1))))
        response_rows, kinds, attempts = outcomes.for_digests(digests)
        fates = request_fates(
            response_rows >= 0, kinds, attempts, max_attempts=submission.attempts_allowed, left_out=left_out
        )
        due = np.flatnonzero(fates == RequestFate.RETRY.value)
        # Only requests to retry are looked up: the submission will wait on every file that `in_flight` finds.
        free = due[~in_flight.contains(digests[due])]
        all_rows.append(response_rows[free])
        all_attempts.append(attempts[free])
    response_rows = np.concatenate([np.empty(0, np.int64), *all_rows])
    attempts = np.concatenate([np.empty(0, np.int32), *all_attempts])
    order = np.argsort(response_rows)
    yield from _request_lines(root, submission, outcomes.files, response_rows[order], attempts[order])


def _request_lines(
    root: Root,
    submission: Submission,
    files: ResponseFiles,
    response_rows: NDArray[np.int64],
    attempts: NDArray[np.int32],
) -> Iterator[tuple[int, dict[str, str] | None, bytes]]:
    """Yield (next attempt, headers, line) of the requests that some responses belong to.

    Args:
        root: The root.
        submission: The submission whose requests are retried.
        files: The response files.
        response_rows: The row numbers of the responses, sorted; int64, shape (n,).
        attempts: The last attempt of each request; int32, shape (n,).
    """
    for number, selected, rows in files.by_file(response_rows):
        file, headers = _file_of(root, submission, files.names[number])
        if file is None:
            continue  # the ledger does not know the batch
        lines = enumerate(_lines_of(root, submission, file))
        for wanted, attempt in zip(rows.tolist(), attempts[selected].tolist(), strict=True):
            line = next((line for position, line in lines if position == wanted), None)
            if line is None:
                break  # the file is shorter than it was
            yield attempt + 1, headers, line


def _file_of(
    root: Root, submission: Submission, responses: ResponseName
) -> tuple[RequestFile | None, dict[str, str] | None]:
    """Return the request file that responses belong to, and its headers unless they are the submission's."""
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


def _lines_of(root: Root, submission: Submission, file: RequestFile) -> Iterator[bytes]:
    try:
        yield from StoredRequestFile.of(root.storage, file).lines()
    except FileNotFoundError:
        raise MissingFileError(
            f"the request file {file.id} is gone from {root.storage.url}, and with it the text of failed "
            "requests that are to be retried. Restore it from a backup, or build the requests again",
            remedy=RunStage(Stage.REQUESTS, submission.pipeline, submission.partition),
        ) from None
