"""A CSV file as a stream in which every record is whole, readable and within bounds, for Arrow to take apart.

Arrow accepts text after a closing quote, an unclosed quote and invalid UTF-8, and needs a block as long as the
longest record. So the content is checked first. What does not fit is an error with the file and the line, or its
record becomes an empty one and is remembered as rejected.
"""

from __future__ import annotations

import codecs
import io
import re
from typing import BinaryIO, NoReturn

from batch_assets.core.dataset.bounds import COLUMNS, LINE_BYTES, long_line, too_many_columns
from batch_assets.core.dataset.csv_checks import GuardOptions, first_invalid, has_inner_mark
from batch_assets.core.dataset.csv_dialect import Dialect
from batch_assets.core.dataset.csv_faults import (
    INNER_MARK,
    NEVER_CLOSED,
    invalid_bytes,
    swallowed_rows,
    text_after_quote,
    wrong_count,
)
from batch_assets.core.dataset.csv_line_count import LineCount
from batch_assets.core.dataset.csv_swallowed import UnfinishedRowError, line_start, swallowed_lines
from batch_assets.core.errors import DatasetError, ErrorType

_BLOCK_BYTES = 1 << 20
_LINE_BREAK = re.compile(rb"[\r\n]")
_BLANK_LINES = re.compile(rb"[\r\n]+")


class _Fault(Exception):
    """A record that does not fit.

    Attributes:
        line_at: The position in the buffer of the line to name.
        end: The position after what has to be left out.
        problem: What is wrong.
    """

    def __init__(self, line_at: int, end: int, problem: str) -> None:
        self.line_at, self.end, self.problem = line_at, end, problem
        super().__init__(problem)


