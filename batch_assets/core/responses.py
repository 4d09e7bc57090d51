"""The third stage, first half: an ended batch's results -> its file in the response store."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batch_assets.core import workspace
from batch_assets.core.client import ApiError, NotFoundError, RefusedError
from batch_assets.core.deadlines import results_end
from batch_assets.core.digests import DIGEST_BYTES, DIGEST_CHARACTERS, decode_tails, position_in
from batch_assets.core.errors import ResultsError
from batch_assets.core.ledger import batches, files, leases
from batch_assets.core.ledger.records import Batch, RequestFile
from batch_assets.core.messages import PARSED, load_line, parse_line
from batch_assets.core.parquet import TableWriter
from batch_assets.core.prices import default_prices
from batch_assets.core.request_files import Scan, StoredRequestFile, scan
from batch_assets.core.response_store import RESPONSE_SCHEMA
from batch_assets.core.root import Root, response_parts
from batch_assets.core.wire import BatchObject

# Incomplete results are downloaded at least this often before what is missing is given a reason instead.
DOWNLOADS = 3
# And for at least this long, seconds: what is missing is asked and paid for anew, while the API keeps the
# answers for 29 days. A server or a proxy that cuts downloads rarely does so for an hour.
LOST_AFTER_SECONDS = 3600.0
# Of requests whose results are lost as many are named; the others are counted.
_NAMED = 3
_GROUP_ROWS = 4096
_GROUP_BYTES = 4 << 20
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


def collect_batch(root: Root, batch: Batch, on_bytes: Callable[[int], None] | None = None) -> CollectReport | None:
    """Downloads an ended batch's results and stores them as Parquet, in the order of its request file.

    Args:
        on_bytes: told how many bytes were downloaded so far.

    Returns:
        None when somebody else is at it or has done it.

    Errors:
        ResultsError: not to be had now, incomplete, or the request file is gone; a later run tries again.
    """
    lease = leases.try_take(root.ledger, f"batch:{batch.id}")
    if lease is None:
        return None
    try:
        with root.ledger.read() as tx:
            current = batches.by_id(tx, batch.id)
            if current is None or current.state != "ended" or current.file_id is None:
                return None
            file = files.by_id(tx, current.file_id)
        return _Collecting(root, current, file, lease).run(on_bytes or (lambda _: None))
    finally:
        lease.release()


class _Collecting:
    def __init__(self, root: Root, batch: Batch, file: RequestFile, lease: leases.Lease) -> None:
        self._root, self._batch, self._file, self._lease = root, batch, file, lease
        self._stored = StoredRequestFile.of(root, file)
        try:
            self._requests = self._stored.scan()
        except FileNotFoundError:
            raise ResultsError(
                f"results of {batch.id}: the request file {root.storage.uri(*self._stored.parts)} is gone, and "
                "without it nobody can tell whose the answers are. Restore it from a backup: a later run "
                "collects them, while the API keeps them (29 days from the submission)"
            ) from None
        self._report = CollectReport(batch.id, file.requests)

    def run(self, on_bytes: Callable[[int], None]) -> CollectReport | None:
        *folder, name = response_parts(self._file.pipeline, self._batch.id)
        self._root.storage.remove_leftovers(*folder, name=name)
        target = self._root.storage.path(*response_parts(self._file.pipeline, self._batch.id))
        with self._root.storage.scratch_file(target + ".raw") as raw:
            if (gone := self._download(raw, on_bytes)) is not None:
                self._report.problem = self._archived(gone)
                return self._store(target, None, _Lines.none(self._file.requests, gone), "results_archived")
            lines = _Lines(raw, self._requests.tails)
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
            return self._store(target, raw, lines, "missing_result")

    def _download(self, raw: Path, on_bytes: Callable[[int], None]) -> str | None:
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
            if (gone := self._gone(isinstance(error, NotFoundError))) is not None:
                return gone
            if isinstance(error, NotFoundError) and self._was_somebody_elses():
                raise ResultsError(
                    f"{self._batch.id}, taken for ours on its count alone, was deleted: {self._file.id} is looked "
                    "for again"
                ) from None
            raise ResultsError(
                f"results of {self._batch.id}: {error}. Is ANTHROPIC_API_KEY of the workspace that submitted it, "
                "and was the batch not deleted there? A later run downloads them again"
            ) from None
        except ApiError as error:
            raise ResultsError(
                f"results of {self._batch.id}: {error}; the next run downloads them again"
            ) from None
        return None

    def _gone(self, not_found: bool) -> str | None:
        """Why there are no results any more, None when there may be.

        Args:
            not_found: the API answers 404 for them. So it does to a key of another workspace: for a batch that
                it does not know either, that proves something only when the results have ended anyway.
        """
        try:
            if self._root.api.retrieve(self._batch.id).archived_at is not None:
                return f"the API has archived the results of {self._batch.id}: 29 days have passed"
        except NotFoundError:
            if not_found and not self._batch.provisional and self._have_ended():
                return f"the API no longer has the batch {self._batch.id}, and 29 days have passed"
        except ApiError:
            pass
        return None

    def _was_somebody_elses(self) -> bool:
        """A batch that nothing but its count made ours, and that its owner has deleted."""
        anchor = workspace.anchor_of(self._root, self._file.id)
        try:
            if not self._batch.provisional or workspace.is_there(self._root, self._batch.id):
                return False
            if not workspace.is_ours(self._root, anchor):
                return False
        except ApiError:
            return False
        self._disprove(f"adopted on its count, ended, and 404 since: {self._batch.id} was deleted")
        return True

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
            downloads, failing = batches.downloaded_in_part(tx, self._batch.id)
        problem = f"results of {self._batch.id} are incomplete: {what}"
        if downloads < DOWNLOADS:
            raise ResultsError(f"{problem}; download {downloads} of {DOWNLOADS}, the next run tries again")
        if lost and failing < LOST_AFTER_SECONDS:
            raise ResultsError(
                f"{problem}; download {downloads}, {failing:.0f} s after the first that failed: what is missing "
                f"is asked again when it still is after {LOST_AFTER_SECONDS:.0f} s, a later run tries again"
            )
        self._report.problem = problem

    def _disprove(self, why: str) -> None:
        with self._root.ledger.write() as tx:
            self._lease.confirm(tx)
            batches.disprove(tx, self._batch.id, why)

    def _store(self, target: str, raw: Path | None, lines: _Lines, absent: str) -> CollectReport:
        self._report.missing = lines.missing
        with self._root.storage.scratch_file(target) as scratch:
            schema = RESPONSE_SCHEMA.with_metadata({b"ended_at": f"{_ended_at(self._batch):020.6f}".encode()})
            with TableWriter(scratch, schema, **_COLUMNS) as writer:
                rows = _ResponseRows(self._batch, self._file.attempt, absent, self._stored, self._requests)
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


def _ended_at(batch: Batch) -> float:
    return batch.ended_at or batch.created_at or 0.0


class _Lines:
    """Where in a downloaded file the line of each request lies.

    Attributes:
        start, end: for each request in file order the bytes of its line; -1 where there is none.
        count: lines in the download; `ours`, `foreign`, `duplicates`, `missing` of them.
        whole: the download ends with a line end.
        gone: why there are none and never will be.
    """

    def __init__(self, raw: Path, tails: NDArray[np.bytes_]) -> None:
        with raw.open("rb", buffering=0) as file:
            scanned = scan(cast(BinaryIO, file), _tail)
        self.gone: str | None = None
        ends, starts, found = scanned.ends, scanned.starts, scanned.tails
        self.whole = not scanned.rest or _is_json(scanned.rest)
        if scanned.rest and self.whole:  # a last line that no newline ends
            size = raw.stat().st_size
            starts, ends = np.append(starts, size - len(scanned.rest)), np.append(ends, size)
            found = np.append(found, np.array([_tail(scanned.rest)], dtype=found.dtype))
        order = np.argsort(tails, kind="stable")
        position = position_in(tails[order], found)
        mine = position >= 0
        request = order[position[mine]]
        _, first = np.unique(request, return_index=True)
        self.start = np.full(len(tails), -1, dtype=np.int64)
        self.end = np.full(len(tails), -1, dtype=np.int64)
        self.start[request[first]] = starts[mine][first]
        self.end[request[first]] = ends[mine][first]
        self.count = len(ends)
        self.ours = len(first)
        self.foreign = int((~mine).sum())
        self.duplicates = int(mine.sum()) - self.ours
        self.missing = len(tails) - self.ours

    @classmethod
    def none(cls, requests: int, gone: str) -> _Lines:
        """No line for any request."""
        lines = cls.__new__(cls)
        lines.start = lines.end = np.full(requests, -1, dtype=np.int64)
        lines.count = lines.ours = lines.foreign = lines.duplicates = 0
        lines.missing, lines.whole, lines.gone = requests, True, gone
        return lines


def _is_json(line: bytes) -> bool:
    try:
        load_line(line)
    except ValueError:
        return False
    return True


def _tail(line: bytes) -> bytes:
    """The last 22 characters of a line's custom_id; zeros where there is none."""
    # A line that was cut or spoiled counts as absent: it is downloaded again before it is asked again.
    try:
        custom_id = str(load_line(line)["custom_id"]).encode()
    except (ValueError, KeyError, TypeError):
        custom_id = b""
    tail = custom_id[-DIGEST_CHARACTERS:]
    return tail if len(tail) == DIGEST_CHARACTERS else b"\0" * DIGEST_CHARACTERS


