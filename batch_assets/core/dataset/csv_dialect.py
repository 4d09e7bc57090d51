"""The rules by which a CSV file is split into records and fields, as regular expressions.

The rules are those of Arrow: a quote counts only where a field begins or where it closes a field. Text after a
closing quote, which Arrow accepts, matches no expression here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Dialect:
    """How a CSV file is written.

    Attributes:
        delimiter: The character between fields.
        quote: The character around fields; b"" if quotes have no meaning.
        escape: The character after which the next one is taken literally; b"" if there is none.
    """

    delimiter: bytes
    quote: bytes
    escape: bytes

    @cached_property
    def plain_field(self) -> re.Pattern[bytes]:
        """A field without quotes around it. It may be empty."""
        return re.compile(self._plain, re.DOTALL)

    @cached_property
    def quoted_field(self) -> re.Pattern[bytes]:
        """A field with quotes around it, which may contain line breaks."""
        return re.compile(self._quoted(b""), re.DOTALL)

    @cached_property
    def proper_quotes(self) -> re.Pattern[bytes]:
        """Everything before the first quoted field that has a line break, is not closed, or has text after it.

        A quote within a field without quotes around it is ordinary text. Applies only without an escape character.
        """
        delimiter, quote = re.escape(self.delimiter), re.escape(self.quote)
        at_field, inner = b"(?<![^" + delimiter + b"\r\n])", b"[^" + delimiter + b"\r\n]*+"
        quoted = at_field + self._quoted(b"\r\n") + b"(?=[" + delimiter + b"\r\n])"
        unquoted = b"(?<=[^" + delimiter + b"\r\n])" + quote + inner
        return re.compile(b"(?:[^" + quote + b"]*+(?:" + quoted + b"|" + unquoted + b"))*+", re.DOTALL)

    @cached_property
    def fields(self) -> re.Pattern[bytes]:
        """The fields of a record to its end, or to a quoted field that is not closed or has text after it."""
        delimiter, field = re.escape(self.delimiter), self._field(b"")
        return re.compile(b"(?:" + field + delimiter + b")*+(?:" + field + b")?+", re.DOTALL)

    def last_break(self, content: bytes | bytearray) -> bytes:
        """Return the line break that a file without one at its end needs.

        An escape character at the end has nothing to escape, so it is text.
        """
        run = len(content) - len(content.rstrip(self.escape)) if self.escape else 0
        return self.escape + b"\n" if run % 2 else b"\n"

    def record(self, fields: int) -> re.Pattern[bytes]:
        """Blank lines and one record, the first group, with a number of fields that have no line breaks."""
        return re.compile(b"[\r\n]*+(" + self._record(fields) + b")", re.DOTALL)

    def records(self, fields: int) -> re.Pattern[bytes]:
        """Any number of such records and blank lines."""
        return re.compile(b"(?:[\r\n]*+" + self._record(fields) + b")*+[\r\n]*+", re.DOTALL)

    def _record(self, fields: int) -> bytes:
        delimiter, field = re.escape(self.delimiter), self._field(b"\r\n")
        return field + b"(?:" + delimiter + field + b"){%d}+(?:\r\n?|\n)" % (fields - 1)

    def _field(self, excluded: bytes) -> bytes:
        if not self.quote:
            return b"(?:" + self._plain + b")"
        quoted = self._quoted(excluded) + b"(?=[" + re.escape(self.delimiter) + b"\r\n])"
        return b"(?:" + quoted + b"|(?!" + re.escape(self.quote) + b")" + self._plain + b")"

    @property
    def _plain(self) -> bytes:
        literal = b"[^\r\n" + re.escape(self.delimiter) + re.escape(self.escape) + b"]*+"
        return self._with_escapes(literal, b"")

    def _quoted(self, excluded: bytes) -> bytes:
        quote = re.escape(self.quote)
        literal = b"[^" + excluded + quote + re.escape(self.escape) + b"]*+"
        return quote + self._with_escapes(literal, excluded, quote + quote) + quote

    def _with_escapes(self, literal: bytes, excluded: bytes, *others: bytes) -> bytes:
        marks = list(others)
        if self.escape:
            marks.append(re.escape(self.escape) + (b"[^" + excluded + b"]" if excluded else b"."))
        return literal + b"(?:(?:" + b"|".join(marks) + b")" + literal + b")*+" if marks else literal
