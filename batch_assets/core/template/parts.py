"""The parts of compiled params: constant bytes, and functions that render the bytes for a row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from batch_assets.core.errors import ErrorType
from batch_assets.core.template.template_strings import Row
from batch_assets.core.template.values import RowRejectedError, as_text, dump

Part = bytes | Callable[[Row], bytes]
Check = Callable[[Any, str], Any]
"""Takes (value, field), and returns the value as the API accepts it there or raises RowRejectedError."""
Entry = list[Part] | tuple[Callable[[Row], Any], str, Check]
"""An entry of a list: its parts, or (an expression over the row, the field of the entry, its check)."""


def as_it_is(value: Any, field: str) -> Any:
    """A check that accepts any value."""
    return value


def plain(parts: list[tuple[bool, str]], field: str, check: Check) -> Callable[[Row], bytes]:
    """Return a function that joins text and columns like Jinja. Null renders as nothing.

    Args:
        parts: (whether it is a column, text or name of the column).
        field: The field, for errors.
        check: The check of the rendered text.
    """
    constant = ["" if is_column else part for is_column, part in parts]
    columns = [(position, part) for position, (is_column, part) in enumerate(parts) if is_column]

    def render(row: Row) -> bytes:
        pieces = constant.copy()
        for position, column in columns:
            value = row[column]
            if type(value) is str:
                pieces[position] = value
            elif type(value) is bytes:
                return dump(as_text(value, field), field)
            elif value is not None:
                pieces[position] = str(value)
        return dump(check("".join(pieces), field), field)

    return render


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
        return [dump(check(value, field), field)]
    fields = [f"{field}[{position}]" for position in range(len(value))]
    return [dump(check(item, item_field), item_field) for item, item_field in zip(value, fields, strict=True)]


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
