"""Markdown for metadata and descriptions: tables, lists, code, and text from data, which never acts as markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg

from batch_assets.core.quoting import printable

_CELL = 120
_MARKS = re.compile(r"[\\`*_<>\[\]|#&~]")


def table(columns: Sequence[str], rows: Iterable[Mapping[str, Any]], note: str = "") -> dg.MarkdownMetadataValue:
    """Return rows as a Markdown table. Long values are cut.

    Args:
        columns: The names of the columns to show.
        rows: The rows.
        note: Markdown that follows the table.
    """
    lines = ["| " + " | ".join(map(_cell, columns)) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(_cell(row.get(name)) for name in columns) + " |" for row in rows]
    return dg.MetadataValue.md("\n".join([*lines, *(["", note] if note else [])]))


def bullets(items: Iterable[str]) -> str:
    """Return a list of items of Markdown. As lines of one text, they would run together.

    Args:
        items: The items, each of one line.
    """
    return "\n".join(f"- {item}" for item in items)


def fenced(text: str, language: str = "") -> str:
    """Return a code block with the text. Its fence is longer than any in the text."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}{'' if text.endswith(chr(10)) else chr(10)}{fence}"


def code(text: str) -> str:
    """Return a text as code within a line. Its fence is longer than any in the text."""
    text = printable(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{space}{text}{space}{fence}"


def plain(text: str) -> str:
    """Return a text for a line, in which no character acts as markup."""
    return _MARKS.sub(r"\\\g<0>", printable(text))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = " ".join(str(value).split())
    if len(text) > _CELL:
        text = text[: _CELL - 1] + "…"
    return plain(text)
