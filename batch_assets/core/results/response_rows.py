"""Turn the lines of a download into rows of the response store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.errors import ErrorType
from batch_assets.core.ledger.records import Batch
from batch_assets.core.prices import default_prices
from batch_assets.core.results.message_line import OddLineError, ParsedLine, parse_line, raw_line
from batch_assets.core.results.ordered_lines import LineGroup, OrderedLines
from batch_assets.core.results.plain_lines import parse_plain
from batch_assets.core.results.result_lines import ResultLines
from batch_assets.core.store.digests import DIGEST_BYTES, decode_tails
from batch_assets.core.store.known_requests import KnownRequests
from batch_assets.core.store.responses import RESPONSE_SCHEMA


@dataclass(frozen=True)
class Absent:
    """The response that is stored for a request without an answer."""

    result_type: ResultType
    error_type: ErrorType | None


MISSING = Absent(ResultType.ERRORED, ErrorType.MISSING_RESULT)
ARCHIVED = Absent(ResultType.ERRORED, ErrorType.RESULTS_ARCHIVED)
CANCELED = Absent(ResultType.CANCELED, None)
ODD = Absent(ResultType.ERRORED, ErrorType.UNREADABLE_RESULT)
_WIDTH = len(ParsedLine._fields)


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
        raw: The path of the download; `None` without one.

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
        raw: Path | None = None,
    ) -> None:
        self.lines, self.raw = lines, raw
        self.unreadable = self.odd = 0
        self._batch_id, self._absent, self._prices = batch.id, absent, default_prices()
        self._requests = requests
        self._shared = {
            "batch_id": batch.id,
            "attempts": attempt,
            "ended_at": datetime.fromtimestamp(ended_at(batch), UTC),
        }

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the responses with the columns of RESPONSE_SCHEMA, some thousand rows at a time."""
        with OrderedLines(self.raw, self.lines) as ordered:
            for group in ordered.groups():
                yield self._batch_of(group)

    def _row(self, line: bytes | None) -> ParsedLine:
        """Return the values of a request's line, or those stored without one."""
        if line is None:
            problem = self.lines.gone or f"the results of {self._batch_id} have no line for it"
        else:
            try:
                return parse_line(line, self._prices)
            except OddLineError as error:  # answered and paid for: downloading or asking again brings nothing
                self.odd += 1
                return _values(ODD, f"its result line cannot be stored: {error}", line)
            except ValueError as error:
                self.unreadable += 1
                return _values(self._absent, f"its result line cannot be read: {error}", line)
        return _values(self._absent, problem)

    def _batch_of(self, group: LineGroup) -> pa.RecordBatch:
        """Make a record batch of the responses to the requests of a group."""
        rows = len(group.starts)
        parsed = self._parsed(group)
        columns = []
        for field in RESPONSE_SCHEMA:
            if field.name == "digest":
                columns.append(_digest_column(self.lines.tails[group.first : group.first + rows]))
            elif field.name in parsed:
                columns.append(parsed[field.name])
            else:
                columns.append(pa.repeat(pa.scalar(self._shared[field.name], field.type), rows))
        return pa.RecordBatch.from_arrays(columns, schema=RESPONSE_SCHEMA)

    def _parsed(self, group: LineGroup) -> dict[str, pa.Array]:
        """Parse lines into the columns of `ParsedLine`: as many as possible at once, the others one by one."""
        plain = parse_plain(group, self._prices)
        if plain is not None and len(plain.positions) == len(group.starts):
            return plain.columns
        is_left = np.ones(len(group.starts), dtype=bool)
        if plain is not None:
            is_left[plain.positions] = False
        left = np.flatnonzero(is_left)
        # One flat list of values, row after row: a tuple per row would keep the garbage collector busy.
        values = [value for position in left.tolist() for value in self._row(group.line(position))]
        read: dict[str, Any] = {name: values[number::_WIDTH] for number, name in enumerate(ParsedLine._fields)}
        read["custom_id"] = self._custom_ids(group.first + left, read["custom_id"])
        columns = {name: pa.array(read[name], RESPONSE_SCHEMA.field(name).type) for name in ParsedLine._fields}
        if plain is None:
            return columns
        order = pa.array(np.argsort(np.concatenate([plain.positions, left])))
        return {
            name: pa.concat_arrays([plain.columns[name], column]).take(order) for name, column in columns.items()
        }

    def _custom_ids(self, requests: NDArray[np.int64], read: list[str | None]) -> list[str | None]:
        """Complete the custom_ids of the lines from the request file, for requests without a line.

        Args:
            requests: The numbers of the requests; int64, shape (n,).
            read: The custom_ids of their lines.
        """
        custom_ids = read.copy()
        absent = [position for position, custom_id in enumerate(read) if custom_id is None]
        # Nothing is known about a request whose line is damaged as well.
        for position, custom_id in zip(absent, self._requests.custom_ids(requests[absent]), strict=True):
            if custom_id is not None and custom_id.encode().endswith(self.lines.tails[requests[position]]):
                custom_ids[position] = custom_id
        return custom_ids


def _values(absent: Absent, problem: str, line: bytes | None = None) -> ParsedLine:
    """Return the values of a request without an answer, with the line as it came."""
    return ParsedLine(
        result_type=absent.result_type,
        error_type=absent.error_type,
        error_message=problem,
        response_json=raw_line(line) if line is not None else None,
    )


def _digest_column(tails: NDArray[np.bytes_]) -> pa.Array:
    """Decode the digests from the tails of custom_ids (S22, shape (n,)); null for an invalid tail."""
    digests, is_own = decode_tails(tails)
    valid = None if is_own.all() else pa.py_buffer(np.packbits(is_own, bitorder="little"))
    return pa.Array.from_buffers(pa.binary(DIGEST_BYTES), len(tails), [valid, pa.py_buffer(digests)])
