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

from batch_assets.core.client import ApiError, NotFoundError, RefusedError
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

# Incomplete results are downloaded this often before what is missing is given a reason instead.
DOWNLOADS = 3
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
        ResultsError: not to be had now, or incomplete; a later run tries again.
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
        collecting = _Collecting(root, current, file, lease)
        return collecting.run(on_bytes or (lambda _: None))
    finally:
        lease.release()


class _Collecting:
    def __init__(self, root: Root, batch: Batch, file: RequestFile, lease: leases.Lease) -> None:
        self._root, self._batch, self._file, self._lease = root, batch, file, lease
        self._stored = StoredRequestFile.of(root, file)
        self._requests = self._stored.scan()
        self._report = CollectReport(batch.id, file.requests)

    def run(self, on_bytes: Callable[[int], None]) -> CollectReport | None:
        *folder, name = response_parts(self._file.pipeline, self._batch.id)
        self._root.storage.remove_leftovers(*folder, name=name)
        target = self._root.storage.path(*response_parts(self._file.pipeline, self._batch.id))
        with self._root.storage.scratch_file(target + ".raw") as raw:
            if not self._download(raw, on_bytes):
                self._report.problem = self._archived()
                return self._store(target, None, _Lines.none(self._file.requests), "results_archived")
            lines = _Lines(raw, self._requests.tails)
            if lines.ours == 0 and lines.count and self._batch.provisional:
                self._disprove()
                return None
            if not lines.whole or lines.missing or lines.count != self._file.requests:
                self._incomplete(
                    f"{lines.count} lines for {self._file.requests} requests, {lines.missing} of ours missing, "
                    f"{lines.foreign} not ours, {lines.duplicates} twice"
                )
            return self._store(target, raw, lines, "missing_result")

    def _download(self, raw: Path, on_bytes: Callable[[int], None]) -> bool:
        """False when the API has archived the results: they are gone for good."""
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
            if self._is_archived():
                return False
            raise ResultsError(
                f"results of {self._batch.id}: {error}. Is ANTHROPIC_API_KEY of the workspace that submitted it? "
                "A later run downloads them again"
            ) from None
        except ApiError as error:
            raise ResultsError(
                f"results of {self._batch.id}: {error}; the next run downloads them again"
            ) from None
        return True

    def _is_archived(self) -> bool:
        try:
            return self._root.api.retrieve(self._batch.id).archived_at is not None
        except ApiError:
            return False

    def _archived(self) -> str:
        """What is lost, with the first rows by name."""
        named = list(self._stored.custom_ids_at(self._requests.starts[:_NAMED].tolist()))
        more = self._file.requests - len(named)
        return (
            f"{_archived_text(self._batch.id)}. Errored with results_archived, and not asked again by themselves: "
            f"{', '.join(named)}{f' and {more} more' if more else ''}"
        )

    def _incomplete(self, what: str) -> None:
        """Counts the download; raises until the last permitted one."""
        with self._root.ledger.write() as tx:
            self._lease.confirm(tx)
            downloads = batches.downloaded_in_part(tx, self._batch.id)
        problem = f"results of {self._batch.id} are incomplete: {what}"
        if downloads < DOWNLOADS:
            raise ResultsError(f"{problem}; download {downloads} of {DOWNLOADS}, the next run tries again")
        self._report.problem = problem

    def _disprove(self) -> None:
        with self._root.ledger.write() as tx:
            self._lease.confirm(tx)
            batches.disprove(tx, self._batch.id, "its results carry none of our custom_ids")

    def _store(self, target: str, raw: Path | None, lines: _Lines, absent: str) -> CollectReport:
        self._report.missing = lines.missing
        with self._root.storage.scratch_file(target) as scratch:
            schema = RESPONSE_SCHEMA.with_metadata({b"ended_at": f"{_ended_at(self._batch):020.6f}".encode()})
            with TableWriter(scratch, schema, **_COLUMNS) as writer:
                rows = _ResponseRows(self._batch, self._file.attempt, absent, self._stored, self._requests)
                for batch in rows.batches(raw, lines):
                    self._lease.check()
                    writer.write(pa.Table.from_batches([batch]).replace_schema_metadata(schema.metadata))
            if rows.unreadable and self._report.problem is None:
                self._incomplete(f"{rows.unreadable} lines cannot be read")
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


def _archived_text(batch_id: str) -> str:
    return f"the API has archived the results of {batch_id}: 29 days have passed"


def _ended_at(batch: Batch) -> float:
    return batch.ended_at or batch.created_at or 0.0


class _Lines:
    """Where in a downloaded file the line of each request lies.

    Attributes:
        start, end: for each request in file order the bytes of its line; -1 where there is none.
        count: lines in the download; `ours`, `foreign`, `duplicates`, `missing` of them.
        whole: the download ends with a line end.
    """

    def __init__(self, raw: Path, tails: NDArray[np.bytes_]) -> None:
        with raw.open("rb", buffering=0) as file:
            scanned = scan(cast(BinaryIO, file), _tail)
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
    def none(cls, requests: int) -> _Lines:
        """No line for any request."""
        lines = cls.__new__(cls)
        lines.start = lines.end = np.full(requests, -1, dtype=np.int64)
        lines.count = lines.ours = lines.foreign = lines.duplicates = 0
        lines.missing, lines.whole = requests, True
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
                rows.append(self._row(os.pread(source, end - start, start) if start >= 0 else None))
                size += end - start
                if len(rows) == _GROUP_ROWS or size > _GROUP_BYTES:
                    yield self._batch_of(first, rows)
                    first, rows, size = first + len(rows), [], 0
        finally:
            if source >= 0:
                os.close(source)
        if rows:
            yield self._batch_of(first, rows)

    def _row(self, line: bytes | None) -> tuple[Any, ...]:
        problem = f"the results of {self._batch.id} hold no line for it"
        if line is not None:
            try:
                return parse_line(line, self._prices)
            except ValueError as error:
                self.unreadable += 1
                problem = f"its result line cannot be read: {error}"
        elif self._absent == "results_archived":
            problem = _archived_text(self._batch.id)
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
