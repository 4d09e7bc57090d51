"""Group rows by why they failed: by the cause in their error message, not by the position that it names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from batch_assets.core.answers.answers import TRUNCATED

UNEXPECTED = "unexpected value"
"""The start of the error for an answer with a value that its enum does not have."""
# More causes than this are counted together: messages may have parts that we do not know, such as ids.
_MOST = 100
# Where an answer is not JSON, and the value in an answer that breaks the schema.
_POSITION = re.compile(r": line \d+ column \d+ \(char \d+\)")
_VALUE = re.compile(r"^(the property '.*?') is .*, (?=not |which |of \d|too large)")
_UNEXPECTED = re.compile(rf"^{UNEXPECTED} .* (?=of the property ')")
# Names of properties may have digits. Outside of quotes, a number is that of a position, a length or the like.
_QUOTED = re.compile(r"('[^']*')")
_NUMBER, _NUMBER_IN_PATH = re.compile(r"\d+"), re.compile(r"\[\d+\]")
# What follows the name of a cause in an answer that is not whole is only where it broke off.
_CUT = tuple(TRUNCATED.values())


@dataclass
class Cause:
    """Rows that failed for one cause.

    Attributes:
        kind: Their error type; "" if that tells no more than the message.
        example: The message of the first of them; "" if it has none.
        rows: Their number.
        is_varied: Whether others have another message.
    """

    kind: str
    example: str
    rows: int = 0
    is_varied: bool = False

    def as_text(self, most: int) -> str:
        """Return the cause for users.

        Args:
            most: At most this many characters of the message are shown.
        """
        cut = self.example if len(self.example) <= most else f"{self.example[: most - 1]}…"
        if not cut:
            return self.kind or "without a reason"
        if self.is_varied:
            return f"{self.kind or 'answers'}, such as: {cut}"
        return f"{self.kind}: {cut}" if self.kind else cut


@dataclass
class Causes:
    """Rows by cause.

    Attributes:
        others: The number of rows with further causes, which are counted together.
        keeps_values: Whether each value that an enum does not have is a cause of its own.
    """

    others: int = 0
    keeps_values: bool = False
    _by_cause: dict[tuple[str, str], Cause] = field(default_factory=dict)

    def add(self, kind: str, message: str, rows: int = 1) -> None:
        """Count rows.

        Args:
            kind: Their error type; "" if that tells no more than the message.
            message: Their error message; "" if there is none.
            rows: Their number.
        """
        key = self._key(kind, message)
        if key not in self._by_cause:
            if len(self._by_cause) >= _MOST:
                self.others += rows
                return
            self._by_cause[key] = Cause(kind, message)
        cause = self._by_cause[key]
        cause.rows += rows
        cause.is_varied |= cause.example != message

    def update(self, other: Causes) -> None:
        """Add the rows of another table."""
        self.keeps_values |= other.keeps_values
        for cause in other:
            self.add(cause.kind, cause.example, cause.rows)
            if (same := self._by_cause.get(self._key(cause.kind, cause.example))) is not None:
                same.is_varied |= cause.is_varied
        self.others += other.others

    def _key(self, kind: str, message: str) -> tuple[str, str]:
        return kind, without_varying(message, keeps_values=self.keeps_values)

    def total(self) -> int:
        """Return the number of all rows."""
        return self.others + sum(cause.rows for cause in self._by_cause.values())

    def __iter__(self) -> Iterator[Cause]:
        """Yield the causes, the most frequent first."""
        yield from sorted(self._by_cause.values(), key=lambda cause: -cause.rows)


def without_varying(message: str, *, keeps_values: bool = False) -> str:
    """Return what messages with the same cause have in common.

    Args:
        message: An error message.
        keeps_values: Whether a value that an enum does not have is a part of it.
    """
    if (cut := next((cut for cut in _CUT if message.startswith(cut)), None)) is not None:
        return cut
    message = _VALUE.sub(r"\1 is …, ", _POSITION.sub("", message))
    if not keeps_values:
        message = _UNEXPECTED.sub(f"{UNEXPECTED} ", message)
    parts = _QUOTED.split(message)  # every other part is quoted
    patterns = (_NUMBER, _NUMBER_IN_PATH)
    return "".join(patterns[number % 2].sub("#", part) for number, part in enumerate(parts))
