"""The parts of compiled params: bytes that every row has, and what gives the bytes of a row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from batch_assets.core.template.template_strings import Row
from batch_assets.core.template.values import RowRejectedError, as_text, dump

Part = bytes | Callable[[Row], bytes]
Check = Callable[[Any, str], Any]
"""(value, field) -> the value as the API takes it there; raises RowRejectedError"""
Entry = list[Part] | tuple[Callable[[Row], Any], str, Check]
"""What a list holds: the parts of an entry, or an expression over the row, the entry's field and its check."""


def as_it_is(value: Any, field: str) -> Any:
    """The check of what may be anything."""
    return value


def plain(parts: list[tuple[bool, str]], field: str, check: Check) -> Callable[[Row], bytes]:
    """Text and columns, put together as Jinja would: null is nothing, everything else its text."""
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
    """What an expression in a list adds to it."""
    if value is None:
        return []
    if not isinstance(value, list | tuple):
        return [dump(check(value, field), field)]
    places = [f"{field}[{position}]" for position in range(len(value))]
    return [dump(check(item, place), place) for item, place in zip(value, places, strict=True)]


def splicing_list(entries: list[Entry], field: str, may_be_empty: bool) -> Callable[[Row], bytes]:
    """A list of which some entries are expressions over the row."""

    def render(row: Row) -> bytes:
        found: list[bytes] = []
        for entry in entries:
            if isinstance(entry, list):
                found.append(b"".join([part if type(part) is bytes else part(row) for part in entry]))  # type: ignore[operator]
            else:
                evaluate, place, check = entry
                found += items(evaluate(row), place, check)
        if not found and not may_be_empty:
            raise RowRejectedError("empty_prompt", f"{field}: nothing is left of the list")
        return b"[" + b",".join(found) + b"]"

    return render


def merge(parts: list[Part]) -> list[Part]:
    """The same with constant parts that follow each other made one."""
    merged: list[Part] = []
    for part in parts:
        if isinstance(part, bytes) and merged and isinstance(merged[-1], bytes):
            merged[-1] += part
        else:
            merged.append(part)
    return merged