class _ResponseRows:
    """Turns lines into record batches of responses, in the order of the request file.

    Attributes:
        unreadable: lines so far that name a request of ours and are no result of it.
    """

    def __init__(self, batch: Batch, attempt: int, absent: str, stored: StoredRequestFile, requests: Scan) -> None:
        self._batch, self._absent, self._prices = batch, absent, default_prices()
        self._stored, self._requests = stored, requests
        self.unreadable = 0
        self._shared = {
            "batch_id": batch.id,
            "attempts": attempt,
            "ended_at": datetime.fromtimestamp(_ended_at(batch), UTC),
        }

    def batches(self, raw: Path | None, lines: _Lines) -> Iterator[pa.RecordBatch]:
        rows: list[tuple[Any, ...]] = []
        first = size = 0
        source = os.open(raw, os.O_RDONLY) if raw is not None else -1
        try:
            for start, end in zip(lines.start.tolist(), lines.end.tolist(), strict=True):
                line = os.pread(source, end - start, start) if start >= 0 else None
                rows.append(self._row(line, lines.gone))
                size += end - start
                if len(rows) == _GROUP_ROWS or size > _GROUP_BYTES:
                    yield self._batch_of(first, rows)
                    first, rows, size = first + len(rows), [], 0
        finally:
            if source >= 0:
                os.close(source)
        if rows:
            yield self._batch_of(first, rows)

    def _row(self, line: bytes | None, gone: str | None) -> tuple[Any, ...]:
        problem = gone or f"the results of {self._batch.id} hold no line for it"
        if line is not None:
            try:
                return parse_line(line, self._prices)
            except ValueError as error:
                self.unreadable += 1
                problem = f"its result line cannot be read: {error}"
        missing = [None] * len(PARSED)
        missing[PARSED.index("result_type")] = "errored"  # type: ignore[call-overload]
        missing[PARSED.index("error_type")] = self._absent  # type: ignore[call-overload]
        missing[PARSED.index("error_message")] = problem  # type: ignore[call-overload]
        return tuple(missing)

    def _batch_of(self, first: int, rows: list[tuple[Any, ...]]) -> pa.RecordBatch:
        parsed: dict[str, Any] = dict(zip(PARSED, zip(*rows, strict=True), strict=True))
        parsed["custom_id"] = self._custom_ids(first, parsed["custom_id"])
        columns = []
        for field in RESPONSE_SCHEMA:
            if field.name == "digest":
                columns.append(_digest_column(self._requests.tails[first : first + len(rows)]))
            elif field.name in parsed:
                columns.append(pa.array(parsed[field.name], field.type))
            else:
                columns.append(pa.repeat(pa.scalar(self._shared[field.name], field.type), len(rows)))
        return pa.RecordBatch.from_arrays(columns, schema=RESPONSE_SCHEMA)

    def _custom_ids(self, first: int, read: tuple[str | None, ...]) -> list[str | None]:
        """The custom_ids that the lines carry; those of requests without a line are in the request file."""
        custom_ids = list(read)
        absent = [position for position, custom_id in enumerate(read) if custom_id is None]
        if absent:
            starts = self._requests.starts[first + np.array(absent)].tolist()
            for position, custom_id in zip(absent, self._stored.custom_ids_at(starts), strict=True):
                custom_ids[position] = custom_id
        return custom_ids


def _digest_column(tails: NDArray[np.bytes_]) -> pa.Array:
    digests, ours = decode_tails(tails)
    valid = None if ours.all() else pa.py_buffer(np.packbits(ours, bitorder="little"))
    return pa.Array.from_buffers(pa.binary(DIGEST_BYTES), len(tails), [valid, pa.py_buffer(digests)])
