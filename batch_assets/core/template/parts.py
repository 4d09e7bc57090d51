"""The parts of compiled params: constant bytes, and functions that render the bytes for a row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from batch_assets.core.errors import ErrorType
from batch_assets.core.template.template_strings import Row
from batch_assets.core.template.values import Check, RowRejectedError, as_text, dump, reason, sent

Part = bytes | Callable[[Row], bytes]
Entry = list[Part] | tuple[Callable[[Row], Any], str, Check]
"""An entry of a list: its parts, or (an expression over the row, the field of the entry, its check)."""


def as_it_is(value: Any, field: str) -> Any:
    """A check that accepts any value."""
    return value


class PlainText:
    """A part that joins text and columns like Jinja. Null renders as nothing.

    Args:
        pieces: (whether it is a column, text or name of the column).
        field: The field, for errors.
        check: The check of the rendered text.
        text: Returns the text of a value that is neither text, bytes nor null. May raise anything.

    Attributes:
        pieces: The argument `pieces`.
        text: The argument `text`.
        may_not_be_blank: Whether a row decides if the text is blank, and a blank one is rejected.
    """

    def __init__(
        self, pieces: list[tuple[bool, str]], field: str, check: Check, text: Callable[[Any], str] = str
    ) -> None:
        self.pieces, self._field, self._check, self.text = pieces, field, check, text
        self._constant = ["" if is_column else text for is_column, text in pieces]
        self._columns = [(position, text) for position, (is_column, text) in enumerate(pieces) if is_column]
        self.may_not_be_blank = check is as_text and not any(
            text and not text.isspace() for text in self._constant
        )

    def __call__(self, row: Row) -> bytes:
        """Render the text of a row as JSON.

        Raises:
            RowRejectedError: When the text is refused.
        """
        texts = self._constant.copy()
        for position, column in self._columns:
            value = row[column]
            if type(value) is str:
                texts[position] = value
            elif type(value) is bytes:
                return dump(as_text(value, self._field), self._field)
            elif value is not None:
                try:
                    texts[position] = self.text(value)
                except Exception as error:
                    raise RowRejectedError(ErrorType.TEMPLATE_ERROR, f"{self._field}: {reason(error)}") from None
        return sent("".join(texts), self._field, self._check)


class WholeColumn:
    """A part that is one column, whose value keeps its type.

    Args:
        column: The name of the column.
        render: Renders the value of a row as JSON, or rejects the row.
        may_not_be_blank: See `PlainText`. Nulls are rejected as well.

    Attributes:
        pieces: See `PlainText`. They render any text that is not rejected.
        may_not_be_blank: The argument `may_not_be_blank`.
    """

    def __init__(self, column: str, render: Callable[[Row], bytes], *, may_not_be_blank: bool) -> None:
        self.pieces, self._render, self.may_not_be_blank = [(True, column)], render, may_not_be_blank

    def __call__(self, row: Row) -> bytes:
        """Render the value of a row as JSON.

        Raises:
            RowRejectedError: When the value is refused.
        """
        return self._render(row)


def items(value: Any, field: str, check: Check) -> list[bytes]:
    """Return the entries that the value of an expression adds to a list, as JSON.

    Args:
        value: The value of the expression. A list is spliced in, and null adds nothing.
        field: The field of the expression.
        check: The check of each entry.
    """
    if value is None:
        return []
    if not isinstance(value, list | tuple):
        return [sent(value, field, check)]
    fields = [f"{field}[{position}]" for position in range(len(value))]
    return [sent(item, item_field, check) for item, item_field in zip(value, fields, strict=True)]


def splicing_list(entries: list[Entry], field: str, may_be_empty: bool) -> Callable[[Row], bytes]:
    """Return a function that renders a list in which some entries are expressions over the row.

    Args:
        entries: The entries.
        field: The field of the list.
        may_be_empty: Whether the list may end up without entries.
    """

    def render(row: Row) -> bytes:
        rendered: list[bytes] = []
        for entry in entries:
            if isinstance(entry, list):
                rendered.append(b"".join([part if type(part) is bytes else part(row) for part in entry]))  # type: ignore[operator]
            else:
                evaluate, entry_field, check = entry
                rendered += items(evaluate(row), entry_field, check)
        if not rendered and not may_be_empty:
            raise RowRejectedError(ErrorType.EMPTY_PROMPT, f"{field}: no entry of the list is left")
        return b"[" + b",".join(rendered) + b"]"

    return render


def merge(parts: list[Part]) -> list[Part]:
    """Return the parts with adjacent constant parts joined."""
    merged: list[Part] = []
    for part in parts:
        if isinstance(part, bytes) and merged and isinstance(merged[-1], bytes):
            merged[-1] += part
        else:
            merged.append(part)
    return merged
