"""The third stage, first half: store an ended batch's results as its file in the response store."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from batch_assets.core.api.objects import BatchObject
from batch_assets.core.batches.receipts import note_other, write_receipt
from batch_assets.core.errors import DamagedFileError, ResultsError
from batch_assets.core.io.layout import response_parts
from batch_assets.core.io.names import ResponseName
from batch_assets.core.io.parquet import TableWriter
from batch_assets.core.io.slices import slices_of
from batch_assets.core.ledger import Transaction, batches, downloads, files, leases, reservations, spend
from batch_assets.core.ledger.records import Batch
from batch_assets.core.ledger.states import BatchState
from batch_assets.core.results.batch_requests import (
    all_requests_of,
    check_matchable,
    damage,
    find_lines,
    has_request_file,
    requests_of,
    stored_file,
)
from batch_assets.core.results.download import Download, LeasedBatch, download
from batch_assets.core.results.line_parser import ARCHIVED, CANCELED, MISSING, Absent
from batch_assets.core.results.parallel_lines import ParallelLines
from batch_assets.core.results.response_rows import ResponseRows, ended_at
from batch_assets.core.results.result_lines import ResultLines
from batch_assets.core.root import Root
from batch_assets.core.store.follow_up_ids import counts_in
from batch_assets.core.store.indexing import WrittenAnswers
from batch_assets.core.store.known_requests import KnownRequests
from batch_assets.core.store.missing_responses import SET_ASIDE
from batch_assets.core.store.response_cost import ResponseCost, stored_cost
from batch_assets.core.store.responses import (
    RESPONSE_ENCODING,
    RESPONSE_SCHEMA,
    file_metadata,
    open_responses,
    reading_responses,
)
from batch_assets.core.text import count as counted
from batch_assets.core.text import counts, duration

# Incomplete results are downloaded at least this many times before missing answers are stored as errors.
DOWNLOADS = 3
# They are also downloaded for at least this many seconds: missing answers are requested and paid for again, while
# the API keeps the first ones for 29 days. A server or a proxy that cuts downloads rarely does so for an hour.
LOST_AFTER_SECONDS = 3600.0
# An error names this many of the requests whose results are lost, and counts the others.
_NAMED = 3


@dataclass(frozen=True)
class CollectReport:
    """Report of one collected batch.

    Attributes:
        batch_id: The id of the batch.
        requests: The number of its requests.
        bytes: The number of bytes downloaded.
        missing: The number of requests without an answer in the download.
        problem: The problem with the results, as text; `None` if there was none.
    """

    batch_id: str
    requests: int
    bytes: int = 0
    missing: int = 0
    problem: str | None = None


@contextmanager
def downloaded(
    root: Root, batch: Batch, on_bytes: Callable[[int], None] = lambda _: None
) -> Iterator[Downloaded | None]:
    """Download an ended batch's results. The caller may store them in another thread.

    Args:
        root: The root.
        batch: The batch.
        on_bytes: Called with the number of bytes downloaded so far.

    Yields:
        The results, not stored yet; `None` if another process collects or has collected them.

    Raises:
        ResultsError: When they cannot be downloaded now, or the request file is missing. A later run tries again.
    """
    with _leased(root, batch, BatchState.ENDED) as leased:
        if leased is None:
            yield None
            return
        is_stored, has_file = root.storage.both(
            lambda: not batch.provisional and _is_stored(leased), partial(has_request_file, leased)
        )
        if is_stored:
            _record_stored(leased)
            yield None
            return
        if not has_file:  # before a useless download
            check_matchable(leased)
        target = _target(leased)
        with root.storage.scratch_file(target + ".raw") as raw:
            yield Downloaded(leased, target, raw, download(leased, raw, on_bytes))


def store_canceled(root: Root, batch: Batch, why: str) -> bool:
    """Store `canceled` as the answer to every request of a batch that the API no longer has.

    Answers that are stored already are kept, for example when an older ledger does not know of them.

    Args:
        root: The root.
        batch: The batch, uncollected. The caller has proved that it was deleted.
        why: The reason, for the rows and the history.

    Returns:
        False if another process collects or has collected the batch.

    Raises:
        ResultsError: When the request file is missing, or the response file is damaged.
    """
    with _leased(root, batch, BatchState.UNREACHABLE, BatchState.ENDED) as leased:
        if leased is None:
            return False
        if _was_collected(leased):
            return True
        parts = response_parts(leased.file.pipeline, batch.id)
        if root.storage.exists(*parts):
            raise ResultsError(
                f"results of {batch.id}: {root.storage.uri(*parts)} is damaged or incomplete, and is not replaced "
                "by canceled rows. Restore it from a backup, or remove it if its answers are lost"
            )
        requests = all_requests_of(leased, why)
        _publish(leased, _target(leased), _no_rows(leased, requests, why, CANCELED), why)
        return True


@contextmanager
def _leased(root: Root, batch: Batch, *states: BatchState) -> Iterator[LeasedBatch | None]:
    """Lease a batch in one of these states. Yields `None` if another process has it or moved it on."""
    lease = leases.try_take(
        root.ledger, batches.lease_name(batch.id), work=f"the results of {batch.id}", pipeline=batch.pipeline
    )
    if lease is None:
        yield None
        return
    with lease:
        with root.ledger.read() as tx:
            current = batches.by_id(tx, batch.id)
            file_id = current.file_id if current is not None and current.state in states else None
            file = files.by_id(tx, file_id) if file_id is not None else None
        if current is None or file is None:
            yield None
            return
        yield LeasedBatch(root, current, file, lease)


def _is_stored(leased: LeasedBatch) -> bool:
    """Whether the answers are in the response store, for example restored from a backup: they are not replaced."""
    storage, pipeline, name = leased.root.storage, leased.file.pipeline, ResponseName.of_batch(leased.batch.id)
    if not storage.is_file(*response_parts(pipeline, leased.batch.id)):
        return False
    try:
        with open_responses(storage, pipeline, name) as file, reading_responses(storage, pipeline, name):
            rows = sum(map(len, slices_of(file)))
    except DamagedFileError:
        return False
    return rows == leased.file.requests


def _was_collected(leased: LeasedBatch) -> bool:
    """Record the batch as collected if its answers are stored. Return whether they are."""
    if not _is_stored(leased):
        return False
    _record_stored(leased)
    return True


def _record_stored(leased: LeasedBatch) -> None:
    cost = stored_cost(leased.root.storage, leased.file.pipeline, leased.batch.id)
    with leased.root.ledger.write(leased.file.pipeline) as tx:
        leased.lease.confirm(tx)
        batches.collected(tx, leased.batch.id, "its answers are stored already")
        _record_cost(tx, leased, cost)
    _target(leased)  # no later run removes leftovers of a batch recorded as collected


def _record_cost(tx: Transaction, leased: LeasedBatch, cost: ResponseCost | None) -> None:
    """Record what a batch did cost, unless its response file is gone again."""
    if cost is not None:
        spend.record(tx, leased.batch.id, cost.total)
        reservations.settle(tx, leased.batch.id, cost.certain)


def _target(leased: LeasedBatch) -> str:
    """Return the path of the batch's response file.

    What a killed process left beside it is removed, and what is in its place but no file, such as a folder, is
    renamed.
    """
    *folder, name = parts = response_parts(leased.file.pipeline, leased.batch.id)
    storage = leased.root.storage
    storage.remove_leftovers(*folder, name=name)
    if storage.is_blocked(*parts):
        storage.rename(parts, (*folder, name + SET_ASIDE))
    return storage.path(*parts)


@dataclass(frozen=True)
class Downloaded:
    """The results that `downloaded` yields.

    Attributes:
        leased: The batch.
        target: The path of its response file.
        raw: The path of the downloaded file.
        download: Its size, or why there are no results.
    """

    leased: LeasedBatch
    target: str
    raw: Path
    download: Download

    def store(self, parallel: ParallelLines | None = None) -> CollectReport | None:
        """Store the results as Parquet, in the order of their request file.

        Args:
            parallel: Parses them; `None` if this process does.

        Returns:
            `None` if they are not ours.

        Raises:
            ResultsError: When they are incomplete. A later run tries again.
            WorkerProcessError: When a process that parses them was killed. A later run tries again.
        """
        leased, batch = self.leased, self.leased.batch
        if self.download.gone is not None:
            requests = all_requests_of(leased, self.download.gone)
            rows = _no_rows(leased, requests, self.download.gone, ARCHIVED)
            return _publish(leased, self.target, rows, _archived(leased, requests, self.download.gone))
        requests = requests_of(leased)
        lines = find_lines(leased, self.raw, requests)
        if lines is None:
            leased.disprove("its results carry none of our custom_ids")
            return None
        if not lines.ours:
            raise _no_results(leased, lines)
        if batch.provisional:
            _write_receipt(leased)
        problem = damage(leased, requests)
        if not lines.is_whole or lines.missing or lines.count != leased.file.requests:
            details = (
                f"{lines.count} lines for {leased.file.requests} requests, {lines.missing} of ours missing, "
                f"{lines.foreign} not ours, {lines.duplicates} twice"
            )
            incomplete = _incomplete(leased, details, is_lost=lines.missing > 0)
            problem = incomplete if problem is None else f"{incomplete}. {problem}"
        prices = leased.root.settings.prices
        rows = ResponseRows(batch, leased.file.attempt, MISSING, requests, lines, prices, self.raw, parallel)
        return _publish(leased, self.target, rows, problem, self.download.bytes)


def _no_rows(leased: LeasedBatch, requests: KnownRequests, why: str, absent: Absent) -> ResponseRows:
    """Make responses that state for every request why it has no answer."""
    lines = ResultLines.none(requests.tails, why)
    return ResponseRows(leased.batch, leased.file.attempt, absent, requests, lines, leased.root.settings.prices)


def _archived(leased: LeasedBatch, requests: KnownRequests, reason: str) -> str:
    """Describe the requests whose results are lost, the first ones by custom_id."""
    custom_ids = [*filter(None, requests.custom_ids(np.arange(min(_NAMED, leased.file.requests))))]
    more = leased.file.requests - len(custom_ids)
    return (
        f"{reason}. These requests are errored with results_archived and are not retried automatically: "
        f"{', '.join(custom_ids)}{f' and {more} more' if more else ''}"
    )


def _write_receipt(leased: LeasedBatch) -> None:
    """Write the receipt of an adopted batch. It proves whose batch it is, even when the ledger is lost."""
    batch = leased.batch
    proved = BatchObject(
        id=batch.id,
        processing_status=batch.processing_status,
        request_counts=batch.count_map,
        created_at=batch.created_at or 0.0,
        expires_at=batch.expires_at,
        ended_at=batch.ended_at,
        archived_at=None,
    )
    leased.lease.check()
    stored_file(leased).remove_leftovers()
    receipt = write_receipt(leased.root, leased.file, proved, replied=False)
    with leased.root.ledger.write() as tx:
        leased.lease.confirm(tx)
        note_other(tx, leased.file, receipt, batch.id)


def _incomplete(leased: LeasedBatch, details: str, *, is_lost: bool) -> str:
    """Count an incomplete download.

    Args:
        leased: The batch.
        details: What is wrong with the results.
        is_lost: Answers are missing. If this download is the last one, they are requested and paid for again.

    Returns:
        What is wrong, as text.

    Raises:
        ResultsError: When there were too few downloads to conclude that the answers do not exist.
    """
    with leased.root.ledger.write(leased.file.pipeline) as tx:
        leased.lease.confirm(tx)
        attempts, failing = downloads.in_part(tx, leased.batch.id)
    problem = f"results of {leased.batch.id} are incomplete: {details}"
    if attempts < DOWNLOADS:
        raise ResultsError(f"{problem}; download {attempts} of {DOWNLOADS}, the next run tries again")
    if is_lost and failing < LOST_AFTER_SECONDS:
        raise ResultsError(
            f"{problem}; download {attempts}, {duration(failing)} after the first failed one. A later run tries "
            f"again; requests whose answers are still missing after {duration(LOST_AFTER_SECONDS)} are retried"
        )
    return problem


def _no_results(leased: LeasedBatch, lines: ResultLines) -> ResultsError:
    """Report a download without a result of ours. It proves nothing, so it is not counted as incomplete.

    Something between us and the API may answer in its place with status 200, such as a network's sign-in page.
    """
    content = "is empty"
    if lines.count:
        content = f"has {counted(lines.count, 'line')}, and none is the result of a request of ours"
    return ResultsError(
        f"results of {leased.batch.id}: the download {content}. Did a proxy or a sign-in page answer in place of "
        "the API? A later run downloads them again, as long as the API keeps them (29 days from the submission)"
    )


def _publish(
    leased: LeasedBatch, target: str, rows: ResponseRows, problem: str | None, size: int = 0
) -> CollectReport:
    """Write the response file and record the batch as collected."""
    root, batch = leased.root, leased.batch
    groups, follows = rows.batches(), False
    if leased.file.attempt > 1:  # a request file has only follow-ups or none, and before that there are none
        first = next(groups)
        groups, follows = itertools.chain([first], groups), bool(counts_in(first["custom_id"]).any())
    schema = RESPONSE_SCHEMA.with_metadata(file_metadata(ended_at(batch), follows=follows))
    cost = ResponseCost()
    with root.storage.scratch_file(target) as scratch:
        with TableWriter(scratch, schema, **RESPONSE_ENCODING) as writer:
            for group in groups:
                leased.lease.check()
                cost.add(group)
                writer.write(pa.Table.from_batches([group]).replace_schema_metadata(schema.metadata))
        if rows.unreadable and rows.unreadable == rows.lines.ours:
            raise _no_results(leased, rows.lines)
        if rows.unreadable and not rows.lines.missing:
            problem = _incomplete(leased, f"{rows.unreadable} lines cannot be read", is_lost=True)
        if rows.odd and problem is None:
            problem = (
                f"results of {batch.id}: {counted(rows.odd, 'answer')} cannot be stored in columns: errored with "
                "unreadable_result, the line is in response_json"
            )
        answers = WrittenAnswers(root, leased.file.pipeline, ResponseName.of_batch(batch.id), scratch)
        leased.lease.check()
        root.storage.publish(scratch, target)
    answers.add()
    if rows.raw is not None:
        rows.raw.unlink()  # now, because no later run removes leftovers of a batch recorded as collected
    with root.ledger.write(leased.file.pipeline) as tx:
        leased.lease.confirm(tx)
        batches.collected(tx, batch.id, problem or counts(batch.count_map))
        _record_cost(tx, leased, cost)
    missing = rows.lines.missing + rows.unreadable
    return CollectReport(batch.id, leased.file.requests, size, missing, problem)
