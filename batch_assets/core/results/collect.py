"""The third stage, first half: an ended batch's results -> its file in the response store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from batch_assets.core.api.objects import BatchObject
from batch_assets.core.errors import ResultsError
from batch_assets.core.io.layout import response_parts
from batch_assets.core.io.parquet import TableWriter
from batch_assets.core.ledger import batches, downloads, files, leases
from batch_assets.core.ledger.records import Batch
from batch_assets.core.ledger.states import BatchState
from batch_assets.core.results.download import Download, LeasedBatch, download
from batch_assets.core.results.response_rows import ARCHIVED, CANCELED, MISSING, Absent, ResponseRows, ended_at
from batch_assets.core.results.result_lines import ResultLines
from batch_assets.core.root import Root
from batch_assets.core.store.request_files import StoredRequestFile
from batch_assets.core.store.request_lines import Scan
from batch_assets.core.store.responses import RESPONSE_SCHEMA

# Incomplete results are downloaded at least this often before what is missing is given a reason instead.
DOWNLOADS = 3
# And for at least this long, seconds: what is missing is asked and paid for again, while the API keeps the
# answers for 29 days. A server or a proxy that cuts downloads rarely does so for an hour.
LOST_AFTER_SECONDS = 3600.0
# This many of the requests whose results are lost are named; the others are counted.
_NAMED = 3
# Dictionaries and statistics pay where few values repeat; elsewhere they cost time and memory.
_REPETITIVE = [
    name
    for name in RESPONSE_SCHEMA.names
    if name not in ("digest", "custom_id", "response_text", "message_id", "response_json")
]
_COLUMNS: dict[str, Any] = {"use_dictionary": _REPETITIVE, "write_statistics": _REPETITIVE}


@dataclass(frozen=True)
class CollectReport:
    """What became of one batch.

    Attributes:
        requests: Of the batch.
        bytes: Downloaded.
        missing: Requests for which no answer was found.
        problem: What was wrong with the results, for people.
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
    """Downloads an ended batch's results. What is left to do may be done in another thread.

    Args:
        root: Where they belong.
        batch: The batch.
        on_bytes: Called with the bytes downloaded so far.

    Yields:
        The results, not stored yet; None when another process collects them or has done so.

    Raises:
        ResultsError: They cannot be downloaded now, or the request file is gone; a later run tries again.
    """
    with _leased(root, batch, BatchState.ENDED) as leased:
        if leased is None:
            yield None
            return
        target = _target(leased)
        with root.storage.scratch_file(target + ".raw") as raw:
            yield Downloaded(leased, target, raw, download(leased, raw, on_bytes))


def store_canceled(root: Root, batch: Batch, why: str) -> bool:
    """Stores `canceled` as the answer to every request of a batch that the API does not have any more.

    Args:
        root: Where the answers belong.
        batch: The batch, uncollected; the caller is sure that it is gone.
        why: The reason, for the rows and the history.

    Returns:
        False when another process collects the batch or has done so.

    Raises:
        ResultsError: The request file is gone.
    """
    with _leased(root, batch, BatchState.UNREACHABLE, BatchState.ENDED) as leased:
        if leased is None:
            return False
        _publish(leased, _target(leased), _no_rows(leased, _requests(leased), why, CANCELED), why)
        return True


@contextmanager
def _leased(root: Root, batch: Batch, *states: BatchState) -> Iterator[LeasedBatch | None]:
    """A batch in one of these states, for this process alone; None when another process has it or moved it on."""
    lease = leases.try_take(root.ledger, f"batch:{batch.id}")
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
        leased = LeasedBatch(root, current, file, lease)
        if not root.storage.exists(*_stored(leased).parts):  # before anything is downloaded in vain
            raise _request_file_gone(leased)
        yield leased


def _stored(leased: LeasedBatch) -> StoredRequestFile:
    return StoredRequestFile.of(leased.root.storage, leased.file)


def _requests(leased: LeasedBatch) -> Scan:
    try:
        return _stored(leased).scan()
    except FileNotFoundError:
        raise _request_file_gone(leased) from None


def _request_file_gone(leased: LeasedBatch) -> ResultsError:
    where = leased.root.storage.uri(*_stored(leased).parts)
    return ResultsError(
        f"results of {leased.batch.id}: the request file {where} is gone, "
        "and without it nobody can tell whose the answers are. Restore it from a backup: a later run collects "
        "them, while the API keeps them (29 days from the submission)"
    )


def _target(leased: LeasedBatch) -> str:
    """The path of the batch's response file, rid of what a killed process left beside it."""
    *folder, name = parts = response_parts(leased.file.pipeline, leased.batch.id)
    leased.root.storage.remove_leftovers(*folder, name=name)
    return leased.root.storage.path(*parts)