class CsvGuard(io.RawIOBase):
    """The checked content of a CSV file.

    Args:
        file: The content in UTF-8, without a byte order mark.
        dialect: How the file is written.
        options: What to check.

    Attributes:
        dialect: As given.
        columns: The number of columns; 0 if the file is empty.
        longest: The most bytes that had to be read to find the end of a record.
        rejected: If records are rejected, the (error type, text) of each by the number of its row, from 0. The
            reader removes those it has used.

    Raises:
        DatasetError: From the constructor and from reads, when the content does not fit. Names the file and line.
    """

    def __init__(self, file: BinaryIO, dialect: Dialect, options: GuardOptions) -> None:
        self._file, self.dialect, self._options = file, dialect, options
        self._buffer = bytearray()
        self._ended = False
        self._ready = memoryview(b"")
        self._lines = LineCount(self._buffer, options.first_line)
        self._rows = 0
        # How much of the buffer has no other quote than the one that opens a field in the first record.
        self._open: int | None = None
        self.longest = 0
        self.rejected: dict[int, tuple[str, str]] = {}
        self.columns = options.columns or 0
        self.columns = self.columns or self._read_header()
        if self.columns:
            self._record = dialect.record(self.columns)
            self._records = dialect.records(self.columns)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Return `size` bytes, by default everything; less only at the end. Arrow's blocks are what it gets."""
        if size < 0:
            return b"".join(iter(lambda: self.read(_BLOCK_BYTES), b""))
        pieces: list[bytes] = []
        while size and (self._ready or (self.columns and not (self._ended and not self._buffer))):
            if not self._ready:
                self._ready = memoryview(self._next())
            pieces.append(bytes(self._ready[:size]))
            self._ready = self._ready[size:]
            size -= len(pieces[-1])
        return b"".join(pieces)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()

    def _next(self) -> bytes:
        """The next records."""
        if self._options.is_checked:
            return self._unchecked()
        if len(self._buffer) < _BLOCK_BYTES:
            self._fill()
        while True:
            scan = self._exact if self._options.is_exact or self._options.rejects else self._fast
            content, end = scan()
            if end or self._ended:
                self._take(end)
                return content
            self._fill()

    def _unchecked(self) -> bytes:
        content = bytes(self._buffer) or self._file.read(_BLOCK_BYTES)
        self._buffer.clear()
        self._ended = not content
        return content

    def _fill(self) -> None:
        """Read more.

        While a record has no end, as much again as there is, so that it is scanned a few times only.
        """
        size = max(_BLOCK_BYTES, len(self._buffer))
        if len(self._buffer) > LINE_BYTES:
            self._fail(0, "")
        self.longest = max(self.longest, len(self._buffer))
        goal = min(len(self._buffer) + size, LINE_BYTES + _BLOCK_BYTES)
        while len(self._buffer) < goal and not self._ended:
            block = self._file.read(min(_BLOCK_BYTES, goal - len(self._buffer)))
            self._ended = not block
            self._buffer += block
        if self._ended and self._buffer and not self._buffer.endswith((b"\n", b"\r")):
            self._buffer += self.dialect.last_break(self._buffer)

    def _take(self, end: int) -> None:
        """Remove content from the buffer."""
        self._lines.leave(end)
        del self._buffer[:end]

    def _fail(self, position: int, problem: str) -> NoReturn:
        line = self._lines.at(position)
        if not problem:
            remedy = f"A quote that opens in line {line} may not be closed" if self.dialect.quote else ""
            raise long_line(self._options.name, line, remedy)
        raise DatasetError(f"{self._options.name}, line {line}: {problem}")

    def _read_header(self) -> int:
        """Read the header and put it where the next read finds it. Returns the number of columns."""
        self._fill()
        while True:
            if (match := _BLANK_LINES.match(self._buffer)) is not None:
                self._take(match.end())
            try:
                if not self._buffer:
                    raise UnfinishedRowError
                fields, end = self._parse(0)
                break
            except UnfinishedRowError:
                if self._ended:
                    return 0
                self._fill()
            except _Fault as fault:
                self._fail(fault.line_at, fault.problem)
        name, header = self._options.name, bytes(self._buffer[:end])
        try:
            header.decode()
        except UnicodeDecodeError as error:
            line, text = self._lines.at(0), invalid_bytes(header, error, "utf-8", can_reject=False)
            raise DatasetError(f"{name}: the header is not valid UTF-8: line {line}: {text}") from None
        if header.startswith(codecs.BOM_UTF8):
            self._fail(0, INNER_MARK)
        self._ready = memoryview(b"" if self._options.drops_header else header)
        self._take(end)
        return fields

    def _parse(self, start: int) -> tuple[int, int]:
        """Take one record apart, field by field.

        Args:
            start: The position of the record.

        Returns:
            The number of its fields, and the position after it.
        """
        buffer, dialect, at, fields = self._buffer, self.dialect, start, 1
        while True:
            if dialect.quote and buffer[at : at + 1] == dialect.quote:
                at = self._closing(at)
            elif (match := dialect.plain_field.match(buffer, at)) is not None:
                at = match.end()
            mark = buffer[at : at + 1]
            if not mark or mark == dialect.escape:
                if self._ended:  # an escape character at the end
                    return fields, at
                raise UnfinishedRowError
            at += 1
            if mark == dialect.delimiter:
                fields += 1
                if fields > COLUMNS:
                    self._too_many(start, at)
                continue
            if mark == b"\r" and buffer[at : at + 1] == b"\n":
                at += 1
            return fields, at

    def _too_many(self, start: int, at: int) -> NoReturn:
        """Refuse a record with more fields than a dataset has columns, without taking all of it apart.

        Args:
            start: The position of the record.
            at: The position of its first field beyond the limit.
        """
        delimiter, name = self.dialect.delimiter, self._options.name
        if not self.columns:
            count = self._buffer.count(delimiter, start, self._line_end(start)) + 1
            raise too_many_columns(max(count, COLUMNS + 1), f"{name}, line {self._lines.at(start)}")
        end = self._record_end(at) if self._options.rejects else self._line_end(at)
        if end == len(self._buffer) and not self._ended:
            raise UnfinishedRowError
        fields = f"{self._buffer.count(delimiter, start, end) + 1}"
        may_be_text = self._has_marks(start, end)  # some of the delimiters
        raise self._wrong_count(start, end, f"more than {COLUMNS:,}" if may_be_text else fields)

    def _record_end(self, at: int) -> int:
        """The position after a record, from the position of one of its fields on."""
        end = self._line_end(at)
        if not self._has_marks(at, end):
            return end
        fields = self.dialect.fields.match(self._buffer, at)
        at = fields.end() if fields is not None else at
        if self.dialect.quote and self._buffer[at : at + 1] == self.dialect.quote:
            at = self._closing(at)
        return self._line_end(at)

    def _has_marks(self, start: int, end: int) -> bool:
        """Whether there are quotes or escape characters."""
        marks = [mark for mark in (self.dialect.quote, self.dialect.escape) if mark]
        return any(self._buffer.find(mark, start, end) >= 0 for mark in marks)

    def _wrong_count(self, start: int, end: int, fields: str) -> _Fault:
        excerpt = self._excerpt(start, min(end, start + 200))
        has_header, quotes = self._options.columns is None, bool(self.dialect.quote)
        return _Fault(start, end, wrong_count(fields, self.columns, has_header, excerpt, quotes=quotes))

    def _closing(self, opening: int) -> int:
        """The position after the closing quote of the field that opens at a position."""
        buffer, dialect = self._buffer, self.dialect
        match = dialect.quoted_field.match(buffer, opening)
        if match is None:
            if not self._ended:
                raise UnfinishedRowError
            raise _Fault(opening, self._line_end(opening), NEVER_CLOSED)
        end = match.end()
        follower = buffer[end : end + 1]
        if not follower and not self._ended:
            raise UnfinishedRowError
        if follower and follower not in b"\r\n" + dialect.delimiter:
            begin = line_start(self._buffer, end)
            excerpt = self._excerpt(max(begin, end - 40), end + 40)
            problem = text_after_quote(excerpt, buffer[end - 2 : end - 1], dialect.escape)
            raise _Fault(end, self._line_end(opening), problem)
        if not self._options.allows_rows_in_quotes:
            self._check_lines(opening, end)
        return end

    def _check_lines(self, opening: int, end: int) -> None:
        """Check that a quoted field has not swallowed whole rows."""
        delimiter = self.dialect.delimiter
        lines = swallowed_lines(self._buffer, opening, end, delimiter, self.columns, has_ended=self._ended)
        if lines is not None:
            first, last = map(self._lines.at, lines)
            raise _Fault(opening, self._line_end(opening), swallowed_rows(first, last))

    def _line_end(self, position: int) -> int:
        """The position after the line break that ends a line."""
        match = _LINE_BREAK.search(self._buffer, position)
        if match is None and not self._ended and self._options.rejects:
            raise UnfinishedRowError
        end = match.end() if match is not None else len(self._buffer)
        return end + 1 if self._buffer[end - 1 : end + 1] == b"\r\n" else end

    def _fast(self) -> tuple[bytes, int]:
        """Check quotes and UTF-8. Returns the whole records in the buffer and the position after them."""
        buffer, dialect = self._buffer, self.dialect
        at = end = 0
        if self._open is not None and not self._ended and buffer.find(dialect.quote, self._open) < 0:
            self._open = len(buffer)
            return b"", 0
        self._open = None
        while True:
            opening = buffer.find(dialect.quote, at) if dialect.quote else -1
            if opening >= 0 and (match := dialect.proper_quotes.match(buffer, at)) is not None:
                opening = buffer.find(dialect.quote, match.end())
            stop = opening if opening >= 0 else len(buffer)
            # A line break between quoted fields ends a record.
            last = buffer.rfind(b"\n", at, stop)
            end = max(end, last + 1, buffer.rfind(b"\r", max(at, last), stop) + 1)
            if opening < 0:
                break
            try:
                at = self._closing(opening)
            except UnfinishedRowError:
                if not end and buffer.find(dialect.quote, opening + 1) < 0:
                    self._open = len(buffer)
                break
            except _Fault as fault:
                self._fail(fault.line_at, fault.problem)
        content = bytes(memoryview(buffer)[:end])
        if not content.isascii():
            if has_inner_mark(content):
                return self._exact()
            if (problem := first_invalid(memoryview(content))) is not None:
                self._fail(problem[0], self._invalid(problem[1].object, problem[1]))
        return content, end

    def _invalid(self, content: bytes, error: UnicodeDecodeError) -> str:
        options = self._options
        return invalid_bytes(content, error, options.encoding, can_reject=not options.rejects)

    def _exact(self) -> tuple[bytes, int]:
        """Check every record. Returns the whole records in the buffer and the position after them."""
        pieces: list[bytes] = []
        at = 0
        while at < len(self._buffer):
            match = self._records.match(self._buffer, at)
            start, at = at, match.end() if match is not None else at
            pieces += self._checked(start, at)
            if at == len(self._buffer):
                break
            try:
                at = self._check_one(at, pieces)
            except UnfinishedRowError:
                break
        return b"".join(pieces), at

    def _check_one(self, start: int, pieces: list[bytes]) -> int:
        """Check a record that has line breaks in a field, or does not fit."""
        try:
            fields, end = self._parse(start)
            if fields != self.columns:
                raise self._wrong_count(start, end, f"{fields}")
            pieces += self._as_valid(bytes(self._buffer[start:end]), start)
        except _Fault as fault:
            if not self._options.rejects:
                self._fail(fault.line_at, fault.problem)
            end = fault.end
            self._reject(fault.line_at, ErrorType.UNREADABLE_ROW, fault.problem)
            pieces.append(self.dialect.delimiter * (self.columns - 1) + b"\n")
            self._rows += 1
        return end

    def _excerpt(self, start: int, end: int) -> bytes:
        """Return content to quote in an error.

        The text of a rejected row is stored and has none: a row without a key could not be found to erase it.
        """
        return bytes(self._buffer[start:end]) if not self._options.rejects else b""

    def _checked(self, start: int, end: int) -> list[bytes]:
        """Records that have the right number of fields, for rejects counted and without blank lines."""
        content = bytes(memoryview(self._buffer)[start:end])
        if content.isascii() or not (has_inner_mark(content) or first_invalid(memoryview(content))):
            if not self._options.rejects:
                return [content]
            records = self._record.findall(content)
            self._rows += len(records)
            return records
        records = []
        for match in self._record.finditer(content):
            records += self._as_valid(match[1], start + match.start(1))
        return records

    def _as_valid(self, record: bytes, start: int) -> list[bytes]:
        try:
            record.decode()
        except UnicodeDecodeError as error:
            problem = self._invalid(record, error)
            if not self._options.rejects:
                self._fail(start + error.start, problem)
            self._reject(start + error.start, ErrorType.INVALID_UNICODE, problem)
            record = record.decode(errors="replace").encode()
        if record.startswith(codecs.BOM_UTF8):
            if not self._options.rejects:
                self._fail(start, INNER_MARK)
            self._reject(start, ErrorType.UNREADABLE_ROW, INNER_MARK)
        self._rows += 1
        return [record]

    def _reject(self, position: int, error_type: ErrorType, problem: str) -> None:
        text = f"{self._options.name}, line {self._lines.at(position)}: {problem}"
        self.rejected[self._rows] = (error_type, text)
