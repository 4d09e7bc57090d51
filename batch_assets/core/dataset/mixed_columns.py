"""Columns of CSV files that are text because of a few values, which a user may not have expected."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import shorten

import pyarrow as pa

from batch_assets.core.text import count

_SHOWN = 40
_NOUNS = {
    pa.int64(): ("a whole number", "whole numbers"),
    pa.float64(): ("a decimal number as Python prints it, such as 2.5", "decimal numbers"),
    pa.bool_(): ("True or False", "booleans"),
    pa.date32(): ("a date such as 2024-01-31", "dates"),
    pa.timestamp("us"): ("a timestamp without a time zone", "timestamps"),
    pa.timestamp("us", "UTC"): ("a timestamp with a time zone", "timestamps"),
}


@dataclass(frozen=True)
class MixedColumn:
    """A column that is text because of a small share of its values.

    Attributes:
        column: Its name.
        type: The type that the other values have.
        values: The number of its values that are not null.
        misfits: The number of those that do not have the type.
        first: The first of them.
        location: The file and the line that have it.
    """

    column: str
    type: pa.DataType
    values: int
    misfits: int
    first: str
    location: str

    @property
    def kind(self) -> str:
        """What the other values are."""
        return _NOUNS[self.type][1]

    @property
    def first_value(self) -> str:
        """The first value that does not fit, and where it is."""
        return f"{shorten(self.first, _SHOWN, placeholder='…')!r} ({self.location})"

    @property
    def as_text(self) -> str:
        """The problem and what to do, as one text."""
        noun, nouns = _NOUNS[self.type]
        misfits = f"{self.misfits:,} of {count(self.values, 'value')} {'is' if self.misfits == 1 else 'are'}"
        return (
            f"The column {self.column!r} is read as text, because {misfits} not {noun}: first {self.first_value}. "
            f"It stays text when these values are gone. To read it as {nouns}, leave their cells empty or name "
            f"them in dataset.csv.null_values, and set dataset.types: {{{self.column}: {_alias(self.type)}}}"
        )


def _alias(type_: pa.DataType) -> str:
    return str(type_).replace("date32[day]", "date32").replace("tz=", "")
