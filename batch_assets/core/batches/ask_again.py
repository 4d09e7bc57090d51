"""Asking again: failed requests of the newest submission, copied into further parts of it.

Neither dataset nor template is read: a half-edited prompt is never bought unattended.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from batch_assets.core.errors import MissingFileError
from batch_assets.core.io.layout import refused_file, submission_parts
from batch_assets.core.ledger import batches, leases, standstills, submissions
from batch_assets.core.ledger import files as ledger_files
from batch_assets.core.ledger.records import RequestFile, Submission
from batch_assets.core.root import Root
from batch_assets.core.store.digests import DigestSet
from batch_assets.core.store.fate import RequestFate, request_fates
from batch_assets.core.store.in_flight import HeldRequests
from batch_assets.core.store.refreshes import standing_for
from batch_assets.core.store.request_files import PARTS, PartWriter, StoredRequestFile
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
        held = HeldRequests(root, holding)
        folder = submission_parts(submission.pipeline, submission.partition, submission.id)
        root.storage.remove_leftovers(*folder, name=PARTS)  # a receipt may be on its way
        taken = {*own, *root.storage.names(*folder)}
        names = (name for number in range(100_000) if (name := f"part-{number:05d}.jsonl") not in taken)
        writers: dict[tuple[int, str | None], PartWriter] = {}
        try:
            for attempt, headers, text in _failed_lines(root, submission, held):
                lease.check()
                if (attempt, headers) not in writers:
                    limits = (submission.max_requests, submission.max_bytes)
                    their = json.loads(headers) if headers is not None else None
                    writers[attempt, headers] = PartWriter(
                        root.storage, folder, attempt, limits, names.__next__, their
                    )
                writers[attempt, headers].add([text])
            for writer in writers.values():
                writer.finish()
        except MissingFileError:  # tried again and again, it would leave parts that nobody knows each time
            for writer in writers.values():
                writer.abandon()
                for part in writer.written:
                    root.storage.remove(*folder, part["name"])
            raise
        written = [file for writer in writers.values() for file in writer.written]
        place = {"pipeline": submission.pipeline, "partition": submission.partition}
        files = [{"id": f"{submission.id}/{file['name']}", **place, **file} for file in written]
        with root.ledger.write() as tx:
            lease.confirm(tx)
            submissions.add_files(tx, submission.id, files)
            submissions.add_waits(tx, submission.id, held.waited_on)
            if not submissions.let_go(tx, held.waited_on):  # otherwise the next run plans again
                submissions.planned_again(tx, submission.id)
                standstills.end(tx, submission.id)
        return sum(file["requests"] for file in written)


def _failed_lines(
    root: Root, submission: Submission, held: HeldRequests
) -> Iterator[tuple[int, str | None, bytes]]:
    """(next attempt, headers, line) of every request to ask again.

    Responses stand in the order of their request file. Headers are JSON, None for those of the submission.
    """
    standing = standing_for(root, submission)
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
        place, outcome, attempt = standing.of(digests)
        fates = request_fates(
            place >= 0, outcome, attempt, max_attempts=submission.max_attempts, left_out=left_out
        )
        due = np.flatnonzero(fates == RequestFate.RETRY.value)
        free = due[~held.contains(digests[due])]  # asked for these alone: the submission waits on what holds them
        places.append(place[free])
        attempts.append(attempt[free])
    place = np.concatenate([np.empty(0, np.int64), *places])
    attempt = np.concatenate([np.empty(0, np.int32), *attempts])
    order = np.argsort(place)
    yield from _lines_at(root, submission, standing.files, place[order], attempt[order])


def _lines_at(
    root: Root, submission: Submission, files: ResponseFiles, place: NDArray[np.int64], attempt: NDArray[np.int32]
) -> Iterator[tuple[int, str | None, bytes]]:
    """(next attempt, headers, line) for sorted places."""
    for number, name in enumerate(files.names):
        start, end = files.starts[number : number + 2].tolist()
        low, high = np.searchsorted(place, [start, end]).tolist()
        if low == high:
            continue
        file, headers = _file_of(root, submission, name)
        if file is None:
            continue  # the ledger does not know the batch
        lines = enumerate(_lines_of(root, file), start)
        for wanted, tries in zip(place[low:high].tolist(), attempt[low:high].tolist(), strict=True):
            text = next((text for at, text in lines if at == wanted), None)
            if text is None:
                break  # the file is shorter than it was
            yield tries + 1, headers, text


def _file_of(root: Root, submission: Submission, response_file: str) -> tuple[RequestFile | None, str | None]:
    """The request file that responses are to, and its headers where they are not the submission's."""
    with root.ledger.read() as tx:
        file_id = refused_file(response_file)
        if file_id is None:
            batch = batches.by_id(tx, response_file.removesuffix(".parquet"))
            file_id = batch.file_id if batch is not None else None
        if file_id is None:
            return None, None
        file = ledger_files.by_id(tx, file_id)
        headers = ledger_files.headers_of(tx, file)
    return file, None if headers == json.loads(submission.headers) else json.dumps(headers, sort_keys=True)


def _lines_of(root: Root, file: RequestFile) -> Iterator[bytes]:
    try:
        yield from StoredRequestFile.of(root.storage, file).lines()
    except FileNotFoundError:
        raise MissingFileError(
            f"the request file {file.id} is gone from {root.storage.url}, and with it the text of requests that "
            f"failed and are to be asked again. Restore it from a backup, or materialize {file.pipeline}/requests"
        ) from None
