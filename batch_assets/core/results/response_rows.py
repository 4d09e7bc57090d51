"""Result lines as rows of the response store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batch_assets.core.ledger.records import Batch
from batch_assets.core.prices import default_prices
from batch_assets.core.results.message_line import PARSED, parse_line
from batch_assets.core.results.result_lines import ResultLines
from batch_assets.core.store.digests import DIGEST_BYTES, decode_tails
from batch_assets.core.store.request_files import Scan, StoredRequestFile
from batch_assets.core.store.responses import RESPONSE_SCHEMA


@dataclass(frozen=True)
class Absent:
    """What stands for an answer that is not there."""

    result_type: str
    error_type: str | None


MISSING = Absent("errored", "missing_result")
ARCHIVED = Absent("errored", "results_archived")
CANCELED = Absent("canceled", None)
_GROUP_ROWS = 4096
_GROUP_BYTES = 4 << 20


def ended_at(batch: Batch) -> float:
    """When a batch ended, seconds since 1970: what orders response files. 0.0 where nothing says it."""
    return batch.ended_at or batch.created_at or 0.0


class ResponseRows:
    """Turns lines into record batches of responses, in the order of the request file.

    Args:
        attempt: the how-many-th time the requests were submitted.
        absent: what stands for a line that is not there or cannot be read.
        stored, requests: the request file, and where its lines lie.

    Attributes:
        unreadable: lines so far that name a request of ours and are no result of it.
    """

    def __init__(
        self, batch: Batch, attempt: int, absent: Absent, stored: StoredRequestFile, requests: Scan
    ) -> None:
        self._batch, self._absent, self._prices = batch, absent, default_prices()
        self._stored, self._requests = stored, requests
        self.unreadable = 0
        self._shared = {
            "batch_id": batch.id,
            "attempts": attempt,
            "ended_at": datetime.fromtimestamp(ended_at(batch), UTC),
        }

    def batches(self, raw: Path | None, lines: ResultLines) -> Iterator[pa.RecordBatch]:
        """The responses. Args: raw: the downloaded file, None where there is none; lines: where its lines lie."""
        # One value after the other, a row's together: as many tuples would keep the garbage collector busy.
        values: list[Any] = []
        first = size = 0
        source = os.open(raw, os.O_RDONLY) if raw is not None else -1
        try:
            for start, end in zip(lines.start.tolist(), lines.end.tolist(), strict=True):
                line = os.pread(source, end - start, start) if start >= 0 else None
                values += self._row(line, lines.gone)
                size += end - start
                if len(values) == _GROUP_ROWS * len(PARSED) or size > _GROUP_BYTES:
                    yield (batch := self._batch_of(first, values))
                    first, values, size = first + len(batch), [], 0
        finally:
            if source >= 0:
                os.close(source)
        if values:
            yield self._batch_of(first, values)

    def _row(self, line: bytes | None, gone: str | None) -> tuple[Any, ...]:
        if line is None:
            problem = gone or f"the results of {self._batch.id} hold no line for it"
        else:
            try:
                return parse_line(line, self._prices)
            except ValueError as error:
                self.unreadable += 1
                problem = f"its result line cannot be read: {error}"
        said = {
            "result_type": self._absent.result_type,
            "error_type": self._absent.error_type,
            "error_message": problem,
        }
        return tuple(said.get(name) for name in PARSED)

    def _batch_of(self, first: int, values: list[Any]) -> pa.RecordBatch:
        rows = len(values) // len(PARSED)
        parsed: dict[str, Any] = {name: values[place :: len(PARSED)] for place, name in enumerate(PARSED)}
        parsed["custom_id"] = self._custom_ids(first, parsed["custom_id"])
        columns = []
        for field in RESPONSE_SCHEMA:
            if field.name == "digest":
                columns.append(_digest_column(self._requests.tails[first : first + rows]))
            elif field.name in parsed:
                columns.append(pa.array(parsed[field.name], field.type))
            else:
                columns.append(pa.repeat(pa.scalar(self._shared[field.name], field.type), rows))
        return pa.RecordBatch.from_arrays(columns, schema=RESPONSE_SCHEMA)

    def _custom_ids(self, first: int, read: list[str | None]) -> list[str | None]:
        """The custom_ids that the lines carry; those of requests without a line are in the request file."""
        custom_ids = read.copy()
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
