"""Parse the result lines of a batch into columns, without the batch's ledger and files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from batch_assets.core.answers.result_types import ResultType
from batch_assets.core.errors import ErrorType
from batch_assets.core.prices.prices import Prices
from batch_assets.core.results.message_line import OddLineError, ParsedLine, parse_line, raw_line
from batch_assets.core.results.ordered_lines import LineGroup
from batch_assets.core.results.plain_lines import parse_plain
from batch_assets.core.store.responses import RESPONSE_SCHEMA

_WIDTH = len(ParsedLine._fields)
PARSED_SCHEMA = pa.schema([RESPONSE_SCHEMA.field(name) for name in ParsedLine._fields])
"""The columns of a response that come from its line."""


@dataclass(frozen=True)
class Absent:
    """The response that is stored for a request without an answer."""

    result_type: ResultType
    error_type: ErrorType | None


MISSING = Absent(ResultType.ERRORED, ErrorType.MISSING_RESULT)
ARCHIVED = Absent(ResultType.ERRORED, ErrorType.RESULTS_ARCHIVED)
CANCELED = Absent(ResultType.CANCELED, None)
ODD = Absent(ResultType.ERRORED, ErrorType.UNREADABLE_RESULT)


@dataclass(frozen=True)
class ParsedGroup:
    """The lines of consecutive requests, parsed.

    Attributes:
        first: The number of the first request.
        rows: A row with the columns of PARSED_SCHEMA for each request. The custom_id is null for a request without
            a line, and for a line without a custom_id that can be stored.
        unreadable: The number of lines that cannot be read as a result.
        odd: The number of lines that can, and hold a value that cannot be stored.
    """

    first: int
    rows: pa.RecordBatch
    unreadable: int = 0
    odd: int = 0


@dataclass(frozen=True)
class LineParser:
    """Parses the result lines of a batch.

    Attributes:
        batch_id: The id of the batch.
        absent: The response to store for a request whose line is missing or cannot be read.
        prices: The prices that give an answer's cost.
        gone: Why no request has a line; `None` if there was a download.
    """

    batch_id: str
    absent: Absent
    prices: Prices
    gone: str | None = None

    def parse(self, group: LineGroup) -> ParsedGroup:
        """Parse lines: as many as possible at once, the others one by one."""
        plain = parse_plain(group, self.prices)
        if plain is not None and len(plain.positions) == len(group.starts):
            return ParsedGroup(group.first, _batch(plain.columns))
        is_left = np.ones(len(group.starts), dtype=bool)
        if plain is not None:
            is_left[plain.positions] = False
        left = np.flatnonzero(is_left)
        reading = _Reading(self)
        # One flat list of values, row after row: a tuple per row would keep the garbage collector busy.
        values = [value for position in left.tolist() for value in reading.row(group.line(position))]
        read: dict[str, Any] = {name: values[number::_WIDTH] for number, name in enumerate(ParsedLine._fields)}
        columns = {field.name: pa.array(read[field.name], field.type) for field in PARSED_SCHEMA}
        if plain is not None:
            order = pa.array(np.argsort(np.concatenate([plain.positions, left])))
            columns = {
                name: pa.concat_arrays([plain.columns[name], column]).take(order)
                for name, column in columns.items()
            }
        return ParsedGroup(group.first, _batch(columns), reading.unreadable, reading.odd)


class _Reading:
    """Reads lines one by one, and counts those that cannot be stored.

    Attributes:
        unreadable: See `ParsedGroup`.
        odd: See `ParsedGroup`.
    """

    def __init__(self, parser: LineParser) -> None:
        self._parser = parser
        self.unreadable = self.odd = 0

    def row(self, line: bytes | None) -> ParsedLine:
        """Return the values of a request's line, or those stored without one."""
        parser = self._parser
        if line is None:
            problem = parser.gone or f"the results of {parser.batch_id} have no line for it"
        else:
            try:
                return parse_line(line, parser.prices)
            except OddLineError as error:  # answered and paid for: downloading or asking again brings nothing
                self.odd += 1
                return _values(ODD, f"its result line cannot be stored: {error}", line)
            except ValueError as error:
                self.unreadable += 1
                return _values(parser.absent, f"its result line cannot be read: {error}", line)
        return _values(parser.absent, problem)


def _batch(columns: dict[str, pa.Array]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([columns[name] for name in PARSED_SCHEMA.names], schema=PARSED_SCHEMA)


def _values(absent: Absent, problem: str, line: bytes | None = None) -> ParsedLine:
    """Return the values of a request without an answer, with the line as it came."""
    return ParsedLine(
        result_type=absent.result_type,
        error_type=absent.error_type,
        error_message=problem,
        response_json=raw_line(line) if line is not None else None,
    )
