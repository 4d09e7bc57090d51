"""Turn the lines of a download into rows of the response store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batch_assets.core.ledger.records import Batch
from batch_assets.core.prices.prices import Prices
from batch_assets.core.results.line_parser import PARSED_SCHEMA, Absent, LineParser, ParsedGroup
from batch_assets.core.results.parallel_lines import ParallelLines
from batch_assets.core.results.result_lines import ResultLines
from batch_assets.core.store.digests import DIGEST_BYTES, decode_tails
from batch_assets.core.store.known_requests import KnownRequests
from batch_assets.core.store.responses import RESPONSE_SCHEMA


def ended_at(batch: Batch) -> float:
    """Return when a batch ended, in seconds since 1970; 0.0 if unknown. Response files are ordered by it."""
    return batch.ended_at or batch.created_at or 0.0


class ResponseRows:
    """Turns lines into record batches of responses, in the order of the request file.

    Args:
        batch: The batch of the responses.
        attempt: The ordinal of the batch's attempt, from 1.
        absent: The response to store for a request whose line is missing or cannot be read.
        requests: The requests of its file.
        lines: Where the requests' lines are in the download.
        prices: The prices that give an answer's cost.
        raw: The path of the download; `None` without one.
        parallel: Parses the lines.

    Attributes:
        lines: The argument `lines`.
        raw: The argument `raw`.
        unreadable: The number of lines so far that name a request of ours and cannot be read as a result.
        odd: The number of lines so far that can, and hold a value that cannot be stored.
    """

    def __init__(
        self,
        batch: Batch,
        attempt: int,
        absent: Absent,
        requests: KnownRequests,
        lines: ResultLines,
        prices: Prices,
        raw: Path | None = None,
        parallel: ParallelLines | None = None,
    ) -> None:
        self.lines, self.raw = lines, raw
        self.unreadable = self.odd = 0
        self._parser = LineParser(batch.id, absent, prices, lines.gone)
        self._requests, self._parallel = requests, parallel or ParallelLines(1)
        self._shared = {
            "batch_id": batch.id,
            "attempts": attempt,
            "ended_at": datetime.fromtimestamp(ended_at(batch), UTC),
        }

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the responses with the columns of RESPONSE_SCHEMA, some thousand rows at a time."""
        for group in self._parallel.parse(self._parser, self.raw, self.lines):
            self.unreadable += group.unreadable
            self.odd += group.odd
            yield self._batch_of(group)

    def _batch_of(self, group: ParsedGroup) -> pa.RecordBatch:
        """Complete the parsed lines of a group with what is known of their requests and of the batch."""
        rows = group.rows
        if (custom_ids := rows.column("custom_id")).null_count:
            at = rows.schema.get_field_index("custom_id")
            rows = rows.set_column(at, "custom_id", self._custom_ids(group.first, custom_ids))
        return response_batch(rows, self.lines.tails[group.first : group.first + len(rows)], self._shared)

    def _custom_ids(self, first: int, read: pa.StringArray) -> pa.StringArray:
        """Complete the custom_ids of the lines from the request file, for requests without a line.

        Args:
            first: The number of the first request.
            read: The custom_ids of their lines.
        """
        custom_ids = read.to_pylist()
        absent = np.array([number for number, custom_id in enumerate(custom_ids) if custom_id is None], np.int64)
        # Nothing is known about a request whose line is damaged as well.
        for number, custom_id in zip(absent.tolist(), self._requests.custom_ids(first + absent), strict=True):
            if custom_id is not None and custom_id.encode().endswith(self.lines.tails[first + number]):
                custom_ids[number] = custom_id
        return pa.array(custom_ids, pa.string())


def response_batch(parsed: pa.RecordBatch, tails: NDArray[np.bytes_], shared: Mapping[str, Any]) -> pa.RecordBatch:
    """Return responses with the columns of RESPONSE_SCHEMA.

    Args:
        parsed: n rows with the columns of PARSED_SCHEMA.
        tails: The ends of the custom_ids of their requests: S22, shape (n,).
        shared: The values of the columns `batch_id`, `attempts` and `ended_at`, which all rows share.
    """
    columns = []
    for field in RESPONSE_SCHEMA:
        if field.name == "digest":
            columns.append(_digest_column(tails))
        elif field.name in PARSED_SCHEMA.names:
            columns.append(parsed.column(field.name))
        else:
            columns.append(pa.repeat(pa.scalar(shared[field.name], field.type), len(parsed)))
    return pa.RecordBatch.from_arrays(columns, schema=RESPONSE_SCHEMA)


def _digest_column(tails: NDArray[np.bytes_]) -> pa.Array:
    """Decode the digests from the tails of custom_ids (S22, shape (n,)); null for an invalid tail."""
    digests, is_own = decode_tails(tails)
    valid = None if is_own.all() else pa.py_buffer(np.packbits(is_own, bitorder="little"))
    return pa.Array.from_buffers(pa.binary(DIGEST_BYTES), len(tails), [valid, pa.py_buffer(digests)])