@dataclass(frozen=True)
class Downloaded:
    """Results that `downloaded` gave.

    Attributes:
        leased: The batch.
        target: The path of its response file.
        raw: The download.
        download: What it brought.
    """

    leased: LeasedBatch
    target: str
    raw: Path
    download: Download

    def store(self) -> CollectReport | None:
        """Stores them as Parquet, in the order of their request file.

        Returns:
            None when they are not ours.

        Raises:
            ResultsError: They are incomplete; a later run tries again.
        """
        leased, batch = self.leased, self.leased.batch
        requests = _requests(leased)
        if self.download.gone is not None:
            rows = _no_rows(leased, requests, self.download.gone, ARCHIVED)
            return _publish(leased, self.target, rows, _archived(leased, requests, self.download.gone))
        lines = ResultLines.find(self.raw, requests.tails)
        if lines.ours == 0 and lines.count and batch.provisional:
            leased.disprove("its results carry none of our custom_ids")
            return None
        if lines.ours and batch.provisional:
            _write_receipt(leased)
        problem = None
        if not lines.is_whole or lines.missing or lines.count != leased.file.requests:
            what = (
                f"{lines.count} lines for {leased.file.requests} requests, {lines.missing} of ours missing, "
                f"{lines.foreign} not ours, {lines.duplicates} twice"
            )
            problem = _incomplete(leased, what, is_lost=lines.missing > 0)
        rows = ResponseRows(batch, leased.file.attempt, MISSING, _stored(leased), requests, lines, self.raw)
        return _publish(leased, self.target, rows, problem, self.download.bytes)


def _no_rows(leased: LeasedBatch, requests: Scan, why: str, absent: Absent) -> ResponseRows:
    """Responses that say of every request why it has none."""
    lines = ResultLines.none(leased.file.requests, why)
    return ResponseRows(leased.batch, leased.file.attempt, absent, _stored(leased), requests, lines)


def _archived(leased: LeasedBatch, requests: Scan, gone: str) -> str:
    """What is lost, with the first rows by name."""
    named = list(_stored(leased).custom_ids_at(requests.starts[:_NAMED].tolist()))
    more = leased.file.requests - len(named)
    return (
        f"{gone}. Errored with results_archived, and not asked again by themselves: "
        f"{', '.join(named)}{f' and {more} more' if more else ''}"
    )


def _write_receipt(leased: LeasedBatch) -> None:
    """Proves that an adopted batch is the file's, in a file that outlives the ledger."""
    batch, api = leased.batch, leased.root.api
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
    stored = _stored(leased)
    stored.remove_leftovers()
    stored.write_receipt(proved, leased.file.attempt, api.base_url, api.organization)


def _incomplete(leased: LeasedBatch, what: str, *, is_lost: bool) -> str:
    """Counts an incomplete download.

    Args:
        leased: The batch.
        what: What is wrong with it.
        is_lost: An answer is missing, and is asked and paid for again once this download counts as the last.

    Returns:
        What is wrong, for people.

    Raises:
        ResultsError: There were not enough downloads yet to believe it.
    """
    with leased.root.ledger.write() as tx:
        leased.lease.confirm(tx)
        done, failing = downloads.in_part(tx, leased.batch.id)
    problem = f"results of {leased.batch.id} are incomplete: {what}"
    if done < DOWNLOADS:
        raise ResultsError(f"{problem}; download {done} of {DOWNLOADS}, the next run tries again")
    if is_lost and failing < LOST_AFTER_SECONDS:
        raise ResultsError(
            f"{problem}; download {done}, {failing:.0f} s after the first that failed: what is missing "
            f"is asked again when it still is after {LOST_AFTER_SECONDS:.0f} s, a later run tries again"
        )
    return problem


def _publish(
    leased: LeasedBatch, target: str, rows: ResponseRows, problem: str | None, size: int = 0
) -> CollectReport:
    """Writes the response file and records the batch as collected."""
    root, batch = leased.root, leased.batch
    schema = RESPONSE_SCHEMA.with_metadata({b"ended_at": f"{ended_at(batch):020.6f}".encode()})
    with root.storage.scratch_file(target) as scratch:
        with TableWriter(scratch, schema, **_COLUMNS) as writer:
            for group in rows.batches():
                leased.lease.check()
                writer.write(pa.Table.from_batches([group]).replace_schema_metadata(schema.metadata))
        if rows.unreadable and not rows.lines.missing:
            problem = _incomplete(leased, f"{rows.unreadable} lines cannot be read", is_lost=True)
        leased.lease.check()
        root.storage.publish(scratch, target)
    if rows.raw is not None:
        rows.raw.unlink()  # before it is recorded: afterwards nobody looks for what a killed process left of it
    with root.ledger.write() as tx:
        leased.lease.confirm(tx)
        batches.collected(tx, batch.id, problem or batches.summary(batch.count_map))
    missing = rows.lines.missing + rows.unreadable
    return CollectReport(batch.id, leased.file.requests, size, missing, problem)
