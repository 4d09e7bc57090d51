"""The third stage, first half: an ended batch's results -> its file in the response store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from batch_assets.core.api.errors import ApiError, NotFoundError, RefusedError
from batch_assets.core.api.objects import BatchObject
from batch_assets.core.batches import workspace
from batch_assets.core.errors import ResultsError
from batch_assets.core.io.layout import response_parts
from batch_assets.core.io.parquet import TableWriter
from batch_assets.core.ledger import batches, downloads, files, leases
from batch_assets.core.ledger.deadlines import results_end
from batch_assets.core.ledger.records import Batch, RequestFile
from batch_assets.core.ledger.states import BatchState
from batch_assets.core.results.response_rows import ARCHIVED, CANCELED, MISSING, Absent, ResponseRows, ended_at
from batch_assets.core.results.result_lines import ResultLines
from batch_assets.core.root import Root
from batch_assets.core.store.request_files import StoredRequestFile
from batch_assets.core.store.request_lines import Scan
from batch_assets.core.store.responses import RESPONSE_SCHEMA

# Incomplete results are downloaded at least this often before what is missing is given a reason instead.
DOWNLOADS = 3
# And for at least this long, seconds: what is missing is asked and paid for anew, while the API keeps the
# answers for 29 days. A server or a proxy that cuts downloads rarely does so for an hour.
LOST_AFTER_SECONDS = 3600.0
# Of requests whose results are lost as many are named; the others are counted.
_NAMED = 3
# A line is held in memory as a whole. An answer of a million tokens is a tenth of this.
_LINE_BYTES = 64 << 20
# Dictionaries and statistics pay where few values repeat; elsewhere they cost time and memory.
_REPETITIVE = [
    name
    for name in RESPONSE_SCHEMA.names
    if name not in ("digest", "custom_id", "response_text", "message_id", "response_json")
]
_COLUMNS: dict[str, Any] = {"use_dictionary": _REPETITIVE, "write_statistics": _REPETITIVE}


@dataclass
class CollectReport:
    """What became of one batch."""

    batch_id: str
    requests: int
    bytes: int = 0
    missing: int = 0
    problem: str | None = None


@contextmanager
def downloaded(
    root: Root, batch: Batch, on_bytes: Callable[[int], None] = lambda _: None
) -> Iterator[Downloaded | None]:
    """An ended batch's results, downloaded and not stored yet; None when somebody else is at it or has done it.

    What is left to do may be done in another thread.

    Args:
        on_bytes: told how many bytes were downloaded so far.

    Errors:
        ResultsError: not to be had now, or the request file is gone; a later run tries again.
    """
    with _collecting(root, batch, BatchState.ENDED) as collecting:
        if collecting is None:
            yield None
            return
        target = collecting.target()
        with root.storage.scratch_file(target + ".raw") as raw:
            yield Downloaded(collecting, target, raw, collecting.download(raw, on_bytes))


@dataclass(frozen=True)
class Downloaded:
    """Results that `downloaded` gave."""

    _collecting: _Collecting
    _target: str
    _raw: Path
    _gone: str | None

    def store(self) -> CollectReport | None:
        """Stores them as Parquet, in the order of their request file.

        Returns:
            None when they are not ours.

        Errors:
            ResultsError: incomplete; a later run tries again.
        """
        return self._collecting.take(self._target, self._raw, self._gone)


def store_canceled(root: Root, batch: Batch, why: str) -> bool:
    """Stores `canceled` as the answer to every request of a batch that the API does not have any more.

    Args:
        batch: uncollected; the caller is sure of it.
        why: for the rows and the history.

    Returns:
        False when somebody else is at it or has done it.

    Errors:
        ResultsError: the request file is gone.
    """
    with _collecting(root, batch, BatchState.UNREACHABLE, BatchState.ENDED) as collecting:
        if collecting is None:
            return False
        collecting.cancel(why)
        return True


@contextmanager
def _collecting(root: Root, batch: Batch, *states: BatchState) -> Iterator[_Collecting | None]:
    """The work on a batch in one of these states, None when somebody else is at it or has moved it on."""
    lease = leases.try_take(root.ledger, f"batch:{batch.id}")
    if lease is None:
        yield None
        return
    with lease:
        with root.ledger.read() as tx:
            current = batches.by_id(tx, batch.id)
            file_id = current.file_id if current is not None and current.state in states else None
            file = files.by_id(tx, file_id) if file_id is not None else None
        yield _Collecting(root, current, file, lease) if current is not None and file is not None else None


class _Collecting:
    def __init__(self, root: Root, batch: Batch, file: RequestFile, lease: leases.Lease) -> None:
        self._root, self._batch, self._file, self._lease = root, batch, file, lease
        self._stored = StoredRequestFile.of(root.storage, file)
        if not root.storage.exists(*self._stored.parts):  # before anything is downloaded in vain
            raise self._unknown_whose()
        self._report = CollectReport(batch.id, file.requests)

    @cached_property
    def _requests(self) -> Scan:
        try:
            return self._stored.scan()
        except FileNotFoundError:
            raise self._unknown_whose() from None

    def _unknown_whose(self) -> ResultsError:
        where = self._root.storage.uri(*self._stored.parts)
        return ResultsError(
            f"results of {self._batch.id}: the request file {where} is gone, "
            "and without it nobody can tell whose the answers are. Restore it from a backup: a later run collects "
            "them, while the API keeps them (29 days from the submission)"
        )

    def take(self, target: str, raw: Path, gone: str | None) -> CollectReport | None:
        """Stores what was downloaded once it is sure whose it is and that it is whole; or why there is nothing."""
        if gone is not None:
            self._report.problem = self._archived(gone)
            return self._store(target, None, ResultLines.none(self._file.requests, gone), ARCHIVED)
        lines = ResultLines.read(raw, self._requests.tails)
        if lines.ours == 0 and lines.count and self._batch.provisional:
            self._disprove("its results carry none of our custom_ids")
            return None
        if lines.ours and self._batch.provisional:
            self._write_receipt()
        if not lines.whole or lines.missing or lines.count != self._file.requests:
            self._incomplete(
                f"{lines.count} lines for {self._file.requests} requests, {lines.missing} of ours missing, "
                f"{lines.foreign} not ours, {lines.duplicates} twice",
                lost=lines.missing > 0,
            )
        return self._store(target, raw, lines, MISSING)

    def cancel(self, why: str) -> None:
        """Every request's answer is that it was canceled."""
        self._report.problem = why
        self._store(self.target(), None, ResultLines.none(self._file.requests, why), CANCELED)

    def target(self) -> str:
        """Where the responses are to lie, freed of what a killed process left there."""
        *folder, name = parts = response_parts(self._file.pipeline, self._batch.id)
        self._root.storage.remove_leftovers(*folder, name=name)
        return self._root.storage.path(*parts)

    def download(self, raw: Path, on_bytes: Callable[[int], None]) -> str | None:
        """Why the results are gone for good, None when they were downloaded."""
        try:
            with self._root.api.results(self._batch.id) as chunks, raw.open("wb") as out:
                unended = 0
                for chunk in chunks:
                    self._lease.check()
                    unended = len(chunk) - 1 - last if (last := chunk.rfind(b"\n")) >= 0 else unended + len(chunk)
                    if unended > _LINE_BYTES:
                        raise ResultsError(
                            f"results of {self._batch.id}: a line is longer than {_LINE_BYTES >> 20} MiB, "
                            "which no answer is; the next run downloads them again"
                        )
                    out.write(chunk)
                    self._report.bytes += len(chunk)
                    on_bytes(self._report.bytes)
        except (NotFoundError, RefusedError) as error:
            if (gone := self._why_gone(error)) is not None:
                return gone
            raise ResultsError(
                f"results of {self._batch.id}: {error}. {workspace.WHOSE_KEY} A later run downloads them again. "
                f"{workspace.if_deleted(self._batch.id)}"
            ) from None
        except ApiError as error:
            raise ResultsError(
                f"results of {self._batch.id}: {error}; the next run downloads them again"
            ) from None
        return None

    def _why_gone(self, error: NotFoundError | RefusedError) -> str | None:
        """Why there are no results any more, None when there may be.

        Args:
            error: what the API answered when it was asked for them.

        Errors:
            ResultsError: the batch was never ours.
        """
        try:
            archived_at = self._root.api.retrieve(self._batch.id).archived_at
        except NotFoundError:
            return self._why_unknown() if isinstance(error, NotFoundError) else None
        except ApiError:
            return None
        if archived_at is None:
            return None
        return f"the API has archived the results of {self._batch.id}: 29 days have passed"

    def _why_unknown(self) -> str | None:
        """What it means that the API knows neither batch nor results: a key of another workspace gets the same
        answer. That proves something only of results that have ended anyway, and of a batch that nothing but
        its count made ours.

        Errors:
            ResultsError: it was somebody else's, who has deleted it.
        """
        if not self._batch.provisional:
            over = f"the API no longer has the batch {self._batch.id}, and 29 days have passed"
            return over if self._have_ended() else None
        try:
            is_ours = workspace.is_ours(self._root, workspace.last_intent(self._root, self._file.id))
        except ApiError:
            return None
        if not is_ours:
            return None
        self._disprove(f"adopted on its count, ended, and 404 since: {self._batch.id} was deleted")
        raise ResultsError(
            f"{self._batch.id}, taken for ours on its count alone, was deleted: "
            f"{self._file.id} is looked for again"
        ) from None

    def _have_ended(self) -> bool:
        end = results_end(self._batch)
        with self._root.ledger.read() as tx:
            return end is not None and tx.now >= end

    def _archived(self, gone: str) -> str:
        """What is lost, with the first rows by name."""
        named = list(self._stored.custom_ids_at(self._requests.starts[:_NAMED].tolist()))
        more = self._file.requests - len(named)
        return (
            f"{gone}. Errored with results_archived, and not asked again by themselves: "
            f"{', '.join(named)}{f' and {more} more' if more else ''}"
        )

    def _write_receipt(self) -> None:
        """An adopted batch is proved to be the file's: that outlives the ledger."""
        batch, api = self._batch, self._root.api
        proved = BatchObject(
            id=batch.id,
            processing_status=batch.processing_status,
            request_counts=batch.count_map,
            created_at=batch.created_at or 0.0,
            expires_at=batch.expires_at,
            ended_at=batch.ended_at,
            archived_at=None,
        )
        self._lease.check()
        self._stored.remove_leftovers()
        self._stored.write_receipt(proved, self._file.attempt, api.base_url, api.organization)

    def _incomplete(self, what: str, *, lost: bool) -> None:
        """Counts the download; raises until there were enough.

        Args:
            lost: an answer is missing, and is asked and paid for again once this download counts as the last.
        """
        with self._root.ledger.write() as tx:
            self._lease.confirm(tx)
            done, failing = downloads.in_part(tx, self._batch.id)
        problem = f"results of {self._batch.id} are incomplete: {what}"
        if done < DOWNLOADS:
            raise ResultsError(f"{problem}; download {done} of {DOWNLOADS}, the next run tries again")
        if lost and failing < LOST_AFTER_SECONDS:
            raise ResultsError(
                f"{problem}; download {done}, {failing:.0f} s after the first that failed: what is missing "
                f"is asked again when it still is after {LOST_AFTER_SECONDS:.0f} s, a later run tries again"
            )
        self._report.problem = problem

    def _disprove(self, why: str) -> None:
        with self._root.ledger.write() as tx:
            self._lease.confirm(tx)
            batches.disprove(tx, self._batch.id, why)

    def _store(self, target: str, raw: Path | None, lines: ResultLines, absent: Absent) -> CollectReport:
        self._report.missing = lines.missing
        with self._root.storage.scratch_file(target) as scratch:
            schema = RESPONSE_SCHEMA.with_metadata({b"ended_at": f"{ended_at(self._batch):020.6f}".encode()})
            with TableWriter(scratch, schema, **_COLUMNS) as writer:
                rows = ResponseRows(self._batch, self._file.attempt, absent, self._stored, self._requests)
                for batch in rows.batches(raw, lines):
                    self._lease.check()
                    writer.write(pa.Table.from_batches([batch]).replace_schema_metadata(schema.metadata))
            if rows.unreadable and not lines.missing:
                self._incomplete(f"{rows.unreadable} lines cannot be read", lost=True)
            self._report.missing += rows.unreadable
            self._lease.check()
            self._root.storage.publish(scratch, target)
        if raw is not None:
            raw.unlink()  # before it is recorded: afterwards nobody looks for what a killed process left of it
        counts = batches.summary(self._batch.count_map)
        with self._root.ledger.write() as tx:
            self._lease.confirm(tx)
            batches.collected(tx, self._batch.id, self._report.problem or counts)
        return self._report
